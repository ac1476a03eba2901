"""pyramid_retry, alone and with pyramid_tm: attempts, transactions, bodies."""

import asyncio

from addons import Ask, add_views, crowded, crowded_by_few, pause, site_of
from pyramid.threadlocal import get_current_request
from pyramid_retry import BeforeRetry, RetryableException, is_last_attempt
from transaction.interfaces import TransientError

ATTEMPTS = 3

# What became of transactions, by the name of their request.
outcomes = {}
retried = {}


class Recorder:
    """A data manager: records what becomes of the transaction it has joined."""

    def __init__(self, request):
        self.transaction_manager = request.tm
        self.request = request
        self.name = request.path
        self.attempt = request.environ["retry.attempt"]

    def _record(self, outcome):
        # A commit that fails is aborted in several ways.
        recorded = outcomes.setdefault(self.name, [])
        if (self.attempt, outcome) not in recorded:
            recorded.append((self.attempt, outcome))

    def tpc_begin(self, transaction): ...

    def commit(self, transaction):
        pause(self.request)

    def tpc_vote(self, transaction):
        assert get_current_request() is self.request
        if self.attempt == 1:
            raise TransientError

    def tpc_finish(self, transaction):
        self._record("committed")

    def abort(self, transaction):
        self._record("aborted")

    def tpc_abort(self, transaction):
        self._record("aborted")

    def sortKey(self):
        return self.name


def page(request):
    """Fails in its first attempt; its second one fails when it is committed."""
    assert request.text == f"body of {request.path}"
    request.tm.get().join(Recorder(request))
    yield
    assert get_current_request() is request
    if request.environ["retry.attempt"] == 0:
        raise RetryableException
    assert is_last_attempt(request) == (request.environ["retry.attempt"] == 2)
    return {"attempt": request.environ["retry.attempt"]}


def report(request):
    path = request.params["path"]
    return {"outcomes": outcomes[path], "retried": retried[path]}


def never(request):
    """Fails in each of its attempts."""
    yield
    raise RetryableException(request.path)


async def failed(error, request):
    await asyncio.sleep(0)
    request.response.status = 503
    attempt = request.environ["retry.attempt"]
    return {
        "failed": str(error),
        "is_own": error.args == (request.path,),
        "attempt": attempt,
    }


async def note(event):
    """A subscriber: between two attempts the old request is still the current one."""
    await asyncio.sleep(0)
    assert get_current_request() is event.request
    retried.setdefault(event.request.path, []).append(type(event.exception).__name__)


def configure(config):
    config.include("pyramid_retry")
    config.include("pyramid_tm")
    config.add_subscriber(note, BeforeRetry)
    add_views(config, "/page/{name}", page, renderer="json")
    add_views(config, "/never/{name}", never, renderer="json")
    config.add_route("report", "/report")
    config.add_view(report, route_name="report", renderer="json")
    config.add_exception_view(failed, context=RetryableException, renderer="json")


SETTINGS = {
    "retry.attempts": ATTEMPTS,
    "tm.manager_hook": "pyramid_tm.explicit_manager",
}
site = site_of(configure, SETTINGS)


@crowded
def test_attempts_have_a_transaction_each(site, crowd):
    paths = crowd.paths(f"/page/{crowd}-{{}}")
    asks = [Ask(path, "POST", body=f"body of {path}".encode()) for path in paths]
    for answer in site.overlap(asks, crowd.order):
        assert answer.json() == {"attempt": 2}
    for path in (paths[0], paths[-1]):
        report = site.ask(f"/report?path={path}").json()
        assert report == {
            "outcomes": [[0, "aborted"], [1, "aborted"], [2, "committed"]],
            "retried": ["RetryableException", "TransientError"],
        }


@crowded_by_few
def test_the_error_of_the_last_attempt_is_answered(site, crowd):
    paths = crowd.paths("/never/{}")
    for path, answer in zip(paths, site.overlap(paths, crowd.order), strict=True):
        assert answer.status == 503
        assert answer.json() == {"failed": path, "is_own": True, "attempt": 2}

"""pyramid_tm: a transaction for each of many requests, in process and on the worker."""

import asyncio

from addons import add_views, crowded, pause, site_of
from pyramid.httpexceptions import HTTPConflict

from aioext import use_executor, wait

# What is in the table; and how each transaction ended, by the name of its request.
rows = set()
outcomes = {}
WHATS = ["commit", "abort", "doom", "veto", "commit"]


class Insert:
    """A data manager: one row, that is there once it is committed."""

    def __init__(self, request, part):
        self.transaction_manager = request.tm
        self.request = request
        self.row = f"{request.path} {part}"

    def tpc_begin(self, transaction): ...

    def commit(self, transaction):
        wait(asyncio.sleep(0))

    def tpc_vote(self, transaction):
        wait(asyncio.sleep(0))

    def tpc_finish(self, transaction):
        rows.add(self.row)
        outcomes.setdefault(self.request.path, []).append("committed")

    def abort(self, transaction):
        wait(asyncio.sleep(0))
        outcomes.setdefault(self.request.path, []).append("aborted")

    def tpc_abort(self, transaction): ...

    def sortKey(self):
        return self.row


@use_executor
def insert_in_thread(request):
    request.tm.get().join(Insert(request, "from a thread"))


def page(request):
    """Joins before and after every other request has, and in a thread in between."""
    request.tm.get().join(Insert(request, "first"))
    yield
    wait(insert_in_thread(request))
    yield
    request.tm.get().join(Insert(request, "last"))
    what = WHATS[int(request.matchdict["number"]) % len(WHATS)]
    if what == "abort":
        raise HTTPConflict(request.path)
    if what == "doom":
        request.tm.doom()
    if what == "veto":
        request.response.status = 400
    return {"user": request.tm.get().user, "note": request.tm.get().description}


class Policy:
    async def authenticated_userid(self, request):
        await asyncio.sleep(0)
        return request.path

    def identity(self, request):
        return None

    def permits(self, request, context, permission):
        return True


def report(request):
    path = request.params["path"]
    names = [f"{path} {part}" for part in ("first", "from a thread", "last")]
    return {"rows": [name in rows for name in names], "outcomes": outcomes[path]}


def pass_by(handler, registry):
    """A tween beneath pyramid_tm's, where others run after the view."""

    def tween(request):
        response = handler(request)
        if request.path != "/report":
            pause(request)
        return response

    return tween


def configure(config):
    config.include("pyramid_tm")
    config.set_security_policy(Policy())
    config.add_tween("test_addon_tm.pass_by", under="pyramid_tm.tm_tween_factory")
    add_views(config, "/{order}/{number}", page, renderer="json")
    config.add_route("report", "/report")
    config.add_view(report, route_name="report", renderer="json")


site = site_of(configure, {"tm.commit_veto": "pyramid_tm.default_commit_veto"})


@crowded
def test_no_request_ends_the_transaction_of_another(site, crowd):
    paths = crowd.paths(f"/{crowd}/{{}}")
    answers = site.overlap(paths, crowd.order)
    for number, (path, answer) in enumerate(zip(paths, answers, strict=True)):
        what = WHATS[number % len(WHATS)]
        if what != "abort":
            assert answer.json() == {"user": path, "note": path}
        if number < 2 * len(WHATS):
            is_committed = what == "commit"
            outcome = "committed" if is_committed else "aborted"
            assert site.ask(f"/report?path={path}").json() == {
                "rows": [is_committed] * 3,
                "outcomes": [outcome] * 3,
            }

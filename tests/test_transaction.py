"""Transactions of pyramid_tm: of one request each, and aborted or committed whole."""

import asyncio
import contextlib
import gc
import logging
import sys
import threading
import types
import weakref

import pyramid_tm
import pytest
import transaction
from asgi import Client
from inprocess import answer, make_app
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.request import Request
from pyramid.response import Response
from pyramid.threadlocal import get_current_request
from pyramid_retry import RetryableException
from sqlalchemy.orm import scoped_session, sessionmaker
from transaction.interfaces import NoTransaction
from webtest import TestApp

from aioext import transaction as guarding
from aioext import wait
from aioext.config.policy import LAST
from aioext.transaction import adapt_transactions, shield
from aioext.tweens import async_tween

TM_TWEEN = "pyramid_tm.tm_tween_factory"

# -- an application that stops at one point --------------------------------------------


class Journey:
    """What a request passes; at the point ``stop`` it waits until it is let go."""

    def __init__(self, stop=None):
        self.stop = stop
        self.passed = []
        self.reached = asyncio.Event()
        self.released = asyncio.Event()

    def reach(self, point):
        self.passed.append(point)
        if point == self.stop:
            wait(self._hold())
            self.passed.append(f"after {point}")

    async def _hold(self):
        self.reached.set()
        await self.released.wait()


class Data:
    """A data manager that tells the journey of everything that is asked of it."""

    def __init__(self, journey, manager):
        self.journey = journey
        self.transaction_manager = manager

    def sortKey(self):
        return "data"

    def __getattr__(self, name):
        if name not in POINTS_OF_DATA:
            raise AttributeError(name)
        return lambda transaction: self.journey.reach(name)


POINTS_OF_DATA = [
    "tpc_begin",
    "commit",
    "tpc_vote",
    "tpc_finish",
    "tpc_abort",
    "abort",
]


def journey_of(request):
    return request.registry.settings["journey"]


class Policy:
    """A security policy whose user's name may take time."""

    def authenticated_userid(self, request):
        journey = journey_of(request)
        request.tm.get().join(Data(journey, request.tm))
        journey.reach("user")

    def identity(self, request):
        return None

    def permits(self, request, context, permission):
        return True


def above(handler, registry):
    def tween(request):
        journey_of(request).reach("above")
        return handler(request)

    return tween


def below(handler, registry):
    def tween(request):
        journey_of(request).reach("below")
        return handler(request)

    return tween


def veto(request, response):
    journey_of(request).reach("veto")
    return False


def add_hooks(request):
    current, reach = request.tm.get(), journey_of(request).reach
    current.addBeforeCommitHook(reach, ("before commit hook",))
    current.addAfterCommitHook(lambda status: reach("after commit hook"))


def in_thread(request):
    add_hooks(request)
    journey_of(request).reach("view")
    return Response("done")


async def on_loop(request):
    add_hooks(request)
    journey = journey_of(request)
    journey.passed.append("view")
    if journey.stop == "view":
        await journey._hold()
    return Response("done")


def failing(request):
    journey_of(request).reach("view")
    raise KeyError


KINDS = {
    "coroutine": ({}, on_loop),
    "executor": ({}, in_thread),
    "request": ({"aioext.sync_views": "request"}, in_thread),
}


def make_journey(stop, kind="coroutine", view=None, **settings):
    """An application and its journey, of which each of its requests is a part."""
    journey = Journey(stop)
    options, default = KINDS[kind]
    options = {"journey": journey, "tm.commit_veto": veto, **options, **settings}

    def configure(config):
        config.set_security_policy(Policy())
        config.add_tween(f"{__name__}.above", over=TM_TWEEN)
        config.add_tween(f"{__name__}.below", under=TM_TWEEN)
        config.add_view(view or default)

    return make_app("pyramid_tm", configure, settings=options), journey


async def cancel_there(app, journey):
    """Cancel a request where its journey stops; gives its client."""
    client = Client()
    task = client.start(app)
    await journey.reached.wait()
    task.cancel()
    # Enough for a cancellation to do everything that it will.
    for _ in range(10):
        await asyncio.sleep(0)
    journey.released.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    return client


ABORTED = ["user", "below", "view", "veto"]
COMMITTED = [
    "before commit hook",
    *["tpc_begin", "commit", "tpc_vote", "tpc_finish"],
    "after commit hook",
]
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_without_a_cancellation_everything_is_passed_in_this_order(kind):
    # The control: every point at which the tests below stop is reached.
    app, journey = make_journey(None, kind)
    assert answer(app).response[0] == 200
    points = ["above", *ABORTED[:3], "veto", *COMMITTED]
    # The resources are asked to abort, once they are clean, after the hooks.
    assert journey.passed == [*points, "abort"]


@kinds
def test_before_it_has_begun_there_is_nothing_to_abort(run, kind):
    app, journey = make_journey("above", kind)
    client = run(cancel_there(app, journey))
    assert journey.passed == ["above"]
    assert client.sent == []


@kinds
@pytest.mark.parametrize("point", ABORTED)
def test_a_cancellation_before_the_commit_aborts(run, kind, point):
    app, journey = make_journey(point, kind)
    client = run(cancel_there(app, journey))
    assert journey.passed[-2:] == [point, "abort"]
    assert client.sent == []


@kinds
@pytest.mark.parametrize("point", COMMITTED)
def test_a_commit_that_has_begun_is_ended_and_the_request_cancelled(run, kind, point):
    app, journey = make_journey(point, kind)
    client = run(cancel_there(app, journey))
    passed = [each for each in journey.passed if each != f"after {point}"]
    assert passed[passed.index("veto") + 1 :] == [*COMMITTED, "abort"]
    assert f"after {point}" in journey.passed
    assert client.sent == []


@kinds
def test_an_abort_that_has_begun_is_ended_and_the_request_cancelled(run, kind):
    app, journey = make_journey("abort", kind, view=failing)
    client = run(cancel_there(app, journey))
    assert journey.passed[-2:] == ["abort", "after abort"]
    assert client.sent == []


def test_a_commit_that_fails_while_it_is_cancelled_is_undone(run):
    app, journey = make_journey("tpc_vote")
    reach = journey.reach

    def failing_reach(point):
        reach(point)
        if point == "tpc_vote":
            raise KeyError

    journey.reach = failing_reach
    run(cancel_there(app, journey))
    undone = ["abort", "tpc_abort", "after commit hook", "abort"]
    assert journey.passed[-5:] == ["after tpc_vote", *undone]


def test_a_request_that_was_cancelled_leaves_nothing_for_the_next_one(run):
    app, journey = make_journey("view")

    async def main():
        await cancel_there(app, journey)
        journey.stop = None
        journey.passed.clear()
        return (await Client().call(app)).response[0]

    assert run(main()) == 200
    assert journey.passed[-3:] == ["tpc_finish", "after commit hook", "abort"]


def test_a_thread_has_ended_before_its_transaction_is_aborted(run):
    def view(request):
        journey = journey_of(request)
        try:
            journey.reach("view")
        finally:
            wait(asyncio.sleep(0.01))
            journey.passed.append("the thread ends")

    app, journey = make_journey("view", "executor", view=view)
    run(cancel_there(app, journey))
    assert journey.passed[-2:] == ["the thread ends", "abort"]


@pytest.mark.parametrize("kind", ["executor", "request"])
def test_a_thread_that_blocks_does_not_commit_what_was_cancelled(run, kind):
    blocked, released = threading.Event(), threading.Event()

    def view(request):
        request.tm.get().join(Data(journey_of(request), request.tm))
        blocked.set()
        released.wait()
        return Response("done")

    async def main():
        app, journey = make_journey(None, kind, view=view)
        task = Client().start(app)
        await asyncio.to_thread(blocked.wait)
        task.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        released.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return journey.passed

    passed = run(main())
    assert passed[-1] == "abort"
    assert "tpc_begin" not in passed


@pytest.mark.parametrize("kind", ["executor", "request"])
def test_what_ends_the_process_aborts(run, kind):
    def view(request):
        raise SystemExit(3)

    app, journey = make_journey(None, kind, view=view)

    async def main():
        with pytest.raises(SystemExit):
            await app(Client().scope, None, None)

    run(main())
    assert journey.passed[-1] == "abort"


def test_a_request_that_is_dropped_aborts(run):
    app, journey = make_journey("view")

    async def main():
        client = Client()
        request = app(client.scope, client.receive, client.send)
        request.send(None)
        request.close()

    run(main())
    assert journey.passed[-1] == "abort"


def test_an_abort_that_fails_is_logged_and_the_cancellation_arrives(run, caplog):
    app, journey = make_journey("view")

    class Broken(Exception):
        pass

    def fail(point):
        if point == "abort":
            raise Broken

    reach, journey.reach = journey.reach, lambda point: (reach(point), fail(point))
    run(cancel_there(app, journey))
    [record] = [each for each in caplog.records if each.name == "aioext"]
    assert "could not be aborted" in record.message
    assert record.exc_info[0] is Broken


def test_a_transaction_that_the_application_has_ended_is_left_alone(run):
    async def view(request):
        request.tm.abort()
        journey = journey_of(request)
        journey.passed.append("ended")
        await journey._hold()

    app, journey = make_journey("view", view=view)
    run(cancel_there(app, journey))
    assert journey.passed[-2:] == ["abort", "ended"]


async def time_out_there(app, journey):
    """Have the time of a request be over where it stops; gives its client."""
    client = Client()
    task = client.start(app)
    await journey.reached.wait()
    await client.until(lambda: client.sent)
    journey.released.set()
    await task
    return client


@kinds
@pytest.mark.parametrize(
    ("point", "end"), [("view", ["view", "abort"]), ("tpc_vote", [*COMMITTED, "abort"])]
)
def test_a_request_whose_time_is_over(run, kind, point, end):
    app, journey = make_journey(point, kind, **{"aioext.request_timeout": "0.05"})
    client = run(time_out_there(app, journey))
    assert client.response[0] == 503
    passed = [each for each in journey.passed if each != f"after {point}"]
    assert passed[-len(end) :] == end


@async_tween
def twice(handler, registry):
    async def tween(request):
        try:
            async with asyncio.timeout(0.05):
                return await handler(request)
        except TimeoutError:
            journey_of(request).stop = None
            return await handler(request)

    return tween


def test_a_tween_above_may_call_again_what_has_taken_too_long():
    journey = Journey("view")

    def configure(config):
        config.set_security_policy(Policy())
        config.add_tween(f"{__name__}.twice", over=TM_TWEEN)
        config.add_view(on_loop)

    settings = {"journey": journey, "tm.commit_veto": veto}
    app = make_app("pyramid_tm", configure, settings=settings)
    assert answer(app).response[0] == 200
    assert journey.passed[:5] == ["user", "view", "abort", "user", "view"]
    assert "tpc_finish" in journey.passed


def test_on_a_plain_wsgi_server_the_same_is_passed():
    app, journey = make_journey(None)
    assert TestApp(app.app).get("/").body == b"done"
    assert journey.passed[-len(COMMITTED) - 1 :] == [*COMMITTED, "abort"]


def test_a_view_that_swallows_its_deadline_commits_nothing(run):
    async def view(request):
        with contextlib.suppress(asyncio.CancelledError):
            await journey_of(request)._hold()
        return Response("too late")

    options = {"aioext.request_timeout": "0.05"}
    app, journey = make_journey(None, view=view, **options)
    client = run(time_out_there(app, journey))
    assert client.response[0] == 503
    assert journey.passed[-1] == "abort"
    assert "tpc_begin" not in journey.passed


def test_a_subrequest_with_tweens_has_a_transaction_of_its_own(run):
    managers = []

    async def view(request):
        managers.append(request.tm)
        journey = journey_of(request)
        if len(managers) == 1:
            request.invoke_subrequest(Request.blank("/"), use_tweens=True)
        journey.reach(f"view {len(managers)}")
        return Response("done")

    app, journey = make_journey("view 2", view=view)
    run(cancel_there(app, journey))
    assert len(set(managers)) == 2
    # The inner one's, and then the outer one's.
    assert journey.passed[-3:] == ["view 2", "abort", "abort"]


def test_a_request_that_pyramid_tm_does_not_manage_is_left_alone(run):
    def begin(request):
        request.tm.begin()
        journey = journey_of(request)
        request.tm.get().join(Data(journey, request.tm))
        journey.reach("view")

    settings = {"tm.activate_hook": lambda request: False, "tm.annotate_user": False}
    app, journey = make_journey("view", "executor", view=begin, **settings)
    run(cancel_there(app, journey))
    assert journey.passed[-1] == "view"


# -- many requests ---------------------------------------------------------------------


class Table:
    """Rows that are there once they are committed."""

    def __init__(self):
        self.rows = set()

    def insert(self, request, row):
        request.tm.get().join(Insert(self, row, request.tm))


class Insert:
    def __init__(self, table, row, manager):
        self.table, self.row, self.transaction_manager = table, row, manager

    def sortKey(self):
        return "insert"

    def _pause(self, transaction):
        wait(asyncio.sleep(0))

    tpc_begin = commit = tpc_vote = abort = tpc_abort = _pause

    def tpc_finish(self, transaction):
        wait(asyncio.sleep(0))
        self.table.rows.add(self.row)


class Refused(Exception):
    pass


def refuse(request):
    if request.matchdict["what"] == "abort":
        raise Refused
    if request.matchdict["what"] == "doom":
        request.tm.doom()


async def insert_on_loop(request):
    row = int(request.matchdict["row"])
    table = request.registry.settings["table"]
    for half in (row, row + 0.5):
        await asyncio.sleep(0)
        table.insert(request, half)
    if request.matchdict["what"] == "cancel":
        await asyncio.get_running_loop().create_future()
    refuse(request)
    return Response("ok")


def insert_in_thread(request):
    wait(insert_on_loop(request))
    return Response("ok")


WHATS = ["commit", "abort", "doom", "cancel", "commit"]


@kinds
@pytest.mark.parametrize("number", [20, 200])
def test_no_request_touches_the_rows_of_another(run, kind, number):
    settings, view = KINDS[kind]
    view = insert_on_loop if view is on_loop else insert_in_thread
    table = Table()

    def configure(config):
        config.add_route("row", "/{what}/{row}")
        config.add_view(view, route_name="row")
        config.add_view(lambda error, request: Response(status=409), context=Refused)

    settings = {
        "table": table,
        # As many as there are requests that wait until they are cancelled.
        "aioext.executor_workers": number,
        **settings,
    }
    app = make_app(configure, "pyramid_tm", settings=settings)
    whats = {row: WHATS[row % len(WHATS)] for row in range(number)}

    async def main():
        tasks = {
            row: Client(f"/{what}/{row}").start(app) for row, what in whats.items()
        }
        lasting = {tasks[row] for row, what in whats.items() if what == "cancel"}
        await asyncio.gather(*(set(tasks.values()) - lasting))
        for task in lasting:
            task.cancel()
        outcomes = await asyncio.gather(*lasting, return_exceptions=True)
        return {type(each) for each in outcomes}

    assert run(main()) == {asyncio.CancelledError}
    committed = {row for row, what in whats.items() if what == "commit"}
    assert table.rows == committed | {row + 0.5 for row in committed}


# -- pyramid_retry ---------------------------------------------------------------------


@kinds
def test_every_attempt_has_a_transaction_of_its_own(kind):
    managers = []

    def view(request):
        managers.append(request.tm)
        journey_of(request).reach(f"attempt {len(managers)}")
        if len(managers) < 3:
            raise RetryableException
        return Response("third time lucky")

    app, journey = make_retrying(kind, None, view)
    assert answer(app).response[2] == b"third time lucky"
    assert len(set(managers)) == 3
    attempts = [each for each in journey.passed if each in ("abort", "tpc_finish")]
    assert attempts == ["abort", "abort", "tpc_finish"]


@kinds
def test_an_attempt_that_is_cancelled_is_the_last_one(run, kind):
    attempts = []

    def view(request):
        attempts.append(request)
        journey_of(request).reach(f"attempt {len(attempts)}")
        raise RetryableException

    app, journey = make_retrying(kind, "attempt 2", view)
    run(cancel_there(app, journey))
    assert len(attempts) == 2
    assert journey.passed.count("abort") == 2


def make_retrying(kind, stop, view):
    settings = {"retry.attempts": 3, "pyramid.includes": "pyramid_retry"}
    return make_journey(stop, kind, view=view, **settings)


# -- the manager of a request ----------------------------------------------------------


def hook_of(*steps, settings=None):
    """What ``tm.manager_hook`` is when an application is configured by ``steps``."""
    config = Configurator(settings=settings or {})
    for step in steps:
        if step == "commit":
            config.commit()
        else:
            config.include(step)
    config.make_wsgi_app()
    return config.registry.settings.get("tm.manager_hook")


@pytest.mark.parametrize(
    "steps",
    [
        ["aioext", "pyramid_tm"],
        ["pyramid_tm", "aioext"],
        ["aioext", "commit", "pyramid_tm"],
        ["pyramid_tm", "commit", "aioext"],
        ["aioext", "commit", "pyramid_tm", "commit"],
    ],
    ids=" ".join,
)
def test_an_application_that_sets_no_manager_gets_one_for_each_request(steps, caplog):
    caplog.set_level(logging.INFO, "aioext")
    assert hook_of(*steps) is pyramid_tm.explicit_manager
    [record] = [each for each in caplog.records if "manager_hook" in each.message]
    assert record.levelname == "INFO"


def test_a_manager_that_the_application_sets_stays(caplog):
    def own_manager(request):
        return transaction.TransactionManager(explicit=True)

    settings = {"tm.manager_hook": own_manager}
    assert hook_of("aioext", "pyramid_tm", settings=settings) is own_manager
    settings = {"tm.manager_hook": "pyramid_tm.explicit_manager"}
    steps = ("pyramid_tm", "aioext")
    assert hook_of(*steps, settings=settings) is pyramid_tm.explicit_manager
    assert not caplog.records


def test_without_pyramid_tm_nothing_is_set():
    assert hook_of("aioext") is None


def test_a_manager_of_the_thread_is_left_where_the_application_allows_it():
    settings = {"aioext.allow_threadlocal_transactions": "true"}
    assert hook_of("aioext", "pyramid_tm", settings=settings) is None


def add_view(config):
    config.add_view(lambda request: Response(type(request.tm).__name__))


THREAD_LOCAL = {
    "the default": lambda request: transaction.manager,
    "that of this thread": lambda request: transaction.manager.manager,
}


@pytest.mark.parametrize("hook", THREAD_LOCAL.values(), ids=THREAD_LOCAL)
def test_a_manager_of_the_thread_is_an_error_at_the_first_request(hook):
    settings = {"tm.manager_hook": hook}
    app = make_app("pyramid_tm", "aioext", add_view, settings=settings)
    with pytest.raises(ConfigurationError) as raised:
        answer(app)
    message = str(raised.value)
    assert "tm.manager_hook = pyramid_tm.explicit_manager" in message
    assert "aioext.allow_threadlocal_transactions = true" in message
    assert "errors.html#thread-local-transactions" in message


def test_a_manager_of_the_thread_is_itself_where_it_is_allowed():
    cls = type(transaction.manager)
    settings = {"aioext.allow_threadlocal_transactions": "true"}
    app = make_app("pyramid_tm", add_view, settings=settings)
    assert answer(app).response[2] == b"ThreadTransactionManager"
    assert type(transaction.manager) is cls


def test_the_manager_is_guarded_where_tweens_are_listed(run):
    app, journey = make_journey("view", **{"pyramid.tweens": TM_TWEEN})
    run(cancel_there(app, journey))
    assert journey.passed[-1] == "abort"


def test_a_transaction_begun_by_who_calls_the_application_is_theirs(run):
    # Functional tests do that, to roll everything back at the end.
    manager = transaction.TransactionManager(explicit=True)
    journey = Journey("view")

    def configure(config):
        config.add_view(on_loop)

    app = make_app("pyramid_tm", configure, settings={"journey": journey})
    environ = {"tm.active": True, "tm.manager": manager}

    async def main():
        with manager:
            manager.get().join(Data(journey, manager))
            wsgi = app.app

            def with_manager(own, start_response):
                return wsgi(own | environ, start_response)

            app.app = with_manager
            await cancel_there(app, journey)
            assert journey.passed == ["view"]
            raise KeyError

    with pytest.raises(KeyError):
        run(main())
    assert journey.passed == ["view", "abort"]


@pytest.mark.parametrize("kind", ["property", "reify"])
def test_an_attribute_of_that_name_and_another_meaning_is_left_alone(kind):
    def configure(config):
        config.add_request_method(lambda request: "trade mark", "tm", **{kind: True})
        config.add_view(lambda request: Response(request.tm))

    assert answer(make_app(configure)).response[2] == b"trade mark"


def test_an_application_may_define_the_attribute_itself(run):
    # It wins over what pyramid_tm adds in an include.
    journey = Journey("tpc_vote")

    def own(request):
        return transaction.TransactionManager(explicit=True)

    def configure(config):
        config.add_request_method(own, "tm", reify=True)
        config.add_view(join)

    def join(request):
        request.tm.get().join(Data(journey, request.tm))
        return Response("done")

    run(cancel_there(make_app("pyramid_tm", configure), journey))
    assert journey.passed[-2:] == ["after tpc_vote", "tpc_finish"]


def test_adapting_again_changes_nothing():
    def configure(config):
        config.add_view(count)
        for _ in range(3):
            config.action(None, adapt_transactions, (config.registry,), order=LAST)

    def count(request):
        return Response(str(len(request.finished_callbacks)))

    assert answer(make_app("pyramid_tm", configure)).response[2] == b"1"


def test_a_shielded_manager_is_what_it_was():
    manager = transaction.TransactionManager(explicit=True)
    shield(manager)
    cls = type(manager)
    shield(manager)
    assert type(manager) is cls
    assert isinstance(manager, transaction.TransactionManager)
    assert cls.__name__ == "TransactionManager"
    assert cls.__module__ == transaction.TransactionManager.__module__
    with pytest.raises(NoTransaction):
        manager.commit()
    with manager as current:
        current.note("kept")
    other = transaction.TransactionManager()
    shield(other)
    assert type(other) is cls


def test_a_manager_whose_class_is_fixed_stays_as_it_is():
    class Fixed:
        __slots__ = ()

        def commit(self):
            return "committed"

        abort = commit

    manager = Fixed()
    shield(manager)
    assert type(manager) is Fixed
    assert manager.commit() == "committed"


def test_a_request_leaves_no_manager_behind(run):
    seen = []

    async def view(request):
        seen.append(weakref.ref(request.tm))
        return Response("ok")

    app = make_app("pyramid_tm", lambda config: config.add_view(view))
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            answer(app)
        alive = [reference() for reference in seen]
    finally:
        gc.enable()
    assert alive == [None] * 3


# -- sessions of threads ---------------------------------------------------------------


@pytest.fixture
def models(monkeypatch):
    """A module with what the test puts there, when it is first looked at."""
    module = types.ModuleType("models_of_a_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    yield module
    guarding._looked_at.discard(module.__name__)


def warnings_of(caplog):
    return [each.message for each in caplog.records if "scoped_session" in each.message]


def test_a_session_of_a_thread_is_warned_of_once(models, caplog):
    models.DBSession = models.again = scoped_session(sessionmaker())
    for _ in range(2):
        make_app()
    [warning] = warnings_of(caplog)
    assert "models_of_a_test.DBSession" in warning
    assert "errors.html#scoped-session" in warning


def test_a_session_that_tells_requests_apart_is_fine(models, caplog):
    models.DBSession = scoped_session(sessionmaker(), scopefunc=get_current_request)
    make_app()
    assert not warnings_of(caplog)


def test_where_a_request_has_a_thread_to_itself_nobody_is_warned(models, caplog):
    models.DBSession = scoped_session(sessionmaker())
    make_app(settings={"aioext.sync_views": "request"})
    assert not warnings_of(caplog)


def test_an_object_that_stands_for_another_one_is_not_asked(models, caplog):
    class Unbound:
        @property
        def __class__(self):
            raise RuntimeError("working outside of a request")

    models.proxy = Unbound()
    make_app()
    assert not warnings_of(caplog)

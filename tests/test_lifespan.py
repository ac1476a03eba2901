"""Lifespans: in process, and in servers that have no lifespan protocol."""

import asyncio
import contextlib
import contextvars
import functools
import signal
import threading

import anyio
import pytest
from asgi import Client
from life import (
    APPS,
    CLOSED,
    ENVIRON,
    OPENED,
    assert_clean,
    events,
    facts,
    pids,
    python,
    told,
)
from pyramid.config import Configurator
from pyramid.events import NewRequest
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IExecutionPolicy
from pyramid.response import Response
from pyramid.threadlocal import get_current_registry
from servers import run as serve_command
from servers import serve
from webtest import TestApp

import aioext
from aioext.asgi import Gateway
from aioext.config.policy import adapt_execution_policy
from aioext.events import AppStarting, AppStopping
from aioext.exceptions import GatewayError
from aioext.interfaces import IExecutor, ILifespan


class Record(list):
    """What happened, in order, with factories that write into it."""

    def factory(self, name, fail_at=None):
        @contextlib.asynccontextmanager
        async def resource(registry):
            await asyncio.sleep(0)
            self.append(f"open {name}")
            if fail_at == "start":
                raise LookupError(f"no {name}")
            yield
            await asyncio.sleep(0)
            self.append(f"close {name}")
            if fail_at == "end":
                raise LookupError(f"{name} does not close")

        return resource


@pytest.fixture
def record():
    return Record()


@contextlib.asynccontextmanager
async def named_factory(registry):
    """For a dotted name."""
    registry["named"] = "open"
    yield
    registry["named"] = "closed"


async def hello(request):
    return Response("hello")


def configured(*factories, settings=None):
    """A configurator with aioext, these lifespans, and one view."""
    config = Configurator(settings=settings)
    config.include("aioext")
    for factory in factories:
        config.add_lifespan(factory)
    config.add_view(hello)
    return config


def application(*factories, settings=None):
    return configured(*factories, settings=settings).make_wsgi_app()


def lifespan_of(app):
    return app.registry.getUtility(ILifespan)


def open_and_close(run, app, inside=None):
    async def live():
        async with lifespan_of(app).open():
            if inside is not None:
                await inside()

    run(live())


# The directive ---------------------------------------------------------------


def test_a_dotted_name_will_do(run):
    app = application("test_lifespan.named_factory")
    open_and_close(run, app)
    assert app.registry["named"] == "closed"


def test_what_cannot_be_called_is_refused_where_it_is_given():
    with pytest.raises(ConfigurationError, match=r"takes a callable.*\n?.*got 1"):
        configured(1)


def undecorated_generator(registry):
    yield


async def undecorated(registry):
    yield


async def coroutine(registry):
    """Opens something, and forgets to close it."""


@pytest.mark.parametrize("factory", [undecorated_generator, undecorated, coroutine])
def test_a_function_without_its_decorator_is_refused_where_it_is_given(factory):
    with pytest.raises(ConfigurationError, match=f"{factory.__name__}.*gives none"):
        configured(factory)


def test_a_factory_that_gives_something_else_is_named(run):
    app = application(functools.partial(dict))
    with pytest.raises(TypeError, match=r"partial.*not an asynchronous.*Decorate"):
        open_and_close(run, app)


def test_lifespans_are_introspectable(record):
    factory = record.factory("pool")
    config = configured(factory)
    config.commit()
    (category,) = config.introspector.get_category("lifespans")
    assert category["introspectable"]["factory"] is factory
    assert category["introspectable"].type_name == "lifespan"
    assert "resource" in category["introspectable"].title


def test_two_equal_factories_are_both_opened(run, record):
    pool = record.factory("pool")
    open_and_close(run, application(pool, pool))
    assert record == ["open pool", "open pool", "close pool", "close pool"]


def test_includes_keep_the_order_of_the_calls(run, record):
    def included(config):
        config.add_lifespan(record.factory("second"))

    config = configured(record.factory("first"))
    config.include(included)
    config.add_lifespan(record.factory("third"))
    open_and_close(run, config.make_wsgi_app())
    assert record[:3] == ["open first", "open second", "open third"]


def test_a_lifespan_may_be_added_after_a_commit(run, record):
    config = configured()
    config.commit()
    config.add_lifespan(record.factory("late"))
    app = config.make_wsgi_app()
    open_and_close(run, app)
    assert record == ["open late", "close late"]
    run(Client().call(Gateway(app)))
    assert record == 2 * ["open late", "close late"]


# Opening and closing ---------------------------------------------------------


def test_lifespans_are_opened_in_order_and_closed_in_reverse(run, record):
    config = configured(record.factory("a"), record.factory("b"))
    config.add_subscriber(lambda event: record.append("starting"), AppStarting)
    config.add_subscriber(lambda event: record.append("stopping"), AppStopping)
    app = config.make_wsgi_app()

    async def serve():
        assert lifespan_of(app).is_open
        record.append("serving")

    assert not lifespan_of(app).is_open
    open_and_close(run, app, serve)
    assert not lifespan_of(app).is_open
    assert record == [
        *("open a", "open b", "starting", "serving"),
        *("stopping", "close b", "close a"),
    ]


def test_a_failing_start_closes_what_was_open(run, record):
    app = application(
        record.factory("a"), record.factory("b", fail_at="start"), record.factory("c")
    )
    with pytest.raises(LookupError, match="no b"):
        open_and_close(run, app)
    assert record == ["open a", "open b", "close a"]
    assert not lifespan_of(app).is_open


def test_one_that_does_not_close_does_not_keep_the_others_open(run, record):
    app = application(record.factory("a"), record.factory("b", fail_at="end"))
    with pytest.raises(LookupError, match="b does not close"):
        open_and_close(run, app)
    assert record == ["open a", "open b", "close b", "close a"]


def test_a_failing_stop_event_does_not_keep_anything_open(run, record):
    def fail(event):
        raise LookupError("stop")

    config = configured(record.factory("a"))
    config.add_subscriber(fail, AppStopping)
    with pytest.raises(LookupError, match="stop"):
        open_and_close(run, config.make_wsgi_app())
    assert record == ["open a", "close a"]


def test_cancellation_closes_as_a_normal_end_does(run, record):
    app = application(record.factory("a"), record.factory("b"))

    async def cancelled():
        async with asyncio.timeout(0):
            await asyncio.get_running_loop().create_future()

    with pytest.raises(TimeoutError):
        open_and_close(run, app, cancelled)
    assert record == ["open a", "open b", "close b", "close a"]


def test_the_current_registry_is_right_in_factories_and_their_tasks(run):
    seen = []

    @contextlib.asynccontextmanager
    async def resource(registry):
        async def worker():
            await asyncio.sleep(0)
            seen.append(get_current_registry() is registry)

        await asyncio.create_task(worker())
        seen.append(get_current_registry() is registry)
        yield
        await asyncio.sleep(0)
        seen.append(get_current_registry() is registry)

    outside = []

    async def inside():
        outside.append(get_current_registry())

    app = application(resource)
    open_and_close(run, app, inside)
    assert seen == [True, True, True]
    assert outside[0] is not app.registry


def test_context_variables_go_from_the_start_to_the_end(run):
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    @contextlib.asynccontextmanager
    async def sets(registry):
        token = variable.set("set")
        yield
        seen.append(variable.get())
        variable.reset(token)

    @contextlib.asynccontextmanager
    async def reads(registry):
        seen.append(variable.get())
        yield

    config = configured(sets, reads)
    config.add_subscriber(lambda event: seen.append(variable.get()), AppStarting)
    open_and_close(run, config.make_wsgi_app())
    assert seen == ["set", "set", "set"]


@pytest.mark.parametrize("way", ["protocol", "first request"])
def test_task_groups_are_left_in_the_task_that_entered_them(run, way):
    ended = []

    async def work(name):
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(name)

    @contextlib.asynccontextmanager
    async def of_anyio(registry):
        async with anyio.create_task_group() as group:
            group.start_soon(work, "anyio")
            await asyncio.sleep(0)
            yield
            group.cancel_scope.cancel()

    @contextlib.asynccontextmanager
    async def of_asyncio(registry):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work("asyncio"))
            await asyncio.sleep(0)
            yield
            task.cancel()

    gateway = Gateway(application(of_anyio, of_asyncio))

    async def live():
        if way == "first request":
            assert (await Client().call(gateway)).status == 200
            return
        async with Protocol(gateway) as protocol:
            assert (await Client().call(gateway)).status == 200
        assert protocol.sent == [{"type": "lifespan.shutdown.complete"}]

    run(live())
    assert sorted(ended) == ["anyio", "asyncio"]


def threads_of_executors():
    return [
        each
        for each in threading.enumerate()
        if each.name.startswith("aioext-executor")
    ]


def test_the_executor_is_closed_last_when_its_jobs_have_ended(run, record):
    released, begun = {}, threading.Event()

    def job():
        record.append("job began")
        begun.set()
        aioext.wait(released["event"].wait())
        record.append("job ended")

    @contextlib.asynccontextmanager
    async def resource(registry):
        yield
        record.append("close")
        released["event"].set()

    app = application(resource)
    before = threads_of_executors()

    async def inside():
        released["event"] = asyncio.Event()
        executor = app.registry.getUtility(IExecutor)
        released["job"] = asyncio.create_task(executor.run(job))
        await executor.run(begun.wait)

    open_and_close(run, app, inside)
    assert record == ["job began", "close", "job ended"]
    assert threads_of_executors() == before


# ASGI's protocol -------------------------------------------------------------


class Protocol:
    """The server's side of the lifespan protocol; starts and stops ``app``."""

    def __init__(self, app):
        self._app = app
        self._queue = asyncio.Queue()
        self._answered = asyncio.Event()
        self.sent = []

    async def _send(self, message):
        self.sent.append(message)
        self._answered.set()

    async def _next(self, kind):
        self._answered.clear()
        self._queue.put_nowait({"type": kind})
        ended = asyncio.ensure_future(self._answered.wait())
        await asyncio.wait({self.task, ended}, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        return self.sent.pop()

    async def start(self):
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        served = self._app(scope, self._queue.get, self._send)
        self.task = asyncio.create_task(served)
        return await self._next("lifespan.startup")

    async def stop(self):
        return await self._next("lifespan.shutdown")

    async def __aenter__(self):
        assert await self.start() == {"type": "lifespan.startup.complete"}
        return self

    async def __aexit__(self, *exc_info):
        self.sent.append(await self.stop())
        await self.task


def test_the_protocol_opens_at_startup_and_closes_at_shutdown(run, record):
    gateway = Gateway(application(record.factory("a")))

    async def live():
        async with Protocol(gateway) as protocol:
            record.append("serving")
            await Client().call(gateway)
        assert protocol.sent == [{"type": "lifespan.shutdown.complete"}]

    run(live())
    assert record == ["open a", "serving", "close a"]


def test_an_application_without_lifespans_completes(run):
    def plain(environ, start_response):
        start_response("200 OK", [])
        return []

    async def live():
        async with Protocol(Gateway(plain)) as protocol:
            pass
        assert protocol.sent == [{"type": "lifespan.shutdown.complete"}]

    run(live())


def test_a_failing_startup_is_told_after_all_is_closed(run, record, caplog):
    apps = [
        application(record.factory("a")),
        application(record.factory("b", fail_at="start")),
    ]

    async def live():
        protocol = Protocol(Gateway(lambda environ, start_response: apps))
        message = await protocol.start()
        assert message == {
            "type": "lifespan.startup.failed",
            "message": "LookupError: no b",
        }
        # What a server that is told so may do at once.
        assert record == ["open a", "open b", "close a"]
        await protocol.task

    run(live())
    (logged,) = (each for each in caplog.records if each.levelname == "ERROR")
    assert logged.message == "aioext: the application could not start"
    assert logged.exc_info[0] is LookupError


def test_a_failing_shutdown_is_told(run, record, caplog):
    gateway = Gateway(
        application(record.factory("a"), record.factory("b", fail_at="end"))
    )

    async def live():
        protocol = Protocol(gateway)
        await protocol.start()
        assert await protocol.stop() == {
            "type": "lifespan.shutdown.failed",
            "message": "LookupError: b does not close",
        }
        await protocol.task

    run(live())
    assert record[-1] == "close a"
    assert [each.message for each in caplog.records] == [
        "aioext: the application could not be closed"
    ]


def test_a_server_that_cancels_the_protocol_closes(run, record, caplog):
    gateway = Gateway(
        application(record.factory("a"), record.factory("b", fail_at="end"))
    )

    async def live():
        protocol = Protocol(gateway)
        await protocol.start()
        protocol.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await protocol.task
        assert protocol.sent == []

    run(live())
    assert record == ["open a", "open b", "close b", "close a"]
    assert len(caplog.records) == 1


def test_a_server_that_cancels_the_startup_closes(run, record):
    waiting = asyncio.Event()

    @contextlib.asynccontextmanager
    async def slow(registry):
        waiting.set()
        await asyncio.get_running_loop().create_future()
        yield

    gateway = Gateway(application(record.factory("a"), slow))

    async def live():
        protocol = Protocol(gateway)
        starting = asyncio.create_task(protocol.start())
        await waiting.wait()
        protocol.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await protocol.task
        starting.cancel()

    run(live())
    assert record == ["open a", "close a"]


def test_applications_are_found_behind_whatever_contains_them(run, record):
    apps = [application(record.factory("a")), application(record.factory("b"))]

    async def live():
        async with Protocol(Gateway(lambda environ, start_response: apps)):
            assert all(lifespan_of(app).is_open for app in apps)
            record.append("serving")

    run(live())
    assert record == ["open a", "open b", "serving", "close b", "close a"]


def test_an_application_itself_is_opened_alone(run, record):
    apps = [application(record.factory("a")), application(record.factory("b"))]

    async def live():
        async with Protocol(Gateway(apps[1])):
            assert [lifespan_of(app).is_open for app in apps] == [False, True]

    run(live())
    assert record == ["open b", "close b"]


def test_an_application_that_is_gone_is_not_opened(run, record):
    application(record.factory("gone"))
    import gc

    gc.collect()

    async def live():
        async with Protocol(Gateway(lambda environ, start_response: [])):
            pass

    run(live())
    assert record == []


# Servers without the protocol ------------------------------------------------


def test_the_first_request_opens_and_the_end_of_the_loop_closes(run, record):
    gateway = Gateway(application(record.factory("a")))

    async def live():
        for _ in range(2):
            assert (await Client().call(gateway)).body == b"hello"
            record.append("served")

    run(live())
    assert record == ["open a", "served", "served", "close a"]
    run(live())
    assert record[4:] == ["open a", "served", "served", "close a"]


def test_first_requests_that_come_together_wait_for_one_opening(run, record):
    opening = {}

    @contextlib.asynccontextmanager
    async def slow(registry):
        opening["begun"].set()
        await opening["go"].wait()
        yield

    gateway = Gateway(application(record.factory("a"), slow))

    async def live():
        opening.update(begun=asyncio.Event(), go=asyncio.Event())
        clients = [Client() for _ in range(5)]
        tasks = [client.start(gateway) for client in clients]
        await opening["begun"].wait()
        tasks.append(Client().start(gateway))
        # The request that began it may leave; the others need it still.
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        assert not any(client.started for client in clients)
        opening["go"].set()
        await asyncio.gather(*tasks[1:])
        assert [client.status for client in clients[1:]] == 4 * [200]

    run(live())
    assert record == ["open a", "close a"]


def test_a_failing_opening_fails_every_request_and_the_next_one_tries_again(
    run, record
):
    failing = ["start", "start", None]

    def sometimes(registry):
        return record.factory("a", fail_at=failing.pop(0))(registry)

    gateway = Gateway(application(sometimes))

    async def live():
        tasks = [Client().start(gateway) for _ in range(3)]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(each) for each in outcomes] == 3 * ["no a"]
        with pytest.raises(LookupError, match="no a"):
            await Client().call(gateway)
        assert (await Client().call(gateway)).status == 200

    run(live())
    assert record == 3 * ["open a"] + ["close a"]


def test_an_opening_that_is_cancelled_from_within_leaves_nobody_waiting(run):
    @contextlib.asynccontextmanager
    async def cancelled(registry):
        raise asyncio.CancelledError
        yield

    gateway = Gateway(application(cancelled))

    async def live():
        async with asyncio.timeout(10):
            outcomes = await asyncio.gather(
                *[Client().start(gateway) for _ in range(2)], return_exceptions=True
            )
        assert [type(each) for each in outcomes] == 2 * [GatewayError]

    run(live())


def test_what_does_not_close_at_the_end_of_the_loop_is_logged(run, record, caplog):
    gateway = Gateway(application(record.factory("a", fail_at="end")))
    run(Client().call(gateway))
    (logged,) = caplog.records
    assert logged.message == "aioext: the application could not be closed"
    assert logged.exc_info[0] is LookupError


def test_nothing_of_the_first_request_is_seen_in_the_lifespan(run):
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    @contextlib.asynccontextmanager
    async def resource(registry):
        seen.append(variable.get())
        yield

    gateway = Gateway(application(resource))

    async def live():
        variable.set("of the request")
        await Client().call(gateway)

    run(live())
    assert seen == ["unset"]


def test_webtest_opens_on_the_background_loop(record):
    app = TestApp(application(record.factory("a")))
    for _ in range(2):
        assert app.get("/").text == "hello"
    assert record == ["open a"]


def test_a_request_without_lifespans_opens_none(run):
    app = application()
    run(Client().call(Gateway(app)))
    assert not app.registry.getUtility(ILifespan).is_open


def test_a_fork_of_a_process_that_serves_opens_its_own():
    code = """
import os, warnings, webtest, worker_app
warnings.filterwarnings("ignore", "This process .* is multi-threaded")
app = webtest.TestApp(worker_app.make())
app.get("/sync")
pid = os.fork()
if pid == 0:
    app.get("/sync")
    raise SystemExit
os.waitpid(pid, 0)
"""
    output = python(code)
    happened = told(output)
    parent, child = happened[0][1], happened[3][1]
    assert parent != child, output
    expected = [(name, parent) for name in OPENED]
    expected += [(name, child) for name in OPENED + CLOSED]
    expected += [(name, parent) for name in CLOSED]
    assert happened == expected, output
    assert len(output.splitlines()) == len(happened), output


def test_a_fork_does_not_close_what_its_parent_has_opened():
    code = """
import asyncio, os, worker_app
from aioext.interfaces import ILifespan
lifespan = worker_app.make().registry.getUtility(ILifespan)
async def main():
    async with lifespan.open():
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            print("the child has ended", flush=True)
asyncio.run(main())
"""
    output = python(code)
    before, after = output.split("the child has ended\n")
    assert [name for name, _ in told(before)] == OPENED
    assert [name for name, _ in told(after)] == CLOSED


def test_uvicorn_without_lifespan_opens_with_the_first_request():
    with serve(
        "uvicorn",
        "worker_app:make_asgi",
        *("--factory", "--lifespan", "off"),
        directory=APPS,
        environ=ENVIRON,
    ) as server:
        assert events(server) == []
        assert facts(server)["opened"]
        assert facts(server)["opened"]
        assert events(server) == OPENED
        # SIGTERM would end uvicorn itself, and no coroutine would be resumed.
        server.stop(signal.SIGINT)
        assert events(server) == OPENED + CLOSED


def test_uvicorn_with_lifespan_opens_before_it_serves():
    with serve(
        "uvicorn",
        "worker_app:make_asgi",
        *("--factory", "--lifespan", "on"),
        directory=APPS,
        environ=ENVIRON,
    ) as server:
        assert events(server) == OPENED
        assert facts(server)["opened"]
        server.stop()
        assert events(server) == OPENED + CLOSED
        assert_clean(server)


PLAIN_SERVERS = {
    "waitress": [
        "waitress",
        "--host=127.0.0.1",
        "--port=0",
        "--call",
        "worker_app:make",
    ],
    "gthread": [
        *("gunicorn", "-k", "gthread", "-b", "127.0.0.1:0", "--preload"),
        *("--no-control-socket", "worker_app:make()"),
    ],
}


@pytest.mark.parametrize("name", PLAIN_SERVERS)
def test_a_plain_wsgi_server_opens_with_the_first_request_and_closes_at_exit(name):
    with serve_command(PLAIN_SERVERS[name], APPS, ENVIRON) as server:
        assert events(server) == []
        where = facts(server)
        assert where["opened"]
        assert where["thread"] == "aioext-loop"
        assert facts(server)["opened"]
        assert pids(server, "opened first") == [where["pid"]]
        server.stop(signal.SIGINT if name == "waitress" else signal.SIGTERM)
        assert events(server) == OPENED + CLOSED
        assert_clean(server)


# The execution policy --------------------------------------------------------


def thread_name():
    return threading.current_thread().name


def request_mode(record, *includes, before=()):
    """An application whose whole router runs in threads, and writes where."""

    def tween_factory(handler, registry):
        def tween(request):
            record.append(("tween", threading.get_ident(), thread_name()))
            return handler(request)

        return tween

    def view(request):
        record.append(("view", threading.get_ident(), thread_name()))
        return Response("view")

    async def on_loop(request):
        record.append(("coroutine", threading.get_ident(), thread_name()))
        await asyncio.sleep(0)
        return Response("coroutine")

    def subscriber(event):
        record.append(("subscriber", threading.get_ident(), thread_name()))

    with Configurator(settings={"aioext.sync_views": "request"}) as config:
        for include in before:
            config.include(include)
        config.include("aioext")
        for include in includes:
            config.include(include)
        config.registry.tween_factory = tween_factory
        config.add_tween("test_lifespan.recording_tween")
        config.add_subscriber(subscriber, NewRequest)
        config.add_view(view, name="view")
        config.add_view(on_loop, name="coroutine")
    return config.make_wsgi_app()


def recording_tween(handler, registry):
    return registry.tween_factory(handler, registry)


def test_request_mode_runs_the_whole_router_in_one_thread(run, record):
    client = run(Client("/view").call(Gateway(request_mode(record))))
    assert client.body == b"view"
    assert {name for name, _, _ in record} == {"tween", "view", "subscriber"}
    ((ident, name),) = {
        where for _, *where in map(list, record) for where in [tuple(where)]
    }
    assert ident != threading.get_ident()
    assert name.startswith("aioext-executor")


def test_request_mode_leaves_coroutine_views_on_the_loop(run, record):
    client = run(Client("/coroutine").call(Gateway(request_mode(record))))
    assert client.body == b"coroutine"
    where = {what: (ident, name) for what, ident, name in record}
    assert where["coroutine"] == (threading.get_ident(), thread_name())
    assert where["tween"] == where["subscriber"] != where["coroutine"]


def retried(record):
    """An include with a view that succeeds when it is retried."""

    def includeme(config):
        from pyramid_retry import RetryableException

        attempts = []

        def flaky(request):
            attempts.append(thread_name())
            record.append(("flaky", threading.get_ident(), thread_name()))
            if len(attempts) == 1:
                raise RetryableException
            return Response("at last")

        config.add_view(flaky, name="flaky")

    return includeme


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_policy_of_an_add_on_is_kept_and_wrapped(run, record, order):
    before = ["pyramid_retry"] if order == "before" else []
    after = ["pyramid_retry"] if order == "after" else []
    app = request_mode(record, *after, retried(record), before=before)
    client = run(Client("/flaky").call(Gateway(app)))
    assert client.body == b"at last"
    attempts = [ident for name, ident, _ in record if name == "flaky"]
    assert len(attempts) == 2
    assert threading.get_ident() not in attempts


def test_adapting_the_policy_again_changes_nothing(record):
    app = application(record.factory("a"))
    policy = app.registry.getUtility(IExecutionPolicy)
    adapt_execution_policy(app.registry)
    assert app.registry.getUtility(IExecutionPolicy) is policy


def test_a_subscriber_alone_is_reason_enough_to_open(run, record):
    config = configured()
    config.add_subscriber(lambda event: record.append("starting"), AppStarting)
    run(Client().call(Gateway(config.make_wsgi_app())))
    assert record == ["starting"]


def test_a_lifespan_and_an_add_ons_policy_go_together(run, record):
    config = configured(record.factory("a"))
    config.include("pyramid_retry")
    config.include(retried(record))
    client = run(Client("/flaky").call(Gateway(config.make_wsgi_app())))
    assert client.body == b"at last"
    assert record[0] == "open a"
    assert record[-1] == "close a"


def test_a_policy_that_is_set_together_with_a_late_lifespan_is_wrapped(run, record):
    config = configured()
    config.commit()
    config.add_lifespan(record.factory("late"))
    config.include("pyramid_retry")
    config.include(retried(record))
    client = run(Client("/flaky").call(Gateway(config.make_wsgi_app())))
    assert client.body == b"at last"
    assert record[0] == "open late"

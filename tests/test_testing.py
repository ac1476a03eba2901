"""``aioext.testing.TestApp``: its requests, its life, and Pyramid under it.

What its WebSockets and streams do by themselves is tested with applications that
are written by hand, in ``test_testing_websocket.py`` and
``test_testing_eventsource.py``.
"""

import asyncio
import contextlib
import contextvars
import gc
import threading
import weakref

import pytest
from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.security import Allowed, Denied
from pyramid.threadlocal import get_current_request
from webtest import AppError

from aioext import spawn_greenlet
from aioext.events import AppStarting, AppStopping
from aioext.eventsource import Event, EventSourceMapper
from aioext.exceptions import ScopeError
from aioext.interfaces import ILifespan
from aioext.testing import TestApp, WebSocketRefused, serving
from aioext.websocket import WebsocketMapper


def configured(*steps, settings=None):
    """A configurator with aioext; each step configures it further."""
    config = Configurator(settings=settings or {})
    config.include("aioext")
    for step in steps:
        step(config)
    return config


@pytest.fixture
def make():
    """A ``TestApp`` of a Pyramid application, closed after the test."""

    def make(*steps, settings=None, **options):
        app = configured(*steps, settings=settings).make_wsgi_app()
        return stack.enter_context(TestApp(app, **options))

    with contextlib.ExitStack() as stack:
        yield make


def socket(view, path="/ws", **options):
    def step(config):
        config.add_route("ws", path)
        config.add_view(view, route_name="ws", mapper=WebsocketMapper, **options)

    return step


def stream(view, path="/stream", **options):
    def step(config):
        config.add_route("stream", path)
        config.add_view(view, route_name="stream", mapper=EventSourceMapper, **options)

    return step


def page(view, path="/", **options):
    def step(config):
        name = view.__name__
        config.add_route(name, path)
        config.add_view(view, route_name=name, **options)

    return step


async def echo(ws):
    async for message in ws:
        await ws.send(message)


async def hello(request):
    await asyncio.sleep(0)
    return Response("hello")


# Requests


def test_requests_are_those_of_webtest():
    loops = []

    async def view(request):
        loops.append(asyncio.get_running_loop())
        return {"who": request.params["who"]}

    app = TestApp(configured(page(view, renderer="json")).make_wsgi_app())
    assert app.get("/", {"who": "you"}).json == {"who": "you"}
    assert app.post("/", {"who": "you"}, status=200).json == {"who": "you"}
    with pytest.raises(AppError, match="404 Not Found"):
        app.get("/nowhere")
    app.close()
    assert loops[0] is loops[1]


@pytest.mark.parametrize("method", ["make_wsgi_app", "make_asgi_app"])
def test_it_takes_what_a_configurator_makes(method):
    config = configured(page(hello), socket(echo))
    with TestApp(getattr(config, method)()) as app:
        assert app.app.registry is app.gateway.app.registry is config.registry
        assert app.get("/").text == "hello"
        with app.websocket("/ws") as ws:
            ws.send("a")
            assert ws.recv() == "a"


def test_options_are_those_of_webtest(make):
    async def who(request):
        return Response(request.remote_user or "nobody")

    app = configured(page(who)).make_wsgi_app()
    with TestApp(app, {"REMOTE_USER": "joe"}) as test_app:
        assert test_app.get("/").text == "joe"
    assert make(page(who), extra_environ={"REMOTE_USER": "ann"}).get("/").text == "ann"


async def asgi_application(scope, receive, send):
    raise AssertionError("nobody calls it")


class ASGIApplication:
    async def __call__(self, scope, receive, send):
        raise AssertionError("nobody calls it")


@pytest.mark.parametrize("app", [asgi_application, ASGIApplication()])
def test_another_asgi_application_is_refused(app):
    with pytest.raises(TypeError, match=r"app\.gateway = Middleware\(app\.gateway\)"):
        TestApp(app)


def test_asgi_middleware_goes_around_the_gateway(make):
    async def look(ws):
        await ws.send(ws.request.headers["X-Added"])

    app = make(socket(look))
    gateway = app.gateway

    async def middleware(scope, receive, send):
        headers = [*scope["headers"], (b"x-added", b"here")]
        await gateway({**scope, "headers": headers}, receive, send)

    app.gateway = middleware
    with app.websocket("/ws") as ws:
        assert ws.recv() == "here"


def test_wsgi_middleware_may_stand_around_the_application():
    router = configured(page(hello), socket(echo), stream(numbers)).make_wsgi_app()

    def middleware(environ, start_response):
        return router(environ, start_response)

    with TestApp(middleware) as app:
        assert app.get("/").text == "hello"
        with app.websocket("/ws") as ws:
            ws.send("a")
            assert ws.recv() == "a"
        with app.eventsource("/stream") as events:
            assert events.next().data == "1"


async def numbers(request):
    for number in range(1, 4):
        yield number


# A WebSocket of Pyramid's


def test_a_request_a_websocket_and_a_stream_meet(make):
    async def publish(request):
        request.registry["bell"].set()
        return Response("rung")

    async def hear(ws):
        await ws.send("ready")
        await ws.request.registry["bell"].wait()
        await ws.send("rung")

    async def follow(request):
        yield "ready"
        await request.registry["bell"].wait()
        yield "rung"

    app = make(page(publish), socket(hear), stream(follow))
    app.app.registry["bell"] = asyncio.Event()
    with app.websocket("/ws") as ws, app.eventsource("/stream") as events:
        assert ws.recv() == "ready"
        assert events.next().data == "ready"
        assert app.get("/").text == "rung"
        assert ws.recv() == "rung"
        assert events.next().data == "rung"


def test_what_no_scope_can_carry_arrives(make):
    async def who(ws):
        await ws.send(ws.request.remote_user)

    async def whose(request):
        yield request.remote_user

    app = make(socket(who), stream(whose), extra_environ={"REMOTE_USER": "joe"})
    for options, name in [
        ({}, "joe"),
        ({"extra_environ": {"REMOTE_USER": "ann"}}, "ann"),
    ]:
        with app.websocket("/ws", **options) as ws:
            assert ws.recv() == name
        with app.eventsource("/stream", **options) as events:
            assert events.next().data == name


def tween_of_registry(handler, registry):
    return registry["tween"](handler, registry)


def tween(factory):
    """A step that adds a tween."""

    def step(config):
        config.registry["tween"] = factory
        config.add_tween(f"{__name__}.tween_of_registry")

    return step


def test_variables_for_the_test_arrive_in_the_response(make):
    def factory(handler, registry):
        def tell(request):
            request.environ["paste.testing_variables"]["seen"] = request.path
            return handler(request)

        return tell

    app = make(tween(factory), page(hello), socket(echo), stream(numbers))
    assert app.get("/").seen == "/"
    with app.websocket("/ws") as ws, app.eventsource("/stream") as events:
        assert ws.response.seen == "/ws"
        assert events.response.seen == "/stream"


class Policy:
    """Whoever has the cookie ``user`` is that user; ``joe`` may do everything."""

    def identity(self, request):
        return request.cookies.get("user")

    authenticated_userid = identity

    def permits(self, request, context, permission):
        allowed = self.identity(request) == "joe"
        return (Allowed if allowed else Denied)("because of the cookie")


def secured(config):
    config.set_security_policy(Policy())
    config.add_forbidden_view(forbidden)
    config.add_route("login", "/login")
    config.add_view(login, route_name="login")


def forbidden(request):
    return Response("log in first", status=403)


def login(request):
    response = Response("welcome")
    response.set_cookie("user", request.params["user"])
    return response


def test_who_logs_in_may_open_a_websocket(make):
    app = make(secured, socket(echo, permission="chat"))
    with pytest.raises(WebSocketRefused, match="log in first") as caught:
        app.websocket("/ws")
    assert caught.value.response.status_int == 403
    app.get("/login?user=joe")
    with app.websocket("/ws") as ws:
        ws.send("a")
        assert ws.recv() == "a"
    app.reset()
    with pytest.raises(WebSocketRefused):
        app.websocket("/ws")


def test_who_logs_in_may_open_a_stream(make):
    app = make(secured, stream(numbers, permission="read"))
    with pytest.raises(AppError, match="log in first"):
        app.eventsource("/stream")
    with app.eventsource("/stream", status=403) as refused:
        assert refused.response.text == "log in first"
    app.get("/login?user=joe")
    with app.eventsource("/stream") as events:
        assert [event.data for event in events] == ["1", "2", "3"]


def test_the_page_of_another_site_is_refused(make):
    app = make(socket(echo))
    for origin in ("https://evil.example", "null"):
        with pytest.raises(WebSocketRefused) as caught:
            app.websocket("/ws", origin=origin)
        assert caught.value.response.status_int == 403
    for origin in ("own", "http://localhost", None):
        with app.websocket("/ws", origin=origin) as ws:
            ws.send("a")
            assert ws.recv() == "a"


def test_subprotocols_and_headers_of_the_handshake(make):
    async def greet(ws):
        await ws.send(ws.subprotocol or "none")

    def factory(handler, registry):
        def decorate(request):
            response = handler(request)
            response.set_cookie("seen", "1")
            response.headers["X-Thing"] = "x"
            return response

        return decorate

    app = make(tween(factory), socket(greet, subprotocols=["a", "b"]))
    with app.websocket("/ws", subprotocols=["b", "c"]) as ws:
        assert ws.subprotocol == "b"
        assert ws.headers["X-Thing"] == "x"
        assert ws.recv() == "b"
        assert ws.recv() is None
        assert ws.close_code == 1000
    assert app.cookies["seen"] == "1"


async def fail_later(ws):
    await ws.recv()
    raise LookupError("no such room")


def fail_synchronously(ws):
    ws.recv()
    raise LookupError("no such room")


@pytest.mark.parametrize(
    ("view", "options"),
    [
        (fail_later, {}),
        (fail_synchronously, {}),
        (fail_synchronously, {"executor": True}),
    ],
)
def test_what_a_handler_raises_is_raised_in_the_test(make, view, options):
    app = make(socket(view, **options))
    with app.websocket("/ws") as ws:
        ws.send("a")
        with pytest.raises(LookupError, match="no such room"):
            ws.recv()
        assert ws.close_code == 1011
    with pytest.raises(LookupError), app.websocket("/ws") as ws:
        ws.send("a")


def test_what_a_view_raises_before_the_handshake_is_raised_in_the_test(make):
    async def fail(request):
        raise LookupError("no such room")

    app = make(page(fail, "/ws"))
    with pytest.raises(LookupError, match="no such room"):
        app.websocket("/ws")


def test_a_page_is_no_websocket(make):
    with pytest.raises(WebSocketRefused) as caught:
        make(page(hello)).websocket("/")
    assert caught.value.response.text == "hello"


def test_the_current_request_is_the_websockets(make):
    async def look(ws):
        await ws.recv()
        await ws.send(str(get_current_request() is ws.request))

    app = make(socket(look))
    with app.websocket("/ws") as one, app.websocket("/ws") as two:
        for ws in (one, two):
            ws.send("a")
            assert ws.recv() == "True"


# A stream of Pyramid's


def test_a_generator_is_closed_once_when_the_client_goes(make):
    events = []

    async def count(request):
        try:
            for number in range(1_000_000):
                yield Event(number, event="tick", id=str(number))
        finally:
            await asyncio.sleep(0)
            events.append("closed")

    app = make(stream(count))
    with app.eventsource("/stream") as ticks:
        first, second = ticks.next(), ticks.next()
        assert (first.event, first.id, first.json) == ("tick", "0", 0)
        assert second.data == "1"
        assert not events
    assert events == ["closed"]


def test_a_stream_ends_and_what_it_raises_is_raised_in_the_test(make):
    async def fail(request):
        yield "last"
        raise LookupError("no such stream")

    app = make(stream(fail))
    with app.eventsource("/stream") as events:
        assert events.next().data == "last"
        with pytest.raises(LookupError, match="no such stream"):
            events.next()
    events = app.eventsource("/stream")
    events.next()
    with pytest.raises(LookupError):
        events.wait_ended()


def test_what_the_cleanup_of_a_generator_raises_is_raised_in_the_test(make):
    async def fail(request):
        try:
            yield "last"
            await asyncio.get_running_loop().create_future()
        finally:
            raise LookupError("in the cleanup")

    app = make(stream(fail))
    with pytest.raises(LookupError), app.eventsource("/stream") as events:
        assert events.next().data == "last"


def test_a_plain_generator_and_the_last_event_id(make):
    def count(request):
        start = int(request.last_event_id or 0)
        for number in range(start + 1, start + 3):
            yield Event(number, id=str(number))

    app = make(stream(count))
    with app.eventsource("/stream") as events:
        assert [event.json for event in events] == [1, 2]
    with app.eventsource("/stream", last_event_id=events.last_event_id) as events:
        assert [event.json for event in events] == [3, 4]


def test_heartbeats_are_comments(make):
    async def quiet(request):
        await request.disconnected.wait()
        yield "never"

    app = make(stream(quiet, heartbeat=0.001))
    with app.eventsource("/stream") as events:
        with pytest.raises(TimeoutError, match=r"no events; [1-9]\d* comments"):
            events.next(0.05)
        assert set(events.comments) == {""}


# The life of the application


@pytest.fixture
def living():
    """A step that adds a lifespan, and the list in which it tells of its life."""
    told = []

    def step(config):
        @contextlib.asynccontextmanager
        async def resource(registry):
            told.append("opened")
            registry["loop"] = asyncio.get_running_loop()
            yield
            await asyncio.sleep(0)
            told.append("closed")

        config.add_lifespan(resource)
        config.add_subscriber(lambda event: told.append("starting"), AppStarting)
        config.add_subscriber(lambda event: told.append("stopping"), AppStopping)

    return step, told


OPENED = ["opened", "starting"]
CLOSED = ["stopping", "closed"]


async def on_loop(request):
    return Response(str(request.registry["loop"] is asyncio.get_running_loop()))


async def talk_on_loop(ws):
    here = asyncio.get_running_loop()
    await ws.send(str(ws.request.registry["loop"] is here))
    try:
        await ws.recv()
    finally:
        ws.request.registry["told"].append("left")


async def stream_on_loop(request):
    yield str(request.registry["loop"] is asyncio.get_running_loop())


def test_the_application_is_open_in_the_block_and_all_use_its_loop(living):
    step, told = living
    steps = [page(on_loop), socket(talk_on_loop), stream(stream_on_loop)]
    app = TestApp(configured(step, *steps).make_wsgi_app())
    app.app.registry["told"] = told
    assert told == []
    with app:
        assert told == OPENED
        assert app.get("/").text == "True"
        assert app.websocket("/ws").recv() == "True"
        assert app.eventsource("/stream").next().data == "True"
        assert told == OPENED
    # What was opened has ended before.
    assert told == [*OPENED, "left", *CLOSED]


def test_the_first_request_opens_it_and_close_closes_it(living):
    step, told = living
    app = TestApp(configured(step, page(on_loop), socket(echo)).make_wsgi_app())
    assert app.get("/").text == "True"
    assert app.get("/").text == "True"
    assert told == OPENED
    app.close()
    assert told == [*OPENED, *CLOSED]
    app.close()
    assert told == [*OPENED, *CLOSED]
    # It opens again.
    with app.websocket("/ws") as ws:
        ws.send("a")
        assert ws.recv() == "a"
    app.close()
    assert told == [*OPENED, *CLOSED] * 2


def test_it_is_opened_once_by_requests_that_overlap(living, run):
    step, told = living
    app = TestApp(configured(step, page(on_loop)).make_wsgi_app())

    async def main():
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(spawn_greenlet(app.get, "/"))
        assert told == OPENED

    run(main())
    # The loop has ended.
    assert told == [*OPENED, *CLOSED]
    app.close()


def test_it_is_closed_in_a_coroutine(living, run):
    step, told = living
    app = TestApp(configured(step, page(on_loop)).make_wsgi_app())

    def use():
        with app:
            assert app.get("/").text == "True"

    async def main():
        await spawn_greenlet(use)
        assert told == [*OPENED, *CLOSED]

    run(main())


here = contextvars.ContextVar("here", default="nowhere")


def test_what_a_test_has_set_is_not_for_the_whole_application():
    seen = []

    def step(config):
        @contextlib.asynccontextmanager
        async def resource(registry):
            seen.append(here.get())
            yield

        config.add_lifespan(resource)

    here.set("test")
    with TestApp(configured(step).make_wsgi_app()):
        assert seen == ["nowhere"]
    here.set("nowhere")


def test_an_application_that_is_dropped_stays_open(living, caplog):
    step, told = living
    app = TestApp(configured(step, page(on_loop)).make_wsgi_app())
    assert app.get("/").text == "True"
    life = app._life
    del app
    task = weakref.ref(life._task)
    del life
    gc.collect()
    assert told == OPENED
    assert task() is not None
    task().get_loop().call_soon_threadsafe(task().cancel)
    serving.wait(asyncio.wait, {task()})
    assert told == [*OPENED, *CLOSED]
    assert "destroyed" not in caplog.text


def test_what_somebody_else_has_opened_is_theirs(living):
    step, told = living
    router = configured(step, page(on_loop)).make_wsgi_app()
    with TestApp(router) as app:
        with TestApp(router) as other:
            assert other.get("/").text == "True"
        assert told == OPENED
        assert app.get("/").text == "True"
    assert told == [*OPENED, *CLOSED]


def test_it_is_open_on_one_loop(living, run):
    step, told = living
    app = TestApp(configured(step, page(on_loop)).make_wsgi_app())

    def use():
        with pytest.raises(ScopeError, match="open on another event loop"):
            app.get("/")
        with pytest.raises(ScopeError, match="open on another event loop"):
            app.close()

    async def main():
        await spawn_greenlet(use)

    with app:
        run(main())
        assert told == OPENED


def failing(at_the_end=False, times=1):
    """A step that adds a lifespan that fails so many times."""
    left = [times]

    def step(config):
        @contextlib.asynccontextmanager
        async def resource(registry):
            if not at_the_end and left[0]:
                left[0] -= 1
                raise LookupError("no database")
            yield
            if at_the_end:
                raise LookupError("no database")

        config.add_lifespan(resource)

    return step


def test_an_error_at_the_start_is_raised():
    config = configured(failing(times=2), page(hello))
    app = TestApp(config.make_wsgi_app())
    with pytest.raises(LookupError, match="no database"):
        app.get("/")
    with pytest.raises(LookupError, match="no database"), app:
        raise AssertionError("it is not entered")
    assert app.get("/").text == "hello"
    app.close()


def test_an_error_that_is_no_exception_is_raised():
    def step(config):
        @contextlib.asynccontextmanager
        async def resource(registry):
            raise asyncio.CancelledError
            yield

        config.add_lifespan(resource)

    with pytest.raises(asyncio.CancelledError):
        TestApp(configured(step, page(hello)).make_wsgi_app()).get("/")


def test_an_error_at_the_end_is_raised():
    app = TestApp(configured(failing(at_the_end=True), page(hello)).make_wsgi_app())
    app.get("/")
    with pytest.raises(LookupError, match="no database"):
        app.close()
    app.close()


def test_the_threads_of_the_application_end_with_it():
    threads = []

    def view(request):
        threads.append(threading.current_thread())
        return Response("")

    app = configured(page(view)).make_wsgi_app()
    with TestApp(app) as test_app:
        # An ordinary request runs in the thread of the test.
        test_app.get("/")
        with pytest.raises(WebSocketRefused):
            test_app.websocket("/")
        assert threads[0] is threading.current_thread()
        assert threads[1].is_alive()
    assert not threads[1].is_alive()


def test_an_application_inside_of_middleware_is_opened_by_its_request(living):
    step, told = living
    router = configured(step, page(on_loop)).make_wsgi_app()
    with TestApp(lambda *args: router(*args)) as app:
        assert told == []
        assert app.get("/").text == "True"
        assert told == OPENED
    lifespan = router.registry.getUtility(ILifespan)
    assert lifespan.is_open


def test_an_application_that_nobody_closes_is_closed_with_the_process(script):
    out = script(
        """
        import asyncio, contextlib
        from pyramid.config import Configurator
        from aioext.testing import TestApp

        @contextlib.asynccontextmanager
        async def resource(registry):
            print("opened")
            yield
            await asyncio.sleep(0)
            print("closed")

        async def view(request):
            return {}

        def main():
            with Configurator() as config:
                config.include("aioext")
                config.add_lifespan(resource)
                config.add_view(view, renderer="json")
                app = TestApp(config.make_wsgi_app())
            app.get("/")

        main()
        """
    )
    assert out == "opened\nclosed\n"


# On a loop


def test_a_coroutine_cannot_make_a_request(make, run):
    app = make(page(hello))

    async def main():
        with pytest.raises(ScopeError, match=r"await spawn_greenlet\(function\)"):
            app.get("/")
        with pytest.raises(ScopeError, match="A TestApp is synchronous"):
            app.close()

    run(main())


# What it needs


def test_webtest_is_needed_here_only(script):
    out = script(
        """
        import sys
        import aioext
        print("webtest" in sys.modules)
        sys.modules["webtest"] = None
        try:
            import aioext.testing
        except ImportError as error:
            print(error)
        """
    )
    assert out == (
        "False\naioext.testing stands on WebTest, which is not installed: "
        "pip install 'aioext[testing]'\n"
    )


def test_another_module_that_is_missing_is_not_taken_for_webtest(script):
    out = script(
        """
        import sys
        sys.modules["aioext.testing.app"] = None
        try:
            import aioext.testing
        except ModuleNotFoundError as error:
            print(error.name)
        """
    )
    assert out == "aioext.testing.app\n"

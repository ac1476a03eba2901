"""Requests in threads that run no loop, in process: contexts, bodies, refusals."""

import asyncio
import contextvars
import gc
import io
import logging
import threading
import time
import weakref
from wsgiref.util import FileWrapper

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.request import Request
from pyramid.response import Response
from pyramid.threadlocal import get_current_request, manager
from webtest import TestApp

from aioext import ScopeError, background, threaded, threadlocal, wait
from aioext.body import FileWrapper as OwnFileWrapper
from aioext.eventsource import EventSourceResponse
from aioext.exceptions import GatewayError

mark = contextvars.ContextVar("mark", default="unset")


def make(*views, **settings):
    """A WSGI application with views by their names."""
    with Configurator(settings=settings) as config:
        config.include("aioext")
        for view in views:
            config.add_view(view, name=view.__name__)
        return config.make_wsgi_app()


def call(app, path="/view", **environ):
    """The body, as the application has returned it."""
    environ = {**Request.blank(path).environ, **environ}
    return app(environ, lambda status, headers, exc_info=None: None)


# Contexts ---------------------------------------------------------------------


def test_what_a_request_sets_is_its_own():
    def view(request):
        before = mark.get()
        mark.set("set")
        return Response(f"{before} {mark.get()}")

    async def coroutine(request):
        return view(request)

    app = TestApp(make(view, coroutine))
    for path in "/view", "/coroutine", "/view":
        assert app.get(path).text == "unset set"
    assert mark.get() == "unset"


def test_what_middleware_has_set_is_seen():
    def view(request):
        return Response(mark.get())

    app = make(view)
    context = contextvars.copy_context()
    context.run(mark.set, "middleware")
    assert context.run(call, app) == [b"middleware"]


def test_a_body_has_the_context_and_the_request_of_its_view():
    def view(request):
        def chunks():
            yield mark.get().encode()
            mark.set("body")
            wait(asyncio.sleep(0))
            yield mark.get().encode()
            yield str(get_current_request() is request).encode()

        mark.set("view")
        return Response(app_iter=chunks())

    body = iter(call(make(view)))
    assert next(body) == b"view"
    assert (mark.get(), get_current_request()) == ("unset", None)
    assert list(body) == [b"body", b"True"]
    body.close()
    assert (mark.get(), manager.stack) == ("unset", [])


def test_a_body_may_be_sent_and_closed_by_other_threads():
    closed = []

    def view(request):
        def chunks():
            try:
                yield b"first"
                yield b"second"
            finally:
                closed.append((get_current_request() is request, mark.get()))

        mark.set("view")
        return Response(app_iter=chunks())

    found = []

    def in_thread(function):
        thread = threading.Thread(target=lambda: found.append(function()))
        thread.start()
        thread.join()

    body = iter(call(make(view)))
    in_thread(lambda: next(body))
    in_thread(body.close)
    assert found == [b"first", None]
    assert closed == [(True, "view")]


def test_an_application_within_another_one_is_a_part_of_its_request():
    outer = []

    def inner(request):
        def chunks():
            # As under a server with a loop: that of the application around it.
            yield f"{mark.get()} {get_current_request() is outer[0]}".encode()

        mark.set("inner")
        return Response(app_iter=chunks())

    def view(request):
        outer.append(request)
        response = request.get_response(within)
        assert mark.get() == "inner"
        assert get_current_request() is request
        return response

    within = make(inner)
    with Configurator() as config:
        config.include("aioext")
        config.add_route("all", "/*subpath")
        config.add_view(view, route_name="all")
        app = config.make_wsgi_app()
    assert TestApp(app).get("/inner").text == "inner True"
    assert mark.get() == "unset"


def test_what_was_served_before_is_no_request_of_a_body_that_has_none():
    def policy(environ, router):
        def chunks():
            yield str(get_current_request()).encode()

        return Response(app_iter=chunks())

    with Configurator() as config:
        config.include("aioext")
        config.set_execution_policy(policy)
        app = config.make_wsgi_app()
    context = contextvars.copy_context()
    context.run(threadlocal._ended.set, {"request": "other", "registry": None})
    body = context.run(call, app)
    assert b"".join(body) == b"None"
    body.close()


def test_a_request_that_is_over_is_not_kept():
    kept = []

    class Kept:
        def __init__(self):
            kept.append(weakref.ref(self))

    def view(request):
        request.kept = Kept()
        return Response("list")

    def streamed(request):
        request.kept = Kept()
        return Response(app_iter=iter([b"streamed"]))

    app = make(view, streamed)
    for path in "/view", "/streamed":
        body = call(app, path)
        b"".join(body)
        getattr(body, "close", lambda: None)()
        del body
    gc.collect()
    assert [each() for each in kept] == [None, None]
    assert not background._requests
    assert not len(background._bodies)


# Bodies -----------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", [FileWrapper, OwnFileWrapper, lambda file: file])
def test_what_the_server_s_file_wrapper_has_made_is_left_to_it(wrapper):
    made = []

    def view(request):
        made.append(request.environ["wsgi.file_wrapper"](io.BytesIO(b"content")))
        return Response(app_iter=made[0])

    body = call(make(view), **{"wsgi.file_wrapper": wrapper})
    assert body is made[0]


@pytest.mark.parametrize("wrapper", [FileWrapper, None])
def test_what_another_one_has_made_is_a_body(wrapper):
    def view(request):
        return Response(app_iter=iter([b"content"]))

    environ = {} if wrapper is None else {"wsgi.file_wrapper": wrapper}
    body = call(make(view), **environ)
    assert b"".join(body) == b"content"
    body.close()


def test_a_part_of_a_body_may_be_asked_for():
    class Ranged:
        def __iter__(self):
            raise AssertionError("the part is enough")

        def app_iter_range(self, start, stop):
            return iter([b"0123456789"[start:stop]])

    def view(request):
        response = Response(app_iter=Ranged(), conditional_response=True)
        response.content_length = 10
        return response

    answer = TestApp(make(view)).get("/view", headers={"Range": "bytes=2-4"})
    assert (answer.status_int, answer.body) == (206, b"234")


def test_a_length_that_is_known_is_kept():
    def view(request):
        return Response(app_iter=iter([b"12", b"345"]), content_length=5)

    assert TestApp(make(view)).get("/view").content_length == 5


# Cancellations ----------------------------------------------------------------


def test_a_cancellation_of_the_application_s_own_is_told():
    async def view(request):
        task = asyncio.create_task(asyncio.sleep(10))
        task.cancel()
        await task

    with pytest.raises(GatewayError, match="nobody has cancelled its request"):
        call(make(view))


def test_so_is_one_of_a_body():
    async def chunks():
        yield b"first"
        raise asyncio.CancelledError

    async def view(request):
        return Response(app_iter=chunks())

    body = iter(call(make(view)))
    assert next(body) == b"first"
    with pytest.raises(GatewayError, match="nobody has cancelled its request"):
        next(body)
    body.close()


class Parked:
    """A thread whose request waits until the loop is stopped."""

    def __init__(self, function):
        self._result = []
        self._thread = threading.Thread(target=self._run, args=(function,))
        self._thread.start()

    def _run(self, function):
        try:
            self._result.append(function())
        except Exception as error:
            self._result.append(error)

    def result(self):
        self._thread.join(10)
        return self._result[0]


def test_a_request_that_waits_when_the_loop_is_stopped_gets_503():
    waiting, order = threading.Event(), []

    async def park():
        waiting.set()
        await asyncio.Event().wait()

    def view(request):
        try:
            wait(park())
        finally:
            # The loop is there, whenever it is asked.
            time.sleep(4 * background.MOMENT)
            wait(asyncio.sleep(0))
            order.append("view")

    def finished(request):
        order.append("finished")

    def started(event):
        event.request.add_finished_callback(finished)

    statuses = []

    def start_response(status, headers, exc_info=None):
        statuses.append(status)

    with Configurator() as config:
        config.include("aioext")
        config.add_view(view, name="view")
        config.add_subscriber(started, "pyramid.events.NewRequest")
        app = config.make_wsgi_app()
    parked = Parked(lambda: app(Request.blank("/view").environ, start_response))
    assert waiting.wait(10)
    loop = background.background_loop()
    stopping = threading.Thread(target=loop.stop)
    stopping.start()
    body = parked.result()
    assert b"is stopping" in b"".join(body)
    # The loop does not end before the answer has been sent.
    stopping.join(0.1)
    assert stopping.is_alive()
    body.close()
    assert not len(background._bodies)
    stopping.join(10)
    assert statuses == ["503 Service Unavailable"]
    assert order == ["view", "finished"]


def test_a_body_that_waits_when_the_loop_is_stopped_is_cut_off():
    waiting = threading.Event()

    async def chunks():
        waiting.set()
        await asyncio.Event().wait()
        yield b"never"

    async def view(request):
        return Response(app_iter=chunks())

    body = iter(call(make(view)))
    parked = Parked(lambda: next(body))
    assert waiting.wait(10)
    stopping = threading.Thread(target=background.background_loop().stop)
    stopping.start()
    error = parked.result()
    body.close()
    # What comes next is to have a loop of its own.
    stopping.join(10)
    assert not stopping.is_alive()
    assert isinstance(error, ConnectionResetError)
    assert "has stopped before its response was complete" in str(error)


# Warnings and refusals --------------------------------------------------------


def stream(request):
    return EventSourceResponse(["event"])


def plain(request):
    return Response(app_iter=iter([b"chunk"]))


@pytest.fixture(autouse=True)
def no_loop_serves(monkeypatch):
    # That of an earlier test may be at its end.
    monkeypatch.setattr(background, "_serving", None)


@pytest.fixture
def unwarned(monkeypatch):
    monkeypatch.setattr(threaded, "_has_warned", False)


@pytest.mark.parametrize(
    ("path", "environ", "times"),
    [
        ("/stream", {"wsgi.multithread": False}, 1),
        ("/stream", {"wsgi.multithread": True}, 0),
        ("/stream", {"wsgi.multithread": False, "paste.testing": True}, 0),
        ("/plain", {"wsgi.multithread": False}, 0),
    ],
)
def test_an_event_stream_without_threads_is_told_of(
    unwarned, caplog, path, environ, times
):
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        body = call(make(stream, plain), path, **environ)
        b"".join(body)
        body.close()
    assert caplog.text.count("is an event stream, and this server") == times


class Patcher:
    """What gevent.monkey and eventlet.patcher are asked."""

    def __init__(self, is_patched):
        self.asked = []
        self._is_patched = is_patched

    def is_module_patched(self, name):
        self.asked.append(name)
        return self._is_patched

    is_monkey_patched = is_module_patched


@pytest.mark.parametrize(
    ("module", "name"), [("gevent.monkey", "gevent"), ("eventlet.patcher", "eventlet")]
)
def test_patched_threads_are_refused(monkeypatch, module, name):
    def view(request):
        return Response("answered")

    app = make(view)
    monkeypatch.setitem(background.sys.modules, module, Patcher(is_patched=False))
    assert call(app) == [b"answered"]
    make(view)
    monkeypatch.setitem(background.sys.modules, module, Patcher(is_patched=True))
    with pytest.raises(ScopeError, match=f"{name} has patched the threads"):
        call(app)
    with pytest.raises(ConfigurationError, match=f"{name} has patched the threads"):
        make(view)


def test_gevent_is_asked_by_names_that_it_knows():
    monkey = pytest.importorskip("gevent.monkey")
    assert monkey.is_module_patched("threading") is False

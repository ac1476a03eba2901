"""What serves a WebSocket: how it is called, from what it takes, and where it runs."""

import asyncio
import functools
import gc
import threading
import weakref

import pytest
from pyramid.exceptions import ConfigurationError

from aioext import synchronize, wait
from aioext.executor import THREAD_NAME, Executor
from aioext.views import Kind, kind_of
from aioext.websocket import SyncWebSocket, WebSocket
from aioext.websocket.channel import Channel
from aioext.websocket.handler import (
    Handler,
    check_kind,
    is_synchronous,
    make_binder,
)
from aioext.websocket.options import Options

ANCHOR = "errors.html#websocket-handler)"


class Echo(Channel):
    """A connection whose client says this and nothing else."""

    def __init__(self, *messages):
        super().__init__(Options())
        self.sent = []
        for message in messages:
            self.put(message)

    async def send(self, message):
        await asyncio.sleep(0)
        self.sent.append(message)


def serve(run, handler, *messages):
    """What ``handler`` sends."""
    channel = Echo(*messages)

    async def main():
        await handler(WebSocket(channel))

    run(main())
    return channel.sent


async def echo(ws):
    assert type(ws) is WebSocket
    await ws.send(await ws.recv())


def generate(ws):
    assert type(ws) is WebSocket
    message = yield from ws.recv()
    yield from ws.send(message)


def function(ws):
    assert type(ws) is SyncWebSocket
    ws.send(ws.recv())


class Called:
    async def __call__(self, ws):
        await echo(ws)

    async def method(self, ws):
        await echo(ws)


class CalledFunction:
    def __call__(self, ws):
        function(ws)


@pytest.mark.parametrize(
    "handler",
    [
        echo,
        generate,
        function,
        functools.partial(echo),
        functools.partial(function),
        Called(),
        Called().method,
        CalledFunction(),
        lambda ws: function(ws),
    ],
)
def test_a_handler_is_called_with_the_websocket_that_fits(run, handler):
    assert serve(run, Handler(handler), "hello") == ["hello"]


def wrapping(call):
    """A decorator that calls what it decorates by ``call(handler, ws)``."""

    def decorate(handler):
        @functools.wraps(handler)
        def decorated(ws):
            return call(handler, ws)

        return decorated

    return decorate


def call_it(handler, ws):
    return handler(ws)


def wait_first(handler, ws):
    wait(asyncio.sleep(0))
    return handler(ws)


def make_task(handler, ws):
    return asyncio.ensure_future(handler(ws))


@pytest.mark.parametrize("call", [call_it, wait_first, make_task])
def test_a_decorator_may_do_what_it_likes_with_a_coroutine(run, call):
    assert serve(run, Handler(wrapping(call)(echo)), "hello") == ["hello"]


@pytest.mark.parametrize("call", [call_it, wait_first])
def test_a_decorator_may_do_what_it_likes_with_a_generator(run, call):
    assert serve(run, Handler(wrapping(call)(generate)), "hello") == ["hello"]


def test_a_decorator_may_call_nothing(run):
    handler = wrapping(lambda handler, ws: None)(echo)
    assert serve(run, Handler(handler), "hello") == []


def test_what_a_function_gives_is_awaited(run):
    async def quiet(ws):
        await asyncio.sleep(0)
        seen.append(type(ws))

    seen = []
    serve(run, Handler(lambda ws: quiet(ws)))
    # But it was not known for a coroutine when it got its WebSocket.
    assert seen == [SyncWebSocket]


@pytest.mark.parametrize("handler", [echo, generate, wrapping(call_it)(echo)])
def test_synchronous_code_that_a_coroutine_calls_may_wait(run, handler):
    class Waiting(Echo):
        async def send(self, message):
            wait(asyncio.sleep(0))
            await super().send(message)

    channel = Waiting("hello")

    async def main():
        await Handler(handler)(WebSocket(channel))

    run(main())
    assert channel.sent == ["hello"]


def test_a_function_waits_in_a_greenlet_on_the_loop(run):
    def handler(ws):
        where.append(threading.current_thread())
        ws.send(ws.recv())

    where = []
    assert serve(run, Handler(handler), "hello") == ["hello"]
    assert where == [threading.current_thread()]


def test_a_function_may_have_a_thread(run):
    def handler(ws):
        where.append(threading.current_thread().name)
        ws.send(ws.recv())

    where = []
    executor = Executor(1)
    assert serve(run, Handler(handler, executor), "hello") == ["hello"]
    assert where[0].startswith(THREAD_NAME)
    run(executor.aclose())


class Failure(Exception): ...


@pytest.mark.parametrize("kind", ["coroutine", "generator", "function", "decorated"])
def test_what_a_handler_raises_is_raised(run, kind):
    async def coroutine(ws):
        await ws.recv()
        raise Failure

    def generator(ws):
        yield from ws.recv()
        raise Failure

    def function(ws):
        ws.recv()
        raise Failure

    handlers = {
        "coroutine": coroutine,
        "generator": generator,
        "function": function,
        "decorated": wrapping(wait_first)(coroutine),
    }
    with pytest.raises(Failure):
        serve(run, Handler(handlers[kind]), "hello")


def test_a_generator_that_yields_a_value_is_told_so(run):
    def handler(ws):
        yield "hello"

    with pytest.raises(TypeError, match=r"yielded 'hello'.* `yield from awaitable`"):
        serve(run, Handler(handler))


@pytest.mark.parametrize("handler", [echo, generate, function])
def test_a_cancelled_handler_leaves_no_garbage(run, handler):
    async def main():
        ws = WebSocket(Echo())
        alive = weakref.ref(ws)
        gc.collect()
        gc.disable()
        try:
            serving = asyncio.ensure_future(Handler(handler)(ws))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            serving.cancel()
            await asyncio.wait([serving])
            del ws, serving
            await asyncio.sleep(0)
            return alive()
        finally:
            gc.enable()

    assert run(main()) is None


def test_a_handler_is_described_as_pyramid_does():
    assert Handler(echo).description == f"function {__name__}.echo"
    assert Handler(echo, description="this").description == "this"


# What is called with what


def bind(view, attr=None):
    """What ``view`` is given: the names stand for the things."""
    handler = make_binder(view, attr)("context", "request")
    return handler("ws")


@pytest.mark.parametrize(
    ("view", "given"),
    [
        (lambda ws: (ws,), ("ws",)),
        (lambda socket: (socket,), ("ws",)),
        (lambda request: (request,), ("request",)),
        (lambda context: (context,), ("context",)),
        (lambda request, ws: (request, ws), ("request", "ws")),
        (lambda ws, request: (ws, request), ("ws", "request")),
        (lambda context, ws: (context, ws), ("context", "ws")),
        (lambda context, request: (context, request), ("context", "request")),
        (lambda a, b: (a, b), ("request", "ws")),
        (lambda request, socket: (request, socket), ("request", "ws")),
        (lambda socket, request: (socket, request), ("ws", "request")),
        (lambda context, socket: (context, socket), ("context", "ws")),
        (lambda req, ws: (req, ws), ("request", "ws")),
        (
            lambda ws, request, context: (ws, request, context),
            ("ws", "request", "context"),
        ),
        (
            lambda context, request, ws: (context, request, ws),
            ("context", "request", "ws"),
        ),
        (lambda a, b, c: (a, b, c), ("context", "request", "ws")),
        (lambda ctx, request, ws: (ctx, request, ws), ("context", "request", "ws")),
        (
            lambda context, request, socket: (context, request, socket),
            ("context", "request", "ws"),
        ),
        (lambda ws, timeout=5: (ws, timeout), ("ws", 5)),
        (lambda ws, *args, **kwargs: (ws, *args), ("ws",)),
        (lambda ws, /: (ws,), ("ws",)),
        (functools.partial(lambda a, ws: (a, ws), "bound"), ("bound", "ws")),
    ],
)
def test_a_function_is_given_what_its_parameters_name(view, given):
    assert bind(view) == given


@pytest.mark.parametrize(
    "view",
    [
        lambda: None,
        lambda *args: None,
        lambda *, ws: None,
        lambda a, b, c, d: None,
        lambda ws, other: None,
        lambda a, context, b: None,
        lambda ws, a, b: None,
        lambda timeout=5: None,
    ],
)
def test_other_parameters_are_refused(view):
    with pytest.raises(ConfigurationError) as caught:
        make_binder(view, None)
    assert "WebsocketMapper gives (ws), (request, ws) or (context" in str(caught.value)
    assert str(caught.value).endswith(ANCHOR)


def test_what_does_not_tell_its_parameters_is_given_the_websocket():
    class BuiltIn:
        __signature__ = "none"

        def __call__(self, *args):
            return args

    assert bind(BuiltIn()) == ("ws",)


class OfRequest:
    def __init__(self, request):
        self.made = ("of", request)

    def __call__(self, ws):
        return (*self.made, ws)

    def talk(self, ws):
        return ("talk", *self.made, ws)

    def with_request(self, request, ws):
        return (request, ws)

    @staticmethod
    def static(ws):
        return ("static", ws)

    @classmethod
    def of_class(cls, ws):
        return (cls.__name__, ws)


class OfBoth:
    def __init__(self, context, request):
        self.made = (context, request)

    def __call__(self, context, request, ws):
        return (*self.made, context, request, ws)


@pytest.mark.parametrize(
    ("view", "attr", "given"),
    [
        (OfRequest, None, ("of", "request", "ws")),
        (OfRequest, "talk", ("talk", "of", "request", "ws")),
        (OfRequest, "with_request", ("request", "ws")),
        (OfRequest, "static", ("static", "ws")),
        (OfRequest, "of_class", ("OfRequest", "ws")),
        (OfBoth, None, ("context", "request", "context", "request", "ws")),
        (OfRequest("made"), None, ("of", "made", "ws")),
        (OfRequest("made"), "talk", ("talk", "of", "made", "ws")),
    ],
)
def test_a_class_is_made_of_the_request_and_called_with_the_websocket(
    view, attr, given
):
    assert bind(view, attr) == given


def test_a_class_is_made_when_the_request_comes():
    made = []

    class View:
        def __init__(self, request):
            made.append(request)

        def __call__(self, ws): ...

    handler = make_binder(View, None)("context", "request")
    assert made == ["request"]
    handler("ws")
    assert made == ["request"]


class Silent:
    def __init__(self, request): ...


@pytest.mark.parametrize(("attr", "missing"), [(None, "__call__"), ("talk", "talk")])
def test_a_class_without_the_method_is_refused(attr, missing):
    with pytest.raises(ConfigurationError, match=rf"without a method {missing}\(\)"):
        make_binder(Silent, attr)


@pytest.mark.parametrize("form", ["function", "method"])
def test_generators_wait_whatever_they_take(run, form):
    def generator(request, ws):
        yield from ws.send(request)

    class View:
        def __init__(self, request): ...

        def talk(self, request, ws):
            yield from ws.send(request)

    view, attr = (generator, None) if form == "function" else (View, "talk")
    handler = make_binder(view, attr)("context", "request")
    assert serve(run, Handler(handler, None, Kind.GENERATOR)) == ["request"]


# What is told when it is configured


@pytest.mark.parametrize(
    ("handler", "synchronous"),
    [
        (echo, False),
        (generate, False),
        (wrapping(call_it)(echo), False),
        (wrapping(call_it)(generate), False),
        (function, True),
        (synchronize(echo), True),
    ],
)
def test_a_kind_decides_on_the_websocket(handler, synchronous):
    assert is_synchronous(kind_of(handler)) is synchronous


@pytest.mark.parametrize("in_threads", [True, False])
def test_an_asynchronous_generator_is_refused(in_threads):
    with pytest.raises(ConfigurationError) as caught:
        check_kind(Kind.ASYNC_GENERATOR, "function a.b", in_threads)
    message = str(caught.value)
    assert message.startswith("The view function a.b is an asynchronous generator.")
    assert message.endswith(ANCHOR)


@pytest.mark.parametrize("kind", Kind)
def test_only_functions_run_in_threads(kind):
    if kind in (Kind.FUNCTION, Kind.SYNCHRONIZED):
        check_kind(kind, "it", True)
        return
    with pytest.raises(ConfigurationError):
        check_kind(kind, "function a.b", True)


def test_a_handler_takes_little_memory():
    assert not hasattr(Handler(echo), "__dict__")

"""WebSockets as a part of Pyramid: contexts, subrequests, tweens, and no garbage."""

import asyncio
import gc
import weakref

import pytest
from asgi_websocket import InProcess
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.request import Request
from pyramid.response import Response
from ws_client import Refused

from aioext import shutdown
from aioext.eventsource import EventSourceMapper
from aioext.gateway import Gateway
from aioext.websocket import (
    SyncWebSocket,
    WebsocketConnectionView,
    WebsocketMapper,
    WebSocketResponse,
)


def served(view, *, configure=None, **options):
    config = Configurator()
    config.include("aioext")
    if configure is not None:
        configure(config)
    config.add_view(view, **options)
    return InProcess(Gateway(config.make_wsgi_app()))


def run(coroutine):
    async def limited():
        async with asyncio.timeout(5):
            return await coroutine

    return asyncio.run(limited())


async def talk(server, *sent):
    async with server.connect("/") as ws:
        received = []
        for each in sent:
            await ws.send(each)
            received.append(await ws.recv())
        return received


def test_the_request_of_a_handler_has_its_context():
    async def handler(request, ws):
        await ws.recv()
        await ws.send(type(request.context).__name__)
        told.append(request)

    told = []
    assert run(talk(served(handler, mapper=WebsocketMapper), "?")) == [
        "DefaultRootFactory"
    ]
    assert "context" not in vars(told[0])


def test_a_stream_refuses_a_websocket():
    async def ticks(request):
        while True:
            yield "tick"
            await asyncio.sleep(0)

    with pytest.raises(Refused) as refused:
        run(talk(served(ticks, mapper=EventSourceMapper)))
    assert refused.value.status == 400


def test_a_body_that_is_not_sent_is_not_read_but_closed():
    class Body:
        closed = read = 0

        def __iter__(self):
            self.read += 1
            return iter([b"x"])

        def close(self):
            self.closed += 1

    async def view(request):
        if "used" in request.params:
            await request.websocket.send("hello")
        return Response(app_iter=body)

    async def main(path):
        async with served(view).connect(path) as ws:
            return await ws.recv()

    body = Body()
    assert run(main("/?used=1")) == "hello"
    with pytest.raises(Refused):
        run(main("/"))
    assert (body.read, body.closed) == (0, 2)


def test_the_server_says_farewell_whatever_form_it_has():
    async def view(request):
        async for message in request.websocket:
            await request.websocket.send(message)
        return request.websocket

    async def main():
        async with served(view).connect("/") as ws:
            await ws.send("x")
            await ws.recv()
            shutdown.announce(asyncio.get_running_loop())
            return await ws.closed()

    assert run(main()) == (1012, "")


async def by_attribute(request):
    async for message in request.websocket:
        await request.websocket.send(message)
    return request.websocket


async def by_mapper(request, ws):
    async for message in ws:
        await ws.send(message)


def by_function(request):
    for message in request.websocket:
        request.websocket.send(message)
    return request.websocket


@pytest.mark.parametrize(
    ("view", "options"),
    [(by_attribute, {}), (by_mapper, {"mapper": WebsocketMapper}), (by_function, {})],
)
def test_a_websocket_leaves_nothing_to_the_collector(view, options):
    def noted(view, info):
        def noting(context, request):
            alive.add(request)
            alive.add(request.environ["aioext.websocket"])
            return view(context, request)

        return noting

    alive = weakref.WeakSet()
    server = served(view, configure=lambda c: c.add_view_deriver(noted), **options)

    async def main():
        await talk(server, "x")
        gc.collect()
        alive.clear()
        gc.disable()
        try:
            for _ in range(5):
                await talk(server, "x")
            await asyncio.sleep(0)
            return len(alive)
        finally:
            gc.enable()

    assert run(main()) == 0


def test_a_timeout_does_not_undo_a_handshake():
    async def view(request):
        with pytest.raises(TimeoutError):
            await request.websocket.recv(timeout=0)
        accepting.set()
        await request.websocket.send("hello")
        return request.websocket

    async def main():
        server = served(view)
        gateway = server.app

        async def slow(scope, receive, send):
            async def slowly(message):
                await send(message)
                if message["type"] == "websocket.accept":
                    await accepting.wait()

            await gateway(scope, receive, slowly)

        server.app = slow
        async with server.connect("/") as ws:
            return await ws.recv()

    accepting = asyncio.Event()
    assert run(main()) == "hello"


def test_a_response_without_a_request_looks_at_the_origin():
    async def handler(ws):
        raise AssertionError

    def app(environ, start_response):
        return WebSocketResponse(handler)(environ, start_response)

    async def main():
        async with InProcess(Gateway(app)).connect("/", origin="http://evil.example"):
            pass

    with pytest.raises(Refused) as refused:
        run(main())
    assert refused.value.status == 403


def test_a_call_of_the_applications_own_is_inherited():
    class Base(WebsocketConnectionView):
        async def __call__(self, ws):
            calls.append("base")
            await super().__call__(ws)

    class View(Base):
        async def on_message(self, message):
            await self.send(message)

    calls = []
    assert run(talk(served(View, mapper=WebsocketMapper), "x")) == ["x"]
    assert calls == ["base"]


def test_who_asks_for_the_websocket_first_does_not_decide_what_it_is():
    def asking(view):
        def asked(context, request):
            assert request.websocket is not None
            return view(context, request)

        return asked

    def view(request):
        assert type(request.websocket) is SyncWebSocket
        request.websocket.send(request.websocket.recv())
        return request.websocket

    assert run(talk(served(view, decorator=asking), "x")) == ["x"]


def test_a_function_in_a_thread_may_give_an_awaitable():
    def handler(ws):
        async def rest():
            ended.append(ws)

        return rest()

    ended = []
    run(talk(served(handler, mapper=WebsocketMapper, executor=True)))
    assert len(ended) == 1


def test_executor_without_the_mapper_is_refused():
    with pytest.raises(ConfigurationError, match="mapper=WebsocketMapper"):
        served(lambda request: Response(), executor=True)


def inner(request):
    return Response(repr(request.is_websocket))


def test_a_subrequest_of_another_class_has_the_attributes():
    def outer(request):
        return request.invoke_subrequest(Request.blank("/inner"), use_tweens=True)

    def tween(handler, registry):
        def tweened(request):
            assert request.is_websocket is False
            return handler(request)

        return tweened

    def configure(config):
        config.add_tween(f"{__name__}.tween")
        config.add_view(inner, name="inner")

    globals()["tween"] = tween
    assert run(served(outer, configure=configure).get("/")).body == "False"


def test_a_factory_that_is_set_after_a_commit():
    class Own(Request): ...

    def configure(config):
        config.commit()
        config.set_request_factory(Own)

    assert run(served(inner, configure=configure).get("/")).body == "False"


def test_an_add_on_may_have_the_name():
    def add_on(config):
        config.add_request_method(lambda request: "theirs", "is_websocket", reify=True)

    server = served(inner, configure=lambda config: config.include(add_on))
    assert run(server.get("/")).body == "'theirs'"

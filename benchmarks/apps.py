"""The applications that the servers serve, each made by a function.

All of them answer the same few bytes, so that what differs is how a request
gets to its view and the answer back. Frameworks are imported where they are
used, for none of them is needed by another one's server.

Paths: ``/`` answers at once, from a synchronous view where the framework's
users would write one; ``/coroutine`` from a coroutine; ``/wait`` after
:data:`PAUSE` seconds; ``/hold`` when ``/release`` is asked for, and ``/held``
tells how many do so now. ``/echo`` is a WebSocket that sends back what it
receives, ``/ticks`` an event stream that tells the time once a second, ``/idle``
one that tells nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

BODY = b"Hello World!"
# Seconds that a view waits.
PAUSE = 0.1
# Seconds between two events of a stream.
TICK = 1.0


def plain_pyramid() -> Any:
    """Pyramid without aioext: a synchronous view, for WSGI servers."""
    from pyramid.config import Configurator

    return _add_view(Configurator(), "/", hello).make_wsgi_app()


def gevent_pyramid() -> Any:
    """Pyramid without aioext, for gevent's worker, which can wait."""
    import gevent
    from pyramid.config import Configurator

    def wait(request: Any) -> Any:
        gevent.sleep(PAUSE)
        return hello(request)

    config = _add_view(Configurator(), "/", hello)
    return _add_view(config, "/wait", wait).make_wsgi_app()


def aioext_pyramid() -> Any:
    """Pyramid with aioext as it is after ``config.include("aioext")``."""
    config = _aioext_configurator("executor")
    held = _Held()

    async def hold(request: Any) -> Any:
        await held.hold()
        return hello(request)

    async def count(request: Any) -> Any:
        return _response(b"%d" % held.number)

    async def release(request: Any) -> Any:
        held.release()
        return hello(request)

    views = {"/": hello, "/coroutine": hello_coroutine, "/wait": wait_coroutine}
    views |= {"/hold": hold, "/held": count, "/release": release}
    for path, view in views.items():
        _add_view(config, path, view)
    return config.make_wsgi_app()


def inline_pyramid() -> Any:
    """Pyramid with aioext whose synchronous views run inline."""
    config = _aioext_configurator("inline")
    _add_view(config, "/", hello)
    _add_view(config, "/coroutine", hello_coroutine)
    _add_view(config, "/suspend", suspend_coroutine)
    return config.make_wsgi_app()


def unbridged_pyramid() -> Any:
    """An ASGI application that calls a Pyramid application without a bridge.

    The ceiling of what any bridge can reach: it builds the same environ, and
    calls the application in the coroutine itself, where nothing may wait.
    """
    from aioext.environ import base_environ, build_environ
    from aioext.wsgi_input import EMPTY

    app = inline_pyramid()
    base = base_environ(False, None)

    async def unbridged(scope: Any, receive: Any, send: Any) -> None:
        _refuse_lifespan(scope)
        head = {"type": "http.response.start"}

        def start_response(status: str, headers: Any, exc_info: Any = None) -> None:
            head["status"] = int(status[:3])
            head["headers"] = [
                (name.lower().encode("latin-1"), value.encode("latin-1"))
                for name, value in headers
            ]

        environ = build_environ(scope, base)
        environ["wsgi.input"] = EMPTY
        body = b"".join(app(environ, start_response))
        await send(head)
        await send({"type": "http.response.body", "body": body})

    return unbridged


def a2wsgi_pyramid() -> Any:
    """Pyramid without aioext, as a2wsgi serves it: in threads."""
    from a2wsgi import WSGIMiddleware

    return WSGIMiddleware(plain_pyramid(), workers=32)


def fastapi() -> Any:
    """FastAPI, a coroutine."""
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI(openapi_url=None)

    @app.get("/", response_class=PlainTextResponse)
    async def view() -> PlainTextResponse:
        return PlainTextResponse(BODY)

    return app


def starlette() -> Any:
    """Starlette, a coroutine."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def view(request: Any) -> PlainTextResponse:
        return PlainTextResponse(BODY)

    return Starlette(routes=[Route("/", view)])


def raw_asgi() -> Any:
    """No framework at all: what the server itself can do."""
    held = _Held()

    async def raw(scope: Any, receive: Any, send: Any) -> None:
        _refuse_lifespan(scope)
        path, body = scope["path"], BODY
        if path == "/wait":
            await asyncio.sleep(PAUSE)
        elif path == "/hold":
            await held.hold()
        elif path == "/held":
            body = b"%d" % held.number
        elif path == "/release":
            held.release()
        headers = [
            (b"content-type", b"text/plain; charset=UTF-8"),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return raw


def aioext_sockets() -> Any:
    """Pyramid with aioext: a WebSocket."""
    from aioext.websocket import WebsocketMapper

    async def echo(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    config = _add_view(_aioext_configurator("executor"), "/", hello)
    return _add_view(config, "/echo", echo, mapper=WebsocketMapper).make_wsgi_app()


def aioext_streams() -> Any:
    """Pyramid with aioext: an event stream."""
    from aioext.eventsource import Event, EventSourceMapper

    async def ticks(request: Any) -> Any:
        while True:
            yield Event(_now())
            await asyncio.sleep(TICK)

    config = _add_view(_aioext_configurator("executor"), "/", hello)
    return _add_view(config, "/ticks", ticks, mapper=EventSourceMapper).make_wsgi_app()


def aioext_connections() -> Any:
    """Pyramid with aioext: a WebSocket, and an event stream that says nothing."""
    return _connections().make_wsgi_app()


def asgi_connections() -> Any:
    """The same for ASGI servers."""
    return _connections().make_asgi_app()


def _connections() -> Any:
    from aioext.eventsource import EventSourceMapper
    from aioext.websocket import WebsocketMapper

    async def echo(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    async def idle(request: Any) -> Any:
        await asyncio.Event().wait()
        yield None

    config = _add_view(_aioext_configurator("executor"), "/", hello)
    _add_view(config, "/idle", idle, mapper=EventSourceMapper)
    return _add_view(config, "/echo", echo, mapper=WebsocketMapper)


def raw_sockets() -> Any:
    """A WebSocket and an event stream without a framework."""
    raw = raw_asgi()

    async def sockets(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await _echo(receive, send)
        elif scope["path"] == "/ticks":
            await _tick(send)
        else:
            await raw(scope, receive, send)

    return sockets


async def _echo(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        answer = {"text": message.get("text"), "bytes": message.get("bytes")}
        await send({"type": "websocket.send", **answer})


async def _tick(send: Any) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while True:
        event = b"data: %s\n\n" % _now().encode()
        await send({"type": "http.response.body", "body": event, "more_body": True})
        await asyncio.sleep(TICK)


def aiohttp_sockets() -> Any:
    """aiohttp, for its worker."""
    from aiohttp import web

    async def view(request: Any) -> Any:
        return web.Response(body=BODY, content_type="text/plain")

    async def echo(request: Any) -> Any:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            await ws.send_str(message.data)
        return ws

    app = web.Application()
    app.add_routes([web.get("/", view), web.get("/echo", echo)])
    return app


def starlette_streams() -> Any:
    """Starlette with sse-starlette."""
    from sse_starlette import EventSourceResponse, ServerSentEvent
    from starlette.routing import Route

    async def tell() -> Any:
        while True:
            yield ServerSentEvent(_now())
            await asyncio.sleep(TICK)

    async def ticks(request: Any) -> EventSourceResponse:
        return EventSourceResponse(tell())

    app = starlette()
    app.routes.append(Route("/ticks", ticks))
    return app


def _now() -> str:
    # Comparable with what another process reads on the same machine.
    return repr(time.monotonic())


def hello(request: Any) -> Any:
    """The synchronous view."""
    return _response(BODY)


async def hello_coroutine(request: Any) -> Any:
    """The same as a coroutine, which does not suspend."""
    return _response(BODY)


async def suspend_coroutine(request: Any) -> Any:
    """The same, suspended once."""
    await asyncio.sleep(0)
    return _response(BODY)


async def wait_coroutine(request: Any) -> Any:
    """The same after :data:`PAUSE` seconds."""
    await asyncio.sleep(PAUSE)
    return _response(BODY)


def _response(body: bytes) -> Any:
    from pyramid.response import Response

    return Response(body, content_type="text/plain")


def _aioext_configurator(sync_views: str) -> Any:
    from pyramid.config import Configurator

    config = Configurator(settings={"aioext.sync_views": sync_views})
    config.include("aioext")
    return config


def _add_view(
    config: Any, path: str, view: Callable[[Any], Any], **options: Any
) -> Any:
    config.add_route(path, path)
    config.add_view(view, route_name=path, **options)
    return config


def _refuse_lifespan(scope: Any) -> None:
    # That is how an application says that it has none.
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])


class _Held:
    """Requests that wait until they are released."""

    def __init__(self) -> None:
        self.number = 0
        self._released = asyncio.Event()

    async def hold(self) -> None:
        self.number += 1
        try:
            await self._released.wait()
        finally:
            self.number -= 1

    def release(self) -> None:
        released, self._released = self._released, asyncio.Event()
        released.set()

"""A WebSocket over ASGI's messages, and how the gateway serves one.

Theory of operation
===================

The application is called as for any request, with a GET and a
:class:`~aioext.websocket.handshake.Handshake` in the environ. What it answers
decides: the status 101 accepts the WebSocket, and the body that comes with it is
the handler; anything else refuses it, and is sent as an HTTP response where the
server can (ASGI's ``websocket.http.response``), as a bare 403 where it cannot.

A server that has better to offer than messages says so in the scope's extensions,
under ``aioext.websocket``: ``open`` is then called instead of sending
``websocket.accept``, and gives a :class:`~aioext.websocket.channel.Channel`.

Over messages, a Task receives all the time, for most servers tell nobody that a
client has left who does not ask; it pauses while the queue is full. When the
connection has ended, the handler has :data:`GRACE` seconds to do so too.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Iterable
from typing import Any

from pyramid.httpexceptions import HTTPBadRequest, HTTPException

from .. import greenlets, threadlocal
from ..environ import build_environ
from ..exceptions import ConnectionClosed, GatewayError, explain
from ..interfaces import ISockets
from ..lifespan import Lifespan
from ..passage import Passage
from ..shutdown import on_shutdown
from ..wsgi_input import EMPTY
from ..wsgi_response import StartResponse
from .channel import (
    ABNORMAL,
    IN_A_ROW,
    INTERNAL_ERROR,
    NO_STATUS,
    NORMAL,
    SERVICE_RESTART,
    TOO_BIG,
    Channel,
    Message,
    check_close,
    check_message,
)
from .handshake import KEY, UPGRADE_FIELDS, Handshake
from .options import Options
from .response import WebSocketBody, is_closed

__all__ = ["ASGIChannel", "SocketExchange", "warn_of_limits"]

log = logging.getLogger("aioext")

EXTENSION = "aioext.websocket"
DENIAL = "websocket.http.response"
# hypercorn's ProxyFixMiddleware writes what the proxy has said.
SCHEMES = {"ws": "http", "wss": "https", "https": "https"}

# Seconds that a server has, when it stops, to close its WebSockets by itself.
SERVER_CLOSES = 0.3

# Seconds that a handler has after the end of its connection.
GRACE = 3.0


class ASGIChannel(Channel):
    """A channel over the messages of an ASGI server."""

    def __init__(self, receive: Any, send: Any, options: Options) -> None:
        super().__init__(options)
        self._receive = receive
        self._send = send
        self._sending = asyncio.Lock()
        self._room: asyncio.Future[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        # Nothing of the request is to be seen, or kept, by what outlives it.
        self._pump = asyncio.get_running_loop().create_task(
            self._receive_all(), context=contextvars.Context()
        )
        self._forget_shutdown = on_shutdown(self._go_away)

    async def _receive_all(self) -> None:
        while not self.closed:
            try:
                message = await self._receive()
            except (OSError, RuntimeError):
                # Servers differ in what they do once the client has left.
                self.end(ABNORMAL)
                return
            if message["type"] != "websocket.receive":
                code = message.get("code") or NO_STATUS
                self.end(code, message.get("reason") or "")
                return
            await self._take(message)

    async def _take(self, message: Any) -> None:
        if self.closed:
            # It came while the close frame went out.
            return
        text = message.get("text")
        data = message["bytes"] if text is None else text
        size = len(data) if text is None or text.isascii() else len(text.encode())
        if size > self.options.max_size:
            await self.close(TOO_BIG, f"over {self.options.max_size} bytes")
        elif not self.put(data):
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def _resume(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def send(self, message: Message) -> None:
        check_message(message)
        if isinstance(message, str):
            event = {"type": "websocket.send", "text": str.__str__(message)}
        else:
            event = {"type": "websocket.send", "bytes": bytes(message)}
        async with self._sending:
            self.check_open()
            try:
                await self._send(event)
            except (OSError, RuntimeError):
                # Servers differ in what they raise once the client has left.
                self.end(ABNORMAL)
        self._sent += 1
        if self._sent >= IN_A_ROW:
            await self.give_way()
        self.check_open()

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        check_close(code, reason)
        if not self.closed:
            self.end(code, reason, here=True)
            self._closing = asyncio.ensure_future(self._send_close(code, reason))
        if self._closing is not None:
            # Whoever is cancelled here has closed it all the same.
            await asyncio.shield(self._closing)

    async def _send_close(self, code: int, reason: str) -> None:
        event = {"type": "websocket.close", "code": code, "reason": reason}
        await self._stop_receiving()
        async with self._sending:
            try:
                await self._send(event)
            except (OSError, RuntimeError):
                # The client has left.
                pass

    async def _stop_receiving(self) -> None:
        # granian sends no close frame while the application receives.
        if self._pump is not asyncio.current_task() and not self._pump.done():
            self._pump.cancel()
            await asyncio.wait((self._pump,))

    def _go_away(self) -> None:
        if not self.closed:
            self.end(SERVICE_RESTART, here=True)
            self._closing = asyncio.ensure_future(self._go())

    async def _go(self) -> None:
        # The client hears it once: from a server that says so by itself, or from us.
        await asyncio.wait((self._pump,), timeout=SERVER_CLOSES)
        if not self._pump.done():
            await self._send_close(SERVICE_RESTART, "")

    def release(self) -> None:
        """Receive no more."""
        self._forget_shutdown()
        self._pump.cancel()


class SocketExchange(StartResponse):
    """One scope of type ``websocket``; the application's ``start_response``."""

    # It serves a Passage; see there.
    passes = True

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        super().__init__("GET")
        self._scope = scope
        self._receive = receive
        self._send = send
        self._task: asyncio.Task[Any] | None = None
        self._cancelling: asyncio.TimerHandle | None = None
        self._cancelled = False
        # What the server has better to offer than messages, if it has.
        self._extension = (scope.get("extensions") or {}).get(EXTENSION)
        self._failed = True
        self._is_lost = False
        self._is_over = False

    async def serve(self, app: Any, base: dict[str, Any]) -> Passage | None:
        """Call the WSGI application ``app``, and do what it answers.

        Returns:
            the passage, if that is the answer, still to be served.
        """
        passage = None
        self._task = asyncio.current_task()
        await self._receive()
        environ = self._environ(base)
        self.handshake = handshake = Handshake(environ, self._open_channel, self)
        environ[KEY] = handshake
        try:
            body = await greenlets.run(self._run, (app, environ))
            if type(body) is WebSocketBody:
                with threadlocal.pushed(threadlocal.ended_entry()):
                    await body.run()
            elif type(body) is Passage:
                passage = body
            elif handshake.channel is None:
                await self._refuse(body)
            self._failed = self.status >= 400
        except Exception as error:
            # Of this WebSocket, or of another one that the application uses?
            if not (self._has_left() and is_closed(error)):
                raise
            self._failed = False
        except asyncio.CancelledError:
            if not self._cancelled:
                raise
            assert self._task is not None
            self._task.uncancel()
        finally:
            try:
                await self._end()
            finally:
                # Both lead back to here, and the collector comes seldom.
                del self.handshake
                environ.pop(KEY, None)
        return passage

    def _environ(self, base: dict[str, Any]) -> dict[str, Any]:
        scope = dict(self._scope)
        scope["method"] = "GET"
        scope["scheme"] = SCHEMES.get(scope.get("scheme", "ws"), "http")
        environ = build_environ(scope, base)
        environ["asgi.scope"] = self._scope
        environ["wsgi.input"] = EMPTY
        return environ

    def _run(self, app: Any, environ: dict[str, Any]) -> Any:
        # In a greenlet. Gives the body, complete unless it is a handler.
        try:
            body = app(environ, self)
        except HTTPException as refusal:
            # Of plain WSGI code, which has no exception views.
            body = refusal(environ, self)
        if type(body) is WebSocketBody or type(body) is Passage:
            return body
        try:
            if not self._is_page(body):
                with threadlocal.pushed(threadlocal.ended_entry()):
                    return b"".join(body)
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()
        if self.handshake.channel is not None:
            return b""
        self.status = 0
        return b"".join(HTTPBadRequest(NO_SOCKET)(environ, self))

    def _is_page(self, body: Any) -> bool:
        # Something that no client of a WebSocket gets to see: a file, which may be
        # large, or a stream, which may have no end. The body of WSGI code that begins
        # with its first step has no status yet.
        return 0 < self.status < 400 and type(body) not in (list, tuple)

    def __call__(self, status: str, headers: Any, exc_info: Any = None, /) -> Any:
        if status.startswith("101 "):
            self.accept_with(headers)
            return self.write
        return super().__call__(status, headers, exc_info)

    def accept_with(self, headers: Any) -> None:
        """Have ``headers`` go into the handshake's response."""
        super().__call__("200 OK", headers)
        self.status = 0
        self.handshake.headers = [
            each for each in self._headers if each[0] not in UPGRADE_FIELDS
        ]

    def write(self, chunk: bytes) -> None:
        raise GatewayError(explain(WRITTEN, "gateway-error"))

    async def _open_channel(self, *args: Any) -> Channel:
        extension = self._extension
        accept = self._accept if extension is None else extension["open"]
        try:
            channel = await accept(*args)
        except ConnectionClosed:
            self._is_lost = True
            raise
        if extension is None:
            channel.when_ended(self._cancel_soon)
        return channel

    async def _accept(
        self, headers: Any, subprotocol: str | None, options: Options
    ) -> Channel:
        event = {"type": "websocket.accept", "headers": headers}
        if subprotocol is not None:
            event["subprotocol"] = subprotocol
        try:
            await self._send(event)
        except (OSError, RuntimeError):
            raise ConnectionClosed(ABNORMAL) from None
        return ASGIChannel(self._receive, self._send, options)

    async def _refuse(self, body: bytes) -> None:
        try:
            if DENIAL not in (self._scope.get("extensions") or {}):
                await self._send({"type": "websocket.close"})
                return
            start = self.message(len(body))
            if _is_granian(self._receive):
                start["headers"] = _without_repeats(start["headers"])
            await self._send({**start, "type": f"{DENIAL}.start"})
            await self._send({"type": f"{DENIAL}.body", "body": body})
        except (OSError, RuntimeError):
            # The client has left.
            pass

    def _has_left(self) -> bool:
        channel = self.handshake.channel
        return self._is_lost if channel is None else channel.closed

    def _cancel_soon(self) -> None:
        if self._is_over:
            return
        loop = asyncio.get_running_loop()
        self._cancelling = loop.call_later(GRACE, self._cancel)

    def _cancel(self) -> None:
        assert self._task is not None
        self._cancelled = self._task.cancel()

    async def _end(self) -> None:
        # There is nothing left to cancel, however long the server takes to close.
        self._is_over = True
        if self._cancelling is not None:
            self._cancelling.cancel()
        self.handshake.end()
        channel = self.handshake.channel
        try:
            if channel is not None:
                # Nothing is sent any more once the application has returned, also
                # no close frame that is still on its way.
                await channel.close(INTERNAL_ERROR if self._failed else NORMAL)
        finally:
            if isinstance(channel, ASGIChannel):
                channel.release()
            threadlocal.forget()


def warn_of_limits(lifespans: Iterable[Lifespan]) -> None:
    """Log which limits a server that speaks the protocol itself does not apply."""
    for lifespan in lifespans:
        sockets = lifespan.registry.queryUtility(ISockets)
        if sockets is not None and sockets.not_applied:
            log.warning(NOT_APPLIED, "; ".join(sockets.not_applied))


def _is_granian(receive: Any) -> bool:
    protocol = type(getattr(receive, "__self__", None))
    return protocol.__module__.partition(".")[0] == "granian"


def _without_repeats(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    # granian's worker ends, with all its connections, if a name stands twice in
    # the headers of a refusal. Cookies cannot be joined; the first one is kept.
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        if name not in joined:
            joined[name] = value
        elif name != b"set-cookie":
            joined[name] += b", " + value
    return list(joined.items())


NOT_APPLIED = (
    "aioext: this server pings and compresses WebSockets by its own settings, so these "
    "have no effect: %s"
)

NO_SOCKET = "This is not the address of a WebSocket."

WRITTEN = """\
The WSGI application called write() for a WebSocket. Send messages with \
get_websocket(environ, start_response).send(...)."""

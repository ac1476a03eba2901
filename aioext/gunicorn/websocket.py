"""WebSockets of the gunicorn worker: websockets' protocol in place of gunicorn's.

gunicorn looks its class up in ``gunicorn.asgi.websocket`` whenever a client asks
for a WebSocket, and :func:`install` puts :class:`WebSocketProtocol` there. It is
the one place where this package relies on what gunicorn does not promise: the
name, the arguments, and that ``run()`` is awaited while ``feed_data()`` and
``feed_eof()`` tell what happens on the transport. Once the WebSocket is accepted,
the transport is taken over by asyncio's own means, and gunicorn hears only of its
end.

The application may be the gateway, which finds ``open`` in the scope's extensions
and gets the connection itself, or any ASGI application, which gets messages.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Iterable
from typing import Any

from gunicorn.asgi import websocket as replaced

from ..exceptions import ConnectionClosed
from ..websocket.asgi import DENIAL, EXTENSION
from ..websocket.channel import ABNORMAL, INTERNAL_ERROR, NORMAL, Channel
from ..websocket.options import Options
from ..websocket.protocol import CLOSE_TIMEOUT, TransportChannel, answer_handshake

__all__ = ["WebSocketProtocol", "install"]

NAME = "WebSocketProtocol"
NEEDED = ("feed_data", "feed_eof", "run")
# Bytes that a client may send before it knows that the WebSocket is accepted.
MAX_EARLY = 65_536

Headers = Iterable[tuple[bytes, bytes]]


def install() -> str | None:
    """Have gunicorn use this module's class.

    Returns:
        None; or what is missing in this version of gunicorn, which then goes on
        with its own.
    """
    current = getattr(replaced, NAME, None)
    if current is WebSocketProtocol:
        return None
    missing = [name for name in NEEDED if not hasattr(current, name)]
    if missing:
        return f"{replaced.__name__}.{NAME} has no {', '.join(missing)}"
    setattr(replaced, NAME, WebSocketProtocol)
    return None


class WebSocketProtocol:
    """One connection that asks to be a WebSocket; gunicorn makes it.

    Args:
        transport: of the connection.
        scope: of type ``websocket``.
        app: the ASGI application.
        log: gunicorn's logger.
        max_message_size: bytes, for an application that says nothing itself;
            0: no limit.
        drain: not needed.
    """

    def __init__(
        self,
        transport: Any,
        scope: dict[str, Any],
        app: Any,
        log: Any,
        max_message_size: int = 0,
        drain: Any = None,
    ) -> None:
        self._transport = transport
        self._scope = scope
        self._app = app
        self._log = log
        self._max_size = max_message_size
        self._early = b""
        self._has_left = False
        self._answered = False
        self._connect_told = False
        self._chunks: list[bytes] = []
        self._start: dict[str, Any] = {}
        self._channel: TransportChannel | None = None
        # Whoever receives before it is decided whether there is a WebSocket.
        self._undecided: asyncio.Future[None] | None = None
        extensions = scope.setdefault("extensions", {})
        extensions[DENIAL] = {}
        extensions[EXTENSION] = {"open": self.open}

    # What gunicorn calls.

    def feed_data(self, data: bytes) -> None:
        """Bytes have come before the WebSocket was accepted."""
        self._early += data
        if len(self._early) > MAX_EARLY:
            self._transport.pause_reading()

    def feed_eof(self) -> None:
        """The connection was lost before the WebSocket was accepted."""
        self._has_left = True
        self._decide()

    async def run(self) -> None:
        """Call the application, and see to it that the client has an answer."""
        if self._scope["http_version"] < "1.1":
            # It cannot be upgraded (RFC 6455 section 4.2.1).
            self._refuse_with(400)
            return
        failed = False
        try:
            await self._app(self._scope, self.receive, self.send)
        except Exception as error:
            if not (isinstance(error, ConnectionClosed) and self._has_ended()):
                failed = True
                self._log.exception("Error in WebSocket ASGI application")
        if not self._answered:
            self._refuse_with(500 if failed else 403)
        elif self._start:
            # It began an answer, and did not end it.
            self._refuse_with(500)
        elif self._channel is not None:
            await self._channel.close(INTERNAL_ERROR if failed else NORMAL)
            # gunicorn keeps this for asgi_disconnect_grace_period.
            self._channel = None
            self._has_left = True
            self._scope = {}

    def _decide(self) -> None:
        if self._undecided is not None and not self._undecided.done():
            self._undecided.set_result(None)

    def _has_ended(self) -> bool:
        return self._has_left if self._channel is None else self._channel.closed

    # For the gateway.

    async def open(
        self, headers: Headers, subprotocol: str | None, options: Options
    ) -> Channel:
        """Accept the WebSocket.

        Raises:
            ConnectionClosed: the client has left, or its handshake is wrong.
        """
        if self._has_left:
            raise ConnectionClosed(ABNORMAL)
        scope = self._scope
        asked = [
            (n.decode("latin-1"), v.decode("latin-1")) for n, v in scope["headers"]
        ]
        protocol, response = answer_handshake(scope["path"], asked, options)
        if response.status_code != 101:
            self._answered = True
            self._transport.write(response.serialize())
            self._close()
            self.feed_eof()
            raise ConnectionClosed(ABNORMAL)
        if subprotocol is not None:
            response.headers["Sec-WebSocket-Protocol"] = subprotocol
        for name, value in headers:
            response.headers[name.decode("latin-1")] = value.decode("latin-1")
        # Not before: a header that cannot be sent is an error, and has an answer.
        self._answered = True
        transport = self._transport
        before = transport.get_protocol()
        channel = TransportChannel(transport, protocol, options, before)
        transport.write(response.serialize())
        early, self._early = self._early, b""
        if len(early) > MAX_EARLY:
            transport.resume_reading()
        channel.start(early)
        self._channel = channel
        self._decide()
        return channel

    # ASGI, for an application that is not ours.

    async def receive(self) -> dict[str, Any]:
        """The next ASGI message to the application."""
        if not self._connect_told:
            self._connect_told = True
            return {"type": "websocket.connect"}
        if self._channel is None and not (self._has_left or self._answered):
            self._undecided = asyncio.get_running_loop().create_future()
            await self._undecided
        channel = self._channel
        message = None if channel is None else await channel.receive()
        if isinstance(message, str):
            return {"type": "websocket.receive", "text": message}
        if message is not None:
            return {"type": "websocket.receive", "bytes": message}
        code = None if channel is None else channel.close_code
        reason = "" if channel is None else channel.close_reason
        return {
            "type": "websocket.disconnect",
            "code": code or ABNORMAL,
            "reason": reason,
        }

    async def send(self, message: dict[str, Any]) -> None:
        """An ASGI message of the application.

        Raises:
            ConnectionClosed: an ``OSError``, as ASGI 2.4 asks for.
            RuntimeError: it may not be sent now.
        """
        match message["type"]:
            case "websocket.accept" if not self._answered:
                options = Options(max_size=self._max_size)
                headers = message.get("headers", ())
                await self.open(headers, message.get("subprotocol"), options)
            case "websocket.send" if self._channel is not None:
                text = message.get("text")
                data = message.get("bytes", b"") if text is None else text
                await self._channel.send(data)
            case "websocket.close" if self._channel is not None:
                code = message.get("code", NORMAL)
                await self._channel.close(code, message.get("reason") or "")
            case "websocket.close" if not self._answered:
                self._refuse_with(403)
            case "websocket.http.response.start" if not self._answered:
                self._answered = True
                self._start = message
            case "websocket.http.response.body" if self._start:
                self._refuse(message)
            case kind:
                raise RuntimeError(f"{kind} cannot be sent now")

    def _refuse(self, message: dict[str, Any]) -> None:
        self._chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            start, self._start = self._start, {}
            headers = list(start.get("headers", ()))
            self._respond(start["status"], headers, b"".join(self._chunks))

    def _refuse_with(self, status: int) -> None:
        self._answered = True
        self._decide()
        self._respond(status, (), b"")

    def _respond(self, status: int, headers: Headers, body: bytes) -> None:
        if self._has_left:
            return
        lines = [b"HTTP/1.1 %d %s" % (status, _phrase(status))]
        lines += [name + b": " + value for name, value in headers]
        if not any(name == b"content-length" for name, _ in headers):
            lines.append(b"content-length: %d" % len(body))
        lines += [b"connection: close", b"", body]
        self._transport.write(b"\r\n".join(lines))
        self._close()

    def _close(self) -> None:
        # Once all is written, which a client that does not read would put off for ever.
        self._transport.close()
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._transport.abort)


def _phrase(status: int) -> bytes:
    try:
        return http.HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""

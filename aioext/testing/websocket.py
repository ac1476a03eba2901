"""A WebSocket as a test has it: the client's side, without a network.

:class:`Socket` plays the server, by the "WebSocket" section of the ASGI
specification; what an application must not send is an ``AssertionError`` in the
application. :class:`TestWebSocket` is the client.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from webtest import AppError, TestResponse

from ..exceptions import ConnectionClosed
from ..websocket.asgi import DENIAL
from ..websocket.channel import (
    ABNORMAL,
    INTERNAL_ERROR,
    MAX_REASON,
    NO_MESSAGE,
    NO_STATUS,
    NORMAL,
)
from .serving import END, ASGIApplication, Message, Serving, wait
from .session import Session

__all__ = ["Socket", "TestWebSocket", "WebSocketRefused"]

SWITCHING = 101

# How many bytes the application can send that the test does not take: about what
# a connection holds whose client does not read.
LIMIT = 65_536

# What a client can say in a close frame (RFC 6455 section 7.4).
CODES = frozenset((*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)))


class Socket(Serving):
    """One scope of type ``websocket``.

    Attributes:
        closed: whether one side has closed it.
        code, reason: with which; None and empty while it is open.
        sent, received: how many messages the client has sent, and got.
        last_sent, last_received: the last of them.
    """

    closed = False
    code: int | None = None
    reason = ""
    sent = received = 0
    last_sent: Any = None
    last_received: Any = None

    def __init__(self, app: ASGIApplication, name: str, timeout: float) -> None:
        super().__init__(app, name, timeout, LIMIT)
        self._state = "connecting"
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._messages.put_nowait({"type": "websocket.connect"})

    async def _receive(self) -> Message:
        return await self._messages.get()

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        handler = _HANDLERS.get((self._state, kind))
        if handler is not None:
            await handler(self, message)
        elif self._state == "gone":
            raise BrokenPipeError(f"{self.name}: the client has closed it")
        else:
            raise AssertionError(UNEXPECTED.format(kind, self.name, self._state))

    async def _accept(self, message: Message) -> None:
        self._state = "open"
        headers = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade")]
        subprotocol = message.get("subprotocol")
        if subprotocol is not None:
            headers.append((b"sec-websocket-protocol", subprotocol.encode()))
        self._tell(SWITCHING, headers + list(message.get("headers", ())), b"")

    async def _refuse(self, message: Message) -> None:
        self._state = "refused"
        self._tell(403, [(b"content-length", b"0")], b"")

    async def _start_response(self, message: Message) -> None:
        self._state = "refusing"
        self._head = message["status"], list(message.get("headers", ()))
        self._body = b""

    async def _add_body(self, message: Message) -> None:
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            self._state = "refused"
            self._tell(*self._head, self._body)

    def _tell(self, *answer: Any) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)

    async def _deliver(self, message: Message) -> None:
        text = message.get("text")
        payload = message.get("bytes") if text is None else text
        if type(payload) is not (bytes if text is None else str):
            raise AssertionError(NO_PAYLOAD.format(dict(message), self.name))
        # One more, for those without a byte.
        await self._pipe.put(payload, len(payload) + 1)

    async def _close(self, message: Message) -> None:
        code = message.get("code", NORMAL)
        self._end("closed", code, message.get("reason") or "")

    def _end(self, state: str, code: int, reason: str = "") -> None:
        self._state = state
        self.closed = True
        self.code = code
        self.reason = reason
        self._messages.put_nowait(
            {"type": "websocket.disconnect", "code": code, "reason": reason}
        )
        if state == "gone":
            self._pipe.break_()
        else:
            self._pipe.end()

    def _ended(self, task: asyncio.Task[None]) -> None:
        super()._ended(task)
        if self._state == "open":
            self._end("closed", INTERNAL_ERROR if self.failures else ABNORMAL)

    def leave(self, code: int = NORMAL, reason: str = "") -> None:
        """The client closes it, with a code that it may have made up."""
        if self._state == "open":
            self._end("gone", code, reason)
        elif not self.closed:
            # In the middle of the handshake.
            self._end("gone", ABNORMAL)

    async def close(self, code: int, reason: str = "") -> None:
        """:meth:`leave`, from the test."""
        self.check_loop()
        self.leave(code, reason)

    async def send(self, payload: str | bytes) -> None:
        """The client sends a message."""
        self.check_loop()
        if self.closed:
            self.raise_failure()
            raise self.closed_error()
        kind = "text" if isinstance(payload, str) else "bytes"
        self._messages.put_nowait({"type": "websocket.receive", kind: payload})
        self.sent += 1
        self.last_sent = payload

    async def receive(self, timeout: float | None) -> str | bytes | None:
        """The next message of the application; None once it is closed."""
        payload = await self.limited(self._pipe.get, timeout, "message")
        if payload is END:
            self.raise_failure()
            return None
        self.received += 1
        self.last_received = payload
        return payload

    def closed_error(self) -> ConnectionClosed:
        """What is to be raised where it is used though it is closed."""
        return ConnectionClosed(self.code or ABNORMAL, self.reason)

    def describe(self) -> str:
        """What was sent and received."""
        return " ".join(
            (
                _count("Sent", self.sent, self.last_sent),
                _count("Received", self.received, self.last_received),
            )
        )


# What the application may send, by the state of the connection.
_HANDLERS = {
    ("connecting", "websocket.accept"): Socket._accept,
    ("connecting", "websocket.close"): Socket._refuse,
    ("connecting", f"{DENIAL}.start"): Socket._start_response,
    ("refusing", f"{DENIAL}.body"): Socket._add_body,
    ("open", "websocket.send"): Socket._deliver,
    ("open", "websocket.close"): Socket._close,
}


def _count(verb: str, number: int, last: Any) -> str:
    if not number:
        return f"{verb}: nothing."
    shown = ascii(last)
    if len(shown) > 80:
        shown = f"{shown[:60]}... ({len(last)} long)"
    return f"{verb}: {number}, the last was {shown}."


class TestWebSocket(Session):
    """A WebSocket that a test has opened.

    ::

        with app.websocket("/echo") as ws:
            ws.send("hello")
            assert ws.recv() == "hello"

    The end of the ``with`` block closes it (1000), waits for the handler, cancels
    a handler that has not ended after a second, and raises what the handler
    raised. If the block failed itself, that stands in the notes of its error.

    Attributes:
        response: the response of the handshake, a WebTest ``TestResponse``.
    """

    _serving: Socket

    def __init__(
        self, serving: Socket, response: TestResponse, encoder: type[json.JSONEncoder]
    ) -> None:
        super().__init__(serving, response)
        self._encoder = encoder

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server has chosen, None if there is none."""
        return self.headers.get("Sec-WebSocket-Protocol")

    @property
    def closed(self) -> bool:
        """Whether one side has closed it; what came before can still be received."""
        return self._serving.closed

    @property
    def close_code(self) -> int | None:
        """The code that it was closed with; None while it is open.

        1005 if there was none, 1006 if the connection was lost.
        """
        return self._serving.code

    @property
    def close_reason(self) -> str:
        """The text that came with the code, often empty."""
        return self._serving.reason

    def send(self, message: str | bytes) -> None:
        """Send one message: text if it is a ``str``, binary if it is ``bytes``.

        Raises:
            ConnectionClosed: it is closed.
            BaseException: the handler raised it, and so ended.
            TypeError: the message is neither.
        """
        if not isinstance(message, (str, bytes)):
            raise TypeError(NO_MESSAGE.format(message))
        wait(self._serving.send, message)

    def send_json(self, value: Any) -> None:
        """Send ``value`` as JSON, in a text message, by the TestApp's encoder."""
        self.send(json.dumps(value, cls=self._encoder))

    def recv(self, timeout: float | None = None) -> str | bytes | None:
        """The next message, ``str`` or ``bytes``; None once it is closed.

        Args:
            timeout: seconds; by default the WebSocket's.

        Raises:
            TimeoutError: no message came in time.
            BaseException: the handler raised it, and so ended.
        """
        return wait(self._serving.receive, timeout)

    def recv_json(self, timeout: float | None = None) -> Any:
        """The next message, parsed as JSON.

        Raises:
            ConnectionClosed: it is closed; None would be JSON's null.
            ValueError: the message is no JSON.
            TimeoutError: no message came in time.
            BaseException: the handler raised it, and so ended.
        """
        message = self.recv(timeout)
        if message is None:
            raise self._serving.closed_error()
        return json.loads(message)

    def close(self, code: int | None = NORMAL, reason: str = "") -> None:
        """Close it; does nothing if it is closed.

        Args:
            code: None: a close frame without one; the application sees 1005.
            reason: at most 123 bytes in UTF-8.

        Raises:
            ValueError: no client could send such a code or reason.
        """
        if code is not None and code not in CODES:
            raise ValueError(BAD_CODE.format(code))
        if len(reason.encode()) > MAX_REASON:
            raise ValueError(LONG_REASON.format(len(reason.encode())))
        wait(self._serving.close, NO_STATUS if code is None else code, reason)

    def disconnect(self) -> None:
        """Vanish without a close frame, as in a tunnel; the application sees 1006."""
        wait(self._serving.close, ABNORMAL)

    def __iter__(self) -> Iterator[str | bytes]:
        """The messages until it is closed."""
        while (message := self.recv()) is not None:
            yield message


class WebSocketRefused(AppError):
    """The application has refused a WebSocket, and answered with HTTP.

    Attributes:
        response: WebTest's ``TestResponse``: ``status_int``, ``headers``, ``text``.
    """

    def __init__(self, response: TestResponse) -> None:
        super().__init__(
            "The WebSocket %s was refused: %s\n%s",
            response.request.url,
            response.status,
            response,
        )
        self.response = response


UNEXPECTED = """\
The application sent {!r} for {}, which is {}. An ASGI application accepts a \
WebSocket or refuses it, once; sends; and closes it, once."""

NO_PAYLOAD = """\
The application sent {!r} for {}. A message has "text", a str, or "bytes", and \
the other one is None or left out."""

BAD_CODE = """\
close() was given the code {}, which no client can send. Use 1000, 1001 or a code \
from 3000 to 4999; disconnect() has the application see 1006, close(None) 1005."""

LONG_REASON = """\
close() was given a reason of {} bytes; a close frame has room for 123."""

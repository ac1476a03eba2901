"""What a WebSocket stands on: one connection, as its server gives it.

A channel keeps the messages of the client until they are asked for. Messages
are pushed into it; when :attr:`~Options.queue` of them wait, or more than
:attr:`~Options.max_size` bytes, it asks whoever pushes to pause, so a client that
sends faster than its handler takes is held back by its own TCP connection and not
by memory.

All of it happens on one loop. A handler in a thread comes here through the
bridge.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from ..exceptions import ConnectionClosed, explain
from .options import Options

__all__ = ["ABNORMAL", "IN_A_ROW", "Channel", "Message", "check_close", "check_message"]

Message = str | bytes

# Close codes (RFC 6455 section 7.4.1).
NORMAL = 1000
NO_STATUS = 1005
ABNORMAL = 1006
TOO_BIG = 1009
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012

# What an application may close with.
_ALLOWED = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)))
MAX_REASON = 123

# Messages that are sent in a row before others have their turn.
IN_A_ROW = 32


class Channel:
    """One accepted connection.

    Attributes:
        closed: nothing more can be sent; what has come before can still be
            received, unless it was closed on this side.
        close_code: with which it was closed; None while it is open.
        close_reason: the text that came with the code.
        subprotocol: the one that was agreed on.
    """

    closed = False
    close_code: int | None = None
    close_reason = ""
    subprotocol: str | None = None
    _sent = 0
    _size = 0
    _paused = False
    _waiter: asyncio.Future[None] | None = None
    _on_end: Callable[[], None] | None = None

    def __init__(self, options: Options) -> None:
        self.options = options
        self._limit = options.queue
        self._max_size = options.max_size or math.inf
        # Few at a time: an empty deque takes more memory than all else here.
        self._messages: list[Message] = []

    async def receive(
        self, at_end: type[BaseException] | None = None
    ) -> Message | None:
        """The next message; None once the connection is closed.

        Args:
            at_end: raised then instead.

        Cancellation: safe; no message is lost.
        """
        if self._waiter is not None:
            # It may have been woken already, for the message that is there.
            raise RuntimeError(explain(TWO_RECEIVE, "websocket-recv"))
        messages = self._messages
        if not messages and not self.closed:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if not messages:
            if at_end is not None:
                raise at_end
            return None
        message = messages.pop(0)
        self._size -= len(message)
        has_room = len(messages) < self._limit and self._size <= self._max_size
        if self._paused and has_room:
            self._paused = False
            self._resume()
        return message

    async def send(self, message: Message) -> None:
        """Send one message; waits while the client does not read.

        Raises:
            ConnectionClosed: it is closed.
            TypeError: the message is neither ``str`` nor bytes.
        """
        raise NotImplementedError

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close the connection; does nothing the second time."""
        raise NotImplementedError

    async def ping(self) -> float:
        """The seconds that a ping takes there and back."""
        raise NotImplementedError(explain(NO_PING, "websocket-ping"))

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Have ``callback()`` called once the connection has ended."""
        self._on_end = callback
        if self.closed:
            callback()

    def put(self, message: Message) -> bool:
        """A message has come; gives whether another one is welcome."""
        self._messages.append(message)
        self._size += len(message)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        # By its size as well: compressed, a MiB comes in a KiB.
        if len(self._messages) >= self._limit or self._size > self._max_size:
            self._paused = True
        return not self._paused

    def end(self, code: int, reason: str = "", *, here: bool = False) -> None:
        """The connection is closed; ``here``: from this side."""
        if self.closed:
            return
        self.closed = True
        self.close_code = code
        self.close_reason = reason
        if here:
            self._messages.clear()
            self._size = 0
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._on_end is not None:
            self._on_end()

    async def give_way(self) -> None:
        """Let the loop look around, every so often.

        While a client takes all that it is sent, ``send()`` need not wait; a
        handler that only sends would keep every other connection, and the end
        of its own, from being noticed.
        """
        self._sent = 0
        await asyncio.sleep(0)

    def check_open(self) -> None:
        """Raise ``ConnectionClosed`` if it is closed."""
        if self.closed:
            raise self.closed_error()

    def closed_error(self) -> ConnectionClosed:
        """What is to be raised where it is used though it is closed."""
        return ConnectionClosed(self.close_code or ABNORMAL, self.close_reason)

    def _resume(self) -> None:
        # There is room again.
        raise NotImplementedError


def check_message(message: Any) -> None:
    """Raise ``TypeError`` for what is no message."""
    if not isinstance(message, (str, bytes, bytearray, memoryview)):
        raise TypeError(explain(NO_MESSAGE.format(message), "websocket-send"))


def check_close(code: int, reason: str) -> None:
    """Raise ``ValueError`` for what no close frame can carry."""
    if code not in _ALLOWED:
        raise ValueError(explain(BAD_CODE.format(code), "websocket-close"))
    length = len(reason.encode())
    if length > MAX_REASON:
        raise ValueError(explain(LONG_REASON.format(length), "websocket-close"))


NO_MESSAGE = """\
send() takes a str (a text message) or bytes (a binary one), got {!r}. Write \
send_json(...) for anything else that JSON can express."""

TWO_RECEIVE = """\
recv() was called while another recv() of the same WebSocket waits: which of them \
gets the next message? Receive in one place, and hand the messages on from there."""

NO_PING = """\
This server pings its clients by itself, and gives an application no way to do \
so. Under gunicorn with aioext's worker, ping() works."""

BAD_CODE = """\
close() was given the code {}. An application closes with 1000 (normal), 1001 \
(going away), 1008 (policy), 1011 (error), 1013 (try again later) or a code of its \
own from 3000 to 4999."""

LONG_REASON = """\
close() was given a reason of {} bytes; a close frame has room for 123. Send a \
message before you close, if there is more to say."""

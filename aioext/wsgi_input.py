"""``wsgi.input`` over ASGI messages: reading waits for the client.

Every method waits through the bridge, in a request's greenlet or in a thread
of the executor, until it has what was asked for. ``read(n)`` gives ``n`` bytes
unless the body ends: WebOb takes less for a client that has gone.

Nothing is read ahead of what is asked for, so the server stops reading from a
client whose body nobody wants. The one exception is :meth:`Input.watch`, which
looks for the client's end and has to step over body messages to see it: when
:data:`MAX_AHEAD` bytes wait to be read, it nearly stops.

Two may want to receive at once, the watcher on the loop and a reader, perhaps
in a thread: a lock lets one of them in. What is received is put aside, and goes
to the buffer while the reader waits for it; so the buffer is the reader's
alone, and no lock of threads is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from . import bridge
from .exceptions import ClientDisconnected
from .lines import Lines

__all__ = ["EMPTY", "Input"]

MAX_AHEAD = 65_536
PATIENCE = 10.0

Receive = Callable[[], Awaitable[Mapping[str, Any]]]


class EmptyInput(Lines):
    """The input of a request that can have no body."""

    def read(self, size: int | None = -1, /) -> bytes:
        return b""

    readline = read


EMPTY = EmptyInput()


class Input(Lines):
    """The body of one request, a file to read from.

    Args:
        receive: the ASGI callable.

    Attributes:
        is_begun: whether the client has been asked for its body.
    """

    waits = True
    is_begun = False

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._buffer = bytearray()
        self._position = 0
        self._complete = False
        self._lock = asyncio.Lock()
        # What has been received and is not in the buffer yet.
        self._ahead = bytearray()
        self._ended = False
        self._disconnected = False
        self._room: asyncio.Future[None] | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        """At most ``size`` bytes, all if it is negative or None; b"" at the end.

        Raises:
            ClientDisconnected: the body will never be complete.
        """
        if size is None or size < 0:
            self._fill(None)
            return self._take(self._available())
        self._fill(size)
        return self._take(min(size, self._available()))

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line with its end, at most ``size`` bytes of it."""
        limit = None if size is None or size < 0 else size
        searched = 0
        while True:
            end = self._buffer.find(b"\n", self._position + searched)
            if end >= 0:
                length = end + 1 - self._position
                return self._take(length if limit is None else min(length, limit))
            searched = self._available()
            if limit is not None and searched >= limit:
                return self._take(limit)
            if not self._fill(searched + 1):
                return self._take(self._available())

    def _available(self) -> int:
        # How much of the buffer has not been read.
        return len(self._buffer) - self._position

    def _take(self, length: int) -> bytes:
        start = self._position
        self._position = end = start + length
        with memoryview(self._buffer) as view:
            taken = bytes(view[start:end])
        if end == len(self._buffer):
            self._buffer.clear()
            self._position = 0
        elif end > MAX_AHEAD:
            # Moving the rest for each short read would take quadratic time.
            del self._buffer[:end]
            self._position = 0
        return taken

    def _fill(self, size: int | None) -> bool:
        # Whether there are ``size`` bytes now; None asks for all.
        if not self._complete and (size is None or self._available() < size):
            bridge.wait(self._receive_until(size))
        return size is not None and self._available() >= size

    async def _receive_until(self, size: int | None) -> None:
        # In one go on the loop: a thread that reads pays for one crossing.
        while not self._complete and (size is None or self._available() < size):
            if self._ahead or self._ended:
                self._take_ahead()
                continue
            async with self._lock:
                if not (self._ahead or self._ended):
                    await self._receive_message()

    def _take_ahead(self) -> None:
        if self._buffer:
            self._buffer += self._ahead
            self._ahead.clear()
        else:
            self._buffer, self._ahead = self._ahead, self._buffer
        self._complete = self._ended
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def _receive_message(self) -> None:
        if self._disconnected:
            raise ClientDisconnected(DISCONNECTED)
        self.is_begun = True
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._disconnected = True
            raise ClientDisconnected(DISCONNECTED)
        if not self._ended:
            self._ahead += message.get("body", b"")
            self._ended = not message.get("more_body", False)

    async def watch(self) -> None:
        """Return when the client has gone.

        A client of whose body :data:`MAX_AHEAD` bytes wait to be read is only
        looked at every :data:`PATIENCE` seconds, a message each time.

        Cancellation: safe; nothing is lost.
        """
        try:
            while True:
                await self._watch_once()
        except ClientDisconnected:
            return

    async def _watch_once(self) -> None:
        if len(self._ahead) >= MAX_AHEAD and not self._ended:
            # Its end may come behind more of its body, and a stream that is
            # never told of it might go on for ever.
            self._room = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._room,), timeout=PATIENCE)
        async with self._lock:
            await self._receive_message()


DISCONNECTED = """\
The client closed the connection before its request body was complete. There \
is nobody to answer; let the exception pass."""

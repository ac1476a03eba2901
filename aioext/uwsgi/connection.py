"""The connections of requests: their sockets, and when their clients leave.

uWSGI reads and writes a connection itself. A *duplicate* of its descriptor refers to
the same connection, and can be waited for beside uWSGI.

That a client has left is seen by asking for nothing else (``EPOLLRDHUP``): to look for
something to read would find what the client has sent and nobody has read yet, over and
over. One ``epoll`` object serves all connections of a worker, so that the loop has one
descriptor more and not one for each. Where the system has no ``epoll``, nobody is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from typing import Any

__all__ = ["Departures", "detach", "duplicate"]


def duplicate(descriptor: int) -> socket.socket:
    """Another socket of the same connection, to be closed by whoever asks.

    Args:
        descriptor: what ``uwsgi.connection_fd()`` gives in the greenlet of the request.
    """
    return socket.socket(fileno=os.dup(descriptor))


def detach(descriptor: int) -> None:
    """Have uWSGI write what it still has to write to nobody.

    To be called while the request goes on. What a client that has left is sent fails,
    and uWSGI logs it; and a connection that somebody else has taken over is not to be
    touched. The connection itself is closed with the last of its duplicates.

    Args:
        descriptor: as for :func:`duplicate`.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, descriptor)
    os.close(nothing)


class Departures:
    """Tells when clients leave.

    Args:
        loop: on which they are served.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._epoll: Any = None
        if hasattr(select, "epoll"):
            self._epoll = select.epoll()
            loop.add_reader(self._epoll.fileno(), self._look)

    async def wait(self, connection: socket.socket) -> None:
        """Return when the client of ``connection`` has left, or stopped to send.

        Cancellation: safe.
        """
        future = self._loop.create_future()
        if self._epoll is None:
            await future
        descriptor = connection.fileno()
        self._epoll.register(descriptor, select.EPOLLRDHUP)
        self._waiting[descriptor] = future
        try:
            await future
        finally:
            self._forget(descriptor, future)

    def _look(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            future = self._waiting.get(descriptor)
            if future is not None:
                self._forget(descriptor, future)
                if not future.done():
                    future.set_result(None)

    def _forget(self, descriptor: int, future: asyncio.Future[None]) -> None:
        # The connection may be closed by now, and the number be another one's.
        if self._waiting.get(descriptor) is future:
            del self._waiting[descriptor]
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)

"""How many connections a gunicorn worker has, and how long each may take to begin.

Theory of operation
===================

gunicorn's ASGI worker accepts whatever comes: it neither looks at
``worker_connections`` nor limits the time in which a client sends the head of its first
request (that of each later one, ``keepalive`` limits). So this worker accepts by
itself. What asyncio promises is enough: a reader on the listening socket, and
``connect_accepted_socket()`` for what it has accepted; a server cannot be paused, but a
reader can be taken away. Connections that are not accepted wait in the kernel, where
another worker finds them.

gunicorn makes its servers first, and then notifies its master for the first time. That
is when :meth:`Listener.take_over` puts itself in their place. asyncio's are closed
one turn of the loop later, for it accepts a connection in one and begins with it in the
next, which fails if the server is closed.

A connection counts from the moment in which it is accepted, so a burst does not get
past the limit, and TLS handshakes count as well. What gunicorn counts is those that
have begun; the worker passes each change on to :meth:`Listener.count`.

Each connection has a context of its own. All that serves it inherits that, so
:class:`Attended`, the application that gunicorn calls, finds out whose first request
has come without a word of gunicorn's, on HTTP/2 and behind a unix socket as well. A
look each second finds those that are late: a timer for each would keep the transport of
a client that has left. When the worker stops they have less time, for gunicorn waits
for every connection, and browsers open some ahead of what they may ask for.

The one thing here that gunicorn does not promise is its protocol class. Without it
:func:`protocol_factory` gives None, and gunicorn's own servers stay.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from gunicorn.sock import ssl_context

__all__ = ["Attended", "Listener", "limit_of", "protocol_factory"]

# Seconds between two looks at those that have not begun.
LOOK = 1.0

# Connections that one socket gives in one turn of the loop, at most.
AT_ONCE = 64

# Seconds in which nothing is accepted once the system has no more to give, and what
# it says then.
PAUSE = 1.0
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def protocol_factory(worker: Any) -> Callable[[], asyncio.Protocol] | None:
    """What makes gunicorn's protocol of a connection; None: this version has none."""
    try:
        from gunicorn.asgi.protocol import ASGIProtocol
    except ImportError:
        return None
    return lambda: ASGIProtocol(worker)


class Connection:
    """One connection: whether its first request has still to come.

    Args:
        door: where it waits for that.
    """

    is_awaited = True

    def __init__(self, door: Door) -> None:
        self._door = door

    def begin(self) -> None:
        """Its first request has come."""
        self.is_awaited = False
        self._door.discard(self)


class Door:
    """The connections whose first request has still to come.

    Args:
        loop: that serves them.
        seconds: after which one is cut, or a second later; 0: never.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._waiting: dict[Connection, tuple[float, Any]] = {}
        # One for all: most connections begin at once. It refers to none of them.
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Connection, transport: Any) -> None:
        """Cut ``connection`` unless it begins in time."""
        if self._seconds and connection.is_awaited:
            due = self._loop.time() + self._seconds
            self._waiting[connection] = due, transport
            if self._timer is None:
                self._sleep()

    def discard(self, connection: Connection) -> None:
        """It has begun."""
        self._waiting.pop(connection, None)

    def hurry(self, seconds: float) -> None:
        """Give nobody more than ``seconds`` from now on, unless it is any time."""
        self._seconds = min(self._seconds, seconds)
        due = self._loop.time() + seconds
        for connection, (before, transport) in self._waiting.items():
            self._waiting[connection] = min(before, due), transport

    def _sleep(self) -> None:
        context = contextvars.Context()
        self._timer = self._loop.call_later(LOOK, self._look, context=context)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        for connection, (due, transport) in list(self._waiting.items()):
            if due <= now:
                transport.abort()
            if transport.is_closing():
                # Or its client has left, which nobody else tells.
                del self._waiting[connection]
        if self._waiting:
            self._sleep()


current: contextvars.ContextVar[Connection] = contextvars.ContextVar("connection")


class Attended:
    """An ASGI application that tells its connection of the first request.

    Args:
        app: the ASGI application.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        connection = current.get(None)
        if connection is not None and connection.is_awaited:
            connection.begin()
        return self.app(scope, receive, send)


class Listener:
    """Accepts the connections of one worker; one of its ``servers``.

    Args:
        worker: gunicorn's, whose ``sockets`` and ``cfg`` are read.
        factory: makes the protocol of a connection.
        limit: how many connections there may be at once; None: any number.
    """

    def __init__(
        self, worker: Any, factory: Callable[[], Any], limit: int | None
    ) -> None:
        self._loop: asyncio.AbstractEventLoop = worker.loop
        self._log = worker.log
        self._factory = factory
        self._limit = limit
        self._door = Door(worker.loop, float(worker.cfg.timeout))
        # Seconds in which a first request has to come once the worker stops: as long as
        # a later one has anyway.
        self._patience = max(float(worker.cfg.keepalive), LOOK)
        self._options = _tls_options(worker.cfg)
        # gunicorn's servers close what they were given.
        self._sockets: list[socket.socket] = [
            each.sock.dup() for each in worker.sockets
        ]
        self._beginning: set[asyncio.Task[None]] = set()
        self._count = 0
        self._is_accepting = False
        self._rests = False
        self._is_closed = False
        self._has_warned = False
        # That of the worker, for a reader inherits one, and connections do.
        self._context = contextvars.copy_context()

    def take_over(self, servers: list[Any], count: int) -> None:
        """Accept from now on, in place of the servers, of which it becomes one.

        Args:
            servers: of asyncio; closed soon.
            count: how many connections they have accepted.
        """
        had_reader = [
            self._loop.remove_reader(each.fileno())
            for server in servers
            for each in server.sockets
        ]
        if any(had_reader):
            self._loop.call_soon(_close, list(servers))
        else:
            # uvloop has none, and begins with a connection as it accepts it.
            _close(servers)
        servers[:] = [self]
        self.count(count)

    def count(self, number: int) -> None:
        """Pause or resume, as there are ``number`` connections now."""
        self._count = number
        self._adjust()

    def close(self) -> None:
        """Accept nothing any more, and wait no longer for who has said nothing."""
        self._is_closed = True
        self._door.hurry(self._patience)
        self._adjust()
        for each in self._sockets:
            each.close()
        self._sockets.clear()

    async def wait_closed(self) -> None:
        """Return once what was accepted has begun, so that it is counted."""
        if self._beginning:
            await asyncio.wait(self._beginning)

    def _adjust(self) -> None:
        accepts = not (self._is_full() or self._rests or self._is_closed)
        if accepts == self._is_accepting:
            return
        self._is_accepting = accepts
        for each in self._sockets:
            if accepts:
                # It may be a request whose end lets the next connection in.
                context = self._context.copy()
                context.run(self._loop.add_reader, each, self._accept, each)
            else:
                self._loop.remove_reader(each)

    def _is_full(self) -> bool:
        if self._limit is None:
            return False
        beginning = len(self._beginning)
        # For a moment, one that begins is among both.
        if max(self._count, beginning) >= self._limit and not self._has_warned:
            self._has_warned = True
            self._log.warning(FULL, self._limit)
        return self._count + beginning >= self._limit

    def _accept(self, listening: socket.socket) -> None:
        # A turn of the loop for each would cost half as much as a short request.
        for _ in range(AT_ONCE):
            # Each counts before the next one.
            if not (self._is_accepting and self._accept_one(listening)):
                return

    def _accept_one(self, listening: socket.socket) -> bool:
        try:
            accepted, _ = listening.accept()
        except BlockingIOError:
            # There are no more, or another worker was faster.
            return False
        except OSError as error:
            # Mostly the client has left.
            if error.errno in EXHAUSTED:
                self._rest(error)
            return False
        accepted.setblocking(False)
        task = self._loop.create_task(self._begin(accepted))
        self._beginning.add(task)
        task.add_done_callback(self._begun)
        self._adjust()
        return True

    async def _begin(self, accepted: socket.socket) -> None:
        connection = Connection(self._door)
        current.set(connection)
        try:
            transport, _ = await self._loop.connect_accepted_socket(
                self._factory, accepted, **self._options
            )
        except OSError as error:
            # The client has left, or its handshake has failed.
            self._log.debug("A connection has not begun: %s", error)
            return
        self._door.add(connection, transport)

    def _begun(self, task: asyncio.Task[None]) -> None:
        self._beginning.discard(task)
        self._adjust()

    def _rest(self, error: OSError) -> None:
        self._log.error(NO_MORE, PAUSE, error)
        self._rests = True
        self._adjust()
        self._loop.call_later(PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._rests = False
        self._adjust()


def _tls_options(cfg: Any) -> dict[str, Any]:
    if not cfg.is_ssl:
        return {}
    patience = {"ssl_handshake_timeout": float(cfg.timeout)} if cfg.timeout else {}
    return {"ssl": ssl_context(cfg), **patience}


def _close(servers: list[Any]) -> None:
    for server in servers:
        server.close()


def limit_of(cfg: Any) -> int | None:
    """What ``worker_connections`` says; None: gunicorn's default, which is no limit.

    That default, 1,000, is made for other workers, of which each connection takes more.
    """
    setting = cfg.settings["worker_connections"]
    return None if cfg.worker_connections == setting.default else cfg.worker_connections


FULL = (
    "aioext: %d connections are open, which is what worker_connections allows: others "
    "wait, or another worker takes them. This is said once."
)

NO_MORE = "aioext: nothing is accepted for %g s, for the system has no more to give: %s"

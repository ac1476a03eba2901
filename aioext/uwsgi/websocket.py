"""WebSockets under uWSGI: websockets' protocol on the connection's own descriptor.

Theory of operation
===================

uWSGI parses the request that asks for a WebSocket, and counts and logs it. Everything
after that happens without it::

    uWSGI ── environ ──► application: 101, headers ──► start_response, write(b"")
      │                                                        │
      │ descriptor, /dev/null from here on         the 101, in uWSGI's own words
      │                                                        ▼
      └─ a copy of the descriptor ──► asyncio's transport ──► TransportChannel

The response that accepts is uWSGI's to write, so that what middleware and uWSGI's own
options add to a response is a part of it. A WebSocket that is accepted on demand has no
``start_response`` to call; there the bytes are written on the transport.

Then the descriptor that uWSGI holds is made one of ``/dev/null``. uWSGI has to do
something when the application returns (it writes what is returned, it closes), and none
of that may reach the client, nor fail, nor be logged, and what is closed then must not
be the connection of somebody else.

What a client has sent together with its handshake lies in uWSGI's parser. The only
way to it is the function of the socket's protocol that reads a body, which uWSGI
exports for its plugins. Without it such a client would wait for ever for an answer to
a message that has been thrown away.

Each connection keeps one of uWSGI's cores (``--asyncio N``), and without a free one
uWSGI accepts nothing: its loop spins until one is free. So the last one is not given
to a WebSocket.

Things that do not work
=======================

* ``uwsgi.websocket_recv()`` and its relatives: one continuation frame from one client
  ends the worker, for all its connections share the buffer of fragments; empty
  messages get lost, the payload of a ping does not come back, and the close code is
  not told.
* Protocols whose connection carries something else than the client's bytes: TLS that
  uWSGI itself has ended, FastCGI. These are refused.
* uWSGI's own HTTP router without ``--http-websockets``: it passes nothing on after the
  request.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import errno
import functools
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from typing import Any

from pyramid.httpexceptions import (
    HTTPBadRequest,
    HTTPException,
    HTTPNotImplemented,
    HTTPServiceUnavailable,
)
from pyramid.threadlocal import get_current_request
from websockets.http11 import Response
from websockets.server import ServerProtocol

from .. import threadlocal
from ..exceptions import ConnectionClosed
from ..guards import KEY as EXCHANGE
from ..websocket.asgi import GRACE
from ..websocket.channel import ABNORMAL, INTERNAL_ERROR, NORMAL, Channel
from ..websocket.handshake import (
    KEY,
    REFUSAL,
    SWITCHING,
    VERSION,
    Handshake,
    asks_for_websocket,
    headers_of_acceptance,
    make_handshakes_with,
    malformation,
)
from ..websocket.protocol import TransportChannel, answer_handshake
from ..websocket.response import is_closed
from .connection import detach, duplicate
from .request import Exchange

__all__ = ["install"]

log = logging.getLogger("aioext")

Environ = MutableMapping[str, Any]

# uWSGI's function that reads a body, of every protocol that is not refused here.
READER = "uwsgi_proto_base_read_body"
# Of uWSGI's buffer for a request (--buffer-size), the most that there can be.
MAX_EARLY = 65_536
AGAIN = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR}


@functools.cache
def install(api: Any) -> None:
    """Have requests of this process become WebSockets, where they ask for it.

    Does nothing the second time.

    Args:
        api: uWSGI's module ``uwsgi``.
    """
    room = Room(api.cores)

    def make(environ: Environ) -> Handshake | None:
        if not asks_for_websocket(environ) or malformation(environ) is not None:
            return None
        version = environ.get("HTTP_SEC_WEBSOCKET_VERSION", "").strip()
        exchange = environ.get(EXCHANGE)
        if version != VERSION or not isinstance(exchange, Exchange):
            return None
        address = _address_of(exchange.descriptor)
        environ[REFUSAL] = why_not(api.opt, environ, address)
        if environ[REFUSAL] is not None:
            return None
        return SocketHandshake(environ, exchange, room)

    make_handshakes_with(make)


def _address_of(descriptor: int) -> Any:
    with duplicate(descriptor) as copy:
        return copy.getsockname()


class Room:
    """How many connections there may be at once: all of uWSGI's cores but one.

    Args:
        cores: of one process.
    """

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._free = max(cores - 1, 1)
        self._has_warned = False
        # A whole request may run in a thread.
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether there is room for one more; it is taken then."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return True
        if not self._has_warned:
            self._has_warned = True
            log.warning(FULL, self._cores)
        return False

    def leave(self) -> None:
        """Give one back."""
        with self._lock:
            self._free += 1


class SocketHandshake(Handshake):
    """A WebSocket that a client of uWSGI's asks for.

    Args:
        environ: of the request.
        exchange: of the request.
        room: of the process.
    """

    _has_room = False
    _is_over = False
    _has_failed = False
    _answered: tuple[ServerProtocol, Response] | None = None
    # uWSGI's, if it is to write the response.
    _write: Callable[[bytes], Any] | None = None
    # Runs the handler, if that comes in the place of a body.
    _serving: asyncio.Task[Any] | None = None
    _cancelling: asyncio.TimerHandle | None = None
    _is_lost = False

    def __init__(self, environ: Environ, exchange: Exchange, room: Room) -> None:
        super().__init__(environ, self._open_socket, self._take_headers)
        self._exchange = exchange
        self._room = room
        self._loop = exchange.loop
        exchange.at_end(self._forget)
        request = get_current_request()
        if request is not None and request.environ is environ:
            request.add_response_callback(self._note_response)
            request.add_finished_callback(self._note_end)

    @property
    def has_ended(self) -> bool:
        return self._is_lost or super().has_ended

    def check_room(self) -> None:
        if not self._has_room:
            self._has_room = self._room.take()
        if not self._has_room:
            raise HTTPServiceUnavailable(NO_ROOM)

    # The response that accepts

    def _take_headers(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.headers = headers_of_acceptance(headers)

    def answer(self, start_response: Any, headers: list[tuple[str, str]]) -> None:
        self._take_headers(SWITCHING, headers)
        self._answered = _, response = self._agree()
        if response.status_code == 101:
            self._write = start_response(SWITCHING, list(response.headers.raw_items()))

    def _agree(self) -> tuple[ServerProtocol, Response]:
        environ = self._environ
        asked = [
            (name[5:].replace("_", "-"), value)
            for name, value in environ.items()
            if name.startswith("HTTP_")
        ]
        options = self._known_options()
        protocol, response = answer_handshake(
            environ.get("PATH_INFO", "/"), asked, options
        )
        if response.status_code == 101:
            if self.subprotocol is not None:
                response.headers["Sec-WebSocket-Protocol"] = self.subprotocol
            for name, value in self.headers:
                response.headers[name.decode("latin-1")] = value.decode("latin-1")
        return protocol, response

    async def _open_socket(self, *args: Any) -> Channel:
        try:
            if self._is_over:
                raise ConnectionAbortedError
            protocol, response = self._answered or self._agree()
            sock, early = self._take_over()
            # Nothing of the request is to be kept by what belongs to the connection.
            opening = self._loop.create_task(
                self._open_channel(sock, early, protocol, response),
                context=contextvars.Context(),
            )
            return await self._opened(opening)
        except OSError:
            self._is_lost = True
            raise ConnectionClosed(ABNORMAL) from None

    async def _opened(self, opening: asyncio.Task[Channel]) -> Channel:
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The client knows that it is open, and is to be told that it is closed.
            await asyncio.wait((opening,))
            if opening.exception() is None:
                self.channel = opening.result()
                self._has_failed = True
            raise

    async def _open_channel(
        self,
        sock: socket.socket,
        early: bytes,
        protocol: ServerProtocol,
        response: Response,
    ) -> Channel:
        transport, _ = await self._loop.connect_accepted_socket(_Quiet, sock)
        if self._write is None:
            transport.write(response.serialize())
        if self._is_over or response.status_code != 101:
            transport.close()
            raise ConnectionAbortedError
        channel = TransportChannel(transport, protocol, self._known_options())
        channel.when_ended(self._cancel_soon)
        transport.resume_reading()
        channel.start(early)
        return channel

    def _take_over(self) -> tuple[socket.socket, bytes]:
        # Nothing else happens in between.
        exchange = self._exchange
        exchange.release()
        try:
            early = read_early(exchange.pointer)
            if self._write is not None:
                self._write(b"")
        except OSError:
            # uWSGI would try to write the response once more.
            take(exchange.descriptor).close()
            raise
        return take(exchange.descriptor), early

    # The handler

    async def serve(self, handling: Coroutine[Any, Any, None]) -> None:
        self._serving = asyncio.current_task()
        try:
            with threadlocal.pushed(threadlocal.ended_entry()):
                await handling
        except ConnectionClosed as error:
            if not (self.has_ended and is_closed(error)):
                raise
        except asyncio.CancelledError:
            # There is nobody left whom it would tell anything: uWSGI would log it.
            pass
        finally:
            self._serving = None
            self.end()

    def _cancel_soon(self) -> None:
        if not self._is_over:
            self._cancelling = self._loop.call_later(GRACE, self._cancel)

    def _cancel(self) -> None:
        if self._serving is not None:
            self._serving.cancel()
        else:
            self._exchange.cancel()

    # The end

    def _note_response(self, request: Any, response: Any) -> None:
        self._has_failed = response.status_code >= 400

    def _note_end(self, request: Any) -> None:
        # What has not been accepted so far is so when the body is asked for, if it is.
        if self.channel is not None:
            if sys.exc_info()[1] is not None:
                self._has_failed = True
            self.end()

    def _forget(self) -> None:
        self.end()
        # It leads back to here, and the collector comes seldom.
        self._environ.pop(KEY, None)

    def end(self) -> None:
        """The request is over, and so is its WebSocket.

        May be called in any thread, and more than once.
        """
        if self._is_over:
            return
        self._is_over = True
        super().end()
        if self._has_room:
            self._room.leave()
        self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        if self._cancelling is not None:
            self._cancelling.cancel()
        channel = self.channel
        if channel is not None and not channel.closed:
            code = INTERNAL_ERROR if self._has_failed else NORMAL
            self._loop.create_task(channel.close(code))


class _Quiet(asyncio.Protocol):
    # Has a transport until its channel is there.

    def connection_made(self, transport: Any) -> None:
        transport.pause_reading()


# The descriptor ----------------------------------------------------------------


def take(descriptor: int) -> socket.socket:
    """The socket of a connection, which uWSGI can do nothing with from now on."""
    taken = duplicate(descriptor)
    detach(descriptor)
    return taken


def _find_reader() -> Any:
    # Reads of a connection what uWSGI has read ahead, and what there is if that is
    # nothing: ssize_t (struct wsgi_request *, char *, size_t).
    program = ctypes.PyDLL(None, use_errno=True)
    reader = getattr(program, READER, None)
    if reader is not None:
        reader.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
        reader.restype = ctypes.c_ssize_t
    return reader


_read = _find_reader()


def read_early(request: int) -> bytes:
    """What a client has sent behind its request so far.

    Args:
        request: the address of uWSGI's ``struct wsgi_request``.

    Raises:
        OSError: it has left.
    """
    if _read is None:
        return b""
    buffer = ctypes.create_string_buffer(MAX_EARLY)
    count = _read(request, buffer, MAX_EARLY)
    if count > 0:
        return buffer.raw[:count]
    error = ctypes.get_errno()
    if count == 0 or error not in AGAIN:
        raise ConnectionResetError(error, "the client has left")
    return b""


# What cannot be a WebSocket --------------------------------------------------

# Options whose sockets carry something else than the client's own bytes.
TLS_SOCKETS = ("https-socket", "suwsgi-socket", "ssl-socket")
FRAMED_SOCKETS = ("fastcgi-socket", "fastcgi-nph-socket", "puwsgi-socket")
KEPT_SOCKETS = ("http11-socket",)
# The others.
PLAIN_SOCKETS = ("socket", "uwsgi-socket", "http-socket", "scgi-socket")
FIT_PROTOCOLS = ("uwsgi", "http", "scgi")
ROUTERS = ("http", "httprouter", "https", "https2")
ROUTER_PASSES = ("http-websockets", "http-raw-body")


def why_not(
    options: Mapping[str, Any], environ: Mapping[str, Any], address: Any
) -> HTTPException | None:
    """The answer to who asks for a WebSocket where none can be; None: it can.

    Args:
        options: of uWSGI, as its module has them.
        environ: of the request.
        address: of the socket that it came to, as ``getsockname()`` gives it.
    """
    if environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        return HTTPBadRequest(OLD_PROTOCOL)
    if environ.get("wsgi.url_scheme") == "https":
        for name in TLS_SOCKETS:
            if _listens(options, name, address):
                return HTTPNotImplemented(TLS.format(name))
    for name in (*FRAMED_SOCKETS, *KEPT_SOCKETS):
        if _listens(options, name, address):
            return HTTPNotImplemented(OTHER_PROTOCOL.format(name))
    protocol = os.fsdecode(options.get("protocol") or "uwsgi")
    if protocol not in FIT_PROTOCOLS and _listens(options, "socket", address):
        return HTTPNotImplemented(OTHER_PROTOCOL.format(f"protocol {protocol}"))
    if any(name in options for name in ROUTERS):
        passes = any(name in options for name in ROUTER_PASSES)
        if not passes and not any(name in options for name in PLAIN_SOCKETS):
            return HTTPNotImplemented(ROUTER)
    return None


def _listens(options: Mapping[str, Any], name: str, address: Any) -> bool:
    # Whether the option has uWSGI listen there, as far as that can be told.
    values = options.get(name, [])
    return any(
        _may_be(os.fsdecode(value).partition(",")[0], address)
        for value in (values if isinstance(values, list) else [values])
        if isinstance(value, bytes)
    )


def _may_be(told: str, address: Any) -> bool:
    if told.startswith("="):
        # A shared socket, by its number.
        return True
    if isinstance(address, tuple):
        port = told.rpartition(":")[2]
        return port in ("0", str(address[1]))
    return told == os.fsdecode(address)


FULL = """\
aioext: a WebSocket was refused with 503: each keeps one of uWSGI's %s cores, and the \
last one is left for other requests. Raise --asyncio, or --processes."""

NO_ROOM = "This server has as many connections as it can have. Try again later."

OLD_PROTOCOL = "A WebSocket takes HTTP/1.1, and this request is one of HTTP/1.0."

TLS = """\
uWSGI ends the TLS of this connection itself ({}), and no WebSocket can be opened \
there. Have uWSGI's HTTP router end it (https and http-websockets), or a proxy."""

OTHER_PROTOCOL = """\
No WebSocket can be opened on uWSGI's {}. Use http-socket, or socket behind a proxy."""

ROUTER = """\
uWSGI's HTTP router passes nothing on that comes after a request, unless uWSGI is \
started with --http-websockets."""

"""A WebSocket on a transport of asyncio: the protocol is websockets' own.

Theory of operation
===================

``websockets.server.ServerProtocol`` parses and builds frames and does no I/O.
It begins in the state OPEN here: the runtime's HTTP server has read the
handshake already, which is handed over as an object, and the response is
serialized and written like any other.

:class:`TransportChannel` takes the transport over with ``set_protocol()``: what
comes goes straight into the parser, and what the parser has to say is written
after each call. The protocol that had the transport before is told of its end.

What comes is parsed in slices, and no further than the queue of messages allows;
the rest waits, and reading pauses. The end of a connection is half-closed first
and read to its end: a transport that is closed with bytes unread would reset
the connection, and the client might lose the close frame that tells why.

*Pings.* A client that is silent for ``ping_interval`` is pinged; whatever it says
is a sign of life. When ``ping_timeout`` is over, it may have answered all the
same: the answer lies in the socket if this loop was busy, or behind messages that
nobody has taken. So the deadline counts only while the connection is read, and
once it is over, the socket is looked at once more before the client is given up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from ..shutdown import on_shutdown
from .channel import (
    ABNORMAL,
    IN_A_ROW,
    INTERNAL_ERROR,
    NORMAL,
    SERVICE_RESTART,
    Channel,
    Message,
    check_close,
    check_message,
)
from .options import Options

__all__ = ["TransportChannel", "answer_handshake"]

# websockets says at INFO when a connection is closed, once for each: too much for
# an application that logs at INFO, unless it asks for this logger by name.
log = logging.getLogger("aioext.websocket.protocol")
if log.level == logging.NOTSET:
    log.setLevel(logging.WARNING)

# Bytes that are parsed before the queue is looked at again: a client that sends
# the smallest messages there are gets no more of them in.
SLICE = 16_384
# Seconds that a client has to answer a close frame; less when the server stops.
CLOSE_TIMEOUT = 5.0
SHUTDOWN_TIMEOUT = 0.5
# Seconds to look at the socket once more.
SECOND_LOOK = 0.05
# Memory for each connection that is compressed, and what most messages need.
DEFLATE = ServerPerMessageDeflateFactory(
    server_max_window_bits=12,
    client_max_window_bits=12,
    compress_settings={"memLevel": 5},
)
TEXT = Opcode.TEXT
BINARY = Opcode.BINARY
# What a ping of this server's own carries; no application's ping is empty.
KEEPALIVE = b""


def answer_handshake(
    target: str, headers: Iterable[tuple[str, str]], options: Options
) -> tuple[ServerProtocol, Response]:
    """The protocol of a connection, and the response to its opening handshake.

    Args:
        target: the request's target, as it was sent.
        headers: of the request.
        options: of the WebSocket.

    Returns:
        a protocol that goes on after the response, if its status is 101; any
        other says what is wrong with the handshake.
    """
    protocol = ServerProtocol(
        state=State.OPEN,
        max_size=options.max_size or None,
        extensions=[DEFLATE] if options.compression == "deflate" else None,
        logger=log,
    )
    return protocol, protocol.accept(Request(target, Headers(headers)))


class TransportChannel(Channel, asyncio.Protocol):
    """A channel over a transport, from the 101 on.

    Args:
        transport: of the connection.
        protocol: of websockets, after the handshake.
        options: of the WebSocket.
        before: the protocol that has had the transport so far.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        protocol: ServerProtocol,
        options: Options,
        before: asyncio.BaseProtocol | None = None,
    ) -> None:
        super().__init__(options)
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._protocol = protocol
        self._before = before
        # What has come and was not parsed.
        self._unparsed = b""
        # The message whose fragments come in.
        self._partial: bytearray | None = None
        self._partial_is_text = False
        self._writable: asyncio.Future[None] | None = None
        # Not read on, for it pings and does not take what it is answered.
        self._held_back = False
        self._lost: asyncio.Future[None] | None = None
        self._is_lost = False
        self._heard_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._pings: dict[bytes, asyncio.Future[float]] = {}
        self._pinged = 0
        self._forget_shutdown: Callable[[], None] | None = None

    def start(self, data: bytes = b"") -> None:
        """Take the transport over; ``data`` came after the handshake's end."""
        self._transport.set_protocol(self)
        self._forget_shutdown = on_shutdown(self._go_away)
        if self.options.ping_interval:
            self._after(self.options.ping_interval, self._ping_if_silent)
        if data:
            self.data_received(data)

    # What asyncio calls.

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        if self._unparsed:
            self._unparsed += data
        elif len(data) <= SLICE and not self._paused:
            self._parse(data)
        else:
            self._unparsed = data
            self._parse_more()
        if self._paused:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None:
            writable.set_result(None)
        if self._held_back:
            self._held_back = False
            if not self._paused and not self._is_lost:
                self._transport.resume_reading()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        if not self.closed:
            self.end(ABNORMAL)
            # The transport closes once all is written, which may be never.
            self._close_soon(CLOSE_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        # What was not parsed is lost as well.
        self._paused = False
        self._unparsed = b""
        self._protocol.receive_eof()
        self._stop_timer()
        if self._forget_shutdown is not None:
            self._forget_shutdown()
        self.end(ABNORMAL)
        self.resume_writing()
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)
        before, self._before = self._before, None
        if before is not None:
            before.connection_lost(exc)

    # What comes in.

    def _parse(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        for frame in protocol.events_received():
            opcode = frame.opcode
            if frame.fin and (opcode is TEXT or opcode is BINARY):
                self._take_message(frame.data, opcode is TEXT)
            else:
                self._take_other(frame)
        if protocol.parser_exc is not None:
            if not self.closed:
                self._fail_parsing()
            self._flush()

    def _parse_more(self) -> None:
        unparsed, self._unparsed = self._unparsed, b""
        position = 0
        while position < len(unparsed) and not self._paused:
            self._parse(unparsed[position : position + SLICE])
            position += SLICE
        self._unparsed = unparsed[position:]

    def _take_other(self, frame: Frame) -> None:
        # A fragment, or a control frame.
        opcode = frame.opcode
        if opcode is TEXT or opcode is BINARY:
            self._partial = bytearray(frame.data)
            self._partial_is_text = opcode is TEXT
        elif opcode is Opcode.CONT:
            if self._partial is not None:
                self._partial += frame.data
                if frame.fin:
                    data, self._partial = self._partial, None
                    self._take_message(data, self._partial_is_text)
        elif opcode is Opcode.PONG:
            self._take_pong(bytes(frame.data))
        elif opcode is Opcode.CLOSE:
            self._take_close()
        # The answer to it.
        self._flush()
        if opcode is Opcode.PING and self._writable is not None and not self.closed:
            self._held_back = True
            self._transport.pause_reading()

    def _take_message(self, data: Any, is_text: bool) -> None:
        if self.closed:
            return
        if not is_text:
            self.put(bytes(data))
            return
        try:
            text = str(data, "utf-8")
        except UnicodeDecodeError:
            self._fail(1007, "not UTF-8")
        else:
            self.put(text)

    def _take_close(self) -> None:
        received = self._protocol.close_rcvd
        if received is not None and not self.closed:
            self.end(received.code, received.reason)
            self._close_soon(CLOSE_TIMEOUT)

    def _fail_parsing(self) -> None:
        # The parser has sent its close frame.
        sent = self._protocol.close_sent
        if sent is None:
            self.end(ABNORMAL)
        else:
            self.end(sent.code, sent.reason)
        self._close_soon(CLOSE_TIMEOUT)

    def _fail(self, code: int, reason: str) -> None:
        self.end(code, reason)
        self._protocol.fail(code, reason)
        self._flush()
        self._close_soon(CLOSE_TIMEOUT)

    def _resume(self) -> None:
        if self._unparsed:
            self._parse_more()
        if not self._paused and not self._held_back and not self._is_lost:
            self._transport.resume_reading()

    # What goes out.

    async def send(self, message: Message) -> None:
        if self.closed:
            raise self.closed_error()
        if type(message) is str:
            self._protocol.send_text(message.encode())
        else:
            check_message(message)
            if isinstance(message, str):
                self._protocol.send_text(message.encode())
            else:
                # The length of a memoryview need not be its bytes.
                self._protocol.send_binary(bytes(message))
        self._flush()
        self._sent += 1
        if self._writable is not None:
            await self._drain()
        elif self._sent >= IN_A_ROW:
            await self.give_way()

    async def _drain(self) -> None:
        # Shared by all who send: cancelling one must not cancel the others.
        while self._writable is not None:
            await asyncio.shield(self._writable)
        self.check_open()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._end_of_data()

    def _end_of_data(self) -> None:
        if self._is_lost:
            return
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self._unparsed = b""
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    # Its end.

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        check_close(code, reason)
        self._begin_close(code, reason, CLOSE_TIMEOUT)
        if not self._is_lost:
            if self._lost is None:
                self._lost = self._loop.create_future()
            await asyncio.shield(self._lost)

    def _begin_close(self, code: int, reason: str, timeout: float) -> None:
        if not self.closed:
            self.end(code, reason, here=True)
            self._protocol.send_close(code, reason)
            self._flush()
            self._resume_for_close()
            self._close_soon(timeout)

    def _resume_for_close(self) -> None:
        # The client's answer comes behind what it has sent before.
        self._paused = False
        unparsed, self._unparsed = self._unparsed, b""
        if unparsed:
            self._parse(unparsed)
        if not self._is_lost:
            self._transport.resume_reading()

    def _close_soon(self, timeout: float) -> None:
        self._stop_timer()
        if not self._is_lost:
            self._timer = self._loop.call_later(timeout, self._transport.abort)

    def _go_away(self) -> None:
        if self.closed:
            self._close_soon(SHUTDOWN_TIMEOUT)
        else:
            self._begin_close(SERVICE_RESTART, "", SHUTDOWN_TIMEOUT)

    def abort(self) -> None:
        """Cut the connection."""
        self.end(ABNORMAL)
        self._transport.abort()

    # Pings.

    async def ping(self) -> float:
        self.check_open()
        # Never the same again: an answer may come after its timeout.
        self._pinged += 1
        payload = b"%x" % self._pinged
        self._pings[payload] = answered = self._loop.create_future()
        start = perf_counter()
        self._protocol.send_ping(payload)
        self._flush()
        try:
            return await answered - start
        finally:
            self._pings.pop(payload, None)

    def _take_pong(self, payload: bytes) -> None:
        # An answer to the last of several pings is one to all (RFC 6455 section 5.5.3).
        if payload == KEEPALIVE:
            self._keep_alive()
        if payload not in self._pings:
            return
        now = perf_counter()
        for sent, answered in self._pings.items():
            if not answered.done():
                answered.set_result(now)
            if sent == payload:
                return

    def end(self, code: int, reason: str = "", *, here: bool = False) -> None:
        super().end(code, reason, here=here)
        self._partial = None
        for answered in self._pings.values():
            if not answered.done():
                answered.set_exception(self.closed_error())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ping_if_silent(self) -> None:
        interval = self.options.ping_interval
        silence = self._loop.time() - self._heard_at
        if silence < interval:
            self._after(interval - silence, self._ping_if_silent)
            return
        self._protocol.send_ping(KEEPALIVE)
        self._flush()
        if self.options.ping_timeout:
            self._after(self.options.ping_timeout, self._look_for_answer)
        else:
            self._after(interval, self._ping_if_silent)

    def _keep_alive(self) -> None:
        # The next ping is due after the interval, not after the deadline too.
        if self.options.ping_interval and not self.closed:
            self._stop_timer()
            self._after(self.options.ping_interval, self._ping_if_silent)

    def _look_for_answer(self) -> None:
        if not self._goes_on():
            self._after(SECOND_LOOK, self._give_up_if_silent)

    def _give_up_if_silent(self) -> None:
        if not self._goes_on():
            self._fail(INTERNAL_ERROR, "keepalive ping timeout")

    def _goes_on(self) -> bool:
        # Of a connection that is not read, silence says nothing.
        silence = self._loop.time() - self._heard_at
        if silence >= self.options.ping_timeout and not self._paused:
            return False
        self._after(self.options.ping_interval, self._ping_if_silent)
        return True

    def _after(self, delay: float, callback: Callable[[], None]) -> None:
        self._timer = self._loop.call_later(delay, callback)

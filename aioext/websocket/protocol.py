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

Most messages are one frame that is not compressed. Those are read and written
here, which takes a third of the time and half of the copies; the parser is given
every other frame, whole, so it is always between two frames. What comes is parsed
no further than the queue of messages allows; the rest waits, and reading pauses.
So it does while others have their turn: a client could keep the loop busy with
pings or fragments that no queue ever sees.

The end of a connection is half-closed first and read to its end: a transport that
is closed with bytes unread would reset the connection, and the client might lose
the close frame that tells why.

*Pings.* A client that is silent for ``ping_interval`` is pinged; whatever it says
is a sign of life. When ``ping_timeout`` is over, it may have answered all the
same: the answer lies in the socket if this loop was busy, or behind messages that
nobody has taken. So the deadline counts only while the connection is read, and
once it is over, the socket is looked at once more before the client is given up.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable
from struct import pack
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

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

__all__ = ["TransportChannel", "answer_handshake"]

# websockets says at INFO when a connection is closed, once for each: too much for
# an application that logs at INFO, unless it asks for this logger by name.
log = logging.getLogger("aioext.websocket.protocol")
if log.level == logging.NOTSET:
    log.setLevel(logging.WARNING)

# Frames that are parsed before others have their turn.
FRAMES_IN_A_ROW = 512
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
# The first byte of a message in one frame that is not compressed.
TEXT_HEAD, BINARY_HEAD = PLAIN = (0x81, 0x82)
MASKED = 0x80
OPCODES = frozenset(Opcode)
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
        self._unparsed = bytearray()
        # How much has to come before it is worth a look.
        self._needed = 0
        self._longest = options.max_size or sys.maxsize
        self._is_compressed = bool(protocol.extensions)
        # The message whose fragments come in.
        self._partial: bytearray | None = None
        self._partial_is_text = False
        self._writable: asyncio.Future[None] | None = None
        # Not read on, for it pings and does not take what it is answered.
        self._held_back = False
        # Not read on before others have had their turn.
        self._gives_way = False
        self._lost: asyncio.Future[None] | None = None
        self._is_lost = False
        self._heard_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._pings: dict[bytes, asyncio.Future[float]] = {}
        self._pinged = 0
        self._awaits_pong = False
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
        if self._unparsed or self._paused or self._gives_way:
            self._unparsed += data
            if len(self._unparsed) >= self._needed and not self._gives_way:
                self._parse_more()
        else:
            parsed = self._parse(data)
            if parsed < len(data):
                self._unparsed += data[parsed:]
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
            self._read_on()

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
        self._unparsed.clear()
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

    def _parse(self, data: bytes | bytearray) -> int:
        # Gives how much of it is parsed: whole frames, while messages are welcome.
        position, end = 0, len(data)
        frames = 0
        self._needed = 0
        while not self._paused and position + 2 <= end:
            if frames == FRAMES_IN_A_ROW:
                self._let_others()
                break
            frames += 1
            payload, after = self._measure(data, position)
            if not payload or self.closed:
                # What is wrong with a frame, and what comes behind a close, is the
                # parser's.
                self._give(data[position:])
                return end
            if after > end and data[position] & 0x0F in OPCODES:
                self._needed = after - position
                break
            first = data[position]
            if first in PLAIN and self._partial is None:
                masked = memoryview(data)[payload:after]
                message = apply_mask(masked, data[payload - 4 : payload])
                # Whoever keeps this frame, as an exception does, would keep the data
                # from being cut.
                masked.release()
                self._take_message(message, first == TEXT_HEAD)
            else:
                self._give(data[position:after])
            position = after
        return position

    def _measure(self, data: bytes | bytearray, position: int) -> tuple[int, int]:
        # Where the payload of the frame begins, and where the frame ends, as far as
        # that is known; zeros for a frame that cannot be accepted.
        length = data[position + 1] - MASKED
        payload = position + 6
        if length >= 126:
            payload += 2 if length == 126 else 8
            if payload > len(data):
                return payload, payload
            length = int.from_bytes(data[position + 2 : payload - 4], "big")
        longest = self._longest
        if self._partial is not None:
            longest -= len(self._partial)
        if not 0 <= length <= longest:
            return 0, 0
        return payload, payload + length

    def _give(self, data: bytes | bytearray) -> None:
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
        # Parsing may end the connection, and that forgets what was not parsed.
        data, self._unparsed = self._unparsed, bytearray()
        del data[: self._parse(data)]
        self._unparsed = data

    def _let_others(self) -> None:
        self._gives_way = True
        self._transport.pause_reading()
        self._loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._gives_way = False
        if not self._is_lost:
            if not self._paused:
                self._parse_more()
            self._read_on()

    def _read_on(self) -> None:
        held = self._paused or self._held_back or self._gives_way
        if not held and not self._is_lost:
            self._transport.resume_reading()

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
            self.put(data if type(data) is bytes else bytes(data))
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
        if self._unparsed and not self._gives_way:
            self._parse_more()
        self._read_on()

    # What goes out.

    async def send(self, message: Message) -> None:
        if self._transport.is_closing() and not self.closed:
            # asyncio logs what is written to a connection that is lost.
            self.end(ABNORMAL)
        if self.closed:
            raise self.closed_error()
        if isinstance(message, str):
            self._write(TEXT_HEAD, message.encode())
        else:
            check_message(message)
            # A copy, unless nobody can change it before it has been sent.
            self._write(BINARY_HEAD, bytes(message))
        self._sent += 1
        if self._writable is not None:
            await self._drain()
        elif self._sent >= IN_A_ROW:
            await self.give_way()

    def _write(self, head: int, data: bytes) -> None:
        length = len(data)
        if self._is_compressed:
            if head == TEXT_HEAD:
                self._protocol.send_text(data)
            else:
                self._protocol.send_binary(data)
            self._flush()
        elif length < 126:
            self._transport.write(b"%c%c%b" % (head, length, data))
        # Not writelines(): before Python 3.12.9 it never pauses the writing.
        elif length < 65536:
            self._transport.write(pack("!BBH", head, 126, length) + data)
        else:
            self._transport.write(pack("!BBQ", head, 127, length) + data)

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
        self._unparsed.clear()
        self._paused = self._held_back = False
        self._read_on()
        if self._transport.can_write_eof():
            try:
                self._transport.write_eof()
            except OSError:
                # The client has reset it, and the loop has not noticed so far.
                self._transport.abort()
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
        self._paused = self._held_back = False
        if self._unparsed and not self._gives_way:
            self._parse_more()
        self._read_on()

    def _close_soon(self, timeout: float) -> None:
        self._stop_timer()
        if not self._is_lost:
            self._timer = self._loop.call_later(timeout, self._transport.abort)

    def _go_away(self) -> None:
        if self.closed:
            self._close_soon(SHUTDOWN_TIMEOUT)
        else:
            self._begin_close(SERVICE_RESTART, "", SHUTDOWN_TIMEOUT)

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
        if payload == KEEPALIVE and self._awaits_pong:
            self._awaits_pong = False
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
        self._awaits_pong = True
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

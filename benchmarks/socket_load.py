"""A WebSocket client that is lean enough to keep a server busy.

A client library spends more on a message than the servers that are measured do,
and then it is the client that is measured. What is needed here is little: all
messages of a load are the same, so their frame is made once, masked, and
an answer is known by its length. What remains for a message is a call of
``recv_into``, a call of ``send``, and a part of a call of ``poll``; most of that is
the kernel's time. A server that did nothing else would get some 250,000 messages a
second from it, more than twice what aiohttp's can answer.

Each connection has one message on its way: the next one is sent when the last
of the echo's bytes has come. The first echo of each connection is compared with
what was sent, byte by byte; of the others the length is counted. Compression is
not offered.

It runs in the process that calls it, on the client's core.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

from .servers import Unavailable

__all__ = [
    "Counted",
    "close",
    "connect",
    "echo",
    "echo_once",
    "frame",
    "open_and_close",
]

# Seconds that a server may need for an answer; the slowest one needs 50 ms for
# a message of 1 MiB, and has one of each connection before it.
TIMEOUT = 30.0
BUFFER = 2**20
# Also the answer to it is always the same.
KEY, ACCEPT = b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MASK = b"\x5a\xc3\x17\xe8"
TEXT, CLOSE = 0x81, 0x88
GOING = (1000).to_bytes(2, "big")
MESSAGE = 20


@dataclass(frozen=True)
class Counted:
    """What a client has done.

    Attributes:
        rate: messages, or connections, a second.
        total: how many there were, also before and after the time that counts.
        busy: which part of its core the client used.
    """

    rate: float
    total: int
    busy: float


def frame(opcode: int, payload: bytes, mask: bytes = b"") -> bytes:
    """One whole frame; a server's if ``mask`` is empty."""
    size, masked = len(payload), 0x80 if mask else 0
    if size < 126:
        head = bytes((opcode, masked | size))
    elif size < 2**16:
        head = bytes((opcode, masked | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((opcode, masked | 127)) + size.to_bytes(8, "big")
    return head + mask + (_xor(payload, mask) if mask else payload)


def _xor(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    both = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return both.to_bytes(size, "big")


OTHER = "the echo of {} bytes is another message"
GOODBYE = frame(CLOSE, GOING, MASK)


def text(size: int) -> bytes:
    """A text of ``size`` bytes that is not the same everywhere."""
    return (b"0123456789abcdef-" * (size // 17 + 1))[:size]


def connect(url: str) -> socket.socket:
    """A connection to ``url`` after its handshake; it blocks.

    Raises:
        Unavailable: the server refused it.
        OSError: it did not answer.
    """
    connection, request = _dial(url)
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        received = connection.recv(4096)
        if not received:
            break
        answer += received
    _check(answer)
    return connection


def _dial(url: str) -> tuple[socket.socket, bytes]:
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname, address.port), TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection, _request(address.netloc, address.path)


def _request(host: str, path: str) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        f"Origin: http://{host}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY.decode()}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def _check(answer: bytes) -> None:
    if not answer.startswith(b"HTTP/1.1 101 ") or ACCEPT not in answer:
        first = answer.partition(b"\r\n")[0].decode("latin-1") or "nothing"
        raise Unavailable(f"the handshake was answered with {first}")


def echo_once(connection: socket.socket, size: int = MESSAGE) -> None:
    """Send one message, and compare what comes back.

    Raises:
        Unavailable: it is another one.
    """
    connection.sendall(frame(TEXT, text(size), MASK))
    expected = frame(TEXT, text(size))
    answer = bytearray()
    while len(answer) < len(expected):
        received = connection.recv(BUFFER)
        if not received:
            raise Unavailable(f"closed within the echo of {size} bytes")
        answer += received
    if answer != expected:
        raise Unavailable(OTHER.format(size))


def close(connection: socket.socket) -> None:
    """Say goodbye, and wait until the server has done so too."""
    connection.settimeout(TIMEOUT)
    connection.sendall(GOODBYE)
    connection.recv(BUFFER)
    connection.close()


def echo(url: str, size: int, connections: int, seconds: float) -> Counted:
    """Have messages of ``size`` bytes echoed for some seconds.

    Messages that are on their way at the end are waited for, so that they do not
    burden what comes next.

    Raises:
        Unavailable: the server refused, closed, or sent something else.
        OSError: it was gone.
    """
    with ExitStack() as stack:
        opened = []
        for _ in range(connections):
            connection = stack.enter_context(connect(url))
            echo_once(connection, size)
            connection.setblocking(False)
            opened.append(connection)
        counted = _Echoing(opened, size).run(seconds)
        for connection in opened:
            close(connection)
    return counted


class _Echoing:
    """The loop of :func:`echo`, over connections that do not block."""

    def __init__(self, connections: list[socket.socket], size: int) -> None:
        self._connections = {each.fileno(): each for each in connections}
        self._frame = frame(TEXT, text(size), MASK)
        self._answer = len(frame(TEXT, text(size)))
        # By descriptor: bytes that are still to come, and to go.
        self._missing = dict.fromkeys(self._connections, self._answer)
        self._unsent: dict[int, memoryview] = {}
        self._epoll = select.epoll()

    def run(self, seconds: float) -> Counted:
        """Send, until the time is over; then wait for what is on its way."""
        with self._epoll:
            used, start = time.process_time(), time.perf_counter()
            for descriptor in self._connections:
                self._epoll.register(descriptor, select.EPOLLIN)
                self._send(descriptor, memoryview(self._frame))
            messages = self._echo(start + seconds)
            elapsed = time.perf_counter() - start
            busy = (time.process_time() - used) / elapsed
        self._finish()
        return Counted(messages / elapsed, messages + len(self._missing), busy)

    def _echo(self, end: float) -> int:
        # What every message goes through, so nothing is looked up on the way.
        receive = {n: each.recv_into for n, each in self._connections.items()}
        send = {n: each.send for n, each in self._connections.items()}
        poll, clock, writable = self._epoll.poll, time.perf_counter, select.EPOLLOUT
        missing, answer, buffer = self._missing, self._answer, bytearray(BUFFER)
        whole, size = self._frame, len(self._frame)
        messages = 0
        while clock() < end:
            for descriptor, events in poll(TIMEOUT) or _silence():
                if events & writable:
                    self._send(descriptor, self._unsent.pop(descriptor))
                    continue
                left = missing[descriptor] - receive[descriptor](buffer)
                if left:
                    missing[descriptor] = _still(left, missing[descriptor])
                    continue
                missing[descriptor] = answer
                messages += 1
                sent = send[descriptor](whole)
                if sent < size:
                    self._keep(descriptor, memoryview(whole)[sent:])
        return messages

    def _send(self, descriptor: int, data: memoryview) -> None:
        data = data[self._connections[descriptor].send(data) :]
        if data:
            self._keep(descriptor, data)
        else:
            self._epoll.modify(descriptor, select.EPOLLIN)

    def _keep(self, descriptor: int, data: memoryview) -> None:
        # No echo begins before all of its message is there: until then there is
        # nothing to be received.
        self._unsent[descriptor] = data
        self._epoll.modify(descriptor, select.EPOLLOUT)

    def _finish(self) -> None:
        for descriptor, connection in self._connections.items():
            connection.settimeout(TIMEOUT)
            connection.sendall(self._unsent.pop(descriptor, b""))
            left = self._missing[descriptor]
            while left:
                left = _still(left - len(connection.recv(left)), left)


def _still(left: int, before: int) -> int:
    if 0 <= left < before:
        return left
    raise Unavailable(
        "closed within an echo" if left > 0 else "the echo is longer than its message"
    )


def _silence() -> list[tuple[int, int]]:
    raise Unavailable(f"no answer within {TIMEOUT:.0f} seconds")


def open_and_close(url: str, connections: int, seconds: float) -> Counted:
    """Open connections, have one message echoed by each, and close them.

    ``connections`` of them are open at the same time.

    Raises:
        Unavailable: the server refused, closed, or sent something else.
        OSError: it was gone.
    """
    with _Opening(url) as opening:
        return opening.run(connections, seconds)


class _Opening:
    """The loop of :func:`open_and_close`.

    A connection goes through three steps: in each something is sent, and the
    next one begins when what is expected has come.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._sent = (frame(TEXT, text(MESSAGE), MASK), GOODBYE)
        self._echo = frame(TEXT, text(MESSAGE))
        self._open: dict[int, socket.socket] = {}
        self._received: dict[int, bytes] = {}
        self._step: dict[int, int] = {}
        self._epoll = select.epoll()

    def __enter__(self) -> _Opening:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for connection in self._open.values():
            connection.close()
        self._epoll.close()

    def run(self, connections: int, seconds: float) -> Counted:
        """Do so, until the time is over; then finish those that are open."""
        used, start = time.process_time(), time.perf_counter()
        for _ in range(connections):
            self._begin()
        end, closed = start + seconds, 0
        while time.perf_counter() < end:
            done = self._go_on()
            closed += done
            for _ in range(done):
                self._begin()
        elapsed = time.perf_counter() - start
        busy = (time.process_time() - used) / elapsed
        while self._open:
            self._go_on()
        return Counted(closed / elapsed, closed + connections, busy)

    def _begin(self) -> None:
        # The system establishes it at once, without the server's doing.
        connection, request = _dial(self._url)
        connection.setblocking(False)
        connection.send(request)
        descriptor = connection.fileno()
        self._open[descriptor] = connection
        self._received[descriptor] = b""
        self._step[descriptor] = 0
        self._epoll.register(descriptor, select.EPOLLIN)

    def _go_on(self) -> int:
        closed = 0
        for descriptor, _ in self._epoll.poll(TIMEOUT) or _silence():
            received = self._open[descriptor].recv(4096)
            if not received:
                raise Unavailable("closed before its time")
            closed += self._take(descriptor, self._received[descriptor] + received)
        return closed

    def _take(self, descriptor: int, received: bytes) -> bool:
        step = self._step[descriptor]
        if not self._is_complete(step, received):
            self._received[descriptor] = received
            return False
        connection = self._open[descriptor]
        if step == len(self._sent):
            del self._open[descriptor]
            connection.close()
            return True
        connection.send(self._sent[step])
        self._received[descriptor] = b""
        self._step[descriptor] = step + 1
        return False

    def _is_complete(self, step: int, received: bytes) -> bool:
        if step == 0:
            complete = b"\r\n\r\n" in received
            if complete:
                _check(received)
            return complete
        if step == 1:
            if not self._echo.startswith(received):
                raise Unavailable(OTHER.format(MESSAGE))
            return received == self._echo
        if received[0] != CLOSE:
            raise Unavailable("sent something else than the end")
        return True

"""A client of many event streams: how late is each event?

Every event tells when it was sent, by the clock that all processes of the
machine share; what it took to be read is its delay. The streams are opened
evenly over one interval, so that their events do not come all at once.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from .servers import Unavailable

__all__ = ["Streams", "connect", "opened"]

# Seconds that a server may need for the head of a response.
TIMEOUT = 30.0
BUFFER = 2**16
EVENT = re.compile(rb"^data: ?([0-9.]+)\r?\n", re.MULTILINE)
# What is longer than any event, and may be its beginning.
TAIL = 64


class Streams:
    """Open event streams.

    Attributes:
        delays: seconds, of every event since they were last cleared.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connections: dict[int, socket.socket] = {}
        self._tails: dict[int, bytes] = {}
        self._epoll = select.epoll()
        self.delays: list[float] = []

    def open(self, number: int, seconds: float) -> None:
        """Open ``number`` of them within that time, and read meanwhile.

        Raises:
            Unavailable: the server refused one, or ended it.
            OSError: it was gone.
        """
        start = time.monotonic()
        for each in range(number):
            self._read_until(start + seconds * each / number)
            self._open()

    def _open(self) -> None:
        connection = _dial(self._url)
        connection.setblocking(False)
        descriptor = connection.fileno()
        self._connections[descriptor] = connection
        self._tails[descriptor] = b""
        self._epoll.register(descriptor, select.EPOLLIN)

    def read(self, seconds: float) -> None:
        """Read for that time, whatever comes.

        Raises:
            Unavailable: the server ended a stream.
        """
        self._read_until(time.monotonic() + seconds)

    def _read_until(self, deadline: float) -> None:
        while (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in self._epoll.poll(left):
                received = self._connections[descriptor].recv(BUFFER)
                if not received:
                    raise Unavailable("a stream ended")
                self._take(descriptor, self._tails[descriptor] + received)

    def _take(self, descriptor: int, received: bytes) -> None:
        now, end = time.monotonic(), 0
        for event in EVENT.finditer(received):
            self.delays.append(now - float(event[1]))
            end = event.end()
        self._tails[descriptor] = received[end:][-TAIL:]

    def close(self) -> None:
        """Leave, as a client does whose page is closed."""
        self._epoll.close()
        for connection in self._connections.values():
            connection.close()


def _dial(url: str) -> socket.socket:
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname, address.port), TIMEOUT)
    connection.sendall(
        f"GET {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        "Accept: text/event-stream\r\n\r\n".encode()
    )
    return connection


def connect(url: str) -> socket.socket:
    """A stream from ``url`` whose head has come; it blocks.

    Raises:
        Unavailable: the server refused it.
        OSError: it did not answer.
    """
    connection = _dial(url)
    answer = connection.recv(BUFFER)
    if not answer.startswith(b"HTTP/1.1 200 "):
        connection.close()
        raise Unavailable(f"answered {answer.partition(b' ')[2][:3].decode()}")
    return connection


@contextmanager
def opened(url: str, number: int, seconds: float) -> Iterator[Streams]:
    """Streams from ``url``, see :meth:`Streams.open`; closed at the end."""
    streams = Streams(url)
    try:
        streams.open(number, seconds)
        yield streams
    finally:
        streams.close()

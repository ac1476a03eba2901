"""WebSocket clients for tests: one that behaves, and one that need not.

:class:`Remote` is a real server as the behaviour suite sees it, with
websockets' client::

    async with remote.connect("/echo") as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"

:class:`Raw` is a TCP connection on which a test writes what it wants, frame by
frame.
"""

import asyncio
import base64
import http.client
import itertools
import json
import os
import re
import socket
import struct
import zlib
from contextlib import asynccontextmanager

from servers import DEADLINE
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

# The headers that ask for a WebSocket.
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}

OWN = object()

_keys = itertools.count()


class Refused(Exception):
    """The server answered the handshake with an HTTP response."""

    def __init__(self, answer):
        super().__init__(answer)
        self.status = answer.status
        self.headers = answer.headers
        self.body = answer.body


class Answer:
    """An HTTP response; ``headers`` are pairs, their names in lower case."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = lowered(headers)
        self.body = body.decode()

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body!r}"

    @property
    def json(self):
        """What the body of a successful answer says."""
        assert self.status == 200, self
        return json.loads(self.body)


class Served:
    """An application and its clients; what real servers and a test have in common.

    Attributes:
        kind: the name of the server.
        origin: of the application's own pages.
        prefix: the path that the application is at.
    """

    kind = origin = None
    prefix = ""

    def has(self, feature):
        """Whether the server has a feature of :mod:`runtimes`."""
        return True

    async def told(self, key, count=1):
        """What the application has told under ``key``, once that is ``count`` facts."""
        answer = await self.get(f"/told?key={key}&count={count}")
        return answer.json

    def prepare(self, path, headers, origin):
        """The key of a new client, its target, and the headers that it sends."""
        key = f"key{next(_keys)}"
        target = f"{self.prefix}{path}{'&' if '?' in path else '?'}key={key}"
        if origin is OWN:
            origin = self.origin
        if origin is not None:
            headers = [*headers, ("Origin", origin)]
        return key, target, list(headers)


class Remote(Served):
    """A :class:`servers.Server` of ``kind``."""

    def __init__(self, kind, server, prefix=""):
        self.kind = kind
        self.server = server
        self.prefix = prefix
        self.origin = f"http://127.0.0.1:{server.port}"

    @property
    def output(self):
        """What has been logged so far."""
        return self.server.output

    @asynccontextmanager
    async def connect(self, path, *, headers=(), origin=OWN, subprotocols=None):
        """A :class:`RemoteSocket`, closed at the end.

        Raises:
            Refused: the server answered something else than 101.
        """
        key, target, headers = self.prepare(path, headers, origin)
        opening = connect(
            f"ws://127.0.0.1:{self.server.port}{target}",
            additional_headers=headers,
            subprotocols=subprotocols,
            proxy=None,
            ping_interval=None,
            max_size=None,
            open_timeout=DEADLINE,
        )
        try:
            connection = await opening
        except InvalidStatus as error:
            raise Refused(answer_of(error.response)) from None
        async with connection:
            yield RemoteSocket(connection, key)

    async def get(self, path, headers=()):
        """The :class:`Answer` to a GET."""
        return await asyncio.to_thread(self.fetch, path, headers)

    def fetch(self, path, headers=(), method="GET", body=None):
        """As :meth:`get`, for a thread that has no loop, and with any method."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.server.port, timeout=DEADLINE
        )
        connection.request(method, self.prefix + path, body, dict(headers))
        response = connection.getresponse()
        received = response.read()
        connection.close()
        return Answer(response.status, response.getheaders(), received)


class RemoteSocket:
    """One WebSocket, from the side of the client.

    Attributes:
        key: under which the application tells about it.
        headers: of the response that accepted it.
    """

    def __init__(self, connection, key):
        self.key = key
        self._connection = connection
        self.headers = lowered(connection.response.headers.raw_items())
        self.subprotocol = connection.subprotocol

    async def send(self, message):
        await self._connection.send(message)

    async def recv(self):
        """The next message; None once it is closed."""
        try:
            return await self._connection.recv()
        except ConnectionClosed:
            return None

    async def close(self, code=1000, reason=""):
        """Close it; with a frame that has no code if that is None."""
        if code is None:
            protocol = self._connection.protocol
            protocol.send_close()
            self._connection.transport.write(b"".join(protocol.data_to_send()))
            await self._connection.wait_closed()
        else:
            closing = asyncio.create_task(self._connection.close(code, reason))
            # What the server still sends would keep its answer from coming.
            await self.closed()
            await closing

    async def vanish(self):
        """Cut the connection."""
        self._connection.transport.abort()
        await self._connection.wait_closed()

    async def closed(self):
        """Code and reason, once it is closed; drops what comes before."""
        while await self.recv() is not None:
            pass
        await self._connection.wait_closed()
        return self._connection.close_code, self._connection.close_reason


def answer_of(response):
    return Answer(
        response.status_code, response.headers.raw_items(), response.body or b""
    )


def lowered(headers):
    return [(name.lower(), value) for name, value in headers]


def values(headers, name):
    """The values of all headers of a name, in order."""
    return [value for each, value in headers if each == name]


# Bytes on a connection.


def frame(opcode, payload=b"", *, fin=True, rsv=0, masked=True, length=None):
    """A frame of a client (RFC 6455 section 5.2).

    Args:
        rsv: the three reserved bits, as a number.
        masked: False: as only a server may send it.
        length: what it says of its length; by default the truth.
    """
    length = len(payload) if length is None else length
    first = fin << 7 | rsv << 4 | opcode
    bit = masked << 7
    if length < 126:
        head = struct.pack("!BB", first, bit | length)
    elif length < 65_536:
        head = struct.pack("!BBH", first, bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, bit | 127, length)
    # A mask of zeros leaves the payload as it is.
    return head + (b"\0\0\0\0" if masked else b"") + payload


def close_frame(code, reason=b""):
    """A close frame of a client, with any code."""
    return frame(CLOSE, struct.pack("!H", code) + reason)


def deflated(data):
    """``data`` as permessage-deflate sends it (RFC 7692 section 7.2.1)."""
    compressor = zlib.compressobj(wbits=-12)
    compressed = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return compressed.removesuffix(b"\x00\x00\xff\xff")


def handshake(path="/", headers=()):
    """The bytes that ask for a WebSocket; ``headers`` are lines."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


class Raw:
    """A connection that has asked for a WebSocket.

    Args:
        server: a :class:`servers.Server`.
        after: bytes that are sent together with the handshake.
        receive_buffer: of the socket, in bytes.

    Attributes:
        key: under which the application tells about it.
        head: the response to the handshake, without its body.
    """

    def __init__(
        self, server, path, headers=(), *, after=b"", receive_buffer=None, wait=True
    ):
        self.key = f"key{next(_keys)}"
        self._received = b""
        self.head = None
        if receive_buffer is None:
            self.socket = server.connect()
        else:
            self.socket = socket.socket()
            self.socket.settimeout(DEADLINE)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.socket.connect(("127.0.0.1", server.port))
        target = f"{path}{'&' if '?' in path else '?'}key={self.key}"
        self.send(handshake(target, headers) + after)
        if wait:
            self.read_head()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.socket.close()

    def read_head(self):
        """Wait for the response to the handshake."""
        while b"\r\n\r\n" not in self._received:
            assert self._receive(), self._received
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")

    @property
    def status(self):
        return int(re.match(r"HTTP/1\.1 (\d+)", self.head)[1])

    def send(self, *data):
        """Send in one piece."""
        self.socket.sendall(b"".join(data))

    def fill(self, data, limit):
        """Send ``data`` again and again, until nothing is taken for a while.

        Gives how many bytes were taken; fails if that is over ``limit``.
        """
        self.socket.settimeout(0.3)
        sent = 0
        try:
            while sent < limit:
                sent += self.socket.send(data[sent % len(data) :])
        except TimeoutError:
            return sent
        finally:
            self.socket.settimeout(DEADLINE)
        raise AssertionError(f"the server took {sent} bytes that nobody reads")

    def read(self):
        """The next frame, (opcode, payload); None at the end of the connection."""
        head = self._take(2)
        if head is None:
            return None
        opcode, length = head[0] & 15, head[1]
        if length == 126:
            (length,) = struct.unpack("!H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._take(8))
        return opcode, self._take(length)

    def message(self):
        """The payload of the next frame that is no ping."""
        while (found := self.read()) and found[0] == PING:
            pass
        return found and found[1]

    def end(self):
        """Code and reason of the server's close frame, after which nothing comes."""
        found = self.read()
        while found is not None and found[0] != CLOSE:
            found = self.read()
        assert found is not None, "the connection ended without a close frame"
        assert self.read() is None
        return struct.unpack("!H", found[1][:2])[0], found[1][2:].decode()

    def reset(self):
        """Close with RST instead of FIN."""
        linger = struct.pack("ii", 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()

    def close(self):
        """Close with FIN."""
        self.socket.close()

    def _take(self, count):
        while len(self._received) < count:
            if not self._receive():
                assert not self._received, self._received
                return None
        taken, self._received = self._received[:count], self._received[count:]
        return taken

    def _receive(self):
        try:
            data = self.socket.recv(1_048_576)
        except ConnectionResetError:
            return b""
        self._received += data
        return data

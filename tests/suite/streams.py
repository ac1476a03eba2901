"""Event streams from the side of the client, of a server or of this process.

::

    stream = remote.open("/ticks?key=k1")
    stream.until("data: 1").close()
"""

import asyncio
import contextlib
import http.client
import json
import re
import select
import socket
import struct
import threading
from contextlib import contextmanager

from asgi import Client
from servers import DEADLINE

# Seconds in which a server would have answered if it had anybody to do so.
UNANSWERED = 0.5


class Stream:
    """A stream from a server, over a socket.

    Attributes:
        status: of the response.
        headers: of it, by name in lower case.
        text: what was received of the body.
    """

    def __init__(self, server, path, method="GET", headers=(), small=False):
        self._socket = socket.socket()
        if small:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(DEADLINE)
        self._socket.connect(("127.0.0.1", server.port))
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._response = http.client.HTTPResponse(self._socket, method=method)
        self.text = ""
        self.is_cut = False

    def receive_head(self):
        self._response.begin()
        self.status = self._response.status
        self.headers = {
            name.lower(): value for name, value in self._response.getheaders()
        }
        return self

    def is_answered(self, timeout):
        """Whether anything comes within ``timeout`` seconds."""
        return bool(select.select([self._socket], [], [], timeout)[0])

    def until(self, pattern):
        """Receive until a regular expression is found in :attr:`text`."""
        while not re.search(pattern, self.text):
            assert self._receive(), (pattern, self.text)
        return self

    def until_end(self):
        """Receive until the end; :attr:`is_cut`: there was none."""
        while self._receive():
            pass
        return self

    def _receive(self):
        try:
            part = self._response.read1(65_536)
        except (http.client.IncompleteRead, ConnectionResetError):
            self.is_cut = True
            return False
        self.text += part.decode()
        return bool(part)

    def close(self, reset=False):
        if reset:
            linger = struct.pack("ii", 1, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._response.close()
        self._socket.close()


class Remote:
    """The streams of a :class:`servers.Server`, at the path ``prefix``."""

    def __init__(self, server, prefix=""):
        self.server = server
        self.port = server.port
        self._prefix = prefix

    @property
    def output(self):
        return self.server.output

    def open(self, path, method="GET", headers=(), small=False):
        stream = Stream(self.server, self._prefix + path, method, headers, small)
        return stream.receive_head()

    def begin(self, path, small=False, headers=()):
        """The same, without waiting for an answer."""
        return Stream(self.server, self._prefix + path, headers=headers, small=small)

    def ask(self, path):
        """The status and the text of a response that ends."""
        stream = self.open(path, headers=["Connection: close"]).until_end()
        stream.close()
        return stream.status, stream.text


class InProcessStream:
    """The same without a server."""

    is_cut = False

    def __init__(self, served, path, method, headers):
        path, _, query = path.partition("?")
        pairs = [each.partition(": ")[::2] for each in headers]
        self._loop = served.loop
        self._client = Client(
            path,
            method=method,
            query_string=query.encode(),
            headers=[(name.lower().encode(), value.encode()) for name, value in pairs],
        )
        self._expected = served.expected
        self._call = self._loop.submit(self._client.call(served.app))
        self._until(lambda: self._client.started)
        self.status = self._client.status
        self.headers = {
            name.decode(): value.decode() for name, value in self._client.headers
        }

    @property
    def text(self):
        return self._client.body.decode()

    def _until(self, condition):
        self._loop.submit(self._client.until(condition)).result(DEADLINE)

    def until(self, pattern):
        self._until(lambda: re.search(pattern, self.text))
        return self

    def until_end(self):
        try:
            self._call.result(DEADLINE)
        except self._expected:
            self.is_cut = True
        return self

    def close(self, reset=False):
        self._loop.call_soon(self._client.leave, reset)


class InProcess:
    """The streams of an ASGI application, on a :class:`Loop`.

    Args:
        expected: what the application raises on purpose.
    """

    output = ""

    def __init__(self, app, loop, expected):
        self.app = app
        self.loop = loop
        self.expected = expected

    def open(self, path, method="GET", headers=()):
        return InProcessStream(self, path, method, headers)

    def ask(self, path):
        stream = self.open(path).until_end()
        return stream.status, stream.text


class Loop:
    """An event loop that runs in a thread."""

    def __init__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def submit(self, coroutine):
        """Run a coroutine there; gives its ``concurrent.futures.Future``."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call_soon(self, function, *arguments):
        self._loop.call_soon_threadsafe(function, *arguments)

    @contextmanager
    def running(self):
        """Have it run meanwhile."""
        self._thread.start()
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


def assert_taken(served, key, count):
    """``count`` streams keep all others waiting, and one less does not."""
    names = [f"{key}-{number}" for number in range(count)]
    with contextlib.ExitStack() as stack:
        opened = [served.open(f"/mute?key={name}") for name in names]
        for stream in opened:
            stack.callback(stream.close)
            stream.until("^:\n\n")
        waiting = served.begin("/state", headers=["Connection: close"])
        stack.callback(waiting.close)
        assert not waiting.is_answered(UNANSWERED)
        opened[-1].close()
        waiting.receive_head().until_end()
        assert json.loads(waiting.text)["ended"][names[-1]] == 1

"""An ASGI server for WebSockets in a test: calls an application in process.

As ``asgi.py`` does for HTTP. It checks that the application keeps to the ASGI
specification, and has the interface of :class:`ws_client.Remote`.
"""

import asyncio
import logging
from contextlib import asynccontextmanager
from io import StringIO

from asgi import Client, make_scope
from ws_client import OWN, Answer, Refused, Served

HOST = "localhost:8000"


class InProcess(Served):
    """An ASGI application, called in process; keeps the log in a ``with``.

    Args:
        app: the application.
        extensions: what this server is able to do beside the usual.
    """

    kind = "in process"
    origin = f"http://{HOST}"

    def __init__(self, app, extensions=("websocket.http.response",)):
        self.app = app
        self._extensions = {each: {} for each in extensions}
        self._log = StringIO()
        self._handler = logging.StreamHandler(self._log)

    @property
    def output(self):
        """What has been logged so far."""
        return self._log.getvalue()

    def __enter__(self):
        logging.getLogger().addHandler(self._handler)
        return self

    def __exit__(self, *args):
        logging.getLogger().removeHandler(self._handler)

    @asynccontextmanager
    async def connect(self, path, *, headers=(), origin=OWN, subprotocols=None):
        """A :class:`Socket`, which has ended at the end."""
        key, target, headers = self.prepare(path, headers, origin)
        subprotocols = list(subprotocols or ())
        if subprotocols:
            headers.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
        scope = self._scope(target, headers)
        del scope["method"]
        scope.update(
            type="websocket",
            scheme="ws",
            subprotocols=subprotocols,
            extensions=self._extensions,
        )
        ws = Socket(self.app, scope, key)
        try:
            await ws.open()
            yield ws
        finally:
            await ws.finish()

    async def get(self, path, headers=()):
        """The :class:`ws_client.Answer` to a GET."""
        scope = self._scope(path, headers)
        client = Client(scope.pop("path"), **scope)
        await client.call(self.app)
        status, pairs, body = client.response
        return Answer(status, decoded(pairs), body)

    def _scope(self, target, headers):
        path, _, query = target.partition("?")
        headers = [(name.lower().encode(), each.encode()) for name, each in headers]
        if b"host" not in dict(headers):
            headers.insert(0, (b"host", HOST.encode()))
        return make_scope(path, query_string=query.encode(), headers=headers)


class Socket:
    """One WebSocket, from the side of the client and of its server.

    The interface is that of :class:`ws_client.RemoteSocket`.
    """

    subprotocol = headers = _code = None
    _reason = ""

    def __init__(self, app, scope, key):
        self.key = key
        self._app = app
        self._scope = scope
        self._incoming = asyncio.Queue()
        self._outgoing = asyncio.Queue()
        self._refusal = None
        self._receiving = False
        # The client has left: sending fails, as ASGI 2.4 wants it.
        self._has_left = False

    async def open(self):
        """Connect, and wait for the answer."""
        self._incoming.put_nowait({"type": "websocket.connect"})
        self._task = asyncio.create_task(self._call())
        message = await self._outgoing.get()
        if message is None:
            await self._task
            raise AssertionError("the application did not answer the handshake")
        if message["type"] == "websocket.close":
            raise Refused(Answer(403, [], b""))
        if message["type"] == "websocket.http.response.start":
            await self._refused(message)
        self.headers = decoded(message.get("headers", ()))
        self.subprotocol = message.get("subprotocol")
        assert self.subprotocol in (None, *self._scope["subprotocols"])

    async def _call(self):
        try:
            await self._app(self._scope, self._receive, self._send)
        finally:
            self._outgoing.put_nowait(None)

    async def _refused(self, start):
        body = b""
        more = True
        while more:
            message = await self._outgoing.get()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        raise Refused(Answer(start["status"], decoded(start["headers"]), body))

    async def finish(self):
        """Leave, if that is not done; an exception of the application is raised."""
        self._leave(1000, "")
        await self._task

    async def _receive(self):
        assert not self._receiving, "receive() was called while another one waits"
        self._receiving = True
        try:
            return await self._incoming.get()
        finally:
            self._receiving = False

    async def _send(self, message):
        if self._has_left:
            raise BrokenPipeError
        self._check(message)
        self._outgoing.put_nowait(message)
        if message["type"] == "websocket.close" and self.headers is not None:
            self._leave(message.get("code", 1000), message.get("reason") or "")
        # A server may let others run here.
        await asyncio.sleep(0)

    def _check(self, message):
        kind = message["type"].removeprefix("websocket.")
        if self.headers is not None:
            assert kind in ("send", "close"), message
        else:
            assert kind in ("accept", "close", "http.response.start") or (
                self._refusal == "start" and kind == "http.response.body"
            ), message
            for name, value in message.get("headers", ()):
                assert type(name) is type(value) is bytes, message
                assert name == name.lower() != b"sec-websocket-protocol", message
        if kind == "accept":
            self.headers = ()
        elif kind == "send":
            text, data = message.get("text"), message.get("bytes")
            assert (type(text), type(data)).count(type(None)) == 1, message
            assert type(text) is str or type(data) is bytes, message
        elif kind == "http.response.start":
            assert "websocket.http.response" in self._scope["extensions"]
            self._refusal = "start"

    def _leave(self, code, reason):
        if not self._has_left:
            self._has_left = True
            self._code = code
            self._reason = reason
            self._incoming.put_nowait(
                {"type": "websocket.disconnect", "code": code, "reason": reason}
            )

    async def send(self, message):
        name = "text" if type(message) is str else "bytes"
        self._incoming.put_nowait({"type": "websocket.receive", name: message})

    async def recv(self):
        """The next message; None once it is closed."""
        message = await self._outgoing.get()
        if message is None or message["type"] == "websocket.close":
            # The next one is told the same.
            self._outgoing.put_nowait(None)
            return None
        text = message.get("text")
        return message["bytes"] if text is None else text

    async def close(self, code=1000, reason=""):
        """Close it; without a code if that is None."""
        self._leave(1005 if code is None else code, reason)

    async def vanish(self):
        """Cut the connection."""
        self._leave(1006, "")

    async def closed(self):
        """Code and reason, once it is closed; drops what comes before."""
        while await self.recv() is not None:
            pass
        return self._code, self._reason


def decoded(headers):
    return [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in headers
    ]

"""An ASGI server in a test: calls an application in process, keeps what it sends.

A :class:`Client` is one request from the side of the server. It may leave,
refuse to read, and send its body bit by bit; it checks that the application
keeps to the ASGI specification::

    client = Client(method="POST", body=[b"a", b"b"])
    await client.call(app)
    assert client.response == (200, [(b"content-length", b"2")], b"ab")
"""

import asyncio


def make_scope(path="/", **others):
    """A scope of type ``http``, as a server on a socket makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogateescape"),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8000),
        **others,
    }


class Client:
    """One request.

    Args:
        body: the parts of the request's body; None: it has none.
        complete: False: the body goes on with :meth:`give`.
        others: parts of the scope. A body without a Content-Length in
            ``headers`` is chunked.

    Attributes:
        sent: the messages of the application.
        received: how many bytes of its body the application asked for.
        leaves: makes ``send`` fail, as servers do by ASGI 2.4, once it is True.
        reads: cleared, ``send`` blocks.
        is_sent_to: whether ``send`` has been called.
    """

    def __init__(self, path="/", body=None, complete=True, **others):
        self.scope = make_scope(path, **others)
        self._incoming = asyncio.Queue()
        self._set_body(body, complete)
        self.sent = []
        self.received = 0
        self.leaves = False
        self.reads = asyncio.Event()
        self.reads.set()
        self.is_sent_to = False
        self._changed = asyncio.Event()
        self._receiving = False

    def _set_body(self, body, complete):
        if body is None:
            self._incoming.put_nowait(request_part(b"", False))
            return
        names = {name for name, _ in self.scope["headers"]}
        if not names & {b"content-length", b"transfer-encoding"}:
            self.scope["headers"] = [
                *self.scope["headers"],
                (b"transfer-encoding", b"chunked"),
            ]
        for part in body:
            self.give(part)
        if complete:
            self.give(b"", more=False)

    def give(self, part, more=True):
        """Send a part of the body."""
        self._incoming.put_nowait(request_part(part, more))

    def leave(self, send_fails=False):
        """Close the connection; ``send_fails``: as ASGI 2.4 wants it."""
        self.leaves = send_fails
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def receive(self):
        assert not self._receiving, "receive() was called while another one waits"
        self._receiving = True
        try:
            message = await self._incoming.get()
        finally:
            self._receiving = False
        self.received += len(message.get("body", b""))
        return message

    async def send(self, message):
        check_message(message, self.sent)
        self.is_sent_to = True
        self._changed.set()
        await self.reads.wait()
        if self.leaves:
            raise BrokenPipeError
        self.sent.append(message)
        self._changed.set()

    async def call(self, app):
        """Call ``app`` with this request; gives this client."""
        await app(self.scope, self.receive, self.send)
        return self

    def start(self, app):
        """Call ``app`` in a Task of its own."""
        return asyncio.create_task(self.call(app))

    async def until(self, condition):
        """Return when ``condition()`` is true; asked after each message sent."""
        async with asyncio.timeout(10):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_body(self, expected):
        """Return when the body sent so far is ``expected``."""
        await self.until(lambda: self.body == expected)

    @property
    def started(self):
        """Whether the head of the response has been sent."""
        return bool(self.sent)

    @property
    def ended(self):
        """Whether the end of the response has been sent."""
        return self.started and self.sent[-1].get("more_body") is False

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def headers(self):
        return list(self.sent[0]["headers"])

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def parts(self):
        """The parts of the body, as they were sent, but the empty ones."""
        parts = [message.get("body", b"") for message in self.sent]
        return [part for part in parts if part]

    @property
    def response(self):
        """Status, headers and body of a response that has ended."""
        assert self.ended, self.sent
        return self.status, self.headers, self.body


def request_part(body, more):
    return {"type": "http.request", "body": body, "more_body": more}


def check_message(message, sent):
    """Assert that the application may send ``message`` after ``sent``."""
    if not sent:
        assert message["type"] == "http.response.start", message
        assert type(message["status"]) is int
        for name, value in message["headers"]:
            assert type(name) is bytes
            assert type(value) is bytes
            assert name == name.lower()
    else:
        assert message["type"] == "http.response.body", message
        assert type(message.get("body", b"")) is bytes, message
        assert not sent[1:] or sent[-1]["more_body"], "a message after the last one"
        message.setdefault("more_body", False)

"""An ASGI application that answers a WSGI request: for servers that have no ASGI.

Theory of operation
===================

The application runs in a Task of its own, on the loop that serves the process. The
request stays where it is, in a thread of the server's or in a greenlet, and asks the
loop for one :meth:`step <Conversation._step>` after the other: the next message that
the application has sent, or that it wants a part of the body. That is read where the
request is, for what a server has put into the environ may be used nowhere else; and a
blocking read blocks whom it should.

A message is taken when the server comes for it, and the application's ``send()``
returns when the server comes for the next one. So a slow client holds up the
application, and at most one part of the body is in memory.

When the response is complete the application may go on, with what it calls its
background tasks; when the server closes the body before, it is told
(``http.disconnect``), and cancelled :data:`GRACE` seconds later.

Things that do not work
=======================

* Reading ``wsgi.input`` in another thread while the request's own waits: uWSGI's may
  be used by its request only, and a read that nobody wants any more cannot be ended.
* An asynchronous generator as the body: one that has not begun has no ``finally`` to
  run, and the application would never hear of its client's end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from http.client import responses
from typing import Any, Final

from .. import background, bridge, threadlocal
from ..exceptions import ClientDisconnected, GatewayError
from ..threaded import CUT_OFF
from ..wsgi_response import CONNECTION_FIELDS, StartResponse

__all__ = ["Conversation", "converse"]

log = logging.getLogger("aioext")

# Seconds that an application may go on whose client has left.
GRACE = 3.0
# Bytes of a request's body that are read at once.
BLOCK = 65_536

# A step: the application wants a part of the request's body.
READ: Final = object()

START = "http.response.start"
BODY = "http.response.body"
DISCONNECT = {"type": "http.disconnect"}


def converse(
    app: Any,
    scope: dict[str, Any],
    environ: dict[str, Any],
    start_response: Callable[..., Any],
    tasks: set[asyncio.Task[None]],
) -> Conversation:
    """Have the ASGI application ``app`` answer; gives the body.

    Args:
        app: the ASGI application.
        scope: for it.
        environ: of the request.
        start_response: of the server; it is called before this returns.
        tasks: where the application's Task is kept while it runs.

    Raises:
        Exception: what the application raised before it answered.
        GatewayError: it has not answered, or with what cannot be sent.

    Cancellation: the application is told that its client has left.
    """
    conversation = Conversation(app, scope, RequestBody(environ), tasks)
    try:
        message = conversation.next_message()
        status = message["status"]
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in message.get("headers", ())
        ]
        # ASGI has the server ignore them, and WSGI forbids them.
        headers = [each for each in headers if each[0].lower() not in CONNECTION_FIELDS]
        line = f"{status} {responses.get(status, 'Status')}"
        # The server may or may not look for what cannot be sent.
        check = StartResponse(scope["method"])
        check(line, headers)
        conversation.omits_body = check.omits_body
        start_response(line, headers)
    except BaseException:
        conversation.close()
        raise
    return conversation


class RequestBody:
    """The body of a request, as far as the environ says that there is one.

    Attributes:
        is_complete: whether there is nothing left to read.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        self._input = environ["wsgi.input"]
        length = environ.get("CONTENT_LENGTH") or ""
        # To read beyond the length would wait for ever, on some servers.
        self._left: int | None = 0
        if length.isascii() and length.isdigit():
            # Python converts no more digits than there are in here.
            self._left = int(length[:18])
        elif environ.get("wsgi.input_terminated"):
            self._left = None
        self.is_complete = self._left == 0

    def read(self) -> dict[str, Any]:
        """The next part of it, as the message that an application receives."""
        size = BLOCK if self._left is None else min(self._left, BLOCK)
        data = self._input.read(size)
        if self._left is None:
            self.is_complete = not data
        elif not data:
            # The client has left.
            self.is_complete = True
            return DISCONNECT
        else:
            self._left -= len(data)
            self.is_complete = self._left == 0
        return _request(data, not self.is_complete)


def _request(data: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


class Conversation:
    """One request and its response; the body of the response.

    To be iterated over, and closed, where the request is.

    Attributes:
        omits_body: whether the response has no body, whatever the application sends.
    """

    omits_body = False

    def __init__(
        self,
        app: Any,
        scope: dict[str, Any],
        body: RequestBody,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self._app = app
        self._scope = scope
        self._body = body
        self._tasks = tasks
        # What the server gets next, if it is there already.
        self._expected = START
        # The following is used on the loop only.
        self._task: asyncio.Task[None] | None = None
        self._news: asyncio.Future[None] | None = None
        self._message: dict[str, Any] | None = None
        self._taken: asyncio.Future[None] | None = None
        # A receive() that waits, and what there is for the next one.
        self._receiving: asyncio.Future[Any] | None = None
        self._ahead = _request(b"", False) if body.is_complete else None
        self._to_send = START
        self._has_left = False

    # Where the request is

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while self._expected == BODY:
            message = self._next_part()
            chunk = message.get("body", b"")
            if self.omits_body or not message.get("more_body", False):
                self._expected = ""
            if chunk and not self.omits_body:
                return bytes(chunk)
        raise StopIteration

    def _next_part(self) -> dict[str, Any]:
        try:
            return self.next_message()
        except asyncio.CancelledError:
            if bridge.in_bridge() or not background.is_ending():
                raise
            raise ClientDisconnected(CUT_OFF) from None

    def next_message(self) -> dict[str, Any]:
        """The next message of the application's; waits for it."""
        part = None
        while True:
            message = bridge.wait(self._step(part))
            if message is not READ:
                self._expected = BODY
                return message
            part = self._body.read()

    def close(self) -> None:
        """The server needs no more of the body."""
        bridge.wait(self._leave())

    # On the loop

    async def _step(self, part: Any) -> Any:
        loop = asyncio.get_running_loop()
        if self._task is None:
            # Nothing of what is around it is the application's.
            context = threadlocal.isolated()
            self._task = loop.create_task(self._run(), context=context)
            self._tasks.add(self._task)
            self._task.add_done_callback(self._ended)
        if part is not None:
            self._give(part)
        _resolve(self._taken)
        while True:
            if self._message is not None:
                message, self._message = self._message, None
                return message
            if self._task.done():
                return self._result_of(self._task)
            if self._wants_part:
                return READ
            self._news = loop.create_future()
            await self._news

    async def _run(self) -> None:
        await self._app(self._scope, self._receive, self._send)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        _resolve(self._news)
        if task.cancelled() or task.exception() is None:
            return
        if self._is_answered or self._has_left:
            log.error(FAILED_LATER, self._app, exc_info=task.exception())

    def _result_of(self, task: asyncio.Task[None]) -> Any:
        if not task.cancelled():
            task.result()
        raise GatewayError(NOT_ANSWERED.format(self._app))

    @property
    def _wants_part(self) -> bool:
        receiving = self._receiving
        if receiving is None or receiving.done():
            return False
        return not self._body.is_complete

    @property
    def _is_answered(self) -> bool:
        return self._to_send == ""

    def _give(self, part: Any) -> None:
        # Who has asked for it may have been cancelled meanwhile.
        if not _resolve(self._receiving, part):
            self._ahead = part

    async def _receive(self) -> Any:
        if self._ahead is not None:
            message, self._ahead = self._ahead, None
            return message
        if self._has_left or self._is_answered:
            return DISCONNECT
        self._receiving = asyncio.get_running_loop().create_future()
        _resolve(self._news)
        return await self._receiving

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] != self._to_send:
            raise RuntimeError(UNEXPECTED.format(message["type"], self._to_send))
        is_last = message["type"] == BODY and not message.get("more_body", False)
        self._to_send = "" if is_last else BODY
        if is_last:
            _resolve(self._receiving, DISCONNECT)
        if self._has_left:
            return
        self._message = message
        _resolve(self._news)
        if not is_last:
            self._taken = asyncio.get_running_loop().create_future()
            await self._taken

    async def _leave(self) -> None:
        task = self._task
        if task is None or self._has_left:
            return
        self._has_left = True
        self._message = None
        _resolve(self._taken)
        _resolve(self._receiving, DISCONNECT)
        if not self._is_answered and not task.done():
            # It may go on for good, and the server's thread is not to wait for it.
            ending = asyncio.get_running_loop().call_later(GRACE, task.cancel)
            task.add_done_callback(lambda task: ending.cancel())


def _resolve(future: asyncio.Future[Any] | None, value: Any = None) -> bool:
    # Whether somebody waited for it.
    if future is None or future.done():
        return False
    future.set_result(value)
    return True


NOT_ANSWERED = """\
The ASGI application {!r} returned and had not sent a complete response. It has to \
send http.response.start, and http.response.body until one has no more_body."""

UNEXPECTED = """\
The application sent a message of type {!r}, where {!r} is expected."""

FAILED_LATER = "aioext: the ASGI application %r failed after its response was over"

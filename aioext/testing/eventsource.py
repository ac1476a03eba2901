"""An event stream as a test has it: a client that takes one event at a time.

:class:`Stream` plays the server, by the "HTTP" section of the ASGI specification.
It holds one part of the body: the application can send the next one when the test
has taken that, so that it runs ahead of the test by no more than it would ahead of
a client that reads as slowly. :class:`TestEventSource` is the client.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Any

from webtest import AppError, TestResponse

from .eventstream import EventStreamParser, ServerEvent
from .serving import END, ASGIApplication, Message, Serving, wait
from .session import Session

__all__ = ["Stream", "TestEventSource"]

EVENT_STREAM = b"text/event-stream"

# One part of the body, of whatever size.
LIMIT = 1


class Stream(Serving):
    """One scope of type ``http``, for a request without a body.

    Attributes:
        is_events: whether the answer is an event stream.
        parser: knows what has come.
        taken: how many events the test has taken, and the last of them.
    """

    is_events = False
    taken = 0
    last_taken: ServerEvent | None = None

    def __init__(self, app: ASGIApplication, name: str, timeout: float) -> None:
        super().__init__(app, name, timeout, LIMIT)
        self.parser = EventStreamParser()
        self._events: deque[ServerEvent] = deque()
        self._head: tuple[int, Any] | None = None
        self._body = b""
        self._is_asked = False
        self._is_complete = False
        self._gone = asyncio.Event()

    async def _receive(self) -> Message:
        if not self._is_asked:
            self._is_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        # An application that asks again and again must not hold up the loop.
        await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self._gone.is_set():
            raise BrokenPipeError(f"{self.name}: the client has gone")
        if kind == "http.response.start" and self._head is None:
            self._start(message)
        elif kind == "http.response.body" and self._head and not self._is_complete:
            await self._take_body(message)
        else:
            raise AssertionError(UNEXPECTED.format(kind, self.name))

    def _start(self, message: Message) -> None:
        status, headers = message["status"], list(message.get("headers", ()))
        self._head = status, headers
        self.is_events = status == 200 and any(
            name.lower() == b"content-type"
            and value.partition(b";")[0].strip().lower() == EVENT_STREAM
            for name, value in headers
        )
        if self.is_events:
            self._tell(b"")

    async def _take_body(self, message: Message) -> None:
        body = message.get("body", b"")
        if not self.is_events:
            self._body += body
        elif body:
            await self._pipe.put(body, len(body))
        if not message.get("more_body", False):
            self._is_complete = True
            self._pipe.end()
            if not self.is_events:
                self._tell(self._body)

    def _tell(self, body: bytes) -> None:
        assert self._head is not None
        if not self._answer.done():
            self._answer.set_result((*self._head, body))

    def leave(self) -> None:
        """The client goes."""
        self._gone.set()
        self._pipe.break_()

    async def disconnect(self) -> None:
        """:meth:`leave`, from the test."""
        self.check_loop()
        self.leave()

    async def next(self, timeout: float | None) -> ServerEvent | None:
        """The next event; None after the last."""
        event = await self.limited(self._next, timeout, "event")
        if event is None:
            self.raise_failure()
            return None
        self.taken += 1
        self.last_taken = event
        return event

    async def _next(self) -> ServerEvent | None:
        while not self._events:
            chunk = await self._pipe.get()
            if chunk is END:
                return None
            self._events += self.parser.feed(chunk)
        return self._events.popleft()

    def describe(self) -> str:
        """What was received."""
        if self.last_taken is None:
            told = "Received: no events"
        else:
            told = f"Received: {self.taken}, the last was {self.last_taken}"
        return f"{told}; {len(self.parser.comments)} comments."


class TestEventSource(Session):
    """An event stream that a test has opened.

    ::

        with app.eventsource("/ticks") as ticks:
            assert ticks.next().data == "1"

    The application goes on when an event was taken, and no further than a client
    lets it that does not read: one part of the body waits for the test.

    The end of the ``with`` block disconnects, waits until the application has
    ended the stream (``finally`` included), cancels what has not ended after a
    second, and raises what went wrong. If the block failed itself, that stands in
    the notes of its error.

    Attributes:
        response: the head of the response, as WebTest's ``TestResponse``; all of
            it, if it is no event stream.
    """

    _serving: Stream

    @property
    def status(self) -> str:
        """The status line, ``200 OK`` for a stream."""
        return self.response.status

    @property
    def last_event_id(self) -> str | None:
        """What a browser would come back with."""
        return self._serving.parser.last_event_id

    @property
    def retry(self) -> float | None:
        """The seconds after which a browser would come back, if it was told."""
        return self._serving.parser.retry

    @property
    def comments(self) -> list[str]:
        """The comments so far: heartbeats, for example."""
        return list(self._serving.parser.comments)

    def next(self, timeout: float | None = None) -> ServerEvent | None:
        """The next event; None once the stream has ended.

        Args:
            timeout: seconds; by default the stream's. Comments do not prolong it.

        Raises:
            TimeoutError: no event came in time.
            BaseException: the application raised it, and so ended the stream.
        """
        return wait(self._serving.next, timeout)

    def disconnect(self) -> None:
        """Go away, as a browser whose page is closed."""
        wait(self._serving.disconnect)

    def __iter__(self) -> Iterator[ServerEvent]:
        """The events until the stream ends."""
        while (event := self.next()) is not None:
            yield event


def check_is_events(serving: Stream, response: TestResponse) -> None:
    """Raise WebTest's ``AppError`` for a page that is no event stream."""
    if response.status_int == 200 and not serving.is_events:
        raise AppError(NO_STREAM, response.request.url, response.content_type, response)


UNEXPECTED = """\
The application sent {!r} for {}, which is not its turn. An ASGI application sends \
the start of a response once, then its body, and nothing after the last part."""

NO_STREAM = """\
%s gave a page of type %r, and no event stream. Use TestApp.get() for it, or have \
the view be served by mapper=EventSourceMapper.\n%s"""

"""The text of an event stream, taken apart as a browser does it: pure data, no I/O.

By the section "Server-sent events" of the WHATWG's HTML standard ("Parsing an
event stream", "Interpreting an event stream"): what a browser would not
dispatch is no event here either. A block without ``data`` is none, an ``id``
with a NUL is ignored, and what comes after the last empty line is discarded.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from typing import Any

__all__ = ["EventStreamParser", "ServerEvent"]


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event, as the page would get it.

    Attributes:
        data: its text; lines are separated by ``\\n``.
        event: its type; ``message`` unless the server named it.
        id: what the browser would come back with: the id of this event, or of
            the last one before that had one; None if none had.
        retry: seconds after which the browser is to reconnect, if the event
            says so.
        comments: the comments since the event before; heartbeats, for example.
    """

    data: str
    event: str = "message"
    id: str | None = None
    retry: float | None = None
    comments: tuple[str, ...] = ()

    @property
    def json(self) -> Any:
        """The data, parsed as JSON.

        Raises:
            ValueError: it is no JSON.
        """
        return json.loads(self.data)


class EventStreamParser:
    """Makes events of bytes, however those are cut.

    Attributes:
        last_event_id: what a browser would come back with; None: nothing.
        retry: after how many seconds it would; None: the server has not said.
        comments: all comments so far.
    """

    last_event_id: str | None = None
    retry: float | None = None

    def __init__(self) -> None:
        self.comments: list[str] = []
        # A byte order mark is dropped, at the beginning only.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._line = ""
        self._ended_with_cr = False
        self._id = ""
        # How many of the comments have been given with an event.
        self._given = 0
        self._start_block()

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that ``chunk`` completes."""
        events = (self._take(line) for line in self._lines(chunk))
        return [event for event in events if event is not None]

    def _lines(self, chunk: bytes) -> list[str]:
        text = self._decoder.decode(chunk)
        if not text:
            return []
        # A CR ends its line at once; an LF that follows belongs to it.
        if self._ended_with_cr:
            text = text.removeprefix("\n")
        self._ended_with_cr = text.endswith("\r")
        *lines, self._line = _LINE_END.split(self._line + text)
        return lines

    def _start_block(self) -> None:
        self._data: list[str] = []
        self._event = ""
        self._block_retry: float | None = None

    def _take(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.comments.append(value)
        elif name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = self._block_retry = int(value) / 1000
        return None

    def _dispatch(self) -> ServerEvent | None:
        event = None
        self.last_event_id = self._id or None
        if self._data:
            event = ServerEvent(
                data="\n".join(self._data),
                event=self._event or "message",
                id=self.last_event_id,
                retry=self._block_retry,
                comments=tuple(self.comments[self._given :]),
            )
            self._given = len(self.comments)
        self._start_block()
        return event


_LINE_END = re.compile("\r\n|\r|\n")

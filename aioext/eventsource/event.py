"""Server-sent events as bytes: pure data, no I/O.

By the section "Server-sent events" of the WHATWG's HTML standard. A field is a
line; an empty line ends an event. Three ends of a line are known to a browser,
and no others: a form feed or U+2028 in a text is a part of it.

What a browser would silently drop or take for something else is refused where
it is written: a line that ends within ``event`` or ``id``, an ``id`` with a NUL,
a named event without data.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from ..exceptions import explain

__all__ = ["HEARTBEAT", "Event", "Retry", "encode"]

Dumps = Callable[[Any], str]

# A comment and an empty line: nothing that a page gets to see.
HEARTBEAT = b":\n\n"

_LINE_END = re.compile("\r\n|\r|\n")
_REFUSED = re.compile("[\r\n\0]")


class Event:
    """One event of a stream; not to be changed once it is made.

    Args:
        data: what the page gets as ``event.data``. A str is sent as it is, with
            its ends of line as LF; anything else as JSON, by the application's
            renderer ``json``. None: nothing, which sets an id or a retry and
            is no event to the page.
        event: its type, to which the page listens; None is ``message``.
        id: what the client tells when it comes back, in ``Last-Event-ID``. ""
            makes it forget the last one.
        retry: seconds after which the client is to come back when the stream
            has ended.
        comment: text that the page does not see.
        name: another name of ``event``.

    Raises:
        ValueError: ``event`` or ``id`` has a CR, LF or NUL; ``retry`` is no
            time; there is a type but no data, or nothing at all.
    """

    __slots__ = ("comment", "data", "event", "id", "retry")

    def __init__(
        self,
        data: Any = None,
        *,
        event: str | None = None,
        id: str | int | None = None,  # noqa: A002 - as the field is called
        retry: float | None = None,
        comment: str | None = None,
        name: str | None = None,
    ) -> None:
        if name is not None:
            if event is not None:
                raise TypeError(explain(BOTH_NAMES, ANCHOR))
            event = name
        if type(id) is int:
            id = str(id)  # noqa: A001
        self.data = data
        self.event = None if event is None else _line("event", event)
        self.id = None if id is None else _line("id", id)
        self.retry = None if retry is None else _seconds(retry)
        self.comment = None if comment is None else _text("comment", comment)
        if data is None:
            self._check_without_data()

    def _check_without_data(self) -> None:
        if self.event is not None:
            raise ValueError(explain(NO_DATA.format(self.event), ANCHOR))
        if self.id is self.retry is self.comment is None:
            raise ValueError(explain(NOTHING, ANCHOR))

    def with_id(self, id: str) -> Event:  # noqa: A002 - as the field is called
        """The same event with another ``id``, which is taken as it is."""
        other = Event.__new__(Event)
        other.data = self.data
        other.event = self.event
        other.id = id
        other.retry = self.retry
        other.comment = self.comment
        return other

    def _key(self) -> tuple[Any, ...]:
        return (self.data, self.event, self.id, self.retry, self.comment)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Event) else False

    __hash__ = None  # type: ignore[assignment] - its data may be a dict

    def __repr__(self) -> str:
        given = [f"{name}={getattr(self, name)!r}" for name in FIELDS]
        return f"Event({self.data!r}, {', '.join(given)})"


FIELDS = ("event", "id", "retry", "comment")


class Retry(Event):
    """Has the client come back after so many seconds once the stream has ended.

    Args:
        seconds: to the millisecond.
    """

    __slots__ = ()

    def __init__(self, seconds: float) -> None:
        super().__init__(retry=seconds)


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(explain(NO_TEXT.format(field, value), ANCHOR))
    return value


def _line(field: str, value: Any) -> str:
    if _REFUSED.search(_text(field, value)):
        raise ValueError(explain(CONTROL.format(field, value), ANCHOR))
    return value


def _seconds(value: Any) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(explain(NO_TIME.format(value), ANCHOR))
    return value


def encode(item: Any, dumps: Dumps = json.dumps) -> bytes:
    """The bytes of what a stream yields.

    Args:
        item: an :class:`Event`, or the data of one.
        dumps: makes JSON of data that is not text.

    Raises:
        TypeError: it is None or bytes, or ``dumps`` cannot make JSON of it.
        UnicodeEncodeError: it has a lone surrogate, which no UTF-8 can say.
    """
    if not isinstance(item, Event):
        if item is None:
            raise TypeError("None is no event")
        text = f"data: {text_of(item, dumps)}\n\n"
        # Two lines of ours make two ends; more stand in the text.
        if text.count("\n") == 2 and "\r" not in text:
            return text.encode()
        return _encode(Event(item), dumps)
    return _encode(item, dumps)


def text_of(data: Any, dumps: Dumps = json.dumps) -> str:
    """The text that is sent for the data of an event."""
    if isinstance(data, str):
        return data
    if isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError("bytes are no text: decode them")
    text = dumps(data)
    return text if isinstance(text, str) else text.decode()


def _encode(event: Event, dumps: Dumps) -> bytes:
    lines = []
    if event.comment is not None:
        lines += [f": {line}" for line in _LINE_END.split(event.comment)]
    if event.event is not None:
        lines.append(f"event: {event.event}")
    if event.id is not None:
        lines.append(f"id: {event.id}")
    if event.retry is not None:
        lines.append(f"retry: {round(event.retry * 1000)}")
    if event.data is not None:
        text = text_of(event.data, dumps)
        lines += [f"data: {line}" for line in _LINE_END.split(text)]
    return "\n".join([*lines, "", ""]).encode()


ANCHOR = "event-stream"

BOTH_NAMES = (
    "Event() takes the type as event=, or by its other name as name=, not both."
)

NO_DATA = """\
An Event of type {0!r} without data is one that no browser dispatches. For one with \
empty data write Event("", event={0!r})."""

NOTHING = """\
Event() has nothing in it. Give it data, or one of id=, retry= and comment=."""

NO_TEXT = "Event() takes a str as {}=, got {!r}."

CONTROL = """\
Event() got {}={!r}: a CR or LF in it would begin another field, and for a NUL a \
browser ignores it. Take them out, or put the text into the data, which may have \
several lines."""

NO_TIME = "A time to retry is a number of seconds, 0 or more; got {!r}."

"""Event streams taken apart: what a browser would make of the bytes."""

import codecs

import pytest

from aioext.testing.eventstream import EventStreamParser, ServerEvent

STREAM = (
    "retry: 2500\n\n"
    ": hello\n"
    "data: one\n\n"
    'event: tick\r\nid: 7\r\ndata: {"a": "é"}\r\n\r\n'
    ":\r: again\rdata: two\rdata:  lines\r\r"
    "id\ndata\n\n"
)
EVENTS = [
    ServerEvent("one", comments=("hello",)),
    ServerEvent('{"a": "é"}', "tick", "7"),
    ServerEvent("two\n lines", id="7", comments=("", "again")),
    ServerEvent(""),
]


def parse(text, size=None):
    """The events of a text, fed in pieces of ``size`` bytes."""
    data = text if isinstance(text, bytes) else text.encode()
    parser = EventStreamParser()
    size = size or len(data) or 1
    events = []
    for start in range(0, len(data), size):
        events += parser.feed(data[start : start + size])
    return events


@pytest.mark.parametrize("size", [None, 1, 2, 3, 5, 7])
def test_a_stream_is_the_same_however_it_is_cut(size):
    assert parse(STREAM, size) == EVENTS


def test_data_may_be_taken_as_json():
    assert EVENTS[1].json == {"a": "é"}
    with pytest.raises(ValueError, match="Expecting value"):
        _ = EVENTS[0].json


SECOND_EXAMPLE = """\
: test stream

data: first event
id: 1

data:second event
id

data:  third event

"""


@pytest.mark.parametrize(
    ("text", "events"),
    [
        # The examples of the standard, section "Interpreting an event stream".
        ("data: YHOO\ndata: +2\ndata: 10\n\n", [ServerEvent("YHOO\n+2\n10")]),
        (
            SECOND_EXAMPLE,
            [
                ServerEvent("first event", id="1", comments=("test stream",)),
                ServerEvent("second event"),
                ServerEvent(" third event"),
            ],
        ),
        ("data\n\ndata\ndata\n\ndata:", [ServerEvent(""), ServerEvent("\n")]),
        ("data:test\n\ndata: test\n\n", [ServerEvent("test")] * 2),
    ],
)
def test_the_examples_of_the_standard(text, events):
    assert parse(text) == events


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n\n",
        "event: lonely\n\n",
        "id: 1\n\n",
        ": comment\n\n",
        "unknown: field\n\n",
        "Data: names are lower case\n\n",
        " data: no space before\n\n",
        "data: not complete\n",
    ],
)
def test_what_a_browser_would_not_dispatch_is_no_event(text):
    assert parse(text) == []


def test_the_name_of_an_event_without_data_is_not_given_to_the_next():
    assert parse("event: a\n\ndata: x\n\n") == [ServerEvent("x")]


def test_an_id_holds_until_there_is_another():
    events = parse("id: 1\n\ndata: a\n\nid: a\0b\ndata: b\n\nid:\ndata: c\n\n")
    assert [event.id for event in events] == ["1", "1", None]


def test_the_last_id_is_that_of_a_block_that_is_complete():
    parser = EventStreamParser()
    assert parser.last_event_id is None
    parser.feed(b"id: 1\n\nid: 2\n")
    assert parser.last_event_id == "1"
    parser.feed(b"\n")
    assert parser.last_event_id == "2"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("1500", 1.5), ("0", 0), ("1.5", None), ("-1", None), ("", None), ("²", None)],
)
def test_retry_is_digits_that_are_milliseconds(value, seconds):
    parser = EventStreamParser()
    (event,) = parser.feed(f"retry: {value}\ndata: x\n\n".encode())
    assert event.retry == parser.retry == seconds
    (event,) = parser.feed(b"data: x\n\n")
    assert event.retry is None
    assert parser.retry == seconds


def test_an_event_is_there_with_the_last_byte_of_its_empty_line():
    parser = EventStreamParser()
    assert parser.feed(b"data: x\r\n") == []
    assert parser.feed(b"\r") == [ServerEvent("x")]
    # The second half of the line end is no line of its own.
    assert parser.feed(b"\n") == []
    assert parser.feed(b"data: y\n\n") == [ServerEvent("y")]


def test_a_byte_order_mark_is_dropped_at_the_beginning_only():
    mark = codecs.BOM_UTF8
    first, second = parse(mark + b"data: x\n\ndata: " + mark + b"\n\n", size=1)
    assert (first.data, second.data) == ("x", "\ufeff")


def test_bytes_that_are_no_utf8_are_replaced():
    assert parse(b"data: \xff\n\n") == [ServerEvent("\ufffd")]

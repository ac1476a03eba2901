"""Events as bytes: what a browser makes of them, and what is refused."""

import json

import pytest

from aioext.eventsource import Event, Retry
from aioext.eventsource.event import HEARTBEAT, encode


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("text", b"data: text\n\n"),
        ("", b"data: \n\n"),
        (" space", b"data:  space\n\n"),
        (5, b"data: 5\n\n"),
        (1.5, b"data: 1.5\n\n"),
        (True, b"data: true\n\n"),
        ({"a": [1, None]}, b'data: {"a": [1, null]}\n\n'),
        ([], b"data: []\n\n"),
        ("\xe9\u20ac", b"data: \xc3\xa9\xe2\x82\xac\n\n"),
        (Event("x"), b"data: x\n\n"),
        (Event({"a": 1}), b'data: {"a": 1}\n\n'),
        (Event("", event="done"), b"event: done\ndata: \n\n"),
        (Event("x", event="tick", id=7), b"event: tick\nid: 7\ndata: x\n\n"),
        (Event("x", name="tick"), b"event: tick\ndata: x\n\n"),
        (Event(id="a-1"), b"id: a-1\n\n"),
        (Event("x", id=""), b"id: \ndata: x\n\n"),
        (Event("x", id=0), b"id: 0\ndata: x\n\n"),
        (Event("x", retry=1.2345), b"retry: 1234\ndata: x\n\n"),
        (Event("x", comment="why"), b": why\ndata: x\n\n"),
        (Event(comment="one\ntwo"), b": one\n: two\n\n"),
        (Retry(3), b"retry: 3000\n\n"),
        (Retry(0), b"retry: 0\n\n"),
    ],
)
def test_what_is_sent(item, expected):
    assert encode(item) == expected


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("wrap", [str, Event])
def test_lines_of_data_are_fields_of_their_own(end, wrap):
    item = wrap(f"one{end}{end}event: two{end}")
    assert encode(item) == b"data: one\ndata: \ndata: event: two\ndata: \n\n"


def test_only_the_ends_of_line_that_a_browser_knows_end_a_line():
    text = "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g\0h"
    assert encode(text) == f"data: {text}\n\n".encode()


def test_json_may_have_lines():
    def pretty(value):
        return json.dumps(value, indent=1)

    assert encode({"a": 1}, pretty) == b'data: {\ndata:  "a": 1\ndata: }\n\n'


def test_a_renderer_may_give_bytes():
    assert encode([1], lambda value: json.dumps(value).encode()) == b"data: [1]\n\n"


def test_text_is_not_made_json():
    def dumps(value):
        raise AssertionError

    assert encode("x", dumps) == encode(Event("x"), dumps) == b"data: x\n\n"


def test_a_heartbeat_is_no_event():
    assert HEARTBEAT.startswith(b":")
    assert HEARTBEAT.endswith(b"\n\n")


@pytest.mark.parametrize("field", ["event", "id", "name"])
@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\r\nb", "a\n", "\n", "a\0b"])
def test_a_field_cannot_begin_another_one(field, text):
    with pytest.raises(ValueError, match="begin another field"):
        Event("x", **{field: text})


@pytest.mark.parametrize("field", ["event", "id", "comment"])
def test_a_field_is_text(field):
    with pytest.raises(TypeError, match=f"a str as {field}="):
        Event("x", **{field: b"bytes"})


def test_true_is_no_id():
    with pytest.raises(TypeError, match="id=, got True"):
        Event("x", id=True)


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan"), "5", None])
def test_a_retry_is_a_time(seconds):
    with pytest.raises(ValueError, match=r"number of seconds|nothing in it"):
        Retry(seconds)


def test_a_type_has_one_name():
    with pytest.raises(TypeError, match="not both"):
        Event("x", event="a", name="a")


def test_a_type_without_data_is_refused_for_no_browser_dispatches_it():
    with pytest.raises(ValueError, match=r'Event\("", event=\'done\'\)'):
        Event(event="done")


def test_an_event_of_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing in it"):
        Event()


@pytest.mark.parametrize("item", [None, b"bytes", bytearray(b"x"), Event(b"bytes")])
def test_what_is_no_data_is_refused(item):
    with pytest.raises(TypeError):
        encode(item)


def test_a_lone_surrogate_cannot_be_sent():
    with pytest.raises(UnicodeEncodeError):
        encode("\ud800")


def test_messages_lead_to_the_documentation():
    with pytest.raises(ValueError, match=r"errors\.html#event-stream"):
        Event("x", id="\n")


def test_events_are_compared_and_shown():
    event = Event({"a": 1}, event="tick", id=1)
    assert event == Event({"a": 1}, name="tick", id="1")
    assert event != Event({"a": 1}, event="tick", id=2)
    assert event != "tick"
    assert repr(event) == (
        "Event({'a': 1}, event='tick', id='1', retry=None, comment=None)"
    )


def test_another_id_is_another_event():
    event = Event("x", event="tick", retry=1, comment="c")
    other = event.with_id("7")
    assert event.id is None
    assert other == Event("x", event="tick", retry=1, comment="c", id="7")

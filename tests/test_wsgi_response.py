"""start_response alone: what it takes, refuses and makes of it."""

import sys

import pytest

from aioext import wsgi_response
from aioext.exceptions import GatewayError
from aioext.wsgi_response import CONNECTION_FIELDS, StartResponse


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    for name in ("_names", "_codes"):
        monkeypatch.setattr(wsgi_response, name, dict(getattr(wsgi_response, name)))


def raised(error):
    try:
        raise error
    except type(error):
        return sys.exc_info()


def test_status_and_headers_become_a_message():
    start = StartResponse("GET")
    start("200 OK", [("X-A", "1"), ("Set-Cookie", "a"), ("set-cookie", "b")])
    assert start.message() == {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"x-a", b"1"), (b"set-cookie", b"a"), (b"set-cookie", b"b")],
    }


def test_it_returns_write():
    start = StartResponse("GET")
    assert start("200 OK", []) == start.write


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("200 OK", 200),
        ("404 Not Found", 404),
        ("200", 200),
        ("200 ", 200),
        ("299 Sch\xf6n", 299),
        ("999 x", 999),
    ],
)
def test_every_proper_status_is_taken(status, code):
    for _ in range(2):
        start = StartResponse("GET")
        start(status, [])
        assert start.status == code


@pytest.mark.parametrize(
    "status",
    [
        200,
        None,
        b"200 OK",
        ["200 OK"],
        "",
        "OK",
        "20",
        "20 OK",
        "2000 OK",
        "099 Low",
        "100 Continue",
        "103 Early Hints",
        "200OK",
        " 200 OK",
        "+20 OK",
        "2_0 OK",
        "²00 OK",
        "٢٠٠ OK",
        "200 OK\r\nX: y",
        "200 OK\n",
        "200 \0",
    ],
)
def test_a_malformed_status_is_refused(status):
    start = StartResponse("GET")
    with pytest.raises(GatewayError, match="A status is a string like '200 OK'"):
        start(status, [])
    assert not start.status


@pytest.mark.parametrize(
    "headers",
    [
        None,
        5,
        {"X-A": "1"},
        ["X-A: 1"],
        [("X-A",)],
        [("X-A", "1", "2")],
        [("X-A", 1)],
        [("X-A", None)],
        [("X-A", b"1")],
        [(b"X-A", "1")],
        [(1, "1")],
        [(None, "1")],
        [([], "1")],
        [("", "1")],
        [("X A", "1")],
        [("X-A:", "1")],
        [("X\r\nY", "1")],
        [("X\0", "1")],
        [("X\x7f", "1")],
        [("X\xc4", "1")],
        [("Connection\u212a", "1")],
        [("X-A", "1\r\nSet-Cookie: a=b")],
        [("X-A", "1\n")],
        [("X-A", "1\r")],
        [("X-A", "1\0")],
        [("X-A", "\u20ac")],
    ],
)
def test_headers_that_cannot_be_sent_are_refused_and_quoted(headers):
    for _ in range(2):
        start = StartResponse("GET")
        with pytest.raises(GatewayError, match=r"called start_response\('200 OK', "):
            start("200 OK", headers)
        with pytest.raises(GatewayError):
            start.message()


def test_a_value_may_have_tabs_and_latin_1():
    start = StartResponse("GET")
    start("200 OK", [("X", "a\tb \xe9")])
    assert start.message()["headers"] == [(b"x", b"a\tb \xe9")]


@pytest.mark.parametrize("name", sorted(CONNECTION_FIELDS))
def test_fields_of_the_connection_are_dropped(name):
    for written in (name, name.title(), name.upper()):
        start = StartResponse("GET")
        start("200 OK", [(written, "close"), ("X", "1")])
        assert start.message()["headers"] == [(b"x", b"1")]


def test_a_second_call_is_refused():
    start = StartResponse("GET")
    start("200 OK", [])
    with pytest.raises(GatewayError, match="a second time without exc_info"):
        start("404 Not Found", [])
    assert start.status == 200


def test_a_call_with_exc_info_replaces_what_has_not_been_sent():
    start = StartResponse("GET")
    start("200 OK", [("Content-Length", "5"), ("X", "1")])
    start("500 Oops", [("Y", "2")], raised(ValueError()))
    message = start.message(3)
    assert message["status"] == 500
    assert message["headers"] == [(b"y", b"2"), (b"content-length", b"3")]


def test_a_first_call_may_have_exc_info():
    start = StartResponse("GET")
    start("500 Oops", [], raised(ValueError()))
    assert start.status == 500


def test_a_call_with_exc_info_raises_it_once_the_head_was_sent():
    start = StartResponse("GET")
    start("200 OK", [])
    start.message()
    error = ValueError("late")
    info = raised(error)
    with pytest.raises(ValueError, match="late") as caught:
        start("500 Oops", [], info)
    assert caught.value is error
    assert caught.traceback[-1].name == "raised"
    assert start.status == 200


def test_an_exception_that_is_raised_again_stays_in_no_frame():
    start = StartResponse("GET")
    start("200 OK", [])
    start.message()
    with pytest.raises(ValueError, match="late") as caught:
        start("500 Oops", [], raised(ValueError("late")))
    frame = next(each for each in caught.traceback if each.name == "__call__").frame
    assert frame.f_locals["exc_info"] is None


def test_a_malformed_second_call_leaves_the_first_one():
    start = StartResponse("GET")
    start("200 OK", [("X", "1")])
    with pytest.raises(GatewayError):
        start("500 Oops", [("X", "\n")], raised(ValueError()))
    assert start.message()["status"] == 200
    assert start.message()["headers"] == [(b"x", b"1")]


def test_a_body_before_the_call_is_told():
    with pytest.raises(GatewayError, match="did not call start_response"):
        StartResponse("GET").message()


def test_the_length_of_a_whole_body_is_told_unless_the_application_did():
    start = StartResponse("GET")
    start("200 OK", [])
    assert start.message(7)["headers"] == [(b"content-length", b"7")]
    start = StartResponse("GET")
    start("200 OK", [("CONTENT-LENGTH", "9")])
    assert start.message(7)["headers"] == [(b"content-length", b"9")]


@pytest.mark.parametrize(
    ("method", "status", "omits", "length_kept"),
    [
        ("GET", "200 OK", False, True),
        ("HEAD", "200 OK", True, True),
        ("GET", "204 No Content", True, False),
        ("GET", "304 Not Modified", True, True),
        ("GET", "205 Reset", False, True),
        ("POST", "404 Not Found", False, True),
    ],
)
def test_some_responses_have_no_body_and_some_no_length(
    method, status, omits, length_kept
):
    start = StartResponse(method)
    start(status, [("Content-Length", "5")])
    assert start.omits_body is omits
    assert bool(start.message(0)["headers"]) is length_kept
    start = StartResponse(method)
    start(status, [])
    assert bool(start.message(0)["headers"]) is not omits


def test_what_is_learned_does_not_grow_without_limit():
    for length in range(60_000, 60_003):
        StartResponse("GET")("200 " + "x" * length, [("x" * length, "1")])
    for number in range(3000):
        start = StartResponse("GET")
        start(f"200 {number}", [(f"X-{number}", "1")])
        assert start.message()["headers"] == [(b"x-%d" % number, b"1")]
    for learned in (wsgi_response._names, wsgi_response._codes):
        assert len(learned) <= 1024
        assert sum(map(len, learned)) < 100_000


@pytest.mark.parametrize("values", [["abc"], ["+5"], ["5,5"], ["5 "], [""], ["5", "5"]])
def test_a_length_that_is_not_one_whole_number_is_refused(values):
    start = StartResponse("GET")
    with pytest.raises(GatewayError, match="is not one whole number"):
        start("200 OK", [("Content-Length", value) for value in values])

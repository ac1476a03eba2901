"""Conditions and ranges of requests, in the order and by the rules of RFC 9110."""

import pytest
from pyramid.request import Request
from pyramid.response import Response
from pyramid.testing import DummyRequest

from aioext import conditional
from aioext.conditional import (
    apply,
    evaluate,
    format_date,
    is_not_modified,
    parse_date,
    select_range,
)
from aioext.ranges import UnsatisfiableRange

BODY = b"0123456789"
TAG = '"a"'
# Sunday, when HTTP began.
MTIME = 784111777
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
EARLIER = format_date(MTIME - 1)
LATER = format_date(MTIME + 1)


def environ_of(method="GET", **headers):
    """An environ: ``if_none_match='"a"'`` is the header If-None-Match."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request.blank("/", method=method, headers=named).environ


def answer(response=None, method="GET", **headers):
    """A response after its conditions were applied; a tagged one of ten bytes."""
    if response is None:
        response = Response(BODY, content_type="application/x", etag="a")
    apply(Request(environ_of(method, **headers)), response)
    return response


# Entity tags


@pytest.mark.parametrize(
    ("header", "etag", "status"),
    [
        (TAG, TAG, 304),
        ("W/" + TAG, TAG, 304),
        (TAG, "W/" + TAG, 304),
        ("W/" + TAG, "W/" + TAG, 304),
        ('"x", "a"', TAG, 304),
        ('"x","a","y"', TAG, 304),
        ('"x" , W/"a" ', TAG, 304),
        (',, "a",', TAG, 304),
        ("*", TAG, 304),
        (" * ", TAG, 304),
        ("*", None, 304),
        ('"b"', TAG, 200),
        ('"A"', TAG, 200),
        ('"aa"', TAG, 200),
        ('"x, a"', TAG, 200),
        ('"x,a,y"', '"x,a,y"', 304),
        ('""', TAG, 200),
        ('""', '""', 304),
        ("", TAG, 200),
        ("a", TAG, 200),
        ('"a', TAG, 200),
        ('a"', TAG, 200),
        ('"*"', TAG, 200),
        ("*, *", TAG, 200),
        ('"a"', None, 200),
        ('""', None, 200),
        ("None", None, 200),
        ('w/"b", W/', TAG, 200),
        ("\xff\xfe", TAG, 200),
        ('"' * 10_000, TAG, 200),
        ("W/" * 10_000, TAG, 200),
        ('"x",' * 10_000, TAG, 200),
    ],
)
def test_if_none_match(header, etag, status):
    environ = environ_of(if_none_match=header)
    assert evaluate(environ, etag, None) == status
    assert is_not_modified(environ, etag, None) is (status == 304)


@pytest.mark.parametrize(
    ("header", "etag", "status"),
    [
        (TAG, TAG, 200),
        ('"x", "a"', TAG, 200),
        ("*", TAG, 200),
        (" * ", TAG, 200),
        ("*", None, 200),
        ('"b"', TAG, 412),
        ('"b"', None, 412),
        ("", TAG, 412),
        ("a", TAG, 412),
        # Weak ones promise nothing of the bytes.
        ("W/" + TAG, TAG, 412),
        (TAG, "W/" + TAG, 412),
        ("W/" + TAG, "W/" + TAG, 412),
    ],
)
def test_if_match(header, etag, status):
    assert evaluate(environ_of(if_match=header), etag, None) == status


# Dates


@pytest.mark.parametrize(
    "date",
    [DATE, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
)
def test_the_three_forms_of_a_date(date):
    assert parse_date(date) == MTIME
    assert format_date(MTIME) == DATE


@pytest.mark.parametrize(
    "date",
    [
        "",
        "0",
        "yesterday",
        "Sun, 99 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 25:00:00 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 99999 08:49:37 GMT",
        "Sun, 06 Nov -1 08:49:37 GMT",
        "6 Nov 99999999999 08:49:37 GMT",
        "6 Nov 99999999999999999999 08:49:37 GMT",
        "6 Nov 1994 99999999999:49:37 GMT",
        "Sun, 00 Nov 0000 00:00:00 GMT",
        "9" * 5000,
        "Sun, " * 1000,
        # A date, but longer than HTTP has any.
        f"Sun, 06 Nov 1994 08:49:37 {' ' * 40} GMT",
        "\xff\xfe",
        "\0",
    ],
)
def test_what_is_no_date(date):
    assert parse_date(date) is None
    environ = environ_of(if_modified_since=date)
    assert evaluate(environ, None, MTIME) == 200
    environ = environ_of(if_unmodified_since=date)
    assert evaluate(environ, None, MTIME) == 200


@pytest.mark.parametrize(
    ("date", "since", "unmodified"),
    [(EARLIER, 200, 412), (DATE, 304, 200), (LATER, 304, 200)],
)
def test_dates(date, since, unmodified):
    assert evaluate(environ_of(if_modified_since=date), None, MTIME) == since
    assert evaluate(environ_of(if_modified_since=date), TAG, MTIME) == since
    assert evaluate(environ_of(if_unmodified_since=date), None, MTIME) == unmodified


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.999])
def test_a_fraction_of_a_second_is_not_told_and_not_compared(fraction):
    mtime = MTIME + fraction
    assert format_date(mtime) == DATE
    assert is_not_modified(environ_of(if_modified_since=DATE), None, mtime)
    assert evaluate(environ_of(if_unmodified_since=DATE), None, mtime) == 200


@pytest.mark.parametrize("header", ["if_modified_since", "if_unmodified_since"])
def test_a_date_says_nothing_where_none_is_known(header):
    for date in (EARLIER, LATER):
        assert evaluate(environ_of(**{header: date}), TAG, None) == 200


# Several


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        # A tag is better than a date, whichever of them would hold.
        ({"if_none_match": TAG, "if_modified_since": EARLIER}, 304),
        ({"if_none_match": '"b"', "if_modified_since": LATER}, 200),
        ({"if_none_match": "nonsense", "if_modified_since": LATER}, 200),
        ({"if_match": TAG, "if_unmodified_since": EARLIER}, 200),
        ({"if_match": '"b"', "if_unmodified_since": LATER}, 412),
        # First whether to do anything, then whether to send it.
        ({"if_match": TAG, "if_none_match": TAG}, 304),
        ({"if_match": '"b"', "if_none_match": TAG}, 412),
        ({"if_unmodified_since": EARLIER, "if_none_match": TAG}, 412),
        ({"if_unmodified_since": DATE, "if_modified_since": DATE}, 304),
    ],
)
def test_conditions_are_looked_at_in_order(headers, status):
    environ = environ_of(**headers)
    assert evaluate(environ, TAG, MTIME) == status
    assert is_not_modified(environ, TAG, MTIME) is (status == 304)


def test_a_request_without_conditions():
    assert evaluate(environ_of(), TAG, MTIME) == 200
    assert not is_not_modified(environ_of(), TAG, MTIME)


# Ranges


@pytest.mark.parametrize(
    ("if_range", "etag", "honoured"),
    [
        (TAG, TAG, True),
        ('"b"', TAG, False),
        ("W/" + TAG, TAG, False),
        (TAG, "W/" + TAG, False),
        ("W/" + TAG, "W/" + TAG, False),
        (TAG, None, False),
        ("*", TAG, False),
        ('"a", "b"', TAG, False),
        (DATE, TAG, True),
        ("Sunday, 06-Nov-94 08:49:37 GMT", None, True),
        (EARLIER, TAG, False),
        # Not the very date, though the file is older.
        (LATER, TAG, False),
        ("nonsense", TAG, False),
        ("", TAG, False),
    ],
)
def test_if_range(if_range, etag, honoured):
    environ = environ_of(range="bytes=0-1", if_range=if_range)
    span = select_range(environ, etag, MTIME, 10)
    assert span == ((0, 2) if honoured else None)


def test_a_date_of_this_very_second_allows_no_range(monkeypatch):
    environ = environ_of(range="bytes=0-1", if_range=DATE)
    for now, span in [(MTIME, None), (MTIME + 0.9, None), (MTIME + 1, (0, 2))]:
        monkeypatch.setattr(conditional.time, "time", lambda now=now: now)
        assert select_range(environ, None, MTIME, 10) == span


def test_a_range_that_if_range_forbids_is_not_looked_at():
    environ = environ_of(range="bytes=99-", if_range='"b"')
    assert select_range(environ, TAG, None, 10) is None
    with pytest.raises(UnsatisfiableRange):
        select_range(environ_of(range="bytes=99-"), TAG, None, 10)


def test_if_range_without_a_range():
    assert select_range(environ_of(if_range=TAG), TAG, None, 10) is None


def test_there_are_no_ranges_of_a_head():
    assert select_range(environ_of("HEAD", range="bytes=0-1"), TAG, None, 10) is None


# Responses


def response_with(headers, body=(BODY,)):
    """A response of ten bytes; WebOb's ``headers=`` would take its length away."""
    response = Response(app_iter=body, content_type="application/x", content_length=10)
    response.headers.update(headers)
    return response


def names(response):
    return {name.lower() for name in response.headers}


def test_a_response_is_sent_as_it_is():
    response = answer()
    assert (response.status, response.body) == ("200 OK", BODY)
    assert response.headers["Accept-Ranges"] == "bytes"


DESCRIPTION = {
    "Content-Encoding": "gzip",
    "Content-Language": "de",
    "Content-Disposition": "inline",
    "Last-Modified": DATE,
}
KEPT = {
    "ETag": TAG,
    "Content-Location": "/a.en",
    "Vary": "Accept",
    "Cache-Control": "private, max-age=5",
    "Expires": DATE,
    "Date": DATE,
    "Set-Cookie": "a=b",
    "Content-Security-Policy": "default-src 'self'",
    "Access-Control-Allow-Origin": "*",
}


def test_a_304_says_what_rfc_9110_wants_and_nothing_of_the_body():
    response = answer(response_with({**DESCRIPTION, **KEPT}), if_none_match=TAG)
    assert response.status == "304 Not Modified"
    assert response.body == b""
    assert dict(response.headers) == KEPT


def test_a_304_without_a_tag_says_its_date():
    response = answer(response_with({"Last-Modified": DATE}), if_modified_since=DATE)
    assert response.status_code == 304
    assert dict(response.headers) == {"Last-Modified": DATE}


def test_a_304_keeps_each_cookie():
    response = Response(BODY, etag="a")
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    assert len(answer(response, if_none_match=TAG).headers.getall("Set-Cookie")) == 2


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ({"if_match": '"b"'}, "412 Precondition Failed", "does not hold"),
        ({"range": "bytes=10-"}, "416 Range Not Satisfiable", "10 bytes"),
    ],
)
def test_an_error_says_nothing_of_the_body_that_is_not_sent(headers, status, text):
    response = answer(response_with({**DESCRIPTION, **KEPT}), **headers)
    assert response.status == status
    assert text in response.text
    assert response.content_type == "text/plain"
    assert response.content_length == len(response.body)
    assert not names(response) & {name.lower() for name in DESCRIPTION}
    assert names(response).isdisjoint({"etag", "cache-control", "expires"})
    assert {"set-cookie", "vary"} <= names(response)


def test_a_416_says_how_long_the_whole_is():
    response = answer(range="bytes=10-")
    assert response.headers["Content-Range"] == "bytes */10"


@pytest.mark.parametrize("body", [[BODY], [BODY[:4], BODY[4:]], (BODY,)])
def test_a_range_of_bytes(body):
    response = answer(response_with(KEPT, body), range="bytes=3-5")
    assert response.status == "206 Partial Content"
    assert response.app_iter == [b"345"]
    assert response.content_length == 3
    assert response.headers["Content-Range"] == "bytes 3-5/10"
    assert KEPT.items() <= dict(response.headers).items()


def test_conditions_come_before_the_range():
    assert answer(range="bytes=0-1", if_none_match=TAG).status_code == 304
    assert answer(range="bytes=99-", if_none_match=TAG).status_code == 304
    assert answer(range="bytes=99-", if_match='"b"').status_code == 412
    assert answer(range="bytes=0-1", if_none_match='"b"').status_code == 206


def test_several_ranges_are_the_whole():
    response = answer(range="bytes=0-1,4-5")
    assert (response.status_code, response.body) == (200, BODY)


class Body:
    """A body that can be closed."""

    def __init__(self, *chunks):
        self.chunks = iter(chunks)
        self.closed = 0
        self.taken = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.taken += 1
        return next(self.chunks)

    def close(self):
        self.closed += 1


class RangeBody(Body):
    """One that gives a range of itself."""

    def app_iter_range(self, start, stop):
        self.asked = (start, stop)
        return self


def streamed(body, **others):
    return Response(app_iter=body, content_length=10, etag="a", **others)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if_none_match": TAG}, 304),
        ({"if_match": '"b"'}, 412),
        ({"range": "bytes=10-"}, 416),
    ],
)
def test_a_body_that_is_not_sent_is_closed_once_and_not_read(headers, status):
    body = Body(BODY)
    response = answer(streamed(body), **headers)
    assert response.status_code == status
    assert (body.closed, body.taken) == (1, 0)


def test_a_body_that_is_sent_is_not_closed():
    body = Body(BODY)
    response = answer(streamed(body))
    assert response.app_iter is body
    assert (body.closed, body.taken) == (0, 0)
    assert response.content_length == 10


def test_a_body_gives_a_range_of_itself():
    body = RangeBody(BODY)
    response = answer(streamed(body), range="bytes=3-5")
    assert response.app_iter is body
    assert body.asked == (3, 6)
    assert response.content_length == 3
    assert not body.closed


def test_of_any_other_body_what_is_before_the_range_is_skipped():
    body = Body(b"012", b"345", b"678", b"9")
    response = answer(streamed(body), range="bytes=4-6")
    assert b"".join(response.app_iter) == b"456"
    response.app_iter.close()
    assert body.closed == 1


def test_without_a_length_there_are_no_ranges():
    body = Body(BODY)
    response = answer(Response(app_iter=body, etag="a"), range="bytes=0-1")
    assert (response.status_code, response.app_iter) == (200, body)
    assert "accept-ranges" not in names(response)


def test_an_asynchronous_body_that_nobody_adapted_has_no_ranges():
    class Chunks:
        def __aiter__(self):
            return self

    response = answer(streamed(Chunks()), range="bytes=0-1")
    assert response.status_code == 200
    assert "accept-ranges" not in names(response)


@pytest.mark.parametrize(
    "headers", [{"Accept-Ranges": "none"}, {"Content-Range": "bytes 0-9/99"}]
)
def test_an_application_that_knows_better(headers):
    response = answer(response_with(headers), range="bytes=0-1")
    assert (response.status_code, response.body) == (200, BODY)
    assert headers.items() <= dict(response.headers).items()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_other_methods_are_left_alone(method):
    response = answer(None, method, if_none_match=TAG, if_match='"b"', range="bytes=0-")
    assert (response.status_code, response.body) == (200, BODY)
    assert "accept-ranges" not in names(response)


@pytest.mark.parametrize("status", [201, 206, 304, 404, 500])
def test_other_statuses_are_left_alone(status):
    response = response_with({"ETag": TAG})
    response.status_code = status
    before = response.headerlist[:]
    answer(response, if_none_match=TAG, range="bytes=0-1")
    assert (response.status_code, response.body) == (status, BODY)
    assert response.headerlist == before


def test_a_request_of_unit_tests_is_left_alone():
    response = Response(BODY, etag="a")
    apply(DummyRequest(), response)
    assert response.status_code == 200


def test_a_head_is_told_of_the_version_and_not_of_a_range():
    assert answer(method="HEAD", if_none_match=TAG).status_code == 304
    response = answer(method="HEAD", range="bytes=0-1")
    assert response.status_code == 200
    assert response.content_length == 10
    assert response.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    "headers", [{"if_none_match": TAG}, {"range": "bytes=2-3"}, {"range": "bytes=99-"}]
)
def test_webob_does_not_do_it_once_more(headers):
    request = Request(environ_of(**headers))
    response = Response(BODY, etag="a", conditional_response=True)
    apply(request, response)
    once = response.status, response.body
    sent = request.get_response(response)
    assert (sent.status, sent.body) == once

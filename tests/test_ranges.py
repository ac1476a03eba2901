"""The header Range: what is one range of bytes, and what is answered with the whole."""

import pytest

from aioext.ranges import UnsatisfiableRange, content_range, parse_range

BODY = b"0123456789"


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", b"0"),
        ("bytes=0-4", b"01234"),
        ("bytes=2-", b"23456789"),
        ("bytes=9-9", b"9"),
        ("bytes=9-", b"9"),
        ("bytes=0-9", BODY),
        ("bytes=0-", BODY),
        ("bytes=0-10", BODY),
        ("bytes=5-999999999999999999999999", b"56789"),
        ("bytes=-1", b"9"),
        ("bytes=-10", BODY),
        ("bytes=-11", BODY),
        ("bytes=-999999999999999999999999", BODY),
        ("bytes=007-008", b"78"),
        ("Bytes=1-2", b"12"),
        ("bytes= 1-2\t", b"12"),
        # Elements that are empty.
        ("bytes=1-2,", b"12"),
        ("bytes=, ,1-2", b"12"),
    ],
)
def test_one_range_is_a_part(header, part):
    start, stop = parse_range(header, len(BODY))
    assert BODY[start:stop] == part
    assert stop - start == len(part)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=,",
        "bytes=a-b",
        "bytes=1",
        "bytes=1-2-3",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=1 -2",
        "bytes=1- 2",
        "bytes =1-2",
        " bytes=1-2",
        "bytes=0x1-2",
        "bytes=1_0-20",
        "bytes=1.0-2",
        "bytes=-1.5",
        # Digits, but none that HTTP knows.
        "bytes=\u0661-\u0662",
        "bytes=\xb2-",
        # It ends before it begins.
        "bytes=5-4",
        "bytes=99-98",
        # Several.
        "bytes=0-1,3-4",
        "bytes=0-0,0-0",
        "bytes=0-1, -1",
        "bytes=0-1,nonsense",
        # Other units.
        "items=0-1",
        "seconds=1-2",
        "=0-1",
        "bytes=0-1\r\nX: y",
    ],
)
def test_anything_else_is_the_whole(header):
    assert parse_range(header, len(BODY)) is None


@pytest.mark.parametrize(
    "header", ["bytes=10-", "bytes=10-10", "bytes=99-", "bytes=999999999-", "bytes=-0"]
)
def test_a_range_with_nothing_in_it(header):
    with pytest.raises(UnsatisfiableRange):
        parse_range(header, len(BODY))


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-0"])
def test_an_empty_body_is_sent_whole(header):
    assert parse_range(header, 0) is None


@pytest.mark.parametrize(
    "header",
    [
        "bytes=" + "9" * 10_000 + "-",
        "bytes=-" + "9" * 10_000,
        "bytes=0-" + "9" * 10_000,
        "bytes=" + "0-," * 10_000,
        "bytes=" + "," * 100_000 + "x",
        "bytes=" + "0" * 100_000,
    ],
)
def test_a_header_of_any_length_is_looked_at_quickly(header):
    assert parse_range(header, len(BODY)) is None


def test_every_range_of_small_bodies():
    for length in range(1, 6):
        body = bytes(range(length))
        for first in range(7):
            for last in range(first, 7):
                header = f"bytes={first}-{last}"
                if first >= length:
                    with pytest.raises(UnsatisfiableRange):
                        parse_range(header, length)
                else:
                    start, stop = parse_range(header, length)
                    assert body[start:stop] == body[first : last + 1]
                    assert 0 <= start < stop <= length
        for suffix in range(1, 8):
            start, stop = parse_range(f"bytes=-{suffix}", length)
            assert body[start:stop] == body[-suffix:]


def test_content_range():
    assert content_range((0, 1), 10) == "bytes 0-0/10"
    assert content_range((2, 10), 10) == "bytes 2-9/10"
    assert content_range(None, 10) == "bytes */10"

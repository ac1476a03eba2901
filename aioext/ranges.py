"""The header ``Range``: the one range of bytes that is answered.

The grammar is that of :rfc:`9110` section 14.1.2, and a server may answer a request
for ranges with the whole. That is what everything gets that is not one range of bytes:
several ranges, for a client that asks for thousands of them, or for the same bytes
over and over, would have one answer many times as large as the file; other units;
nonsense; and any range of a body that is empty.
"""

from __future__ import annotations

import re

__all__ = ["UnsatisfiableRange", "content_range", "parse_range"]

# More digits than any length has, and fewer than int() refuses.
_RANGE = re.compile("([0-9]{0,30})-([0-9]{0,30})")


class UnsatisfiableRange(ValueError):
    """The range begins behind the end, or is of no bytes at all: answered with 416."""


def parse_range(header: str, length: int) -> tuple[int, int] | None:
    """The range that a request asks for.

    Args:
        header: the value of ``Range``.
        length: of the whole body, in bytes.

    Returns:
        where it starts and where it stops, so that ``body[start:stop]`` is it; None:
        the whole is to be sent, with 200.

    Raises:
        UnsatisfiableRange: it is a range, and there is nothing in it.
    """
    match = _match(header)
    if match is None or not length:
        return None
    first, last = match.groups()
    if not first:
        return _suffix(int(last), length)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= length:
        raise UnsatisfiableRange(header)
    return start, min(int(last) + 1, length) if last else length


def _match(header: str) -> re.Match[str] | None:
    unit, _, ranges = header.partition("=")
    if unit.lower() != "bytes":
        return None
    # An element of a list may be empty (RFC 9110 section 5.6.1.2).
    given = [each for part in ranges.split(",") if (each := part.strip(" \t"))]
    match = _RANGE.fullmatch(given[0]) if len(given) == 1 else None
    return match if match and any(match.groups()) else None


def _suffix(number: int, length: int) -> tuple[int, int]:
    if not number:
        raise UnsatisfiableRange("-0")
    return max(length - number, 0), length


def content_range(span: tuple[int, int] | None, length: int) -> str:
    """The value of ``Content-Range``; ``span`` None: of an answer with 416."""
    if span is None:
        return f"bytes */{length}"
    start, stop = span
    return f"bytes {start}-{stop - 1}/{length}"

"""Conditional requests and ranges: 304, 412, 206 and 416 in the place of a 200.

Theory of operation
===================

A response tells what version of something it is: by its ``ETag``, its
``Last-Modified``, or both. A request may ask for it on conditions. They are looked at
in the order of :rfc:`9110` section 13.2.2:

1. ``If-Match``, or else ``If-Unmodified-Since``: 412 if it does not hold;
2. ``If-None-Match``, or else ``If-Modified-Since``: 304 if the client has this version;
3. ``Range``, where ``If-Range`` allows it: 206, or 416.

Tags are compared strongly for ``If-Match`` and ``If-Range``, where bytes are put
together, and weakly for ``If-None-Match``. A date that cannot be read is as good as
none. A date allows a range only if it is the very ``Last-Modified``, and a second old:
within one second a file may have changed twice.

WebOb's ``conditional_response`` is not enough: it looks at neither ``If-Match`` nor
``If-Unmodified-Since``, takes ``If-None-Match: *`` for none, makes a 304 of a 404, and
a 206 of a ``HEAD``. A response that :func:`apply` has seen has it switched off.

:func:`apply` is for any response of WebOb's. What serves files without one asks
:func:`evaluate` and :func:`select_range`, and :func:`is_not_modified` first, which
costs two look-ups for a request without conditions.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_tz
from typing import Any

from .ranges import UnsatisfiableRange, content_range, parse_range

__all__ = [
    "apply",
    "evaluate",
    "format_date",
    "is_not_modified",
    "parse_date",
    "select_range",
]

Environ = Mapping[str, Any]

METHODS = ("GET", "HEAD")

_TAG = re.compile('(?:W/)?"[^"]*"')
# Longer than any of the three forms that HTTP knows.
_LONGEST_DATE = 40


def apply(request: Any, response: Any) -> None:
    """Answer the conditions of a request, and its range, in place.

    Changes nothing unless the response is a 200 to ``GET`` or ``HEAD``. A body that is
    not sent is closed. A range is cut from a list of bytes, or is what
    ``body.app_iter_range(start, stop)`` gives, WebOb's protocol: that takes the body's
    place, and closes it in the end. Of any other iterable the bytes before the range
    are skipped. Without a ``Content-Length`` there are no ranges.

    Args:
        request: a WebOb request; only its ``environ`` is looked at.
        response: a WebOb response, with its ``ETag`` and ``Last-Modified``.
    """
    environ = request.environ
    if response.status_code != 200 or environ.get("REQUEST_METHOD") not in METHODS:
        return
    headers = response.headers
    etag = headers.get("ETag")
    mtime = parse_date(headers.get("Last-Modified", ""))
    response.conditional_response = False
    status = evaluate(environ, etag, mtime)
    if status == 304:
        _not_modified(response)
    elif status == 412:
        _refuse(response, "412 Precondition Failed", FAILED)
    elif _has_ranges(response):
        _apply_range(environ, response, etag, mtime)


def is_not_modified(environ: Environ, etag: str | None, mtime: float | None) -> bool:
    """Whether a ``GET`` or ``HEAD`` is answered with 304.

    Args:
        environ: of the request.
        etag: as in the header ``ETag``, with its quotes; None: there is none.
        mtime: seconds since the epoch, of which the fraction is ignored; None: not
            known.
    """
    if "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MODIFIED_SINCE" in environ:
        return evaluate(environ, etag, mtime) == 304
    return False


def evaluate(environ: Environ, etag: str | None, mtime: float | None) -> int:
    """The status by the conditions of a ``GET`` or ``HEAD``: 200, 304 or 412.

    The arguments are those of :func:`is_not_modified`. A range is not looked at.
    """
    if "HTTP_IF_MATCH" in environ:
        if not _matches(environ["HTTP_IF_MATCH"], _strong(etag)):
            return 412
    elif "HTTP_IF_UNMODIFIED_SINCE" in environ and mtime is not None:
        since = parse_date(environ["HTTP_IF_UNMODIFIED_SINCE"])
        if since is not None and int(mtime) > since:
            return 412
    if "HTTP_IF_NONE_MATCH" in environ:
        if _matches_weakly(environ["HTTP_IF_NONE_MATCH"], etag):
            return 304
    elif "HTTP_IF_MODIFIED_SINCE" in environ and mtime is not None:
        since = parse_date(environ["HTTP_IF_MODIFIED_SINCE"])
        if since is not None and int(mtime) <= since:
            return 304
    return 200


def select_range(
    environ: Environ, etag: str | None, mtime: float | None, length: int
) -> tuple[int, int] | None:
    """What a request asks for of ``length`` bytes: ``(start, stop)``; None: the whole.

    Args:
        environ: of a request whose conditions hold.
        etag: as of :func:`is_not_modified`.
        mtime: likewise.
        length: of the whole, in bytes.

    Raises:
        UnsatisfiableRange: the answer is a 416.
    """
    header = environ.get("HTTP_RANGE")
    # For HEAD, no range is defined (RFC 9110 section 14.2).
    if header is None or environ["REQUEST_METHOD"] != "GET":
        return None
    if "HTTP_IF_RANGE" in environ:
        if not _is_the_same(environ["HTTP_IF_RANGE"], etag, mtime):
            return None
    return parse_range(header, length)


def _matches(header: str, etag: str | None) -> bool:
    header = header.strip()
    return header == "*" or etag in _TAG.findall(header)


def _matches_weakly(header: str, etag: str | None) -> bool:
    if header == etag:
        return True
    if header.strip() == "*":
        return True
    if etag is None:
        return False
    opaque = etag.removeprefix("W/")
    return any(each.removeprefix("W/") == opaque for each in _TAG.findall(header))


def _strong(etag: str | None) -> str | None:
    return None if etag is None or etag.startswith("W/") else etag


def _is_the_same(header: str, etag: str | None, mtime: float | None) -> bool:
    header = header.strip()
    if header.startswith(('"', "W/")):
        return header == _strong(etag)
    if mtime is None or parse_date(header) != int(mtime):
        return False
    return int(mtime) + 1 <= time.time()


@functools.lru_cache(256)
def _read_date(value: str) -> int | None:
    parsed = parsedate_tz(value)
    if parsed is None:
        return None
    try:
        moment = datetime(*parsed[:6], tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return int(moment.timestamp()) - (parsed[9] or 0)


def parse_date(value: str) -> int | None:
    """The seconds since the epoch of a date in a header; None: it is none."""
    return _read_date(value) if 0 < len(value) <= _LONGEST_DATE else None


def format_date(seconds: float) -> str:
    """A date as headers have it; a fraction of a second is dropped."""
    return formatdate(int(seconds), usegmt=True)


# What describes a body. A 304 has none, and says only what RFC 9110 section 15.4.5 has
# it say of the one that the client has: ETag, Content-Location, Vary, Cache-Control,
# Expires. What is no description (cookies, security) is sent as always.
_DESCRIPTION = (
    "Content-Type",
    "Content-Length",
    "Content-Encoding",
    "Content-Language",
    "Content-Disposition",
    "Content-Range",
    "Content-MD5",
    "Content-Digest",
    "Repr-Digest",
    "Digest",
    "Accept-Ranges",
)
# What an error that takes the body's place must not tell of itself.
_VERSION = ("ETag", "Last-Modified", "Content-Location", "Cache-Control", "Expires")


def _not_modified(response: Any) -> None:
    _drop_body(response, _DESCRIPTION)
    if "ETag" in response.headers:
        _remove(response, ("Last-Modified",))
    response.status = "304 Not Modified"


def _refuse(response: Any, status: str, text: str) -> None:
    _drop_body(response, (*_DESCRIPTION, *_VERSION))
    response.status = status
    response.content_type = "text/plain"
    response.body = text.encode("ascii")


def _drop_body(response: Any, names: tuple[str, ...]) -> None:
    body = response.app_iter
    response.app_iter = []
    _remove(response, names)
    close = getattr(body, "close", None)
    if close is not None:
        close()


def _remove(response: Any, names: tuple[str, ...]) -> None:
    for name in names:
        response.headers.pop(name, None)


def _has_ranges(response: Any) -> bool:
    # Told even where none is asked for, unless the application has told it otherwise.
    if response.content_length is None or "Content-Range" in response.headers:
        return False
    if not hasattr(response.app_iter, "__iter__"):
        return False
    return response.headers.setdefault("Accept-Ranges", "bytes") == "bytes"


def _apply_range(
    environ: Environ, response: Any, etag: str | None, mtime: float | None
) -> None:
    length = response.content_length
    try:
        span = select_range(environ, etag, mtime, length)
    except UnsatisfiableRange:
        _refuse(response, "416 Range Not Satisfiable", UNSATISFIABLE.format(length))
        response.headers["Content-Range"] = content_range(None, length)
        response.headers["Accept-Ranges"] = "bytes"
        return
    if span is None:
        return
    start, stop = span
    response.app_iter = _cut(response, start, stop)
    response.content_length = stop - start
    response.headers["Content-Range"] = content_range(span, length)
    response.status = "206 Partial Content"


def _cut(response: Any, start: int, stop: int) -> Any:
    body = response.app_iter
    if type(body) is list or type(body) is tuple:
        whole = body[0] if len(body) == 1 else b"".join(body)
        return [whole[start:stop]]
    return response.app_iter_range(start, stop)


FAILED = "The condition of the request does not hold: this is another version.\n"
UNSATISFIABLE = "There is nothing in that range: the whole has {} bytes.\n"

"""Which of several formats a client wants: its ``Accept`` header, :rfc:`9110` 12.5.1.

The header is read by WebOb, which knows quality values, wildcards and which range is
the more specific one. Decided here is what the specification leaves open:

* A header that cannot be read, or is empty, counts as none.
* Of two formats with the same quality, one that the client names comes before one that
  is covered by a wildcard: libraries for scripts send ``application/json, */*``, and
  mean JSON. Then the order of the formats decides; where the client has no preference
  at all, HTML comes first.
* What is sent is UTF-8, so a client that asks for ``application/json;charset=utf-8``
  gets it. Any other parameter names a media type that is not offered.
"""

from __future__ import annotations

import functools
import mimetypes
from collections.abc import Sequence

from webob.acceptparse import AcceptValidHeader, create_accept_header

from .media import TYPES

__all__ = ["HTML", "choose", "media_type"]

HTML = "html"

# Browsers send the same headers all the time; nobody else is to fill the memory.
REMEMBERED = 256
REMEMBERED_LENGTH = 512


def media_type(name: str) -> str | None:
    """The media type of a format, which is named as files are: ``csv``, ``xml``.

    None if there is none; :func:`mimetypes.add_type` is asked as well.
    """
    return TYPES.get(f".{name}") or mimetypes.guess_type(f"a.{name}")[0]


def choose(accept: str | None, formats: Sequence[str]) -> str | None:
    """The name of the format that ``accept`` prefers.

    Args:
        accept: the value of the ``Accept`` header; None: there is none.
        formats: names that :func:`media_type` knows, the preferred one first.

    Returns:
        None if the client accepts none of them.
    """
    formats = tuple(formats)
    if accept is None or len(accept) > REMEMBERED_LENGTH:
        return _choose(accept, formats)
    return _remembered(accept, formats)


def _choose(accept: str | None, formats: tuple[str, ...]) -> str | None:
    # Types, and the name of a charset, are the same in capitals.
    header = create_accept_header(accept and accept.strip().lower())
    if not isinstance(header, AcceptValidHeader) or not header.parsed:
        return _default(formats)
    # The first one of those that have the same type stays.
    offers = {f"{media_type(name)};charset=utf-8": name for name in reversed(formats)}
    acceptable = header.acceptable_offers(list(reversed(offers)))
    if not acceptable:
        return None
    ranges = {each[0].partition(";")[0] for each in header.parsed}
    if ranges == {"*/*"}:
        return _default(formats)
    best = [offer for offer, quality in acceptable if quality == acceptable[0][1]]
    return offers[max(best, key=lambda offer: _closeness(offer, ranges))]


def _closeness(offer: str, ranges: set[str]) -> int:
    offered = offer.partition(";")[0]
    if offered in ranges:
        return 2
    return int(f"{offered.partition('/')[0]}/*" in ranges)


_remembered = functools.lru_cache(REMEMBERED)(_choose)


def _default(formats: tuple[str, ...]) -> str:
    return HTML if HTML in formats else formats[0]

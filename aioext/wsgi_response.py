"""``start_response`` for ASGI: the status and headers of one response.

The rules are those of :pep:`3333`: nothing is sent before the first byte of
the body or its end; until then a second call with ``exc_info`` replaces the
first, afterwards it raises that exception. Fields that belong to the
connection and not to the application are dropped (:rfc:`9110` section 7.6.1),
and so that no header can end itself and begin another one, CR, LF and NUL are
refused here, whatever the server checks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .exceptions import GatewayError

__all__ = ["CALLED_TWICE", "CONNECTION_FIELDS", "StartResponse"]

CONNECTION_FIELDS = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
    }
)
LENGTH = b"content-length"
_CONTROL = re.compile("[\r\n\0]")
_DIGITS = re.compile("[0-9]+")
_STATUS = re.compile("([1-9][0-9][0-9])(?: [^\r\n\0]*)?")
# RFC 9110 section 6.4.1.
_NO_BODY = frozenset((204, 304))
# A token (RFC 9110 section 5.6.2).
_NAME = re.compile("[-!#$%&'*+.^_`|~0-9A-Za-z]+")
# What applications say is learned, up to a limit of number and length.
_MAX_LEARNED = 1024
_MAX_LENGTH = 64
_codes: dict[str, int] = {}
_names: dict[str, bytes | None] = dict.fromkeys(CONNECTION_FIELDS)

Headers = list[tuple[str, str]]
Write = Callable[[bytes], None]


class StartResponse:
    """The callable that a WSGI application gets, and what it said.

    Args:
        method: of the request.

    Attributes:
        status: the status code, 0 before there is one.
        sent: whether the message that starts the response has been made.
    """

    status = 0
    sent = False
    _headers: list[tuple[bytes, bytes]]
    _has_length: bool

    def __init__(self, method: str) -> None:
        self.method = method

    def __call__(self, status: str, headers: Headers, exc_info: Any = None, /) -> Write:
        if exc_info is not None:
            try:
                if self.sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status:
            raise GatewayError(CALLED_TWICE)
        try:
            code = _codes.get(status) or _parse_status(status)
            self._encode(headers)
        except (TypeError, ValueError, AttributeError) as error:
            raise GatewayError(MALFORMED.format(status, headers, error)) from error
        self.status = code
        return self.write

    def write(self, chunk: bytes) -> None:
        """Send a part of the body now: the ``write()`` of :pep:`3333`."""
        raise NotImplementedError

    def _encode(self, headers: Headers) -> None:
        encoded = []
        has_length = False
        for name, value in headers:
            try:
                key = _names[name]
            except KeyError:
                key = _learn(name)
            if key is None:
                continue
            if not value.isprintable() and _CONTROL.search(value):
                raise ValueError(f"{name} has a control character")
            if key == LENGTH:
                # A wrong end would make the next response a part of this one.
                if has_length or _DIGITS.fullmatch(value) is None:
                    raise ValueError(f"{name} is not one whole number")
                has_length = True
            encoded.append((key, value.encode("latin-1")))
        self._headers = encoded
        self._has_length = has_length

    @property
    def omits_body(self) -> bool:
        """Whether the response has no body, whatever the application gives."""
        return self.status in _NO_BODY or self.method == "HEAD"

    def message(self, length: int | None = None) -> dict[str, Any]:
        """The ASGI message that starts the response.

        Args:
            length: of the whole body, if it is known; told to the client
                unless the application did so itself.
        """
        if not self.status:
            raise GatewayError(NOT_CALLED)
        self.sent = True
        if self.status == 204:
            # It may not tell a length (RFC 9110 section 8.6).
            self._headers = [each for each in self._headers if each[0] != LENGTH]
        elif length is not None and not self._has_length and not self.omits_body:
            self._headers.append((LENGTH, b"%d" % length))
        return {
            "type": "http.response.start",
            "status": self.status,
            "headers": self._headers,
        }


def _parse_status(status: str) -> int:
    match = _STATUS.fullmatch(status)
    # After a 1xx the client waits for the response proper (RFC 9110 section
    # 15.2): it would take the next request's.
    if match is None or match[1] < "200":
        raise ValueError(f"{status!r} is no status")
    code = int(match[1])
    _remember(_codes, status, code)
    return code


def _learn(name: str) -> bytes | None:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no header name")
    lower = name.lower()
    key = None if lower in CONNECTION_FIELDS else lower.encode("ascii")
    _remember(_names, name, key)
    return key


def _remember(learned: dict[str, Any], text: str, meaning: Any) -> None:
    if len(learned) < _MAX_LEARNED and len(text) <= _MAX_LENGTH:
        learned[text] = meaning


CALLED_TWICE = """\
The WSGI application called start_response() a second time without exc_info. \
Call it once, or give exc_info=sys.exc_info() when an error replaces the answer."""

NOT_CALLED = """\
The WSGI application gave a body and did not call start_response() before it. \
Call start_response(status, headers) before the first chunk of the body."""

MALFORMED = """\
The WSGI application called start_response({!r}, {!r}), which cannot be sent: \
{}. A status is a string like '200 OK'; headers are a list of tuples of two \
strings in latin-1, without control characters."""

"""``start_response`` for ASGI: the status and headers of one response.

The rules are those of :pep:`3333`: nothing is sent before the first byte of
the body or its end; until then a second call with ``exc_info`` replaces the
first, afterwards it raises that exception. Fields that belong to the
connection and not to the application are dropped (:rfc:`9110` section 7.6.1),
and so that no header can end itself and begin another one, CR, LF and NUL are
refused here, whatever the server checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .exceptions import GatewayError

__all__ = ["StartResponse"]

CONNECTION_FIELDS = frozenset(
    {"connection", "keep-alive", "te", "trailer", "trailers", "transfer-encoding"}
)
_MAX_NAMES = 1024
_names: dict[str, bytes | None] = dict.fromkeys(CONNECTION_FIELDS)

Headers = list[tuple[str, str]]
Write = Callable[[bytes], None]


class StartResponse:
    """The callable that a WSGI application gets, and what it said.

    Args:
        write: what the callable is to return.
        method: of the request.

    Attributes:
        status: the status code, 0 before there is one.
        sent: set by the server when the headers have gone out.
    """

    __slots__ = ("_has_length", "_headers", "_write", "method", "sent", "status")

    def __init__(self, write: Write, method: str) -> None:
        self._write = write
        self.method = method
        self.status = 0
        self.sent = False

    def __call__(
        self, status: str, headers: Headers, exc_info: Any = None, /
    ) -> Write:
        if exc_info is not None:
            try:
                if self.sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status:
            raise GatewayError(CALLED_TWICE)
        try:
            code = int(status[:3])
            self._encode(headers)
        except (TypeError, ValueError, AttributeError) as error:
            raise GatewayError(MALFORMED.format(status, headers, error)) from error
        if not 100 <= code <= 999:
            raise GatewayError(MALFORMED.format(status, headers, "no such status"))
        self.status = code
        return self._write

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
            if "\n" in value or "\r" in value or "\0" in value:
                raise ValueError(f"{name} has a control character")
            if key == b"content-length":
                has_length = True
            encoded.append((key, value.encode("latin-1")))
        self._headers = encoded
        self._has_length = has_length

    @property
    def omits_body(self) -> bool:
        """Whether the response has no body, whatever the application gives."""
        status = self.status
        return self.method == "HEAD" or status in (204, 304) or 100 <= status < 200

    def message(self, length: int | None = None) -> dict[str, Any]:
        """The ASGI message that starts the response.

        Args:
            length: of the whole body, if it is known; told to the client
                unless the application did so itself.
        """
        if not self.status:
            raise GatewayError(NOT_CALLED)
        self.sent = True
        if length is not None and not self._has_length and not self.omits_body:
            self._headers.append((b"content-length", b"%d" % length))
        return {
            "type": "http.response.start",
            "status": self.status,
            "headers": self._headers,
        }


def _learn(name: str) -> bytes | None:
    lower = name.lower()
    key = None if lower in CONNECTION_FIELDS else lower.encode("ascii")
    if not lower or any(c in lower for c in " \t\r\n\0:"):
        raise ValueError(f"{name!r} is no header name")
    if len(_names) < _MAX_NAMES:
        _names[name] = key
    return key


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

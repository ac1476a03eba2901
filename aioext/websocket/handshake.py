"""The opening handshake of a WebSocket, as a request carries it.

A server that can upgrade a request puts a :class:`Handshake` into the environ.
Everything that an application does with a WebSocket begins there, whichever
form it is written in: the view mapper, ``request.websocket``, a response, or
:func:`~aioext.websocket.get_websocket` in plain WSGI code.

A server that calls the application with an environ of its own making puts nothing
there. Its runtime says how a handshake is made of a request
(:func:`make_handshakes_with`), and that is done when somebody first asks for it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import Any

from ..exceptions import explain
from ..wsgi_response import StartResponse
from .channel import Channel
from .options import Options
from .origin import is_allowed, own_origin

__all__ = [
    "KEY",
    "REFUSAL",
    "SWITCHING",
    "UPGRADE_FIELDS",
    "Handshake",
    "asks_for_websocket",
    "handshake_of",
    "make_handshakes_with",
    "malformation",
]

KEY = "aioext.websocket"
# Where the environ has the answer of a server that cannot open this very WebSocket.
REFUSAL = "aioext.websocket.refusal"
VERSION = "13"
SWITCHING = "101 Switching Protocols"

# Not for the application to say in a handshake: they are about a body, or about
# what this server has agreed on with the client.
UPGRADE_FIELDS = frozenset(
    (
        b"content-length",
        b"content-type",
        b"upgrade",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-protocol",
    )
)

Headers = list[tuple[bytes, bytes]]
Opener = Callable[[Headers, str | None, Options], Awaitable[Channel]]
Starter = Callable[[str, list[tuple[str, str]]], Any]
Maker = Callable[[MutableMapping[str, Any]], "Handshake | None"]

_UNKNOWN: Any = object()


class Handshake:
    """A WebSocket that a client asks for.

    Args:
        environ: of the request.
        opener: coroutine function that accepts the WebSocket, given headers of
            the response, the subprotocol, and the options.
        start_response: of the server, for whoever has no other.

    Attributes:
        options: of the WebSocket; None until they are known.
        headers: go into the response that accepts it; set by the server, when
            ``start_response`` is called with the status 101.
        subprotocol: the one that was chosen.
        channel: the connection, once it is accepted.
        is_synchronous: whether the view that serves it is no coroutine.
        has_thread: whether a thread is reserved for its handler.
    """

    subprotocol: str | None = None
    channel: Channel | None = None
    is_synchronous = False
    has_thread = False

    options: Options | None = None
    _has_chosen = False

    def __init__(
        self, environ: Mapping[str, Any], opener: Opener, start_response: Starter
    ) -> None:
        self._environ = environ
        self._open = opener
        self.start_response = start_response
        self._at_end: list[Callable[[], None]] = []
        self.headers: Headers = []

    @property
    def subprotocols(self) -> list[str]:
        """What the client offers, in its order of preference."""
        offered = self._environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")
        return [each.strip() for each in offered.split(",") if each.strip()]

    @property
    def origin_is_allowed(self) -> bool:
        """Whether the page that asks may; a client that is no page may."""
        environ = self._environ
        origin = environ.get("HTTP_ORIGIN")
        if origin is None:
            return True
        host = environ.get("HTTP_HOST")
        if not host:
            host = f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
        own = own_origin(environ["wsgi.url_scheme"], host)
        options = self._known_options()
        return is_allowed(origin, own, options.origins, options.trusted)

    def _known_options(self) -> Options:
        if self.options is None:
            self.options = Options()
        return self.options

    def choose_subprotocol(self, request: Any) -> None:
        """Choose among the offered, as the options say; once.

        Raises:
            ValueError: the application's callable chose what was not offered.
        """
        if self._has_chosen:
            return
        wanted = self._known_options().subprotocols
        offered = self.subprotocols
        if callable(wanted):
            chosen = wanted(offered, request)
        else:
            chosen = next((each for each in wanted if each in offered), None)
        if chosen is not None and chosen not in offered:
            message = NOT_OFFERED.format(wanted, chosen, offered)
            raise ValueError(explain(message, "websocket-options"))
        self.subprotocol = chosen
        self._has_chosen = True

    def check_room(self) -> None:
        """Raise ``HTTPServiceUnavailable`` if this server has no room for it."""

    def answer(self, start_response: Starter, headers: list[tuple[str, str]]) -> None:
        """Answer that it is accepted, with ``headers``; the handler comes next."""
        start_response(SWITCHING, headers)

    def serve(self, handling: Coroutine[Any, Any, None]) -> Awaitable[None]:
        """What is to be awaited where a server that knows no WebSockets iterates
        over the body: by default ``handling``, from :meth:`accept` to the end.
        """
        return handling

    async def accept(self) -> Channel:
        """Accept the WebSocket, unless that is done.

        Raises:
            ConnectionClosed: the client has left already.
        """
        if self.channel is None:
            options = self._known_options()
            channel = await self._open(self.headers, self.subprotocol, options)
            channel.subprotocol = self.subprotocol
            self.channel = channel
        return self.channel

    @property
    def has_ended(self) -> bool:
        """Whether the WebSocket was open, and is closed."""
        return self.channel is not None and self.channel.closed

    def at_end(self, callback: Callable[[], None]) -> None:
        """Have ``callback()`` called when the request is over, however it ends."""
        self._at_end.append(callback)

    def end(self) -> None:
        """The request is over."""
        while self._at_end:
            self._at_end.pop()()


# Makes the handshake of a request whose environ has none.
_make: Maker | None = None


def make_handshakes_with(make: Maker | None) -> None:
    """Have :func:`handshake_of` call ``make(environ)``, once for each request.

    For a server that calls the application by itself; None: no more.
    """
    global _make
    _make = make


def handshake_of(environ: MutableMapping[str, Any]) -> Handshake | None:
    """The handshake of a request; None if it is none, or cannot be accepted."""
    handshake = environ.get(KEY, _UNKNOWN)
    if handshake is not _UNKNOWN:
        return handshake
    if _make is None:
        return None
    handshake = environ[KEY] = _make(environ)
    return handshake


def headers_of_acceptance(headers: list[tuple[str, str]]) -> Headers:
    """What an application says in the response that accepts, as it is sent.

    Raises:
        GatewayError: it cannot be sent.
    """
    response = StartResponse("GET")
    response("200 OK", headers)
    encoded = response.message()["headers"]
    return [each for each in encoded if each[0] not in UPGRADE_FIELDS]


def asks_for_websocket(environ: Mapping[str, Any]) -> bool:
    """Whether a request that came as ordinary HTTP wants to be a WebSocket."""
    names = environ.get("HTTP_UPGRADE", "").lower().split(",")
    return "websocket" in (each.strip() for each in names)


def malformation(environ: Mapping[str, Any]) -> str | None:
    """What is wrong with the handshake of such a request, if anything is.

    By :rfc:`6455` section 4.2.1, but for its version.
    """
    if environ["REQUEST_METHOD"] != "GET":
        return "its method is not GET"
    connection = environ.get("HTTP_CONNECTION", "").lower().split(",")
    if "upgrade" not in (each.strip() for each in connection):
        return (
            "its Connection header does not say Upgrade (a proxy may have removed it)"
        )
    try:
        key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "").strip()
        length = len(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        length = 0
    return None if length == 16 else "its Sec-WebSocket-Key is not 16 bytes in base64"


NOT_OFFERED = """\
subprotocols={!r} chose {!r} for a WebSocket, and the client offered {!r}. Give one \
of those, or None to go on without."""

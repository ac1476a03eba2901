"""A WebSocket in plain WSGI code, without Pyramid's request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyramid.threadlocal import get_current_registry

from ..exceptions import explain
from ..interfaces import ISockets
from .connection import SyncWebSocket, WebSocket
from .handshake import SWITCHING, handshake_of
from .lazy import LazyChannel
from .options import VIEW_OPTIONS, Options, read_view_options
from .response import check_origin

__all__ = ["get_websocket"]


def get_websocket(
    environ: dict[str, Any], start_response: Callable[..., Any], **options: Any
) -> SyncWebSocket | None:
    """The WebSocket that a request asks for; None if it asks for none.

    ::

        def echo(environ, start_response):
            ws = get_websocket(environ, start_response)
            if ws is None:
                ...
            for message in ws:
                ws.send(message)
            return []

    It is accepted when it is first used, and closed when the application
    returns. What it returns then is not sent.

    Args:
        environ: of the request (:pep:`3333`).
        start_response: is called with the status 101 when it is accepted.
        options: as a view has them: ``subprotocols``, ``allowed_origins``,
            ``max_size``, ``queue``, ``ping_interval``, ``ping_timeout`` and
            ``compression``.

    Raises:
        HTTPForbidden: the page that asks may not (its ``Origin``). Let it pass:
            it is the answer.
        TypeError: there is no such option.
    """
    handshake = handshake_of(environ)
    if handshake is None:
        return None
    unknown = sorted(options.keys() - set(VIEW_OPTIONS))
    if unknown:
        raise TypeError(
            explain(UNKNOWN.format(unknown, VIEW_OPTIONS), "websocket-options")
        )
    if handshake.options is None:
        # Inside of an application that includes aioext, its settings hold.
        sockets = get_current_registry().queryUtility(ISockets)
        handshake.options = Options() if sockets is None else sockets.options
    given = read_view_options(options, "that calls get_websocket()")
    handshake.options = handshake.options.with_view_options(given)
    check_origin(handshake, environ)
    handshake.choose_subprotocol(None)
    handshake.check_room()
    lazy = LazyChannel(handshake, lambda: start_response(SWITCHING, []))
    return SyncWebSocket(WebSocket(lazy))


UNKNOWN = """\
get_websocket() was given {}; it takes the options {}."""

"""A WebSocket in plain WSGI code, without Pyramid's request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyramid.httpexceptions import HTTPForbidden

from .connection import LazyChannel, SyncWebSocket, WebSocket
from .handshake import handshake_of
from .options import Options, read_view_options
from .response import WRONG_ORIGIN

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
    """
    handshake = handshake_of(environ)
    if handshake is None:
        return None
    common = handshake.options or Options()
    given = read_view_options(options, "that calls get_websocket()")
    handshake.options = common.with_view_options(given)
    if not handshake.origin_is_allowed:
        raise HTTPForbidden(WRONG_ORIGIN.format(environ["HTTP_ORIGIN"]))
    handshake.choose_subprotocol(None)
    lazy = LazyChannel(handshake, lambda: start_response("101 Switching Protocols", []))
    return SyncWebSocket(WebSocket(lazy))

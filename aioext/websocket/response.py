"""The response that turns a request into a WebSocket.

It goes through tweens and response callbacks as any response does, so cookies
and headers that they set are a part of the handshake. Its *body* is the handler:
a server that knows nothing of WebSockets iterates over a body once the router has
returned, and so does the :class:`~aioext.gateway.Gateway`. That is why a handler
starts when the transaction of its request has been committed, and finished
callbacks have run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from pyramid.httpexceptions import (
    HTTPBadRequest,
    HTTPClientError,
    HTTPException,
    HTTPForbidden,
    HTTPNotImplemented,
)
from pyramid.interfaces import IRequest
from pyramid.response import Response
from pyramid.threadlocal import get_current_request

from .. import bridge
from ..exceptions import ConnectionClosed
from ..executor import Executor
from ..interfaces import ISockets
from .channel import INTERNAL_ERROR, NORMAL
from .connection import WebSocket
from .handler import Handler
from .handshake import (
    KEY,
    REFUSAL,
    VERSION,
    Handshake,
    asks_for_websocket,
    handshake_of,
    malformation,
)

__all__ = [
    "HTTPUpgradeRequired",
    "WebSocketBody",
    "WebSocketResponse",
    "admit",
    "check_origin",
    "upgrade_error",
]

log = logging.getLogger("aioext")


class HTTPUpgradeRequired(HTTPClientError):
    """The request has to become a WebSocket (:rfc:`9110` section 15.5.22)."""

    code = 426
    title = "Upgrade Required"
    explanation = "This is the address of a WebSocket. Open it with a WebSocket client."

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        # A WSGI server may refuse an application that says it: it belongs to the
        # connection. Our own gateway passes it on, and so does uWSGI.
        if "asgi.scope" in environ or "uwsgi.version" in environ:
            self.headers["Upgrade"] = "websocket"
        return super().__call__(environ, start_response)


def upgrade_error(environ: dict[str, Any]) -> HTTPException:
    """The response to a request for a WebSocket that cannot become one."""
    if not asks_for_websocket(environ):
        return HTTPUpgradeRequired()
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION", "").strip() != VERSION:
        # By RFC 6455 section 4.4, with the version that is spoken here.
        return HTTPUpgradeRequired(
            "The version of the WebSocket protocol has to be 13.",
            headers=[("Sec-WebSocket-Version", VERSION)],
        )
    wrong = malformation(environ)
    if wrong is not None:
        return HTTPBadRequest(f"The WebSocket handshake is malformed: {wrong}.")
    return environ.get(REFUSAL) or HTTPNotImplemented(NO_SOCKETS)


def admit(request: IRequest) -> Handshake:
    """Check that a request may become a WebSocket, and choose the subprotocol.

    Raises:
        HTTPException: it may not.
    """
    handshake = handshake_of(request.environ)
    if handshake is None:
        raise upgrade_error(request.environ)
    if handshake.options is None:
        sockets = request.registry.queryUtility(ISockets)
        handshake.options = None if sockets is None else sockets.options
    check_origin(handshake, request.environ)
    handshake.choose_subprotocol(request)
    handshake.check_room()
    return handshake


def check_origin(handshake: Handshake, environ: dict[str, Any]) -> None:
    """Raise ``HTTPForbidden`` for a page that may not open the WebSocket."""
    if not handshake.origin_is_allowed:
        raise HTTPForbidden(WRONG_ORIGIN.format(environ["HTTP_ORIGIN"]))


class WebSocketResponse(Response):
    """Accepts a WebSocket, and has ``handler(ws)`` serve it.

    Return it from a view, once ``request.is_websocket`` is true::

        if request.is_websocket:
            return WebSocketResponse(talk)

    Args:
        handler: a coroutine function, which gets a
            :class:`~aioext.websocket.WebSocket`, or an ordinary function, which
            gets a :class:`~aioext.websocket.SyncWebSocket` and runs in a
            greenlet on the loop.
        request: the request; by default the one that is under way.
        executor: runs a handler that is no coroutine in threads of its own.

    Raises:
        HTTPForbidden: the page that asks may not (its ``Origin``).
        HTTPUpgradeRequired: the request is no handshake of a WebSocket.
    """

    def __init__(
        self,
        handler: Callable[[Any], Any] | Handler,
        request: IRequest | None = None,
        *,
        executor: Executor | None = None,
    ) -> None:
        super().__init__(status=101)
        for name in ("Content-Type", "Content-Length"):
            self.headers.pop(name, None)
        if request is None:
            request = get_current_request()
        if not isinstance(handler, Handler):
            handler = Handler(handler, executor)
        self._handler = handler
        self._request = request
        # Pyramid takes it from the request at the router's end, to break a cycle.
        self._context = getattr(request, "context", None)
        if request is not None:
            admit(request)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        handshake = handshake_of(environ)
        if handshake is None:
            return upgrade_error(environ)(environ, start_response)
        # Without a request, nobody has asked so far.
        check_origin(handshake, environ)
        handshake.answer(start_response, self.headerlist)
        return WebSocketBody(handshake, self._handler, self._request, self._context)


class WebSocketBody:
    """The body of the response: it has no bytes, and lasts as long as the handler.

    The gateway awaits :meth:`run` if it gets this object, and iterates over what
    a WSGI middleware has wrapped around it otherwise.
    """

    def __init__(
        self, handshake: Handshake, handler: Handler, request: Any, context: Any
    ) -> None:
        self._handshake = handshake
        self._handler = handler
        self._request = request
        self._context = context

    def __iter__(self) -> Iterator[bytes]:
        bridge.wait(self._handshake.serve(self.run()))
        return iter(())

    async def run(self) -> None:
        """Accept the WebSocket, call the handler, and close the WebSocket.

        What the handler raises is logged, and closes it with 1011.
        """
        channel = await self._handshake.accept()
        request = self._request
        _forget_callbacks(request)
        lends_context = request is not None and not hasattr(request, "context")
        if lends_context:
            request.context = self._context
        code = NORMAL
        try:
            await self._handler(WebSocket(channel, request))
        except Exception as error:
            # That is how a handler learns that its client has left.
            if not (channel.closed and is_closed(error)):
                log.exception(FAILED, self._handler.description)
                code = INTERNAL_ERROR
        finally:
            if lends_context:
                vars(request).pop("context", None)
        await channel.close(code)


def is_end_of_websocket(environ: dict[str, Any], error: BaseException) -> bool:
    """Whether ``error`` says that the WebSocket of this request has ended.

    And not another one, which the application uses as a client.
    """
    handshake = environ.get(KEY)
    return handshake is not None and handshake.has_ended and is_closed(error)


def is_closed(error: BaseException) -> bool:
    """Whether ``error`` says that a WebSocket is closed, and nothing else."""
    if isinstance(error, BaseExceptionGroup):
        # Of a task group, in which several may have used it.
        return all(map(is_closed, error.exceptions))
    return isinstance(error, ConnectionClosed)


def _forget_callbacks(request: Any) -> None:
    # They have been called. Empty, they take 1.5 KiB for as long as it is open.
    for name in ("response_callbacks", "finished_callbacks"):
        if request is not None and not getattr(request, name, True):
            delattr(request, name)


NO_SOCKETS = """\
This server cannot open WebSockets. Serve the application with gunicorn and aioext's \
worker, with uWSGI in its asyncio mode, or with an ASGI server."""

WRONG_ORIGIN = """\
A page of {} may not open this WebSocket. The application allows it in the setting \
aioext.websocket.origins, or in the view's allowed_origins."""

FAILED = "aioext: %s, which serves a WebSocket, failed"

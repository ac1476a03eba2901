"""What WebSockets add to a configurator: the mapper, the options of its views,
the predicate, and what a request tells.

The mappers are importable from here, as aiopyramid's users wrote.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from pyramid.config import PHASE1_CONFIG
from pyramid.exceptions import ConfigurationError
from pyramid.httpexceptions import HTTPServiceUnavailable
from pyramid.response import Response
from pyramid.viewderivers import DefaultViewMapper
from zope.interface import implementer

from ..config.derivers import mapper_of
from ..config.mappers import AioextMapper, describe
from ..exceptions import explain
from ..executor import Executor
from ..interfaces import IExecutor, ISettings, ISockets
from ..request import RequestPredicate, add_request_attribute
from ..views import kind_of
from .connection import SyncWebSocket, WebSocket
from .handler import Handler, check_kind, is_synchronous, make_binder
from .handshake import SWITCHING, Handshake, handshake_of
from .lazy import LazyChannel
from .options import VIEW_OPTIONS, Options, read_view_options
from .origin import check_pattern
from .response import WebSocketResponse, admit

__all__ = ["UWSGIWebsocketMapper", "WebsocketMapper"]

# After the settings, which PHASE1 registers.
AFTER_SETTINGS = PHASE1_CONFIG + 1
# Where a request keeps what request.websocket gives.
KEPT = "_aioext_websocket"


class WebsocketMapper(DefaultViewMapper):
    """Has a view serve a WebSocket; see :doc:`/websocket`.

    The view takes ``(ws)``, ``(request, ws)`` or ``(context, request, ws)``.

    Raises:
        ConfigurationError: when the view is configured, if it takes anything
            else, or can serve no WebSocket.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._in_threads = bool(options.get("executor"))

    def __call__(self, view: Any) -> Callable[[Any, Any], Any]:
        kind = kind_of(view, self.attr)
        what = describe(view, self.attr)
        check_kind(kind, what, self._in_threads)
        bind = make_binder(view, self.attr)
        waits_by_itself = is_synchronous(kind)

        def websocket_view(context: Any, request: Any) -> Any:
            handshake = admit(request)
            handshake.is_synchronous = waits_by_itself
            executor = _reserve(request, handshake) if self._in_threads else None
            handler = Handler(bind(context, request), executor, kind, what)
            return WebSocketResponse(handler, request)

        return websocket_view


class UWSGIWebsocketMapper(WebsocketMapper):
    """The name that aiopyramid had for the mapper under uWSGI."""


class Threads(Executor):
    """The threads for handlers that block: one for each, as long as it runs."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self._counting = threading.Lock()
        self._reserved = 0

    def reserve(self) -> bool:
        """Whether there is a thread left; it is taken then."""
        with self._counting:
            if self._reserved >= self.workers:
                return False
            self._reserved += 1
            return True

    def free(self) -> None:
        """Give one back."""
        with self._counting:
            self._reserved -= 1


def _reserve(request: Any, handshake: Handshake) -> Threads:
    threads = request.registry.getUtility(ISockets).threads
    # A request that is tried again has its thread already.
    if not handshake.has_thread:
        if not threads.reserve():
            raise HTTPServiceUnavailable(NO_THREAD)
        handshake.has_thread = True
        handshake.at_end(threads.free)
    return threads


@implementer(ISockets)
class Sockets:
    """What an application's WebSockets have in common."""

    def __init__(self, options: Options, threads: Threads) -> None:
        self.options = options
        self.threads = threads
        self.not_applied: list[str] = []


def includeme(config: Any) -> None:
    """Add what WebSockets need; ``config.include('aioext')`` does so."""
    config.action(None, _register, (config,), order=AFTER_SETTINGS)
    config.add_view_deriver(websocket_options, "aioext_websocket_options")
    config.add_view_predicate("is_websocket", IsWebsocketPredicate)
    add_request_attribute(config, is_websocket)
    add_request_attribute(config, websocket)
    for face in (WebSocket, SyncWebSocket):
        config.add_response_adapter(_served, face)


def _register(config: Any) -> None:
    registry = config.registry
    options = Options.of(registry)
    for pattern in options.origins:
        try:
            check_pattern(pattern)
        except ValueError as error:
            message = f"The setting aioext.websocket.origins takes {error}."
            raise ConfigurationError(explain(message, "settings")) from None
    threads = Threads(registry.getUtility(ISettings).websocket_threads)
    sockets = Sockets(options, threads)
    own = registry.settings or {}
    for name in NOT_EVERYWHERE:
        if f"aioext.websocket.{name}" in own:
            sockets.not_applied.append(f"aioext.websocket.{name}")
    registry.registerUtility(sockets, ISockets)
    registry.registerUtility(threads, IExecutor, name="websocket")


# Limits that belong to the protocol, and so to the server that speaks it.
NOT_EVERYWHERE = ("ping_interval", "ping_timeout", "compression")


def websocket_options(view: Any, info: Any) -> Any:
    """View deriver: tell a handshake what its view wants of the WebSocket.

    Raises:
        ConfigurationError: an option has a value that is not allowed, or is there
            for nothing.
    """
    what = describe(info.original_view, info.options.get("attr"))
    if info.options.get("executor"):
        _check_has_handler(info, what)
    given = read_view_options(info.options, what)
    if not given:
        return view
    unheard = [name for name in NOT_EVERYWHERE if name in given]
    cached: list[Options] = []

    def view_with_options(context: Any, request: Any) -> Any:
        handshake = handshake_of(request.environ)
        if handshake is not None:
            if not cached:
                common = request.registry.getUtility(ISockets).options
                cached.append(common.with_view_options(given))
            handshake.options = cached[0]
        return view(context, request)

    if unheard:
        _tell_limits(info.registry, f"{', '.join(unheard)} of {what}")
    return view_with_options


websocket_options.options = (*VIEW_OPTIONS, "executor")  # type: ignore[attr-defined]


def _check_has_handler(info: Any, what: str) -> None:
    # Somebody else's mapper may take executor= for what it likes.
    mapper = mapper_of(info)
    if isinstance(mapper, type) and issubclass(mapper, AioextMapper):
        raise ConfigurationError(explain(NO_HANDLER.format(what), "websocket-options"))


def _tell_limits(registry: Any, told: str) -> None:
    sockets = registry.queryUtility(ISockets)
    if sockets is not None:
        sockets.not_applied.append(told)


def is_websocket(request: Any) -> bool:
    """Whether the request is the handshake of a WebSocket."""
    return handshake_of(request.environ) is not None


class IsWebsocketPredicate(RequestPredicate):
    """The view predicate ``is_websocket=True`` or ``False``."""

    attribute = staticmethod(is_websocket)


def websocket(request: Any) -> WebSocket | SyncWebSocket | None:
    """The WebSocket of the request, accepted when it is first used.

    None for any other request. A coroutine gets a :class:`WebSocket`, a view
    that is none a :class:`SyncWebSocket`.

    Raises:
        HTTPForbidden: the page that asks may not (its ``Origin``).
    """
    handshake = handshake_of(request.environ)
    if handshake is None:
        return None
    ws = vars(request).get(KEPT)
    if ws is None:
        ws = vars(request)[KEPT] = _lazy_websocket(request)
        # It leads back to the request, and the collector comes seldom.
        handshake.at_end(lambda: vars(request).pop(KEPT, None))
    # Who asks first may be a tween, before it is known which view there will be.
    return SyncWebSocket(ws) if handshake.is_synchronous else ws


def _lazy_websocket(request: Any) -> WebSocket:
    handshake = admit(request)

    def start() -> None:
        handshake.start_response(SWITCHING, request.response.headerlist)

    return WebSocket(LazyChannel(handshake, start), request)


def _served(ws: Any) -> Response:
    # What a view returns that has used request.websocket itself: nothing is sent.
    return Response()


NO_HANDLER = """\
The view {} has executor=True, which runs the handler of a WebSocket in a thread, and \
is none: give it mapper=WebsocketMapper as well. Where an ordinary view runs, \
mapper=ExecutorMapper or InlineMapper says."""

NO_THREAD = """\
All threads for WebSockets are taken (the setting aioext.websocket.threads). Try \
again later."""

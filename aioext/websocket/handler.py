"""The callable that serves a WebSocket: how it is called, and where it runs."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid.util import object_description
from pyramid.viewderivers import requestonly

from .. import bridge, greenlets
from ..exceptions import explain
from ..executor import Executor
from ..views import COROUTINES, Kind, drive, kind_of, make_awaitable
from .connection import SyncWebSocket, WebSocket

__all__ = ["Handler", "make_binder"]

GENERATORS = (Kind.GENERATOR, Kind.WRAPPED_GENERATOR)
WRAPPED = (Kind.WRAPPED_COROUTINE, Kind.WRAPPED_GENERATOR)
POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
ROLES = ("context", "request", "ws")

# Gives the callable that takes a WebSocket, for one request.
Binder = Callable[[Any, Any], Callable[[Any], Any]]


class Handler:
    """Serves one WebSocket.

    Args:
        function: called with the WebSocket: a coroutine function or a generator
            function gets a :class:`~aioext.websocket.WebSocket`, any other
            callable a :class:`~aioext.websocket.SyncWebSocket`.
        executor: where one that is no coroutine runs; None: in a greenlet on
            the loop.
        kind: what comes of calling it, if that is known.
        description: how it is called in a message.
    """

    __slots__ = ("_executor", "_function", "_kind", "description")

    def __init__(
        self,
        function: Callable[[Any], Any],
        executor: Executor | None = None,
        kind: Kind | None = None,
        description: str | None = None,
    ) -> None:
        self._function = function
        self._executor = executor
        self._kind = kind_of(function) if kind is None else kind
        if kind is None:
            make_awaitable(function)
        self.description = description or object_description(function)

    def __call__(self, ws: WebSocket) -> Awaitable[Any]:
        """What is to be awaited for it to serve ``ws``."""
        if self._kind is Kind.COROUTINE:
            return greenlets.stepped(self._function(ws))
        if self._kind is Kind.GENERATOR:
            return greenlets.stepped(drive(self._function(ws)))
        if self._kind in WRAPPED:
            return greenlets.stepped(self._call_wrapped(ws))
        return self._call(SyncWebSocket(ws))

    async def _call_wrapped(self, ws: WebSocket) -> None:
        # A decorator may wait before it calls what it decorates, and may give
        # anything that can be awaited, or nothing.
        result = self._function(ws)
        if inspect.isgenerator(result):
            await drive(result)
        elif inspect.isawaitable(result):
            await result

    async def _call(self, ws: SyncWebSocket) -> None:
        if self._executor is None:
            result = await bridge.spawn_greenlet(self._function, ws)
        else:
            result = await self._executor.run(self._function, ws)
        if inspect.isawaitable(result):
            await result


def is_synchronous(kind: Kind) -> bool:
    """Whether a handler of this kind gets a WebSocket that waits by itself."""
    return kind not in COROUTINES and kind not in GENERATORS


def make_binder(view: Any, attr: str | None) -> Binder:
    """How the handlers of ``view`` come about, from its parameters.

    Raises:
        ConfigurationError: the view takes something else than ``ws``,
            ``request`` and ``context``.
    """
    make_awaitable(view, attr)
    if not inspect.isclass(view):
        function = getattr(view, attr) if attr else view
        return _bind_function(function, _roles_of(function, view))
    method = attr or "__call__"
    # Not by getattr(): a class has the __call__ of its own class.
    found = [vars(each)[method] for each in view.__mro__ if method in vars(each)]
    if not found:
        _refuse(NO_METHOD.format(object_description(view), method))
    bound = isinstance(found[0], (staticmethod, classmethod))
    roles = _roles_of(getattr(view, method), view, skip=0 if bound else 1)
    takes_request_only = requestonly(view)

    def bind(context: Any, request: Any) -> Callable[[Any], Any]:
        instance = view(request) if takes_request_only else view(context, request)
        return _bind_function(getattr(instance, method), roles)(context, request)

    return bind


def _bind_function(function: Callable[..., Any], roles: tuple[str, ...]) -> Binder:
    if roles == ("ws",):
        return lambda context, request: function

    def bind(context: Any, request: Any) -> Callable[[Any], Any]:
        def handler(ws: Any) -> Any:
            given = {"context": context, "request": request, "ws": ws}
            return function(*[given[role] for role in roles])

        return handler

    return bind


def _roles_of(function: Any, view: Any, skip: int = 0) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        # Something built in, which does not tell.
        return ("ws",)
    names = [
        each.name
        for each in parameters
        if each.kind in POSITIONAL and each.default is each.empty
    ][skip:]
    roles = _roles_by_name(names) or _roles_by_place(names)
    return roles or _refuse(PARAMETERS.format(object_description(view), names))


def _roles_by_name(names: list[str]) -> tuple[str, ...] | None:
    # One name may be anything, and is the WebSocket's if no other one is.
    roles = ["ws" if name not in ROLES else name for name in names]
    return tuple(roles) if 0 < len(roles) == len(set(roles)) else None


def _roles_by_place(names: list[str]) -> tuple[str, ...] | None:
    roles = ROLES[-len(names) :] if 0 < len(names) <= len(ROLES) else ()
    for name, role in zip(names, roles, strict=False):
        if name in ROLES and name != role:
            return None
    return roles or None


def _refuse(message: str) -> Any:
    raise ConfigurationError(explain(message, "websocket-handler"))


def check_kind(kind: Kind, what: str, in_threads: bool) -> None:
    """Raise ``ConfigurationError`` for what cannot serve a WebSocket."""
    if kind is Kind.ASYNC_GENERATOR:
        _refuse(ASYNC_GENERATOR.format(what))
    if in_threads and not is_synchronous(kind):
        _refuse(NOT_IN_THREADS.format(what))


NO_METHOD = """\
The view {} is a class without a method {}(), and WebsocketMapper is to call it \
with the WebSocket. Define it, or name another method with attr=."""

PARAMETERS = """\
The view {} takes {}, and WebsocketMapper gives (ws), (request, ws) or (context, \
request, ws). Name its parameters so, in any order."""

ASYNC_GENERATOR = """\
The view {} is an asynchronous generator. A WebSocket is served by a coroutine \
that sends: write `await ws.send(message)` instead of `yield message`."""

NOT_IN_THREADS = """\
The view {} is a coroutine, and executor=True would run it in a thread. Leave \
executor= out, or write the view as a function."""

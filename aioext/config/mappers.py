"""View mappers: where a view runs, and what waits for it.

A view mapper is Pyramid's own place to say how a view is called. Each of these
calls the view through Pyramid's default mapper, so every signature that Pyramid
knows works; what the view gives is then waited for, in the request's greenlet,
if it has to be.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, NoReturn

from pyramid.exceptions import ConfigurationError
from pyramid.viewderivers import DefaultViewMapper
from webob import Response

from .. import bridge
from ..body import adapt_body
from ..exceptions import explain
from ..executor import current_executor
from ..hooks.derivers import describe
from ..hooks.values import is_coroutine, settle
from ..views import Kind, drive, kind_of, make_awaitable, resolve_partial
from ..websocket.handshake import handshake_of

__all__ = [
    "AioextMapper",
    "CoroutineMapper",
    "CoroutineOrExecutorMapper",
    "ExecutorMapper",
    "InlineMapper",
    "describe",
]

MappedView = Callable[[Any, Any], Any]


class AioextMapper(DefaultViewMapper):
    """What the mappers have in common; not a mapper itself."""

    def __call__(self, view: Any) -> MappedView:
        kind = kind_of(view, self.attr)
        if kind is Kind.ASYNC_GENERATOR:
            refuse(view, self.attr, ASYNC_GENERATOR)
        make_awaitable(view, self.attr)
        mapped = self.map(view, kind)
        if kind in (Kind.FUNCTION, Kind.SYNCHRONIZED):
            return _telling_websockets(mapped)
        return mapped

    def map(self, view: Any, kind: Kind) -> MappedView:
        """Call ``view``, a callable of that kind, through Pyramid's own mapper."""
        if not self.attr:
            view = resolve_partial(view)
        mapped = super().__call__(view)
        return _with_text_of(mapped, self.adapt(view, mapped, kind))

    def adapt(self, view: Any, mapped: MappedView, kind: Kind) -> MappedView:
        """Wrap ``mapped``, which calls ``view``, a callable of that kind."""
        raise NotImplementedError


def refuse(view: Any, attr: str | None, why: str) -> NoReturn:
    """Raise the ``ConfigurationError`` that names the view."""
    message = why.format(describe(view, attr))
    raise ConfigurationError(explain(message, "view-mapper"))


class CoroutineMapper(AioextMapper):
    """Runs a coroutine view on the loop; refuses any other.

    Raises:
        ConfigurationError: when the view is configured, if it is no coroutine.
    """

    def adapt(self, view: Any, mapped: MappedView, kind: Kind) -> MappedView:
        if kind is Kind.FUNCTION:
            refuse(view, self.attr, NOT_A_COROUTINE)
        return _in_greenlet(mapped)


class ExecutorMapper(AioextMapper):
    """Runs an ordinary view in a thread of the executor; refuses coroutines.

    Raises:
        ConfigurationError: when the view is configured, if it is a coroutine.
    """

    def adapt(self, view: Any, mapped: MappedView, kind: Kind) -> MappedView:
        if kind in (Kind.COROUTINE, Kind.GENERATOR, Kind.WRAPPED_COROUTINE):
            refuse(view, self.attr, NOT_A_FUNCTION)
        return _in_executor(mapped)


class InlineMapper(AioextMapper):
    """Runs any view in the request's greenlet.

    Right for views whose I/O waits through the bridge. A view that blocks by
    other means blocks the loop.
    """

    def adapt(self, view: Any, mapped: MappedView, kind: Kind) -> MappedView:
        return _in_greenlet(mapped)


class CoroutineOrExecutorMapper(AioextMapper):
    """Runs a coroutine view on the loop, any other in the executor.

    The default mapper of an application that includes aioext.

    A function that decorates a coroutine function is called in the executor,
    for it may block; a coroutine that it returns runs on the loop.
    """

    def adapt(self, view: Any, mapped: MappedView, kind: Kind) -> MappedView:
        if kind in (Kind.COROUTINE, Kind.GENERATOR, Kind.SYNCHRONIZED):
            return _in_greenlet(mapped)
        return _in_executor(mapped)


def _with_text_of(mapped: MappedView, adapted: MappedView) -> MappedView:
    # What Pyramid calls a view in its messages.
    if hasattr(mapped, "__text__"):
        adapted.__text__ = mapped.__text__  # type: ignore[attr-defined]
    return adapted


def _telling_websockets(mapped: MappedView) -> MappedView:
    # request.websocket is another object for a view that awaits nothing.
    def synchronous_view(context: Any, request: Any) -> Any:
        handshake = handshake_of(request.environ)
        if handshake is not None:
            handshake.is_synchronous = True
        return mapped(context, request)

    return _with_text_of(mapped, synchronous_view)


def _in_greenlet(mapped: MappedView) -> MappedView:
    def greenlet_view(context: Any, request: Any) -> Any:
        result = mapped(context, request)
        if not isinstance(result, Response):
            result = _settle(result)
        return adapt_body(result)

    return greenlet_view


def _in_executor(mapped: MappedView) -> MappedView:
    def executor_view(context: Any, request: Any) -> Any:
        executor = current_executor()
        returned = executor.call(mapped, context, request)
        result = _settle(returned)
        if result is not returned or not bridge.in_bridge():
            # A coroutine's body is iterated over on the loop, as it ran there.
            executor = None
        return adapt_body(result, executor)

    return executor_view


def _settle(result: Any) -> Any:
    # A decorator may hide what it wraps, so the result is asked, not the view.
    if type(result) is types.GeneratorType and is_coroutine(result):
        # What it yields may be meant for a body, which it is then told.
        return settle(drive(result))
    return settle(result)


NOT_A_COROUTINE = """\
The view {} is not a coroutine, and CoroutineMapper takes nothing else. Write \
it as async def, or leave mapper= out. If a decorator hides the coroutine, have it \
use functools.wraps."""

NOT_A_FUNCTION = """\
The view {} is a coroutine, which runs on the event loop: ExecutorMapper would \
not take it to a thread. Leave mapper= out, or write the view as a function."""

ASYNC_GENERATOR = """\
The view {} is an asynchronous generator, which gives no response. To stream a \
body, write a view that returns Response(app_iter=generator()); to give a generator to \
a renderer, one that returns generator()."""

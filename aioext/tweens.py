"""Tweens that are coroutine functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from .around import asynchronous, synchronous
from .exceptions import explain

__all__ = ["async_tween"]

Handler = Callable[[Any], Any]


def async_tween(factory: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Handler]:
    """Let a tween be a coroutine function: decorates its factory.

    ::

        @async_tween
        def timing(handler, registry):
            async def tween(request):
                async with registry["limiter"]:
                    return await handler(request)

            return tween

        # elsewhere
        config.add_tween("application.timing")

    The tween may stand anywhere among ordinary ones. ``handler`` is a coroutine
    function here: the rest of the request, which runs where the tween was called, in
    the request's greenlet or thread. It may be awaited in a Task of its own as well,
    by ``asyncio.timeout()``, ``asyncio.TaskGroup`` and the like.

    Args:
        factory: a function of ``(handler, registry)`` that gives a tween, or a class
            of that whose instances have ``async def __call__(self, request)``. It may
            give ``handler`` back, to stay out of the way.

    Returns:
        the tween factory, a function.

    Raises:
        TypeError: ``factory`` is a coroutine function itself.

    Cancellation: raised in the tween where it awaits, and through it in the rest of
    the request. In a thread, a Task that still awaits the handler when the tween
    returns is cancelled.
    """
    if inspect.iscoroutinefunction(factory):
        raise TypeError(explain(NOT_A_FACTORY.format(factory), "async-tween"))

    @functools.wraps(factory, updated=())
    def tween_factory(handler: Handler, registry: Any) -> Handler:
        async_handler = asynchronous(handler)
        tween = factory(async_handler, registry)
        return handler if tween is async_handler else synchronous(tween)

    return tween_factory


NOT_A_FACTORY = """\
async_tween() takes a tween factory, a function of (handler, registry) that returns \
the tween; it got the coroutine function {!r}. Put the decorator above the function \
that the tween is defined in."""

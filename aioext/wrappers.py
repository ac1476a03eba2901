"""Decorators and derivers of views that make coroutine functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from .around import asynchronous, synchronous
from .exceptions import explain

__all__ = ["async_wrapper"]

View = Callable[[Any, Any], Any]


def async_wrapper(make: Callable[..., Any]) -> Callable[..., View]:
    """Let what wraps a view be a coroutine function: decorates what makes it.

    ::

        @async_wrapper
        def limited(view):
            async def wrapper(context, request):
                async with request.registry["limiter"]:
                    return await view(context, request)

            return wrapper

        config.add_view(report, decorator=limited)

    A view deriver is written in the same way, as ``def limited(view, info)``.

    ``view`` is a coroutine function here: the rest of the view, which runs where it
    would without the wrapper. It gives a response, whatever the view gives, and may
    be awaited in a Task of its own, by ``asyncio.timeout()`` and the like.

    Args:
        make: a function that is given the view, or the view and Pyramid's ``info``,
            and gives the wrapper; or a class whose instances have ``async def
            __call__(self, context, request)``. It may give ``view`` back.

    Returns:
        the decorator, or deriver, as Pyramid takes it: a function.

    Raises:
        TypeError: ``make`` is a coroutine function itself.

    Cancellation: raised in the wrapper where it awaits, and through it in the view.
    In a thread, a Task that still awaits the view when the wrapper returns is
    cancelled.
    """
    if inspect.iscoroutinefunction(make):
        raise TypeError(explain(NOT_A_MAKER.format(make), "async-wrapper"))

    @functools.wraps(make, updated=() if inspect.isclass(make) else ("__dict__",))
    def wrap(view: View, *info: Any) -> View:
        async_view = asynchronous(view)
        wrapper = make(async_view, *info)
        return view if wrapper is async_view else synchronous(wrapper)

    return wrap


NOT_A_MAKER = """\
async_wrapper() takes the function that a view is given to, and that returns the \
wrapper; it got the coroutine function {!r}. Put the decorator above the function \
that this one is defined in."""

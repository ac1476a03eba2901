"""What is done with awaitables, and with exceptions, before and after a wait."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from .exceptions import explain

__all__ = ["call_while_handling", "check_awaitable", "close"]


def close(awaitable: Any) -> None:
    """Close what will not be awaited, so that nobody warns about it.

    A Task or a Future is left alone: somebody else may wait for it.
    """
    if isinstance(awaitable, Coroutine):
        awaitable.close()


def check_awaitable(awaitable: Any, who: str = "wait") -> None:
    """Raise ``TypeError`` for what cannot be awaited, and was given to ``who``."""
    if not inspect.isawaitable(awaitable):
        message = NOT_AWAITABLE.format(awaitable, who=who)
        raise TypeError(explain(message, "not-awaitable"))


NOT_AWAITABLE = """\
{who}() takes an awaitable (a coroutine, a Task, a Future), got {!r}. If that is \
a coroutine function, call it: {who}(function())."""


def call_while_handling(
    handled: BaseException,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Call ``fn(*args, **kwargs)`` while ``handled`` is being handled.

    A greenlet starts with no exception being handled: without this, a bare
    ``raise`` or ``log.exception()`` in ``fn`` would not find the caller's.
    """
    traceback = handled.__traceback__
    try:
        raise handled
    except BaseException:
        handled.__traceback__ = traceback
        del handled, traceback
        return fn(*args, **kwargs)

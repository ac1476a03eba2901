"""The bridge: synchronous code waits for coroutines, and the loop goes on.

Theory of operation
===================

:func:`wait` may be called by any synchronous code, and looks where it is:

=============================================  ==============================
it is called                                   and the awaitable is driven
=============================================  ==============================
in a greenlet of ours, or in one whose         in that greenlet; its Task
ancestor is ours, in the Task of that          waits (:mod:`aioext.greenlets`)
ancestor
in a greenlet of SQLAlchemy's                  by SQLAlchemy's driver
on a running loop with no bridge around it     nowhere: ``ScopeError``
in a thread of the executor                    on the request's loop; the
                                               thread waits
                                               (:mod:`aioext.threads`)
in another thread                              on the loop that serves this
                                               process, else on a background
                                               loop (:mod:`aioext.background`)
=============================================  ==============================

The third row is the one that users meet: a wait there would block the loop
that is to do the work. It is refused rather than hung, and what to write
instead stands in the message. A Task that synchronous code creates is such a
place, whatever ran when it was created.

:func:`spawn_greenlet` is the way back: from a coroutine to synchronous code
that may wait.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal, ParamSpec, TypeVar, overload

from . import background, greenlets, threads
from .exceptions import ScopeError, explain
from .views import mark_synchronized

__all__ = ["in_bridge", "spawn_greenlet", "synchronize", "wait"]

P = ParamSpec("P")
T = TypeVar("T")

NO_BRIDGE = """\
{what} was to be waited for on the event loop, by synchronous code that no \
bridge surrounds: that would block the loop for ever. {where}
Write one of these instead:
    {cure:<32}  in a coroutine, without a bridge
    await spawn_greenlet(function)    around the synchronous function that waits
    await use_executor(function)()    if the function also blocks by other means"""


def wait(awaitable: Awaitable[T]) -> T:
    """Wait for ``awaitable`` in synchronous code, and give its value.

    The event loop goes on meanwhile. Works in everything that Pyramid calls
    under an aioext server, in threads of the executor, in the application's
    own threads, and where there is no loop at all.

    Args:
        awaitable: a coroutine, a Task, a Future, or an object with
            ``__await__``.

    Raises:
        ScopeError: it was called in a coroutine, with no
            :func:`spawn_greenlet` around it; or in a thread whose loop is
            closed; or under gevent. A coroutine given is closed.
        TypeError: it was given something that cannot be awaited.

    Cancellation: when the request is cancelled, ``asyncio.CancelledError`` is
    raised in ``awaitable`` first, and then out of ``wait``. ``finally`` blocks
    may wait.
    """
    try:
        job = greenlets.enclosing_job()
        if job is not None:
            return greenlets.wait_here(awaitable, job)
        return _wait_elsewhere(awaitable)
    finally:
        # A Future refers to its exception, whose traceback refers to here.
        del awaitable


def _wait_elsewhere(awaitable: Awaitable[Any]) -> Any:
    try:
        greenlets.check_awaitable(awaitable)
        provider = greenlets.foreign_provider()
        if provider is not None:
            return provider.parent.switch(awaitable)
        if loop_runs_here():
            greenlets.close(awaitable)
            raise ScopeError(_describe(awaitable))
        return _thread_scope(awaitable).wait(awaitable)
    finally:
        del awaitable


def _thread_scope(awaitable: Awaitable[Any]) -> threads.ThreadScope:
    scope = threads.current_scope()
    if scope is not None:
        return scope
    try:
        return threads.ThreadScope(background.find_loop())
    except BaseException:
        greenlets.close(awaitable)
        raise


def loop_runs_here() -> bool:
    """Whether this thread runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _describe(awaitable: Any) -> str:
    name = getattr(awaitable, "__name__", None)
    what = f"{name}()" if name else type(awaitable).__name__.lower()
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") in _OURS:
        frame = frame.f_back
    where = ""
    if frame is not None:
        where = f"It happened in {frame.f_code.co_filename}, line {frame.f_lineno}."
    return NO_BRIDGE.format(what=what, where=where, cure=f"await {what}")


_OURS = {__name__, greenlets.__name__}


def _can_wait() -> bool:
    if in_bridge() or greenlets.foreign_provider() is not None:
        return True
    return not loop_runs_here()


def in_bridge() -> bool:
    """Whether synchronous code that runs here may suspend its Task."""
    return greenlets.enclosing_job() is not None


async def spawn_greenlet(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the synchronous ``fn(*args, **kwargs)`` so that it may wait.

    It runs in this Task and thread, in a greenlet. Whatever it calls may use
    :func:`wait`; the loop goes on meanwhile. Code that blocks by other means
    still blocks the loop.

    Returns:
        what ``fn`` returns; if that is a coroutine, the coroutine.

    Raises:
        BaseException: what ``fn`` raises. A ``StopIteration``, which no
            coroutine can pass on (:pep:`479`), becomes the cause of a
            ``RuntimeError``.

    Cancellation: raised in ``fn`` where it waits. If the coroutine is closed
    instead of cancelled, ``GeneratorExit`` is raised there, and ``finally``
    blocks run but cannot wait.
    """
    handled = sys.exc_info()[1]
    try:
        if handled is None:
            return await greenlets.run(fn, args, kwargs)
        return await greenlets.run(call_while_handling, (handled, fn, args, kwargs))
    finally:
        del handled


def call_while_handling(
    handled: BaseException,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    # A greenlet starts with no exception being handled: without this, a bare
    # ``raise`` or ``log.exception()`` in fn would not find the caller's.
    traceback = handled.__traceback__
    try:
        raise handled
    except BaseException:
        handled.__traceback__ = traceback
        del handled, traceback
        return fn(*args, **kwargs)


@overload
def synchronize(
    coroutine_function: Callable[P, Coroutine[Any, Any, T]],
    /,
    *,
    strict: Literal[True] = True,
) -> Callable[P, T]: ...


@overload
def synchronize(
    *, strict: Literal[True] = True
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, T]]: ...


@overload
def synchronize(
    coroutine_function: Callable[P, Awaitable[T]], /, *, strict: Literal[False]
) -> Callable[P, T | Awaitable[T]]: ...


@overload
def synchronize(
    *, strict: Literal[False]
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, T | Awaitable[T]]]: ...


def synchronize(coroutine_function: Any = None, /, *, strict: bool = True) -> Any:
    """Make an ordinary function of a coroutine function.

    What it makes may be called wherever :func:`wait` may, and gives the
    coroutine's value::

        @synchronize
        async def load(name): ...

    Args:
        coroutine_function: what to wrap; without it, a decorator is returned.
        strict: False has the function give the coroutine, unawaited, where it
            cannot be waited for, instead of raising ``ScopeError``; and lets it
            wrap an ordinary function that only returns awaitables.

    Raises:
        TypeError: ``coroutine_function`` is not a coroutine function, and
            ``strict`` is true.
    """
    if coroutine_function is None:
        return functools.partial(synchronize, strict=strict)
    if strict and not inspect.iscoroutinefunction(coroutine_function):
        raise TypeError(
            explain(NOT_A_COROUTINE.format(coroutine_function), "not-a-coroutine")
        )

    @functools.wraps(coroutine_function)
    def synchronized(*args: Any, **kwargs: Any) -> Any:
        awaitable = coroutine_function(*args, **kwargs)
        if not strict and not _can_wait():
            return awaitable
        return wait(awaitable)

    mark_synchronized(synchronized)
    return synchronized


NOT_A_COROUTINE = """\
synchronize() takes a coroutine function (async def), got {!r}. A function \
that is synchronous already needs no synchronize(); one that returns an \
awaitable: synchronize(strict=False)."""

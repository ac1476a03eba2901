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
in a greenlet that a server has made for a     in that greenlet, which gets a
request, and that is adopted                   Task (:mod:`aioext.adopted`)
in a greenlet of SQLAlchemy's                  by SQLAlchemy's driver
on a running loop with no bridge around it     nowhere: ``ScopeError``
in a thread of the executor                    on the request's loop; the
                                               thread waits
                                               (:mod:`aioext.threads`)
in another thread                              on the loop that serves this
                                               process, else on a background
                                               loop (:mod:`aioext.background`)
=============================================  ==============================

The fourth row is the one that users meet: a wait there would block the loop
that is to do the work. It is refused rather than hung, and what to write
instead stands in the message. A Task that synchronous code creates is such a
place, whatever ran when it was created.

:func:`spawn_greenlet` is the way back: from a coroutine to synchronous code
that may wait.

:func:`shielded` is for what a cancellation must not interrupt, a commit. What is
waited for meanwhile runs in a Task of its own, which nobody cancels but what runs in
it: a timeout of the database driver cancels the Task that it finds, and has to go on
doing so. What does not wait costs nothing more.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal, ParamSpec, TypeVar, overload

from . import greenlets, threads
from .exceptions import ScopeError, explain
from .threads import loop_runs_here
from .views import mark_synchronized

__all__ = [
    "current_loop",
    "in_bridge",
    "run",
    "shielded",
    "spawn_greenlet",
    "synchronize",
    "wait",
]

P = ParamSpec("P")
T = TypeVar("T")


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


def wait_midway(awaitable: Awaitable[T]) -> T:
    """:func:`wait` in the middle of an operation, which nobody is to find so.

    Who lets others go first when synchronous code waits, as a streamed template does,
    does not before this wait.
    """
    token = _midway.set(True)
    try:
        return wait(awaitable)
    finally:
        _midway.reset(token)
        del awaitable


def is_midway() -> bool:
    """Whether what is about to wait here is in the middle of an operation."""
    return _midway.get()


_midway: contextvars.ContextVar[bool]
_midway = contextvars.ContextVar("aioext.bridge.midway", default=False)


def _wait_elsewhere(awaitable: Awaitable[Any]) -> Any:
    try:
        greenlets.check_awaitable(awaitable)
        provider = greenlets.foreign_provider()
        if provider is not None:
            return provider.parent.switch(awaitable)
        return threads.wait(awaitable)
    finally:
        del awaitable


def _can_wait() -> bool:
    if in_bridge() or greenlets.foreign_provider() is not None:
        return True
    return not loop_runs_here()


def in_bridge() -> bool:
    """Whether synchronous code that runs here may suspend its Task."""
    return greenlets.enclosing_job() is not None


def current_loop() -> asyncio.AbstractEventLoop:
    """The event loop on which a wait here would happen.

    In a request under an aioext server, its threads included, that is the server's
    loop; elsewhere the one that serves the process, or the background loop.

    Raises:
        ScopeError: there is none, and gevent leaves no thread to run one in.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return threads.scope_here().loop


def run(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call ``fn(*args, **kwargs)`` where no server runs: in a script, in a shell.

    ``fn`` may wait, and use what waits: SQLAlchemy's ``Session`` over an
    asynchronous engine, for one. The awaitables run on a loop in the background.
    In a request there is nothing to set up, and ``fn`` is called as it is.

    Args:
        fn: a function; or a coroutine function, which is waited for.

    Returns:
        what ``fn`` returns, or its coroutine.

    Raises:
        ScopeError: it was called in a coroutine; write ``await fn(...)`` there, or
            ``await spawn_greenlet(fn, ...)``.
        TypeError: ``fn`` cannot be called. A coroutine given is closed.

    Cancellation: Ctrl-C cancels what is waited for.
    """
    if not callable(fn):
        greenlets.close(fn)
        raise TypeError(explain(NOT_CALLABLE.format(fn), "run-a-function"))
    if not _can_wait():
        name = getattr(fn, "__qualname__", repr(fn))
        raise ScopeError(RUN_ON_LOOP.format(name))
    return threads.provide(_call_and_settle, fn, args, kwargs)


def _call_and_settle(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    result = fn(*args, **kwargs)
    return wait(result) if inspect.iscoroutine(result) else result


NOT_CALLABLE = """\
aioext.run() takes a function and its arguments, got {!r}. Write \
aioext.run(function, argument), and not aioext.run(function(argument))."""

RUN_ON_LOOP = """\
aioext.run({0}) was called in a coroutine, on a running event loop. It is for \
scripts, which have none. Write one of these instead:
    await {0}(...)                   if it is a coroutine function
    await spawn_greenlet({0}, ...)   if it is a function that waits"""


def deliver_cancellation() -> None:
    """Raise the ``CancelledError`` that is due to this thread of the executor, if any.

    A thread that blocks, and does not wait, hears of a cancellation nowhere else. For
    what is not to begin any more then.
    """
    scope = None if in_bridge() or loop_runs_here() else threads.current_scope()
    if scope is not None:
        scope.deliver()


def shielded(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the synchronous ``fn(*args, **kwargs)`` so that no cancellation reaches it.

    A request that is cancelled meanwhile goes on until ``fn`` has ended. It is for
    what is worse when half done: a commit, and the cleanup after it. May be called
    in all synchronous code; where nothing can be cancelled, ``fn`` is just called.

    Raises:
        asyncio.CancelledError: a cancellation came meanwhile, and ``fn`` has ended;
            what it raised, if it did, is the cause.
        BaseException: what ``fn`` raises.

    Cancellation: delivered once, at the end. It is not kept from ``fn`` when the
    event loop itself ends, nor when the coroutine around the request is closed.
    """
    job = greenlets.enclosing_job()
    if job is not None or greenlets.foreign_provider() is not None:
        return _shielded_in_task(job, fn, args, kwargs)
    scope = None if loop_runs_here() else threads.current_scope()
    if scope is None:
        return fn(*args, **kwargs)
    with scope.defers():
        return fn(*args, **kwargs)


def _shielded_in_task(
    job: Any, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if job is not None and (job.closing or job.shield is not None):
        return fn(*args, **kwargs)
    if greenlets.own_job() is None:
        # A greenlet of somebody else's, whose parent SQLAlchemy would switch to.
        return wait(spawn_greenlet(shielded, fn, *args, **kwargs))
    with _Shield(job):
        return fn(*args, **kwargs)


class _Shield:
    # What the job waits for in this block runs in Tasks of its own. Cancellations of
    # the job's Task are kept meanwhile, and raised at the end.

    def __init__(self, job: Any) -> None:
        self._job = job
        self._cancelled: asyncio.CancelledError | None = None

    def __enter__(self) -> None:
        self._job.shield = self._wait_apart

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._job.shield = None
        cancelled, self._cancelled = self._cancelled, None
        try:
            if cancelled is not None:
                raise cancelled from error
        finally:
            # They refer to their tracebacks, which refer to here.
            del cancelled, error, traceback

    async def _wait_apart(self, awaitable: Awaitable[Any]) -> Any:
        apart = _Apart(awaitable)
        del awaitable
        task = apart.start()
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                self._cancelled = error
        return apart.result()


class _Apart:
    # A wait in a Task of its own. That never raises: SystemExit would end the loop,
    # and an error that nobody asks for, since the loop ends, would be complained about.

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        self._awaitable = awaitable
        self._context = contextvars.copy_context()
        self._value: Any = None
        # Unless it gets further: the Task was cancelled before its first step.
        self._error: BaseException | None = asyncio.CancelledError()

    def start(self) -> asyncio.Task[None]:
        coroutine = self._run()
        try:
            loop = asyncio.get_running_loop()
            return loop.create_task(coroutine, context=self._context)
        except BaseException:
            # A task factory of the application's may do anything.
            coroutine.close()
            greenlets.close(self._awaitable)
            raise

    async def _run(self) -> None:
        try:
            self._value = await greenlets.run(wait, (self._awaitable,))
            self._error = None
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        threads.adopt(self._context)
        # It may not have begun.
        greenlets.close(self._awaitable)
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            return self._value
        finally:
            # It refers to its traceback, which refers to here.
            del error


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
        return await greenlets.run(
            greenlets.call_while_handling, (handled, fn, args, kwargs)
        )
    finally:
        del handled


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

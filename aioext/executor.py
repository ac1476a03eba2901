"""Blocking code in threads: one executor for each application.

The threads are a :class:`aioext.pool.Pool`, made in the process that first uses
it, so that a server may fork after the application was loaded. A job runs under a
copy of its caller's context, and what it sets there is set for the caller
afterwards. It may wait (:func:`aioext.wait`): the awaitable runs on the caller's
loop. It runs in a greenlet of its thread, so that SQLAlchemy may wait as well
(:func:`aioext.greenlets.run_in_thread`).

A caller that is cancelled waits for its thread all the same, for a thread
cannot be ended: what it does to a transaction after the request's end would
harm the next one. The cancellation is delivered to the thread where it waits,
once; if it never does, it is raised when the thread has ended.

A caller that is cancelled before a thread was free is cancelled at once, and
nothing runs.

Many jobs may each need another one while they are not done themselves. When
all threads are taken, such a job is offered to the thread that waits for it as
well; see :mod:`aioext.threads`.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, overload

from pyramid.threadlocal import get_current_registry
from zope.interface import implementer

from . import bridge, greenlets, threads
from .interfaces import IExecutor
from .pool import Pool
from .views import show_parameters

__all__ = ["Executor", "current_executor", "use_executor"]

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_WORKERS = 32
THREAD_NAME = "aioext-executor"


class _Call:
    """One call in a thread, and what came of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.loop = asyncio.get_running_loop()
        self.ended = False
        self._ending: asyncio.Future[None] = self.loop.create_future()
        self.scope = threads.ThreadScope(self.loop)
        self.context = contextvars.copy_context()
        # Who has it may execute the call, or see to it that nobody does.
        self._claim = threading.Lock()
        self._call: Callable[[], Any] | None = call
        self._value: Any = None
        self._error: BaseException | None = None

    def execute(self) -> None:
        """Run the call, in the thread that is the first to ask for it."""
        if not self._claim.acquire(blocking=False):
            return
        try:
            with self.scope:
                self._value = self.context.run(
                    greenlets.run_in_thread, self._call, (), {}, threads.wait_around
                )
        except BaseException as error:
            self._error = error
        self._call = None
        try:
            self.loop.call_soon_threadsafe(self._end)
        except RuntimeError:
            # The loop is closed, so nobody waits for this call any more.
            pass

    def _end(self) -> None:
        self.ended = True
        if not self._ending.done():
            self._ending.set_result(None)

    async def end(self) -> None:
        """Wait for the thread, and pass every cancellation on to it."""
        cancelled = False
        while not self.ended:
            try:
                await self._ending
            except (asyncio.CancelledError, GeneratorExit) as ending:
                if self._claim.acquire(blocking=False):
                    # No thread has begun, and none will.
                    self._call = None
                    raise
                if isinstance(ending, GeneratorExit):
                    raise
                cancelled = True
                self.scope.cancel()
                # A cancelled wait has cancelled the Future too.
                self._ending = self.loop.create_future()
        if cancelled and self.scope.cancellation_pending:
            self._value = self._error = None
            raise asyncio.CancelledError

    def result(self) -> Any:
        """What the call gave; sets in this context what it set in its own."""
        threads.adopt(self.context)
        value, self._value = self._value, None
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            return value
        finally:
            del value, error


@implementer(IExecutor)
class Executor:
    """A bounded pool of threads for code that blocks.

    Args:
        workers: how many threads there are at most.
    """

    _pool: Pool | None = None

    def __init__(self, workers: int = DEFAULT_WORKERS) -> None:
        self.workers = workers
        self._lock = threading.Lock()
        _executors.add(self)

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the blocking ``fn(*args, **kwargs)`` in a thread.

        Cancellation: ends only after the thread has; see the module. A
        ``StopIteration`` becomes the cause of a ``RuntimeError``.
        """
        call = await self._perform(functools.partial(fn, *args, **kwargs))
        return call.result()

    def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``fn`` in a thread, and wait for it in synchronous code.

        Where no bridge surrounds the caller, in a thread for example, ``fn`` is
        called right here. In a coroutine, that blocks the loop.

        Cancellation: as in :meth:`run`.
        """
        if not bridge.in_bridge():
            return fn(*args, **kwargs)
        call = bridge.wait(self._perform(functools.partial(fn, *args, **kwargs)))
        return call.result()

    async def _perform(self, function: Callable[[], Any]) -> _Call:
        handled = sys.exc_info()[1]
        if handled is not None:
            # What the caller is handling, an exception view for one, is to be
            # found in the thread as well.
            function = functools.partial(
                greenlets.call_while_handling, handled, function, (), {}
            )
        del handled
        call = _Call(function)
        self._submit(call)
        await call.end()
        return call

    def _submit(self, call: _Call) -> None:
        with self._lock:
            has_thread = self._usable().submit(call.execute)
        if not has_thread:
            threads.offer(call.execute)

    def _usable(self) -> Pool:
        if self._pool is None or self._pool.pid != os.getpid():
            self._pool = Pool(self.workers, THREAD_NAME)
        return self._pool

    async def aclose(self) -> None:
        """Let the calls under way end, and then the threads.

        The loop goes on meanwhile, for those calls may wait for it. A later
        call makes new threads.

        Cancellation: the threads end all the same.
        """
        with self._lock:
            closed, self._pool = self._pool, None
        if closed is not None and closed.pid == os.getpid():
            await closed.aclose()

    def __del__(self) -> None:
        # Its threads keep their pool, and not this.
        if self._pool is not None:
            self._pool.end_soon()

    def _forget_after_fork(self) -> None:
        # The child has no such threads, and one may have held the lock.
        self._lock = threading.Lock()
        self._pool = None


_executors: weakref.WeakSet[Executor] = weakref.WeakSet()


def _forget_after_fork() -> None:
    for executor in list(_executors):
        executor._forget_after_fork()


os.register_at_fork(after_in_child=_forget_after_fork)

_default = Executor()


def current_executor() -> Executor:
    """The executor of the application whose request is under way.

    Outside of one: of this process.
    """
    return get_current_registry().queryUtility(IExecutor, default=_default)


@overload
def use_executor(
    function: Callable[P, T], /, *, executor: Executor | None = None
) -> Callable[P, Coroutine[Any, Any, T]]: ...


@overload
def use_executor(
    *, executor: Executor | None = None
) -> Callable[[Callable[P, T]], Callable[P, Coroutine[Any, Any, T]]]: ...


def use_executor(function: Any = None, /, *, executor: Executor | None = None) -> Any:
    """Make a coroutine function of a blocking function: it runs in a thread.

    Usable as ``@use_executor`` and as ``@use_executor(executor=…)``::

        @use_executor
        def read(path):
            return open(path).read()

        text = await read(path)

    Args:
        function: what to wrap; without it, a decorator is returned.
        executor: which :class:`Executor` to use; by default the one of the
            application whose request is under way.

    Cancellation: see :meth:`Executor.run`.
    """
    if function is None:
        return functools.partial(use_executor, executor=executor)

    @functools.wraps(function)
    async def in_executor(*args: Any, **kwargs: Any) -> Any:
        return await (executor or current_executor()).run(function, *args, **kwargs)

    show_parameters(in_executor)
    return in_executor

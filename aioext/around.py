"""Coroutine functions around synchronous ones: what tweens and wrappers are made of.

Theory of operation
===================

A tween, or a wrapper of a view, stands between synchronous code above and below::

    synchronous()      a function: calls a coroutine function, waits for it
        async def      of the application's
    asynchronous()     a coroutine function: calls a function, which may wait

Above runs where the request does, and below has to run there as well.

* In a greenlet of the loop's, the coroutine is driven by the greenlet that waits for
  it, and the function below gets a greenlet of its own, in whichever Task awaits it.
* In a thread (of the executor, or of a plain WSGI server) the coroutine runs on the
  loop, while the thread is blocked. The function below may block too, and what is
  above has perhaps opened something that belongs to the thread. So it is the blocked
  thread that runs it, which takes calls for as long as it waits. A :class:`_Turn`
  stands for that time. Two calls awaited at once follow each other there.

Which of the two it is belongs to the call of the tween, and not to the tween: a
context variable has it, and so does every Task that the coroutine makes.

Things that do not work
=======================

* A greenlet on the loop for the function below, always: an application that runs
  its requests in threads does so because it blocks.
* Another thread of the executor for it: a transaction, a scoped session and SQLite
  belong to the thread that made them.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from . import bridge, greenlets, threads
from .exceptions import ScopeError
from .executor import _Call as Call
from .hooks.values import settle
from .views import mark_synchronized

__all__ = ["asynchronous", "synchronous"]

_turn: contextvars.ContextVar[_Turn | None]
_turn = contextvars.ContextVar("aioext.around.turn", default=None)


def synchronous(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls ``function``, and waits for what it gives.

    What is made by :func:`asynchronous` and awaited meanwhile runs where this was
    called.
    """

    def synchronized(*args: Any, **kwargs: Any) -> Any:
        turn = None if _on_a_loop() else _Turn()
        if turn is _turn.get():
            return settle(function(*args, **kwargs))
        token = _turn.set(turn)
        try:
            result = function(*args, **kwargs)
            return settle(result) if turn is None else turn.settle(result)
        finally:
            _turn.reset(token)

    functools.update_wrapper(synchronized, function, updated=())
    mark_synchronized(synchronized)
    return synchronized


def asynchronous(
    function: Callable[..., Any],
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A coroutine function that calls the synchronous ``function``, which may wait."""

    async def asynchronous(*args: Any, **kwargs: Any) -> Any:
        turn = _turn.get()
        if turn is None:
            return await bridge.spawn_greenlet(function, *args, **kwargs)
        return await turn.call(functools.partial(function, *args, **kwargs))

    return functools.update_wrapper(asynchronous, function)


def _is_new(value: Any) -> bool:
    if not inspect.iscoroutine(value):
        return False
    return inspect.getcoroutinestate(value) == inspect.CORO_CREATED


def _on_a_loop() -> bool:
    return bridge.in_bridge() or threads.loop_runs_here()


class _Turn:
    """A thread waits for a coroutine, and runs what that awaits."""

    def __init__(self) -> None:
        self._over = False
        # What the thread is handling, in an exception view for one, is to be found
        # by what it runs.
        self._handled = sys.exc_info()[1]
        self._waiting: set[asyncio.Task[Any]] = set()

    def settle(self, value: Any) -> Any:
        """``value``, or what it gives when it is awaited by the loop."""
        if not hasattr(type(value), "__await__"):
            return settle(value)
        try:
            return bridge.wait(self._last(value))
        finally:
            self._handled = None
            # It has not begun if the request was cancelled before.
            if _is_new(value):
                value.close()

    async def _last(self, awaitable: Awaitable[Any]) -> Any:
        try:
            return await awaitable
        finally:
            self._end()

    def _end(self) -> None:
        # The thread goes on: it takes no call any more, and what it still runs, for
        # Tasks that the coroutine has left behind, is to come to an end.
        self._over = True
        for task in self._waiting:
            task.cancel()

    async def call(self, function: Callable[[], Any]) -> Any:
        """Call ``function`` in the thread.

        Raises:
            ScopeError: the thread has gone on.

        Cancellation: as in :meth:`aioext.executor.Executor.run`.
        """
        if self._over:
            raise ScopeError(TOO_LATE)
        handled = sys.exc_info()[1] or self._handled
        if handled is not None:
            function = functools.partial(
                greenlets.call_while_handling, handled, function, (), {}
            )
        del handled
        task = asyncio.current_task()
        assert task is not None
        call = Call(function)
        self._waiting.add(task)
        try:
            threads.offer(call.execute)
            await call.end()
        finally:
            self._waiting.discard(task)
        return call.result()


TOO_LATE = """\
A task that an async tween, or wrapper of a view, has left behind awaits its handler, \
and the thread that was to run it has gone on. Await the handler before the tween \
returns; asyncio.TaskGroup sees to that."""

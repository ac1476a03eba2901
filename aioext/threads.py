"""Waiting from a thread for what runs on an event loop: the thread driver.

Theory of operation
===================

A thread that is not the loop's may block, so nothing is switched there: the
awaitable goes to the loop as a Task of its own, and the thread blocks on an
*inbox* until the Task is done. The Task runs in a bridge greenlet, so that
synchronous code which the awaitable calls may wait in its turn.

The Task gets a copy of the thread's context, for a context in use cannot be
entered a second time, and what it set there is set in the thread afterwards
(:func:`adopt`). So context variables travel both ways, as within a Task.

A blocked thread is a thread to spare. The inbox also takes *calls*: when the
executor that the thread belongs to has no other thread free, what the
awaitable wants to run in that executor runs here. Otherwise as many views as
there are threads, each waiting for another call in the executor, would wait
for ever.

A :class:`ThreadScope` stands for one job of the executor. It is how a request
that is cancelled reaches its thread: what the thread waits for is cancelled,
or the next wait that it asks for, once for each cancellation, as in a Task.

Things that do not work
=======================

* ``asyncio.run_coroutine_threadsafe``: it gives the coroutine the loop's
  context, and ``concurrent.futures.CancelledError`` where synchronous code
  expects asyncio's.
* Delivering a cancellation at every wait until the thread ends: cleanup in a
  ``finally`` could never wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from . import greenlets, threadlocal
from .exceptions import ScopeError

# What blocks the thread on whose behalf this context's Task runs, if any.
blocked_scope: contextvars.ContextVar[ThreadScope | None] = contextvars.ContextVar(
    "aioext.blocked_scope", default=None
)


class _ThreadLocal(threading.local):
    scope: ThreadScope | None = None


_local = _ThreadLocal()


def adopt(
    context: contextvars.Context,
    but: frozenset[contextvars.ContextVar[Any]] = frozenset(),
) -> None:
    """Set here what was set in ``context``, a copy of this one.

    Values are compared by identity, so that no code of theirs runs. A variable
    that was reset to having no value at all keeps the one that it has here,
    and so does one that is in ``but``.
    """
    for variable, value in context.items():
        if variable.get(None) is not value and variable not in but:
            variable.set(value)


# What a wait sets in its Task's context for the Task alone.
_FOR_THE_TASK = frozenset({blocked_scope, *threadlocal.VARIABLES})


class _Wait:
    """One awaitable that a blocked thread waits for."""

    def __init__(self, scope: ThreadScope, awaitable: Awaitable[Any]) -> None:
        self.scope = scope
        self.awaitable = awaitable
        self.context = contextvars.copy_context()
        self.context.run(threadlocal.snapshot)
        self.context.run(blocked_scope.set, scope)
        self.done = False
        self.task: asyncio.Task[Any] | None = None
        self._cancelled = False

    def start(self) -> None:
        """Run the awaitable as a Task; on the loop."""
        self.task = self.scope.loop.create_task(
            _in_greenlet(self.awaitable), context=self.context
        )
        self.task.add_done_callback(self._finish)
        if self._cancelled:
            self.task.cancel()

    def _finish(self, task: asyncio.Task[Any]) -> None:
        self.done = True
        self.scope.wake()

    def cancel(self) -> bool:
        """Cancel the Task, on the loop; False if it is too late for that."""
        if self.task is None:
            self._cancelled = True
            return True
        return self.task.cancel()

    def result(self) -> Any:
        assert self.task is not None
        adopt(self.context, but=_FOR_THE_TASK)
        return self.task.result()


async def _in_greenlet(awaitable: Awaitable[Any]) -> Any:
    return await greenlets.run(_wait_there, (awaitable,))


def _wait_there(awaitable: Awaitable[Any]) -> Any:
    job = greenlets.enclosing_job()
    assert job is not None
    return greenlets.wait_here(awaitable, job)


class ThreadScope:
    """A thread that may wait for ``loop``; while it does, it takes calls."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waits: list[_Wait] = []
        self._cancellations = 0

    def __enter__(self) -> ThreadScope:
        self._outer, _local.scope = _local.scope, self
        return self

    def __exit__(self, *exc_info: object) -> None:
        _local.scope = self._outer

    @property
    def cancellation_pending(self) -> bool:
        """Whether a cancellation is still to be delivered."""
        return self._cancellations > 0

    def wake(self) -> None:
        """Have the blocked thread look whether its wait is over."""
        self._inbox.put(None)

    def call_in_thread(self, call: Callable[[], None]) -> None:
        """Have the blocked thread run ``call``, which must not raise."""
        self._inbox.put(call)

    def cancel(self) -> None:
        """Cancel what the thread waits for, or what it waits for next.

        To be called on the loop.
        """
        with self._lock:
            if not self._waits or not self._waits[-1].cancel():
                self._cancellations += 1

    def wait(self, awaitable: Awaitable[Any]) -> Any:
        """Block this thread until ``awaitable`` is done on the loop.

        Raises:
            ScopeError: the loop is closed.
            asyncio.CancelledError: what the thread works for was cancelled.
        """
        waiting = _Wait(self, awaitable)
        with self._lock:
            if self._cancellations:
                self._cancellations -= 1
                greenlets.close(awaitable)
                raise asyncio.CancelledError
            self._waits.append(waiting)
        try:
            self._start(waiting)
            self._block(waiting)
        finally:
            with self._lock:
                self._waits.remove(waiting)
        return waiting.result()

    def _start(self, waiting: _Wait) -> None:
        try:
            self.loop.call_soon_threadsafe(waiting.start)
        except RuntimeError:
            greenlets.close(waiting.awaitable)
            raise ScopeError(LOOP_CLOSED) from None

    def _block(self, waiting: _Wait) -> None:
        while not waiting.done:
            try:
                call = self._inbox.get()
            except KeyboardInterrupt:
                self.loop.call_soon_threadsafe(waiting.cancel)
                raise
            if call is not None:
                call()


LOOP_CLOSED = """\
This thread waits for something on an event loop that is closed: the server \
has ended while the thread still ran. Let the work end before the server does \
(see config.add_lifespan), or start it in a process of its own."""


def current_scope() -> ThreadScope | None:
    """The scope of the executor's job that runs in this thread, if any."""
    return _local.scope

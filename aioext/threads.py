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

A blocked thread is a thread to spare. The inbox also takes *calls*: when an
executor has no thread free, what the awaitable wants to run in it is offered
to the blocked thread as well. Otherwise as many views as there are threads,
each waiting for another call in the executor, would wait for ever. An offer is
no order: the awaitable may leave a Task behind that makes calls when the
thread has long gone on, and those run when the executor has a thread again.

A loop that was closed tells nobody. A blocked thread looks every few seconds
whether it still waits for something.

A :class:`ThreadScope` stands for one job of the executor. It is how a request
that is cancelled reaches its thread: what the thread waits for is cancelled,
or the next wait that it asks for, once for each cancellation, as in a Task.

What :func:`provide` calls runs in a greenlet of the thread, so that SQLAlchemy
finds one there whose parent waits for what it switches. Calls that a blocked
thread takes have one of their own each: they have another context.

A commit is not to be cancelled halfway. While a scope :meth:`~ThreadScope.defers`
cancellations, they are kept for its end.

Things that do not work
=======================

* ``asyncio.run_coroutine_threadsafe``: it gives the coroutine the loop's
  context, and ``concurrent.futures.CancelledError`` where synchronous code
  expects asyncio's.
* Letting a blocked thread take every call there is, so that calls which wait for
  each other as siblings could not starve: whichever thread takes the one that
  waits last cannot go on with the one that it waits for.
* Delivering a cancellation at every wait until the thread ends: cleanup in a
  ``finally`` could never wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import queue
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from . import background, greenlets, threadlocal
from .exceptions import ScopeError
from .threadlocal import this_thread

P = ParamSpec("P")
T = TypeVar("T")

# The scope of the thread on whose behalf this context's Task runs, if any. Weak,
# for such a Task may outlive the thread's job, and nobody looks into the inbox then.
_blocked: contextvars.ContextVar[weakref.ref[ThreadScope] | None]
_blocked = contextvars.ContextVar("aioext.blocked", default=None)


def _forget_after_fork() -> None:
    # The child has this thread, and not the one that runs the scope's loop.
    this_thread.scope = None


os.register_at_fork(after_in_child=_forget_after_fork)

# Seconds between two looks whether the loop is still there, or whether a
# cancellation that was held back is still due.
LOOK_INTERVAL = 2.0
_MISSING: Any = object()


def adopt(
    context: contextvars.Context,
    but: frozenset[contextvars.ContextVar[Any]] = frozenset(),
) -> None:
    """Set here what was set in ``context``, a copy of this one.

    Values are compared by identity, so that no code of theirs runs. A variable
    that is in ``but`` keeps the value that it has here. None can have lost its
    value there: a token is good only in the context that it was made in.
    """
    for variable, value in context.items():
        if variable.get(_MISSING) is not value and variable not in but:
            variable.set(value)


# What a wait sets in its Task's context for the Task alone.
_FOR_THE_TASK = frozenset({_blocked, *threadlocal.VARIABLES})


class _Wait:
    """One awaitable that a blocked thread waits for."""

    def __init__(self, scope: ThreadScope, awaitable: Awaitable[Any]) -> None:
        self.scope = scope
        self.awaitable: Awaitable[Any] | None = awaitable
        self.context = contextvars.copy_context()
        self.context.run(threadlocal.snapshot)
        self.context.run(_blocked.set, weakref.ref(scope))
        self.done = False
        self.task: asyncio.Task[Any] | None = None
        # Cancellations that the scope has sent on, and has yet to send on.
        self._sent = 0
        self._deferred = 0
        self._error: BaseException | None = None

    def start(self) -> None:
        """Run the awaitable as a Task; on the loop."""
        coroutine = self._run()
        try:
            self.task = self.scope.loop.create_task(coroutine, context=self.context)
        except BaseException as error:
            # A task factory of the application's may do anything.
            coroutine.close()
            self._error = error
            self._end()
            return
        self.task.add_done_callback(self._finish)
        if self._sent:
            self.task.cancel()

    async def _run(self) -> Any:
        try:
            return await greenlets.run(self._wait)
        except (KeyboardInterrupt, SystemExit) as error:
            # A Task that raised these would end the loop.
            self._error = error

    def _wait(self) -> Any:
        job = greenlets.enclosing_job()
        assert job is not None
        return greenlets.wait_here(self.awaitable, job)

    def _finish(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            # Perhaps before its first step.
            self.close()
        self.scope.settle(self._foreign_cancellations(task) - self._deferred)
        self._end()

    def _foreign_cancellations(self, task: asyncio.Task[Any]) -> int:
        # asyncio.run, when it ends, cancels every Task: this one as well as the
        # one that the thread works for. That is to be one cancellation.
        return max(task.cancelling() - self._sent, 0)

    def _end(self) -> None:
        self.done = True
        self.awaitable = None
        self.scope.wake()

    def close(self) -> None:
        """Close the awaitable, which nobody will wait for."""
        greenlets.close(self.awaitable)

    def cancel(self) -> bool:
        """Cancel the Task, on the loop; False if it is too late for that."""
        task = self.task
        if task is None:
            self._sent += 1
        elif task.done():
            return False
        elif self._foreign_cancellations(task) > self._deferred:
            # It may also be a timeout's, which takes it back and tells nobody.
            if not self._deferred:
                self._look_later()
            self._deferred += 1
        else:
            self._sent += 1
            task.cancel()
        return True

    def _look_later(self) -> None:
        self.scope.loop.call_later(LOOK_INTERVAL, self._send_deferred)

    def _send_deferred(self) -> None:
        task = self.task
        if task is None or task.done():
            return
        if self._foreign_cancellations(task) < self._deferred:
            self._deferred -= 1
            self._sent += 1
            task.cancel()
        if self._deferred:
            self._look_later()

    def result(self) -> Any:
        """What came of it; sets here what it set in its context."""
        adopt(self.context, but=_FOR_THE_TASK)
        # A Task refers to its exception, whose traceback refers to here.
        task, self.task = self.task, None
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            assert task is not None
            return task.result()
        finally:
            del task, error


class ThreadScope:
    """A thread that may wait for ``loop``; while it does, it takes calls."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waits: list[_Wait] = []
        # Cancellations asked for that were not delivered; less than none after
        # one that was delivered by somebody else before it was asked for.
        self._due = 0
        # How many times the thread asked for cancellations to be kept.
        self._deferring = 0
        # Called in the thread, when it is about to wait.
        self.before_wait: Callable[[], None] | None = None

    def __enter__(self) -> ThreadScope:
        self._outer, this_thread.scope = this_thread.scope, self
        return self

    def __exit__(self, *exc_info: object) -> None:
        this_thread.scope = self._outer

    @property
    def cancellation_pending(self) -> bool:
        """Whether a cancellation is still to be delivered."""
        return self._due > 0

    def wake(self) -> None:
        """Have the blocked thread look whether its wait is over."""
        self._inbox.put(None)

    def call_in_thread(self, call: Callable[[], None]) -> None:
        """Have the thread run ``call``, which must not raise, while it is blocked."""
        self._inbox.put(call)

    def settle(self, delivered: int) -> None:
        """A wait is over, in which ``delivered`` cancellations were not ours."""
        with self._lock:
            self._due -= delivered

    def cancel(self) -> None:
        """Cancel what the thread waits for, or what it waits for next.

        To be called on the loop.
        """
        with self._lock:
            kept = self._deferring or self._due < 0 or not self._waits
            if kept or not self._waits[-1].cancel():
                self._due += 1

    @contextlib.contextmanager
    def defers(self) -> Iterator[None]:
        """In this block, in the thread, cancellations are kept for its end.

        Raises:
            asyncio.CancelledError: at the end, if there was one; from the error
                with which the block ended, if any.
        """
        with self._lock:
            self._deferring += 1
        try:
            yield
        except BaseException as error:
            if self._deliver_deferred():
                raise asyncio.CancelledError from error
            raise
        if self._deliver_deferred():
            raise asyncio.CancelledError

    def deliver(self) -> None:
        """Raise ``CancelledError`` if a cancellation is due; called in the thread."""
        with self._lock:
            if self._due > 0 and not self._deferring:
                self._due -= 1
                raise asyncio.CancelledError

    def _deliver_deferred(self) -> bool:
        with self._lock:
            self._deferring -= 1
            due = not self._deferring and self._due > 0
            self._due -= due
        return due

    def wait(self, awaitable: Awaitable[Any]) -> Any:
        """Block this thread until ``awaitable`` is done on the loop.

        Raises:
            ScopeError: the loop is closed.
            asyncio.CancelledError: what the thread works for was cancelled.
        """
        if self.before_wait is not None:
            try:
                self.before_wait()
            except BaseException:
                greenlets.close(awaitable)
                raise
        waiting = _Wait(self, awaitable)
        del awaitable
        with self._lock:
            if self._due > 0 and not self._deferring:
                self._due -= 1
                waiting.close()
                raise asyncio.CancelledError
            self._waits.append(waiting)
        try:
            self._start(waiting)
            self._block(waiting)
        except BaseException:
            # Ctrl-C, for example.
            self._abandon(waiting)
            raise
        finally:
            with self._lock:
                self._waits.remove(waiting)
        return waiting.result()

    def _start(self, waiting: _Wait) -> None:
        try:
            self.loop.call_soon_threadsafe(waiting.start)
        except RuntimeError:
            raise ScopeError(LOOP_CLOSED) from None

    def _abandon(self, waiting: _Wait) -> None:
        try:
            self.loop.call_soon_threadsafe(waiting.cancel)
        except RuntimeError:
            # The loop is closed, so nothing of it runs any more.
            if waiting.task is None:
                waiting.close()

    def _block(self, waiting: _Wait) -> None:
        while not waiting.done:
            try:
                call = self._inbox.get(timeout=LOOK_INTERVAL)
            except queue.Empty:
                call = None
                if background.is_lost(self.loop):
                    raise ScopeError(LOOP_CLOSED) from None
            if call is not None:
                call()


LOOP_CLOSED = """\
This thread waits for something on an event loop that is closed: the server \
has ended while the thread still ran. Let the work end before the server does \
(see config.add_lifespan), or start it in a process of its own."""


def offer(call: Callable[[], None]) -> None:
    """Have the blocked thread for which this Task runs, if any, run ``call``.

    It may be too late for that.
    """
    blocked = _blocked.get()
    scope = None if blocked is None else blocked()
    if scope is not None:
        scope.call_in_thread(call)


def work_for(scope: ThreadScope | None) -> None:
    """Have what runs in this context offer calls to that thread; None: to none."""
    _blocked.set(None if scope is None else weakref.ref(scope))


def current_scope() -> ThreadScope | None:
    """The scope of the executor's job that runs in this thread, if any."""
    return this_thread.scope


def loop_runs_here() -> bool:
    """Whether this thread runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def scope_here() -> ThreadScope:
    """The scope in which a wait of this thread, which runs no loop, happens."""
    return current_scope() or ThreadScope(background.find_loop())


def wait(awaitable: Awaitable[Any]) -> Any:
    """Wait for ``awaitable`` in a thread that runs no loop.

    Raises:
        ScopeError: it does run one, or the loop to wait for is closed, or gevent
            has patched the threads. A coroutine given is closed.
    """
    try:
        if loop_runs_here():
            raise ScopeError(_describe(awaitable))
        scope = scope_here()
    except BaseException:
        greenlets.close(awaitable)
        raise
    try:
        return scope.wait(awaitable)
    finally:
        # A Future refers to its exception, whose traceback refers to here.
        del awaitable


NO_BRIDGE = """\
{what} was to be waited for on the event loop, by synchronous code that no \
bridge surrounds: that would block the loop for ever. {where}
Write one of these instead:
    {cure:<32}  in a coroutine, without a bridge
    await spawn_greenlet(function)    around the synchronous function that waits
    await use_executor(function)()    if the function also blocks by other means"""


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


_OURS = {
    __name__,
    greenlets.__name__,
    f"{__package__}.bridge",
    f"{__package__}.pending",
}


def provide(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``fn(*args, **kwargs)`` in a greenlet that SQLAlchemy may wait in.

    In a thread without a loop: one of the executor, of a plain WSGI server, of a
    script. What SQLAlchemy's asynchronous engines are to wait for is waited for as
    :func:`aioext.wait` does there, which may be called as well. In a bridge, and in
    other greenlets that can wait, ``fn`` is called as it is.

    Cancellation: that of the wait.
    """
    if greenlets.own_job() is not None or greenlets.foreign_provider() is not None:
        return fn(*args, **kwargs)
    # A thread that has set no variable yet has no context to share.
    contextvars.copy_context()
    handled = sys.exc_info()[1]
    try:
        if handled is None:
            return greenlets.run_in_thread(fn, args, kwargs, wait_around)
        handling = (handled, fn, args, kwargs)
        call = greenlets.call_while_handling
        return greenlets.run_in_thread(call, handling, {}, wait_around)
    finally:
        # It refers to its traceback, which may refer to here.
        handled = handling = None


def wait_around(awaitable: Awaitable[Any]) -> Any:
    """Wait for what a greenlet of this thread has switched to its parent."""
    job = greenlets.enclosing_job()
    try:
        if job is None:
            return wait(awaitable)
        # A greenlet of somebody else's stands between a bridge and this.
        return greenlets.wait_here(awaitable, job)
    finally:
        del awaitable

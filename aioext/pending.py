"""Request early, use late: what is being waited for, as a value.

Theory of operation
===================

A :class:`Pending` has its awaitable run at once, as a Task on the loop of whoever makes
it, and is handed on like a value: to a template, for one. Who uses it waits for the
rest, if there is any, in the way that belongs to the place: ``await`` in a coroutine,
:meth:`Pending.result` through the bridge elsewhere.

The Task belongs to the request, and not to those who wait: a timeout around one of them
leaves the others theirs. It ends with the request. When that is depends on the
response:

====================================  ===========================================
the response is whole                 at the finished callbacks
it is a streamed template             when that has ended
it is streamed in another way         when nobody refers to the Pending any more,
                                      for the body may use it still
there is no request                   likewise
====================================  ===========================================

For the last two rows the Task must not refer to the Pending. It refers to a
:class:`_Work`, which has the outcome, and the Pending refers to that.

An error that nobody asks for is nobody's, and is not logged. ``SystemExit`` is a value
of the Task, for it would end the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import html
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, NoReturn, TypeVar

from pyramid.threadlocal import get_current_request

from . import bridge, greenlets, threadlocal, threads
from .ending import when_over
from .exceptions import ScopeError, explain

__all__ = ["Pending"]

T = TypeVar("T")

ANCHOR = "pending-errors"


class _Work:
    """A Task, and what came of it."""

    def __init__(
        self, awaitable: Awaitable[Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.loop = loop
        self.task: asyncio.Task[Any] | None = None
        self._awaitable: Awaitable[Any] | None = awaitable
        self._context: contextvars.Context | None = contextvars.copy_context()
        self._context.run(threadlocal.snapshot)
        scope = None if threads.loop_runs_here() else threads.current_scope()
        if scope is not None:
            # When this thread of the executor waits, for this perhaps, it is to spare.
            self._context.run(threads.work_for, scope)
        # Why there is no Task.
        self._failure: BaseException | None = None

    @property
    def is_done(self) -> bool:
        """Whether it has an outcome; may be asked in any thread."""
        if self.task is None:
            return self._failure is not None
        return self.task.done()

    def start(self) -> None:
        """Begin; on the loop. Does nothing the second time."""
        if self._failure is not None or self.task is not None:
            return
        coroutine = _run(self._awaitable)
        try:
            self.task = self.loop.create_task(coroutine, context=self._context)
        except BaseException as error:
            # A task factory of the application's may do anything.
            coroutine.close()
            self._fail(error)
        else:
            self.task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            # Asked for, it is not logged.
            task.exception()
        self._let_go()

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._let_go()

    def _let_go(self) -> None:
        awaitable, self._awaitable, self._context = self._awaitable, None, None
        # It may not have begun.
        greenlets.close(awaitable)

    def outcome(self) -> Any:
        """What it gave; raises what it raised."""
        if self.task is None:
            assert self._failure is not None
            raise self._failure
        result = self.task.result()
        if type(result) is _Exit:
            raise result.error
        return result

    async def wait(self, timeout: float | None = None) -> Any:
        """Wait for the end; a cancellation is the caller's alone."""
        if self.loop is not asyncio.get_running_loop():
            raise ScopeError(ANOTHER_LOOP)
        # It may have been made in a thread just now.
        self.start()
        if self.task is not None:
            await asyncio.wait((self.task,), timeout=timeout)
        if not self.is_done:
            raise TimeoutError(f"A Pending had no result after {timeout} seconds.")
        return self.outcome()

    def cancel(self) -> None:
        """Cancel it; on the loop."""
        if self.task is not None:
            self.task.cancel()
        elif self._failure is None:
            self._fail(asyncio.CancelledError())

    def cancel_from_anywhere(self) -> None:
        """Cancel it; in any thread, and when the loop has been closed, too."""
        try:
            _call_on(self.loop, self.cancel)
        except RuntimeError:
            # The loop is closed, so nothing of it runs any more.
            if self.task is None:
                self._fail(asyncio.CancelledError())


class _Exit:
    """An exit that was asked for, as a value: raised in a Task, it ends the loop."""

    def __init__(self, error: SystemExit) -> None:
        self.error = error


async def _run(awaitable: Any) -> Any:
    # A function: a method's frame, to which an error refers, would refer to what has
    # the error.
    try:
        return await greenlets.stepped(_awaited(awaitable))
    except SystemExit as error:
        return _Exit(error)
    finally:
        del awaitable


async def _awaited(awaitable: Any) -> Any:
    try:
        return await awaitable
    finally:
        # A Future refers to its exception, whose traceback refers to here.
        del awaitable


def _call_on(loop: asyncio.AbstractEventLoop, call: Any) -> None:
    try:
        is_here = asyncio.get_running_loop() is loop
    except RuntimeError:
        is_here = False
    if is_here:
        call()
    else:
        loop.call_soon_threadsafe(call)


class Pending(Generic[T]):
    """Something that was begun, and whose result is used later.

    ::

        user = Pending(load_user(request))  # begins now
        ...
        await user          # in a coroutine
        user.result()       # in a function, a template, a thread
        ${user}             # in a template: its text

    May be used any number of times, in any thread of the request. What it raises is
    raised wherever it is used; if it is never used, nobody hears of it.

    Args:
        awaitable: a coroutine, a Task, a Future, or an object with ``__await__``. It
            runs in a Task of its own, with a copy of the context, and may call
            synchronous code that waits. A Task given is cancelled with it.

    Raises:
        TypeError: ``awaitable`` is none.
        ScopeError: there is no loop, and none can be had. A coroutine given is closed.

    Cancellation: of who waits, leaves it alone. It is cancelled by :meth:`cancel`, and
    at the end of the request that it was made in, a streamed template included. With
    another body that is streamed, and outside of a request, it is when nobody refers to
    it any more. Using it then raises ``asyncio.CancelledError``.
    """

    __slots__ = ("__weakref__", "_work")

    _work: _Work

    def __init__(self, awaitable: Awaitable[T]) -> None:
        if not hasattr(type(awaitable), "__await__"):
            greenlets.check_awaitable(awaitable, "Pending")
        try:
            loop = bridge.current_loop()
            self._work = _Work(awaitable, loop)
            _call_on(loop, self._work.start)
        except BaseException:
            greenlets.close(awaitable)
            raise
        _belong_to_request(self)

    def __await__(self) -> Generator[Any, Any, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        # Refers to this, and not only to the work, for as long as it waits.
        return await self._work.wait()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result in synchronous code, and give it.

        Args:
            timeout: seconds; None: any time. It goes on when they are over.

        Raises:
            TimeoutError: they are over.
            ScopeError: it was called in a coroutine, and has no result yet; write
                ``await pending`` there.
            BaseException: what the awaitable raised.
        """
        work = self._work
        if work.is_done:
            return work.outcome()
        if timeout is None:
            return bridge.wait(self)
        return bridge.wait(_Within(work, timeout))

    def cancel(self) -> bool:
        """Cancel it, in any thread.

        Returns:
            whether it was still under way.
        """
        if self._work.is_done:
            return False
        self._work.cancel_from_anywhere()
        return True

    @property
    def is_done(self) -> bool:
        """Whether it can be used without waiting."""
        return self._work.is_done

    def __str__(self) -> str:
        return str(self.result())

    def __html__(self) -> str:
        """The result as HTML: its own, or its text, escaped."""
        result = self.result()
        own = getattr(result, "__html__", None)
        return html.escape(str(result)) if own is None else own()

    def __bool__(self) -> NoReturn:
        """A Pending is not the result, and would always be true.

        Raises:
            TypeError: always.
        """
        raise TypeError(explain(NO_TRUTH, ANCHOR))

    def __iter__(self) -> NoReturn:
        """A Pending is not the result, and has no items.

        Raises:
            TypeError: always.
        """
        raise TypeError(explain(NO_ITEMS, ANCHOR))

    def __len__(self) -> NoReturn:
        """See :meth:`__iter__`."""
        raise TypeError(explain(NO_ITEMS, ANCHOR))

    def __getitem__(self, key: Any) -> NoReturn:
        """See :meth:`__iter__`."""
        raise TypeError(explain(NO_ITEMS, ANCHOR))

    def __contains__(self, item: Any) -> NoReturn:
        """See :meth:`__iter__`."""
        raise TypeError(explain(NO_ITEMS, ANCHOR))

    def __repr__(self) -> str:
        state = "done" if self.is_done else "under way"
        return f"<Pending, {state}>"

    def __del__(self) -> None:
        # There is none if it could not begin.
        work = getattr(self, "_work", None)
        if work is not None and not work.is_done:
            work.cancel_from_anywhere()


class _Within:
    # An object and no coroutine, so that the message of ScopeError has a name for it.
    def __init__(self, work: _Work, timeout: float) -> None:
        self._work = work
        self._timeout = timeout

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._work.wait(self._timeout).__await__()


_Within.__name__ = "Pending"


class _Pendings:
    """Those of one request, until that is over."""

    def __init__(self, request: Any) -> None:
        self._all: list[Pending[Any]] = []
        self._is_over = False
        self._is_kept = False
        when_over(request, self._finish)

    def append(self, pending: Pending[Any]) -> None:
        # One that was made by the body of a request that is over is the body's.
        if self._is_kept or not self._is_over:
            self._all.append(pending)

    def keep(self) -> None:
        """Keep them beyond the finished callbacks."""
        self._is_kept = True

    def release(self) -> None:
        """Keep them no longer than that."""
        self._is_kept = False
        if self._is_over:
            self._end()

    def _finish(self, is_streamed: bool) -> None:
        self._is_over = True
        if self._is_kept:
            return
        if is_streamed:
            # They end when nobody refers to them.
            self._all = []
        self._end()

    def _end(self) -> None:
        pendings, self._all = self._all, []
        for pending in pendings:
            pending.cancel()


_KEY = "_aioext_pendings"


def _pendings_of(request: Any) -> _Pendings:
    pendings = vars(request).get(_KEY)
    if pendings is None:
        pendings = vars(request)[_KEY] = _Pendings(request)
    return pendings


def _belong_to_request(pending: Pending[Any]) -> None:
    request = get_current_request()
    if not hasattr(request, "add_finished_callback"):
        return
    if _KEY in vars(request) or not threadlocal.has_ended(request):
        _pendings_of(request).append(pending)


def follow(request: Any) -> None:
    """Notice the end of a request, for what runs on in a context of before it."""
    _pendings_of(request)


def keep_pendings(request: Any) -> Callable[[], None]:
    """Keep what is pending in a request when that is over, for its body.

    Returns:
        what ends them; to be called on the loop, when the body has ended.
    """
    pendings = _pendings_of(request)
    pendings.keep()
    return pendings.release


ANOTHER_LOOP = """\
A Pending was made on one event loop, and is awaited on another one. Await it where it \
was made; a thread may call its result()."""

NO_TRUTH = """\
A Pending was asked whether it is true, which it would always be. Ask its result: \
"if await pending", or "if pending.result()" in a template."""

NO_ITEMS = """\
A Pending was asked for items, or for their number, and these are its result's. Ask \
that: "await pending", or "pending.result()" in a template, as in \
"for each in pending.result()"."""

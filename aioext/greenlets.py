"""Greenlets that may wait for coroutines: the task driver of the bridge.

Theory of operation
===================

Synchronous code runs in a *child greenlet*; a coroutine, the *driver*, is its
parent and runs in an asyncio Task::

    Task ── driver ──switch──► greenlet: synchronous code
              ▲                    │ wait_here(coroutine)
              │                    │   coroutine.send(None)
              └──────switch────────┘   … yields a Future
    the driver yields that Future to its Task, and the loop goes on;
    when it is done the driver switches back, and the coroutine continues.

The coroutine is driven *in the greenlet that waits for it*; only what it
yields, an asyncio Future or a bare ``None``, travels to the driver, which
yields it from the same Task. So ``asyncio.timeout``, cancellation,
``current_task()`` and context variables mean what they mean in any coroutine,
a coroutine that never suspends costs no switch, and synchronous code called by
such a coroutine may wait again, to any depth, in the same greenlet.

A second protocol is understood, because SQLAlchemy speaks it: a greenlet may
switch an *awaitable* to its parent, which awaits it. The marker
``__sqlalchemy_greenlet_provider__`` tells SQLAlchemy (1.4.53, 2.0.31 and
later) that it may. It is a private agreement of SQLAlchemy's; it stands here
alone and has its own test. Which of the two protocols a switch belongs to is
told by a flag that :func:`wait_here` sets, never by the type of the value; in
the same way the end of the job is told by a flag, so that a function may
return a Future, a coroutine or anything else.

The greenlet that waits need not be ours: a library may run our synchronous
code in a greenlet of its own (greenback, SQLAlchemy) whose ancestor is ours.
The waiting greenlet is remembered and resumed itself; its parents are left
alone.

A server may run requests in greenlets that it switches itself (uWSGI). Those are not
ours to wrap, for its own functions work in them alone; they are *adopted*
(:mod:`aioext.adopted`): the job of such a greenlet has a driver of another kind, and
``spawn_greenlet()`` in one calls its function right there.

A thread that has no loop may block, so nothing has to be suspended there. But
SQLAlchemy looks for its marker all the same, and switches its awaitables. So
synchronous code of such a thread runs in a greenlet as well, whose parent waits
for them as that thread does: :func:`run_in_thread`. That greenlet is no job.

Pooling
=======

Since Python 3.11 every new greenlet maps a frame stack of its own, which costs
more than ten times what reusing one costs. Idle greenlets are kept, by these
rules, each of which was broken once:

* A pool belongs to a thread, for greenlets cannot leave theirs.
* No local of the loop in :func:`_work` refers to its own greenlet: the
  collector cannot see the frames of a suspended greenlet, so such a reference
  would make it immortal.
* Nothing is passed as an argument of ``switch()``, for a suspended greenlet
  keeps those; jobs come and results go through a :class:`Job`, emptied after.
* The context is set when a greenlet is taken and cleared when it is returned.
* ``GreenletExit`` ends the greenlet; a dead one is not returned to the pool.

Things that do not work
=======================

* Awaiting the coroutine in the driver (SQLAlchemy's way) for everything: sync
  code inside that coroutine then needs another greenlet to wait in.
* Giving the greenlet a copy of the driver's context: values set by
  synchronous code would be lost for the coroutine around it.
* ``throw()`` into the greenlet to deliver an exception to a coroutine driven
  there: the exception would show up one frame too high, with the bridge's
  own ``except`` as its context.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import NoneType
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from .awaitables import call_while_handling, check_awaitable, close
from .exceptions import explain

__all__ = ["adopt_with", "call_while_handling", "check_awaitable", "close"]

# The first step of a Task may run at once, inside of whatever creates it, a
# greenlet of ours included; the wait of such a step is not ours to serve.
EAGER_TASKS = sys.version_info >= (3, 12)
MAX_IDLE = 1024
# A thread needs one, and one more for each call that it takes while it is blocked.
MAX_IDLE_IN_THREAD = 8
# A closed bridge throws GeneratorExit into synchronous code that waits again
# while it is being closed; code that swallows it this often is left suspended.
MAX_UNWIND = 100


class Job:
    """What a pooled greenlet is to do, and what came of it."""

    __slots__ = (
        "args",
        "closing",
        "done",
        "driver",
        "enter",
        "error",
        "fn",
        "kwargs",
        "native",
        "raised",
        "shield",
        "switched",
        "task",
        "value",
        "waiter",
    )

    def __init__(self) -> None:
        self.fn: Callable[..., Any] | None = None
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.value: Any = None
        self.raised: BaseException | None = None
        # What is to be raised in the synchronous code where it waits.
        self.error: BaseException | None = None
        self.done = False
        self.closing = False
        self.native = False
        self.driver: greenlet | None = None
        self.waiter: greenlet | None = None
        # Has an adopted greenlet run in its Task, before it waits there.
        self.enter: Callable[[Awaitable[Any]], None] | None = None
        # What it waits for is given to this first, and that is awaited.
        self.shield: Callable[[Any], Coroutine[Any, Any, Any]] | None = None
        # What the greenlet switched to its parent.
        self.switched: Any = None
        self.task: asyncio.Task[Any] | None = None

    def belongs_here(self) -> bool:
        """Whether the code that runs now is of the Task that would wait."""
        return self.fn is not None and not (
            EAGER_TASKS and self.task is not current_task()
        )

    def take_error(self) -> BaseException:
        # Handed on without a local in any frame that the error's traceback
        # refers to: that would be a reference cycle.
        error, self.error = self.error, None
        assert error is not None
        return error

    def take_switched(self) -> Any:
        # Without a local, for the same reason.
        switched, self.switched = self.switched, None
        return switched

    def raise_again(self) -> None:
        raised, self.raised = self.raised, None
        assert raised is not None
        try:
            if isinstance(raised, StopIteration):
                message = explain(STOP_ITERATION, "stop-iteration")
                raise RuntimeError(message) from raised
            raise raised
        finally:
            del raised


STOP_ITERATION = """\
A function called through spawn_greenlet() raised StopIteration, which cannot \
leave a coroutine (PEP 479); it is the cause of this error. Catch it in the \
function, or give next() a default."""


class BridgeGreenlet(greenlet):
    """A greenlet whose code may wait for awaitables; see the module."""

    __slots__ = ("job",)
    __sqlalchemy_greenlet_provider__ = True

    job: Job


class ThreadGreenlet(BridgeGreenlet):
    """The same in a thread that blocks where it waits; it is no bridge."""

    __slots__ = ()


class _Pool(threading.local):
    def __init__(self) -> None:
        self.idle: list[BridgeGreenlet] = []
        self.idle_in_thread: list[BridgeGreenlet] = []


_pool = _Pool()


def _work(job: Job) -> None:
    ended = False
    while True:
        try:
            job.value = job.fn(*job.args, **job.kwargs)  # type: ignore[misc]
        except GreenletExit as ending:
            job.raised = ending
            ended = True
        except BaseException as error:
            job.raised = error
        job.fn = None
        job.args = ()
        job.kwargs = {}
        job.done = True
        if ended:
            return
        job.driver.switch()  # type: ignore[union-attr]
        while job.fn is None:
            # A greenlet that outlived its job has ended, and this is its parent;
            # or somebody threw an exception in here, and the driver knows now.
            job.driver.switch()  # type: ignore[union-attr]


def _new_greenlet(kind: type[BridgeGreenlet]) -> BridgeGreenlet:
    job = Job()
    child = kind(lambda: _work(job))
    child.job = job
    return child


def _take(
    idle: list[BridgeGreenlet], here: greenlet, kind: type[BridgeGreenlet]
) -> BridgeGreenlet:
    child = idle.pop() if idle else _new_greenlet(kind)
    if child.dead:
        child = _new_greenlet(kind)
    if child.job.driver is not here:
        try:
            child.parent = child.job.driver = here
        except ValueError:
            # This is a greenlet that an earlier job of the child's has left behind.
            child = _new_greenlet(kind)
            child.job.driver = here
    return child


def current_task() -> asyncio.Task[Any] | None:
    """The Task that runs here, None outside of one."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    try:
        return await awaitable
    finally:
        # A Future refers to its exception, whose traceback refers to here.
        del awaitable


@types.coroutine
def run(
    fn: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    suspended: Callable[[], None] | None = None,
) -> Generator[Any, Any, Any]:
    """Call ``fn(*args, **kwargs)`` in a greenlet that may wait: the driver.

    To be awaited. Gives what ``fn`` returns and raises what it raises,
    cancellation included. A ``StopIteration`` cannot pass (:pep:`479`).

    ``suspended()``, which must not raise, is called where ``fn`` first waits.
    """
    if _is_adopted():
        return _call_here(fn, args, kwargs)
    # A greenlet stays in its thread, wherever this generator is closed.
    idle = _pool.idle
    child = _begin(idle, fn, args, kwargs)
    job = child.job
    try:
        if not job.done:
            if suspended is not None:
                suspended()
            yield from _drive(child, job)
        if job.raised is not None:
            job.raise_again()
        return job.value
    finally:
        _put_back(child, job, idle)


@types.coroutine
def stepped(coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Await ``coroutine``, with every step of it in a greenlet that may wait.

    Synchronous code that it calls may wait, as under :func:`run`; but while
    the coroutine itself waits, no greenlet is held for it. That halves what a
    thousand connections cost that wait most of the time.
    """
    if _is_adopted():
        return (yield from coroutine)  # type: ignore[misc]
    idle = _pool.idle
    send = coroutine.send
    step: Callable[[Any], Any] = send
    argument: Any = None
    try:
        while True:
            child = _begin(idle, step, (argument,), None)
            job = child.job
            try:
                if not job.done:
                    yield from _drive(child, job)
                if job.raised is not None:
                    if type(job.raised) is StopIteration:
                        return job.raised.value
                    job.raise_again()
                value = job.value
            finally:
                _put_back(child, job, idle)
            try:
                step, argument = send, (yield value)
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                step, argument = coroutine.throw, error
    finally:
        # An error's traceback refers to this frame.
        del argument


def _begin(
    idle: list[BridgeGreenlet],
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None,
    kind: type[BridgeGreenlet] = BridgeGreenlet,
) -> BridgeGreenlet:
    here = getcurrent()
    child = _take(idle, here, kind)
    job = child.job
    job.fn = fn
    job.args = args
    if kwargs:
        job.kwargs = kwargs
    if EAGER_TASKS:
        job.task = current_task()
    child.gr_context = here.gr_context
    job.switched = child.switch()
    return child


@types.coroutine
def _drive(child: BridgeGreenlet, job: Job) -> Generator[Any, Any, None]:
    # The job waits: await for it what it has switched to its parent.
    switched, job.switched = job.switched, None
    while not job.done:
        if child.dead:
            raise GreenletExit("this greenlet was ended from outside")
        native, job.native = job.native, False
        waiter = job.waiter if native else child
        value = None
        try:
            if native:
                value = yield switched
            elif job.shield is None:
                value = yield from _awaited(switched)
            else:
                value = yield from _awaited(job.shield(switched))
        except GeneratorExit:
            _unwind(child, waiter, native)
            raise
        except BaseException as error:
            job.error = error
        # A coroutine may be resumed in another greenlet than before: its
        # first step can run eagerly inside one, the next ones on the loop.
        here = getcurrent()
        if job.driver is not here:
            job.driver = child.parent = here
        if native or job.error is None:
            switched = waiter.switch(value)
        else:
            switched = waiter.throw(job.take_error())


def run_in_thread(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    wait: Callable[[Any], Any],
) -> Any:
    """Call ``fn(*args, **kwargs)`` in a greenlet, and ``wait`` for it here.

    ``wait(awaitable)`` is called, outside of that greenlet, with what SQLAlchemy
    wants to be awaited. The thread has to have a context, for the two share it.
    """
    idle = _pool.idle_in_thread
    child = _begin(idle, fn, args, kwargs, ThreadGreenlet)
    job = child.job
    try:
        if not job.done:
            _wait_for(child, job, wait)
        if job.raised is not None:
            raise job.raised
        return job.value
    finally:
        _put_back(child, job, idle)
        if len(idle) > MAX_IDLE_IN_THREAD:
            idle.pop()


def _wait_for(child: BridgeGreenlet, job: Job, wait: Callable[[Any], Any]) -> None:
    while not job.done:
        value = None
        try:
            value = wait(job.take_switched())
        except BaseException as error:
            job.error = error
        if job.error is None:
            job.switched = child.switch(value)
        else:
            job.switched = child.throw(job.take_error())


def _put_back(child: BridgeGreenlet, job: Job, idle: list[BridgeGreenlet]) -> None:
    job.task = job.waiter = job.switched = job.value = job.raised = job.error = None
    if job.done and not child.dead and len(idle) < MAX_IDLE:
        job.done = job.closing = False
        child.gr_context = None
        idle.append(child)


def _unwind(child: BridgeGreenlet, waiter: greenlet, native: bool) -> None:
    # The driver is being closed: no loop will resume it. GeneratorExit goes
    # through the synchronous code, whose waits are refused from now on.
    job = child.job
    job.closing = True
    try:
        # Whoever closes the driver need not be the one that ran it.
        child.parent = job.driver = getcurrent()
    except ValueError:
        # Closed in another thread, which cannot run this one's greenlets, or
        # by a greenlet that this one is waiting for.
        return
    for _ in range(MAX_UNWIND):
        if native:
            job.error = GeneratorExit("the request was dropped")
            switched = waiter.switch()
        else:
            switched = waiter.throw(GeneratorExit("the request was dropped"))
        if job.done or child.dead:
            break
        close(switched)
        native, waiter = False, child
    if not isinstance(job.raised, (NoneType, GeneratorExit, GreenletExit)):
        job.raise_again()


def enclosing_job() -> Job | None:
    """The job whose synchronous code runs here, None outside of a bridge."""
    current: greenlet | None = getcurrent()
    while current is not None:
        if type(current) is BridgeGreenlet:
            return current.job if current.job.belongs_here() else None
        if _find_adopted is not None:
            job = _find_adopted(current)
            if job is not None:
                return job if job.belongs_here() else None
        current = current.parent
    return None


# Gives the job of a greenlet that a server has made, None for any other.
_find_adopted: Callable[[greenlet], Job | None] | None = None


def adopt_with(find: Callable[[greenlet], Job | None] | None) -> None:
    """Have greenlets for which ``find(greenlet)`` gives a job be ones that may wait.

    For a server that runs requests in greenlets of its own; None: no more.
    """
    global _find_adopted
    _find_adopted = find


def _is_adopted() -> bool:
    """Whether the very greenlet that runs here is a server's, and may wait."""
    if _find_adopted is None:
        return False
    job = _find_adopted(getcurrent())
    return job is not None and job.belongs_here()


def _call_here(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None
) -> Any:
    try:
        return fn(*args, **(kwargs or {}))
    except StopIteration as error:
        raise RuntimeError(explain(STOP_ITERATION, "stop-iteration")) from error


def _leave_after_fork() -> None:
    # The loop is the parent's: a wait that suspended the child's copy of the Task
    # would have the child run that copy of the loop.
    job = enclosing_job()
    if job is not None:
        job.fn = None


os.register_at_fork(after_in_child=_leave_after_fork)


def foreign_provider() -> greenlet | None:
    """The greenlet that runs here, if its parent awaits what is switched to it.

    That is what SQLAlchemy's own greenlets promise, and others with its marker.
    """
    current = getcurrent()
    if isinstance(current, BridgeGreenlet):
        return None
    if _find_adopted is not None and _find_adopted(current) is not None:
        # Its parent asks here.
        return None
    marked = getattr(current, "__sqlalchemy_greenlet_provider__", False)
    return current if marked else None


def provide_for_sqlalchemy(current: greenlet, parent: greenlet) -> None:
    """Have SQLAlchemy switch what it waits for in ``current`` to ``parent``."""
    current.parent = parent
    setattr(current, _MARK, True)


_MARK = "__sqlalchemy_greenlet_provider__"


def own_job() -> Job | None:
    """The job of the very greenlet that runs here, and not that of an ancestor.

    What SQLAlchemy switches goes to the parent, and so to that job's driver.
    """
    if type(getcurrent()) is BridgeGreenlet or _is_adopted():
        return enclosing_job()
    return None


def wait_here(awaitable: Awaitable[Any], job: Job) -> Any:
    """Wait for ``awaitable`` in the greenlet that runs, a part of ``job``."""
    if job.closing:
        close(awaitable)
        raise GeneratorExit("the request was dropped")
    if job.enter is not None:
        job.enter(awaitable)
    if job.shield is not None:
        coroutine = job.shield(awaitable)
    elif type(awaitable) is types.CoroutineType:
        coroutine = awaitable
    else:
        check_awaitable(awaitable)
        coroutine = _awaited(awaitable)
    del awaitable
    value = None
    while True:
        try:
            if job.error is None:
                yielded = coroutine.send(value)
            else:
                yielded = coroutine.throw(job.take_error())
        except StopIteration as result:
            return result.value
        if job.closing:
            coroutine.close()
            raise GeneratorExit("the request was dropped")
        job.waiter = getcurrent()
        job.native = True
        try:
            value = job.driver.switch(yielded)
        except BaseException as error:
            job.error = error
        # A Future refers to its exception, whose traceback refers to here.
        del yielded

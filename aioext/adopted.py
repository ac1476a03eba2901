"""Requests in greenlets that a server has made: they are adopted.

Theory of operation
===================

A server with an event loop may run each request in a greenlet of its own, the
*home*, and switch it by itself, whenever it waits for the socket. Its functions work in
that greenlet alone. So nothing is put around it. The home is *adopted* when it first
waits for something: it gets a Task, whose coroutine, the *driver*, switches into it::

    hub: loop ── Task ── driver ──switch──► home: the application
                           ▲                  │ wait(coroutine)
                           └────to the hub────┘   … yields a Future

That is what :mod:`aioext.greenlets` does, but for the first step: there the driver
makes the greenlet. Here the home may be running because the server has switched into
it, *outside* of the Task. Before it waits it *enters*: it tells the driver, goes to the
hub, and comes back when the driver has switched into it, *inside* of the Task. All
that a coroutine does then happens in that one Task and in the home's context.

Inside of the Task the server may switch as well: the application writes, or reads,
and the server waits for the socket. That goes to the hub, and there is the driver, who
is told nothing; so it *parks*, on a Future, and the Task is suspended. The server comes
back on its own, outside of the Task, perhaps in the middle of a coroutine. What that
yields next is handed to the parked driver, which awaits it and so brings the home back
inside.

The driver refers to the home weakly: a home that has ended tells it, and the Task ends.

What may be called in the home alone can be *called from elsewhere*, in a thread or in
another greenlet, while the home waits (:meth:`AdoptedJob.call`): it is switched into
for that call, outside of the Task, and then waits on. Whatever it has waited for may
be done meanwhile; then the driver waits for the call.

A greenlet of SQLAlchemy's kind switches an awaitable to its parent. A home's parent is
set to :class:`_Awaiter`, whose ``switch()`` waits, right there. It is a greenlet that
has ended, so that whatever *ends* goes on to its parent, the hub.

Things that do not work
=======================

* A greenlet of ours around the application: the server's functions do not find their
  request in it, and uWSGI crashes when one of them has to wait.
* A Task for each wait, whose end switches the home back: uWSGI's functions fail in the
  coroutine, for it runs in the hub, and each wait has another ``current_task()``.
* Running the first step of a coroutine before entering: ``asyncio.timeout()`` finds no
  Task.
"""

from __future__ import annotations

import asyncio
import types
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from greenlet import getcurrent, greenlet

from . import bridge, greenlets
from .exceptions import ScopeError, explain

__all__ = ["AdoptedJob", "Adoption", "serve"]

_NOTHING: Any = object()
_ENTRY: Any = object()


class _Awaiter(greenlet):
    # The parent of homes, to which SQLAlchemy switches what it waits for.

    def __bool__(self) -> bool:
        # One that has ended is false, and SQLAlchemy looks whether there is a parent.
        return True

    def switch(self, awaitable: Any) -> Any:
        return bridge.wait(awaitable)


class Adoption:
    """The homes of one process; to be made in the hub.

    Args:
        is_home: whether a greenlet is one that the server has made for a request.
        serve: called in a home with its job, the execution policy that is to be called,
            the environ and the router; gives the response.
    """

    def __init__(
        self, is_home: Callable[[greenlet], bool], serve: Callable[..., Any]
    ) -> None:
        self._hub = getcurrent()
        self._is_home = is_home
        self.serve = serve
        self._awaiter = _Awaiter(lambda: None, self._hub)
        # It ends.
        greenlet.switch(self._awaiter)
        self.begin()

    def begin(self) -> None:
        """Adopt homes from now on."""
        global _adoption
        _adoption = self
        greenlets.adopt_with(self.find)

    def end(self) -> None:
        """Adopt no more."""
        global _adoption
        _adoption = None
        greenlets.adopt_with(None)

    def find_here(self) -> AdoptedJob | None:
        """The job of the very greenlet that runs, None if that is no home."""
        return self.find(getcurrent())

    def find(self, current: greenlet) -> AdoptedJob | None:
        """The job of ``current`` if that is a home, else None."""
        job: AdoptedJob | None = getattr(current, "aioext_job", None)
        if job is None and self._is_home(current):
            job = AdoptedJob(current, self._hub)
            current.aioext_job = job  # type: ignore[attr-defined]
            greenlets.provide_for_sqlalchemy(current, self._awaiter)
        return job


_adoption: Adoption | None = None


def serve(policy: Callable[..., Any], environ: dict[str, Any], router: Any) -> Any:
    """Call an execution policy, as the server whose greenlet this is wants it to be."""
    job = None if _adoption is None else _adoption.find_here()
    if job is None:
        return policy(environ, router)
    return _adoption.serve(job, policy, environ, router)  # type: ignore[union-attr]


class AdoptedJob(greenlets.Job):
    """What a home waits for; see the module.

    Attributes:
        suspended: called in the home, in its Task, before it next waits there;
            must not raise.
        ended: called in the hub when the home has ended; must not raise.
        has_ended: whether the home has, and so its request.
    """

    __slots__ = (
        "__weakref__",
        "_calls",
        "_came_from_outside",
        "_cancelled",
        "_home",
        "_hub",
        "_is_calling",
        "_is_visited",
        "_own_task",
        "_parked",
        "_rests",
        "_wish",
        "ended",
        "has_ended",
        "suspended",
    )

    def __init__(self, home: greenlet, hub: greenlet) -> None:
        super().__init__()
        # There is no function of ours; a process that forks clears this in the child.
        self.fn = self.switch
        self.driver = self  # type: ignore[assignment]
        self.enter = self._enter
        self.suspended: Callable[[], None] | None = None
        self.ended: Callable[[], None] | None = None
        self.has_ended = False
        self._hub = hub
        self._home = weakref.ref(home, self._end)
        # The attribute task is this one while the home is inside, else None.
        self._own_task: asyncio.Task[None] | None = None
        # What the home wants of its driver: to enter, or something to be awaited.
        self._wish: Any = _NOTHING
        self._came_from_outside = False
        # Whether it has gone to the hub by itself, and may be switched into.
        self._rests = False
        self._calls: deque[_Call] = deque()
        self._is_calling = False
        self._is_visited = False
        # A cancellation that came while the home did not wait for its driver. It is
        # raised where the home is suspended next, as in any Task.
        self._cancelled: asyncio.CancelledError | None = None
        # What the driver waits for while the home wants nothing of it.
        self._parked: asyncio.Future[None] | None = None

    # In the home

    def _enter(self, awaitable: Awaitable[Any]) -> None:
        if self.task is None:
            try:
                if self._own_task is None:
                    self._begin()
                self._ask(_ENTRY)
            except BaseException:
                # A task factory of the application's may do anything.
                greenlets.close(awaitable)
                raise
        suspended, self.suspended = self.suspended, None
        if suspended is not None:
            suspended()

    def _begin(self) -> None:
        driver = self._drive()
        try:
            # In a copy of the home's context, which the home brings along itself. That
            # one somebody may have entered already, and a Task could not.
            self._own_task = asyncio.get_running_loop().create_task(driver)
        except BaseException:
            driver.close()
            raise

    def switch(self, yielded: Any) -> Any:
        """Have the driver await ``yielded``."""
        return self._ask(yielded)

    def _ask(self, wish: Any) -> Any:
        # A library may run the application in a greenlet of its own, below the home.
        self.waiter = getcurrent()
        self._came_from_outside = self.task is None
        self._wish = wish
        if self._came_from_outside:
            _unmark(wish)
            self._wake()
        while True:
            self._make_calls()
            self._rests = True
            value = self._hub.switch()
            self._rests = False
            if not self._is_visited:
                self.waiter = None
                return value
            self._is_visited = False

    def _make_calls(self) -> None:
        if self.waiter is not self._home():
            self._refuse_calls()
        if not self._calls:
            return
        self._is_calling = True
        while self._calls:
            self._calls.popleft()()
        self._is_calling = False
        if self.task is None:
            self._came_from_outside = True
            _unmark(self._wish)
            self._wake()

    # In the hub

    def call(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Have the home call ``function``, which must not wait through the bridge.

        To be called on the loop. It is called when the home waits next, at once if it
        does.

        Returns:
            what becomes of it: its value, or its error; cancelled if the request ends
            before. Cancelling it does not interrupt the call.
        """
        future = asyncio.get_running_loop().create_future()
        if self.has_ended:
            future.cancel()
            return future
        self._calls.append(_Call(function, future))
        future.get_loop().call_soon(self._visit)
        return future

    def _visit(self) -> None:
        if not (self._rests and self._calls):
            return
        home = self._home()
        if home is None or self.waiter is not home:
            self._refuse_calls()
        else:
            self.task = None
            self._is_visited = True
            home.switch()

    def _refuse_calls(self) -> None:
        # The home is below another greenlet, and to switch into it would end that.
        while self._calls:
            self._calls.popleft().refuse()

    @property
    def rests(self) -> bool:
        """Whether the home waits for its Task; else it runs, or the server waits."""
        return self._rests

    @property
    def is_over(self) -> bool:
        """Whether the home has ended, be it that somebody still refers to it."""
        home = self._home()
        return home is None or home.dead

    @property
    def driver_task(self) -> asyncio.Task[None] | None:
        """The Task, whether the home is inside or not; it ends when the home does."""
        return self._own_task

    def cancel(self) -> bool:
        """Cancel what the home waits for, or waits for next."""
        if self._own_task is not None:
            return self._own_task.cancel()
        self._cancelled = asyncio.CancelledError()
        return True

    def take_cancellation(self) -> asyncio.CancelledError | None:
        """What would be raised where the home waits next; it is not raised then.

        To be called in the home.
        """
        task = self._own_task
        if self.task is None and task is not None and task.cancelling():
            # The driver hears of a cancellation a turn of the loop later.
            self._ask(_ENTRY)
        cancelled, self._cancelled = self._cancelled, None
        return cancelled

    def _wake(self) -> None:
        parked = self._parked
        if parked is not None and not parked.done():
            parked.set_result(None)

    def _end(self, _: Any) -> None:
        self.has_ended = True
        # Two of these refer to this.
        self.fn = self.driver = self.enter = self.suspended = self.task = None
        for call in self._calls:
            call.drop()
        self._calls.clear()
        self._wake()
        ended, self.ended = self.ended, None
        if ended is not None:
            ended()

    async def _drive(self) -> None:
        try:
            while await self._is_wanted():
                wish, self._wish = self._wish, _NOTHING
                if wish is not _ENTRY:
                    await self._outcome(wish)
                    await self._rest()
                del wish
                self._resume()
        except GeneratorExit:
            # No loop will go on with this.
            self.closing = True
            raise
        finally:
            self._own_task = self.task = None

    def _resume(self) -> None:
        # The home goes on, inside, until it wants something or the server waits.
        waiter = self.waiter
        if waiter is not None:
            self.task = self._own_task
            waiter.switch(None)
            if self._wish is _NOTHING or self._is_calling:
                self.task = None

    async def _is_wanted(self) -> bool:
        while self._wish is _NOTHING and not self.is_over:
            await self._park()
        await self._rest()
        return not self.is_over

    async def _rest(self) -> None:
        while not self._rests and not self.is_over:
            await self._park()

    async def _park(self) -> None:
        self._parked = asyncio.get_running_loop().create_future()
        try:
            await self._parked
        except asyncio.CancelledError as error:
            self._cancelled = error
        finally:
            self._parked = None

    @types.coroutine
    def _outcome(self, yielded: Any) -> Generator[Any, Any, None]:
        try:
            if self._cancelled is not None:
                self.error, self._cancelled = self._cancelled, None
                if yielded is not None:
                    yielded.cancel()
            elif self._came_from_outside and yielded is not None:
                # It has lost the mark that a Task looks for.
                yield from yielded.__await__()
            else:
                yield yielded
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = error
        finally:
            del yielded


def _unmark(yielded: Any) -> None:
    # A Future that is yielded has a mark until its Task has seen it, and whoever awaits
    # it meanwhile fails. Here it takes a turn of the loop.
    if hasattr(yielded, "_asyncio_future_blocking"):
        yielded._asyncio_future_blocking = False


class _Call:
    # A call that the home makes for somebody else.

    def __init__(
        self, function: Callable[[], Any], future: asyncio.Future[Any]
    ) -> None:
        self._function = function
        self._future = future

    def __call__(self) -> None:
        value = error = None
        try:
            value = self._function()
        except BaseException as caught:
            error = caught
        if not self._future.done():
            if error is None:
                self._future.set_result(value)
            else:
                self._future.set_exception(error)
        del error

    def drop(self) -> None:
        self._future.cancel()

    def refuse(self) -> None:
        if not self._future.done():
            message = explain(NOT_REACHED, "uwsgi")
            self._future.set_exception(ScopeError(message))


NOT_REACHED = """\
Something that works in the greenlet of the request alone was called in another \
greenlet, below which that one waits. Under uWSGI this is the body of the request, and \
uWSGI's own functions: read, or call, before the other greenlet begins."""

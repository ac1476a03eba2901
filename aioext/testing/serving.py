"""One connection, in process: the side of the server, and of the network.

Theory of operation
===================

The application is called as a server calls it, with a scope, ``receive`` and
``send``, in a Task of its own on the loop that serves the whole
:class:`~aioext.testing.TestApp`. The test runs elsewhere: in a thread without a
loop, or in a greenlet of a loop. Every method of a test's object waits through
the bridge for a coroutine of a :class:`Serving`, so that its state is touched on
the loop alone, and nothing is locked.

What the application sends goes through a :class:`Pipe` of a certain size, for
a connection that takes everything would let an endless stream run for ever
without a pause, in the only thread that could end it.

At its end a connection is closed by the client, the application has :data:`GRACE`
seconds to notice, and is then cancelled: what takes longer in production (a
handler that sleeps for an hour) need not hold up a test.
"""

from __future__ import annotations

import abc
import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

from .. import bridge, threadlocal
from ..exceptions import ScopeError
from .failures import Failures

__all__ = ["END", "Pipe", "Serving", "wait"]

Message = MutableMapping[str, Any]
ASGIApplication = Callable[..., Awaitable[None]]
# Status, headers and body of a response; a stream has its body to come.
Answer = tuple[int, list[tuple[bytes, bytes]], bytes]

# Seconds that the application has after the client has gone.
GRACE = 1.0
# Seconds that it has once it is cancelled.
PATIENCE = 5.0

# What Pipe.get() gives when nothing more will come.
END: Any = object()


def wait(function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
    """``function(*args)``, waited for; refused where that would block a loop."""
    if bridge.loop_runs_here() and not bridge.in_bridge():
        raise ScopeError(ON_LOOP)
    return bridge.wait(function(*args))


class Pipe:
    """Things in order, from the application to the test.

    Args:
        limit: of their sizes together; one thing is always let in.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._things: deque[tuple[Any, int]] = deque()
        self._size = 0
        self._ended = False
        self._broken = False
        self._changed = asyncio.Event()

    async def put(self, thing: Any, size: int) -> None:
        """Add ``thing``, once there is room.

        Raises:
            BrokenPipeError: nobody will take it.
        """
        while self._size >= self._limit and not self._broken:
            await self._change()
        if self._broken:
            raise BrokenPipeError
        self._things.append((thing, size))
        self._size += size
        self._changed.set()

    async def get(self) -> Any:
        """Take the oldest, once there is one; :data:`END` after the last."""
        while not self._things:
            if self._ended:
                return END
            await self._change()
        thing, size = self._things.popleft()
        self._size -= size
        self._changed.set()
        return thing

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def end(self) -> None:
        """Nothing more will be put."""
        self._ended = True
        self._changed.set()

    def break_(self) -> None:
        """Nothing more will be taken but what is there."""
        self._broken = True
        self.end()


class Serving(abc.ABC):
    """One scope, served by an application.

    Args:
        app: the ASGI application.
        name: how messages call the connection.
        timeout: seconds that anything may take, unless told otherwise.
        limit: how much the application can send ahead.

    Attributes:
        failures: what went wrong in the application.
    """

    def __init__(
        self, app: ASGIApplication, name: str, timeout: float, limit: int
    ) -> None:
        self.name = name
        self.timeout = timeout
        self.failures = Failures()
        self._app = app
        self._pipe = Pipe(limit)
        self._task: asyncio.Task[None] | None = None

    @abc.abstractmethod
    async def _receive(self) -> Message:
        """ASGI's ``receive``."""

    @abc.abstractmethod
    async def _send(self, message: Message) -> None:
        """ASGI's ``send``."""

    @abc.abstractmethod
    def leave(self) -> None:
        """The client goes, properly if that is possible."""

    @abc.abstractmethod
    def describe(self) -> str:
        """What has come and gone so far, for a message."""

    async def open(self, scope: MutableMapping[str, Any]) -> Answer:
        """Call the application with ``scope``; gives what it answers.

        Raises:
            BaseException: what the application raised instead.
            TimeoutError: there was no answer in time.
        """
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[Answer] = self._loop.create_future()
        context = threadlocal.isolated()
        self.failures.listen(context)
        self._task = self._loop.create_task(self._serve(scope), context=context)
        self._task.add_done_callback(self._ended)
        error: Exception
        try:
            async with asyncio.timeout(self.timeout):
                return await asyncio.shield(self._answer)
        except TimeoutError:
            error = TimeoutError(NO_ANSWER.format(self.name, self.timeout))
        except EOFError:
            error = AssertionError(RETURNED.format(self.name))
        await self.end()
        self.raise_failure()
        raise error

    async def _serve(self, scope: MutableMapping[str, Any]) -> None:
        try:
            await self._app(scope, self._receive, self._send)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # Anything but an Exception would end the loop.
            self.failures.add(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.failures.end()
        self._pipe.end()
        if not self._answer.done():
            self._answer.set_exception(EOFError())

    @property
    def is_served(self) -> bool:
        """Whether the application is still at it."""
        return self._task is not None and not self._task.done()

    async def limited(
        self,
        function: Callable[[], Awaitable[Any]],
        timeout: float | None,
        awaited: str,
    ) -> Any:
        """What ``function()`` gives, in time.

        Args:
            timeout: seconds; None: as for everything.
            awaited: what the test waits for, for the message.

        Raises:
            TimeoutError: it gives nothing in time.
        """
        self.check_loop()
        seconds = self.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):
                return await function()
        except TimeoutError:
            told = NOTHING.format(awaited, self.name, seconds, self.describe())
        raise TimeoutError(f"{told} {RUNS if self.is_served else RAN}")

    async def wait_ended(self, timeout: float | None) -> None:
        """Wait until the application has returned."""
        seconds = self.timeout if timeout is None else timeout
        if self._task is not None and not self._task.done():
            self.check_loop()
            await asyncio.wait((self._task,), timeout=seconds)
            if not self._task.done():
                raise TimeoutError(STILL_RUNS.format(self.name, seconds))

    async def end(self) -> None:
        """Have the client go, and the application end: by itself, or cancelled."""
        task = self._task
        if task is None or task.done():
            return
        self.check_loop()
        self.leave()
        await asyncio.wait((task,), timeout=GRACE)
        if not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=PATIENCE)
        if not task.done():
            raise TimeoutError(UNSTOPPABLE.format(self.name, PATIENCE))

    def check_loop(self) -> None:
        """Raise :class:`ScopeError` on another loop than the connection's."""
        if asyncio.get_running_loop() is not self._loop:
            raise ScopeError(OTHER_LOOP.format(self.name))

    def raise_failure(self) -> None:
        """Raise what went wrong in the application, if anything has."""
        failure = self.failures.take()
        if failure is not None:
            raise failure


ON_LOOP = """\
A TestApp is synchronous, and was used in a coroutine: it would block the event \
loop that is to do the work. Write the test as an ordinary function; or put what \
uses the TestApp into a function, and await spawn_greenlet(function)."""

OTHER_LOOP = """\
{} was opened on another event loop than the one it is used on now. Open and use \
it within one loop; a test without a loop has the background loop for all of it."""

NO_ANSWER = """\
{} had no answer within {:g} s: the application has neither accepted nor refused \
it. What does it wait for, before its first line or in a tween?"""

RETURNED = """\
{} had no answer: the application has returned, and sent nothing. Is that an ASGI \
application, which awaits send(...)?"""

NOTHING = "No {} came from {} within {:g} s. {}"
RUNS = "The application still runs."
RAN = "The application has ended."

STILL_RUNS = """\
{} is still served after {:g} s. What serves it has to end when the client has \
gone: recv() gives None then, and send() raises."""

UNSTOPPABLE = """\
What serves {} goes on {:g} s after it was cancelled. It blocks a thread, or \
catches CancelledError and goes on: let it end when the client has gone."""

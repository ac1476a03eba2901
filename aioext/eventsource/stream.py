"""The body of an event stream: events as they come, comments while none does.

Theory of operation
===================

Two Tasks meet here. The *request's Task* asks for a part of the body, sends it,
and asks for the next one (:mod:`aioext.body`, :mod:`aioext.gateway`). The
*generator's Task* runs what the view has written, from its first step to its
``finally``, in a copy of the request's context. They take turns::

    request's Task                       generator's Task
    __anext__: gives the first bytes
    … the head and these are sent
    __anext__: begins the Task  ───────► anext(generator)
      waits                                …
      gives the chunk           ◄─────── has an event; waits
    … it is sent
    __anext__                   ───────► goes on behind its yield
      silence: gives a comment             …
    … it is sent                           …
    __anext__: waits on                    …

So the generator is never ahead of its client by more than one event: its
``yield`` returns when the event has been taken by the server, and a client that
does not read holds it back.

Why two Tasks, when asyncio can wait with a timeout: what ends a wait early is a
cancellation, which the generator must not get because it had nothing to say.
And what the generator does with its Task must not reach the sending: a timeout
or a task group of its own cancels the Task that it began in, which may be busy
with a heartbeat just then. In a Task of its own, ``asyncio.timeout()``, task
groups and cancel scopes work even around a ``yield``: a cancellation that comes
while the event is being sent is raised at that ``yield``.

Every step of the generator's Task is taken in a greenlet, so synchronous code in
it may :func:`~aioext.wait`. A plain iterator is stepped the same way, or in threads
of the executor.

The end
=======

=================================  ==============================================
the generator returns, or raises   the body ends, or raises the same
the client leaves                  the request's Task is cancelled, and closes the
                                   body: :meth:`EventStream.aclose`
the server stops                   a hint when to come back; the generator is told
                                   to end, and the body ends when it has, or after
                                   :data:`PATIENCE` seconds
=================================  ==============================================

A generator that waits when it is told to end is cancelled there; one that stands
at a ``yield`` is closed there. Its Task is waited for, so that its ``finally`` has
run when the request is over. A client that does not even take the hint when the
server stops is cut off after :data:`PATIENCE` seconds.

One timer looks after silence. It is not set anew for each event, which would
cost more than the event: it looks when the last one was, and sleeps for the rest.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import random
from collections.abc import Callable
from typing import Any

from pyramid.threadlocal import RequestContext, get_current_request

from .. import greenlets, shutdown
from ..exceptions import explain
from ..handover import LentContext, Signal, wait_for_end
from ..interfaces import IExecutor
from .event import ANCHOR, HEARTBEAT, Dumps, Retry, encode

__all__ = ["EventStream"]

# Seconds that a client has for taking what is sent when the server stops, and a
# generator for its end before the client is told of it.
PATIENCE = 1.0

_END: Any = object()


class EventStream:
    """An asynchronous iterator over the bytes of a stream.

    Args:
        items: what the view gives: an asynchronous iterable, or a plain one.
        dumps: makes JSON of data that is no str.
        request: what is current in the generator, and is told of the end; None:
            there is none.
        executor: in whose threads a plain iterable is iterated over; None: in
            greenlets on the loop.

    Attributes:
        heartbeat: seconds of silence before a comment is sent; 0: none is.
        retry: seconds after which clients are to come back when the server
            stops, or up to twice as many; 0: the client decides.
    """

    heartbeat = 0.0
    retry = 0.0

    _task: asyncio.Task[None] | None = None
    # What the generator's Task has made and nobody has taken.
    _chunk: bytes | None = None
    _is_open = False
    _is_silent = False
    _is_stopping = False
    _is_closed = False
    # Whether a chunk was taken, and the next one has not been asked for.
    _is_sending = True
    # Whether the generator has been told to end.
    _is_dismissed = False
    # Whether the generator's Task has taken its first step.
    _has_begun = False
    # Whether the request's Task knows how the generator's has ended.
    _is_told = False
    _last = 0.0
    _timer: asyncio.TimerHandle | None = None
    _cut: asyncio.TimerHandle | None = None

    def __init__(
        self,
        items: Any,
        *,
        dumps: Dumps = json.dumps,
        request: Any = None,
        executor: IExecutor | None = None,
    ) -> None:
        if hasattr(items, "__aiter__"):
            self._items: AsyncItems | PlainItems = AsyncItems(items, dumps)
        else:
            call = _call if executor is None else executor.run
            self._items = PlainItems(items, dumps, call)
        # What the generator's Task waits for, and what the request's.
        self._demand = Signal()
        self._arrival = Signal()
        self._request = request
        self._context = LentContext(request)

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        """Wait for what is to be sent next.

        Cancellation: safe; nothing is lost.
        """
        if not self._is_open:
            self._open()
            return HEARTBEAT
        self._is_sending = False
        try:
            self._ask()
            while (chunk := self._take()) is None:
                await self._arrival.wait()
            return chunk
        except StopAsyncIteration:
            await self._wind_up()
            raise
        finally:
            self._is_sending = True
            self._last = self._loop.time()

    async def _wind_up(self) -> None:
        # For a server that stops, a request is over when its response is, and
        # what the generator still has to do would be cut short.
        task = self._task
        if task is not None and not task.done():
            self._dismiss(task)
            await asyncio.wait((task,), timeout=PATIENCE)

    def _open(self) -> None:
        self._is_open = True
        self._loop = asyncio.get_running_loop()
        self._consumer = asyncio.current_task()
        # A server that stops already is to begin nothing.
        self._is_stopping = shutdown.is_announced(self._loop)
        self._unregister = shutdown.on_shutdown(self._stop)
        self._last = self._loop.time()
        if self.heartbeat:
            self._sleep_until(self._last + self.heartbeat)

    def _ask(self) -> None:
        # Have the generator go on, unless it is at work or not to work any more.
        if self._chunk is not None or self._is_stopping or self._is_closed:
            return
        if self._task is None:
            self._start()
        else:
            self._demand.give()

    def _start(self) -> None:
        context = contextvars.copy_context()
        if self._request is not None:
            context.run(_make_current, self._request)
        self._context.lend()
        self._task = self._loop.create_task(self._run(), context=context)
        self._task.add_done_callback(self._arrival.give)

    def _take(self) -> bytes | None:
        # What there is to send; None: nothing yet.
        chunk, self._chunk = self._chunk, None
        if chunk is not None:
            self._is_silent = False
            return chunk
        if self._is_stopping:
            return self._say_farewell()
        if self._task is None:
            raise StopAsyncIteration
        if self._task.done():
            self._is_told = True
            self._task.result()
            raise StopAsyncIteration
        if self._is_silent:
            self._is_silent = False
            return HEARTBEAT
        return None

    def _say_farewell(self) -> bytes:
        retry, self.retry = self.retry, 0.0
        if not retry:
            raise StopAsyncIteration
        # At random, so that not all of them come back at once.
        return encode(Retry(retry * random.uniform(1, 2)))

    def _sleep_until(self, when: float) -> None:
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        due = self._last + self.heartbeat
        if due <= now:
            due = now + self.heartbeat
            # If it is not waited for, something is being sent.
            if self._arrival.is_awaited:
                self._is_silent = True
                self._arrival.give()
        self._sleep_until(due)

    def _stop(self) -> None:
        # The server stops.
        self._is_stopping = True
        self._tell_request()
        self._arrival.give()
        self._cut = self._loop.call_later(PATIENCE, self._cut_off)

    def _cut_off(self) -> None:
        # A loop that is busy with the end of thousands is no fault of the client.
        now = self._loop.time()
        due = (self._last if self._is_sending else now) + PATIENCE
        if now < due:
            self._cut = self._loop.call_at(due, self._cut_off)
        else:
            self._consumer.cancel()

    def _tell_request(self) -> None:
        disconnected = getattr(self._request, "disconnected", None)
        if disconnected is not None:
            disconnected.set()

    async def _run(self) -> None:
        await greenlets.stepped(self._produce())

    async def _produce(self) -> None:
        # The generator's Task.
        self._has_begun = True
        items = self._items
        try:
            step = items.next()
            while (chunk := await step) is not _END:
                try:
                    is_wanted = await self._hand_over(chunk)
                except asyncio.CancelledError as error:
                    # Something within the generator has cancelled this Task.
                    step = items.throw(error)
                    continue
                if not is_wanted:
                    break
                step = items.next()
        finally:
            await items.aclose()

    async def _hand_over(self, chunk: bytes) -> bool:
        if self._is_dismissed:
            # A generator that goes on although it was cancelled.
            return False
        self._chunk = chunk
        self._arrival.give()
        await self._demand.wait()
        return not self._is_dismissed

    async def aclose(self) -> None:
        """Close the generator, once, and wait until it is closed.

        Raises:
            BaseException: what the generator raised meanwhile.

        Cancellation: passed on to the generator, and raised when that has ended.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._tell_request()
        if self._is_open:
            self._unregister()
            for timer in (self._timer, self._cut):
                if timer is not None:
                    timer.cancel()
            # These lead back to here, and the collector comes seldom.
            del self._consumer, self._unregister
            self._timer = self._cut = None
        try:
            if self._task is not None:
                await self._end()
        finally:
            if not self._has_begun:
                await greenlets.stepped(self._items.aclose())
            self._context.take_back()

    def _dismiss(self, task: asyncio.Task[None]) -> None:
        # Have the generator end, wherever it stands.
        self._is_dismissed = True
        if self._demand.is_awaited:
            self._demand.give()
        else:
            task.cancel()

    async def _end(self) -> None:
        # The Task keeps an error whose traceback leads back to here.
        task, self._task = self._task, None
        assert task is not None
        if not self._is_dismissed:
            self._dismiss(task)
        try:
            await wait_for_end(task, self._is_told)
        finally:
            del task


def _make_current(request: Any) -> None:
    # A server that knows no gateway asks for the body when Pyramid has taken its
    # request off the stack.
    if get_current_request() is not request:
        RequestContext(request).begin()


class Items:
    """What a view gives, each item as bytes."""

    _iterator: Any = None

    def __init__(self, items: Any, dumps: Dumps) -> None:
        self._items = items
        self._dumps = dumps

    async def throw(self, error: BaseException) -> bytes:
        """Raise ``error`` where the last one was given."""
        try:
            raise error
        finally:
            # Its traceback refers to this frame.
            del error

    def _encode(self, item: Any) -> bytes:
        try:
            return encode(item, self._dumps)
        except (TypeError, ValueError) as error:
            message = NO_EVENT.format(item, _place_of(self._iterator), error)
            raise TypeError(explain(message, ANCHOR)) from error


class AsyncItems(Items):
    """Those of an asynchronous iterable."""

    async def next(self) -> bytes:
        """The next one, or :data:`_END`."""
        if self._iterator is None:
            self._iterator = aiter(self._items)
        item = await anext(self._iterator, _END)
        return _END if item is _END else self._encode(item)

    async def throw(self, error: BaseException) -> bytes:
        """The next one, after ``error`` was raised in a generator."""
        athrow = getattr(self._iterator, "athrow", None)
        if athrow is None:
            return await super().throw(error)
        try:
            return self._encode(await athrow(error))
        except StopAsyncIteration:
            return _END
        finally:
            del error

    async def aclose(self) -> None:
        """Close what can be closed."""
        try:
            if self._iterator not in (None, self._items):
                await _aclose(self._iterator)
        finally:
            await _aclose(self._items)


async def _aclose(closable: Any) -> None:
    aclose = getattr(closable, "aclose", None)
    if aclose is not None:
        await aclose()


class PlainItems(Items):
    """Those of a plain iterable.

    Args:
        call: a coroutine function that calls ``fn(*args)``, wherever that is to
            happen.
    """

    def __init__(self, items: Any, dumps: Dumps, call: Callable[..., Any]) -> None:
        super().__init__(items, dumps)
        self._call = call

    async def next(self) -> bytes:
        """The next one, or :data:`_END`."""
        return await self._call(self._step)

    def _step(self) -> bytes:
        if self._iterator is None:
            self._iterator = iter(self._items)
        item = next(self._iterator, _END)
        return _END if item is _END else self._encode(item)

    async def aclose(self) -> None:
        """Close what can be closed."""
        close = getattr(self._items, "close", None)
        if close is not None:
            await self._call(close)


async def _call(fn: Callable[..., Any], *args: Any) -> Any:
    return fn(*args)


def _place_of(iterator: Any) -> str:
    # Of the yield at which a generator stands.
    for name in ("ag_frame", "gi_frame"):
        frame = getattr(iterator, name, None)
        if frame is not None:
            return f" in {frame.f_code.co_filename}, line {frame.f_lineno}"
    return ""


NO_EVENT = """\
An event stream was given {!r}{}, which is no event ({}). Give it a str, an int, a \
dict or a list, whatever the application's renderer "json" knows, or an Event."""

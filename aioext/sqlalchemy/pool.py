"""The pool of connections: AsyncAdaptedQueuePool, for threads as well.

Theory of operation
===================

A connection belongs to a loop, and whoever uses it has its operations done there.
But a synchronous session can be in a thread: an executor view, a script. Such a
session takes connections out of the pool, and puts them back, in that thread, while
requests on the loop do the same.

SQLAlchemy's pool for asyncio is not made for that. It keeps its connections in an
``asyncio.Queue``, where a put in another thread sets a Future that the loop does not
notice, so that whoever waits for a connection waits until something else wakes the
loop. It initializes a dialect under an ``asyncio.Lock``, with the same fault. And it
closes a connection whose query was cancelled under ``asyncio.shield``, which fails in a
thread, so that the connection stays open. Its pool for threads blocks the loop when it
is empty. So this is the first one, with two things exchanged:

* the queue (:class:`SharedQueue`) has a lock, and wakes a loop as threads have to;
* connections are made and closed on the loop, whoever asks for it.

These are not public interfaces of SQLAlchemy's: the class attribute ``_queue_class``,
the methods ``_create_connection`` and ``_close_connection``, the two exceptions of its
queues, and the function that finds a greenlet of the sort that it wants. They stand
here alone and have their own test.
"""

from __future__ import annotations

import asyncio
import collections
import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util.concurrency import in_greenlet
from sqlalchemy.util.queue import Empty, Full

from .. import bridge
from ..exceptions import ScopeError
from ..threads import loop_runs_here

__all__ = ["SharedPool", "SharedQueue", "check_greenlet"]


class _Waiter:
    # Somebody who waits for an item, and the item handed to them.
    __slots__ = ("future", "item", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.item: Any = None

    def wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class SharedQueue:
    """The queue of a pool, for several threads and the Tasks of several loops.

    An item is handed to who has waited longest, so that nobody who comes later gets
    it first.

    Args:
        maxsize: how many items there are at most; 0: any number.
        use_lifo: whether the item put last is taken first.
    """

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        self.maxsize = maxsize
        self.use_lifo = use_lifo
        self._items: collections.deque[Any] = collections.deque()
        self._waiting: collections.deque[_Waiter] = collections.deque()
        # The collector returns forgotten connections, in whichever thread it runs
        # and whatever that is doing.
        self._lock = threading.RLock()

    def qsize(self) -> int:
        """How many items there are."""
        return len(self._items)

    def empty(self) -> bool:
        """Whether there is none."""
        return not self._items

    def full(self) -> bool:
        """Whether there are as many as there may be."""
        return 0 < self.maxsize <= len(self._items)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item; raises ``Full`` instead of waiting for room."""
        self.put_nowait(item)

    def put_nowait(self, item: Any) -> None:
        """Put an item; raises ``Full`` if there are ``maxsize``."""
        with self._lock:
            if not self._hand_over(item):
                if self.full():
                    raise Full
                self._items.append(item)

    def _hand_over(self, item: Any) -> bool:
        while self._waiting:
            waiter = self._waiting.popleft()
            waiter.item = item
            try:
                waiter.loop.call_soon_threadsafe(waiter.wake)
            except RuntimeError:
                # Its loop is closed.
                waiter.item = None
            else:
                return True
        return False

    def get_nowait(self) -> Any:
        """Take an item; raises ``Empty`` if there is none."""
        with self._lock:
            if not self._items:
                raise Empty
            return self._items.pop() if self.use_lifo else self._items.popleft()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take an item, waiting for one if ``block`` is true.

        Raises:
            Empty: there was none after ``timeout`` seconds.

        Cancellation: safe; an item that was handed over already is put back.
        """
        try:
            return self.get_nowait()
        except Empty:
            if not block:
                raise
        return bridge.wait_midway(self._get(timeout))

    async def _get(self, timeout: float | None) -> Any:
        with self._lock:
            if self._items:
                return self.get_nowait()
            waiter = _Waiter()
            self._waiting.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter.future
        except TimeoutError:
            if not self._leave(waiter):
                raise Empty from None
        except BaseException:
            if self._leave(waiter):
                self._put_back(waiter.item)
            raise
        return waiter.item

    def _leave(self, waiter: _Waiter) -> bool:
        # Whether it was too late to leave: the item is there.
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            return waiter.item is not None

    def _put_back(self, item: Any) -> None:
        with self._lock:
            if not self._hand_over(item):
                # There is no one here to close what would be too much.
                self._items.append(item)


class SharedPool(AsyncAdaptedQueuePool):
    """A pool of asynchronous connections that threads may use as well."""

    _queue_class = SharedQueue
    # Where SQLAlchemy's pools log, which are silent unless they are told to speak.
    _sqla_logger_namespace = "sqlalchemy.pool.impl.SharedPool"

    def _create_connection(self) -> Any:
        return on_loop(super()._create_connection)

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        close = super()._close_connection
        if in_greenlet():
            on_loop(close, connection, terminate=terminate)
        else:
            # It was forgotten, and the collector found it: nothing can wait here.
            close(connection, terminate=terminate)


def on_loop(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call ``fn(*args, **kwargs)`` in the thread of the loop, and wait for it."""
    if loop_runs_here():
        return fn(*args, **kwargs)
    return bridge.wait_midway(bridge.spawn_greenlet(fn, *args, **kwargs))


def check_greenlet() -> None:
    """Raise ``ScopeError`` where nothing waits for an asynchronous driver.

    SQLAlchemy would raise ``MissingGreenlet``, which cannot tell what to write.
    """
    if not in_greenlet():
        raise ScopeError(ON_A_LOOP if loop_runs_here() else IN_A_THREAD)


IN_A_THREAD = """\
A session wants to talk to its database in a thread of the application's own, or in a \
script, where nothing waits for an asynchronous driver. Write aioext.run(function) \
around the function that uses the session."""

ON_A_LOOP = """\
A session wants to talk to its database in a coroutine that no bridge surrounds: a \
task of its own, for example. Write await spawn_greenlet(function) around the \
function that uses the session."""

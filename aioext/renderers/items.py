"""Bodies that are made of items, one after the other: a JSON array, lines of JSON.

Theory of operation
===================

Two Tasks meet here. The *producer* iterates over the items, from the first step to
the ``finally``, and writes each; the *request's Task* takes what is written and sends
it (:mod:`aioext.body`, :mod:`aioext.gateway`)::

    request's Task                      producer
    prime()            ───────────────► the first item
      waits            ◄─────────────── is written; waits
    … the view has ended, the commit, the head is sent
    __anext__          ───────────────► items, until LIMIT bytes are written
      the part         ◄───────────────   or one has to be waited for
    … it is sent                          goes on meanwhile, up to LIMIT
    __anext__: the next part

So an error before the first item is a status; what is slow is sent item by item, as
it comes; what is fast is sent in parts of LIMIT bytes, which saves the server most of
its work; and a client that does not read holds the producer back. Between the first
item and the sending nothing runs: no item is read from a database while its
transaction is committed.

A Task of its own is what makes it possible to send what there is *while* an item is
waited for. Besides, ``asyncio.timeout()`` and task groups may span a ``yield`` in it,
and what they cancel is not the sending.

A plain iterator is stepped in threads of the executor, as many items in a row as the
limit allows; or in greenlets on the loop, where the application says so
(``aioext.sync_views = inline``). A slow client keeps no thread.

The end
=======

The request's Task closes the body whatever happens. The producer is cancelled where
it waits for its next item, or closed at its ``yield``, and waited for.

The body of a response that is not sent is closed by :mod:`.unsent`.

Things that do not work
=======================

* No second Task, and driving ``anext()`` by hand, to send when it suspends: a
  timeout within the item that is waited for cancels the Task that sends.
* Running ahead before the head is sent: see above.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from .. import bridge, greenlets
from ..body import AsyncBody
from ..executor import current_executor
from ..handover import LentContext, Signal, wait_for_end
from ..interfaces import IExecutor, ISettings
from ..pending import follow
from .unsent import Unsent

__all__ = ["LIMIT", "Array", "Form", "Lines", "is_stream", "stream"]

# How many bytes are written ahead of the client, and sent at once.
LIMIT = 65_536

Dumps = Callable[[Any], bytes]


class Form(Protocol):
    """How items become a body; for one body."""

    def piece(self, item: Any) -> bytes:
        """What is sent for an item."""

    def end(self) -> bytes:
        """What is sent after the last one."""


class Array:
    """A JSON array, with a line for each item."""

    def __init__(self, dumps: Dumps) -> None:
        self._dumps = dumps
        self._before = b"["

    def piece(self, item: Any) -> bytes:
        """What is sent for an item."""
        piece = self._before + self._dumps(item)
        self._before = b",\n"
        return piece

    def end(self) -> bytes:
        """What is sent after the last one."""
        return b"[]" if self._before == b"[" else b"]"


class Lines:
    """JSON lines: each item is JSON, on a line."""

    def __init__(self, dumps: Dumps) -> None:
        self._dumps = dumps

    def piece(self, item: Any) -> bytes:
        """What is sent for an item."""
        # In strings they are escaped; these are an encoder's layout.
        return self._dumps(item).replace(b"\n", b"") + b"\n"

    def end(self) -> bytes:
        """What is sent after the last one."""
        return b""


def is_stream(value: Any) -> bool:
    """Whether ``value`` gives items one after the other, and only once."""
    cls = type(value)
    return hasattr(cls, "__aiter__") or hasattr(cls, "__next__")


def stream(items: Any, form: Form, request: Any) -> AsyncBody:
    """A body of ``items``, whose first one is there.

    For synchronous code; waits for the first item.

    Args:
        items: an asynchronous iterable, or an iterator.
        form: makes bytes of them.
        request: what is current meanwhile.

    Raises:
        BaseException: what the first item raises, or making bytes of it.

    Cancellation: raised where the first item is waited for; the items are closed.
    """
    parts = _Parts(items, form, request, _place(request))
    bridge.wait(parts.prime())
    return AsyncBody(parts)


def _place(request: Any) -> IExecutor | None:
    registry = getattr(request, "registry", None)
    settings = None if registry is None else registry.queryUtility(ISettings)
    if settings is not None and settings.sync_views == "inline":
        return None
    return current_executor()


class _Parts:
    """The body: the items, their Task, and what is written and not sent yet."""

    _task: asyncio.Task[None] | None = None
    _iterator: Any = None
    _is_dismissed = False
    # Whether the request's Task knows how the producer's has ended.
    _is_told = False
    # Whether anybody has asked for a part.
    _is_sent = False
    # Until it is sent, one item is as much as may be written.
    _limit = 0

    def __init__(
        self, items: Any, form: Form, request: Any, executor: IExecutor | None
    ) -> None:
        self._items = items
        self._form = form
        self._request = request
        self._executor = executor
        self._context = LentContext(request)
        # What the request's Task waits for, and what the producer's.
        self._arrival = Signal()
        self._demand = Signal()
        # A thread may write while the loop takes.
        self._lock = threading.Lock()
        self._written: list[bytes] = []
        self._size = 0

    # In the request's Task

    async def prime(self) -> None:
        """Begin, and wait for the first item."""
        self._loop = asyncio.get_running_loop()
        self._unsent = Unsent(self, self._loop)
        try:
            await self._begin()
        except BaseException:
            await self.aclose()
            raise
        if self._request is not None:
            follow(self._request)
            self._unsent.follow(self._request)

    async def _begin(self) -> None:
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._arrival.give)
        while not self._written and not self._task.done():
            await self._arrival.wait()
        if self._task.done():
            self._tell()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next part. Cancellation: safe; nothing is lost."""
        if self._task is None:
            raise StopAsyncIteration
        if not self._is_sent:
            self._begin_to_send()
        while not (part := self._take()):
            if self._task.done():
                self._tell()
                raise StopAsyncIteration
            await self._arrival.wait()
        return part

    def _begin_to_send(self) -> None:
        self._is_sent = True
        self._unsent.settle()
        self._limit = LIMIT
        self._context.lend()

    def _tell(self) -> None:
        assert self._task is not None
        self._is_told = True
        self._task.result()

    def _take(self) -> bytes:
        with self._lock:
            written, self._written = self._written, []
            self._size = 0
        self._demand.give()
        return b"".join(written)

    async def aclose(self) -> None:
        """Close the items, once, and wait until they are closed.

        Raises:
            BaseException: what they have raised meanwhile.

        Cancellation: passed on to the items, and raised when they are closed.
        """
        self._unsent.settle()
        try:
            if self._task is not None:
                await self._end_task()
        finally:
            self._context.take_back()

    async def _end_task(self) -> None:
        # The Task keeps an error whose traceback leads back to here.
        task, self._task = self._task, None
        assert task is not None
        self._is_dismissed = True
        task.cancel()
        try:
            await wait_for_end(task, self._is_told)
        finally:
            del task

    def abandon(self) -> None:
        """Have the items end soon; on the loop."""
        if self._task is not None:
            self._is_dismissed = True
            self._task.cancel()

    # In the producer's Task, and in threads

    async def _run(self) -> None:
        await greenlets.stepped(self._produce())

    async def _produce(self) -> None:
        try:
            if hasattr(self._items, "__aiter__"):
                await self._produce_async()
            else:
                await self._produce_plain()
            self._write(self._form.end())
        finally:
            await self._close()

    async def _produce_async(self) -> None:
        self._iterator = aiter(self._items)
        async for item in self._iterator:
            self._write(self._form.piece(item))
            if self._is_full():
                await self._wait_for_demand()
            # Items may go on although they were cancelled.
            if self._is_dismissed:
                return

    async def _produce_plain(self) -> None:
        while await self._call(self._fill) and not self._is_dismissed:
            await self._wait_for_demand()

    def _fill(self) -> bool:
        # Whether there may be more.
        for item in self._items:
            self._write(self._form.piece(item))
            if self._is_full() or self._is_dismissed:
                return True
        return False

    async def _call(self, fn: Callable[[], Any]) -> Any:
        return fn() if self._executor is None else await self._executor.run(fn)

    def _write(self, piece: bytes) -> None:
        if not piece:
            return
        with self._lock:
            is_first = not self._written
            self._written.append(piece)
            self._size += len(piece)
        if is_first:
            # From a thread as well, whose loop may be closed by now.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._arrival.give)

    def _is_full(self) -> bool:
        return self._size > self._limit

    async def _wait_for_demand(self) -> None:
        while self._is_full() and not self._is_dismissed:
            await self._demand.wait()

    async def _close(self) -> None:
        try:
            if self._iterator is not self._items:
                await self._close_one(self._iterator)
        finally:
            await self._close_one(self._items)

    async def _close_one(self, closable: Any) -> None:
        aclose = getattr(closable, "aclose", None)
        close = getattr(closable, "close", None)
        if aclose is not None:
            await aclose()
        elif close is not None and hasattr(closable, "__aiter__"):
            close()
        elif close is not None:
            await self._call(close)

"""A page that is sent while its template is still at work.

Theory of operation
===================

A template engine calls, and is not called: it writes, and comes back when the page is
whole. So the template has a Task to itself, the *template's Task*, in a copy of the
request's context, and hands over what it has written, while the *request's Task* sends
it. They take turns::

    request's Task                       template's Task
    begin() ───────────────────────────► writes the head
      waits                              is about to wait for something
      gives the response      ◄───────── hands the head over; is held
    tweens, the commit, callbacks        …
    __anext__ takes the head  ─────────► waits
    … it is sent                         …
    __anext__: waits on                  goes on, writes
      takes what there is     ◄───────── waits for something else
    … it is sent                         …

The first stop is before a wait, and not in it: what the template waits for has not
begun, so that nothing of it (a query, on the connection that the transaction has) runs
beside the commit. From then on the template is past the transaction, and is held
back only where it has written :data:`ENOUGH`.

What a session of SQLAlchemy's waits for before that does not stop it: the session is
in the middle of something then, and the commit would find it there.

How a wait is noticed: on the loop, the first one by the ``shield`` of the greenlet's
job, which is given whatever is waited for. Later ones by the very fact that the
request's Task runs: what has been written wakes it, and it gets its turn when the
template gives up its own. In a thread, each one by the hook of the thread's scope. What
a thread has written is taken only while the thread is held.

A page that is made without a wait, and is short, is whole before it was to be sent. So
is one that fails before anything but white space was written; its error is an ordinary
one.

The threads are not those of views: a template in a thread is held by a slow client, and
a view that runs in a thread waits for the first part of its page.

The end
=======

====================================  =============================================
the template returns                  the body ends
it raises                             the body raises the same, and the server cuts
                                      the connection and logs the error
the client leaves                     the body is closed: ``CancelledError`` is
                                      raised in the template where it waits, and its
                                      end is waited for
the response is not sent after all    the same, at the end of the request; or when
                                      nobody refers to the body (:mod:`.unsent`)
====================================  =============================================

Things that do not work
=======================

* Starting when the body is asked for: an error in the first line would be no error
  page.
* Letting the first wait begin, and looking at what the template's Task yields: a query
  has been sent then, and the commit meets it on the connection.
* A timer that sends what a thread has written: so short that it helps, it cuts pages to
  pieces, and before the first part it runs into the transaction as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

from greenlet import getcurrent

from .. import bridge, greenlets, threads
from ..handover import LentContext, Signal, wait_for_end
from ..interfaces import IExecutor
from .unsent import Unsent

__all__ = ["ENOUGH", "PageBody", "PageStream"]

# Characters of a page after which it is sent without a wait.
ENOUGH = 32_768

# Makes a page, and writes it bit by bit.
Render = Callable[[Callable[[str], Any]], None]


class PageStream:
    """What is between a template and the body of a response.

    Args:
        render: renders the template, and writes it by the function that it is given.
        request: is current while it does.
        ended: is called on the loop when the page has ended, in whatever way.
        executor: in whose threads it is rendered; None: in a greenlet on the loop.

    Attributes:
        encoding: of the text that is sent.
    """

    encoding = "utf-8"

    _loop: asyncio.AbstractEventLoop
    _unsent: Unsent
    _task: asyncio.Task[None] | None = None
    # Whether the first part was asked for: Pyramid is done with the request.
    _is_open = False
    # Whether the template waits for the client, which is no wait to be noticed.
    _is_flushing = False
    _is_closed = False
    # The template's, and its job until the first part is handed over.
    _greenlet: Any = None
    _job: Any = None

    def __init__(
        self,
        render: Render,
        request: Any,
        ended: Callable[[], None],
        executor: IExecutor | None = None,
    ) -> None:
        self._render: Any = render
        self._request: Any = request
        self._context = LentContext(request)
        # What the template waits for where it is held, and what the request's Task.
        self._demand = Signal()
        self._arrival = Signal()
        self._ended = ended
        self._executor = executor
        self._text: list[str] = []
        self._size = 0

    def begin(self) -> str | None:
        """Start, in synchronous code, and wait for what there is to send first.

        Returns:
            the page, if that is all of it; None: a :class:`PageBody` gives it.

        Raises:
            BaseException: what the template raised.

        Cancellation: raised in the template, and here when that has ended.
        """
        return bridge.wait(self._begin())

    async def _begin(self) -> str | None:
        self._loop = asyncio.get_running_loop()
        self._unsent = Unsent(self, self._loop)
        context = contextvars.copy_context()
        # The thread that waits for the first part is not to run the template: it would
        # be held, and has a response to give.
        context.run(threads.work_for, None)
        self._task = self._loop.create_task(self._run(), context=context)
        self._task.add_done_callback(self._arrival.give)
        try:
            while not self._demand.is_awaited and not self._task.done():
                await self._arrival.wait()
        except BaseException:
            await self.aclose()
            raise
        if not self._task.done():
            self._unsent.follow(self._request)
            return None
        self._is_closed = True
        self._forget()
        self._result()
        return "".join(self._text)

    def _forget(self) -> None:
        # The request has the response, and that the body; and the template has both.
        self._render = self._request = self._greenlet = None
        self._context.take_back()
        self._unsent.settle()
        ended, self._ended = self._ended, _do_nothing
        ended()

    # In the template ---------------------------------------------------------

    async def _run(self) -> None:
        if self._executor is None:
            await greenlets.run(self._render_inline)
        else:
            await self._executor.run(self._render_in_thread)

    def _render_inline(self) -> None:
        self._greenlet = getcurrent()
        self._job = greenlets.own_job()
        self._job.shield = self._before_first_wait
        try:
            self._render(self._write)
        finally:
            self._notice_no_more()

    async def _before_first_wait(self, awaitable: Awaitable[Any]) -> Any:
        try:
            greenlets.check_awaitable(awaitable)
            if self._has_something and self._asks_itself():
                await self._hand_over()
            return await awaitable
        except BaseException:
            # It may not have begun.
            greenlets.close(awaitable)
            raise
        finally:
            # A Future refers to its exception, whose traceback refers to here.
            del awaitable

    def _notice_no_more(self) -> None:
        if self._job is not None:
            self._job.shield = self._job = None

    def _render_in_thread(self) -> None:
        scope = threads.current_scope()
        assert scope is not None
        self._greenlet = getcurrent()
        scope.before_wait = self._before_wait
        try:
            self._render(self._write)
        finally:
            scope.before_wait = None

    def _before_wait(self) -> None:
        if self._has_something and (self._is_open or self._asks_itself()):
            self.flush()

    def _asks_itself(self) -> bool:
        # A session of SQLAlchemy's asks elsewhere, in the parent of the greenlet, or
        # says so, where it waits for a connection.
        if self._is_flushing or bridge.is_midway():
            return False
        return getcurrent() is self._greenlet

    @property
    def _has_something(self) -> bool:
        return any(text and not text.isspace() for text in self._text)

    def _write(self, text: str) -> None:
        self._text.append(text)
        self._size += len(text)
        if self._size >= ENOUGH:
            self.flush()
        elif self._executor is None and self._is_open:
            # It is here that both run: the other Task's turn comes with the next wait.
            self._arrival.give()

    def flush(self) -> str:
        """Send what has been written, now; to be called in the template.

        Waits until the client has taken what was sent before. Gives an empty string, so
        that it can stand where text is written.
        """
        if self._text and not self._is_flushing:
            self._is_flushing = True
            try:
                bridge.wait(self._hand_over())
            finally:
                self._is_flushing = False
        return ""

    async def _hand_over(self) -> None:
        if self._is_closed:
            # The template has gone on although it was cancelled.
            raise asyncio.CancelledError
        self._notice_no_more()
        self._arrival.give()
        await self._demand.wait()

    # In the request ----------------------------------------------------------

    async def next(self) -> bytes:
        """The next part of the page.

        Raises:
            StopAsyncIteration: there is none.
            BaseException: what the template raised.

        Cancellation: safe; nothing is lost.
        """
        if not self._is_open:
            self._open()
        while self._task is not None:
            if chunk := self._take(self._task):
                return chunk
            if self._task.done():
                self._result()
            else:
                await self._arrival.wait()
        raise StopAsyncIteration

    def _open(self) -> None:
        self._is_open = True
        self._unsent.settle()
        self._context.lend()

    def _take(self, task: asyncio.Task[None]) -> bytes:
        is_held = self._demand.is_awaited or task.done()
        if not is_held and self._executor is not None:
            # The thread may be writing.
            return b""
        text, self._text, self._size = self._text, [], 0
        self._demand.give()
        return "".join(text).encode(self.encoding)

    def _result(self) -> None:
        # The Task keeps an error whose traceback leads back to here.
        task, self._task = self._task, None
        try:
            assert task is not None
            task.result()
        finally:
            del task

    async def aclose(self) -> None:
        """End the template, if it has not ended, and wait for that; idempotent.

        Raises:
            BaseException: what the template raised meanwhile.

        Cancellation: raised when the template has ended.
        """
        if self._is_closed:
            return
        self._is_closed = True
        try:
            await self._end()
        finally:
            self._forget()

    async def _end(self) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        was_done = task.done()
        task.cancel()
        try:
            await wait_for_end(task, is_told=was_done)
        finally:
            del task

    def abandon(self) -> None:
        """End the template soon; in any thread."""
        task = self._task
        if self._is_closed or task is None or task.done():
            return
        # Nobody is to wait for it, nor to hear of its end.
        self._is_closed = True
        with contextlib.suppress(RuntimeError):
            # The loop may be closed, and the Task has ended then.
            self._loop.call_soon_threadsafe(self._give_up, task)

    def _give_up(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._forget()


def _do_nothing() -> None:
    pass


class PageBody:
    """An asynchronous iterator over the bytes of a page.

    The template's Task refers to its :class:`PageStream`, and not to this. So a
    response that is thrown away ends the template.
    """

    def __init__(self, stream: PageStream) -> None:
        self._stream = stream

    def __aiter__(self) -> PageBody:
        return self

    async def __anext__(self) -> bytes:
        return await self._stream.next()

    async def aclose(self) -> None:
        """See :meth:`PageStream.aclose`."""
        await self._stream.aclose()

    def __del__(self) -> None:
        self._stream.abandon()

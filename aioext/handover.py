"""What bodies have in common that are made in a Task of their own.

Such a body is an asynchronous iterator of the *request's Task*, which sends what
*another Task* makes: events (:mod:`aioext.eventsource.stream`), items
(:mod:`aioext.renderers.items`), a page (:mod:`aioext.renderers.page`). The two wait
for each other by :class:`Signal`; the other one has the request as Pyramid had it, by
:class:`LentContext`; and who closes the body waits for its end, :func:`wait_for_end`.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["LentContext", "Signal", "wait_for_end"]


class Signal:
    """What one Task waits for, and another one gives; on one loop.

    One that is given while nobody waits is lost: who waits looks first.
    """

    _future: asyncio.Future[None] | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for it, or has not had a turn since it was given."""
        return self._future is not None

    async def wait(self) -> None:
        """Wait until it is given. Cancellation: safe."""
        self._future = asyncio.get_running_loop().create_future()
        try:
            await self._future
        finally:
            self._future = None

    def give(self, task: Any = None) -> None:
        """Have who waits go on; as the callback of a Task as well."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class LentContext:
    """The context of a request, for what runs when Pyramid is done with that.

    Pyramid takes it from the request at the router's end, to break a cycle.

    Args:
        request: may be None.
    """

    _is_lent = False

    def __init__(self, request: Any) -> None:
        self._request = request
        self._context = getattr(request, "context", None)

    def lend(self) -> None:
        """Let the request have it, unless it has it."""
        request = self._request
        if request is not None and not hasattr(request, "context"):
            self._is_lent = True
            request.context = self._context

    def take_back(self) -> None:
        """Take it away again, for good."""
        if self._is_lent:
            vars(self._request).pop("context", None)
        self._is_lent = False
        self._request = self._context = None


async def wait_for_end(task: asyncio.Task[Any], is_told: bool) -> None:
    """Wait until a Task has ended, which was told to.

    Args:
        task: the Task.
        is_told: whether it is known how it has ended.

    Raises:
        BaseException: what it raised, unless that is known.

    Cancellation: passed on to the Task, and raised when that has ended.
    """
    is_cancelled = False
    try:
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError:
                is_cancelled = True
                task.cancel()
        if not is_told and not task.cancelled():
            task.result()
    finally:
        # It keeps its error, whose traceback leads back to here.
        del task
    if is_cancelled:
        raise asyncio.CancelledError

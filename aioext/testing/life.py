"""The lifespan of an application under test, held open in a Task of its own.

A server opens it by ASGI's lifespan protocol, which tells of an error in words
only; a test is to have the error. An application that is wrapped in WSGI middleware
is not found: its first request opens it, as under any WSGI server, and it is closed
when the loop ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import Any

from zope.interface.interfaces import IComponents

from ..exceptions import ScopeError
from ..interfaces import ILifespan
from ..lifespan import Lifespan

__all__ = ["Life"]


class Life:
    """Opens the lifespan of ``app``, and closes it."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open it unless it is open; until the loop ends, if nobody closes it.

        Raises:
            Exception: what the application raised at its start.
            ScopeError: it is open on another loop.
        """
        lifespan = _lifespan_of(self._app)
        if lifespan is None:
            return
        if not self._is_held():
            if lifespan.is_open:
                # By somebody else, who will close it.
                return
            self._hold_open(lifespan)
        await asyncio.shield(self._opened)

    def _is_held(self) -> bool:
        if self._task is None or self._task.done():
            return False
        if self._task.get_loop() is not asyncio.get_running_loop():
            raise ScopeError(OTHER_LOOP)
        return True

    def _hold_open(self, lifespan: Lifespan) -> None:
        loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = loop.create_future()
        self._closing = asyncio.Event()
        holding = self._hold(lifespan, self._opened, self._closing)
        # What the test has set is not for the whole application.
        self._task = loop.create_task(holding, context=contextvars.Context())
        _holders.add(self._task)
        self._task.add_done_callback(_holders.discard)

    async def _hold(
        self,
        lifespan: Lifespan,
        opened: asyncio.Future[None],
        closing: asyncio.Event,
    ) -> None:
        async with contextlib.AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(lifespan.open())
            except Exception as error:
                opened.set_exception(error)
                return
            except BaseException:
                opened.cancel()
                raise
            opened.set_result(None)
            await closing.wait()

    async def close(self) -> None:
        """Close what :meth:`open` has opened.

        Raises:
            Exception: what the application raised at its end.
            ScopeError: it is open on another loop.
        """
        if self._is_held():
            assert self._task is not None
            self._closing.set()
            await asyncio.wait((self._task,))
            self._task.result()


# A loop does not keep its Tasks, and a TestApp may be dropped without a word.
_holders: set[asyncio.Task[None]] = set()


def _lifespan_of(app: Any) -> Lifespan | None:
    registry = getattr(app, "registry", None)
    if not IComponents.providedBy(registry):
        return None
    return registry.queryUtility(ILifespan)


OTHER_LOOP = """\
This TestApp is open on another event loop, on which its application's resources \
were made. Use one TestApp, of one application, for each loop; or close() it there."""

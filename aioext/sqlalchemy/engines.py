"""The engines of an application: one for each event loop that is used.

Theory of operation
===================

A connection belongs to the loop on which it was opened. A process that serves has
one loop; a script, or a plain WSGI server, uses the background loop; tests have one
after the other. So :meth:`Engines.current` asks for the loop on which a wait here
would run, and makes an engine for it when the first one asks.

An engine is closed when the application's lifespan on its loop is, after everything
else, so that what is opened in a lifespan may use the database to its end. Without a
lifespan, in a script for example, a Task on the loop does that: it waits for nothing
but the cancellation with which a loop ends.

A fork finds its parent's engines. They are kept, unused, for ever: to close their
connections would end them for the parent as well, and so might their destruction.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
import weakref
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from zope.interface import implementer

from .. import bridge
from .interfaces import IEngines
from .retry import mark_retryable
from .url import make_engine

__all__ = ["Engines"]


@dataclass(eq=False)
class _Opened:
    engine: AsyncEngine
    # The Task that closes it; None: the application's lifespan does.
    holder: asyncio.Task[None] | None = None


@implementer(IEngines)
class Engines:
    """One application's engines.

    Args:
        settings: the application's settings, with those under ``sqlalchemy.``.

    Raises:
        ConfigurationError: no engine can be made of them.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = dict(settings)
        make_engine(self._settings)
        self._lock = threading.Lock()
        self._opened: dict[asyncio.AbstractEventLoop, _Opened] = {}
        # Loops whose engine the application's lifespan closes.
        self._kept: set[asyncio.AbstractEventLoop] = set()
        _all.add(self)

    def current(self) -> AsyncEngine:
        """The engine of the loop on which a wait here would run.

        It is made if need be, which opens no connection.

        Raises:
            ScopeError: a wait here would fail.
        """
        loop = bridge.current_loop()
        with self._lock:
            opened = self._opened.get(loop) or self._open(loop)
        return opened.engine

    def _open(self, loop: asyncio.AbstractEventLoop) -> _Opened:
        self._forget_closed_loops()
        engine = make_engine(self._settings)
        event.listen(engine.sync_engine, "handle_error", mark_retryable)
        opened = self._opened[loop] = _Opened(engine)
        if loop not in self._kept:
            loop.call_soon_threadsafe(self._hold, loop, opened)
        return opened

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in self._opened if loop.is_closed()]:
            del self._opened[loop]

    def _hold(self, loop: asyncio.AbstractEventLoop, opened: _Opened) -> None:
        # Nothing of the request that happened to be the first is seen there.
        context = contextvars.Context()
        opened.holder = loop.create_task(self._close_with(loop), context=context)
        _holders.add(opened.holder)
        opened.holder.add_done_callback(_holders.discard)

    async def _close_with(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            await loop.create_future()
        finally:
            if loop not in self._kept:
                await self._close(loop)

    async def _close(self, loop: asyncio.AbstractEventLoop) -> None:
        opened = self._opened.pop(loop, None)
        if opened is None:
            return
        if opened.holder is not None and opened.holder is not asyncio.current_task():
            opened.holder.cancel()
        await opened.engine.dispose()

    @contextlib.asynccontextmanager
    async def keep(self, registry: Any) -> AsyncIterator[None]:
        """Close the engine of this loop at the end: a lifespan.

        Cancellation: does not keep it from being closed.
        """
        loop = asyncio.get_running_loop()
        self._kept.add(loop)
        try:
            yield
        finally:
            self._kept.discard(loop)
            await self._close(loop)

    def _forget_after_fork(self) -> None:
        _of_parents.append(self._opened)
        self._lock = threading.Lock()
        self._opened = {}
        self._kept = set()


_all: weakref.WeakSet[Engines] = weakref.WeakSet()
_of_parents: list[Any] = []
# A loop does not keep its Tasks, and an engine that is open is to be closed even if
# nobody knows its application any more.
_holders: set[asyncio.Task[None]] = set()


def _forget_after_fork() -> None:
    for engines in list(_all):
        engines._forget_after_fork()
    for holder in _holders:
        # It never ends in the child, which would complain at exit.
        holder.get_loop().set_exception_handler(lambda loop, context: None)


os.register_at_fork(after_in_child=_forget_after_fork)

"""What is open while an application serves: resources, and two events.

Theory of operation
===================

An application has one :class:`Lifespan`, a utility of its registry. It is
*opened* on the loop that serves, before the first request, and closed after
the last one, in the same Task, for a cancel scope or a task group must end in
the Task in which it began:

1. the context managers of ``config.add_lifespan`` are entered, in order;
2. :class:`aioext.events.AppStarting` is sent;
3. the application serves;
4. :class:`aioext.events.AppStopping` is sent;
5. the context managers are left, in reverse order, and the executor is closed.

``get_current_registry()`` gives the application's in 1, 2, 4 and 5.

A context manager is always left as at a normal end (``yield`` returns), be it
that the Task was cancelled, which is how a server in a hurry ends, or that
another one failed. Otherwise what stands after a bare ``yield`` would not run.

Where the server speaks ASGI's lifespan protocol, :func:`serve` opens it there.
The object that the server was given may be a PasteDeploy filter or composite
around the application, or around several: they are found through Pyramid's
``ApplicationCreated`` event. Where the server has no such protocol, the first
request opens it (:meth:`Lifespan.ensure_open`) in a Task of its own, which is
cancelled when the loop ends. That Task has a context of its own, too: nothing
of the request that happened to be the first is seen there.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from pyramid.registry import Registry
from zope.interface import implementer
from zope.interface.interfaces import IComponents

from . import background, bridge, threadlocal
from .events import AppStarting, AppStopping
from .exceptions import explain
from .interfaces import IExecutor, ILifespan, ISettings
from .settings import Settings
from .shutdown import announce_at_signals

__all__ = ["Lifespan", "serve"]

log = logging.getLogger("aioext")

Factory = Callable[[Registry], contextlib.AbstractAsyncContextManager[Any]]
Message = MutableMapping[str, Any]


@implementer(ILifespan)
class Lifespan:
    """The resources of one application.

    Attributes:
        factories: what ``config.add_lifespan`` got, in order, and what is mounted.
        mounted: the lifespans of Pyramid applications that are mounted in this one,
            and opened by it.
    """

    def __init__(self, registry: Registry) -> None:
        self.factories: list[Factory] = []
        self.mounted: list[Lifespan] = []
        self._registry = weakref.ref(registry)
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Future[None] | None = None
        # Done when an open() that has begun is, be it without success.
        self._starting: asyncio.Future[None] | None = None

    @property
    def settings(self) -> Settings:
        """The settings of the application."""
        return self.registry.getUtility(ISettings)

    @property
    def registry(self) -> Registry:
        """The application's registry."""
        registry = self._registry()
        assert registry is not None
        return registry

    @property
    def is_open(self) -> bool:
        """Whether it is open in this process."""
        return (
            self._loop is not None
            and self._pid == os.getpid()
            and not self._loop.is_closed()
        )

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open everything, and close it at the end.

        Raises:
            Exception: what a factory, or a subscriber to ``AppStarting``,
                raised; what was open is closed again.

        Cancellation: closes what is open; the closing may wait.
        """
        registry = self.registry
        loop = asyncio.get_running_loop()
        current = {"registry": registry, "request": None}
        starting = self._starting = loop.create_future()
        try:
            with threadlocal.pushed(current):
                resources = await self._start(registry, loop)
            pid = os.getpid()
            self._pid, self._loop = pid, loop
        finally:
            self._starting = None
            starting.cancel()
        try:
            yield
        finally:
            # What a fork finds open is its parent's to close.
            if os.getpid() == pid:
                self._loop = None
                with threadlocal.pushed(current):
                    await resources.aclose()

    async def settled(self) -> None:
        """Wait for whoever opens it on this loop right now.

        Cancellation: safe; the opening goes on.
        """
        loop = asyncio.get_running_loop()
        while self._starting is not None and self._starting.get_loop() is loop:
            await asyncio.wait((self._starting,))

    async def _start(
        self, registry: Registry, loop: asyncio.AbstractEventLoop
    ) -> contextlib.AsyncExitStack:
        background.serve_on(loop)
        notify = bridge.spawn_greenlet
        async with contextlib.AsyncExitStack() as stack:
            for _, executor in registry.getUtilitiesFor(IExecutor):
                stack.push_async_callback(executor.aclose)
            for factory in self.factories:
                await _enter(factory, registry, stack)
            await notify(registry.notify, AppStarting(registry, loop))
            stopping = AppStopping(registry, loop)
            stack.push_async_callback(notify, registry.notify, stopping)
            return stack.pop_all()

    async def ensure_open(self) -> None:
        """Open it unless it is open, until this loop ends.

        Cancellation: safe; the opening goes on.
        """
        if self.is_open:
            return
        loop = asyncio.get_running_loop()
        opening = self._opening
        # A process that was forked has its parent's, of the parent's loop.
        if opening is None or opening.get_loop() is not loop:
            opening = self._opening = loop.create_future()
            holding = self._hold(opening)
            holder = loop.create_task(holding, context=contextvars.Context())
            _holders.add(holder)
            holder.add_done_callback(_holders.discard)
            background.end_last(holder)
            background.end_at_exit(loop)
        await asyncio.shield(opening)

    async def _hold(self, opening: asyncio.Future[None]) -> None:
        try:
            await self.settled()
            if self.is_open:
                # One that it is mounted in was quicker, and holds it.
                opening.set_result(None)
                return
            async with self.open():
                opening.set_result(None)
                with announce_at_signals():
                    await asyncio.get_running_loop().create_future()
        except Exception as error:
            if opening.done():
                log.exception(NOT_CLOSED)
            else:
                opening.set_exception(error)
        finally:
            # Unless one of the above was reached: nobody waits for ever.
            opening.cancel()
            if self._opening is opening:
                self._opening = None


# A loop does not keep its Tasks. An application that is open lives until it is
# closed, even if nobody else knows it any more: the end of a test is no reason
# to leave its resources half-closed.
_holders: set[asyncio.Task[None]] = set()


def _abandon_in_fork() -> None:
    # The parent's Tasks never end in the child, which would complain at exit.
    for holder in _holders:
        holder.get_loop().set_exception_handler(lambda loop, context: None)


os.register_at_fork(after_in_child=_abandon_in_fork)


async def _enter(
    factory: Factory, registry: Registry, stack: contextlib.AsyncExitStack
) -> None:
    manager = factory(registry)
    if not isinstance(manager, contextlib.AbstractAsyncContextManager):
        raise TypeError(explain(NO_MANAGER.format(factory, manager), "lifespan"))
    await manager.__aenter__()
    stack.push_async_callback(manager.__aexit__, None, None, None)


NO_MANAGER = """\
{0!r}, given to add_lifespan(), returned {1!r}, which is not an asynchronous \
context manager. Decorate an asynchronous generator function with \
contextlib.asynccontextmanager."""

NOT_CLOSED = "aioext: the application could not be closed"


# Every application that was created in this process, oldest first.
_created: weakref.WeakKeyDictionary[Lifespan, None] = weakref.WeakKeyDictionary()


def remember(app: Any) -> None:
    """Have :func:`lifespans_of` find a Pyramid application that was created."""
    _created[app.registry.getUtility(ILifespan)] = None


def lifespans_of(app: Any) -> list[Lifespan]:
    """The lifespans that are to be open while ``app`` serves.

    Args:
        app: a Pyramid application, or an object that may contain several; in
            which case those of all applications of this process are given.

    Returns:
        each once, and those of what is mounted in one after it.
    """
    registry = getattr(app, "registry", None)
    if IComponents.providedBy(registry):
        own = registry.queryUtility(ILifespan)
        found = [] if own is None else [own]
    else:
        found = [each for each in list(_created) if not each.is_open]
    # What is appended meanwhile is looked at as well.
    for each in found:
        found += [inner for inner in _mounted_in(each) if inner not in found]
    return found


def _mounted_in(lifespan: Any) -> list[Lifespan]:
    # One that an application has registered itself need not have any.
    return getattr(lifespan, "mounted", [])


async def serve(
    app: Any,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """ASGI's lifespan protocol for ``app``.

    A failure at the start is told to the server, which is to end.

    Cancellation: closes what is open, as the protocol's shutdown does.
    """
    await receive()
    try:
        lifespans = await _open_all(lifespans_of(app))
    except Exception as error:
        log.exception("aioext: the application could not start")
        await send(_failed("lifespan.startup.failed", error))
        return
    try:
        await send({"type": "lifespan.startup.complete"})
        with announce_at_signals():
            await receive()
    finally:
        outcome = await _close(lifespans)
    await send(outcome)


async def _open_all(lifespans: list[Lifespan]) -> contextlib.AsyncExitStack:
    async with contextlib.AsyncExitStack() as stack:
        mounted = {inner for each in lifespans for inner in _mounted_in(each)}
        for lifespan in lifespans:
            if lifespan not in mounted:
                await stack.enter_async_context(lifespan.open())
        return stack.pop_all()


async def _close(stack: contextlib.AsyncExitStack) -> Message:
    try:
        await stack.aclose()
    except Exception as error:
        # Logged here, for a server that cancels does not look at the outcome.
        log.exception(NOT_CLOSED)
        return _failed("lifespan.shutdown.failed", error)
    return {"type": "lifespan.shutdown.complete"}


def _failed(kind: str, error: Exception) -> Message:
    return {"type": kind, "message": f"{type(error).__name__}: {error}"}

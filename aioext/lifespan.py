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

Where the server speaks ASGI's lifespan protocol, :func:`serve` opens it there.
The object that the server was given may be a PasteDeploy filter or composite
around the application, or around several: they are found through Pyramid's
``ApplicationCreated`` event. Where the server has no such protocol, the first
request opens it (:meth:`Lifespan.ensure_open`) in a Task of its own, which is
cancelled when the loop ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from pyramid.interfaces import IApplicationCreated
from pyramid.registry import Registry
from zope.interface import implementer

from . import background, bridge, threadlocal
from .events import AppStarting, AppStopping
from .interfaces import IExecutor, ILifespan, ISettings
from .settings import Settings

__all__ = ["Lifespan", "serve"]

log = logging.getLogger("aioext")

Factory = Callable[[Registry], contextlib.AbstractAsyncContextManager[Any]]
Message = MutableMapping[str, Any]


@implementer(ILifespan)
class Lifespan:
    """The resources of one application.

    Attributes:
        factories: what ``config.add_lifespan`` got, in order.
        created_pid: the process in which the application was configured.
    """

    def __init__(self, registry: Registry) -> None:
        self.factories: list[Factory] = []
        self.created_pid = os.getpid()
        self._registry = weakref.ref(registry)
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Future[None] | None = None

    @property
    def settings(self) -> Settings:
        """The settings of the application."""
        return self._alive().getUtility(ISettings)

    def _alive(self) -> Registry:
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
        """
        registry = self._alive()
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(registry.getUtility(IExecutor).aclose)
            background.serve_on(loop)
            for factory in self.factories:
                await stack.enter_async_context(factory(registry))
            await self._notify(AppStarting(registry, loop))
            self._pid, self._loop = os.getpid(), loop
            try:
                yield
            finally:
                self._loop = None
                await self._notify(AppStopping(registry, loop))

    async def _notify(self, event: AppStarting | AppStopping) -> None:
        await bridge.spawn_greenlet(_notify, event)

    async def ensure_open(self) -> None:
        """Open it unless it is open, until this loop ends.

        Cancellation: safe; the opening goes on.
        """
        if self.is_open:
            return
        if self._opening is None or self._opening.get_loop().is_closed():
            loop = asyncio.get_running_loop()
            self._opening = loop.create_future()
            self._holder = loop.create_task(
                self._hold(self._opening), context=threadlocal.isolated()
            )
        await asyncio.shield(self._opening)

    async def _hold(self, opening: asyncio.Future[None]) -> None:
        try:
            async with self.open():
                opening.set_result(None)
                await asyncio.get_running_loop().create_future()
        except Exception as error:
            if opening.done():
                log.exception("aioext: an application could not be closed")
            else:
                opening.set_exception(error)
        finally:
            self._opening = None


def _notify(event: AppStarting | AppStopping) -> None:
    registry = event.registry
    with threadlocal.pushed({"registry": registry, "request": None}):
        registry.notify(event)


# Every application that was created in this process, oldest first.
_created: list[weakref.ref[Lifespan]] = []


def remember(event: Any) -> None:
    """Subscriber to ``ApplicationCreated``; it ends its own subscription.

    For a registry that has any subscriber, Pyramid sends four events with
    every request, which takes as long as all else it does for a short one.
    """
    registry = event.app.registry
    registry.unregisterHandler(remember, (IApplicationCreated,))
    handlers = itertools.chain(
        registry.registeredHandlers(), registry.registeredSubscriptionAdapters()
    )
    registry.has_listeners = any(True for _ in handlers)
    _created[:] = [ref for ref in _created if ref() is not None]
    _created.append(weakref.ref(registry.getUtility(ILifespan)))


def lifespans_of(app: Any) -> list[Lifespan]:
    """The lifespans that are to be open while ``app`` serves.

    Args:
        app: a Pyramid application, or an object that may contain several; in
            which case those of all applications of this process are given.
    """
    registry = getattr(app, "registry", None)
    if registry is not None:
        own = registry.queryUtility(ILifespan)
        return [] if own is None else [own]
    known = [ref() for ref in _created]
    return [each for each in known if each is not None and not each.is_open]


async def serve(
    app: Any,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """ASGI's lifespan protocol for ``app``.

    A failure at the start is told to the server, which is to end. Being
    cancelled closes what is open, as the protocol's shutdown does.
    """
    await receive()
    async with contextlib.AsyncExitStack() as stack:
        try:
            for lifespan in lifespans_of(app):
                await stack.enter_async_context(lifespan.open())
        except Exception as error:
            log.exception("aioext: the application could not start")
            message = f"{type(error).__name__}: {error}"
            await send({"type": "lifespan.startup.failed", "message": message})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await _close(stack, send)


async def _close(
    stack: contextlib.AsyncExitStack, send: Callable[[Message], Awaitable[None]]
) -> None:
    try:
        await stack.aclose()
    except Exception as error:
        log.exception("aioext: the application could not be closed")
        message = f"{type(error).__name__}: {error}"
        await send({"type": "lifespan.shutdown.failed", "message": message})
    else:
        await send({"type": "lifespan.shutdown.complete"})

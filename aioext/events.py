"""Events of an application's life, for ``config.add_subscriber``.

They are sent in the process and on the loop that serve the application; a
subscriber may wait (:func:`aioext.wait`). See :mod:`aioext.lifespan` for when.
"""

from __future__ import annotations

import asyncio

from pyramid.registry import Registry

__all__ = ["AppStarting", "AppStopping"]


class _LifespanEvent:
    """An event with a registry and a loop.

    Attributes:
        registry: the application's registry.
        loop: the event loop on which it serves.
    """

    def __init__(self, registry: Registry, loop: asyncio.AbstractEventLoop) -> None:
        self.registry = registry
        self.loop = loop


class AppStarting(_LifespanEvent):
    """The application will serve its first request when this returns.

    An exception in a subscriber stops the server, with the exception as the
    cause that it names.
    """


class AppStopping(_LifespanEvent):
    """The application has served its last request; its resources close next."""

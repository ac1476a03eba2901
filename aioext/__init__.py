"""Pyramid on asyncio.

``config.include('aioext')`` in a Pyramid application is all that is needed to
write ``async def`` views; see :func:`includeme`.
"""

from __future__ import annotations

from typing import Any

from ._version import __version__ as __version__
from .bridge import run as run
from .bridge import spawn_greenlet as spawn_greenlet
from .bridge import synchronize as synchronize
from .bridge import wait as wait
from .events import AppStarting as AppStarting
from .events import AppStopping as AppStopping
from .exceptions import ConnectionClosed as ConnectionClosed
from .exceptions import ScopeError as ScopeError
from .executor import use_executor as use_executor
from .pending import Pending as Pending
from .websocket.client import connect as connect
from .wrappers import async_wrapper as async_wrapper

__all__ = [
    "AppStarting",
    "AppStopping",
    "ConnectionClosed",
    "Pending",
    "ScopeError",
    "__version__",
    "async_wrapper",
    "connect",
    "includeme",
    "run",
    "spawn_greenlet",
    "synchronize",
    "use_executor",
    "wait",
]


def includeme(config: Any) -> None:
    """Prepare a Pyramid application for asyncio: ``config.include('aioext')``.

    This sets, where the application and its add-ons set nothing themselves:

    * the default view mapper,
      :class:`aioext.config.CoroutineOrExecutorMapper`: a coroutine view runs
      on the event loop, any other view in a thread
      (:ref:`aioext.sync_views <settings>`);
    * an executor for the application;
    * the default traverser, :class:`aioext.traversal.AsyncioTraverser`.

    Whatever Pyramid calls back may be a coroutine function, registered in the
    ordinary way: policies, factories, predicates, subscribers, renderers and
    the others of :doc:`hooks`. It adds the directives :meth:`config.add_lifespan
    <aioext.config.lifespan.add_lifespan>` and :meth:`config.make_asgi_app
    <aioext.config.asgi.make_asgi_app>`, and it isolates requests:
    ``get_current_request()`` gives each its own, however many of them run
    interleaved in one thread.

    Including it twice is harmless, and everything it sets can be overridden.
    """
    config.include("aioext.config")

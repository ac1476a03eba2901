"""The directive ``add_lifespan``."""

from __future__ import annotations

import inspect
from typing import Any

from pyramid.exceptions import ConfigurationError

from ..exceptions import explain
from ..interfaces import ILifespan
from .policy import LAST, adapt_execution_policy

__all__ = ["add_lifespan"]


def add_lifespan(config: Any, factory: Any) -> None:
    """Open a resource before the first request, close it after the last one.

    Called for its effect as a directive: ``config.add_lifespan(factory)``::

        @asynccontextmanager
        async def database(registry):
            async with create_pool(registry.settings["db.url"]) as pool:
                registry["db"] = pool
                yield

        config.add_lifespan(database)

    It is opened in the process and on the loop that serve, in the order of
    the calls, and closed in reverse. An exception at the start stops the
    server.

    Args:
        factory: a callable, or its dotted Python name, that takes the registry
            and gives an asynchronous context manager.

    Raises:
        ConfigurationError: ``factory`` is not callable, or cannot give one.
    """
    factory = config.maybe_dotted(factory)
    if not callable(factory):
        raise ConfigurationError(explain(NOT_CALLABLE.format(factory), "lifespan"))
    if any(is_undecorated(factory) for is_undecorated in UNDECORATED):
        raise ConfigurationError(explain(NOT_DECORATED.format(factory), "lifespan"))

    def register() -> None:
        config.registry.getUtility(ILifespan).factories.append(factory)
        adapt_execution_policy(config.registry)

    description = config.object_description(factory)
    intr = config.introspectable("lifespans", factory, description, "lifespan")
    intr["factory"] = factory
    # Two may be equal: opening a resource twice is the application's business.
    config.action(None, register, introspectables=(intr,), order=LAST)


UNDECORATED = (
    inspect.isasyncgenfunction,
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
)

NOT_CALLABLE = """\
add_lifespan() takes a callable that gives an asynchronous context manager, got \
{!r}. Pass the function that @asynccontextmanager decorates, not what it \
returns."""

NOT_DECORATED = """\
add_lifespan() takes a callable that gives an asynchronous context manager, and \
{!r} gives none. Write it as an asynchronous generator function (async def, with \
one yield), and decorate it with contextlib.asynccontextmanager."""

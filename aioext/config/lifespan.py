"""The directive ``add_lifespan``."""

from __future__ import annotations

from typing import Any

from pyramid.exceptions import ConfigurationError

from ..exceptions import explain
from ..interfaces import ILifespan
from .policy import adapt_execution_policy

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
        factory: a callable, or its :term:`dotted Python name`, that takes the
            registry and gives an asynchronous context manager.

    Raises:
        ConfigurationError: ``factory`` is not callable.
    """
    factory = config.maybe_dotted(factory)
    if not callable(factory):
        message = (
            f"add_lifespan() takes a callable that gives an asynchronous context "
            f"manager, got {factory!r}. Pass the function that "
            f"@asynccontextmanager decorates, not what it returns."
        )
        raise ConfigurationError(explain(message, "lifespan"))

    def register() -> None:
        config.registry.getUtility(ILifespan).factories.append(factory)
        adapt_execution_policy(config.registry)

    description = config.object_description(factory)
    intr = config.introspectable("lifespans", factory, description, "lifespan")
    intr["factory"] = factory
    # Two may be equal: opening a resource twice is the application's business.
    config.action(None, register, introspectables=(intr,), order=LAST)


# After an execution policy of the application's or of an add-on's.
LAST = 1_000_000

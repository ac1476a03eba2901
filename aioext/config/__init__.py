"""What aioext does to a configurator.

The view mappers are importable from here, as aiopyramid's users wrote::

    from aioext.config import CoroutineMapper
"""

from __future__ import annotations

from typing import Any

from pyramid.config import PHASE1_CONFIG
from pyramid.interfaces import IApplicationCreated, IViewMapperFactory
from pyramid.viewderivers import VIEW

from .. import threadlocal
from ..executor import Executor
from ..interfaces import IExecutor, ILifespan, ISettings
from ..lifespan import Lifespan, remember
from ..settings import Settings
from .asgi import make_asgi_app
from .derivers import awaited_view
from .lifespan import add_lifespan
from .mappers import (
    CoroutineMapper,
    CoroutineOrExecutorMapper,
    ExecutorMapper,
    InlineMapper,
)
from .policy import adapt_execution_policy

__all__ = [
    "CoroutineMapper",
    "CoroutineOrExecutorMapper",
    "ExecutorMapper",
    "InlineMapper",
]

# After the settings of an including application, and before its policies and
# views are registered.
AFTER_PHASE1 = PHASE1_CONFIG + 1
# After everything that an application and its add-ons register.
LAST = 1_000_000

DEFAULT_MAPPERS = {
    "executor": CoroutineOrExecutorMapper,
    "inline": InlineMapper,
    "request": InlineMapper,
}


def includeme(config: Any) -> None:
    """Set up an application for aioext; what ``config.include('aioext')`` does.

    No action here has a discriminator that an add-on could claim as well: what
    is not registered by anybody gets a default, and what is registered when
    the configuration ends is adapted.
    """
    registry = config.registry
    threadlocal.install()
    registry.registerUtility(Lifespan(registry), ILifespan)
    config.add_directive("add_lifespan", add_lifespan)
    config.add_directive("make_asgi_app", make_asgi_app)
    config.add_view_deriver(
        awaited_view, "aioext_awaited_view", under="rendered_view", over=VIEW
    )
    registry.registerHandler(remember, (IApplicationCreated,))
    config.action(None, _register_settings, (config,), order=PHASE1_CONFIG)
    config.action(None, _register_defaults, (registry,), order=AFTER_PHASE1)
    config.action(None, adapt_execution_policy, (registry,), order=LAST)


def _register_settings(config: Any) -> None:
    config.registry.registerUtility(Settings(config.registry.settings), ISettings)


def _register_defaults(registry: Any) -> None:
    settings = registry.getUtility(ISettings)
    taken = {utility.provided for utility in registry.registeredUtilities()}
    if IExecutor not in taken:
        registry.registerUtility(Executor(settings.executor_workers), IExecutor)
    # An application may have set None, which restores Pyramid's own mapper.
    if IViewMapperFactory not in taken:
        mapper = DEFAULT_MAPPERS[settings.sync_views]
        registry.registerUtility(mapper, IViewMapperFactory)

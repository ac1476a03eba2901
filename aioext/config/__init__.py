"""What aioext does to a configurator.

The view mappers are importable from here, as aiopyramid's users wrote::

    from aioext.config import CoroutineMapper
"""

from __future__ import annotations

import sys
from typing import Any

from pyramid.config import PHASE1_CONFIG
from pyramid.interfaces import IApplicationCreated, IViewMapperFactory
from pyramid.viewderivers import VIEW

from .. import threaded, threadlocal
from ..executor import Executor
from ..hooks.derivers import install_derivers
from ..hooks.predicates import install_predicates
from ..hooks.tweens import install_tweens
from ..hooks.utilities import adapt_captured, refuse_captured
from ..interfaces import IExecutor, ILifespan, IMounts, ISettings
from ..lifespan import Lifespan
from ..mounts.mount import Mounts
from ..request import adapt_other_requests
from ..settings import Settings
from ..views import Kind
from .asgi import make_asgi_app
from .created import adapt_registry, application_created
from .derivers import add_view_derivers
from .lifespan import add_lifespan
from .mappers import (
    CoroutineMapper,
    CoroutineOrExecutorMapper,
    ExecutorMapper,
    InlineMapper,
    MappedView,
)
from .policy import LAST

__all__ = [
    "CoroutineMapper",
    "CoroutineOrExecutorMapper",
    "ExecutorMapper",
    "InlineMapper",
]

# After the settings of an including application, and before its policies and
# views are registered.
AFTER_PHASE1 = PHASE1_CONFIG + 1

DEFAULT_MAPPERS = {
    "executor": CoroutineOrExecutorMapper,
    "inline": InlineMapper,
    "request": InlineMapper,
}


def includeme(config: Any) -> None:
    """Set up an application for aioext; what ``config.include('aioext')`` does.

    But for the predicates ``is_websocket`` and ``is_eventsource``, no action here has
    a discriminator that an add-on could claim as well: what is not registered by
    anybody gets a default, and what is registered when the configuration ends is
    adapted.
    """
    registry = config.registry
    # What is wrong already is told where aioext is included, not in an action.
    Settings(registry.settings or {})
    threaded.check_threads()
    threadlocal.install()
    _prepare(registry)
    config.add_directive("add_lifespan", add_lifespan)
    config.add_directive("make_asgi_app", make_asgi_app)
    add_view_derivers(config)
    config.action(None, _register_settings, (config,), order=PHASE1_CONFIG)
    config.action(None, _register_defaults, (registry,), order=AFTER_PHASE1)
    config.include("aioext.websocket.config")
    config.include("aioext.eventsource.config")
    config.include("aioext.config.guards")
    config.include("aioext.config.limits")
    config.include("aioext.config.mounts")
    config.include("aioext.config.uploads")
    # Beneath all others: what they capture has been adapted then.
    config.add_view_deriver(
        adapt_captured, "aioext_adapted_hooks", under="rendered_view", over=VIEW
    )
    adapt_other_requests(config)
    if hasattr(sys.modules.get("uwsgi"), "loop"):
        # Only uWSGI has such a module, in its own processes; elsewhere it is a stub.
        config.include("aioext.uwsgi.config")
    config.action(None, adapt_registry, (registry,), order=LAST)


class _ProvisionalMapper(CoroutineOrExecutorMapper):
    """The default mapper until the settings are read.

    Pyramid derives a few views before any action runs: a notfound view with
    ``append_slash``, and what ``config.derive_view`` is given. They ask for the
    setting when they are called.
    """

    def adapt(self, view: Any, mapped: MappedView, kind: Kind) -> MappedView:
        adapted = {
            name: mapper(attr=self.attr).adapt(view, mapped, kind)
            for name, mapper in DEFAULT_MAPPERS.items()
        }

        def provisional_view(context: Any, request: Any) -> Any:
            settings = request.registry.queryUtility(ISettings)
            mode = "executor" if settings is None else settings.sync_views
            return adapted[mode](context, request)

        return provisional_view


def _prepare(registry: Any) -> None:
    # A configuration that was committed may include aioext once more.
    registered = _utilities(registry)
    # It looks at what is there before anything of ours is.
    install_predicates(registry)
    if ILifespan not in registered:
        refuse_captured(registry)
        registry.registerUtility(Lifespan(registry), ILifespan)
        registry.registerUtility(Mounts(), IMounts)
        registry.registerHandler(application_created, (IApplicationCreated,))
    if IViewMapperFactory not in registered:
        registry.registerUtility(_ProvisionalMapper, IViewMapperFactory)
    install_derivers(registry)
    install_tweens(registry)


def _register_settings(config: Any) -> None:
    settings = Settings(config.registry.settings or {})
    config.registry.registerUtility(settings, ISettings)


def _register_defaults(registry: Any) -> None:
    settings = registry.getUtility(ISettings)
    registered = _utilities(registry)
    if IExecutor not in registered:
        registry.registerUtility(Executor(settings.executor_workers), IExecutor)
    if registered.get(IViewMapperFactory) is _ProvisionalMapper:
        mapper = DEFAULT_MAPPERS[settings.sync_views]
        registry.registerUtility(mapper, IViewMapperFactory)


def _utilities(registry: Any) -> dict[Any, Any]:
    # A query would not tell a utility that is None from none: an application
    # that sets None as its view mapper restores Pyramid's own.
    return {
        utility.provided: utility.component
        for utility in registry.registeredUtilities()
        if not utility.name
    }

"""What ``config.include('aioext.sqlalchemy')`` does."""

from __future__ import annotations

import logging
from typing import Any

from pyramid.config import PHASE1_CONFIG

from ..config.policy import LAST
from ..interfaces import ILifespan, ISettings
from ..request import add_request_attribute
from .engines import Engines
from .interfaces import IEngines
from .policy import adapt_execution_policy
from .session import dbsession

__all__ = ["includeme"]

log = logging.getLogger("aioext")

# Before aioext adapts the policy, which opens the lifespan and may take the request
# to a thread.
BEFORE_LAST = LAST - 1


def includeme(config: Any) -> None:
    """Set up an application for a database."""
    registry = config.registry
    config.include("aioext")
    config.include("pyramid_tm")
    add_request_attribute(config, dbsession)
    config.action(None, _register_engines, (registry,), order=PHASE1_CONFIG)
    config.action(None, _warn_of_threads, (registry,), order=BEFORE_LAST)
    config.action(None, adapt_execution_policy, (registry,), order=BEFORE_LAST)


def _warn_of_threads(registry: Any) -> None:
    if registry.getUtility(ISettings).sync_views == "executor":
        log.warning(THREADS)


THREADS = """\
aioext: views with a database run in threads (aioext.sync_views = executor). Then \
requests that have a connection (from a security policy, a root factory, a tween) and \
wait for a thread can stop those that have a thread and wait for a connection, for \
sqlalchemy.pool_timeout seconds. Set aioext.sync_views to inline, or to request."""


def _register_engines(registry: Any) -> None:
    if registry.queryUtility(IEngines) is not None:
        return
    engines = Engines(registry.settings or {})
    registry.registerUtility(engines, IEngines)
    # The first to be opened is the last to be closed.
    registry.getUtility(ILifespan).factories.insert(0, engines.keep)

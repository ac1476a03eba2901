"""Hooks of Pyramid's that may be coroutines; see :mod:`aioext.hooks.values`.

Hooks are registered in the ordinary way, and adapted where they are kept: in the
registry, in routes, in lists of predicates. That is done when the configuration has
ended, and again when the application is created, for a configuration may be committed
in between. So it does nothing the second time.
"""

from __future__ import annotations

from typing import Any

from .adapters import adapt_adapters
from .renderers import adapt_renderers
from .requests import adapt_request_properties
from .routes import adapt_cache_busters, adapt_routes
from .subscribers import adapt_subscribers
from .utilities import adapt_utilities

__all__ = ["adapt_hooks"]

ADAPTERS = (
    adapt_utilities,
    adapt_adapters,
    adapt_routes,
    adapt_cache_busters,
    adapt_renderers,
    adapt_request_properties,
    adapt_subscribers,
)


def adapt_hooks(registry: Any) -> None:
    """Have every hook of an application give values; idempotent.

    Raises:
        ConfigurationError: a hook is a coroutine where nothing can wait for it.
    """
    for adapt in ADAPTERS:
        adapt(registry)

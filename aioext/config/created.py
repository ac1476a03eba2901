"""What is adapted once the configuration has ended, and when the application is made.

An application is not made at the end of every configuration, and what it commits in
the middle comes after our action. So the same is done twice, the second time for the
application's own copies as well.
"""

from __future__ import annotations

import itertools
from typing import Any

from pyramid.interfaces import (
    IApplicationCreated,
    IExecutionPolicy,
    IRequestExtensions,
    IRequestFactory,
    IRootFactory,
)
from pyramid.registry import Registry

from .. import debugtoolbar, lifespan, traversal
from ..hooks import adapt_hooks
from ..request import adapt_request_factory
from ..transaction import adapt_transactions
from .policy import adapt_execution_policy

__all__ = ["adapt_registry", "application_created", "unsubscribe"]


def adapt_registry(registry: Any) -> None:
    """Adapt everything that is registered; idempotent.

    Raises:
        ConfigurationError: something cannot be adapted.
    """
    traversal.install(registry)
    adapt_transactions(registry)
    adapt_hooks(registry)
    adapt_execution_policy(registry)
    adapt_request_factory(registry)
    debugtoolbar.adapt_debugtoolbar(registry)


def application_created(event: Any) -> None:
    """Subscriber to ``ApplicationCreated``; it ends its own subscription."""
    registry = event.app.registry
    unsubscribe(registry, application_created)
    adapt_registry(registry)
    for name, provided in COPIES.items():
        utility = registry.queryUtility(provided)
        if utility is not None:
            setattr(event.app, name, utility)
    lifespan.remember(event.app)


# The attributes in which a Router keeps what it has found in the registry.
COPIES = {
    "root_factory": IRootFactory,
    "root_policy": IRootFactory,
    "request_factory": IRequestFactory,
    "request_extensions": IRequestExtensions,
    "execution_policy": IExecutionPolicy,
}


def unsubscribe(registry: Any, handler: Any) -> None:
    """End a subscription to ``ApplicationCreated``.

    For a registry that has any subscriber, Pyramid sends four events with every
    request, which takes as long as all else it does for a short one.
    """
    registry.unregisterHandler(handler, (IApplicationCreated,))
    if isinstance(registry, Registry):
        # A registry that is not Pyramid's own does not count its listeners.
        handlers = itertools.chain(
            registry.registeredHandlers(), registry.registeredSubscriptionAdapters()
        )
        registry.has_listeners = any(True for _ in handlers)

"""What routes and static views call: factories, pregenerators, cache busters.

Routes keep theirs as attributes, which are replaced in place.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import pyramid.config.routes
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IRoutesMapper, IStaticURLInfo
from pyramid.util import object_description

from ..exceptions import explain
from .utilities import adapt_factory
from .values import Settled, SettledCallable, is_own

__all__ = ["adapt_cache_busters", "adapt_routes"]


def adapt_routes(registry: Any) -> None:
    """Have the factory and the pregenerator of every route give values; idempotent.

    Raises:
        ConfigurationError: the pregenerator of a route to another host is a
            coroutine, which Pyramid has hidden in a function of its own.
    """
    mapper = registry.queryUtility(IRoutesMapper)
    if mapper is None:
        return
    for route in mapper.get_routes(include_static=True):
        route.factory = adapt_factory(route.factory)
        route.pregenerator = _adapt_pregenerator(route)


def _adapt_pregenerator(route: Any) -> Any:
    pregenerator = route.pregenerator
    if pregenerator is None:
        return None
    if not is_own(pregenerator):
        return Settled(pregenerator)
    for hidden in _hidden_in(pregenerator):
        if inspect.iscoroutinefunction(hidden):
            message = HIDDEN.format(route.name, object_description(hidden))
            raise ConfigurationError(explain(message, "hidden-pregenerator"))
    return pregenerator


def _hidden_in(pregenerator: Any) -> Iterable[Any]:
    # What the function that Pyramid makes of an application's own refers to.
    if getattr(pregenerator, "__globals__", None) is not vars(pyramid.config.routes):
        return ()
    return inspect.getclosurevars(pregenerator).nonlocals.values()


HIDDEN = """\
The pregenerator of the route {!r}, {}, is a coroutine. The route's pattern is a URL \
of another host, and there Pyramid calls the pregenerator from a function of its own, \
which awaits nothing. Pass pregenerator=aioext.synchronize(...) instead."""


def adapt_cache_busters(registry: Any) -> None:
    """Have every cache buster give values; idempotent.

    Those that inherit from Pyramid's may write ``tokenize`` as a coroutine.
    """
    static = registry.queryUtility(IStaticURLInfo)
    busters = getattr(static, "cache_busters", None)
    if busters:
        busters[:] = [
            (spec, _adapt_cache_buster(buster), explicit)
            for spec, buster, explicit in busters
        ]


def _adapt_cache_buster(buster: Any) -> Any:
    if is_own(buster):
        return buster
    if inspect.isroutine(buster):
        return Settled(buster)
    return SettledCallable(buster, ("__call__", "tokenize"))

"""Predicates of views, routes and subscribers that may be coroutine functions.

A predicate is a decision: an unawaited coroutine is true, and would let in what
it was to keep out. Pyramid makes the predicates of a registration by the utility
``IPredicateList``, whichever way they are given: ``add_view_predicate`` and its
like, ``custom_predicates=``, ``not_()``. What it makes is adapted there, before
anybody can ask it. What it made before aioext was included is adapted in place,
in the lists that Pyramid goes through at every request.
"""

from __future__ import annotations

import inspect
from typing import Any

from pyramid.config import Configurator
from pyramid.config.adapters import eventonly
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IPredicateList, IRoutesMapper
from pyramid.predicates import CustomPredicate, Notted
from pyramid.util import object_description

from ..exceptions import explain
from ..greenlets import close
from .chain import Delegate, stand_in_for
from .utilities import kinds_of_views
from .values import Settled, is_coroutine

__all__ = ["install_predicates"]

# Pyramid makes the list for subscribers when it is first needed.
NAMES = ("view", "route", "subscriber")


def install_predicates(registry: Any) -> None:
    """Have the predicates of ``registry`` give values; idempotent.

    Raises:
        ConfigurationError: there are some already, and they cannot be found.
    """
    if isinstance(registry.queryUtility(IPredicateList, "view"), Delegate):
        return
    config = Configurator(registry=registry)
    for name in NAMES:
        config.get_predlist(name)
        delegate = _SubscriberPredicates if name == "subscriber" else _Predicates
        stand_in_for(registry, delegate, IPredicateList, name)
    _adapt_made(config)


class _Predicates(Delegate):
    def add(self, name: str, factory: Any, *place: Any, **places: Any) -> None:
        self.hook.add(name, _checked(factory), *place, **places)

    def make(self, config: Any, **options: Any) -> tuple[int, list[Any], str]:
        order, predicates, phash = self.hook.make(config, **options)
        return order, [self.settled(each) for each in predicates], phash

    def settled(self, predicate: Any) -> Any:
        return _settled(predicate)


class _SubscriberPredicates(_Predicates):
    def settled(self, predicate: Any) -> Any:
        return _settled(predicate, _OfEvent if eventonly(predicate) else Settled)


def _checked(factory: Any) -> Any:
    # Pyramid calls all of these while it is being configured.
    def checked_factory(value: Any, info: Any) -> Any:
        predicate = factory(value, info)
        if is_coroutine(predicate):
            close(predicate)
            raise _refused(factory, "it")
        for name in ("text", "phash"):
            if inspect.iscoroutinefunction(getattr(predicate, name, None)):
                raise _refused(factory, f"its {name}()")
        return predicate

    return checked_factory


def _refused(factory: Any, what: str) -> ConfigurationError:
    message = NO_VALUE.format(object_description(factory), what)
    return ConfigurationError(explain(message, "predicate-factory"))


NO_VALUE = """\
The predicate factory {} cannot be used: {} is a coroutine function, and is called \
when the application is configured. Write it as def; __call__ of the predicate, which \
is called for each request, may be async def."""


def _settled(predicate: Any, settled: type[Settled] = Settled) -> Any:
    if type(predicate) is Notted:
        # It inverts what it is given: a coroutine would always be "no".
        predicate.predicate = _settled(predicate.predicate, settled)
        return predicate
    return predicate if _gives_values(predicate) else settled(predicate)


def _gives_values(predicate: Any) -> bool:
    # An object of Pyramid's or ours: classes, for a function of ours may be one that
    # wraps a coroutine function. A custom predicate calls the application's function.
    cls = type(predicate)
    package = cls.__module__.partition(".")[0]
    return package in ("aioext", "pyramid") and cls is not CustomPredicate


class _OfEvent(Settled):
    # Pyramid looks at the parameters, to tell whether a predicate takes the event
    # alone or everything that was notified.
    __slots__ = ()

    def __call__(self, event: Any) -> Any:
        return super().__call__(event)


def _adapt_made(config: Any) -> None:
    # Views and subscribers leave their lists to the introspector only.
    introspector, registry = config.introspector, config.registry
    if not introspector.categories():
        handlers = any(True for _ in registry.registeredHandlers())
        if handlers or kinds_of_views(registry):
            raise ConfigurationError(explain(UNSEEN, "include-too-late"))
    for view in introspector.get_category("views", default=()):
        _adapt_in_place(view["introspectable"].get("predicates"))
    for subscriber in introspector.get_category("subscribers", default=()):
        _adapt_in_place(subscriber["introspectable"].get("derived_predicates"))
    mapper = registry.queryUtility(IRoutesMapper)
    if mapper is not None:
        for route in mapper.get_routes(include_static=True):
            _adapt_in_place(route.predicates)


def _adapt_in_place(predicates: list[Any] | None) -> None:
    if predicates:
        predicates[:] = map(_settled, predicates)


UNSEEN = """\
Views or subscribers were committed before aioext was included, and the configuration \
has introspection=False: their predicates cannot be found, and one that is a coroutine \
function would let everything in. Put config.include("aioext") before the first \
config.commit(), or leave introspection on."""

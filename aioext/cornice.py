"""Cornice services whose views, validators and filters are coroutines.

``config.include("aioext.cornice")`` includes ``cornice``.

Cornice calls validators one after the other, then the view, and looks for
``request.errors`` after each step, all in one function around the view. Left alone
it would find none of those that a coroutine adds: a coroutine view has not run
yet, and a coroutine validator would never run at all. So before a service is
registered, each callable of its definitions is replaced by one that gives a value.
The service itself stays as it is, for other applications may register it too.

The function around a coroutine view runs in the request's greenlet, so that the
view holds no thread while it waits; validators that are functions, which may block,
are taken to the executor from there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from cornice.pyramidhook import register_service_views
from pyramid.exceptions import ConfigurationError

from .config import InlineMapper
from .exceptions import explain
from .executor import current_executor
from .hooks.values import Settled
from .interfaces import ISettings
from .views import COROUTINES, kind_of

__all__ = ["includeme"]


def includeme(config: Any) -> None:
    """Include ``cornice``, and let its services be coroutines."""
    config.include("cornice")
    # Resources and scanned services are registered by this directive as well.
    config.add_directive("add_cornice_service", _add_service)


def _add_service(config: Any, service: Any) -> None:
    adapted = copy.copy(service)
    adapted.definitions = [
        (method, *_adapt(service, view, arguments))
        for method, view, arguments in service.definitions
    ]
    # A view for OPTIONS is defined while the service is registered.
    adapted.defined_methods = [*service.defined_methods]
    adapted.validators = [_settled(each) for each in service.validators]
    adapted.filters = [_settled(each) for each in service.filters]
    register_service_views(config, adapted)


def _adapt(service: Any, view: Any, arguments: dict[str, Any]) -> tuple[Any, Any]:
    """The view and the arguments of one definition, with what gives values."""
    arguments = dict(arguments)
    validators = arguments.get("validators") or []
    filters = arguments.get("filters") or []
    for hook in (view, *validators, *filters):
        _check_method(service, arguments.get("klass"), hook)
    adapt_validator = _settled
    if _is_coroutine(view):
        view = _settled_view(view)
        # A method that is named may block, and is looked up at each request.
        if not any(isinstance(each, str) for each in validators):
            arguments.setdefault("mapper", InlineMapper)
            adapt_validator = _off_the_loop
    arguments["validators"] = [adapt_validator(each) for each in validators]
    arguments["filters"] = [_settled(each) for each in filters]
    return view, arguments


def _is_coroutine(view: Any) -> bool:
    # A method of a resource is bound to its object at each request.
    function = view if callable(view) else getattr(view, "unbound_view", None)
    return kind_of(function) in COROUTINES


def _settled_view(view: Any) -> Any:
    if callable(view):
        return Settled(view)
    view = copy.copy(view)
    view.unbound_view = Settled(view.unbound_view)
    return view


def _settled(hook: Any) -> Any:
    return Settled(hook) if callable(hook) else hook


def _off_the_loop(validator: Callable[..., Any]) -> Callable[..., Any]:
    settled = Settled(validator)
    if kind_of(validator) in COROUTINES:
        return settled

    def validate(request: Any, **arguments: Any) -> Any:
        if request.registry.getUtility(ISettings).sync_views == "executor":
            return current_executor().call(settled, request, **arguments)
        return settled(request, **arguments)

    return validate


def _check_method(service: Any, klass: Any, hook: Any) -> None:
    if isinstance(hook, str) and kind_of(getattr(klass, hook, None)) in COROUTINES:
        message = METHOD.format(hook, klass, service.name)
        raise ConfigurationError(explain(message, "cornice-method"))


METHOD = """\
The method {} of {} is a coroutine, and the cornice service {!r} has it for a view, a \
validator or a filter by its name: cornice would call it and go on before it has run. \
Put @aioext.synchronize on the method, or give a function instead."""

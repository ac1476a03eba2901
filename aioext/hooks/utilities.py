"""Utilities of the registry that Pyramid calls: policies, factories, a negotiator.

Each is registered again as its stand-in, once the configuration has ended. Some are
captured earlier, when a view is derived; :func:`adapt_captured` is for those.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import (
    IAuthenticationPolicy,
    IAuthorizationPolicy,
    ICSRFStoragePolicy,
    IDefaultCSRFOptions,
    IDefaultRootFactory,
    ILocaleNegotiator,
    IMultiView,
    IResponseFactory,
    IRootFactory,
    ISecuredView,
    ISecurityPolicy,
    ISessionFactory,
    IView,
)
from pyramid.security import LegacySecurityPolicy
from pyramid.util import object_description
from pyramid.view import default_exceptionresponse_view

from ..exceptions import explain
from .values import (
    Settled,
    SettledMethods,
    has_coroutines,
    is_own,
    settle_object,
)

__all__ = [
    "adapt_captured",
    "adapt_factory",
    "adapt_utilities",
    "kinds_of_views",
    "refuse_captured",
    "replace_utility",
]

Adapter = Callable[[Any], Any]


def adapt_utilities(registry: Any) -> None:
    """Have every policy, factory and negotiator give values; idempotent."""
    for provided, adapt in ADAPTERS.items():
        _adapt(registry, provided, adapt)


def adapt_captured(view: Any, info: Any) -> Any:
    """A view deriver that changes no view: adapts what the next ones capture.

    ``secured_view`` and ``csrf_view`` keep the policies that they find. Whoever
    commits in the middle sets policies after ours have been adapted.
    """
    for provided in CAPTURED:
        _adapt(info.registry, provided, ADAPTERS[provided])
    return view


def _adapt(registry: Any, provided: Any, adapt: Adapter) -> None:
    utility = registry.queryUtility(provided)
    if utility is None:
        return
    adapted = adapt(utility)
    if adapted is not utility:
        replace_utility(registry, adapted, provided)


def replace_utility(registry: Any, adapted: Any, provided: Any, name: str = "") -> None:
    """Register a stand-in instead of what it stands for."""
    # With the same info, what is equal counts as registered already.
    registry.registerUtility(adapted, provided, name, info=ADAPTED, event=False)


ADAPTED = "adapted by aioext"


def adapt_factory(factory: Any) -> Any:
    """A factory of objects that the application defines: its stand-in.

    A class gives its instances, which are no coroutines.
    """
    if factory is None or inspect.isclass(factory) or is_own(factory):
        return factory
    return Settled(factory, settle_object)


def _adapt_function(function: Any) -> Any:
    return function if is_own(function) else Settled(function)


def _methods(*methods: str, objects: tuple[str, ...] = ()) -> Adapter:
    def adapt(policy: Any) -> Any:
        # A subclass may have coroutines.
        if not _is_to_adapt(policy):
            return policy
        return SettledMethods(policy, methods, objects)

    return adapt


def _is_to_adapt(policy: Any) -> bool:
    return not (
        type(policy) is LegacySecurityPolicy or issubclass(type(policy), SettledMethods)
    )


# A policy that is Pyramid's own calls what is the application's: callbacks,
# sessions, methods of subclasses. The legacy security policy asks the other two.
POLICY = "authenticated_userid", "permits", "remember", "forget"
ADAPTERS: dict[Any, Adapter] = {
    ISecurityPolicy: _methods(*POLICY, objects=("identity",)),
    IAuthenticationPolicy: _methods(
        "authenticated_userid",
        "unauthenticated_userid",
        "effective_principals",
        "remember",
        "forget",
        # What Pyramid's policies are made with.
        "callback",
        "check",
    ),
    IAuthorizationPolicy: _methods("permits", "principals_allowed_by_permission"),
    IDefaultCSRFOptions: _methods("callback"),
    ICSRFStoragePolicy: _methods(
        "new_csrf_token", "get_csrf_token", "check_csrf_token"
    ),
    ISessionFactory: adapt_factory,
    IRootFactory: adapt_factory,
    IDefaultRootFactory: adapt_factory,
    ILocaleNegotiator: _adapt_function,
    IResponseFactory: _adapt_function,
}

CAPTURED = (ISecurityPolicy, IDefaultCSRFOptions)


def refuse_captured(registry: Any) -> None:
    """Refuse decisions that views were derived with before aioext was included.

    Raises:
        ConfigurationError: one of them is a coroutine function. The views keep it, and
            would take its coroutine for a yes.
    """
    derived = kinds_of_views(registry)
    for provided, (names, views) in DECISIONS.items():
        hook = registry.queryUtility(provided)
        if hook is None or derived.isdisjoint(views) or not _is_to_adapt(hook):
            continue
        if has_coroutines(hook, names):
            message = TOO_LATE.format(object_description(hook))
            raise ConfigurationError(explain(message, "include-too-late"))


def kinds_of_views(registry: Any) -> set[Any]:
    """The interfaces of the views that an application has configured so far."""
    return {
        each.provided
        for each in registry.registeredAdapters()
        if each.provided in (IView, ISecuredView, IMultiView)
        and _original(each.factory) is not default_exceptionresponse_view
    }


def _original(view: Any) -> Any:
    return getattr(view, "__original_view__", None)


# What views keep of CAPTURED, and the views that do.
DECISIONS = {
    ISecurityPolicy: ((*POLICY, "identity"), (ISecuredView, IMultiView)),
    IDefaultCSRFOptions: (("callback",), (IView, ISecuredView, IMultiView)),
}

TOO_LATE = """\
The {} has coroutine functions, and views that ask it were configured before aioext \
was included: they would take a coroutine for a yes. Put config.include("aioext") \
before the first config.commit(), or, with autocommit, before the first view."""

"""Static files that are answered before the router is asked.

Theory of operation
===================

To a file that is in memory, Pyramid's router adds more than all the rest of the answer
takes: a request object, the routes, the root, the tweens. None of that can change the
answer where the application has put nothing there. So a path that a static view has
answered in the ordinary way is remembered, if nothing in the application could have
told one such request from another; and the execution policy, which sees a request
first, asks :meth:`Shortcuts.find`. What has no answer there, because the file was not
looked at for a second or a range is asked for, goes on to the router.

Nothing could have told them apart if all of this holds, which the registry tells, and
for views introspection:

* there is no tween but Pyramid's for exception views, and no view deriver but Pyramid's
  and aioext's;
* nobody subscribes to the events of a request;
* the root factory, the request factory, the traverser and the execution policy are
  Pyramid's, or ours;
* a ``GET`` is not checked for a CSRF token;
* nothing is mounted in the application;
* the static view has no permission, predicate, decorator and ``http_cache``, its route
  has no predicate and no factory, and no other view has that route;
* no route before it matches the path;
* the path below the view is the one that the route has found in the address. A request
  with ``X-Vhm-Root`` can give it another one: what that leads to is neither remembered
  nor answered here, for the next who asks for the address is to get what it says.

An application that has any of these is served as ever; that costs it one comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyramid.events import BeforeTraversal, ContextFound, NewRequest, NewResponse
from pyramid.interfaces import (
    VH_ROOT_KEY,
    IDefaultCSRFOptions,
    IRequestFactory,
    IRootFactory,
    IRoutesMapper,
    ITraverser,
    ITweens,
    IViewDerivers,
)
from pyramid.request import Request
from pyramid.security import NO_PERMISSION_REQUIRED
from pyramid.traversal import DefaultRootFactory, ResourceTreeTraverser
from pyramid.tweens import EXCVIEW
from zope.interface import implementedBy, implementer

from ..hooks.values import is_own
from ..interfaces import IMounts, IShortcuts

__all__ = ["Answer", "Shortcuts", "is_public"]

Finder = Callable[[dict[str, Any]], Any]

# How many paths are known at once; one that leads nowhere is never among them.
MAX_PATHS = 4096
# And how long they may be, for any version in a path leads to the file.
MAX_LENGTH = 512

EVENTS = (NewRequest, BeforeTraversal, ContextFound, NewResponse)

METHODS = frozenset(("GET", "HEAD"))

# Options of a view that may change what it answers, or whether it does.
OPTIONS = ("decorator", "http_cache", "wrapper", "renderer", "exception_only")


class Answer:
    """A WSGI application that has one answer."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, status: str, headers: list[tuple[str, str]], body: list[bytes]
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """Answer."""
        start_response(self.status, self.headers)
        return self.body


def is_public(info: Any) -> bool:
    """Whether a view that is derived answers everybody, and each in the same way."""
    options = info.options
    if options.get("permission") != NO_PERMISSION_REQUIRED or info.predicates:
        return False
    return not any(options.get(name) for name in OPTIONS)


@implementer(IShortcuts)
class Shortcuts:
    """The paths of an application that need no router.

    Args:
        registry: of the application.
    """

    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self._known: dict[str, Finder | None] = {}
        # None: not found out so far. It is when the application serves.
        self._is_open: bool | None = None

    def find(self, environ: dict[str, Any]) -> Any:
        """The answer to a request, a WSGI application; None: the router has it."""
        finder = self._known.get(environ.get("PATH_INFO", ""))
        if finder is None or VH_ROOT_KEY in environ or _may_have_body(environ):
            return None
        return finder(environ)

    def learn(self, request: Any, make_finder: Callable[[], Finder]) -> None:
        """A static view has answered this request, and could answer the next ones.

        Args:
            request: on its way through the router.
            make_finder: is called if they may be answered here; makes what gives the
                answer to an environ, or None.
        """
        if self._is_open is None:
            self._is_open = _is_open(self._registry)
        environ = request.environ
        path = environ.get("PATH_INFO", "")
        if not self._is_open or path in self._known or VH_ROOT_KEY in environ:
            return
        if len(path) > MAX_LENGTH:
            return
        if len(self._known) >= MAX_PATHS:
            self._known.clear()
        self._known[path] = make_finder() if self._leads_to(request) else None

    def _leads_to(self, request: Any) -> bool:
        route = getattr(request, "matched_route", None)
        if route is None or route.predicates or route.factory is not None:
            return False
        match = route.match(request.path_info)
        if match is None or match.get("subpath") != tuple(request.subpath):
            return False
        for each in self._registry.getUtility(IRoutesMapper).get_routes():
            if each.name == route.name:
                break
            if each.match(request.path_info) is not None:
                return False
        # Without introspection there are none.
        views = self._registry.introspector.get_category("views", ())
        names = [each["introspectable"]["route_name"] for each in views]
        return names.count(route.name) == 1


def _is_open(registry: Any) -> bool:
    return (
        _has_no_derivers(registry)
        and _has_no_tweens(registry)
        and _has_no_factories(registry)
        and _checks_no_tokens(registry)
        and not registry.getUtility(IMounts)
        and not any(_is_subscribed(registry, event) for event in EVENTS)
    )


def _may_have_body(environ: dict[str, Any]) -> bool:
    # It is counted elsewhere.
    return bool(environ.get("CONTENT_LENGTH")) or "HTTP_TRANSFER_ENCODING" in environ


# Not by introspection: an add-on may switch that off, or register utilities itself.


def _has_no_derivers(registry: Any) -> bool:
    derivers = registry.getUtility(IViewDerivers)
    # What stands in for Pyramid's has it as its hook.
    given = getattr(derivers, "hook", derivers).sorted()
    return all(is_own(deriver) for _, deriver in given)


def _has_no_tweens(registry: Any) -> bool:
    tweens = registry.queryUtility(ITweens)
    if tweens is None:
        return True
    return all(name == EXCVIEW for name, _ in (*tweens.explicit, *tweens.implicit()))


def _has_no_factories(registry: Any) -> bool:
    root = registry.queryUtility(IRootFactory, default=DefaultRootFactory)
    request = registry.queryUtility(IRequestFactory, default=Request)
    required = (implementedBy(DefaultRootFactory),)
    traverser = registry.adapters.lookup(
        required, ITraverser, default=ResourceTreeTraverser
    )
    # What stands in for an application's own is an object of ours, and no class, though
    # isinstance() says so.
    return root is DefaultRootFactory and all(
        issubclass(type(each), type) and is_own(each) for each in (request, traverser)
    )


def _checks_no_tokens(registry: Any) -> bool:
    options = registry.queryUtility(IDefaultCSRFOptions)
    return options is None or METHODS <= set(options.safe_methods)


def _is_subscribed(registry: Any, event: type) -> bool:
    return bool(registry.adapters.subscriptions((implementedBy(event),), None))

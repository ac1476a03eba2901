"""Attributes of every request, without a class for every request.

``config.add_request_method(..., property=True)`` makes Pyramid derive a class for
each request, which takes longer than everything else that it does for a short one,
and leaves work for the garbage collector. So the class that requests are made of is
derived once, when the configuration has ended: it is the application's own,
whichever it has set, with the attributes that it does not define itself.

A request that was made by somebody else, of another class, and passed to
``invoke_subrequest()`` comes past the *request extensions*: Pyramid binds every
method among them to every request. :class:`_Latecomers` stands there, and gives
such a request its attributes.

What an application or an add-on adds by ``add_request_method`` stands above these
attributes, and is no conflict.

The derived class also has what is added to one request wait for coroutines
(:func:`aioext.hooks.requests.adapted_methods`).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any

from pyramid.decorator import reify
from pyramid.interfaces import IRequestFactory
from pyramid.request import Request

from .hooks.requests import adapted_methods
from .hooks.values import settle_object
from .interfaces import IRequestAttributes

__all__ = [
    "RequestPredicate",
    "adapt_other_requests",
    "adapt_request_factory",
    "add_request_attribute",
]


def add_request_attribute(
    config: Any,
    function: Callable[..., Any],
    *,
    once: bool = False,
    method: bool = False,
) -> None:
    """Have ``function(request)`` be the attribute of its name, or the method.

    Whoever adds a request method of that name keeps it.

    Args:
        config: the configurator.
        function: computes the attribute.
        once: it is computed once for each request.
        method: it is called, with more arguments perhaps.
    """
    name = function.__name__
    attribute: Any = function
    if not method:
        attribute = reify(function) if once else _Computed(function)

    def register() -> None:
        _attributes(config.registry)[name] = attribute

    description = config.object_description(function)
    kind = "request method" if method else "request property"
    intr = config.introspectable("request extensions", name, description, kind)
    intr["callable"] = function
    intr["property"] = not method
    intr["reify"] = once
    config.action(None, register, introspectables=(intr,))


class RequestPredicate:
    """A view predicate on an attribute of the request that is true or false."""

    # The function that computes it; its name is the predicate's.
    attribute: Callable[[Any], bool]

    def __init__(self, value: Any, info: Any) -> None:
        self.value = bool(value)

    def text(self) -> str:
        """How Pyramid shows it, and tells it from others."""
        return f"{self.attribute.__name__} = {self.value}"

    phash = text

    def __call__(self, context: Any, request: Any) -> bool:
        return self.attribute(request) is self.value


class _Computed:
    # Like a property, but one that a request method may be set over, which Pyramid
    # does with those that were added after a commit.
    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, request: Any, cls: Any = None) -> Any:
        return self if request is None else self._function(request)


def _attributes(registry: Any) -> dict[str, Any]:
    attributes = registry.queryUtility(IRequestAttributes)
    if attributes is None:
        attributes = {}
        registry.registerUtility(attributes, IRequestAttributes)
    return attributes


def adapt_other_requests(config: Any) -> None:
    """Give requests their attributes that the application's factory has not made."""
    config.add_request_method(_Latecomers(config.registry), "_aioext_attributes")


def adapt_request_factory(registry: Any) -> None:
    """Give the requests of an application their attributes.

    Does nothing the second time, unless something was added.
    """
    attributes = _attributes(registry)
    factory = registry.queryUtility(IRequestFactory, default=Request)
    if inspect.isclass(factory):
        adapted = _derive(factory, attributes)
    else:
        # A new one, for the classes that it has derived may lack what was added.
        own = factory.made_by if isinstance(factory, _Factory) else factory
        adapted = _Factory(own, attributes)
    registry.registerUtility(adapted, IRequestFactory)


def _derive(cls: type, attributes: dict[str, Any]) -> type:
    missing = {
        name: attribute
        for name, attribute in attributes.items()
        if not hasattr(cls, name)
    }
    names = adapted_methods(cls) | missing
    if not names:
        return cls
    names |= {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls.__name__, (cls,), names)


class _Factory:
    # Around a request factory that is no class.
    def __init__(self, factory: Any, attributes: dict[str, Any]) -> None:
        self.made_by = factory
        self._derived = functools.cache(lambda cls: _derive(cls, attributes))

    def __call__(self, environ: dict[str, Any]) -> Any:
        return self._adapt(self.made_by(environ))

    def blank(self, *args: Any, **kwargs: Any) -> Any:
        return self._adapt(self.made_by.blank(*args, **kwargs))

    def _adapt(self, request: Any) -> Any:
        request = settle_object(request)
        request.__class__ = self._derived(type(request))
        return request


class _Latecomers:
    # Among the request methods of an application; see the module.
    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self._derived = functools.lru_cache(self._derive)

    def _derive(self, cls: type) -> type:
        return _derive(cls, _attributes(self._registry))

    def __get__(self, request: Any, cls: Any) -> None:
        # What a test has for a request need not have a class of Python's making.
        with contextlib.suppress(TypeError):
            request.__class__ = self._derived(cls)

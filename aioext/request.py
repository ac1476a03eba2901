"""Attributes of every request, without a class for every request.

``config.add_request_method(..., property=True)`` makes Pyramid derive a class for
each request, which takes longer than everything else that it does for a short one,
and leaves work for the garbage collector. So the class that requests are made of is
derived once, when the configuration has ended: it is the application's own,
whichever it has set, with the attributes that it does not define itself.

A request that somebody makes of another class and passes to
``invoke_subrequest()`` has these attributes where the application has a property of
its own by ``add_request_method``, for there Pyramid derives a class anyway.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from pyramid.decorator import reify
from pyramid.interfaces import IRequestExtensions, IRequestFactory
from pyramid.request import Request

from .interfaces import IRequestAttributes

__all__ = ["adapt_request_factory", "add_request_attribute"]


def add_request_attribute(
    config: Any, function: Callable[[Any], Any], *, once: bool = False
) -> None:
    """Have ``function(request)`` be the attribute of its name.

    An application that adds a request method of that name keeps its own.

    Args:
        config: the configurator.
        function: computes the attribute.
        once: it is computed once for each request.
    """
    name = function.__name__
    attribute = reify(function) if once else property(function)

    def register() -> None:
        _attributes(config.registry)[name] = attribute

    description = config.object_description(function)
    intr = config.introspectable(
        "request extensions", name, description, "request property"
    )
    intr["callable"] = function
    intr["property"] = True
    intr["reify"] = once
    config.action(("request extensions", name), register, introspectables=(intr,))


def _attributes(registry: Any) -> dict[str, Any]:
    attributes = registry.queryUtility(IRequestAttributes)
    if attributes is None:
        attributes = {}
        registry.registerUtility(attributes, IRequestAttributes)
    return attributes


def adapt_request_factory(registry: Any) -> None:
    """Give the requests of an application their attributes.

    Does nothing the second time, unless something was added.
    """
    attributes = _attributes(registry)
    extensions = registry.queryUtility(IRequestExtensions)
    if extensions is not None and extensions.descriptors:
        for name, attribute in attributes.items():
            extensions.descriptors.setdefault(name, attribute)
        return
    factory = registry.queryUtility(IRequestFactory, default=Request)
    if inspect.isclass(factory):
        adapted = _derive(factory, attributes)
    else:
        adapted = _Factory(factory, attributes)
    registry.registerUtility(adapted, IRequestFactory)


def _derive(cls: type, attributes: dict[str, Any]) -> type:
    missing = {
        name: attribute
        for name, attribute in attributes.items()
        if not hasattr(cls, name)
    }
    if not missing:
        return cls
    return type(
        cls.__name__,
        (cls,),
        {"__module__": cls.__module__, "__qualname__": cls.__qualname__, **missing},
    )


class _Factory:
    # Around a request factory that is no class.
    def __init__(self, factory: Any, attributes: dict[str, Any]) -> None:
        self._factory = factory
        self._derived = functools.cache(lambda cls: _derive(cls, attributes))

    def __call__(self, environ: dict[str, Any]) -> Any:
        request = self._factory(environ)
        request.__class__ = self._derived(type(request))
        return request

    def __getattr__(self, name: str) -> Any:
        # blank(), which the interface asks for.
        return getattr(self._factory, name)

"""What is added to requests: properties, and callbacks.

``config.add_request_method(..., property=True)`` keeps descriptors, one dictionary for
the application, from which Pyramid makes the class of each request. They are replaced
there. :func:`adapted_methods` are for what is added to one request while it is served.
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any

from pyramid.decorator import reify
from pyramid.interfaces import IRequestExtensions

from ..views import COROUTINES, kind_of
from .values import Settled, SettledMethods, settle, settle_object

__all__ = ["adapt_request_properties", "adapted_methods"]


def adapt_request_properties(registry: Any) -> None:
    """Have every property of a request give its value; idempotent.

    Methods stay what they are: who calls a coroutine function awaits it.
    """
    # We have added some ourselves.
    descriptors = registry.getUtility(IRequestExtensions).descriptors
    for name, descriptor in descriptors.items():
        descriptors[name] = _adapt_property(descriptor)


def _adapt_property(descriptor: Any) -> Any:
    if isinstance(descriptor, (_Property, _DataProperty)):
        return descriptor
    if type(descriptor) is reify:
        return _adapt_reified(descriptor)
    if inspect.isdatadescriptor(descriptor):
        return _DataProperty(descriptor)
    return _Property(descriptor)


def _adapt_reified(descriptor: reify) -> reify:
    # It keeps what it is given, and so has to be given the value.
    computing = descriptor.wrapped
    if issubclass(type(computing), Settled):
        return descriptor
    adapted = reify(Settled(computing, settle_object))
    adapted.__doc__ = descriptor.__doc__
    return adapted


class _Property:
    # Has no __set__, for the request's own attribute of that name goes before it.
    def __init__(self, descriptor: Any) -> None:
        self._descriptor = descriptor
        self.__doc__ = getattr(descriptor, "__doc__", None)

    def __get__(self, request: Any, cls: Any = None) -> Any:
        if request is None:
            return self
        return settle_object(self._descriptor.__get__(request, cls))


class _DataProperty(_Property):
    def __set__(self, request: Any, value: Any) -> None:
        self._change("fset", "__set__", request, value)

    def __delete__(self, request: Any) -> None:
        self._change("fdel", "__delete__", request)

    def _change(self, function: str, method: str, *args: Any) -> None:
        # A property throws away what its functions give.
        changing = getattr(self._descriptor, function, None)
        if inspect.iscoroutinefunction(changing):
            settle(changing(*args))
        else:
            getattr(self._descriptor, method)(*args)


def adapted_methods(cls: type) -> dict[str, Any]:
    """Methods of a request class that derives from ``cls``, by their names.

    They are Pyramid's, and adapt what they are given. Not those of a base class: a
    request that is made already can be given a class with one base only.
    """
    if hasattr(cls, MARK):
        return {}

    def add_response_callback(request: Any, callback: Any) -> None:
        cls.add_response_callback(request, _adapt_callback(callback))

    def add_finished_callback(request: Any, callback: Any) -> None:
        cls.add_finished_callback(request, _adapt_callback(callback))

    def set_property(
        request: Any,
        callable: Any,  # noqa: A002 -- it is Pyramid's name
        name: str | None = None,
        reify: bool = False,
    ) -> None:
        adapted = _adapt_function(callable)
        cls.set_property(request, adapted, name=name, reify=reify)

    def resource_url(
        request: Any, resource: Any, *elements: Any, **options: Any
    ) -> str:
        if kind_of(getattr(resource, "__resource_url__", None)) in COROUTINES:
            resource = SettledMethods(resource, ("__resource_url__",))
        return cls.resource_url(request, resource, *elements, **options)

    methods = add_response_callback, add_finished_callback, set_property, resource_url
    originals = {each: getattr(cls, each.__name__, None) for each in methods}
    adapted = {
        method.__name__: functools.wraps(original)(method)
        for method, original in originals.items()
        if original is not None
    }
    return {MARK: True, **adapted}


def _adapt_function(function: Any) -> Any:
    # What a property is made of may be one already.
    if inspect.isdatadescriptor(function):
        return _adapt_property(function)
    return Settled(function, settle_object)


# An attribute of the classes that have them.
MARK = "_aioext_adapted"


def _adapt_callback(callback: Any) -> Any:
    return callback if _gives_a_datum(callback) else Settled(callback)


def _gives_a_datum(callback: Any) -> bool:
    # The pop() of a dictionary, as Pyramid's RequestLocalCache uses it, gives what was
    # kept there, which is nothing to wait for.
    owner = getattr(callback, "__self__", None)
    if owner is None or inspect.isclass(owner) or inspect.iscoroutinefunction(callback):
        return False
    return type(owner).__module__.partition(".")[0] in sys.stdlib_module_names

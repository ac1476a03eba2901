"""What kind of callable a view is: whether calling it gives a coroutine.

Told when the view is configured, from the view and its ``attr``. A decorated
function is told by what it wraps, which is only a hint: the mappers look at
what the view really returned as well.
"""

from __future__ import annotations

import enum
import functools
import inspect
import types
from collections.abc import Callable, Generator
from typing import Any

__all__ = ["Kind", "kind_of", "mark_synchronized", "resolve_partial"]


class Kind(enum.Enum):
    """What comes of calling a view."""

    FUNCTION = "a function"
    COROUTINE = "a coroutine"
    GENERATOR = "a generator, to be driven as a coroutine"
    ASYNC_GENERATOR = "an asynchronous generator"
    SYNCHRONIZED = "a coroutine, waited for by the view itself"


def kind_of(view: Any, attr: str | None = None) -> Kind:
    """The kind of ``view``, or of its method ``attr``.

    Recognises functions, classes, instances with ``__call__``, partial
    objects, methods of every sort, and what ``functools.wraps`` decorates.
    """
    called = _called(view, attr)
    while called is not None:
        kind = _direct_kind(called)
        if kind is not Kind.FUNCTION:
            return kind
        called = _beneath(called)
    return Kind.FUNCTION


def mark_synchronized(function: Callable[..., Any]) -> None:
    """Remember that ``function`` waits for the coroutine function it wraps."""
    function._aioext_synchronized = True  # type: ignore[attr-defined]


def _called(view: Any, attr: str | None) -> Any:
    if inspect.isclass(view):
        return getattr(view, attr or "__call__", None)
    return getattr(view, attr, None) if attr else view


def _beneath(called: Any) -> Any:
    # What a partial object, a decorator, a method or an instance hides.
    if isinstance(called, functools.partial):
        return called.func
    if inspect.ismethod(called):
        return called.__func__
    wrapped = getattr(called, "__wrapped__", None)
    if wrapped is not None:
        return wrapped
    if inspect.isroutine(called) or inspect.isclass(called):
        return None
    call = getattr(type(called), "__call__", None)
    return call if inspect.isfunction(call) else None


def _direct_kind(called: Any) -> Kind:
    if getattr(called, "_aioext_synchronized", False) is True:
        return Kind.SYNCHRONIZED
    if inspect.iscoroutinefunction(called):
        return Kind.COROUTINE
    if inspect.isasyncgenfunction(called):
        return Kind.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(called):
        return Kind.GENERATOR
    return Kind.FUNCTION


def resolve_partial(view: Any) -> Any:
    """A plain function for a partial object, which Pyramid cannot look into.

    Pyramid tells ``(request)`` from ``(context, request)`` by the parameters
    that it sees; a partial object shows it none.
    """
    if not isinstance(view, functools.partial):
        return view
    parameters = [
        parameter
        for parameter in inspect.signature(view).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    needed = [each for each in parameters if each.default is inspect.Parameter.empty]
    if len(needed) == 1:

        def resolved(request: Any) -> Any:
            return view(request)
    else:

        def resolved(context: Any, request: Any) -> Any:  # type: ignore[misc]
            return view(context, request)

    return functools.update_wrapper(resolved, view.func, updated=())


@types.coroutine
def drive(generator: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Await a generator that ``yield from``\\ s awaitables, as a coroutine."""
    return (yield from generator)

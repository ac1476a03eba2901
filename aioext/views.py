"""What kind of callable a view is: whether calling it gives a coroutine.

Told when the view is configured, from the view and its ``attr``. What a
decorator wraps (``functools.wraps``) is only a hint, for the decorator may do
anything with it: call it as it is, run it on a loop of its own, stream what it
yields. So there are kinds for it, and the mappers look at what such a view
really returns.
"""

from __future__ import annotations

import enum
import functools
import inspect
import types
from collections.abc import Callable, Generator, Iterator
from typing import Any

from .exceptions import explain

__all__ = [
    "COROUTINES",
    "Kind",
    "drive",
    "kind_of",
    "make_awaitable",
    "mark_synchronized",
    "resolve_partial",
    "show_parameters",
]

# Objects that answer any question may have ``__wrapped__`` without end.
MAX_LAYERS = 100


class Kind(enum.Enum):
    """What comes of calling a view."""

    FUNCTION = "a function"
    COROUTINE = "a coroutine"
    GENERATOR = "a generator, to be driven as a coroutine"
    ASYNC_GENERATOR = "an asynchronous generator"
    SYNCHRONIZED = "a coroutine, waited for by the view itself"
    WRAPPED_COROUTINE = "a function around a coroutine"
    WRAPPED_GENERATOR = "a function around a generator"


# Those whose call gives a coroutine, or is meant to.
COROUTINES = (Kind.COROUTINE, Kind.WRAPPED_COROUTINE)

WRAPPED = {
    Kind.COROUTINE: Kind.WRAPPED_COROUTINE,
    Kind.GENERATOR: Kind.WRAPPED_GENERATOR,
}


def kind_of(view: Any, attr: str | None = None) -> Kind:
    """The kind of ``view``, or of its method ``attr``.

    Recognises functions, classes, instances with ``__call__``, partial
    objects, methods of every sort, and what ``functools.wraps`` decorates.
    """
    for called, certain in _layers(view, attr):
        kind = _direct_kind(called)
        if kind is not Kind.FUNCTION:
            return kind if certain else WRAPPED.get(kind, Kind.FUNCTION)
    return Kind.FUNCTION


def mark_synchronized(function: types.FunctionType) -> None:
    """Remember that ``function`` waits for the coroutine function it wraps."""
    # ``functools.wraps`` copies attributes: what wraps this one has another code.
    function._aioext_synchronized = function.__code__  # type: ignore[attr-defined]
    show_parameters(function)


def show_parameters(function: types.FunctionType) -> None:
    """Let ``function`` have the parameters of what it wraps.

    Pyramid tells ``(request)`` from ``(context, request)`` by the parameters,
    and does not look behind a decorator for them.
    """
    try:
        parameters = inspect.signature(function)
    except (TypeError, ValueError):
        # Something built in, which does not tell.
        return
    function.__signature__ = parameters  # type: ignore[attr-defined]


def make_awaitable(view: Any, attr: str | None = None) -> None:
    """Let the generator functions of a view ``yield from`` coroutines.

    aiopyramid's users wrote ``yield from ws.recv()`` in plain generators. That
    takes a flag of the function's code, which is set in place, in what
    decorators wrap as well. It changes nothing for who iterates.
    """
    for called, _ in _layers(view, attr):
        if inspect.isfunction(called) and inspect.isgeneratorfunction(called):
            types.coroutine(called)


def _layers(view: Any, attr: str | None) -> Iterator[tuple[Any, bool]]:
    # The callable, and what it hides, each with whether calling the view does
    # nothing else than calling that.
    called, wrapped = _called(view, attr), None
    certain = True
    for _ in range(MAX_LAYERS):
        if called is None:
            return
        yield called, certain
        wrapped = wrapped or getattr(called, "__wrapped__", None)
        called = _beneath(called)
        if called is None:
            called, wrapped = wrapped, None
            certain = False


def _called(view: Any, attr: str | None) -> Any:
    if inspect.isclass(view):
        return getattr(view, attr or "__call__", None)
    return getattr(view, attr, None) if attr else view


def _beneath(called: Any) -> Any:
    # What a partial object, a method or an instance calls.
    if isinstance(called, functools.partial):
        return called.func
    if inspect.ismethod(called):
        return called.__func__
    if inspect.isroutine(called) or inspect.isclass(called) or not callable(called):
        return None
    call = type(called).__call__
    return call if inspect.isfunction(call) or inspect.ismethod(call) else None


def _direct_kind(called: Any) -> Kind:
    if _is_synchronized(called):
        return Kind.SYNCHRONIZED
    if inspect.iscoroutinefunction(called):
        return Kind.COROUTINE
    if inspect.isasyncgenfunction(called):
        return Kind.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(called):
        return Kind.GENERATOR
    return Kind.FUNCTION


def _is_synchronized(called: Any) -> bool:
    if not inspect.isfunction(called):
        return False
    return getattr(called, "_aioext_synchronized", None) is called.__code__


POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def resolve_partial(view: Any) -> Any:
    """A plain function for a partial object, which Pyramid cannot look into.

    Pyramid tells ``(request)`` from ``(context, request)`` by the parameters
    that it sees; a partial object shows it none.
    """
    if not isinstance(view, functools.partial):
        return view
    needed = [
        parameter
        for parameter in inspect.signature(view).parameters.values()
        if parameter.kind in POSITIONAL and parameter.default is parameter.empty
    ]
    if len(needed) == 1:

        def resolved(request: Any) -> Any:
            return view(request)
    else:

        def resolved(context: Any, request: Any) -> Any:  # type: ignore[misc]
            return view(context, request)

    return functools.update_wrapper(resolved, view.func, updated=())


@types.coroutine
def drive(generator: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Await a generator that ``yield from``\\ s awaitables, as a coroutine.

    Raises:
        TypeError: in the generator, where it yields a value instead.
    """
    step: Callable[[Any], Any] = generator.send
    argument: Any = None
    try:
        while True:
            try:
                yielded = step(argument)
            except StopIteration as result:
                return result.value
            if yielded is not None and generator.gi_yieldfrom is None:
                step, argument = generator.throw, _not_waited_for(generator, yielded)
                continue
            step, argument = generator.send, None
            try:
                argument = yield yielded
            except GeneratorExit:
                generator.close()
                raise
            except BaseException as error:
                step, argument = generator.throw, error
    finally:
        # An error's traceback refers to this frame.
        del argument


def _not_waited_for(generator: Any, yielded: Any) -> TypeError:
    message = YIELDED.format(generator.__qualname__, yielded)
    if inspect.iscoroutine(yielded):
        yielded.close()
    return TypeError(explain(message, "view-mapper"))


YIELDED = """\
The view {}, a generator, yielded {!r}. A generator is run as a coroutine, and \
waits by `yield from awaitable`, or by `await` once it is written as async def. \
To stream a body, return Response(app_iter=generator()); to give a generator to a \
renderer, return it from an ordinary function."""

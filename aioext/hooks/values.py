"""Synchronous code always gets a value: what a hook gives is waited for.

Pyramid calls its hooks, and uses what they return or throws it away. A hook that
is a coroutine function gives a coroutine instead, which is true wherever a
decision is asked for, and nothing at all where the result is thrown away. So what
is registered is replaced by a stand-in that calls it and settles what it gives.

There are two ways to settle. Where a decision, a response, a string or nothing is
expected, :func:`settle` waits for anything that can be awaited. Where an object of
the application's own is expected (a resource, a session, the value of a request
property), :func:`settle_object` waits for coroutines and Futures only: the
connection pool of asyncpg, the client of redis and others like them can be awaited
as well, and are meant to be used as they are.

A stand-in is meant to be taken for what it stands for: it has its attributes, is
equal to it, and is an instance of its class.

Code inside of a hook may call the hook's other methods. A coroutine awaits those that
are coroutines; a function next to it, or one inherited from Pyramid, expects values,
whoever has called it. So where there are both, functions are methods of the stand-in,
and coroutine functions are methods of an :class:`_Awaiting`.

What Pyramid itself has written is no coroutine, and is left as it is
(:func:`is_own`): that costs nothing while it serves.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Self

from .. import bridge
from ..views import COROUTINES, Kind, kind_of

__all__ = [
    "Settled",
    "SettledCallable",
    "SettledMethods",
    "has_coroutines",
    "is_coroutine",
    "is_own",
    "settle",
    "settle_object",
]


def settle(value: Any) -> Any:
    """``value``, or what it gives when it is awaited; waits for it.

    What that gives may have to be awaited in its turn: somebody forgot an ``await``.
    """
    while _is_awaitable(value):
        value = bridge.wait(value)
    return value


def _is_awaitable(value: Any) -> bool:
    if type(value) is types.GeneratorType:
        return _is_coroutine_generator(value)
    return hasattr(type(value), "__await__")


def settle_object(value: Any) -> Any:
    """Like :func:`settle`, but an object that can merely be awaited stays itself."""
    while is_coroutine(value):
        value = bridge.wait(value)
    return value


def is_coroutine(value: Any) -> bool:
    """Whether ``value`` is a coroutine, of whatever sort, or a Future."""
    if type(value) is types.GeneratorType:
        return _is_coroutine_generator(value)
    if not hasattr(type(value), "__await__"):
        return False
    return isinstance(value, Coroutine) or asyncio.isfuture(value)


def _is_coroutine_generator(generator: types.GeneratorType) -> bool:
    return bool(generator.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE)


def is_own(hook: Any) -> bool:
    """Whether ``hook`` is Pyramid's own, or ours: synchronous already."""
    if type(hook) is types.FunctionType:
        if inspect.iscoroutinefunction(hook):
            # One that @use_executor made, for example.
            return False
        # A decorator may have copied another function's module.
        module = hook.__globals__.get("__name__", "")
    else:
        module = (hook if isinstance(hook, type) else type(hook)).__module__
    return module.partition(".")[0] in ("aioext", "pyramid")


class _OfClass(type):
    # What type(self) is asked for in a method of a hook's.
    def __getattr__(cls, name: str) -> Any:
        if name == "hook_class":
            raise AttributeError(name)
        return getattr(cls.hook_class, name)


@functools.lru_cache
def _stand_in_class(cls: type, hook_class: type) -> type:
    # Python looks for ``self[key]``, ``with self`` and others like them in the class.
    special = {name: _forwarding(name) for name in SPECIAL if hasattr(hook_class, name)}
    names = {"__slots__": (), "__module__": cls.__module__, "hook_class": hook_class}
    return _OfClass(cls.__name__, (cls,), special | names)


SPECIAL = (
    "__aenter__",
    "__aexit__",
    "__bool__",
    "__contains__",
    "__delitem__",
    "__enter__",
    "__exit__",
    "__getitem__",
    "__iter__",
    "__len__",
    "__setitem__",
)


def _forwarding(name: str) -> Callable[..., Any]:
    def special(self: Any, *args: Any) -> Any:
        hook = self._aioext_hook
        return getattr(type(hook), name)(hook, *args)

    return special


class _StandIn:
    """An object that is taken for ``hook``."""

    # Not in __dict__, which is the hook's, and by names that no hook has.
    __slots__ = ("__weakref__", "_aioext_hook")

    def __init__(self, hook: Any) -> None:
        object.__setattr__(self, "_aioext_hook", hook)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._aioext_hook, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._aioext_hook, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._aioext_hook, name)

    def __eq__(self, other: object) -> bool:
        if issubclass(type(other), _StandIn):
            other = other._aioext_hook  # type: ignore[attr-defined]
        return bool(self._aioext_hook == other)

    def __hash__(self) -> int:
        return hash(self._aioext_hook)

    def __repr__(self) -> str:
        return repr(self._aioext_hook)

    def __reduce_ex__(self, protocol: int) -> Any:
        # A copy is one of the hook: what it is adapted for stands in the registry.
        return _itself, (self._aioext_hook,)

    @property
    def __class__(self) -> type:
        return type(self._aioext_hook)

    @property
    def __wrapped__(self) -> Any:
        return self._aioext_hook


def _itself(hook: Any) -> Any:
    return hook


class Settled(_StandIn):
    """Calls a hook, and gives a value.

    Args:
        hook: any callable.
        settling: :func:`settle` or :func:`settle_object`.
    """

    __slots__ = ("_aioext_settling",)

    def __init__(
        self, hook: Callable[..., Any], settling: Callable[[Any], Any] = settle
    ) -> None:
        super().__init__(hook)
        object.__setattr__(self, "_aioext_settling", settling)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._aioext_settling(self._aioext_hook(*args, **kwargs))

    @property
    def _aioext_synchronized(self) -> Any:
        # For aioext.views: it looks like its coroutine function, and is none.
        return getattr(self._aioext_hook, "__code__", None)


class SettledMethods(_StandIn):
    """Calls methods of an object, and gives values.

    An attribute of one of those names that is no method is settled itself.

    Args:
        hook: the object.
        methods: the names of the methods whose result is settled by :func:`settle`.
        objects: the names of those for :func:`settle_object`. All others are the
            hook's own.
    """

    __slots__ = ("_aioext_mixed", "_aioext_settlings")

    def __new__(cls, hook: Any, *args: Any, **options: Any) -> Self:
        return object.__new__(_stand_in_class(cls, type(hook)))

    def __init__(
        self, hook: Any, methods: Collection[str], objects: Collection[str] = ()
    ) -> None:
        super().__init__(hook)
        settlings = dict.fromkeys(methods, settle)
        settlings |= dict.fromkeys(objects, settle_object)
        object.__setattr__(self, "_aioext_settlings", settlings)
        object.__setattr__(self, "_aioext_mixed", has_coroutines(hook, settlings))

    def __getattr__(self, name: str) -> Any:
        attribute = self._bound(getattr(self._aioext_hook, name))
        settling = self._aioext_settlings.get(name)
        if settling is None:
            return attribute
        if callable(attribute):
            return Settled(attribute, settling)
        return settling(attribute)

    def _bound(self, attribute: Any) -> Any:
        # Synchronous code, which other methods may give coroutines, gets their values.
        hook, is_mixed = self._aioext_hook, self._aioext_mixed
        if not inspect.ismethod(attribute) or attribute.__self__ is not hook:
            return attribute
        if _gives_coroutines(attribute.__func__):
            owner = _Awaiting(self) if is_mixed else hook
        else:
            owner = self if is_mixed or is_own(attribute.__func__) else hook
        return types.MethodType(attribute.__func__, owner)


def has_coroutines(hook: Any, names: Collection[str]) -> bool:
    """Whether any method of ``hook`` is a coroutine function, as far as can be seen.

    Args:
        hook: an object.
        names: which of its own attributes may be functions as well.
    """
    own = getattr(hook, "__dict__", {})
    return (
        _class_has_coroutines(type(hook))
        or any(_may_give_a_coroutine(own[name]) for name in names if name in own)
        # What a property gives, and that is called then, cannot be seen.
        or any(isinstance(getattr(type(hook), name, None), property) for name in names)
    )


@functools.lru_cache
def _class_has_coroutines(cls: type) -> bool:
    # Any method: one that is a function may return what another one gives.
    attributes = collections.ChainMap(*(vars(each) for each in cls.__mro__))
    return any(map(_may_give_a_coroutine, list(attributes.values())))


def _may_give_a_coroutine(method: Any) -> bool:
    # A decorator may hide what it wraps, but not from who looks into it.
    if isinstance(method, (property, functools.partialmethod)):
        method = method.fget if isinstance(method, property) else method.func
    method = getattr(method, "__func__", method)
    if not callable(method):
        return False
    with contextlib.suppress(ValueError):
        method = inspect.unwrap(method)
    hidden = [method]
    for cell in getattr(method, "__closure__", None) or ():
        with contextlib.suppress(ValueError):
            hidden.append(cell.cell_contents)
    return any(callable(each) and kind_of(each) in COROUTINES for each in hidden)


@functools.lru_cache(maxsize=1024)
def _kind_of(function: types.FunctionType) -> Kind:
    return kind_of(function)


def _gives_coroutines(method: Any) -> bool:
    # Looking behind decorators takes longer than most of what they decorate.
    known = type(method) is types.FunctionType
    kind = _kind_of(method) if known else kind_of(method)
    return kind in COROUTINES


class _Awaiting(_StandIn):
    """What a coroutine function of a hook has for ``self``.

    Its coroutine functions are there to be awaited; the functions next to it get
    values.
    """

    __slots__ = ("_aioext_settled",)

    def __new__(cls, settled: SettledMethods) -> Self:
        return object.__new__(_stand_in_class(cls, type(settled._aioext_hook)))

    def __init__(self, settled: SettledMethods) -> None:
        super().__init__(settled._aioext_hook)
        object.__setattr__(self, "_aioext_settled", settled)

    def __getattr__(self, name: str) -> Any:
        return self._aioext_settled._bound(getattr(self._aioext_hook, name))


class SettledCallable(SettledMethods):
    """The same for an object that is callable itself."""

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return settle(self.__getattr__("__call__")(*args, **kwargs))

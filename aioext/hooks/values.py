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
are coroutines; a function next to it, or one inherited from Pyramid, expects values.
So coroutine functions are methods of the hook, and functions are methods of its
stand-in, wherever there are both.

What Pyramid itself has written is no coroutine, and is left as it is
(:func:`is_own`): that costs nothing while it serves.
"""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from .. import bridge

__all__ = [
    "Settled",
    "SettledCallable",
    "SettledMethods",
    "is_coroutine",
    "is_own",
    "settle",
    "settle_object",
]


def settle(value: Any) -> Any:
    """``value``, or what it gives when it is awaited; waits for it."""
    if type(value) is types.GeneratorType:
        return bridge.wait(value) if _is_coroutine_generator(value) else value
    return bridge.wait(value) if hasattr(type(value), "__await__") else value


def settle_object(value: Any) -> Any:
    """Like :func:`settle`, but an object that can merely be awaited stays itself."""
    return bridge.wait(value) if is_coroutine(value) else value


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


class _StandIn:
    """An object that is taken for ``hook``."""

    # Not in __dict__, which is the hook's: names are looked up there.
    __slots__ = ("__weakref__", "hook")

    def __init__(self, hook: Any) -> None:
        object.__setattr__(self, "hook", hook)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.hook, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.hook, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.hook, name)

    def __eq__(self, other: object) -> bool:
        if issubclass(type(other), _StandIn):
            other = other.hook  # type: ignore[attr-defined]
        return bool(self.hook == other)

    def __hash__(self) -> int:
        return hash(self.hook)

    def __repr__(self) -> str:
        return repr(self.hook)

    @property
    def __class__(self) -> type:
        return type(self.hook)

    @property
    def __wrapped__(self) -> Any:
        return self.hook


class Settled(_StandIn):
    """Calls a hook, and gives a value.

    Args:
        hook: any callable.
        settling: :func:`settle` or :func:`settle_object`.
    """

    __slots__ = ("settling",)

    def __init__(
        self, hook: Callable[..., Any], settling: Callable[[Any], Any] = settle
    ) -> None:
        super().__init__(hook)
        object.__setattr__(self, "settling", settling)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.settling(self.hook(*args, **kwargs))

    @property
    def _aioext_synchronized(self) -> Any:
        # For aioext.views: it looks like its coroutine function, and is none.
        return getattr(self.hook, "__code__", None)


class SettledMethods(_StandIn):
    """Calls methods of an object, and gives values.

    An attribute of one of those names that is no method is settled itself.

    Args:
        hook: the object.
        methods: the names of the methods whose result is settled by :func:`settle`.
        objects: the names of those for :func:`settle_object`. All others are the
            hook's own.
    """

    __slots__ = ("mixed", "settlings")

    def __init__(
        self, hook: Any, methods: Collection[str], objects: Collection[str] = ()
    ) -> None:
        super().__init__(hook)
        settlings = dict.fromkeys(methods, settle)
        settlings |= dict.fromkeys(objects, settle_object)
        object.__setattr__(self, "settlings", settlings)
        static = (inspect.getattr_static(hook, name, None) for name in settlings)
        mixed = any(inspect.iscoroutinefunction(method) for method in static)
        object.__setattr__(self, "mixed", mixed)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.hook, name)
        if inspect.ismethod(attribute) and self._is_to_wait(attribute):
            attribute = types.MethodType(attribute.__func__, self)
        settling = self.settlings.get(name)
        if settling is None:
            return attribute
        if callable(attribute):
            return Settled(attribute, settling)
        return settling(attribute)

    def _is_to_wait(self, method: types.MethodType) -> bool:
        # Whether it is synchronous code that other methods may give coroutines.
        if method.__self__ is not self.hook or inspect.iscoroutinefunction(method):
            return False
        return self.mixed or is_own(method.__func__)


class SettledCallable(SettledMethods):
    """The same for an object that is callable itself."""

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return settle(self.__getattr__("__call__")(*args, **kwargs))

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
"""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from .. import bridge

__all__ = ["Settled", "SettledMethods", "is_coroutine", "settle", "settle_object"]


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


class SettledMethods(_StandIn):
    """Calls methods of an object, and gives values.

    Args:
        hook: the object.
        methods: the names of those methods; the others are its own.
    """

    __slots__ = ("methods",)

    def __init__(self, hook: Any, methods: Collection[str]) -> None:
        super().__init__(hook)
        object.__setattr__(self, "methods", frozenset(methods))

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.hook, name)
        if name in self.methods and callable(attribute):
            return Settled(attribute)
        return attribute

"""What JSON has no name for becomes: dates, decimals, sets, dataclasses and others.

An encoder knows dict, list, tuple, str, int, float, bool and None, and asks for
anything else. :func:`plain` answers for what the standard library defines; what
waits, and what an application defines, is :mod:`aioext.renderers.json`'s.

Two encoders write the same values:

* The standard library's. It knows no way to write NaN and the infinities that a JSON
  parser would read, and here refuses them; they become null then
  (:func:`finite`), as in JavaScript.
* orjson, where it can. What it refuses and the other one writes (keys that are no
  str, integers of more than 64 bits, half of a surrogate pair, very deep nesting) is
  written by that: :func:`orjson_dumps` gives None. Subclasses of dict, list and the
  others are taken from it and made exact, for it would look past their methods.

Things that do not work
=======================

* Converting the whole value before it is encoded: a walk in Python takes several
  times as long as the encoding itself, for values that need none mostly.
* orjson's ``OPT_NON_STR_KEYS``: it writes keys that the other encoder refuses, and
  an application that is moved to a machine without it would fail there.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import json
import math
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Protocol

__all__ = [
    "UNKNOWN",
    "Default",
    "duration",
    "finite",
    "has_orjson",
    "orjson_dumps",
    "plain",
    "stdlib_dumps",
]


class Default(Protocol):
    """Converts what an encoder does not know.

    Attributes:
        error: what it has raised; None: nothing.
    """

    error: BaseException | None

    def __call__(self, value: Any, /) -> Any: ...


UNKNOWN: Any = object()


def plain(value: Any) -> Any:
    """What ``value`` is written as: something that may have to be converted in turn.

    :data:`UNKNOWN` if there is no such thing.
    """
    return _plain(value)


@functools.singledispatch
def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    return UNKNOWN


def _fields(value: Any) -> dict[str, Any]:
    # Those with an underscore are the class's own business.
    return {
        field.name: getattr(value, field.name)
        for field in dataclasses.fields(value)
        if not field.name.startswith("_")
    }


@_plain.register
def _(value: datetime.date | datetime.time) -> str:
    return value.isoformat()


@_plain.register
def duration(value: datetime.timedelta) -> str:
    """A duration in the format of ISO 8601, as ``P1DT2H3M4.5S``."""
    sign, value = ("-", -value) if value.days < 0 else ("", value)
    minutes, seconds = divmod(value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{value.microseconds:06}".rstrip("0") if value.microseconds else ""
    parts = [(hours, "", "H"), (minutes, "", "M"), (seconds, fraction, "S")]
    time = "".join(f"{n}{rest}{unit}" for n, rest, unit in parts if n or rest)
    days = f"{value.days}D" if value.days else ""
    if not days and not time:
        return "PT0S"
    return f"{sign}P{days}{'T' if time else ''}{time}"


@_plain.register
def _(value: decimal.Decimal | uuid.UUID) -> str:
    return str(value)


@_plain.register
def _(value: enum.Enum) -> Any:
    return value.value


@_plain.register
def _(value: set | frozenset) -> list[Any]:
    # In an order, so that the same set has the same ETag in every process.
    try:
        return sorted(value)
    except TypeError:
        return list(value)


@_plain.register
def _(value: Iterator) -> list[Any]:
    return list(value)


# The encoders ------------------------------------------------------------------


def stdlib_dumps(value: Any, default: Default, options: dict[str, Any]) -> str:
    """``value`` as JSON, by the standard library.

    Args:
        value: anything.
        default: converts what is no JSON.
        options: those of ``json.dumps``. With ``allow_nan`` among them, that is
            what is done about NaN.

    Raises:
        TypeError, ValueError: there is something that cannot be written.
        BaseException: what ``default`` raises.
    """
    if "allow_nan" in options:
        return json.dumps(value, default=default, **options)
    options = {**options, "allow_nan": False}
    try:
        return json.dumps(value, default=default, **options)
    except ValueError:
        if default.error is not None:
            raise
    return json.dumps(finite(value, default), **options)


def finite(value: Any, default: Callable[[Any], Any]) -> Any:
    """A copy of ``value`` with everything converted, and null for NaN and infinities.

    Raises:
        ValueError: ``value`` contains itself.
    """
    return _Finite(default).copy(value)


class _Finite:
    def __init__(self, default: Callable[[Any], Any]) -> None:
        self._default = default
        self._around: set[int] = set()

    def copy(self, value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if value is None or isinstance(value, (str, int)):
            return value
        if id(value) in self._around:
            raise ValueError("Circular reference detected")
        self._around.add(id(value))
        try:
            return self._copy(value)
        finally:
            self._around.discard(id(value))

    def _copy(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {_key(key): self.copy(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.copy(each) for each in value]
        return self.copy(self._default(value))


def _key(key: Any) -> Any:
    return key if not isinstance(key, float) or math.isfinite(key) else str(key)


@functools.cache
def _orjson() -> Any:
    import orjson

    return orjson


def has_orjson() -> bool:
    """Whether orjson is installed."""
    try:
        _orjson()
    except ImportError:
        return False
    return True


def orjson_dumps(value: Any, default: Default) -> bytes | None:
    """``value`` as JSON, by orjson; None if that does not know how.

    Raises:
        BaseException: what ``default`` raises.
    """
    orjson = _orjson()
    options = (
        orjson.OPT_PASSTHROUGH_DATACLASS
        | orjson.OPT_PASSTHROUGH_DATETIME
        | orjson.OPT_PASSTHROUGH_SUBCLASS
    )

    def convert(value: Any) -> Any:
        exact = EXACT.get(_native(type(value)))
        return default(value) if exact is None else exact(value)

    try:
        return orjson.dumps(value, default=convert, option=options)
    except orjson.JSONEncodeError:
        # It hides what the function has raised behind an error of its own.
        pass
    if default.error is not None:
        raise default.error
    return None


@functools.lru_cache(maxsize=1024)
def _native(cls: type) -> type | None:
    return next((each for each in EXACT if issubclass(cls, each)), None)


# What the standard library's encoder takes a subclass for.
EXACT: dict[type | None, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__pos__,
    float: float.__pos__,
    dict: lambda value: dict(value.items()),
    list: list,
    tuple: list,
}

"""What of a view's value leaves as JSON: only what the view has named.

A template picks what it shows from the value that a view gives it. JSON would be all
of it, with what nobody meant to publish. So a view says what its JSON is, in one of
three ways, and what it does not name is not sent.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pyramid.exceptions import ConfigurationError

from ..awaitables import close
from ..exceptions import explain
from ..hooks.values import settle

__all__ = ["exposed_by", "only_text"]

# Takes (value, request), and gives what is to be sent.
Expose = Callable[[Any, Any], Any]

COLLECTIONS = (tuple, list, set, frozenset)
POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def exposed_by(rule: Any, name: str, what: str) -> Expose:
    """What makes of a value that which a format may send.

    Args:
        rule: keys of a mapping; a callable that takes ``(value)`` or ``(value,
            request)``; True: the value's own ``__json__``.
        name: of the format.
        what: the view, in a message.

    Raises:
        ConfigurationError: ``rule`` is none of these.
    """
    if rule is True:
        return _Model(name, what)
    if isinstance(rule, COLLECTIONS):
        if not rule or not all(isinstance(key, str) for key in rule):
            raise _refused(rule, name, what)
        return _Keys(rule, name, what)
    if not callable(rule):
        raise _refused(rule, name, what)
    return _called(rule, name, what)


class _Keys:
    """The items of a mapping that have one of some keys, in its order."""

    def __init__(self, keys: Collection[str], name: str, what: str) -> None:
        self.keys = frozenset(keys)
        self.name = name
        self.what = what

    def __call__(self, value: Any, request: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            given = type(value).__name__
            message = NO_MAPPING.format(self.what, given, self.name)
            raise TypeError(explain(message, "formats"))
        if isinstance(value, dict):
            self._close_others(value)
        return {key: value[key] for key in value if key in self.keys}

    def _close_others(self, value: dict[Any, Any]) -> None:
        # What a template would have waited for.
        for key, each in value.items():
            if key not in self.keys:
                close(each)


class _Model:
    """What a value says by ``__json__`` that it is as JSON.

    An encoder asks only what it does not know itself: of a dict it would write the
    items, whatever ``__json__`` of its class says.
    """

    def __init__(self, name: str, what: str) -> None:
        self.name = name
        self.what = what

    def __call__(self, value: Any, request: Any) -> Any:
        if not hasattr(type(value), "__json__"):
            given = type(value).__name__
            message = NO_MODEL.format(self.what, given, self.name)
            raise TypeError(explain(message, "formats"))
        return settle(value.__json__(request))


def only_text(what: str) -> Expose:
    """What lets only text pass: Pyramid's renderer ``string`` makes text of anything.

    An object whose class has a ``__str__`` says by it what its text is. A dict, a list
    or a dataclass has none, and gives all that is in it.

    Args:
        what: the view, in a message.
    """

    def text(value: Any, request: Any) -> Any:
        has_text = type(value).__str__ is not object.__str__
        if not has_text and not isinstance(value, (int, float)):
            given = type(value).__name__
            raise TypeError(explain(NO_TEXT.format(what, given), "formats"))
        return value

    return text


def _called(rule: Any, name: str, what: str) -> Expose:
    if _needed(rule, name, what) == 2:
        return lambda value, request: settle(rule(value, request))
    return lambda value, request: settle(rule(value))


def _needed(rule: Any, name: str, what: str) -> int:
    # How many positional arguments there have to be: one or two.
    try:
        parameters = inspect.signature(rule).parameters.values()
    except (TypeError, ValueError):
        # Something built in, which does not tell.
        return 1
    without_default = [each for each in parameters if each.default is each.empty]
    needed = sum(each.kind in POSITIONAL for each in without_default)
    takes_any = any(
        each.kind in (*POSITIONAL, each.VAR_POSITIONAL) for each in parameters
    )
    has_to_be_named = any(each.kind is each.KEYWORD_ONLY for each in without_default)
    if needed > 2 or has_to_be_named or not takes_any:
        raise _refused(rule, name, what)
    return needed


def _refused(rule: Any, name: str, what: str) -> ConfigurationError:
    message = REFUSED.format(what, rule, name)
    return ConfigurationError(explain(message, "formats"))


REFUSED = """\
The view {} has {!r} for {!r} among its formats. It takes what may be sent: the keys, \
as ('title', 'items'), of the mapping that the view returns; a callable that takes \
(value) or (value, request) and returns it; or True, for a value that has __json__."""

NO_MAPPING = """\
The view {} returned an object of the class {}, which has no keys to choose from for \
its format {!r}. Return a mapping, or give a callable in the place of the keys, which \
takes the value and returns what may be sent."""

NO_MODEL = """\
The view {} returned an object of the class {}, which has no method __json__, and {!r} \
among its formats is True. Give the class the method, or name what may be sent: the \
keys of a mapping, or a callable that takes the value."""

NO_TEXT = """\
The view {} returned an object of the class {}, and the renderer 'string', which is \
among its formats, would send all of it as text. Return a str, or an object with \
__str__; or name a template, which picks what is shown."""

"""JSON: Pyramid's renderer, with more types, with values that wait, and with streams.

What is no JSON is converted, in this order: by its own ``__json__(request)``; by an
adapter, as :class:`pyramid.renderers.JSON` has them; by waiting for it, if it can be
awaited; by collecting it, if it is an asynchronous iterable; by
:func:`aioext.renderers.encoding.plain`.

A view's value that gives its items one after the other is not collected, but becomes
a body: :mod:`aioext.renderers.items`.

The include puts its renderer in the place of Pyramid's own only. One that the
application, or an add-on, has registered as ``json`` is left there. Adapters that
were given to Pyramid's are found by ours, those that are given to it later as well.
"""

from __future__ import annotations

import inspect
import json
import uuid
from collections.abc import Callable
from enum import Enum
from typing import Any

import pyramid
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IJSONAdapter, IRendererFactory
from pyramid.renderers import JSON, json_renderer_factory, render
from zope.interface import implementedBy, providedBy
from zope.interface.registry import Components

from .. import bridge
from ..awaitables import close
from ..config import AFTER_PHASE1
from ..exceptions import explain
from ..hooks.values import is_coroutine, settle
from ..interfaces import ISettings
from . import encoding
from .items import Array, Lines, is_stream, stream
from .media import set_type

__all__ = ["JSONRenderer", "dumps_for", "includeme", "json_lines"]

# What JSON lines are sent as.
LINES = "application/x-ndjson"

# What most values of views are, and needs no further look.
COMMON = frozenset((dict, list, tuple, str, int, float, bool, type(None)))


def includeme(config: Any) -> None:
    """Register the renderers ``json`` and ``json_lines``, where nobody else has.

    Raises:
        ConfigurationError: ``aioext.json`` names a library that is not installed.
    """
    config.include("aioext")
    config.action(None, _register, (config.registry,), order=AFTER_PHASE1)


def _register(registry: Any) -> None:
    if registry.getUtility(ISettings).json == "orjson" and not encoding.has_orjson():
        raise ConfigurationError(explain(NO_ORJSON, "json-orjson"))
    registered = registry.queryUtility(IRendererFactory, "json")
    if _is_pyramids(registered):
        renderer = JSONRenderer()
        renderer.components = Components(bases=(registered.components,))
        registry.registerUtility(renderer, IRendererFactory, "json")
    if registry.queryUtility(IRendererFactory, "json_lines") is None:
        registry.registerUtility(json_lines, IRendererFactory, "json_lines")


def _is_pyramids(renderer: Any) -> bool:
    if renderer is json_renderer_factory:
        return True
    # A configuration that was committed before has an application's copy of it.
    return (
        type(renderer) is JSON
        and json_renderer_factory.components in renderer.components.__bases__
    )


class JSONRenderer(JSON):
    """A renderer of JSON that knows more types, waits, and streams.

    To be registered by an application that has adapters or options of its own::

        renderer = JSONRenderer(indent=2)
        renderer.add_adapter(Money, lambda money, request: str(money))
        config.add_renderer("json", renderer)

    Beside what Pyramid's renders: ``date``, ``datetime``, ``time``, ``timedelta``,
    ``Decimal``, ``UUID``, ``Enum``, dataclasses, sets, iterators, asynchronous
    iterables, and whatever can be awaited. NaN and the infinities become ``null``.
    An iterator, or an asynchronous iterable, that is a view's value is streamed.

    Args:
        serializer: a function ``(value, default=…, **options)`` that gives a str, or
            bytes; by default the one that :confval:`aioext.json` names.
        adapters: pairs of a type and a function ``(value, request)``, which may be a
            coroutine function.
        options: arguments of ``json.dumps``, or of ``serializer``. With any of them,
            orjson is not used.

    Raises:
        TypeError: while rendering: something can be no JSON.
        BaseException: while rendering: what an adapter raises, or something that is
            awaited.

    Cancellation: while rendering: raised where something is waited for.
    """

    def __init__(
        self,
        serializer: Callable[..., str | bytes] | None = None,
        adapters: Any = (),
        **options: Any,
    ) -> None:
        super().__init__(serializer or json.dumps, adapters, **options)
        self._has_serializer = serializer is not None

    def __call__(self, info: Any) -> Callable[[Any, Any], Any]:
        """What renders values: a function ``(value, system)``."""

        def render_json(value: Any, system: Any) -> Any:
            request = system.get("request")
            if request is not None:
                set_type(request.response, "application/json")
            if self._is_streamed(value, system):
                return stream(value, Array(self.dumps_for(request)), request)
            text = self._dumps(value, request, self._uses_orjson(info))
            if self._has_serializer or isinstance(text, str):
                return text
            return text.decode()

        return render_json

    def dumps_for(self, request: Any) -> Callable[[Any], bytes]:
        """A function that makes JSON of a value, for a request or for None."""
        uses_orjson = self._uses_orjson(request)

        def dumps(value: Any) -> bytes:
            text = self._dumps(value, request, uses_orjson)
            return text.encode() if isinstance(text, str) else text

        return dumps

    def _uses_orjson(self, of: Any) -> bool:
        # ``of`` is whatever has a registry.
        registry = getattr(of, "registry", None)
        settings = None if registry is None else registry.queryUtility(ISettings)
        if settings is None or settings.json != "orjson":
            return False
        if self._has_serializer or self.kw:
            return False
        # It writes these without asking.
        return not any(map(self._adapter_of, NEVER_ASKED))

    def _adapter_of(self, spec: Any) -> Any:
        return self.components.adapters.lookup((spec,), IJSONAdapter)

    def _dumps(self, value: Any, request: Any, uses_orjson: bool) -> str | bytes:
        default = _Conversion(self._adapter_of, request)
        try:
            if self._has_serializer:
                return self.serializer(value, default=default, **self.kw)
            text = encoding.orjson_dumps(value, default) if uses_orjson else None
            if text is None:
                return encoding.stdlib_dumps(value, default, self.kw)
            return text
        except BaseException:
            _close_coroutines(value)
            raise
        finally:
            # Its traceback leads back to here.
            default.error = None

    def _is_streamed(self, value: Any, system: Any) -> bool:
        return (
            _is_streamed(value, system)
            and not hasattr(value, "__json__")
            and self._adapter_of(providedBy(value)) is None
        )


NEVER_ASKED = (implementedBy(uuid.UUID), implementedBy(Enum))


def _is_streamed(value: Any, system: Any) -> bool:
    # render() promises a string. It has no view.
    return (
        type(value) not in COMMON
        and is_stream(value)
        and system.get("view") is not None
    )


class _Conversion:
    """Converts what is no JSON, for one value.

    Something that can be had only once is remembered: an encoder may give up, and
    another one begin anew. So are classes whose instances have no attributes of their
    own, neither a ``__json__`` nor an interface: a list of a thousand dates asks once.
    """

    __slots__ = ("_adapter_of", "_given", "_plain", "_request", "error")

    def __init__(self, adapter_of: Callable[[Any], Any], request: Any) -> None:
        self._adapter_of = adapter_of
        self._request = request
        self._given: dict[int, tuple[Any, Any]] = {}
        self._plain: set[type] = set()
        self.error: BaseException | None = None

    def __call__(self, value: Any) -> Any:
        try:
            return self._convert(value)
        except BaseException as error:
            self.error = error
            raise

    def _convert(self, value: Any) -> Any:
        if type(value) in self._plain:
            return encoding.plain(value)
        if hasattr(value, "__json__"):
            return value.__json__(self._request)
        if id(value) in self._given:
            return self._given[id(value)][1]
        adapter = self._adapter_of(providedBy(value))
        if adapter is not None:
            converted = adapter(value, self._request)
        elif _can_be_awaited(value):
            converted = settle(value)
        elif hasattr(type(value), "__aiter__"):
            converted = bridge.wait(_collect(value))
        else:
            converted = encoding.plain(value)
        if converted is encoding.UNKNOWN:
            message = NOT_JSON.format(value, type(value))
            raise TypeError(explain(message, "not-json"))
        if is_stream(value) or _can_be_awaited(value):
            # With the value itself, which keeps its id.
            self._given[id(value)] = value, converted
        elif adapter is None and not hasattr(value, "__dict__"):
            self._plain.add(type(value))
        return converted


def _can_be_awaited(value: Any) -> bool:
    return hasattr(type(value), "__await__") or is_coroutine(value)


async def _collect(items: Any) -> list[Any]:
    return [item async for item in items]


def _close_coroutines(value: Any) -> None:
    # Those that will not be awaited, now that another part has failed.
    seen: set[int] = set()
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, (dict, list, tuple)) and id(each) not in seen:
            seen.add(id(each))
            left.extend(each.values() if isinstance(each, dict) else each)
        elif inspect.iscoroutine(each):
            if inspect.getcoroutinestate(each) == inspect.CORO_CREATED:
                close(each)


def dumps_for(request: Any, registry: Any = None) -> Callable[[Any], bytes]:
    """A function that makes JSON of a value, by an application's renderer ``json``.

    Args:
        request: what ``__json__`` and adapters are given; may be None.
        registry: the application's; by default the request's.
    """
    registry = request.registry if registry is None else registry
    renderer = registry.queryUtility(IRendererFactory, "json")
    if isinstance(renderer, JSONRenderer):
        return renderer.dumps_for(request)

    def dumps(value: Any) -> bytes:
        # The package, which a renderer's name can be relative to, spares a search.
        text = render("json", value, request, pyramid)
        return text.encode() if isinstance(text, str) else text

    return dumps


def json_lines(info: Any) -> Callable[[Any, Any], Any]:
    """The factory of the renderer ``json_lines``: an item on each line, as JSON.

    The items are those of an iterator or an asynchronous iterable, which is streamed,
    or of a list or a tuple; anything else is one item. Each is rendered by the
    application's renderer ``json``.
    """

    def render_lines(value: Any, system: Any) -> Any:
        request = system.get("request")
        if request is not None:
            set_type(request.response, LINES)
        form = Lines(dumps_for(request, info.registry))
        if _can_be_awaited(value):
            value = settle(value)
        if _is_streamed(value, system):
            return stream(value, form, request)
        if hasattr(type(value), "__aiter__"):
            value = bridge.wait(_collect(value))
        if not isinstance(value, (list, tuple)) and not is_stream(value):
            value = [value]
        return b"".join(map(form.piece, value)).decode()

    return render_lines


NOT_JSON = """\
{!r}, of {}, is not JSON serializable. Give its class a method __json__(request), or \
the renderer an adapter, JSONRenderer.add_adapter(); or put into the value what is to \
be sent of it."""

NO_ORJSON = """\
The setting aioext.json is 'orjson', and orjson is not installed. Install it, \
pip install 'aioext[orjson]', or leave the setting out."""

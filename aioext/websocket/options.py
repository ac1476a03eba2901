"""The options of one WebSocket: the application's settings, and its view's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid.settings import aslist

from ..exceptions import explain
from ..interfaces import ISettings
from ..settings import settings_of
from .origin import check_pattern

__all__ = ["VIEW_OPTIONS", "Options", "read_view_options"]

SelectSubprotocol = Callable[[list[str], Any], str | None]

_BY_NAME = settings_of("websocket")
# Settings that a view may have a value of its own for.
LIMITS = ("max_size", "queue", "ping_interval", "ping_timeout", "compression")
VIEW_OPTIONS = (*LIMITS, "allowed_origins", "subprotocols")


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for one WebSocket; see :ref:`settings` for the limits.

    Attributes:
        origins: patterns of origins that may open it beside its own.
        trusted: ``pyramid.csrf_trusted_origins``.
        subprotocols: a list in order of preference, or a callable that gets
            the client's list and the request, and gives one of them or None.
    """

    max_size: int = _BY_NAME["max_size"].default
    queue: int = _BY_NAME["queue"].default
    ping_interval: float = _BY_NAME["ping_interval"].default
    ping_timeout: float = _BY_NAME["ping_timeout"].default
    compression: str = _BY_NAME["compression"].default
    origins: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()
    subprotocols: tuple[str, ...] | SelectSubprotocol = field(default=())

    @classmethod
    def of(cls, registry: Any) -> Options:
        """The options of an application, without a view's own."""
        settings = registry.queryUtility(ISettings)
        own = registry.settings or {}
        trusted = tuple(aslist(own.get("pyramid.csrf_trusted_origins", ())))
        if settings is None:
            return cls(trusted=trusted)
        return cls(
            **{name: getattr(settings, _BY_NAME[name].attribute) for name in LIMITS},
            origins=settings.websocket_origins,
            trusted=trusted,
        )

    def with_view_options(self, given: Mapping[str, Any]) -> Options:
        """These, with what :func:`read_view_options` gave."""
        return replace(self, **given)


def read_view_options(options: Mapping[str, Any], view: str) -> dict[str, Any]:
    """The options in ``add_view(...)`` that are for a WebSocket, checked.

    Args:
        options: all that the view was given.
        view: how it is called in a message.

    Raises:
        ConfigurationError: one has a value that is not allowed.
    """
    given = {}
    for name in LIMITS:
        if options.get(name) is not None:
            given[name] = _cast(name, options[name], view)
    if options.get("allowed_origins") is not None:
        origins = _cast("origins", options["allowed_origins"], view)
        given["origins"] = tuple(origins)
    if options.get("subprotocols") is not None:
        given["subprotocols"] = _check_subprotocols(options["subprotocols"], view)
    return given


def _cast(name: str, value: Any, view: str) -> Any:
    try:
        read = _BY_NAME[name].cast(value)
        if name == "origins":
            for pattern in read:
                check_pattern(pattern)
    except ValueError as error:
        option = "allowed_origins" if name == "origins" else name
        message = f"The view {view} has {option}={value!r}; it takes {error}."
        raise ConfigurationError(explain(message, "websocket-options")) from None
    return read


def _check_subprotocols(value: Any, view: str) -> Any:
    if callable(value):
        return value
    if isinstance(value, Iterable) and not isinstance(value, str):
        names = tuple(value)
        if all(isinstance(each, str) and each for each in names):
            return names
    message = SUBPROTOCOLS.format(view, value)
    raise ConfigurationError(explain(message, "websocket-options"))


SUBPROTOCOLS = """\
The view {} has subprotocols={!r}; it takes a list of names in order of \
preference, or a callable(offered, request) that gives one of the offered or None."""

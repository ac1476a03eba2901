"""The response that is an event stream."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import pyramid
from pyramid.interfaces import IRendererFactory, IRequest
from pyramid.renderers import render
from pyramid.response import Response
from pyramid.threadlocal import get_current_request

from .. import bridge
from ..body import AsyncBody
from ..exceptions import explain
from ..executor import current_executor
from ..interfaces import ISettings
from ..settings import settings_of
from .event import ANCHOR
from .stream import EventStream

__all__ = ["DECLARED", "EventSourceResponse", "is_iterable"]

# Each is a setting, an option of a view, and an argument.
DECLARED = settings_of("eventsource")


class EventSourceResponse(Response):
    """Streams events; to be returned by a view.

    The head leaves at once, before the first step of the iterable. So an
    exception in it ends the stream, and never is a status: raise, or return
    another response, before this one is made.

    Args:
        iterable: gives what is sent: an asynchronous iterable or a plain one, of
            :class:`~aioext.eventsource.Event`, str, int, dict, list.
        heartbeat: seconds of silence after which a comment is sent, so that
            nobody on the way takes the connection for dead; 0: none. By default
            that of the view, or of the application (:ref:`settings`).
        retry: seconds after which clients are to come back when the server
            stops, or up to twice as many, at random; 0: they decide. By default
            as for ``heartbeat``.
        executor: whether a plain iterable is iterated over in threads of the
            executor, and not on the loop. By default where this is made: by a
            coroutine, on the loop; by a view in a thread, in threads.
        request: what is current while the iterable runs; by default the one
            that is under way.

    Raises:
        TypeError: ``iterable`` cannot be iterated over, or is text or a mapping.
        ValueError: a time is none.
    """

    def __init__(
        self,
        iterable: Any,
        *,
        heartbeat: float | None = None,
        retry: float | None = None,
        executor: bool | None = None,
        request: IRequest | None = None,
    ) -> None:
        if not is_iterable(iterable):
            raise TypeError(explain(NOT_ITERABLE.format(iterable), ANCHOR))
        given = {"heartbeat": heartbeat, "retry": retry}
        self._given = {
            name: _cast(name, value)
            for name, value in given.items()
            if value is not None
        }
        if request is None:
            request = get_current_request()
        if executor is None:
            executor = not bridge.in_bridge()
        self._stream = EventStream(
            iterable,
            dumps=_dumps_for(request),
            request=request,
            executor=current_executor() if executor else None,
        )
        self._configure({**_settings_of(request), **self._given})
        super().__init__(
            content_type="text/event-stream",
            charset="utf-8",
            app_iter=AsyncBody(self._stream),
        )
        # no-transform: a proxy that compresses would wait until it has enough.
        self.headers["Cache-Control"] = "no-store, no-transform"
        self.headers["X-Accel-Buffering"] = "no"

    def use_defaults(self, options: dict[str, float]) -> None:
        """Take from a view's options what was not given to this response."""
        self._configure({**options, **self._given})

    def _configure(self, options: dict[str, float]) -> None:
        for name, value in options.items():
            setattr(self._stream, name, value)

    def encode_content(self, encoding: str = "gzip", lazy: bool = False) -> None:
        """Leave the content as it is: who compresses it collects it first."""

    @property
    def body(self) -> NoReturn:
        """An event stream has none that could be had whole.

        Raises:
            TypeError: always.
        """
        raise TypeError(explain(NO_BODY, ANCHOR))

    @body.setter
    def body(self, value: bytes) -> None:
        Response.body.fset(self, value)


def is_iterable(thing: Any) -> bool:
    """Whether events may be had of ``thing``; not of text, nor of a mapping."""
    if isinstance(thing, (str, bytes, dict)):
        return False
    return hasattr(thing, "__aiter__") or hasattr(thing, "__iter__")


def _cast(name: str, value: Any) -> float:
    try:
        return DECLARED[name].cast(value)
    except ValueError as error:
        message = f"An event stream got {name}={value!r}; it takes {error}."
        raise ValueError(explain(message, ANCHOR)) from None


def _settings_of(request: Any) -> dict[str, float]:
    registry = getattr(request, "registry", None)
    settings = None if registry is None else registry.queryUtility(ISettings)
    if settings is None:
        return {name: setting.default for name, setting in DECLARED.items()}
    return {
        name: getattr(settings, setting.attribute) for name, setting in DECLARED.items()
    }


def _dumps_for(request: Any) -> Any:
    registry = getattr(request, "registry", None)
    if registry is None or registry.queryUtility(IRendererFactory, "json") is None:
        return json.dumps
    # The package, which a renderer's name can be relative to, spares a search.
    return lambda value: render("json", value, request, pyramid)


NOT_ITERABLE = """\
An event stream was to be made of {!r}. It takes an iterable of events, asynchronous \
or not: the call of a generator function, for example, or a list."""

NO_BODY = """\
An event stream has no body that could be read as a whole: it is sent bit by bit, and \
may never end. Whatever reads response.body (a tween, for example) has to leave \
responses alone whose content_type is text/event-stream."""

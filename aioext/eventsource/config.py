"""What event streams add to a configurator: the mapper, the options of its views,
the predicate, and what a request tells.
"""

from __future__ import annotations

import inspect
from typing import Any
from urllib.parse import parse_qs

from pyramid.exceptions import ConfigurationError
from webob import Response

from .. import bridge
from ..body import adapt_body
from ..config.mappers import AioextMapper, MappedView, describe
from ..exceptions import explain
from ..executor import current_executor
from ..interfaces import ISettings
from ..request import RequestPredicate, add_request_attribute
from ..views import Kind, kind_of
from .event import ANCHOR
from .response import DECLARED, EventSourceResponse, is_iterable

__all__ = ["EventSourceMapper"]

MEDIA_TYPE = "text/event-stream"

# What runs on the loop, whatever the setting is.
ON_THE_LOOP = (Kind.COROUTINE, Kind.ASYNC_GENERATOR, Kind.SYNCHRONIZED)


class EventSourceMapper(AioextMapper):
    """Has a view serve an event stream; see :doc:`/eventsource`.

    The view takes ``(request)`` or ``(context, request)``, or is a class. It is
    an asynchronous generator or a plain one, or returns an iterable. It may also
    return a response, which is sent instead of a stream.
    """

    def __call__(self, view: Any) -> MappedView:
        # A generator is a stream here, and none is to be awaited.
        return self.map(view, kind_of(view, self.attr))

    def adapt(self, view: Any, mapped: MappedView, kind: Kind) -> MappedView:
        """Wrap ``mapped``, which calls ``view``, a callable of that kind."""
        what = describe(view, self.attr)
        runs_on_the_loop = kind in ON_THE_LOOP

        def event_view(context: Any, request: Any) -> Any:
            in_threads = not runs_on_the_loop and _blocks(request)
            if in_threads:
                result = current_executor().call(mapped, context, request)
            else:
                result = mapped(context, request)
            if inspect.isawaitable(result) and not inspect.isgenerator(result):
                result = bridge.wait(result)
                in_threads = False
            return _respond(result, request, in_threads, what)

        return event_view


def _blocks(request: Any) -> bool:
    settings = request.registry.queryUtility(ISettings)
    if settings is not None and settings.sync_views == "inline":
        return not bridge.in_bridge()
    return True


def _respond(result: Any, request: Any, in_threads: bool, what: str) -> Any:
    if isinstance(result, Response):
        return adapt_body(result, current_executor() if in_threads else None)
    if not is_iterable(result):
        raise TypeError(explain(NO_STREAM.format(what, result), ANCHOR))
    return EventSourceResponse(result, executor=in_threads, request=request)


def includeme(config: Any) -> None:
    """Add what event streams need; ``config.include('aioext')`` does so."""
    config.add_view_deriver(eventsource_options, "aioext_eventsource_options")
    config.add_view_predicate("is_eventsource", IsEventSourcePredicate)
    for attribute in (is_eventsource, is_eventstream, last_event_id):
        add_request_attribute(config, attribute)


def eventsource_options(view: Any, info: Any) -> Any:
    """View deriver: give the event streams of a view the view's own options.

    Raises:
        ConfigurationError: one has a value that is not allowed.
    """
    given = {
        name: _read_option(info, name)
        for name in DECLARED
        if info.options.get(name) is not None
    }
    if not given:
        return view

    def view_with_options(context: Any, request: Any) -> Any:
        response = view(context, request)
        if isinstance(response, EventSourceResponse):
            response.use_defaults(given)
        return response

    return view_with_options


eventsource_options.options = tuple(DECLARED)  # type: ignore[attr-defined]


def _read_option(info: Any, name: str) -> float:
    value = info.options[name]
    try:
        return DECLARED[name].cast(value)
    except ValueError as error:
        what = describe(info.original_view, info.options.get("attr"))
        message = f"The view {what} has {name}={value!r}; it takes {error}."
        raise ConfigurationError(explain(message, ANCHOR)) from None


def is_eventsource(request: Any) -> bool:
    """Whether the client asks for an event stream by its ``Accept``.

    A wildcard does not count: every client that sends one would get a stream.
    """
    ranges = getattr(request.accept, "parsed", None) or ()
    return any(
        media_range.partition(";")[0].strip().lower() == MEDIA_TYPE and quality > 0
        for media_range, quality, *_ in ranges
    )


class IsEventSourcePredicate(RequestPredicate):
    """The view predicate ``is_eventsource=True`` or ``False``."""

    attribute = staticmethod(is_eventsource)


def is_eventstream(request: Any) -> bool:
    """Another name of :func:`is_eventsource`."""
    return is_eventsource(request)


def last_event_id(request: Any) -> str | None:
    """The id of the last event that the client has got; None: it tells none.

    From ``Last-Event-ID``, which a browser sends when it comes back, or from
    ``?lastEventId=`` in the address.
    """
    header = request.environ.get("HTTP_LAST_EVENT_ID")
    if header:
        # A browser sends UTF-8, which WSGI shows as latin-1.
        return header.encode("latin-1", "replace").decode("utf-8", "replace")
    query = parse_qs(request.environ.get("QUERY_STRING", ""))
    return query.get("lastEventId", [None])[-1]


NO_STREAM = """\
The view {}, which has mapper=EventSourceMapper, returned {!r}. It has to yield \
events, or to return an iterable of them or a response."""

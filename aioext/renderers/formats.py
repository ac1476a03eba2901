"""One view, several formats: the view option ``formats``.

Theory of operation
===================

The deriver stands between the view and Pyramid's own one that renders. It decides what
to send before it calls the view, so that a client gets its 404 or 406 before anything
has happened; then it renders what the view gives, and Pyramid gets a response.

Pyramid asks response adapters before it renders. They are not asked for plain data
here: one that an application has for ``dict`` would send all of it, and not what the
view has named. What the view returns as a response goes out as it is.

Which format it is, is said by the extension of the route
(:mod:`~aioext.renderers.routes`), else by the ``Accept`` header. Caches have to know
of the latter, whatever the answer is: ``Vary`` is set on what is rendered here at once,
for the tweens, and on any other response (an exception view's, say) by a response
callback.

An exception view sends something in any case: one that the client does not accept says
more than a second error. Raised by an exception view, that would pass all of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid.httpexceptions import HTTPNotAcceptable, HTTPNotFound
from pyramid.interfaces import IRendererFactory, IResponse
from pyramid.renderers import JSON, RendererHelper, string_renderer_factory
from pyramid.viewderivers import VIEW

from ..config.derivers import mapper_of
from ..eventsource import EventSourceMapper
from ..exceptions import explain
from ..hooks.derivers import describe, renders
from .exposure import Expose, exposed_by, only_text
from .html import place_in
from .media import set_type
from .negotiation import choose, media_type
from .routes import extension_of
from .templates import Rendering

__all__ = ["formats_view", "includeme"]

# The renderers of the formats for which a view says what may be sent.
EXPOSED = {"json": "json", "jsonl": "json_lines"}

# What response adapters are not asked for.
DATA = (
    Mapping,
    Iterator,
    AsyncIterator,
    str,
    bytes,
    list,
    tuple,
    set,
    frozenset,
    int,
    float,
    type(None),
)


def includeme(config: Any) -> None:
    """Add the view option; ``config.include('aioext.renderers')`` does so."""
    config.include("aioext")
    config.add_view_deriver(
        formats_view, "aioext_formats", under="rendered_view", over=VIEW
    )


@renders
def formats_view(view: Any, info: Any) -> Any:
    """View deriver: answer with one of the ``formats`` of the view.

    Raises:
        ConfigurationError: there is a ``renderer`` as well, or a format that cannot
            be.
    """
    given = info.options.get("formats")
    if given is None:
        return view
    formats = _Formats(given, info)
    queried = info.registry.queryAdapterOrSelf
    original_view = getattr(view, "__original_view__", view)

    def formatted_view(context: Any, request: Any) -> Any:
        chosen = formats.chosen_by(request, context)
        value = view(context, request)
        if not isinstance(value, DATA):
            response = queried(value, IResponse)
            if response is not None:
                return response
        view_instance = vars(request).pop("__view__", original_view)
        return formats.respond(chosen, request, value, view_instance, context)

    return formatted_view


formats_view.options = ("formats",)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Format:
    media_type: str
    helper: RendererHelper
    rendering: Rendering
    expose: Expose | None

    def respond(self, request: Any, value: Any, view: Any, context: Any) -> Any:
        if self.expose is not None:
            value = self.expose(value, request)
        helper = self.rendering.clone(self.helper)
        response = helper.render_view(request, value, view, context)
        # The renderer knows best, and the view: either may have set it.
        set_type(response, self.media_type)
        return response


class _Formats:
    """The formats of one view.

    Args:
        given: the view option.
        info: what its deriver is told of the view.
    """

    def __init__(self, given: Any, info: Any) -> None:
        self.info = info
        self.what = describe(info.original_view, info.options.get("attr"))
        renderer = info.options.get("renderer")
        if renderer is not None and renderer.name is not None:
            raise self._refused(WITH_RENDERER, renderer.name)
        if not isinstance(given, Mapping) or not given:
            raise self._refused(NO_FORMATS, given)
        mapper = mapper_of(info)
        if isinstance(mapper, type) and issubclass(mapper, EventSourceMapper):
            raise self._refused(IS_STREAM)
        self.rendering = Rendering.of(info)
        self.formats = {name: self._read(name, given[name]) for name in given}
        self.names = tuple(self.formats)

    def _read(self, name: Any, given: Any) -> _Format:
        type_of_name = media_type(name) if isinstance(name, str) else None
        if type_of_name is None:
            raise self._refused(NO_MEDIA_TYPE, name)
        expose = None
        renderer = given
        if name in EXPOSED:
            place = self.info.options.get("render") or "inline"
            expose = place_in(place, exposed_by(given, name, self.what))
            renderer = EXPOSED[name]
        helper = self._helper(name, renderer)
        if expose is None:
            expose = self._exposed_by(helper)
        self.rendering.check(helper)
        return _Format(type_of_name, helper, self.rendering, expose)

    def _helper(self, name: str, renderer: Any) -> RendererHelper:
        if not isinstance(renderer, str) or not renderer:
            raise self._refused(NO_NAME, renderer, name)
        registry = self.info.registry
        helper = RendererHelper(renderer, self.info.package, registry)
        factory = registry.queryUtility(IRendererFactory, helper.type)
        if factory is None:
            raise self._refused(NO_RENDERER, renderer, name, helper.type)
        if name not in EXPOSED and _gives_json(helper.type, factory):
            raise self._refused(SENDS_ALL, renderer, name)
        return helper

    def _exposed_by(self, helper: RendererHelper) -> Expose | None:
        # What a renderer that would send all of a value is given of it.
        factory = self.info.registry.queryUtility(IRendererFactory, helper.type)
        if factory is string_renderer_factory:
            return only_text(self.what)
        if not _gives_json(helper.type, factory):
            return None
        for name in EXPOSED:
            if name in self.formats:
                return self.formats[name].expose
        raise TypeError(explain(OVERRIDDEN.format(self.what, helper.name), "formats"))

    def _refused(self, message: str, *values: Any) -> ConfigurationError:
        message = message.format(self.what, *values)
        return ConfigurationError(explain(message, "formats"))

    def chosen_by(self, request: Any, context: Any) -> str:
        """The name of the format to answer with.

        Raises:
            HTTPNotFound: the route's extension stands for none of them.
            HTTPNotAcceptable: the client accepts none of them.
        """
        is_error = isinstance(context, BaseException)
        extension = extension_of(request)
        if extension in self.formats:
            return extension
        if extension is not None and not is_error:
            raise HTTPNotFound(NOT_THIS_ONE.format(extension, ", ".join(self.names)))
        request.add_response_callback(_vary)
        chosen = choose(request.environ.get("HTTP_ACCEPT"), self.names)
        if chosen is not None:
            return chosen
        if is_error:
            return choose(None, self.names) or self.names[0]
        available = ", ".join(each.media_type for each in self.formats.values())
        raise HTTPNotAcceptable(AVAILABLE.format(available))

    def respond(
        self, chosen: str, request: Any, value: Any, view: Any, context: Any
    ) -> Any:
        """The response that ``value`` becomes."""
        overriding = vars(request).pop("override_renderer", None)
        if overriding is None:
            response = self.formats[chosen].respond(request, value, view, context)
        else:
            helper = RendererHelper(overriding, self.info.package, self.info.registry)
            expose = self._exposed_by(helper)
            if expose is not None:
                value = expose(value, request)
            helper = self.rendering.clone(helper)
            response = helper.render_view(request, value, view, context)
        if extension_of(request) != chosen:
            _vary(request, response)
        return response


def _gives_json(renderer: str, factory: Any) -> bool:
    return renderer in EXPOSED.values() or isinstance(factory, JSON)


def _vary(request: Any, response: Any) -> None:
    headers = response.headers
    # There may be several.
    told = ", ".join(headers.getall("Vary"))
    if not told:
        headers["Vary"] = "Accept"
    elif told != "Accept":
        names = {each.strip().lower() for each in told.split(",")}
        if not {"*", "accept"} & names:
            headers["Vary"] = f"{told}, Accept"


NOT_THIS_ONE = "There is no {!r} of this; there is: {}."
AVAILABLE = "Available are: {}."

WITH_RENDERER = """\
The view {} has both renderer={!r} and formats=. Put the renderer among the formats, \
as formats={{'html': 'templates/page.mako', 'json': ('title',)}}, and remove \
renderer=; where it comes from view_defaults, write renderer=None."""

IS_STREAM = """\
The view {} is an event stream, and has formats=. Browsers ask for a stream by an \
Accept that none of them has, and would get 406. Remove formats=, or write \
formats=None where it comes from view_defaults; a page at the same address is another \
view, beside which this one has is_eventsource=True."""

NO_FORMATS = """\
The view {} has formats={!r}. It takes a mapping of the names of formats to their \
renderers, as {{'html': 'templates/page.mako', 'json': ('title',)}}."""

NO_MEDIA_TYPE = """\
The view {} has {!r} among its formats, and no media type is known for that. Formats \
are named as files are: html, json, xml, csv; mimetypes.add_type(...) makes a new one \
known."""

NO_NAME = """\
The view {} has {!r} for {!r} among its formats. It takes the name of a renderer, as \
renderer= does."""

NO_RENDERER = """\
The view {} has the renderer {!r} for {!r} among its formats, and the application has \
no renderer {!r}. Include what brings it before the view, as \
config.include('pyramid_mako')."""

SENDS_ALL = """\
The view {} has the renderer {!r} for {!r} among its formats, which would send all \
that the view returns. Call the format 'json', or 'jsonl' for lines, and name what may \
be sent, as formats={{'json': ('title',)}}."""

OVERRIDDEN = """\
The view {} has formats=, and request.override_renderer is {!r}, which would send all \
that the view returns. Give the view the format 'json', which names what may be sent, \
as formats={{'json': ('title',)}}."""

"""The view options ``render=`` and ``stream=``: where a view's template is rendered,
and whether its page is sent meanwhile.

A view that has one of them is rendered here, by Pyramid's own helper with another
renderer in it: it gives the system values, tells ``BeforeRender``, and makes the
response. What a streamed template gives to it is a body (:mod:`aioext.renderers.page`),
or the page, if that was made without a wait.

Streaming takes an engine that gives a page bit by bit. Mako's and Jinja2's do, by their
public interfaces. Chameleon's does not: it makes a list, and joins it.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
from collections.abc import Callable
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IRendererFactory, IResponse
from pyramid.renderers import null_renderer
from pyramid.viewderivers import VIEW

from .. import bridge
from ..body import AsyncBody
from ..config import AFTER_PHASE1
from ..exceptions import explain
from ..executor import Executor
from ..hooks.derivers import describe, renders
from ..interfaces import IExecutor, ISettings
from ..pending import keep_pendings
from .html import PLACES, TemplateRenderer, begun, place_in
from .page import PageBody, PageStream

__all__ = ["Rendering", "includeme"]

log = logging.getLogger("aioext")

ANCHOR = "render-option"

# The name under which the executor for streamed templates is registered; see the page.
EXECUTOR = "aioext.templates"

Write = Callable[[str], Any]
Writer = Callable[[Any, dict[str, Any], Write], None]


def includeme(config: Any) -> None:
    """Add the two view options."""
    config.include("aioext")
    config.add_view_deriver(
        rendered_template, "aioext_rendered_template", under="rendered_view", over=VIEW
    )
    config.action(None, _register_executor, (config.registry,), order=AFTER_PHASE1)


def _register_executor(registry: Any) -> None:
    if registry.queryUtility(IExecutor, EXECUTOR) is None:
        workers = registry.getUtility(ISettings).executor_workers
        # It has no threads before it is used, and is closed with the application.
        registry.registerUtility(Executor(workers), IExecutor, EXECUTOR)


@renders
def rendered_template(view: Any, info: Any) -> Any:
    """View deriver: render what a view with one of the options gives.

    Raises:
        ConfigurationError: an option has a value that is not allowed, or the view has
            nothing to render, or a template that cannot be streamed.
    """
    rendering = Rendering.of(info)
    if not rendering or info.options.get("formats") is not None:
        return view
    renderer = info.options.get("renderer")
    if renderer is null_renderer:
        return view
    if renderer is None:
        raise rendering.refused(NO_RENDERER)
    rendering.check(renderer)

    def view_with_template(context: Any, request: Any) -> Any:
        value = view(context, request)
        response = info.registry.queryAdapterOrSelf(value, IResponse)
        if response is not None:
            return response
        attributes = vars(request)
        if "override_renderer" in attributes:
            return value
        instance = getattr(view, "__original_view__", view)
        instance = attributes.pop("__view__", instance)
        helper = rendering.clone(renderer)
        return helper.render_view(request, value, instance, context)

    return view_with_template


rendered_template.options = ("render", "stream")  # type: ignore[attr-defined]


class Rendering:
    """What a view's options say about its templates.

    Args:
        view: what the view is called in messages.
        place: ``render=``: one of :data:`~aioext.renderers.html.PLACES`, or None.
        streams: ``stream=``.

    True if one of them was given.
    """

    def __init__(self, view: str, place: str | None, streams: bool) -> None:
        self._view = view
        self._place = place
        self._streams = streams

    @classmethod
    def of(cls, info: Any) -> Rendering:
        """That of the view that is being configured.

        Raises:
            ConfigurationError: an option has a value that is not allowed.
        """
        options = info.options
        view = describe(info.original_view, options.get("attr"))
        place, streams = options.get("render"), options.get("stream")
        rendering = cls(view, place, bool(streams))
        if place not in (None, *PLACES):
            raise rendering.refused(NO_PLACE, place)
        if streams not in (None, True, False):
            raise rendering.refused(NO_BOOLEAN, streams)
        return rendering

    def __bool__(self) -> bool:
        return self._streams or self._place is not None

    def refused(self, message: str, *details: Any) -> ConfigurationError:
        """The error that names the view."""
        message = message.format(*details, view=self._view)
        return ConfigurationError(explain(message, ANCHOR))

    def check(self, helper: Any) -> None:
        """Look whether what ``helper`` stands for can be streamed, if it is to be.

        Args:
            helper: the ``RendererHelper`` of a view, or of one of its formats. What is
                no template, JSON for one, passes.

        Raises:
            ConfigurationError: it is a template, and cannot.
        """
        if not self._streams or not helper.type.startswith("."):
            return
        factory = helper.registry.queryUtility(IRendererFactory, name=helper.type)
        if factory is None:
            raise self.refused(NO_FACTORY, helper.name, helper.type)
        if _writer_of(factory) is None and not _is_of_a_test(factory):
            raise self.refused(NO_STREAM, helper.name)

    def clone(self, helper: Any) -> Any:
        """A ``RendererHelper`` for one request, made of that of the view."""
        clone = helper.clone()
        if not self:
            return clone
        renderer = clone.renderer
        writer = self._streams and _writer_of(
            clone.registry.queryUtility(IRendererFactory, name=clone.type)
        )
        if writer and isinstance(renderer, TemplateRenderer):
            place = self._place or renderer.place
            clone.renderer = StreamingRenderer(renderer, writer, place)
        elif isinstance(renderer, TemplateRenderer):
            if self._place is not None:
                renderer.place = self._place
        elif self._place is not None:
            clone.renderer = place_in(self._place, renderer)
        return clone


class StreamingRenderer:
    """Gives the body of a page, which is made while it is sent.

    Args:
        template: the renderer.
        writer: writes what that would give.
        place: where: one of :data:`~aioext.renderers.html.PLACES`. What is not
            rendered on a loop streams in a thread, for it may block.
    """

    def __init__(self, template: TemplateRenderer, writer: Writer, place: str) -> None:
        self._template = template
        self._writer = writer
        self._place = place

    def __call__(self, value: Any, system: Any) -> Any:
        request = system["request"]
        self._template.prepare(system)
        values = _with_pendings(value, system)
        renderer, writer = self._template.renderer, self._writer
        rest = _Rest(request, system.get("renderer_name"))
        stream = PageStream(
            lambda write: writer(renderer, values, write),
            request,
            rest.ended,
            self._find_executor(request),
        )
        values.setdefault("flush", stream.flush)
        page = stream.begin()
        if page is not None:
            return page
        response = request.response
        stream.encoding = response.charset or "utf-8"
        # A proxy would collect a page before it passes it on.
        response.headers.setdefault("X-Accel-Buffering", "no")
        request.add_finished_callback(rest.begun)
        return AsyncBody(PageBody(stream))

    def _find_executor(self, request: Any) -> Any:
        if self._place == "inline" and bridge.in_bridge():
            return None
        return request.registry.getUtility(IExecutor, EXECUTOR)


class _Rest:
    """What there is of a page after its request: tells what is said too late."""

    def __init__(self, request: Any, name: Any) -> None:
        self._release = keep_pendings(request)
        self._request = request
        self._name = name
        self._has_begun = False

    def begun(self, request: Any) -> None:
        """A finished callback: the head of the response is what it is."""
        self._has_begun = True
        # The template has the request, and is not to have its own body: nobody else
        # may have it if another response is sent.
        vars(request).pop("response", None)
        request.response_callbacks.clear()

    def ended(self) -> None:
        """The page has ended; on the loop."""
        self._release()
        request, self._request = self._request, None
        if self._has_begun and _says_more(request):
            log.warning(explain(TOO_LATE.format(self._name), "late-cookies"))


def _says_more(request: Any) -> bool:
    # Sessions and CSRF tokens set their cookies in such callbacks.
    response = vars(request).get("response")
    has_cookie = response is not None and "Set-Cookie" in response.headers
    return bool(request.response_callbacks) or has_cookie


def _with_pendings(value: Any, system: Any) -> dict[str, Any]:
    values = dict(system)
    try:
        values.update(value)
    except (TypeError, ValueError):
        raise TypeError(explain(NO_VALUES.format(value), ANCHOR)) from None
    return begun(values)


def _write_mako(renderer: Any, values: dict[str, Any], write: Write) -> None:
    # Mako is installed, for this is one of its templates.
    from mako.exceptions import text_error_template
    from mako.runtime import Context
    from pyramid_mako import MakoRenderingException

    template = renderer.template
    if renderer.defname is not None:
        template = template.get_def(renderer.defname)
    # As pyramid_mako does: in a template, context is another thing.
    context = values.pop("context", None)
    if context is not None:
        values["_context"] = context
    try:
        arguments = _arguments_of(template.callable_, values)
        template.render_context(Context(_Buffer(write), **values), **arguments)
    except Exception as error:
        traceback = sys.exc_info()[2]
        text = text_error_template().render(error=error, traceback=traceback)
        raise MakoRenderingException(text) from error
    finally:
        # They refer to this frame.
        context = traceback = None


def _arguments_of(function: Any, values: dict[str, Any]) -> dict[str, Any]:
    # Of a page, all that there is; of a def, what it takes.
    parameters = inspect.signature(function).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return values
    return {name: values[name] for name in parameters if name in values}


class _Buffer:
    """What Mako writes to."""

    def __init__(self, write: Write) -> None:
        self.write = write


def _write_jinja2(renderer: Any, values: dict[str, Any], write: Write) -> None:
    with contextlib.closing(renderer.template_loader().generate(values)) as pieces:
        for piece in pieces:
            write(piece)


# By the classes of their renderer factories, which need not be installed.
WRITERS: dict[tuple[str, str], Writer] = {
    ("pyramid_mako", "MakoRendererFactory"): _write_mako,
    ("pyramid_jinja2", "Jinja2RendererFactory"): _write_jinja2,
}


def _is_of_a_test(factory: Any) -> bool:
    # That of config.testing_add_renderer(), which knows no template.
    cls = factory.__class__
    return (cls.__module__, cls.__name__) == ("pyramid.testing", "DummyRendererFactory")


def _writer_of(factory: Any) -> Writer | None:
    if _is_of_a_test(factory):
        return None
    factory = getattr(factory, "factory", factory)
    for cls in factory.__class__.__mro__:
        writer = WRITERS.get((cls.__module__, cls.__name__))
        if writer is not None:
            return writer
    return None


NO_PLACE = """\
The view {view} has render={0!r}; it takes "inline" or "executor"."""

NO_BOOLEAN = """\
The view {view} has stream={0!r}; it takes True or False."""

NO_RENDERER = """\
The view {view} has render= or stream=, and nothing to render. Give it a renderer=, or \
formats=, or remove the option. With append_slash=True, whose renderer= Pyramid keeps \
to itself, it takes renderer=null_renderer and formats=."""

NO_FACTORY = """\
The view {view} has stream=True, and there is no renderer {1!r} for {0!r}. Include the \
package that has it, before the view is configured: config.include("pyramid_mako")."""

NO_STREAM = """\
The view {view} has stream=True, and the template {0!r} can be rendered only as a \
whole. Templates of pyramid_mako and pyramid_jinja2 can be streamed. Remove \
stream=True, or use one of those."""

TOO_LATE = """\
The streamed template {!r} has set a cookie after the first part of its page was sent: \
one of its own, or that of the session or of a CSRF token. It is lost. Ask for it in \
the view, as get_csrf_token(request), or before the template waits."""

NO_VALUES = """\
A streamed template was given {!r}. It takes a dictionary of the names in it."""

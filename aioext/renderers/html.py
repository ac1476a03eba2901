"""Templates: what they are sent as, and where they are rendered.

A *template renderer* is one that was registered for an extension: ``.mako``,
``.jinja2``, ``.pt``. Its factory gets a stand-in that gives renderers which do three
things more, whoever calls them: a view's ``renderer=``, ``render_to_response()``, one
of the formats of a view. They set the content type that the extension within a name
says (``feed.xml.mako``), as Pyramid's JSON renderer sets its own; they render in a
thread if the application says so; and they have coroutines among the values begin,
which a template would show as what they are. A view with formats gives the same value
to its template and to JSON, which awaits them.

``render()`` does not change the type of the response: Pyramid hides that for the time
of the call.
"""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Callable, Mapping
from typing import Any

from pyramid.interfaces import IApplicationCreated, IRendererFactory

from ..config.created import unsubscribe
from ..config.policy import LAST
from ..executor import current_executor
from ..hooks.utilities import replace_utility
from ..hooks.values import is_coroutine
from ..interfaces import ISettings
from ..pending import Pending
from .media import TYPES, set_type

__all__ = [
    "PLACES",
    "TemplateRenderer",
    "begun",
    "content_type_of",
    "includeme",
    "place_in",
]

PLACES = ("inline", "executor")

# After the stand-ins that wait for what factories and renderers give.
AFTER_HOOKS = LAST + 1

Renderer = Callable[[Any, Any], Any]


def includeme(config: Any) -> None:
    """Have the template renderers of the application do both."""
    config.include("aioext")
    registry = config.registry

    def application_created(event: Any) -> None:
        unsubscribe(registry, application_created)
        adapt_factories(registry)

    # For what is registered after the configuration was committed.
    registry.registerHandler(application_created, (IApplicationCreated,))
    config.action(None, adapt_factories, (registry,), order=AFTER_HOOKS)


def adapt_factories(registry: Any) -> None:
    """Put a :class:`TemplateFactory` in the place of each factory; idempotent."""
    settings = registry.queryUtility(ISettings)
    place = PLACES[0] if settings is None else settings.render
    for name, factory in list(registry.getUtilitiesFor(IRendererFactory)):
        if name.startswith(".") and not isinstance(factory, TemplateFactory):
            adapted = TemplateFactory(factory, place)
            replace_utility(registry, adapted, IRendererFactory, name)


class TemplateFactory:
    """Gives :class:`TemplateRenderer` for what another factory gives.

    Args:
        factory: that factory.
        place: where they render, unless a view says so: one of :data:`PLACES`.
    """

    def __init__(self, factory: Callable[[Any], Renderer], place: str) -> None:
        self.factory = factory
        self._place = place

    def __call__(self, info: Any) -> TemplateRenderer:
        return TemplateRenderer(
            self.factory(info), content_type_of(info.name), self._place
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.factory, name)


class TemplateRenderer:
    """Renders a template; has the attributes of the renderer that does it.

    Args:
        renderer: that renderer.
        content_type: of the response, unless that has one already; None: any.
        place: one of :data:`PLACES`.
    """

    def __init__(
        self, renderer: Renderer, content_type: str | None, place: str
    ) -> None:
        self.renderer = renderer
        self.place = place
        self._content_type = content_type

    def __call__(self, value: Any, system: Any) -> Any:
        self.prepare(system)
        system.setdefault("flush", _send_nothing)
        return place_in(self.place, self.renderer)(begun(value), system)

    def prepare(self, system: Any) -> None:
        """Set the content type of the response."""
        if self._content_type is not None:
            response = getattr(system.get("request"), "response", None)
            set_type(response, self._content_type)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.renderer, name)


def _send_nothing() -> str:
    # flush(), in a template that is rendered as a whole.
    return ""


def begun(value: Any) -> Any:
    """``value``, with a Pending for each coroutine and Future among its items."""
    if not isinstance(value, Mapping) or not any(map(is_coroutine, value.values())):
        return value
    return {
        name: Pending(each) if is_coroutine(each) else each
        for name, each in value.items()
    }


def place_in(place: str, renderer: Renderer) -> Renderer:
    """``renderer``, called in that one of :data:`PLACES`."""
    if place == "inline":
        return renderer
    return functools.partial(_call_in_executor, renderer)


def _call_in_executor(renderer: Renderer, value: Any, system: Any) -> Any:
    return current_executor().call(renderer, value, system)


@functools.lru_cache(maxsize=1024)
def content_type_of(name: str) -> str | None:
    """The content type that the inner extension of a template's name says.

    ``pkg:templates/feed.xml.mako`` is ``application/xml``, and so is
    ``feed.xml#item.mako``. None: there is no such extension, or an unknown one.
    """
    stem, _ = posixpath.splitext(posixpath.basename(name))
    _, extension = posixpath.splitext(stem.partition("#")[0])
    return TYPES.get(extension.lower())

"""Renderers: their factories, what those give, and what JSON finds in a value.

A JSON renderer asks an object for its ``__json__(request)``, or an adapter; what it
gets is looked at in the same way. So it is told, by ``add_adapter``, how a coroutine
becomes JSON: it is waited for.
"""

from __future__ import annotations

import asyncio
import copy
import types
from typing import Any

from pyramid.interfaces import IJSONAdapter, IRendererFactory
from pyramid.renderers import JSON, json_renderer_factory
from zope.interface import implementedBy
from zope.interface.registry import Components

from .. import bridge
from .utilities import replace_utility
from .values import Settled, is_own, settle_object

__all__ = ["adapt_renderers"]


def adapt_renderers(registry: Any) -> None:
    """Have every renderer give a string, bytes or a body; idempotent."""
    for name, factory in list(registry.getUtilitiesFor(IRendererFactory)):
        if factory is json_renderer_factory:
            factory = _own(factory)
            replace_utility(registry, factory, IRendererFactory, name)
        if isinstance(factory, JSON):
            _teach(factory)
        if not is_own(factory):
            replace_utility(registry, _Factory(factory), IRendererFactory, name)


def _own(renderer: JSON) -> JSON:
    # Pyramid's is one for the process. Adapters that it is given are found here, too.
    own = copy.copy(renderer)
    own.components = Components(bases=(renderer.components,))
    return own


def _teach(renderer: JSON) -> None:
    adapters = renderer.components.adapters
    for waited_for in types.CoroutineType, asyncio.Future:
        if adapters.registered([implementedBy(waited_for)], IJSONAdapter) is None:
            renderer.add_adapter(waited_for, _wait_for)


def _wait_for(awaitable: Any, request: Any) -> Any:
    return bridge.wait(awaitable)


class _Factory(Settled):
    """A renderer factory, and the renderers that it gives."""

    __slots__ = ()

    def __init__(self, factory: Any) -> None:
        super().__init__(factory, settle_object)

    def __call__(self, info: Any) -> Any:
        renderer = super().__call__(info)
        return renderer if is_own(renderer) else Settled(renderer)

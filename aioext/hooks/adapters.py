"""Adapters of the registry that Pyramid looks up: traversers, URLs, responses.

Each is registered again as a stand-in: what the adapter gives is settled, and then
what Pyramid asks of that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pyramid.interfaces import IResourceURL, IResponse, ITraverser

from .values import Settled, SettledCallable, SettledMethods, is_own, settle_object

__all__ = ["adapt_adapters"]


def adapt_adapters(registry: Any) -> None:
    """Have every adapter that Pyramid looks up give values; idempotent."""
    for adapter in list(registry.registeredAdapters()):
        adapt = ADAPTERS.get(adapter.provided)
        if adapt is None or is_own(adapter.factory):
            continue
        registry.registerAdapter(
            adapt(adapter.factory),
            adapter.required,
            adapter.provided,
            adapter.name,
            adapter.info,
            event=False,
        )


class _Adapter(Settled):
    """An adapter; ``adapt`` makes a stand-in of what it gives."""

    __slots__ = ("adapt",)

    def __init__(self, factory: Any, adapt: Callable[[Any], Any]) -> None:
        super().__init__(factory, settle_object)
        object.__setattr__(self, "adapt", adapt)

    def __call__(self, *adapted: Any) -> Any:
        given = super().__call__(*adapted)
        return given if given is None or is_own(given) else self.adapt(given)


def _adapt_traverser(traverser: Any) -> Any:
    return SettledCallable(traverser, ("__call__",))


def _adapt_url(url: Any) -> Any:
    return SettledMethods(url, URL_ATTRIBUTES)


URL_ATTRIBUTES = (
    "virtual_path",
    "physical_path",
    "virtual_path_tuple",
    "physical_path_tuple",
)


def _adapt_response(factory: Any) -> Any:
    # A class gives its instances.
    return factory if inspect.isclass(factory) else Settled(factory)


ADAPTERS = {
    IResourceURL: lambda factory: _Adapter(factory, _adapt_url),
    IResponse: _adapt_response,
    ITraverser: lambda factory: _Adapter(factory, _adapt_traverser),
}

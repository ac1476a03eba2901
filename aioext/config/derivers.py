"""The view derivers that keep a coroutine from being dropped.

One stands next to the view mapper, for a view that another mapper than ours
calls; one around the view's decorator, for a decorator or a view deriver that
makes a coroutine function of a view. Where there is nothing to wait for they
give the view back as it is.
"""

from __future__ import annotations

import inspect
import types
from typing import Any

from pyramid.interfaces import IViewMapperFactory
from pyramid.viewderivers import VIEW, DefaultViewMapper

from .. import bridge
from ..views import Kind, kind_of
from .mappers import ASYNC_GENERATOR, AioextMapper, refuse

__all__ = ["add_view_derivers", "mapper_of"]


def add_view_derivers(config: Any) -> None:
    """Register both, under names of our own."""
    config.add_view_deriver(
        awaited_view, "aioext_awaited_view", under="rendered_view", over=VIEW
    )
    config.add_view_deriver(
        awaited_decorator,
        "aioext_awaited_decorator",
        under="http_cached_view",
        over="decorated_view",
    )


def awaited_view(view: Any, info: Any) -> Any:
    """Wait for a coroutine that another add-on's view mapper lets through.

    Raises:
        ConfigurationError: the view is a coroutine, and Pyramid's own mapper is
            to call it, which awaits nothing.
    """
    mapper = mapper_of(info)
    if isinstance(mapper, type) and issubclass(mapper, AioextMapper):
        return view
    if mapper is DefaultViewMapper:
        attr = info.options.get("attr")
        kind = kind_of(info.original_view, attr)
        if kind in REFUSED:
            refuse(info.original_view, attr, REFUSED[kind])
    return _awaiting(view)


def awaited_decorator(view: Any, info: Any) -> Any:
    """Wait for the coroutine that a view's ``decorator=`` makes of it."""
    if kind_of(view) in (Kind.COROUTINE, Kind.WRAPPED_COROUTINE):
        return _awaiting(view)
    return view


def _awaiting(view: Any) -> Any:
    def awaiting_view(context: Any, request: Any) -> Any:
        result = view(context, request)
        # Whether a generator is a coroutine, only our own mappers decide.
        if type(result) is types.GeneratorType or not inspect.isawaitable(result):
            return result
        return bridge.wait(result)

    return awaiting_view


def mapper_of(info: Any) -> Any:
    """The view mapper of a view, as Pyramid's deriver ``mapped_view`` finds it."""
    mapper = info.options.get("mapper")
    if mapper is None:
        mapper = getattr(info.original_view, "__view_mapper__", None)
    if mapper is None:
        mapper = info.registry.queryUtility(IViewMapperFactory)
    return DefaultViewMapper if mapper is None else mapper


NO_MAPPER = """\
The view {} is a coroutine, and Pyramid's own view mapper, which was set for \
it, does not await what it calls. Give the view a mapper that does: \
mapper=aioext.config.CoroutineMapper, or remove the default mapper that the \
application sets."""

REFUSED = {Kind.COROUTINE: NO_MAPPER, Kind.ASYNC_GENERATOR: ASYNC_GENERATOR}

"""The view deriver that keeps a coroutine from being dropped."""

from __future__ import annotations

import inspect
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IViewMapperFactory
from pyramid.util import object_description
from pyramid.viewderivers import DefaultViewMapper

from .. import bridge
from ..exceptions import explain
from ..views import Kind, kind_of
from .mappers import AioextMapper

__all__ = ["awaited_view"]


def awaited_view(view: Any, info: Any) -> Any:
    """Wait for a coroutine that another add-on's view mapper lets through.

    Raises:
        ConfigurationError: the view is a coroutine, and Pyramid's own mapper is
            to call it: its result would never be awaited.
    """
    mapper = _mapper_of(info)
    if _is_subclass(mapper, AioextMapper):
        return view
    kind = kind_of(info.original_view, info.options.get("attr"))
    if kind is Kind.FUNCTION:
        return view
    if mapper is DefaultViewMapper and kind is not Kind.SYNCHRONIZED:
        what = object_description(info.original_view)
        raise ConfigurationError(explain(NO_MAPPER.format(what), "view-mapper"))

    def awaited(context: Any, request: Any) -> Any:
        result = view(context, request)
        return bridge.wait(result) if inspect.isawaitable(result) else result

    return awaited


def _mapper_of(info: Any) -> Any:
    return (
        info.options.get("mapper")
        or getattr(info.original_view, "__view_mapper__", None)
        or info.registry.queryUtility(IViewMapperFactory)
        or DefaultViewMapper
    )


def _is_subclass(candidate: Any, base: type) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, base)


NO_MAPPER = """\
The view {} is a coroutine, and Pyramid's own view mapper, which was set for \
it, does not await what it calls. Give the view a mapper that does: \
mapper=aioext.config.CoroutineMapper, or remove the default mapper that the \
application sets."""

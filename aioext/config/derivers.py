"""The view deriver that keeps a coroutine from being dropped by a view mapper.

It stands next to the mapper, for a view that another one than ours calls. Where there
is nothing to wait for it gives the view back as it is. What decorators and other
derivers make of a view is checked by :mod:`aioext.hooks.derivers`.
"""

from __future__ import annotations

from typing import Any

from pyramid.viewderivers import VIEW, DefaultViewMapper

from ..hooks.derivers import mapper_of, settled_view
from ..views import Kind, kind_of
from .mappers import ASYNC_GENERATOR, AioextMapper, refuse

__all__ = ["add_view_derivers", "mapper_of"]


def add_view_derivers(config: Any) -> None:
    """Register it, under a name of our own."""
    config.add_view_deriver(
        awaited_view, "aioext_awaited_view", under="rendered_view", over=VIEW
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
    return settled_view(view)


NO_MAPPER = """\
The view {} is a coroutine, and Pyramid's own view mapper, which was set for \
it, does not await what it calls. Give the view a mapper that does: \
mapper=aioext.config.CoroutineMapper, or remove the default mapper that the \
application sets."""

REFUSED = {Kind.COROUTINE: NO_MAPPER, Kind.ASYNC_GENERATOR: ASYNC_GENERATOR}

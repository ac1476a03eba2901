"""What a view's value becomes: ``config.include('aioext.renderers')``.

The parts stand beside each other, and each may be included alone: several formats of
one view (:mod:`~aioext.renderers.formats`), routes with extensions
(:mod:`~aioext.renderers.routes`), JSON (:mod:`~aioext.renderers.json`), templates
(:mod:`~aioext.renderers.html`, :mod:`~aioext.renderers.templates`), ETags
(:mod:`~aioext.renderers.etag`).
"""

from __future__ import annotations

from typing import Any

from .json import JSONRenderer

__all__ = ["JSONRenderer", "includeme"]

PARTS = ("json", "adapters", "html", "templates", "formats", "routes", "etag")


def includeme(config: Any) -> None:
    """Include ``aioext`` and all of the above."""
    config.include("aioext")
    for part in PARTS:
        config.include(f"{__name__}.{part}")

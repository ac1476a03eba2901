"""Files of packages: ``config.include('aioext.assets')``.

Read without blocking (:mod:`~aioext.assets.asset`), served by static views
(:mod:`~aioext.assets.static`), with a version in their addresses
(:mod:`~aioext.assets.versions`), and built from others (:mod:`~aioext.assets.built`).
"""

from __future__ import annotations

from typing import Any

from .asset import Asset
from .built.builders import command, css, js, scss
from .response import FileResponse
from .versions import HashCacheBuster, MtimeCacheBuster

__all__ = [
    "Asset",
    "FileResponse",
    "HashCacheBuster",
    "MtimeCacheBuster",
    "command",
    "css",
    "includeme",
    "js",
    "scss",
]

PARTS = ("asset", "built", "static", "versions", "manifest", "urls")


def includeme(config: Any) -> None:
    """Include ``aioext`` and all of the above."""
    config.include("aioext")
    for part in PARTS:
        config.include(f"{__name__}.{part}")

"""Where the file is that an asset specification names, and what all parts share."""

from __future__ import annotations

import os
from typing import Any

from pyramid.config import PHASE1_CONFIG
from pyramid.path import AssetResolver
from pyramid.threadlocal import get_current_registry

from .. import threadlocal
from ..exceptions import explain
from ..interfaces import IBuiltAssets, IFiles, ISettings
from .files import Files

__all__ = ["AFTER_SETTINGS", "built_asset", "ensure_built", "locate", "register_files"]

# After the settings, which PHASE1 registers.
AFTER_SETTINGS = PHASE1_CONFIG + 1


def register_files(registry: Any) -> None:
    """Give an application its files; does nothing the second time."""
    if registry.queryUtility(IFiles) is not None:
        return
    memory = registry.getUtility(ISettings).assets_memory
    if registry.settings.get("pyramid.reload_assets"):
        files = Files(memory, fresh=0)
    else:
        files = Files(memory)
    registry.registerUtility(files, IFiles)


def built_asset(registry: Any, spec: str) -> Any:
    """What is built under that specification; None: nothing. May look at the disk."""
    assets = registry.queryUtility(IBuiltAssets)
    return None if assets is None else assets.find(spec)


def ensure_built(registry: Any, spec: str) -> None:
    """Have a file that is built be there; waits through the bridge for that.

    Before what follows is done in a thread of the executor, which :func:`locate` holds
    while it waits for a build.

    Raises:
        BuildError: it could not be built, and has never been.
    """
    assets = registry.queryUtility(IBuiltAssets)
    if assets is not None:
        assets.ensure(spec)


def locate(registry: Any, spec: str) -> str:
    """Where the file is that an asset specification names. Blocks.

    A file that is built (:doc:`/built`) is built first, if it is due;
    ``config.override_asset`` holds.

    Args:
        registry: of the application.
        spec: ``package:path``, or an absolute path, which stays what it is.

    Returns:
        the absolute path, whether there is a file or not.

    Raises:
        ValueError: this is neither.
        ModuleNotFoundError: there is no such package.
    """
    path = _locate(registry, spec)
    files = registry.queryUtility(IFiles)
    if files is not None:
        files.remember(spec, path)
    return path


def _locate(registry: Any, spec: str) -> str:
    found = built_asset(registry, spec)
    if found is not None:
        return str(found.path())
    if "\0" in spec or not (os.path.isabs(spec) or spec.partition(":")[1]):
        raise ValueError(explain(NO_SPEC.format(spec), "asset-spec"))
    if registry is get_current_registry():
        return _resolve(spec)
    # Pyramid asks the current registry what is overridden.
    with threadlocal.pushed({"registry": registry, "request": None}):
        return _resolve(spec)


def _resolve(spec: str) -> str:
    return os.path.abspath(AssetResolver(None).resolve(spec).abspath())


NO_SPEC = """\
{!r} names no file. Write "package:path/of/the/file", with the package that the path \
begins in, or an absolute path."""

"""One file, by its asset specification: ``request.asset('pkg:data/a.txt')``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from ..bridge import spawn_greenlet
from ..interfaces import IExecutor
from ..request import add_request_attribute
from .files import files_of
from .response import FileResponse
from .spec import AFTER_SETTINGS, ensure_built, locate, register_files

__all__ = ["Asset", "asset", "includeme", "locate"]

T = TypeVar("T")


def includeme(config: Any) -> None:
    """Add ``request.asset``, and the files in memory."""
    config.action(None, register_files, (config.registry,), order=AFTER_SETTINGS)
    add_request_attribute(config, asset, method=True)


def asset(request: Any, spec: str) -> Asset:
    """``request.asset(spec)``: an :class:`Asset`."""
    return Asset(spec, request)


class Asset:
    """A file that an asset specification names.

    Made by ``request.asset(spec)``. Nothing is looked at before it is asked for, in
    a thread of the executor. Small files are kept in memory; there, that holds for a
    second.

    Args:
        spec: ``package:path``, or an absolute path.
        request: the request that asks.

    Its methods raise FileNotFoundError if there is no such file, another OSError if it
    cannot be read, and ValueError or ModuleNotFoundError for what names none.
    Cancellation: as of :meth:`Executor.run <aioext.executor.Executor.run>`.
    """

    def __init__(self, spec: str, request: Any) -> None:
        self.spec = spec
        self._request = request
        self._registry = request.registry
        self._executor = self._registry.getUtility(IExecutor)

    def __repr__(self) -> str:
        return f"<Asset {self.spec}>"

    @property
    def path(self) -> str:
        """Where the file is, or would be; waits through the bridge for that."""
        ensure_built(self._registry, self.spec)
        return self._executor.call(locate, self._registry, self.spec)

    async def read(self) -> bytes:
        """All of its bytes."""
        entry = files_of(self._registry).peek_at(self.spec)
        body = None if entry is None else entry.body
        return await self._run(self._read) if body is None else body

    async def text(self, encoding: str = "utf-8") -> str:
        """All of it as text, with the line ends that it has."""
        return (await self.read()).decode(encoding)

    async def exists(self) -> bool:
        """Whether there is such a file. A directory is none."""
        return await self._run(self._exists)

    def response(self, **options: Any) -> FileResponse:
        """A response that sends it; with the options of :class:`FileResponse`."""
        return FileResponse(self.spec, self._request, **options)

    async def _run(self, function: Callable[[], T]) -> T:
        await spawn_greenlet(ensure_built, self._registry, self.spec)
        return await self._executor.run(function)

    def _read(self) -> bytes:
        path = locate(self._registry, self.spec)
        _, body = files_of(self._registry).load(path)
        if body is None:
            with open(path, "rb") as file:
                body = file.read()
        return body

    def _exists(self) -> bool:
        try:
            path = locate(self._registry, self.spec)
        except ModuleNotFoundError:
            return False
        return os.path.isfile(path)

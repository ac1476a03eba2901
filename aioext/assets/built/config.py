"""Files that are built from others: ``config.add_built_asset``; see :doc:`/built`.

:mod:`.asset` says who builds them, and when; :mod:`.builders` has ready-made
builders.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid.settings import asbool
from zope.interface import implementer

from ... import threadlocal
from ...events import AppStopping
from ...exceptions import explain
from ...executor import current_executor
from ...interfaces import IBuiltAssets, ISettings
from . import builders
from . import sources as files
from .asset import BuiltAsset
from .cache import default_directory

__all__ = ["BuiltAsset", "BuiltAssets", "add_built_asset", "includeme"]

ANCHOR = "built-assets"


def includeme(config: Any) -> None:
    """Add the directive ``add_built_asset``."""
    config.add_directive("add_built_asset", add_built_asset)
    # A configuration that was committed may include it once more.
    if config.registry.queryUtility(IBuiltAssets) is None:
        config.registry.registerUtility(BuiltAssets(config.registry), IBuiltAssets)


def _stop(event: AppStopping) -> None:
    event.registry.getUtility(IBuiltAssets).stop()


def add_built_asset(
    config: Any,
    target: str,
    sources: str | Iterable[str],
    build: Callable[[list[Path], Path], Any] | str | Iterable[str],
    *,
    depends: str | Iterable[str] = (),
) -> None:
    """Have a file be built from others when it is needed, and when they change.

    Called for its effect as a directive: ``config.add_built_asset('static/app.css',
    sources=['scss/app.scss'], build=scss())``. See :doc:`/built`.

    Args:
        target: the asset specification of the file, in the directory of a static view,
            say. It is never written there, but into :confval:`aioext.assets.cache_dir`.
            With a ``*`` in its name it stands for many files, one for each file that
            the ``*`` in ``sources`` matches.
        sources: asset specifications of what it is built from, in order, with
            wildcards: ``js/*.js``, ``js/**/*.js``.
        build: a ready-made builder (:func:`~aioext.assets.scss`,
            :func:`~aioext.assets.css`, :func:`~aioext.assets.js`,
            :func:`~aioext.assets.command`); a command, as a string or in words; or a
            callable, which may be a coroutine function, that takes the paths of the
            sources and the path to write to, and may return an iterable of the paths
            that it has read besides.
        depends: asset specifications, with wildcards, of what the file depends on as
            well, and that the builder is not given.

    Raises:
        ConfigurationError: one of these is not possible.
        ConfigurationConflictError: when it is committed: the same file is built
            elsewhere as well.
    """
    target = _spec(config, "a target", target)
    wanted = _specs(config, "a source", sources)
    needed = _specs(config, "what it depends on", depends)
    builder = _builder(config, build)
    _check(target, wanted, needed)
    registry = config.registry

    def register() -> None:
        registry.getUtility(IBuiltAssets).add(target, wanted, builder, needed)

    intr = config.introspectable("built assets", target, target, "built asset")
    intr["target"] = target
    intr["sources"] = wanted
    intr["depends"] = needed
    intr["build"] = builder
    config.action(("aioext.built", target), register, introspectables=(intr,))


@implementer(IBuiltAssets)
class BuiltAssets:
    """Everything that an application builds."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self._assets: dict[str, BuiltAsset] = {}
        self._patterns: list[_Pattern] = []

    def add(
        self, target: str, sources: list[str], builder: Any, depends: list[str]
    ) -> None:
        """Have ``target`` be built."""

        def make(spec: str, wanted: list[str]) -> BuiltAsset:
            return self._make(spec, wanted, builder, depends)

        if not self._assets and not self._patterns:
            # Not before: with any subscriber, four events are sent with every request.
            self._registry.registerHandler(_stop, (AppStopping,))
        if "*" in target:
            self._patterns.append(_Pattern(target, sources, make))
        else:
            asset = make(target, sources)
            # A static view may know its directory by its path.
            self._assets[target] = self._assets[asset.place] = asset

    def _make(
        self, spec: str, sources: list[str], builder: Any, depends: list[str]
    ) -> BuiltAsset:
        return BuiltAsset(
            self._registry,
            spec,
            sources,
            builder,
            depends,
            directory=self._directory(),
            reload=self._reloads(),
        )

    def _directory(self) -> Path:
        configured = self._registry.getUtility(ISettings).assets_cache_dir
        return Path(configured) if configured else default_directory()

    def _reloads(self) -> bool:
        return asbool((self._registry.settings or {}).get("pyramid.reload_assets"))

    def _current(self) -> threadlocal.pushed:
        return threadlocal.pushed({"registry": self._registry, "request": None})

    def __iter__(self) -> Iterator[BuiltAsset]:
        """Each once; of a pattern, those that there are sources of now. Blocks."""
        with self._current():
            found = [each for pattern in self._patterns for each in pattern.all()]
        return iter(dict.fromkeys([*self._assets.values(), *found]))

    def stop(self) -> None:
        """End the commands that run to build any of them."""
        made = [each for pattern in self._patterns for each in pattern.made()]
        for asset in [*self._assets.values(), *made]:
            asset.stop()

    def ensure(self, spec: str) -> None:
        """Have what is built under ``spec`` be there; waits through the bridge.

        To be called where no thread of the executor is held: all that there are could
        wait for one build otherwise, and views that block for them.

        Raises:
            BuildError: as of :meth:`BuiltAsset.path`.
        """
        if self._assets or self._patterns:
            asset = current_executor().call(self.find, spec)
            if asset is not None:
                asset.path()

    def find(self, spec: str) -> BuiltAsset | None:
        """What is built under ``spec``; None: nothing."""
        if not (self._assets or self._patterns) or "\0" in spec:
            return None
        with self._current():
            asset = self._assets.get(spec) or self._match(files.normalize(spec))
            # What it is overridden by is looked for where it was configured.
            if asset is None or files.locate(asset.spec) != asset.place:
                return None
            return asset

    def _match(self, spec: str) -> BuiltAsset | None:
        asset = self._assets.get(spec)
        found = (pattern.find(spec) for pattern in self._patterns)
        return asset or next((each for each in found if each is not None), None)


class _Pattern:
    # Files of one directory: names with a wildcard in common with that of a source.

    def __init__(
        self,
        target: str,
        sources: list[str],
        make: Callable[[str, list[str]], BuiltAsset],
    ) -> None:
        self._directory, name = _split(target)
        self._place = os.path.dirname(files.locate_original(target))
        self._before, self._after = name.split("*")
        self._sources = sources
        self._source = next(each for each in sources if "*" in each)
        self._make = make
        self._made: dict[str, BuiltAsset] = {}

    def find(self, spec: str) -> BuiltAsset | None:
        # The file of that name, if there is its source.
        directory, name = _split(spec)
        if directory not in (self._directory, self._place):
            return None
        if not (name.startswith(self._before) and name.endswith(self._after)):
            return None
        stem = name[len(self._before) : len(name) - len(self._after)]
        if not _is_stem(stem) or not files.exists(self._source.replace("*", stem)):
            return None
        return self._of(stem)

    def made(self) -> list[BuiltAsset]:
        # Those that were asked for so far.
        return list(self._made.values())

    def all(self) -> list[BuiltAsset]:
        # Those of all sources that there are.
        before, after = _split(self._source)[1].split("*")
        try:
            names = [os.path.basename(path) for path in files.expand(self._source)]
        except FileNotFoundError:
            return []
        stems = [name[len(before) : len(name) - len(after)] for name in names]
        return [self._of(stem) for stem in stems if _is_stem(stem)]

    def _of(self, stem: str) -> BuiltAsset:
        asset = self._made.get(stem)
        if asset is None:
            spec = f"{_joined(self._directory)}{self._before}{stem}{self._after}"
            sources = [each.replace("*", stem) for each in self._sources]
            asset = self._made.setdefault(stem, self._make(spec, sources))
        return asset


def _split(spec: str) -> tuple[str, str]:
    # The directory, and the name in it.
    directory, slash, name = spec.rpartition("/")
    if slash:
        return directory, name
    package, colon, name = spec.partition(":")
    return f"{package}{colon}", name


def _joined(directory: str) -> str:
    return directory if directory.endswith(":") else f"{directory}/"


def _is_stem(stem: str) -> bool:
    # Names come from addresses: none is a wildcard. Parts of others begin with "_".
    return bool(stem) and stem[0] not in "._" and not files.has_wildcard(stem)


def _specs(config: Any, what: str, given: Any) -> list[str]:
    if isinstance(given, (str, os.PathLike)):
        given = [given]
    if not isinstance(given, Iterable):
        raise _error(NO_SPEC.format(what, given))
    return [_spec(config, what, each) for each in given]


def _spec(config: Any, what: str, given: Any) -> str:
    if isinstance(given, os.PathLike):
        given = os.fspath(given)
    if not isinstance(given, str) or not given or given.endswith(("/", ":")):
        raise _error(NO_SPEC.format(what, given))
    spec = config.absolute_asset_spec(given)
    if "\0" in spec or (not os.path.isabs(spec) and ".." in re.split("[:/]", spec)):
        raise _error(OUTSIDE.format(what, given))
    package, colon, _ = spec.partition(":")
    if colon and not os.path.isabs(spec):
        try:
            importlib.import_module(package)
        except (ImportError, ValueError) as error:
            raise _error(NO_PACKAGE.format(what, given, error)) from error
    return files.normalize(spec)


def _check(target: str, sources: list[str], depends: list[str]) -> None:
    if not sources:
        raise _error(NO_SOURCES.format(target))
    if target in (*sources, *depends):
        raise _error(ITSELF.format(target))
    directory, name = _split(target)
    if files.has_wildcard(directory) or (
        files.has_wildcard(name) and not _is_pattern(target)
    ):
        raise _error(NO_PATTERN.format(target))
    if "*" not in target:
        return
    starred = [each for each in sources if "*" in each]
    if not starred or not all(map(_is_pattern, starred)):
        raise _error(NO_SOURCE_PATTERN.format(target, sources))


def _is_pattern(spec: str) -> bool:
    # One asterisk, in the name.
    name = _split(spec)[1]
    return spec.count("*") == name.count("*") == 1 and not set("?[") & set(spec)


def _builder(config: Any, build: Any) -> Any:
    if isinstance(build, (str, list, tuple)):
        return builders.command(build)
    if build in (builders.command, builders.css, builders.js, builders.scss):
        raise _error(NOT_CALLED.format(build.__name__))
    if not callable(build):
        raise _error(NO_BUILDER.format(build))
    return build


def _error(message: str) -> ConfigurationError:
    return ConfigurationError(explain(message, ANCHOR))


NO_SPEC = """\
add_built_asset() takes an asset specification of a file for {}, got {!r}. Write \
"package:path/of/the/file", or "path/of/the/file" for one of your own package."""

OUTSIDE = """\
add_built_asset() was given {1!r} for {0}, which leads out of its package. Write an \
absolute path, or a path without ".."."""

NO_PACKAGE = """\
add_built_asset() was given {1!r} for {0}, whose package cannot be imported: {2}."""

NO_SOURCES = """\
add_built_asset({!r}) was given no sources. Name the files that it is built from: \
sources=["scss/app.scss"]."""

ITSELF = """\
add_built_asset({0!r}) was given itself as a source, or as what it depends on. Name \
the files that it is built from."""

NO_PATTERN = """\
add_built_asset({!r}): a target has no wildcard, or one "*", in its name: \
"static/*.css"."""

NO_SOURCE_PATTERN = """\
add_built_asset({!r}) stands for many files, and its sources {} do not say what each \
is built from. One of them has to have one "*", in its name, and none may have another \
wildcard: sources=["scss/*.scss"]."""

NOT_CALLED = """\
add_built_asset() was given the function {0}, which makes a builder. Write \
build={0}()."""

NO_BUILDER = """\
add_built_asset() takes for build a builder as scss(), a command as \
"esbuild {{source}} --outfile={{target}}", or a function that takes the paths of the \
sources and the path to write to, got {!r}."""

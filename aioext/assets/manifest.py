"""The files that a bundler has made: ``config.add_asset_manifest``.

Vite, webpack and others write files whose names have a hash, and a manifest that says
which file was made of which source (:mod:`.bundles`). A manifest is a cache buster for
the bundler's directory: it gives the name with the hash for the name of the source.
What it does not know has a version like any other file, and what has a hash already,
none.

It is read once, when the configuration ends; with ``pyramid.reload_assets`` whenever it
has changed.
"""

from __future__ import annotations

import html
import logging
import os
from collections.abc import Iterable
from typing import Any

from pyramid.exceptions import ConfigurationError

from ..config.policy import LAST
from ..exceptions import explain
from ..executor import current_executor
from ..interfaces import IVersions
from ..request import add_request_attribute
from .bundles import Bundle, Entry, parse
from .spec import locate
from .versions import CacheBuster, Versions, default_of, directory_of

__all__ = ["Markup", "add_asset_manifest", "asset_tags", "includeme"]

log = logging.getLogger("aioext")

ANCHOR = "asset-manifest"

# Where Vite writes it, since its version 5, and before; and webpack's plugins.
NAMES = (".vite/manifest.json", "manifest.json")


def includeme(config: Any) -> None:
    """Add the directive and ``request.asset_tags``."""
    config.add_directive("add_asset_manifest", add_asset_manifest)
    add_request_attribute(config, asset_tags, method=True)


def add_asset_manifest(
    config: Any,
    directory: str,
    manifest: str | None = None,
    *,
    public_path: str = "",
    hashed: bool | None = None,
    server: str | None = None,
) -> None:
    """Have addresses of what a bundler has built lead to the names with the hash.

    Called for its effect as a directive::

        config.add_asset_manifest('pkg:static/dist')

    Args:
        directory: where the bundler writes to, as an asset specification; a static view
            serves it, or a directory around it.
        manifest: the manifest, below the directory, or as an asset specification; by
            default ``.vite/manifest.json`` or ``manifest.json``.
        public_path: what the manifest puts before the names of files: webpack's
            ``output.publicPath``.
        hashed: whether all names have a hash; None: each tells by itself.
        server: the address of Vite's development server, which ``request.asset_tags()``
            then leads to. The manifest is not read.

    Raises:
        ConfigurationError: an argument is not allowed; or, when it is committed, the
            manifest is not there or cannot be read.
    """
    if not isinstance(directory, str) or not directory:
        raise _error(NO_DIRECTORY.format(directory))
    if server is not None and not str(server).startswith(("http://", "https://")):
        raise _error(NO_SERVER.format(server))
    root = directory_of(config.absolute_asset_spec(directory))
    found = AssetManifest(
        config.registry, root, manifest, public_path, hashed, server and str(server)
    )

    def register() -> None:
        config.registry.getUtility(IVersions).manifests[root] = found

    intr = config.introspectable("asset manifests", root, root, "asset manifest")
    intr["directory"] = root
    intr["manifest"] = found
    discriminator = ("aioext.asset_manifest", root)
    config.action(discriminator, register, introspectables=(intr,))
    config.action(None, found.complete, order=LAST - 1)
    config.add_cache_buster(root, found)


class AssetManifest(CacheBuster):
    """A manifest, and the cache buster for the bundler's directory.

    Attributes:
        root: the directory, as an asset specification with a slash at the end.
        server: the address of the bundler's own server, without a slash at the end.
    """

    def __init__(
        self,
        registry: Any,
        root: str,
        manifest: str | None,
        public_path: str,
        hashed: bool | None,
        server: str | None,
    ) -> None:
        super().__init__()
        self.root = root
        self.server = server.rstrip("/") if server else None
        self._registry = registry
        self._names = NAMES if manifest is None else (manifest,)
        self._options = (public_path, hashed)
        self._bundle = Bundle()
        self._reloads = False
        self._stamp: tuple[str, int, int] | None = None
        self._failure = ""

    def complete(self) -> None:
        """Read the manifest, when the configuration ends.

        Raises:
            ConfigurationError: it is not there, or cannot be read.
        """
        self.by, self.place = default_of(self._registry)
        self._reloads = bool(self._registry.settings.get("pyramid.reload_assets"))
        if self.server is not None:
            return
        self._refresh()
        if self._failure and not self._reloads:
            raise _error(self._failure)

    def bundle(self) -> Bundle:
        """What the manifest says now; waits through the bridge if it may change."""
        if self._reloads and self.server is None:
            current_executor().call(self._refresh)
        return self._bundle

    @property
    def failure(self) -> str:
        """Why the manifest could not be read; empty if it could."""
        return self._failure

    def add_version(
        self, versions: Versions, subpath: str, kw: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """Give the name with the hash, or a version where there is none."""
        bundle = self.bundle()
        # The path begins at the static view, which may be for a directory around.
        name = kw["pathspec"].removeprefix(self.root)
        if name in bundle.chunks and name not in bundle.hashed:
            file = bundle.chunks[name].file
            subpath = subpath.removesuffix(name) + file
            # The version, if it needs one, is that of the file.
            kw["pathspec"], name = self.root + file, file
        if name in bundle.hashed:
            return subpath, kw
        return super().add_version(versions, subpath, kw)

    # What follows blocks.

    def _refresh(self) -> None:
        found = self._find()
        if found is None:
            specs = ", ".join(self._specs())
            self._fail(NOT_THERE.format(self.root, specs))
        elif found != self._stamp:
            self._stamp = found
            self._read(found[0])

    def _specs(self) -> Iterable[str]:
        for name in self._names:
            is_whole = ":" in name or os.path.isabs(name)
            yield name if is_whole else self.root + name

    def _find(self) -> tuple[str, int, int] | None:
        for spec in self._specs():
            try:
                path = locate(self._registry, spec)
                status = os.stat(path)
            except (OSError, ValueError, ImportError):
                continue
            return path, status.st_mtime_ns, status.st_size
        return None

    def _read(self, path: str) -> None:
        try:
            with open(path, "rb") as file:
                bundle = parse(file.read(), *self._options)
        except (OSError, ValueError) as error:
            self._fail(NOT_READ.format(path, error))
            return
        self._failure = ""
        versions = self._registry.getUtility(IVersions)
        files = [locate(self._registry, self.root + each) for each in bundle.hashed]
        versions.hashed.update(files)
        self._bundle = bundle

    def _fail(self, message: str) -> None:
        if self._reloads and message != self._failure:
            # What it said before still holds.
            log.error("aioext: %s", message)
        self._failure = message


class Markup(str):
    """Text that templates take for HTML as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def asset_tags(request: Any, entry: str, /, **attributes: Any) -> Markup:
    """``request.asset_tags(entry, **attributes)``: the tags that a page needs.

    The stylesheets of an entry and of what it imports, its script, and links that have
    what it imports loaded beforehand.

    Args:
        entry: its name in a manifest, as ``src/main.js``, or ``main`` of webpack; or
            with the directory before it, as an asset specification.
        attributes: of each tag; ``nonce="..."`` for example. True: without a value;
            None and False: none. An underscore is a dash.

    Returns:
        HTML, which templates do not escape.

    Raises:
        LookupError: no manifest has the entry; with those that there are.

    With ``pyramid.reload_assets`` it waits through the bridge for a look at the
    manifest.
    """
    manifests = request.registry.getUtility(IVersions).manifests
    manifest, name = _find_manifest(manifests, entry)
    common = _attributes(attributes)
    if manifest.server is not None:
        return _served_tags(manifest.server, name, common)
    bundle = manifest.bundle()
    found = bundle.entry(name)
    if found is None:
        known = ", ".join(bundle.entries) or "none"
        message = manifest.failure or NO_ENTRY.format(manifest.root, name, known)
        raise LookupError(explain(message, ANCHOR))
    return _tags(request, manifest.root, bundle, found, common)


def _find_manifest(
    manifests: dict[str, AssetManifest], entry: str
) -> tuple[AssetManifest, str]:
    roots = [each for each in manifests if entry.startswith(each)]
    if roots:
        root = max(roots, key=len)
        return manifests[root], entry.removeprefix(root)
    known = list(manifests.values())
    if not known:
        raise LookupError(explain(NO_MANIFEST.format(entry), ANCHOR))
    for each in known:
        if each.server is None and each.bundle().entry(entry) is not None:
            return each, entry
    # The server, if there is one, has whatever it is asked for.
    return next((each for each in known if each.server), known[0]), entry


def _tags(request: Any, root: str, bundle: Bundle, entry: Entry, common: str) -> Markup:
    def tag(form: str, file: str) -> str:
        url = html.escape(request.static_path(root + file))
        more = common
        if file in bundle.integrity:
            integrity = html.escape(bundle.integrity[file])
            more += f' integrity="{integrity}" crossorigin="anonymous"'
        return form.format(url, more)

    files = (
        [(STYLE, each) for each in entry.styles]
        + [(SCRIPT, each) for each in entry.scripts]
        + [(MODULE, each) for each in entry.modules]
        + [(PRELOAD, each) for each in entry.preloads]
    )
    return Markup("\n".join(tag(form, file) for form, file in files))


def _served_tags(server: str, name: str, common: str) -> Markup:
    form = STYLE if name.endswith((".css", ".scss", ".sass", ".less")) else MODULE
    client = MODULE.format(html.escape(f"{server}/@vite/client"), common)
    return Markup(f"{client}\n{form.format(html.escape(f'{server}/{name}'), common)}")


def _attributes(given: dict[str, Any]) -> str:
    found = []
    for name, value in given.items():
        name = html.escape(name.rstrip("_").replace("_", "-"))
        if value is True:
            found.append(f" {name}")
        elif value is not None and value is not False:
            found.append(f' {name}="{html.escape(str(value))}"')
    return "".join(found)


STYLE = '<link rel="stylesheet" href="{}"{}>'
SCRIPT = '<script defer src="{}"{}></script>'
MODULE = '<script type="module" src="{}"{}></script>'
PRELOAD = '<link rel="modulepreload" href="{}"{}>'


def _error(message: str) -> ConfigurationError:
    return ConfigurationError(explain(message, ANCHOR))


NO_DIRECTORY = """\
add_asset_manifest() takes the directory that the bundler writes to, \
"package:static/dist", got {!r}."""

NO_SERVER = """\
add_asset_manifest() was given server={!r}. It takes the address of the bundler's own \
server, "http://localhost:5173"."""

NOT_THERE = """\
The directory {} has no manifest; looked for: {}. Run the bundler, with its manifest \
switched on (Vite: build.manifest = true), or say manifest="..."."""

NOT_READ = """\
The manifest {} cannot be used: {}."""

NO_ENTRY = """\
The manifest of {} has no entry {!r}. It has: {}."""

NO_MANIFEST = """\
request.asset_tags({!r}) was called, and there is no manifest. Write \
config.add_asset_manifest("package:static/dist")."""

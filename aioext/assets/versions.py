"""Versions of files in their addresses, so that clients may keep the files for ever.

Theory of operation
===================

A *cache buster* puts the version of a file into the address that
``request.static_url()`` makes. When the file changes, so does its address, and nobody
has an old one for the new. The other half is the answer: with the right version it may
be kept for a year without asking again, and with any other one it is to be asked for
every time. A client that asks for tomorrow's version today, as during a deployment
where one machine is ahead of the others, thus never keeps today's file under tomorrow's
address.

A version is a file's time in nanoseconds, or the beginning of its SHA-256. Both come
from :mod:`aioext.assets.files`, which looks at a file at most once a second; in between
an address costs a few look-ups in dictionaries, no thread and no system call. The first
address after that has all files looked at that have had one, in one thread. What is
there is what :func:`aioext.assets.spec.locate` finds: overridden assets have the
version of what overrides them, and built ones that of what was built.

When the configuration ends, every static view gets a buster, unless the application has
added one that is for its directory, or for one around it. The views are known from a
view deriver, the application's busters from introspection. :class:`Versions` keeps
which kinds of version are understood below which directory: ``?v=`` in the address of
another static view is the application's own affair.

Things that do not work
=======================

* Whole seconds as a version: a file that is written twice in one would be kept in its
  first state for a year.
* One buster for everything: Pyramid looks busters up by the beginning of a
  specification, which an absolute path and a package do not share.
* To register our busters when a static view is added: the application's own may follow,
  for a directory around it, and Pyramid prefers the longer one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlparse

from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IApplicationCreated
from pyramid.static import static_view
from zope.interface import implementer

from ..config.created import unsubscribe
from ..config.policy import LAST
from ..exceptions import AioextError, explain
from ..executor import current_executor
from ..interfaces import ISettings, IVersions
from .files import Entry, files_of
from .spec import ensure_built, locate

__all__ = [
    "IMMUTABLE",
    "NO_CACHE",
    "PLACE",
    "PLACES",
    "PRIVATE",
    "CacheBuster",
    "HashCacheBuster",
    "MtimeCacheBuster",
    "Versions",
    "default_of",
    "directory_of",
    "includeme",
    "is_plain",
    "root_of",
    "split",
]

# Cache-Control of a file that was asked for with its version, and with another one.
IMMUTABLE = "public, max-age=31536000, immutable"
NO_CACHE = "no-cache"
# The same of a file that not everybody gets: in no cache that many share.
PRIVATE = "private, max-age=31536000, immutable"

# The argument of static_url() by which versioned_static_url() says where.
PLACE = "_aioext_place"
PLACES = ("query", "path")
NAME = "v"
IN_PATH = f"{NAME}="

# Characters of a SHA-256 in hexadecimal that are a version.
DIGITS = 16

# How much older than a file its encoded form may look, which was unpacked before it.
COMPRESSING_NS = 10_000_000_000

# How many files are remembered; their names are the application's.
MAX_SPECS = 8192

# How many of them are looked at with the first one that is due.
AT_ONCE = 256

_IN_QUERY = re.compile(rf"(?:^|&){IN_PATH}([^&]*)")


def includeme(config: Any) -> None:
    """Give static views their versions; ``config.include('aioext.assets')`` does so."""
    registry = config.registry
    if registry.queryUtility(IVersions) is None:
        registry.registerUtility(Versions(registry), IVersions)
        registry.registerHandler(_application_created, (IApplicationCreated,))
    config.add_view_deriver(_note_static_view, "aioext_versions")
    config.action(None, _add_cache_busters, (registry,), order=LAST)


def split(
    subpath: tuple[str, ...], environ: Mapping[str, Any]
) -> tuple[tuple[str, ...], str | None]:
    """The path below a static view without its version, and that version.

    Args:
        subpath: the segments of the path, decoded.
        environ: of the request, for its query.

    Returns:
        the segments, and what stands for the version, whatever it is; None: nothing.
    """
    if len(subpath) > 1 and subpath[0].startswith(IN_PATH):
        return subpath[1:], subpath[0][len(IN_PATH) :]
    query = environ.get("QUERY_STRING")
    if query and IN_PATH in query:
        found = _IN_QUERY.search(query)
        if found is not None:
            return subpath, found[1]
    return subpath, None


def is_plain(subpath: str) -> bool:
    """Whether it is sure to lead to something below the directory that it is in."""
    if "\0" in subpath or "\\" in subpath:
        return False
    return not {"", ".", ".."}.intersection(subpath.split("/"))


def _meet(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def root_of(view: static_view) -> str:
    """The directory of a static view, as Pyramid's registrations name it."""
    root = view.docroot
    if view.package_name:
        root = f"{view.package_name}:{root}"
    return directory_of(root)


def directory_of(spec: str) -> str:
    """A specification as Pyramid has those of directories, with a slash at the end."""
    return spec if spec.endswith((":", "/", os.sep)) else f"{spec}/"


@implementer(IVersions)
class Versions:
    """The versions of the files of an application.

    Args:
        registry: of the application.

    Attributes:
        routes: the names of the routes of static views, with their directories.
        elsewhere: the directories that are on another host.
        kinds: the kinds of version that are understood, by directory.
        hashed: the absolute paths of files whose names change with what is in them.
        busters: the cache busters, by directory.
        manifests: those of bundlers, by directory.
    """

    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self._paths: dict[str, str] = {}
        self._missing: dict[str, float] = {}
        self._looked = 0.0
        self.routes: dict[str, str] = {}
        self.elsewhere: frozenset[str] = frozenset()
        self.kinds: dict[str, frozenset[str]] = {}
        self._all_kinds: frozenset[str] = frozenset()
        self.hashed: set[str] = set()
        self.busters: dict[str, Any] = {}
        self.manifests: dict[str, Any] = {}

    def split(
        self, root: str, subpath: tuple[str, ...], environ: Mapping[str, Any]
    ) -> tuple[tuple[str, ...], str | None]:
        """:func:`split`, where a static view has versions of ours.

        Args:
            root: the directory of the view, from :func:`root_of`.
            subpath: the segments below it, decoded.
            environ: of the request.
        """
        if not self.kinds.get(root):
            return subpath, None
        return split(subpath, environ)

    def cache_headers(
        self,
        entry: Entry,
        asked: str | None,
        sent: Entry | None = None,
        is_public: bool = True,
    ) -> str | None:
        """The ``Cache-Control`` of a file; waits through the bridge for a hash.

        Args:
            entry: the file, in no encoding, that is answered with.
            asked: what :meth:`split` has found.
            sent: what it is sent as, where that is an encoding of it.
            is_public: whether everybody gets it.

        Returns:
            the value of the header; None: as without versions.
        """
        for_ever = IMMUTABLE if is_public else PRIVATE
        if entry.path in self.hashed:
            return for_ever
        if asked is None:
            return None
        if sent is not None and sent.mtime_ns < entry.mtime_ns - COMPRESSING_NS:
            # It was made of an older version, and of this one nothing so far.
            return NO_CACHE
        if "mtime" in self._all_kinds and asked == str(entry.mtime_ns):
            return for_ever
        if "hash" in self._all_kinds and self._has_hash(entry, asked):
            return for_ever
        return NO_CACHE

    def _has_hash(self, entry: Entry, asked: str) -> bool:
        # A long file is not read for what cannot be its hash.
        if len(asked) != DIGITS:
            return False
        if entry.digest is not None:
            return entry.digest.startswith(asked)
        files = files_of(self._registry)
        try:
            found = files.digest(entry.path)
            now = files.entry(entry.path)
        except (OSError, ValueError):
            return False
        # What was read may be newer than what is answered with.
        return now.etag == entry.etag and found.startswith(asked)

    def of(self, spec: str, by: str) -> str | None:
        """The version of a file as it is now; waits through the bridge for a look.

        Args:
            spec: an asset specification, or an absolute path.
            by: ``mtime`` or ``hash``.

        Returns:
            None: there is no such file, or it cannot be read, or be built.

        Cancellation: as of :meth:`Executor.call <aioext.executor.Executor.call>`.
        """
        files = files_of(self._registry)
        if time.monotonic() < self._missing.get(spec, 0.0):
            return None
        try:
            if not files.fresh:
                return current_executor().call(self._look, spec, by)
            path = self._paths.get(spec)
            if path is None:
                ensure_built(self._registry, spec)
                path = current_executor().call(locate, self._registry, spec)
                _remember(self._paths, spec, path)
            elif files.peek(path) is None:
                self._look_at_all(files)
            return _version(files, path, by)
        except (OSError, ValueError, ImportError, AioextError):
            self._paths.pop(spec, None)
            _remember(self._missing, spec, time.monotonic() + files.fresh)
            return None

    def _look_at_all(self, files: Any) -> None:
        # A page has many addresses, and a thread costs more than many looks.
        now = time.monotonic()
        if now - self._looked < files.fresh:
            return
        self._looked = now
        paths = list(itertools.islice(self._paths.values(), AT_ONCE))
        current_executor().call(_refresh, files, paths)

    def _look(self, spec: str, by: str) -> str:
        return _version(files_of(self._registry), locate(self._registry, spec), by)

    def complete(self) -> None:
        """Find out what there is, and give a buster to the views that have none."""
        kind, place = default_of(self._registry)
        introspector = self._registry.introspector
        local, elsewhere = _static_views(introspector)
        self.elsewhere = frozenset(elsewhere)
        busters = _cache_busters(introspector)
        if kind is not None:
            config = Configurator(registry=self._registry, autocommit=True)
            for root in sorted(local | elsewhere):
                if not any(root.startswith(each) for each in busters):
                    buster = _Default(kind, place)
                    config.add_cache_buster(root, buster)
                    busters[root] = buster
        self.busters = {} if _is_prevented(self._registry) else busters
        self._find_kinds()

    def buster_for(self, spec: str) -> CacheBuster | None:
        """The cache buster of ours that Pyramid asks about a file."""
        specs = [each for each in self.busters if spec.startswith(each)]
        found = self.busters[max(specs, key=len)] if specs else None
        return found if isinstance(found, CacheBuster) else None

    def _find_kinds(self) -> None:
        own = {
            spec: buster.by
            for spec, buster in self.busters.items()
            if isinstance(buster, CacheBuster) and buster.by
        }
        self.kinds = {
            root: frozenset(kind for spec, kind in own.items() if _meet(root, spec))
            for root in set(self.routes.values())
        }
        self._all_kinds = frozenset(own.values())


class CacheBuster:
    """What the cache busters have in common; ``by`` is the kind of version.

    Args:
        place: where it stands, ``query`` or ``path``.

    Raises:
        ConfigurationError: ``place`` is something else.
    """

    by: str | None = "mtime"

    def __init__(self, place: str = "query") -> None:
        if place not in PLACES:
            message = WRONG_PLACE.format(type(self).__name__, place)
            raise ConfigurationError(explain(message, "versions"))
        self.place = place

    def __call__(
        self, request: Any, subpath: str, kw: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """What Pyramid calls for each address, see ``ICacheBuster``."""
        return self.add_version(_versions(request), subpath, kw)

    def add_version(
        self, versions: Versions, subpath: str, kw: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """Add the version of a file, if there is one."""
        place = kw.pop(PLACE, None) or self.place
        spec = kw["pathspec"]
        if self.by is None or not is_plain(subpath):
            return subpath, kw
        version = versions.of(spec, self.by)
        if version is None:
            return subpath, kw
        if place == "path":
            return f"{IN_PATH}{version}/{subpath}", kw
        return subpath, {**kw, "_query": _with_version(kw.get("_query"), version)}


class MtimeCacheBuster(CacheBuster):
    """Has the time of a file in its address, in nanoseconds since 1970.

    For ``config.add_cache_buster(spec, MtimeCacheBuster())``; static views that have
    no other buster have one already.

    Args:
        place: ``query``, for ``/static/a.js?v=1``, or ``path``, for
            ``/static/v=1/a.js``.

    Raises:
        ConfigurationError: ``place`` is something else.
    """


class HashCacheBuster(CacheBuster):
    """The same with the beginning of a file's SHA-256 in hexadecimal.

    It is the same on every machine that has the same file, whenever it was put there.
    """

    by = "hash"


class _Default(CacheBuster):
    # That of the settings, for the views that have no other one.
    def __init__(self, by: str, place: str) -> None:
        super().__init__(place)
        self.by = by

    def add_version(
        self, versions: Versions, subpath: str, kw: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        root = kw["pathspec"].removesuffix(subpath)
        if root in versions.elsewhere and PLACE not in kw:
            return subpath, kw
        return super().add_version(versions, subpath, kw)


def _versions(request: Any) -> Versions:
    versions = request.registry.queryUtility(IVersions)
    if versions is None:
        raise ConfigurationError(explain(NOT_INCLUDED, "versions"))
    return versions


def _with_version(query: Any, version: str) -> Any:
    # In whatever form route_url() was given it.
    if isinstance(query, str):
        return f"{query}&{IN_PATH}{version}" if query else f"{IN_PATH}{version}"
    pairs = query.items() if hasattr(query, "items") else query or ()
    return (*pairs, (NAME, version))


def _refresh(files: Any, paths: list[str]) -> None:
    for path in paths:
        if files.peek(path) is None:
            with contextlib.suppress(OSError, ValueError):
                files.look(path)


def _remember(memory: dict[str, Any], key: str, value: Any) -> None:
    if len(memory) >= MAX_SPECS:
        memory.clear()
    memory[key] = value


def _version(files: Any, path: str, by: str) -> str:
    if by == "hash":
        return files.digest(path)[:DIGITS]
    return str(files.entry(path).mtime_ns)


def default_of(registry: Any) -> tuple[str | None, str]:
    """The kind of version that the settings say, None for none, and its place."""
    settings = registry.getUtility(ISettings)
    kind = settings.assets_version
    if kind == "off" or _is_prevented(registry):
        kind = None
    return kind, settings.assets_place


def _is_prevented(registry: Any) -> bool:
    return bool(registry.settings.get("pyramid.prevent_cachebust"))


def _static_views(introspector: Any) -> tuple[set[str], set[str]]:
    local, elsewhere = set(), set()
    for found in introspector.get_category("static views", ()):
        view = found["introspectable"]
        # A name is a path, or the address of another host.
        is_elsewhere = urlparse(view["name"]).netloc
        (elsewhere if is_elsewhere else local).add(view["spec"])
    return local, elsewhere


def _cache_busters(introspector: Any) -> dict[str, Any]:
    found = introspector.get_category("cache busters", ())
    busters = [each["introspectable"] for each in found]
    return {each["path"]: each["cachebust"] for each in busters}


def _note_static_view(view: Any, info: Any) -> Any:
    # View deriver: which routes lead to static views. It has to do with nothing else.
    if isinstance(info.original_view, static_view):
        versions = info.registry.getUtility(IVersions)
        name = info.options.get("route_name")
        versions.routes[name] = root_of(info.original_view)
    return view


def _add_cache_busters(registry: Any) -> None:
    registry.getUtility(IVersions).complete()


def _application_created(event: Any) -> None:
    # What is committed in the middle comes after our action.
    unsubscribe(event.app.registry, _application_created)
    _add_cache_busters(event.app.registry)


WRONG_PLACE = """\
{} was given place={!r}. It takes "query", for addresses like /static/a.js?v=1, or \
"path", for /static/v=1/a.js."""

NOT_INCLUDED = """\
A cache buster of aioext.assets was asked for the version of a file in an application \
that does not include aioext.assets. Add config.include("aioext.assets")."""

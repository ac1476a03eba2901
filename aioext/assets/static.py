"""Static views that do not block: what ``config.add_static_view`` has added.

Theory of operation
===================

A view deriver finds the static views among the views, by their class, and answers in
their place; what stands around them, permissions and decorators, is Pyramid's, and so
are their options: index, redirects to the slash, ``cache_max_age``,
``content_encodings``, overridden assets. A subclass that does something of these by
itself is left alone, and runs in a thread as every other view that is no coroutine.

A name under a static view leads to a :class:`_Found`: its *variants*, the file as it is
and the encoded ones beside it, each with the headers that it is sent with. That holds
for a second. A file that is asked for more often is answered without a thread, a
system call, or the machinery that a response otherwise has: conditions are looked at
first, and the headers are a list that is there; in an application that has nothing to
say about it, without the router (:mod:`.shortcut`). Everything else, a large file, a
range, a condition that is not met, takes the way of
:class:`~aioext.assets.response.FileResponse`.

Where there is nothing, nothing is remembered: names that do not exist are without
number.

Nothing outside of the directory is sent. A name has no ``..`` when it comes here; a
symbolic link that leads out of the directory is followed only with
``aioext.assets.symlinks = any``, and each file is looked at once more when it is open,
for there may be another link by then (:mod:`.inside`). The directory is that of the
file which was found, by as many segments as its name and the request have in common,
for an overridden asset lies in a directory of its own.

Things that do not work
=======================

* To replace ``add_static_view``: a directive cannot take the place of a method.
* To answer before the router does, whatever the application has: the view's permission
  would not hold, and tweens would not see the request.
"""

from __future__ import annotations

import functools
import logging
import mimetypes
import os
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from pyramid.exceptions import URLDecodeError
from pyramid.httpexceptions import HTTPBadRequest, HTTPNotFound
from pyramid.path import AssetResolver
from pyramid.response import Response
from pyramid.static import static_view
from pyramid.traversal import traversal_path_info
from pyramid.viewderivers import VIEW
from webob.acceptparse import create_accept_encoding_header

from .. import conditional
from ..executor import current_executor
from ..interfaces import ISettings, IShortcuts, IVersions
from .files import Entry, files_of
from .inside import leads_inside, open_inside, root_around
from .response import close_unsent, guess_type, open_body
from .shortcut import Answer, Shortcuts, is_public
from .spec import AFTER_SETTINGS, built_asset, ensure_built, register_files
from .versions import root_of

__all__ = ["includeme", "serve_static"]

log = logging.getLogger("aioext")

# How many names of a static view are known at once.
MAX_FOUND = 4096

# How long an Accept-Encoding may be for its meaning to be remembered.
REMEMBERED_LENGTH = 256

Headers = list[tuple[str, str]]

IF_NONE_MATCH = "HTTP_IF_NONE_MATCH"
AUTHORIZATION = "HTTP_AUTHORIZATION"
OK = "200 OK"
NOT_MODIFIED = "304 Not Modified"


def includeme(config: Any) -> None:
    """Serve the static views; ``config.include('aioext.assets')`` does so."""
    if not mimetypes.inited:
        # It looks at the disk, and forgets what was added before.
        mimetypes.init()
    registry = config.registry
    if registry.queryUtility(IShortcuts) is None:
        registry.registerUtility(Shortcuts(registry), IShortcuts)
    config.action(None, register_files, (registry,), order=AFTER_SETTINGS)
    config.add_exception_view(bad_address, context=URLDecodeError)
    config.add_view_deriver(
        serve_static, "aioext_static", under="rendered_view", over=VIEW
    )


def bad_address(request: Any) -> Any:
    """Exception view: 400 for a path that is no UTF-8."""
    return HTTPBadRequest("The path of the request is not in UTF-8.")


# What is done here in the place of the view's own.
_REPLACED = (
    "__call__",
    "get_resource_name",
    "find_resource_path",
    "get_possible_files",
    "find_best_match",
)


def serve_static(view: Any, info: Any) -> Any:
    """View deriver: answer in the place of a :class:`pyramid.static.static_view`."""
    original = info.original_view
    if not isinstance(original, static_view) or info.options.get("attr"):
        return view
    cls = type(original)
    if any(getattr(cls, name) is not getattr(static_view, name) for name in _REPLACED):
        return view
    directory = _Directory(original, info.registry, is_public(info))

    def static_files(context: Any, request: Any) -> Any:
        return directory.answer(request)

    return static_files


class _Place(NamedTuple):
    """Where a variant is, and the directory that it must be in; None: anywhere."""

    path: str
    encoding: str | None
    root: str | None


class _Variant:
    """A file, in one encoding, and the headers that it is sent with."""

    __slots__ = (
        "caching",
        "encoding",
        "entry",
        "etag",
        "headers",
        "not_modified",
        "place",
    )

    # How long it may be kept if no version is asked for; None: that tells the time.
    caching: Headers | None

    def __init__(
        self, entry: Entry, place: _Place, content_type: str, varies: bool
    ) -> None:
        self.entry = entry
        self.place = place
        self.encoding = encoding = place.encoding
        self.etag = entry.etag_of(encoding)
        # The first is what WebOb makes of it, with a charset.
        self.headers: Headers = [
            *Response(content_type=content_type, app_iter=()).headerlist,
            ("Content-Length", str(entry.size)),
            ("Last-Modified", entry.last_modified),
            ("ETag", self.etag),
            ("Accept-Ranges", "bytes"),
        ]
        self.not_modified: Headers = [("ETag", self.etag)]
        if encoding is not None:
            self.headers.append(("Content-Encoding", encoding))
        if varies:
            self.headers.append(("Vary", "Accept-Encoding"))
            self.not_modified.append(("Vary", "Accept-Encoding"))


class _Found:
    """What a name leads to: its variants, the smallest first, and since when."""

    __slots__ = ("encodings", "is_directory", "plain", "since", "variants")

    def __init__(self, variants: list[_Variant], is_directory: bool) -> None:
        self.variants = variants
        self.encodings = tuple(each.encoding for each in variants if each.encoding)
        # The file as it is.
        self.plain = next((each for each in variants if each.encoding is None), None)
        self.is_directory = is_directory
        self.since = time.monotonic()

    def choose(self, accepted: str | None) -> _Variant | None:
        """The smallest variant that the client takes; None: there is none."""
        if accepted is None or not self.encodings:
            return self.plain
        is_usual = len(accepted) <= REMEMBERED_LENGTH
        acceptable = _remembered if is_usual else _acceptable
        allowed = acceptable(accepted, self.encodings)
        return next((each for each in self.variants if each.encoding in allowed), None)


def _acceptable(accepted: str, encodings: tuple[str, ...]) -> frozenset[str | None]:
    header = create_accept_encoding_header(accepted)
    offers = header.acceptable_offers(list(encodings)) if header else ()
    return frozenset((None, *(offer for offer, _ in offers)))


# Browsers send the same headers all the time; nobody else is to fill the memory.
_remembered = functools.lru_cache(256)(_acceptable)


class _Directory:
    """One static view, served."""

    def __init__(self, view: static_view, registry: Any, is_public: bool) -> None:
        self._view = view
        self._registry = registry
        self._is_public = is_public
        self._files = files_of(registry)
        self._versions = registry.queryUtility(IVersions)
        settings = registry.getUtility(ISettings)
        self._follows_links = settings.assets_symlinks == "any"
        self._fresh = 0.0 if view.reload else self._files.fresh
        self._root = root_of(view)
        self._found: dict[tuple[str, ...], _Found] = {}
        # The headers that say how long a file may be kept, and in which second.
        self._caching: tuple[int, Headers] = (0, [])
        # What requests may take to get here; in development, they take the router.
        is_quick = is_public and self._fresh
        self._shortcuts = registry.getUtility(IShortcuts) if is_quick else None

    def answer(self, request: Any) -> Any:
        """The response to one request; waits through the bridge if need be.

        Raises:
            HTTPNotFound: there is no such file.
            HTTPMovedPermanently: this is a directory, and the path has no slash.
        """
        environ, path = request.environ, self._path_of(request)
        if self._is_public and _is_restricted(request):
            # By its route, which is known now. What other routes lead here counts as
            # restricted from then on.
            self._is_public = False
            self._shortcuts = None
            self._found.clear()
        subpath, asked = self._split(path, environ)
        found = self._found.get(subpath)
        if found is None or self._is_stale(found):
            found = self._find_again(subpath, found)
        if found is not None and found.is_directory and not _has_slash(request):
            raise self._view.add_slash_redirect(request)
        variant = found and found.choose(environ.get("HTTP_ACCEPT_ENCODING"))
        if not variant:
            raise HTTPNotFound(request.url)
        plain = (found.plain or variant).entry
        answer = self._answer_at_once(environ, plain, variant, asked)
        if answer is None:
            return self._respond_slowly(request, plain, variant, asked)
        if self._shortcuts is not None and not found.is_directory:
            self._shortcuts.learn(request, lambda: self._finder_of(path))
        return Response(
            status=answer.status, headerlist=answer.headers, app_iter=answer.body
        )

    def _path_of(self, request: Any) -> tuple[str, ...]:
        if self._view.use_subpath:
            return tuple(request.subpath)
        return traversal_path_info(request.path_info)

    def _split(
        self, path: tuple[str, ...], environ: dict[str, Any]
    ) -> tuple[tuple[str, ...], str | None]:
        if self._versions is None:
            return path, None
        return self._versions.split(self._root, path, environ)

    def _is_stale(self, found: _Found) -> bool:
        return time.monotonic() - found.since >= self._fresh

    def _finder_of(self, path: tuple[str, ...]) -> Any:
        return functools.partial(self._find_answer, path, self._split(path, {}))

    def _find_answer(
        self,
        path: tuple[str, ...],
        without_query: tuple[tuple[str, ...], str | None],
        environ: dict[str, Any],
    ) -> Answer | None:
        # A request that has not come by the router.
        if environ.get("QUERY_STRING"):
            subpath, asked = self._split(path, environ)
        else:
            subpath, asked = without_query
        found = self._found.get(subpath)
        if found is None or found.is_directory or self._is_stale(found):
            return None
        variant = found.choose(environ.get("HTTP_ACCEPT_ENCODING"))
        if variant is None:
            return None
        plain = found.plain or variant
        return self._answer_at_once(environ, plain.entry, variant, asked)

    def _answer_at_once(
        self,
        environ: dict[str, Any],
        plain: Entry,
        variant: _Variant,
        asked: str | None,
    ) -> Answer | None:
        entry = variant.entry
        method, body = environ["REQUEST_METHOD"], entry.body
        if method not in conditional.METHODS or _has_conditions(environ):
            return None
        caching = variant.caching
        if asked is not None or caching is None or AUTHORIZATION in environ:
            caching = self._caching_of(environ, plain, entry, asked)
        if environ.get(IF_NONE_MATCH) == variant.etag or conditional.is_not_modified(
            environ, variant.etag, entry.mtime
        ):
            return Answer(NOT_MODIFIED, variant.not_modified + caching, [])
        if method == "HEAD":
            return Answer(OK, variant.headers + caching, [])
        if body is None:
            return None
        entry.touch()
        return Answer(OK, variant.headers + caching, [body])

    def _caching_of(
        self, environ: dict[str, Any], plain: Entry, sent: Entry, asked: str | None
    ) -> Headers:
        # Something around us, a tween or a proxy, may ask for a password. What has come
        # with one is for others only if we say "public" (RFC 9111, section 3.5).
        is_public = self._is_public and AUTHORIZATION not in environ
        headers = self._steady_caching_of(plain, sent, asked, is_public)
        if headers is not None:
            return headers
        since, headers = self._caching
        now = int(time.time())
        if now != since:
            headers = _caching_for(self._view.cache_max_age)
            self._caching = now, headers
        return headers

    def _steady_caching_of(
        self, plain: Entry, sent: Entry, asked: str | None, is_public: bool
    ) -> Headers | None:
        if self._versions is not None:
            value = self._versions.cache_headers(plain, asked, sent, is_public)
            if value is not None:
                return [("Cache-Control", value)]
        return [] if self._view.cache_max_age is None else None

    def _respond_slowly(
        self, request: Any, plain: Entry, variant: _Variant, asked: str | None
    ) -> Any:
        before = variant.entry
        entry, body = self._open(request, variant)
        if plain is before:
            plain = entry
        caching = self._caching_of(request.environ, plain, entry, asked)
        response = Response(headerlist=variant.headers + caching, app_iter=body)
        if entry is not before:
            # It is another one by now.
            response.headers["Content-Length"] = str(entry.size)
            response.headers["Last-Modified"] = entry.last_modified
            response.headers["ETag"] = entry.etag_of(variant.encoding)
        conditional.apply(request, response)
        close_unsent(response.app_iter, request)
        return response

    def _open(self, request: Any, variant: _Variant) -> tuple[Entry, Iterable[bytes]]:
        content = variant.entry.body
        if content is not None:
            return variant.entry, [content]
        path = variant.place.path
        opening = functools.partial(open_body, self._files, path, request.environ)
        try:
            return current_executor().call(self._inside, variant.place, opening)
        except OSError as error:
            log.warning(UNREADABLE, path, error)
            raise HTTPNotFound(request.url) from None

    # What there is; all that follows blocks.

    def _find_again(
        self, subpath: tuple[str, ...], before: _Found | None
    ) -> _Found | None:
        if before is not None:
            # Whoever asks while this one looks has what was known before.
            before.since = time.monotonic()
        try:
            if before is None:
                ensure_built(self._registry, self._root + "/".join(subpath))
            found = current_executor().call(self._find, subpath)
        except BaseException:
            self._found.pop(subpath, None)
            raise
        if found is None:
            self._found.pop(subpath, None)
            return None
        if len(self._found) >= MAX_FOUND:
            self._found.clear()
        self._found[subpath] = found
        return found

    def _find(self, subpath: tuple[str, ...]) -> _Found | None:
        if any(_INVALID.intersection(part) or part in _DOTS for part in subpath):
            return None
        spec = self._root + "/".join(subpath)
        target = built_asset(self._registry, spec)
        is_directory = target is None and AssetResolver(None).resolve(spec).isdir()
        if is_directory:
            subpath = (*subpath, self._view.index)
            spec = self._root + "/".join(subpath)
        paths = list(self._paths(spec, subpath))
        varies = len(paths) > 1
        content_type, _ = guess_type(subpath[-1]) if subpath else ("", None)
        variants = []
        for place in paths:
            entry = self._look(place)
            if entry is not None:
                variants.append(_Variant(entry, place, content_type, varies))
        variants.sort(key=lambda each: each.entry.size)
        if not variants and not is_directory:
            return None
        found = _Found(variants, is_directory)
        for each in variants:
            plain = found.plain or each
            each.caching = self._steady_caching_of(
                plain.entry, each.entry, None, self._is_public
            )
        return found

    def _paths(self, spec: str, subpath: tuple[str, ...]) -> Iterable[_Place]:
        target = built_asset(self._registry, spec)
        if target is not None:
            yield _Place(str(target.path()), None, None)
        else:
            yield from self._existing(spec, subpath, None)
        for encoding, extensions in self._view.content_encodings.items():
            for extension in extensions:
                name = (*subpath[:-1], subpath[-1] + extension)
                yield from self._existing(spec + extension, name, encoding)

    def _existing(
        self, spec: str, subpath: tuple[str, ...], encoding: str | None
    ) -> Iterable[_Place]:
        asset = AssetResolver(None).resolve(spec)
        if not asset.exists():
            return
        path = os.path.abspath(asset.abspath())
        root = None if self._follows_links else root_around(path, subpath)
        if root is None or leads_inside(root, path):
            yield _Place(path, encoding, root)
        else:
            log.warning(OUTSIDE, path)

    def _look(self, place: _Place) -> Entry | None:
        loading = functools.partial(self._files.load, place.path)
        try:
            entry, _ = self._inside(place, loading)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except OSError as error:
            log.warning(UNREADABLE, place.path, error)
            return None
        return entry

    def _inside(self, place: _Place, open_it: Any) -> tuple[Entry, Any]:
        return open_inside(place.root, place.path, open_it, self._files.forget)


_INVALID = frozenset("/\\\0")
_DOTS = ("", ".", "..")


def _has_conditions(environ: dict[str, Any]) -> bool:
    # Those that cannot be answered with the headers that are there.
    return (
        "HTTP_RANGE" in environ
        or "HTTP_IF_MATCH" in environ
        or "HTTP_IF_UNMODIFIED_SINCE" in environ
    )


def _is_restricted(request: Any) -> bool:
    route = getattr(request, "matched_route", None)
    return route is not None and bool(route.predicates or route.factory)


def _has_slash(request: Any) -> bool:
    return request.path_url.endswith("/")


def _caching_for(seconds: Any) -> Headers:
    response = Response(headerlist=[], app_iter=())
    response.cache_expires = seconds
    # WebOb says of what is not to be kept that it was changed just now.
    return [each for each in response.headerlist if each[0] != "Last-Modified"]


OUTSIDE = """\
aioext: %s is a symbolic link that leads out of the directory of its static view, and \
is not served. Set aioext.assets.symlinks = any to have such links followed."""

UNREADABLE = "aioext: %s is not served, for it cannot be read: %s"

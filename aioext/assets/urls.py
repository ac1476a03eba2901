"""Addresses of files with their version: ``request.static_version('/static/a.js')``."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pyramid.interfaces import IRoute, IRoutesMapper

from ..exceptions import explain
from ..interfaces import ISettings, IVersions
from ..request import add_request_attribute
from .versions import PLACE, PLACES, is_plain

__all__ = ["includeme", "static_version", "versioned_static_url"]

# What may stand in a path as it is (RFC 3986, section 3.3).
_SAFE = "/~!$&'()*+,;=:@"


def includeme(config: Any) -> None:
    """Add the request's methods; ``config.include('aioext.assets')`` does so."""
    add_request_attribute(config, static_version, method=True)
    add_request_attribute(config, versioned_static_url, method=True)


def static_version(request: Any, path: str, place: str | None = None) -> str:
    """``request.static_version(path, place=None)``: a path with its file's version.

    It is for what is written by hand: ``request.static_version('/static/a.js')`` is
    ``/static/a.js?v=1``. The path that the application is mounted at is put before it.

    Args:
        path: of an address below the application's root, percent-encoded; it may have a
            query and a fragment.
        place: of the version, ``query`` or ``path``; by default as of the static view.

    Returns:
        the path, as it was given if no static view serves it, if there is no such
        file, or if it is the address of another host.

    Raises:
        ValueError: ``place`` is something else.

    Waits through the bridge for a look at the file, at most once a second.
    """
    _check(place)
    try:
        parts = urlsplit(path)
    except ValueError:
        return path
    if parts.scheme or parts.netloc or not path.startswith("/"):
        return path
    before = quote(request.script_name, safe=_SAFE)
    versioned = _versioned(request, unquote(parts.path), parts.query, place)
    if versioned is None:
        return before + path
    fragment = f"#{parts.fragment}" if parts.fragment else ""
    return before + versioned + fragment


def versioned_static_url(
    request: Any, spec: str, place: str | None = None, **kw: Any
) -> str:
    """``request.versioned_static_url(spec, place=None, **kw)``: an address for ever.

    It is ``request.static_url(spec, **kw)``, with the version also where a static view
    is on another host, and where ``place`` says.

    Args:
        spec: an asset specification, or an absolute path. One without a package is
            relative to the application's.
        place: of the version, ``query`` or ``path``; None: as the setting says.
        kw: what ``request.route_url()`` takes.

    Raises:
        ValueError: ``place`` is something else, or no static view has the file.

    Waits through the bridge for a look at the file, at most once a second.
    """
    registry = request.registry
    _check(place)
    if ":" not in spec and not os.path.isabs(spec):
        spec = f"{registry.package_name}:{spec}"
    kw[PLACE] = place or registry.getUtility(ISettings).assets_place
    return request.static_url(spec, **kw)


def _versioned(request: Any, path: str, query: str, place: str | None) -> str | None:
    if not is_plain(path.removeprefix("/")):
        return None
    found = _find_route(request.registry, path)
    if found is None:
        return None
    route, root, subpath = found
    versions = request.registry.getUtility(IVersions)
    buster = versions.buster_for(root + subpath)
    if buster is None:
        return None
    kw: dict[str, Any] = {"pathspec": root + subpath, "_query": query}
    kw[PLACE] = place or buster.place
    new, kw = buster.add_version(versions, subpath, kw)
    if new == subpath and kw["_query"] == query:
        return None
    query = f"?{kw['_query']}" if kw["_query"] else ""
    return route.generate({"subpath": new}) + query


def _find_route(registry: Any, path: str) -> tuple[IRoute, str, str] | None:
    # The first of the static views that has the path.
    mapper = registry.queryUtility(IRoutesMapper)
    for name, root in registry.getUtility(IVersions).routes.items():
        route = mapper.get_route(name)
        found = route.match(path) if route is not None else None
        if found and found.get("subpath"):
            return route, root, "/".join(found["subpath"])
    return None


def _check(place: str | None) -> None:
    if place is not None and place not in PLACES:
        raise ValueError(explain(WRONG_PLACE.format(place), "versions"))


WRONG_PLACE = """\
An address with a version was asked for with place={!r}. It takes "query", for \
addresses like /static/a.js?v=1, or "path", for /static/v=1/a.js; without it the \
setting aioext.assets.place holds."""

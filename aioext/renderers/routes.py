"""Routes with extensions: ``config.add_format_route()``.

Theory of operation
===================

The route is an ordinary one, with the pattern as it was written. Once Pyramid has made
it, its ``match`` and ``generate`` are replaced, which are public attributes
(:class:`pyramid.interfaces.IRoute`): an extension is taken off the end of a path before
the pattern is tried on the rest, and put at the end of a path that was generated. So
predicates, ``traverse=`` and the view find the values without it, and expressions of
the pattern (``{id:\\d+}``) need not know of it.

To put the extensions into the pattern, as one more marker, works for few patterns: the
marker in front of it takes all there is, and nothing may follow a ``*subpath``.

What is replaced is the route that has our pregenerator. A route of the same name that
overrides it, as a route of an application does that of a package it includes, stays as
it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from pyramid.config import PHASE3_CONFIG
from pyramid.exceptions import ConfigurationError

from ..exceptions import explain
from ..hooks.values import settle

__all__ = ["add_format_route", "extension_of", "includeme"]

# After Pyramid has made the route.
AFTER_ROUTES = PHASE3_CONFIG + 1

EXTENSION = re.compile(r"[A-Za-z0-9]([\w.+-]*[A-Za-z0-9])?", re.ASCII)
NAME = "extension"
# As the name of a marker: {extension}, {extension:...}, :extension, *extension.
MARKER = re.compile(rf"[{{:*]{NAME}\b")

Extensions = tuple[str | None, ...]


def includeme(config: Any) -> None:
    """Add the directive; ``config.include('aioext.renderers')`` does so."""
    config.include("aioext")
    config.add_directive("add_format_route", add_format_route)


def add_format_route(
    config: Any,
    name: str,
    pattern: str,
    extensions: Iterable[str | None] = (None, "json"),
    *,
    pregenerator: Callable[..., Any] | None = None,
    **options: Any,
) -> None:
    """Directive: a route whose paths may end in an extension.

    ``request.matchdict['extension']`` is the extension, without its dot, or None.
    ``request.route_url(name, extension='json')`` has it at the end of the last segment.

    Args:
        name: of the route.
        pattern: without the extension.
        extensions: those that there may be; None: there may be none. A single one may
            be a string. The first is what a URL gets that is generated without any,
            unless None is among them.
        pregenerator: as for ``add_route``; ``extension`` is in the ``kw`` it gets, if
            the caller has given it. It may be a coroutine function.
        options: whatever else ``add_route`` takes.

    Raises:
        ConfigurationError: no extension can be added to the pattern, or one of the
            extensions is none.
    """
    given = _read_extensions(name, extensions)
    _check_pattern(name, pattern, bool(options.get("inherit_slash")))
    own = _Pregenerator(name, given, pregenerator)
    config.add_route(name, pattern, pregenerator=own, **options)
    told = config.introspectable(
        "format routes", name, f"{name} (extensions: {given!r})", "format route"
    )
    told.update(name=name, pattern=pattern, extensions=given)
    told.relate("routes", name)
    config.action(
        None, _extend, (config, name, own), introspectables=(told,), order=AFTER_ROUTES
    )


def extension_of(request: Any) -> str | None:
    """The extension that a format route has found in the path of ``request``.

    None if there is none, or if another sort of route has matched.
    """
    route = getattr(request, "matched_route", None)
    if isinstance(getattr(route, "match", None), _Match):
        return request.matchdict[NAME]
    return None


def _extend(config: Any, name: str, pregenerator: _Pregenerator) -> None:
    route = config.get_routes_mapper().get_route(name)
    if route.pregenerator is pregenerator:
        route.match = _Match(route.match, pregenerator.extensions)
        route.generate = _Generate(route.generate, pregenerator)


class _Match:
    """What ``match`` of a route is replaced by."""

    def __init__(self, match: Callable[[str], Any], extensions: Extensions) -> None:
        self._match = match
        self._may_have_none = None in extensions
        # The longest first: .tar.gz before .gz.
        some = sorted(filter(None, extensions), key=len, reverse=True)
        self._suffixes = tuple(f".{each}" for each in some)

    def __call__(self, path: str) -> dict[str, Any] | None:
        if path.endswith(self._suffixes):
            for suffix in self._suffixes:
                found = self._match_without(path, suffix)
                if found is not None:
                    return found
        return self._matched(path, None) if self._may_have_none else None

    def _match_without(self, path: str, suffix: str) -> dict[str, Any] | None:
        stem = path.removesuffix(suffix)
        if stem == path or not has_name(stem):
            return None
        return self._matched(stem, suffix[1:])

    def _matched(self, path: str, extension: str | None) -> dict[str, Any] | None:
        found = self._match(path)
        if found is not None:
            found[NAME] = extension
        return found


def has_name(path: str) -> bool:
    """Whether the last segment of ``path`` can have an extension.

    A segment of dots cannot: ``...json`` is not ``..`` with one.
    """
    return bool(path.rpartition("/")[2].strip("."))


class _Pregenerator:
    """Checks the extension that a URL is to have, and calls the application's own.

    ``route_url(name, 'more', 'elements')`` appends elements to the path that is
    generated. The last one gets the extension then, and the path none.
    """

    def __init__(self, name: str, extensions: Extensions, own: Any) -> None:
        self.name = name
        self.extensions = extensions
        self.own = own

    def __call__(self, request: Any, elements: Any, kw: dict[str, Any]) -> Any:
        if self.own is not None:
            elements, kw = settle(self.own(request, elements, kw))
        kw = self._without_that_of(request, kw)
        extension = self.choose(kw)
        if elements and extension:
            *others, last = elements
            elements = (*others, self.add(str(last), extension))
            extension = ""
        return elements, {**kw, NAME: extension}

    def _without_that_of(self, request: Any, kw: dict[str, Any]) -> dict[str, Any]:
        # matchdict of a request for another route, of which this one takes the values:
        # current_route_url(_route_name=...), or route_url(name, **request.matchdict).
        route = getattr(request, "matched_route", None)
        if route is None or route.name == self.name or NAME not in kw:
            return kw
        if kw[NAME] in self.extensions or kw[NAME] != request.matchdict.get(NAME, ""):
            return kw
        return {name: value for name, value in kw.items() if name != NAME}

    def choose(self, kw: dict[str, Any]) -> str | None:
        """The extension that ``kw`` asks for, or the default.

        Raises:
            ValueError: the route has no such extension.
        """
        default = None if None in self.extensions else self.extensions[0]
        chosen = kw.get(NAME, default)
        if chosen not in self.extensions:
            listed = ", ".join(map(repr, self.extensions))
            message = NOT_LISTED.format(self.name, chosen, listed)
            raise ValueError(explain(message, "format-routes"))
        return chosen

    def add(self, path: str, extension: str) -> str:
        """``path`` with the extension.

        Raises:
            ValueError: its last segment is empty.
        """
        if not has_name(path):
            message = NO_SEGMENT.format(self.name, path, extension)
            raise ValueError(explain(message, "format-routes"))
        return f"{path}.{extension}"


class _Generate:
    """What ``generate`` of a route is replaced by."""

    def __init__(
        self, generate: Callable[[Any], str], pregenerator: _Pregenerator
    ) -> None:
        self._generate = generate
        self._pregenerator = pregenerator

    def __call__(self, kw: dict[str, Any]) -> str:
        # An element has it already.
        has_it = kw.get(NAME) == ""
        extension = None if has_it else self._pregenerator.choose(kw)
        if not extension:
            return self._generate(kw)
        path = self._generate(_without_last_slash(kw))
        return self._pregenerator.add(path, extension)


def _without_last_slash(kw: dict[str, Any]) -> dict[str, Any]:
    # The path that resource_url() has for a resource ends in one.
    match kw:
        case {"traverse": (*names, "")}:
            return {**kw, "traverse": tuple(names)}
    return kw


def _read_extensions(name: str, given: Any) -> Extensions:
    extensions = (given,) if isinstance(given, str) else given
    try:
        extensions = tuple(dict.fromkeys(extensions))
    except TypeError:
        extensions = ()
    if not any(extensions) or not all(map(_is_extension, extensions)):
        message = NO_EXTENSIONS.format(name, given)
        raise ConfigurationError(explain(message, "format-routes"))
    return extensions


def _is_extension(each: Any) -> bool:
    return each is None or (
        isinstance(each, str) and EXTENSION.fullmatch(each) is not None
    )


def _check_pattern(name: str, pattern: Any, inherits_slash: bool) -> None:
    message = None
    if not isinstance(pattern, str) or pattern.endswith("/"):
        message = NO_PLACE
    elif not pattern and not inherits_slash:
        message = NO_PLACE
    elif urlsplit(pattern).hostname:
        message = ELSEWHERE
    elif MARKER.search(pattern):
        message = TAKEN
    if message:
        message = message.format(name, pattern)
        raise ConfigurationError(explain(message, "format-routes"))


NO_EXTENSIONS = """\
The format route {!r} has extensions={!r}. It takes those that there may be, without \
their dot, and None if there may be none, as (None, 'json')."""

NO_PLACE = """\
The format route {!r} has the pattern {!r}, which does not end in a segment that can \
have an extension. Remove the slash at its end, or give the page a name, as '/index'."""

ELSEWHERE = """\
The format route {!r} has the pattern {!r}, a URL of another host. What is served \
there is not known here: use add_route, and write the extension into the pattern."""

TAKEN = """\
The format route {!r} has the marker 'extension' in its pattern, {!r}, and the \
extension is matchdict['extension']. Remove the marker, or give it another name."""

NOT_LISTED = """\
The format route {!r} was asked for a URL with extension={!r}. Its extensions are {}; \
another one is to be listed in extensions= of add_format_route."""

NO_SEGMENT = """\
The format route {0!r} was asked for a URL with the extension {2!r}, and its path is \
{1!r}. The last segment has to have a name: give a value that is not empty, or no \
extension."""

"""The files that asset specifications stand for, with wildcards.

Everything is looked for through Pyramid's :class:`~pyramid.path.AssetResolver`, whose
answers ``config.override_asset`` may change. It takes them from the current registry,
which whoever calls has to see to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase

from pyramid.path import AssetResolver
from pyramid.registry import Registry

from ... import threadlocal

__all__ = ["exists", "expand", "has_wildcard", "locate", "locate_original", "normalize"]

WILDCARDS = frozenset("*?[")

_resolver = AssetResolver(None)
_no_overrides = Registry("aioext.assets")


def normalize(spec: str) -> str:
    """``spec`` without ``.``, ``..`` and doubled slashes in its path."""
    if os.path.isabs(spec):
        return os.path.normpath(spec)
    package, _, path = spec.partition(":")
    return f"{package}:{os.path.normpath(path)}"


def locate(spec: str) -> str:
    """The absolute path of what an asset specification names; it need not exist."""
    return _resolver.resolve(spec).abspath()


def locate_original(spec: str) -> str:
    """The same, whatever is overridden."""
    with threadlocal.pushed({"registry": _no_overrides, "request": None}):
        return locate(spec)


def exists(spec: str) -> bool:
    """Whether there is a file of that name, and not a directory."""
    found = _resolver.resolve(spec)
    return found.exists() and not found.isdir()


def has_wildcard(spec: str) -> bool:
    """Whether it stands for any number of files."""
    return not WILDCARDS.isdisjoint(spec)


def expand(spec: str) -> list[str]:
    """The absolute paths of the files that ``spec`` stands for, sorted.

    Args:
        spec: absolute. ``*``, ``?`` and ``[...]`` match within a name, and ``**``
            any number of directories. Names that begin with a dot never match.

    Raises:
        FileNotFoundError: there is none.
    """
    if not has_wildcard(spec):
        found = [spec] if exists(spec) else []
    else:
        base, segments = _split(spec)
        found = sorted(set(_walk(base, segments)))
    if not found:
        raise FileNotFoundError(f"there is no file {spec}")
    return [locate(each) for each in found]


def _split(spec: str) -> tuple[str, list[str]]:
    # What comes before the first name with a wildcard, and the names from there on.
    package, colon, path = (
        ("", "", spec) if os.path.isabs(spec) else spec.partition(":")
    )
    segments = path.split("/")
    first = next(n for n, each in enumerate(segments) if has_wildcard(each))
    if segments[-1] == "**":
        segments.append("*")
    return f"{package}{colon}{'/'.join(segments[:first])}", segments[first:]


def _walk(directory: str, segments: list[str]) -> Iterator[str]:
    pattern, *rest = segments
    for name in _names(directory):
        child = _join(directory, name)
        is_directory = _resolver.resolve(child).isdir()
        if pattern == "**":
            if is_directory:
                yield from _walk(child, segments)
        elif fnmatchcase(name, pattern) and is_directory is bool(rest):
            yield from _walk(child, rest) if rest else [child]
    if pattern == "**":
        yield from _walk(directory, rest)


def _names(directory: str) -> list[str]:
    found = _resolver.resolve(directory or "/")
    names = found.listdir() if found.isdir() else []
    return [name for name in names if not name.startswith(".")]


def _join(directory: str, name: str) -> str:
    return f"{directory}{name}" if directory.endswith(":") else f"{directory}/{name}"

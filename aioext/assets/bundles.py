"""What a bundler has made of which source: the manifests of Vite and webpack.

A manifest is a JSON object. Two kinds of values are understood, also side by side:

* a *chunk* of Vite's ``manifest.json``, by its source: ``{"file": "assets/a-1x.js",
  "css": [...], "assets": [...], "imports": [...]}``;
* a file by its name without the hash, as webpack's plugins write them: ``"a.1x.js"``,
  or ``{"src": "a.1x.js", "integrity": "sha384-..."}``; with ``entrypoints``, what each
  of them needs, in order.

What else is in there is passed over.

Whether names change with their contents, only the names tell, for a bundler can be
configured to leave the hash out. A *hashed* name has a part of eight characters or more
that looks like no word and is not in the name of the source. One that is missed is not
kept for ever; the other mistake would be a file that nobody gets when it has changed,
so a name in doubt counts as one without.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

__all__ = ["Bundle", "Chunk", "Entry", "is_hashed", "parse"]


@dataclass(frozen=True)
class Chunk:
    """One file, and what has to be there with it.

    Attributes:
        file: its path below the bundler's directory.
        css: the stylesheets that it imports.
        imports: the names of the chunks that it imports.
        is_module: whether it is a module of JavaScript, if it is a script.
    """

    file: str
    css: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    is_module: bool = False


@dataclass
class Entry:
    """What a page needs for one entry: paths, in the order of their tags."""

    styles: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    preloads: list[str] = field(default_factory=list)

    def add(self, chunk: Chunk) -> None:
        """Add a chunk's own file."""
        if chunk.file.endswith(".css"):
            self.styles.append(chunk.file)
        elif chunk.is_module:
            self.modules.append(chunk.file)
        else:
            self.scripts.append(chunk.file)


@dataclass
class Bundle:
    """A manifest, read.

    Attributes:
        chunks: by the names of their sources.
        entrypoints: of webpack, the files that each needs.
        integrity: the hashes of files, as the attribute of that name has them.
        hashed: the files whose names change with what is in them.
    """

    chunks: dict[str, Chunk] = field(default_factory=dict)
    entrypoints: dict[str, tuple[str, ...]] = field(default_factory=dict)
    integrity: dict[str, str] = field(default_factory=dict)
    hashed: set[str] = field(default_factory=set)

    @property
    def entries(self) -> list[str]:
        """The names that :meth:`entry` knows."""
        return sorted({*self.entrypoints, *self.chunks})

    def entry(self, name: str) -> Entry | None:
        """What a page needs for an entry; None: there is none of that name.

        Args:
            name: a source's, as ``src/main.js``; or an entry point's, as ``main``.
        """
        entry = Entry()
        if name in self.entrypoints:
            for file in self.entrypoints[name]:
                entry.add(Chunk(file))
            return entry
        if name in self.chunks:
            self._collect(self.chunks[name], entry)
            return entry
        both = [self.chunks.get(f"{name}.{kind}") for kind in ("css", "js")]
        for chunk in filter(None, both):
            entry.add(chunk)
        return entry if any(both) else None

    def _collect(self, chunk: Chunk, entry: Entry) -> None:
        # Styles of what is imported come first, as they would in the source.
        for each in self._imported(chunk, {chunk.file}):
            entry.styles += each.css
            entry.preloads.append(each.file)
        entry.styles += chunk.css
        entry.add(chunk)
        entry.styles = list(dict.fromkeys(entry.styles))

    def _imported(self, chunk: Chunk, seen: set[str]) -> Iterator[Chunk]:
        for name in chunk.imports:
            each = self.chunks.get(name)
            if each is not None and each.file not in seen:
                seen.add(each.file)
                yield from self._imported(each, seen)
                yield each


def parse(content: bytes, public_path: str = "", hashed: bool | None = None) -> Bundle:
    """Read a manifest.

    Args:
        content: the JSON.
        public_path: what the bundler has put before the names of files.
        hashed: whether the names are hashed; None: each tells by itself.

    Raises:
        ValueError: it is no manifest; with what is wrong in it.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    reader = _Reader(public_path, hashed)
    for name, value in found.items():
        if name == "entrypoints" and isinstance(value, dict):
            reader.read_entrypoints(value)
        else:
            reader.read(name, value)
    return reader.bundle


class _Reader:
    def __init__(self, public_path: str, hashed: bool | None) -> None:
        self.bundle = Bundle()
        self._public_path = public_path
        self._hashed = hashed

    def read(self, name: str, value: Any) -> None:
        match value:
            case str(file):
                chunk = Chunk(self._file(file, name))
            case {"file": str(file)}:
                chunk = self._chunk(file, name, value)
            case {"src": str(file)}:
                chunk = Chunk(self._file(file, name))
                if isinstance(integrity := value.get("integrity"), str):
                    self.bundle.integrity[chunk.file] = integrity
            case _:
                return
        self.bundle.chunks[name] = chunk

    def _chunk(self, file: str, name: str, value: Mapping[str, Any]) -> Chunk:
        # Vite's name of what several sources share has an underscore, and the hash.
        source = None if name.startswith("_") else name
        for each in _strings(value.get("assets")):
            self._file(each, None)
        css = tuple(self._file(each, None) for each in _strings(value.get("css")))
        imports = tuple(_strings(value.get("imports")))
        return Chunk(self._file(file, source), css, imports, is_module=True)

    def read_entrypoints(self, value: dict[str, Any]) -> None:
        for name, found in value.items():
            if not isinstance(found, dict):
                continue
            by_kind = found.get("assets", found)
            if isinstance(by_kind, dict):
                files = [*_strings(by_kind.get("css")), *_strings(by_kind.get("js"))]
                self.bundle.entrypoints[name] = tuple(
                    self._file(each, None) for each in files
                )

    def _file(self, given: str, source: str | None) -> str:
        file = given.removeprefix(self._public_path).removeprefix("./")
        if file.startswith("/") or "://" in file:
            raise ValueError(OUTSIDE.format(given))
        if {"", ".", ".."} & set(file.split("/")) or set("\0\\") & set(file):
            raise ValueError(f"{given!r} is not below the directory")
        is_sure = is_hashed(file, source) if self._hashed is None else self._hashed
        if is_sure:
            self.bundle.hashed.add(file)
        return file


def _strings(value: Any) -> list[str]:
    if not isinstance(value, list):
        return []
    return [each for each in value if isinstance(each, str)]


# A part of a name that a hash can be: after a separator, before a dot.
_PART = re.compile(r"(?<=[._-])[0-9A-Za-z_-]{8,64}(?=\.)")

# A word, in the spelling of names, with a number; or a number.
_WORD = re.compile(r"[A-Za-z]?[a-z]*(?:[A-Z][a-z]+)*[0-9]{0,3}|[0-9]+|[A-Z]+")


def is_hashed(file: str, source: str | None) -> bool:
    """Whether the name of a file is sure to change with what is in it.

    Args:
        file: its path.
        source: the path of what it was made of, if that is known.
    """
    known = PurePosixPath(source).name if source else ""
    parts = _PART.findall(PurePosixPath(file).name)
    return any(part not in known and _looks_random(part) for part in parts)


def _looks_random(part: str) -> bool:
    # Base64 for addresses has dashes and underscores as well.
    return any(not _WORD.fullmatch(each) for each in re.split("[-_]", part))


OUTSIDE = """\
{!r} is not relative to the bundler's directory; give what all names there begin with \
as public_path="/static/", for example"""

"""Ready-made builders for ``config.add_built_asset``; see :doc:`/built`.

The libraries are optional, and looked for when a builder is made. Of each file that is
joined, a mark of the byte order at its beginning is left out.

libsass holds the interpreter's lock for as long as it compiles, in whatever thread it
is called, and the event loop would stand still. It is called in a process of its own.
The others are quick: a megabyte takes them some thousandths of a second.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyramid.exceptions import ConfigurationError

from ...exceptions import BuildError, explain
from . import commands
from .sources import locate

__all__ = ["command", "css", "js", "scss"]

ANCHOR = "built-assets"

# Seconds that a command, or a style sheet, may take.
TIMEOUT = 60.0

STYLES = ("compressed", "expanded")


def command(
    line: str | Iterable[str],
    *,
    timeout: float | None = TIMEOUT,
    shell: bool = False,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> Command:
    """A builder that runs a program.

    Args:
        line: the program and its arguments, in one string, quoted as for a shell, or
            in several. ``{sources}``, an argument by itself, stands for the paths of
            the sources, ``{source}`` for that of the first one, ``{target}`` for the
            path to write to. Without ``{target}``, what the program writes to its
            standard output is the file.
        timeout: seconds after which it is ended; None: any time.
        shell: have a shell interpret ``line``, one string; paths are quoted for it.
        cwd: its directory, an absolute path; by default the one of this process.
        env: what its environment has beside that of this process.

    Raises:
        ConfigurationError: ``line`` is empty, or has a placeholder where it cannot be;
            ``cwd`` is not absolute.
    """
    words = _words(line, shell)
    directory = None if cwd is None else os.fspath(cwd)
    if directory is not None and not os.path.isabs(directory):
        raise _error(NOT_ABSOLUTE.format(directory))
    added = tuple(sorted((env or {}).items()))
    return Command(words, timeout, shell, directory, added)


def scss(*, style: str = "compressed", include: str | Iterable[str] = ()) -> Scss:
    """A builder of style sheets, by libsass: SCSS, or Sass for names in ``.sass``.

    What a source imports is a source as well: the style sheet is built again when it
    changes. Several sources are compiled one by one, and joined. It is done in a
    process of its own.

    Args:
        style: ``compressed`` or ``expanded``.
        include: directories in which ``@import`` looks, after that of the importing
            file: asset specifications, ``package:path``, or absolute paths.

    Raises:
        ConfigurationError: libsass is not installed, or there is no such style.
    """
    _need("sass", "libsass")
    if style not in STYLES:
        raise _error(NO_STYLE.format(style))
    paths = (include,) if isinstance(include, str) else tuple(include)
    for each in paths:
        if not (os.path.isabs(each) or ":" in each):
            raise _error(NO_INCLUDE.format(each))
    return Scss(style, paths)


def css(*, minify: bool = True) -> Joined:
    """A builder that joins style sheets, in order, and has rcssmin make them smaller.

    Args:
        minify: False: they are only joined.

    Raises:
        ConfigurationError: rcssmin is not installed.
    """
    if minify:
        _need("rcssmin", "rcssmin")
    return Joined("css", minify)


def js(*, minify: bool = True) -> Joined:
    """A builder that joins scripts, in order, and has rjsmin make them smaller.

    Args:
        minify: False: they are only joined.

    Raises:
        ConfigurationError: rjsmin is not installed.
    """
    if minify:
        _need("rjsmin", "rjsmin")
    return Joined("js", minify)


@dataclass(frozen=True)
class Command:
    """What :func:`command` makes."""

    words: tuple[str, ...]
    timeout: float | None
    shell: bool
    cwd: str | None
    env: tuple[tuple[str, str], ...]

    def __call__(self, sources: list[Path], target: Path) -> None:
        """Run the program."""
        words = self._filled([str(each) for each in sources], str(target))
        options: Any = {"timeout": self.timeout, "cwd": self.cwd, "env": dict(self.env)}
        if any("{target}" in each for each in self.words):
            commands.run(words, **options)
            return
        with open(target, "wb") as output:
            commands.run(words, stdout=output, **options)

    def _filled(self, sources: list[str], target: str) -> list[str] | str:
        if self.shell:
            return _fill(
                self.words[0], shlex.join(sources[:1]), shlex.quote(target)
            ).replace("{sources}", shlex.join(sources))
        words: list[str] = []
        for word in self.words:
            if word == "{sources}":
                words += sources
            else:
                words.append(_fill(word, sources[0], target))
        return words


def _fill(word: str, source: str, target: str) -> str:
    return word.replace("{source}", source).replace("{target}", target)


@dataclass(frozen=True)
class Scss:
    """What :func:`scss` makes."""

    style: str
    include: tuple[str, ...]

    def __call__(self, sources: list[Path], target: Path) -> list[str]:
        """Compile the style sheets; gives what they have imported."""
        task = {
            "sources": [str(each) for each in sources],
            "target": str(target),
            "style": self.style,
            "include": [locate(each) for each in self.include],
        }
        program = Path(__file__).with_name("sass_program.py")
        # -P: what stands beside the program is not imported by it.
        words = [_interpreter(), "-P", str(program), json.dumps(task)]
        return json.loads(commands.run(words, timeout=TIMEOUT, shown="libsass"))


@dataclass(frozen=True)
class Joined:
    """What :func:`css` and :func:`js` make."""

    kind: str
    minify: bool

    def __call__(self, sources: list[Path], target: Path) -> None:
        """Join the files."""
        shrink = _shrinker(self.kind) if self.minify else str
        parts = [str(shrink(_read(each))).strip() for each in sources]
        if self.kind == "js":
            # The next one may begin with a bracket, which would call this one.
            parts = [part if part.endswith(";") else f"{part}\n;" for part in parts]
        text = "\n".join(part for part in parts if part)
        target.write_text(f"{text}\n", "utf-8", newline="\n")


def _shrinker(kind: str) -> Any:
    if kind == "css":
        from rcssmin import cssmin

        return cssmin
    from rjsmin import jsmin

    return jsmin


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BuildError(NOT_UTF8.format(path, error)) from error


def _interpreter() -> str:
    # Where Python is embedded, in uWSGI for one, this process' program is another.
    if os.path.basename(sys.executable or "").startswith("python"):
        return sys.executable
    found = shutil.which("python3", path=os.path.join(sys.prefix, "bin"))
    if found is None:
        raise BuildError(NO_INTERPRETER.format(sys.prefix))
    return found


def _words(line: Any, shell: bool) -> tuple[str, ...]:
    if isinstance(line, str):
        try:
            words = (line,) if shell else tuple(shlex.split(line))
        except ValueError as error:
            raise _error(NOT_SPLIT.format(line, error)) from None
    else:
        words = tuple(line)
    if not all(isinstance(each, str) for each in words) or not "".join(words).strip():
        raise _error(NO_COMMAND.format(line))
    if shell and not isinstance(line, str):
        raise _error(NO_LINE.format(line))
    if not shell and any("{sources}" in each and each != "{sources}" for each in words):
        raise _error(NOT_ALONE.format(line))
    return words


def _need(module: str, distribution: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise _error(NOT_INSTALLED.format(distribution))


def _error(message: str) -> ConfigurationError:
    return ConfigurationError(explain(message, ANCHOR))


NOT_INSTALLED = """\
{} is not installed, which this builder needs: pip install 'aioext[assets]'."""

NO_STYLE = """\
scss() takes for style "compressed" or "expanded", got {!r}."""

NO_INCLUDE = """\
scss() takes for include asset specifications, "package:path", or absolute paths, got \
{!r}."""

NO_COMMAND = """\
command() takes a program and its arguments, in one string or in several, got {!r}. \
Write command("esbuild {{source}} --outfile={{target}}")."""

NOT_ABSOLUTE = """\
command() takes an absolute path for cwd, got {!r}."""

NO_LINE = """\
command() takes one string with shell=True, got {!r}."""

NOT_SPLIT = """\
command() was given {!r}, which cannot be split into words: {}. Quote it as for a \
shell, or give the words in a list."""

NOT_ALONE = """\
command() was given {!r}. "{{sources}}" stands for several paths, and has to be an \
argument by itself; "{{source}}" is the first of them."""

NOT_UTF8 = "{} is not UTF-8: {}."

NO_INTERPRETER = """\
There is no Python interpreter in {}/bin to run libsass with."""

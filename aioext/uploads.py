"""Keeping the files that clients upload: :func:`save`.

Theory of operation
===================

A file is copied in a thread, to a name that nobody asks for (``.<random>.part``) in the
directory where it is to be, and gets its own name when it is complete. So whoever looks
into the directory sees whole files, and what fails, for a full disk, leaves nothing.

The name is given by a hard link, which the system makes for one of two who want the
same name, and refuses the other: that one tries the next. Not every file system has
links. There an empty file is made instead, which one of two can make as well, and is
replaced by the copy. To look first whether a name is free, and to take it then, would
have one of two requests overwrite the other's file.

After :data:`TRIES` names a random one is taken, for a client that sends the same name
again and again would have every request look through all of them.

The thread lets its request be cancelled after each block, by waiting for nothing; a
thread that does not wait cannot be interrupted. A cancellation that comes later finds
the file complete, and removes it. What has been overwritten by then cannot come back:
the new file stays.

*Names.* What a client calls its file is text that anybody can make up. :func:`tame`
makes a name of it that means the same on every system: one part, without what is
invisible, without what another program takes for an option, a hidden file, a pattern or
a device.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import unicodedata
from pathlib import Path
from typing import Any

from pyramid.path import AssetResolver

from . import bridge
from .executor import current_executor
from .forms import BadForm

__all__ = ["BadForm", "save", "tame"]

BLOCK = 1_048_576
# Bytes of a name; most file systems have 255, and a number may have to be added.
LONGEST = 240
LONGEST_SUFFIX = 32
# Numbers that are tried before a name that is surely free.
TRIES = 100

UNIQUE, OVERWRITE = "u", "o"

DIGITS = "[0-9\u00b9\u00b2\u00b3]"
DEVICES = re.compile(rf"(?i)(?:con|prn|aux|nul|com{DIGITS}|lpt{DIGITS})\s*(?:\.|$)")
SPECIAL = re.compile(r'[<>:"|?*%$`\'&;!{}~#\[\]]+')


async def save(
    field: Any,
    into: str | os.PathLike[str],
    name: str | None = None,
    mkdir: bool = False,
    dup: str = UNIQUE,
) -> Path:
    """Save an uploaded file.

    Runs in a thread of the executor. One field is saved, or read, by one at a time; its
    file is at its beginning afterwards. ::

        form = await request.form()
        path = await save(form["picture"], "/srv/pictures")

    Args:
        field: a file of ``request.form()`` or ``request.POST``; anything that has a
            ``file`` and a ``filename``.
        into: the directory; an asset specification (``package:directory``) as well.
        name: what the file is to be called; None: what its client calls it, made
            harmless by :func:`tame`.
        mkdir: make the directory, and those around it, if they are missing.
        dup: if there is a file of that name: ``"u"``: take another name, that is
            ``a.1.png`` for ``a.png``; ``"o"``: replace it, at once and as a whole.

    Returns:
        the path of the file, whose last part is the name that it was given.

    Raises:
        BadForm: the field has no file (a form that was sent without choosing one has
            an empty string there), or its name has nothing that could be used, or is
            that of a directory and ``dup`` is ``"o"``: 400.
        FileNotFoundError: there is no such directory.
        OSError: the file cannot be written.
        TypeError, ValueError: the other arguments are not as above.

    Cancellation: ends soon, and leaves no file behind. With ``dup="o"`` there is either
    the old one or the new one.
    """
    if dup not in (UNIQUE, OVERWRITE):
        raise ValueError(DUP.format(dup))
    file = _file_of(field)
    saving = _Saving(_directory(into), _name_of(field, name), dup)
    try:
        return await current_executor().run(saving.run, file, mkdir)
    except BaseException:
        # On the loop, for a second cancellation would keep a thread from it; these are
        # two calls of the system at most.
        saving.undo()
        raise


def _file_of(field: Any) -> Any:
    if isinstance(field, (str, bytes)):
        raise BadForm(NO_FILE)
    file = getattr(field, "file", None)
    if not hasattr(file, "read") or not hasattr(field, "filename"):
        raise TypeError(NO_FIELD.format(type(field).__name__))
    return file


def _name_of(field: Any, name: str | None) -> str:
    if name is None:
        tamed = tame(field.filename or "")
        if not tamed:
            raise BadForm(NO_NAME.format(field.filename))
        return tamed
    if name in ("", ".", "..") or re.search(r"[/\\\x00-\x1f]", name):
        raise ValueError(NOT_A_NAME.format(name))
    return name


def _directory(into: str | os.PathLike[str]) -> Path:
    if isinstance(into, str) and ":" in into and not os.path.isabs(into):
        into = AssetResolver(None).resolve(into).abspath()
    return Path(into)


def tame(name: str) -> str:
    r"""A harmless file name, made of what a client calls its file.

    It has no directories (of ``/`` or ``\``), nothing invisible, no leading dots or
    dashes, nothing that is special to a shell or to Windows, no name of a device
    (``nul.txt``), and 240 bytes of UTF-8 at most. Letters of all alphabets stay as they
    are, in their composed form (NFC).

    Args:
        name: of any length and any contents.

    Returns:
        the name; "" if nothing is left. To tame it once more changes nothing.
    """
    name = re.split(r"[/\\]", name)[-1]
    name = "".join(each for each in name if unicodedata.category(each)[0] != "C")
    name = unicodedata.normalize("NFC", " ".join(name.split()))
    name = SPECIAL.sub("_", name).lstrip(" .-").rstrip(" .")
    if DEVICES.match(name):
        name = f"_{name}"
    return _shorten(name)


def _shorten(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    if len(suffix.encode()) > LONGEST_SUFFIX:
        stem, suffix = name, ""
    room = LONGEST - len(suffix.encode())
    # What is cut in the middle of a character is left out.
    stem = stem.encode()[:room].decode("utf-8", "ignore")
    return (stem.rstrip(" .") if len(stem) < len(name) - len(suffix) else stem) + suffix


class _Saving:
    # One file on its way.
    def __init__(self, directory: Path, name: str, dup: str) -> None:
        self._directory = directory
        self._name = name
        self._dup = dup
        self._part = directory / f".{secrets.token_hex(8)}.part"
        self._path: Path | None = None

    def run(self, file: Any, mkdir: bool) -> Path:
        """Do it, in a thread."""
        if mkdir:
            self._directory.mkdir(parents=True, exist_ok=True)
        elif not self._directory.is_dir():
            raise FileNotFoundError(NO_DIRECTORY.format(self._directory))
        self._copy(file)
        if self._dup == UNIQUE:
            return self._take_a_name()
        return self._replace()

    def _copy(self, file: Any) -> None:
        file.seek(0)
        # "x": the mode of the file is what the umask says, as of any other file.
        with open(self._part, "xb") as copy:
            while block := file.read(BLOCK):
                copy.write(block)
                if len(block) == BLOCK:
                    bridge.wait(asyncio.sleep(0))
        file.seek(0)

    def _replace(self) -> Path:
        path = self._directory / self._name
        try:
            os.replace(self._part, path)
        except IsADirectoryError:
            raise BadForm(DIRECTORY.format(self._name)) from None
        return path

    def _take_a_name(self) -> Path:
        stem, suffix = os.path.splitext(self._name)
        for number in range(TRIES):
            if self._take(f"{stem}.{number}{suffix}" if number else self._name):
                return self._done()
        while not self._take(f"{stem}.{secrets.token_hex(6)}{suffix}"):
            pass
        return self._done()

    def _take(self, name: str) -> bool:
        path = self._directory / name
        try:
            os.link(self._part, path)
        except FileExistsError:
            return False
        except OSError:
            return self._take_without_links(path)
        self._path = path
        os.unlink(self._part)
        return True

    def _take_without_links(self, path: Path) -> bool:
        try:
            open(path, "xb").close()
        except FileExistsError:
            return False
        self._path = path
        os.replace(self._part, path)
        return True

    def _done(self) -> Path:
        assert self._path is not None
        return self._path

    def undo(self) -> None:
        """Remove what is there."""
        for path in (self._part, self._path):
            if path is not None:
                with contextlib.suppress(OSError):
                    path.unlink()


NO_FILE = "No file was sent where one was expected."

NO_NAME = "The name {!r} of the file that was sent has nothing that can be used."

DIRECTORY = "The file that was sent cannot be called {!r}: there is a directory."

NO_FIELD = """\
save() was given an object of type {}, which is no uploaded file. Give it a field of \
the form: save((await request.form())["name"], into)."""

NOT_A_NAME = """\
name={!r} is no name of a file. Directories belong into the second argument; \
tame(name) makes a name of any text."""

NO_DIRECTORY = "There is no directory {}; save(..., mkdir=True) makes it."

DUP = """\
dup={!r}: write "u" for a name that is not taken, or "o" to overwrite what is there."""

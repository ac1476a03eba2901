"""Whether a file is in a directory, whoever moves links meanwhile.

Theory of operation
===================

Somebody who may write to the directory of a static view may put a symbolic link there,
and may do so between the look at a path and its use. So what counts is the file that
was opened, and not its path: it is in the directory if a walk from there, which follows
no link at all, comes to the same file. The walk takes the path without links, as the
system says it is at that moment; if that is no longer so, the walk fails, or comes to
another file.

A file that is replaced at this moment, by a deployment say, fails in the same way. So
it is opened once more.

Things that do not work
=======================

* To compare real paths before the file is opened, or after: two moments, and another
  file may be there at each.
* To have ``open()`` follow no link: the last part alone is meant by that, and links
  within the directory are to be followed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import Any

from .files import Entry

__all__ = ["leads_inside", "open_inside", "root_around"]

# How often a file is opened that is another one each time.
TRIES = 3

_DIRECTORY = (
    getattr(os, "O_PATH", os.O_RDONLY)
    | getattr(os, "O_DIRECTORY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
)
_CAN_WALK = {os.open, os.stat} <= os.supports_dir_fd

Opened = tuple[Entry, Any]


def root_around(path: str, subpath: Sequence[str]) -> str:
    """The directory of a file, by as many segments as ``subpath`` has in common."""
    root = path
    for part in reversed(subpath):
        if os.path.basename(root) != part:
            break
        root = os.path.dirname(root)
    return root


def leads_inside(root: str, path: str) -> bool:
    """Whether a path leads to something in ``root``, at this moment. Blocks."""
    return _parts(root, path) is not None


def open_inside(
    root: str | None, path: str, open_it: Callable[[], Opened], forget: Any
) -> Opened:
    """Open a file, and be sure that it is in a directory. Blocks.

    Args:
        root: the directory, or ``path`` itself; None: it may be anywhere.
        path: of the file.
        open_it: gives its entry, and what is closed if the file is another one.
        forget: is called with ``path`` then.

    Raises:
        FileNotFoundError: it is not.
        OSError, ValueError: as of ``open_it``.
    """
    for _ in range(TRIES):
        entry, body = open_it()
        try:
            if root is None or root == path or _is_in(root, path, entry):
                return entry, body
        except BaseException:
            _close(body)
            raise
        _close(body)
        forget(path)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _close(body: Any) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()


def _is_in(root: str, path: str, entry: Entry) -> bool:
    parts = _parts(root, path)
    if parts is None:
        return False
    try:
        status = _walk(os.path.realpath(root), parts)
    except OSError:
        return False
    return entry.is_of(status)


def _parts(root: str, path: str) -> list[str] | None:
    try:
        real, root = os.path.realpath(path), os.path.realpath(root)
    except OSError:
        # What was a link is none any more.
        return None
    if real == root:
        return []
    if os.path.commonpath((real, root)) != root:
        return None
    return os.path.relpath(real, root).split(os.sep)


def _walk(root: str, parts: list[str]) -> os.stat_result:
    if not parts or not _CAN_WALK:
        return os.lstat(os.path.join(root, *parts))
    directory = os.open(root, _DIRECTORY)
    try:
        for part in parts[:-1]:
            below = os.open(part, _DIRECTORY, dir_fd=directory)
            os.close(directory)
            directory = below
        return os.stat(parts[-1], dir_fd=directory, follow_symlinks=False)
    finally:
        os.close(directory)

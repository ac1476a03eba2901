"""Where built files are kept on disk.

Each has a directory of its own, with the file under its name, a record of what it was
made of, and a lock::

    app.css                  what is served
    .record.json             its inputs, as they were, and its size
    .lock                    held while it is built, by one process of several
    .building-…/app.css      what a builder writes

A reader never finds a part of a file: it is written elsewhere and renamed. It is
renamed before its record is; a process that ends between the two leaves a file that is
built again, as one does that ends earlier.

A file that is built again and comes out the same is left as it is, and keeps its time,
so that browsers keep what they have.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # pragma: no cover
    # Not on Windows: processes may build the same file at once there.
    fcntl = None

__all__ = ["Slot", "default_directory", "states"]

BUILDING = ".building-"
LOCK = ".lock"
RECORD = ".record.json"

# Of a path: its time in nanoseconds and its size; None if it is missing.
State = list[int] | None


def default_directory() -> Path:
    """Where files are cached unless a setting says so: the cache of the user.

    Not the system's directory for temporary files: that is swept, and anybody may
    write there.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()
    return home / "aioext" / "assets"


def states(paths: Iterable[str]) -> dict[str, State]:
    """What tells that a file has changed, for each of ``paths``."""
    return {path: _state(path) for path in paths}


def _state(path: str) -> State:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_mtime_ns, found.st_size]


class Slot:
    """The place of one built file.

    Args:
        directory: of its own; made when something is built.
        name: of the file.

    Attributes:
        path: of the file, which need not be there.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.path = directory / name
        self._record = directory / RECORD

    def inputs(self) -> dict[str, State]:
        """What the file was made of, as it was then; empty if there is no file."""
        try:
            record = json.loads(self._record.read_text("utf-8"))
            inputs, size = dict(record["inputs"]), record["size"]
            is_whole = self.path.stat().st_size == size
        except (OSError, ValueError, KeyError, TypeError):
            # Never built, or written by another version, or damaged: no matter.
            return {}
        return inputs if is_whole else {}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock; what others have left unfinished is removed.

        Raises:
            OSError: the directory cannot be written to.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.directory / LOCK, "ab") as lock:
            if fcntl is None:  # pragma: no cover
                yield
                return
            _locks.add(lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for left in self.directory.glob(f"{BUILDING}*"):
                    shutil.rmtree(left, ignore_errors=True)
                yield
            finally:
                _locks.discard(lock)
                # Closing the file would not do: a process that was forked may have
                # it, too.
                fcntl.flock(lock, fcntl.LOCK_UN)

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Give the path to write to, under the name of the file."""
        with tempfile.TemporaryDirectory(
            prefix=BUILDING, dir=self.directory, ignore_cleanup_errors=True
        ) as work:
            yield Path(work) / self.path.name

    def store(self, written: Path, inputs: Mapping[str, State]) -> bool:
        """Have ``written`` be the file, made of ``inputs``.

        Returns:
            whether it differs from what was there.
        """
        changed = not (self.path.is_file() and _same(written, self.path))
        record: dict[str, Any] = {"inputs": inputs, "size": written.stat().st_size}
        if changed:
            os.replace(written, self.path)
        beside = written.with_name(RECORD)
        beside.write_text(json.dumps(record), "utf-8")
        os.replace(beside, self._record)
        return changed


# The files by which this process holds locks, or waits for them.
_locks: set[IO[bytes]] = set()


def _forget_after_fork() -> None:
    # They are the parent's. If it is killed, nobody else is to hold them any longer.
    for lock in _locks:
        lock.close()
    _locks.clear()


if fcntl is not None:
    os.register_at_fork(after_in_child=_forget_after_fork)


def _same(one: Path, other: Path) -> bool:
    return filecmp.cmp(one, other, shallow=False)

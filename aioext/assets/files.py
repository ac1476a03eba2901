"""Files as they are now, the small ones in memory.

Theory of operation
===================

An :class:`Entry` is what one look at a file has found: its size, its time, the ETag
that follows from them, and the bytes of a small file that was asked for. It does not
change, but for the bytes, which are dropped when others need the room. Whoever holds an
entry may therefore answer with it, whatever becomes of the file meanwhile.

:class:`Files` keeps entries. One that was found a second ago is taken for true without
another look; that is what makes a file that is asked for often cost no thread and no
system call. After that the first who asks looks again, in a thread of the executor;
others have the old entry in the meantime. A file that has the same device, inode, size
and times is the same file, unless it was written within the two seconds before it was
read: clocks of file systems are that coarse, and two writes may fall into one tick.

The room is bounded twice: so many bytes, and so many entries. What was not used since
it was last considered goes first (the algorithm is called CLOCK): a hit then is a mere
assignment, and needs no lock, though several threads ask at once.

Things that do not work
=======================

* To compute the ETag of the bytes: for that of a large file, all of it would have to be
  read, and one file must not change its ETag when it is dropped from the memory.
* To open a file and ask afterwards what it is: a FIFO holds the thread until somebody
  writes to it. It is opened without waiting.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import time
import weakref
from typing import IO, Any

from ..conditional import format_date
from ..executor import current_executor
from ..interfaces import IFiles

__all__ = [
    "SMALL",
    "Entry",
    "Files",
    "files_of",
    "open_file",
]

# Bytes that a file may have to be kept in memory, and to be sent in one piece.
SMALL = 262_144

# How many files are known at once, and how many bytes of them are kept by default.
MAX_ENTRIES = 8192
MEMORY = 16 * 1024**2

# Seconds for which a look at a file holds, and within which two writes may look alike.
FRESH = 1.0
TICK_NS = 2_000_000_000

# What is read at once for a digest.
_BLOCK = 1024**2

# How often a file is read that becomes shorter meanwhile.
READS = 3


class Entry:
    """One file, as it was when somebody looked.

    Attributes:
        path: its absolute path.
        size: in bytes.
        mtime_ns: when it was last changed, in nanoseconds since 1970.
        etag: a strong entity tag of size and time, with its quotes.
        last_modified: the time, as the header of that name has it.
        body: the bytes, if it is small and was read; they may be dropped at any time.
        digest: SHA-256 of the bytes in hexadecimal, once it was asked for.
    """

    __slots__ = (
        "_checked",
        "_is_settled",
        "_is_used",
        "_stamp",
        "body",
        "digest",
        "etag",
        "last_modified",
        "mtime_ns",
        "path",
        "size",
    )

    def __init__(self, path: str, status: os.stat_result) -> None:
        self.path = path
        self.size = status.st_size
        self.mtime_ns = status.st_mtime_ns
        self.etag = f'"{self.mtime_ns:x}-{self.size:x}"'
        self.last_modified = format_date(self.mtime)
        self.body: bytes | None = None
        self.digest: str | None = None
        self._stamp = _stamp(status)
        # Whether a change after this look is sure to change the stamp.
        self._is_settled = _is_settled(status)
        self._checked = 0.0
        self._is_used = False

    @property
    def mtime(self) -> int:
        """When it was last changed, in whole seconds since 1970."""
        return self.mtime_ns // 10**9

    def etag_of(self, encoding: str | None) -> str:
        """The ETag of the file as it is sent with a ``Content-Encoding``."""
        return self.etag if encoding is None else f'{self.etag[:-1]}-{encoding}"'

    def is_of(self, status: os.stat_result) -> bool:
        """Whether that is the same file, whatever is in it by now."""
        return self._stamp[:2] == (status.st_dev, status.st_ino)

    def touch(self) -> None:
        """It was used, and is not among the first to be dropped."""
        self._is_used = True

    @property
    def is_small(self) -> bool:
        """Whether it is sent in one piece."""
        return self.size <= SMALL


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _is_settled(status: os.stat_result) -> bool:
    now = time.time_ns()
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return all(abs(now - each) > TICK_NS for each in times)


def open_file(path: str) -> tuple[IO[bytes], os.stat_result]:
    """Open a regular file, unbuffered, and say what it is. Blocks.

    Raises:
        OSError: it is not there, cannot be read, or is no regular file.
        ValueError: this is no path at all.
    """
    file = open(path, "rb", buffering=0, opener=_open_at_once)
    try:
        status = os.fstat(file.fileno())
        _require_file(path, status)
    except BaseException:
        file.close()
        raise
    return file, status


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _require_file(path: str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", path)


class Files:
    """The files that an application has looked at.

    Args:
        memory: how many bytes of small files are kept.
        fresh: seconds for which a look holds; 0: somebody who asks looks.

    Its methods raise OSError, or ValueError for what is no path, if there is no such
    regular file, or if it cannot be read.
    """

    def __init__(self, memory: int = MEMORY, fresh: float = FRESH) -> None:
        self.memory = memory
        self.fresh = fresh
        # Where specifications led, and since when.
        self._paths: dict[str, tuple[str, float]] = {}
        self._entries: dict[str, Entry] = {}
        # Those of them whose bytes are kept, and how many bytes that is.
        self._bodies: dict[str, int] = {}
        self._used = 0
        self._lock = threading.Lock()
        _all_files.add(self)

    def peek(self, path: str) -> Entry | None:
        """The file, if that is known without a look. Never waits."""
        entry = self._entries.get(path)
        if entry is None or time.monotonic() - entry._checked >= self.fresh:
            return None
        entry.touch()
        return entry

    def peek_at(self, spec: str) -> Entry | None:
        """The same for a specification that was found a moment ago. Never waits."""
        path, since = self._paths.get(spec, ("", 0.0))
        if not path or time.monotonic() - since >= self.fresh:
            return None
        return self.peek(path)

    def remember(self, spec: str, path: str) -> None:
        """A specification leads to ``path``, for a moment."""
        if len(self._paths) >= MAX_ENTRIES:
            self._paths.clear()
        self._paths[spec] = path, time.monotonic()

    def entry(self, path: str) -> Entry:
        """The file as it is now; waits through the bridge for a look at it.

        Cancellation: as of :meth:`Executor.call <aioext.executor.Executor.call>`.
        """
        entry = self.peek(path)
        if entry is None:
            self._claim(path)
            entry = current_executor().call(self.look, path)
        return entry

    def digest(self, path: str) -> str:
        """SHA-256 of the file in hexadecimal; waits through the bridge if need be."""
        entry = self.peek(path)
        if entry is None or entry.digest is None:
            self._claim(path)
            entry = current_executor().call(self._look_for_digest, path)
        assert entry.digest is not None
        return entry.digest

    def _claim(self, path: str) -> None:
        # Whoever asks while this one looks has what was known before.
        entry = self._entries.get(path)
        if entry is not None:
            entry._checked = time.monotonic()

    def look(self, path: str) -> Entry:
        """Look at the file now. Blocks.

        Args:
            path: absolute.
        """
        try:
            status = os.stat(path)
            _require_file(path, status)
        except BaseException:
            self.forget(path)
            raise
        entry = self.known(path, status)
        self._keep(entry)
        return entry

    def load(self, path: str) -> tuple[Entry, bytes | None]:
        """Look at the file now, and read it; None: it is too large for that. Blocks."""
        entry = self.look(path)
        body = entry.body
        if body is None and entry.is_small:
            try:
                entry, body = self._read(entry)
            except BaseException:
                self.forget(path)
                raise
            self._keep(entry, body)
        return entry, body

    def known(self, path: str, status: os.stat_result) -> Entry:
        """The entry of a file with that status: the one that is kept, or a new one."""
        entry = self._entries.get(path)
        if entry is None or entry._stamp != _stamp(status) or not entry._is_settled:
            entry = Entry(path, status)
        return entry

    def _read(self, entry: Entry) -> tuple[Entry, bytes]:
        for _ in range(READS):
            file, status = open_file(entry.path)
            with file:
                if _stamp(status) != entry._stamp:
                    entry = Entry(entry.path, status)
                body = file.read(entry.size)
                if _stamp(os.fstat(file.fileno())) != entry._stamp:
                    # It is written at this moment; the next look has it read again.
                    entry._is_settled = False
            if len(body) == entry.size:
                return entry, body
        raise OSError(errno.EAGAIN, "The file is being written", entry.path)

    def _look_for_digest(self, path: str) -> Entry:
        entry = self.look(path)
        if entry.digest is None:
            body = entry.body
            if body is None:
                entry.digest = _digest_of_file(entry)
            else:
                entry.digest = _digest(body)
        return entry

    def forget(self, path: str) -> None:
        """Look at the file again when it is asked for next."""
        with self._lock:
            self._drop(path)

    def _keep(self, entry: Entry, body: bytes | None = None) -> None:
        entry._checked = time.monotonic()
        with self._lock:
            if self._entries.get(entry.path) is not entry:
                self._drop(entry.path)
                self._entries[entry.path] = entry
                if len(self._entries) > MAX_ENTRIES:
                    self._drop(self._idle(self._entries))
            if body is not None and entry.path not in self._bodies:
                entry.body = body
                self._bodies[entry.path] = len(body)
                self._used += len(body)
                while self._used > self.memory:
                    self._drop_body(self._idle(self._bodies))

    def _idle(self, paths: dict[str, Any]) -> str:
        # The oldest one that was not used since it came here last.
        while True:
            path = next(iter(paths))
            entry = self._entries[path]
            if not entry._is_used:
                return path
            entry._is_used = False
            paths[path] = paths.pop(path)

    def _drop(self, path: str) -> None:
        if path in self._entries:
            self._drop_body(path)
            del self._entries[path]

    def _drop_body(self, path: str) -> None:
        # Whoever has the entry still is not to keep the bytes by it.
        self._entries[path].body = None
        self._used -= self._bodies.pop(path, 0)

    def _forget_after_fork(self) -> None:
        # A thread that the child does not have may have held the lock.
        self._lock = threading.Lock()


def _digest(body: bytes) -> str:
    return hashlib.sha256(body, usedforsecurity=False).hexdigest()


def _digest_of_file(entry: Entry) -> str:
    file, _ = open_file(entry.path)
    found = hashlib.sha256(usedforsecurity=False)
    with file:
        while block := file.read(_BLOCK):
            found.update(block)
        if _stamp(os.fstat(file.fileno())) != entry._stamp:
            entry._is_settled = False
    return found.hexdigest()


_all_files: weakref.WeakSet[Files] = weakref.WeakSet()


def _forget_after_fork() -> None:
    for files in list(_all_files):
        files._forget_after_fork()


os.register_at_fork(after_in_child=_forget_after_fork)

_default = Files()


def files_of(registry: Any) -> Files:
    """Those of the application with that registry; otherwise of this process."""
    return registry.queryUtility(IFiles, default=_default)

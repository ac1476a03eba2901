"""Response bodies that wait, or block, while they are iterated over.

WSGI knows one kind of body, an iterable of bytes. These make one of an
asynchronous iterable and of a blocking iterator, so that everything between a
view and the server, whichever server that is, may treat the response like any
other.
"""

from __future__ import annotations

import asyncio
import copy
import errno
import os
import threading
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
)
from typing import IO, Any

from . import bridge
from .executor import current_executor
from .interfaces import IExecutor

__all__ = [
    "AsyncBody",
    "CalledBody",
    "ExecutorBody",
    "FileBody",
    "FileWrapper",
    "adapt_body",
    "replace_body",
]

_END = object()


class AsyncBody:
    """An iterator that waits for each chunk of an asynchronous iterable.

    A server that can iterates asynchronously, and holds no greenlet meanwhile.
    """

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._body = chunks
        self._chunks = aiter(chunks)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = bridge.wait(self._next())
        if chunk is _END:
            raise StopIteration
        return chunk

    async def _next(self) -> Any:
        # Before it begins there is nothing to await, and it may be cancelled then.
        return await anext(self._chunks, _END)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    def close(self) -> None:
        """Close the asynchronous iterator, and what it iterates over."""
        bridge.wait(self.aclose())

    async def aclose(self) -> None:
        """Close both, in a coroutine."""
        try:
            await _aclose(self._chunks)
        finally:
            if self._body is not self._chunks:
                await _aclose(self._body)


async def _aclose(closable: Any) -> None:
    aclose = getattr(closable, "aclose", None)
    if aclose is not None:
        await aclose()
    elif hasattr(closable, "close"):
        closable.close()


class CalledBody:
    """An iterator whose every step, and whose end, somebody else calls.

    Args:
        chunks: the body.
        call: calls the function that it is given, where it should run.
    """

    def __init__(
        self, chunks: Iterable[bytes], call: Callable[[Callable[[], Any]], Any]
    ) -> None:
        self._body = chunks
        self._chunks: Iterator[bytes] | None = None
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = self._call(self._next)
        if chunk is _END:
            raise StopIteration
        return chunk

    def _next(self) -> Any:
        if self._chunks is None:
            self._chunks = iter(self._body)
        return next(self._chunks, _END)

    def close(self) -> None:
        """Close the body, if it can be closed."""
        close = getattr(self._body, "close", None)
        if close is not None:
            self._call(close)

    def __getattr__(self, name: str) -> Any:
        # WebOb asks a body that can give a range of itself for it.
        if name != "app_iter_range":
            raise AttributeError(name)
        give_range = self._body.app_iter_range  # type: ignore[attr-defined]
        return lambda start, stop: self._with(give_range(start, stop))

    def _with(self, chunks: Iterable[bytes]) -> CalledBody:
        other = copy.copy(self)
        other._body, other._chunks = chunks, None
        return other


class ExecutorBody(CalledBody):
    """An iterator whose every step, and whose end, runs in a thread.

    One step at a time and none ahead, so a chunk is sent when it is made, and
    a slow client keeps no thread. Consecutive steps may run in different
    threads.
    """

    def __init__(self, chunks: Iterable[bytes], executor: IExecutor) -> None:
        super().__init__(chunks, executor.call)


class FileWrapper:
    """The ``wsgi.file_wrapper`` of :pep:`3333`.

    The file is read in threads of the executor, so that a slow disk holds
    nothing up, also where something else is wrapped around this body.

    Args:
        file: has ``read(size)``, and perhaps ``close()``.
        block_size: how many bytes are read and sent at once.
    """

    def __init__(self, file: IO[bytes], block_size: int = 262_144) -> None:
        self.file = file
        self.block_size = block_size
        close = getattr(file, "close", None)
        if close is not None:
            self.close = close
        seekable = getattr(file, "seekable", None)
        if seekable is not None and seekable():
            # WebOb asks a body that can give a range of itself for it.
            self.app_iter_range = self._give_range

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block = current_executor().call(self.file.read, self.block_size)
        if not block:
            raise StopIteration
        return block

    def _give_range(self, start: int, stop: int) -> FileBody:
        self.file.seek(start, os.SEEK_CUR)
        return FileBody(self.file, stop - start)


class FileBody:
    """A file that this opened, or a part of it, of a length that is known.

    It is read a block at a time: at once what the system has in memory, where it can
    tell (Linux), and in a thread of the executor what it has not. Dropped without being
    closed, it closes the file.

    Args:
        file: opened where the part begins.
        length: bytes of the part.
        path: if it is the whole of this file, which a server may then send by itself.
        begun: the first bytes of the part, which have been read already.

    Raises:
        OSError: from the iteration: the file cannot be read, or has become shorter.
    """

    # Few changes of threads, and little that a slow client holds.
    block_size = 262_144

    def __init__(
        self,
        file: IO[bytes],
        length: int,
        *,
        path: str | None = None,
        begun: bytes = b"",
    ) -> None:
        self.path = path
        self._file: IO[bytes] | None = file
        self._offset = file.tell()
        self._left = length
        self._begun = begun

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._left:
            raise StopIteration
        block = self._begun or self._read(min(self.block_size, self._left))
        self._begun = b""
        self._left -= len(block)
        return block

    def _read(self, size: int) -> bytes:
        file = self._file
        if file is None:
            raise ValueError("The body is closed.")
        block = _read_from_memory(file, size, self._offset)
        if block:
            # A client that takes all at once is not to keep others from their turn.
            bridge.wait(asyncio.sleep(0))
        else:
            block = current_executor().call(_read_at, file, size, self._offset)
        if not block:
            raise OSError(errno.EIO, "The file became shorter while it was sent")
        self._offset += len(block)
        return block

    def app_iter_range(self, start: int, stop: int) -> FileBody:
        """The part between two of its bytes; it takes the file, and closes it."""
        file, self._file = self._file, None
        if file is None:
            raise ValueError("The body is closed.")
        begun = self._begun[start:stop]
        # It stands behind what was read already.
        file.seek(self._offset + start + len(begun) - len(self._begun))
        return FileBody(file, stop - start, begun=begun)

    def close(self) -> None:
        """Close the file. Closing it again does nothing."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    __del__ = close


def _read_at(file: IO[bytes], size: int, offset: int) -> bytes:
    file.seek(offset)
    return file.read(size)


class _Buffer(threading.local):
    # Each thread has one, for nobody keeps it: what is read is copied out of it.
    def __init__(self) -> None:
        self.view = memoryview(bytearray(FileBody.block_size))


_buffer = _Buffer()


def _read_from_memory(file: IO[bytes], size: int, offset: int) -> bytes:
    """What the system has of a file without the disk; nothing if it cannot tell."""
    if NOWAIT is None or not bridge.in_bridge():
        return b""
    view = _buffer.view[:size]
    try:
        count = os.preadv(file.fileno(), [view], offset, NOWAIT)
    except OSError:
        # It is not in memory, or this file system cannot tell; or this is no file.
        return b""
    return bytes(view[:count])


NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)


def adapt_body(response: Any, executor: IExecutor | None = None) -> Any:
    """Make the body of what a view returned fit for WSGI.

    Args:
        response: what the view returned; something without ``app_iter`` is
            left as it is.
        executor: where a blocking body is to be iterated over; None: where it
            is asked for.

    Returns:
        ``response``.
    """
    body = getattr(response, "app_iter", None)
    if body is None or type(body) in (list, tuple):
        return response
    if hasattr(body, "__aiter__") and not hasattr(body, "__iter__"):
        replace_body(response, AsyncBody(body))
    elif executor is not None and not isinstance(body, _ADAPTED):
        replace_body(response, ExecutorBody(body, executor))
    return response


_ADAPTED = (AsyncBody, ExecutorBody, FileBody, FileWrapper)


def replace_body(response: Any, body: Any) -> None:
    """Give a response another body, of the same length."""
    # WebOb forgets the length when the body is assigned.
    length = response.content_length
    response.app_iter = body
    response.content_length = length

"""Response bodies that wait, or block, while they are iterated over.

WSGI knows one kind of body, an iterable of bytes. These make one of an
asynchronous iterable and of a blocking iterator, so that everything between a
view and the server, whichever server that is, may treat the response like any
other.
"""

from __future__ import annotations

import copy
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

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block = current_executor().call(self.file.read, self.block_size)
        if not block:
            raise StopIteration
        return block


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


_ADAPTED = (AsyncBody, ExecutorBody, FileWrapper)


def replace_body(response: Any, body: Any) -> None:
    """Give a response another body, of the same length."""
    # WebOb forgets the length when the body is assigned.
    length = response.content_length
    response.app_iter = body
    response.content_length = length

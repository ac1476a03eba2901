"""A WSGI application that blocks, called in threads of the executor.

The call, every step of the iteration over the body and its ``close()`` run in threads,
one at a time, and all of them in one context, for Flask and others give context
variables back in the body's last step. ``wsgi.input`` and ``write()`` wait for the loop
in there, as in any thread of the executor.

A gateway's ``start_response`` may be called in any thread. That of another server may
not: uWSGI's belongs to the request's own greenlet. There, what the application says is
kept, and said for it where the request is, with what it has written, before the first
part of the body. Where there is no bridge, and so nothing to wait for, everything is
the server's business, and the application is called as it is.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable
from typing import Any

from .. import bridge
from ..body import CalledBody, FileWrapper
from ..exceptions import GatewayError
from ..interfaces import IExecutor
from ..wsgi_response import CALLED_TWICE, StartResponse

__all__ = ["BlockingApplication"]


class BlockingApplication:
    """A WSGI application around one that blocks.

    Args:
        app: the application.
        executor: whose threads it is called in.
    """

    def __init__(self, app: Any, executor: IExecutor) -> None:
        self._app = app
        self._executor = executor

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Call it, and wait for it.

        Cancellation: ends only after the thread has; see :mod:`aioext.executor`.
        """
        if not bridge.in_bridge():
            return self._app(environ, start_response)
        context = contextvars.copy_context()

        def call(function: Callable[..., Any], *args: Any) -> Any:
            return self._executor.call(context.run, function, *args)

        if isinstance(start_response, StartResponse):
            body = call(self._app, environ, start_response)
            return body if type(body) in (list, tuple) else CalledBody(body, call)
        kept = _Kept(start_response)
        # The server's own is to be called where the request is, as well.
        environ["wsgi.file_wrapper"] = FileWrapper
        return _KeptBody(call(self._app, environ, kept), call, kept)


class _Kept:
    # A start_response that keeps what it is told until say() is called.

    def __init__(self, start_response: Callable[..., Any]) -> None:
        self._start_response = start_response
        self._is_told = False
        self._unsaid: tuple[Any, ...] | None = None
        self.written: list[bytes] = []
        self.is_sent = False

    def __call__(self, status: Any, headers: Any, exc_info: Any = None, /) -> Any:
        try:
            if self.is_sent and exc_info is not None:
                raise exc_info[1].with_traceback(exc_info[2])
            if self._is_told and exc_info is None:
                raise GatewayError(CALLED_TWICE)
            again = (exc_info,) if self._is_told and self._unsaid is None else ()
            self._is_told = True
            self._unsaid = (status, headers, *again)
        finally:
            exc_info = None
        return self.written.append

    def say(self) -> list[bytes]:
        # Gives what the application has written meanwhile.
        if self._unsaid is not None:
            unsaid, self._unsaid = self._unsaid, None
            self._start_response(*unsaid)
        written, self.written = self.written, []
        return written


class _KeptBody(CalledBody):
    def __init__(self, chunks: Iterable[bytes], call: Any, kept: _Kept) -> None:
        super().__init__(chunks, call)
        self._kept = kept
        self._ready = kept.say()

    def __next__(self) -> bytes:
        if not self._ready:
            self._ready = self._step()
        self._kept.is_sent = True
        return self._ready.pop(0)

    def _step(self) -> list[bytes]:
        try:
            chunk = super().__next__()
        except StopIteration:
            written = self._kept.say()
            if not written:
                raise
            return written
        return [*self._kept.say(), chunk]

"""Any WSGI application as an ASGI application, on the loop and in greenlets.

Theory of operation
===================

A request is an :class:`Exchange`. The WSGI application is called in a greenlet
of the request's own Task; so are the iteration over its body and the body's
``close()``, which may wait as well. Each chunk is sent before the next one is
asked for, so a slow client holds the application back and nothing piles up. A
body that is a list or a tuple is there already: the greenlet ends, and the
Task sends it.

While a body is sent piece by piece, a *watcher* Task looks for the client's
end, for most servers do not tell an application that does not ask. The watcher
cancels the request's Task, so the iteration ends where it waits and ``close()``
is called.

A Task that has served a request before (gunicorn's uWSGI protocol serves a
whole connection in one Task), or that was made by a request, would show the
one request's context variables to the other: such a request gets a Task and a
context to itself.

What the application raises before it has sent anything is the server's to log
and to answer. After that the connection can only be cut: the exception is
passed on, and the server does not write the end of the body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from . import background, bridge, greenlets, lifespan, threadlocal
from .body import AsyncBody, ExecutorBody, FileWrapper
from .environ import base_environ, build_environ, may_have_body
from .exceptions import ClientDisconnected
from .executor import current_executor
from .wsgi_input import EMPTY, Input
from .wsgi_response import StartResponse

__all__ = ["Gateway"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
WSGIApplication = Callable[..., Iterable[bytes]]


class Gateway:
    """An ASGI application (3.0) that serves a WSGI application.

    Speaks ``http`` and ``lifespan``. A ``websocket`` is closed before it is
    accepted, which the server answers with 403.

    Args:
        app: the WSGI application (:pep:`3333`), Pyramid or other.
        multiprocess: ``wsgi.multiprocess``: whether other processes serve the
            same application.
        isolate: give every request a Task and a context of its own, for a
            server that serves several requests in one Task.
    """

    def __init__(
        self, app: WSGIApplication, *, multiprocess: bool = False, isolate: bool = False
    ) -> None:
        self.app = app
        self._base = base_environ(multiprocess, FileWrapper)
        self._isolate = isolate
        self._serving: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ``scope``, as the ASGI specification says.

        Cancellation: raised in the application where it waits.
        """
        if scope["type"] == "http":
            loop = asyncio.get_running_loop()
            if self._serving is not loop:
                self._serve_on(loop)
            if self._isolate or threadlocal.context_is_used():
                await loop.create_task(
                    self._respond(scope, receive, send), context=threadlocal.isolated()
                )
            else:
                await self._respond(scope, receive, send)
        elif scope["type"] == "lifespan":
            await lifespan.serve(self.app, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        else:
            raise NotImplementedError(f"ASGI scope of type {scope['type']!r}")

    def _serve_on(self, loop: asyncio.AbstractEventLoop) -> None:
        self._serving = loop
        background.serve_on(loop)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        try:
            body = await greenlets.run(exchange.run, (self.app, self._base))
            if body is not None:
                await exchange.finish(body)
        except ClientDisconnected:
            pass
        except asyncio.CancelledError:
            if not exchange.cancelled_itself():
                raise
        finally:
            exchange.stop_watching()
            threadlocal.forget()


class Exchange:
    """One request and its response."""

    __slots__ = (
        "_input",
        "_receive",
        "_scope",
        "_send",
        "_task",
        "_watcher",
        "disconnected",
        "head",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._input: Input | None = None
        self._task: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.disconnected = False
        self.head = StartResponse(self.write, scope["method"])

    def run(self, app: WSGIApplication, base: dict[str, Any]) -> Any:
        """Call ``app``, in a greenlet; gives a body that is still to be sent."""
        environ = build_environ(self._scope, base)
        if may_have_body(self._scope, environ):
            self._input = Input(self._receive)
            environ["wsgi.input"] = self._input
            environ["wsgi.input_terminated"] = True
        else:
            environ["wsgi.input"] = EMPTY
        body = app(environ, self.head)
        if type(body) is list or type(body) is tuple:
            return body
        with threadlocal.pushed(threadlocal.ended_entry()):
            self._stream(_as_iterable(body))
        return None

    def _stream(self, body: Iterable[bytes]) -> None:
        self._task = asyncio.current_task()
        try:
            for chunk in body:
                if self.head.omits_body:
                    break
                if chunk:
                    self.write(chunk)
            bridge.wait(self._send_part(b"", more=False))
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()

    def write(self, chunk: bytes) -> None:
        """Send a part of the body now: the ``write()`` of :pep:`3333`."""
        bridge.wait(self._send_part(chunk, more=True))

    async def finish(self, body: list[bytes] | tuple[bytes, ...]) -> None:
        """Send a body that is there already."""
        chunk = body[0] if len(body) == 1 else b"".join(body)
        head = self.head
        try:
            if not head.sent:
                await self._send(head.message(len(chunk)))
            if head.omits_body:
                chunk = b""
            await self._send({"type": "http.response.body", "body": chunk})
        except OSError:
            # That is how a server says that the client has gone.
            raise ClientDisconnected(GONE) from None

    async def _send_part(self, chunk: bytes, more: bool) -> None:
        if self.disconnected:
            raise ClientDisconnected(GONE)
        head = self.head
        try:
            if not head.sent:
                await self._send(head.message())
            if head.omits_body:
                chunk = b""
            await self._send(
                {"type": "http.response.body", "body": chunk, "more_body": more}
            )
        except OSError:
            self.disconnected = True
            raise ClientDisconnected(GONE) from None
        if more and self._watcher is None and self._task is not None:
            self._watcher = asyncio.create_task(self._watch(self._task))

    async def _watch(self, task: asyncio.Task[Any]) -> None:
        if self._input is not None:
            await self._input.watch()
        else:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        self.disconnected = True
        task.cancel()

    def stop_watching(self) -> None:
        """The request is over."""
        if self._watcher is not None:
            self._watcher.cancel()

    def cancelled_itself(self) -> bool:
        """Whether it was only the watcher that cancelled the Task."""
        if not self.disconnected or self._task is None:
            return False
        return self._task.uncancel() == 0


def _as_iterable(body: Any) -> Iterable[bytes]:
    if isinstance(body, FileWrapper):
        return ExecutorBody(body, current_executor())
    if hasattr(body, "__aiter__") and not hasattr(body, "__iter__"):
        return AsyncBody(body)
    return body


GONE = """\
The client closed the connection before its response was complete. There is \
nobody to answer; let the exception pass."""

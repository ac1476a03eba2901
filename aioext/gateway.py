"""Any WSGI application as an ASGI application, on the loop and in greenlets.

Theory of operation
===================

A request is an :class:`Exchange`. The WSGI application is called in a greenlet
of the request's own Task; so are the iteration over its body and the body's
``close()``, which may wait as well. Each chunk is sent before the next one is
asked for, so a slow client holds the application back and nothing piles up. A
body that is a list or a tuple is there already: the greenlet ends, and the
Task sends it. So it does with an asynchronous body; a greenlet is taken for each
step of that, in case it calls synchronous code that waits. A whole file is sent by the
server itself, from its path, if that has the extension ``http.response.pathsend``.

While a body is sent piece by piece, a *watcher* Task looks for the client's
end, for most servers do not tell an application that does not ask. The watcher
cancels the request's Task, so the iteration ends where it waits and ``close()``
is called; code that swallows the cancellation ends at its next chunk. A request
that has a body is watched from its first chunk on, not before: to look is to
receive, and that invites a client that waits for ``100 Continue``. The watcher
has ended before the end of the response is sent, for to a server that is the
end of the request, which is what a watcher that still looked would be told. What
watches a request before it is answered is in :mod:`aioext.guards`.

A Task that has served a request before (gunicorn's uWSGI protocol serves a
whole connection in one Task), or that was made by a request, would show the
one request's context variables to the other: such a request gets a Task and a
context to itself.

An application may have the request answered by an ASGI application that is mounted in
it (:mod:`aioext.passage`). That gets what the server has given, and the exchange is
over before: it has received nothing, and guards only what is its own to cancel.

What the application raises before it has sent anything is the server's to log
and to answer. After that the connection can only be cut: the exception is
passed on, and the server does not write the end of the body.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from zope.interface.interfaces import IComponents

from . import background, bridge, greenlets, lifespan, threadlocal, watchdog
from .body import AsyncBody, FileBody, FileWrapper
from .environ import base_environ, build_environ, may_have_body
from .exceptions import ClientDisconnected, GatewayError
from .guards import KEY, Guarded, Lookout, Rules, rules_of
from .passage import Passage, beginning_with
from .websocket.asgi import SocketExchange, warn_of_limits
from .wsgi_input import EMPTY, Input

__all__ = ["Gateway"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
WSGIApplication = Callable[..., Iterable[bytes]]


class Gateway:
    """An ASGI application (3.0) that serves a WSGI application.

    Speaks ``http``, ``websocket`` and ``lifespan``. A WebSocket is a request
    like any other until it is accepted; see :doc:`/websocket`.

    Args:
        app: the WSGI application (:pep:`3333`), Pyramid or other.
        multiprocess: ``wsgi.multiprocess``: whether other processes serve the
            same application.
        isolate: give every request a Task and a context of its own, for a
            server that serves several requests in one Task, or begins a Task
            within another request (uvicorn for pipelined requests, unless its
            ``--reset-contextvars`` is set).
        has_websockets: the server applies every limit that an application sets
            for its WebSockets.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        multiprocess: bool = False,
        isolate: bool = False,
        has_websockets: bool = False,
    ) -> None:
        self.app = app
        self._base = base_environ(multiprocess, FileWrapper)
        # Serves a request that has a Task and a context to itself.
        self._alone = Gateway(app, multiprocess=multiprocess) if isolate else None
        self._has_websockets = has_websockets
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lookout: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ``scope``, as the ASGI specification says.

        Cancellation: raised in the application where it waits.
        """
        kind = scope["type"]
        if kind != "http" and kind != "websocket":
            await self._serve_other(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._lookout = Lookout(loop, _rules_of(self.app))
            background.serve_on(loop)
            background.end_at_exit(loop)
        if self._alone is not None or threadlocal.context_is_used():
            serving = (self._alone or self)(scope, receive, send)
            await loop.create_task(serving, context=threadlocal.isolated())
            return
        if kind == "websocket":
            serving = SocketExchange(scope, receive, send).serve(self.app, self._base)
            passage = await serving
            if passage is not None:
                await passage.serve(beginning_with(CONNECT, receive), send)
            return
        passage = None
        exchange = Exchange(scope, receive, send, self._lookout)
        try:
            body = await greenlets.run(
                exchange.run, (self.app, self._base), None, exchange.suspended
            )
            if exchange.is_guarded and exchange.was_ended_early:
                await exchange.drop(body)
            elif type(body) is list or type(body) is tuple:
                await exchange.finish(body)
            elif body is not None:
                passage = await exchange.deliver(body)
        except ClientDisconnected as error:
            # What was open where it waited, a file for its body say, ends now, and not
            # when this error, which is in a cycle of Pyramid's, is collected.
            traceback.clear_frames(error.__traceback__)
        except asyncio.CancelledError as error:
            if exchange.was_cancelled():
                raise
            if not exchange.was_ended_early:
                raise GatewayError(CANCELLED) from error
        except (Exception, GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            # A server answers and logs an Exception, and drops anything else.
            raise GatewayError(NO_EXCEPTION.format(error)) from error
        finally:
            threadlocal.forget()
            if exchange.is_guarded:
                exchange.leave()
                if exchange.has_expired:
                    await exchange.answered()
        if passage is not None:
            await passage.serve(receive, send)

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            if not self._has_websockets:
                warn_of_limits(lifespan.lifespans_of(self.app))
            await lifespan.serve(self.app, receive, send)
        else:
            raise NotImplementedError(f"ASGI scope of type {scope['type']!r}")


class Exchange(Guarded):
    """One request and its response; the application's ``start_response``."""

    def run(self, app: WSGIApplication, base: dict[str, Any]) -> Any:
        """Call ``app``, in a greenlet; gives a body that is still to be sent."""
        if watchdog.is_on:
            watchdog.note(self)
        environ = build_environ(self._scope, base)
        environ[KEY] = self
        if may_have_body(self._scope, environ):
            self._input = Input(self._receive)
            environ["wsgi.input"] = self._input
            environ["wsgi.input_terminated"] = True
        else:
            environ["wsgi.input"] = EMPTY
        body = app(environ, self)
        if type(body) is list or type(body) is tuple or type(body) is AsyncBody:
            return body
        if type(body) is Passage and self.passes:
            return body
        if type(body) is FileBody and self._is_sent_by_server(body):
            return body
        with threadlocal.pushed(threadlocal.ended_entry()):
            self._stream(_as_iterable(body))
        return None

    @property
    def passes(self) -> bool:
        """Whether a :class:`Passage` is served as one: nothing has been received."""
        if self._watcher is not None or self.sent or self.was_ended_early:
            return False
        return self._input is None or not self._input.is_begun

    def _is_sent_by_server(self, body: FileBody) -> bool:
        if body.path is None or self.sent or self.omits_body:
            return False
        return PATHSEND in (self._scope.get("extensions") or ())

    def _stream(self, body: Iterable[bytes]) -> None:
        self._begin_to_stream()
        try:
            if self._input is None and not self.omits_body:
                self._watch()
            for chunk in body:
                if self.omits_body:
                    break
                if chunk:
                    self.write(chunk)
            bridge.wait(self._send_part(b"", more=False))
        finally:
            # Nobody is to cancel the cleanup.
            self._stop_watching()
            close = getattr(body, "close", None)
            if close is not None:
                close()

    async def deliver(self, body: Any) -> Passage | None:
        """Send a body that is not there as a list; a :class:`Passage` is given back."""
        if type(body) is Passage:
            return body
        if type(body) is AsyncBody:
            await greenlets.stepped(self.stream(body))
        else:
            await self.send_file(body)
        return None

    async def stream(self, body: AsyncBody) -> None:
        """Send an asynchronous body, each chunk when it is there."""
        if not self.is_guarded:
            # Nothing has waited so far.
            self.is_streamed = True
            self.suspended()
        self._begin_to_stream()
        with threadlocal.pushed(threadlocal.ended_entry()):
            try:
                if self._input is None and not self.omits_body:
                    self._watch()
                async for chunk in body:
                    if self.omits_body:
                        break
                    if not isinstance(chunk, bytes):
                        raise GatewayError(NOT_BYTES.format(chunk))
                    if chunk:
                        await self._send_part(chunk, more=True)
                await self._send_part(b"", more=False)
            finally:
                self._stop_watching()
                await body.aclose()

    def write(self, chunk: bytes) -> None:
        """Send a part of the body now: the ``write()`` of :pep:`3333`."""
        if not isinstance(chunk, bytes):
            raise GatewayError(NOT_BYTES.format(chunk))
        if not self.is_streamed and bridge.in_bridge():
            self._begin_to_stream()
        bridge.wait(self._send_part(chunk, more=True))

    async def finish(self, body: list[bytes] | tuple[bytes, ...]) -> None:
        """Send a body that is there already."""
        chunk = body[0] if len(body) == 1 else _join(body)
        if not isinstance(chunk, bytes):
            raise GatewayError(NOT_BYTES.format(chunk))
        if self._watcher is not None:
            self.disarm()
            await self._end_watch()
        try:
            if not self.sent:
                await self._send(self.message(len(chunk)))
            if self.omits_body:
                chunk = b""
            await self._send({"type": "http.response.body", "body": chunk})
        except OSError:
            # That is how a server says that the client has gone.
            raise ClientDisconnected(GONE) from None

    async def send_file(self, body: FileBody) -> None:
        """Have the server send a file from its path."""
        try:
            if self._watcher is not None:
                self.disarm()
                await self._end_watch()
            await self._send(self.message())
            await self._send({"type": PATHSEND, "path": body.path})
        except OSError:
            raise ClientDisconnected(GONE) from None
        finally:
            body.close()

    async def _send_part(self, chunk: bytes, more: bool) -> None:
        if self._disconnected or self.has_expired:
            raise ClientDisconnected(GONE)
        if not more:
            await self._end_watch()
        try:
            if not self.sent:
                await self._send(self.message())
            if more and self._watcher is None:
                self._watch()
            if self.omits_body:
                chunk = b""
            await self._send(
                {"type": "http.response.body", "body": chunk, "more_body": more}
            )
        except OSError:
            self._disconnected = True
            raise ClientDisconnected(GONE) from None

    def _begin_to_stream(self) -> None:
        if self.was_ended_early and not self.is_streamed:
            self.warn_of_swallowed()
        self.is_streamed = True
        self._remember_task()
        self._lookout.discard(self)

    async def drop(self, body: Any) -> None:
        """Close the body of a response that comes too late."""
        if not self.is_streamed:
            self.warn_of_swallowed()
        if type(body) is AsyncBody:
            await greenlets.stepped(body.aclose())
        elif type(body) is FileBody:
            body.close()


def _rules_of(app: Any) -> Rules | None:
    registry = getattr(app, "registry", None)
    return rules_of(registry) if IComponents.providedBy(registry) else None


def _join(chunks: list[bytes] | tuple[bytes, ...]) -> bytes:
    try:
        return b"".join(chunks)
    except TypeError:
        wrong = next(each for each in chunks if not isinstance(each, bytes))
        raise GatewayError(NOT_BYTES.format(wrong)) from None


def _as_iterable(body: Any) -> Iterable[bytes]:
    if hasattr(body, "__aiter__") and not hasattr(body, "__iter__"):
        return AsyncBody(body)
    if not hasattr(body, "__iter__"):
        greenlets.close(body)
        raise GatewayError(NOT_ITERABLE.format(body))
    return body


# An extension of ASGI, and its message: the server sends a file.
PATHSEND = "http.response.pathsend"

# What a SocketExchange has received.
CONNECT = {"type": "websocket.connect"}

NOT_BYTES = """\
The WSGI application gave {!r} as a part of the body. A body is a list, or \
another iterable, of bytes: return [text.encode()]."""

NOT_ITERABLE = """\
The WSGI application returned {!r}. It has to return the body, an iterable of \
bytes: return [b"..."]. An ASGI application is served as it is, without a Gateway."""

CANCELLED = """\
The WSGI application raised CancelledError, and nobody has cancelled its request: \
something that it waited for was cancelled. Catch the error where it waits."""

NO_EXCEPTION = """\
The WSGI application raised {!r}, which is no Exception. Catch it where it is \
raised, or derive it from Exception."""

GONE = """\
The client closed the connection before its response was complete. There is \
nobody to answer; let the exception pass."""

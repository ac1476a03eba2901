"""A request in a greenlet of uWSGI's, from the execution policy to its end.

Theory of operation
===================

uWSGI calls the application in a greenlet that it has made for the request, and iterates
over the body there. So there is no gateway between them: what a
:class:`~aioext.gateway.Gateway` does elsewhere is done by the outermost execution
policy, and, for bodies, by an iterator around them.

uWSGI's functions find their request by the greenlet that calls them; in another one
they fail, and where they have to wait they crash the process. ``wsgi.input`` is made
of such functions. So each of its methods is called in the request's greenlet, whoever
calls it: a view in the executor has its request's greenlet read for it
(:meth:`aioext.adopted.AdoptedJob.call`). ``wsgi.file_wrapper`` is replaced by
:class:`aioext.body.FileWrapper`, which reads files in threads.

A client's end is looked for as :mod:`aioext.guards` says. What is written to such a
client fails in uWSGI, which closes the body then.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import http
import io
import logging
import socket
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from greenlet import getcurrent
from pyramid.httpexceptions import HTTPBadRequest
from pyramid.response import Response

from .. import bridge, greenlets, threadlocal, watchdog
from ..adopted import AdoptedJob
from ..body import CalledBody, FileWrapper, replace_body
from ..exceptions import ClientDisconnected, ConnectionClosed, GatewayError
from ..guards import KEY, Guarded, Lookout, rules_of
from ..lines import Lines
from ..threaded import CANCELLED
from ..websocket.response import is_end_of_websocket
from ..wsgi_response import StartResponse
from .connection import detach, duplicate
from .worker import Worker

__all__ = ["Exchange", "Input", "call", "serve"]


log = logging.getLogger("aioext")

P = ParamSpec("P")
T = TypeVar("T")

# One for each application.
_lookouts: weakref.WeakKeyDictionary[Any, Lookout] = weakref.WeakKeyDictionary()


def serve(
    worker: Worker,
    job: AdoptedJob,
    policy: Callable[..., Any],
    environ: dict[str, Any],
    router: Any,
) -> Any:
    """Call an execution policy in the greenlet of a request; gives the response."""
    if KEY in environ:
        # An application within another one.
        return policy(environ, router)
    if "PATH_INFO" not in environ:
        # uWSGI passes on what is no request at all, without most of an environ.
        environ["REQUEST_METHOD"] = "GET"
        return HTTPBadRequest()
    lookout = _lookouts.get(router)
    if lookout is None:
        loop = asyncio.get_running_loop()
        lookout = Lookout(loop, rules_of(router.registry))
        _lookouts[router] = lookout
    return Exchange(environ, worker, job, lookout).run(policy, environ, router)


class Exchange(Guarded):
    """One request and its response.

    Args:
        environ: as uWSGI has made it; what replaces uWSGI's own is set there.
        worker: that serves it.
        job: of its greenlet.
        lookout: of its application.

    Attributes:
        descriptor: uWSGI's, of the client's connection.
        pointer: the address of uWSGI's ``struct wsgi_request``.
    """

    descriptor: int
    pointer: int

    _connection: socket.socket | None = None
    _head: Any = None

    def __init__(
        self,
        environ: dict[str, Any],
        worker: Worker,
        job: AdoptedJob,
        lookout: Lookout,
    ) -> None:
        scope = {
            "type": "http",
            "method": environ["REQUEST_METHOD"],
            "path": environ.get("PATH_INFO", ""),
            "headers": [],
        }
        super().__init__(scope, self._departure, self._answer, lookout)
        self._worker = worker
        self._job = job
        # It is asked for in the greenlet of the request, and used when somebody looks.
        self.descriptor = worker.api.connection_fd()
        self.pointer = getcurrent().uwsgi_wsgi_req
        self._at_end: list[Callable[[], None]] = []
        environ[KEY] = self
        environ["wsgi.input"] = input_of(environ, self, worker.api)
        environ["wsgi.file_wrapper"] = FileWrapper

    def run(
        self, policy: Callable[..., Any], environ: dict[str, Any], router: Any
    ) -> Any:
        """Call the policy within; gives the response."""
        if watchdog.is_on:
            watchdog.note(self)
        self._job.suspended = self.suspended
        _current.set(self)
        try:
            return self._respond(policy, environ, router)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            if isinstance(error, ConnectionClosed) and is_end_of_websocket(
                environ, error
            ):
                return Response(status=GONE)
            # uWSGI would log it as well, and close the connection without an answer.
            log.exception(FAILED, self.describe())
            return Response(status=500)

    def _respond(
        self, policy: Callable[..., Any], environ: dict[str, Any], router: Any
    ) -> Any:
        try:
            self._worker.enter(self._job, self._stop, self._end)
            response = policy(environ, router)
        except asyncio.CancelledError as error:
            return self._answer_cancelled(error)
        except ClientDisconnected:
            return Response(status=GONE)
        finally:
            self.sent = True
        if self.was_ended_early:
            self.warn_of_swallowed()
            return self._answer_ended(response)
        self._check(response)
        self._adapt(response)
        return response

    def _check(self, response: Any) -> None:
        # uWSGI sends what it is given, a header that ends itself and begins another one
        # too. What accepts a WebSocket has a check of its own.
        headers = getattr(response, "headerlist", None)
        if headers is None or response.status_code == 101:
            return
        try:
            StartResponse(self.method)(response.status, headers)
        except GatewayError:
            _close_body(response)
            raise

    def _answer_cancelled(self, error: asyncio.CancelledError) -> Any:
        if self.was_ended_early and not self.was_cancelled():
            return self._answer_ended()
        if self._worker.is_stopping:
            return Response(status=503)
        raise GatewayError(CANCELLED) from error

    def _answer_ended(self, dropped: Any = None) -> Any:
        _close_body(dropped)
        if self.has_expired:
            bridge.wait(self.answered())
            return _no_response
        detach(self.descriptor)
        return Response(status=GONE)

    async def _answer(self, message: Any) -> None:
        # What a deadline has answered, before the application has: by uWSGI's own
        # functions, in the greenlet of the request.
        if message["type"] == "http.response.start":
            self._head = message
            return
        head, self._head = self._head, None
        headers = [(name.decode(), value.decode()) for name, value in head["headers"]]
        status = f"{head['status']} {http.HTTPStatus(head['status']).phrase}"

        def answer() -> None:
            self._worker.api.start_response(status, headers)(message["body"])

        await self._job.call(answer)

    def _adapt(self, response: Any) -> None:
        body = getattr(response, "app_iter", None)
        if body is None or type(body) in (list, tuple):
            self._finish()
            return
        # It is uWSGI that iterates, in this context, which ends with the request.
        threadlocal.pushed(threadlocal.ended_entry()).__enter__()
        replace_body(response, _Body(body, self))

    def call(self, function: Callable[[], T]) -> T:
        """Call ``function`` in the greenlet of the request, wherever this is called."""
        if self._worker.job_here() is self._job:
            return function()
        provider = greenlets.foreign_provider()
        if provider is not None and greenlets.enclosing_job() is self._job:
            # The greenlet of the request waits for this one, and awaits what it is
            # given: it cannot be switched into, and need not be.
            return provider.parent.switch(_call(function))
        return bridge.wait(_call_in(self._job, function))

    def end_of_input(self) -> BaseException:
        """What is to be raised where the body of the request cannot be read."""
        cancelled = None
        if self._worker.job_here() is self._job:
            # Once is enough: what is done for the error may wait.
            cancelled = self._job.take_cancellation()
        return cancelled or ClientDisconnected(UNREAD)

    # The body

    def begin_to_stream(self) -> None:
        """The first part of the body is asked for."""
        self.disarm()
        self.is_streamed = True
        if self._job.task is not None:
            self._remember_task()
        else:
            self._job.suspended = self.suspended
        self._watch()

    def is_ended_by(self, error: BaseException) -> bool:
        """Whether ``error`` is the end of a stream whose client has left."""
        return isinstance(error, asyncio.CancelledError) and (
            self._worker.is_stopping
            or (self.was_ended_early and not self.was_cancelled())
        )

    def end_stream(self) -> None:
        """The body is closed next: nobody is to cancel that."""
        self._stop_watching()
        self._job.take_cancellation()

    # A WebSocket

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """On which it is served."""
        return self._lookout.loop

    def at_end(self, callback: Callable[[], None]) -> None:
        """Have ``callback()`` called on the loop when the request has ended."""
        self._at_end.append(callback)

    def release(self) -> None:
        """Leave the connection alone from now on: somebody else has it."""
        # There is nothing left to answer.
        self.sent = True
        self.disarm()
        watcher = self._stop_watching()
        connection, self._connection = self._connection, None
        if connection is not None and watcher is None:
            connection.close()
        elif connection is not None:
            # It has to be told of it as long as it has its number.
            watcher.add_done_callback(lambda _: connection.close())

    def cancel(self) -> None:
        """Cancel it where it waits; nothing is logged."""
        self._cancel()

    # The end

    async def _departure(self) -> dict[str, str]:
        departures = self._worker.departures
        assert departures is not None
        if self._connection is None:
            self._connection = duplicate(self.descriptor)
        await departures.wait(self._connection)
        if self.is_streamed and self._job.rests:
            detach(self.descriptor)
        elif self.is_streamed:
            self._shut_down()
        return {"type": "http.disconnect"}

    def _stop(self) -> None:
        # Where uWSGI waits for the client a cancellation does not get through.
        self._job.cancel()
        if not self._job.rests:
            self._shut_down()

    def _shut_down(self) -> None:
        # What uWSGI waits for fails. The loop looks at its descriptor meanwhile: were
        # that detached, the loop would see the connection for ever, and spin.
        how = socket.SHUT_RDWR if self.sent else socket.SHUT_RD
        with contextlib.suppress(OSError), duplicate(self.descriptor) as connection:
            connection.shutdown(how)

    def _finish(self) -> None:
        if self.is_guarded:
            self.leave()

    def _end(self) -> None:
        # The greenlet has ended; uWSGI has closed its descriptor.
        self._finish()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        while self._at_end:
            self._at_end.pop()()


def _close_body(response: Any) -> None:
    close = getattr(getattr(response, "app_iter", None), "close", None)
    if close is not None:
        close()


async def _call(function: Callable[[], T]) -> T:
    return function()


async def _call_in(job: AdoptedJob, function: Callable[[], T]) -> T:
    return await job.call(function)


def _no_response(environ: Any, start_response: Any) -> list[bytes]:
    # There has been one.
    return []


class _Body(CalledBody):
    # What uWSGI iterates over, in the greenlet of the request.

    def __init__(self, chunks: Any, exchange: Exchange) -> None:
        super().__init__(chunks, self._step)
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        self._exchange.begin_to_stream()
        return self

    def _step(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except asyncio.CancelledError as error:
            if self._exchange.is_ended_by(error):
                raise StopIteration from None
            raise

    def close(self) -> None:
        """Close the body, if it can be closed."""
        self._exchange.end_stream()
        close = getattr(self._body, "close", None)
        if close is not None:
            close()


_current: contextvars.ContextVar[Exchange | None] = contextvars.ContextVar(
    "aioext.uwsgi.current", default=None
)


def call(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of uWSGI's in the greenlet of the request.

    uWSGI's functions find their request by the greenlet that calls them. In a view
    that is a coroutine that is so; in a thread of the executor, in a Task that the
    request has made, and in what those call, write
    ``call(uwsgi.set_logvar, "name", "value")``. Everywhere else, in another mode of
    uWSGI's for one, the function is just called.

    Args:
        function: which must not wait through the bridge.

    Returns:
        what it returns.

    Raises:
        BaseException: what it raises.
        asyncio.CancelledError: the request has ended.

    Cancellation: the function is called nevertheless.
    """
    exchange = _current.get()
    if exchange is None:
        return function(*args, **kwargs)
    return exchange.call(functools.partial(function, *args, **kwargs))


def input_of(environ: dict[str, Any], exchange: Exchange, api: Any) -> Input:
    """What reads the body of the request, in its greenlet."""
    raw = environ["wsgi.input"]
    if environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked":
        environ["wsgi.input_terminated"] = True
        raw = io.BufferedReader(_Chunks(api))
    return Input(raw, exchange)


class Input(Lines):
    """The ``wsgi.input`` of :pep:`3333`, usable in every thread and greenlet.

    Raises:
        ClientDisconnected: by every method, if the client leaves before the end of
            the body, or sends nothing for ``socket-timeout`` seconds.
    """

    waits = True

    def __init__(self, raw: Any, exchange: Exchange) -> None:
        self._raw = raw
        self._exchange = exchange
        # Of a line of which only a part was asked for: uWSGI gives whole lines.
        self._rest = b""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read ``size`` bytes, less only at the end; the whole body by default."""
        if size is None or size < 0:
            rest, self._rest = self._rest, b""
            return rest + self._call(self._raw.read)
        part = self._rest[:size]
        self._rest = self._rest[size:]
        size -= len(part)
        # To uWSGI, none is all.
        return part + self._call(self._raw.read, size) if size else part

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read a line, or ``size`` bytes of it."""
        line = self._rest or (b"" if size == 0 else self._call(self._raw.readline))
        if size is None or not 0 <= size < len(line):
            size = len(line)
        self._rest = line[size:]
        return line[:size]

    def _call(self, method: Callable[..., bytes], *args: Any) -> bytes:
        try:
            return self._exchange.call(functools.partial(method, *args))
        except OSError:
            # So uWSGI says that the client has gone, or is silent.
            raise self._exchange.end_of_input() from None


class _Chunks(io.RawIOBase):
    # The body of a chunked request, which uWSGI's own wsgi.input does not read.

    def __init__(self, api: Any) -> None:
        self._api = api
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = self._api.chunked_read()
        part = self._rest[: len(buffer)]
        buffer[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)


# For uWSGI's log alone: nobody is there to read it.
GONE = "499 Client Closed Request"

FAILED = "aioext: %s has failed, and is answered with 500"

UNREAD = """\
The client closed the connection, or sent nothing for too long, before its request was \
complete. There is nobody to answer; let the exception pass."""

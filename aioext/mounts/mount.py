"""What is mounted, each as a WSGI application, and how a request gets there."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from types import GeneratorType
from typing import Any

from pyramid.interfaces import IRouter
from zope.interface import implementer

from .. import background, bridge
from ..applications import speaks_asgi, speaks_wsgi
from ..body import CalledBody
from ..guards import KEY, rules_of
from ..interfaces import ILifespan, IMounts
from ..limits import KEY as LIMIT_KEY
from ..limits import BodyTooLarge, LimitedInput
from ..passage import Passage, is_passed
from ..threaded import ENDING
from ..websocket.handshake import asks_for_websocket, handshake_of
from ..wsgi_input import EMPTY, Input
from .blocking import BlockingApplication
from .conversation import converse
from .lifespan import ASGILifespan
from .scope import build_scope, scope_below
from .table import HIDDEN, Table, host_of

__all__ = ["ASGIMount", "Mounts", "PyramidMount", "WSGIMount", "kind_of"]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


@implementer(IMounts)
class Mounts:
    """What is mounted in one application; a utility of its registry.

    Attributes:
        sources: where the mount at each host and path comes from.
    """

    def __init__(self) -> None:
        self.sources: dict[tuple[str | None, str], str] = {}
        self._table = Table()
        self._lifespans: dict[int, ASGILifespan] = {}

    def __bool__(self) -> bool:
        return bool(self._table)

    def add(self, host: str | None, path: str, app: Any) -> None:
        """Have the WSGI application ``app`` answer what is below ``path``."""
        self._table.add(host, path, app)

    def holds(self, lifespan: Any) -> bool:
        """Whether what is mounted, and was not replaced since, has ``lifespan``."""
        return any(getattr(app, "lifespan", None) is lifespan for app in self._table)

    def find(self, environ: Environ) -> Any:
        """What answers a request: a WSGI application; None if nothing mounted does."""
        path = environ.get("PATH_INFO", "")
        host = host_of(environ) if self._table.has_hosts else None
        found = self._table.find(host, path)
        if found is None:
            return None
        mounted, app = found
        return not_found if app is HIDDEN else partial(_shift, mounted, app)

    def lifespan_of(self, app: Any, name: str) -> tuple[ASGILifespan, bool]:
        """The lifespan of an ASGI application, and whether it is new."""
        known = self._lifespans.get(id(app))
        if known is not None:
            return known, False
        lifespan = self._lifespans[id(app)] = ASGILifespan(app, name)
        return lifespan, True


def _shift(
    path: str, app: Any, environ: Environ, start_response: StartResponse
) -> Iterable[bytes]:
    # A copy, for whatever is around here has the other one.
    environ = environ.copy()
    environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + path
    environ["PATH_INFO"] = environ.get("PATH_INFO", "")[len(path) :]
    try:
        body = app(environ, start_response)
    except BodyTooLarge as error:
        return _too_large(environ, start_response, error)
    if isinstance(body, (GeneratorType, CalledBody)) and _is_counted(environ):
        return _ReadingBody(body, partial(_too_large, environ, start_response))
    return body


def _too_large(
    environ: Environ, start_response: StartResponse, error: BodyTooLarge
) -> Iterable[bytes]:
    # It has left code that knows nothing of it, and may have begun to answer.
    return error(environ, _instead(start_response))


class _ReadingBody:
    # A body that reads that of the request when it is asked for its parts: of an
    # application that is a generator, for one. It may find that to be too large.

    def __init__(self, body: Any, answer: Callable[[Any], Iterable[bytes]]) -> None:
        self._body = body
        self._chunks = iter(body)
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except BodyTooLarge as error:
            # Raised again, if a part of the answer has been sent.
            self._chunks = iter(self._answer(error))
        return next(self._chunks)

    def close(self) -> None:
        self._body.close()


def _instead(start_response: StartResponse) -> StartResponse:
    def start(status: str, headers: list[tuple[str, str]]) -> Any:
        return start_response(status, headers, sys.exc_info())

    return start


class PyramidMount:
    """A Pyramid application that includes aioext: called where the request is.

    It says itself where its views run, and its own settings guard its requests.
    """

    kind = "pyramid"

    def __init__(self, app: Any) -> None:
        self._app = app
        self._rules = rules_of(app.registry)
        self.lifespan = app.registry.getUtility(ILifespan)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Any:
        guarded = environ.get(KEY)
        if guarded is not None:
            guarded.obey(self._rules)
        return self._app(environ, start_response)

    @contextlib.asynccontextmanager
    async def open(self, registry: Any) -> AsyncIterator[None]:
        """A lifespan of the application around it: its own, unless that is open.

        It is if the application is served by itself as well, or mounted elsewhere, too.

        Cancellation: as in the lifespan's ``open()``.
        """
        await self.lifespan.settled()
        async with contextlib.AsyncExitStack() as stack:
            if _is_held(self.lifespan, registry) and not self.lifespan.is_open:
                await stack.enter_async_context(self.lifespan.open())
            yield


class ASGIMount:
    """An ASGI application: handed the request where that is possible.

    Args:
        app: the application.
        lifespan: its own.
    """

    kind = "asgi"

    def __init__(self, app: Any, lifespan: ASGILifespan) -> None:
        self._app = app
        self.lifespan = lifespan

    def __call__(self, environ: Environ, start_response: StartResponse) -> Any:
        if is_passed(start_response) and _is_as_received(environ):
            scope = scope_below(environ, self.lifespan.state)
            otherwise = partial(self._converse, environ, start_response)
            return Passage(self._app, scope, otherwise, not _is_empty(environ))
        return self._converse(environ, start_response)

    def _converse(self, environ: Environ, start_response: StartResponse) -> Any:
        if asks_for_websocket(environ) or handshake_of(environ) is not None:
            return _answer(start_response, "501 Not Implemented", NO_WEBSOCKETS)
        lifespan = self.lifespan
        scope = build_scope(environ, lifespan.state)
        tasks = lifespan.tasks
        try:
            return converse(self._app, scope, environ, start_response, tasks)
        except asyncio.CancelledError:
            if bridge.in_bridge() or not background.is_ending():
                raise
            return _answer(start_response, "503 Service Unavailable", ENDING)

    @contextlib.asynccontextmanager
    async def open(self, registry: Any) -> AsyncIterator[None]:
        """A lifespan of the application around it: its own.

        Cancellation: as in the lifespan's ``open()``.
        """
        async with contextlib.AsyncExitStack() as stack:
            if _is_held(self.lifespan, registry):
                await stack.enter_async_context(self.lifespan.open())
            yield


def _is_held(lifespan: Any, registry: Any) -> bool:
    # A later commit may have mounted another application in its place.
    return bool(registry.getUtility(IMounts).holds(lifespan))


class WSGIMount:
    """Any other WSGI application.

    Args:
        app: the application.
        executor: in whose threads it is called; None: where the request is.
    """

    kind = "wsgi"

    def __init__(self, app: Any, executor: Any) -> None:
        self._app = app if executor is None else BlockingApplication(app, executor)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Any:
        return self._app(environ, start_response)


def _is_as_received(environ: Environ) -> bool:
    # Whether nobody counts the body, or has put another one in its place.
    given = environ["wsgi.input"]
    return given is EMPTY or isinstance(given, Input)


def _is_counted(environ: Environ) -> bool:
    # Whether the body ends where aioext.max_body says.
    return isinstance(environ.get("wsgi.input"), LimitedInput)


def _is_empty(environ: Environ) -> bool:
    # Whether aioext.max_body is there, and the body is to have no bytes.
    limit = environ.get(LIMIT_KEY)
    return limit is not None and limit.is_empty


def kind_of(app: Any) -> type[PyramidMount | ASGIMount | WSGIMount] | None:
    """What ``app`` is mounted as; None if it is no application."""
    if IRouter.providedBy(app) and app.registry.queryUtility(ILifespan) is not None:
        return PyramidMount
    if speaks_asgi(app):
        return ASGIMount
    return WSGIMount if speaks_wsgi(app) else None


def not_found(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Answers an unusual spelling of a path that something is mounted at."""
    return _answer(start_response, "404 Not Found", NOT_FOUND)


def _answer(start_response: StartResponse, status: str, body: bytes) -> list[bytes]:
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
    ]
    start_response(status, headers)
    return [body]


NOT_FOUND = b"404 Not Found\n\nThere is nothing at this path.\n"

NO_WEBSOCKETS = b"""\
501 Not Implemented

This server cannot hand a WebSocket to an ASGI application. Serve the application by \
gunicorn with the worker of aioext, or by an ASGI server: uvicorn, hypercorn, granian.
"""

"""WebTest's ``TestApp``, with WebSockets and event streams.

Theory of operation
===================

WebTest calls the WSGI application in the thread of the test. What is asynchronous
in it waits for the background loop, as under any WSGI server. A WebSocket, or a
stream that goes on while the test does, cannot be had that way: they are served
through a :class:`~aioext.gateway.Gateway`, on the same loop, in Tasks of their own.
So requests, sockets and streams of one test meet on one loop, and what was opened
on it (a connection pool, an ``asyncio.Event``) serves all of them.

How they begin is WebTest's business again: a copy of the ``TestApp``, which shares
the cookies and the environ with it, asks for the page with a WSGI application in
the place of the user's that opens the connection, and gives the head of the answer.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import webtest

from ..gateway import Gateway
from ..views import Kind, kind_of
from .eventsource import EVENT_STREAM, Stream, TestEventSource, check_is_events
from .life import Life
from .scope import Application, http_scope, websocket_scope
from .serving import Serving, wait
from .session import Session
from .websocket import SWITCHING, Socket, TestWebSocket, WebSocketRefused

__all__ = ["TestApp"]

# Seconds that anything may take that a test waits for.
TIMEOUT = 5.0


class TestApp(webtest.TestApp):
    """An application under test.

    ::

        def test_chat():
            with TestApp(main({})) as app:
                app.post("/login", {"user": "joe"})
                with app.websocket("/chat") as ws:
                    ws.send("hello")
                    assert ws.recv() == "joe: hello"

    It is synchronous: in an ordinary test it blocks the test's thread. In a
    coroutine, what uses it goes into a function: ``await
    spawn_greenlet(function)`` has everything run on the coroutine's loop.

    The first request opens the application's lifespan, if there is one; the end
    of the ``with`` block, or :meth:`close`, ends what was opened and closes it.

    Args:
        app: what ``config.make_wsgi_app()`` or ``config.make_asgi_app()`` gives.
        args, options: as WebTest's ``TestApp`` takes them: ``extra_environ``, for
            example.

    Attributes:
        app: the WSGI application.
        gateway: the ASGI application that serves WebSockets and streams; one with
            ASGI middleware around it may take its place.

    Raises:
        TypeError: ``app`` is an ASGI application that is no ``Gateway``.
    """

    def __init__(self, app: Any, *args: Any, **options: Any) -> None:
        if isinstance(app, Gateway):
            app = app.app
        elif kind_of(app) is Kind.COROUTINE:
            raise TypeError(NOT_WSGI.format(app))
        super().__init__(app, *args, **options)
        self.gateway: Any = Gateway(Application(self.app))
        self._life = Life(self.app)
        self._sessions: list[Session] = []

    def do_request(self, req: Any, *args: Any, **options: Any) -> webtest.TestResponse:
        """Make one request; everything that WebTest has for that comes here."""
        wait(self._life.open)
        return super().do_request(req, *args, **options)

    def websocket(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        subprotocols: Sequence[str] = (),
        origin: str | None = "own",
        extra_environ: Mapping[str, Any] | None = None,
        timeout: float = TIMEOUT,
    ) -> TestWebSocket:
        """Open a WebSocket.

        The cookies of this ``TestApp`` go along, and those that the answer sets
        are kept.

        Args:
            url: a path, or a URL that begins with ``ws``, ``wss`` or ``http``.
            headers: of the request, beside those of a handshake.
            subprotocols: what the client offers, in its order of preference.
            origin: the ``Origin`` header; by default that of the application's
                own pages. None: none, as from a script.
            extra_environ: what goes into the environ, as in WebTest.
            timeout: seconds that the answer, and each later step, may take.

        Raises:
            WebSocketRefused: the application answered with HTTP.
            BaseException: the application raised it instead of an answer.
            TimeoutError: there was no answer in time.
        """
        serving = Socket(self.gateway, f"WebSocket {url}", timeout)

        def make_scope(environ: dict[str, Any]) -> dict[str, Any]:
            return websocket_scope(environ, subprotocols, origin)

        asked = f"http{url[2:]}" if url.startswith(("ws:", "wss:")) else url
        response = self._ask(
            serving, make_scope, asked, headers, extra_environ, status="*"
        )
        if response.status_int != SWITCHING:
            raise WebSocketRefused(response)
        return self._keep(TestWebSocket(serving, response, self.JSONEncoder))

    def eventsource(
        self,
        url: str,
        *,
        last_event_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        status: Any = None,
        extra_environ: Mapping[str, Any] | None = None,
        timeout: float = TIMEOUT,
    ) -> TestEventSource:
        """Open an event stream.

        Args:
            url: a path, or a URL.
            last_event_id: what a browser comes back with.
            headers: of the request, beside ``Accept`` and ``Last-Event-ID``.
            status: which status is right, as in WebTest; by default those from
                200 to 399. An answer that is right and no stream is in
                ``response``, and there are no events.
            extra_environ: what goes into the environ, as in WebTest.
            timeout: seconds that the answer, and each later step, may take.

        Raises:
            webtest.AppError: the answer has another status; or it is a page, with
                200, and ``status`` is not ``"*"``.
            BaseException: the application raised it instead of an answer.
            TimeoutError: there was no answer in time.
        """
        serving = Stream(self.gateway, f"EventSource {url}", timeout)
        fields = {"Accept": EVENT_STREAM.decode(), "Cache-Control": "no-cache"}
        if last_event_id is not None:
            # A browser sends UTF-8, and WebTest takes a header as latin-1.
            fields["Last-Event-ID"] = last_event_id.encode().decode("latin-1")
        fields |= headers or {}
        response = self._ask(serving, http_scope, url, fields, extra_environ, status)
        if status != "*":
            check_is_events(serving, response)
        return self._keep(TestEventSource(serving, response))

    def _ask(
        self,
        serving: Serving,
        make_scope: Callable[[dict[str, Any]], dict[str, Any]],
        url: str,
        headers: Mapping[str, str] | None,
        extra_environ: Mapping[str, Any] | None,
        status: Any,
    ) -> webtest.TestResponse:
        def opening(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            code, fields, body = wait(serving.open, make_scope(environ))
            start_response(_status_line(code), _decoded(fields))
            return [body]

        asking = copy.copy(self)
        asking.app = opening
        try:
            response = asking.get(
                url,
                headers=dict(headers or {}),
                extra_environ=dict(extra_environ or {}),
                status=status,
            )
        except BaseException:
            if serving.is_served:
                wait(serving.end)
            raise
        response.test_app = self
        return response

    def _keep(self, session: Any) -> Any:
        self._sessions = [each for each in self._sessions if not each.is_over]
        self._sessions.append(session)
        return session

    def close(self) -> None:
        """End what was opened, newest first, and close the application's lifespan.

        A later request opens it again.

        Raises:
            BaseException: what went wrong in a WebSocket or a stream and has not
                been told yet, or in the closing.
        """
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        wait(self._life.open)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        sessions, self._sessions = self._sessions, []
        stack = contextlib.ExitStack()
        stack.callback(wait, self._life.close)
        for session in sessions:
            stack.push(session)
        stack.__exit__(kind, error, where)


def _status_line(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return f"{code} Unknown"


def _decoded(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


NOT_WSGI = """\
TestApp({!r}): this is an ASGI application, and WebTest speaks WSGI. Give what \
config.make_wsgi_app() or config.make_asgi_app() returns; ASGI middleware goes \
around the TestApp's `gateway`: app.gateway = Middleware(app.gateway)."""

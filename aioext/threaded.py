"""A request in a thread of the server's: plain WSGI servers, WebTest, scripts.

Theory of operation
===================

Such a server gives each request a thread, and the next request the same one. The
thread may block, so nothing has to be suspended there, and what is asynchronous
waits for the background loop (:mod:`aioext.background`). What this adds is what a
:class:`~aioext.gateway.Gateway` does elsewhere:

* Each request, with the body that it streams, has a context of its own: what it
  sets in context variables is seen by its body, and by no other request of the
  thread.
* ``get_current_request()`` gives the request while its body is iterated over. The
  server does that when Pyramid has taken the request off its stack.
* A request that waits when the process ends is answered with 503, and one that
  streams is cut off, instead of a ``CancelledError`` in the server's log.
* Under gevent's monkey patching the request is refused: an application that was
  loaded before the patching has not heard of it when it was configured.

It is called by the execution policy, so that it comes after the server's middleware
and holds for all that Pyramid does.

What the server itself made, by ``wsgi.file_wrapper``, is left as it is: servers look
for the very object that they made, and send the file without reading it.

Things that do not work
=======================

* Running the whole request in one context, the server's iteration included: it is
  the server that iterates, and a context cannot be entered from inside.
* Putting the request on Pyramid's stack until the body is closed: a server need not
  close it in the thread that has called the application.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
from collections.abc import Callable
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid.response import Response

from . import background, threadlocal
from .body import CalledBody, replace_body
from .exceptions import ClientDisconnected, GatewayError, explain

__all__ = ["CANCELLED", "CUT_OFF", "ENDING", "check_threads", "serve"]

log = logging.getLogger("aioext")


def check_threads() -> None:
    """Raise ``ConfigurationError`` where threads are greenlets: under gevent."""
    patch = background.patched_by()
    if patch is not None:
        raise ConfigurationError(explain(background.PATCHED.format(patch), "patched"))


def serve(
    call: Callable[[dict[str, Any], Any], Any], environ: dict[str, Any], router: Any
) -> Any:
    """What ``call(environ, router)``, an execution policy, gives; outside of a bridge.

    Raises:
        ScopeError: gevent or eventlet has patched the threads of this process.
        GatewayError: the application raised a ``CancelledError`` of its own.
    """
    background.refuse_patched_threads()
    if threadlocal.is_apart():
        # An application within this one, whose request this is a part of.
        return call(environ, router)
    context = threadlocal.apart()
    with background.request_under_way():
        try:
            response = context.run(call, environ, router)
        except asyncio.CancelledError as error:
            if not background.is_ending():
                raise GatewayError(CANCELLED) from error
            response = _Unavailable()
        body = getattr(response, "app_iter", None)
        if body is not None and type(body) not in (list, tuple):
            _warn_of_lone_stream(environ, response)
            if not _is_of_server(body, environ):
                replace_body(response, _Body(body, context))
        return response


class _Unavailable(Response):
    # Its body is no list, so that it is known when it has been sent.
    def __init__(self) -> None:
        super().__init__(
            status=503,
            content_type="text/plain",
            app_iter=iter((ENDING,)),
            content_length=len(ENDING),
        )


class _Body(CalledBody):
    def __init__(self, chunks: Any, context: contextvars.Context) -> None:
        super().__init__(chunks, functools.partial(_call_step, context))
        background.body_under_way(self)

    def close(self) -> None:
        try:
            super().close()
        finally:
            background.body_sent(self)


def _is_of_server(body: Any, environ: dict[str, Any]) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type):
        return isinstance(body, wrapper)
    # Where it is a function, its product is the file, or looks like one.
    return wrapper is not None and hasattr(body, "read")


def _call_step(context: contextvars.Context, step: Callable[[], Any]) -> Any:
    try:
        return context.run(_call_in_request, step)
    except asyncio.CancelledError as error:
        if not background.is_ending():
            raise GatewayError(CANCELLED) from error
        raise ClientDisconnected(CUT_OFF) from None


def _call_in_request(step: Callable[[], Any]) -> Any:
    with threadlocal.pushed(threadlocal.ended_entry()):
        return step()


_has_warned = False


def _warn_of_lone_stream(environ: dict[str, Any], response: Any) -> None:
    global _has_warned
    if environ.get("wsgi.multithread") or environ.get("paste.testing"):
        return
    content_type = getattr(response, "content_type", None)
    if content_type == "text/event-stream" and not _has_warned:
        _has_warned = True
        log.warning(LONE_STREAM, environ.get("PATH_INFO", ""))


CANCELLED = """\
The application raised CancelledError, and nobody has cancelled its request: \
something that it waited for was cancelled. Catch the error where it waits."""

ENDING = b"503 Service Unavailable\n\nThe server is stopping.\n"

CUT_OFF = "The server has stopped before its response was complete."

LONE_STREAM = """\
aioext: %r is an event stream, and this server gives a process one request at a time: \
nobody else is served by it while the stream is open, and gunicorn's sync worker is \
killed after its timeout. Serve the application with aioext's worker, with an ASGI \
server, or with threads (gthread, waitress)."""

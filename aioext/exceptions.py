"""What can go wrong, as a tree::

    AioextError
    ├── ScopeError (RuntimeError)          a wait where nobody can wait
    ├── ClientDisconnected (ConnectionResetError)
    │                                      the client left before the end
    ├── ConnectionClosed (ConnectionResetError)
    │                                      a WebSocket is closed
    ├── GatewayError (RuntimeError)        the WSGI application broke PEP 3333
    ├── MountError (RuntimeError)          a mounted application could not start
    ├── BuildError (RuntimeError)          a file could not be built from others
    └── NoTransaction (RuntimeError)       request.dbsession after the commit

Mistakes in an application's configuration are Pyramid's own
:class:`pyramid.exceptions.ConfigurationError`, so that whatever handles
those handles ours; :func:`explain` gives them the same closing line.

Every message says what happened, where, and what to write instead, and ends
with the address of its section in the documentation.
"""

from __future__ import annotations

__all__ = [
    "AioextError",
    "BuildError",
    "ClientDisconnected",
    "ConnectionClosed",
    "GatewayError",
    "MountError",
    "NoTransaction",
    "ScopeError",
]

ERRORS_PAGE = "https://aioext.readthedocs.io/en/latest/errors.html"


def explain(message: str, anchor: str) -> str:
    """``message`` with a last line that leads to its section of the docs."""
    return f"{message}\n(More about this error: {ERRORS_PAGE}#{anchor})"


class AioextError(Exception):
    """The root of the errors that aioext itself raises.

    Subclasses name the section of the errors page in ``anchor``.
    """

    anchor = "errors"

    def __str__(self) -> str:
        return explain(super().__str__(), self.anchor)


class ScopeError(AioextError, RuntimeError):
    """A wait was asked for where it could only block the event loop for ever.

    Raised by :func:`aioext.wait`, and by what is built on it: in a coroutine
    on a running loop that has no bridge around the synchronous code; in a
    thread whose loop was closed; and where gevent leaves no thread to run a
    loop in. The coroutine that could not be waited for has been closed.
    """

    anchor = "scope-error"


class ClientDisconnected(AioextError, ConnectionResetError):
    """The client went away before its request, or its response, was complete.

    Raised by every method that reads ``wsgi.input``, and by ``write()``. An
    application need not catch it: the server drops the request without a word
    in its log.
    """

    anchor = "client-disconnected"


class ConnectionClosed(AioextError, ConnectionResetError):
    """A WebSocket is closed, and cannot be used any more.

    Raised by ``send()``, ``ping()`` and ``recv_json()`` of a
    :class:`~aioext.websocket.WebSocket`, on every server, whichever side closed
    it. A handler need not catch it: it ends the handler, and nothing is logged.

    Attributes:
        code: with which it was closed (:rfc:`6455` section 7.4); 1006 if it was
            not closed but lost.
        reason: the text that came with the code.
    """

    anchor = "connection-closed"

    def __init__(self, code: int, reason: str = "") -> None:
        self.code = code
        self.reason = reason
        told = f" ({reason})" if reason else ""
        super().__init__(CLOSED.format(code, told))

    def __reduce__(self) -> tuple[type[ConnectionClosed], tuple[int, str]]:
        # By its own arguments, and not by those of its base.
        return type(self), (self.code, self.reason)


CLOSED = """\
The WebSocket is closed, with code {}{}. Iterate over it, or stop when recv() gives \
None; to send from elsewhere, look at its `closed` first, or catch this error."""


class GatewayError(AioextError, RuntimeError):
    """A WSGI application did what :pep:`3333` forbids.

    It called ``start_response`` twice, or never, or gave a status, a header or a
    body that cannot be sent; or a ``CancelledError`` left it that no
    cancellation of its request had caused.
    """

    anchor = "gateway-error"


class MountError(AioextError, RuntimeError):
    """An ASGI application that is mounted has said that it could not start, or stop.

    Raised out of the lifespan of the application around it, which ends the server.
    """

    anchor = "mount-error"


class BuildError(AioextError, RuntimeError):
    """A file of ``config.add_built_asset`` could not be built, and never has been.

    The message has what its builder says. A builder may raise it to say what is wrong
    without a traceback in the log.
    """

    anchor = "build-error"


class NoTransaction(AioextError, RuntimeError):
    """``request.dbsession`` was used where the request has no transaction.

    It has not begun yet, or it is over: handlers of WebSockets, event streams and
    bodies that are streamed run after the commit. They open a session of their own,
    :func:`aioext.sqlalchemy.session`.
    """

    anchor = "no-transaction"

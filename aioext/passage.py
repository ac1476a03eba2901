"""An ASGI application that answers a request which a WSGI application was asked.

A gateway has asked a WSGI application, which has found out that the answer is an ASGI
application's (one that is mounted in it). It returns a :class:`Passage` in the place of
a body, and the gateway hands the request on as it came: scope, ``receive`` and
``send`` are the server's own, with whatever extensions they have.

A gateway says that it does so by an attribute of the ``start_response`` that it gives:
``passes``. Middleware that wants to see the response puts another one in its place,
and then there is nothing to pass. Middleware that only wraps the body iterates over
the passage, and gets the answer as a body all the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

__all__ = ["Passage", "beginning_with", "is_passed", "without_body"]

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


def is_passed(start_response: Any) -> bool:
    """Whether who has given ``start_response`` serves a :class:`Passage` now."""
    return bool(getattr(start_response, "passes", False))


class Passage:
    """In the place of a body: an ASGI application, and the scope that it is given.

    Args:
        app: the ASGI application.
        scope: for it.
        otherwise: gives the answer as a body, for who wants to have one.
        has_body: whether the application is given the body of the request, if there
            is one.
    """

    def __init__(
        self,
        app: Any,
        scope: Any,
        otherwise: Callable[[], Iterable[bytes]],
        has_body: bool = True,
    ) -> None:
        self._app = app
        self._scope = scope
        self._otherwise = otherwise
        self._has_body = has_body
        self._body: Iterable[bytes] = ()

    async def serve(self, receive: Receive, send: Send) -> None:
        """Call the application with what the server has given."""
        # It leads back to the request, and this may last as long as a WebSocket does.
        del self._otherwise
        if not self._has_body:
            receive = without_body(receive)
        await self._app(self._scope, receive, send)

    def __iter__(self) -> Iterator[bytes]:
        self._body = self._otherwise()
        return iter(self._body)

    def close(self) -> None:
        """Close the body, if there was one."""
        close = getattr(self._body, "close", None)
        if close is not None:
            close()


def beginning_with(message: Any, receive: Receive) -> Receive:
    """``receive``, with a message before those that are to come."""
    messages = [message]

    async def receive_again() -> Any:
        return messages.pop() if messages else await receive()

    return receive_again


def without_body(receive: Receive) -> Receive:
    """``receive``, for a request whose body is empty, whatever the client sends."""
    is_begun = False

    async def receive_no_body() -> Any:
        nonlocal is_begun
        message = await receive()
        while is_begun and message["type"] == "http.request":
            message = await receive()
        if message["type"] == "http.request":
            is_begun = True
            message = {"type": "http.request", "body": b"", "more_body": False}
        return message

    return receive_no_body

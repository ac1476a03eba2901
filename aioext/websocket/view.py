"""A class whose methods are called as a WebSocket opens, brings messages, closes."""

from __future__ import annotations

import inspect
from typing import Any

from pyramid.exceptions import ConfigurationError

from ..exceptions import explain
from ..views import Kind, drive, kind_of, make_awaitable

__all__ = ["WebsocketConnectionView"]

CALLBACKS = ("on_open", "on_message", "on_close")


class WebsocketConnectionView:
    """A view that is called for each message; to be derived from.

    ::

        @view_config(route_name="echo", mapper=WebsocketMapper)
        class Echo(WebsocketConnectionView):
            async def on_message(self, message):
                await self.send(message)

    The callbacks are coroutines, all of them, or functions, all of them; then
    :meth:`send` and the methods of :attr:`ws` wait by themselves.

    Attributes:
        ws: the WebSocket.
        request: the request that became it.
        context: of the request.

    Raises:
        ConfigurationError: when a class is defined with callbacks of both sorts.
    """

    ws: Any

    def __init__(self, context: Any, request: Any) -> None:
        self.context = context
        self.request = request

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = [
            name
            for name in CALLBACKS
            if getattr(cls, name) is not getattr(WebsocketConnectionView, name)
        ]
        functions = [name for name in own if kind_of(cls, name) is Kind.FUNCTION]
        if cls.__call__ not in OURS or not own:
            return
        if functions and functions != own:
            rest = [name for name in own if name not in functions]
            raise ConfigurationError(
                explain(MIXED.format(cls, functions, rest), "websocket-handler")
            )
        for name in own:
            make_awaitable(cls, name)
        cls.__call__ = _serve_functions if functions else _serve  # type: ignore[method-assign, assignment]

    async def __call__(self, ws: Any) -> None:
        await _serve(self, ws)

    def send(self, message: str | bytes) -> Any:
        """Send one message; see :meth:`aioext.websocket.WebSocket.send`.

        To be awaited, unless the callbacks are functions.
        """
        return self.ws.send(message)

    async def on_open(self) -> None:
        """The WebSocket is open."""

    async def on_message(self, message: str | bytes) -> None:
        """A message has come."""

    async def on_close(self) -> None:
        """The WebSocket is over, however that came: also after an exception."""


async def _serve(self: WebsocketConnectionView, ws: Any) -> None:
    self.ws = ws
    try:
        await _settle(self.on_open())
        async for message in ws:
            await _settle(self.on_message(message))
    finally:
        await _settle(self.on_close())


async def _settle(result: Any) -> None:
    if inspect.isgenerator(result):
        await drive(result)
    elif result is not None:
        await result


def _serve_functions(self: WebsocketConnectionView, ws: Any) -> None:
    self.ws = ws
    try:
        _call(self, "on_open")
        for message in ws:
            _call(self, "on_message", message)
    finally:
        _call(self, "on_close")


def _call(self: WebsocketConnectionView, name: str, *args: Any) -> None:
    # What is not overridden is a coroutine that does nothing.
    if getattr(type(self), name) is not getattr(WebsocketConnectionView, name):
        getattr(self, name)(*args)


# What calls the callbacks, unless a class has a __call__() of its own.
OURS = (WebsocketConnectionView.__call__, _serve, _serve_functions)

MIXED = """\
In {0}, {1} are functions and {2} are coroutines. Write all of them as async def, \
or all of them as def: it decides whether self.send() is to be awaited."""

"""The WebSocket that a handler gets, for coroutines and for synchronous code.

Both stand on the same connection. Which of them a handler gets is decided by
what it is, once: methods that gave a coroutine here and a value there,
depending on who calls, would leave nobody knowing when to write ``await``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

from pyramid.renderers import render

from .. import bridge
from .channel import NORMAL, Message, check_close

__all__ = ["SyncWebSocket", "WebSocket"]


class _State:
    # What both faces tell without waiting.

    _channel: Any

    def __init__(self, channel: Any, request: Any = None) -> None:
        self._channel = channel
        #: The request that became this WebSocket; None outside of Pyramid.
        self.request = request

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was agreed on, None if there is none."""
        return self._channel.subprotocol

    @property
    def closed(self) -> bool:
        """Whether it is closed, from whichever side."""
        return self._channel.closed

    @property
    def close_code(self) -> int | None:
        """The code that it was closed with (:rfc:`6455` section 7.4).

        None while it is open; 1005 if the client gave none, 1006 if the
        connection was lost.
        """
        return self._channel.close_code

    @property
    def close_reason(self) -> str:
        """The text that came with the code, often empty."""
        return self._channel.close_reason


class WebSocket(_State):
    """A WebSocket, for coroutines.

    ::

        async for message in ws:
            await ws.send(message)

    Attributes:
        request: the request that became this WebSocket.
    """

    async def recv(self, timeout: float | None = None) -> Message | None:
        """The next message, ``str`` or ``bytes``; None once it is closed.

        Args:
            timeout: seconds; None: wait for ever.

        Raises:
            TimeoutError: no message came in time.
            RuntimeError: another ``recv()`` waits already.

        Cancellation: safe; no message is lost.
        """
        if timeout is None:
            return await self._channel.receive()
        async with asyncio.timeout(timeout):
            return await self._channel.receive()

    def send(self, message: Message) -> Coroutine[Any, Any, None]:
        """Send one message: text if it is a ``str``, binary if it is ``bytes``.

        Waits while the client does not take what it was sent. Messages of
        several senders do not mix.

        Raises:
            ConnectionClosed: it is closed.
            TypeError: the message is neither.

        Cancellation: the message may have been sent or not.
        """
        # Not a coroutine around a coroutine: that would be paid for each message.
        return self._channel.send(message)

    async def recv_json(self, timeout: float | None = None) -> Any:
        """The next message, parsed as JSON.

        Raises:
            ConnectionClosed: it is closed; None would be JSON's null.
            ValueError: the message is no JSON.
            TimeoutError: no message came in time.
        """
        message = await self.recv(timeout)
        if message is None:
            raise self._channel.closed_error()
        return json.loads(message)

    async def send_json(self, value: Any) -> None:
        """Send ``value`` as JSON, in a text message.

        It is made by the application's renderer named ``json``.
        """
        if self.request is None:
            text = json.dumps(value)
        else:
            text = render("json", value, request=self.request)
        await self._channel.send(text)

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close it; does nothing if it is closed.

        Args:
            code: 1000, or another that an application may use; its own are
                from 3000 to 4999.
            reason: at most 123 bytes in UTF-8.

        Raises:
            ValueError: the code or the reason cannot be sent.
        """
        check_close(code, reason)
        await self._channel.close(code, reason)

    async def ping(self, timeout: float | None = None) -> float:
        """Ask the client for a sign of life; gives the seconds it took.

        Raises:
            ConnectionClosed: it is closed, or is before the answer comes.
            NotImplementedError: this server keeps pings to itself.
            TimeoutError: no answer came in time.
        """
        async with asyncio.timeout(timeout):
            return await self._channel.ping()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Message]:
        return self._channel.receive(StopAsyncIteration)


class SyncWebSocket(_State):
    """A WebSocket, for synchronous code: every method waits by itself.

    ::

        for message in ws:
            ws.send(message)

    The methods are those of :class:`WebSocket`; each waits through the bridge,
    and the event loop goes on.
    """

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ws
        self.request = ws.request

    @property
    def _channel(self) -> Any:  # type: ignore[override]
        return self._ws._channel

    def recv(self, timeout: float | None = None) -> Message | None:
        """As :meth:`WebSocket.recv`."""
        return bridge.wait(self._ws.recv(timeout))

    def send(self, message: Message) -> None:
        """As :meth:`WebSocket.send`."""
        bridge.wait(self._ws.send(message))

    def recv_json(self, timeout: float | None = None) -> Any:
        """As :meth:`WebSocket.recv_json`."""
        return bridge.wait(self._ws.recv_json(timeout))

    def send_json(self, value: Any) -> None:
        """As :meth:`WebSocket.send_json`."""
        bridge.wait(self._ws.send_json(value))

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """As :meth:`WebSocket.close`."""
        bridge.wait(self._ws.close(code, reason))

    def ping(self, timeout: float | None = None) -> float:
        """As :meth:`WebSocket.ping`."""
        return bridge.wait(self._ws.ping(timeout))

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        message = self.recv()
        if message is None:
            raise StopIteration
        return message

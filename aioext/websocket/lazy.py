"""A WebSocket that is accepted when it is first used.

For whom it is accepted on demand: ``request.websocket``, whose view may look at
the request first and refuse, and plain WSGI code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..exceptions import ConnectionClosed
from .channel import Channel, Message
from .handshake import Handshake

__all__ = ["LazyChannel"]


class LazyChannel:
    """Stands for the channel of a handshake, and accepts the handshake for it.

    Args:
        handshake: of the request.
        start: is called before it is accepted, to tell the response's headers.
    """

    def __init__(self, handshake: Handshake, start: Callable[[], None]) -> None:
        self._handshake = handshake
        self._start = start
        self._accepting: asyncio.Task[Channel] | None = None

    async def _accepted(self) -> Channel:
        channel = self._handshake.channel
        if channel is not None:
            return channel
        if self._accepting is None:
            self._start()
            self._accepting = asyncio.ensure_future(self._handshake.accept())
        # The first recv() may be cancelled, by its timeout; a handshake is not undone.
        return await asyncio.shield(self._accepting)

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was chosen."""
        return self._handshake.subprotocol

    @property
    def closed(self) -> bool:
        """Whether it was accepted, and is closed."""
        channel = self._handshake.channel
        return channel is not None and channel.closed

    @property
    def close_code(self) -> int | None:
        """The code that it was closed with."""
        channel = self._handshake.channel
        return None if channel is None else channel.close_code

    @property
    def close_reason(self) -> str:
        """The text that came with the code."""
        channel = self._handshake.channel
        return "" if channel is None else channel.close_reason

    async def receive(
        self, at_end: type[BaseException] | None = None
    ) -> Message | None:
        """The next message; see :meth:`Channel.receive`."""
        return await (await self._accepted()).receive(at_end)

    async def send(self, message: Message) -> None:
        """Send one message."""
        await (await self._accepted()).send(message)

    async def close(self, code: int, reason: str) -> None:
        """Close it."""
        await (await self._accepted()).close(code, reason)

    async def ping(self) -> float:
        """The seconds that a ping takes there and back."""
        return await (await self._accepted()).ping()

    def closed_error(self) -> ConnectionClosed:
        """What is to be raised where it is used though it is closed."""
        channel = self._handshake.channel
        assert channel is not None
        return channel.closed_error()

"""The other side: a WebSocket that this process opens to a server.

It is websockets' client, behind the same methods as the WebSockets that are
served here.
"""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_connection
from websockets.exceptions import ConnectionClosed as LibraryClosed

from .. import bridge
from ..exceptions import ConnectionClosed
from .channel import ABNORMAL, NO_STATUS, Message, check_message
from .connection import SyncWebSocket, WebSocket

__all__ = ["connect"]


class ClientChannel:
    """What a WebSocket stands on, over a connection of websockets' client."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    @property
    def subprotocol(self) -> str | None:
        return self._connection.subprotocol

    @property
    def closed(self) -> bool:
        protocol = self._connection.protocol
        return protocol.close_sent is not None or protocol.close_code is not None

    @property
    def close_code(self) -> int | None:
        if not self.closed:
            return None
        close = self._close()
        return ABNORMAL if close is None else close.code or NO_STATUS

    @property
    def close_reason(self) -> str:
        close = self._close()
        return "" if close is None else close.reason

    def _close(self) -> Any:
        # Of the side that began.
        protocol = self._connection.protocol
        if protocol.close_rcvd and protocol.close_rcvd_then_sent is not False:
            return protocol.close_rcvd
        return protocol.close_sent

    async def receive(
        self, at_end: type[BaseException] | None = None
    ) -> Message | None:
        try:
            return await self._connection.recv()
        except LibraryClosed:
            if at_end is not None:
                raise at_end from None
            return None

    async def send(self, message: Message) -> None:
        check_message(message)
        try:
            await self._connection.send(message)
        except LibraryClosed:
            raise self.closed_error() from None

    async def close(self, code: int, reason: str) -> None:
        await self._connection.close(code, reason)

    async def ping(self) -> float:
        try:
            return await (await self._connection.ping())
        except LibraryClosed:
            raise self.closed_error() from None

    def closed_error(self) -> ConnectionClosed:
        return ConnectionClosed(self.close_code or ABNORMAL, self.close_reason)


class connect:
    """Open a WebSocket to a server.

    In a coroutine::

        async with aioext.connect("ws://127.0.0.1:6543/echo") as ws:
            await ws.send("hello")

    or ``ws = await aioext.connect(url)``, to be closed with ``ws.close()``. In
    synchronous code, a ``with`` statement gives a
    :class:`~aioext.websocket.SyncWebSocket`.

    Args:
        url: begins with ``ws://`` or ``wss://``.
        options: of ``websockets.asyncio.client.connect``: ``subprotocols``,
            ``additional_headers``, ``open_timeout`` (seconds, 10),
            ``max_size`` (bytes, 1 MiB), ``ssl`` and others.

    Raises:
        OSError: the server cannot be reached.
        TimeoutError: it does not answer in time.
        websockets.exceptions.InvalidStatus: it answers, and refuses; its
            response is the error's ``response``.
        websockets.exceptions.InvalidURI: the URL is no WebSocket's.

    Cancellation: nothing stays open.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._connecting = open_connection(url, **options)
        self._ws: WebSocket | None = None

    def __await__(self) -> Generator[Any, Any, WebSocket]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> WebSocket:
        connection = await self._connecting
        self._ws = WebSocket(ClientChannel(connection))
        return self._ws

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._ws is not None
        await self._ws.close()

    def __enter__(self) -> SyncWebSocket:
        return SyncWebSocket(bridge.wait(self.__aenter__()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        bridge.wait(self.__aexit__(kind, error, traceback))

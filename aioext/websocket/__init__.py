"""WebSockets: views that talk with their client.

The names here are what an application uses; see :doc:`/websocket`.
"""

from __future__ import annotations

from .config import UWSGIWebsocketMapper as UWSGIWebsocketMapper
from .config import WebsocketMapper as WebsocketMapper
from .connection import SyncWebSocket as SyncWebSocket
from .connection import WebSocket as WebSocket
from .response import HTTPUpgradeRequired as HTTPUpgradeRequired
from .response import WebSocketResponse as WebSocketResponse
from .view import WebsocketConnectionView as WebsocketConnectionView
from .wsgi import get_websocket as get_websocket

__all__ = [
    "HTTPUpgradeRequired",
    "SyncWebSocket",
    "UWSGIWebsocketMapper",
    "WebSocket",
    "WebSocketResponse",
    "WebsocketConnectionView",
    "WebsocketMapper",
    "get_websocket",
]

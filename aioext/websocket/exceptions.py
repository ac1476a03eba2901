"""The name that aiopyramid's users import the end of a WebSocket by.

New code imports :class:`aioext.exceptions.ConnectionClosed`.
"""

from ..exceptions import ConnectionClosed as WebsocketClosed

__all__ = ["WebsocketClosed"]

"""Testing an application in process: pages, WebSockets and event streams.

::

    from aioext.testing import TestApp

It is WebTest's ``TestApp`` with two more methods. WebTest comes with
``pip install 'aioext[testing]'``, and is imported nowhere else.
"""

try:
    from .app import TestApp
    from .eventsource import TestEventSource
    from .eventstream import ServerEvent
    from .websocket import TestWebSocket, WebSocketRefused
except ModuleNotFoundError as error:
    if error.name != "webtest":
        raise
    raise ImportError(
        "aioext.testing stands on WebTest, which is not installed: "
        "pip install 'aioext[testing]'"
    ) from None

__all__ = [
    "ServerEvent",
    "TestApp",
    "TestEventSource",
    "TestWebSocket",
    "WebSocketRefused",
]

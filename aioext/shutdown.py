"""The end of a server is announced, so that nothing endless delays it.

A server that stops waits for the requests under way, and a WebSocket or an
event stream is a request that may never end by itself. Whoever serves such a
thing registers a callback with :func:`on_shutdown`; the runtime calls
:func:`announce` as soon as it is told to stop, and then the ordinary end begins.

Each loop has its own announcement: two servers in two threads of one process
know nothing of each other.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable

__all__ = ["announce", "is_announced", "on_shutdown"]

log = logging.getLogger("aioext")

Callback = Callable[[], None]


class _Announcement:
    def __init__(self) -> None:
        self.is_made = False
        # A dict keeps their order, and lets go of one as fast as a set does.
        self.callbacks: dict[object, Callback] = {}


_announcements: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Announcement] = (
    weakref.WeakKeyDictionary()
)


def on_shutdown(callback: Callback) -> Callable[[], None]:
    """Have ``callback()`` called on the running loop when its server stops.

    If that has been announced already, it is called soon.

    Returns:
        what takes the registration back; harmless if it is called again.
    """
    loop = asyncio.get_running_loop()
    announcement = _announcements.setdefault(loop, _Announcement())
    key = object()
    announcement.callbacks[key] = callback
    if announcement.is_made:
        loop.call_soon(_call, announcement, key)
    return lambda: announcement.callbacks.pop(key, None) and None


def announce(loop: asyncio.AbstractEventLoop) -> None:
    """Tell all that are registered for ``loop``; to be called on it, by a runtime.

    An exception in a callback is logged, and the others are called.
    """
    announcement = _announcements.setdefault(loop, _Announcement())
    announcement.is_made = True
    for key in list(announcement.callbacks):
        _call(announcement, key)


def is_announced(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the server of ``loop`` is stopping."""
    announcement = _announcements.get(loop)
    return announcement is not None and announcement.is_made


def _call(announcement: _Announcement, key: object) -> None:
    callback = announcement.callbacks.pop(key, None)
    if callback is None:
        return
    try:
        callback()
    except Exception:
        log.exception("aioext: a callback for the server's end failed")

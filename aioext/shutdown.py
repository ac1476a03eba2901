"""The end of a server is announced, so that nothing endless delays it.

A server that stops waits for the requests under way, and a WebSocket or an
event stream is a request that may never end by itself. Whoever serves such a
thing registers a callback with :func:`on_shutdown`; the runtime calls
:func:`announce` as soon as it is told to stop, and then the ordinary end begins.

Each loop has its own announcement: two servers in two threads of one process
know nothing of each other.

ASGI has no such message: a server tells an application to stop when all requests
have ended. Where the server is not ours, :func:`announce_at_signals` looks for what
makes it stop, and leaves the signal to the handler that the server has set.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import threading
import weakref
from collections.abc import Callable
from typing import Any

__all__ = [
    "announce",
    "announce_at_signals",
    "is_announced",
    "on_shutdown",
    "precede",
    "settled",
]

log = logging.getLogger("aioext")

Callback = Callable[[], None]


class _Announcement:
    def __init__(self) -> None:
        self.is_made = False
        # A dict keeps their order, and lets go of one as fast as a set does.
        self.callbacks: dict[object, Callback] = {}
        # Those who have been told, and not taken their registration back.
        self.told: set[object] = set()
        self.settling: asyncio.Future[None] | None = None

    def forget(self, key: object) -> None:
        self.callbacks.pop(key, None)
        self.told.discard(key)
        if self.settling is not None and not (self.told or self.settling.done()):
            self.settling.set_result(None)


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
    return lambda: announcement.forget(key)


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


async def settled(timeout: float) -> None:
    """Return when all that were told of the running loop's end have taken their
    registration back, or after ``timeout`` seconds.
    """
    announcement = _announcements.get(asyncio.get_running_loop())
    if announcement is None or not announcement.told:
        return
    announcement.settling = asyncio.get_running_loop().create_future()
    await asyncio.wait((announcement.settling,), timeout=timeout)


def announce_at_signals() -> contextlib.ExitStack:
    """Announce the end of the running loop's server at SIGTERM and at SIGINT.

    Does nothing for a signal that the server does not handle, and nothing at all
    outside of the main thread, where no handler can be set.

    Returns:
        a context manager, at whose end the server's handlers are put back.
    """
    loop = asyncio.get_running_loop()
    stack = contextlib.ExitStack()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            stack.callback(precede(number, functools.partial(_announce_soon, loop)))
    return stack


def _announce_soon(loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(announce, loop)


def precede(number: int, callback: Callback) -> Callable[[], None]:
    """Have ``callback()`` called at a signal, before the handler that it has now.

    A signal without a handler in Python is left alone. To be called in the main thread.

    Returns:
        what puts the handler back, unless there is a later one.
    """
    handler = signal.getsignal(number)
    if not callable(handler):
        return lambda: None

    def preceding(*args: Any) -> None:
        callback()
        handler(*args)

    def restore() -> None:
        if signal.getsignal(number) is preceding:
            signal.signal(number, handler)

    signal.signal(number, preceding)
    return restore


def _call(announcement: _Announcement, key: object) -> None:
    callback = announcement.callbacks.pop(key, None)
    if callback is None:
        return
    announcement.told.add(key)
    try:
        callback()
    except Exception:
        log.exception("aioext: a callback for the server's end failed")

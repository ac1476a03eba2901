"""A loop for code that has none: plain WSGI servers, WebTest, scripts.

Where no event loop serves the request, an awaitable runs on a loop in a
background thread: one per process, started when it is first needed, stopped
when the process ends. Asynchronous views work there too, only without the
concurrency, for the thread that waits is blocked.

A process that serves requests on a loop names that loop with :func:`serve_on`,
and threads of the application's own wait for it instead, so that what was
opened on the loop (a connection pool, say) is used on the loop.

A forked child inherits neither thread nor loop: both are bound to the process
id under which they were made.

Under gevent's monkey patching the background thread would be a greenlet of
the thread that it is to relieve, and both would wait for ever; that is refused.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
from typing import Any

from .exceptions import ScopeError

__all__ = ["BackgroundLoop", "background_loop", "find_loop", "serve_on"]

log = logging.getLogger("aioext")

# Seconds that the end of the process waits for tasks that do not end when
# they are cancelled.
STOP_TIMEOUT = 5.0


class BackgroundLoop:
    """An event loop in a daemon thread.

    Attributes:
        loop: the loop, running while the thread is alive.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self._stopping = False
        self._thread = threading.Thread(
            target=self._run, name="aioext-loop", daemon=True
        )
        self._thread.start()
        atexit.register(self.stop)

    def _run(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            self._serve()
            loop.run_until_complete(_cancel_all(loop))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def _serve(self) -> None:
        while not self._stopping:
            try:
                self.loop.run_forever()
            except (KeyboardInterrupt, SystemExit):
                # That is how a Task ends its loop, but others wait for this one.
                log.exception("aioext: a task tried to end the background loop")

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Cancel what still runs, and end the thread.

        Does nothing in a process other than the one that started it.
        """
        atexit.unregister(self.stop)
        if self.pid == os.getpid() and self._thread.is_alive():
            self._stopping = True
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(timeout)

    @property
    def usable(self) -> bool:
        """Whether it runs, and in this process."""
        return self.pid == os.getpid() and self._thread.is_alive()


async def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


_background: BackgroundLoop | None = None
_lock = threading.Lock()
_serving: tuple[int, asyncio.AbstractEventLoop] | None = None


def serve_on(loop: asyncio.AbstractEventLoop | None) -> None:
    """Name the loop on which this process serves requests; None: no more."""
    global _serving
    _serving = None if loop is None else (os.getpid(), loop)


def find_loop() -> asyncio.AbstractEventLoop:
    """The running loop that a thread without one is to wait for.

    Raises:
        ScopeError: gevent has patched the threads of this process.
    """
    if _serving is not None:
        pid, loop = _serving
        if pid == os.getpid() and loop.is_running():
            return loop
    return background_loop().loop


def background_loop() -> BackgroundLoop:
    """The background loop of this process, started if need be."""
    global _background, _lock
    if _background is not None and _background.usable:
        return _background
    with _lock:
        if _background is None or not _background.usable:
            _refuse_gevent()
            _background = BackgroundLoop()
        return _background


def _refuse_gevent() -> None:
    """Raise :class:`ScopeError` if gevent has patched this process's threads."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        raise ScopeError(GEVENT)


def _forget_after_fork() -> None:
    # The child has no such thread, and the lock may have been held by another.
    global _background, _lock, _serving
    _background = _serving = None
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_after_fork)

GEVENT = """\
gevent has patched the threads of this process, so that nothing can run an \
event loop beside the request. Serve the application with another worker: \
aioext.gunicorn.worker.AsyncGunicornWorker, gthread or sync."""

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

At the end of the process what still runs is told to end, in this order: event
streams, whose clients are told when to come back; everything else, which is
cancelled; the lifespans of applications (:func:`end_last`). Threads that are daemons,
of the server or of an executor of ours, hear of it where they wait. A thread that is
none is waited for by the interpreter, before any of this: whether it blocks by a wait
or by other means. So is one of ``asyncio.to_thread``, wherever its pool comes from.
A server with such threads (gunicorn's gthread) is to say earlier that it stops:
:func:`stop_at_signals`.

Under gevent's monkey patching, or eventlet's, the background thread would be a
greenlet of the thread that it is to relieve, and both would wait for ever; that is
refused, when an application is configured and again when it serves.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import logging
import os
import signal
import sys
import threading
import weakref
from collections.abc import Collection
from typing import Any

from . import shutdown
from .exceptions import ScopeError

__all__ = [
    "BackgroundLoop",
    "background_loop",
    "body_sent",
    "body_under_way",
    "end_at_exit",
    "end_last",
    "find_loop",
    "give_up",
    "is_ending",
    "is_lost",
    "patched_by",
    "refuse_patched_threads",
    "request_under_way",
    "serve_on",
    "stop_at_signals",
]

log = logging.getLogger("aioext")

# Seconds that the end of the process waits for tasks that do not end when
# they are cancelled.
STOP_TIMEOUT = 5.0
# Of these, how many event streams have for their end, and requests whose wait was
# cancelled for theirs.
PATIENCE = 1.0
# Seconds in which any other thread whose wait was cancelled begins the next one, in a
# ``finally``; and between two looks.
MOMENT = 0.05


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
        try:
            self._thread.start()
        except RuntimeError:
            # The interpreter ends, and starts no thread any more.
            self.loop.close()
            raise ScopeError(PROCESS_ENDS) from None
        atexit.register(self.stop)

    def _run(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            self._serve()
            loop.run_until_complete(_end_all(loop))
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
        """End what still runs, and the thread.

        Does nothing in a process other than the one that started it.
        """
        atexit.unregister(self.stop)
        if self.usable:
            self.loop.call_soon_threadsafe(self._stop)
            self._thread.join(timeout)

    def stop_soon(self, grace: float) -> None:
        """Have event streams end now, and everything in ``grace`` seconds.

        Returns at once; may be called by a handler of a signal.
        """
        self.loop.call_soon_threadsafe(shutdown.announce, self.loop)
        self.loop.call_soon_threadsafe(self.loop.call_later, grace, self._stop)

    def _stop(self) -> None:
        # Once, for what ends then must not be interrupted.
        if not self._stopping:
            self._stopping = True
            self.loop.stop()

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping

    @property
    def usable(self) -> bool:
        """Whether it runs, and in this process."""
        return self.pid == os.getpid() and self._thread.is_alive()


async def _end_all(loop: asyncio.AbstractEventLoop) -> None:
    shutdown.announce(loop)
    await shutdown.settled(PATIENCE)
    # The server may have cancelled some: what they do last is not to be cancelled.
    if ending := {task for task in _running(loop) if task.cancelling()}:
        await asyncio.wait(ending, timeout=PATIENCE)
    if left := _running(loop):
        await _cancel(left)
        await _unwind(loop)
    await _cancel([task for task in _last.copy() if task.get_loop() is loop])


async def _unwind(loop: asyncio.AbstractEventLoop) -> None:
    # Threads whose waits were cancelled go on, and may wait again.
    due = loop.time() + PATIENCE
    await asyncio.sleep(MOMENT)
    # Nobody looks at them but here, so they set no event.
    while _running(loop) or (loop.time() < due and (_requests or len(_bodies))):  # noqa: ASYNC110
        await asyncio.sleep(MOMENT)


def _running(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks(loop) - {asyncio.current_task(loop), *_last.copy()}


async def _cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# Requests that threads of a server are at work on, and bodies that they send.
_requests: set[object] = set()
_bodies: weakref.WeakSet[Any] = weakref.WeakSet()


class request_under_way:
    """A request is served in this thread: the loop does not end in the middle of it."""

    __slots__ = ()

    def __enter__(self) -> None:
        _requests.add(self)

    def __exit__(self, *error: object) -> None:
        _requests.discard(self)


def body_under_way(body: Any) -> None:
    """A thread sends ``body``, until :func:`body_sent` or until it is dropped."""
    _bodies.add(body)


def body_sent(body: Any) -> None:
    """``body`` was closed."""
    _bodies.discard(body)


# Tasks that hold what others use.
_last: set[asyncio.Task[Any]] = set()


def end_last(task: asyncio.Task[Any]) -> None:
    """Have ``task`` go on until all others have ended, when its loop is stopped."""
    _last.add(task)
    task.add_done_callback(_last.discard)


# Loops that nobody may close, and the process and thread that each is of.
_left: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[int, int]] = (
    weakref.WeakKeyDictionary()
)


def end_at_exit(loop: asyncio.AbstractEventLoop) -> None:
    """Have what is left on ``loop`` end with the process.

    For a server that only stops its loop: daphne's is still open, with all its tasks,
    when the interpreter ends. A loop that is closed by then has no tasks left, and
    greenlets of another thread cannot go on in the main one.
    """
    if not _left:
        atexit.register(_end_left)
    _left[loop] = _this_thread()


def _this_thread() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def _end_left() -> None:
    for loop, thread in list(_left.items()):
        is_open = not (loop.is_closed() or loop.is_running())
        if is_open and thread == _this_thread():
            ending = loop.create_task(_end_all(loop))
            ending.add_done_callback(lambda ending, loop=loop: loop.stop())
            due = loop.call_later(STOP_TIMEOUT, loop.stop)
            loop.run_forever()
            due.cancel()


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
        ScopeError: gevent has patched the threads of this process, or it ends.
    """
    if _serving is not None:
        pid, loop = _serving
        if pid == os.getpid() and loop.is_running():
            return loop
    return background_loop().loop


def is_ending() -> bool:
    """Whether the background loop is being stopped, or was the last that there was."""
    background = _background
    return background is not None and background.is_stopping


_has_given_up = False


def give_up() -> None:
    """From now on nobody ends what threads wait for, as the process is at its end."""
    global _has_given_up
    _has_given_up = True


def is_lost(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a thread waits in vain for ``loop``: it is closed, or left for good."""
    if _has_given_up and (is_ending() or not loop.is_running()):
        return True
    return loop.is_closed()


def background_loop() -> BackgroundLoop:
    """The background loop of this process, started if need be.

    Raises:
        ScopeError: gevent has patched the threads, or the interpreter ends.
    """
    global _background, _lock
    if _background is not None and _background.usable:
        return _background
    with _lock:
        if _background is None or not _background.usable:
            refuse_patched_threads()
            _background = BackgroundLoop()
        return _background


def stop_at_signals(grace: float) -> None:
    """End what waits for the background loop when this process is told to stop.

    For servers whose threads keep a process from its end, as gunicorn's ``gthread``
    does. Its ``gunicorn.conf.py``::

        from aioext.background import stop_at_signals

        def post_worker_init(worker):
            stop_at_signals(worker.cfg.graceful_timeout)

    At SIGTERM event streams end at once, and requests that still wait shortly before
    ``grace`` is over are answered with 503; at SIGINT and SIGQUIT both at once. Then
    lifespans are closed. The server's own handlers are called as well; a signal for
    which it has none is left alone. To be called in the main thread, once in each
    process.

    Args:
        grace: seconds that the server gives requests under way when it stops.

    Raises:
        ValueError: this is not the main thread.
    """
    margin = min(grace / 3, 1.0)
    shutdown.precede(signal.SIGTERM, functools.partial(_stop_soon, grace - margin))
    shutdown.precede(signal.SIGINT, functools.partial(_stop_soon, 0))
    shutdown.precede(signal.SIGQUIT, functools.partial(_stop_soon, 0))


def _stop_soon(grace: float) -> None:
    background = _background
    if background is not None and background.usable:
        background.stop_soon(grace)


def refuse_patched_threads() -> None:
    """Raise :class:`ScopeError` if this process's threads are greenlets."""
    patch = patched_by()
    if patch is not None:
        raise ScopeError(PATCHED.format(patch))


def patched_by() -> str | None:
    """The name of the library that has replaced threads by greenlets, if one has."""
    gevent: Any = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return "gevent"
    eventlet: Any = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return "eventlet"
    return None


def _forget_after_fork() -> None:
    # The child has no such thread, and the lock may have been held by another.
    global _background, _has_given_up, _lock, _serving
    _background = _serving = None
    _has_given_up = False
    _lock = threading.Lock()
    _requests.clear()
    _bodies.clear()


os.register_at_fork(after_in_child=_forget_after_fork)

PATCHED = """\
{} has patched the threads of this process, so that nothing can run an event loop \
beside the request. Serve the application with another worker: \
aioext.gunicorn.worker.AsyncGunicornWorker, gthread or sync."""

PROCESS_ENDS = """\
This thread waits for something asynchronous while the process ends, and no event loop \
can be started any more. Let the work end before the process does."""

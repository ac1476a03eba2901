"""pyramid_debugtoolbar beside requests that take turns in one thread.

Theory of operation
===================

The toolbar's tween runs in the request's greenlet, and most panels keep what they
find in themselves. Two of them take a thread for a request:

* The *log panel* has a handler that files records by thread. Here it files them by
  toolbar, of which each request has one, and finds that through the current
  request. So a record is its request's wherever it is written: in a coroutine, in a
  thread of the executor, in a Task that the request has started. What is written
  when no toolbar is at work is filed nowhere.
* The *performance panel*, where it is active, profiles one request at a time, under
  a ``threading.Lock``. A greenlet that waited for that one would stop the loop, with
  the greenlet that holds it. The lock here is waited for in the way of
  :func:`aioext.wait`.

A profile would also have what other requests do while the profiled one waits. While
a request has the lock, switches between greenlets are looked at
(``greenlet.settrace``), and the profiler is paused while another one's code runs.
Python 3.12 has another sort of profiler, which is told what happens by callbacks:
those are taken away and given back. Whatever the version, the profiler sees one
call, the ``switch`` of a greenlet, that takes as long as the wait.

The handler and the lock are no public interfaces of the toolbar's. They are looked
for when an application with the toolbar has been configured; where one is missing, a
warning in the log says so, and the panel is as the toolbar made it.

Things that do not work
=======================

* Records in a context variable that the panel's ``clear_records`` sets: a
  subrequest through the tweens would end its parent's panel.
* ``Profile.disable()`` while the request waits: it takes every call under way for
  ended, so the view's time would be that until its first wait.
* Profiling what an executor's thread does for a request: a profiler belongs to a
  thread in Python 3.11. ``aioext.sync_views = request`` has tweens and view in one.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import weakref
from collections import deque
from concurrent.futures import Future
from contextvars import ContextVar
from functools import cache
from importlib.metadata import version
from typing import Any

from greenlet import getcurrent, greenlet, settrace
from pyramid.config import PHASE3_CONFIG
from pyramid.settings import asbool
from pyramid.threadlocal import get_current_request

from . import bridge, threads
from .exceptions import ScopeError, explain

log = logging.getLogger("aioext")


def includeme(config: Any) -> None:
    """Have the toolbar's panels fit; ``config.include('aioext')`` does it, too."""
    config.action(None, adapt_debugtoolbar, (config.registry,), order=PHASE3_CONFIG)


def adapt_debugtoolbar(registry: Any) -> None:
    """Have the panels fit, if the application has the toolbar; idempotent.

    It is for the whole process, for the toolbar keeps the handler and the lock there.
    """
    # A registry does not say what was included, but the toolbar puts its defaults
    # into the settings; and it does not hurt one that was merely imported.
    enabled = (registry.settings or {}).get("debugtoolbar.enabled", False)
    if "pyramid_debugtoolbar" in sys.modules and asbool(enabled):
        adapt_log_panel()
        adapt_performance_panel()


def adapt_log_panel() -> None:
    """File log records by request, in this process; does it once."""
    from pyramid_debugtoolbar.panels import logger

    handler = getattr(logger, "handler", None)
    names = ("get_records", "clear_records")
    if not all(callable(getattr(handler, name, None)) for name in names):
        _warn("panels.logger.handler", "Its log panel mixes up requests.")
    elif not isinstance(_owner(handler.get_records), _Records):
        records = _Records(handler)
        handler.get_records = records.get
        handler.clear_records = records.clear


def adapt_performance_panel() -> None:
    """Profile requests without stopping the loop, in this process; does it once."""
    from pyramid_debugtoolbar.panels import performance

    lock = getattr(performance, "lock", None)
    if not hasattr(lock, "__enter__"):
        _warn("panels.performance.lock", "Its performance panel may stop the loop.")
    elif not isinstance(lock, ProfilerLock):
        performance.lock = ProfilerLock()


def _owner(method: Any) -> Any:
    return getattr(method, "__self__", None)


@cache
def _warn(name: str, consequence: str) -> None:
    # Once: an application is looked at twice, and a process may make several.
    installed = version("pyramid_debugtoolbar")
    log.warning(explain(MISSING.format(installed, name, consequence), "debugtoolbar"))


MISSING = """\
pyramid_debugtoolbar {} has no pyramid_debugtoolbar.{} of the sort that aioext knows. \
{} Install a release of pyramid_debugtoolbar that the page on add-ons names, or leave \
that panel out of debugtoolbar.panels."""


class _Records:
    """The log records of the panel, by toolbar."""

    def __init__(self, handler: Any) -> None:
        self._get = handler.get_records
        self._clear = handler.clear_records
        self._records: weakref.WeakKeyDictionary[Any, list[Any]]
        self._records = weakref.WeakKeyDictionary()

    def get(self, thread: Any = None) -> list[Any]:
        if thread is not None:
            return self._get(thread)
        toolbar = _current_toolbar()
        # Without one: a list that nobody will look at.
        return [] if toolbar is None else self._records.setdefault(toolbar, [])

    def clear(self, thread: Any = None) -> None:
        if thread is not None:
            self._clear(thread)
            return
        toolbar = _current_toolbar()
        if toolbar is not None:
            self._records.pop(toolbar, None)


def _current_toolbar() -> Any:
    # The tween sets the attribute when the panels are made, and deletes it at
    # the end.
    return getattr(get_current_request(), "debug_toolbar", None)


# Whether the request of this context is being profiled.
_profiled: ContextVar[bool] = ContextVar("aioext.profiled", default=False)


class ProfilerLock:
    """One request at a time: a context manager in place of ``threading.Lock``.

    Those that come later have their turns in order. They wait without blocking
    the loop, or in a thread that has no loop, as for any lock. Requests of several
    loops and threads may share it.

    Raises:
        ScopeError: on entering it, for a request of a request that has it.

    Cancellation: of one that waits for its turn is raised there; its turn is
    passed on.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._is_taken = False
        self._turns: deque[Future[None]] = deque()
        self._pauses: _Pauses | None = None

    def __enter__(self) -> None:
        if _profiled.get():
            raise ScopeError(NESTED)
        turn = self._ask()
        if turn is not None:
            self._wait_for(turn)
        _profiled.set(True)
        self._pauses = _Pauses()

    def __exit__(self, *error: object) -> None:
        pauses, self._pauses = self._pauses, None
        if pauses is not None:
            pauses.end()
        _profiled.set(False)
        self._pass_on()

    def _ask(self) -> Future[None] | None:
        with self._mutex:
            if not self._is_taken:
                self._is_taken = True
                return None
            turn: Future[None] = Future()
            self._turns.append(turn)
            return turn

    def _wait_for(self, turn: Future[None]) -> None:
        try:
            if bridge.loop_runs_here() or threads.current_scope() is not None:
                bridge.wait(_come(turn))
            else:
                turn.result()
        except BaseException:
            if not turn.cancel():
                # It has come meanwhile.
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        with self._mutex:
            turn = self._next()
            self._is_taken = turn is not None
        if turn is not None:
            turn.set_result(None)

    def _next(self) -> Future[None] | None:
        while self._turns:
            turn = self._turns.popleft()
            if turn.set_running_or_notify_cancel():
                return turn
        return None


async def _come(turn: Future[None]) -> None:
    await asyncio.wrap_future(turn)


NESTED = """\
The debug toolbar profiles one request at a time, and this one was made by the \
request that it is profiling, which would wait for ever. Make the subrequest with \
use_tweens=False, or deactivate the toolbar's performance panel."""


class _Pauses:
    """Pauses the profiler of this thread while another greenlet runs."""

    def __init__(self) -> None:
        self._greenlet = getcurrent()
        self._paused: Any = None
        self._outer = settrace(self._switched)

    def end(self) -> None:
        settrace(self._outer)

    def _switched(self, event: str, switch: tuple[greenlet, greenlet]) -> None:
        # Called in the greenlet that goes on, with profiling off.
        if self._outer is not None:
            self._outer(event, switch)
        if not self._is_ours(switch[1]):
            if self._paused is None:
                self._paused = _pause_profiler()
        elif self._paused is not None:
            paused, self._paused = self._paused, None
            _resume_profiler(paused)

    def _is_ours(self, current: greenlet | None) -> bool:
        # A library may run a part of the request in a greenlet of its own.
        while current is not None and current is not self._greenlet:
            current = current.parent
        return current is not None


if sys.version_info >= (3, 12):

    def _pause_profiler() -> Any:
        tool = sys.monitoring.PROFILER_ID
        return [
            (event, sys.monitoring.register_callback(tool, event, None))
            for event in _EVENTS
        ]

    def _resume_profiler(callbacks: Any) -> None:
        for event, callback in callbacks:
            sys.monitoring.register_callback(
                sys.monitoring.PROFILER_ID, event, callback
            )

    _EVENTS = [
        event
        for name, event in vars(sys.monitoring.events).items()
        if name.isupper() and event
    ]

else:

    def _pause_profiler() -> Any:
        profiler = sys.getprofile()
        sys.setprofile(None)
        return profiler

    def _resume_profiler(profiler: Any) -> None:
        # setprofile() takes functions, and this is none.
        profiler.enable()

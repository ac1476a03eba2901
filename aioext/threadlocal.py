"""Each request has its own ``get_current_request()``: request isolation.

Theory of operation
===================

Pyramid keeps the current request and registry on a stack, in a
``threading.local`` (:mod:`pyramid.threadlocal`, ``manager``). Greenlets of one
thread share it: after a wait, ``get_current_request()`` would give the request
that was pushed last, by whomever.

:func:`install` gives the one ``manager`` object another class. Whoever
imported the object before has the fix too, and giving the old class back
undoes it. The class keeps the stack in a context variable, which every Task
has to itself and every thread of the executor a copy of; the stack is an
immutable tuple, for copies of a context share their values.

Where no loop runs and the context's stack is empty, the thread's own stack is
used, exactly as before: by tests that call ``pyramid.testing.setUp`` and only
then start a loop, by scripts, by servers that give each request a thread. A
thread of the executor works for a loop, and uses the context: what a whole
request in a thread pushes is not seen by the next one there.

The entry that is popped last is kept until the request is over: a server pushes
it again while it iterates over the body, which plain Pyramid does not do. On a server
that gives each request a thread, the request has a context to itself for that
(:func:`apart`, :mod:`aioext.threaded`), and its entry the thread's stack.

Things that do not work
=======================

* Only a context variable: a test runner that keeps one loop copies its
  contexts before ``setUp`` pushes anything, so the tests see nothing.
* A list in the context variable: a Task made by a request would push to that
  request's own stack.
* Replacing ``manager`` in its module: others hold the object already.
"""

from __future__ import annotations

import contextvars
import threading
from asyncio import get_running_loop
from typing import Any

from pyramid.threadlocal import ThreadLocalManager, manager

__all__ = ["install", "uninstall"]


_stack: contextvars.ContextVar[tuple[dict[str, Any], ...]] = contextvars.ContextVar(
    "aioext.threadlocal.stack", default=()
)
_ended: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar(
    "aioext.threadlocal.ended", default=None
)
# Whether this context is that of one request in a thread of its server's.
_is_apart: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "aioext.threadlocal.is_apart", default=False
)
VARIABLES = (_stack, _ended)
# In _ended: this context has served a request, and none is to be pushed again.
SERVED: dict[str, Any] = {}


class _ThisThread(threading.local):
    # Of the executor's job that runs in this thread, if any; aioext.threads sets it.
    scope: Any = None


this_thread = _ThisThread()


class ContextLocalManager(ThreadLocalManager):
    """Pyramid's thread-local manager, with a stack for each context."""

    def push(self, info: dict[str, Any]) -> None:
        stack = _stack.get()
        if stack or _works_for_a_loop():
            _stack.set((*stack, info))
        else:
            super().push(info)

    set = push

    def pop(self) -> dict[str, Any] | None:
        stack = _stack.get()
        if not stack:
            entry = super().pop()
            if entry is not None and _is_apart.get() and _has_request(entry):
                _ended.set(entry)
            return entry
        entry = stack[-1]
        rest = stack[:-1]
        _stack.set(rest)
        if not rest and _has_request(entry):
            _ended.set(entry)
        return entry

    def get(self) -> dict[str, Any]:
        stack = _stack.get()
        return stack[-1] if stack else super().get()

    def clear(self) -> None:
        _stack.set(())
        super().clear()


def _has_request(entry: dict[str, Any]) -> bool:
    # A configurator pushes as well, with no request, and serves none.
    return entry.get("request") is not None


def _works_for_a_loop() -> bool:
    try:
        get_running_loop()
    except RuntimeError:
        return this_thread.scope is not None
    return True


def install() -> None:
    """Isolate requests in this process; doing it again does nothing.

    Under gevent's monkey patching nothing is done: its greenlets are isolated
    already.
    """
    if type(manager) is ThreadLocalManager:
        try:
            manager.__class__ = ContextLocalManager
        except TypeError:
            pass


def uninstall() -> None:
    """Give Pyramid's manager its own class back."""
    if type(manager) is ContextLocalManager:
        manager.__class__ = ThreadLocalManager


def context_is_used() -> bool:
    """Whether this context has a request, or had one."""
    return _ended.get() is not None or bool(_stack.get())


def forget() -> None:
    """Let go of the request that this context has served."""
    _ended.set(SERVED)


def ended_entry() -> dict[str, Any] | None:
    """The entry that was popped last in this context, if it is over."""
    return None if _stack.get() else _ended.get() or None


def has_ended(request: Any) -> bool:
    """Whether ``request`` is over, and what runs in this context is its body."""
    entry = _ended.get()
    return bool(entry) and entry["request"] is request


class pushed:
    """A context manager that has ``entry`` be current, unless it is None."""

    __slots__ = ("_entry",)

    def __init__(self, entry: dict[str, Any] | None) -> None:
        self._entry = entry

    def __enter__(self) -> None:
        if self._entry is not None:
            manager.push(self._entry)

    def __exit__(self, *error: object) -> None:
        if self._entry is not None:
            manager.pop()


def isolated() -> contextvars.Context:
    """A copy of this context, as one that has served no request."""
    context = contextvars.copy_context()
    context.run(_stack.set, ())
    context.run(_ended.set, None)
    return context


def apart() -> contextvars.Context:
    """A copy of this context, for one request in a thread of its server's."""
    context = contextvars.copy_context()
    context.run(_is_apart.set, True)
    if context.get(_ended) is not None:
        context.run(_ended.set, None)
    return context


def is_apart() -> bool:
    """Whether this context is such a copy, or a copy of one."""
    return _is_apart.get()


def snapshot() -> None:
    """Have this thread's current request be the context's, for other threads.

    Work that is handed to another thread takes a copy of the context along,
    but not the thread's own stack.
    """
    if not _stack.get():
        stack = getattr(manager, "stack", ())
        if stack:
            _stack.set(tuple(stack[-1:]))

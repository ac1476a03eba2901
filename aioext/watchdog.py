"""A watchdog for development: it names what holds the event loop.

Theory of operation
===================

A thread asks the loop for a *beat*, a callback that only says that it has run, and
does so again shortly after. While the beat is due the thread looks at the stack of the
loop's thread, again and again. A frame that is there twice in a row, and is not the
loop's own, belongs to code that has held the loop meanwhile: code that was merely next
of many that are short has left by then. With pauses of a fifth of the limit, and two
fifths before each look, whatever holds the loop for the limit is seen, and nothing
that holds it for less than two fifths.

A greenlet's stack does not lead to the loop, so the code of the loop is told by its
code objects, which the beat sees below itself.

A loop that stands in a lock's ``acquire()`` may stand there for ever: a request that
holds the lock and waits, through the bridge, can only go on when the loop does. So
what waits is shown as well. The requests are in a weak set, which is kept only while
a watchdog is on; where one waits is found in its greenlet, and from there in the
coroutines that await one another.

Code that never gives up the interpreter's lock (a regular expression that does not
end, say) holds this thread as well, and is seen only if it lasts beyond it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dis
import gc
import logging
import os
import sys
import sysconfig
import threading
import traceback
import types
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from greenlet import getcurrent

from . import executor, greenlets

__all__ = ["Watchdog"]

log = logging.getLogger("aioext")

# In parts of the limit: between two beats, and between two looks.
PAUSE = 0.2
LOOK = 0.4
# Seconds; no limit is so small that asking takes all the time.
SHORTEST = 0.001
# Seconds after which a message is written without the help of logging.
PATIENCE = 1.0
STDERR = 2

# How many waiting requests are shown, and how many places are remembered.
MAX_SHOWN = 20
MAX_PLACES = 1000

Stack = list[types.FrameType]

_watchdogs: dict[asyncio.AbstractEventLoop, Watchdog] = {}
# Whether any is on: requests are noted then.
is_on = False
_requests: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def note(request: Any) -> None:
    """Remember where ``request`` is served: in this greenlet.

    Args:
        request: has ``describe()`` and ``task``, and is the ``self`` of the function
            that calls the application; see :class:`aioext.guards.Guarded`.
    """
    # A greenlet of somebody else's may refer to the request.
    _requests[request] = weakref.ref(getcurrent())


@contextlib.contextmanager
def watch(loop: asyncio.AbstractEventLoop, limit: float) -> Iterator[None]:
    """Watch ``loop``, on which this is called; does nothing for one that is watched.

    Args:
        loop: the running loop.
        limit: seconds that anything may hold it.
    """
    global is_on
    if loop in _watchdogs:
        yield
        return
    watchdog = _watchdogs[loop] = Watchdog(loop, limit)
    is_on = True
    watchdog.start()
    try:
        yield
    finally:
        _watchdogs.pop(loop, None)
        is_on = bool(_watchdogs)
        watchdog.stop()


def _forget_after_fork() -> None:
    # The child has no such thread, and another loop if any.
    global is_on
    is_on = False
    _watchdogs.clear()
    _requests.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


class Watchdog:
    """A thread that watches one loop.

    Args:
        loop: to be watched; this is called in its thread.
        limit: seconds that anything may hold it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float) -> None:
        self._loop = loop
        self._limit = max(limit, SHORTEST)
        self._ident = threading.get_ident()
        self._is_stopped = threading.Event()
        self._beat = threading.Event()
        self._machinery: set[types.CodeType] = set()
        self._places: set[tuple[str, int]] = set()
        self._thread = threading.Thread(
            target=self._run, name="aioext-watchdog", daemon=True
        )

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; the thread has ended when this returns."""
        self._is_stopped.set()
        self._beat.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_stopped.wait(self._limit * PAUSE):
            beat = self._beat = threading.Event()
            try:
                self._loop.call_soon_threadsafe(self._answer, beat)
            except RuntimeError:
                # The loop is closed.
                return
            if not self._is_stopped.is_set():
                self._await(beat)

    def _await(self, beat: threading.Event) -> None:
        # While it is due, several may hold the loop, one after another.
        before: Stack = []
        reported: Stack = []
        while not beat.wait(self._limit * LOOK):
            stack = self._look()
            if _have_common(before, stack) and not _have_common(reported, stack):
                self._report(stack)
                reported = stack
            before = stack
        # The frames are not kept, for they keep what they refer to.

    def _answer(self, beat: threading.Event) -> None:
        beat.set()
        if not self._machinery:
            codes = [frame.f_code for frame in _walk(sys._getframe(1))]
            self._machinery.update(codes)

    def _look(self) -> Stack:
        # What runs in the loop's thread, the innermost frame first.
        stack = _walk(sys._current_frames().get(self._ident))
        return [frame for frame in stack if not self._is_machinery(frame.f_code)]

    def _is_machinery(self, code: types.CodeType) -> bool:
        return code in self._machinery or code.co_filename == greenlets.__file__

    def _report(self, stack: Stack) -> None:
        frame = _place_of(stack)
        place = (frame.f_code.co_filename, frame.f_lineno)
        if place in self._places or len(self._places) >= MAX_PLACES:
            return
        self._places.add(place)
        message = HELD.format(
            limit=self._limit * 1000,
            file=place[0],
            line=place[1],
            name=frame.f_code.co_qualname,
            stack=_format(stack),
        )
        if _acquires(stack[0]):
            message += LOCK + "".join(_describe_waiting())
        _say(message)


def _say(message: str) -> None:
    # The lock that the loop stands in may be one of logging's.
    speaker = threading.Thread(target=log.warning, args=("%s", message), daemon=True)
    speaker.start()
    speaker.join(PATIENCE)
    if speaker.is_alive():
        os.write(STDERR, f"{message}\n".encode(errors="replace"))


def _have_common(one: Stack, other: Stack) -> bool:
    return any(frame in other for frame in one)


def _walk(frame: types.FrameType | None) -> Stack:
    stack = []
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    return stack


_STDLIB = sysconfig.get_path("stdlib")
_PACKAGES = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
_OURS = str(Path(__file__).parent)


def _place_of(stack: Stack) -> types.FrameType:
    # The innermost frame of the application; else of what it has installed.
    for foreign in ((_OURS, _STDLIB, *_PACKAGES), (_OURS, _STDLIB)):
        for frame in stack:
            file = frame.f_code.co_filename
            if not file.startswith((*foreign, "<frozen")):
                return frame
    return stack[0]


def _acquires(frame: types.FrameType) -> bool:
    """Whether ``frame`` stands in ``with lock`` or in ``lock.acquire()``."""
    name = ""
    for instruction in dis.get_instructions(frame.f_code):
        if instruction.offset >= frame.f_lasti:
            called = instruction.opname
            return called == "BEFORE_WITH" or (
                called.startswith("CALL") and name in ("acquire", "__enter__")
            )
        if isinstance(instruction.argval, str):
            name = instruction.argval
    return False


def _describe_waiting() -> Iterator[str]:
    waiting = [
        (request.describe(), stack)
        for request, home in list(_requests.items())
        if (stack := _stack_of(request, home()))
    ]
    for description, stack in waiting[:MAX_SHOWN]:
        yield f"{description}\n{_format(stack)}"
    if len(waiting) > MAX_SHOWN:
        yield f"and {len(waiting) - MAX_SHOWN} more\n"
    frames = sys._current_frames()
    for thread in threading.enumerate():
        if thread.name.startswith(executor.THREAD_NAME):
            stack = _walk(frames.get(thread.ident or 0))
            # An idle one waits in the pool's own code.
            if _place_of(stack).f_code.co_filename.startswith(_STDLIB):
                continue
            yield f"thread {thread.name}\n{_format(stack)}"


def _stack_of(request: Any, home: Any) -> Stack:
    """Where ``request`` waits, innermost first; empty if it does not."""
    stack = [] if home is None else _walk(home.gr_frame)
    # A greenlet is reused: it may be another request's by now.
    if any(frame.f_locals.get("self") is request for frame in stack):
        return _walk_awaited(_driven_by(stack[0]))[::-1] + stack
    # It streams, without a greenlet; or it is not served any more, or not here.
    task = request.task
    return [] if task is None else _walk_awaited(task.get_coro())[::-1]


def _walk_awaited(awaiting: Any) -> Stack:
    # Coroutines that wait for one another, the outermost first.
    stack = []
    while awaiting is not None:
        links = _LINKS.get(type(awaiting))
        if links is None:
            # The step of an asynchronous generator, say, which is what waits.
            referents = gc.get_referents(awaiting)
            awaiting = next((each for each in referents if type(each) in _LINKS), None)
            continue
        frame, awaited = (getattr(awaiting, link) for link in links)
        if frame is None:
            break
        stack.append(frame)
        awaiting = awaited or _driven_by(frame)
    return stack


_LINKS = {
    types.CoroutineType: ("cr_frame", "cr_await"),
    types.GeneratorType: ("gi_frame", "gi_yieldfrom"),
    types.AsyncGeneratorType: ("ag_frame", "ag_await"),
}


def _driven_by(frame: types.FrameType) -> Any:
    # The bridge sends to coroutines, and awaits none.
    if frame.f_code.co_filename != greenlets.__file__:
        return None
    values = frame.f_locals.values()
    return next((each for each in values if type(each) is types.CoroutineType), None)


def _format(stack: Stack) -> str:
    # As a traceback is shown: the innermost last.
    lines = [(frame, frame.f_lineno) for frame in reversed(stack)]
    summary = traceback.StackSummary.extract(iter(lines))
    return "".join(summary.format())


HELD = """\
aioext: the event loop was held for more than {limit:.0f} ms in {file}, line {line}, \
in {name}. No other request is served meanwhile. What blocks runs in a thread: a view \
that is a function, not a coroutine, does by default, and so does await \
use_executor(function)().
{stack}"""

LOCK = """\
It stands in a lock's acquire(). If what holds the lock waits through the bridge, both \
wait for ever: hold no threading.Lock while you wait; asyncio.Lock can be held. It is \
held by one of these:
"""

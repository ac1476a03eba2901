"""What may end a request early: its client's end, and its deadline.

Theory of operation
===================

Nobody interrupts code that does not wait. So a request is not guarded before it
first waits, which is when the bridge calls :meth:`Guarded.suspended`, and one that
never does costs nothing here.

*The client's end.* Most servers do not tell an application that does not ask, so a
Task, the *watcher*, receives until the client has left. It begins
:data:`LOOK_AFTER` seconds later, which most requests do not last, and only if the
setting ``aioext.cancel_on_disconnect`` has such a request cancelled, or somebody
has asked for ``request.disconnected``. One timer, the :class:`Lookout`'s, serves all
requests: they become due in the order in which they have come, and a timer for each
would cost more than all else here. While a response is streamed every request is
watched, and cancelled, whatever its method.

*The deadline.* When it comes the answer, 503, goes out at once, from a Task of its
own, and the request is cancelled. So the client does not wait for a thread that
blocks, or for a ``finally``; and nothing that the application answers later is sent.

Both cancel the request's Task, once each, so the request ends where it waits,
``finally`` blocks may wait, and a thread of the executor is waited for. The
cancellations are counted, for the server may cancel the Task as well: its own is
passed on to it, ours never is.

To watch is to receive. A request whose body has not been read is looked at ahead of
its reader, unless its client waits for ``100 Continue``, which to receive would send.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pyramid.threadlocal import get_current_registry

from . import greenlets
from .interfaces import ISettings
from .wsgi_input import Input
from .wsgi_response import StartResponse

__all__ = ["KEY", "SAFE_METHODS", "Guarded", "Lookout", "cancels", "rules_of"]

log = logging.getLogger("aioext")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Where the environ has the Guarded.
KEY = "aioext.exchange"

# Those that change nothing (RFC 9110 section 9.2.1).
SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))

# Seconds after its first wait in which nobody looks for a request's client.
LOOK_AFTER = 0.1


def cancels(rule: str, method: str) -> bool:
    """Whether a client's end cancels a request, by ``aioext.cancel_on_disconnect``."""
    return rule == "always" or (rule == "safe" and method in SAFE_METHODS)


class Rules:
    """What an application's settings say.

    Attributes:
        safe: whether a safe request ends with its client.
        unsafe: whether any other one does.
        timeout: seconds that a request may take; 0: any time.
    """

    def __init__(self, settings: Any) -> None:
        self.safe = cancels(settings.cancel_on_disconnect, "GET")
        self.unsafe = cancels(settings.cancel_on_disconnect, "POST")
        self.timeout: float = settings.request_timeout


def rules_of(registry: Any) -> Rules | None:
    """Those of the application with that registry; None: it does not include aioext."""
    settings = registry.queryUtility(ISettings)
    return None if settings is None else Rules(settings)


class Lookout:
    """What one gateway's requests on one loop have in common.

    Args:
        loop: on which they are served.
        rules: of the application; None: each request's application has its own.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, rules: Rules | None) -> None:
        self.loop = loop
        self.rules = rules
        # Those that nobody looks after yet, the oldest first, since when.
        self._waiting: dict[Guarded, float] = {}
        # A timer that was cancelled keeps its context, for as long as it would have
        # run; this one refers to nothing.
        self.context = contextvars.Context()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, guarded: Guarded) -> None:
        """Have ``guarded`` looked after, in :data:`LOOK_AFTER` seconds."""
        self._waiting[guarded] = self.loop.time()
        if self._timer is None:
            self._sleep(LOOK_AFTER)

    def discard(self, guarded: Guarded) -> None:
        """Forget ``guarded``."""
        self._waiting.pop(guarded, None)

    def _sleep(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._sweep, context=self.context)

    def _sweep(self) -> None:
        now = self.loop.time()
        try:
            while self._waiting and self._wait_of_first(now) <= 0:
                guarded = next(iter(self._waiting))
                del self._waiting[guarded]
                guarded.begin_to_look()
        finally:
            self._timer = None
            if self._waiting:
                self._sleep(self._wait_of_first(now))

    def _wait_of_first(self, now: float) -> float:
        return next(iter(self._waiting.values())) + LOOK_AFTER - now


class Guarded(StartResponse):
    """One request and its response, as far as it may end early.

    Args:
        scope: ASGI's, of type ``http``.
        receive: ASGI's.
        send: ASGI's.
        lookout: the gateway's.

    Attributes:
        is_guarded: whether it has waited, so that :meth:`leave` has to be called.
        is_streamed: whether its response has begun to be sent piece by piece.
        has_expired: whether its deadline has come.
        view: the name of the view that was called last, if anybody has told.
    """

    is_guarded = False
    is_streamed = False
    has_expired = False
    view: str | None = None
    # Of the application that serves it, if that is not the gateway's.
    _rules: Rules | None = None
    # What the view has asked for; None: what the settings say.
    _timeout: float | None = None
    _cancels = False
    _disconnected = False
    # Cancellations of the Task: by others before, and by this.
    _cancellations = 0
    _own_cancellations = 0
    _event: asyncio.Event | None = None
    _input: Input | None = None
    _task: asyncio.Task[Any] | None = None
    _watcher: asyncio.Task[None] | None = None
    _answering: asyncio.Task[None] | None = None
    _alarm: asyncio.TimerHandle | None = None

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, lookout: Lookout
    ) -> None:
        self.method = scope["method"]
        self._scope = scope
        self._receive = receive
        self._send = send
        self._lookout = lookout

    # Before the response

    def suspended(self) -> None:
        """The request waits for the first time; called by its Task."""
        self._remember_task()
        self._arm()

    def obey(self, rules: Rules | None) -> None:
        """Another application than the gateway's serves the request, by its rules."""
        self._rules = rules
        self._call_soon(self._rearm)

    def _rearm(self) -> None:
        if not self.is_answered:
            self.disarm()
            self._arm()

    def _arm(self) -> None:
        if self._task is None:
            return
        lookout = self._lookout
        rules = self._rules or lookout.rules or rules_of(get_current_registry())
        timeout = self._timeout
        if rules is not None:
            is_safe = self.method in SAFE_METHODS
            self._cancels = rules.safe if is_safe else rules.unsafe
            if timeout is None:
                timeout = rules.timeout
        if (self._cancels or self._event is not None) and not self.is_streamed:
            lookout.add(self)
        if timeout:
            self._set_alarm(timeout)

    def enter_view(self, name: str, timeout: float | None) -> None:
        """A view is called; in any thread.

        Args:
            name: how messages call it.
            timeout: seconds that the request may take from now on; 0: any time;
                None: what the settings say.
        """
        self.view = name
        if timeout is not None:
            self._timeout = timeout
            self._call_soon(self._set_alarm, timeout)

    @property
    def disconnected(self) -> asyncio.Event:
        """Set once the client has left; whoever asks has it looked for."""
        if self._event is None:
            # The loop and a thread may both be the first to ask.
            vars(self).setdefault("_event", asyncio.Event())
            self._call_soon(self.begin_to_look)
        event = self._event
        assert event is not None
        return event

    def _call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        # Nothing is to be done before the first wait, which sees what was asked for,
        # nor after the request, whose loop may be closed by then.
        if self._task is None:
            return
        try:
            self._lookout.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            pass

    def _remember_task(self) -> None:
        if self._task is None:
            self.is_guarded = True
            task = self._task = greenlets.current_task()
            if task is not None:
                self._cancellations = task.cancelling()

    # The client's end

    def begin_to_look(self) -> None:
        """Look for the client's end from now on, unless it is too late for that."""
        if self._task is None or self._watcher is not None or self.is_answered:
            return
        if self._awaits_invitation():
            self._lookout.add(self)
        else:
            self._watch()

    @property
    def is_answered(self) -> bool:
        """Whether the response has begun, or is about to."""
        return self.sent or self.is_streamed

    def _awaits_invitation(self) -> bool:
        if self._input is None or self._input.is_begun:
            return False
        return any(
            name == b"expect" and value.lower() == b"100-continue"
            for name, value in self._scope["headers"]
        )

    def _watch(self) -> None:
        self.is_guarded = True
        self._watcher = asyncio.create_task(self._look_for_the_end())
        self._watcher.add_done_callback(_retrieve)

    async def _look_for_the_end(self) -> None:
        # An eager Task begins while the request's Task runs, which would not see
        # a cancellation before it waits, and that may be in the server.
        await asyncio.sleep(0)
        if self._input is not None:
            await self._input.watch()
        else:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        if self._watcher is not None:
            self._disconnected = True
            if self._event is not None:
                self._event.set()
            # An application that only writes, in a thread, hears it from write().
            if self.is_streamed or self._cancels:
                self._cancel()

    async def _end_watch(self) -> None:
        watcher = self._stop_watching()
        if watcher is not None:
            await asyncio.wait((watcher,))

    def _stop_watching(self) -> asyncio.Task[None] | None:
        # A Task that was cancelled refers to what it did, and so to this.
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
        return watcher

    # The deadline

    def _set_alarm(self, seconds: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if seconds and self._task is not None:
            lookout = self._lookout
            self._alarm = lookout.loop.call_later(
                seconds, self._expire, seconds, context=lookout.context
            )

    def _expire(self, seconds: float) -> None:
        self._alarm = None
        if self.sent or self._task is None:
            return
        # Nothing else is sent from now on.
        self.has_expired = self.sent = True
        log.warning(EXPIRED, self.describe(), seconds)
        self._answering = asyncio.create_task(self._answer_expired())
        self._answering.add_done_callback(_retrieve)
        self._cancel()

    async def _answer_expired(self) -> None:
        await self._end_watch()
        body = b"" if self.method == "HEAD" else UNAVAILABLE
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(UNAVAILABLE)),
        ]
        try:
            await self._send(
                {"type": "http.response.start", "status": 503, "headers": headers}
            )
            await self._send({"type": "http.response.body", "body": body})
        except OSError:
            # The client has gone.
            pass

    # The end

    def _cancel(self) -> None:
        if self._task is not None:
            self._own_cancellations += self._task.cancel()

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The Task of the request, once it has waited."""
        return self._task

    @property
    def was_ended_early(self) -> bool:
        """Whether this has cancelled the Task of the request."""
        return self._own_cancellations > 0

    def was_cancelled(self) -> bool:
        """Whether somebody else has cancelled the Task of the request."""
        task = greenlets.current_task()
        if task is None:
            return True
        return task.cancelling() > self._cancellations + self._own_cancellations

    def warn_of_swallowed(self) -> None:
        """Log that the request goes on although it was cancelled."""
        why = "its deadline had come" if self.has_expired else "its client had left"
        log.warning(SWALLOWED, self.describe(), why)

    def describe(self) -> str:
        """How messages call the request: by its method, path, and view."""
        view = f" (view {self.view})" if self.view else ""
        return f"{self.method} {self._scope['path']!r}{view}"

    def disarm(self) -> None:
        """Neither guard has anything to do any more."""
        self._lookout.discard(self)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def leave(self) -> None:
        """The request is over, but for the answer that its deadline has given."""
        self.disarm()
        if self._watcher is not None:
            self._stop_watching()
        # Nor may the Task be kept: it keeps an error that leads back to this.
        task, self._task = self._task, None
        if self._own_cancellations and task is not None:
            for _ in range(self._own_cancellations):
                task.uncancel()

    async def answered(self) -> None:
        """Return when the answer that the deadline has given is sent."""
        answering, self._answering = self._answering, None
        if answering is not None:
            await asyncio.wait((answering,))


def _retrieve(task: asyncio.Task[None]) -> None:
    # A server whose receive() or send() fails has its own word in the log.
    if not task.cancelled():
        task.exception()


UNAVAILABLE = b"503 Service Unavailable\n\nThe request took too long.\n"

EXPIRED = """\
aioext: %s has not been answered within its time, %g s: it is cancelled, and its \
client gets a 503. If it runs in a thread, that keeps its place in the pool until it \
ends."""

SWALLOWED = """\
aioext: %s was cancelled, for %s, and went on: something in it has caught \
asyncio.CancelledError. Let it pass, or raise it again: a bare except, and except \
BaseException, catch it as well."""

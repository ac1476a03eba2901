"""Event logs: what clients missed while they were away is sent again.

Theory of operation
===================

A browser whose stream has ended comes back by itself, and tells the id of the
last event that it got. An :class:`EventLog` numbers what is appended to it and
keeps it in a *store*; a :class:`Follower` is no more than a position in that
store. It reads what comes after its position, and waits when there is nothing.
Replay and live are the same thing, so nothing is lost or doubled between them; a
follower that is slow has no queue that could grow; and one that is so slow that
the store has dropped what it has yet to read finds that out when it reads.

An id is ``epoch-position``. The epoch is the store's, and another one whenever
positions begin anew: a client that comes back to a server that was restarted, or
to another worker process, is not given the events that happen to have the
numbers it asks for. A process that was forked is another process: a server that
loads the application before it forks has as many logs as workers.

What cannot be replayed is told, in the place where it is missing, as an event.

Followers wait for futures, by loop: an append takes one call to each loop that
has any, from whatever thread. Who follows looks whether there is something new
under the lock under which the waiting are woken, so none is forgotten.

Things that do not work
=======================

* A queue for each follower: a thousand of them keep every event a thousand
  times, and the first overflow is where the trouble begins, not where it ends.
* Numbers without an epoch: after a restart, "everything after 17" is answered
  with nonsense instead of with a no.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from zope.interface import Attribute, Interface, implementer

from .. import bridge
from ..exceptions import explain
from .event import ANCHOR, Event, text_of

__all__ = ["EventLog", "Follower", "IEventStore", "MemoryEventLog", "tell_gap"]

# How many events a follower reads at once.
BATCH = 100

OnGap = Callable[[str], Event | None]


class IEventStore(Interface):
    """Where an :class:`EventLog` keeps its events.

    Called on the loop and by any thread, also by several at once; so it must
    not block for long. Positions are whole numbers that only grow.
    """

    epoch = Attribute(
        "A str without CR, LF and NUL: another one whenever positions begin anew."
    )
    last = Attribute("The position of the newest event; 0 before the first.")

    def append(event):
        """Keep an :class:`Event`, whose data is a str or None; give its position."""

    def read(after, limit):
        """The first ``limit`` events after that position, oldest first.

        Gives a sequence of ``(position, event)``, or None: some of what came
        after that position is there no more.
        """


class EventLog:
    """Events with ids, of which a client is sent those that it has not got.

    Args:
        store: an :class:`IEventStore`.
        dumps: makes JSON of data that is no str, when it is appended.
    """

    def __init__(self, store: Any, *, dumps: Callable[[Any], str] = json.dumps) -> None:
        self.store = store
        self._dumps = dumps
        self._lock = threading.Lock()
        self._waiting: dict[asyncio.AbstractEventLoop, set[asyncio.Future[None]]] = {}
        _forked.add(self)

    @property
    def last_event_id(self) -> str:
        """The id of the newest event, or of the place before the first one.

        For a page that shows how things are now: it opens the stream with
        ``?lastEventId=`` this, and misses nothing in between.
        """
        return self.id_of(self.store.last)

    def id_of(self, position: int) -> str:
        """The id of the event at a position of the store."""
        return f"{self.store.epoch}-{position}"

    def append(self, event: Any) -> str:
        """Add an event, and give the id that the log has given it.

        Args:
            event: an :class:`Event` without an id, or the data of one. Data that
                is no str becomes JSON now, so the object may change afterwards.

        Raises:
            TypeError: the data cannot be made JSON.
            ValueError: the event has an id.

        May be called in any thread, in coroutines and in synchronous code; it
        waits for nobody.
        """
        position = self.store.append(self._as_text(event))
        self.notify()
        return self.id_of(position)

    def _as_text(self, event: Any) -> Event:
        if not isinstance(event, Event):
            event = Event(event)
        if event.id is not None:
            raise ValueError(explain(OWN_ID.format(event.id), ANCHOR))
        if event.data is None or isinstance(event.data, str):
            return event
        return Event(
            text_of(event.data, self._dumps),
            event=event.event,
            retry=event.retry,
            comment=event.comment,
        )

    def notify(self) -> None:
        """Have followers look into the store; may be called in any thread.

        :meth:`append` does so. To be called where one hears that another
        process has appended something to the same store.
        """
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for loop, futures in waiting.items():
            try:
                loop.call_soon_threadsafe(_release, futures)
            except RuntimeError:
                # The loop is closed, and nobody waits there any more.
                pass

    def follow(
        self, last_event_id: str | None = None, *, on_gap: OnGap | None = None
    ) -> Follower:
        """The events after an id, and then those to come, without an end.

        Args:
            last_event_id: ``request.last_event_id``. None: only what is appended
                from now on, that is from this call and not from the first step.
            on_gap: gives the event that is sent where something is missing, or
                None for none. It is called with the reason: ``"unknown"``, the
                id is not of this log, which was started anew for example;
                ``"expired"``, the log no longer has what came after the id;
                ``"slow"``, the same for a client that reads too slowly. By
                default it is an event of type ``reset`` with the data
                ``{"reason": …}``.

        After a gap, the stream goes on with what is appended then: a page that
        is told fetches the present state. The event that tells has the id to come
        back with.
        """
        last = self.store.last
        if last_event_id is None:
            return Follower(self, last, None, on_gap)
        position = self._position_of(last_event_id, last)
        if position is None:
            return Follower(self, last, "unknown", on_gap)
        if self.store.read(position, 1) is None:
            return Follower(self, last, "expired", on_gap)
        return Follower(self, position, None, on_gap)

    def _position_of(self, event_id: str, last: int) -> int | None:
        epoch, _, digits = event_id.rpartition("-")
        # A client may send anything, and int() understands more than digits.
        if epoch != self.store.epoch or not digits.isascii() or not digits.isdigit():
            return None
        if len(digits) > MAX_DIGITS:
            return None
        position = int(digits)
        return position if position <= last else None

    async def wait_beyond(self, position: int) -> None:
        """Return when the store may have something after ``position``.

        Cancellation: safe.
        """
        loop = asyncio.get_running_loop()
        change = loop.create_future()
        with self._lock:
            if self.store.last > position:
                return
            self._waiting.setdefault(loop, set()).add(change)
        try:
            await change
        finally:
            with self._lock:
                self._waiting.get(loop, set()).discard(change)

    def _forget_after_fork(self) -> None:
        # Those that wait are the parent's, and one of its threads may have had
        # the lock.
        self._lock = threading.Lock()
        self._waiting = {}


MAX_DIGITS = 20


def _release(futures: set[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def tell_gap(reason: str) -> Event:
    """The event that tells a page that it has missed something."""
    return Event(json.dumps({"reason": reason}), event="reset")


class Follower:
    """Gives the events of a log one by one; what :meth:`EventLog.follow` returns.

    Iterate over it with ``async for``; in synchronous code, with ``for``. It has
    no end and needs no closing.

    Cancellation: safe; no event is lost.
    """

    def __init__(
        self, log: EventLog, position: int, gap: str | None, on_gap: OnGap | None
    ) -> None:
        self._log = log
        self._position = position
        self._gap = gap
        self._on_gap = on_gap or tell_gap
        self._batch: deque[tuple[int, Event]] = deque()

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event."""
        while True:
            if self._gap is not None:
                event = self._tell_gap(self._gap)
                if event is not None:
                    return event
            if self._batch:
                self._position, event = self._batch.popleft()
                return event.with_id(self._log.id_of(self._position))
            if not self._read():
                await self._log.wait_beyond(self._position)

    def __iter__(self) -> Follower:
        return self

    def __next__(self) -> Event:
        """Wait for the next event, in synchronous code."""
        return bridge.wait(self.__anext__())

    def _read(self) -> bool:
        entries = self._log.store.read(self._position, BATCH)
        if entries is None:
            self._position = self._log.store.last
            self._gap = "slow"
            return True
        self._batch.extend(entries)
        return bool(entries)

    def _tell_gap(self, reason: str) -> Event | None:
        self._gap = None
        event = self._on_gap(reason)
        return event and event.with_id(self._log.id_of(self._position))


@implementer(IEventStore)
class MemoryEventStore:
    """The last events, in this process.

    Args:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(explain(NO_SIZE.format(size), ANCHOR))
        self.size = size
        self.last = 0
        # The event of position p stands at p % size.
        self._ring: list[Event] = []
        self._forget_after_fork()
        _forked.add(self)

    def append(self, event: Event) -> int:
        """Keep an event instead of the oldest one."""
        with self._lock:
            position = self.last + 1
            if len(self._ring) < self.size:
                self._ring.append(event)
            else:
                self._ring[(position - 1) % self.size] = event
            self.last = position
            return position

    def read(self, after: int, limit: int) -> Sequence[tuple[int, Event]] | None:
        """The first events after a position; None if some are gone."""
        with self._lock:
            if after < self.last - len(self._ring):
                return None
            end = min(self.last, after + limit)
            return [
                (position, self._ring[(position - 1) % self.size])
                for position in range(after + 1, end + 1)
            ]

    def _forget_after_fork(self) -> None:
        self._lock = threading.Lock()
        self.epoch = secrets.token_hex(4)


class MemoryEventLog(EventLog):
    """A log that keeps the last events in this process.

    Each worker process of a server has its own. One that was restarted, or
    forked, begins a new one.

    Args:
        size: how many events are kept.
        dumps: makes JSON of data that is no str, when it is appended.
    """

    def __init__(
        self, size: int = 1000, *, dumps: Callable[[Any], str] = json.dumps
    ) -> None:
        super().__init__(MemoryEventStore(size), dumps=dumps)


_forked: weakref.WeakSet[EventLog | MemoryEventStore] = weakref.WeakSet()


def _forget_after_fork() -> None:
    for each in list(_forked):
        each._forget_after_fork()


os.register_at_fork(after_in_child=_forget_after_fork)

OWN_ID = """\
An event log gives its events their ids, and got one with id={!r}. Append it without \
an id; append() returns the one that it got."""

NO_SIZE = "An event log keeps at least 1 event; got size={!r}."

"""The chat's room: who is in it, and what each of them is yet to be sent."""

import asyncio
from contextlib import contextmanager

# Messages that are kept for somebody who reads more slowly than others write.
BACKLOG = 100


def includeme(config):
    """Add `request.room`, one for the whole application."""
    room = Room()
    config.add_request_method(lambda request: room, "room", property=True)


class Room:
    """Tells everybody what one of them says, in the same order.

    It is one process' own: where several serve, each has a room of its own.
    """

    def __init__(self):
        self._inboxes = set()

    @contextmanager
    def enter(self):
        """Be in the room meanwhile; gives the queue of what is said there."""
        inbox = asyncio.Queue(BACKLOG)
        self._inboxes.add(inbox)
        try:
            yield inbox
        finally:
            self._inboxes.discard(inbox)

    def say(self, message):
        """Tell everybody, and wait for nobody: who is slow misses the oldest."""
        for inbox in self._inboxes:
            if inbox.full():
                inbox.get_nowait()
            inbox.put_nowait(message)

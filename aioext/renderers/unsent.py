"""Bodies whose response is not sent, and that are closed all the same.

A server closes the body of a response that it sends. Nobody closes one whose response
gets lost after the view: by an exception of a tween or a callback, or for another
response in its place. :class:`Unsent` looks at how the request ends:

====================================  =============================================
by an exception                       the body is closed then
with a response that is whole         likewise
with a body of whatever kind          that may have this one in it, for a tween may
                                      have wrapped it: so it is ended if nobody has
                                      asked for it in :data:`PATIENCE` seconds
====================================  =============================================

To end a body when it is collected does not suffice. What makes it refers to the
request, that to its exception, and the traceback of that to the body; and the collector
cannot look into a greenlet, nor into a thread, that is held in the middle of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import Any, Protocol

from .. import bridge
from ..ending import when_over

__all__ = ["Unsent"]

# Seconds for which a body waits to be asked for, once its request has ended.
PATIENCE = 60.0


class Body(Protocol):
    """What is to be closed."""

    async def aclose(self) -> None:
        """Close it, and wait until it is closed; idempotent."""

    def abandon(self) -> None:
        """Have it end soon, if it has not been closed; on the loop."""


class Unsent:
    """Closes a body if its response is not sent.

    Args:
        body: that body.
        loop: on which it runs.
    """

    _timer: asyncio.TimerHandle | None = None

    def __init__(self, body: Body, loop: asyncio.AbstractEventLoop) -> None:
        # Until that is settled.
        self._body: Body | None = body
        self._loop = loop

    def follow(self, request: Any) -> None:
        """Notice how the request ends, whose response has the body."""
        when_over(request, self._request_ended)

    def settle(self) -> None:
        """Somebody has asked for the body, or has closed it; on the loop."""
        self._body = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _request_ended(self, is_streamed: bool) -> None:
        body = self._body
        if body is not None and not is_streamed:
            bridge.wait(body.aclose())
        elif body is not None:
            # A loop that is closed has cancelled its Tasks.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._set_timer)

    def _set_timer(self) -> None:
        if self._body is not None:
            # A timer that was cancelled keeps its context until it would be due.
            self._timer = self._loop.call_later(
                PATIENCE, self._body.abandon, context=contextvars.Context()
            )

"""What went wrong in an application while it served one scope.

A server that serves a WebSocket or a stream cannot show an error to anybody: it
logs the error, and ends the connection. A test is to fail of it. So, beside what
the application raises, what aioext logs is listened to; a context variable tells
the errors of one connection from those of another, for the Tasks and threads that
serve a connection have copies of its context.

With logging switched off (``logging.disable()``) there is nothing to listen to.
"""

from __future__ import annotations

import contextvars
import logging
from typing import Any

__all__ = ["Failures"]

_current: contextvars.ContextVar[Failures | None] = contextvars.ContextVar(
    "aioext.testing.failures", default=None
)
_log = logging.getLogger("aioext")


class Failures(logging.Handler):
    """Collects the errors that happen in one context."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._errors: list[BaseException] = []

    def listen(self, context: contextvars.Context) -> None:
        """Collect what aioext logs in ``context`` and its copies, from now on."""
        context.run(_current.set, self)
        _log.addHandler(self)

    def end(self) -> None:
        """Listen no more."""
        _log.removeHandler(self)

    def emit(self, record: Any) -> None:
        if record.exc_info and _current.get() is self:
            self.add(record.exc_info[1])

    def add(self, error: BaseException) -> None:
        """Something went wrong; one that is known already is no second one."""
        if all(known is not error for known in self._errors):
            self._errors.append(error)

    def __bool__(self) -> bool:
        """Whether anything went wrong that was not taken."""
        return bool(self._errors)

    def take(self) -> BaseException | None:
        """The first of them, with the others in its notes; None if there are none.

        What was taken is told, and forgotten.
        """
        if not self._errors:
            return None
        first, *others = self._errors
        self._errors.clear()
        for error in others:
            first.add_note(f"And then, in the same connection: {error!r}")
        return first

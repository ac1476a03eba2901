"""The lifespan of an ASGI application that is mounted, opened with the one around it.

That is ASGI's lifespan protocol: a call that lasts as long as the application serves,
in a Task of its own, for cancel scopes and task groups in there must begin and end in
one Task. An application that raises, or returns, before it has answered
``lifespan.startup`` does not know the protocol, which ASGI allows.

A loop that ends cancels all of its Tasks, that one and the one that holds the lifespan
open. The latter ends by closing, which sends ``lifespan.shutdown``; so an application
that waits for its next message is left to wait for that one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from .. import background, threadlocal
from ..exceptions import MountError

__all__ = ["ASGILifespan"]

log = logging.getLogger("aioext")

# Seconds that requests under way have when the application is closed; those of a
# server that waits for them have ended before.
GRACE = 3.0


class ASGILifespan:
    """The lifespan of one ASGI application, in whatever process opens it.

    Args:
        app: the ASGI application.
        name: what messages call it.

    Attributes:
        state: what the application has put into ``scope["state"]``; None while it is
            not open, or if it does not know the protocol.
        tasks: of requests that are served in Tasks of their own.
    """

    def __init__(self, app: Any, name: str) -> None:
        self._app = app
        self._name = name
        self.state: dict[str, Any] | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Start the application up, and shut it down at the end.

        Raises:
            MountError: it has said that it could not start, or not shut down.

        Cancellation: of the startup, cancels the application; of the shutdown as well.
        """
        call = _Call(self._app, self._name)
        try:
            self.state = await call.start()
            yield
        finally:
            await self._end_requests()
            self.state = None
            await call.end()

    async def _end_requests(self) -> None:
        if self.tasks:
            await asyncio.wait(list(self.tasks), timeout=GRACE)
        for task in list(self.tasks):
            task.cancel()
        if self.tasks:
            await asyncio.wait(list(self.tasks))


class _Call:
    # One call of an application with a scope of type lifespan.

    def __init__(self, app: Any, name: str) -> None:
        loop = asyncio.get_running_loop()
        self._name = name
        self._is_running = False
        self._is_finished = False
        self._opener = asyncio.current_task()
        self._state: dict[str, Any] = {}
        self._started: asyncio.Future[Any] = loop.create_future()
        self._stopped: asyncio.Future[Any] = loop.create_future()
        self._incoming: asyncio.Queue[Any] = asyncio.Queue()
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        calling = self._run(app, scope)
        self._task = loop.create_task(calling, context=threadlocal.isolated())
        background.end_last(self._task)

    async def _run(self, app: Any, scope: dict[str, Any]) -> None:
        # A function that returns an awaitable may raise before it does.
        await app(scope, self._receive, self._send)

    async def start(self) -> dict[str, Any] | None:
        """The application's state; None: it does not know the protocol."""
        self._incoming.put_nowait({"type": "lifespan.startup"})
        message = await self._answer(self._started)
        if message is None:
            log.info(UNKNOWN, self._name, exc_info=self._take_error())
            return None
        if message["type"] == "lifespan.startup.failed":
            raise MountError(FAILED.format(self._name, "start", _told(message)))
        self._is_running = True
        return self._state

    async def end(self) -> None:
        """Shut it down, if it was started; else there is nothing left of it."""
        try:
            if self._is_running:
                await self._shut_down()
        finally:
            await self._finish()

    async def _shut_down(self) -> None:
        self._incoming.put_nowait({"type": "lifespan.shutdown"})
        message = await self._answer(self._stopped)
        if message is None:
            error = self._take_error()
            if error is not None:
                raise MountError(FAILED.format(self._name, "stop", error)) from error
        elif message["type"] == "lifespan.shutdown.failed":
            raise MountError(FAILED.format(self._name, "stop", _told(message)))

    async def _answer(self, answer: asyncio.Future[Any]) -> Any:
        # None: the application has ended without one.
        await asyncio.wait((answer, self._task), return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None

    async def _finish(self) -> None:
        self._is_finished = True
        if not self._task.done():
            # Whoever has answered is at its end; who has not was interrupted.
            if self._started.done():
                await asyncio.wait((self._task,), timeout=GRACE)
            self._task.cancel()
            await asyncio.wait((self._task,))
        # What it raises after it has told of it is no news.
        self._take_error()

    def _take_error(self) -> BaseException | None:
        return None if self._task.cancelled() else self._task.exception()

    async def _receive(self) -> Any:
        while True:
            try:
                return await self._incoming.get()
            except asyncio.CancelledError:
                if self._is_finished or not self._is_closing():
                    raise
                _uncancel()

    def _is_closing(self) -> bool:
        return self._opener is not None and self._opener.cancelling() > 0

    async def _send(self, message: Any) -> None:
        is_first = message["type"].startswith("lifespan.startup")
        answer = self._started if is_first else self._stopped
        if not answer.done():
            answer.set_result(message)


def _uncancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()


def _told(message: Any) -> str:
    return message.get("message") or "it does not say why"


FAILED = """\
The ASGI application {} could not {}: {}"""

UNKNOWN = "aioext: the ASGI application %s does not know the lifespan protocol"

"""A worker of uWSGI's asyncio mode: its loop, its start and its end.

Theory of operation
===================

The worker's loop is made in the worker, after the fork: forked workers would share the
descriptors of one that was made before. uWSGI asks for it by ``get_event_loop()``,
which since Python 3.14 makes none itself. If the application is loaded before the fork,
uWSGI's post-fork hook is where it is made; with ``lazy-apps`` the application is loaded
in the worker, later than that, and it is made at once.

uWSGI's signal handlers end a worker of this mode at once, in the middle of whatever
runs, and without anything of Python's. So they are replaced when the loop begins, which
is later than uWSGI sets them:

======================  ==================================================
SIGHUP (a reload)       the requests under way may end
SIGINT, SIGTERM         the requests are cancelled where they wait
======================  ==================================================

In both cases nothing is accepted any more, and what is endless is told
(:mod:`aioext.shutdown`). Then the lifespans are closed and the process ends, shortly
before uWSGI's master loses its patience (``worker-reload-mercy``): requests that are
not done then are cancelled.

The lifespans are opened when the loop begins; requests wait for that. A failure ends
the instance, as gunicorn's does: its master would start such a worker over and over.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from greenlet import greenlet

from .. import background, bridge, lifespan, shutdown
from ..adopted import AdoptedJob, Adoption
from .connection import Departures

__all__ = ["Worker", "start", "stop_master"]

log = logging.getLogger("aioext")

# Seconds that uWSGI's master waits for a worker's end, by default.
MERCY = 60.0
# Of those, the part that is left for the lifespans, and its maximum in seconds.
RESERVE = 0.1
MAX_RESERVE = 1.0
# Seconds that what is cancelled has to end.
CANCEL_TIMEOUT = 5.0
# Seconds between two looks whether all requests have ended.
LOOK_INTERVAL = 0.2
# Seconds between two attempts to end the master, and how many there are.
ATTEMPT_INTERVAL = 0.1
ATTEMPTS = 100
# To the master, a worker that has ended as it should (UWSGI_QUIET_CODE).
QUIET = 29


def is_home(current: greenlet) -> bool:
    """Whether ``current`` is uWSGI's greenlet of a request: so uWSGI marks them."""
    return hasattr(current, "uwsgi_wsgi_req")


class Worker:
    """What the requests of one worker have in common.

    Args:
        api: uWSGI's module ``uwsgi``.
        serve: called with this worker for each request; see
            :class:`aioext.adopted.Adoption`.

    Attributes:
        api: the same.
        departures: tells when clients leave, once the loop runs.
        is_stopping: whether requests are cancelled because the worker ends.
    """

    def __init__(self, api: Any, serve: Callable[..., Any]) -> None:
        self.api = api
        self._serve_request = functools.partial(serve, self)
        self.departures: Departures | None = None
        self.is_stopping = False
        self._adoption: Adoption | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: asyncio.Future[None] | None = None
        self._ending: asyncio.Future[None] | None = None
        self._served: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        # How each is stopped.
        self._requests: dict[AdoptedJob, Callable[[], None]] = {}
        self._idle: asyncio.Event | None = None
        # Until uWSGI sets its handlers Python has one, whose KeyboardInterrupt uWSGI
        # swallows: a worker that is told to stop so early would go on.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if api.worker_id():
            self.start()
        else:
            self._start_after_fork()

    def _start_after_fork(self) -> None:
        if self.api.masterpid():
            # It has the hook call a list, and whatever is there before is lost.
            decorators = importlib.import_module("uwsgidecorators")
            decorators.postfork(self.start)
            return
        before = getattr(self.api, "post_fork_hook", None)

        def start() -> None:
            if before is not None:
                before()
            self.start()

        self.api.post_fork_hook = start

    def start(self) -> None:
        """Make the worker's loop; in the greenlet in which it will run."""
        if self._loop is not None:
            return
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._opened = self._loop.create_future()
        self._ending = self._loop.create_future()
        self._idle = asyncio.Event()
        self._idle.set()
        self._adoption = Adoption(is_home, self._serve_request)
        self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        loop = self._loop
        assert loop is not None
        background.serve_on(loop)
        self.departures = Departures(loop)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number != signal.SIGHUP)
        # uWSGI's handler looks for the request of the current greenlet, whatever runs:
        # what is sent to a client that has left would crash the process.
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        self._served = loop.create_task(self._serve())

    # Requests

    def job_here(self) -> AdoptedJob | None:
        """The job of the request whose greenlet this is, None in any other place."""
        return None if self._adoption is None else self._adoption.find_here()

    def enter(
        self, job: AdoptedJob, stop: Callable[[], None], ended: Callable[[], None]
    ) -> None:
        """A request begins. Returns when the application has started.

        Args:
            job: of its greenlet.
            stop: called if it is to end because the worker does.
            ended: called when it is over.

        Raises:
            asyncio.CancelledError: the worker ends.
        """
        assert self._opened is not None
        assert self._idle is not None
        self._requests[job] = stop
        self._idle.clear()
        job.ended = lambda: self._leave(job, ended)
        if self.is_stopping:
            raise asyncio.CancelledError
        if not self._opened.done():
            bridge.wait(asyncio.shield(self._opened))

    def _leave(self, job: AdoptedJob, ended: Callable[[], None]) -> None:
        assert self._idle is not None
        self._requests.pop(job, None)
        if not self._requests:
            self._idle.set()
        ended()

    # Start and end

    async def _serve(self) -> None:
        # ASGI's lifespan protocol, whose server this is.
        assert self._ending is not None
        starting = [{"type": "lifespan.startup"}]

        async def receive() -> Any:
            if starting:
                return starting.pop()
            assert self._ending is not None
            await self._ending
            return {"type": "lifespan.shutdown"}

        async def send(message: Any) -> None:
            self._told(message["type"])

        await lifespan.serve(None, receive, send)

    def _told(self, message: str) -> None:
        assert self._opened is not None
        if message == "lifespan.startup.complete":
            self._opened.set_result(None)
        elif message == "lifespan.startup.failed":
            log.error(NOT_STARTED)
            assert self._loop is not None
            self._give_up(ATTEMPTS)

    def _give_up(self, attempts: int) -> None:
        # The master is deaf until it has started all workers. When it hears, it ends
        # this one.
        assert self._loop is not None
        if self._stopping is not None:
            return
        if not (attempts and self.api.masterpid()):
            self._loop.call_soon(sys.exit, 1)
            return
        stop_master(self.api)
        self._loop.call_later(ATTEMPT_INTERVAL, self._give_up, attempts - 1)

    def _stop(self, at_once: bool) -> None:
        loop = self._loop
        assert loop is not None
        if self._stopping is None:
            for descriptor in self.api.sockets:
                loop.remove_reader(descriptor)
            self._stopping = loop.create_task(self._end())
            shutdown.announce(loop)
        if at_once:
            self._cancel_requests()

    def _cancel_requests(self) -> None:
        self.is_stopping = True
        for stop in tuple(self._requests.values()):
            stop()

    async def _end(self) -> None:
        mercy = float(self.api.opt.get("worker-reload-mercy") or MERCY)
        patience = mercy - min(mercy * RESERVE, MAX_RESERVE)
        try:
            async with asyncio.timeout(patience):
                await self._requests_ended(patience - CANCEL_TIMEOUT)
                await self._close()
        except TimeoutError:
            log.warning(NOT_ENDED)
        asyncio.get_running_loop().call_soon(sys.exit, self._status())

    def _status(self) -> int:
        return QUIET if self.api.masterpid() else 0

    async def _requests_ended(self, timeout: float) -> None:
        await self._idle_within(max(timeout, 0))
        self._cancel_requests()
        await self._idle_within(CANCEL_TIMEOUT)

    async def _idle_within(self, timeout: float) -> None:
        assert self._idle is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not all(job.is_over for job in tuple(self._requests)):
                    # One that somebody refers to ends without a word.
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._idle.wait(), LOOK_INTERVAL)

    async def _close(self) -> None:
        assert self._ending is not None
        assert self._served is not None
        assert self._opened is not None
        if not self._opened.done():
            self._served.cancel()
        if not self._ending.done():
            self._ending.set_result(None)
        await asyncio.wait([self._served])
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        tasks -= {job.driver_task for job in self._requests}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def stop_master(api: Any) -> None:
    """End uWSGI, if this is a worker of a master's."""
    if api.worker_id() and api.masterpid():
        # uwsgi.stop() sends SIGQUIT, which with die-on-term is a reload.
        os.kill(api.masterpid(), signal.SIGINT)


_worker: Worker | None = None


def start(api: Any, serve: Callable[..., Any]) -> None:
    """Have this process, or those that it will fork, be workers; once is enough."""
    global _worker
    if _worker is None:
        _worker = Worker(api, serve)


NOT_STARTED = """\
aioext: this worker ends, and uWSGI with it, because the application could not start; \
the reason stands above."""

NOT_ENDED = """\
aioext: the worker ends before everything in it has: worker-reload-mercy is over."""

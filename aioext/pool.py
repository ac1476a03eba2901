"""Threads that blocking code runs in, and their end.

The threads are daemons. Those of ``concurrent.futures`` are waited for at the very
beginning of the interpreter's end: before the servers' threads, and before anything
that ``atexit`` calls, so that nobody can end what they wait for. An event stream that
waits in one kept its process for ever. :meth:`threading.Thread.join` of the main
thread returns later still, and so does nothing here.

These are waited for as well, as the last thing of all: by then every loop that aioext
knows has told what runs on it to end (:mod:`aioext.background`), and a wait that goes
on is lost. A thread that blocks by other means is given all the time that it takes.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future

from . import background

__all__ = ["Pool"]


class Pool:
    """Some threads, each made when all others are taken.

    Args:
        workers: how many there are at most.
        name: what their names begin with.

    Attributes:
        pid: the process that they are of. A forked one does not have them.
    """

    def __init__(self, workers: int, name: str) -> None:
        self.pid = os.getpid()
        self._workers = workers
        self._name = name
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()
        # Jobs that wait for a thread, or have one.
        self._active = 0
        self._ended: Future[None] = Future()
        # Nobody's cancellation is to be that of the threads.
        self._ended.set_running_or_notify_cancel()
        _pools.add(self)

    def submit(self, job: Callable[[], None]) -> bool:
        """Have a thread call ``job``, which must not raise.

        Returns:
            whether there is a thread for it now.

        Raises:
            RuntimeError: there is no thread, and none can be started.
        """
        with self._lock:
            taken = self._active >= len(self._threads)
            if taken and len(self._threads) < self._workers:
                taken = not self._start()
            self._active += 1
            self._jobs.put(job)
            return not taken

    def _start(self) -> bool:
        name = f"{self._name}_{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The system has no more, or the interpreter ends.
            if not self._threads:
                raise
            return False
        self._threads.add(thread)
        return True

    def _work(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                try:
                    job()
                finally:
                    # It is not to be kept until the next one comes.
                    del job
                    with self._lock:
                        self._active -= 1
            # The next one is to see it as well.
            self.end_soon()
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._threads.discard(threading.current_thread())
            if not (self._threads or self._ended.done()):
                self._ended.set_result(None)

    def end_soon(self) -> None:
        """Have the threads end when all jobs are done; no more may be submitted.

        Takes no lock: the garbage collector may call it anywhere.
        """
        self._jobs.put(None)

    async def aclose(self) -> None:
        """Let the jobs be done, and then the threads end. The loop goes on meanwhile.

        Cancellation: the threads end all the same.
        """
        with self._lock:
            threads = list(self._threads)
        if threads:
            self.end_soon()
            await asyncio.wrap_future(self._ended)
        for thread in threads:
            thread.join()

    def join(self) -> None:
        """Wait for the threads, which were told to end."""
        for thread in list(self._threads):
            thread.join()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _end_all() -> None:
    background.give_up()
    # A forked process joins the threads of its parent at once.
    pools = list(_pools)
    for pool in pools:
        pool.end_soon()
    for pool in pools:
        pool.join()


# The first to be registered is the last to be called: loops end before.
atexit.register(_end_all)

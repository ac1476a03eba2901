"""The pool of connections, used on a loop and in threads at once."""

import asyncio
import gc
import threading
import time

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import SAWarning
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util.queue import Empty, Full

from aioext import spawn_greenlet, use_executor
from aioext.exceptions import ScopeError
from aioext.sqlalchemy.pool import SharedPool, SharedQueue, check_greenlet


class TestQueue:
    def test_items_come_in_order_or_the_last_one_first(self):
        for use_lifo, expected in [(False, [1, 2, 3]), (True, [3, 2, 1])]:
            queue = SharedQueue(3, use_lifo)
            for item in (1, 2, 3):
                queue.put(item)
            assert queue.full()
            assert queue.qsize() == 3
            assert [queue.get(False) for _ in range(3)] == expected
            assert queue.empty()

    def test_it_does_not_wait_unless_it_is_told_to(self):
        queue = SharedQueue(1)
        with pytest.raises(Empty):
            queue.get(False)
        with pytest.raises(Empty):
            queue.get_nowait()
        queue.put(1, False)
        with pytest.raises(Full):
            queue.put(2, False)

    def test_without_a_limit_it_is_never_full(self):
        queue = SharedQueue(0)
        for item in range(100):
            queue.put_nowait(item)
        assert not queue.full()

    def test_who_has_waited_longest_is_first(self, run):
        async def main():
            queue = SharedQueue(2)
            waiting = []
            for _ in range(3):
                waiting.append(asyncio.create_task(spawn_greenlet(queue.get)))
                await asyncio.sleep(0)
            for item in "abc":
                queue.put(item)
            # Whoever comes now finds nothing: it was handed over.
            assert queue.empty()
            return await asyncio.gather(*waiting)

        assert run(main()) == ["a", "b", "c"]

    def test_a_put_in_a_thread_wakes_the_loop(self, run):
        async def main():
            queue = SharedQueue(1)
            waiting = asyncio.create_task(spawn_greenlet(queue.get))
            await asyncio.sleep(0)
            thread = threading.Thread(target=queue.put, args=("item",))
            # Nothing else would wake it: the loop has nothing to do.
            thread.start()
            item = await waiting
            thread.join()
            return item

        assert run(main()) == "item"

    def test_a_thread_waits_for_a_put_on_the_loop(self, run):
        async def main():
            queue = SharedQueue(1)
            waiting = asyncio.create_task(use_executor(queue.get)())
            while not queue._waiting:  # noqa: ASYNC110
                await asyncio.sleep(0)
            queue.put("item")
            return await waiting

        assert run(main()) == "item"

    def test_who_waits_too_long_is_told(self, run):
        queue = SharedQueue(1)
        with pytest.raises(Empty):
            run(spawn_greenlet(queue.get, True, 0.001))
        assert not queue._waiting

    def test_who_waits_too_long_still_gets_what_came_meanwhile(self, run):
        async def main():
            queue = SharedQueue(1)
            waiting = asyncio.create_task(spawn_greenlet(queue.get, True, 0.001))
            await asyncio.sleep(0)
            # The loop is too busy to notice that it is late.
            time.sleep(0.01)  # noqa: ASYNC251
            queue.put("item")
            return await waiting

        assert run(main()) == "item"

    def test_what_was_handed_to_somebody_who_is_cancelled_is_put_back(self, run):
        async def main():
            queue = SharedQueue(1)
            first, second = (
                asyncio.create_task(spawn_greenlet(queue.get)) for _ in range(2)
            )
            await asyncio.sleep(0)
            queue.put("item")
            first.cancel()
            assert await second == "item"
            with pytest.raises(asyncio.CancelledError):
                await first
            third = asyncio.create_task(spawn_greenlet(queue.get))
            await asyncio.sleep(0)
            queue.put("another")
            third.cancel()
            with pytest.raises(asyncio.CancelledError):
                await third
            return queue.get_nowait()

        assert run(main()) == "another"

    def test_who_is_cancelled_while_waiting_gets_nothing(self, run):
        async def main():
            queue = SharedQueue(1)
            waiting = asyncio.create_task(spawn_greenlet(queue.get))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            queue.put("item")
            return queue.qsize()

        assert run(main()) == 1

    def test_a_loop_that_is_closed_is_not_waited_for(self):
        queue = SharedQueue(1)
        loop = asyncio.new_event_loop()
        getting = queue._get(None)
        task = loop.create_task(getting)
        loop.call_soon(loop.stop)
        loop.run_forever()
        # It is left behind.
        loop.close()
        queue.put("item")
        assert queue.get_nowait() == "item"
        task._log_destroy_pending = False
        getting.close()
        assert queue.empty()

    def test_an_item_that_came_meanwhile_is_taken_without_waiting(self, run):
        async def main():
            queue = SharedQueue(1)
            getting = queue._get(None)
            queue.put("item")
            return await getting

        assert run(main()) == "item"


@pytest.fixture
def engine(tmp_path, run):
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path}/pool.sqlite",
        poolclass=SharedPool,
        pool_size=2,
        max_overflow=0,
    )
    return engine.sync_engine


def one(engine):
    with engine.connect() as connection:
        return connection.scalar(text("SELECT 1"))


class TestPool:
    def test_it_is_the_one_for_asyncio_with_another_queue(self, engine):
        # SQLAlchemy's private interfaces: if they are gone, so is what is done here.
        assert type(AsyncAdaptedQueuePool(None)._pool) is not SharedQueue
        assert type(engine.pool._pool) is SharedQueue
        for name in ("_close_connection", "_create_connection"):
            assert callable(getattr(AsyncAdaptedQueuePool, name))

    def test_connections_are_made_and_closed_on_the_loop(
        self, engine, run, monkeypatch
    ):
        threads = {}

        def note(name):
            return lambda *args: threads.setdefault(name, threading.current_thread())

        terminate = engine.dialect.do_terminate

        def do_terminate(connection):
            note("terminate")()
            terminate(connection)

        monkeypatch.setattr(engine.dialect, "do_terminate", do_terminate)
        event.listen(engine, "connect", note("connect"))
        event.listen(engine, "checkout", note("checkout"))

        def work():
            with engine.connect() as connection:
                connection.invalidate()

        run(use_executor(work)())
        assert threads.pop("checkout") is not threading.main_thread()
        assert threads == dict.fromkeys(
            ["connect", "terminate"], threading.main_thread()
        )

    def test_threads_and_the_loop_share_it(self, engine, run):
        async def main():
            jobs = [use_executor(one)(engine) for _ in range(20)]
            jobs += [spawn_greenlet(one, engine) for _ in range(20)]
            found = await asyncio.gather(*jobs)
            assert engine.pool.checkedout() == 0
            assert engine.pool.checkedin() <= 2
            await spawn_greenlet(engine.dispose)
            return found

        assert run(main()) == [1] * 40

    @pytest.mark.parametrize("debug", [False, True])
    def test_threads_that_are_the_first_do_not_disturb_the_loop(
        self, engine, run, debug
    ):
        async def main():
            jobs = [use_executor(one)(engine) for _ in range(8)]
            found = await asyncio.gather(*jobs)
            await spawn_greenlet(engine.dispose)
            return found

        # In debug mode a loop refuses what another thread must not do to it.
        assert run(main(), debug=debug) == [1] * 8

    def test_it_logs_where_pools_do(self, engine):
        assert engine.pool.logger.name.startswith("sqlalchemy.pool")

    def test_a_connection_that_is_forgotten_is_closed(self, engine, run):
        async def main():
            before = set(threading.enumerate())
            connection = await spawn_greenlet(engine.connect)
            with pytest.warns(SAWarning, match="garbage collector"):  # noqa: PT031
                del connection
                gc.collect()
            assert engine.pool.checkedout() == 0
            await spawn_greenlet(engine.dispose)
            # The driver's thread has a last word for the loop.
            await asyncio.to_thread(join_drivers, before)

        run(main())


def join_drivers(before):
    for thread in set(threading.enumerate()) - before:
        if "_connection_worker_thread" in thread.name:
            thread.join(30)


def test_where_nothing_can_wait_the_cure_is_told(run):
    with pytest.raises(ScopeError, match=r"aioext\.run\(function\)"):
        check_greenlet()

    async def coroutine():
        check_greenlet()

    with pytest.raises(ScopeError, match="await spawn_greenlet"):
        run(coroutine())

    run(spawn_greenlet(check_greenlet))

"""The threads of an executor: how many, and how they end with the process."""

import gc
import threading

import pytest

from aioext.executor import Executor
from aioext.pool import Pool

# Seconds after which something that should happen will not.
DEADLINE = 10


@pytest.fixture
def pool(run):
    pool = Pool(2, "test-pool")
    yield pool
    run(pool.aclose())


# -- threads ---------------------------------------------------------------------------


def test_a_thread_is_made_when_all_others_are_taken(pool):
    together = threading.Barrier(3, timeout=DEADLINE)
    assert pool.submit(together.wait)
    assert pool.submit(together.wait)
    together.wait()


def test_a_job_waits_when_all_threads_are_taken(pool):
    go_on, ran = threading.Event(), threading.Event()
    assert pool.submit(go_on.wait)
    assert pool.submit(go_on.wait)
    assert not pool.submit(ran.set)
    assert not ran.wait(0.01)
    go_on.set()
    assert ran.wait(DEADLINE)


def test_where_no_more_threads_can_be_started_one_does_all(pool, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    go_on, ran = threading.Event(), threading.Event()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        pool.submit(go_on.wait)
    monkeypatch.undo()
    assert pool.submit(go_on.wait)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert not pool.submit(ran.set)
    go_on.set()
    assert ran.wait(DEADLINE)


def test_closing_it_before_it_has_threads_is_harmless(run):
    run(Pool(1, "test-pool").aclose())


def test_the_threads_of_an_executor_that_nobody_has_end(run):
    executor = Executor(2)
    thread = run(executor.run(threading.current_thread))
    assert thread.is_alive()
    del executor
    gc.collect()
    thread.join(DEADLINE)
    assert not thread.is_alive()


# -- the end of the process ------------------------------------------------------------


def test_a_wait_on_the_background_loop_ends_with_the_process(script):
    # The interpreter waits for threads of concurrent.futures before that.
    output = script(
        """
        import asyncio, threading
        from aioext import background, wait
        from aioext.executor import Executor

        waiting = threading.Event()
        executor = Executor(1)

        async def parked():
            waiting.set()
            await asyncio.Event().wait()

        def view():
            try:
                wait(parked())
            finally:
                wait(asyncio.sleep(0.01))
                print("left")

        loop = background.background_loop().loop
        call = asyncio.run_coroutine_threadsafe(executor.run(view), loop)
        waiting.wait()
        """,
        timeout=DEADLINE,
    )
    assert output == "left\n"


def test_what_blocks_is_waited_for_after_everything_else(script):
    output = script(
        """
        import asyncio, atexit, threading
        from aioext import background
        from aioext.executor import Executor

        begun, released = threading.Event(), threading.Event()
        executor = Executor(1)

        def view():
            begun.set()
            released.wait()
            print("written")

        loop = asyncio.new_event_loop()
        call = loop.create_task(executor.run(view))
        loop.run_until_complete(asyncio.sleep(0))
        begun.wait()
        call.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        atexit.register(released.set)
        # That it is dropped is not what this is about.
        loop.set_exception_handler(lambda loop, context: None)
        """,
        timeout=DEADLINE,
    )
    assert output == "written\n"


def test_a_wait_on_a_loop_that_nobody_runs_any_more_fails(script):
    output = script(
        """
        import asyncio, threading
        import aioext
        from aioext.executor import Executor

        aioext.threads.LOOK_INTERVAL = 0.05
        executor = Executor(1)

        async def main():
            asyncio.get_running_loop().stop()
            await asyncio.Event().wait()

        def view():
            try:
                aioext.wait(main())
            except aioext.ScopeError as error:
                print("loop that is closed" in str(error))

        loop = asyncio.new_event_loop()
        call = loop.create_task(executor.run(view))
        loop.run_forever()
        # That it is dropped is not what this is about.
        loop.set_exception_handler(lambda loop, context: None)
        """,
        timeout=DEADLINE,
    )
    assert output == "True\n"


def test_a_wait_for_a_task_that_ignores_its_end_fails(script):
    output = script(
        """
        import asyncio, atexit, os, threading
        import aioext
        from aioext import background
        from aioext.executor import Executor

        aioext.threads.LOOK_INTERVAL = 0.05
        waiting = threading.Event()
        executor = Executor(1)

        async def parked():
            waiting.set()
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    pass

        def view():
            try:
                aioext.wait(parked())
            except aioext.ScopeError:
                os.write(1, b"lost\\n")

        own = background.background_loop()
        call = asyncio.run_coroutine_threadsafe(executor.run(view), own.loop)
        waiting.wait()
        atexit.unregister(own.stop)
        atexit.register(own.stop, timeout=0.1)
        """,
        timeout=DEADLINE,
    )
    assert output == "lost\n"


def test_what_is_ended_last_has_threads_for_its_end(script):
    output = script(
        """
        import asyncio
        import aioext
        from aioext import background
        from aioext.executor import Executor

        executor = Executor(2)

        async def pool():
            background.end_last(asyncio.current_task())
            try:
                await executor.run(print, "opened")
                opened.set()
                await asyncio.Event().wait()
            finally:
                await executor.run(print, "closed")
                await executor.aclose()
                print("ended")

        async def open_pool():
            global opened, task
            opened = asyncio.Event()
            task = asyncio.create_task(pool())
            await opened.wait()

        aioext.wait(open_pool())
        """,
        timeout=DEADLINE,
    )
    assert output.split() == ["opened", "closed", "ended"]


def test_a_fork_has_no_threads_to_wait_for(script):
    output = script(
        """
        import asyncio, os, signal, sys, threading
        from aioext.executor import Executor

        executor = Executor(1)
        begun, released = threading.Event(), threading.Event()

        def view():
            begun.set()
            released.wait()

        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)
        call = loop.create_task(executor.run(view))
        loop.run_until_complete(asyncio.sleep(0))
        begun.wait()
        child = os.fork()
        if not child:
            signal.alarm(10)
            sys.exit(7)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status))
        released.set()
        loop.run_until_complete(call)
        loop.close()
        """,
        timeout=DEADLINE * 2,
    )
    assert output == "7\n"

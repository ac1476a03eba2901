"""The executor: blocking code in threads, bounded and without deadlocks."""

import asyncio
import functools
import gc
import threading
import time
import weakref

import pytest
from pyramid.registry import Registry
from pyramid.threadlocal import manager

from aioext import spawn_greenlet, synchronize, threads, use_executor, wait
from aioext.executor import Executor, current_executor
from aioext.interfaces import IExecutor

# Seconds after which something that should happen will not.
DEADLINE = 10


class Failure(Exception):
    pass


class Thing:
    """Something that can be referred to weakly."""


async def give(value):
    await asyncio.sleep(0)
    return value


def thread_name():
    return threading.current_thread().name


@pytest.fixture
def with_executor(run):
    """Run ``await use(executor)`` with a deadline; closes the executor."""

    def with_executor(use, workers=2):
        async def main():
            executor = Executor(workers)
            try:
                async with asyncio.timeout(DEADLINE):
                    return await use(executor)
            finally:
                await executor.aclose()

        return run(main())

    return with_executor


# -- calls -----------------------------------------------------------------------------


def test_a_call_finds_the_exception_that_its_caller_handles(with_executor):
    def again():
        raise

    async def use(executor):
        try:
            raise Failure
        except Failure as failure:
            with pytest.raises(Failure) as found:
                await executor.run(again)
            return found.value is failure

    assert with_executor(use)


def test_a_call_runs_in_a_thread_of_the_executor(with_executor):
    async def use(executor):
        assert (await executor.run(thread_name)).startswith("aioext-executor")
        assert await executor.run(divmod, 7, 2) == (3, 1)
        return await executor.run(functools.partial(int, "11", base=2))

    assert with_executor(use) == 3


def test_the_loop_goes_on_while_a_thread_blocks(with_executor):
    async def use(executor):
        released = threading.Event()
        call = asyncio.create_task(executor.run(released.wait, DEADLINE))
        assert await give("went on") == "went on"
        released.set()
        return await call

    assert with_executor(use) is True


def test_there_are_no_more_threads_than_workers(with_executor):
    names = set()
    lock = threading.Lock()
    running = []
    most = []

    def function():
        with lock:
            running.append(1)
            most.append(len(running))
        names.add(thread_name())
        time.sleep(0.001)
        with lock:
            running.pop()

    async def use(executor):
        await asyncio.gather(*(executor.run(function) for _ in range(60)))

    with_executor(use, workers=3)
    assert max(most) == 3
    assert len(names) == 3


def test_no_thread_is_made_before_the_first_call(with_executor):
    async def use(executor):
        before = set(threading.enumerate())
        Executor(5)
        assert set(threading.enumerate()) == before
        await executor.run(int)
        return [each.name for each in set(threading.enumerate()) - before]

    [name] = with_executor(use)
    assert name.startswith("aioext-executor")


def test_an_exception_is_raised_where_the_call_is_awaited(with_executor):
    error = Failure()

    def function():
        raise error

    async def use(executor):
        with pytest.raises(Failure) as raised:
            await executor.run(function)
        assert raised.value is error
        with pytest.raises(Failure):
            await spawn_greenlet(executor.call, function)

    with_executor(use)


def test_a_stop_iteration_cannot_be_awaited_but_passes_between_functions(with_executor):
    def caller(executor):
        try:
            executor.call(next, iter(()))
        except StopIteration:
            return "preserved"

    async def use(executor):
        with pytest.raises(RuntimeError) as raised:
            await executor.run(next, iter(()))
        assert type(raised.value.__cause__) is StopIteration
        return await spawn_greenlet(caller, executor)

    assert with_executor(use) == "preserved"


def test_synchronous_code_calls_in_a_thread_and_waits(with_executor):
    async def use(executor):
        return await spawn_greenlet(executor.call, thread_name)

    assert with_executor(use).startswith("aioext-executor")


def test_synchronous_code_in_a_thread_calls_right_there(with_executor):
    def function(executor):
        return executor.call(thread_name) == thread_name()

    async def use(executor):
        return await executor.run(function, executor)

    assert with_executor(use)
    assert Executor().call(thread_name) == thread_name()


def test_a_thread_keeps_nothing_of_its_last_call(with_executor):
    things = []

    def remember():
        thing = Thing()
        things.append(weakref.ref(thing))
        return thing

    def function(thing):
        return remember()

    async def use(executor):
        await executor.run(function, remember())
        await executor.run(int)
        # Collected when the loop and the thread have both gone on.
        async with asyncio.timeout(DEADLINE):
            while any(each() for each in things):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.001)

    with_executor(use, workers=1)
    assert len(things) == 2


# -- use_executor ----------------------------------------------------------------------


@use_executor
def decorated(value):
    """Blocks."""
    return value, thread_name()


def test_a_decorated_function_is_a_coroutine_function_that_runs_in_a_thread(run):
    async def main():
        return await decorated("value")

    value, name = run(main())
    assert value == "value"
    assert name.startswith("aioext-executor")
    assert asyncio.iscoroutinefunction(decorated)
    assert (decorated.__name__, decorated.__doc__) == ("decorated", "Blocks.")


def test_the_decorator_takes_an_executor(with_executor):
    async def use(executor):
        function = use_executor(executor=executor)(thread_name)
        names = {await function() for _ in range(5)}
        return names, {await executor.run(thread_name) for _ in range(5)}

    names, expected = with_executor(use, workers=1)
    assert names == expected


def test_a_decorated_function_can_be_synchronized(with_executor):
    function = synchronize(decorated)

    async def use(executor):
        return await spawn_greenlet(function, 1)

    assert with_executor(use)[1].startswith("aioext-executor")


def test_each_application_has_an_executor_of_its_own(run):
    def application():
        registry = Registry()
        registry.registerUtility(Executor(1), IExecutor)
        return registry

    async def in_application(registry):
        manager.push({"registry": registry, "request": None})
        try:
            await asyncio.sleep(0)
            assert current_executor() is registry.getUtility(IExecutor)
            return await decorated("value")
        finally:
            manager.pop()

    async def main():
        first, second = application(), application()
        names = [
            (await in_application(each))[1] for each in (first, second, first, second)
        ]
        assert current_executor() is current_executor()
        for each in (first, second):
            assert current_executor() is not each.getUtility(IExecutor)
            await each.getUtility(IExecutor).aclose()
        return names

    names = run(main())
    assert names[0] == names[2]
    assert names[1] == names[3]


# -- many calls that need one another --------------------------------------------------


def nested_in_threads(executor, depth):
    """Alternates: a thread, a coroutine it waits for, a thread, ..."""
    assert thread_name().startswith("aioext-executor")
    if depth == 0:
        return 0
    return 1 + wait(executor.run(nested_in_threads, executor, depth - 1))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_calls_that_each_need_another_one_do_not_wait_for_ever(with_executor, workers):
    async def use(executor):
        calls = (
            executor.run(nested_in_threads, executor, 5) for _ in range(workers + 1)
        )
        return await asyncio.gather(*calls)

    assert with_executor(use, workers) == [5] * (workers + 1)


@pytest.mark.parametrize("grouped", ["gather", "TaskGroup"])
@pytest.mark.parametrize("workers", [1, 3])
def test_bridges_threads_and_coroutines_nest_under_groups(
    with_executor, workers, grouped
):
    async def both(coroutines):
        if grouped == "gather":
            return await asyncio.gather(*coroutines)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in coroutines]
        return [task.result() for task in tasks]

    async def use(executor):
        async def coroutine(depth):
            await asyncio.sleep(0)
            return await spawn_greenlet(in_bridge, depth)

        def in_bridge(depth):
            wait(asyncio.sleep(0))
            return wait(executor.run(in_thread, depth))

        def in_thread(depth):
            if depth == 0:
                return 1
            return sum(wait(both([coroutine(depth - 1) for _ in range(2)])))

        return await both([coroutine(5) for _ in range(2)])

    assert with_executor(use, workers) == [32, 32]


def test_a_call_left_behind_by_a_thread_that_has_gone_on_runs_later(with_executor):
    # It was offered to a thread that did not wait any more.
    tasks = []

    async def use(executor):
        gone_on = threading.Event()
        offered = threading.Event()

        async def later():
            # The only worker is taken, and no longer waits for anything.
            await asyncio.to_thread(gone_on.wait, DEADLINE)
            call = asyncio.create_task(executor.run(thread_name))
            await asyncio.sleep(0)
            offered.set()
            return await call

        async def leave_behind():
            tasks.append(asyncio.create_task(later()))

        def function():
            wait(leave_behind())
            gone_on.set()
            assert offered.wait(DEADLINE)
            return "returned"

        assert await executor.run(function) == "returned"
        return await tasks[0]

    assert with_executor(use, workers=1).startswith("aioext-executor")


def test_a_thread_that_waits_is_left_alone_while_others_are_free(
    with_executor, monkeypatch
):
    offered = []
    monkeypatch.setattr(threads.ThreadScope, "call_in_thread", offered.append)

    async def use(executor):
        def function():
            return wait(executor.run(thread_name)) != thread_name()

        return [await executor.run(function) for _ in range(50)]

    assert all(with_executor(use, workers=8))
    assert offered == []


def test_a_call_that_ran_in_the_waiting_thread_keeps_nothing(with_executor):
    # It is still in the queue of the executor, which nobody reads meanwhile.
    def function(executor):
        thing = Thing()
        reference = weakref.ref(thing)
        calling = executor.run(bool, thing)
        del thing
        assert wait(calling) is True
        del calling
        return reference() is None

    async def use(executor):
        return await executor.run(function, executor)

    assert with_executor(use, workers=1)


def test_a_call_that_was_offered_runs_once(with_executor):
    ran = []

    async def use(executor):
        def function(number):
            ran.append(wait(executor.run(int, number)))
            wait(executor.run(ran.append, number))

        await asyncio.gather(*(executor.run(function, n) for n in range(30)))

    with_executor(use)
    assert sorted(ran) == sorted([*range(30), *range(30)])


# -- cancellation ----------------------------------------------------------------------


def test_a_call_that_no_thread_has_begun_is_cancelled_at_once(with_executor):
    ran = []

    async def use(executor):
        released = threading.Event()
        first = asyncio.create_task(executor.run(released.wait, DEADLINE))
        queued = asyncio.create_task(executor.run(ran.append, "queued"))
        await asyncio.sleep(0)
        queued.cancel()
        await asyncio.wait([queued])
        assert queued.cancelled()
        assert not first.done()
        released.set()
        await first
        return await executor.run(int)

    assert with_executor(use, workers=1) == 0
    assert ran == []


def test_a_cancellation_reaches_a_call_that_runs_in_the_waiting_thread(with_executor):
    seen = []

    async def park():
        seen.append("parked")
        await asyncio.sleep(3600)

    async def use(executor):
        def outer():
            try:
                wait(executor.run(inner))
            finally:
                seen.append("outer")

        def inner():
            try:
                wait(park())
            finally:
                seen.append("inner")

        task = asyncio.create_task(executor.run(outer))
        while not seen:  # noqa: ASYNC110 - a thread tells
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    with_executor(use, workers=1)
    assert seen == ["parked", "inner", "outer"]


# -- the end ---------------------------------------------------------------------------


def test_closing_lets_calls_end_that_wait_for_the_loop(with_executor):
    async def use(executor):
        begun = asyncio.Event()
        released = asyncio.Event()

        async def parked():
            begun.set()
            await released.wait()
            return "released"

        call = asyncio.create_task(executor.run(wait, parked()))
        await begun.wait()
        closing = asyncio.create_task(executor.aclose())
        # The loop goes on, or nobody could release the call.
        await asyncio.sleep(0)
        assert not closing.done()
        released.set()
        await closing
        return await call

    assert with_executor(use) == "released"


def test_closing_ends_the_threads_and_a_later_call_makes_new_ones(with_executor):
    async def use(executor):
        first = await executor.run(threading.current_thread)
        assert first.is_alive()
        await executor.aclose()
        assert not first.is_alive()
        await executor.aclose()
        second = await executor.run(threading.current_thread)
        assert second is not first
        return second.name

    assert with_executor(use).startswith("aioext-executor")


def test_calls_made_while_it_closes_are_counted_apart(with_executor):
    async def use(executor):
        begun = asyncio.Event()
        released = asyncio.Event()

        async def parked():
            begun.set()
            await released.wait()

        old = asyncio.create_task(executor.run(wait, parked()))
        await begun.wait()
        closing = asyncio.create_task(executor.aclose())
        await asyncio.sleep(0)
        new = asyncio.create_task(executor.run(nested_in_threads, executor, 3))
        assert await new == 3
        released.set()
        await asyncio.gather(old, closing)
        return await executor.run(nested_in_threads, executor, 3)

    assert with_executor(use, workers=1) == 3


def test_a_forked_process_has_threads_of_its_own(script):
    output = script(
        """
        import asyncio, os, sys, threading, warnings
        from aioext import wait
        from aioext.executor import Executor

        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads
        executor = Executor(2)

        def name():
            wait(asyncio.sleep(0))
            return threading.current_thread().name

        async def use():
            return await asyncio.gather(executor.run(name), executor.run(name))

        def in_child():
            print(*(each.startswith("aioext-executor") for each in asyncio.run(use())))
            sys.exit(7)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(use())
        # As if another thread were just submitting a call.
        with executor._lock:
            child = os.fork()
            if not child:
                try:
                    in_child()
                finally:
                    sys.stdout.flush()
                    os._exit(7)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status))
        print(*(each.startswith("aioext-executor") for each in asyncio.run(use())))
        loop.close()
        """
    )
    assert output.split() == ["True", "True", "7", "True", "True"]


def test_a_task_that_outlives_a_job_does_not_keep_its_scope(with_executor):
    scopes, tasks = [], []
    gone = threading.Event()

    async def wait_for(event):
        await event.wait()

    async def leave_behind(event):
        tasks.append(asyncio.create_task(wait_for(event)))

    def function(event):
        scopes.append(weakref.ref(threads.current_scope(), lambda ref: gone.set()))
        wait(leave_behind(event))

    async def use(executor):
        event = asyncio.Event()
        await executor.run(function, event)
        gc.collect()
        # The thread may still be about to let go of it.
        await asyncio.to_thread(gone.wait, DEADLINE)
        assert scopes[0]() is None
        event.set()
        await tasks[0]

    with_executor(use)


def test_a_queued_call_whose_coroutine_is_closed_never_runs(with_executor):
    ran = []

    async def use(executor):
        go_on = threading.Event()
        first = asyncio.create_task(executor.run(go_on.wait, DEADLINE))
        await asyncio.sleep(0)
        dropped = executor.run(ran.append, "dropped")
        dropped.send(None)
        dropped.close()
        go_on.set()
        await first
        await executor.run(ran.append, "kept")

    with_executor(use, workers=1)
    assert ran == ["kept"]

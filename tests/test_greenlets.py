"""The task driver: synchronous code that waits, in greenlets of one Task."""

import asyncio
import contextvars
import gc
import inspect
import sys
import threading
import traceback
import weakref

import pytest
from greenlet import GreenletExit, getcurrent, greenlet

from aioext import greenlets, spawn_greenlet, wait
from aioext.greenlets import BridgeGreenlet, stepped

var = contextvars.ContextVar("var", default="unset")


class Failure(Exception):
    pass


class Thing:
    """Something that can be referred to weakly."""


async def give(value):
    await asyncio.sleep(0)
    return value


async def fail(error):
    await asyncio.sleep(0)
    raise error


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it is not always an event
            await asyncio.sleep(0.001)


def idle():
    """The idle greenlets of this thread."""
    return greenlets._pool.idle


def living():
    """How many greenlets of ours there are, of all threads."""
    return sum(type(each) is BridgeGreenlet for each in gc.get_objects())


@pytest.fixture
def empty_pool():
    kept = idle()[:]
    idle().clear()
    yield
    idle()[:] = kept


# -- what a wait gives -----------------------------------------------------------------


def test_a_wait_gives_the_value_while_the_loop_goes_on(run):
    ticks = []

    def function():
        started = len(ticks)
        value = wait(give_after(3))
        return value, len(ticks) - started

    async def give_after(turns):
        for _ in range(turns):
            await asyncio.sleep(0)
        return "value"

    async def main():
        async def tick():
            while True:
                ticks.append(1)
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        value, passed = await spawn_greenlet(function)
        ticking.cancel()
        return value, passed

    value, passed = run(main())
    assert value == "value"
    assert passed >= 3


def test_a_wait_takes_every_kind_of_awaitable(run):
    class Awaitable:
        def __await__(self):
            return (yield from give("object").__await__())

    def function():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, "future")
        done = loop.create_future()
        done.set_result("done")
        return [
            wait(give("coroutine")),
            wait(asyncio.create_task(give("task"))),
            wait(future),
            wait(done),
            wait(Awaitable()),
            wait(asyncio.gather(give(1), give(2))),
        ]

    async def main():
        return await spawn_greenlet(function)

    expected = ["coroutine", "task", "future", "done", "object", [1, 2]]
    assert run(main()) == expected


def test_a_coroutine_that_does_not_suspend_costs_no_switch(run):
    async def at_once():
        return getcurrent()

    async def main():
        def function():
            return wait(at_once()) is getcurrent()

        steps = spawn_greenlet(function)
        with pytest.raises(StopIteration) as ended:
            steps.send(None)
        return ended.value.value

    assert run(main()) is True


def test_everything_runs_in_the_task_of_the_caller(run):
    tasks = []

    async def coroutine():
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        tasks.append(asyncio.current_task())

    def function():
        tasks.append(asyncio.current_task())
        wait(coroutine())
        tasks.append(asyncio.current_task())

    async def main():
        before = len(asyncio.all_tasks())
        await spawn_greenlet(function)
        assert len(asyncio.all_tasks()) == before
        return set(tasks) == {asyncio.current_task()}

    assert run(main())


@pytest.mark.parametrize("kind", ["coroutine", "future", "task", "exception", "None"])
def test_what_a_function_returns_is_never_taken_for_a_wait(run, kind):
    async def main():
        loop = asyncio.get_running_loop()
        returned = {
            "coroutine": lambda: give(1),
            "future": loop.create_future,
            "task": lambda: loop.create_task(give(1)),
            "exception": lambda: Failure("returned"),
            "None": lambda: None,
        }[kind]()

        def function():
            wait(give(0))
            return returned

        assert await spawn_greenlet(function) is returned
        if kind in ("coroutine", "task"):
            assert await returned == 1

    run(main())


def test_a_stray_switch_to_the_driver_is_told_to_the_code_that_did_it(run):
    def function():
        with pytest.raises(TypeError, match="await"):
            getcurrent().parent.switch("not awaitable")
        return wait(give("went on"))

    async def main():
        return await spawn_greenlet(function)

    assert run(main()) == "went on"


# -- nesting ---------------------------------------------------------------------------


def test_synchronous_code_in_a_coroutine_that_is_waited_for_waits_again(run):
    async def inner():
        return helper()

    def helper():
        return wait(give("inner")) + wait(give(" value"))

    async def main():
        return await spawn_greenlet(lambda: wait(inner()))

    assert run(main()) == "inner value"


def test_waits_nest_fifty_deep_in_one_greenlet(run):
    seen = set()

    def descend(depth):
        seen.add(getcurrent())
        return 0 if depth == 0 else 1 + wait(rise(depth - 1))

    async def rise(depth):
        await asyncio.sleep(0)
        result = descend(depth)
        await asyncio.sleep(0)
        return result

    async def main():
        return await spawn_greenlet(descend, 60)

    assert run(main()) == 60
    assert len(seen) == 1


def test_spawns_and_waits_alternate_sixty_deep(run):
    def descend(depth):
        wait(asyncio.sleep(0))
        result = 0 if depth == 0 else 1 + wait(rise(depth - 1))
        wait(asyncio.sleep(0))
        return result

    async def rise(depth):
        await asyncio.sleep(0)
        result = await spawn_greenlet(descend, depth)
        await asyncio.sleep(0)
        return result

    async def main():
        results = await asyncio.gather(*(rise(60) for _ in range(3)))
        # On greenlets that were used before, in another order.
        return [*results, await rise(60)]

    assert run(main()) == [60] * 4


def test_an_exception_travels_through_sixty_alternations_and_cleans_up(run):
    left = []

    def descend(depth):
        try:
            if depth == 0:
                raise Failure("from the bottom")
            wait(rise(depth - 1))
        finally:
            left.append(wait(give(depth)))

    async def rise(depth):
        await spawn_greenlet(descend, depth)

    async def main():
        with pytest.raises(Failure, match="from the bottom"):
            await rise(60)

    run(main())
    assert left == list(range(61))


# -- exceptions ------------------------------------------------------------------------


def test_an_exception_of_the_awaitable_is_raised_at_the_wait(run):
    def function():
        try:
            wait(fail(Failure("asynchronous")))
        except Failure as error:
            return str(error)

    async def main():
        return await spawn_greenlet(function)

    assert run(main()) == "asynchronous"


@pytest.mark.parametrize("kind", [Failure, asyncio.CancelledError, BaseException])
def test_an_exception_of_the_function_is_raised_by_the_driver(run, kind):
    error = kind("mine")

    def function():
        wait(give(0))
        raise error

    async def main():
        with pytest.raises(kind) as raised:
            await spawn_greenlet(function)
        return raised.value

    assert run(main()) is error


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["function", "coroutine"])
def test_a_request_to_end_the_process_passes_through_both_sides(run, kind, where):
    cleaned = []

    async def coroutine():
        raise kind

    def function():
        try:
            if where == "coroutine":
                wait(coroutine())
            raise kind
        finally:
            wait(give(0))
            cleaned.append("function")

    async def main():
        try:
            await spawn_greenlet(function)
        finally:
            cleaned.append("main")

    with pytest.raises(kind):
        run(main())
    assert cleaned == ["function", "main"]


def test_a_stop_iteration_is_the_cause_of_an_error_that_explains_it(run):
    async def main():
        with pytest.raises(RuntimeError, match="PEP 479") as raised:
            await spawn_greenlet(lambda: next(iter(())))
        assert type(raised.value.__cause__) is StopIteration
        with pytest.raises(RuntimeError, match="next") as raised:
            await spawn_greenlet(lambda: next(iter(())))

    run(main())


def test_a_stop_iteration_passes_within_synchronous_code(run):
    def function():
        iterator = iter(())
        try:
            wait(give(0))
            next(iterator)
        except StopIteration:
            return "caught"

    async def main():
        return await spawn_greenlet(function)

    assert run(main()) == "caught"


def test_a_traceback_shows_the_frames_of_both_sides(run):
    async def the_coroutine():
        await asyncio.sleep(0)
        the_helper()

    def the_helper():
        wait(the_inner_coroutine())

    async def the_inner_coroutine():
        await asyncio.sleep(0)
        raise Failure

    def the_view():
        wait(the_coroutine())

    async def main():
        with pytest.raises(Failure) as raised:
            await spawn_greenlet(the_view)
        return raised.value

    frames = [each.name for each in traceback.extract_tb(run(main()).__traceback__)]
    ours = [each for each in frames if each.startswith("the_")]
    assert ours == ["the_view", "the_coroutine", "the_helper", "the_inner_coroutine"]


def test_an_exception_has_no_context_that_the_bridge_made(run):
    def function():
        wait(fail(Failure("alone")))

    async def main():
        with pytest.raises(Failure) as raised:
            await spawn_greenlet(function)
        return raised.value

    error = run(main())
    assert error.__context__ is None
    assert error.__cause__ is None


# -- sys.exc_info() --------------------------------------------------------------------


def test_the_exception_being_handled_outside_is_seen_inside(run):
    def function():
        seen.append(sys.exc_info()[1])
        wait(give(0))
        seen.append(sys.exc_info()[1])
        raise

    seen = []

    async def main():
        error = Failure("outer")
        try:
            raise error
        except Failure:
            before = traceback.format_exc()
            with pytest.raises(Failure) as raised:
                await spawn_greenlet(function)
            assert raised.value is error
        assert seen == [error, error]
        return before

    assert "outer" in run(main())


def test_the_outer_exception_is_the_context_of_a_new_one(run):
    def function():
        wait(give(0))
        raise KeyError("new")

    async def main():
        error = Failure("outer")
        try:
            raise error
        except Failure:
            lines = len(traceback.extract_tb(error.__traceback__))
            with pytest.raises(KeyError) as raised:
                await spawn_greenlet(function)
            assert len(traceback.extract_tb(error.__traceback__)) == lines
        assert raised.value.__context__ is error

    run(main())


def test_the_exception_being_handled_survives_a_wait(run):
    def function():
        error = Failure("handled")
        try:
            raise error
        except Failure:
            with pytest.raises(KeyError):
                wait(fail(KeyError("other")))
            wait(give(0))
            assert sys.exc_info()[1] is error
            with pytest.raises(Failure, match="handled"):
                raise
        assert sys.exc_info() == (None, None, None)

    async def main():
        await asyncio.gather(*(spawn_greenlet(function) for _ in range(20)))
        assert sys.exc_info() == (None, None, None)

    run(main())


# -- cancellation ----------------------------------------------------------------------


def cancel_waiting(function, *, cancels=1):
    """Run ``function`` in a Task and cancel it at its first wait."""

    async def main():
        task = asyncio.create_task(spawn_greenlet(function))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for _ in range(cancels):
            task.cancel()
        [result] = await asyncio.gather(task, return_exceptions=True)
        return task, result

    return main()


def test_a_cancellation_is_raised_in_the_coroutine_and_then_out_of_the_wait(run):
    order = []

    async def coroutine():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            order.append("coroutine")
            raise

    def function():
        try:
            wait(coroutine())
        except asyncio.CancelledError:
            order.append("function")
            raise

    task, _ = run(cancel_waiting(function))
    assert order == ["coroutine", "function"]
    assert task.cancelled()


def test_a_finally_block_may_wait_while_the_task_is_cancelled(run):
    cleaned = []

    def function():
        try:
            wait(asyncio.sleep(60))
        finally:
            cleaned.append(wait(give("cleaned")))

    task, _ = run(cancel_waiting(function))
    assert cleaned == ["cleaned"]
    assert task.cancelled()


def test_a_swallowed_cancellation_leaves_its_count_as_in_a_coroutine(run):
    counts = []

    def function():
        try:
            wait(asyncio.sleep(60))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            counts.append(task.cancelling())
            counts.append(task.uncancel())
        wait(give(0))
        return "finished"

    task, result = run(cancel_waiting(function))
    assert result == "finished"
    assert not task.cancelled()
    assert counts == [1, 0]


def test_a_cancellation_requested_by_synchronous_code_comes_at_its_next_wait(run):
    def function():
        asyncio.current_task().cancel()
        try:
            wait(asyncio.sleep(60))
        except asyncio.CancelledError:
            return "at the wait"

    async def main():
        return await spawn_greenlet(function)

    assert run(main()) == "at the wait"


def test_a_timeout_inside_of_a_coroutine_that_is_waited_for_holds(run):
    async def limited():
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)

    def function():
        with pytest.raises(TimeoutError):
            wait(limited())
        assert asyncio.current_task().cancelling() == 0
        return wait(give("went on"))

    async def main():
        return await spawn_greenlet(function)

    assert run(main()) == "went on"


def test_a_timeout_around_the_bridge_holds(run):
    cleaned = []

    def function():
        try:
            wait(asyncio.sleep(60))
        finally:
            cleaned.append(wait(give(1)))

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await spawn_greenlet(function)
        assert asyncio.current_task().cancelling() == 0
        return await spawn_greenlet(wait, give("next"))

    assert run(main()) == "next"
    assert cleaned == [1]


def test_a_task_group_cancels_a_waiting_bridge_when_a_sibling_fails(run):
    ends = []

    def function():
        try:
            wait(asyncio.sleep(60))
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async def grouped():
        async with asyncio.TaskGroup() as group:
            group.create_task(spawn_greenlet(function))
            group.create_task(fail(Failure("sibling")))

    async def main():
        with pytest.raises(ExceptionGroup) as raised:
            await grouped()
        assert [type(each) for each in raised.value.exceptions] == [Failure]

    run(main())
    assert ends == ["cancelled"]


def test_a_task_group_inside_of_a_wait_cancels_its_own_tasks_only(run):
    async def grouped():
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(60))
            group.create_task(spawn_greenlet(wait, fail(Failure("child"))))

    def function():
        with pytest.raises(ExceptionGroup) as raised:
            wait(grouped())
        assert raised.group_contains(Failure, match="child")
        return wait(give("went on"))

    async def main():
        return await spawn_greenlet(function)

    assert run(main()) == "went on"


# -- dropped: the driver is closed -----------------------------------------------------


def suspended(function, *args):
    """A bridge whose function waits, driven by hand."""
    bridge = spawn_greenlet(function, *args)
    bridge.send(None)
    return bridge


def test_closing_a_suspended_bridge_raises_generator_exit_where_it_waits(run):
    seen = []

    async def coroutine(future):
        try:
            await future
        except GeneratorExit:
            seen.append("coroutine")
            raise

    def function(future):
        try:
            wait(coroutine(future))
        except GeneratorExit:
            seen.append("function")
            raise
        finally:
            seen.append("finally")

    async def main():
        suspended(function, asyncio.get_running_loop().create_future()).close()

    run(main())
    assert seen == ["coroutine", "function", "finally"]


def test_a_finally_block_that_waits_while_closing_is_refused_not_ignored(run):
    seen = []

    def function(future):
        try:
            wait(future)
        finally:
            try:
                wait(give("never"))
            finally:
                seen.append("left")

    async def main():
        suspended(function, asyncio.get_running_loop().create_future()).close()
        assert await spawn_greenlet(wait, give("next")) == "next"

    run(main())
    assert seen == ["left"]


@pytest.mark.parametrize("swallowed", [1, 10, greenlets.MAX_UNWIND + 10])
def test_code_that_swallows_generator_exit_is_unwound_all_the_same(run, swallowed):
    waits = []

    def function(future):
        for _ in range(swallowed):
            try:
                wait(future)
            except GeneratorExit:
                waits.append(1)
        return "ended"

    async def main():
        suspended(function, asyncio.get_running_loop().create_future()).close()

    run(main())
    assert len(waits) == swallowed


def test_code_that_swallows_while_it_switches_itself_is_given_up(run):
    # SQLAlchemy's way of waiting cannot be refused where it is asked for.
    async def main():
        swallowed = []

        def function():
            while True:
                try:
                    getcurrent().parent.switch(give(0))
                except GeneratorExit:
                    swallowed.append(1)
                    if len(swallowed) == 2 * greenlets.MAX_UNWIND:
                        return

        suspended(function).close()
        return len(swallowed)

    assert run(main()) == greenlets.MAX_UNWIND


def test_an_error_while_closing_is_raised_by_close(run):
    def function(future):
        try:
            wait(future)
        finally:
            raise Failure("while closing")

    async def main():
        bridge = suspended(function, asyncio.get_running_loop().create_future())
        with pytest.raises(Failure, match="while closing"):
            bridge.close()

    run(main())


def test_closing_passes_through_nested_bridges(run):
    left = []

    def outer(future):
        try:
            wait(spawn_greenlet(inner, future))
        finally:
            left.append("outer")

    def inner(future):
        try:
            wait(future)
        finally:
            left.append("inner")

    async def main():
        suspended(outer, asyncio.get_running_loop().create_future()).close()

    run(main())
    assert left == ["inner", "outer"]


def test_a_bridge_may_be_closed_by_another_bridge(run):
    left = []

    def function(future):
        try:
            wait(future)
        finally:
            left.append("closed")

    async def main():
        bridge = suspended(function, asyncio.get_running_loop().create_future())

        def other():
            bridge.close()
            assert left == ["closed"]
            return wait(give("other went on"))

        return await spawn_greenlet(other)

    assert run(main()) == "other went on"


def test_a_dropped_bridge_is_closed_by_the_collector(run):
    left = []

    def function(future):
        try:
            wait(future)
        finally:
            left.append("closed")

    async def main():
        bridge = suspended(function, asyncio.get_running_loop().create_future())
        del bridge
        assert left == ["closed"]

    run(main())


def test_closing_in_another_thread_neither_crashes_nor_leaks(run, empty_pool):
    left = []

    def function(future):
        try:
            wait(future)
        finally:
            left.append(threading.current_thread())

    async def main():
        bridge = suspended(function, asyncio.get_running_loop().create_future())
        thread = threading.Thread(target=bridge.close)
        thread.start()
        thread.join()
        del bridge, thread
        # A greenlet that was dropped elsewhere ends at its thread's next switch.
        assert await spawn_greenlet(wait, give("next")) == "next"
        assert left == [threading.current_thread()]

    run(main())
    assert len(idle()) == 1


# -- GreenletExit and exceptions thrown from outside -----------------------------------


def test_greenlet_exit_raised_by_the_function_reaches_the_caller(run, empty_pool):
    def function():
        wait(give(0))
        raise GreenletExit("mine")

    async def main():
        with pytest.raises(GreenletExit, match="mine"):
            await spawn_greenlet(function)
        assert idle() == []
        return await spawn_greenlet(wait, give("next"))

    assert run(main()) == "next"


@pytest.mark.parametrize("thrown", [GreenletExit, Failure])
def test_an_exception_thrown_into_a_waiting_greenlet_ends_it(run, thrown):
    left = []
    waiting = []

    def function(future):
        waiting.append(getcurrent())
        try:
            wait(future)
        finally:
            left.append("finally")

    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        task = loop.create_task(spawn_greenlet(function, future))
        await until(lambda: waiting)
        waiting[0].throw(thrown)
        assert left == ["finally"]
        future.set_result(None)
        with pytest.raises(thrown):
            await task
        return await spawn_greenlet(wait, give("next"))

    assert run(main()) == "next"


def test_a_greenlet_killed_while_idle_is_not_used_again(run, empty_pool):
    async def main():
        assert await spawn_greenlet(wait, give(1)) == 1
        [killed] = idle()
        killed.throw()
        assert killed.dead
        return await spawn_greenlet(wait, give(2))

    assert run(main()) == 2


def test_a_greenlet_that_outlives_its_job_does_not_disturb_the_next(run, empty_pool):
    survivors = []

    def function():
        def stay():
            getcurrent().parent.switch()

        survivor = greenlet(stay)
        survivors.append(survivor)
        survivor.switch()

    async def main():
        await spawn_greenlet(function)
        # It ends in its parent, our idle greenlet.
        survivors.pop().switch()
        return await spawn_greenlet(wait, give("undisturbed"))

    assert run(main()) == "undisturbed"


# -- context variables -----------------------------------------------------------------


def test_context_variables_travel_both_ways(run):
    async def coroutine():
        seen = var.get()
        await asyncio.sleep(0)
        var.set("coroutine")
        return seen

    def function():
        seen = [var.get()]
        var.set("function")
        seen.append(wait(coroutine()))
        seen.append(var.get())
        var.set("end")
        return seen

    async def main():
        var.set("main")
        assert await spawn_greenlet(function) == ["main", "function", "coroutine"]
        assert var.get() == "end"

    run(main())


def test_both_sides_have_the_same_context_object(run):
    def function():
        here = getcurrent()
        parent = here.parent
        return here.gr_context is parent.gr_context

    async def main():
        return await spawn_greenlet(function)

    assert run(main())


def test_a_token_of_one_side_is_good_on_the_other(run):
    async def reset(token):
        await asyncio.sleep(0)
        var.reset(token)

    def function(token):
        var.reset(token)
        token = var.set("function")
        wait(reset(token))
        assert var.get() == "before"
        return var.set("after")

    async def main():
        var.set("before")
        token = var.set("main")
        var.reset(await spawn_greenlet(function, token))
        assert var.get() == "before"

    run(main())


def test_a_reused_greenlet_shows_nothing_of_the_job_before(run, empty_pool):
    used = []

    def first():
        used.append(id(getcurrent()))
        var.set("first")

    def second():
        used.append(id(getcurrent()))
        return var.get()

    async def main():
        await asyncio.create_task(spawn_greenlet(first))
        return await asyncio.create_task(spawn_greenlet(second))

    assert run(main()) == "unset"
    assert used[0] == used[1]
    assert idle()[0].gr_context is None


def test_five_hundred_interleaved_tasks_keep_their_variables_apart(run):
    async def coroutine(number):
        assert var.get() == ("function", number)
        await asyncio.sleep(0)
        assert var.get() == ("function", number)
        var.set(("coroutine", number))
        await asyncio.sleep(0)

    def function(number):
        for _ in range(number % 4 + 1):
            var.set(("function", number))
            wait(coroutine(number))
            assert var.get() == ("coroutine", number)

    async def one(number):
        var.set(("main", number))
        await asyncio.sleep(0)
        await spawn_greenlet(function, number)
        assert var.get() == ("coroutine", number)

    async def main():
        await asyncio.gather(*(one(number) for number in range(500)))
        assert var.get() == "unset"

    run(main())


# -- eager tasks -----------------------------------------------------------------------

if hasattr(asyncio, "eager_task_factory"):

    def run_eagerly(run, main):
        async def with_factory():
            loop = asyncio.get_running_loop()
            loop.set_task_factory(asyncio.eager_task_factory)
            return await main()

        return run(with_factory())

    def test_an_eager_task_may_be_a_bridge(run):
        async def main():
            bridges = (spawn_greenlet(wait, give(number)) for number in range(50))
            return await asyncio.gather(*bridges)

        assert run_eagerly(run, main) == list(range(50))

    def test_an_eager_task_made_by_synchronous_code_may_be_a_bridge(run):
        def function():
            inner = [asyncio.create_task(spawn_greenlet(nested, n)) for n in range(20)]
            wait(asyncio.sleep(0))
            return wait(asyncio.gather(*inner))

        def nested(number):
            wait(asyncio.sleep(0))
            return wait(give(number))

        async def main():
            return await spawn_greenlet(function)

        assert run_eagerly(run, main) == list(range(20))

    def test_a_wait_in_an_eager_task_made_by_synchronous_code_is_refused(run):
        from aioext import ScopeError

        async def waits_itself():
            wait(give("never"))

        def function():
            task = asyncio.create_task(waits_itself())
            with pytest.raises(ScopeError):
                wait(task)
            return wait(give("went on"))

        async def main():
            return await spawn_greenlet(function)

        assert run_eagerly(run, main) == "went on"


# -- foreign greenlets -----------------------------------------------------------------


def test_a_plain_greenlet_inside_may_wait(run):
    def function():
        def foreign(value):
            first = wait(give(value))
            # A greenlet may also be left and entered again between waits.
            value = getcurrent().parent.switch(first)
            return wait(give(value)), var.get()

        var.set("outer")
        inner = greenlet(foreign)
        inner.gr_context = getcurrent().gr_context
        assert inner.switch("first") == "first"
        assert wait(give("between")) == "between"
        return inner.switch("second")

    async def main():
        return await spawn_greenlet(function)

    assert run(main()) == ("second", "outer")


def test_a_cancellation_finds_the_foreign_greenlet_that_waits(run):
    left = []

    def function():
        def foreign():
            try:
                wait(asyncio.sleep(60))
            finally:
                left.append("foreign")

        try:
            greenlet(foreign).switch()
        finally:
            left.append("function")

    task, _ = run(cancel_waiting(function))
    assert left == ["foreign", "function"]
    assert task.cancelled()


def test_closing_finds_the_foreign_greenlet_that_waits(run):
    left = []

    def function(future):
        def foreign():
            try:
                wait(future)
            finally:
                left.append("foreign")

        try:
            greenlet(foreign).switch()
        finally:
            left.append("function")

    async def main():
        suspended(function, asyncio.get_running_loop().create_future()).close()

    run(main())
    assert left == ["foreign", "function"]


def test_a_greenback_portal_inside_may_wait_both_ways(run):
    import greenback

    def in_portal():
        return [
            greenback.await_(give(1)),
            wait(give(2)),
            greenback.await_(give(3)),
            wait(spawn_greenlet(wait, give(4))),
        ]

    def function():
        before = wait(give(0))
        return before, wait(greenback.with_portal_run_sync(in_portal)), wait(give(5))

    async def main():
        return await asyncio.gather(*(spawn_greenlet(function) for _ in range(20)))

    assert run(main()) == [(0, [1, 2, 3, 4], 5)] * 20


def test_a_bridge_inside_of_a_greenback_portal_waits(run):
    import greenback

    def function():
        return wait(give(1)), wait(spawn_greenlet(wait, give(2)))

    async def main():
        await greenback.ensure_portal()
        before = greenback.await_(give(0))
        return before, await spawn_greenlet(function), greenback.await_(give(3))

    assert run(main()) == (0, (1, 2), 3)


def test_the_awaitable_itself_may_be_switched_to_the_driver(run):
    def function():
        parent = getcurrent().parent
        with pytest.raises(Failure):
            parent.switch(fail(Failure("SQLAlchemy's way")))
        return parent.switch(give("SQLAlchemy's way")), wait(give("ours"))

    async def main():
        return await spawn_greenlet(function)

    assert run(main()) == ("SQLAlchemy's way", "ours")


# -- the pool --------------------------------------------------------------------------


def test_greenlets_are_used_again(run, empty_pool):
    used = set()

    def function():
        used.add(id(getcurrent()))
        wait(give(0))

    async def main():
        for _ in range(100):
            await spawn_greenlet(function)

    run(main())
    assert len(used) == 1
    assert len(idle()) == 1


def test_the_pool_is_capped(run, empty_pool, monkeypatch):
    monkeypatch.setattr(greenlets, "MAX_IDLE", 7)

    async def main():
        await asyncio.gather(*(spawn_greenlet(wait, give(0)) for _ in range(50)))

    run(main())
    assert len(idle()) == 7


def test_a_failed_job_does_not_cost_its_greenlet(run, empty_pool):
    async def main():
        for _ in range(20):
            with pytest.raises(Failure):
                await spawn_greenlet(wait, fail(Failure()))

    run(main())
    assert len(idle()) == 1


def test_a_pool_belongs_to_a_thread():
    pools = []

    def in_thread():
        async def main():
            for _ in range(3):
                await spawn_greenlet(wait, give(0))

        asyncio.run(main())
        pools.append(idle())

    threads = [threading.Thread(target=in_thread) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(each) for each in pools] == [1, 1, 1]
    assert len({id(each) for each in pools}) == 3


def test_threads_that_ran_a_loop_leave_no_greenlets_behind():
    async def main():
        await asyncio.gather(*(spawn_greenlet(wait, give(0)) for _ in range(5)))

    def in_thread():
        asyncio.run(main())

    gc.collect()
    before = living()
    for _ in range(300):
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
    gc.collect()
    assert living() - before <= 5


def test_an_idle_greenlet_keeps_nothing_of_its_last_job(run, empty_pool):
    things = []

    def remember(thing):
        things.append(weakref.ref(thing))
        return thing

    async def take(thing):
        await asyncio.sleep(0)
        return remember(Thing())

    def succeed(thing, keyword):
        return wait(take(thing))

    def raise_it(thing):
        try:
            wait(give(0))
            raise remember(Failure())
        finally:
            del thing

    async def main():
        await spawn_greenlet(succeed, remember(Thing()), keyword=remember(Thing()))
        try:
            await spawn_greenlet(raise_it, remember(Thing()))
        except Failure:
            pass
        task = asyncio.create_task(spawn_greenlet(sleep_with, remember(Thing())))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    def sleep_with(thing):
        wait(asyncio.sleep(60))

    gc.disable()
    try:
        run(main())
        assert len(things) == 6
        assert [each() for each in things] == [None] * 6
    finally:
        gc.enable()
    assert len(idle()) == 1


# -- cycles and leaks ------------------------------------------------------------------


def failing_future():
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_exception, Failure())
    return future


async def await_failing_future():
    await failing_future()


def failing_task():
    return asyncio.create_task(await_failing_future())


@pytest.mark.parametrize(
    "awaitable",
    [await_failing_future, failing_future, failing_task],
    ids=["coroutine", "future", "task"],
)
@pytest.mark.parametrize("caught", ["inside", "outside"])
def test_a_failure_makes_no_reference_cycle(run, awaitable, caught):
    failures = []

    def function():
        if caught == "outside":
            return wait(awaitable())
        try:
            wait(awaitable())
        except Failure as error:
            failures.append(weakref.ref(error))

    async def main():
        try:
            await spawn_greenlet(function)
        except Failure as error:
            failures.append(weakref.ref(error))
        await asyncio.sleep(0)

    gc.collect()
    gc.disable()
    try:
        run(main())
        assert [each() for each in failures] == [None]
    finally:
        gc.enable()


def test_ten_thousand_jobs_leave_nothing_behind(run):
    def function(number):
        wait(asyncio.sleep(0))
        if number % 10 == 0:
            wait(fail(Failure()))
        if number % 20 == 1:
            wait(asyncio.sleep(60))
        return wait(give(number))

    async def one(number):
        task = asyncio.create_task(spawn_greenlet(function, number))
        if number % 20 == 1:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
        [result] = await asyncio.gather(task, return_exceptions=True)
        return type(result)

    async def many(count):
        kinds = []
        for start in range(0, count, 100):
            batch = (one(number) for number in range(start, start + 100))
            kinds += await asyncio.gather(*batch)
        return kinds

    async def main():
        await many(500)
        gc.collect()
        before = len(gc.get_objects()), living()
        kinds = await many(10_000)
        assert kinds.count(Failure) == 1_000
        assert kinds.count(asyncio.CancelledError) == 500
        del kinds
        gc.collect()
        return before, (len(gc.get_objects()), living())

    (objects_before, living_before), (objects, alive) = run(main())
    assert alive == living_before
    assert abs(objects - objects_before) < 200


def test_a_greenlet_that_outlived_its_job_may_begin_a_bridge(run):
    left = []

    def foreign():
        getcurrent().parent.switch()
        try:
            spawn_greenlet(lambda: "value").send(None)
        except StopIteration as result:
            left.append(result.value)

    def function():
        left.append(greenlet(foreign))
        left[0].switch()

    async def main():
        await spawn_greenlet(function)
        left.pop().switch()

    run(main())
    assert left == ["value"]


# -- a coroutine, step by step ---------------------------------------------------------


async def steps(number):
    """A coroutine that waits so often, and gives what it was given meanwhile."""
    return [await give(each) for each in range(number)]


def waiting_steps(number):
    return [wait(give(each)) for each in range(number)]


@pytest.mark.parametrize("number", [0, 1, 5])
def test_a_stepped_coroutine_gives_its_value(run, number):
    async def main():
        return await stepped(steps(number))

    assert run(main()) == list(range(number))


def test_synchronous_code_that_a_stepped_coroutine_calls_may_wait(run):
    async def coroutine():
        before = await give("before")
        nested = waiting_steps(3)
        inner = await stepped(steps(2))
        spawned = await spawn_greenlet(waiting_steps, 2)
        return before, nested, inner, spawned, await give("after")

    async def main():
        return await stepped(coroutine())

    assert run(main()) == ("before", [0, 1, 2], [0, 1], [0, 1], "after")


def test_no_greenlet_is_held_while_a_stepped_coroutine_waits(run, empty_pool):
    async def coroutine(event):
        waiting_steps(1)
        await event.wait()
        return waiting_steps(1)

    async def main():
        event = asyncio.Event()
        tasks = [asyncio.create_task(stepped_task(event)) for _ in range(50)]
        for _ in range(10):
            await asyncio.sleep(0)
        # As many as waited in synchronous code at once, and all of them idle.
        held = living() - before - len(idle())
        event.set()
        await asyncio.gather(*tasks)
        return held

    async def stepped_task(event):
        await stepped(coroutine(event))

    before = living()
    assert run(main()) == 0


def test_steps_that_wait_by_themselves_need_one_greenlet(run, empty_pool):
    async def main():
        for _ in range(3):
            await stepped(steps(5))

    run(main())
    assert len(idle()) == 1


@pytest.mark.parametrize("where", ["at once", "after a wait", "in synchronous code"])
def test_what_a_stepped_coroutine_raises_is_raised(run, where):
    async def coroutine():
        if where == "after a wait":
            await give(0)
        if where == "in synchronous code":
            wait(fail(Failure()))
        raise Failure

    async def main():
        with pytest.raises(Failure):
            await stepped(coroutine())
        return await stepped(steps(1))

    assert run(main()) == [0]


def test_an_exception_of_what_is_awaited_is_raised_there(run):
    async def coroutine():
        try:
            await fail(Failure())
        except Failure:
            return waiting_steps(1)

    async def main():
        return await stepped(coroutine())

    assert run(main()) == [0]


@pytest.mark.parametrize("value", [None, 5, StopIteration(5), (True, 5)])
def test_a_stepped_coroutine_may_give_anything(run, value):
    async def coroutine():
        await give(0)
        return value

    async def main():
        return await stepped(coroutine())

    assert run(main()) is value


def test_a_stop_iteration_in_a_stepped_coroutine_is_an_error(run):
    def function():
        raise StopIteration("mistake")

    async def coroutine():
        await give(0)
        function()

    async def main():
        with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
            await stepped(coroutine())

    run(main())


def test_a_request_to_end_passes_through_a_stepped_coroutine(run):
    async def coroutine():
        await give(0)
        raise GreenletExit

    async def main():
        with pytest.raises(GreenletExit):
            await stepped(coroutine())
        return await stepped(steps(1))

    assert run(main()) == [0]


STEPS = 6


@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize("swallowed", [False, True])
def test_a_cancellation_is_raised_at_whichever_step_waits(run, step, swallowed):
    async def coroutine():
        for number in range(STEPS):
            reached.append(number)
            try:
                if number % 2:
                    wait(gates[number].wait())
                else:
                    await gates[number].wait()
            except asyncio.CancelledError:
                # A finally block may wait, in either way.
                cancelled.append(number)
                await give(0)
                wait(give(0))
                if not swallowed:
                    raise
        return "ended"

    async def main():
        gates.extend(asyncio.Event() for _ in range(STEPS))
        task = asyncio.create_task(outer())
        for gate in gates[:step]:
            gate.set()
        await until(lambda: reached and reached[-1] == step)
        task.cancel()
        for gate in gates:
            gate.set()
        if swallowed:
            assert await task == "ended"
        else:
            with pytest.raises(asyncio.CancelledError):
                await task

    async def outer():
        return await stepped(coroutine())

    gates, reached, cancelled = [], [], []
    run(main())
    assert cancelled == [step]


def test_a_timeout_within_and_around_a_stepped_coroutine_holds(run):
    async def coroutine():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):  # noqa: ASYNC100 - it waits
                wait(asyncio.sleep(60))
        await asyncio.sleep(60)

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await stepped(coroutine())
        assert not asyncio.current_task().cancelling()

    run(main())


@pytest.mark.parametrize("kind", ["await", "wait"])
def test_closing_a_stepped_coroutine_raises_generator_exit_where_it_waits(run, kind):
    async def coroutine(future):
        try:
            if kind == "await":
                await future
            else:
                wait(future)
        except GeneratorExit:
            seen.append("coroutine")
            raise
        finally:
            seen.append("finally")

    async def main():
        closed = coroutine(asyncio.get_running_loop().create_future())
        bridge = stepped(closed)
        bridge.send(None)
        bridge.close()
        assert inspect.getcoroutinestate(closed) == inspect.CORO_CLOSED
        return await stepped(steps(1))

    seen = []
    assert run(main()) == [0]
    assert seen == ["coroutine", "finally"]


def test_closing_a_stepped_coroutine_that_has_not_begun_closes_nothing_else():
    coroutine = steps(1)
    stepped(coroutine).close()
    coroutine.close()


def test_a_stepped_coroutine_is_of_the_task_and_context_around_it(run):
    async def coroutine():
        tasks = [asyncio.current_task()]
        values = [var.get()]
        var.set("inside")
        await give(0)
        tasks.append(asyncio.current_task())
        values.append(var.get())
        wait(give(0))
        tasks.append(asyncio.current_task())
        return tasks, values

    async def main():
        var.set("outside")
        tasks, values = await stepped(coroutine())
        assert set(tasks) == {asyncio.current_task()}
        return values, var.get()

    assert run(main()) == (["outside", "inside"], "inside")


def test_interleaved_stepped_coroutines_keep_their_variables_apart(run):
    async def coroutine(number):
        var.set(number)
        for _ in range(5):
            await give(0)
            assert var.get() == number
            wait(give(0))
            assert var.get() == number
        return number

    async def one(number):
        return await stepped(coroutine(number))

    async def main():
        return await asyncio.gather(*map(one, range(200)))

    assert run(main()) == list(range(200))


@pytest.mark.parametrize("end", ["returns", "raises", "is cancelled", "waits"])
def test_a_stepped_coroutine_leaves_no_reference_cycle(run, end):
    things = []

    async def coroutine():
        thing = Thing()
        things.append(weakref.ref(thing))
        await give(thing)
        if end == "raises":
            raise Failure
        if end == "is cancelled":
            await asyncio.Event().wait()
        if end == "waits":
            wait(asyncio.Event().wait())

    async def outer():
        await stepped(coroutine())

    async def main():
        task = asyncio.create_task(outer())
        if end in ("is cancelled", "waits"):
            for _ in range(5):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task
        await asyncio.sleep(0)
        return [each() for each in things]

    gc.collect()
    gc.disable()
    try:
        assert run(main()) == [None]
    finally:
        gc.enable()


def test_a_traceback_of_a_stepped_coroutine_shows_its_frames(run):
    async def coroutine():
        await give(0)
        raise Failure

    async def main():
        await stepped(coroutine())

    with pytest.raises(Failure) as caught:
        run(main())
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names.index("main") < names.index("stepped") < names.index("coroutine")
    assert caught.value.__context__ is None

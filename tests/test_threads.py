"""The thread driver: a thread waits, and the loop does the work."""

import asyncio
import contextlib
import contextvars
import gc
import threading
import weakref

import pytest
from greenlet import GreenletExit, getcurrent, greenlet
from sqlalchemy.util import await_only

from aioext import (
    ScopeError,
    background,
    bridge,
    greenlets,
    spawn_greenlet,
    threads,
    wait,
)
from aioext.executor import Executor

# Seconds after which something that should happen will not.
DEADLINE = 10

var = contextvars.ContextVar("var", default="default")
other = contextvars.ContextVar("other")


class Failure(Exception):
    pass


async def give(value):
    await asyncio.sleep(0)
    return value


async def fail():
    await asyncio.sleep(0)
    raise Failure


async def until(condition):
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - threads set no asyncio.Event
            await asyncio.sleep(0.001)


@pytest.fixture
def executor():
    return Executor(2)


@pytest.fixture
def in_thread(run, executor):
    """Run a function in a thread of the executor; gives what it returns."""

    def in_thread(function, *args):
        async def main():
            try:
                async with asyncio.timeout(DEADLINE):
                    return await executor.run(function, *args)
            finally:
                await executor.aclose()

        return run(main())

    return in_thread


# -- what a wait gives -----------------------------------------------------------------


def test_a_thread_waits_while_the_loop_works(in_thread):
    def function():
        thread = threading.current_thread()
        return wait(where()) is not thread, wait(give("value"))

    async def where():
        await asyncio.sleep(0)
        return threading.current_thread()

    assert in_thread(function) == (True, "value")


def test_a_thread_waits_for_tasks_and_futures_of_its_loop(run, executor):
    def function(task, future):
        return wait(task), wait(future)

    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_later(0.01, future.set_result, "future")
        return await executor.run(function, asyncio.create_task(give("task")), future)

    assert run(main()) == ("task", "future")


def test_an_exception_is_raised_in_the_thread(in_thread):
    def function():
        with pytest.raises(Failure):
            wait(fail())
        return "went on"

    assert in_thread(function) == "went on"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_request_to_end_the_process_is_carried_to_the_thread(in_thread, kind):
    async def end():
        await asyncio.sleep(0)
        raise kind

    def function():
        with pytest.raises(kind):
            wait(end())
        return wait(give("the loop goes on"))

    assert in_thread(function) == "the loop goes on"


def test_synchronous_code_below_the_awaitable_waits_in_its_turn(in_thread):
    def helper(depth):
        return wait(coroutine(depth - 1)) if depth else wait(give("bottom"))

    async def coroutine(depth):
        await asyncio.sleep(0)
        return helper(depth)

    assert in_thread(helper, 20) == "bottom"


def test_a_loop_in_the_thread_itself_is_the_one_that_is_used(in_thread):
    async def inner():
        loop = asyncio.get_running_loop()
        with pytest.raises(ScopeError):
            wait(give("never"))
        return await spawn_greenlet(lambda: wait(which())) is loop

    async def which():
        return asyncio.get_running_loop()

    def function():
        outer = wait(which())
        assert asyncio.run(inner())
        return wait(which()) is outer

    assert in_thread(function)


# -- context variables -----------------------------------------------------------------


def test_context_variables_travel_to_the_loop_and_back(run, executor):
    async def coroutine():
        seen = var.get()
        var.set("coroutine")
        return seen

    def function():
        seen = [var.get()]
        var.set("thread")
        seen.append(wait(coroutine()))
        seen.append(var.get())
        var.set("end")
        return seen

    async def main():
        var.set("main")
        assert await executor.run(function) == ["main", "thread", "coroutine"]
        assert var.get() == "end"

    run(main())


def test_context_variables_travel_with_an_exception_too(run, executor):
    async def coroutine():
        var.set("coroutine")
        raise Failure

    def function():
        with pytest.raises(Failure):
            wait(coroutine())
        assert var.get() == "coroutine"
        var.set("thread")
        raise Failure

    async def main():
        with pytest.raises(Failure):
            await executor.run(function)
        assert var.get() == "thread"

    run(main())


def test_a_variable_may_be_set_to_none(run, executor):
    async def main():
        await executor.run(var.set, None)
        await executor.run(other.set, None)
        assert var.get() is None
        assert other.get() is None

    run(main())


def test_adopting_compares_no_values(run):
    class Incomparable:
        def __eq__(self, other):
            raise AssertionError("compared")

        __hash__ = None

    async def main():
        value = Incomparable()
        var.set(value)
        context = contextvars.copy_context()
        context.run(other.set, Incomparable())
        threads.adopt(context)
        assert var.get() is value
        assert isinstance(other.get(), Incomparable)

    run(main())


def test_adopting_leaves_out_what_it_is_told_to():
    def inner():
        context = contextvars.copy_context()
        context.run(var.set, "changed")
        threads.adopt(context, but=frozenset({var}))
        return var.get()

    assert contextvars.copy_context().run(inner) == "default"


# -- cancellation ----------------------------------------------------------------------


class Steps:
    """What a thread did, and ways to hold it."""

    def __init__(self):
        self.log = []
        self.parked = 0
        self.held = False
        self.release = threading.Event()

    def hold(self):
        self.held = True
        assert self.release.wait(DEADLINE)

    async def park(self):
        self.parked += 1
        await asyncio.sleep(3600)

    async def park_until_released(self):
        self.parked += 1
        await until(self.release.is_set)

    async def until_parked(self, times=1):
        await until(lambda: self.parked == times)


async def some_turns():
    for _ in range(10):
        await asyncio.sleep(0)


def start(executor, function, *args):
    return asyncio.create_task(executor.run(function, *args))


def test_a_cancellation_reaches_what_the_thread_waits_for(run, executor):
    steps = Steps()

    async def coroutine():
        steps.log.append("waits")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            steps.log.append("coroutine")
            raise

    def function():
        try:
            wait(coroutine())
        except asyncio.CancelledError:
            steps.log.append("thread")
            raise

    async def main():
        task = start(executor, function)
        await until(lambda: steps.log)
        task.cancel()
        await asyncio.wait([task], timeout=DEADLINE)
        assert task.cancelled()

    run(main())
    assert steps.log == ["waits", "coroutine", "thread"]


def test_a_cancelled_request_ends_only_after_its_thread(run, executor):
    steps = Steps()

    def function():
        try:
            wait(steps.park())
        finally:
            steps.log.append("cleaning")
            steps.hold()
            steps.log.append("ended")

    async def main():
        task = start(executor, function)
        await steps.until_parked()
        task.cancel()
        await until(lambda: steps.log)
        await some_turns()
        assert not task.done()
        steps.release.set()
        await asyncio.wait([task], timeout=DEADLINE)
        assert task.cancelled()
        assert steps.log == ["cleaning", "ended"]

    run(main())


def test_a_cancellation_is_delivered_once_so_that_cleanup_may_wait(run, executor):
    cleaned = []
    steps = Steps()

    def function():
        try:
            wait(steps.park())
        finally:
            cleaned.append(wait(give("first")))
            cleaned.append(wait(give("second")))

    async def main():
        task = start(executor, function)
        await steps.until_parked()
        task.cancel()
        await asyncio.wait([task], timeout=DEADLINE)
        assert task.cancelled()

    run(main())
    assert cleaned == ["first", "second"]


def test_a_thread_that_computes_is_cancelled_at_its_next_wait(run, executor):
    steps = Steps()

    def function():
        steps.log.append("computes")
        steps.hold()
        coroutine = give("never started")
        try:
            wait(coroutine)
        except asyncio.CancelledError:
            steps.log.append("cancelled")
            steps.log.append(wait(give("cleaned")))
            raise

    async def main():
        task = start(executor, function)
        await until(lambda: steps.log)
        task.cancel()
        await asyncio.sleep(0)
        steps.release.set()
        await asyncio.wait([task], timeout=DEADLINE)
        assert task.cancelled()

    run(main())
    assert steps.log == ["computes", "cancelled", "cleaned"]


def test_a_thread_may_swallow_a_cancellation(run, executor):
    steps = Steps()

    def function():
        try:
            wait(steps.park())
        except asyncio.CancelledError:
            return wait(give("swallowed"))

    async def main():
        task = start(executor, function)
        await steps.until_parked()
        task.cancel()
        return await task

    assert run(main()) == "swallowed"


def test_a_thread_that_never_waits_is_cancelled_when_it_has_ended(run, executor):
    steps = Steps()

    def function():
        steps.log.append("computes")
        steps.hold()
        steps.log.append("ended")
        return "lost"

    async def main():
        task = start(executor, function)
        await until(lambda: steps.log)
        task.cancel()
        await some_turns()
        assert not task.done()
        steps.release.set()
        await asyncio.wait([task], timeout=DEADLINE)
        assert task.cancelled()

    run(main())
    assert steps.log == ["computes", "ended"]


def test_each_of_two_cancellations_is_delivered(run, executor):
    steps = Steps()

    def function():
        for _ in range(2):
            try:
                wait(steps.park())
            except asyncio.CancelledError:
                steps.log.append("cancelled")
        return wait(give("ended"))

    async def main():
        task = start(executor, function)
        for count in range(2):
            await steps.until_parked(count + 1)
            task.cancel()
            await until(lambda count=count: len(steps.log) > count)
        return await task

    assert run(main()) == "ended"


@pytest.mark.parametrize("first", ["wait", "cancellation"])
def test_a_cancellation_before_the_awaitable_has_begun_closes_it(run, executor, first):
    # Otherwise Python warns that it was never awaited: an error here.
    steps = Steps()

    def function():
        steps.log.append("begun")
        steps.hold()
        coroutine = give("never started")
        with pytest.raises(asyncio.CancelledError):
            wait(coroutine)
        return wait(give("went on"))

    async def main():
        asked = threading.Event()
        loop = asyncio.get_running_loop()
        call_soon_threadsafe = loop.call_soon_threadsafe

        def tell(*args):
            asked.set()
            return call_soon_threadsafe(*args)

        task = start(executor, function)
        await until(lambda: steps.log)
        loop.call_soon_threadsafe = tell
        # The loop is held until the thread has asked it for something.
        if first == "cancellation":
            task.cancel()
        steps.release.set()
        assert asked.wait(DEADLINE)
        if first == "wait":
            task.cancel()
        return await task

    assert run(main()) == "went on"


def test_a_cancellation_after_the_end_of_a_wait_is_delivered_at_the_next(run, executor):
    steps = Steps()

    def function(future):
        steps.log.append(threads.current_scope())
        value = wait(future)
        with pytest.raises(asyncio.CancelledError):
            wait(give("never"))
        return value

    async def main():
        future = asyncio.get_running_loop().create_future()
        task = start(executor, function, future)
        await until(lambda: steps.log)
        # The thread is busy while what it waits for is done already.
        steps.log[0].call_in_thread(steps.hold)
        await until(lambda: steps.held)
        await until(lambda: asyncio.all_tasks() - {task, asyncio.current_task()})
        future.set_result("value")
        await until(lambda: not asyncio.all_tasks() - {task, asyncio.current_task()})
        task.cancel()
        await some_turns()
        steps.release.set()
        return await task

    assert run(main()) == "value"


def test_a_timeout_around_a_thread_that_waits(run, executor):
    def function():
        wait(asyncio.sleep(60))

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await executor.run(function)
        assert asyncio.current_task().cancelling() == 0
        return await executor.run(wait, give("next"))

    assert run(main()) == "next"


def test_a_cancellation_and_the_end_of_a_wait_may_cross(run, executor):
    # Whichever comes first, nothing hangs and the count is right.
    def function():
        for _ in range(3):
            try:
                wait(asyncio.sleep(0))
            except asyncio.CancelledError:
                return "swallowed"
        return "not told"

    async def main():
        outcomes = set()
        for turns in range(200):
            task = start(executor, function)
            for _ in range(turns % 20):
                await asyncio.sleep(0)
            task.cancel()
            async with asyncio.timeout(DEADLINE):
                [outcome] = await asyncio.gather(task, return_exceptions=True)
            outcomes.add(outcome if isinstance(outcome, str) else type(outcome))
        return outcomes

    assert run(main()) <= {"swallowed", "not told", asyncio.CancelledError}


def test_a_cancellation_in_the_moment_of_a_timeout_is_not_lost(run, executor):
    steps = Steps()
    seen = []

    async def limited():
        try:
            async with asyncio.timeout(0):
                try:
                    await asyncio.sleep(3600)
                finally:
                    # The timeout's cancellation is delivered, and not taken back.
                    await steps.park_until_released()
        except TimeoutError:
            seen.append("timeout")

    def function():
        wait(limited())
        try:
            wait(give("never"))
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def main():
        task = start(executor, function)
        await steps.until_parked()
        task.cancel()
        await some_turns()
        steps.release.set()
        await asyncio.wait([task], timeout=DEADLINE)
        assert task.cancelled()

    run(main())
    assert seen == ["timeout", "cancelled"]


# -- the greenlet that SQLAlchemy waits in ---------------------------------------------


def switched(awaitable):
    """Wait as SQLAlchemy does: by its marker, and by a switch to the parent."""
    return await_only(awaitable)


def in_script(function):
    return threads.provide(function)


@pytest.fixture(params=["script", "executor"])
def provided(request, in_thread):
    """Call a function in a thread without a loop, where SQLAlchemy may wait."""
    return in_script if request.param == "script" else in_thread


def test_what_sqlalchemy_switches_is_waited_for(provided):
    def function():
        with pytest.raises(Failure):
            switched(fail())
        return switched(give(1)), wait(give(2)), switched(give(3))

    assert provided(function) == (1, 2, 3)


def test_the_greenlet_of_a_thread_is_no_bridge(provided):
    def function():
        assert not bridge.in_bridge()
        assert isinstance(getcurrent(), greenlets.ThreadGreenlet)
        return switched(in_a_bridge())

    async def in_a_bridge():
        return bridge.in_bridge()

    # The awaitable runs on the loop, where there is one.
    assert provided(function) is True


def test_synchronous_code_below_waits_in_both_ways(provided):
    def helper(depth):
        # What it switches on a loop is awaited outside of every greenlet.
        one = switched if depth == 3 else wait
        return one(coroutine(depth - 1)) if depth else switched(give("bottom"))

    async def coroutine(depth):
        await asyncio.sleep(0)
        return helper(depth)

    assert provided(lambda: helper(3)) == "bottom"


def test_context_variables_pass_the_greenlet_both_ways(provided):
    async def change():
        await asyncio.sleep(0)
        seen = other.get()
        other.set("in the coroutine")
        return seen

    def function():
        other.set("in the thread")
        return switched(change()), other.get()

    context = contextvars.copy_context()
    assert context.run(provided, function) == ("in the thread", "in the coroutine")
    if provided is in_script:
        assert context[other] == "in the coroutine"


def test_a_thread_that_has_no_context_yet_shares_the_one_it_gets():
    seen = []

    def target():
        threads.provide(other.set, "in the greenlet")
        seen.append(other.get())

    thread = threading.Thread(target=target)
    thread.start()
    thread.join(DEADLINE)
    assert seen == ["in the greenlet"]


def test_an_exception_that_is_handled_is_found_in_the_greenlet():
    def again():
        raise

    def handle():
        try:
            raise Failure
        except Failure:
            threads.provide(again)

    with pytest.raises(Failure) as raised:
        handle()
    assert raised.value.__context__ is None


def test_what_is_provided_in_a_bridge_is_called_as_it_is(run):
    async def main():
        def function():
            return threads.provide(getcurrent) is getcurrent()

        return await spawn_greenlet(function)

    assert run(main())


def test_a_greenlet_within_another_gives_its_awaitables_to_its_own_context():
    def inner():
        other.set("inner")
        return switched(read())

    async def read():
        return other.get()

    def outer():
        other.set("outer")
        context = contextvars.copy_context()
        return context.run(threads.provide, inner), other.get()

    assert threads.provide(outer) == ("inner", "outer")


def test_on_a_loop_without_a_bridge_sqlalchemy_is_refused(run):
    async def main():
        def function():
            with pytest.raises(ScopeError, match="spawn_greenlet"):
                switched(give(1))
            return "went on"

        return threads.provide(function)

    assert run(main()) == "went on"


def test_a_greenlet_of_somebody_else_between_the_bridge_and_a_thread(run):
    async def main():
        def function():
            foreign = greenlet(lambda: threads.provide(switched, give("value")))
            return foreign.switch()

        return await spawn_greenlet(function)

    assert run(main()) == "value"


def test_a_cancellation_reaches_what_sqlalchemy_waits_for(run, executor):
    reached = []

    async def never():
        reached.append("waits")
        await asyncio.get_running_loop().create_future()

    def function():
        try:
            switched(never())
        finally:
            reached.append(switched(give("cleaned up")))

    async def main():
        task = asyncio.create_task(executor.run(function))
        await until(lambda: reached)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await executor.aclose()

    run(main())
    assert reached == ["waits", "cleaned up"]


def test_greenlets_of_a_thread_are_used_again():
    first = threads.provide(getcurrent)
    assert threads.provide(getcurrent) is first
    with pytest.raises(Failure):
        threads.provide(wait, fail())
    assert threads.provide(getcurrent) is first


def test_a_thread_keeps_few_greenlets():
    def nest(depth):
        return threads.provide(nest, depth - 1) if depth else "bottom"

    assert nest(50) == "bottom"
    assert len(greenlets._pool.idle_in_thread) == greenlets.MAX_IDLE_IN_THREAD
    assert threads.provide(switched, give("value")) == "value"


def test_an_idle_greenlet_keeps_nothing():
    class Thing:
        pass

    thing = Thing()
    seen = weakref.ref(thing)

    async def same(thing):
        return thing

    def function(thing):
        return switched(same(thing))

    assert threads.provide(function, thing) is thing
    del thing
    assert seen() is None


def test_a_greenlet_that_is_ended_is_not_used_again(provided):
    def end():
        raise GreenletExit

    with pytest.raises(GreenletExit):
        threads.provide(end)
    assert threads.provide(divmod, 7, 2) == (3, 1)


def test_a_greenlet_killed_while_it_waits_tells_its_caller():
    def function():
        victim = getcurrent()

        async def kill():
            # In the thread that it belongs to, which is blocked and takes calls.
            threads.offer(lambda: victim.throw(GreenletExit))
            await until(lambda: victim.dead)

        switched(kill())

    with pytest.raises(GreenletExit):
        threads.provide(function)
    assert threads.provide(divmod, 7, 2) == (3, 1)


# -- cancellations that are kept -------------------------------------------------------


def test_a_scope_keeps_cancellations_for_the_end_of_the_block(run, executor):
    reached = []
    began = threading.Event()
    cancelled = threading.Event()

    def function():
        with pytest.raises(asyncio.CancelledError):
            block()
        reached.append(wait(give("delivered once")))

    def block():
        with threads.current_scope().defers():
            began.set()
            assert cancelled.wait(DEADLINE)
            reached.append(wait(give("waits")))
        reached.append("never")

    async def main():
        task = asyncio.create_task(executor.run(function))
        await until(began.is_set)
        task.cancel()
        await asyncio.sleep(0)
        cancelled.set()
        await asyncio.wait([task])
        await executor.aclose()

    run(main())
    assert reached == ["waits", "delivered once"]


# -- the loop goes away ----------------------------------------------------------------


def test_a_wait_for_a_closed_loop_is_refused():
    loop = asyncio.new_event_loop()
    loop.close()
    with threads.ThreadScope(loop) as scope:
        coroutine = give("never")
        with pytest.raises(ScopeError, match="closed"):
            scope.wait(coroutine)
    with pytest.raises(RuntimeError, match="cannot reuse"):
        coroutine.send(None)


@pytest.mark.parametrize("begun", [True, False])
def test_a_thread_does_not_hang_when_its_loop_is_closed(monkeypatch, caplog, begun):
    monkeypatch.setattr(threads, "LOOK_INTERVAL", 0.01)
    loop = asyncio.new_event_loop()
    outcome = []
    started = threading.Event()

    async def never_ends():
        started.set()
        await asyncio.sleep(3600)

    def function():
        with threads.ThreadScope(loop) as scope:
            try:
                scope.wait(never_ends())
            except BaseException as error:
                outcome.append(error)

    thread = threading.Thread(target=function)
    if begun:
        serving = threading.Thread(target=loop.run_forever)
        serving.start()
        thread.start()
        assert started.wait(DEADLINE)
        loop.call_soon_threadsafe(loop.stop)
        serving.join(DEADLINE)
    else:
        scheduled = threading.Event()
        inner = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *args: (inner(*args), scheduled.set())
        thread.start()
        assert scheduled.wait(DEADLINE)
    tasks = asyncio.all_tasks(loop)
    loop.close()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert [type(each) for each in outcome] == [ScopeError]
    for task in tasks:
        # Nobody else ends a Task whose loop was closed before it.
        task._log_destroy_pending = False
        task.get_coro().close()


def test_a_loop_that_ends_in_order_takes_its_threads_along(executor):
    # asyncio.run cancels what still runs, and waits for it.
    ended = []
    steps = Steps()

    def function():
        try:
            wait(cleans_up())
        finally:
            # The Task that it waits for is cancelled, and its caller: once.
            ended.append(wait(give("first")))
            ended.append(wait(give("second")))

    async def cleans_up():
        try:
            await steps.park()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            ended.append("coroutine")

    async def main():
        task = start(executor, function)
        await steps.until_parked()
        return task

    # In which order asyncio cancels the two is up to a set.
    for _ in range(20):
        steps.parked = 0
        ended.clear()
        assert asyncio.run(main()).cancelled()
        assert ended == ["coroutine", "first", "second"]


def test_a_task_factory_that_fails_is_told_to_the_thread(run, executor):
    def function():
        coroutine = give("never")
        with pytest.raises(Failure):
            wait(coroutine)
        coroutine.close()
        return "told"

    async def main():
        loop = asyncio.get_running_loop()
        call = asyncio.create_task(executor.run(function))

        def factory(loop, coroutine, **kwargs):
            raise Failure

        loop.set_task_factory(factory)
        try:
            return await call
        finally:
            loop.set_task_factory(None)

    assert run(main()) == "told"


# -- threads of the application --------------------------------------------------------


@pytest.fixture
def serving():
    """Name the running loop the one that serves, as a server does."""
    yield lambda: background.serve_on(asyncio.get_running_loop())
    background.serve_on(None)


async def which():
    await asyncio.sleep(0)
    return asyncio.get_running_loop()


def test_asyncios_own_threads_wait_for_the_loop_that_serves(run, serving):
    async def main():
        serving()
        found = await asyncio.to_thread(wait, which())
        assert found is asyncio.get_running_loop()

    run(main())


def test_plain_threads_wait_for_the_loop_that_serves(run, serving):
    async def main():
        serving()
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        found = []

        def function():
            # Bound to the loop that serves: it would fail on another one.
            wait(event.wait())
            found.append(wait(which()))

        plain = [threading.Thread(target=function) for _ in range(5)]
        for thread in plain:
            thread.start()
        loop.call_later(0.01, event.set)
        await until(lambda: len(found) == 5)
        for thread in plain:
            thread.join()
        assert set(found) == {loop}

    run(main())


def test_a_thread_waits_elsewhere_once_the_loop_has_ended(run, serving):
    async def main():
        serving()
        return asyncio.get_running_loop()

    ended = run(main())
    found = wait(which())
    assert found is not ended
    assert found is background.background_loop().loop


# -- cycles and leaks ------------------------------------------------------------------


def test_a_failure_makes_no_reference_cycle(run, executor):
    failures = []

    def function():
        try:
            wait(fail())
        except Failure as error:
            failures.append(weakref.ref(error))

    def raise_it():
        raise Failure

    async def main():
        await executor.run(function)
        try:
            await executor.run(raise_it)
        except Failure as error:
            failures.append(weakref.ref(error))
        await asyncio.sleep(0)
        # A thread that is idle has let go of its last call.
        await executor.aclose()

    gc.collect()
    gc.disable()
    try:
        run(main())
        assert [each() for each in failures] == [None, None]
    finally:
        gc.enable()


def test_two_thousand_jobs_leave_nothing_behind(run, executor):
    async def never():
        # A sleep leaves its timer with the loop for a while.
        await asyncio.get_running_loop().create_future()

    def function(number):
        if number % 10 == 0:
            wait(fail())
        if number % 20 == 1:
            wait(never())
        return wait(give(number))

    async def one(number):
        task = start(executor, function, number)
        if number % 20 == 1:
            asyncio.get_running_loop().call_later(0.002, task.cancel)
        [result] = await asyncio.gather(task, return_exceptions=True)
        return type(result)

    async def many(count):
        kinds = []
        for begin in range(0, count, 20):
            batch = (one(number) for number in range(begin, begin + 20))
            kinds += await asyncio.gather(*batch)
        return kinds.count(Failure), kinds.count(asyncio.CancelledError)

    async def main():
        await many(100)
        gc.collect()
        before = len(gc.get_objects())
        assert await many(2_000) == (200, 100)
        gc.collect()
        return len(gc.get_objects()) - before

    assert run(main()) < 200


def test_a_cancellation_during_a_timeout_is_delivered_after_it(
    run, executor, monkeypatch
):
    monkeypatch.setattr(threads, "LOOK_INTERVAL", 0.01)

    async def coroutine(leaving, leave):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                try:
                    await asyncio.sleep(DEADLINE)
                finally:
                    leaving.set()
                    await leave.wait()
        await asyncio.sleep(DEADLINE)

    async def main():
        leaving, leave = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(
            executor.run(lambda: wait(coroutine(leaving, leave)))
        )
        await leaving.wait()
        task.cancel()
        await asyncio.sleep(0.05)
        leave.set()
        # A timeout around it would cancel it a second time.
        done, _ = await asyncio.wait({task}, timeout=DEADLINE / 2)
        assert done
        assert task.cancelled()

    run(main())

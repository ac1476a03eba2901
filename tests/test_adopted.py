"""Greenlets that a server has made and switches itself: a small such server."""

import asyncio
import contextvars
import gc
import threading
import weakref
from functools import partial
from types import SimpleNamespace

import pytest
from greenlet import getcurrent, greenlet

import aioext
from aioext import adopted, bridge, greenlets
from aioext.adopted import Adoption

variable = contextvars.ContextVar("variable", default=None)


class Server:
    """Runs functions in greenlets of its own, which wait for it as well.

    To be used in a coroutine: the greenlet of that is the hub.
    """

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.hub = getcurrent()
        self.adoption = Adoption(lambda each: hasattr(each, "request"), self.serve)

    def serve(self, job, policy, environ, router):
        return policy(environ, router), job

    def start(self, function):
        """Call ``function`` in a home; gives a Future of what it gives."""
        future = self.loop.create_future()

        def run():
            try:
                value = function()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(value)

        home = greenlet(run)
        home.request = object()
        self.loop.call_soon(home.switch)
        return future

    def wait(self, turns=1):
        """Wait as the server does for a socket: in the home, for the hub."""
        home = getcurrent()
        for _ in range(turns):
            self.loop.call_soon(home.switch)
            self.hub.switch()


@pytest.fixture
def serve(run):
    """Call a function, with the server, in a home; gives what it gives."""

    def serve(function, **options):
        async def main():
            server = Server()
            try:
                return await server.start(lambda: function(server))
            finally:
                server.adoption.end()

        return run(main(), **options)

    return serve


async def turn(value=None):
    await asyncio.sleep(0)
    return value


def test_a_home_waits_in_one_task_and_in_its_own_context(serve):
    def application(server):
        home = getcurrent()
        variable.set("mine")

        async def look():
            found = []
            for _ in range(3):
                await asyncio.sleep(0)
                found.append((asyncio.current_task(), getcurrent(), variable.get()))
            variable.set("theirs")
            return found

        found = aioext.wait(look()) + aioext.wait(look())
        assert len({task for task, _, _ in found}) == 1
        assert {place for _, place, _ in found} == {home}
        assert [value for _, _, value in found] == ["mine"] * 3 + ["theirs"] * 3
        return variable.get()

    assert serve(application) == "theirs"
    assert variable.get() is None


def test_the_server_waits_between_and_inside_of_waits(serve):
    def application(server):
        async def mixed():
            tasks = [asyncio.current_task()]
            for _ in range(3):
                server.wait(2)
                # Nobody can tell when it comes back; the next wait is inside again.
                await asyncio.sleep(0)
                tasks.append(asyncio.current_task())
            async with asyncio.timeout(10):
                await asyncio.sleep(0)
            return tasks

        server.wait()
        first = aioext.wait(mixed())
        server.wait()
        assert len(set(first + aioext.wait(mixed()))) == 1

    serve(application)


def test_what_another_task_awaits_as_well_is_awaited_from_outside(serve):
    def application(server):
        async def both():
            shared = server.loop.create_future()

            async def other():
                return await shared

            server.wait()
            task = asyncio.ensure_future(other())
            server.loop.call_later(0.01, shared.set_result, 7)
            # The other one begins to await it before the driver does.
            return await shared, await task

        return aioext.wait(both())

    assert serve(application) == (7, 7)


def test_errors_pass_whoever_has_switched_last(serve):
    def application(server):
        async def fail(future):
            server.wait()
            await future

        for _ in range(2):
            future = server.loop.create_future()
            server.loop.call_soon(future.set_exception, LookupError("lost"))
            with pytest.raises(LookupError):
                aioext.wait(fail(future))
        with pytest.raises(ZeroDivisionError):
            aioext.wait(asyncio.to_thread(lambda: 1 / 0))
        return aioext.wait(turn(5))

    assert serve(application) == 5


def test_waits_nest_and_functions_of_coroutines_run_in_the_home(serve):
    def application(server):
        home = getcurrent()

        def deeper(depth):
            assert getcurrent() is home
            server.wait()
            return aioext.wait(step(depth)) if depth else 0

        async def step(depth):
            await asyncio.sleep(0)
            return 1 + await aioext.spawn_greenlet(deeper, depth - 1)

        return deeper(5)

    assert serve(application) == 5


def test_a_stop_iteration_does_not_end_the_coroutine(serve):
    def application(server):
        async def careless():
            await aioext.spawn_greenlet(next, iter(()))

        with pytest.raises(RuntimeError, match="StopIteration"):
            aioext.wait(careless())

    serve(application)


def test_sqlalchemy_waits_in_the_home(serve):
    def application(server):
        home = getcurrent()
        assert bridge.in_bridge()

        async def where():
            await asyncio.sleep(0)
            return getcurrent()

        # What SQLAlchemy looks for, and does.
        assert home.__sqlalchemy_greenlet_provider__
        assert home.parent
        assert home.parent.switch(where()) is home
        assert bridge.shielded(lambda: aioext.wait(turn(3))) == 3

    serve(application)


def test_a_greenlet_of_another_library_in_a_home_is_resumed_itself(serve):
    def application(server):
        def inner():
            first = aioext.wait(turn("inner"))
            return first, getcurrent() is child

        child = greenlet(inner)
        return child.switch()

    assert serve(application) == ("inner", True)


def test_a_home_that_ends_goes_to_the_hub_and_its_task_ends(run):
    async def main():
        server = Server()
        seen = SimpleNamespace(ended=0)

        def application(outside):
            aioext.wait(turn())
            seen.job = weakref.ref(greenlets.enclosing_job())
            greenlets.enclosing_job().ended = lambda: setattr(seen, "ended", 1)
            seen.task = asyncio.current_task()
            if outside:
                server.wait()
            return "done"

        gc.disable()
        try:
            for outside in (False, True):
                assert await server.start(partial(application, outside)) == "done"
                await seen.task
                del seen.task
                await turn()
                assert seen.job() is None
                assert seen.ended == 1
                seen.ended = 0
        finally:
            gc.enable()
            server.adoption.end()

    run(main())


# Cancellation


def test_a_cancellation_is_raised_where_the_home_waits(serve):
    def application(server):
        job = greenlets.enclosing_job()
        server.loop.call_soon(lambda: server.loop.call_soon(job.cancel))
        cleaned = []

        async def endless():
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                cleaned.append(asyncio.current_task().cancelling())

        with pytest.raises(asyncio.CancelledError):
            aioext.wait(endless())
        return cleaned, aioext.wait(turn(1))

    assert serve(application) == ([1], 1)


def test_the_first_wait_may_be_in_a_context_that_is_entered(serve):
    async def late():
        await asyncio.sleep(0)
        return variable.set(5)

    def application(server):
        context = contextvars.copy_context()
        context.run(aioext.wait, late())
        aioext.wait(turn())
        return context[variable], variable.get()

    assert serve(application) == (5, None)


@pytest.mark.parametrize("inside", [True, False], ids=["in a coroutine", "between"])
def test_a_cancellation_while_the_server_waits_is_raised_later(serve, inside):
    def application(server):
        job = greenlets.enclosing_job()
        aioext.wait(turn())
        never = server.loop.create_future()

        async def late():
            if inside:
                server.loop.call_soon(job.cancel)
                server.wait(3)
            await never

        if not inside:
            server.loop.call_soon(job.cancel)
            server.wait(3)
        with pytest.raises(asyncio.CancelledError):
            aioext.wait(late())
        assert never.cancelled()
        return aioext.wait(turn(1))

    assert serve(application) == 1


def test_a_task_factory_that_fails_is_told_and_nothing_is_left(serve):
    def application(server):
        def refuse(loop, coroutine, **options):
            raise LookupError("no tasks today")

        server.loop.set_task_factory(refuse)
        with pytest.raises(LookupError):
            aioext.wait(turn())
        server.loop.set_task_factory(None)
        return aioext.wait(turn(2))

    assert serve(application) == 2


if hasattr(asyncio, "eager_task_factory"):

    def test_tasks_may_be_eager(serve):
        def application(server):
            server.loop.set_task_factory(asyncio.eager_task_factory)
            try:
                assert aioext.wait(turn(2)) == 2
                # Its first step runs here, and belongs to another Task.
                task = server.loop.create_task(
                    aioext.spawn_greenlet(aioext.wait, turn(3))
                )
                return aioext.wait(task)
            finally:
                server.loop.set_task_factory(None)

        assert serve(application) == 3


# Calls from elsewhere


def in_thread(function):
    async def wait():
        return await asyncio.to_thread(function)

    return aioext.wait(wait())


def caller(server):
    """What a thread calls to have the home, in which this is called, call something."""
    job, home = greenlets.enclosing_job(), getcurrent()

    async def call(function):
        return await job.call(function)

    def call_home(function):
        def checked():
            assert getcurrent() is home
            return function()

        return asyncio.run_coroutine_threadsafe(call(checked), server.loop).result(30)

    return call_home


def test_a_home_that_waits_calls_for_a_thread(serve):
    def application(server):
        call = caller(server)

        def read():
            server.wait(3)
            return asyncio.current_task()

        def fail():
            raise LookupError("lost")

        def thread():
            assert call(read) is None
            with pytest.raises(LookupError):
                call(fail)
            return [call(lambda each=each: each) for each in range(3)]

        task = aioext.wait(current())
        found = in_thread(thread)
        assert aioext.wait(current()) is task
        return found

    async def current():
        return asyncio.current_task()

    assert serve(application) == [0, 1, 2]


def test_what_a_home_waits_for_may_be_done_before_the_call_is(serve):
    def application(server):
        job = greenlets.enclosing_job()
        waited = server.loop.create_future()
        ended = []

        def long():
            waited.set_result("done")
            server.wait(5)
            ended.append(True)

        server.loop.call_later(0.01, job.call, long)
        assert aioext.wait(waited) == "done"
        return ended

    assert serve(application) == [True]


def test_a_call_comes_when_the_server_has_waited(serve):
    def application(server):
        job = greenlets.enclosing_job()
        calls = [job.call(lambda: "called")]
        server.wait(3)
        assert not calls[0].done()
        return aioext.wait(asyncio.gather(*calls))

    assert serve(application) == ["called"]


def test_calls_that_come_too_late_are_cancelled(run):
    async def main():
        server = Server()
        jobs, calls = [], []

        def application():
            jobs.append(greenlets.enclosing_job())
            calls.append(jobs[0].call(lambda: None))

        await server.start(application)
        await turn()
        calls.append(jobs[0].call(lambda: None))
        server.adoption.end()
        await asyncio.wait(calls)
        return [call.cancelled() for call in calls]

    assert run(main()) == [True, True]


# The server's part


def test_the_server_serves_policies_in_its_homes_alone(run):
    async def main():
        server = Server()
        policy = lambda environ, router: (environ, router)  # noqa: E731
        try:
            assert adopted.serve(policy, 1, 2) == (1, 2)
            served, job = await server.start(lambda: adopted.serve(policy, 1, 2))
            assert served == (1, 2)
            assert isinstance(job, adopted.AdoptedJob)
        finally:
            server.adoption.end()
        assert adopted.serve(policy, 1, 2) == (1, 2)

    run(main())


def test_nothing_is_adopted_in_other_threads_and_greenlets(run):
    async def main():
        server = Server()
        try:
            assert not bridge.in_bridge()
            assert not await asyncio.to_thread(bridge.in_bridge)
            assert not greenlet(bridge.in_bridge).switch()
            with pytest.raises(aioext.ScopeError):
                aioext.wait(turn())
        finally:
            server.adoption.end()

    run(main())
    assert threading.current_thread() is threading.main_thread()

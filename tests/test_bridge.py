"""Waiting anywhere: what ``wait`` does where, and what it refuses."""

import asyncio
import contextvars
import gc
import linecache
import logging
import signal
import sys
import threading
import warnings

import pytest
from greenlet import getcurrent
from sqlalchemy import ForeignKey, event, select, text
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import StaticPool
from sqlalchemy.util import await_only

from aioext import ScopeError, greenlets, spawn_greenlet, synchronize, wait
from aioext import run as run_here
from aioext.background import background_loop
from aioext.bridge import current_loop, in_bridge, shielded
from aioext.executor import Executor


async def give(value):
    await asyncio.sleep(0)
    return value


@pytest.fixture
def no_background_loop(monkeypatch):
    """Fail, rather than start a thread, where nobody could wait."""

    def find_loop():
        raise AssertionError("the background loop was asked for")

    monkeypatch.setattr("aioext.background.find_loop", find_loop)


# -- refused rather than hung ----------------------------------------------------------


@pytest.mark.usefixtures("no_background_loop")
def test_a_wait_on_a_loop_without_a_bridge_says_where_and_what_to_write(run):
    async def load():
        raise AssertionError("never started")

    def helper():
        wait(load())

    async def main():
        with pytest.raises(ScopeError) as raised:
            helper()
        return str(raised.value)

    message = run(main())
    line = helper.__code__.co_firstlineno + 1
    assert linecache.getline(__file__, line).strip() == "wait(load())"
    assert f"{__file__}, line {line}." in message
    assert "load() was to be waited for" in message
    assert "await spawn_greenlet(function)" in message
    assert "load() " in message.split("instead:")[1]
    assert "errors.html#scope-error" in message


@pytest.mark.usefixtures("no_background_loop")
def test_a_coroutine_that_is_refused_is_closed(run):
    # Without that, Python would warn that it was never awaited, and a warning
    # is an error here.
    async def main():
        coroutine = give(1)
        with pytest.raises(ScopeError):
            wait(coroutine)
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await coroutine

    run(main())


@pytest.mark.usefixtures("no_background_loop")
def test_a_task_or_a_future_that_is_refused_is_left_alone(run):
    async def main():
        task = asyncio.create_task(give("task"))
        future = asyncio.get_running_loop().create_future()
        for awaitable, name in ((task, "task"), (future, "future")):
            with pytest.raises(ScopeError, match=rf"await {name} "):
                wait(awaitable)
        future.set_result("future")
        return await task, await future

    assert run(main()) == ("task", "future")


@pytest.mark.usefixtures("no_background_loop")
@pytest.mark.parametrize("made_in", ["greenlet", "coroutine"])
def test_a_wait_in_a_task_made_by_synchronous_code_is_refused(run, made_in):
    async def waits_itself():
        await asyncio.sleep(0)
        wait(give("never"))

    async def make():
        return asyncio.create_task(waits_itself())

    def function():
        if made_in == "greenlet":
            task = asyncio.create_task(waits_itself())
        else:
            task = wait(make())
        with pytest.raises(ScopeError, match="spawn_greenlet"):
            wait(task)
        return wait(give("went on"))

    async def main():
        async with asyncio.timeout(10):
            return await spawn_greenlet(function)

    assert run(main()) == "went on"


@pytest.mark.usefixtures("no_background_loop")
def test_a_wait_in_a_callback_of_the_loop_is_refused(run):
    async def main():
        loop = asyncio.get_running_loop()
        outcome = loop.create_future()

        def callback():
            try:
                outcome.set_result(wait(give("never")))
            except BaseException as error:
                outcome.set_exception(error)

        def function():
            # Scheduled by a greenlet that may wait, run by the loop.
            loop.call_soon(callback)
            with pytest.raises(ScopeError):
                wait(outcome)

        await spawn_greenlet(function)

    run(main())


@pytest.mark.usefixtures("no_background_loop")
def test_a_wait_in_the_finalizer_of_an_async_generator_is_refused(run, caplog):
    # asyncio closes it in a Task of its own.
    refused = []

    async def chunks():
        try:
            yield 1
            yield 2
        finally:
            try:
                wait(give("never"))
            except ScopeError as error:
                refused.append(error)

    async def first():
        return await anext(chunks())

    async def main():
        assert await spawn_greenlet(wait, first()) == 1
        gc.collect()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return len(refused)

    assert run(main()) == 1
    assert not caplog.records


def test_a_bridge_serves_the_finalizer_that_is_awaited_in_it(run):
    left = []

    async def chunks():
        try:
            yield 1
        finally:
            left.append(wait(give("closed")))

    def function():
        iterator = chunks()
        chunk = wait(anext(iterator))
        wait(iterator.aclose())
        return chunk

    async def main():
        return await spawn_greenlet(function)

    assert run(main()) == 1
    assert left == ["closed"]


@pytest.mark.parametrize("where", ["bridge", "thread", "loop"])
def test_what_cannot_be_awaited_is_refused_with_the_likely_mistake(run, where):
    def function():
        with pytest.raises(TypeError, match=r"wait\(function\(\)\)"):
            wait(give)
        return "told"

    async def main():
        if where == "bridge":
            return await spawn_greenlet(function)
        if where == "thread":
            return await Executor(1).run(function)
        return function()

    assert run(main()) == "told"


# -- odd places that wait --------------------------------------------------------------


def test_a_destructor_may_wait_in_a_bridge(run):
    closed = []

    class Connection:
        def __del__(self):
            closed.append(wait(give("closed")))

    def function():
        connection = Connection()
        del connection
        assert closed == ["closed"]
        return wait(give("went on"))

    async def main():
        return await spawn_greenlet(function)

    assert run(main()) == "went on"


def test_a_signal_handler_may_wait_in_a_bridge(run):
    handled = []

    def handler(number, frame):
        handled.append(wait(give("handled")))

    def function():
        signal.raise_signal(signal.SIGUSR1)
        assert handled == ["handled"]
        return wait(give("went on"))

    async def main():
        return await spawn_greenlet(function)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        assert run(main()) == "went on"
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("no_background_loop")
def test_a_signal_handler_on_the_loop_is_refused(run):
    def handler(number, frame):
        with pytest.raises(ScopeError):
            wait(give("never"))
        handled.append(number)

    handled = []

    async def main():
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        run(main())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert handled == [signal.SIGUSR1]


def test_a_logging_handler_may_wait(run):
    sent = []

    class Handler(logging.Handler):
        def emit(self, record):
            sent.append(wait(give(record.getMessage())))

    log = logging.getLogger("test_bridge")
    handler = Handler()

    def function(number):
        try:
            raise KeyError(number)
        except KeyError:
            log.exception("failed %s", number)
        return number

    async def main():
        return await asyncio.gather(*(spawn_greenlet(function, n) for n in range(5)))

    log.addHandler(handler)
    log.propagate = False
    try:
        # Handlers have a lock: an RLock, which greenlets of a thread share.
        assert run(main()) == list(range(5))
    finally:
        log.removeHandler(handler)
        log.propagate = True
    assert sorted(sent) == [f"failed {number}" for number in range(5)]


# -- in_bridge -------------------------------------------------------------------------


def test_in_bridge_tells_whether_the_task_can_be_suspended(run):
    async def in_coroutine():
        return in_bridge()

    def function():
        async def in_task():
            return in_bridge()

        return in_bridge(), wait(in_coroutine()), wait(asyncio.create_task(in_task()))

    async def main():
        assert not in_bridge()
        assert await spawn_greenlet(function) == (True, True, False)
        assert await Executor(1).run(in_bridge) is False

    assert not in_bridge()
    run(main())


# -- locks -----------------------------------------------------------------------------


def test_an_asyncio_lock_held_across_a_wait_excludes_and_the_loop_goes_on(run):
    inside = []
    most = []

    def function(lock):
        wait(lock.acquire())
        try:
            inside.append(1)
            most.append(len(inside))
            wait(asyncio.sleep(0))
            wait(asyncio.sleep(0))
            inside.pop()
        finally:
            lock.release()

    async def main():
        lock = asyncio.Lock()
        async with asyncio.timeout(10):
            await asyncio.gather(*(spawn_greenlet(function, lock) for _ in range(20)))

    run(main())
    assert most == [1] * 20


def test_an_rlock_does_not_exclude_greenlets_of_one_thread(run):
    # Its owner is the thread: documented, for it surprises.
    lock = threading.RLock()
    inside = []
    most = []

    def function():
        with lock:
            inside.append(1)
            most.append(len(inside))
            wait(asyncio.sleep(0))
            inside.pop()

    async def main():
        await asyncio.gather(*(spawn_greenlet(function) for _ in range(5)))

    run(main())
    assert max(most) == 5


def test_a_lock_held_across_a_wait_blocks_whoever_asks_for_it_on_the_loop(run):
    # With a timeout, for without one the loop would never go on: documented.
    lock = threading.Lock()
    got = []

    def holder(released):
        with lock:
            wait(released.wait())

    def second():
        got.append(lock.acquire(timeout=0.01))

    async def main():
        released = asyncio.Event()
        holding = asyncio.create_task(spawn_greenlet(holder, released))
        await asyncio.sleep(0)
        await spawn_greenlet(second)
        released.set()
        await holding
        await spawn_greenlet(second)

    run(main())
    assert got == [False, True]
    lock.release()


def test_thread_locals_are_shared_by_greenlets_of_one_thread(run):
    # Documented; Pyramid's own are isolated, see aioext.threadlocal.
    local = threading.local()

    def function(value):
        local.value = value
        wait(asyncio.sleep(0))
        return local.value

    async def main():
        return await asyncio.gather(
            spawn_greenlet(function, 1), spawn_greenlet(function, 2)
        )

    assert run(main()) == [2, 2]


def test_running_a_second_loop_in_a_bridge_is_refused_by_asyncio(run):
    def function():
        coroutine = give(1)
        with pytest.raises(RuntimeError, match="running event loop"):
            asyncio.run(coroutine)
        coroutine.close()

    async def main():
        await spawn_greenlet(function)

    run(main())


# -- run, where no server runs ---------------------------------------------------------


def test_run_calls_a_function_that_waits():
    def script(first, *, second):
        assert not in_bridge()
        return wait(give(first)), wait(give(second))

    assert run_here(script, 1, second=2) == (1, 2)


def test_run_gives_the_value_of_a_coroutine_function():
    assert run_here(give, "value") == "value"


def test_run_has_sqlalchemy_wait_in_a_thread_without_a_loop():
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)

    def script():
        with Session(engine.sync_engine) as session:
            first = session.scalar(text("select 41"))
            return first + wait(give(1))

    try:
        assert run_here(script) == 42
    finally:
        run_here(engine.dispose)


def test_run_in_a_bridge_calls_the_function_as_it_is(run):
    async def main():
        def view():
            return getcurrent() is run_here(getcurrent), run_here(give, "value")

        return await spawn_greenlet(view)

    assert run(main()) == (True, "value")


@pytest.mark.usefixtures("no_background_loop")
def test_run_in_a_coroutine_is_refused_with_what_to_write(run):
    async def main():
        with pytest.raises(ScopeError) as raised:
            run_here(give, 1)
        return str(raised.value)

    message = run(main())
    assert "await give(...)" in message
    assert "await spawn_greenlet(give, ...)" in message
    assert "errors.html#scope-error" in message


def test_run_takes_a_function_and_no_coroutine():
    with pytest.raises(TypeError, match=r"errors\.html#run-a-function"):
        run_here(give(1))


def test_run_raises_what_the_function_raises():
    # A StopIteration passes as well: there is no coroutine around it.
    with pytest.raises(StopIteration):
        run_here(lambda: next(iter(())))


# -- current_loop ----------------------------------------------------------------------


def test_the_current_loop_is_the_one_a_wait_runs_on(run):
    async def running():
        return asyncio.get_running_loop()

    def here():
        return current_loop(), wait(running())

    async def main():
        executor = Executor(1)
        try:
            return [
                (current_loop(), asyncio.get_running_loop()),
                await spawn_greenlet(here),
                await executor.run(here),
            ]
        finally:
            await executor.aclose()

    pairs = run(main())
    assert len({id(loop) for pair in pairs for loop in pair}) == 1
    mine, used = here()
    assert mine is used is background_loop().loop


# -- shielded --------------------------------------------------------------------------


class Steps:
    """A function that waits until it is let go, and notes how far it came."""

    def __init__(self):
        self.reached = []
        self.began = asyncio.Event()
        self.released = asyncio.Event()

    async def _wait(self):
        self.began.set()
        await self.released.wait()

    def commit(self):
        self.reached.append("begun")
        wait(self._wait())
        self.reached.append("ended")
        return "committed"

    def request(self):
        shielded(self.commit)
        self.reached.append("after")

    async def cancel(self, task, times=1):
        """Cancel it in the middle of ``commit``, and let that go then."""
        await self.began.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        self.released.set()


PLACES = ["greenlet", "step", "thread", "sqlalchemy", "sqlalchemy in greenlet"]


@pytest.fixture(params=PLACES)
def call(request):
    """Call a function where it may wait, in each of the places."""

    async def in_sqlalchemy(function):
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        try:
            async with engine.connect() as connection:
                return await connection.run_sync(lambda _: function())
        finally:
            await engine.dispose()

    async def handler(function):
        return function()

    async def call(function):
        if request.param == "greenlet":
            return await spawn_greenlet(function)
        if request.param == "step":
            return await greenlets.stepped(handler(function))
        if request.param == "sqlalchemy":
            return await in_sqlalchemy(function)
        if request.param == "sqlalchemy in greenlet":
            return await spawn_greenlet(lambda: wait(in_sqlalchemy(function)))
        executor = Executor(1)
        try:
            return await executor.run(function)
        finally:
            await executor.aclose()

    return call


@pytest.mark.parametrize("times", [1, 3])
def test_a_cancellation_is_delivered_when_what_is_shielded_has_ended(run, call, times):
    async def main():
        steps = Steps()
        task = asyncio.create_task(call(steps.request))
        await steps.cancel(task, times)
        with pytest.raises(asyncio.CancelledError):
            await task
        return steps.reached

    assert run(main()) == ["begun", "ended"]


def test_without_the_shield_the_same_is_interrupted(run, call):
    # The control for the test above.
    async def main():
        steps = Steps()
        task = asyncio.create_task(call(steps.commit))
        await steps.began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return steps.reached

    assert run(main()) == ["begun"]


def test_what_is_shielded_gives_its_value_and_raises_its_error(run, call):
    def fail():
        wait(give(None))
        raise KeyError("of its own")

    async def main():
        with pytest.raises(KeyError, match="of its own"):
            await call(lambda: shielded(fail))
        return await call(lambda: shielded(wait, give("value")))

    assert run(main()) == "value"


def test_an_error_of_what_is_shielded_is_the_cause_of_the_cancellation(run, call):
    steps = Steps

    def fail():
        steps.commit()
        raise KeyError("of its own")

    async def main():
        nonlocal steps
        steps = Steps()
        task = asyncio.create_task(call(lambda: shielded(fail)))
        await steps.cancel(task)
        with pytest.raises(asyncio.CancelledError) as raised:
            await task
        causes = [raised.value]
        # A Task may raise another one for the one that it was given.
        while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
            causes.append(cause)
        return [type(each) for each in causes]

    assert KeyError in run(main())


def test_a_shield_within_a_shield_delivers_at_the_end_of_the_outer_one(run, call):
    async def main():
        steps = Steps()

        def outer():
            shielded(steps.commit)
            steps.reached.append("still shielded")
            wait(give(None))
            steps.reached.append("waited")

        task = asyncio.create_task(call(lambda: shielded(outer)))
        await steps.cancel(task)
        with pytest.raises(asyncio.CancelledError):
            await task
        return steps.reached

    assert run(main()) == ["begun", "ended", "still shielded", "waited"]


def test_after_the_shield_a_cancellation_arrives_again(run, call):
    async def main():
        steps = Steps()

        def request():
            assert shielded(wait, give("value")) == "value"
            steps.commit()

        task = asyncio.create_task(call(request))
        await steps.began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return steps.reached

    assert run(main()) == ["begun"]


def test_a_timeout_within_the_shield_works(run, call):
    async def never():
        async with asyncio.timeout(0.01):
            await asyncio.get_running_loop().create_future()

    def function():
        with pytest.raises(TimeoutError):
            wait(never())
        return "went on"

    async def main():
        return await call(lambda: shielded(function))

    assert run(main()) == "went on"


def test_a_timeout_around_the_shield_comes_after_it(run):
    async def main():
        steps = Steps()
        asyncio.get_running_loop().call_later(0.05, steps.released.set)
        request = spawn_greenlet(steps.request)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(request, 0.01)
        assert asyncio.current_task().cancelling() == 0
        return steps.reached

    assert run(main()) == ["begun", "ended"]


def test_context_variables_pass_the_shield_both_ways(run, call):
    variable = contextvars.ContextVar("variable")

    async def change():
        await asyncio.sleep(0)
        seen = variable.get()
        variable.set("within")
        return seen

    def function():
        variable.set("before")
        return shielded(lambda: wait(change())), variable.get()

    async def main():
        return await call(function)

    assert run(main()) == ("before", "within")


def test_sqlalchemy_waits_within_the_shield(run, call):
    async def main():
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)

        def function():
            with Session(engine.sync_engine) as session:
                return shielded(session.scalar, text("select 42"))

        try:
            return await call(function)
        finally:
            await engine.dispose()

    assert run(main()) == 42


def test_a_cancellation_of_what_sqlalchemy_waits_for_is_kept(run, call):
    async def main():
        steps = Steps()

        def function():
            shielded(switch)
            steps.reached.append("after")

        def switch():
            steps.reached.append("begun")
            await_only(steps._wait())
            steps.reached.append("ended")

        task = asyncio.create_task(call(function))
        await steps.cancel(task)
        with pytest.raises(asyncio.CancelledError):
            await task
        return steps.reached

    assert run(main()) == ["begun", "ended"]


def test_a_request_to_end_the_process_passes_the_shield(run, call):
    async def end():
        await asyncio.sleep(0)
        raise SystemExit(3)

    def function():
        with pytest.raises(SystemExit):
            shielded(wait, end())
        return "the loop goes on"

    async def main():
        return await call(function)

    assert run(main()) == "the loop goes on"


def test_what_is_shielded_ends_with_its_loop():
    reached = []

    async def never():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            reached.append("cleaned up")

    async def main():
        task = asyncio.create_task(spawn_greenlet(shielded, wait, never()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return task

    # asyncio.run() cancels every Task at its end, and would wait for ever.
    task = asyncio.run(main())
    assert task.cancelled()
    assert reached == ["cleaned up"]


def test_what_is_shielded_is_called_when_the_request_is_dropped(run):
    called = []

    def function():
        try:
            wait(asyncio.get_running_loop().create_future())
        finally:
            shielded(called.append, "cleanup")

    async def main():
        dropped = spawn_greenlet(function)
        dropped.send(None)
        dropped.close()

    run(main())
    assert called == ["cleanup"]


def test_the_shield_needs_no_loop():
    assert shielded(divmod, 7, 2) == (3, 1)
    assert shielded(wait, give("value")) == "value"


def test_the_shield_on_a_loop_without_a_bridge_just_calls(run):
    async def main():
        return shielded(divmod, 7, 2)

    assert run(main()) == (3, 1)


def test_a_task_factory_that_refuses_does_not_leave_a_coroutine_behind(run):
    def refuse(loop, coroutine, **options):
        raise RuntimeError("no more tasks")

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(refuse)
        try:
            with pytest.raises(RuntimeError, match="no more tasks"):
                await spawn_greenlet(shielded, wait, give(1))
        finally:
            loop.set_task_factory(None)

    run(main())


def test_a_shield_leaves_no_cycle_behind(run):
    def fail():
        wait(give(None))
        raise KeyError

    async def main():
        for _ in range(3):
            with pytest.raises(KeyError):
                await spawn_greenlet(shielded, fail)
            steps = Steps()
            task = asyncio.create_task(spawn_greenlet(steps.request))
            await steps.cancel(task)
            with pytest.raises(asyncio.CancelledError):
                await task
            del steps, task

    gc.collect()
    gc.disable()
    try:
        run(main())
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        ours = [
            each for each in gc.garbage if type(each).__module__.startswith("aioext")
        ]
        assert not ours
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


# -- synchronize -----------------------------------------------------------------------


@synchronize
async def load(name):
    """Load it."""
    await asyncio.sleep(0)
    return f"loaded {name}"


def test_a_synchronized_function_gives_the_value_where_one_can_wait(run):
    async def main():
        return await asyncio.gather(
            spawn_greenlet(load, "in a bridge"), Executor(1).run(load, "in a thread")
        )

    assert run(main()) == ["loaded in a bridge", "loaded in a thread"]


def test_a_synchronized_function_keeps_its_name_and_documentation():
    assert load.__name__ == "load"
    assert load.__doc__ == "Load it."


@pytest.mark.usefixtures("no_background_loop")
def test_a_synchronized_function_is_refused_where_a_wait_is(run):
    async def main():
        with pytest.raises(ScopeError, match=r"load\(\)") as raised:
            load("nothing")
        assert __file__ in str(raised.value)

    run(main())


def test_a_function_that_is_no_coroutine_function_is_refused_by_name():
    def synchronous():
        pass

    with pytest.raises(TypeError, match="synchronous"):
        synchronize(synchronous)


@pytest.mark.usefixtures("no_background_loop")
def test_without_strictness_a_coroutine_is_given_where_it_cannot_be_waited_for(run):
    @synchronize(strict=False)
    def relaxed(value):
        return give(value)

    async def main():
        assert await relaxed(1) == 1
        assert await spawn_greenlet(relaxed, 2) == 2

    run(main())


# -- SQLAlchemy ------------------------------------------------------------------------


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list["Book"]] = relationship(order_by="Book.id")


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))


def with_database(run, use, **pool):
    """Run ``await use(engine)`` with a database that has one author."""

    async def main():
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            async with AsyncSession(engine) as session, session.begin():
                books = [Book(title="One"), Book(title="Two")]
                session.add(Author(name="Ann", books=books))
            return await use(engine)
        finally:
            await engine.dispose()

    return run(main())


def read_with_an_ordinary_session(engine):
    with Session(engine.sync_engine) as session:
        author = session.scalars(select(Author)).one()
        session.add(Book(title="Three", author_id=author.id))
        session.commit()
        # Expired by the commit, so both are loaded when they are asked for.
        return author.name, [book.title for book in author.books]


def test_an_ordinary_session_waits_for_an_async_driver(run):
    async def use(engine):
        return await spawn_greenlet(read_with_an_ordinary_session, engine)

    assert with_database(run, use) == ("Ann", ["One", "Two", "Three"])


def test_an_ordinary_session_waits_in_a_coroutine_that_is_waited_for(run):
    async def coroutine_view(engine):
        await asyncio.sleep(0)
        return read_with_an_ordinary_session(engine)

    async def use(engine):
        return await spawn_greenlet(lambda: wait(coroutine_view(engine)))

    assert with_database(run, use)[1] == ["One", "Two", "Three"]


# SQLAlchemy does not close what it refuses.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_without_the_marker_sqlalchemy_refuses(run, monkeypatch):
    # The control: this is what makes the tests above pass.
    monkeypatch.setattr(
        greenlets.BridgeGreenlet, "__sqlalchemy_greenlet_provider__", False
    )

    async def use(engine):
        with pytest.raises(MissingGreenlet):
            await spawn_greenlet(read_with_an_ordinary_session, engine)

    with_database(run, use)


def test_an_async_session_in_a_coroutine_view_loads_lazily_too(run):
    async def coroutine_view(engine):
        async with AsyncSession(engine) as session:
            author = (await session.scalars(select(Author))).one()
            return [book.title for book in author.books]

    async def use(engine):
        return await spawn_greenlet(lambda: wait(coroutine_view(engine)))

    assert with_database(run, use) == ["One", "Two"]


@pytest.mark.parametrize("bridged", [True, False])
def test_a_wait_in_sqlalchemys_own_greenlet(run, bridged):
    seen = []

    def in_sqlalchemy(connection):
        seen.append(wait(give("first")))
        count = connection.execute(text("select count(*) from book")).scalar()
        seen.append(wait(give("second")))
        assert type(getcurrent()) is not greenlets.BridgeGreenlet
        return count

    async def query(engine):
        async with engine.connect() as connection:
            return await connection.run_sync(in_sqlalchemy)

    async def use(engine):
        if bridged:
            return await spawn_greenlet(lambda: wait(query(engine)))
        return await query(engine)

    assert with_database(run, use) == 2
    assert seen == ["first", "second"]


def test_a_relaxed_function_waits_in_sqlalchemys_own_greenlet(run):
    relaxed = synchronize(give, strict=False)

    async def use(engine):
        async with engine.connect() as connection:
            return await connection.run_sync(lambda _: relaxed("waited for"))

    assert with_database(run, use) == "waited for"


def test_an_event_listener_of_sqlalchemy_may_wait(run):
    statements = []

    async def use(engine):
        @event.listens_for(engine.sync_engine, "before_cursor_execute")
        def listen(connection, cursor, statement, *arguments):
            statements.append(wait(give(statement)))

        async def query():
            async with engine.connect() as connection:
                return await connection.scalar(text("select 41 + 1"))

        # In SQLAlchemy's greenlet, in ours, and in theirs within ours.
        def ours():
            with engine.sync_engine.connect() as connection:
                return connection.scalar(text("select 41 + 1")), wait(query())

        return await query(), await spawn_greenlet(ours)

    assert with_database(run, use) == (42, (42, 42))
    assert statements == ["select 41 + 1"] * 3


def test_an_async_driver_in_many_interleaved_bridges(run):
    async def one(engine, number):
        def function():
            with Session(engine.sync_engine) as session:
                first = session.scalar(select(Author.name))
                wait(asyncio.sleep(0))
                return first, session.scalar(text(f"select {number}"))

        return await spawn_greenlet(function)

    async def use(engine):
        return await asyncio.gather(*(one(engine, number) for number in range(20)))

    assert with_database(run, use) == [("Ann", number) for number in range(20)]


# -- the debug mode of asyncio ---------------------------------------------------------


def test_the_debug_mode_of_asyncio_finds_nothing_to_warn_of(run, caplog):
    def function():
        wait(give(0))
        asyncio.current_task().cancel()
        with pytest.raises(asyncio.CancelledError):
            wait(give(0))
        return wait(spawn_greenlet(wait, give("fine")))

    async def main():
        asyncio.get_running_loop().slow_callback_duration = 60
        return await spawn_greenlet(function)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(main(), debug=True) == "fine"
    assert not caplog.records
    assert sys.get_coroutine_origin_tracking_depth() == 0

"""Waiting anywhere: what ``wait`` does where, and what it refuses."""

import asyncio
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

from aioext import ScopeError, greenlets, spawn_greenlet, synchronize, wait
from aioext.bridge import in_bridge
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

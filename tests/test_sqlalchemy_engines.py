"""The engines: what makes them, one for each loop, and when they are closed."""

import asyncio
import gc
import sys
import threading
from contextlib import asynccontextmanager

import pytest
from inprocess import make_app
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid_retry import IRetryableError
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, StaticPool

import aioext
from aioext import spawn_greenlet
from aioext.interfaces import ILifespan
from aioext.sqlalchemy import session
from aioext.sqlalchemy.engines import Engines
from aioext.sqlalchemy.interfaces import IEngines
from aioext.sqlalchemy.pool import SharedPool
from aioext.sqlalchemy.retry import mark_retryable
from aioext.sqlalchemy.url import make_engine


@pytest.fixture
def settings(tmp_path):
    return {"sqlalchemy.url": f"sqlite+aiosqlite:///{tmp_path}/engines.sqlite"}


def one(engines):
    with engines.current().sync_engine.connect() as connection:
        return connection.scalar(text("SELECT 1"))


# The URL and the options


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        ("postgresql://me@host/name", "postgresql+asyncpg://me@host/name"),
        ("postgresql+psycopg2://me@host/name", "postgresql+psycopg://me@host/name"),
        ("sqlite:///path.sqlite", "sqlite+aiosqlite:///path.sqlite"),
        ("sqlite://", "sqlite+aiosqlite://"),
        ("mysql+pymysql://me@host/name", "mysql+asyncmy://me@host/name"),
    ],
)
def test_a_driver_that_blocks_is_refused(url, instead):
    with pytest.raises(ConfigurationError) as refused:
        make_engine({"sqlalchemy.url": url})
    assert f"Write {instead}" in str(refused.value) or f" or {instead}" in str(
        refused.value
    )
    assert str(refused.value).endswith("#sqlalchemy-url)")


def test_a_password_is_not_shown():
    url = "postgresql://me:secret@host/name"
    with pytest.raises(ConfigurationError) as refused:
        make_engine({"sqlalchemy.url": url})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "Set sqlalchemy.url"),
        ({"sqlalchemy.url": "nonsense"}, "no address of a database"),
        ({"sqlalchemy.url": "nobase+nodriver://host"}, "no address of a database"),
        ({"sqlalchemy.url": "mssql+aioodbc://host/name"}, "cannot be imported"),
        (
            {"sqlalchemy.url": "sqlite+aiosqlite:///p", "sqlalchemy.pool_sizes": "3"},
            "pool_sizes",
        ),
        (
            {"sqlalchemy.url": "sqlite+aiosqlite:///p", "sqlalchemy.pool_size": "x"},
            "invalid literal",
        ),
    ],
)
def test_what_makes_no_engine_is_told_at_once(settings, message):
    config = Configurator(settings=settings)
    config.include("aioext.sqlalchemy")
    with pytest.raises(ConfigurationError, match=message):
        config.commit()


def test_settings_are_options_of_the_engine(settings):
    engine = make_engine({**settings, "sqlalchemy.pool_size": "7"})
    assert engine.pool.size() == 7
    assert type(engine.pool) is SharedPool


def test_another_pool_is_left_alone(settings):
    assert type(make_engine({"sqlalchemy.url": "sqlite+aiosqlite://"}).pool) is (
        StaticPool
    )
    engine = make_engine({**settings, "sqlalchemy.poolclass": NullPool})
    assert type(engine.pool) is NullPool


def test_settings_that_are_added_later_are_read(settings):
    config = Configurator()
    config.include("aioext.sqlalchemy")
    config.add_settings(settings)
    registry = config.make_wsgi_app().registry
    assert aioext.run(one, registry.getUtility(IEngines)) == 1


def test_without_the_include_there_is_no_session():
    registry = make_app().app.registry
    with (
        pytest.raises(ConfigurationError, match=r"config\.include"),
        session(registry),
    ):
        pass


def test_including_it_twice_is_harmless(settings):
    def twice(config):
        config.include("aioext.sqlalchemy")
        config.commit()
        config.include("aioext.sqlalchemy")
        config.commit()

    registry = make_app(twice, settings=settings).app.registry
    keep = registry.getUtility(IEngines).keep
    assert registry.getUtility(ILifespan).factories.count(keep) == 1


# One for each loop


def test_a_loop_has_one_engine(settings, run):
    engines = Engines(settings)

    async def main():
        async with engines.keep(None):
            return engines.current(), engines.current()

    first, same = run(main())
    assert first is same
    other, _ = run(main())
    assert other is not first


def test_threads_that_ask_at_once_get_the_same_one(settings):
    engines = Engines(settings)
    barrier = threading.Barrier(8)
    found = []

    def ask():
        barrier.wait()
        found.append(engines.current())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


class Closed:
    """Tells when connections of an engine are opened and closed."""

    def __init__(self, engine):
        self.open = 0
        event.listen(engine.sync_engine, "connect", self._connect)
        event.listen(engine.sync_engine, "close", self._close)

    def _connect(self, *args):
        self.open += 1

    def _close(self, *args):
        self.open -= 1


def test_a_lifespan_closes_it_after_everything_else(settings, run):
    told = []

    async def uses_it_to_its_end(registry):
        yield
        told.append(await spawn_greenlet(one, registry.getUtility(IEngines)))

    def configure(config):
        config.add_lifespan(asynccontextmanager(uses_it_to_its_end))
        config.commit()
        config.include("aioext.sqlalchemy")

    registry = make_app(configure, settings=settings).app.registry
    engines = registry.getUtility(IEngines)

    async def main():
        async with registry.getUtility(ILifespan).open():
            await spawn_greenlet(one, engines)
            closed = Closed(engines.current())
            closed.open = engines.current().pool.checkedin()
            assert closed.open == 1
        assert told == [1]
        assert closed.open == 0
        # It closes itself: no Task waits for the end of the loop.
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_without_a_lifespan_it_is_closed_when_the_loop_ends(settings, run):
    engines = Engines(settings)

    async def main():
        closed = Closed(engines.current())
        await spawn_greenlet(one, engines)
        assert closed.open == 1
        return closed

    assert run(main()).open == 0


def test_an_engine_that_is_older_than_the_lifespan_is_closed_once(settings, run):
    engines = Engines(settings)

    async def main():
        closed = Closed(engines.current())
        await spawn_greenlet(one, engines)
        async with engines.keep(None):
            await spawn_greenlet(one, engines)
            assert closed.open == 1
        assert closed.open == 0
        assert engines.current() is not None

    run(main())


def test_what_a_lifespan_closes_is_closed_by_nothing_else(settings, run):
    engines = Engines(settings)

    async def main():
        closed = Closed(engines.current())
        await spawn_greenlet(one, engines)
        async with engines.keep(None):
            # As the end of the loop does, before the lifespan has ended.
            (holder,) = asyncio.all_tasks() - {asyncio.current_task()}
            holder.cancel()
            await asyncio.wait([holder])
            assert closed.open == 1
        assert closed.open == 0

    run(main())


def test_an_application_that_is_forgotten_leaves_its_engine_to_the_loop(settings):
    closed = []

    async def main():
        engines = Engines(settings)
        closed.append(Closed(engines.current()))
        await spawn_greenlet(one, engines)
        del engines
        gc.collect()

    asyncio.run(main())
    assert closed[0].open == 0


def test_a_loop_that_was_closed_is_forgotten(settings):
    engines = Engines(settings)
    loop = asyncio.new_event_loop()

    async def ask():
        return engines.current()

    async def keep():
        # As an application does that is served.
        engines._kept.add(asyncio.get_running_loop())

    loop.run_until_complete(keep())
    loop.run_until_complete(ask())
    loop.close()
    assert list(engines._opened) == [loop]

    async def main():
        async with engines.keep(None):
            engines.current()
            return loop in engines._opened

    assert asyncio.run(main()) is False


def test_a_fork_has_engines_of_its_own(script, settings):
    source = f"""
        import os
        import aioext
        from aioext.sqlalchemy.engines import Engines
        from sqlalchemy import text

        def one():
            with engines.current().sync_engine.connect() as connection:
                return connection.scalar(text("SELECT 1"))

        engines = Engines({settings!r})
        print(aioext.run(one), flush=True)
        engine = engines.current()
        pid = os.fork()
        print(aioext.run(one), engines.current() is engine, flush=True)
        if pid:
            _, status = os.waitpid(pid, 0)
            print("child", os.waitstatus_to_exitcode(status))
    """
    lines = script(source).splitlines()
    assert sorted(lines) == ["1", "1 False", "1 True", "child 0"]


class Context:
    """What ``handle_error`` is told."""

    def __init__(self, state):
        self.original_exception = Exception()
        self.original_exception.sqlstate = state
        self.sqlalchemy_exception = DBAPIError("statement", {}, Exception())


@pytest.mark.parametrize(
    ("state", "expected"), [("40001", True), ("40P01", True), ("23505", False)]
)
def test_what_another_transaction_was_in_the_way_of_may_be_tried_again(state, expected):
    context = Context(state)
    mark_retryable(context)
    assert IRetryableError.providedBy(context.sqlalchemy_exception) is expected


def test_an_error_of_a_driver_without_codes_is_left_alone():
    context = Context(None)
    mark_retryable(context)
    del context.original_exception.sqlstate
    mark_retryable(context)
    assert not IRetryableError.providedBy(context.sqlalchemy_exception)


def test_without_pyramid_retry_nothing_is_tried_again(monkeypatch):
    monkeypatch.delitem(sys.modules, "pyramid_retry")
    context = Context("40001")
    mark_retryable(context)
    assert not IRetryableError.providedBy(context.sqlalchemy_exception)

"""Many requests at once, clients that leave, and a pool that is to be whole after it.

All on a real PostgreSQL: what a driver does with a query that is cancelled is between
the two of them.
"""

import asyncio

import psycopg
import pytest
from postgresql import postgresql
from sqlalchemy import event
from sqlalchemy_apps import POSTGRESQL, client_of, make, open_store

from aioext.sqlalchemy.interfaces import IEngines

__all__ = ["postgresql"]

POOL = 20
# Rounds in which as many clients leave as there are connections. Each of them costs
# the server two processes, so a thousand leave one combination only.
ROUNDS = {("asyncpg", "inline"): 50}
FEW_ROUNDS = 5
# Seconds.
PATIENCE = 60


@pytest.fixture(params=POSTGRESQL)
def store(request, postgresql, tmp_path):
    with open_store(request.param, tmp_path, postgresql) as store:
        yield store


def settings(mode):
    return {
        "aioext.sync_views": mode,
        "aioext.executor_workers": "64",
        "sqlalchemy.pool_size": str(POOL),
        "sqlalchemy.max_overflow": "0",
    }


def pool_of(app):
    """The pool of the loop that runs."""
    return app.app.registry.getUtility(IEngines).current().pool


class Busiest:
    """How many connections were checked out at once, at most."""

    def __init__(self, pool):
        self.now = self.most = 0
        event.listen(pool, "checkout", self._out)
        event.listen(pool, "checkin", self._in)

    def _out(self, *args):
        self.now += 1
        self.most = max(self.most, self.now)

    def _in(self, *args):
        self.now -= 1


@pytest.mark.parametrize("mode", ["inline", "executor"])
def test_two_hundred_requests_take_turns_with_twenty_connections(store, mode):
    async def serve():
        pool = pool_of(app)
        busiest = Busiest(pool)
        paths = [f"/slow?seconds=0.01&name=author{number}" for number in range(200)]
        paths[::10] = [f"{path}&fail=1" for path in paths[::10]]
        clients = await asyncio.gather(*[client_of(p).call(app) for p in paths])
        assert pool.checkedout() == 0
        assert busiest.most == POOL
        return [client.status for client in clients]

    app = make(store, **settings(mode))
    statuses = asyncio.run(serve())
    assert statuses == [500 if number % 10 == 0 else 200 for number in range(200)]
    kept = {f"author{number}" for number in range(200) if number % 10}
    assert set(store.names()) == {"Austen", *kept}


class Watch:
    """Looks at the connections of others, on one of its own."""

    def __init__(self, database):
        self._connection = psycopg.connect(database.url(driver=""), autocommit=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._connection.close()

    def _count(self, condition):
        (count,) = self._connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            f" AND pid <> pg_backend_pid() AND {condition}"
        ).fetchone()
        return count

    async def until(self, number, condition):
        """Return when the condition holds for ``number`` of them."""
        async with asyncio.timeout(PATIENCE):
            # Another process is asked, which tells nobody.
            while await asyncio.to_thread(self._count, condition) != number:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


SLEEPING = "state = 'active' AND query LIKE '%pg_sleep%'"


@pytest.mark.parametrize("mode", ["inline", "executor"])
def test_clients_that_leave_in_mid_query_take_no_connection_with_them(
    store,
    postgresql,
    mode,
):
    async def leave(watch, number):
        paths = [f"/slow?name=author{number}-{each}" for each in range(POOL)]
        tasks = [client_of(path).start(app) for path in paths]
        await watch.until(POOL, SLEEPING)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(each) for each in ended} == {asyncio.CancelledError}

    async def serve():
        pool = pool_of(app)
        with Watch(postgresql) as watch:
            for number in range(ROUNDS.get((store.driver, mode), FEW_ROUNDS)):
                await leave(watch, number)
                assert pool.checkedout() == 0
            client = await client_of("/count").call(app)
            assert client.body == b"1"
            assert pool.checkedout() == 0
            await watch.until(0, SLEEPING)

    app = make(store, **settings(mode))
    asyncio.run(serve())
    assert store.names() == ["Austen"]
    with Watch(postgresql) as watch:
        # The loop has closed them all.
        asyncio.run(watch.until(0, "true"))

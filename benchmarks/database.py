"""An ORM application over one pool of connections: how many requests a second.

PostgreSQL runs in a directory of its own while this is measured, and is not pinned
to a core: what it takes is the same for every row. Where the environment variable
AIOEXT_BENCHMARK_DATABASE has an address (``user:password@host:port/name``), that
database is used instead; its tables ``author``, ``article`` and ``visit`` are
made anew.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .database_apps import POOL, VARIABLE, fill, kept_visits
from .rates import Results, Target, compare, disturbance, measure_running
from .report import Report
from .servers import (
    AIOEXT_WORKER,
    ROOT,
    Candidate,
    Unavailable,
    describe_pinning,
    gunicorn,
    running,
)

__all__ = ["run"]

CONNECTIONS = 200


def _candidate(name: str, app: str, worker: str, *options: str) -> Candidate:
    needs = ("sqlalchemy", "zope.sqlalchemy", "pyramid_tm", "asyncpg", "psycopg2")
    return gunicorn(name, app, worker, *options, module="database_apps", needs=needs)


AIOEXT = _candidate("aioext, asyncpg", "asyncpg", AIOEXT_WORKER)
PSYCOPG = _candidate("aioext, psycopg", "psycopg", AIOEXT_WORKER)
# As many threads as connections to the database, and as requests.
FEW = _candidate("gthread, 20 threads", "blocking", "gthread", "--threads", "20")
MANY = _candidate("gthread, 200 threads", "blocking", "gthread", "--threads", "200")
GEVENT = _candidate("gevent + psycogreen", "greened", "gevent")
OTHERS = (PSYCOPG, FEW, MANY, GEVENT)

PATHS = {
    "/read": "20 articles, and 5 authors by lazy loading: 6 queries",
    "/write": "an insert; 3 of 4 transactions are committed",
    "/wait": "the database sleeps for 50 ms",
}


def run(report: Report, rounds: int, seconds: int) -> None:
    """Measure each kind of request, and print the sections."""
    with _database() as address:
        url = f"postgresql+psycopg2://{address}"
        fill(url)
        with running([AIOEXT, *OTHERS]) as (servers, absent):
            for path, what in PATHS.items():
                targets = [Target(each, path, CONNECTIONS) for each in _all()]
                results = measure_running(targets, servers, rounds, seconds)
                rows = compare(AIOEXT, OTHERS, {}, results, absent)
                columns = (what, "requests/s", "CPU us")
                title = f"SQLAlchemy: {path}, {CONNECTIONS} connections"
                report.section(title, columns, rows, _notes(path, url, results))


def _all() -> tuple[Candidate, ...]:
    return (AIOEXT, *OTHERS)


def _notes(path: str, url: str, results: Results) -> str:
    if path == "/wait":
        return f"No server can give more than {POOL / 0.05:,.0f} a second."
    if path == "/write":
        kept, wrong = kept_visits(url)
        return f"{kept:,} rows were kept; {wrong} were that should not have been."
    return f"{NOTES}; {describe_pinning()}.{disturbance(results)}"


NOTES = f"One worker, a pool of {POOL} connections"


@contextmanager
def _database() -> Iterator[str]:
    address = os.environ.get(VARIABLE)
    if address is not None:
        yield address
        return
    with _new_database() as address:
        os.environ[VARIABLE] = address
        try:
            yield address
        finally:
            del os.environ[VARIABLE]


@contextmanager
def _new_database() -> Iterator[str]:
    # The one of the tests, which are no package.
    sys.path.append(str(ROOT / "tests"))
    import postgresql

    try:
        with postgresql.database() as made:
            yield f"{made.user}@{made.host}:{made.port}/{made.name}"
    except postgresql.Missing as missing:
        raise Unavailable(str(missing)) from None

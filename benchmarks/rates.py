"""Requests per second, by wrk, of servers that are measured in turns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from .report import Goal, Report, Row, at_least, ratio_of
from .servers import (
    AIOEXT_WORKER,
    Candidate,
    Load,
    Server,
    describe_pinning,
    gunicorn,
    measure,
    running,
    uvicorn,
)

__all__ = [
    "Results",
    "Target",
    "compare",
    "measure_running",
    "run",
    "run_executor",
]

CONNECTIONS = 64
# The part of a core that a server under full load has to itself, at least.
UNDISTURBED = 0.85
# gthread has as many threads as aioext's executor.
THREADS = ("--threads", "32")


@dataclass(frozen=True)
class Target:
    """A path of a candidate's, asked for over some connections."""

    candidate: Candidate
    path: str = "/"
    connections: int = CONNECTIONS

    @property
    def name(self) -> str:
        return self.candidate.name


AIOEXT = gunicorn("aioext, coroutine view", "aioext_pyramid", AIOEXT_WORKER)
EXECUTOR = gunicorn("aioext, executor view", "aioext_pyramid", AIOEXT_WORKER)
CEILING = gunicorn("the same without bridge", "unbridged_pyramid", AIOEXT_WORKER)
SYNC = gunicorn("Pyramid, gunicorn sync", "plain_pyramid", "sync")
GTHREAD = gunicorn("Pyramid, gunicorn gthread", "plain_pyramid", "gthread", *THREADS)
GEVENT = gunicorn(
    "Pyramid, gunicorn gevent", "gevent_pyramid", "gevent", needs=("gevent",)
)
A2WSGI = uvicorn("Pyramid, uvicorn + a2wsgi", "a2wsgi_pyramid", needs=("a2wsgi",))
FASTAPI = gunicorn("FastAPI, gunicorn asgi", "fastapi", "asgi", needs=("fastapi",))
FASTAPI_GC = gunicorn(
    "FastAPI, aioext's GC settings", "fastapi", AIOEXT_WORKER, needs=("fastapi",)
)
STARLETTE = gunicorn(
    "Starlette, gunicorn asgi", "starlette", "asgi", needs=("starlette",)
)
STARLETTE_GC = gunicorn(
    "Starlette, aioext's GC settings",
    "starlette",
    AIOEXT_WORKER,
    needs=("starlette",),
)
GUNICORNS_OWN = (SYNC, GTHREAD, GEVENT)

GOALS: dict[str, Goal] = {
    A2WSGI.name: at_least(3.5),
    FASTAPI.name: at_least(1.3),
    FASTAPI_GC.name: at_least(1.3),
    STARLETTE.name: at_least(0.8),
    STARLETTE_GC.name: at_least(0.8),
    CEILING.name: at_least(0.9),
}

Results = dict[str, list[Load]]


def measure_in_turns(
    targets: Sequence[Target], rounds: int, seconds: int
) -> tuple[Results, dict[str, str]]:
    """Measure each target once in every round.

    Returns:
        the results of each, and why those that have none have none.
    """
    with running([target.candidate for target in targets]) as (servers, absent):
        return measure_running(targets, servers, rounds, seconds), absent


def measure_running(
    targets: Sequence[Target], servers: dict[str, Server], rounds: int, seconds: int
) -> Results:
    """The same with servers that run; absent ones are left out."""
    present = [target for target in targets if target.name in servers]
    for target in present:
        # Not the target's own path, whose view may wait.
        servers[target.name].warm_up()
    results: Results = {target.name: [] for target in present}
    for _ in range(rounds):
        for target in present:
            server = servers[target.name]
            load = measure(server, target.path, target.connections, seconds)
            results[target.name].append(load)
    return results


def row_of(name: str, results: Results, absent: dict[str, str]) -> Row:
    """The line of one target; the ratio is still to be set."""
    if name not in results:
        return Row(name, "-", absent.get(name, "not measured"))
    loads = results[name]
    row = Row(
        name,
        f"{statistics.median(_rates(loads)):,.0f}",
        f"{statistics.median(_processor(loads)):.0f}",
    )
    failed = sum(load.failed for load in loads)
    if failed:
        row.name += f" ({failed} failed)"
    return row


def compare(
    subject: Candidate,
    others: Sequence[Candidate],
    goals: dict[str, Goal],
    results: Results,
    absent: dict[str, str],
) -> list[Row]:
    """The lines of ``subject`` and others; ratios are of it to each of them."""
    rows = [row_of(subject.name, results, absent)]
    for other in others:
        row = row_of(other.name, results, absent)
        row.goal = goals.get(other.name)
        if subject.name in results and other.name in results:
            ours, theirs = results[subject.name], results[other.name]
            row.ratio = ratio_of(_rates(ours), _rates(theirs))
            # The less it takes, the better: the other way around.
            row.by_processor = ratio_of(_processor(theirs), _processor(ours))
        rows.append(row)
    return rows


def _rates(loads: Sequence[Load]) -> list[float]:
    return [load.rate for load in loads]


def _processor(loads: Sequence[Load]) -> list[float]:
    return [load.processor for load in loads]


def disturbance(results: Results) -> str:
    """A warning, if other programs kept the servers from their core."""
    busy = statistics.median(load.busy for loads in results.values() for load in loads)
    return "" if busy >= UNDISTURBED else DISTURBED.format(busy)


DISTURBED = """
DISTURBED: other programs left the servers only {:.0%} of their core. Rates and
ratios of rates tell little then; what is by CPU holds."""


def run(report: Report, rounds: int, seconds: int) -> None:
    """A coroutine view against everything else, and print the section."""
    others = [*GUNICORNS_OWN, A2WSGI, FASTAPI, FASTAPI_GC, STARLETTE, STARLETTE_GC]
    others.append(CEILING)
    targets = [Target(AIOEXT, "/coroutine"), *(Target(other) for other in others)]
    results, absent = measure_in_turns(targets, rounds, seconds)
    goals = dict(GOALS)
    measured = [each for each in GUNICORNS_OWN if each.name in results]
    if measured:
        best = max(
            measured,
            key=lambda each: statistics.median(_rates(results[each.name])),
        )
        goals[best.name] = at_least(2.2)
    rows = compare(AIOEXT, others, goals, results, absent)
    columns = ("one worker, 64 connections, no logging", "requests/s", "CPU us")
    report.section("Requests per second", columns, rows, NOTES + disturbance(results))


NOTES = f"""\
Ratios are of the coroutine view of aioext to each. CPU is what the server's
processes used for a request; {describe_pinning()}.
gunicorn's sync closes every connection. The goal of gunicorn's own workers is
judged by the best of them. "aioext's GC settings": on aioext's worker, which
serves an ASGI application as it is, with the collector as aioext sets it."""


def run_executor(report: Report, rounds: int, seconds: int) -> None:
    """A view in the executor against a2wsgi, and print the section."""
    targets = [Target(EXECUTOR), Target(A2WSGI)]
    results, absent = measure_in_turns(targets, rounds, seconds)
    goals = {A2WSGI.name: at_least(2.5)}
    rows = compare(EXECUTOR, [A2WSGI], goals, results, absent)
    columns = ("the same synchronous view in threads", "requests/s", "CPU us")
    report.section("Executor views", columns, rows, disturbance(results).strip())

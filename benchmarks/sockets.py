"""WebSockets: echoed messages and connections a second, memory of idle ones.

aioext serves a view, as its users write it; gunicorn and uvicorn serve an
application of a few lines that speaks ASGI, with nothing between it and the
server. aiohttp's server reads frames in C, and shows how far the limit is.
"""

from __future__ import annotations

import functools
import gc
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from . import socket_load
from .rates import compare, disturbance
from .report import Goal, Report, Row, at_least, at_most
from .servers import (
    AIOEXT_WORKER,
    Candidate,
    Load,
    Server,
    Unavailable,
    describe_pinning,
    gunicorn,
    pinned,
    running,
    uvicorn,
)

__all__ = ["run"]

SIZES = {20: "20 bytes", 2**10: "1 KiB", 2**16: "64 KiB", 2**20: "1 MiB"}
CONNECTIONS = 16
IDLE = 5000
# KiB that an idle connection may take.
LIMIT = 16
# Connections before the memory is looked at for the first time, and seconds of
# messages before those that count.
WARM_UP = 100
WARM_UP_SECONDS = 0.3
# A client that is busier than that may be what limits the result.
BUSY = 0.9

SANS_IO = ("--ws", "websockets-sansio")
AIOHTTP_WORKER = "aiohttp.GunicornUVLoopWebWorker"

AIOEXT = gunicorn("aioext, coroutine view", "aioext_sockets", AIOEXT_WORKER)
GUNICORN = gunicorn("raw ASGI, gunicorn asgi", "raw_sockets", "asgi")
UVICORN = uvicorn("raw ASGI, uvicorn", "raw_sockets", *SANS_IO, needs=("websockets",))
AIOHTTP = gunicorn("aiohttp", "aiohttp_sockets", AIOHTTP_WORKER, needs=("aiohttp",))
OTHERS = (GUNICORN, UVICORN, AIOHTTP)

AHEAD = at_least(1.0)


def goals_of(size: int) -> dict[str, Goal]:
    """What aioext is to reach with messages of ``size`` bytes."""
    return {
        GUNICORN.name: at_least(30.0) if size >= 2**16 else AHEAD,
        UVICORN.name: at_least(1.3) if size <= 20 else AHEAD,
    }


@dataclass(frozen=True)
class SocketLoad(Load):
    """The same of a client of ours.

    Attributes:
        client: which part of its core the client had.
    """

    client: float


# Loads a server's address for some seconds.
Loading = Callable[[str, float], socket_load.Counted]
Results = dict[str, list[SocketLoad]]


def run(report: Report, rounds: int, seconds: int) -> None:
    """Measure all of it, and print the sections."""
    with running([AIOEXT, *OTHERS]) as (servers, absent):
        for size, name in SIZES.items():
            load = functools.partial(_echo, size)
            results = measure_in_turns(load, servers, absent, rounds, seconds)
            rows = compare(AIOEXT, OTHERS, goals_of(size), results, absent)
            columns = (f"{CONNECTIONS} connections", "messages/s", "CPU us")
            title = f"WebSocket: messages of {name}, echoed"
            report.section(title, columns, rows, _notes(results))
        results = measure_in_turns(_open, servers, absent, rounds, seconds)
        rows = compare(AIOEXT, OTHERS, {}, results, absent)
        columns = (f"{CONNECTIONS} at a time", "connections/s", "CPU us")
        report.section("WebSocket: connections", columns, rows, NOTES)
    # Fresh servers: one that has held many connections keeps their memory.
    with running([AIOEXT, *OTHERS]) as (servers, absent):
        rows = [_memory_row(each, servers, absent) for each in (AIOEXT, *OTHERS)]
    columns = (f"{IDLE:,} idle connections", "KiB each", "MiB in all")
    report.section("WebSocket: memory", columns, rows, MEMORY)


NOTES = f"""\
Ratios are of aioext to each. A connection is a handshake, one message echoed,
and a closing handshake. Messages are texts, not compressed, and each connection
has one on its way; {describe_pinning("the client")}."""

MEMORY = f"""\
Each has echoed one message. The ratio is to {LIMIT} KiB. What the system keeps
for a connection is not in it."""

LIMITED = """
CLIENT: it had no time left with {}, which may be faster."""


def _notes(results: Results) -> str:
    limited = [
        name
        for name, loads in results.items()
        if statistics.median(load.client for load in loads) > BUSY
    ]
    notes = LIMITED.format(" and ".join(limited)) if limited else ""
    return (notes + disturbance(dict(results))).strip()


def _echo(size: int, url: str, seconds: float) -> socket_load.Counted:
    return socket_load.echo(url, size, CONNECTIONS, seconds)


def _open(url: str, seconds: float) -> socket_load.Counted:
    return socket_load.open_and_close(url, CONNECTIONS, seconds)


def measure_in_turns(
    loading: Loading,
    servers: dict[str, Server],
    absent: dict[str, str],
    rounds: int,
    seconds: float,
) -> Results:
    """Measure each server once in every round.

    One that fails has no results, and is added to ``absent``.
    """
    results: Results = {name: [] for name in servers}
    with pinned():
        for number in range(rounds + 1):
            for name in list(results):
                lasting = seconds if number else WARM_UP_SECONDS
                try:
                    load = _measure(loading, servers[name], lasting)
                except (Unavailable, OSError) as error:
                    absent[name] = str(error)
                    del results[name]
                    continue
                if number:
                    results[name].append(load)
    return results


def _measure(loading: Loading, server: Server, seconds: float) -> SocketLoad:
    gc.collect()
    before = server.processor_seconds()
    counted = loading(server.url + "/echo", seconds)
    used = server.processor_seconds() - before
    each = used / counted.total * 1e6
    return SocketLoad(counted.rate, each, failed=0, client=counted.busy)


def _memory_row(
    candidate: Candidate, servers: dict[str, Server], absent: dict[str, str]
) -> Row:
    row = Row(candidate.name, "-", absent.get(candidate.name, ""))
    if candidate is AIOEXT:
        row.goal = at_most(1.0)
    if candidate.name in servers:
        try:
            before, after = _memory(servers[candidate.name])
        except (Unavailable, OSError) as error:
            row.detail = str(error)
        else:
            each = (after - before) / IDLE / 1024
            row.result, row.detail = f"{each:.1f}", f"{after / 2**20:.0f}"
            row.ratio = each / LIMIT
    return row


def _memory(server: Server) -> tuple[int, int]:
    url = server.url + "/echo"
    for _ in range(WARM_UP):
        connection = socket_load.connect(url)
        socket_load.echo_once(connection)
        socket_load.close(connection)
    before = server.memory()
    with ExitStack() as stack:
        for _ in range(IDLE):
            socket_load.echo_once(stack.enter_context(socket_load.connect(url)))
        return before, server.memory()

"""Many requests that wait at the same time: how many a second, how much memory.

The memory is that of a server's process with some thousand requests that wait
in their views, beyond what it has with none, divided by their number. It
contains the connection itself, which is why the server's own is printed too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from .apps import PAUSE
from .rates import Target, compare, measure_running
from .report import Report, Row, at_least
from .servers import AIOEXT_WORKER, Server, Unavailable, gunicorn, running

__all__ = ["run"]

CONNECTIONS = (1000, 3000)
HELD = 2000
# Seconds within which all requests have to be in their views.
DEADLINE = 30.0
POLL = 0.05

AIOEXT = gunicorn("aioext, coroutine view", "aioext_pyramid", AIOEXT_WORKER)
RAW = gunicorn("raw ASGI, the same GC settings", "raw_asgi", AIOEXT_WORKER)
RAW_STOCK = gunicorn("raw ASGI, gunicorn asgi", "raw_asgi", "asgi")
GEVENT = gunicorn(
    "Pyramid, gunicorn gevent", "gevent_pyramid", "gevent", needs=("gevent",)
)
OTHERS = (RAW, RAW_STOCK, GEVENT)
GOALS = {RAW.name: at_least(0.9), GEVENT.name: at_least(1.0)}


def run(report: Report, rounds: int, seconds: int) -> None:
    """Measure both, and print the sections."""
    with running([AIOEXT, *OTHERS]) as (servers, absent):
        for number in CONNECTIONS:
            targets = [Target(each, "/wait", number) for each in (AIOEXT, *OTHERS)]
            results = measure_running(targets, servers, rounds, seconds)
            # The goals are set for the first number.
            goals = GOALS if number == CONNECTIONS[0] else {}
            rows = compare(AIOEXT, OTHERS, goals, results, absent)
            columns = (
                f"a view that waits {PAUSE * 1000:.0f} ms",
                "requests/s",
                "CPU us",
            )
            ideal = f"No server can give more than {number / PAUSE:,.0f} a second."
            report.section(f"{number:,} connections", columns, rows, ideal)
    # Fresh servers: one that has held many requests keeps their memory.
    with running([AIOEXT, RAW]) as (servers, _):
        _report_memory(report, servers)


def _report_memory(report: Report, servers: dict[str, Server]) -> None:
    rows = []
    for candidate in (AIOEXT, RAW):
        if candidate.name in servers:
            rows.append(_memory_row(servers[candidate.name]))
    columns = (f"{HELD:,} requests that wait", "KiB each", "MiB in all")
    report.section("Memory", columns, rows, NOTES)


NOTES = "The difference of the two is the bridge's, Pyramid's and the request's."


def _memory_row(server: Server) -> Row:
    name = server.candidate.name
    server.warm_up()
    before = server.memory()
    try:
        after = asyncio.run(_memory_while_held(server))
    except Unavailable as error:
        return Row(name, "-", str(error))
    each = (after - before) / HELD / 1024
    return Row(name, f"{each:.1f}", f"{after / 2**20:.0f}")


async def _memory_while_held(server: Server) -> int:
    address = urlsplit(server.url)
    writers: list[asyncio.StreamWriter] = []
    readers: list[asyncio.StreamReader] = []
    try:
        for _ in range(HELD):
            reader, writer = await asyncio.open_connection(
                address.hostname, address.port
            )
            readers.append(reader)
            writers.append(writer)
            writer.write(b"GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await _until_held(server)
        after = server.memory()
        await asyncio.to_thread(server.get, "/release")
        await _read_all(readers)
    finally:
        for writer in writers:
            writer.close()
    return after


async def _until_held(server: Server) -> None:
    deadline = time.monotonic() + DEADLINE
    while int(await asyncio.to_thread(server.get, "/held")) < HELD:
        if time.monotonic() > deadline:
            raise Unavailable(f"fewer than {HELD} requests reached their view")
        await asyncio.sleep(POLL)


async def _read_all(readers: Sequence[asyncio.StreamReader]) -> None:
    for reader in readers:
        await reader.readuntil(b"\r\n\r\n")

"""Many event streams: how late their events are, and what they take.

The server has little to do, so its processor's time and the delays tell more
than a rate would: that one is the same for all.
"""

from __future__ import annotations

import gc
import statistics
from dataclasses import dataclass

from . import stream_load
from .apps import TICK
from .report import Report, Row, ratio_of
from .servers import (
    AIOEXT_WORKER,
    Candidate,
    Server,
    Unavailable,
    describe_pinning,
    gunicorn,
    pinned,
    running,
    uvicorn,
)

__all__ = ["run"]

STREAMS = 2000
# Seconds in which they are opened: several intervals, so that no server has so
# much to do with it that their events come in heaps.
OPENING = 4 * TICK
# Seconds of streams for one of the other benchmarks'.
LONGER = 5
# Which part of the events has to have come.
COMPLETE = 0.98
# Streams before the memory is looked at for the first time.
WARM_UP = 100

AIOEXT = gunicorn("aioext, asynchronous generator", "aioext_streams", AIOEXT_WORKER)
STARLETTE = uvicorn(
    "Starlette + sse-starlette, uvicorn",
    "starlette_streams",
    needs=("starlette", "sse_starlette"),
)
RAW = gunicorn("raw ASGI, the same GC settings", "raw_sockets", AIOEXT_WORKER)
CANDIDATES = (AIOEXT, STARLETTE, RAW)


@dataclass(frozen=True)
class Ticking:
    """What came of some seconds of streams.

    Attributes:
        median: milliseconds that the event in the middle was late.
        late: milliseconds that the one was that is later than 99 of 100.
        processor: microseconds of the server's processor for an event.
        memory: bytes of the server's for a stream.
        total: bytes of the server's in all.
    """

    median: float
    late: float
    processor: float
    memory: float
    total: int


Results = dict[str, list[Ticking]]


def run(report: Report, rounds: int, seconds: int) -> None:
    """Measure, and print the sections.

    Args:
        report: prints them.
        rounds: how many there are.
        seconds: a fifth of how long each server is listened to in each.
    """
    results: Results = {candidate.name: [] for candidate in CANDIDATES}
    absent: dict[str, str] = {}
    with pinned():
        for _ in range(rounds):
            for candidate in CANDIDATES:
                _measure(candidate, results, absent, seconds * LONGER)
    names = [candidate.name for candidate in CANDIDATES]
    columns = (f"{STREAMS:,} streams", "p50 / p99 ms", "CPU us")
    rows = [_delay_row(name, results, absent) for name in names]
    report.section("Event streams: delay of an event", columns, rows, NOTES)
    columns = (f"{STREAMS:,} streams", "KiB each", "MiB in all")
    rows = [_memory_row(name, results, absent) for name in names]
    report.section("Event streams: memory", columns, rows, MEMORY)


NOTES = f"""\
Each stream has an event every {TICK:g} s. The ratio is of the p99 of each to that of
aioext. CPU is what the server used for an event; {describe_pinning("the client")}."""

MEMORY = "The ratio is of what each takes for a stream to what aioext does."


def _measure(
    candidate: Candidate, results: Results, absent: dict[str, str], seconds: float
) -> None:
    name = candidate.name
    if name in absent:
        return
    # A fresh server: one that has held many streams keeps their memory.
    with running([candidate]) as (servers, missing):
        absent.update(missing)
        try:
            for server in servers.values():
                results[name].append(_listen(server, seconds))
        except (Unavailable, OSError) as error:
            absent[name] = str(error)


def _listen(server: Server, seconds: float) -> Ticking:
    url = server.url + "/ticks"
    with stream_load.opened(url, WARM_UP, TICK) as streams:
        streams.read(TICK)
    before = server.memory()
    gc.collect()
    with stream_load.opened(url, STREAMS, OPENING) as streams:
        # The last ones are still to have their first event.
        streams.read(TICK)
        streams.delays.clear()
        used = server.processor_seconds()
        streams.read(seconds)
        used = server.processor_seconds() - used
        after, delays = server.memory(), streams.delays
    expected = STREAMS * seconds / TICK
    if len(delays) < COMPLETE * expected:
        raise Unavailable(f"only {len(delays) / expected:.0%} of the events came")
    return Ticking(
        median=statistics.median(delays) * 1e3,
        late=statistics.quantiles(delays, n=100)[98] * 1e3,
        processor=used / len(delays) * 1e6,
        memory=(after - before) / STREAMS,
        total=after,
    )


def _delay_row(name: str, results: Results, absent: dict[str, str]) -> Row:
    if name in absent:
        return Row(name, "-", absent[name])
    middle, late = _each(results, name, "median"), _each(results, name, "late")
    processor = _each(results, name, "processor")
    row = Row(
        name,
        f"{statistics.median(middle):.2f} / {statistics.median(late):.2f}",
        f"{statistics.median(processor):.0f}",
    )
    if _is_compared(name, absent):
        row.ratio = ratio_of(late, _each(results, AIOEXT.name, "late"))
        row.by_processor = ratio_of(processor, _each(results, AIOEXT.name, "processor"))
    return row


def _memory_row(name: str, results: Results, absent: dict[str, str]) -> Row:
    if name in absent:
        return Row(name, "-", absent[name])
    memory, total = _each(results, name, "memory"), _each(results, name, "total")
    row = Row(
        name,
        f"{statistics.median(memory) / 1024:.1f}",
        f"{statistics.median(total) / 2**20:.0f}",
    )
    if _is_compared(name, absent):
        row.ratio = ratio_of(memory, _each(results, AIOEXT.name, "memory"))
    return row


def _each(results: Results, name: str, attribute: str) -> list[float]:
    return [getattr(each, attribute) for each in results[name]]


def _is_compared(name: str, absent: dict[str, str]) -> bool:
    return name != AIOEXT.name and AIOEXT.name not in absent

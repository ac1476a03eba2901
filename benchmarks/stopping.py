"""How long a server takes to stop that has many idle connections.

From SIGTERM to the end of the process: with none, with event streams, with WebSockets,
in turns. The clients behave: they close an event stream that ends, and answer the
frame that closes a WebSocket.
"""

from __future__ import annotations

import gc
import select
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from socket import socket

from . import socket_load, stream_load
from .report import Report, Row, at_most
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

CONNECTIONS = 1000
# Seconds that they may take longer than none.
LIMIT = 0.5
# Seconds after which a server is not going to end.
PATIENCE = 60.0
BUFFER = 2**16

KINDS = {"none": "", "event streams": "/idle", "WebSockets": "/echo"}

AIOEXT = gunicorn(
    "aioext, gunicorn on uvloop",
    "aioext_connections",
    AIOEXT_WORKER,
    "--graceful-timeout=30",
    "--asgi-loop=uvloop",
    needs=("uvloop",),
)
ASYNCIO = gunicorn(
    "aioext, gunicorn on asyncio",
    "aioext_connections",
    AIOEXT_WORKER,
    "--graceful-timeout=30",
    "--asgi-loop=asyncio",
)
UVICORN = uvicorn("aioext, uvicorn", "asgi_connections")
CANDIDATES = (AIOEXT, ASYNCIO, UVICORN)
JUDGED = (AIOEXT, ASYNCIO)


@dataclass(frozen=True)
class Stopped:
    """What came of stopping a server once, in seconds since it was told to.

    Attributes:
        clients: until the last client was told.
        process: until it had ended.
    """

    clients: float
    process: float


# By candidate and kind, for each round.
Results = dict[tuple[str, str], list[Stopped]]


def run(report: Report, rounds: int) -> None:
    """Measure, and print a section for each candidate."""
    results: Results = {}
    absent: dict[str, str] = {}
    with pinned():
        for _ in range(rounds):
            for candidate in CANDIDATES:
                for kind in KINDS:
                    _measure(candidate, kind, results, absent)
    columns = ("from SIGTERM to the end", "seconds", "clients told")
    for candidate in CANDIDATES:
        rows = [_row(candidate, kind, results, absent) for kind in KINDS]
        report.section(f"Stopping: {candidate.name}", columns, rows, NOTES)


NOTES = f"""\
{CONNECTIONS:,} idle connections. Medians of the rounds; the ratio is of what it takes
longer than with none to {LIMIT:g} s; {describe_pinning("the client")}."""


def _measure(
    candidate: Candidate, kind: str, results: Results, absent: dict[str, str]
) -> None:
    if candidate.name in absent:
        return
    with running([candidate]) as (servers, missing):
        absent.update(missing)
        try:
            for server in servers.values():
                stopped = _stop(server, KINDS[kind])
                results.setdefault((candidate.name, kind), []).append(stopped)
        except (Unavailable, OSError) as error:
            absent[candidate.name] = str(error)


def _stop(server: Server, path: str) -> Stopped:
    server.warm_up()
    gc.collect()
    with _connected(server.url, path) as connections:
        return _Ending(server, connections).watch()


@contextmanager
def _connected(url: str, path: str) -> Iterator[list[socket]]:
    with ExitStack() as stack:
        connections = []
        for _ in range(CONNECTIONS if path else 0):
            if path == "/echo":
                connection = stack.enter_context(socket_load.connect(url + path))
                socket_load.echo_once(connection)
            else:
                connection = stack.enter_context(stream_load.connect(url + path))
            connection.setblocking(False)
            connections.append(connection)
        yield connections


class _Ending:
    """Watches a server and its clients end."""

    def __init__(self, server: Server, connections: list[socket]) -> None:
        self._server = server
        self._connections = {each.fileno(): each for each in connections}
        self._epoll = select.epoll()
        for descriptor in self._connections:
            self._epoll.register(descriptor, select.EPOLLIN)

    def watch(self) -> Stopped:
        with self._epoll, self._server.watched() as process:
            self._epoll.register(process, select.EPOLLIN)
            start = told = time.monotonic()
            self._server.end()
            while True:
                left = start + PATIENCE - time.monotonic()
                ready = {descriptor for descriptor, _ in self._epoll.poll(left)}
                if not ready:
                    raise Unavailable(f"it has not ended in {PATIENCE:g} s")
                for descriptor in ready - {process}:
                    told = time.monotonic()
                    self._take(descriptor)
                if process in ready:
                    break
            ended = time.monotonic() - start
        if self._connections:
            raise Unavailable(f"{len(self._connections)} clients have not been told")
        return Stopped(told - start, ended)

    def _take(self, descriptor: int) -> None:
        connection = self._connections[descriptor]
        try:
            received = connection.recv(BUFFER)
            if received[:1] == bytes([socket_load.CLOSE]):
                connection.send(socket_load.GOODBYE)
        except ConnectionError:
            # Some servers do not wait for the goodbye.
            received = b""
        if not received:
            self._epoll.unregister(descriptor)
            self._connections.pop(descriptor).close()


def _row(
    candidate: Candidate, kind: str, results: Results, absent: dict[str, str]
) -> Row:
    row = Row(kind, "-", absent.get(candidate.name, ""))
    if candidate in JUDGED and kind != "none":
        row.goal = at_most(1.0)
    if candidate.name not in absent:
        stopped = results[candidate.name, kind]
        base = results[candidate.name, "none"]
        longer = _median(stopped) - _median(base)
        told = statistics.median(each.clients for each in stopped)
        row.result = f"{_median(stopped):.2f}"
        row.detail = f"{told:.2f}" if kind != "none" else ""
        row.ratio = None if kind == "none" else longer / LIMIT
    return row


def _median(stopped: list[Stopped]) -> float:
    return statistics.median(each.process for each in stopped)

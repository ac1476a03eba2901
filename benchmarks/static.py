"""Files: a small one, one that the client has already, and a large one.

All but the last are served by the same worker. whitenoise reads its files where it is
called: on the bridge, each open blocks the loop, and blocks of a file come from the
executor. On gunicorn's own ``sync`` worker, which sends files by ``sendfile``, one
client after the other, it is at home; that is shown beside.

whitenoise answers before the application does: no route, permission or tween has a say.
So does a static view of aioext's where the application has put nothing there; what it
takes with a tween, which has each request go through the router, is measured as well.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from .rates import Results, compare, disturbance
from .report import Goal, Report, at_least
from .servers import (
    AIOEXT_WORKER,
    Candidate,
    Server,
    Unavailable,
    describe_pinning,
    gunicorn,
    measure,
    running,
)
from .static_apps import PREFIX, VARIABLE

__all__ = ["run"]

TIMEOUT = 30.0


def _candidate(name: str, app: str, worker: str, *needs: str) -> Candidate:
    return gunicorn(name, app, worker, module="static_apps", needs=needs)


ASSETS = _candidate("aioext.assets", "assets", AIOEXT_WORKER)
STARLETTE = _candidate(
    "starlette StaticFiles", "static_files", AIOEXT_WORKER, "starlette"
)
WHITENOISE = _candidate(
    "whitenoise, on the bridge", "whitenoise", AIOEXT_WORKER, "whitenoise"
)
PYRAMID = _candidate("Pyramid's own static view", "pyramid_static", AIOEXT_WORKER)
SYNC = _candidate(
    "whitenoise, gunicorn sync", "blocking_whitenoise", "sync", "whitenoise"
)
ROUTED = _candidate("aioext.assets, with a tween", "routed_assets", AIOEXT_WORKER)
OTHERS = (ROUTED, STARLETTE, WHITENOISE, PYRAMID, SYNC)


@dataclass(frozen=True)
class Case:
    """What is asked for.

    Attributes:
        title: of the section.
        size: of the file, in bytes.
        connections: at the same time.
        known: whether the client has the file, and asks if it has changed.
        goals: by the names of candidates.
    """

    title: str
    size: int
    connections: int
    known: bool
    goals: dict[str, Goal]

    @property
    def name(self) -> str:
        """Of the file."""
        return f"{self.size}.bin"

    @property
    def path(self) -> str:
        """Where it is served."""
        return f"/{PREFIX}/{self.name}"


AHEAD = {STARLETTE.name: at_least(1.0), WHITENOISE.name: at_least(1.0)}
SMALL = 4096
LARGE = 10 * 2**20
CASES = (
    Case("A file of 4 KiB", SMALL, 64, False, AHEAD),
    Case("The same, which the client has: 304", SMALL, 64, True, AHEAD),
    Case("A file of 10 MiB", LARGE, 8, False, {STARLETTE.name: at_least(1.0)}),
)


def run(report: Report, rounds: int, seconds: int) -> None:
    """Measure each case, and print the sections."""
    candidates = [ASSETS, *OTHERS]
    with _files(), running(candidates) as (servers, absent):
        for case in CASES:
            results = _measure_in_turns(case, candidates, servers, rounds, seconds)
            rows = compare(ASSETS, OTHERS, case.goals, results, absent)
            columns = (f"{case.connections} connections", "requests/s", "CPU us")
            report.section(case.title, columns, rows, _notes(results))


@contextmanager
def _files() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as directory:
        for case in CASES:
            Path(directory, case.name).write_bytes(os.urandom(case.size))
        os.environ[VARIABLE] = directory
        try:
            yield
        finally:
            del os.environ[VARIABLE]


def _measure_in_turns(
    case: Case,
    candidates: Sequence[Candidate],
    servers: dict[str, Server],
    rounds: int,
    seconds: int,
) -> Results:
    present = [each.name for each in candidates if each.name in servers]
    headers = {name: _check(servers[name], case) for name in present}
    for name in present:
        servers[name].warm_up()
    results: Results = {name: [] for name in present}
    for _ in range(rounds):
        for name in present:
            load = measure(
                servers[name], case.path, case.connections, seconds, headers[name]
            )
            results[name].append(load)
    return results


def _check(server: Server, case: Case) -> dict[str, str]:
    # What to ask with, once the server has answered as it should.
    status, validators, size = _ask(server, case.path, {})
    if (status, size) != (200, case.size):
        raise Unavailable(f"{server.candidate.name} gave {status}, {size} bytes")
    if not case.known:
        return {}
    etag, date = validators
    condition = {"If-None-Match": etag} if etag else {"If-Modified-Since": date}
    status, _, size = _ask(server, case.path, condition)
    if (status, size) != (304, 0):
        raise Unavailable(f"{server.candidate.name} gave {status}, and not 304")
    return condition


def _ask(
    server: Server, path: str, headers: dict[str, str]
) -> tuple[int, tuple[str, str], int]:
    request = Request(server.url + path, headers=headers)
    try:
        with urlopen(request, timeout=TIMEOUT) as answer:
            etag = answer.headers.get("ETag", "")
            date = answer.headers.get("Last-Modified", "")
            return answer.status, (etag, date), len(answer.read())
    except HTTPError as error:
        with error:
            return error.code, ("", ""), len(error.read())


def _notes(results: Results) -> str:
    return f"{NOTES}; {describe_pinning()}.{disturbance(results)}"


NOTES = """\
Ratios are of aioext.assets to each. gunicorn's sync closes every connection, and sends
files by sendfile"""

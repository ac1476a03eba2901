"""``python -m benchmarks [name ...]``: measure, and print a table.

Every pair is compared within the same run, in alternating rounds, and as the
median of the rounds' ratios; a goal stands beside what it is judged by.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
import time
from collections.abc import Callable
from importlib import metadata

from . import (
    database,
    in_process,
    rates,
    sockets,
    static,
    stopping,
    streams,
    waiting,
)
from .report import Report
from .servers import Unavailable, raise_limits

# Calls in one round of one case, in process.
CALLS = 2000
QUICK_CALLS = 500
# How often each server is stopped with connections of each kind.
STOPS = 10
QUICK_STOPS = 3

PACKAGES = (
    "aioext",
    "pyramid",
    "greenlet",
    "gunicorn",
    "gunicorn_h1c",
    "uvloop",
    "uvicorn",
    "httptools",
    "websockets",
    "a2wsgi",
    "gevent",
    "fastapi",
    "starlette",
    "sse-starlette",
    "whitenoise",
    "aiohttp",
    "sqlalchemy",
    "asyncpg",
    "psycopg",
    "psycopg2-binary",
)

Benchmark = Callable[[Report, argparse.Namespace], None]

BENCHMARKS: dict[str, Benchmark] = {
    "in_process": lambda report, options: in_process.run(
        report, QUICK_CALLS if options.quick else CALLS
    ),
    "rates": lambda report, options: rates.run(report, options.rounds, options.seconds),
    "executor": lambda report, options: rates.run_executor(
        report, options.rounds, options.seconds
    ),
    "waiting": lambda report, options: waiting.run(
        report, options.rounds, options.seconds
    ),
    "database": lambda report, options: database.run(
        report, options.rounds, options.seconds
    ),
    "sockets": lambda report, options: sockets.run(
        report, options.rounds, options.seconds
    ),
    "static": lambda report, options: static.run(
        report, options.rounds, options.seconds
    ),
    "streams": lambda report, options: streams.run(
        report, options.rounds, options.seconds
    ),
    "stopping": lambda report, options: stopping.run(
        report, QUICK_STOPS if options.quick else STOPS
    ),
}
NEEDING_WRK = {"rates", "executor", "waiting", "database", "static"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    options = _parse(arguments)
    names = options.names or list(BENCHMARKS)
    if NEEDING_WRK & set(names) and shutil.which("wrk") is None:
        print("wrk is missing: apt-get install wrk", file=sys.stderr)
        return 1
    raise_limits()
    print(_describe())
    report = Report()
    start = time.monotonic()
    for name in names:
        try:
            BENCHMARKS[name](report, options)
        except Unavailable as error:
            print(f"\n{name}: {error}", file=sys.stderr)
            return 1
    report.summary()
    print(f"Measured in {time.monotonic() - start:.0f} s.")
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"what to measure: {', '.join(BENCHMARKS)}; without any, everything",
    )
    parser.add_argument(
        "--seconds",
        type=int,
        help="how long a server is loaded in each round (default: 3)",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="of the servers (default: 3)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="shorter rounds, for a first look"
    )
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(
            f"no benchmark {', '.join(sorted(unknown))}; "
            f"there are {', '.join(BENCHMARKS)}"
        )
    if options.seconds is None:
        options.seconds = 1 if options.quick else 3
    if options.seconds < 1 or options.rounds < 1:
        parser.error("--seconds and --rounds take whole numbers of at least 1")
    return options


def _describe() -> str:
    versions = [f"{platform.python_implementation()} {platform.python_version()}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            if package != "aioext":
                versions.append(f"no {package}")
    return ", ".join(versions)


if __name__ == "__main__":
    sys.exit(main())

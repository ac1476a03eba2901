"""Pyramid's own functional tests, with every application served by aioext.

::

    python tests/pyramid_suite.py                         # all modes
    python tests/pyramid_suite.py --mode inline           # one of them
    python tests/pyramid_suite.py --loop uvloop           # those on one loop
    python tests/pyramid_suite.py --mode inline -- -x --pdb -k security

Theory of operation
===================

An add-on that runs Pyramid in another way has to be measured by Pyramid's own
idea of what is right. The source distribution of the installed version holds
its tests; it is downloaded once, into ``build/pyramid``. The tests are run
without aioext first, in a process that does not import it: the *control*. Then
once for each *mode*, a way of running the same applications on aioext, in a
process with :mod:`pyramid_suite_plugin`, which says how. Whatever passes in the
control has to pass in every mode, test by test.

A mode that serves nothing would pass as well. So the plugin counts, and a mode
of which something that it is there for was never done has failed.

In the functional modes, each request overlaps with those of another application.
``bridge`` runs the *whole* of Pyramid's tests, with isolation of requests and the
gateway only: most of them are tests of units, which are expected to see exactly the
configuration that they make. The modes of traversal run Pyramid's tests of that on
aioext's traverser, over the tests' own resources and over the same with
coroutines.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "pyramid"
FUNCTIONAL = "tests/test_integration.py"
WHOLE = "tests"
TRAVERSAL = "tests/test_traversal.py"
TIMEOUT = 120.0


@dataclass(frozen=True)
class Mode:
    """A way of running the tests.

    Attributes:
        name: for ``--mode``, and for the plugin, which knows what it means.
        title: what it does, in a few words.
        counted: what has to be done in it.
        rather: what has to be done in it more often than what is named second.
        tests: which of Pyramid's tests it runs.
        loop: ``asyncio`` or ``uvloop``.
    """

    name: str
    title: str
    counted: tuple[str, ...]
    rather: tuple[str, str] | None = None
    tests: str = FUNCTIONAL
    loop: str = "asyncio"

    @property
    def label(self) -> str:
        return self.name if self.loop == "asyncio" else f"{self.name}-{self.loop}"


# These names are the plugin's.
ALWAYS = ("requests", "overlapping requests")
THREADS, LOOP = "views in threads", "views on the loop"
SUSPENDED = "suspended views"
WALKS, SUSPENDED_STEPS = "traversals", "suspended steps"
FUNCTIONAL_MODES = (
    # A few views are derived before aioext is included, or its settings are read.
    ("executor", "the default, views in threads", ALWAYS, (THREADS, LOOP)),
    ("inline", "views in the request's greenlet", ALWAYS, (LOOP, THREADS)),
    ("request", "each request in a thread", ALWAYS, (THREADS, LOOP)),
    ("suspend", "every view a suspending coroutine", (*ALWAYS, SUSPENDED)),
)
LOOPS = ("asyncio", "uvloop") if importlib.util.find_spec("uvloop") else ("asyncio",)
MODES = (
    *(Mode(*mode, loop=loop) for loop in LOOPS for mode in FUNCTIONAL_MODES),
    Mode(
        "bridge", "all of Pyramid's tests, nothing included", ("requests",), tests=WHOLE
    ),
    Mode("traversal", "aioext's traverser", (WALKS,), tests=TRAVERSAL),
    Mode(
        "async-traversal",
        "every step a suspending coroutine",
        (WALKS, SUSPENDED_STEPS),
        tests=TRAVERSAL,
    ),
)


class Failure(Exception):
    """A mode has failed; the text says how."""


@dataclass(frozen=True)
class Results:
    """What came of one run: outcomes by test, and what was counted."""

    outcomes: dict[str, str]
    counts: dict[str, int]
    output: str

    def having(self, outcome: str) -> set[str]:
        return {test for test, each in self.outcomes.items() if each == outcome}

    def summary(self) -> str:
        numbers = [
            f"{len(self.having(outcome))} {outcome}"
            for outcome in ("passed", "failed", "skipped")
        ]
        return ", ".join(numbers)


def source_directory() -> Path:
    """Pyramid's source distribution, downloaded if it is not there yet."""
    version = importlib.metadata.version("pyramid")
    source = BUILD / version
    if not source.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as work:
            download(version, work)
            (archive,) = Path(work).glob("*.tar.gz")
            unpacked = unpack(archive)
            unpacked.rename(source)
    return source


def download(version: str, directory: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
    options = ["--quiet", "--no-deps", "--no-binary=:all:", "--no-build-isolation"]
    done = subprocess.run([*command, *options, "-d", directory, f"pyramid=={version}"])
    if done.returncode:
        sys.exit(f"The source distribution of Pyramid {version} is not to be had.")


def unpack(archive: Path) -> Path:
    """Unpack an archive of one directory; gives that directory."""
    directory = archive.parent / "unpacked"
    with tarfile.open(archive) as tar:
        # Python 3.11.4 is the first that knows filters.
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(directory, **safely)
    (unpacked,) = directory.iterdir()
    return unpacked


def run(tests: str, mode: Mode | None, arguments: list[str]) -> Results:
    """Run the tests in a process of their own; no mode is the control."""
    with tempfile.TemporaryDirectory() as work:
        report, counts = Path(work, "report.xml"), Path(work, "counts.json")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-o", "addopts=", "-o", "faulthandler_timeout=30", "-W", "ignore"]
        command += [f"--junitxml={report}"]
        if mode is not None:
            command += ["-p", "pyramid_suite_plugin", f"--aioext-mode={mode.name}"]
            command += [f"--aioext-loop={mode.loop}", f"--aioext-counts={counts}"]
            # A coroutine that nobody awaits is lost work.
            command += ["-W", "error::RuntimeWarning"]
            command += ["-W", "error::pytest.PytestUnraisableExceptionWarning"]
        interactive = mode is not None and bool(arguments)
        done = start([*command, *arguments, tests], interactive)
        if done.returncode not in (0, 1):
            raise Failure(f"pytest has ended with {done.returncode}\n{done.stdout}")
        return Results(
            read_report(report),
            json.loads(counts.read_text()) if mode else {},
            done.stdout or "",
        )


def start(command: list[str], interactive: bool) -> subprocess.CompletedProcess[str]:
    path = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    options: dict[str, Any] = {"cwd": source_directory(), "env": environment}
    if interactive:
        return subprocess.run(command, text=True, **options)
    options |= {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
    try:
        return subprocess.run(
            command, text=True, stderr=subprocess.STDOUT, timeout=TIMEOUT, **options
        )
    except subprocess.TimeoutExpired as expired:
        output = (expired.stdout or b"").decode(errors="replace")
        raise Failure(f"not done after {TIMEOUT} seconds\n{output}") from None


def read_report(report: Path) -> dict[str, str]:
    """The outcome of each test, of a report in JUnit's format."""
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        test = f"{case.get('classname')}.{case.get('name')}"
        found = {child.tag for child in case}
        if found & {"failure", "error"} or outcomes.get(test) == "failed":
            outcomes[test] = "failed"
        else:
            outcomes[test] = "skipped" if "skipped" in found else "passed"
    return outcomes


def check(mode: Mode, results: Results, control: Results, partial: bool) -> None:
    """Raise :class:`Failure` unless the mode has done what it should."""
    lost = control.having("passed") - results.having("passed")
    if lost:
        names = "\n".join(f"    {name}" for name in sorted(lost))
        raise Failure(f"{results.output}\nPassed in the control, not here:\n{names}")
    if not partial:
        check_counts(mode, results.counts)


def check_counts(mode: Mode, counts: dict[str, int]) -> None:
    missing = [what for what in mode.counted if not counts.get(what)]
    if missing:
        raise Failure(f"no {', no '.join(missing)}: it has tested nothing")
    if mode.rather is not None:
        rather, than = mode.rather
        if counts.get(rather, 0) <= counts.get(than, 0):
            raise Failure(f"more {than} than {rather}")


def report(label: str, title: str, results: Results) -> None:
    counted = ", ".join(f"{n} {what}" for what, n in sorted(results.counts.items()))
    counted = f" ({counted})" if counted else ""
    print(f"{label:16} {title}: {results.summary()}{counted}", flush=True)


def succeeds(mode: Mode, control: Results, arguments: list[str]) -> bool:
    """Run the tests in one mode, and print what came of it."""
    try:
        results = run(mode.tests, mode, arguments)
        report(mode.label, mode.title, results)
        check(mode, results, control, partial=bool(arguments))
    except Failure as failure:
        again = shlex.join([sys.executable, __file__, "--mode", mode.label])
        print(f"{mode.label} FAILED: {failure}\nAgain: {again}\n", flush=True)
        return False
    return True


def main() -> int:
    """Run the modes asked for; gives the exit status."""
    names = [mode.label for mode in MODES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=names, action="append", help="only this one")
    parser.add_argument("--loop", choices=LOOPS, help="only modes on this loop")
    parser.add_argument(
        "arguments", nargs="*", metavar="-- ARGUMENTS", help="for pytest"
    )
    options = parser.parse_args()
    chosen = [
        mode
        for mode in MODES
        if mode.label in (options.mode or names)
        and mode.loop == (options.loop or mode.loop)
    ]
    if not chosen:
        parser.error(f"none of these modes is on {options.loop}")
    controls = {}
    for tests in dict.fromkeys(mode.tests for mode in chosen):
        try:
            controls[tests] = run(tests, None, options.arguments)
        except Failure as failure:
            sys.exit(f"The control, without aioext: {failure}")
        report("control", f"{tests}, without aioext", controls[tests])
    failed = [
        mode.label
        for mode in chosen
        if not succeeds(mode, controls[mode.tests], options.arguments)
    ]
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""What every test has: ``run``, no skips in CI, and no coroutine left behind."""

import asyncio
import gc
import os
import subprocess
import sys
import textwrap

import pytest

# Seconds after which a coroutine of a test hangs.
LIMIT = 30

IN_CI = os.environ.get("CI") == "true"


@pytest.fixture
def run():
    """Run a coroutine on a loop of its own, and give what it returns.

    What hangs fails.
    """

    async def limited(coroutine):
        async with asyncio.timeout(LIMIT):
            return await coroutine

    def run(coroutine, *, debug=False):
        with asyncio.Runner(debug=debug) as runner:
            return runner.run(limited(coroutine))

    return run


@pytest.fixture
def script():
    """Run a program in a process of its own; gives what it wrote to stdout.

    It has to succeed, in less than ``timeout`` seconds, and to write nothing to
    stderr.
    """
    # Since Python 3.12 a process with threads is warned when it forks.
    forking = "ignore:This process:DeprecationWarning"

    def script(source, *, timeout=30):
        command = [sys.executable, "-W", "ignore::UserWarning", "-W", forking, "-c"]
        result = subprocess.run(
            [*command, textwrap.dedent(source)],
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    return script


@pytest.fixture(autouse=True, scope="module")
def _freeze_garbage():
    # The collections after each test are not to look through everything that was
    # imported, and that earlier modules have left, over and over.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _collect_garbage():
    # A coroutine that nobody awaited warns when it is collected, and a warning
    # is an error: here it is the error of the test that made the coroutine.
    yield
    gc.collect()


def _refuse_skip(report):
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return _refuse_skip((yield))

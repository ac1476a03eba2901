"""The plugin of pytest, in a pytest of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parent.parent / "docs" / "examples" / "testing_conftest.py"

TESTS = """
import asyncio

import pytest
import sqlalchemy as sa

import aioext


@pytest.fixture
def connection():
    engine = sa.create_engine("sqlite+aiosqlite://")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_a_session_waits(connection):
    assert connection.scalar(sa.text("SELECT 1")) == 1


def test_it_waits():
    assert aioext.wait(asyncio.sleep(0, "slept")) == "slept"


def test_a_coroutine_has_its_own_loop():
    async def main():
        with pytest.raises(aioext.ScopeError):
            aioext.wait(asyncio.sleep(0))
        return await asyncio.sleep(0, "slept")

    assert asyncio.run(main()) == "slept"


def test_a_failure_is_one():
    assert not "a failure"
"""


@pytest.fixture
def run(tmp_path):
    """Run those tests; gives what pytest says."""
    (tmp_path / "test_it.py").write_text(TESTS)

    def run(*arguments):
        command = [sys.executable, "-W", "ignore", "-m", "pytest"]
        options = ["-p", "no:cacheprovider", "-q", "--rootdir", tmp_path, tmp_path]
        done = subprocess.run(
            [*command, *options, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        return done.returncode, done.stdout

    return run


def test_tests_and_fixtures_wait(run, tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text("utf-8"))
    status, output = run()
    assert status == 1
    assert "1 failed, 3 passed" in output
    assert "FAILED test_it.py::test_a_failure_is_one" in output


def test_without_it_sqlalchemy_finds_no_greenlet(run):
    status, output = run("-k", "session")
    assert status == 1
    assert "MissingGreenlet" in output


def test_it_stops_at_the_first_failure_if_told(run, tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text("utf-8"))
    status, output = run("-x", "-k", "failure")
    assert status == 1
    assert "stopping after 1 failures" in output

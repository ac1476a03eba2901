"""Which interpreters tox finds."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VERSIONS = ("3.9.18", "3.11.7", "3.13.0", "3.12.1", "3.12.11", "pypy3.11", "x")

# tox tells the environments, but not where it looks for their interpreters.
TELL = """
import sys
from tox.provision import provision
from tox.run import setup_state
state = setup_state(sys.argv[1:])
assert provision(state) is False
print(*state.conf.options.discover)
"""


@pytest.fixture
def pyenv(tmp_path):
    """A directory of pyenv's, with some versions."""
    for version in VERSIONS:
        python = tmp_path / "versions" / version / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
    (tmp_path / "versions" / "3.14.0").mkdir()
    return tmp_path


def discovers(environ, *options):
    """Where tox looks."""
    command = [sys.executable, "-c", TELL, "config", "-c", str(ROOT / "tox.ini")]
    done = subprocess.run(
        [*command, *options], env=environ, capture_output=True, text=True, check=True
    )
    return [Path(each) for each in done.stdout.split()]


def test_versions_of_pyenv_are_found_the_newest_first(pyenv):
    found = discovers({"PYENV_ROOT": str(pyenv)})
    assert [each.parts[-3] for each in found] == [
        "3.13.0",
        "3.12.11",
        "3.12.1",
        "3.11.7",
    ]
    assert all(each.is_relative_to(pyenv) for each in found)


def test_what_the_command_names_comes_before_them(pyenv):
    found = discovers({"PYENV_ROOT": str(pyenv)}, "--discover", "/of/mine")
    assert found[0] == Path("/of/mine")
    assert len(found) == 5


def test_without_pyenv_there_are_none(tmp_path):
    assert discovers({"HOME": str(tmp_path)}) == []

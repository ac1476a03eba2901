"""The Makefile: a front for commands that stand in the README too."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
README = (ROOT / "README.rst").read_text("utf-8")
TARGETS = re.search(r"^\.PHONY: help (.+)$", MAKEFILE, re.MULTILINE)[1].split()


def make(*arguments):
    # The variables of a make that runs the tests are not for this one.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=environment | {"LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def fake_python(directory, script):
    path = directory / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("target", TARGETS)
def test_target_is_explained(target):
    assert f"make {target} " in make("help").stdout
    assert f"``make {target}``" in README


@pytest.mark.parametrize(
    "extras", re.findall(r"extras = (\S+)$", MAKEFILE, re.MULTILINE)
)
def test_what_a_target_installs_stands_in_the_readme(extras):
    assert f"pip install -e '.[{extras}]'" in README


@pytest.mark.parametrize(
    "command", re.findall(r"^\t\$\(PYTHON\) (.+?)(?: \$\(ARGS\))?$", MAKEFILE, re.M)
)
def test_what_a_target_runs_stands_in_the_readme(command):
    assert f"    python {command}\n" in README


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (
            "exit 1",
            "{python} is not Python 3.11 or later: make PYTHON3=python3.11 ...",
        ),
        (
            'case "$2" in *ensurepip*) exit 1;; esac',
            "{python} cannot make environments: apt-get install python3-venv",
        ),
    ],
    ids=["too old", "no ensurepip"],
)
def test_interpreter_that_will_not_do_is_one_line(tmp_path, script, line):
    python = fake_python(tmp_path, script)
    venv = tmp_path / "venv"
    run = make("test", f"PYTHON3={python}", f"VENV={venv}")
    said, of_make = run.stderr.splitlines()
    assert said == line.format(python=python)
    assert of_make.startswith("make: ***")
    assert run.returncode != 0
    assert not venv.exists()


def test_an_environment_is_made_once(tmp_path):
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    fake_python(tmp_path / "venv" / "bin", 'echo "$@"')
    arguments = ["test", "PYTHON3=false", f"VENV={tmp_path / 'venv'}", "ARGS=-k x"]
    first, second = make(*arguments), make(*arguments)
    assert "install -e .[gunicorn,mako,scaffold,test]" in first.stdout
    assert "install" not in second.stdout
    assert second.stdout.endswith("-m pytest -k x\n")

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


def make(*arguments, path=None):
    # The variables of a make that runs the tests are not for this one.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    if path is not None:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=environment | {"LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def fake(directory, script, name="python"):
    path = directory / name
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
    python = fake(tmp_path, script)
    venv = tmp_path / "venv"
    run = make("test", f"PYTHON3={python}", f"VENV={venv}")
    said, of_make = run.stderr.splitlines()
    assert said == line.format(python=python)
    assert of_make.startswith("make: ***")
    assert run.returncode != 0
    assert not venv.exists()


def test_an_environment_is_made_once(tmp_path):
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    fake(tmp_path / "venv" / "bin", 'echo "$@"')
    arguments = ["test", "PYTHON3=false", f"VENV={tmp_path / 'venv'}"]
    arguments += ["ARGS=-k x", "TOOLS="]
    first, second = make(*arguments), make(*arguments)
    assert "install -e .[gunicorn,mako,scaffold,test]" in first.stdout
    assert "install" not in second.stdout
    assert second.stdout.endswith("-m pytest -k x\n")


@pytest.mark.parametrize(
    ("user", "installed"),
    [
        (0, "apt-get update -qq\napt-get install -y -qq the-package other\n"),
        (
            1000,
            "Some tests need what is missing here: apt-get install the-package other\n",
        ),
    ],
    ids=["root", "user"],
)
def test_programs_that_are_missing_are_installed_by_root_and_told_others(
    tmp_path, user, installed
):
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    fake(tmp_path / "venv" / "bin", 'echo "$@"')
    (tmp_path / "bin").mkdir()
    fake(tmp_path / "bin", f"echo {user}", "id")
    fake(tmp_path / "bin", 'echo "apt-get $@" >&2', "apt-get")
    run = make(
        "test",
        "PYTHON3=false",
        f"VENV={tmp_path / 'venv'}",
        "TOOLS=no-program:the-package sh:dash nothing:other",
        path=tmp_path / "bin",
    )
    assert run.stderr == installed
    assert run.stdout.rstrip().endswith("-m pytest")
    assert run.returncode == 0


@pytest.mark.parametrize("is_built", [True, False], ids=["built", "missing"])
def test_uwsgi_is_built_with_the_greenlet_of_the_environment(tmp_path, is_built):
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    fake(programs, 'echo "$UWSGI_PROFILE:$CFLAGS:$@" | tr "\\n" " "; echo')
    fake(programs, f"echo {'--asyncio' if is_built else '--http'}", "uwsgi")
    run = make(
        "test", "PYTHON3=false", f"VENV={tmp_path / 'venv'}", "TOOLS=", "ARGS=-k x"
    )
    assert run.returncode == 0, run.stderr
    built = re.search(r"^asyncio:-I.*include/site/.* install .*uwsgi", run.stdout, re.M)
    assert (built is None) == is_built
    assert run.stderr == ""


def test_tests_run_without_uwsgi_where_it_cannot_be_built(tmp_path):
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    fake(programs, 'case "$*" in *uwsgi*) exit 1;; esac; echo "$@"')
    run = make(
        "test", "PYTHON3=false", f"VENV={tmp_path / 'venv'}", "TOOLS=", "ARGS=-k x"
    )
    assert run.returncode == 0
    assert run.stderr == (
        "uWSGI could not be built: apt-get install build-essential python3-dev\n"
    )
    assert run.stdout.endswith("-m pytest -k x\n")

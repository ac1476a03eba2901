"""aioext as it is installed: from a wheel, and from a checkout.

Everything is made from a copy of the checkout, in environments of its own, as a
user would make it; dependencies come from the package index that pip is
configured for.
"""

import configparser
import contextlib
import email
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from aioext import __version__

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60
"""Seconds within which a server has to start, to answer and to stop."""

INSTALLING = 600
"""Seconds for a command that may have to fetch packages."""

IN_SOURCES = ["aioext", "benchmarks", "docs", "scaffolds", "tests"]


# --- The parts of which the tests are made


def environment(venv=None):
    """The variables of a user's shell, with ``venv`` activated."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COV", "MAKE", "PYTEST", "PYTHON", "VIRTUAL_ENV"))
    }
    if venv is not None:
        variables["PATH"] = f"{venv / 'bin'}{os.pathsep}{variables['PATH']}"
    return variables


def run(command, cwd, venv=None):
    """Run a line of shell, as a user would type it; its output."""
    done = subprocess.run(
        command,
        shell=True,
        cwd=cwd,
        env=environment(venv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALLING,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def build(hook, source, directory):
    """Call a hook of the build backend; the path of what it made."""
    directory.mkdir()
    code = (
        "import sys; from setuptools import build_meta; "
        "print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code, hook, directory],
        cwd=source,
        env=environment(),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=INSTALLING,
    ).stdout
    return directory / output.splitlines()[-1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def get(port, path="/"):
    address = f"http://127.0.0.1:{port}{path}"
    with urllib.request.urlopen(address, timeout=PATIENCE) as response:
        return response.headers.get_content_type(), response.read().decode()


class Server:
    """A command that serves on ``port``, and what it has written."""

    def __init__(self, command, cwd, log, port, venv=None):
        self.log = log
        self.port = port
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment(venv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_it_answers(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                return get(self.port)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
                break
        raise AssertionError(f"no answer from {self.process.args}:\n{self.written()}")

    def written(self):
        return self.log.read_text("utf-8", "replace")

    def stop(self, signal_number):
        """Signal the whole group, as a terminal does; the exit status."""
        os.killpg(self.process.pid, signal_number)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not stop:\n{self.written()}") from None

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def check_starter(port):
    """What the starter project answers, and where each view ran."""
    kind, page = get(port)
    assert kind == "text/html"
    assert "It works." in page
    kind, document = get(port, "/status.json")
    assert kind == "application/json"
    assert json.loads(document)["status"] == "ok"
    assert json.loads(document)["thread"] == "MainThread"
    kind, text = get(port, "/thread")
    assert kind == "text/plain"
    assert "thread" in text
    assert "MainThread" not in text


def files_below(directory):
    """The files that a release may hold, relative to ``directory``."""
    return {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


# --- What is made once


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout, without what a clone would not have."""

    def ignored(directory, names):
        top = Path(directory) == ROOT
        return {
            name
            for name in names
            if name in {"__pycache__", "build", "dist"}
            or name.endswith((".egg-info", ".pyc"))
            or (top and name.startswith("."))
        }

    copy = tmp_path_factory.mktemp("checkout") / "aioext"
    shutil.copytree(ROOT, copy, ignore=ignored)
    return copy


@pytest.fixture(scope="module")
def used_checkout(checkout, tmp_path_factory):
    """The same after a while: with byte code, in the templates too."""
    copy = tmp_path_factory.mktemp("used") / "aioext"
    shutil.copytree(checkout, copy)
    for directory in [copy / "aioext", *(copy / "scaffolds").rglob("*/")]:
        if directory.name != "__pycache__":
            (directory / "__pycache__").mkdir()
            (directory / "__pycache__" / "views.cpython-311.pyc").touch()
    return copy


@pytest.fixture(scope="module")
def sdist(used_checkout, tmp_path_factory):
    return build("build_sdist", used_checkout, tmp_path_factory.mktemp("sdist") / "out")


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel, built from what the source distribution holds."""
    directory = tmp_path_factory.mktemp("wheel")
    # tarfile extracts safely, and without a warning, only since Python 3.11.4.
    run(f"tar xf '{sdist}'", directory)
    return build("build_wheel", next(directory.iterdir()), directory / "out")


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = f"aioext-{__version__}.dist-info/METADATA"
        return email.message_from_string(archive.read(name).decode())


# --- What the distributions hold


def test_sdist_holds_the_sources(checkout, sdist):
    with tarfile.open(sdist) as archive:
        names = {
            PurePosixPath(member.name).relative_to(f"aioext-{__version__}").as_posix()
            for member in archive
            if member.isfile()
        }
    expected = {"CHANGES.rst", "CONTRIBUTING.rst", "LICENSE", "Makefile", "README.rst"}
    expected |= {"pyproject.toml", "setup.py", "tox.ini", "toxfile.py"}
    for directory in IN_SOURCES:
        below = files_below(checkout / directory)
        expected |= {f"{directory}/{name}" for name in below}
    assert expected <= names
    assert not [name for name in names if name.endswith(".pyc")]


def check_wheel(checkout, wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {f"aioext/{name}" for name in files_below(checkout / "aioext")}
    below = files_below(checkout / "scaffolds")
    scaffolds = {f"aioext/scaffolds/{name}" for name in below}
    assert any("/.gitignore" in name for name in scaffolds)
    assert names == package | scaffolds


def test_wheel_holds_the_package_and_the_scaffolds(checkout, wheel):
    check_wheel(checkout, wheel)


def test_wheel_built_in_a_used_checkout_is_the_same(checkout, used_checkout, tmp_path):
    check_wheel(checkout, build("build_wheel", used_checkout, tmp_path / "out"))


def test_wheel_is_for_every_platform(wheel):
    assert wheel.name == f"aioext-{__version__}-py3-none-any.whl"


def test_metadata(metadata):
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "Framework :: Pyramid" in metadata.get_all("Classifier")


def test_hard_dependencies(metadata):
    required = {
        re.match(r"[\w.-]+", line)[0]
        for line in metadata.get_all("Requires-Dist")
        if "extra ==" not in line
    }
    assert required == {"greenlet", "pyramid", "websockets", "zope.interface"}


def test_entry_points(wheel):
    parser = configparser.ConfigParser(delimiters=["="])
    with zipfile.ZipFile(wheel) as archive:
        name = f"aioext-{__version__}.dist-info/entry_points.txt"
        parser.read_string(archive.read(name).decode())
    assert {group: dict(parser[group]) for group in parser.sections()} == {
        "console_scripts": {
            "aioext-assets": "aioext.scripts.assets:main",
            "pcreate": "aioext.scripts.pcreate:main",
        },
        "paste.server_factory": {"uvicorn": "aioext.asgi.uvicorn:make_server"},
        "pyramid.pshell_runner": {"aioext": "aioext.pshell:run_shell"},
        "pyramid.scaffold": {
            "aio_starter": "aioext.scaffolds:aio_starter",
            "aio_websocket": "aioext.scaffolds:aio_websocket",
        },
    }


# --- What a user does with them


def test_the_quick_start_from_the_wheel(wheel, tmp_path):
    venv = tmp_path / "venv"
    run(f"'{sys.executable}' -m venv '{venv}'", tmp_path)

    run(f"pip install '{wheel}[gunicorn,mako,scaffold]'", tmp_path, venv)
    run("pcreate -s aio_starter hello", tmp_path, venv)
    hello = tmp_path / "hello"
    assert not list(hello.rglob("__pycache__"))
    run("pip install -e .", hello, venv)

    run("pip check", hello, venv)
    port = free_port()
    command = ["pserve", "development.ini", f"http_port={port}"]
    command[0] = str(venv / "bin" / command[0])
    with Server(command, hello, tmp_path / "log", port, venv) as server:
        server.wait_until_it_answers(PATIENCE)
        check_starter(port)
        assert server.stop(signal.SIGTERM) == 0, server.written()
        assert "Traceback" not in server.written()
        with pytest.raises(urllib.error.URLError):
            get(port)


def test_make_demo_in_a_clone(checkout, tmp_path):
    port = free_port()
    command = ["make", "demo", f"PORT={port}", f"PYTHON3={sys.executable}"]
    with Server(command, checkout, tmp_path / "log", port) as server:
        server.wait_until_it_answers(INSTALLING)
        assert f"Serving on http://127.0.0.1:{port} " in server.written()
        check_starter(port)
        server.stop(signal.SIGINT)
        assert "Traceback" not in server.written()

    # A second time there is nothing left to do but to serve.
    port = free_port()
    command = ["make", "demo", f"PORT={port}", "PYTHON3=false"]
    with Server(command, checkout, tmp_path / "again", port) as server:
        server.wait_until_it_answers(PATIENCE)
        assert server.written().startswith(f"Serving on http://127.0.0.1:{port} ")
        server.stop(signal.SIGINT)

    # What was installed is the clone itself, scaffolds included.
    code = (
        "import aioext.scaffolds; "
        "print(aioext.__file__, aioext.scaffolds.aio_starter(), sep='\\n')"
    )
    found = run(f'python -W ignore -c "{code}"', tmp_path, checkout / ".venv")
    assert found.splitlines() == [
        str(checkout / "aioext" / "__init__.py"),
        str(checkout / "scaffolds" / "aio_starter"),
    ]

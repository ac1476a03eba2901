"""The scaffold ``aio_starter``: made, installed, tested and served for real."""

import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

import pytest

from aioext.scripts.pcreate import create

PATIENCE = 60
"""Seconds after which something that should have happened counts as failed."""

INSTALL = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project made from the scaffold."""
    return create("aio_starter", tmp_path_factory.mktemp("made") / "hello")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The environment of the processes: a home of their own, nothing else changed."""
    ignored = "ignore:pkg_resources is deprecated:UserWarning"
    return os.environ | {
        "HOME": str(tmp_path_factory.mktemp("home")),
        "PYTHONWARNINGS": ignored,
    }


@pytest.fixture(scope="module")
def python(project, environment, tmp_path_factory):
    """The interpreter of a virtual environment in which the project is installed.

    The environment sees what the running interpreter has, so that nothing needs to
    be fetched.
    """
    directory = tmp_path_factory.mktemp("venv")
    venv.create(directory, symlinks=True)
    interpreter = directory / "bin" / "python"
    site = sysconfig.get_path(
        "purelib", "venv", vars={"base": directory, "platbase": directory}
    )
    Path(site, "outer.pth").write_text(
        "".join(
            f"import site; site.addsitedir({path!r})\n"
            for path in sys.path
            if path.endswith("site-packages")
        )
    )
    subprocess.run(
        [interpreter, *INSTALL, "--editable", project],
        check=True,
        env=environment,
    )
    return interpreter


WORKERS = {"development.ini": 1, "production.ini": 2}


class Server:
    """A project served by ``pserve``, with what it has written so far."""

    def __init__(self, command, **options):
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        self.output = []
        self._lines = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        with self.process.stdout:
            for line in self.process.stdout:
                self.output.append(line)
                self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, pattern):
        """The next line that matches, as a match object."""
        deadline = time.monotonic() + PATIENCE
        while True:
            line = self._lines.get(timeout=max(0, deadline - time.monotonic()))
            assert line is not None, "".join(self.output)
            if match := re.search(pattern, line):
                return match

    def get(self, path):
        with urllib.request.urlopen(self.address + path, timeout=PATIENCE) as answer:
            return answer.headers.get_content_type(), answer.read().decode()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return self.process.returncode

    def kill(self):
        self.process.kill()
        self.process.wait()
        self._reader.join()


@pytest.fixture(scope="module")
def serve(project, python, environment):
    """Serve the project with the settings of an ini file."""
    started = []

    def serve(settings):
        server = Server(
            [python, "-m", "pyramid.scripts.pserve", settings, "http_port=0"],
            cwd=project,
            env=environment,
        )
        started.append(server)
        server.address = server.wait_for(r"Listening at: (http://127\.0\.0\.1:\d+)")[1]
        for _ in range(WORKERS[settings]):
            server.wait_for("ASGI server listening on")
        return server

    yield serve
    for server in started:
        server.kill()


@pytest.fixture(scope="module", params=WORKERS)
def server(request, serve):
    """The project, served."""
    server = serve(request.param)
    yield server
    server.stop()


def test_nothing_of_the_template_language_is_left(project):
    for path in project.rglob("*"):
        assert "cookiecutter" not in path.name
        if path.is_file():
            text = path.read_text("utf-8")
            assert "{{" not in text
            assert "cookiecutter" not in text


def test_pages_use_nothing_from_elsewhere(project):
    for path in (project / "hello").rglob("*"):
        if path.suffix in {".mako", ".css"}:
            assert "//" not in path.read_text("utf-8"), path


def test_the_projects_code_is_well_formed(project):
    pytest.importorskip("ruff")
    for command in (["check"], ["format", "--check"]):
        subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache", "."],
            check=True,
            cwd=project,
        )


def test_the_projects_own_tests_pass(project, python, environment):
    ended = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout
    assert re.search(r"^9 passed", ended.stdout, re.MULTILINE)


def test_the_built_project_contains_its_templates_and_static_files(
    project, python, environment, tmp_path
):
    subprocess.run(
        [python, *INSTALL, "--target", tmp_path, project],
        check=True,
        env=environment,
    )
    assert (tmp_path / "hello/templates/layout.mako").is_file()
    assert (tmp_path / "hello/static/style.css").is_file()


def test_a_wheel_of_aioext_has_every_file_of_the_scaffold(tmp_path, environment):
    root = Path(__file__).parents[1]
    source = tmp_path / "source"
    for name in ("aioext", "scaffolds"):
        shutil.copytree(
            root / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for path in root.iterdir():
        if path.is_file():
            shutil.copy(path, source)
    subprocess.run(
        [sys.executable, *INSTALL, "--target", tmp_path / "target", source],
        check=True,
        env=environment,
    )
    installed = tmp_path / "target" / "aioext" / "scaffolds"
    assert files(installed) == files(source / "scaffolds")


def files(directory):
    """The names of the files below a directory, byte code left out."""
    return {
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_the_page_is_made_on_the_event_loop_of_the_worker(server):
    kind, page = server.get("/")
    assert kind == "text/html"
    assert "<h1>It works.</h1>" in page
    loops = r"Event loop <code>(uvloop|asyncio\.\w+)</code>"
    assert re.search(loops + " in the thread <code>MainThread</code>", page)


def test_the_json_view_answers_from_the_event_loop_of_the_worker(server):
    kind, body = server.get("/status.json")
    assert kind == "application/json"
    answer = json.loads(body)
    assert answer["status"] == "ok"
    assert answer["thread"] == "MainThread"


def test_the_synchronous_view_answers_from_the_executor(server):
    kind, body = server.get("/thread")
    assert kind == "text/plain"
    assert re.fullmatch(r"This view ran in the thread aioext-executor\S*\.\n", body)


def test_static_files_are_served(server):
    assert server.get("/static/style.css")[0] == "text/css"
    assert server.get("/static/icon.svg")[0] == "image/svg+xml"


def test_an_unknown_address_is_not_found(server):
    with pytest.raises(urllib.error.HTTPError) as error:
        server.get("/nowhere")
    with error.value as answer:
        assert answer.code == 404


@pytest.mark.parametrize("settings", WORKERS)
def test_a_termination_signal_ends_the_server(settings, serve):
    server = serve(settings)
    server.get("/thread")
    assert server.stop() == 0
    assert "Traceback" not in "".join(server.output)
    with pytest.raises(urllib.error.URLError):
        server.get("/")


def test_development_writes_a_line_for_each_request(serve):
    server = serve("development.ini")
    server.get("/status.json")
    server.wait_for(r"GET /status\.json .* 200")

"""The scaffold ``aio_starter``: made, installed, tested and served for real."""

import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import servers
from projects import INSTALL, Server, environment_with, install

from aioext.scripts.pcreate import create


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project made from the scaffold."""
    return create("aio_starter", tmp_path_factory.mktemp("made") / "hello")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The environment of the processes."""
    return environment_with(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def python(project, environment, tmp_path_factory):
    """The interpreter of a virtual environment in which the project is installed."""
    return install(project, tmp_path_factory.mktemp("venv"), environment)


WORKERS = {"development.ini": 1, "production.ini": 2}


@pytest.fixture(scope="module")
def serve(project, python, environment):
    """Serve the project with the settings of an ini file."""
    started = []

    def serve(settings):
        server = Server(python, project, settings, environment)
        started.append(server)
        server.wait_until_listening(WORKERS[settings])
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
        if path.suffix in {".mako", ".scss"}:
            assert "//" not in path.read_text("utf-8"), path


def test_the_application_needs_no_ini_file(python, environment):
    """``gunicorn 'hello:main()'``, ``waitress-serve --call hello:main``."""
    code = "import hello; assert callable(hello.main())"
    subprocess.run([python, "-c", code], check=True, env=environment)


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
    assert re.search(r"^11 passed", ended.stdout, re.MULTILINE)


def test_the_built_project_contains_its_templates_and_static_files(
    project, python, environment, tmp_path
):
    subprocess.run(
        [python, *INSTALL, "--target", tmp_path, project],
        check=True,
        env=environment,
    )
    assert (tmp_path / "hello/templates/layout.mako").is_file()
    assert (tmp_path / "hello/static/icon.svg").is_file()
    assert (tmp_path / "hello/scss/_colours.scss").is_file()


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


def test_the_same_view_is_a_page(server):
    kind, page = server.get("/status")
    assert kind == "text/html"
    assert "<h1>Status: ok</h1>" in page
    # What the page shows, and the JSON does not tell.
    assert re.search(r"of the process <code>\d+</code>", page)
    assert "process" not in json.loads(server.get("/status.json")[1])


def test_the_style_sheet_is_built_and_has_its_version(server):
    address = re.search(r'"(/static/style\.css\?v=\d+)"', server.get("/")[1])[1]
    with urllib.request.urlopen(server.address + address) as answer:
        assert answer.headers["Cache-Control"].endswith("immutable")
        assert ".hero h1{" in answer.read().decode()


def test_a_change_of_the_style_sheet_is_seen_in_development(serve, project):
    server = serve("development.ini")
    before = re.search(r"style\.css\?v=\d+", server.get("/")[1])[0]
    path = project / "hello" / "scss" / "_colours.scss"
    path.write_text(path.read_text("utf-8").replace("#24201c", "#010203"), "utf-8")
    after = re.search(r"style\.css\?v=\d+", server.get("/")[1])[0]
    assert after != before
    assert "#010203" in server.get(f"/static/{after}")[1]


def test_the_style_sheet_is_built_ahead_of_time(project, python, environment):
    command = [python, "-m", "aioext.scripts.assets", "build", "production.ini"]
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"\[1/1\] hello:static/style\.css ", done.stdout)


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


@pytest.mark.parametrize("settings", WORKERS)
def test_the_project_runs_under_uwsgi(settings, project, python, environment):
    # On a port that the system chooses.
    text = (project / settings).read_text("utf-8")
    assert text.count("127.0.0.1:6543") == 1
    here = project / f"uwsgi-{settings}"
    here.write_text(text.replace("127.0.0.1:6543", "127.0.0.1:0"), "utf-8")
    command = ["uwsgi", "--ini-paste", here.name, "--home", str(python.parents[1])]
    try:
        with servers.run(command, project, environment) as server:
            address = f"http://127.0.0.1:{server.port}"
            for path in ("/", "/status.json", "/thread", "/static/style.css"):
                with urllib.request.urlopen(address + path, timeout=60) as answer:
                    assert answer.status == 200
                    assert answer.read()
            assert server.stop() == 0
            assert "Traceback" not in server.output
    finally:
        here.unlink()

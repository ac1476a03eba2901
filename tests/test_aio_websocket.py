"""The scaffold ``aio_websocket``: made, installed, tested, and used in a browser."""

import http.server
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager

import pytest
import servers
from browser import browse
from projects import INSTALL, PATIENCE, Server, environment_with, install
from relay import Relay
from servers import poll
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from aioext.scripts.pcreate import create

# What Chromium's console says of a server that is not there.
LOST = r"WebSocket connection to '\S+' failed|/ticks\S* - Failed to load resource: "


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project made from the scaffold."""
    return create("aio_websocket", tmp_path_factory.mktemp("made") / "chat")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The environment of the processes."""
    return environment_with(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def python(project, environment, tmp_path_factory):
    """The interpreter of a virtual environment in which the project is installed."""
    return install(project, tmp_path_factory.mktemp("venv"), environment)


@pytest.fixture
def serve(project, python, environment):
    """Serve the project with the settings of an ini file."""
    started = []

    def serve(settings="development.ini", port=0):
        server = Server(python, project, settings, environment, port)
        started.append(server)
        server.wait_until_listening()
        return server

    yield serve
    for server in started:
        if server.process.poll() is None:
            server.stop()
        server.kill()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A browser for all tests, as it takes a while to start."""
    with browse(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def page(chromium):
    """Open the project's page, and wait for both of its connections."""

    def page(address):
        chromium.open(address)
        wait_for_states(chromium, "connected", "connected")
        return chromium

    yield page
    chromium.open("about:blank")
    chromium.console()


def wait_for_states(browser, chat, ticks):
    """Wait until both parts of the page tell these states of their connections."""
    browser.wait_until(
        "Array.from(document.querySelectorAll('.state'), (e) => e.textContent).join()"
        " == arguments[0]",
        f"{chat},{ticks}",
    )


def lines(browser, section):
    """What stands in the list of a section, line by line."""
    script = "Array.from(document.querySelectorAll(arguments[0]), (e) => e.textContent)"
    return [line.strip() for line in browser.run(script, f"#{section} li")]


def numbers(browser):
    """The numbers of the ticks that the page has got."""
    script = (
        "Array.from(document.querySelectorAll('#ticks .tick'),"
        " (e) => Number(e.dataset.number))"
    )
    return browser.run(script)


def wait_for_tick(browser, number):
    """Wait until the last tick on the page has this number, or a later one."""
    browser.wait_until(
        "Number(document.querySelector('#ticks .tick:last-child')?.dataset.number)"
        " >= arguments[0]",
        number,
    )


def wait_for_a_tick_on(server, number):
    """Wait until a server has got to the tick with this number."""
    with urllib.request.urlopen(server.address + "/ticks", timeout=PATIENCE) as stream:
        for line in stream:
            if line.startswith(b"data:") and json.loads(line[5:])["number"] >= number:
                return


def assert_consecutive(numbers):
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


# The project


def test_nothing_of_the_template_language_is_left(project):
    for path in project.rglob("*"):
        assert "cookiecutter" not in path.name
        if path.is_file():
            text = path.read_text("utf-8")
            assert "{{" not in text
            assert "cookiecutter" not in text


def test_the_page_uses_nothing_from_elsewhere(project):
    for path in (project / "chat").rglob("*"):
        if path.suffix in {".mako", ".css"}:
            assert "//" not in path.read_text("utf-8"), path
        if path.suffix == ".js":
            assert "://" not in path.read_text("utf-8"), path


def test_the_application_needs_no_ini_file(python, environment):
    """``gunicorn 'chat:main()'``, ``waitress-serve --call chat:main``."""
    code = "import chat; assert callable(chat.main())"
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
    assert re.search(r"^12 passed", ended.stdout, re.MULTILINE)


def test_the_built_project_contains_its_templates_and_static_files(
    project, python, environment, tmp_path
):
    subprocess.run(
        [python, *INSTALL, "--target", tmp_path, project],
        check=True,
        env=environment,
    )
    assert (tmp_path / "chat/templates/home.mako").is_file()
    assert (tmp_path / "chat/static/page.js").is_file()


def test_open_connections_do_not_hold_up_the_end(serve):
    """Not even where requests are given thirty seconds."""
    server = serve("production.ini")
    with connect(f"ws://127.0.0.1:{server.port}/chat") as socket:
        with urllib.request.urlopen(
            server.address + "/ticks", timeout=PATIENCE
        ) as ticks:
            stopped = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - stopped < 10
            assert re.search(rb"^retry: *\d+$", ticks.read(), re.MULTILINE)
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=PATIENCE)
        assert socket.close_code == 1012
    assert "Traceback" not in "".join(server.output)


@pytest.mark.parametrize("settings", ["development.ini", "production.ini"])
def test_both_connections_work_under_uwsgi(settings, project, python, environment):
    # On a port that the system chooses, with one room.
    text = (project / settings).read_text("utf-8").replace(":6543", ":0", 1)
    here = project / f"uwsgi-{settings}"
    here.write_text(text.replace("processes = 2", "processes = 1"), "utf-8")
    command = ["uwsgi", "--ini-paste", here.name, "--home", str(python.parents[1])]
    try:
        with (
            servers.run(command, project, environment) as server,
            connect(f"ws://127.0.0.1:{server.port}/chat") as socket,
            urllib.request.urlopen(
                f"http://127.0.0.1:{server.port}/ticks", timeout=PATIENCE
            ) as ticks,
        ):
            socket.send("hello")
            assert socket.recv(timeout=PATIENCE) == "hello"
            assert any(line.startswith(b"data:") for line in ticks)
            server.send_signal(signal.SIGTERM)
            assert re.search(rb"^retry: *\d+$", ticks.read(), re.MULTILINE)
            with pytest.raises(ConnectionClosed):
                socket.recv(timeout=PATIENCE)
            assert socket.close_code == 1012
            assert server.process.wait(PATIENCE) == 0
            assert "Traceback" not in server.output
    finally:
        here.unlink()


# The page in a browser


def test_what_is_typed_comes_back(serve, page, tmp_path):
    server = serve()
    browser = page(server.address)
    browser.type("#message", "hello\n")
    browser.wait_until("document.querySelector('#chat .response')")
    assert lines(browser, "chat") == ["CONNECTED", "SENT hello", "RESPONSE hello"]

    browser.type("#message", "once more")
    browser.click("#chat button")
    browser.wait_until("document.querySelectorAll('#chat .response').length == 2")
    assert lines(browser, "chat")[3:] == ["SENT once more", "RESPONSE once more"]

    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    assert browser.console() == []
    assert server.stop() == 0
    assert "Traceback" not in "".join(server.output)


def test_others_hear_it_and_are_heard(serve, page):
    """What they say is shown as it is, whatever it says."""
    server = serve()
    browser = page(server.address)
    with connect(f"ws://127.0.0.1:{server.port}/chat") as other:
        other.send("<img src=x onerror=alert(1)>")
        browser.wait_until("document.querySelector('#chat .response')")
        other.recv(timeout=PATIENCE)
        browser.type("#message", "anybody?\n")
        assert other.recv(timeout=PATIENCE) == "anybody?"
    assert lines(browser, "chat")[1] == "RESPONSE <img src=x onerror=alert(1)>"
    assert browser.console() == []


def test_a_screen_reader_is_told_what_is_what(serve, page):
    browser = page(serve().address)
    assert browser.accessible("#message") == ("textbox", "Message to everybody")
    assert browser.accessible("#chat button") == ("button", "Send")
    assert browser.accessible("#chat .lines") == (
        "log",
        "What happened on the WebSocket",
    )
    assert browser.accessible("#ticks .lines") == ("list", "Ticks of the event stream")
    assert browser.accessible("#ticks .state")[0] == "status"


def test_ticks_come_one_by_one(serve, page):
    browser = page(serve().address)
    browser.run(
        "window.times = [];"
        "new MutationObserver((records) => {"
        "  for (const record of records) {"
        "    record.addedNodes.forEach(() => times.push(performance.now()));"
        "  }"
        "}).observe(document.querySelector('#ticks .lines'), { childList: true });"
        "return true;"
    )
    # Those that were held up together would come in the same millisecond.
    browser.wait_until(
        "times.some((time, i) => i > 2"
        " && [0, 1, 2].every((back) => times[i - back] - times[i - back - 1] > 200))"
    )
    assert_consecutive(numbers(browser))
    assert browser.console() == []


def test_the_page_comes_back_when_the_server_does(serve, page, tmp_path):
    server = serve()
    browser = page(server.address)
    wait_for_tick(browser, 2)
    assert server.stop() == 0
    assert "Traceback" not in "".join(server.output)
    browser.wait_until("document.querySelector('#chat .disconnected')")
    browser.wait_until("document.querySelector('#chat button').disabled")
    assert lines(browser, "chat")[-1].startswith("DISCONNECTED 1012")
    browser.screenshot(tmp_path / "disconnected.png")

    serve(port=server.port)
    wait_for_states(browser, "connected", "connected")
    browser.wait_until("document.querySelector('#ticks .reset ~ .tick')")
    browser.type("#message", "back\n")
    browser.wait_until("document.querySelector('#chat .response')")
    assert lines(browser, "chat")[-3:] == ["CONNECTED", "SENT back", "RESPONSE back"]
    browser.screenshot(tmp_path / "back.png")
    assert_expected(browser.console())


def assert_expected(messages):
    assert [each for each in messages if not re.search(LOST, each)] == []
    # What the server ends, it ends as HTTP wants it.
    assert "CHUNKED" not in "".join(messages)


def test_no_tick_is_missed_when_the_connection_was_lost(serve, page):
    server = serve()
    with Relay(server.port) as relay:
        browser = page(f"http://127.0.0.1:{relay.port}")
        wait_for_tick(browser, 2)
        relay.cut()
        browser.wait_until("document.querySelector('#chat .disconnected')")
        wait_for_states_other_than_connected(browser)
        seen = numbers(browser)[-1]
        wait_for_a_tick_on(server, seen + 2)
        assert numbers(browser)[-1] == seen
        relay.mend()
        wait_for_tick(browser, seen + 3)
        wait_for_states(browser, "connected", "connected")
    assert_consecutive(numbers(browser))
    assert not any(line.startswith("RESET") for line in lines(browser, "ticks"))


def wait_for_states_other_than_connected(browser):
    browser.wait_until(
        "Array.from(document.querySelectorAll('.state'))"
        ".every((e) => e.textContent != 'connected')"
    )


@contextmanager
def unavailable(port):
    """Answer 503 to everything; gives the list of what is asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(503)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def test_the_page_survives_a_proxy_that_has_lost_its_server(serve, page):
    """An error page ends an EventSource for good; the page opens another one."""
    server = serve()
    browser = page(server.address)
    wait_for_tick(browser, 1)
    assert server.stop() == 0
    with unavailable(server.port) as asked:
        poll(lambda: any(path.startswith("/ticks") for path in asked))
    serve(port=server.port)
    wait_for_states(browser, "connected", "connected")
    browser.wait_until("document.querySelector('#ticks .reset ~ .tick')")
    assert_expected(browser.console())

"""Files that are built while a server serves: once, without holding up anybody."""

import os
import signal
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from servers import DEADLINE, HERE, poll, serve

KINDS = {"gunicorn": ["-w", "2"], "uvicorn": [], "uwsgi": [], "granian": []}


@pytest.fixture
def place(tmp_path):
    """Where the files are."""
    (tmp_path / "source.txt").write_text("built\n")
    return tmp_path


@pytest.fixture
def start(place):
    """Start a server of the application."""

    def start(kind, *options):
        app = "built_app:main()"
        if kind in ("uvicorn", "granian"):
            app, options = "built_app:asgi", ("--factory", *options)
        environ = {"BUILT_PLACE": str(place)}
        return serve(kind, app, *options, directory=HERE / "apps", environ=environ)

    return start


def get(server, path):
    url = f"http://127.0.0.1:{server.port}{path}"
    with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
        return answer.read().decode()


def calls(place):
    path = place / "calls"
    return path.read_text().split() if path.exists() else []


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("kind", KINDS)
def test_one_build_serves_all_and_the_server_goes_on(start, place, kind):
    with start(kind, *KINDS[kind]) as server, ThreadPoolExecutor(50) as clients:
        asking = [clients.submit(get, server, "/static/slow.txt") for _ in range(50)]
        poll(lambda: calls(place), server=server)
        for path in ["/ping", "/blocking"] * 5:
            assert get(server, path) == "pong"
        assert not any(each.done() for each in asking)
        (place / "may_end").touch()
        assert {each.result(DEADLINE) for each in asking} == {"built\n"}
        assert len(calls(place)) == 1
        assert get(server, "/static/slow.txt") == "built\n"
        # uvicorn ends itself by the signal.
        assert server.stop() in (0, -signal.SIGTERM)
        assert "Traceback" not in server.output


@pytest.mark.parametrize("path", ["/page", "/contents"])
def test_who_asks_in_another_way_holds_no_thread_either(start, place, path):
    with start("gunicorn") as server, ThreadPoolExecutor(50) as clients:
        asking = [clients.submit(get, server, path) for _ in range(50)]
        poll(lambda: calls(place), server=server)
        for _ in range(10):
            assert get(server, "/blocking") == "pong"
        assert not any(each.done() for each in asking)
        (place / "may_end").touch()
        assert len({each.result(DEADLINE) for each in asking}) == 1
        assert len(calls(place)) == 1


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_the_first_client_leaves(start, place, kind):
    with start(kind) as server, ThreadPoolExecutor(1) as clients:
        with server.connect() as leaving:
            leaving.sendall(b"GET /static/slow.txt HTTP/1.1\r\nHost: a\r\n\r\n")
            poll(lambda: calls(place), server=server)
        second = clients.submit(get, server, "/static/slow.txt")
        assert get(server, "/ping") == "pong"
        (place / "may_end").touch()
        assert second.result(DEADLINE) == "built\n"
        assert len(calls(place)) == 1


def test_what_cannot_be_built_is_500_and_told_in_the_log_alone(start):
    with start("gunicorn") as server:
        with pytest.raises(urllib.error.HTTPError) as raised:
            get(server, "/static/broken.txt")
        with raised.value as answer:
            assert answer.code == 500
            assert "wrong" not in answer.read().decode()
        server.wait_for("broken.txt could not be built")
        server.wait_for("what is wrong")
        assert get(server, "/ping") == "pong"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gunicorn", ["--graceful-timeout", "1"]),
        ("uvicorn", ["--timeout-graceful-shutdown", "1"]),
    ],
)
def test_the_end_of_the_server_ends_the_build(start, place, kind, options):
    with start(kind, *options) as server:
        with server.connect() as client:
            client.sendall(b"GET /static/slow.txt HTTP/1.1\r\nHost: a\r\n\r\n")
            poll(lambda: calls(place), server=server)
            assert server.stop() in (0, -signal.SIGTERM)
    (pid,) = calls(place)
    poll(lambda: not is_alive(int(pid)))
    assert not list(place.glob("cache/*/slow.txt"))

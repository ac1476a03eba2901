"""Plain WSGI servers that stop, fork, and are patched, while requests wait.

The application is ``apps/plain_app.py``.
"""

import re
import signal
import time
from pathlib import Path

import pytest
from life import APPS, ENVIRON, ROOT, assert_clean, events, get, pids
from servers import DEADLINE, Server, poll, run
from test_wsgi_servers import FACTORY, GUNICORN, SERVERS, Stream

GTHREAD = [*GUNICORN, "-k", "gthread", "--threads", "8"]
SYNC = [*GUNICORN, "-k", "sync"]
# The settings that the documentation shows.
SETTINGS = ROOT / "docs" / "examples" / "gunicorn_threads.py"
STOPPING = [*GUNICORN, "-c", str(SETTINGS)]
# Seconds; less than a graceful timeout, on a machine with much to do.
AT_ONCE = 10


def start(*command):
    return run([*command], APPS, ENVIRON)


class Waiting:
    """Requests of a server that wait: two for something, and an event stream."""

    def __init__(self, server):
        self.requests = []
        for key, view in ("a", "meet"), ("b", "meet_sync"):
            self.requests.append(Stream(server, f"/{view}?key={key}"))
            server.wait_for(f"event: waits {key} ")
        self.stream = Stream(server, "/events?key=c").begin().until("data: ")

    def statuses(self):
        return [each.begin().until_end().status for each in self.requests]

    def close(self):
        for each in (*self.requests, self.stream):
            each.close()


def worker_of(server):
    """The id of gunicorn's worker."""
    return poll(server.children, server.describe)[0]


def until_idle(server):
    """Wait until the worker's main thread does nothing but wait.

    gunicorn's handlers of SIGINT and SIGQUIT end the worker where it stands, which
    may be in the middle of an answer, or with a lock held that they ask for.
    """
    stat = Path(f"/proc/{worker_of(server)}/stat")
    states = []

    def has_slept():
        states.append(stat.read_text().rpartition(")")[2].split()[0])
        return states[-20:] == ["S"] * 20

    poll(has_slept, server.describe)


def end(server, timeout=DEADLINE):
    """Its exit status, and how long it took."""
    begin = time.monotonic()
    try:
        status = server.process.wait(timeout)
    except Exception:
        raise AssertionError(server.describe("did not stop")) from None
    return status, time.monotonic() - begin


def assert_ended_in_order(server):
    """What waited has ended, and then the application's resource."""
    told = events(server)
    assert set(told[-4:-1]) == {"left a", "left b", "ended c"}, server.output
    assert told[-1] == "closed resource"


# The end ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["waitress", "threads", "foreign"])
def test_what_waits_is_ended_when_the_process_does(kind):
    with start(*SERVERS[kind]) as server:
        waiting = Waiting(server)
        server.send_signal(signal.SIGINT)
        # waitress gives its threads 5 seconds.
        assert end(server)[0] == 0
        assert waiting.statuses() == [503, 503]
        assert re.search(r"retry: 1\d\d\d\n\n", waiting.stream.until_end().text)
        assert_ended_in_order(server)
        assert "Traceback" not in server.output
        waiting.close()


@pytest.mark.parametrize("kind", ["waitress", "threads"])
def test_a_server_that_does_not_handle_sigterm_ends_by_it(kind):
    with start(*SERVERS[kind]) as server:
        waiting = Waiting(server)
        server.send_signal(signal.SIGTERM)
        assert end(server)[0] == -signal.SIGTERM
        assert_clean(server)
        waiting.close()


@pytest.mark.parametrize("worker", [SYNC, GTHREAD])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_closes_what_it_has_opened(worker, number):
    with start(*worker, f"{FACTORY}()") as server:
        assert get(server, "/folder/everything")[0] == 200
        until_idle(server)
        assert server.stop(number) == 0
        assert events(server) == ["opened", "closed resource"]
        assert_clean(server)


@pytest.mark.parametrize(
    ("worker", "number"), [(SYNC, signal.SIGTERM), (GTHREAD, signal.SIGHUP)]
)
def test_a_request_that_waits_when_the_worker_is_to_stop_is_answered(worker, number):
    with start(*worker, f"{FACTORY}()") as server:
        pid = worker_of(server)
        stream = Stream(server, "/soon?key=a")
        server.wait_for("event: waits a ")
        server.send_signal(number)
        stream.begin().until_end().close()
        assert stream.status == 200
        if number == signal.SIGHUP:
            poll(lambda: pid not in server.children(), server.describe)
            assert get(server, "/state")[1]["pid"] != pid
            server.stop()
        else:
            assert end(server)[0] == 0
        assert pids(server, "closed resource")[0] == pid
        assert_clean(server)


def test_gunicorn_kills_a_worker_whose_threads_wait_for_ever():
    command = [*GTHREAD, "--graceful-timeout", "1", f"{FACTORY}()"]
    with start(*command) as server:
        waiting = Waiting(server)
        server.send_signal(signal.SIGTERM)
        status, seconds = end(server)
        assert status == 0
        assert seconds < AT_ONCE
        assert "closed resource" not in events(server)
        assert "Traceback" not in server.output
        waiting.close()


# gunicorn, told to say that it stops -------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_worker_that_is_to_end_at_once_ends_what_waits(number):
    with start(*STOPPING, f"{FACTORY}()") as server:
        waiting = Waiting(server)
        until_idle(server)
        server.send_signal(number)
        assert end(server)[0] == 0
        assert_ended_in_order(server)
        assert_clean(server)
        waiting.close()


def test_event_streams_end_at_once_and_requests_have_their_time():
    with start(*STOPPING, "--graceful-timeout", "60", f"{FACTORY}()") as server:
        waiting = Waiting(server)
        later = Stream(server, "/soon?key=d&seconds=1")
        server.wait_for("event: waits d ")
        begin = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert "retry: " in waiting.stream.until_end().text
        assert time.monotonic() - begin < AT_ONCE
        assert "left a" not in events(server)
        assert later.begin().until_end().status == 200
        later.close()
        until_idle(server)
        server.send_signal(signal.SIGQUIT)
        end(server)
        assert_ended_in_order(server)
        waiting.close()


def test_requests_are_answered_before_the_master_kills_the_worker():
    with start(*STOPPING, "--graceful-timeout", "3", f"{FACTORY}()") as server:
        waiting = Waiting(server)
        server.send_signal(signal.SIGTERM)
        assert "retry: " in waiting.stream.until_end().text
        # gunicorn waits for a client that does not close after its last answer,
        # for longer than these three seconds.
        waiting.stream.close()
        assert waiting.statuses() == [503, 503]
        waiting.close()
        status, seconds = end(server)
        assert status == 0
        assert seconds < AT_ONCE
        assert_ended_in_order(server)
        assert_clean(server)


def test_a_worker_that_is_replaced_ends_its_streams_at_once():
    with start(*STOPPING, "--graceful-timeout", "60", f"{FACTORY}()") as server:
        pid = worker_of(server)
        stream = Stream(server, "/events?key=c").begin().until("data: ")
        begin = time.monotonic()
        server.send_signal(signal.SIGHUP)
        assert "retry: " in stream.until_end().text
        assert time.monotonic() - begin < AT_ONCE
        stream.close()
        poll(lambda: pid not in server.children(), server.describe)
        assert pids(server, "closed resource") == [pid]
        assert get(server, "/three")[0] == 200
        assert server.stop() == 0
        assert_clean(server)


# Forks ------------------------------------------------------------------------


@pytest.mark.parametrize("worker", [SYNC, GTHREAD])
def test_what_waits_while_it_is_loaded_in_the_master_serves_in_the_workers(worker):
    options = ["--preload", "--workers", "2"]
    with start(*worker, *options, "plain_app:make_waiting()") as server:
        assert pids(server, "loaded") == [server.process.pid]

        def both():
            for _ in range(8):
                assert get(server, "/folder/everything")[0] == 200
            return len(set(pids(server, "opened"))) == 2

        poll(both, server.describe)
        assert server.process.pid not in pids(server, "opened")
        assert server.stop() == 0
        assert sorted(pids(server, "closed resource")) == sorted(pids(server, "opened"))
        assert_clean(server)


# gevent -----------------------------------------------------------------------


GEVENT = [*GUNICORN, "-k", "gevent"]
REASON = "gevent has patched the threads of this process"


@pytest.fixture
def ini(tmp_path):
    path = tmp_path / "gevent.ini"
    path.write_text(
        """
[app:main]
paste.app_factory = plain_app:main

[server:main]
use = egg:gunicorn#main
bind = 127.0.0.1:0
worker_class = gevent
control_socket_disable = true
"""
    )
    return path


@pytest.mark.parametrize("form", ["call", "paste"])
def test_an_application_that_is_loaded_under_gevent_is_refused(form, ini):
    pytest.importorskip("gevent")
    what = ["--paste", str(ini)] if form == "paste" else [f"{FACTORY}()"]
    server = Server([*GEVENT, *what], APPS, ENVIRON)
    try:
        assert end(server)[0] == 3
        assert f"ConfigurationError: {REASON}" in server.output
        assert "errors.html#patched" in server.output
        # The worker is not started over and over.
        assert server.output.count("Booting worker") == 1
    finally:
        server.close()


@pytest.mark.parametrize("form", ["preload", "pserve"])
def test_an_application_that_gevent_comes_after_refuses_its_requests(form, ini):
    pytest.importorskip("gevent")
    if form == "pserve":
        command = ["pyramid.scripts.pserve", str(ini)]
    else:
        command = [*GEVENT, "--preload", f"{FACTORY}()"]
    with start(*command) as server:
        for path in "/folder/everything", "/marked", "/three", "/missing":
            assert get(server, path)[0] == 500
        assert server.output.count(f"ScopeError: {REASON}") == 4
        assert events(server) == []
        assert server.output.count("Booting worker") == 1
        assert server.stop() == 0

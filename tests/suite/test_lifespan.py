"""When the resources of an application are opened and closed, on every runtime.

The application is ``apps/worker_app.py``.
"""

import signal
from pathlib import Path

import pytest
from life import CLOSED as CLOSING
from life import OPENED, assert_clean, events, facts
from runtimes import CLOSED, EARLY
from servers import poll

pytestmark = pytest.mark.serves("worker_app")


def stop(runtime, server):
    """End it in its ordinary way."""
    if runtime.number == signal.SIGINT:
        # It is an exception in whatever is being done.
        until_idle(server)
    server.stop(runtime.number)


def until_idle(server):
    """Wait until the process does nothing but wait."""
    stat = Path(f"/proc/{server.process.pid}/stat")
    states = []

    def has_slept():
        states.append(stat.read_text().rpartition(")")[2].split()[0])
        return states[-20:] == ["S"] * 20

    poll(has_slept, server.describe)


@pytest.mark.feature(EARLY)
def test_it_is_open_before_the_first_request(runtime):
    with runtime.serve("worker_app") as server:
        poll(lambda: events(server) == OPENED, server.describe)
        assert facts(server)["opened"]
        stop(runtime, server)


@pytest.mark.without(EARLY)
def test_it_is_opened_by_the_first_request(runtime):
    with runtime.serve("worker_app") as server:
        assert events(server) == []
        for _ in range(2):
            assert facts(server)["opened"]
            assert events(server) == OPENED
        stop(runtime, server)


@pytest.mark.feature(CLOSED)
def test_it_is_closed_when_the_server_stops(runtime):
    with runtime.serve("worker_app") as server:
        assert facts(server)["opened"]
        stop(runtime, server)
        assert events(server) == OPENED + CLOSING
        assert_clean(server)

"""Event streams under uWSGI: what its connections make of them.

What they do for an application is tested for all runtimes in ``tests/suite``.
"""

import itertools
import json
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from life import APPS, ENVIRON, assert_clean
from servers import DEADLINE, free_port, memory, poll, serve
from suite.streams import Remote

MEBIBYTE = 1_048_576
# Seconds; far less than uWSGI's mercy, on a machine with much to do.
AT_ONCE = 6
# What uWSGI says of a client that has left, if it is asked to write to it.
NOISE = ("SIGPIPE", "write error", "Broken pipe", "BUG", "DANGER", "Segmentation")

# A client may leave while uWSGI writes to it; that is no error, but uWSGI says so.
QUIET = ["--ignore-write-errors", "--disable-write-exception"]

keys = itertools.count()


@contextmanager
def start(*options):
    """A :class:`suite.streams.Remote` of uWSGI."""
    options = ["eventsource_app:make()", *QUIET, *options]
    with serve("uwsgi", *options, directory=APPS, environ=ENVIRON) as server:
        yield Remote(server)


@pytest.fixture(scope="module")
def served():
    with start() as served:
        yield served
        assert served.server.stop() == 0
        assert_quiet(served)


@pytest.fixture
def key():
    return f"k{next(keys)}"


def assert_quiet(served):
    assert_clean(served.server)
    found = [each for each in NOISE if each in served.output]
    assert not found, served.server.describe(f"wrote {found}")


def state(served):
    return json.loads(served.ask("/state")[1])


def until_ended(served, key, expected=1):
    """Wait until so many streams of ``key`` have been closed, and no more."""
    poll(lambda: state(served)["ended"].get(key, 0) >= expected)
    assert state(served)["ended"][key] == expected


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("view", ["ticks", "plain", "mute", "slow_to_close"])
def test_a_client_that_leaves_is_noticed_at_once(served, key, view, reset):
    # A generator that has not begun does not end either.
    first = "^:\n\n" if view == "mute" else "data: "
    stream = served.open(f"/{view}?key={key}").until(first)
    began = time.monotonic()
    stream.close(reset)
    until_ended(served, key)
    assert time.monotonic() - began < AT_ONCE


@pytest.mark.parametrize("reset", [False, True])
def test_clients_that_leave_while_they_are_sent_to_are_not_worth_a_line(
    served, key, reset
):
    def come_and_go(number):
        stream = served.open(f"/flood?key={key}").until("x" * number)
        stream.close(reset)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come_and_go, range(40)))
    until_ended(served, key, 40)
    assert_quiet(served)


def test_a_client_that_never_reads_holds_only_itself_up(served, key):
    state(served)
    (pid,) = served.server.children()
    before = memory(pid)
    stream = served.begin(f"/flood?key={key}", small=True)
    counts = []

    def has_stopped():
        counts.append(state(served)["made"].get(key, 0))
        return len(counts) > 20 and counts[-20] == counts[-1] > 0

    poll(has_stopped)
    assert counts[-1] < 200
    assert memory(pid) < before + 32 * MEBIBYTE
    stream.close()
    until_ended(served, key)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_every_stream_ends_with_a_hint_when_the_worker_ends(number):
    views = itertools.cycle(["ticks", "plain", "mute", "slow_to_close"])
    # At the same port before and after a reload.
    port = free_port()
    with start(f"--http-socket=127.0.0.1:{port}") as served, ExitStack() as stack:
        paths = [f"/{next(views)}?key={each}" for each in range(12)]
        streams = [served.open(path) for path in paths]
        for path, stream in zip(paths, streams, strict=True):
            stack.callback(stream.close)
            stream.until("^:\n\n" if "mute" in path else "data: ")
        (worker,) = served.server.children()
        began = time.monotonic()
        served.server.send_signal(number)
        for stream in streams:
            stream.until_end()
            (hint,) = re.findall(r"retry: (\d+)", stream.text)
            assert 1000 <= int(hint) <= 2000
        if number == signal.SIGHUP:
            poll(lambda: worker not in served.server.children())
            ended = time.monotonic()
            assert served.ask("/three")[0] == 200
        else:
            assert served.server.process.wait(DEADLINE) == 0
            ended = time.monotonic()
        assert ended - began < AT_ONCE
        for each in range(len(streams)):
            assert served.output.count(f"ended {each}\n") == 1
        assert_quiet(served)

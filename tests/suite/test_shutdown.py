"""What becomes of what goes on when a server is told to stop."""

import http.client
import itertools
import json
import re
import signal
import time
from contextlib import AsyncExitStack, ExitStack

import pytest
import ws_client
from runtimes import ANSWERS_LAST, HINTS, MANY_EVENTS, RESTARTS, SOCKETS
from servers import DEADLINE, poll

from suite import streams
from suite.test_eventsource import until_stuck

# Seconds; far less than a graceful timeout, on a machine with much to do.
AT_ONCE = 6
# waitress gives its threads 5 seconds, and then the process ends what they wait for.
PATIENT = {"waitress": 12}
# What clients are told where it is not 1012.
OTHER_CODES = {"granian": {1005, 1006, 1012}, "daphne": {1006}}
# To a request under way, where it is ended.
ANSWERS = {"uWSGI": 503, "daphne": None, "wsgiref": 500}

gunicorn = pytest.mark.only("gunicorn on uvloop")


def stop(runtime, server):
    """Tell it to."""
    server.send_signal(runtime.number)


def ended(server):
    """Its exit status; some servers end by the signal that they were sent."""
    status = server.process.wait(DEADLINE)
    assert status in (0, -signal.SIGTERM), server.describe(f"ended with {status}")


# Requests ---------------------------------------------------------------------


@pytest.mark.feature(ANSWERS_LAST)
@pytest.mark.serves("suite.app")
def test_a_request_under_way_is_answered(runtime):
    with runtime.serve("suite.app") as server:
        stream = streams.Stream(server, "/last", headers=["Connection: close"])
        server.wait_for("event: last")
        stop(runtime, server)
        stream.receive_head().until_end()
        assert (stream.status, json.loads(stream.text)) == (200, {"last": True})
        stream.close()
        ended(server)


def answer_of(stream):
    """The status of the response; None if there is none."""
    try:
        return stream.receive_head().status
    except (http.client.HTTPException, ConnectionResetError):
        return None


@pytest.mark.without(ANSWERS_LAST)
@pytest.mark.serves("suite.app")
def test_a_request_under_way_is_ended(runtime):
    with runtime.serve("suite.app") as server:
        stream = streams.Stream(server, "/last", headers=["Connection: close"])
        server.wait_for("event: last")
        stop(runtime, server)
        assert answer_of(stream) == ANSWERS[runtime.name]
        stream.close()
        if runtime.number == signal.SIGINT:
            # The first one was an exception in the view, for wsgiref to answer.
            stop(runtime, server)
        ended(server)


# Event streams ----------------------------------------------------------------


def hints_in(streams):
    return [int(each) for s in streams for each in re.findall(r"retry: (\d+)", s.text)]


VIEWS = ("ticks", "plain", "mute", "slow_to_close")


def open_many(served, count=40):
    """Streams of every kind, each of which waits for something."""
    views = itertools.cycle(VIEWS)
    paths = [f"/{next(views)}?key={number}" for number in range(count)]
    streams = [served.open(path) for path in paths]
    for path, stream in zip(paths, streams, strict=True):
        stream.until("^:\n\n" if "mute" in path else "data: ")
    return streams


def until_ended_with_hints(streams):
    for stream in streams:
        assert not stream.until_end().is_cut
    hints = hints_in(streams)
    assert len(hints) == len(streams)
    assert 1000 <= min(hints) < max(hints) <= 2000


@pytest.mark.either(HINTS)
@pytest.mark.feature(MANY_EVENTS)
@pytest.mark.serves("eventsource_app")
def test_every_stream_ends_at_once_when_the_server_stops(runtime):
    with runtime.serve("eventsource_app") as server, ExitStack() as stack:
        opened = open_many(streams.Remote(server))
        for stream in opened:
            stack.callback(stream.close)
        begin = time.monotonic()
        stop(runtime, server)
        if runtime.has(HINTS):
            until_ended_with_hints(opened)
        else:
            for stream in opened:
                assert stream.until_end().is_cut
        ended(server)
        assert time.monotonic() - begin < PATIENT.get(runtime.name, AT_ONCE)
        for number in range(len(opened)):
            assert server.output.count(f"ended {number}\n") == 1
        assert "Traceback" not in server.output


@gunicorn
@pytest.mark.parametrize("end", ["SIGHUP", "max_requests"])
def test_every_stream_ends_at_once_when_the_worker_is_replaced(runtime, end):
    options = ["--max-requests", "100"] if end == "max_requests" else []
    with runtime.serve("eventsource_app", *options) as server, ExitStack() as stack:
        served = streams.Remote(server)
        opened = open_many(served)
        for stream in opened:
            stack.callback(stream.close)
        (worker,) = server.children()
        begin = time.monotonic()
        if end == "SIGHUP":
            server.send_signal(signal.SIGHUP)
        else:
            # Only requests that have ended are counted.
            while worker in server.children():
                served.ask("/go?key=0")
        until_ended_with_hints(opened)
        poll(lambda: worker not in server.children())
        assert time.monotonic() - begin < AT_ONCE
        assert served.ask("/three")[0] == 200
        assert "Traceback" not in served.output


@gunicorn
@pytest.mark.serves("eventsource_app")
def test_a_restarted_server_has_another_log(runtime):
    last = None
    for expected in ("data: second", "event: reset"):
        with runtime.serve("eventsource_app") as server:
            served = streams.Remote(server)
            first = json.loads(served.ask("/append?text=first")[1])["id"]
            served.ask("/append?text=second")
            header = [f"Last-Event-ID: {last or first}"]
            served.open("/follow", headers=header).until(expected).close()
            last = first


@gunicorn
def test_a_client_that_never_reads_does_not_keep_the_generator(runtime):
    with runtime.serve("eventsource_app", "--graceful-timeout", "4") as server:
        served = streams.Remote(server)
        stuck = served.begin("/flood?key=stuck", small=True)
        until_stuck(served, "stuck")
        begin = time.monotonic()
        server.send_signal(signal.SIGTERM)
        server.wait_for("ended stuck")
        assert time.monotonic() - begin < AT_ONCE
        # The connection is gunicorn's, which waits for what it has to send.
        assert server.process.wait(DEADLINE) == 0
        stuck.close()
        assert "Traceback" not in served.output


# WebSockets -------------------------------------------------------


# The first one gets nothing to answer, the last one does not listen.
PATHS = ("/watch", "/function", "/threaded", "/page-or-socket-in-executor", "/flood")


@pytest.mark.either(RESTARTS)
@pytest.mark.feature(SOCKETS)
@pytest.mark.serves("websocket_app")
def test_the_end_of_the_server_ends_every_socket(runtime, run):
    async def talk(served):
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(served.connect(p)) for p in PATHS]
            for ws in opened[1:-1]:
                await ws.send("hello")
                assert (await ws.recv()).endswith("hello")
            stop(runtime, served.server)
            return [(await ws.closed())[0] for ws in opened]

    with runtime.serve("websocket_app") as server:
        codes = set(run(talk(ws_client.Remote(runtime.name, server))))
        told = {1012} if runtime.has(RESTARTS) else OTHER_CODES[runtime.name]
        assert codes <= told
        ended(server)

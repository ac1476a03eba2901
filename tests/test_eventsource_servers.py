"""What an event stream does for an application, the same on every server.

The application is ``apps/eventsource_app.py``.
"""

import asyncio
import http.client
import itertools
import json
import re
import signal
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from asgi import Client
from life import APPS, ENVIRON
from servers import DEADLINE, memory, poll, serve

sys.path.insert(0, str(APPS))
import eventsource_app

IN_PROCESS = "in process"
SERVERS = [IN_PROCESS, "gunicorn", "uvicorn", "hypercorn", "granian"]

APPLICATIONS = {
    "gunicorn": ["eventsource_app:make()"],
    "uvicorn": ["--factory", "eventsource_app:make_asgi"],
    "hypercorn": ["eventsource_app:make_asgi()"],
    "granian": ["--factory", "eventsource_app:make_asgi"],
}
MEBIBYTE = 1_048_576
# Seconds; far less than a graceful timeout, on a machine with much to do.
AT_ONCE = 6
OPENING = ":\n\n"

keys = itertools.count()


class Stream:
    """A stream from a server, over a socket.

    Attributes:
        status: of the response.
        headers: of it, by name in lower case.
        text: what was received of the body.
    """

    def __init__(self, server, path, method="GET", headers=(), small=False):
        self._socket = socket.socket()
        if small:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(DEADLINE)
        self._socket.connect(("127.0.0.1", server.port))
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._response = http.client.HTTPResponse(self._socket, method=method)
        self.text = ""
        self.is_cut = False

    def receive_head(self):
        self._response.begin()
        self.status = self._response.status
        self.headers = {
            name.lower(): value for name, value in self._response.getheaders()
        }
        return self

    def until(self, pattern):
        """Receive until a regular expression is found in :attr:`text`."""
        while not re.search(pattern, self.text):
            assert self._receive(), (pattern, self.text)
        return self

    def until_end(self):
        """Receive until the end; :attr:`is_cut`: there was none."""
        while self._receive():
            pass
        return self

    def _receive(self):
        try:
            part = self._response.read1(65_536)
        except (http.client.IncompleteRead, ConnectionResetError):
            self.is_cut = True
            return False
        self.text += part.decode()
        return bool(part)

    def close(self, reset=False):
        if reset:
            linger = struct.pack("ii", 1, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._response.close()
        self._socket.close()


class Remote:
    """A server in a process of its own."""

    def __init__(self, kind, server):
        self.kind = kind
        self.server = server
        self.port = server.port

    @property
    def output(self):
        return self.server.output

    def open(self, path, method="GET", headers=()):
        return Stream(self.server, path, method, headers).receive_head()

    def ask(self, path):
        """The status and the text of a response that ends."""
        stream = Stream(self.server, path, headers=["Connection: close"])
        stream.receive_head().until_end()
        stream.close()
        return stream.status, stream.text


class InProcessStream:
    """The same without a server."""

    is_cut = False

    def __init__(self, served, path, method, headers):
        path, _, query = path.partition("?")
        pairs = [each.partition(": ")[::2] for each in headers]
        self._served = served
        self._client = Client(
            path,
            method=method,
            query_string=query.encode(),
            headers=[(name.lower().encode(), value.encode()) for name, value in pairs],
        )
        self._call = served.submit(self._client.call(served.app))
        self._until(lambda: self._client.started)
        self.status = self._client.status
        self.headers = {
            name.decode(): value.decode() for name, value in self._client.headers
        }

    @property
    def text(self):
        return self._client.body.decode()

    def _until(self, condition):
        self._served.submit(self._client.until(condition)).result(DEADLINE)

    def until(self, pattern):
        self._until(lambda: re.search(pattern, self.text))
        return self

    def until_end(self):
        try:
            self._call.result(DEADLINE)
        except eventsource_app.Expected:
            self.is_cut = True
        return self

    def close(self, reset=False):
        loop = self._served.loop
        loop.call_soon_threadsafe(self._client.leave, reset)


class InProcess:
    """The application on a loop in a thread."""

    kind = IN_PROCESS
    output = ""

    def __init__(self):
        self.app = eventsource_app.make_asgi()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def submit(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def open(self, path, method="GET", headers=()):
        return InProcessStream(self, path, method, headers)

    def ask(self, path):
        stream = self.open(path).until_end()
        return stream.status, stream.text

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


@contextmanager
def start(kind, *options):
    """A :class:`Remote` or :class:`InProcess`."""
    if kind == IN_PROCESS:
        served = InProcess()
        yield served
        served.stop()
        return
    if kind == "gunicorn":
        # So that it is not gunicorn that ends what a client has left.
        options = ["--asgi-disconnect-grace-period", "60", *options]
    command = [*APPLICATIONS[kind], *options]
    with serve(kind, *command, directory=APPS, environ=ENVIRON) as server:
        yield Remote(kind, server)


@pytest.fixture(scope="module", params=SERVERS)
def served(request):
    with start(request.param) as served:
        yield served
        errors = served.output.count("Traceback")
        assert errors == served.output.count("Expected: "), served.output


@pytest.fixture(scope="module")
def gunicorn():
    with start("gunicorn") as served:
        yield served


@pytest.fixture
def key():
    return f"k{next(keys)}"


def state(served):
    return json.loads(served.ask("/state")[1])


def until_ended(served, key, expected=1):
    """Wait until the stream of ``key`` has been closed."""
    poll(lambda: state(served)["ended"].get(key, 0) >= expected)
    assert state(served)["ended"][key] == expected


def ids_in(text):
    return re.findall(r"(?m)^id: (.*)$", text)


# On every server --------------------------------------------------------------


def test_the_head(served, key):
    stream = served.open(f"/mute?key={key}")
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.headers["cache-control"] == "no-store, no-transform"
    assert stream.headers["x-accel-buffering"] == "no"
    assert "content-length" not in stream.headers
    stream.until("^:\n\n")
    stream.close()
    until_ended(served, key)


def test_a_head_request_gets_the_head_alone(served, key):
    stream = served.open(f"/ticks?key={key}", method="HEAD")
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.until_end().text == ""
    stream.close()


def test_a_stream_that_ends(served):
    stream = served.open("/three").until_end()
    events = [f"data: line {n}\ndata: of \u20ac\n\n" for n in range(3)]
    assert stream.text == OPENING + "".join(events)
    stream.close()


def test_a_refusal_is_a_response(served):
    status, text = served.ask("/forbid")
    assert status == 403
    assert "not you" in text


@pytest.mark.parametrize("view", ["ticks", "plain"])
def test_each_event_arrives_before_the_next_one_is_made(served, key, view):
    stream = served.open(f"/{view}?key={key}")
    for number in range(1, 6):
        stream.until(f'data: {{"number": {number}}}\n\n')
        assert ids_in(stream.text) == [str(n) for n in range(1, number + 1)]
        served.ask(f"/go?key={key}")
    stream.close()
    until_ended(served, key)


@pytest.mark.parametrize("view", ["ticks", "plain"])
def test_silence_is_filled_with_comments(served, key, view):
    stream = served.open(f"/{view}?key={key}").until("number")
    stream.until("number.*\n\n:\n\n:\n\n:\n\n")
    served.ask(f"/go?key={key}")
    stream.until('"number": 2')
    stream.close()
    until_ended(served, key)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("view", ["ticks", "plain", "mute", "slow_to_close"])
def test_a_client_that_leaves_is_noticed(served, key, view, reset):
    stream = served.open(f"/{view}?key={key}").until("^:\n\n")
    if view != "mute":
        stream.until("data: ")
    stream.close(reset)
    until_ended(served, key)


def test_an_error_ends_the_stream_and_is_logged(served):
    stream = served.open("/fail").until("first").until_end()
    assert stream.is_cut
    stream.close()
    if served.kind != IN_PROCESS:
        poll(lambda: "Expected: in the stream" in served.output)


def test_a_client_comes_back_without_loss(served):
    first = json.loads(served.ask("/append?text=one")[1])["id"]
    stream = served.open("/follow", headers=[f"Last-Event-ID: {first}"])
    for text in ("two", "three"):
        served.ask(f"/append?text={text}")
    stream.until("data: three\n\n")
    assert re.findall("data: (.*)", stream.text) == ["two", "three"]
    stream.close()
    for text in ("four", "five"):
        served.ask(f"/append?text={text}")
    last = ids_in(stream.text)[-1]
    stream = served.open(f"/follow?lastEventId={last}").until("data: five\n\n")
    assert re.findall("data: (.*)", stream.text) == ["four", "five"]
    stream.close()


def test_an_id_of_another_server_is_told(served):
    stream = served.open("/follow", headers=["Last-Event-ID: other-5"])
    stream.until(r'event: reset\nid: .*\ndata: \{"reason": "unknown"\}\n\n')
    stream.close()


def test_many_streams_at_once(served):
    count = 50
    # In process there may be some of other modules' tests.
    before = state(served)["streams"]
    last = json.loads(served.ask("/append?text=before")[1])["id"]
    streams = [served.open(f"/follow?lastEventId={last}") for _ in range(count)]
    for number in range(20):
        served.ask(f"/append?text={number}")
    for stream in streams:
        stream.until("data: 19\n\n")
        assert re.findall("data: (.*)", stream.text) == [str(n) for n in range(20)]
        stream.close()
    poll(lambda: state(served)["streams"] <= before, lambda: str(state(served)))


# On the worker ----------------------------------------------------------------


def worker_memory(served):
    (pid,) = served.server.children()
    return memory(pid)


def until_stuck(served, key):
    """Wait until no more is made for ``key``; gives how much was."""
    counts = []

    def has_stopped():
        counts.append(state(served)["made"].get(key, 0))
        # Others are served meanwhile, and each of them takes some time.
        return len(counts) > 20 and counts[-20] == counts[-1] > 0

    poll(has_stopped)
    return counts[-1]


def test_a_client_that_never_reads_holds_only_itself_up(gunicorn, key):
    gunicorn.ask("/state")
    before = worker_memory(gunicorn)
    stream = Stream(gunicorn.server, f"/flood?key={key}", small=True)
    assert until_stuck(gunicorn, key) < 200
    assert worker_memory(gunicorn) < before + 32 * MEBIBYTE
    stream.close()
    until_ended(gunicorn, key)


STAGES = [None, "^:\n\n", "data: ", ":\n\n$"]


def test_a_thousand_clients_that_leave_leave_nothing_behind(gunicorn, key):
    def come_and_go(number):
        view = ("ticks", "mute", "flood", "follow")[number % 4]
        stage = STAGES[number // 4 % len(STAGES)]
        if view in ("mute", "follow") and stage == "data: ":
            stage = None
        stream = Stream(gunicorn.server, f"/{view}?key={key}")
        if stage is not None:
            stream.receive_head().until(stage)
        stream.close(reset=number % 3 == 0)

    gunicorn.ask("/state")
    before = state(gunicorn)
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(come_and_go, range(1000)))
    poll(lambda: state(gunicorn)["streams"] == 0)
    poll(lambda: state(gunicorn)["tasks"] <= before["tasks"])
    assert "Traceback" not in gunicorn.output


def test_a_client_that_never_reads_does_not_keep_the_generator(key):
    with start("gunicorn", "--graceful-timeout", "4") as served:
        stuck = Stream(served.server, f"/flood?key={key}", small=True)
        until_stuck(served, key)
        begin = time.monotonic()
        served.server.send_signal(signal.SIGTERM)
        served.server.wait_for(f"ended {key}")
        assert time.monotonic() - begin < AT_ONCE
        # The connection is gunicorn's, which waits for what it has to send.
        assert served.server.process.wait(DEADLINE) == 0
        stuck.close()
        assert "Traceback" not in served.output


# The end ----------------------------------------------------------------------


def hints_in(streams):
    return [int(each) for s in streams for each in re.findall(r"retry: (\d+)", s.text)]


def open_many(served, count=40):
    """Streams of every kind, each of which waits for something."""
    views = itertools.cycle(["ticks", "plain", "mute", "slow_to_close"])
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


# Serves in a process that is not told of the signal: when it gives up waiting, it
# cuts its connections, and what they leave behind.
CUTS = {"hypercorn"}


@pytest.mark.parametrize("kind", SERVERS[1:])
def test_every_stream_ends_at_once_when_the_server_stops(kind):
    with start(kind) as served, ExitStack() as stack:
        streams = open_many(served)
        for stream in streams:
            stack.callback(stream.close)
        begin = time.monotonic()
        served.server.send_signal(signal.SIGTERM)
        if kind in CUTS:
            for stream in streams:
                assert stream.until_end().is_cut
        else:
            until_ended_with_hints(streams)
        # uvicorn ends by the signal that it was sent.
        assert served.server.process.wait(DEADLINE) in (0, -signal.SIGTERM)
        assert time.monotonic() - begin < AT_ONCE
        if kind not in CUTS:
            for number in range(len(streams)):
                assert served.output.count(f"ended {number}\n") == 1
            assert "Traceback" not in served.output


@pytest.mark.parametrize("end", ["SIGHUP", "max_requests"])
def test_every_stream_ends_at_once_when_the_worker_is_replaced(end):
    options = ["--max-requests", "100"] if end == "max_requests" else []
    with start("gunicorn", *options) as served, ExitStack() as stack:
        streams = open_many(served)
        for stream in streams:
            stack.callback(stream.close)
        (worker,) = served.server.children()
        begin = time.monotonic()
        if end == "SIGHUP":
            served.server.send_signal(signal.SIGHUP)
        else:
            # Only requests that have ended are counted.
            while worker in served.server.children():
                served.ask("/go?key=0")
        until_ended_with_hints(streams)
        poll(lambda: worker not in served.server.children())
        assert time.monotonic() - begin < AT_ONCE
        assert served.ask("/three")[0] == 200
        assert "Traceback" not in served.output


def test_a_restarted_server_has_another_log():
    last = None
    for expected in ("data: second", "event: reset"):
        with start("gunicorn") as served:
            first = json.loads(served.ask("/append?text=first")[1])["id"]
            served.ask("/append?text=second")
            header = [f"Last-Event-ID: {last or first}"]
            served.open("/follow", headers=header).until(expected).close()
            last = first

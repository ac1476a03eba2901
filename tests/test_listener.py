"""How many connections a gunicorn worker takes, and how long each may take to begin.

Real workers, on asyncio and on uvloop, behind sockets of every kind.
"""

import asyncio
import contextlib
import contextvars
import itertools
import json
import logging
import os
import re
import resource
import select
import signal
import socket
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import h2.connection
import h2.events
import pytest
import uvloop
from certificates import write_whole
from gunicorn.config import Config
from life import APPS, ENVIRON, UNCLEAN, assert_clean
from servers import DEADLINE, WORKER, Server, poll

from aioext.gunicorn.listener import (
    Connection,
    Door,
    Listener,
    limit_of,
    protocol_factory,
)
from aioext.gunicorn.worker import AsyncGunicornWorker
from aioext.shutdown import on_shutdown

LOOPS = ["asyncio", "uvloop"]
KINDS = ["tcp", "unix", "tls"]

FULL = "connections are open, which is what worker_connections allows"
REQUEST = b"GET /facts HTTP/1.1\r\nHost: localhost\r\n\r\n"
HANDSHAKE = (
    b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
STREAM = b"GET /stream HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"


class Listening:
    """A gunicorn that listens somewhere.

    Args:
        bind: gunicorn's option.
        address: where clients connect; None: at the port that it was given.
        trust: the ``ssl.SSLContext`` of clients, if it speaks TLS.
    """

    def __init__(self, options, bind, address, trust):
        command = ["gunicorn", "-k", WORKER, "--no-control-socket", "-b", bind]
        self.server = Server([*command, *options, "limits_app:make()"], APPS, ENVIRON)
        self.server.wait_for("ASGI server listening")
        if address is None:
            found = self.server.wait_for(r"https?://127\.0\.0\.1:(\d+)")
            address = ("127.0.0.1", int(found[1]))
        self._address = address
        self._trust = trust
        self._opened = []

    def connect(self):
        """A socket that the kernel has connected to it, without TLS as yet."""
        family = socket.AF_INET if isinstance(self._address, tuple) else socket.AF_UNIX
        client = socket.socket(family)
        client.settimeout(DEADLINE)
        client.connect(self._address)
        self._opened.append(client)
        return client

    def talk(self, client):
        """The same socket, with TLS if the server has it; waits until it is served."""
        if self._trust is None:
            return client
        self._opened.remove(client)
        wrapped = self._trust.wrap_socket(client, server_hostname="localhost")
        self._opened.append(wrapped)
        return wrapped

    def begin(self, request=REQUEST):
        """A connection whose first request has been answered, so that it counts."""
        client = self.talk(self.connect())
        client.sendall(request)
        if request is REQUEST:
            answer_of(client)
        else:
            head_of(client)
        return client

    def close(self):
        for each in self._opened:
            each.close()
        self.server.close()


def head_of(client):
    """The head of an answer, and its body if that has come with it."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = client.recv(65_536)
        assert data, f"closed after {received!r}"
        received += data
    return received


def answer_of(client):
    """The JSON of an answer on a connection that goes on."""
    received = head_of(client)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    length = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1])
    while len(body) < length:
        body += client.recv(65_536)
    return json.loads(body)


def is_silent(client):
    """Whether nothing has come, once the worker has had the time for it.

    A request on a connection that is served already is answered meanwhile.
    """
    return not select.select([client], [], [], 0)[0]


def is_closed(client):
    """Whether the server has closed it."""
    with contextlib.suppress(ConnectionResetError):
        return client.recv(65_536) == b""
    return True


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost, and a context of clients that trust it."""
    return write_whole(tmp_path_factory.mktemp("certificate"), "localhost")


@pytest.fixture
def listen(certificate, tmp_path):
    """Start a gunicorn; ends at the end."""
    started = []
    names = itertools.count()

    def listen(*options, kind="tcp", loop="asyncio"):
        bind, address, trust = "127.0.0.1:0", None, None
        if kind == "unix":
            address = str(tmp_path / f"socket{next(names)}")
            bind = f"unix:{address}"
        elif kind == "tls":
            path, trust = certificate
            options += ("--certfile", str(path), "--keyfile", str(path))
        options += ("--asgi-loop", loop)
        started.append(Listening(options, bind, address, trust))
        return started[-1]

    yield listen
    for each in started:
        each.close()


def connections_of(pid):
    """How many sockets a process has open."""
    directory = Path(f"/proc/{pid}/fd")
    found = 0
    for each in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(each).startswith("socket:")
    return found


def worker_of(gunicorn):
    (pid,) = gunicorn.server.children()
    return pid


# worker_connections


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_more_waits_and_is_served_when_one_leaves(listen, kind, loop):
    gunicorn = listen(
        "--worker-connections", "2", "--keep-alive", "60", kind=kind, loop=loop
    )
    first, second = gunicorn.begin(), gunicorn.begin()
    third = gunicorn.connect()
    if kind != "tls":
        third.sendall(REQUEST)
    for each in (first, second, first, second):
        each.sendall(REQUEST)
        assert answer_of(each)
    assert is_silent(third)
    assert FULL in gunicorn.server.output
    first.close()
    third = gunicorn.talk(third)
    if kind == "tls":
        third.sendall(REQUEST)
    assert answer_of(third)
    assert gunicorn.server.output.count(FULL) == 1
    for each in (second, third):
        each.close()
    assert gunicorn.server.stop() == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_a_burst_does_not_get_past_the_limit(listen, loop):
    gunicorn = listen("--worker-connections", "3", "--keep-alive", "60", loop=loop)
    first = gunicorn.begin()
    (pid,) = gunicorn.server.children()
    before = connections_of(pid)
    clients = [gunicorn.connect() for _ in range(50)]
    gunicorn.server.wait_for(FULL)
    for _ in range(3):
        first.sendall(REQUEST)
        answer_of(first)
        assert connections_of(pid) == before + 2
    for each in clients:
        # Whoever is served leaves, and lets one more in.
        each.sendall(REQUEST)
        assert answer_of(each)
        each.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_what_stays_open_counts(listen, loop):
    gunicorn = listen("--worker-connections", "2", loop=loop)
    first, second = gunicorn.begin(HANDSHAKE), gunicorn.begin(STREAM)
    third = gunicorn.connect()
    third.sendall(REQUEST)
    gunicorn.server.wait_for(FULL)
    assert is_silent(third)
    first.close()
    assert answer_of(third)
    second.close()


def test_a_connection_that_is_kept_alive_counts_until_it_is_closed(listen):
    gunicorn = listen("--worker-connections", "1", "--keep-alive", "1")
    first = gunicorn.begin()
    second = gunicorn.connect()
    second.sendall(REQUEST)
    assert is_closed(first)
    assert answer_of(second)


def test_another_worker_takes_what_one_does_not(listen):
    gunicorn = listen(
        "--worker-connections", "2", "--workers", "2", "--keep-alive", "60"
    )
    clients = [gunicorn.connect() for _ in range(4)]
    pids = []
    for each in clients:
        each.sendall(REQUEST)
        pids.append(answer_of(each)["pid"])
    assert sorted(pids.count(pid) for pid in set(pids)) == [2, 2]
    waiting = gunicorn.connect()
    waiting.sendall(REQUEST)
    for each in clients:
        each.sendall(REQUEST)
        answer_of(each)
    assert is_silent(waiting)
    clients[0].close()
    assert answer_of(waiting)["pid"] == pids[0]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_worker_that_is_full_stops(listen, loop):
    gunicorn = listen("--worker-connections", "1", "--graceful-timeout", "5", loop=loop)
    first = gunicorn.talk(gunicorn.connect())
    first.sendall(b"GET /pause?seconds=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    gunicorn.server.wait_for(FULL)
    waiting = gunicorn.connect()
    waiting.sendall(REQUEST)
    gunicorn.server.send_signal(signal.SIGTERM)
    assert b"rested" in head_of(first)
    assert gunicorn.server.process.wait(DEADLINE) == 0
    assert is_closed(waiting)


def test_a_worker_that_is_full_is_replaced_and_the_new_one_serves_who_waits(listen):
    gunicorn = listen(
        "--worker-connections", "1", "--keep-alive", "60", "--graceful-timeout", "2"
    )
    first = gunicorn.begin(STREAM)
    old = worker_of(gunicorn)
    waiting = gunicorn.connect()
    waiting.sendall(REQUEST)
    gunicorn.server.wait_for(FULL)
    gunicorn.server.send_signal(signal.SIGHUP)
    assert answer_of(waiting)["pid"] != old
    first.close()


def test_what_is_no_default_is_the_limit():
    cfg = Config()
    assert cfg.worker_connections == 1000
    assert limit_of(cfg) is None
    cfg.set("worker_connections", "5")
    assert limit_of(cfg) == 5


@pytest.mark.parametrize("loop", LOOPS)
def test_a_worker_without_files_rests_and_goes_on(listen, loop):
    gunicorn = listen("--keep-alive", "60", loop=loop)
    first = gunicorn.begin()
    pid = worker_of(gunicorn)
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, hard))
    waiting = gunicorn.connect()
    waiting.sendall(REQUEST)
    gunicorn.server.wait_for(r"nothing is accepted for 1 s, .*Too many open files")
    first.sendall(REQUEST)
    answer_of(first)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
    assert answer_of(waiting)
    said = [line for line in gunicorn.server.output.splitlines() if "accepted" in line]
    assert 1 <= len(said) <= 3
    assert "Traceback" not in gunicorn.server.output


# The first request


# Seconds. gunicorn's master wants to hear of its workers as often, and they
# tell it once a second.
PATIENCE = 3
WORK = b"GET /pause?seconds=%d HTTP/1.1\r\nHost: x\r\n\r\n" % (PATIENCE + 1)


class Clients:
    """One of each kind, on a server that cuts those that do not begin."""

    def __init__(self, gunicorn):
        self._gunicorn = gunicorn
        # Of a server with TLS, one that does not even begin with that.
        self.raw = gunicorn.connect()
        self.silent = gunicorn.talk(gunicorn.connect())
        self.slow = gunicorn.talk(gunicorn.connect())
        self.slow.sendall(REQUEST[:-2])
        self.working = gunicorn.talk(gunicorn.connect())
        self.working.sendall(WORK)
        self.websocket = gunicorn.begin(HANDSHAKE)

    def check(self):
        for each in (self.raw, self.silent, self.slow):
            assert is_closed(each)
        assert b"rested" in head_of(self.working)
        assert is_silent(self.websocket)
        for each in (self.working, self.websocket):
            each.close()
        assert self._gunicorn.server.stop() == 0
        assert_clean(self._gunicorn.server)


def test_a_connection_without_a_request_is_cut(listen):
    servers = [
        listen("--timeout", str(PATIENCE), kind=kind, loop=loop)
        for kind, loop in itertools.product(KINDS, LOOPS)
    ]
    for clients in [Clients(each) for each in servers]:
        clients.check()


def http2(gunicorn):
    """A connection of HTTP/2 that has said hello, and its state."""
    client = gunicorn.talk(gunicorn.connect())
    assert client.selected_alpn_protocol() == "h2"
    state = h2.connection.H2Connection()
    state.initiate_connection()
    client.sendall(state.data_to_send())
    return client, state


def status_of(client, state):
    """The status of the first response."""
    while True:
        data = client.recv(65_536)
        assert data, "the server has closed the connection"
        for event in state.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                return dict(event.headers)[b":status"]
        client.sendall(state.data_to_send())


def test_a_connection_of_http2_is_cut_only_without_a_request(listen, certificate):
    _, trust = certificate
    options = ("--timeout", str(PATIENCE), "--http-protocols", "h2,h1")
    trust.set_alpn_protocols(["h2"])
    try:
        gunicorn = listen(*options, kind="tls")
        silent, _ = http2(gunicorn)
        working, state = http2(gunicorn)
    finally:
        trust.set_alpn_protocols(["http/1.1"])
    path = f"/pause?seconds={PATIENCE + 1}"
    head = {":method": "GET", ":path": path, ":scheme": "https", ":authority": "x"}
    state.send_headers(1, head.items(), end_stream=True)
    working.sendall(state.data_to_send())
    assert status_of(working, state) == b"200"
    while not is_closed(silent):
        # The server has said hello as well.
        pass


def test_a_connection_that_has_waited_for_the_worker_is_cut_as_well(listen):
    servers = [listen("--timeout", str(PATIENCE), loop=loop) for loop in LOOPS]
    clients = []
    for each in servers:
        # Its master listens while there is no worker.
        before = worker_of(each)
        each.server.send_signal(signal.SIGSTOP)
        os.kill(before, signal.SIGKILL)
        clients += [each.connect() for _ in range(5)]
        each.server.send_signal(signal.SIGCONT)
    for each in clients:
        assert is_closed(each)


def test_no_timeout_is_no_limit(listen):
    gunicorn = listen("--timeout", "0")
    slow = gunicorn.connect()
    slow.sendall(REQUEST[:-2])
    other = gunicorn.begin()
    assert answer_of_after(gunicorn, other, slow)


def answer_of_after(gunicorn, other, slow):
    # The worker has looked at its connections once more in between.
    gunicorn.begin(b"GET /pause?seconds=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    slow.sendall(b"\r\n")
    return answer_of(slow)


# Limits of gunicorn's own


REFUSED = {
    "request line": (b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 5000), 414),
    "field": (b"GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % (b"x" * 9000), 431),
    "fields": (b"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n" % (b"X: y\r\n" * 200), 431),
    "endless": (b"GET / HTTP/1.1\r\nHost: x\r\nX: %s" % (b"x" * 70_000), 431),
    "no request": (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
}


def test_a_head_that_is_too_large_is_refused_and_the_connection_closed(listen):
    gunicorn = listen()
    for name, (request, status) in REFUSED.items():
        client = gunicorn.connect()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(request)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(65_536):
                received += data
        assert received.startswith(b"HTTP/1.1 %d " % status), (name, received)
        assert b"connection: close" in received.lower()
    assert gunicorn.server.stop() == 0
    assert not UNCLEAN.search(gunicorn.server.output)


# While it starts and ends


@pytest.mark.parametrize("loop", LOOPS)
def test_nothing_is_lost_while_a_worker_takes_over_and_ends(listen, tmp_path, loop):
    # Two addresses: the first one accepts while the second one is opened.
    other = str(tmp_path / "other")
    gunicorn = listen("-b", f"unix:{other}", "--keep-alive", "1", loop=loop)
    stop = threading.Event()
    failed = []

    def ask():
        while not stop.is_set():
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(DEADLINE)
                try:
                    client.connect(other)
                    client.sendall(REQUEST)
                    answer_of(client)
                except (AssertionError, OSError) as error:
                    failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    try:
        for _ in range(5):
            old = worker_of(gunicorn)
            gunicorn.server.send_signal(signal.SIGHUP)
            poll(lambda old=old: old not in gunicorn.server.children())
    finally:
        stop.set()
        for each in threads:
            each.join()
    assert not failed, gunicorn.server.describe(f"failed {failed}")


# In process


BEFORE = contextvars.ContextVar("before", default="nothing")


class Protocol(asyncio.Protocol):
    """Notes that a connection has begun, and in what context it was made."""

    def __init__(self, noted):
        self._noted = noted
        self._seen = BEFORE.get()

    def connection_made(self, transport):
        self._noted.append(self._seen)
        transport.close()


class Sockets:
    """Stands for gunicorn's worker, which listens on one socket."""

    def __init__(self, listening, certificate=None):
        self.loop = asyncio.get_running_loop()
        self.log = logging.getLogger("test")
        self.sockets = [SimpleNamespace(sock=listening)]
        self.cfg = Config()
        if certificate is not None:
            self.cfg.set("certfile", str(certificate))
            self.cfg.set("keyfile", str(certificate))
        self.noted = []

    def listener(self, limit=None):
        return Listener(self, lambda: Protocol(self.noted), limit)


class Accepting(socket.socket):
    """A listening socket that calls ``soon`` in the turn after it has accepted."""

    soon = None

    def accept(self):
        asyncio.get_running_loop().call_soon(self.soon)
        return super().accept()


def address(listening):
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    listening.setblocking(False)
    return listening.getsockname()


@pytest.fixture
def run_on():
    """Run a coroutine on a loop of a kind, with a limit of its time."""

    async def limited(coroutine):
        async with asyncio.timeout(DEADLINE):
            return await coroutine

    def run_on(loop, coroutine):
        factory = uvloop.new_event_loop if loop == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(limited(coroutine))

    return run_on


async def until(condition):
    while not condition():  # noqa: ASYNC110 - nobody sets an event
        await asyncio.sleep(0.001)


def take_over(listener, servers):
    if servers != [listener]:
        assert servers, "the server has accepted before it was there"
        listener.take_over(servers, 0)


def test_what_a_server_has_accepted_begins_although_it_is_taken_over(run_on):
    async def main():
        with Accepting() as listening, socket.socket() as client:
            client.connect(address(listening))
            worker = Sockets(listening)
            listener = worker.listener()
            servers = []
            listening.soon = lambda: take_over(listener, servers)
            loop = asyncio.get_running_loop()
            servers.append(
                await loop.create_server(lambda: Protocol(worker.noted), sock=listening)
            )
            await until(lambda: worker.noted)
            assert servers == [listener]
            listener.close()
            await listener.wait_closed()

    run_on("asyncio", main())


@pytest.mark.parametrize("loop", LOOPS)
def test_closing_waits_for_what_has_not_begun_yet(run_on, loop, certificate):
    path, trust = certificate

    async def main():
        with socket.socket() as listening, socket.socket() as client:
            where = address(listening)
            worker = Sockets(listening, path)
            listener = worker.listener()
            listener.take_over([], 0)
            client.connect(where)
            with socket.socket() as probe:
                # It is accepted after the other one, and has left.
                probe.connect(where)
            await until(lambda: not select.select([listening], [], [], 0)[0])
            listener.close()
            waiting = asyncio.create_task(listener.wait_closed())
            await asyncio.sleep(0)
            assert not waiting.done()
            _, writer = await asyncio.open_connection(
                sock=client, ssl=trust, server_hostname="localhost"
            )
            await waiting
            assert worker.noted
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    run_on(loop, main())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_does_not_inherit_from_the_one_whose_end_lets_it_in(run_on, loop):
    async def main():
        with socket.socket() as listening, socket.socket() as client:
            where = address(listening)
            BEFORE.set("the worker's")
            worker = Sockets(listening)
            listener = worker.listener(1)
            listener.take_over([], 1)
            client.connect(where)
            other = contextvars.copy_context()
            other.run(BEFORE.set, "a request's")
            other.run(listener.count, 0)
            await until(lambda: worker.noted)
            assert worker.noted == ["the worker's"]
            listener.close()

    run_on(loop, main())


def test_nobody_who_is_told_of_the_end_is_let_in_again(run_on):
    async def main():
        worker = AsyncGunicornWorker.__new__(AsyncGunicornWorker)
        worker.loop = asyncio.get_running_loop()
        ended = []
        worker._listener = SimpleNamespace(close=lambda: ended.append("closed"))
        on_shutdown(lambda: ended.append("told"))
        worker.alive = False
        await until(lambda: not worker.alive)
        assert ended == ["closed", "told"]

    run_on("asyncio", main())


class Clock:
    """A loop whose time is the test's."""

    def __init__(self):
        self.now = 0.0
        self.timers = []

    def time(self):
        return self.now

    def call_later(self, seconds, callback, context):
        assert not list(context)
        self.timers.append((self.now + seconds, callback))
        return object()

    def pass_(self, seconds):
        end = self.now + seconds
        while self.timers and self.timers[0][0] <= end:
            self.now, callback = self.timers.pop(0)
            callback()
        self.now = end


class Transport:
    def __init__(self):
        self.is_open = True

    def abort(self):
        self.is_open = False

    def is_closing(self):
        return not self.is_open


def test_the_door_cuts_who_is_late_and_nobody_else():
    clock = Clock()
    door = Door(clock, 10)
    late, later, begun = (Connection(door) for _ in range(3))
    transports = {each: Transport() for each in (late, later, begun)}
    door.add(late, transports[late])
    door.add(begun, transports[begun])
    clock.pass_(5)
    door.add(later, transports[later])
    begun.begin()
    clock.pass_(4.5)
    assert all(each.is_open for each in transports.values())
    clock.pass_(1.5)
    assert not transports[late].is_open
    assert transports[later].is_open
    clock.pass_(5)
    assert not transports[later].is_open
    assert transports[begun].is_open
    assert not clock.timers


def test_at_the_end_nobody_has_more_time_than_before():
    clock = Clock()
    door = Door(clock, 10)
    early, silent, late = (Connection(door) for _ in range(3))
    transports = {each: Transport() for each in (early, silent, late)}
    door.add(early, transports[early])
    clock.pass_(9)
    door.add(silent, transports[silent])
    door.hurry(3)
    door.add(late, transports[late])
    clock.pass_(1)
    assert [each.is_open for each in transports.values()] == [False, True, True]
    clock.pass_(2)
    assert not any(each.is_open for each in transports.values())
    assert not clock.timers


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_that_says_nothing_does_not_delay_the_end(listen, loop):
    patient = ("--timeout", "600", "--graceful-timeout", "600")
    gunicorn = listen(*patient, "--keep-alive", "1", loop=loop)
    silent = gunicorn.connect()
    # It is accepted before this one.
    gunicorn.begin().close()
    gunicorn.server.send_signal(signal.SIGTERM)
    assert is_closed(silent)
    assert gunicorn.server.process.wait(DEADLINE) == 0


def test_the_door_forgets_who_has_left():
    clock = Clock()
    door = Door(clock, 10)
    transport = Transport()
    forgotten = weakref.ref(transport)
    door.add(Connection(door), transport)
    transport.is_open = False
    del transport
    assert forgotten() is not None
    clock.pass_(1)
    assert forgotten() is None
    assert not clock.timers


@pytest.mark.parametrize("has_begun", [True, False])
def test_nobody_waits_at_the_door_who_has_begun_or_may_take_any_time(has_begun):
    clock = Clock()
    door = Door(clock, 10 if has_begun else 0)
    connection = Connection(door)
    if has_begun:
        connection.begin()
    door.add(connection, Transport())
    assert not clock.timers


# The contract with gunicorn


def test_gunicorn_still_has_the_protocol():
    from gunicorn.asgi import protocol
    from gunicorn.workers import gasgi

    assert gasgi.ASGIProtocol is protocol.ASGIProtocol
    assert protocol_factory(None) is not None


def test_without_the_protocol_there_is_no_factory(monkeypatch):
    from gunicorn.asgi import protocol

    monkeypatch.delattr(protocol, "ASGIProtocol")
    assert protocol_factory(None) is None


def test_whoever_waits_is_accepted_in_one_turn_up_to_the_limit(run_on):
    turns = []

    class Counting(socket.socket):
        """A listening socket that notes how many it has accepted a turn later."""

        accepted = 0

        def accept(self):
            asyncio.get_running_loop().call_soon(lambda: turns.append(self.accepted))
            result = super().accept()
            self.accepted += 1
            return result

    async def main(limit):
        turns.clear()
        with contextlib.ExitStack() as stack:
            listening = stack.enter_context(Counting())
            where = address(listening)
            for _ in range(5):
                stack.enter_context(socket.socket()).connect(where)
            worker = Sockets(listening)
            listener = worker.listener(limit)
            listener.take_over([], 0)
            await until(lambda: turns)
            listener.close()
            await listener.wait_closed()

    run_on("asyncio", main(None))
    assert turns[0] == 5
    run_on("asyncio", main(3))
    assert turns[0] == 3


def test_a_connection_that_begins_is_not_taken_for_two(run_on, caplog):
    async def main():
        with socket.socket() as listening, socket.socket() as client:
            client.connect(address(listening))
            worker = Sockets(listening)

            class Counted(Protocol):
                def connection_made(self, transport):
                    listener.count(1)
                    super().connection_made(transport)

            listener = Listener(worker, lambda: Counted(worker.noted), 2)
            listener.take_over([], 0)
            await until(lambda: worker.noted and not listener._beginning)
            listener.close()

    run_on("asyncio", main())
    assert not caplog.records

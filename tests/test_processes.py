"""Processes of gunicorn with our worker: real signals, under load.

Clients ask all the time while workers and masters come and go. What counts as lost is
what HTTP says. A request on a new connection has its answer, always. One on a
connection that was used before may find it closed, for the server may close it at any
time; it is sent again if it is idempotent, and not a byte of an answer has come (RFC
9110, section 9.2.2).
"""

import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import struct
import threading
from collections import Counter
from pathlib import Path

import pytest
from life import (
    APPS,
    CLOSED,
    ENVIRON,
    OPENED,
    assert_clean,
    events,
    facts,
    pids,
)
from servers import COMMANDS, DEADLINE, WORKER, Server, poll, run
from workers import Held, gunicorn, paste, read_until_closed, write_ini
from ws_client import CLOSE, Raw, close_frame

APP = "worker_app:make()"

RELOADS = 50
# Seconds between two requests of a client.
PAUSE = 0.005
# A connection that was closed before it has said anything.
GONE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


# Load ------------------------------------------------------------------------


class Client(threading.Thread):
    """Asks until it is told to stop.

    Args:
        port: of the server.
        keeps: whether it uses a connection for as long as it may.

    Attributes:
        answers: how many it has had, each of which was its own.
        again: how often it had to ask again, as HTTP allows.
        lost: what went wrong instead.
        workers: the processes that have answered.
    """

    _numbers = itertools.count()

    def __init__(self, port, keeps):
        super().__init__()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, DEADLINE)
        self._keeps = keeps
        self._is_used = False
        self._told_to_stop = threading.Event()
        self.answers = self.again = 0
        self.lost = []
        self.workers = set()

    def run(self):
        while not self._told_to_stop.wait(PAUSE):
            try:
                self._ask()
            except GONE as error:
                if self._is_used:
                    self.again += 1
                else:
                    self.lost.append(error)
                self._leave()
            except Exception as error:
                self.lost.append(error)
                self._leave()
        self._leave()

    def _ask(self):
        mark = f"n={next(self._numbers)}"
        headers = {} if self._keeps else {"Connection": "close"}
        self._connection.request("GET", f"/where?{mark}", headers=headers)
        answer = self._connection.getresponse()
        try:
            told = json.loads(answer.read())
        except GONE as error:
            raise EOFError("a part of an answer") from error
        assert answer.status == 200, answer.status
        assert told["url"].endswith(mark), told["url"]
        assert told["opened"]
        self.answers += 1
        self.workers.add(told["pid"])
        # http.client has closed it if the server said that it will.
        self._is_used = self._connection.sock is not None

    def _leave(self):
        self._connection.close()
        self._is_used = False

    def tell_to_stop(self):
        """Have it stop after the request that is under way."""
        self._told_to_stop.set()


class Load:
    """Some clients, half of which keep their connections."""

    def __init__(self, server, number):
        self._server = server
        self.clients = [Client(server.port, keeps=bool(n % 2)) for n in range(number)]

    @property
    def lost(self):
        """What each client has lost."""
        return [client.lost for client in self.clients]

    @property
    def is_lossless(self):
        """Whether nobody has lost anything."""
        return not any(self.lost)

    @property
    def workers(self):
        """The processes that have answered."""
        return set().union(*(client.workers for client in self.clients))

    def go_on(self):
        """Return when every client has had another answer."""
        before = [client.answers for client in self.clients]
        poll(
            lambda: all(
                client.answers > old
                for client, old in zip(self.clients, before, strict=True)
            ),
            lambda: self._server.describe(f"does not answer: {self.lost}"),
        )

    def stop(self):
        """Have them stop; harmless if they have."""
        for client in self.clients:
            client.tell_to_stop()
        for client in self.clients:
            client.join(2 * DEADLINE)
            assert not client.is_alive()


@contextlib.contextmanager
def load(server, number=6):
    """Clients of a server, to the end of the block."""
    load = Load(server, number)
    for client in load.clients:
        client.start()
    try:
        load.go_on()
        yield load
    finally:
        load.stop()


def until_said(server, pattern):
    """Return when the output has it, also when the first master has ended."""
    poll(lambda: re.search(pattern, server.output), server.describe)


def opened(server):
    """How many workers have opened their lifespans."""
    return len(pids(server, "starting"))


def until_opened(server, number):
    """Return when that many have."""
    poll(lambda: opened(server) >= number, server.describe)


def assert_all_have_closed(server, number):
    """So many workers have opened their lifespans, and closed them."""
    counted = Counter(events(server))
    assert [counted[event] for event in (*OPENED, *CLOSED)] == 6 * [number]


# Reloads ---------------------------------------------------------------------


def test_50_reloads_under_load_lose_nothing(tmp_path):
    # Both ways at once, for each has to wait most of the time.
    by_name = gunicorn(APP, "--asgi-loop", "asyncio", "--keep-alive", "1")
    ini = write_ini(tmp_path / "app.ini")
    by_ini = paste(ini, "--asgi-loop", "auto", "--keep-alive", "1")
    with by_name as one, by_ini as other, load(one) as first, load(other) as second:
        for number in range(RELOADS):
            one.send_signal(signal.SIGHUP)
            other.send_signal(signal.SIGHUP)
            until_opened(one, number + 2)
            until_opened(other, number + 2)
        for server, asking in ((one, first), (other, second)):
            asking.go_on()
            assert asking.is_lossless, asking.lost
            assert len(asking.workers) > RELOADS / 2
            asking.stop()
            assert server.stop() == 0
            assert_clean(server)
            assert_all_have_closed(server, RELOADS + 1)


def test_a_request_under_way_is_answered_by_the_worker_that_it_began_in():
    with gunicorn(APP) as server:
        held = Held(server, "/read", "reading")
        (old,) = pids(server, "starting")
        server.send_signal(signal.SIGHUP)
        until_opened(server, 2)
        server.wait_for("Waiting for 1 connections")
        assert facts(server)["pid"] != old
        assert held.finish()[0] == 200
        poll(lambda: pids(server, "closed first") == [old], server.describe)
        assert server.stop() == 0
        assert_clean(server)


def test_reloads_that_overtake_each_other_lose_nothing():
    with gunicorn(APP, "--keep-alive", "1") as server, load(server) as asking:
        # Of signals that wait the system keeps one, so each is waited for.
        for number in range(1, 6):
            server.send_signal(signal.SIGHUP)
            poll(
                lambda wanted=number: server.output.count("Hang up") >= wanted,
                server.describe,
            )
        until_opened(server, 2)
        asking.go_on()
        assert asking.is_lossless, asking.lost
        poll(lambda: len(server.children()) == 1, server.describe)
        asking.go_on()
    assert asking.is_lossless, asking.lost


# Upgrades --------------------------------------------------------------------


@contextlib.contextmanager
def upgradable(*options):
    """gunicorn as a script, under load; also gives the load."""
    options = ("-k", WORKER, "-b", "127.0.0.1:0", "--no-control-socket", *options)
    command = ["gunicorn_script", *options, "--keep-alive", "1", APP]
    with run(command, APPS, ENVIRON) as server, load(server) as asking:
        yield server, asking


def upgrade(server):
    """Have a new master started; gives its process id."""
    server.send_signal(signal.SIGUSR2)
    found = server.wait_for(r"(?s)Listening at: .*Listening at: \S+ \((\d+)\)")
    until_opened(server, 2)
    return int(found[1])


def has_ended(pid):
    # It is nobody's child in here, so it may stay there as a zombie.
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(") ")[2][0] == "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_new_master_takes_over_without_a_lost_request(tmp_path, number):
    pidfile = tmp_path / "pid"
    with upgradable("--pid", str(pidfile)) as (server, asking):
        (old,) = pids(server, "starting")
        master = upgrade(server)
        assert int((tmp_path / "pid.2").read_text()) == master
        (_, new) = pids(server, "starting")
        poll(lambda: {old, new} <= asking.workers, server.describe)
        assert asking.is_lossless, asking.lost
        # Its workers have nothing to do any more: what it does at once is safe.
        assert server.stop(number) == 0
        until_said(server, "Master has been promoted")
        poll(lambda: pidfile.exists() and int(pidfile.read_text()) == master)
        asking.go_on()
        if number == signal.SIGTERM:
            assert asking.is_lossless, asking.lost
        asking.stop()
        os.kill(master, signal.SIGTERM)
        poll(lambda: has_ended(master), server.describe)
        assert pids(server, "closed first") == [old, new]
        assert_clean(server)


def test_an_upgrade_is_taken_back_without_a_lost_request():
    with upgradable() as (server, asking):
        master = upgrade(server)
        os.kill(master, signal.SIGTERM)
        poll(lambda: has_ended(master), server.describe)
        asking.go_on()
        assert asking.is_lossless, asking.lost
        old, new = pids(server, "starting")
        assert pids(server, "closed first") == [new]
        assert facts(server)["pid"] == old


# Workers come and go ---------------------------------------------------------


def test_workers_that_have_served_enough_are_replaced_without_a_lost_request():
    options = ("--max-requests", "60", "--max-requests-jitter", "20")
    with gunicorn(APP, "--workers", "2", "--keep-alive", "1", *options) as server:
        with load(server) as asking:
            until_opened(server, 6)
            asking.go_on()
        assert asking.is_lossless, asking.lost
        assert server.stop() == 0
        assert_clean(server)
        assert_all_have_closed(server, opened(server))


def held_in(server, pid):
    """A request under way in that worker; others it ends."""
    while True:
        before = len(pids(server, "reading"))
        held = Held(server, "/read", "reading")
        poll(lambda n=before: len(pids(server, "reading")) > n, server.describe)
        if pids(server, "reading")[-1] == pid:
            return held
        held.finish()


def test_a_worker_that_is_killed_takes_only_its_own_connections_with_it():
    with gunicorn(APP, "--workers", "2") as server:
        until_opened(server, 2)
        victim, survivor = pids(server, "starting")
        with load(server) as asking:
            doomed, safe = held_in(server, victim), held_in(server, survivor)
            os.kill(victim, signal.SIGKILL)
            with pytest.raises(GONE):
                doomed.finish()
            assert safe.finish()[0] == 200
            server.wait_for(rf"\(pid:{victim}\) was sent SIGKILL")
            # Each client had one connection, which may have been the victim's.
            lost = asking.lost
            assert all(len(each) <= 1 for each in lost), lost
            until_opened(server, 3)
            new = pids(server, "starting")[-1]
            poll(lambda: new in asking.workers, server.describe)
            asking.go_on()
            assert asking.lost == lost
        assert sorted(server.children()) == sorted([survivor, new])
        assert server.stop() == 0
        assert set(pids(server, "closed first")) == {survivor, new}


def test_workers_are_added_and_taken_away_without_a_lost_request():
    with gunicorn(APP, "--keep-alive", "1") as server, load(server) as asking:
        server.send_signal(signal.SIGTTIN)
        until_opened(server, 2)
        first, second = pids(server, "starting")
        poll(lambda: {first, second} <= asking.workers, server.describe)
        server.send_signal(signal.SIGTTOU)
        poll(lambda: pids(server, "closed first") == [first], server.describe)
        poll(lambda: server.children() == [second], server.describe)
        asking.go_on()
        assert asking.is_lossless, asking.lost


# Stopping --------------------------------------------------------------------


def test_sigterm_lets_running_requests_end_and_closes_then():
    with gunicorn("worker_app:make()") as server:
        coroutine = Held(server, "/read", "reading")
        thread = Held(server, "/read_sync", "reading_sync")
        server.send_signal(signal.SIGTERM)
        server.wait_for("Waiting for 2 connections")
        assert coroutine.finish()[1] == {"body": "ab", "thread": "MainThread"}
        status, body = thread.finish()
        assert status == 200
        assert body["thread"].startswith("aioext-executor")
        assert server.process.wait(DEADLINE) == 0
        assert events(server)[-3:] == CLOSED
        assert_clean(server)


def test_sigterm_is_noticed_while_the_application_is_loaded(tmp_path):
    go_on = tmp_path / "go_on"
    command = [*COMMANDS["gunicorn"], "worker_slow", "--graceful-timeout", "25"]
    server = Server(command, APPS, {"GO_ON": str(go_on)})
    try:
        server.wait_for("importing")
        server.send_signal(signal.SIGTERM)
        server.wait_for("Handling signal: term")
        go_on.touch()
        assert server.process.wait(15) == 0
        assert "SIGKILL" not in server.output
    finally:
        server.close()


def test_sigterm_cuts_an_endless_response_in_time_to_close():
    with gunicorn("worker_app:make()", "--graceful-timeout", "3") as server:
        with server.connect() as client:
            client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            server.wait_for("event: streaming ")
            assert server.stop() == 0
            assert read_until_closed(client).startswith(b"HTTP/1.1 200")
        assert sorted(events(server)[-4:]) == sorted([*CLOSED, "streamed"])
        assert "SIGKILL" not in server.output
        assert "Traceback" not in server.output


def test_sigterm_is_not_held_up_by_a_client_that_says_nothing():
    with gunicorn("worker_app:make()", "--graceful-timeout", "2") as server:
        server.wait_for("ASGI server listening")
        with server.connect():
            assert server.stop() == 0
        assert events(server) == OPENED + CLOSED
        assert "SIGKILL" not in server.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_sigint_and_sigquit_end_at_once_and_close_all_the_same(number):
    with gunicorn("worker_app:make()", "--graceful-timeout", "20") as server:
        held = Held(server, "/read", "reading")
        facts(server, "/leave")
        with server.connect() as client, server.connect() as blocked:
            client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            server.wait_for("event: streaming ")
            blocked.sendall(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
            server.wait_for("event: blocking ")
            assert server.stop(number, timeout=10) == 0
        held.close()
        for event in (*CLOSED, "streamed", "left", "unblocked"):
            assert event in events(server), server.describe(event)
        assert_clean(server)


def test_a_coroutine_that_is_left_running_does_not_hold_up_the_end():
    with gunicorn("worker_app:make()") as server:
        facts(server, "/leave")
        assert server.stop() == 0
        assert events(server) == [*OPENED, *CLOSED, "left"]
        assert_clean(server)


def test_a_worker_whose_loop_is_blocked_is_replaced():
    with gunicorn("worker_plain:blocking", "--timeout", "1") as server:
        with server.connect() as client:
            client.sendall(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
            server.wait_for("WORKER TIMEOUT")
            assert read_until_closed(client) == b""
        assert facts(server, "/")["said"] == "waited"


# Many connections ------------------------------------------------------------

MANY = 1000


def idle_streams(server, stack):
    """Event streams that have begun, and say nothing."""
    for _ in range(MANY):
        client = stack.enter_context(server.connect())
        client.sendall(b"GET /idle HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 200")
        yield client


def idle_sockets(server, stack):
    """WebSockets whose handshake is done."""
    for _ in range(MANY):
        yield stack.enter_context(Raw(server, "/echo"))


def test_all_of_1000_event_streams_are_ended_when_the_server_stops():
    with gunicorn(APP) as server, contextlib.ExitStack() as stack:
        clients = list(idle_streams(server, stack))
        server.send_signal(signal.SIGTERM)
        for client in clients:
            # When to come back, and the end of the body.
            end = read_until_closed(client)
            assert re.search(rb"retry: \d+\n\n\r\n0\r\n\r\n$", end), end
        assert_has_stopped(server)


def test_all_of_1000_websockets_are_closed_when_the_server_stops():
    with gunicorn(APP) as server, contextlib.ExitStack() as stack:
        clients = list(idle_sockets(server, stack))
        server.send_signal(signal.SIGTERM)
        for client in clients:
            opcode, payload = client.read()
            assert opcode == CLOSE
            assert payload[:2] == struct.pack("!H", 1012)
            client.send(close_frame(1012))
        assert_has_stopped(server)


def assert_has_stopped(server):
    assert server.process.wait(DEADLINE) == 0
    assert events(server) == OPENED + CLOSED
    assert_clean(server)

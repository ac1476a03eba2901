"""uWSGI's asyncio mode, in real uWSGI processes."""

import asyncio
import http.client
import json
import os
import re
import select
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import servers
from servers import receive_until

from aioext.uwsgi.connection import Departures

APPS = Path(__file__).parent / "apps"
MEBIBYTE = 1_048_576
# Others have theirs, of modules that Python is to drop.
WARNINGS = "ignore,default::RuntimeWarning,default:There is no"


@contextmanager
def serve(*options, variant="plain", kind="uwsgi"):
    environ = {"VARIANT": variant, "PYTHONWARNINGS": WARNINGS}
    with servers.serve(
        kind, "uwsgi_app:application", *options, directory=APPS, environ=environ
    ) as server:
        yield server


@pytest.fixture(scope="module")
def server():
    with serve() as server:
        yield server
        assert server.stop() == 0
        assert_clean(server)


@pytest.fixture(scope="module")
def inline():
    with serve(variant="inline") as server:
        yield server
        assert_clean(server)


def assert_clean(server):
    """The server has complained about nothing."""
    words = r"(?im)^.*(?:traceback|error:|exception|[a-z]Warning|BUG|DAMN|never ).*$"
    assert re.findall(words, server.output) == [], server.describe("complained")


def told(server, *words, since=0):
    """Wait until the application has told something."""
    line = f"event: {' '.join(words)} "
    servers.poll(lambda: line in server.output[since:], server.describe, server)


def exchange(server, path, method="GET", body=None, headers=(), timeout=60):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout)
    try:
        connection.request(
            method, path, body, dict(headers), encode_chunked=bool(headers)
        )
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def get(server, path, **others):
    status, body = exchange(server, path, **others)
    assert status == 200, (status, body, server.output[-3000:])
    return json.loads(body)


def send(server, path, method="GET", headers=(), body=b""):
    """A client that has sent a request, and reads nothing."""
    client = server.connect()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    client.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return client


def receive(client):
    with client:
        parts = []
        while part := client.recv(65_536):
            parts.append(part)
    return b"".join(parts)


# Requests that take turns ----------------------------------------------------


@pytest.mark.parametrize("order", ["first", "last"])
def test_overlapping_requests_each_keep_their_own(server, order):
    names = [f"{order}{number}" for number in range(5)]
    clients = {}
    for name in names:
        clients[name] = send(server, f"/hold?name={name}")
        told(server, "holding", name)
    for name in names if order == "first" else reversed(names):
        get(server, f"/set?name={name}")
        assert f'{{"name": "{name}"}}'.encode() in receive(clients[name])


def test_waits_may_be_nested(server):
    assert get(server, "/nested") == {"depth": 5}


def test_synchronous_views_wait_in_the_greenlet_of_their_request(inline):
    assert get(inline, "/nested") == {"depth": 5}
    assert get(inline, "/alchemy") == {"value": 42}


def test_tasks_and_timeouts_of_a_request(server):
    assert get(server, "/gather") == [0, 1, 2, 3, 4, "timeout"]


def test_a_process_that_a_request_forks_waits_by_itself(inline):
    since = len(inline.output)
    assert get(inline, "/forked") == {}
    told(inline, "forked", "7", since=since)


def test_an_exception_is_an_error_page_and_in_the_log(server):
    with serve() as other:
        assert exchange(other, "/fail")[0] == 500
        servers.poll(lambda: "LookupError: it failed" in other.output, other.describe)
        assert get(other, "/nested") == {"depth": 5}


def test_a_cancellation_that_nobody_has_asked_for_is_an_error():
    with serve() as other:
        assert exchange(other, "/astray")[0] == 500
        words = "GatewayError: The application raised CancelledError"
        servers.poll(lambda: words in other.output, other.describe)


def test_a_header_that_would_be_two_is_not_sent():
    with serve() as other:
        assert exchange(other, "/split")[0] == 500
        servers.poll(lambda: "X-A has a control character" in other.output)
        told(other, "closed split")
        assert get(other, "/nested") == {"depth": 5}


def test_whole_requests_in_threads():
    with serve(variant="request") as server:
        answer = get(server, "/thread", method="POST", body=bytes(MEBIBYTE))
        assert answer["size"] == MEBIBYTE
        assert_clean(server)


# Bodies of requests ----------------------------------------------------------


def test_sockets_and_the_loop_are_waited_for_by_turns(server):
    size = 5 * MEBIBYTE
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(
            lambda _: get(server, "/mixed", method="POST", body=bytes(size)), range(8)
        )
        assert list(answers) == [{"size": size}] * 8


def test_a_slow_upload_holds_nobody_up(server):
    slow = send(server, "/mixed", "POST", ["Content-Length: 5"])
    for part in (b"0", b"1", b"2", b"3", b"4"):
        assert get(server, "/nested") == {"depth": 5}
        slow.sendall(part)
    assert b'{"size": 5}' in receive(slow)


def test_a_future_of_two_is_waited_for_after_the_socket(server):
    since = len(server.output)
    client = send(server, "/joined", "POST", ["Content-Length: 5"])
    told(server, "reading", since=since)
    client.sendall(b"12345")
    assert b'{"size": 5}' in receive(client)


def test_a_body_that_cannot_be_read_is_refused(inline):
    answer = get(inline, "/below", method="POST", body=b"1")["answer"]
    assert answer.startswith(
        "Something that works in the greenlet of the request alone"
    )


CHUNKED = {"Transfer-Encoding": "chunked"}


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_the_body_is_read_as_pep_3333_says(server, chunked):
    body = b"first\nsecond\n" + b"x" * 100_000 + b"\nlast"
    if chunked:
        body = iter([body[:3], body[3:50], body[50:]])
    answer = get(
        server, "/upload", method="POST", body=body, headers=CHUNKED if chunked else {}
    )
    assert answer == {"lines": ["first\n", "sec", ""], "rest": 100_009, "end": ""}


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_a_view_in_a_thread_reads_its_body(server, chunked):
    size = 5 * MEBIBYTE
    body = iter([bytes(MEBIBYTE // 2)] * 10) if chunked else bytes(size)
    headers = CHUNKED if chunked else {}
    answer = get(server, "/thread", method="POST", body=body, headers=headers)
    assert answer["size"] == size
    assert answer["thread"].startswith("aioext-executor")


def test_a_view_in_a_thread_waits_for_a_slow_body(server):
    clients = [
        send(server, "/thread", "POST", ["Content-Length: 4"], b"ab") for _ in range(8)
    ]
    assert get(server, "/nested") == {"depth": 5}
    for client in clients:
        client.sendall(b"cd")
        assert b'"size": 4' in receive(client)


def test_a_form_is_read_in_a_thread(server):
    parts = [
        b'Content-Disposition: form-data; name="name"\r\n\r\nsome text',
        b'Content-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        + bytes(MEBIBYTE),
    ]
    body = b"".join(b"--edge\r\n" + part + b"\r\n" for part in parts) + b"--edge--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    answer = get(server, "/form", method="POST", body=body, headers=headers)
    assert answer == {"name": "some text", "size": MEBIBYTE}


@pytest.mark.parametrize("path", ["/mixed", "/thread"])
def test_a_client_that_leaves_in_mid_body_harms_nobody(server, path):
    client = send(server, path, "POST", ["Content-Length: 1000"], b"abc")
    get(server, "/nested")
    client.close()
    assert get(server, "/nested") == {"depth": 5}


# Bodies of responses ---------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_parts_are_sent_when_they_are_made(server, kind):
    since = len(server.output)
    name = f"stream-{kind}"
    client = send(server, f"/stream?name={name}&{kind}")
    for number in range(3):
        assert receive_until(client, b"%d" % number)[-1:] == b"%d" % number
        get(server, f"/set?name={name}{number}")
    assert receive(client) == b""
    told(server, "closed", name, since=since)


@pytest.mark.parametrize("path", ["/file", "/thread_file"])
def test_files_are_sent(server, path):
    expected = (APPS / "uwsgi_app.py").read_bytes()
    assert exchange(server, path) == (200, expected)


def test_a_slow_reader_gets_everything_and_holds_nobody_up(server):
    with send(server, "/large") as client:
        head = receive_until(client, b"\r\n\r\n")
        size = len(head.partition(b"\r\n\r\n")[2])
        while part := client.recv(65_536):
            if size < 300_000:
                assert get(server, "/nested") == {"depth": 5}
            size += len(part)
    assert size == 16 * MEBIBYTE


# Requests that end early -----------------------------------------------------


def test_a_request_is_cancelled_when_its_client_leaves(server):
    since = len(server.output)
    client = send(server, "/leave?name=early")
    told(server, "waiting", "early", since=since)
    client.close()
    told(server, "cancelled", "early", since=since)
    told(server, "left", "early", since=since)


def test_request_disconnected_is_set(server):
    since = len(server.output)
    client = send(server, "/look?name=one", "POST", ["Content-Length: 0"])
    told(server, "looking", "one", since=since)
    client.close()
    told(server, "gone", "one", since=since)


def test_a_deadline_is_answered_before_the_cleanup_has_ended(server):
    since = len(server.output)
    assert exchange(server, "/late")[0] == 503
    assert "event: late" not in server.output[since:]
    get(server, "/set?name=late")
    told(server, "late", since=since)


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="Linux only")
def test_a_descriptor_of_the_same_number_is_another_connection():
    async def main():
        departures = Departures(asyncio.get_running_loop())
        first, ours = socket.socketpair()
        second, client = socket.socketpair()
        number = first.fileno()
        ended = asyncio.create_task(departures.wait(first))
        await asyncio.sleep(0)

        async def wait_for_the_second():
            with socket.socket(fileno=os.dup(second.fileno())) as copy:
                assert copy.fileno() == number
                await departures.wait(copy)

        with ours, second, client:
            waiting = asyncio.create_task(wait_for_the_second())
            # It begins before the other one hears that it is cancelled.
            ended.cancel()
            first.close()
            await asyncio.wait([ended])
            client.close()
            await asyncio.wait_for(waiting, servers.DEADLINE)

    asyncio.run(main())


def test_what_is_shielded_is_not_interrupted():
    with serve() as server:
        client = send(server, "/kept", "POST", ["Content-Length: 5"])
        told(server, "reading", "kept")
        client.sendall(b"12345")
        assert b" 500 " in receive(client)
        told(server, "kept")


@pytest.mark.parametrize("half", [True, False], ids=["half-closed", "reset"])
def test_a_client_that_leaves_while_uwsgi_waits_for_it(half):
    with serve() as server, send(server, "/flood") as client:
        receive_until(client, b"\r\n\r\n")
        if half:
            client.shutdown(socket.SHUT_WR)
        else:
            client.close()
        told(server, "calm")
        assert "CancelledError" not in server.output


# Leaks -----------------------------------------------------------------------


def test_3000_requests_leave_nothing_behind(server):
    def serve_many(count):
        with ThreadPoolExecutor(8) as pool:
            paths = ["/nested", "/gather", "/alchemy"] * (count // 3)
            assert all(pool.map(lambda path: get(server, path), paths))

    def census():
        # The last requests may have been answered, and not have ended.
        found = get(server, "/census")
        return found if found["Exchange"] == 1 else None

    serve_many(300)
    (worker,) = server.children()
    memory = servers.memory(worker)
    before = servers.poll(census, server.describe)
    serve_many(3000)
    servers.poll(lambda: census() == before, lambda: f"{before} {census()}")
    assert servers.memory(worker) - memory < 8 * MEBIBYTE


# Start and end ---------------------------------------------------------------


MODES = {"prefork": [], "lazy": ["--lazy-apps"], "several": ["--processes", "2"]}


@pytest.mark.parametrize(
    ("mode", "number"),
    [("prefork", "SIGTERM"), ("lazy", "SIGINT"), ("several", "SIGTERM")],
)
def test_a_stop_cancels_requests_and_closes_lifespans(mode, number):
    options = MODES[mode]
    with serve(*options) as server:
        workers = 2 if "--processes" in options else 1

        def counted(words):
            return server.output.count(f"event: {words} ") == workers

        servers.poll(lambda: counted("opened"), server.describe, server)
        with send(server, "/leave?name=a"), send(server, "/stream?name=b") as stream:
            told(server, "waiting", "a")
            receive_until(stream, b"0")
            assert server.stop(signal.Signals[number]) == 0
        for words in ("left a", "closed b"):
            assert f"event: {words} " in server.output, server.describe()
        assert counted("closed resource"), server.describe()
        assert_clean(server)


def test_a_stop_does_not_wait_for_clients():
    with serve() as server:
        upload = send(server, "/joined", "POST", ["Content-Length: 5"])
        told(server, "reading")
        with upload, send(server, "/flood") as flood:
            receive_until(flood, b"\r\n\r\n")
            assert server.stop(timeout=15) == 0
            assert b" 503 " in receive(upload)
        assert "event: calm " in server.output
        assert "CancelledError" not in server.output


def test_a_request_that_comes_after_the_stop_is_refused():
    with serve() as server:
        with send(server, "/linger"), server.connect() as late:
            told(server, "waiting", "linger")
            late.sendall(b"GET /leave?name=late HTTP/1.1\r\n")
            get(server, "/nested")
            server.send_signal(signal.SIGTERM)
            told(server, "lingering")
            late.sendall(b"\r\n")
            assert b" 503 " in receive_until(late, b"\r\n\r\n")
            server.process.wait(15)


def test_a_server_without_a_master_stops_as_well():
    options = [each for each in servers.COMMANDS["uwsgi"] if each != "--master"]
    command = [*options, "--module=uwsgi_app:application"]
    with servers.run(command, APPS) as server:
        with send(server, "/leave?name=a"):
            told(server, "waiting", "a")
            assert server.stop() == 0
        assert "event: left a " in server.output
        assert "event: closed resource " in server.output


@pytest.mark.parametrize("options", [[], ["--lazy-apps"]], ids=["prefork", "lazy"])
def test_a_reload_lets_requests_end(options):
    with serve(*options) as server:
        told(server, "opened")
        (old,) = server.children()
        with send(server, "/last") as client:
            told(server, "waiting", "last")
            server.send_signal(signal.SIGHUP)
            assert b'{"last": %d}' % old in receive(client)
        servers.poll(lambda: server.output.count("event: opened") == 2, server.describe)
        assert f"event: closed resource {old}" in server.output
        # The system chooses a port once more.
        server.port = int(re.findall(servers.ADDRESS, server.output)[-1])
        assert get(server, "/nested") == {"depth": 5}
        assert server.stop() == 0
        assert_clean(server)


def test_a_worker_that_is_killed_is_replaced():
    with serve() as server:
        assert get(server, "/nested") == {"depth": 5}
        (old,) = server.children()
        os.kill(old, signal.SIGKILL)
        servers.poll(lambda: server.output.count("event: opened") == 2, server.describe)
        assert get(server, "/nested") == {"depth": 5}


def test_a_stop_before_the_worker_has_begun_is_not_swallowed(tmp_path):
    environ = {"VARIANT": "interrupted", "FLAG": str(tmp_path / "flag")}
    with servers.serve(
        "uwsgi", "uwsgi_app:application", directory=APPS, environ=environ
    ) as server:
        told(server, "opened")
        assert "Respawned uWSGI worker 1" in server.output


def test_a_stop_during_the_start_does_not_wait_for_it():
    with serve(variant="slow") as server:
        told(server, "opening")
        assert server.stop(timeout=15) == 0
        assert "event: given up" in server.output


@pytest.mark.parametrize("mode", ["lazy", "several"])
def test_an_application_that_cannot_start_ends_the_server(mode):
    with serve(*MODES[mode], variant="failing") as server:
        server.process.wait(servers.DEADLINE)
        assert "LookupError: there is no database" in server.output
        assert "because the application could not start" in server.output
        assert server.output.count("spawned uWSGI worker 1 ") == 1


# What is missing -------------------------------------------------------------


def without(*options):
    command = list(servers.COMMANDS["uwsgi"])
    start = command.index("--asyncio")
    return [*command[:start], *options, "--module=uwsgi_app:application"]


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        (["--asyncio", "50"], "Start it with --greenlet"),
        (["--asyncio", "50", "--lazy-apps"], "Start it with --greenlet"),
    ],
    ids=["prefork", "lazy"],
)
def test_a_missing_option_is_told_in_one_message(options, cure):
    with servers.run(without(*options), APPS) as server:
        server.process.wait(servers.DEADLINE)
        assert server.output.count(cure) == 1, server.output
        assert "Traceback" not in server.output


ALONE = """
from pyramid.config import Configurator

async def view(request):
    return {"script": request.script_name}

with Configurator() as config:
    config.include("aioext")
    config.add_route("script", "/script")
    config.add_view(view, route_name="script", renderer="json")
    application = config.make_wsgi_app()
"""


def mounted_twice(directory, *options):
    # Of modules that no second interpreter refuses by itself.
    (directory / "alone.py").write_text(ALONE)
    command = [*servers.COMMANDS["uwsgi"], "--manage-script-name", *options]
    mounts = [f"--mount=/{name}=alone:application" for name in "ab"]
    return servers.run([*command, *mounts], directory)


def test_a_second_interpreter_is_refused(tmp_path):
    with mounted_twice(tmp_path) as server:
        server.process.wait(servers.DEADLINE)
        assert server.output.count("Start it with --single-interpreter") == 1
        assert "Traceback" not in server.output


def test_several_applications_in_one_interpreter(tmp_path):
    with mounted_twice(tmp_path, "--single-interpreter") as server:
        for script in ("/a", "/b"):
            assert get(server, f"{script}/script") == {"script": script}
        assert server.stop() == 0


@pytest.mark.parametrize("options", [["--threads", "4"], []], ids=["threads", "one"])
def test_without_the_loop_it_is_a_plain_wsgi_server(options):
    with servers.run(without(*options), APPS) as server:
        assert get(server, "/set?name=x") == {}
        answer = get(server, "/thread", method="POST", body=bytes(MEBIBYTE))
        assert answer["size"] == MEBIBYTE
        assert server.output.count("uWSGI runs no asyncio loop") == 1
        assert server.stop() == 0


def test_an_option_that_does_no_good_is_told():
    with serve("--max-requests", "10") as server:
        told(server, "opened")
        assert "does not look at max-requests" in server.output

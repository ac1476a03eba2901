"""Requests and responses on real connections, whose clients misbehave."""

import http.client
import json
import re
import socket
import struct

import pytest
import servers
from runtimes import (
    AT_ONCE,
    BESIDE,
    CHUNKED,
    CONNECTIONS,
    CUTS,
    ENDS_READING,
    ENDS_WAITING,
    RUNTIMES,
    STREAMS,
)
from servers import receive_until

MEBIBYTE = 1_048_576
CHUNKS = "Transfer-Encoding: chunked"

gunicorn = pytest.mark.only("gunicorn on uvloop")


@pytest.fixture
def server(running):
    return running.server


def start(name, *options):
    return RUNTIMES[name].serve("suite.app", *options)


def head(path="/", method="GET", headers=()):
    lines = [f"{method} /gateway{path} HTTP/1.1", "Host: localhost", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def exchange(server, path="/", method="GET", headers=(), body=b""):
    """The status and the body of the answer."""
    headers = ["Connection: close", *headers]
    with server.connect() as client:
        client.sendall(head(path, method, headers) + body)
        return received(client)


def received(client):
    response = http.client.HTTPResponse(client)
    response.begin()
    return response.status, response.read()


def receive_all(client):
    parts = []
    try:
        while part := client.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        # A connection that is cut, which a caller sees by what is missing.
        pass
    return b"".join(parts)


def split(answer):
    top, _, body = answer.partition(b"\r\n\r\n")
    return int(top.split(b" ")[1]), body


def environ_of(server, path):
    return json.loads(exchange(server, path)[1])


def reset(client):
    """Close with RST instead of FIN."""
    linger = struct.pack("ii", 1, 0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.close()


def errors_in(output):
    return re.findall(r"(?im)^.*(?:error|traceback|exception|warn).*$", output)


@pytest.mark.without(CONNECTIONS)
def test_there_is_nothing_to_connect_to(running):
    assert running.runtime.is_in_process


# The request


@pytest.mark.feature(CONNECTIONS)
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a%20b;c", "/a b;c"),
        ("/%C3%A9", "/\xc3\xa9"),
        ("/%80/%FF", "/\x80/\xff"),
        ("/%C3%A9/%80", "/\xc3\xa9/\x80"),
        ("/a%2Fb%3Fc", "/a/b?c"),
    ],
)
def test_the_path_has_the_bytes_that_the_client_sent(server, path, expected):
    environ = environ_of(server, path + "?q=%80")
    assert environ["PATH_INFO"] == expected
    assert environ["QUERY_STRING"] == "q=%80"
    assert environ["SERVER_PORT"] == str(server.port)
    assert environ["REMOTE_ADDR"] == "127.0.0.1"


def test_a_root_path_is_the_script_name():
    with start("uvicorn", "--root-path", "/app") as server:
        environ = environ_of(server, "/%C3%A9/%80")
    assert environ["SCRIPT_NAME"] == "/app/gateway"
    assert environ["PATH_INFO"] == "/\xc3\xa9/\x80"


def test_a_unix_socket_has_a_server_and_a_client(tmp_path):
    path = tmp_path / "app.sock"
    options = ["-b", f"unix:{path}"]
    with start("gunicorn on uvloop", *options) as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(servers.DEADLINE)
            client.connect(str(path))
            client.sendall(head("/", headers=["Connection: close"]))
            environ = json.loads(split(receive_all(client))[1])
        assert server.stop() == 0
    assert environ["SERVER_NAME"] == "localhost"
    assert environ["SERVER_PORT"] == "80"
    assert environ["REMOTE_ADDR"] == ""


@pytest.mark.feature(CHUNKED)
def test_a_chunked_upload_is_seen(running, server):
    chunks = [b"a", b"=", b"some+te", b"xt"]
    body = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in chunks)
    headers = [CHUNKS, "Content-Type: application/x-www-form-urlencoded"]
    paths = [("/pyramid/form", b"some text"), ("/upload", b"a=some+tex11")]
    for path, expected in paths if running.has(BESIDE) else paths[:1]:
        answer = exchange(server, path, "POST", headers, body + b"0\r\n\r\n")
        assert answer == (200, expected)


@gunicorn
def test_a_body_is_invited_when_it_is_read_and_not_before(server):
    headers = ["Content-Length: 5", "Expect: 100-continue"]
    with server.connect() as client:
        client.sendall(head("/upload", "POST", headers))
        assert receive_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.sendall(b"hello")
        assert b"hello5" in receive_until(client, b"hello5")
    with server.connect() as client:
        client.sendall(head("/ignore", "POST", headers))
        assert receive_until(client, b"ignored").startswith(b"HTTP/1.1 200 ")


@pytest.mark.without(CHUNKED)
def test_a_chunked_body_is_not_seen(server):
    headers = [CHUNKS, "Content-Type: application/x-www-form-urlencoded"]
    body = b"3\r\na=b\r\n0\r\n\r\n"
    before = len(server.output)
    # Pyramid sees a form without its field.
    assert exchange(server, "/pyramid/form", "POST", headers, body)[0] == 500
    servers.poll(lambda: "KeyError: 'a'" in server.output[before:], server.describe)


@pytest.mark.feature(CONNECTIONS, AT_ONCE)
def test_a_slow_upload_holds_nobody_up(server):
    with server.connect() as slow:
        slow.sendall(
            head("/upload", "POST", ["Content-Length: 10", "Connection: close"])
        )
        for part in (b"01", b"23", b"45", b"67", b"89"):
            assert exchange(server, "/ignore") == (200, b"ignored")
            slow.sendall(part)
        assert received(slow) == (200, b"012345678910")


@pytest.mark.feature(ENDS_READING)
@pytest.mark.parametrize("end", [socket.socket.close, reset])
@pytest.mark.parametrize("framing", ["Content-Length: 5000", CHUNKS])
def test_a_client_that_leaves_in_mid_body_is_no_error(server, end, framing):
    before = len(server.output)
    ways = ["read", "sized", "readline", "readlines", "iteration"]
    clients = []

    def count(word):
        return server.output[before:].count(word)

    for way in ways:
        client = server.connect()
        body = b"4\r\nabcd\r\n" if framing == CHUNKS else b"abcd"
        client.sendall(head(f"/read?way={way}", "POST", [framing]) + body)
        clients.append(client)
    servers.poll(lambda: count("reading ") == len(ways), server.describe)
    for client in clients:
        end(client)
    servers.poll(lambda: count("gone ") == len(ways), server.describe)
    # And it goes on, with nothing in its log.
    assert exchange(server, "/ignore")[0] == 200
    assert errors_in(server.output[before:]) == []


@pytest.mark.without(ENDS_READING)
@pytest.mark.parametrize("end", [socket.socket.close, reset])
def test_a_client_that_leaves_in_mid_body_does_no_harm(server, end):
    for way in ("read", "sized", "readline", "readlines", "iteration"):
        with server.connect() as client:
            client.sendall(head(f"/read?way={way}", "POST", ["Content-Length: 5000"]))
            client.sendall(b"abcd")
            end(client)
    assert exchange(server, "/ignore")[0] == 200
    assert "gone" not in server.output


# The response


@pytest.mark.without(BESIDE)
def test_an_error_outside_of_pyramid_is_logged(server):
    before = len(server.output)
    with server.connect() as client:
        client.sendall(head("/fail"))
        assert receive_all(client) == b""
    servers.poll(lambda: "failed early" in server.output[before:], server.describe)
    assert exchange(server, "/ignore")[0] == 200


@pytest.mark.feature(BESIDE)
def test_an_error_before_the_first_chunk_is_answered_and_logged(server):
    before = len(server.output)
    assert exchange(server, "/fail")[0] == 500
    servers.poll(lambda: "failed early" in server.output[before:], server.describe)


@pytest.mark.feature(CUTS)
def test_an_error_after_the_first_chunk_cuts_the_connection(server):
    before = len(server.output)
    with server.connect() as client:
        client.sendall(head("/fail-late", headers=["Connection: close"]))
        status, body = split(receive_all(client))
    assert status == 200
    assert body in (b"5\r\nfirst\r\n", b"")
    servers.poll(lambda: "failed late" in server.output[before:], server.describe)


@pytest.mark.without(CUTS)
def test_an_error_after_the_first_chunk_is_logged_and_its_end_is_not_seen(runtime):
    # A server of its own: daphne does not notice errors any more from then on.
    with runtime.serve("suite.app") as server:
        with server.connect() as client:
            client.sendall(head("/fail-late", headers=["Connection: close"]))
            receive_until(client, b"first")
            servers.poll(lambda: "failed late" in server.output, server.describe)
            client.settimeout(0.2)
            try:
                # Neither the end of a chunked body, nor an error.
                assert client.recv(1) == b""
            except TimeoutError:
                pass
        assert exchange(server, "/ignore")[0] == 200


@pytest.mark.feature(STREAMS)
def test_a_part_is_sent_when_it_is_there(server):
    # There is no end that it could wait for.
    before = len(server.output)
    with server.connect() as client:
        client.sendall(head("/stream/busy"))
        receive_until(client, b"first")
    servers.poll(lambda: "finally busy" in server.output[before:], server.describe)
    assert exchange(server, "/ignore")[0] == 200


@pytest.mark.without(ENDS_WAITING)
@pytest.mark.parametrize("end", [socket.socket.close, reset])
def test_a_stream_ends_with_its_next_part_after_its_client_has_left(server, end):
    before = len(server.output)
    client = server.connect()
    client.sendall(head("/stream/busy"))
    receive_until(client, b"first")
    end(client)
    servers.poll(lambda: "finally busy" in server.output[before:], server.describe)
    assert exchange(server, "/ignore")[0] == 200


@pytest.mark.feature(ENDS_WAITING, BESIDE)
@pytest.mark.parametrize("kind", ["quiet", "busy", "stubborn"])
@pytest.mark.parametrize("end", [socket.socket.close, reset])
def test_a_stream_ends_soon_after_its_client_has_left(server, kind, end):
    assert_ends_with_its_client(server, f"/stream/{kind}", end)


@pytest.mark.feature(ENDS_WAITING)
@pytest.mark.parametrize("kind", ["coroutine", "executor"])
@pytest.mark.parametrize("end", [socket.socket.close, reset])
def test_a_body_of_a_view_ends_soon_after_its_client_has_left(server, kind, end):
    assert_ends_with_its_client(server, f"/pyramid/{kind}", end)


def assert_ends_with_its_client(server, path, end):
    before = len(server.output)
    client = server.connect()
    client.sendall(head(path))
    receive_until(client, b"first")
    name = path.rpartition("/")[2]
    assert f"finally {name}" not in server.output[before:]
    end(client)
    servers.poll(lambda: f"finally {name}" in server.output[before:], server.describe)
    assert exchange(server, "/ignore")[0] == 200
    assert errors_in(server.output[before:]) == []


@pytest.mark.feature(ENDS_WAITING, BESIDE)
def test_a_stream_that_has_not_begun_ends_when_its_client_leaves(server):
    before = len(server.output)
    client = server.connect()
    client.sendall(head("/stream/mute"))
    # The next request is served after that one has begun.
    assert exchange(server, "/ignore")[0] == 200
    client.close()
    servers.poll(lambda: "finally mute" in server.output[before:], server.describe)
    assert errors_in(server.output[before:]) == []


# Memory


def worker_memory(server):
    (pid,) = server.children()
    return servers.memory(pid)


@gunicorn
def test_a_large_upload_takes_flat_memory(server):
    exchange(server, "/ignore")
    before = worker_memory(server)
    size = 64 * MEBIBYTE
    with server.connect() as client:
        client.sendall(
            head("/upload", "POST", [f"Content-Length: {size}", "Connection: close"])
        )
        part = b"x" * (MEBIBYTE - 1) + b"\n"
        largest = 0
        for _ in range(64):
            client.sendall(part)
            largest = max(largest, worker_memory(server))
        status, body = split(receive_all(client))
    assert (status, body) == (200, b"x" * 10 + b"%d" % size)
    assert largest < before + 24 * MEBIBYTE


@gunicorn
def test_a_large_download_takes_flat_memory_while_its_client_is_slow(server):
    exchange(server, "/download?mebibytes=1")
    before = worker_memory(server)
    size = 64 * MEBIBYTE
    with server.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.sendall(head("/download?mebibytes=64"))
        response = http.client.HTTPResponse(client)
        response.begin()
        received = 0
        largest = 0
        while part := response.read(MEBIBYTE):
            received += len(part)
            # The others are served meanwhile.
            assert exchange(server, "/ignore")[0] == 200
            largest = max(largest, worker_memory(server))
    assert received == size
    assert largest < before + 24 * MEBIBYTE


@gunicorn
def test_an_upload_that_nobody_reads_is_not_taken_in(server):
    before = worker_memory(server)
    with server.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        headers = [f"Content-Length: {64 * MEBIBYTE}"]
        client.sendall(head("/hold", "POST", headers))
        receive_until(client, b"first")
        client.setblocking(False)
        sent = 0
        part = b"x" * 65_536
        try:
            # The server takes what it asks for; the rest fills the sockets.
            while sent < 64 * MEBIBYTE:
                sent += servers.poll(lambda: _send(client, part), timeout=0.5)
        except AssertionError:
            pass
        assert sent < 16 * MEBIBYTE
        assert worker_memory(server) < before + 24 * MEBIBYTE
    assert exchange(server, "/release")[0] == 200


def _send(client, part):
    try:
        return client.send(part)
    except BlockingIOError:
        return 0


# Several requests in one Task


def uwsgi_packet(**variables):
    data = b"".join(
        struct.pack("<H", len(text)) + text
        for pair in variables.items()
        for text in (each.encode() for each in pair)
    )
    return struct.pack("<BHB", 0, len(data), 0) + data


def test_requests_of_one_connection_do_not_see_each_other_s_context():
    with start("gunicorn on uvloop", "--protocol", "uwsgi") as server:
        answers = []
        with server.connect() as client:
            for number in range(3):
                client.sendall(
                    uwsgi_packet(
                        REQUEST_METHOD="GET",
                        REQUEST_URI=f"/gateway/context?{number}",
                        PATH_INFO="/gateway/context",
                        QUERY_STRING=str(number),
                        SERVER_PROTOCOL="HTTP/1.1",
                        HTTP_HOST="localhost",
                    )
                )
                answers.append(receive_until(client, b"unset"))
    assert len(answers) == 3

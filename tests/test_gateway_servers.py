"""The Gateway in real servers, whose clients misbehave."""

import http.client
import json
import re
import socket
import struct
from contextlib import contextmanager

import pytest
import servers

SERVERS = ["gunicorn", "uvicorn", "hypercorn", "granian"]
MEBIBYTE = 1_048_576
CHUNKED = "Transfer-Encoding: chunked"


@contextmanager
def start(kind, *options):
    app = "application"
    if kind == "gunicorn":
        app = "wsgi_application"
        # So that it is not gunicorn that ends what a client has left.
        options = ["--asgi-disconnect-grace-period", "60", *options]
    with servers.serve(kind, f"gateway_apps:{app}", *options) as server:
        yield server


@pytest.fixture(scope="module", params=SERVERS)
def server(request):
    with start(request.param) as server:
        server.kind = request.param
        yield server


@pytest.fixture(scope="module")
def gunicorn():
    with start("gunicorn") as server:
        yield server


def head(path="/", method="GET", headers=()):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def exchange(server, path="/", method="GET", headers=(), body=b""):
    """The status and the raw body of the answer, chunked or not."""
    headers = ["Connection: close", *headers]
    with server.connect() as client:
        client.sendall(head(path, method, headers) + body)
        return split(receive_all(client))


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


def receive_until(client, expected):
    data = b""
    while expected not in data:
        part = client.recv(65_536)
        assert part, data
        data += part
    return data


def environ_of(server, path, **others):
    with server.connect() as client:
        client.sendall(head(path, headers=["Connection: close", *others]))
        response = http.client.HTTPResponse(client)
        response.begin()
        return json.loads(response.read())


def reset(client):
    """Close with RST instead of FIN."""
    linger = struct.pack("ii", 1, 0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.close()


def errors_in(output):
    return re.findall(r"(?im)^.*(?:error|traceback|exception|warn).*$", output)


# The request


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
    assert environ["SCRIPT_NAME"] == "/app"
    assert environ["PATH_INFO"] == "/\xc3\xa9/\x80"


def test_a_unix_socket_has_a_server_and_a_client(tmp_path):
    path = tmp_path / "app.sock"
    options = ["-b", f"unix:{path}"]
    with start("gunicorn", *options) as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(servers.DEADLINE)
            client.connect(str(path))
            client.sendall(head(headers=["Connection: close"]))
            environ = json.loads(split(receive_all(client))[1])
        assert server.stop() == 0
    assert environ["SERVER_NAME"] == "localhost"
    assert environ["SERVER_PORT"] == "80"
    assert environ["REMOTE_ADDR"] == ""


def test_a_chunked_upload_is_seen(server):
    chunks = [b"a", b"=", b"some+te", b"xt"]
    body = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in chunks)
    headers = [CHUNKED, "Content-Type: application/x-www-form-urlencoded"]
    for path, expected in (
        ("/pyramid/form", b"some text"),
        ("/upload", b"a=some+tex11"),
    ):
        answer = exchange(server, path, "POST", headers, body + b"0\r\n\r\n")
        assert answer == (200, expected)


def test_a_body_is_invited_when_it_is_read_and_not_before(gunicorn):
    headers = ["Content-Length: 5", "Expect: 100-continue"]
    with gunicorn.connect() as client:
        client.sendall(head("/upload", "POST", headers))
        assert receive_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.sendall(b"hello")
        assert b"hello5" in receive_until(client, b"hello5")
    with gunicorn.connect() as client:
        client.sendall(head("/ignore", "POST", headers))
        assert receive_until(client, b"ignored").startswith(b"HTTP/1.1 200 ")


def test_a_slow_upload_holds_nobody_up(server):
    with server.connect() as slow:
        slow.sendall(
            head("/upload", "POST", ["Content-Length: 10", "Connection: close"])
        )
        for part in (b"01", b"23", b"45", b"67", b"89"):
            status, body = exchange(server, "/ignore")
            assert (status, body[-7:]) == (200, b"ignored")
            slow.sendall(part)
        assert split(receive_all(slow)) == (200, b"012345678910")


@pytest.mark.parametrize("end", [socket.socket.close, reset])
@pytest.mark.parametrize("framing", ["Content-Length: 5000", CHUNKED])
def test_a_client_that_leaves_in_mid_body_is_no_error(server, end, framing):
    before = len(server.output)
    ways = ["read", "sized", "readline", "readlines", "iteration"]
    clients = []

    def count(word):
        return server.output[before:].count(word)

    for way in ways:
        client = server.connect()
        body = b"4\r\nabcd\r\n" if framing == CHUNKED else b"abcd"
        client.sendall(head(f"/read?way={way}", "POST", [framing]) + body)
        clients.append(client)
    servers.poll(lambda: count("reading ") == len(ways), server.describe)
    for client in clients:
        end(client)
    servers.poll(lambda: count("gone ") == len(ways), server.describe)
    # And it goes on, with nothing in its log.
    assert exchange(server, "/ignore")[0] == 200
    assert errors_in(server.output[before:]) == []


# The response


def test_an_error_before_the_first_chunk_is_answered_and_logged(server):
    before = len(server.output)
    assert exchange(server, "/fail")[0] == 500
    servers.poll(lambda: "failed early" in server.output[before:], server.describe)


def test_an_error_after_the_first_chunk_cuts_the_connection(server):
    before = len(server.output)
    status, body = exchange(server, "/fail-late")
    assert status == 200
    assert body in (b"5\r\nfirst\r\n", b"")
    servers.poll(lambda: "failed late" in server.output[before:], server.describe)


@pytest.mark.parametrize(
    "path",
    [
        "/stream/quiet",
        "/stream/busy",
        "/stream/stubborn",
        "/pyramid/coroutine",
        "/pyramid/executor",
    ],
)
@pytest.mark.parametrize("end", [socket.socket.close, reset])
def test_a_stream_ends_soon_after_its_client_has_left(server, path, end):
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


def test_a_large_upload_takes_flat_memory(gunicorn):
    exchange(gunicorn, "/ignore")
    before = worker_memory(gunicorn)
    size = 64 * MEBIBYTE
    with gunicorn.connect() as client:
        client.sendall(
            head("/upload", "POST", [f"Content-Length: {size}", "Connection: close"])
        )
        part = b"x" * (MEBIBYTE - 1) + b"\n"
        largest = 0
        for _ in range(64):
            client.sendall(part)
            largest = max(largest, worker_memory(gunicorn))
        status, body = split(receive_all(client))
    assert (status, body) == (200, b"x" * 10 + b"%d" % size)
    assert largest < before + 24 * MEBIBYTE


def test_a_large_download_takes_flat_memory_while_its_client_is_slow(gunicorn):
    exchange(gunicorn, "/download?mebibytes=1")
    before = worker_memory(gunicorn)
    size = 64 * MEBIBYTE
    with gunicorn.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.sendall(head("/download?mebibytes=64"))
        response = http.client.HTTPResponse(client)
        response.begin()
        received = 0
        largest = 0
        while part := response.read(MEBIBYTE):
            received += len(part)
            # The others are served meanwhile.
            assert exchange(gunicorn, "/ignore")[0] == 200
            largest = max(largest, worker_memory(gunicorn))
    assert received == size
    assert largest < before + 24 * MEBIBYTE


def test_an_upload_that_nobody_reads_is_not_taken_in(gunicorn):
    before = worker_memory(gunicorn)
    with gunicorn.connect() as client:
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
        assert worker_memory(gunicorn) < before + 24 * MEBIBYTE
    assert exchange(gunicorn, "/release")[0] == 200


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
    with start("gunicorn", "--protocol", "uwsgi") as server:
        answers = []
        with server.connect() as client:
            for number in range(3):
                client.sendall(
                    uwsgi_packet(
                        REQUEST_METHOD="GET",
                        REQUEST_URI=f"/context?{number}",
                        PATH_INFO="/context",
                        QUERY_STRING=str(number),
                        SERVER_PROTOCOL="HTTP/1.1",
                        HTTP_HOST="localhost",
                    )
                )
                answers.append(receive_until(client, b"unset"))
    assert len(answers) == 3

"""What a proxy says of a request, and who is believed: the gunicorn worker.

The tests connect from two addresses: 127.0.0.1, which gunicorn believes by default, and
127.0.0.2, which it does not.
"""

import contextlib
import http.client
import re
import socket

import pytest
from life import APPS, ENVIRON, assert_clean, get
from servers import DEADLINE, WORKER, Server, serve
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

PROXY, STRANGER = "127.0.0.1", "127.0.0.2"


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def served(request):
    options = ["--asgi-loop", request.param]
    with serve(
        "gunicorn", "limits_app:make()", *options, directory=APPS, environ=ENVIRON
    ) as server:
        yield server
        assert server.stop() == 0
        assert_clean(server)


def connection(server, source):
    """An HTTP connection from an address of this machine."""
    return http.client.HTTPConnection(
        "127.0.0.1", server.port, timeout=DEADLINE, source_address=(source, 0)
    )


def facts(server, headers, source=PROXY):
    """What the application sees of a request."""
    used = connection(server, source)
    with contextlib.closing(used):
        status, seen = get(server, "/facts", headers, used)
    assert status == 200, seen
    return seen


HOST = {"Host": "www.example"}


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Protocol": "ssl"},
        {"X-Forwarded-Ssl": "on"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_the_scheme_is_believed_of_a_proxy_and_of_nobody_else(served, headers):
    seen = facts(served, {**HOST, **headers})
    assert (seen["scheme"], seen["url"]) == ("https", "https://www.example/facts")
    seen = facts(served, {**HOST, **headers}, STRANGER)
    assert (seen["scheme"], seen["url"]) == ("http", "http://www.example/facts")


def test_who_contradicts_himself_is_refused(served):
    headers = {**HOST, "X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "off"}
    with contextlib.closing(connection(served, PROXY)) as used:
        assert get(served, "/facts", headers, used)[0] == 400


@pytest.mark.parametrize("source", [PROXY, STRANGER])
@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Host": "evil.example"},
        {"X-Forwarded-Port": "8443"},
        {"X-Forwarded-Server": "evil.example"},
        {"X-Forwarded-Prefix": "/evil"},
        {"Forwarded": "for=192.0.2.1;proto=https;host=evil.example"},
        {"X-Real-IP": "192.0.2.1"},
        {"SCRIPT_NAME": "/evil"},
        {"PATH_INFO": "/evil"},
        {"REMOTE_ADDR": "192.0.2.1"},
        {"X_Forwarded_For": "192.0.2.1"},
    ],
    ids=lambda headers: next(iter(headers)) if isinstance(headers, dict) else headers,
)
def test_nothing_else_is_believed_of_anybody(served, headers, source):
    seen = facts(served, {**HOST, **headers}, source)
    del seen["pid"]
    assert seen == {
        "client": source,
        "remote": source,
        "scheme": "http",
        "host": "www.example",
        "url": "http://www.example/facts",
    }


@pytest.mark.parametrize("source", [PROXY, STRANGER])
def test_the_address_is_the_connections_and_client_addr_what_anybody_says(
    served, source
):
    seen = facts(served, {"X-Forwarded-For": "192.0.2.1, 192.0.2.2"}, source)
    assert (seen["client"], seen["remote"]) == ("192.0.2.1", source)


def handshake(server, source, headers, origin):
    """A WebSocket from an address of this machine, as of a page of ``origin``."""
    used = connection(server, source)
    used.connect()
    return connect(
        "ws://www.example/echo",
        sock=used.sock,
        origin=origin,
        additional_headers=headers,
        open_timeout=DEADLINE,
        proxy=None,
    )


def test_the_origin_of_a_websocket_is_compared_with_the_scheme_of_the_proxy(served):
    said = {"X-Forwarded-Proto": "https"}
    with handshake(served, PROXY, said, "https://www.example") as ws:
        ws.send("hello")
        assert ws.recv(DEADLINE) == "hello"
    with handshake(served, STRANGER, said, "http://www.example") as ws:
        ws.send("hello")
        assert ws.recv(DEADLINE) == "hello"


@pytest.mark.parametrize(
    ("source", "origin"),
    [
        (PROXY, "http://www.example"),
        (PROXY, "https://evil.example"),
        (STRANGER, "https://www.example"),
    ],
)
def test_the_origin_of_a_websocket_is_not_what_a_stranger_says(served, source, origin):
    said = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    with (
        pytest.raises(InvalidStatus) as refused,
        handshake(served, source, said, origin),
    ):
        pass
    assert refused.value.response.status_code == 403


def test_another_proxy_may_be_named():
    options = ["--forwarded-allow-ips", "127.0.0.2,192.0.2.0/24"]
    with serve(
        "gunicorn", "limits_app:make()", *options, directory=APPS, environ=ENVIRON
    ) as server:
        said = {"X-Forwarded-Proto": "https"}
        assert facts(server, said, STRANGER)["scheme"] == "https"
        assert facts(server, said, PROXY)["scheme"] == "http"


def test_whoever_reaches_a_unix_socket_is_believed(tmp_path):
    path = str(tmp_path / "socket")
    command = ["gunicorn", "-k", WORKER, "-b", f"unix:{path}", "--no-control-socket"]
    server = Server([*command, "limits_app:make()"], APPS, ENVIRON)
    with contextlib.closing(server):
        server.wait_for("ASGI server listening")
        used = http.client.HTTPConnection("www.example")
        with contextlib.closing(used):
            used.sock = socket.socket(socket.AF_UNIX)
            used.sock.settimeout(DEADLINE)
            used.sock.connect(path)
            said = {
                **HOST,
                "X-Forwarded-Proto": "https",
                "X-Forwarded-For": "192.0.2.1",
            }
            status, seen = get(server, "/facts", said, used)
    assert status == 200
    assert (seen["scheme"], seen["client"], seen["remote"]) == (
        "https",
        "192.0.2.1",
        "",
    )


def test_the_proxy_protocol_gives_the_address():
    options = ["--proxy-protocol", "v1", "--proxy-allow-from", PROXY]
    with serve(
        "gunicorn", "limits_app:make()", *options, directory=APPS, environ=ENVIRON
    ) as server:
        assert preceded(server, PROXY).startswith(b"HTTP/1.1 200")
        assert b'"remote": "192.0.2.1"' in preceded(server, PROXY)
        assert preceded(server, STRANGER).startswith(b"HTTP/1.1 400")


def preceded(server, source):
    """The answer to a request that the line of the PROXY protocol precedes."""
    used = connection(server, source)
    with contextlib.closing(used):
        used.connect()
        used.sock.sendall(
            b"PROXY TCP4 192.0.2.1 127.0.0.1 50000 80\r\n"
            b"GET /facts HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\n\r\n"
        )
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := used.sock.recv(65_536):
                received += data
    return re.sub(rb"\s*\r\n", b"\r\n", received)

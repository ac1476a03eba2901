"""Several applications on one port, on real servers.

They are in ``apps/mounts_app.py``.
"""

import http.client
import json
import socket

import pytest
import servers
from life import APPS, ENVIRON
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

COMMANDS = {
    "gunicorn": [*servers.COMMANDS["gunicorn"], "mounts_app:make()"],
    "uvicorn": [*servers.COMMANDS["uvicorn"], "--factory", "mounts_app:make_asgi"],
    "hypercorn": [*servers.COMMANDS["hypercorn"], "mounts_app:make_asgi()"],
    "granian": [*servers.COMMANDS["granian"], "mounts_app:asgi_application"],
    "daphne": [*servers.COMMANDS["daphne"], "mounts_app:asgi_application"],
    "uwsgi": [*servers.COMMANDS["uwsgi"], "--module", "mounts_app:make()"],
    "waitress": [
        *("waitress", "--host=127.0.0.1", "--port=0", "--threads=8"),
        *("--call", "mounts_app:make"),
    ],
    "gthread": [
        *("gunicorn", "-b", "127.0.0.1:0", "--no-control-socket", "-k", "gthread"),
        *("--threads", "8", "mounts_app:make()"),
    ],
}
# Where a WebSocket is handed to an ASGI application.
PASSING = {"gunicorn", "uvicorn", "hypercorn", "granian", "daphne"}
# Where a client's end is noticed; elsewhere it is when something is written, but by
# waitress, which goes on.
NOTICED = {
    "star": lambda kind: kind in PASSING,
    "blog": lambda kind: kind != "waitress",
}
# And where a Pyramid application has one.
SPEAKING = {*PASSING, "uwsgi"}


@pytest.fixture(scope="module", params=COMMANDS)
def server(request):
    with servers.run(COMMANDS[request.param], APPS, ENVIRON) as server:
        server.kind = request.param
        yield server
        assert "Traceback" not in server.output


def request(server, path, host="localhost", method="GET", body=None, **headers):
    """The status and the body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, servers.DEADLINE)
    try:
        headers = {"Host": host, **headers}
        connection.request(method, path, body, headers, encode_chunked=body is not None)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def answer(server, path, host="localhost", **others):
    status, body = request(server, path, host, **others)
    assert status == 200, body
    return json.loads(body)


def told(server, what):
    servers.poll(lambda: f"told: {what}." in server.output, server.describe)


@pytest.mark.parametrize(
    ("path", "host", "expected"),
    [
        ("/", "localhost", {"app": "outer", "url": "/", "own": True}),
        ("/in/", "localhost", {"app": "inner", "url": "/in/", "own": True}),
        ("/blog/", "localhost", {"app": "blog", "url": "/blog/", "path": "/"}),
        ("/b%6Cog/", "localhost", {"app": "blog", "url": "/blog/", "path": "/"}),
        ("/shop/", "localhost", {"app": "shop", "url": "/shop/", "path": "/"}),
        ("/", "shop.example.com", {"app": "shop", "url": "/", "path": "/"}),
        ("/", "a.b.SHOP.example.com:80", {"app": "shop", "url": "/", "path": "/"}),
        ("/star/", "a.org", {"app": "star", "url": "http://a.org/star/"}),
    ],
)
def test_each_is_found_by_host_and_path(server, path, host, expected):
    assert answer(server, path, host) == expected


# What a server makes an ordinary path of before anybody sees it.
RESOLVED = {"waitress": ["//blog/"], "uwsgi": ["/x/../blog/", "/in/../blog/"]}


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("/nothing", "localhost"),
        ("/blogs", "localhost"),
        ("/blog/nothing", "localhost"),
        ("/star/nothing", "localhost"),
        ("//blog/", "localhost"),
        ("/x/../blog/", "localhost"),
        ("/in/../blog/", "localhost"),
        ("/x/%2e%2e/blog/", "localhost"),
        ("/%2e/blog/", "localhost"),
        ("/shop.example.com/", "localhost"),
        ("/in/", "shop.example.com"),
    ],
)
def test_what_is_nowhere_is_not_found(server, path, host):
    if path in RESOLVED.get(server.kind, ()):
        return
    assert request(server, path, host)[0] == 404


def test_a_host_that_is_none_is_for_nobody(server):
    for host in (
        "shop.example.com.evil.org",
        "shop.example.com..",
        "x,shop.example.com",
    ):
        status, body = request(server, "/", host)
        assert status == 400 or json.loads(body)["app"] == "outer"


def test_a_view_that_blocks_holds_up_nobody(server):
    # Of the same application, of others, and of the one around them.
    slow = [
        http.client.HTTPConnection("127.0.0.1", server.port, servers.DEADLINE)
        for _ in range(2)
    ]
    for connection, name in zip(slow, ["blog", "shop"], strict=True):
        connection.request("GET", f"/{name}/slow")
        told(server, f"slow {name}")
    for path in ("/", "/blog/", "/shop/", "/star/", "/in/"):
        assert answer(server, path)["app"] in ("outer", "blog", "shop", "star", "inner")
    assert request(server, "/release") == (200, b"released")
    for connection, name in zip(slow, ["blog", "shop"], strict=True):
        response = connection.getresponse()
        assert json.loads(response.read()) == {"app": name, "released": True}
        connection.close()


@pytest.mark.parametrize("path", ["/blog/upload", "/star/upload"])
def test_an_upload(server, path):
    size = 300_000
    assert answer(server, path, method="POST", body=b"x" * size) == {"size": size}


@pytest.mark.parametrize("name", ["blog", "star"])
def test_a_stream_ends_with_its_client(server, name):
    if not NOTICED[name](server.kind):
        return
    client = socket.create_connection(("127.0.0.1", server.port), servers.DEADLINE)
    with client:
        client.sendall(f"GET /{name}/endless HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert client.recv(1000)
    told(server, f"closed endless {name}")
    assert answer(server, "/")["app"] == "outer"


@pytest.mark.parametrize(("path", "name"), [("/star", "star"), ("/in", "inner")])
def test_a_websocket(server, path, name):
    url = f"ws://127.0.0.1:{server.port}{path}/echo"
    if server.kind not in (PASSING if name == "star" else SPEAKING):
        with pytest.raises(InvalidStatus) as caught, connect(url):
            pass
        assert caught.value.response.status_code == 501
        assert b"aioext" in caught.value.response.body
        return
    with connect(url) as one, connect(url) as two:
        for ws, text in ((one, "1"), (two, "2"), (one, "3")):
            ws.send(text)
            assert ws.recv(servers.DEADLINE) == f"{name} {text}"
    told(server, f"left {name}")


def test_a_websocket_that_nobody_serves(server):
    for path in ("/blog/", "/star/nothing", "/nothing"):
        url = f"ws://127.0.0.1:{server.port}{path}"
        with pytest.raises(InvalidStatus) as caught, connect(url):
            pass
        assert caught.value.response.status_code in (200, 400, 403, 404, 501)


LIFESPANS = ["outer", "star", "inner"]


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn", "uwsgi", "gthread"])
def test_each_lifespan_is_opened_and_closed_once(kind):
    with servers.run(COMMANDS[kind], APPS, ENVIRON) as server:
        assert answer(server, "/star/")["app"] == "star"
        server.stop()
        facts = [line for line in server.output.splitlines() if "told: " in line]
        assert facts == [
            *(f"told: open {name}." for name in LIFESPANS),
            *(f"told: close {name}." for name in reversed(LIFESPANS)),
        ], server.output
        assert "Traceback" not in server.output


INI = "mounts_urlmap.ini"


@pytest.mark.parametrize(
    "command",
    [[*servers.COMMANDS["gunicorn"], "--paste", INI], ["pyramid.scripts.pserve", INI]],
    ids=["gunicorn", "pserve"],
)
def test_a_composite_of_pastedeploy_s(command):
    with servers.run(command, APPS, ENVIRON) as server:
        for path, name in (("/", "outer"), ("/in/", "inner")):
            expected = {"app": name, "url": path, "own": True}
            assert answer(server, path) == expected
        url = f"ws://127.0.0.1:{server.port}/in/echo"
        with connect(url) as ws:
            ws.send("text")
            assert ws.recv(servers.DEADLINE) == "inner text"
        server.stop()
        output = server.output
        for name in ("outer", "inner"):
            for what in ("open", "close"):
                assert output.count(f"told: {what} {name}.") == 1, output
        assert "Traceback" not in output

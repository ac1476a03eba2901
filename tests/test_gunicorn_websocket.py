"""gunicorn's WebSockets, replaced: what that relies on, and others' applications."""

import asyncio
import http.client
import inspect
import json
import logging
import socket
import ssl

import pytest
from asgi import make_scope
from certificates import write_parts
from gunicorn.asgi import websocket as replaced
from gunicorn.asgi.protocol import ASGIProtocol
from life import APPS, ENVIRON, assert_clean, get
from servers import serve
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from ws_client import TEXT, Raw, frame

from aioext.exceptions import ConnectionClosed
from aioext.gunicorn import websocket as module
from aioext.gunicorn.websocket import MAX_EARLY, WebSocketProtocol, install
from aioext.websocket.asgi import DENIAL, EXTENSION
from aioext.websocket.options import Options

THEIRS = replaced.WebSocketProtocol


@pytest.fixture
def restored():
    """What a test puts in the place of gunicorn's class is taken away."""
    yield
    replaced.WebSocketProtocol = THEIRS


# What gunicorn promises to nobody


def test_gunicorn_has_the_class_that_is_replaced():
    if THEIRS is WebSocketProtocol:
        pytest.fail("somebody has installed it in this process")
    for cls in (THEIRS, WebSocketProtocol):
        parameters = inspect.signature(cls).parameters
        assert list(parameters) == [
            "transport",
            "scope",
            "app",
            "log",
            "max_message_size",
            "drain",
        ]
        assert list(inspect.signature(cls.feed_data).parameters) == ["self", "data"]
        assert list(inspect.signature(cls.feed_eof).parameters) == ["self"]
        assert inspect.iscoroutinefunction(cls.run)


def test_gunicorn_looks_for_it_at_each_upgrade():
    source = inspect.getsource(ASGIProtocol._handle_websocket)
    assert "from gunicorn.asgi.websocket import WebSocketProtocol" in source
    assert "await ws_protocol.run()" in source
    assert "self._websocket.feed_data(data)" in inspect.getsource(
        ASGIProtocol.data_received
    )
    assert "self._websocket.feed_eof()" in inspect.getsource(
        ASGIProtocol.connection_lost
    )


def test_it_is_put_in_its_place_once(restored):
    assert install() is None
    assert replaced.WebSocketProtocol is WebSocketProtocol
    assert install() is None


@pytest.mark.parametrize(
    ("theirs", "missing"),
    [
        (None, "feed_data, feed_eof, run"),
        (type("Other", (), {"run": None}), "feed_data, feed_eof"),
    ],
)
def test_a_class_that_looks_different_is_left_alone(restored, theirs, missing):
    replaced.WebSocketProtocol = theirs
    expected = f"gunicorn.asgi.websocket.WebSocketProtocol has no {missing}"
    assert install() == expected
    assert replaced.WebSocketProtocol is theirs


def test_a_module_without_the_class_is_told(restored):
    del replaced.WebSocketProtocol
    assert "has no feed_data" in install()


def test_the_worker_says_in_one_line_that_it_is_gone(tmp_path):
    config = tmp_path / "changed.py"
    config.write_text(
        "from gunicorn.asgi import websocket\nwebsocket.WebSocketProtocol = None\n"
    )
    options = ["--config", str(config)]
    with serve(
        "gunicorn", "websocket_app:make()", *options, directory=APPS, environ=ENVIRON
    ) as server:
        status, _ = get(server, "/page-or-socket")
        assert status == 200
        assert server.output.count("[ERROR]") == 1
        line = server.wait_for(r".*\[ERROR\] (.*)")[1]
        assert "WebSockets are served by gunicorn's own protocol" in line
        assert "has no feed_data, feed_eof, run" in line


# In the place of gunicorn's, without a socket


class Transport(asyncio.Transport):
    def __init__(self):
        super().__init__()
        self.protocol = asyncio.Protocol()
        self.written = b""
        self.is_closing_ = False
        self.reading = True

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_protocol(self):
        return self.protocol

    def write(self, data):
        self.written += data

    def can_write_eof(self):
        return True

    def write_eof(self): ...

    def close(self):
        self.is_closing_ = True

    def abort(self):
        self.protocol.connection_lost(None)

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


HEADERS = [
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA=="),
]
CONNECT = {"type": "websocket.connect"}


def make(app=None, headers=HEADERS, **options):
    scope = make_scope(type="websocket", scheme="ws", headers=list(headers))
    log = logging.getLogger("gunicorn.error")
    return WebSocketProtocol(Transport(), scope, app, log, **options)


def answer_of(protocol):
    head, _, body = protocol._transport.written.partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    return status, headers, body


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


def serve_with(run, *messages, fails=None):
    """The answer to a client, where the application sends these messages."""

    async def app(scope, receive, send):
        assert await receive() == CONNECT
        for message in messages:
            await send(message)
        if fails is not None:
            raise fails

    async def main():
        protocol = make(app)
        await protocol.run()
        assert protocol._transport.is_closing_
        return answer_of(protocol)

    return run(main())


def test_the_scope_tells_what_it_can_do():
    extensions = make()._scope["extensions"]
    assert extensions.keys() == {DENIAL, EXTENSION}
    # Each connection has its own.
    assert make()._scope["extensions"][EXTENSION] != extensions[EXTENSION]


def start(status, **others):
    return {"type": "websocket.http.response.start", "status": status, **others}


def body(data=b"", **others):
    return {"type": "websocket.http.response.body", "body": data, **others}


def test_a_refusal_is_written_whole(run):
    status, headers, data = serve_with(
        run,
        start(401, headers=[(b"x-a", b"1"), (b"x-a", b"2")]),
        body(b"who ", more_body=True),
        body(b"are you?"),
    )
    assert status == "HTTP/1.1 401 Unauthorized"
    assert headers == ["x-a: 1", "x-a: 2", "content-length: 12", "connection: close"]
    assert data == b"who are you?"


def test_a_refusal_may_have_no_headers_or_tell_its_length(run):
    assert serve_with(run, start(404), body(b"no"))[1:] == (
        ["content-length: 2", "connection: close"],
        b"no",
    )
    own = start(404, headers=iter([(b"content-length", b"2")]))
    assert serve_with(run, own, body(b"no"))[1] == [
        "content-length: 2",
        "connection: close",
    ]


def test_a_status_of_its_own_has_no_phrase(run):
    assert serve_with(run, start(499), body())[0] == "HTTP/1.1 499 "


CLOSE_MESSAGE = {"type": "websocket.close"}


@pytest.mark.parametrize(
    ("messages", "fails", "status"),
    [
        ([CLOSE_MESSAGE], None, 403),
        ([], None, 403),
        ([], KeyError("mistake"), 500),
        ([], ConnectionClosed(1006), 500),
        ([start(401)], None, 500),
        ([start(401)], KeyError("mistake"), 500),
        ([start(401), body(b"x", more_body=True)], KeyError("mistake"), 500),
        ([CLOSE_MESSAGE], KeyError("mistake"), 403),
    ],
)
def test_a_client_has_an_answer_whatever_happens(run, caplog, messages, fails, status):
    answered, headers, data = serve_with(run, *messages, fails=fails)
    assert answered.startswith(f"HTTP/1.1 {status} ")
    assert headers == ["content-length: 0", "connection: close"]
    assert data == b""
    logged = [record.exc_info[1] for record in caplog.records]
    assert logged == ([] if fails is None else [fails])


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "websocket.send", "text": "x"}],
        [body(b"x")],
        [CLOSE_MESSAGE, CLOSE_MESSAGE],
        [start(401), start(401)],
        [start(401), {"type": "websocket.accept"}],
        [start(401), body(), body()],
        [{"type": "http.response.start"}],
    ],
)
def test_what_may_not_be_sent_now_is_refused(run, messages):
    *before, wrong = messages

    async def app(scope, receive, send):
        for message in before:
            await send(message)
        with pytest.raises(RuntimeError, match=f"^{wrong['type']} cannot be sent now"):
            await send(wrong)
        told.append(True)

    told = []
    run(make(app).run())
    assert told == [True]


def test_a_client_that_left_is_not_answered(run, caplog):
    async def app(scope, receive, send):
        assert await receive() == CONNECT
        protocol.feed_eof()
        assert await receive() == {
            "type": "websocket.disconnect",
            "code": 1006,
            "reason": "",
        }
        with pytest.raises(OSError, match="closed"):
            await send({"type": "websocket.accept"})
        await send({"type": "websocket.accept"})

    protocol = make(app)
    run(protocol.run())
    assert protocol._transport.written == b""
    assert not caplog.records


@pytest.mark.parametrize("what", ["accept", "refuse", "leave"])
def test_who_receives_early_waits_for_the_decision(run, what):
    async def app(scope, receive, send):
        assert await receive() == CONNECT
        receiving = asyncio.create_task(receive())
        await settle()
        assert not receiving.done()
        if what == "accept":
            await send({"type": "websocket.accept"})
            protocol._channel.put("hello")
        elif what == "refuse":
            await send(CLOSE_MESSAGE)
        else:
            protocol.feed_eof()
        told.append(await receiving)
        if what == "accept":
            protocol._channel.connection_lost(None)

    told = []
    protocol = make(app)
    run(protocol.run())
    expected = {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    if what == "accept":
        expected = {"type": "websocket.receive", "text": "hello"}
    assert told == [expected]


def test_a_client_of_http_1_0_cannot_upgrade(run):
    def app(scope, receive, send):
        raise AssertionError

    async def main():
        protocol = make(app)
        protocol._scope["http_version"] = "1.0"
        await protocol.run()
        return answer_of(protocol)[0]

    assert run(main()) == "HTTP/1.1 400 Bad Request"


def test_a_client_that_does_not_take_its_refusal_is_cut(run, monkeypatch):
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.01)

    async def main():
        lost = asyncio.get_running_loop().create_future()
        protocol = make(lambda *_: asyncio.sleep(0))
        protocol._transport.abort = lambda: lost.set_result(None)
        await protocol.run()
        assert not lost.done()
        await lost

    run(main())


def test_a_wrong_handshake_is_answered_and_ends_the_application(run, caplog):
    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})

    protocol = make(app, headers=HEADERS[:-1])
    run(protocol.run())
    assert answer_of(protocol)[0] == "HTTP/1.1 400 Bad Request"
    assert protocol._transport.is_closing_
    assert not caplog.records


def test_what_comes_early_is_kept_and_bounded(run):
    async def main():
        protocol = make()
        transport = protocol._transport
        protocol.feed_data(frame(TEXT, b"early"))
        assert transport.reading
        protocol.feed_data(frame(TEXT, b"x" * MAX_EARLY))
        assert not transport.reading
        options = Options(compression="off", queue=5)
        channel = await protocol.open([], None, options)
        assert transport.reading
        assert await channel.receive() == "early"
        assert await channel.receive() == "x" * MAX_EARLY
        channel.connection_lost(None)

    run(main())


def test_the_handshake_has_the_headers_of_the_application(run):
    async def main():
        protocol = make()
        headers = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
        channel = await protocol.open(headers, "chat", Options())
        channel.connection_lost(None)
        return answer_of(protocol)

    status, headers, _ = run(main())
    assert status == "HTTP/1.1 101 Switching Protocols"
    assert "Sec-WebSocket-Protocol: chat" in headers
    assert headers[-2:] == ["set-cookie: a=1", "set-cookie: b=2"]


def test_the_limit_of_gunicorn_holds_where_nothing_else_is_said(run):
    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        limits.append(protocol._channel.options.max_size)
        protocol._channel.connection_lost(None)

    limits = []
    for size in (0, 5):
        protocol = make(app, max_message_size=size)
        run(protocol.run())
    assert limits == [0, 5]


# An ASGI application of somebody else, on a real server


FOREIGN = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"].endswith("shutdown"):
                return
    assert scope["type"] == "websocket"
    assert await receive() == {"type": "websocket.connect"}
    await globals()[scope["path"].strip("/")](receive, send)

async def accept(send, **others):
    await send({"type": "websocket.accept", **others})

async def echo(receive, send):
    await accept(send, subprotocol="chat", headers=[(b"x-name", b"value")])
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            print("disconnected", message["code"], message["reason"], flush=True)
            return
        await send({**message, "type": "websocket.send"})

async def late(receive, send):
    receiving = asyncio.create_task(receive())
    await asyncio.sleep(0)
    await accept(send)
    await send({"type": "websocket.send", "text": (await receiving)["text"]})

async def refuse(receive, send):
    await send({"type": "websocket.http.response.start", "status": 401,
                "headers": [(b"x-name", b"value")]})
    await send({"type": "websocket.http.response.body", "body": b"who are you?"})

async def close(receive, send):
    await accept(send)
    await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
    try:
        await send({"type": "websocket.send", "text": "late"})
    except OSError as error:
        print("late", error.code, flush=True)

async def fail(receive, send):
    await accept(send)
    raise KeyError("mistake")

async def end(receive, send):
    await accept(send)
"""


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    directory = tmp_path_factory.mktemp("foreign")
    (directory / "foreign.py").write_text(FOREIGN)
    options = ["--websocket-max-message-size", "100"]
    with serve(
        "gunicorn", "foreign:app", *options, directory=directory, environ=ENVIRON
    ) as server:
        yield server
        assert server.stop() == 0


async def talk(server, path, *messages):
    """What is answered, and the code and the reason at the end."""
    url = f"ws://127.0.0.1:{server.port}/{path}"
    async with connect(url, proxy=None, subprotocols=["chat"]) as ws:
        for message in messages:
            await ws.send(message)
        received = [await ws.recv() for _ in messages]
        if path != "echo":
            await ws.wait_closed()
        return ws, received


def test_an_application_of_others_is_served_as_ever(foreign, run):
    ws, received = run(talk(foreign, "echo", "text", b"bytes", ""))
    assert received == ["text", b"bytes", ""]
    assert ws.subprotocol == "chat"
    assert ws.response.headers["x-name"] == "value"
    foreign.wait_for("disconnected 1000 ")


def test_it_may_receive_before_it_accepts(foreign, run):
    assert run(talk(foreign, "late", "hello"))[1] == ["hello"]


def test_it_refuses_with_a_response(foreign, run):
    with pytest.raises(InvalidStatus) as caught:
        run(talk(foreign, "refuse"))
    response = caught.value.response
    assert (response.status_code, response.body) == (401, b"who are you?")
    assert response.headers["x-name"] == "value"


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [("close", 4000, "enough"), ("fail", 1011, ""), ("end", 1000, "")],
)
def test_it_is_closed_with_the_code_that_fits(foreign, run, path, code, reason):
    ws, _ = run(talk(foreign, path))
    assert (ws.close_code, ws.close_reason) == (code, reason)
    if path == "close":
        foreign.wait_for("late 4000")
    if path == "fail":
        foreign.wait_for("KeyError: 'mistake'")


def test_the_limit_of_gunicorn_is_applied_to_it(foreign):
    with Raw(foreign, "/echo") as client:
        client.send(frame(TEXT, b"x" * 101))
        assert client.end()[0] == 1009


# The same transport, encrypted


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    """A server that speaks TLS, and what its clients trust."""
    cert, key = write_parts(tmp_path_factory.mktemp("tls"))
    options = ["--certfile", str(cert), "--keyfile", str(key)]
    with serve(
        "gunicorn", "websocket_app:make()", *options, directory=APPS, environ=ENVIRON
    ) as server:
        yield server, ssl.create_default_context(cafile=cert)
        assert server.stop() == 0
        assert_clean(server)


def connect_secure(secure, path):
    server, context = secure
    return connect(
        f"wss://localhost:{server.port}{path}",
        host="127.0.0.1",
        port=server.port,
        ssl=context,
        server_hostname="localhost",
        proxy=None,
        origin=f"https://localhost:{server.port}",
        max_size=None,
    )


def test_it_talks_and_closes_over_tls(secure, run):
    async def main():
        async with connect_secure(secure, "/echo") as ws:
            for message in ("hello", b"x" * 200_000, ""):
                await ws.send(message)
                assert await ws.recv() == message
            await ws.close(4000)
        async with connect_secure(secure, "/end") as ws:
            await ws.send("last")
            assert await ws.recv() == "last"
            await ws.wait_closed()
            return ws.close_code

    assert run(main()) == 1000


def test_a_burst_over_tls_is_answered_in_order(secure, run):
    async def main():
        async with connect_secure(secure, "/echo") as ws:
            messages = [str(number) for number in range(2000)]

            async def send():
                for message in messages:
                    await ws.send(message)

            sending = asyncio.create_task(send())
            received = [await ws.recv() for _ in messages]
            await sending
            return received == messages

    assert run(main())


def test_a_client_that_vanishes_over_tls_is_noticed(secure, run):
    server, context = secure

    async def main():
        async with connect_secure(secure, "/watch?key=tls") as ws:
            await ws.send("before")
            ws.transport.abort()

    run(main())
    request = b"GET /told?key=tls&count=2 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", server.port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(request)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        received, (closed, code, _), *_ = json.load(answer)
    assert (received, closed, code) == (["before"], True, 1006)

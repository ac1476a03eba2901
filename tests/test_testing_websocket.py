"""WebSockets of a ``TestApp``.

Most applications here are ASGI applications, written by hand, in the place of the
gateway: each does one thing, right or wrong, that a server would see.
"""

import asyncio
import contextlib
import contextvars
import gc
import json
import logging
import threading
import weakref

import pytest
from pyramid import testing
from pyramid.threadlocal import get_current_request
from webtest import AppError, TestResponse

from aioext import spawn_greenlet, threadlocal, use_executor, wait
from aioext.exceptions import ConnectionClosed, ScopeError
from aioext.testing import TestApp, TestWebSocket, WebSocketRefused, serving
from aioext.testing.websocket import LIMIT


def wsgi_app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"page"]


@pytest.fixture
def serve():
    """A ``TestApp`` whose WebSockets are served by ``handler(ws)``.

    ``ws`` is the :class:`Server` of a WebSocket that is accepted; with
    ``accept=False`` the handler has to do that.
    """

    def serve(handler, accept=True, **options):
        async def gateway(scope, receive, send):
            ws = Server(scope, receive, send)
            assert await receive() == {"type": "websocket.connect"}
            if accept:
                await ws.accept()
            await handler(ws)

        app = stack.enter_context(TestApp(wsgi_app, **options))
        app.gateway = gateway
        return app

    with contextlib.ExitStack() as stack:
        yield serve


class Server:
    """A WebSocket on the side of an ASGI application."""

    def __init__(self, scope, receive, send):
        self.scope = scope
        self.receive = receive
        self.send_message = send

    @property
    def headers(self):
        return {name.decode(): value.decode() for name, value in self.scope["headers"]}

    async def accept(self, **others):
        await self.send_message({"type": "websocket.accept", **others})

    async def recv(self):
        """The next message; the message of the disconnection at the end."""
        message = await self.receive()
        if message["type"] == "websocket.disconnect":
            return message
        assert message["type"] == "websocket.receive"
        return message["text"] if "text" in message else message["bytes"]

    async def send(self, payload):
        kind = "text" if isinstance(payload, str) else "bytes"
        await self.send_message({"type": "websocket.send", kind: payload})

    async def close(self, **others):
        await self.send_message({"type": "websocket.close", **others})

    async def respond(self, status, *parts, headers=()):
        """Refuse it with a response."""
        kind = "websocket.http.response"
        start = {"type": f"{kind}.start", "status": status, "headers": list(headers)}
        await self.send_message(start)
        for part in parts:
            body = {"type": f"{kind}.body", "body": part, "more_body": True}
            await self.send_message(body)
        await self.send_message({"type": f"{kind}.body"})


async def echo(ws):
    while not isinstance(message := await ws.recv(), dict):
        await ws.send(message)


async def wait_for_ever(ws):
    await asyncio.get_running_loop().create_future()


def collect(events):
    """A handler that notes what it receives, to the end."""

    async def handler(ws):
        while True:
            message = await ws.recv()
            events.append(message)
            if isinstance(message, dict):
                return

    return handler


# Messages


def test_messages_go_there_and_back(serve):
    with serve(echo).websocket("/") as ws:
        for message in ("text", "", "é", b"bytes", b"", "x" * 100_000):
            ws.send(message)
            assert ws.recv() == message
        ws.send_json({"a": [1, None]})
        assert ws.recv_json() == {"a": [1, None]}


def test_it_is_an_object_as_well_as_a_context_manager(serve):
    ws = serve(echo).websocket("/")
    assert isinstance(ws, TestWebSocket)
    ws.send("a")
    assert ws.recv() == "a"
    assert not ws.closed
    assert ws.close_code is None
    ws.close()
    assert ws.closed
    ws.wait_ended()


def test_many_messages_keep_their_order(serve):
    with serve(echo).websocket("/") as ws:
        for number in range(1000):
            ws.send(str(number))
        assert [ws.recv() for _ in range(1000)] == [str(n) for n in range(1000)]


def test_iteration_ends_when_the_server_closes(serve):
    async def count(ws):
        for number in range(3):
            await ws.send(str(number))
        await ws.close(code=4000, reason="enough")

    with serve(count).websocket("/") as ws:
        assert list(ws) == ["0", "1", "2"]
        assert ws.closed
        assert (ws.close_code, ws.close_reason) == (4000, "enough")
        assert ws.recv() is None
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv_json()
        assert (caught.value.code, caught.value.reason) == (4000, "enough")
        with pytest.raises(ConnectionClosed):
            ws.send("too late")


def test_json_is_made_by_the_encoder_of_the_test_app(serve):
    class Encoder(json.JSONEncoder):
        def default(self, thing):
            return sorted(thing)

    with serve(echo, json_encoder=Encoder).websocket("/") as ws:
        ws.send_json({2, 1})
        assert ws.recv() == "[1, 2]"


@pytest.mark.parametrize("message", [None, 1, {"a": 1}, ["a"]])
def test_what_is_no_message_is_refused(serve, message):
    with (
        serve(echo).websocket("/") as ws,
        pytest.raises(TypeError, match="Write send_json"),
    ):
        ws.send(message)


def test_two_websockets_and_a_page_share_a_loop(serve):
    loops = []

    async def pair(ws):
        loops.append(asyncio.get_running_loop())
        if len(loops) == 1:
            pair.first = ws
            await ws.recv()
            return
        await pair.first.send(await ws.recv())

    app = serve(pair)
    with app.websocket("/1") as one, app.websocket("/2") as two:
        assert app.get("/").text == "page"
        two.send("from two")
        assert one.recv() == "from two"
    assert loops[0] is loops[1]


# Closing


@pytest.mark.parametrize(
    ("close", "code", "reason"),
    [
        (lambda ws: ws.close(), 1000, ""),
        (lambda ws: ws.close(4001, "bye é"), 4001, "bye é"),
        (lambda ws: ws.close(None), 1005, ""),
        (lambda ws: ws.disconnect(), 1006, ""),
        (lambda ws: None, 1000, ""),
    ],
)
def test_the_application_sees_how_it_was_closed(serve, close, code, reason):
    events = []
    with serve(collect(events)).websocket("/") as ws:
        ws.send("last")
        close(ws)
    assert events == [
        "last",
        {"type": "websocket.disconnect", "code": code, "reason": reason},
    ]
    assert (ws.close_code, ws.close_reason) == (code, reason)


def test_what_came_before_the_close_can_be_received(serve):
    events = []

    async def greet(ws):
        await ws.send("one")
        await ws.send("two")
        await collect(events)(ws)

    with serve(greet).websocket("/") as ws:
        assert ws.recv() == "one"
        ws.close()
        ws.close(4000)
        assert list(ws) == ["two"]
        with pytest.raises(ConnectionClosed):
            ws.send("too late")
        ws.wait_ended()
    assert [event["code"] for event in events] == [1000]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
def test_no_client_sends_such_a_code(serve, code):
    with (
        serve(echo).websocket("/") as ws,
        pytest.raises(ValueError, match=f"code {code}, which no client"),
    ):
        ws.close(code)


def test_a_reason_has_at_most_123_bytes(serve):
    with serve(echo).websocket("/") as ws:
        with pytest.raises(ValueError, match="124 bytes"):
            ws.close(1000, "é" * 62)
        ws.close(1000, "é" * 61)


@pytest.mark.parametrize("leave", ["close", "disconnect"])
def test_to_send_to_a_client_that_has_gone_fails(serve, leave):
    gone = asyncio.Event()
    errors = []

    async def talk(ws):
        await gone.wait()
        for _ in range(2):
            try:
                await ws.send("more")
            except OSError as error:
                errors.append(error)

    with serve(talk).websocket("/") as ws:
        getattr(ws, leave)()
        ws._serving._loop.call_soon_threadsafe(gone.set)
        ws.wait_ended()
    assert [type(error) for error in errors] == [BrokenPipeError] * 2
    assert ws.recv() is None


def test_a_handler_that_returns_without_closing_has_lost_the_connection(serve):
    async def leave(ws):
        pass

    with serve(leave).websocket("/") as ws:
        assert ws.recv() is None
        assert ws.close_code == 1006


def test_a_sender_that_nobody_listens_to_is_held_back(serve):
    sent = []

    async def talk(ws):
        with contextlib.suppress(OSError):
            while True:
                await ws.send("x" * 1023)
                sent.append(1)

    with serve(talk).websocket("/") as ws:
        for _ in range(200):
            ws.recv()
    assert 200 <= len(sent) <= 200 + LIMIT / 1024


@pytest.mark.parametrize("leave", ["close", "disconnect"])
def test_a_sender_that_is_held_back_hears_that_the_client_has_gone(serve, leave):
    errors = []

    async def talk(ws):
        try:
            while True:
                await ws.send("x" * LIMIT)
        except BaseException as error:
            errors.append(type(error))
            raise

    ws = serve(talk).websocket("/")
    assert ws.recv() == "x" * LIMIT
    getattr(ws, leave)()
    with pytest.raises(BrokenPipeError):
        ws.wait_ended()
    assert errors == [BrokenPipeError]


def test_empty_messages_hold_a_sender_back_as_well(serve):
    async def talk(ws):
        with contextlib.suppress(OSError):
            while True:
                await ws.send("")

    with serve(talk).websocket("/") as ws:
        assert ws.recv() == ""


# The handshake


@pytest.fixture
def scope_of(serve):
    """The scope of a WebSocket that is opened, with the answer's headers."""

    def scope_of(*args, extra_environ=None, accepted=None, cookies=(), **options):
        seen = []

        async def look(ws):
            await ws.accept(**(accepted or {}))
            seen.append(ws)

        app = serve(look, accept=False, extra_environ=extra_environ)
        for name, value in cookies:
            app.set_cookie(name, value)
        ws = app.websocket(*(args or ["/"]), **options)
        ws.wait_ended()
        return seen[0], ws, app

    return scope_of


def test_the_scope_is_one_of_a_handshake(scope_of):
    server, _, _ = scope_of("/a%20b/%C3%A9?x=1&y=%20")
    scope = server.scope
    assert scope["type"] == "websocket"
    assert scope["scheme"] == "ws"
    assert scope["path"] == "/a b/é"
    assert scope["raw_path"] == b"/a%20b/%C3%A9"
    assert scope["query_string"] == b"x=1&y=%20"
    assert scope["root_path"] == ""
    assert scope["http_version"] == "1.1"
    assert scope["subprotocols"] == []
    assert scope["extensions"] == {"websocket.http.response": {}}
    assert scope["client"] == ("127.0.0.1", 50_000)
    assert scope["server"] == ("localhost", 80)
    headers = server.headers
    assert headers["host"] == "localhost:80"
    assert headers["upgrade"] == "websocket"
    assert headers["connection"] == "Upgrade"
    assert headers["sec-websocket-version"] == "13"
    assert len(headers["sec-websocket-key"]) == 24
    assert headers["origin"] == "http://localhost"
    assert all(type(part) is bytes for pair in scope["headers"] for part in pair)


@pytest.mark.parametrize(
    ("url", "scheme", "host", "origin"),
    [
        ("http://localhost/x", "ws", "localhost:80", "http://localhost"),
        ("ws://example.com/x", "ws", "example.com:80", "http://example.com"),
        ("wss://example.com/x", "wss", "example.com:443", "https://example.com"),
        ("wss://a.example:8443/x", "wss", "a.example:8443", "https://a.example:8443"),
    ],
)
def test_the_url_may_be_whole(scope_of, url, scheme, host, origin):
    server, _, _ = scope_of(url)
    assert server.scope["scheme"] == scheme
    assert server.scope["path"] == "/x"
    assert server.headers["host"] == host
    assert server.headers["origin"] == origin


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_the_origin_may_be_another(scope_of, origin):
    server, _, _ = scope_of("/", origin=origin)
    assert server.headers["origin"] == origin
    server, _, _ = scope_of("/", headers={"Origin": origin})
    assert server.headers["origin"] == origin


def test_a_script_sends_no_origin(scope_of):
    server, _, _ = scope_of("/", origin=None)
    assert "origin" not in server.headers


def test_headers_are_sent_and_may_replace_those_of_a_handshake(scope_of):
    given = {"X-Thing": "é", "Sec-WebSocket-Version": "8"}
    server, _, _ = scope_of("/", headers=given)
    headers = dict(server.scope["headers"])
    assert headers[b"x-thing"] == b"\xe9"
    names = [name for name, _ in server.scope["headers"]]
    assert names.count(b"sec-websocket-version") == 1
    assert headers[b"sec-websocket-version"] == b"8"
    assert given == {"X-Thing": "é", "Sec-WebSocket-Version": "8"}


def test_the_environ_of_the_test_app_counts(scope_of):
    environ = {
        "HTTP_HOST": "example.com",
        "HTTP_AUTHORIZATION": "Basic x",
        "wsgi.url_scheme": "https",
        "REMOTE_ADDR": "192.0.2.1",
        "SCRIPT_NAME": "/app",
    }
    server, _, _ = scope_of("/x", extra_environ=environ)
    assert server.scope["scheme"] == "wss"
    assert server.scope["client"] == ("192.0.2.1", 50_000)
    assert server.scope["root_path"] == "/app"
    assert server.scope["path"] == "/app/x"
    assert server.headers["authorization"] == "Basic x"
    assert server.headers["origin"] == "https://example.com"


def test_subprotocols_are_offered_and_one_is_chosen(scope_of):
    accepted = {"subprotocol": "b"}
    server, ws, _ = scope_of("/", subprotocols=["a", "b"], accepted=accepted)
    assert server.scope["subprotocols"] == ["a", "b"]
    assert server.headers["sec-websocket-protocol"] == "a, b"
    assert ws.subprotocol == "b"
    _, ws, _ = scope_of("/", subprotocols=["a"])
    assert ws.subprotocol is None


def test_the_answer_has_its_headers(scope_of):
    _, ws, _ = scope_of("/", accepted={"headers": [(b"x-thing", b"\xe9")]})
    assert ws.headers["X-Thing"] == "é"
    assert ws.headers["upgrade"] == "websocket"
    assert isinstance(ws.response, TestResponse)
    assert ws.response.status == "101 Switching Protocols"


def test_cookies_go_along_and_are_kept(scope_of):
    headers = [(b"set-cookie", b"b=2; Path=/"), (b"set-cookie", b"c=3; Path=/")]
    server, _, app = scope_of("/", cookies=[("a", "1")], accepted={"headers": headers})
    assert server.headers["cookie"] == 'a="1"'
    assert app.cookies == {"a": '"1"', "b": "2", "c": "3"}


here = contextvars.ContextVar("here", default="nowhere")


def test_a_handler_sees_what_the_test_has_set_but_not_its_request(serve):
    seen = []

    async def look(ws):
        seen.append((here.get(), get_current_request()))
        here.set("handler")

    threadlocal.install()
    here.set("test")
    with testing.testConfig(request=testing.DummyRequest()):
        serve(look).websocket("/").wait_ended()
        assert get_current_request() is not None
    assert seen == [("test", None)]
    assert here.get() == "test"
    here.set("nowhere")


# Refusals


def test_a_refusal_is_raised_with_its_response(serve):
    async def refuse(ws):
        headers = [(b"content-type", b"text/plain"), (b"set-cookie", b"seen=1")]
        await ws.respond(403, b"100% not ", b"yours", headers=headers)

    app = serve(refuse, accept=False)
    with pytest.raises(WebSocketRefused) as caught:
        app.websocket("/secret")
    assert isinstance(caught.value, AppError)
    response = caught.value.response
    assert response.status_int == 403
    assert response.text == "100% not yours"
    assert response.test_app is app
    assert app.cookies == {"seen": "1"}
    message = str(caught.value)
    assert "http://localhost/secret was refused: 403 Forbidden" in message
    assert "100% not yours" in message


def test_a_redirection_can_be_followed(serve):
    async def refuse(ws):
        await ws.respond(302, headers=[(b"location", b"/login")])

    with pytest.raises(WebSocketRefused) as caught:
        serve(refuse, accept=False).websocket("/")
    assert caught.value.response.follow().text == "page"


def test_a_close_before_the_acceptance_is_403(serve):
    async def refuse(ws):
        await ws.close()

    with pytest.raises(WebSocketRefused) as caught:
        serve(refuse, accept=False).websocket("/")
    assert caught.value.response.status == "403 Forbidden"


def test_a_status_that_nobody_knows(serve):
    async def refuse(ws):
        await ws.respond(499)

    with pytest.raises(WebSocketRefused, match="499 Unknown"):
        serve(refuse, accept=False).websocket("/")


def test_an_error_before_the_answer_is_raised(serve):
    async def fail(ws):
        raise LookupError("no such room")

    with pytest.raises(LookupError, match="no such room"):
        serve(fail, accept=False).websocket("/")


def test_an_application_that_does_not_answer(serve):
    async def leave(ws):
        pass

    with pytest.raises(AssertionError, match="WebSocket /x had no answer: the app"):
        serve(leave, accept=False).websocket("/x")


def test_an_answer_after_the_application_has_returned_is_none(serve):
    returned = asyncio.Event()
    late = []

    async def answer(ws):
        await returned.wait()
        await ws.accept()

    async def leave(ws):
        late.append(asyncio.create_task(answer(ws)))

    with pytest.raises(AssertionError, match="sent nothing"):
        serve(leave, accept=False).websocket("/")
    (task,) = late
    task.get_loop().call_soon_threadsafe(returned.set)

    async def end():
        await task

    wait(end())


def test_an_application_that_takes_too_long_to_answer(serve, monkeypatch):
    monkeypatch.setattr(serving, "GRACE", 0.01)
    ended = []

    async def hang(ws):
        try:
            await wait_for_ever(ws)
        finally:
            ended.append(True)

    app = serve(hang, accept=False)
    with pytest.raises(TimeoutError, match=r"WebSocket /x had .* within 0\.01 s"):
        app.websocket("/x", timeout=0.01)
    assert ended


# What is not ASGI


@pytest.mark.parametrize(
    ("accept", "message", "expected"),
    [
        (True, {"type": "websocket.accept"}, "'websocket.accept' for .* is open"),
        (False, {"type": "websocket.send", "text": ""}, "which is connecting"),
        (True, {"type": "websocket.nonsense"}, "'websocket.nonsense'"),
        (True, {"type": "websocket.send"}, "None or left out"),
        (True, {"type": "websocket.send", "text": b""}, "None or left out"),
        (True, {"type": "websocket.send", "bytes": ""}, "None or left out"),
    ],
)
def test_what_an_application_must_not_send(serve, accept, message, expected):
    async def send(ws):
        await ws.send_message(message)

    with (
        pytest.raises(AssertionError, match=expected),
        serve(send, accept=accept).websocket("/") as ws,
    ):
        ws.recv()


def test_nothing_is_sent_after_the_close(serve):
    async def send(ws):
        await ws.close()
        await ws.send("more")

    ws = serve(send).websocket("/")
    with pytest.raises(AssertionError, match="which is closed"):
        ws.wait_ended()
    assert ws.close_code == 1000


def test_none_stands_for_what_is_left_out(serve):
    async def send(ws):
        await ws.send_message({"type": "websocket.send", "text": None, "bytes": b"b"})
        await ws.send_message({"type": "websocket.send", "text": "", "bytes": None})
        await ws.close(reason=None)

    with serve(send).websocket("/") as ws:
        assert list(ws) == [b"b", ""]
        assert ws.close_reason == ""


# What a handler raises


async def fail(ws):
    await ws.send(await ws.recv())
    raise LookupError("no such room")


def test_an_error_is_raised_by_recv_once_all_messages_were_taken(serve):
    with serve(fail).websocket("/") as ws:
        ws.send("a")
        assert ws.recv() == "a"
        with pytest.raises(LookupError, match="no such room"):
            ws.recv()
        assert ws.close_code == 1011
        # It was told.
        assert ws.recv() is None


def test_an_error_is_raised_by_send(serve):
    async def fail(ws):
        raise LookupError("no such room")

    ws = serve(fail).websocket("/")
    serving.wait(ws._serving.wait_ended, None)
    with pytest.raises(LookupError):
        ws.send("a")
    with pytest.raises(ConnectionClosed):
        ws.send("a")


def test_an_error_is_raised_at_the_end_of_the_block(serve):
    with (
        pytest.raises(LookupError, match="no such room") as caught,
        serve(fail).websocket("/") as ws,
    ):
        ws.send("a")
    names = [each.name for each in caught.traceback]
    assert "fail" in names


def test_an_error_is_noted_where_the_test_fails_itself(serve):
    async def fail(ws):
        await ws.recv()
        raise LookupError("no such room")

    def test():
        with serve(fail).websocket("/x") as ws:
            ws.send("a")
            raise KeyError("the test's own")

    with pytest.raises(KeyError) as caught:
        test()
    (note,) = caught.value.__notes__
    assert note.startswith("WebSocket /x failed in the application:\nTraceback")
    assert "LookupError: no such room" in note


def test_an_error_that_was_told_is_not_noted(serve):
    app = serve(fail)

    def test():
        with app.websocket("/x") as ws:
            ws.send("a")
            assert ws.recv() == "a"
            ws.recv()

    with pytest.raises(LookupError) as caught:
        test()
    assert not hasattr(caught.value, "__notes__")


def test_an_error_that_is_only_logged_is_raised(serve):
    """As the gateway does it, which closes with 1011."""
    log = logging.getLogger("aioext")

    async def fail(ws):
        try:
            raise LookupError("no such room")
        except LookupError:
            log.exception("the handler failed")
        await ws.close(code=1011)

    with serve(fail).websocket("/") as ws:
        with pytest.raises(LookupError):
            ws.recv()
        assert ws.close_code == 1011
    assert not [each for each in log.handlers if type(each).__name__ == "Failures"]


def test_an_error_that_is_logged_in_a_thread_of_the_handler_is_raised(serve):
    @use_executor
    def fail():
        logging.getLogger("aioext").error("failed", exc_info=LookupError("thread"))

    async def handler(ws):
        await fail()
        await echo(ws)

    ws = serve(handler).websocket("/")
    ws.close()
    with pytest.raises(LookupError, match="thread"):
        ws.wait_ended()


def test_each_websocket_has_its_own_errors(serve):
    both = asyncio.Barrier(2)

    async def maybe_fail(ws):
        await both.wait()
        if ws.scope["path"] == "/bad":
            error = LookupError("no such room")
            logging.getLogger("aioext").error("failed", exc_info=error)
            await ws.close(code=1011)
            return
        await echo(ws)

    app = serve(maybe_fail)
    with app.websocket("/good") as good:
        with pytest.raises(LookupError), app.websocket("/bad") as bad:
            bad.recv()
        good.send("a")
        assert good.recv() == "a"


def test_an_error_that_is_logged_and_raised_is_one(serve):
    async def fail(ws):
        try:
            raise LookupError("no such room")
        except LookupError:
            logging.getLogger("aioext").exception("the handler failed")
            raise

    ws = serve(fail).websocket("/")
    with pytest.raises(LookupError) as caught:
        ws.wait_ended()
    assert not hasattr(caught.value, "__notes__")


def test_several_errors_are_told_with_the_first(serve):
    async def fail(ws):
        logging.getLogger("aioext").error("failed", exc_info=LookupError("first"))
        raise KeyError("second")

    ws = serve(fail).websocket("/")
    with pytest.raises(LookupError) as caught:
        ws.wait_ended()
    assert caught.value.__notes__ == [
        "And then, in the same connection: KeyError('second')"
    ]


def test_an_outcome_of_pytest_is_raised_in_the_test(serve):
    async def check(ws):
        pytest.fail("the handler does not like it")

    ws = serve(check).websocket("/")
    with pytest.raises(BaseException, match="does not like it") as caught:
        ws.recv()
    assert not isinstance(caught.value, Exception)


def test_a_system_exit_does_not_end_the_loop(serve):
    async def leave(ws):
        raise SystemExit(3)

    app = serve(leave)
    with pytest.raises(SystemExit):
        app.websocket("/").recv()
    with pytest.raises(SystemExit):
        app.websocket("/").recv()


# Waiting


def test_a_timeout_says_what_was_waited_for(serve):
    async def talk(ws):
        await ws.send("hello")
        await collect([])(ws)

    with serve(talk).websocket("/x", timeout=0.05) as ws:
        ws.send("a" * 100)
        ws.send("b" * 100)
        assert ws.recv() == "hello"
        with pytest.raises(TimeoutError) as caught:
            ws.recv()
    shown = "b" * 59
    assert str(caught.value) == (
        "No message came from WebSocket /x within 0.05 s. "
        f"Sent: 2, the last was '{shown}... (100 long). "
        "Received: 1, the last was 'hello'. The application still runs."
    )


def test_a_timeout_of_one_call(serve):
    app = serve(echo)
    with app.websocket("/") as ws:
        with pytest.raises(TimeoutError, match=r"within 0\.01 s\. Sent: nothing"):
            ws.recv(timeout=0.01)
        with pytest.raises(TimeoutError, match=r"within 0\.02 s"):
            ws.recv_json(0.02)
        # Nothing is lost.
        ws.send("a")
        assert ws.recv() == "a"


def test_a_timeout_error_of_the_handler_is_its_own(serve):
    async def fail(ws):
        raise TimeoutError("the database")

    with pytest.raises(TimeoutError, match="the database"):
        serve(fail).websocket("/").recv()


def test_wait_ended_waits_for_the_cleanup(serve):
    cleaned = []

    async def handler(ws):
        await ws.recv()
        await asyncio.sleep(0.01)
        cleaned.append(True)

    ws = serve(handler).websocket("/")
    with pytest.raises(TimeoutError, match=r"WebSocket / is still served after 0 s"):
        ws.wait_ended(0)
    ws.disconnect()
    ws.wait_ended()
    assert cleaned
    ws.wait_ended()


def test_a_handler_that_does_not_end_is_cancelled_at_the_end(serve, monkeypatch):
    monkeypatch.setattr(serving, "GRACE", 0.01)
    events = []

    async def handler(ws):
        try:
            await wait_for_ever(ws)
        except asyncio.CancelledError:
            events.append("cancelled")
            await asyncio.sleep(0)
            events.append("released")
            raise

    with serve(handler).websocket("/") as ws:
        pass
    assert events == ["cancelled", "released"]
    assert ws.close_code == 1000


def test_a_handler_that_cannot_be_ended_is_named(serve, monkeypatch):
    monkeypatch.setattr(serving, "GRACE", 0.01)
    monkeypatch.setattr(serving, "PATIENCE", 0.01)
    may_end = asyncio.Event()

    async def handler(ws):
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()

    ws = serve(handler).websocket("/x")
    with pytest.raises(TimeoutError, match=r"serves WebSocket /x goes on 0\.01 s"):
        ws.__exit__(None, None, None)
    ws._serving._loop.call_soon_threadsafe(may_end.set)
    ws.wait_ended()


def test_one_that_has_ended_is_not_kept(serve):
    app = serve(echo)
    with app.websocket("/") as ws:
        ended = weakref.ref(ws)
    del ws
    with app.websocket("/"):
        gc.collect()
        assert ended() is None


def test_what_was_not_closed_ends_with_the_test_app():
    events = []
    app = TestApp(wsgi_app)

    async def gateway(scope, receive, send):
        await Server(scope, receive, send).accept()
        await receive()
        try:
            await collect(events)(Server(scope, receive, send))
        finally:
            events.append(scope["path"])

    app.gateway = gateway
    app.websocket("/1")
    app.websocket("/2")
    with app.websocket("/3"):
        pass
    app.close()
    assert [each for each in events if isinstance(each, str)] == ["/3", "/2", "/1"]
    app.close()


def test_the_end_of_the_test_app_raises_what_was_not_told():
    async def gateway(scope, receive, send):
        await Server(scope, receive, send).accept()
        await receive()
        raise LookupError(scope["path"])

    app = TestApp(wsgi_app)
    app.gateway = gateway
    app.websocket("/1")
    app.websocket("/2")
    with pytest.raises(LookupError) as caught:
        app.close()
    assert caught.value.args == ("/2",)
    (note,) = caught.value.__notes__
    assert "WebSocket /1 failed" in note


# On a loop


def test_a_coroutine_cannot_use_it(serve, run):
    app = serve(echo)
    ws = app.websocket("/")

    async def main():
        with pytest.raises(ScopeError, match=r"await spawn_greenlet\(function\)"):
            app.websocket("/")
        with pytest.raises(ScopeError, match="A TestApp is synchronous"):
            ws.recv()

    run(main())
    ws.close()


def test_a_greenlet_can(serve, run):
    app = serve(echo)
    loops = []

    def talk(message):
        with app.websocket("/") as ws:
            loops.append(ws._serving._loop)
            ws.send(message)
            return ws.recv()

    async def main():
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(spawn_greenlet(talk, str(number)))
                for number in range(3)
            ]
        assert loops == [asyncio.get_running_loop()] * 3
        return [task.result() for task in tasks]

    app.close()
    assert run(main()) == ["0", "1", "2"]


def test_it_belongs_to_the_loop_that_it_was_opened_on(serve, run):
    app = serve(echo)
    ws = app.websocket("/x")

    def use():
        for step in (ws.recv, ws.close, lambda: ws.send("a"), ws.wait_ended):
            with pytest.raises(ScopeError, match="WebSocket /x was opened on ano"):
                step()

    async def main():
        await spawn_greenlet(use)

    run(main())
    ws.send("a")
    assert ws.recv() == "a"


def test_it_may_outlive_its_loop(serve, run):
    app = serve(echo)

    async def main():
        return await spawn_greenlet(app.websocket, "/")

    ws = run(main())
    ws.wait_ended()
    with ws:
        pass


def test_threads_may_use_it(serve):
    app = serve(echo)
    answers = []

    def talk(number):
        with app.websocket("/") as ws:
            ws.send(str(number))
            answers.append(ws.recv())

    threads = [threading.Thread(target=talk, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["0", "1", "2", "3"]

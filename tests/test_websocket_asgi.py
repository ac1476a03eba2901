"""WebSockets over ASGI's messages: the queue, the end, and what servers do wrong."""

import asyncio
import contextvars
import gc
import logging
import weakref

import pytest
from asgi import make_scope
from inprocess import make_app
from markupsafe import Markup
from pyramid.httpexceptions import HTTPForbidden
from pyramid.response import Response
from pyramid.threadlocal import get_current_request

from aioext import ConnectionClosed, shutdown, wait
from aioext.gateway import Gateway
from aioext.lifespan import lifespans_of
from aioext.websocket import (
    SyncWebSocket,
    WebsocketMapper,
    WebSocketResponse,
    get_websocket,
)
from aioext.websocket import asgi as module
from aioext.websocket.asgi import DENIAL, ASGIChannel, warn_of_limits
from aioext.websocket.options import Options

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept", "headers": []}


def close(code=1000, reason=""):
    return {"type": "websocket.close", "code": code, "reason": reason}


class Server:
    """A server, and the one client that it has.

    Attributes:
        sent: the messages of the application.
        on_send: called with each message before it is sent; may raise, or give
            something to be awaited.
    """

    def __init__(self, *messages, extensions=(DENIAL,), **scope):
        self.scope = make_scope(
            type="websocket",
            scheme="ws",
            subprotocols=[],
            extensions={each: {} for each in extensions},
            **scope,
        )
        del self.scope["method"]
        self.sent = []
        self.receiving = 0
        self.on_send = lambda message: None
        self._incoming = asyncio.Queue()
        self._changed = asyncio.Event()
        for message in (CONNECT, *messages):
            self.give(message)

    def give(self, message):
        """Have the application receive a message; text and bytes are the client's."""
        if isinstance(message, str):
            message = {"type": "websocket.receive", "text": message}
        elif isinstance(message, bytes):
            message = {"type": "websocket.receive", "bytes": message, "text": None}
        self._incoming.put_nowait(message)

    def leave(self, code=1001, **others):
        self.give({"type": "websocket.disconnect", "code": code, **others})

    async def receive(self):
        assert not self.receiving, "receive() was called while another one waits"
        self.receiving += 1
        try:
            message = await self._incoming.get()
        finally:
            self.receiving -= 1
        if isinstance(message, Exception):
            raise message
        return message

    async def send(self, message):
        awaitable = self.on_send(message)
        if awaitable is not None:
            await awaitable
        self.sent.append(message)
        self._changed.set()

    def call(self, app):
        """Call the application, in a Task."""
        return asyncio.ensure_future(app(self.scope, self.receive, self.send))

    async def until(self, kind):
        """Return when the application has sent a message of this kind."""
        while not any(each["type"] == f"websocket.{kind}" for each in self.sent):
            self._changed.clear()
            await self._changed.wait()

    @property
    def kinds(self):
        return [each["type"].removeprefix("websocket.") for each in self.sent]


async def connect(*messages, **options):
    """A server that has said so, and a channel."""
    server = Server(*messages)
    assert await server.receive() == CONNECT
    return server, ASGIChannel(server.receive, server.send, Options(**options))


async def settle():
    """Let every Task go on until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def short_grace(monkeypatch):
    """A handler has little time after the end of its connection."""
    monkeypatch.setattr(module, "GRACE", 0.01)


# The channel


def test_messages_come_as_text_or_bytes(run):
    async def main():
        last = {"type": "websocket.receive", "bytes": None, "text": "both"}
        _, channel = await connect("", "text", b"", b"bytes", last)
        received = [await channel.receive() for _ in range(5)]
        channel.release()
        return received

    assert run(main()) == ["", "text", b"", b"bytes", "both"]


class Text(str):
    __slots__ = ()

    def __str__(self):
        return "something else"


@pytest.mark.parametrize(
    ("message", "name", "value"),
    [
        ("text", "text", "text"),
        ("", "text", ""),
        (Markup("<b>"), "text", "<b>"),
        (Text("text"), "text", "text"),
        (b"bytes", "bytes", b"bytes"),
        (bytearray(b"bytes"), "bytes", b"bytes"),
        (memoryview(b"bytes"), "bytes", b"bytes"),
    ],
)
def test_a_message_is_sent_as_what_asgi_knows(run, message, name, value):
    async def main():
        server, channel = await connect()
        await channel.send(message)
        channel.release()
        return server.sent

    (event,) = run(main())
    assert event == {"type": "websocket.send", name: value}
    assert type(event[name]) is type(value)


def test_what_is_no_message_is_refused(run):
    async def main():
        server, channel = await connect()
        with pytest.raises(TypeError, match="send_json"):
            await channel.send(None)
        channel.release()
        assert server.sent == []

    run(main())


def test_senders_take_turns(run):
    async def main():
        sending = 0

        async def take(message):
            nonlocal sending
            assert sending == 0
            sending += 1
            await asyncio.sleep(0)
            sending -= 1

        server, channel = await connect()
        server.on_send = take
        await asyncio.gather(*(channel.send(str(n)) for n in range(20)))
        channel.release()
        return [each["text"] for each in server.sent]

    assert run(main()) == [str(n) for n in range(20)]


def test_the_server_is_not_asked_for_more_than_the_queue_holds(run):
    async def main():
        server, channel = await connect(*map(str, range(10)), queue=3)
        await settle()
        assert server._incoming.qsize() == 7
        assert not server.receiving
        assert await channel.receive() == "0"
        await settle()
        assert server._incoming.qsize() == 6
        rest = [await channel.receive() for _ in range(9)]
        assert rest == [str(number) for number in range(1, 10)]
        await settle()
        assert server.receiving
        channel.release()

    run(main())


@pytest.mark.parametrize(
    ("message", "limit", "fits"),
    [
        ("x" * 10, 10, True),
        ("x" * 11, 10, False),
        ("ä" * 5, 10, True),
        ("ä" * 6, 10, False),
        (b"x" * 10, 10, True),
        (b"x" * 11, 10, False),
    ],
)
def test_a_message_over_the_limit_closes_with_1009(run, message, limit, fits):
    async def main():
        server, channel = await connect(message, max_size=limit)
        received = await channel.receive()
        await settle()
        channel.release()
        if fits:
            assert (received, server.sent) == (message, [])
        else:
            assert received is None
            assert server.sent == [close(1009, "over 10 bytes")]
            assert (channel.close_code, channel.closed) == (1009, True)
            assert not server.receiving

    run(main())


@pytest.mark.parametrize(
    ("event", "code", "reason"),
    [
        ({"code": 1001, "reason": "bye"}, 1001, "bye"),
        ({"code": 1006}, 1006, ""),
        ({"code": 4000, "reason": None}, 4000, ""),
        ({"code": None}, 1005, ""),
        ({}, 1005, ""),
    ],
)
def test_the_client_closes(run, event, code, reason):
    async def main():
        end = {"type": "websocket.disconnect", **event}
        server, channel = await connect("before", end)
        assert await channel.receive() == "before"
        assert await channel.receive() is None
        assert (channel.close_code, channel.close_reason) == (code, reason)
        with pytest.raises(ConnectionClosed) as caught:
            await channel.send("late")
        assert (caught.value.code, caught.value.reason) == (code, reason)
        await channel.close()
        assert server.sent == []
        channel.release()

    run(main())


@pytest.mark.parametrize("error", [OSError(), BrokenPipeError(), RuntimeError("gone")])
def test_whatever_a_server_raises_for_a_client_that_left_is_one_error(run, error):
    async def main():
        server, channel = await connect()

        def fail(message):
            raise error

        server.on_send = fail
        with pytest.raises(ConnectionClosed) as caught:
            await channel.send("message")
        assert caught.value.code == 1006
        assert channel.closed
        assert await channel.receive() is None
        channel.release()

    run(main())


@pytest.mark.parametrize("error", [OSError(), RuntimeError("gone")])
def test_a_server_that_fails_to_receive_has_lost_its_client(run, error):
    async def main():
        _, channel = await connect("before", error)
        assert await channel.receive() == "before"
        assert await channel.receive() is None
        assert channel.close_code == 1006
        channel.release()

    run(main())


@pytest.mark.parametrize("error", [OSError(), RuntimeError("gone")])
def test_closing_does_not_fail_for_a_client_that_left(run, error):
    async def main():
        server, channel = await connect()

        def fail(message):
            raise error

        server.on_send = fail
        await channel.close(4000, "enough")
        assert (channel.close_code, channel.close_reason) == (4000, "enough")
        channel.release()

    run(main())


def test_an_error_of_the_application_is_not_hidden(run):
    async def main():
        server, channel = await connect()

        def fail(message):
            raise ValueError("wrong")

        server.on_send = fail
        with pytest.raises(ValueError, match="wrong"):
            await channel.send("message")
        channel.release()

    run(main())


def test_the_server_does_not_receive_while_it_closes(run):
    # granian would send no close frame.
    async def main():
        server, channel = await connect()
        receiving = []
        server.on_send = lambda message: receiving.append(server.receiving)
        await settle()
        assert server.receiving
        await channel.close()
        assert receiving == [0]
        channel.release()

    run(main())


def test_closing_waits_for_a_sender(run):
    async def main():
        server, channel = await connect()
        reads = asyncio.Event()
        server.on_send = lambda message: reads.wait()
        sending = asyncio.create_task(channel.send("message"))
        await settle()
        closing = asyncio.create_task(channel.close(4000))
        await settle()
        assert (closing.done(), channel.closed) == (False, True)
        reads.set()
        await closing
        assert server.kinds == ["send", "close"]
        with pytest.raises(ConnectionClosed):
            await sending
        channel.release()

    run(main())


@pytest.mark.parametrize("again", [4000, 4001])
def test_closing_twice_is_closing_once(run, again):
    async def main():
        server, channel = await connect()
        await asyncio.gather(channel.close(4000), channel.close(again))
        await channel.close(again)
        channel.release()
        return server.sent

    assert run(main()) == [close(4000)]


def test_a_close_that_is_cancelled_closes_all_the_same(run):
    async def main():
        server, channel = await connect()
        closing = asyncio.create_task(channel.close(4000))
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await server.until("close")
        channel.release()
        return server.sent

    assert run(main()) == [close(4000)]


def test_what_cannot_be_sent_does_not_close(run):
    async def main():
        _, channel = await connect()
        with pytest.raises(ValueError, match="code 1006"):
            await channel.close(1006)
        assert not channel.closed
        channel.release()

    run(main())


def test_a_message_that_comes_as_it_closes_is_not_received(run):
    async def main():
        server, channel = await connect()
        await settle()
        shutdown.announce(asyncio.get_running_loop())
        server.give("late")
        await settle()
        assert await channel.receive() is None
        channel.release()

    run(main())


@pytest.mark.parametrize("by_itself", [True, False])
def test_the_end_of_the_server_closes_with_1012_once(run, monkeypatch, by_itself):
    monkeypatch.setattr(module, "SERVER_CLOSES", 0.01)

    async def main():
        server, channel = await connect()
        await settle()
        shutdown.announce(asyncio.get_running_loop())
        assert (channel.closed, channel.close_code) == (True, 1012)
        assert await channel.receive() is None
        if by_itself:
            server.leave(1012)
        await channel.close()
        channel.release()
        return server.sent

    assert run(main()) == ([] if by_itself else [close(1012)])


def test_a_channel_that_was_released_hears_of_nothing(run):
    async def main():
        server, channel = await connect()
        channel.release()
        await settle()
        assert not server.receiving
        shutdown.announce(asyncio.get_running_loop())
        assert not channel.closed
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_nothing_of_the_request_is_kept_by_what_receives(run):
    class Thing: ...

    variable = contextvars.ContextVar("variable")

    async def main():
        thing = Thing()
        alive = weakref.ref(thing)
        token = variable.set(thing)
        _, channel = await connect()
        variable.reset(token)
        del thing, token
        await settle()
        gc.collect()
        assert alive() is None
        channel.release()

    run(main())


# Serving


def app_of(view, **options):
    """The ASGI application of one view."""
    settings = options.pop("settings", None)
    return make_app(lambda config: config.add_view(view, **options), settings=settings)


def socket_app(handler, **options):
    """The same of one that ``WebsocketMapper`` maps."""
    return app_of(handler, mapper=WebsocketMapper, **options)


async def echo(ws):
    async for message in ws:
        await ws.send(message)


def test_a_handler_that_returns_closes_with_1000(run):
    async def main():
        server = Server()

        async def handler(ws):
            await ws.send("hello")

        await server.call(socket_app(handler))
        return server.sent

    assert run(main()) == [ACCEPT, {"type": "websocket.send", "text": "hello"}, close()]


def test_a_handler_that_fails_is_logged_and_closes_with_1011(run, caplog):
    async def handler(ws):
        raise KeyError("mistake")

    async def main():
        server = Server()
        await server.call(socket_app(handler))
        return server.sent

    assert run(main()) == [ACCEPT, close(1011)]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("aioext", logging.ERROR)
    assert record.getMessage() == (
        f"aioext: function {__name__}.handler, which serves a WebSocket, failed"
    )
    assert record.exc_info[0] is KeyError


def test_an_application_that_fails_after_accepting_closes_with_1011(run):
    async def view(request):
        await request.websocket.send("hello")
        raise KeyError("mistake")

    async def main():
        server = Server()
        with pytest.raises(KeyError):
            await server.call(app_of(view))
        return server.sent

    assert run(main())[-1] == close(1011)


def test_an_application_that_fails_before_accepting_leaves_the_answer_to_the_server(
    run,
):
    async def view(request):
        raise KeyError("mistake")

    async def main():
        server = Server()
        with pytest.raises(KeyError):
            await server.call(app_of(view))
        return server.sent

    assert run(main()) == []


@pytest.mark.parametrize("accepts", [True, False])
def test_another_websocket_that_is_closed_is_a_mistake_like_any_other(run, accepts):
    async def view(request):
        if accepts:
            await request.websocket.send("hello")
        raise ConnectionClosed(1006)

    async def main():
        server = Server()
        with pytest.raises(ConnectionClosed):
            await server.call(app_of(view))
        return server.sent

    sent = run(main())
    assert sent[-1:] == ([close(1011)] if accepts else [])


def test_a_view_that_goes_on_after_its_client_left_is_not_logged(run, caplog):
    async def view(request):
        ws = request.websocket
        while await ws.recv() is not None:
            pass
        await ws.send("late")

    async def main():
        server = Server()
        serving = server.call(app_of(view))
        await server.until("accept")
        server.leave()
        await serving
        return server.sent

    assert run(main()) == [ACCEPT]
    assert not caplog.records


@pytest.mark.parametrize("how", ["handler", "view"])
@pytest.mark.parametrize("error", [OSError(), RuntimeError("gone")])
def test_a_client_that_left_before_it_was_accepted_is_no_error(run, caplog, error, how):
    async def view(request):
        await request.websocket.send("hello")

    def fail(message):
        raise error

    async def main():
        server = Server()
        server.on_send = fail
        await server.call(socket_app(echo) if how == "handler" else app_of(view))
        return server.sent

    assert run(main()) == []
    assert not caplog.records


def test_what_was_used_in_vain_can_be_used_once_more(run):
    async def view(request):
        for use in (request.websocket.recv, request.websocket.close):
            try:
                await use()
            except ConnectionClosed as error:
                told.append(error.code)
        return Response()

    def fail(message):
        raise OSError

    told = []

    async def main():
        server = Server()
        server.on_send = fail
        await server.call(app_of(view))

    run(main())
    assert told == [1006, 1006]


# Refusing


async def forbid(request):
    response = HTTPForbidden("members only")
    response.headers["X-Why"] = "because"
    raise response


def test_a_refusal_is_a_response_with_its_body_and_headers(run):
    async def main():
        server = Server()
        await server.call(app_of(forbid))
        return server.sent

    start, body = run(main())
    headers = dict(start["headers"])
    assert start["type"] == "websocket.http.response.start"
    assert start["status"] == 403
    assert headers[b"x-why"] == b"because"
    assert b"members only" in body["body"]
    assert headers[b"content-length"] == b"%d" % len(body["body"])
    assert body == {"type": "websocket.http.response.body", "body": body["body"]}


@pytest.mark.parametrize("extensions", [(), ("something.else",)])
def test_a_server_that_cannot_is_told_to_close(run, extensions):
    async def main():
        server = Server(extensions=extensions)
        await server.call(app_of(forbid))
        return server.sent

    assert run(main()) == [{"type": "websocket.close"}]


def test_a_scope_without_extensions_is_of_a_server_that_has_none(run):
    async def main():
        sent = []
        for extensions in (None, "missing"):
            server = Server()
            server.scope["extensions"] = extensions
            if extensions == "missing":
                del server.scope["extensions"]
            await server.call(app_of(forbid))
            sent += server.sent
        return sent

    assert run(main()) == [{"type": "websocket.close"}] * 2


@pytest.mark.parametrize("error", [OSError(), RuntimeError("gone")])
@pytest.mark.parametrize("extensions", [(), (DENIAL,)])
def test_a_client_that_left_need_not_be_refused(run, error, extensions):
    async def main():
        server = Server(extensions=extensions)

        def fail(message):
            raise error

        server.on_send = fail
        await server.call(app_of(forbid))

    run(main())


@pytest.mark.parametrize("status", [200, 204, 304, 404])
def test_any_response_that_is_no_websocket_refuses(run, status):
    async def main():
        server = Server()
        await server.call(app_of(lambda request: Response(status=status)))
        return server.sent

    start, body = run(main())
    assert start["status"] == status
    assert body["body"] == b""


def test_the_body_of_a_refusal_is_collected_and_closed(run):
    class Body:
        def __iter__(self):
            yield b"one "
            wait(asyncio.sleep(0))
            yield b"two"

        def close(self):
            closed.append(True)

    closed = []

    def app(environ, start_response):
        start_response("401 Unauthorized", [])
        return Body()

    async def main():
        server = Server()
        await server.call(Gateway(app))
        return server.sent

    start, body = run(main())
    assert (start["status"], body["body"]) == (401, b"one two")
    assert closed == [True]


def test_the_body_of_a_refusal_may_ask_for_its_request(run):
    def view(request):
        def body():
            yield str(get_current_request() is request).encode()

        return Response(app_iter=body(), status=403)

    async def main():
        server = Server()
        await server.call(app_of(view))
        return server.sent[1]["body"]

    assert run(main()) == b"True"


def test_plain_wsgi_code_may_raise_its_refusal(run):
    def app(environ, start_response):
        raise HTTPForbidden("members only")

    async def main():
        server = Server()
        await server.call(Gateway(app))
        return server.sent

    start, body = run(main())
    assert start["status"] == 403
    assert b"members only" in body["body"]


def test_write_is_refused_with_what_to_write_instead(run):
    def app(environ, start_response):
        start_response("101 Switching Protocols", [])(b"data")

    async def main():
        with pytest.raises(RuntimeError, match="get_websocket"):
            await Server().call(Gateway(app))

    run(main())


# Accepting


def test_headers_go_into_the_handshake_but_for_what_is_not_the_applications(run):
    def app(environ, start_response):
        ws = get_websocket(environ, lambda status, _: start_response(status, headers))
        ws.send("hello")
        return []

    headers = [
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("X-Name", "value"),
        ("Content-Type", "text/html"),
        ("Content-Length", "0"),
        ("Connection", "close"),
        ("Upgrade", "h2c"),
        ("Transfer-Encoding", "chunked"),
        ("Sec-WebSocket-Accept", "wrong"),
        ("Sec-WebSocket-Extensions", "wrong"),
        ("Sec-WebSocket-Protocol", "wrong"),
    ]

    async def main():
        server = Server()
        await server.call(Gateway(app))
        return server.sent[0]

    assert run(main()) == {
        "type": "websocket.accept",
        "headers": [
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
            (b"x-name", b"value"),
        ],
    }


def test_a_header_that_cannot_be_sent_is_refused(run):
    def app(environ, start_response):
        start_response("101 Switching Protocols", [("X-Name", "a\r\nX-Evil: b")])

    async def main():
        with pytest.raises(RuntimeError, match="control character"):
            await Server().call(Gateway(app))

    run(main())


def test_a_middleware_may_wrap_what_serves(run):
    inner = socket_app(echo).app

    def middleware(environ, start_response):
        def start(status, headers, *args):
            return start_response(status, [*headers, ("X-Around", "it")], *args)

        yield from inner(environ, start)

    async def main():
        server = Server("hello")
        serving = server.call(Gateway(middleware))
        await server.until("send")
        server.leave()
        await serving
        return server.sent

    accept, sent = run(main())
    assert accept["headers"] == [(b"x-around", b"it")]
    assert sent["text"] == "hello"


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [("ws", "http"), ("wss", "https"), ("https", "https"), ("x", "http")],
)
def test_the_request_is_a_get_of_the_page_that_it_would_be(run, scheme, expected):
    def app(environ, start_response):
        seen.append(
            (
                environ["REQUEST_METHOD"],
                environ["wsgi.url_scheme"],
                environ["PATH_INFO"],
                environ["wsgi.input"].read(),
                environ["asgi.scope"]["type"],
            )
        )
        start_response("404 Not Found", [])
        return []

    seen = []

    async def main():
        server = Server()
        server.scope.update(scheme=scheme, path="/chat")
        await server.call(Gateway(app))

    run(main())
    assert seen == [("GET", expected, "/chat", b"", "websocket")]


def test_a_response_after_the_socket_was_used_serves_the_same_one(run):
    async def view(request):
        await request.websocket.send("view")
        return WebSocketResponse(handler)

    async def handler(ws):
        await ws.send("handler")

    async def main():
        server = Server()
        await server.call(app_of(view))
        return server.sent

    accept, *sent = run(main())
    assert accept == ACCEPT
    assert [each.get("text") for each in sent] == ["view", "handler", None]


# Ending


def test_a_handler_that_does_not_end_is_cancelled_once(run, short_grace, caplog):
    async def handler(ws):
        await ws.recv()
        for _ in range(2):
            try:
                await asyncio.sleep(0.2)
            except asyncio.CancelledError:
                cancelled.append(asyncio.current_task().cancelling())

    cancelled = []

    async def main():
        server = Server()
        serving = server.call(socket_app(handler))
        await server.until("accept")
        server.leave()
        await serving
        return server.sent

    assert run(main()) == [ACCEPT]
    assert cancelled == [1]
    assert not caplog.records


@pytest.mark.parametrize("kind", ["coroutine", "function", "view"])
def test_the_server_does_not_see_that_a_handler_was_cancelled(run, short_grace, kind):
    async def coroutine(ws):
        await asyncio.Event().wait()

    def function(ws):
        wait(asyncio.Event().wait())

    async def view(request):
        await request.websocket.send("hello")
        await asyncio.Event().wait()

    app = {
        "coroutine": lambda: socket_app(coroutine),
        "function": lambda: socket_app(function),
        "view": lambda: app_of(view),
    }[kind]()

    async def main():
        server = Server()
        serving = server.call(app)
        await server.until("accept")
        server.leave()
        await serving
        assert not serving.cancelling()

    run(main())


def test_a_handler_that_closes_and_goes_on_is_cancelled_as_well(run, short_grace):
    async def handler(ws):
        await ws.close(4000)
        await asyncio.Event().wait()

    async def main():
        server = Server()
        await server.call(socket_app(handler))
        return server.sent

    assert run(main()) == [ACCEPT, close(4000)]


def test_a_task_that_serves_on_is_not_cancelled_for_a_handler_that_ended(
    run, monkeypatch
):
    monkeypatch.setattr(module, "GRACE", 0.02)

    async def handler(ws):
        assert await ws.recv() is None

    app = socket_app(handler)

    async def main():
        server = Server()
        asyncio.get_running_loop().call_later(0.01, server.leave)
        await app(server.scope, server.receive, server.send)
        # Some servers serve the next request in the same Task.
        await asyncio.sleep(0.05)

    run(main())


def test_a_server_that_is_slow_to_close_does_not_see_a_cancellation(run, short_grace):
    async def view(request):
        await request.websocket.send("hello")
        return request.websocket

    for app in (app_of(view), socket_app(echo)):

        async def main(app=app):
            server = Server("hello")

            def slowly(message):
                if message["type"] == "websocket.close":
                    return asyncio.sleep(0.1)
                return None

            server.on_send = slowly
            serving = server.call(app)
            await server.until("send")
            server.give(OSError())
            await serving
            assert not serving.cancelling()

        run(main())


def test_a_server_may_cancel_what_it_has_called(run):
    async def handler(ws):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(ws.closed)

    ended = []

    async def main():
        server = Server()
        serving = server.call(socket_app(handler))
        await server.until("accept")
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        return server.sent

    assert run(main()) == [ACCEPT, close(1011)]
    assert ended == [False]


def test_nothing_of_a_request_is_left_behind(run):
    class Thing: ...

    async def handler(request, ws):
        request.thing = thing = Thing()
        alive.append(weakref.ref(thing))
        await ws.recv()

    alive = []
    app = socket_app(handler)

    async def main():
        for _ in range(3):
            server = Server()
            serving = server.call(app)
            await server.until("accept")
            server.leave()
            await serving
            del serving, server
        await settle()
        assert len(asyncio.all_tasks()) == 1
        gc.collect()
        return [each() for each in alive]

    assert run(main()) == [None] * 3


# Threads


def threaded(ws):
    assert type(ws) is SyncWebSocket
    for message in ws:
        ws.send(message)


def dropping(handler, registry):
    # A tween that has something else to say.
    def tween(request):
        handler(request)
        return Response("dropped", status=503)

    return tween


def failing(handler, registry):
    def tween(request):
        handler(request)
        raise KeyError("mistake")

    return tween


async def serve_one(app, server):
    """Serve a client that leaves as soon as it was accepted, if it is."""
    serving = server.call(app)
    await settle()
    server.leave()
    try:
        await serving
    except (KeyError, asyncio.CancelledError):
        pass


@pytest.mark.parametrize("end", ["leaves", "gone", "dropped", "fails", "cancelled"])
def test_a_thread_that_was_reserved_is_free_again(run, end):
    def configure(config):
        config.add_view(threaded, mapper=WebsocketMapper, executor=True)
        if end in ("dropped", "fails"):
            tween = "dropping" if end == "dropped" else "failing"
            config.add_tween(f"{__name__}.{tween}")

    app = make_app(configure, settings={"aioext.websocket.threads": 1})

    def fail(message):
        raise OSError

    async def main():
        # More often than there are threads.
        for _ in range(3):
            server = Server()
            if end == "gone":
                server.on_send = fail
            if end == "cancelled":
                serving = server.call(app)
                await server.until("accept")
                serving.cancel()
                await asyncio.wait([serving])
            else:
                await serve_one(app, server)
            statuses.append(server.sent[0].get("status") if server.sent else None)

    statuses = []
    run(main())
    expected = 503 if end == "dropped" else None
    assert statuses == [expected] * 3


def test_no_thread_left_is_503(run):
    app = socket_app(threaded, executor=True, settings={"aioext.websocket.threads": 1})

    async def main():
        first = Server("hello")
        serving = first.call(app)
        await first.until("send")
        second = Server()
        await second.call(app)
        first.leave()
        await serving
        third = Server()
        await serve_one(app, third)
        return second.sent, third.sent

    refused, accepted = run(main())
    assert refused[0]["status"] == 503
    assert b"All threads for WebSockets are taken" in refused[1]["body"]
    assert accepted[0] == ACCEPT


# What is logged at the start


def test_limits_that_such_a_server_does_not_apply_are_logged(run, caplog):
    def configure(config):
        def handler(ws): ...

        config.add_view(handler, mapper=WebsocketMapper, ping_timeout=5, max_size=5)
        config.add_view(
            handler, "off", mapper=WebsocketMapper, compression="off", ping_interval=5
        )

    settings = {"aioext.websocket.ping_interval": 5, "aioext.websocket.queue": 5}
    app = make_app(configure, settings=settings)

    async def main():
        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

        async def receive():
            return messages.pop(0)

        async def send(message): ...

        await app({"type": "lifespan"}, receive, send)

    run(main())
    (record,) = [each for each in caplog.records if each.name == "aioext"]
    message = record.getMessage()
    assert "have no effect: aioext.websocket.ping_interval; " in message
    assert "ping_timeout of function" in message
    assert "ping_interval, compression of function" in message
    assert "queue" not in message
    assert "max_size" not in message


def test_nothing_is_logged_of_an_application_that_sets_none(caplog):
    warn_of_limits([])
    app = socket_app(echo, max_size=5)
    warn_of_limits(lifespans_of(app.app))
    assert not caplog.records

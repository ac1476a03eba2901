"""ASGI applications that are mounted: handed a request, or talked to."""

import asyncio
import contextlib
import contextvars
import functools
import inspect
import io
import sys
import threading
from wsgiref.validate import validator

import pytest
from asgi import Client, make_scope
from inprocess import make_app
from pyramid.response import Response
from pyramid.threadlocal import get_current_registry, get_current_request
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from webtest import TestApp

from aioext import guards, spawn_greenlet
from aioext.asgi import Gateway
from aioext.exceptions import GatewayError
from aioext.mounts import conversation

HEAD = {"type": "http.response.start", "status": 200, "headers": []}


def part(body, more=False):
    return {"type": "http.response.body", "body": body, "more_body": more}


def mount(app, *steps, path="/s", **options):
    """The gateway of an application in which ``app`` is mounted."""

    async def without_lifespan(scope, receive, send):
        assert scope["type"] != "lifespan"
        await app(scope, receive, send)

    mounted = without_lifespan if inspect.iscoroutinefunction(app) else app
    return make_app(lambda config: config.add_mount(path, mounted), *steps, **options)


async def read(receive):
    """The body of a request."""
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            return body


def around(app):
    """WSGI middleware that does nothing, but has its own start_response."""

    def middleware(environ, start_response):
        return app(environ, lambda *args: start_response(*args))

    return middleware


def wrapping(app):
    """WSGI middleware that does nothing, but has its own body."""

    def middleware(environ, start_response):
        body = app(environ, start_response)
        try:
            yield from body
        finally:
            if hasattr(body, "close"):
                body.close()

    return middleware


def passed(gateway):
    return gateway


def beneath(middleware):
    return lambda gateway: Gateway(middleware(gateway.app))


# How a request gets to an application: as the server gave it, or through WSGI.
WAYS = pytest.mark.parametrize(
    "way", [passed, beneath(around), beneath(wrapping)], ids=["passed", "start", "body"]
)


@WAYS
def test_a_request_and_its_answer(run, way):
    seen = {}

    async def app(scope, receive, send):
        seen.update(scope)
        seen["body"] = await read(receive)
        headers = [(b"x-one", b"1"), (b"x-one", b"2")]
        await send({**HEAD, "status": 201, "headers": headers})
        await send(part(b"bo", more=True))
        await send(part(b"", more=True))
        await send(part(b"dy"))

    headers = [(b"host", b"a.org"), (b"x-two", b"\xe9"), (b"content-length", b"6")]
    options = {"method": "PUT", "query_string": b"q=%20", "headers": headers}
    gateway = way(mount(app))
    client = Client("/s/\xe9", body=[b"abc", b"def"], **options)
    run(client.call(gateway))
    assert (client.status, client.body) == (201, b"body")
    assert client.headers == [(b"x-one", b"1"), (b"x-one", b"2")]
    assert seen.pop("body") == b"abcdef"
    assert {**seen, "headers": sorted(seen["headers"])} | {"type": "http"} == seen | {
        "path": "/s/\xe9",
        "root_path": "/s",
        "method": "PUT",
        "query_string": b"q=%20",
        "headers": sorted(headers),
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8000),
    }


def test_the_server_s_extensions_are_passed(run):
    seen = []

    async def app(scope, receive, send):
        seen.append((scope["extensions"], scope.get("state")))
        await send({**HEAD, "trailers": True})
        await send(part(b"passed"))

    extensions = {"http.response.trailers": {}}
    client = Client("/s", extensions=extensions, state={"of": "the server"})
    run(client.call(mount(app)))
    assert seen == [(extensions, None)]
    assert client.sent[0]["trailers"] is True


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_what_middleware_changes_is_changed_for_what_is_mounted(run, kind):
    seen = {}

    async def app(scope, receive, send):
        seen.update(scope)
        await receive()
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        await send(HEAD)
        await send(part(b""))

    def trusts(app):
        def middleware(environ, start_response):
            assert environ.pop("HTTP_X_USER") == "admin"
            environ["HTTP_HOST"] = "www.example.com"
            environ["wsgi.url_scheme"] = "https"
            environ["REMOTE_ADDR"] = "192.0.2.1"
            environ["QUERY_STRING"] = "a=%20"
            return app(environ, start_response)

        return middleware

    async def ask(gateway):
        fields = [(b"x-user", b"admin"), (b"x-two", b"2")]
        if kind == "websocket":
            await Socket("/s", gateway, fields).task
        else:
            await Client("/s", headers=[(b"host", b"localhost"), *fields]).call(gateway)

    run(ask(beneath(trusts)(mount(app))))
    assert seen["type"] == kind
    headers = dict(seen["headers"])
    assert b"x-user" not in headers
    assert (headers[b"host"], headers[b"x-two"]) == (b"www.example.com", b"2")
    assert seen["scheme"] == {"http": "https", "websocket": "wss"}[kind]
    assert seen["client"] == ("192.0.2.1", 50_000)
    assert seen["query_string"] == b"a=%20"
    assert seen["server"] == ("127.0.0.1", 8000)


def test_another_body_in_the_place_of_the_request_s_is_read(run):
    received = []

    async def app(scope, receive, send):
        received.append(await read(receive))
        await send(HEAD)
        await send(part(b""))

    def unpacks(app):
        def middleware(environ, start_response):
            environ["wsgi.input"] = io.BytesIO(b"unpacked")
            environ["CONTENT_LENGTH"] = "8"
            return app(environ, start_response)

        return middleware

    client = Client("/s", method="POST", body=[b"packed"])
    run(client.call(beneath(unpacks)(mount(app))))
    assert received == [b"unpacked"]


@WAYS
def test_nothing_of_the_application_around_is_there(run, way):
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    async def app(scope, receive, send):
        seen.append((get_current_request(), variable.get()))
        registry = get_current_registry()
        seen.append(registry.settings is None)
        variable.set("set")
        await send(HEAD)
        await send(part(b""))

    async def twice():
        gateway = way(mount(app))
        for _ in range(2):
            await Client("/s").start(gateway)

    run(twice())
    assert seen == [(None, "unset"), True] * 2


@WAYS
def test_parts_are_sent_as_they_are_made_and_a_slow_client_is_waited_for(run, way):
    made = []

    async def app(scope, receive, send):
        await send(HEAD)
        for number in range(9):
            made.append(number)
            await send(part(b"%d" % number, more=True))
        await send(part(b""))

    async def slow():
        client = Client("/s")
        client.reads.clear()
        task = client.start(way(mount(app)))
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(made) <= 1
        client.reads.set()
        await task
        assert client.parts == [b"%d" % number for number in range(9)]

    run(slow())


@WAYS
def test_an_application_is_told_when_its_client_leaves(run, way):
    told = []

    async def app(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        await send(HEAD)
        await send(part(b"first", more=True))
        told.append((await receive())["type"])
        await send(part(b"nobody gets this", more=True))
        told.append((await receive())["type"])

    async def leave():
        client = Client("/s")
        gateway = way(mount(app))
        task = client.start(gateway)
        await client.until_body(b"first")
        client.leave()
        client._incoming.put_nowait({"type": "http.disconnect"})
        await task
        while len(told) < 2:  # noqa: ASYNC110 - it may go on a little
            await asyncio.sleep(0)

    run(leave())
    assert told == ["http.disconnect"] * 2


@pytest.mark.parametrize("middleware", [around, wrapping])
def test_one_that_does_not_listen_is_cancelled(run, monkeypatch, middleware):
    monkeypatch.setattr(conversation, "GRACE", 0.01)
    ended = []

    async def leave():
        cancelled = asyncio.Event()

        async def app(scope, receive, send):
            await send(HEAD)
            await send(part(b"first", more=True))
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ended.append("cancelled")
                cancelled.set()
                raise

        client = Client("/s")
        task = client.start(Gateway(middleware(mount(app).app)))
        await client.until_body(b"first")
        client.leave()
        await task
        await cancelled.wait()

    run(leave())
    assert ended == ["cancelled"]


@WAYS
def test_a_request_that_is_cancelled_cancels_nobody_else(run, way):
    async def cancel():
        entered = asyncio.Event()
        told = asyncio.Event()

        async def app(scope, receive, send):
            entered.set()
            try:
                while (await receive())["type"] != "http.disconnect":
                    pass
            finally:
                told.set()

        task = Client("/s").start(way(mount(app)))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await told.wait()

    run(cancel())


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_body_that_nothing_announces_does_not_get_past_the_limit(run, method):
    received = []

    async def app(scope, receive, send):
        received.append(await read(receive))
        # What is dropped does not hide the client's end.
        received.append((await receive())["type"])
        await send(HEAD)
        await send(part(b""))

    client = Client("/s", method=method, body=[b"x" * 100] * 5, http_version="2")
    # HTTP/2 has no such field.
    client.scope["headers"].pop()
    client.leave()
    run(client.call(mount(app, settings={"aioext.max_body": "4"})))
    assert received == [b"", "http.disconnect"]


@WAYS
def test_an_error_is_the_server_s(run, way):
    async def app(scope, receive, send):
        await receive()
        if scope["path"] == "/s/late":
            await send(HEAD)
            await send(part(b"first", more=True))
        raise LookupError("failed")

    gateway = way(mount(app))
    for path, started in [("/s", False), ("/s/late", True)]:
        client = Client(path)
        with pytest.raises(LookupError, match="failed"):
            run(client.call(gateway))
        assert client.started is started
        assert not client.ended


@pytest.mark.parametrize("body", [None, [b"some ", b"text"]])
def test_a_request_that_opens_the_application_loses_nothing(run, monkeypatch, body):
    # Whoever looks for its client receives what comes.
    monkeypatch.setattr(guards, "LOOK_AFTER", 0)

    @contextlib.asynccontextmanager
    async def slow(registry):
        await asyncio.sleep(0.05)
        yield

    async def app(scope, receive, send):
        received = await read(receive)
        await send(HEAD)
        await send(part(received))

    gateway = mount(app, lambda config: config.add_lifespan(slow))
    client = Client("/s", method="GET", body=body)
    run(client.call(gateway))
    assert client.body == b"".join(body or [])


def test_what_cannot_be_sent_is_refused_whatever_the_server_does():
    async def app(scope, receive, send):
        headers = [(b"x", b"a\r\nset-cookie: b")]
        await send({**HEAD, "headers": headers})
        await send(part(b""))

    with pytest.raises(GatewayError, match="set-cookie"):
        call(mount(app).app)


@WAYS
def test_guards_of_the_application_around_do_not_interfere(run, way):
    settings = {"aioext.request_timeout": "0.01"}

    async def app(scope, receive, send):
        await asyncio.sleep(0.05)
        await receive()
        await send(HEAD)
        await send(part(b"patient"))

    if way is passed:
        client = run(Client("/s").call(way(mount(app, settings=settings))))
        assert client.body == b"patient"


@pytest.mark.parametrize("way", [around, wrapping])
def test_an_answer_that_is_none(run, way):
    async def silent(scope, receive, send):
        await receive()

    async def half(scope, receive, send):
        await send(HEAD)

    async def mute(scope, receive, send):
        await send(part(b"body"))

    async def cancels(scope, receive, send):
        raise asyncio.CancelledError

    async def malformed(scope, receive, send):
        await send({**HEAD, "headers": [(b"x", b"a\r\nset-cookie: b")]})
        await send(part(b""))

    for app, error in [
        (silent, GatewayError),
        (half, GatewayError),
        (mute, RuntimeError),
        (cancels, GatewayError),
        (malformed, GatewayError),
    ]:
        client = Client("/s")
        with pytest.raises(error):
            run(client.call(Gateway(way(mount(app).app))))
        assert not client.ended


# WebSockets


class Socket:
    """A WebSocket from the side of the server."""

    def __init__(self, path, app, fields=(), **others):
        self.incoming = asyncio.Queue()
        self.sent = asyncio.Queue()
        headers = [
            (b"host", b"localhost"),
            (b"upgrade", b"websocket"),
            (b"connection", b"upgrade"),
            *fields,
        ]
        scope = make_scope(path, headers=headers, scheme="ws", **others)
        scope |= {"type": "websocket", "subprotocols": ["a", "b"]}
        del scope["method"]
        self.incoming.put_nowait({"type": "websocket.connect"})
        self.task = asyncio.create_task(app(scope, self.incoming.get, self.sent.put))


async def echo(ws):
    await ws.accept(subprotocol=ws.scope["subprotocols"][1])
    async for text in ws.iter_text():
        await ws.send_text(f"{ws.url.path} {text}")


def test_a_websocket_is_passed(run):
    starlette = Starlette(routes=[WebSocketRoute("/echo", echo)])

    async def talk():
        socket = Socket("/s/echo", mount(starlette))
        accepted = await socket.sent.get()
        assert accepted["type"] == "websocket.accept"
        assert accepted["subprotocol"] == "b"
        for text in ("one", "two"):
            socket.incoming.put_nowait({"type": "websocket.receive", "text": text})
            message = await socket.sent.get()
            assert message["text"] == f"/s/echo {text}"
        socket.incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await socket.task

    run(talk())


def test_a_websocket_that_is_refused(run):
    starlette = Starlette(routes=[WebSocketRoute("/echo", echo)])

    async def ask(path):
        socket = Socket(path, mount(starlette))
        await socket.task
        return await socket.sent.get()

    for path in ("/s/nothing", "/nothing", "//s/echo"):
        assert run(ask(path))["type"] == "websocket.close"


@pytest.mark.parametrize("middleware", [around, wrapping])
def test_a_websocket_cannot_be_passed_through_middleware(run, middleware):
    async def app(scope, receive, send):
        raise AssertionError("not to be called")

    async def ask():
        gateway = Gateway(middleware(mount(app).app))
        socket = Socket("/s", gateway, extensions={"websocket.http.response": {}})
        await socket.task
        return [socket.sent.get_nowait() for _ in range(socket.sent.qsize())]

    start, body = run(ask())
    assert start["status"] in (400, 501)
    assert b"WebSocket" in body["body"] or start["status"] == 400


# Servers that have no ASGI


def starlette():
    done = threading.Event()

    async def upload(request: Request):
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        return JSONResponse({"size": size, "loop": threading.current_thread().name})

    async def stream(request):
        async def parts():
            for number in range(5):
                yield f"{number}"

        task = BackgroundTask(done.set)
        return StreamingResponse(parts(), media_type="text/plain", background=task)

    async def url(request):
        return JSONResponse([str(request.url), str(request.url_for("url"))])

    app = Starlette(
        routes=[
            Route("/upload", upload, methods=["POST"]),
            Route("/stream", stream),
            Route("/url", url),
            WebSocketRoute("/echo", echo),
        ]
    )
    app.done = done
    return app


def test_an_asgi_application_under_webtest():
    inner = starlette()
    app = TestApp(mount(inner).app)
    data = b"x" * 200_000
    assert app.post("/s/upload", data).json == {"size": 200_000, "loop": "aioext-loop"}
    assert app.get("/s/stream").text == "01234"
    assert inner.done.wait(10)
    assert app.get("/s/url?a=b").json == [
        "http://localhost:80/s/url?a=b",
        "http://localhost:80/s/url",
    ]
    assert app.head("/s/stream").body == b""
    assert app.get("/s/none", status=404).text == "Not Found"
    assert app.get("/s", status=404).text == "Not Found"


def test_a_websocket_is_refused_with_a_reason():
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    app = TestApp(mount(starlette()).app)
    answer = app.get("/s/echo", headers=headers, status=501)
    assert "aioext" in answer.text
    assert "uvicorn" in answer.text


def call(app, path="/s", body=b"", **environ):
    """Call a WSGI application as a server in a thread does; gives status and body."""
    answer = {}

    def start_response(status, headers, exc_info=None):
        answer.update(status=status, thread=threading.current_thread())

    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": Input(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **environ,
    }
    result = app(environ, start_response)
    try:
        return answer["status"], b"".join(result), environ["wsgi.input"].sizes
    finally:
        if hasattr(result, "close"):
            result.close()


class Input:
    """A body that is read in its own thread, and not beyond its end."""

    def __init__(self, data):
        self.file = io.BytesIO(data)
        self.thread = threading.current_thread()
        self.sizes = []

    def read(self, size):
        assert threading.current_thread() is self.thread
        self.sizes.append(size)
        return self.file.read(size)


async def echo_body(scope, receive, send):
    messages = []
    while True:
        messages.append(await receive())
        if not messages[-1].get("more_body"):
            break
    body = b"".join(each.get("body", b"") for each in messages)
    await send(HEAD)
    await send(part(messages[-1]["type"].encode() + b" " + body))


@pytest.mark.parametrize(
    ("data", "environ", "expected", "sizes"),
    [
        (b"abcdef", {"CONTENT_LENGTH": "3"}, b"http.request abc", [3]),
        (b"abc", {}, b"http.request ", []),
        (b"abc", {"CONTENT_LENGTH": ""}, b"http.request ", []),
        (b"abc", {"CONTENT_LENGTH": "-1"}, b"http.request ", []),
        (b"abc", {"CONTENT_LENGTH": "0"}, b"http.request ", []),
        (b"abc", {"wsgi.input_terminated": True}, b"http.request abc", [65_536] * 2),
        (b"ab", {"CONTENT_LENGTH": "3"}, b"http.disconnect ab", [3, 1]),
    ],
)
def test_a_body_is_read_where_the_request_is_and_as_far_as_it_goes(
    data, environ, expected, sizes
):
    app = mount(echo_body).app
    assert call(app, body=data, **environ) == ("200 OK", expected, sizes)


def test_a_body_that_nobody_wants_is_not_read():
    async def ignores(scope, receive, send):
        await send(HEAD)
        await send(part(b"ignored"))

    app = mount(ignores).app
    assert call(app, body=b"abc", CONTENT_LENGTH="3") == ("200 OK", b"ignored", [])


def test_the_validator_has_no_objection():
    app = validator(mount(starlette()).app)
    environ = {"wsgi.errors": io.StringIO(), "REMOTE_ADDR": "127.0.0.1"}

    def start_response(status, headers, exc_info=None):
        assert status == "200 OK"
        return lambda data: None

    base = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/s/stream",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    body = app({**base, **environ}, start_response)
    assert b"".join(body) == b"01234"
    body.close()


def test_fields_of_the_connection_are_not_the_application_s():
    async def app(scope, receive, send):
        names = (b"connection", b"Transfer-Encoding", b"x-one")
        await send({**HEAD, "headers": [(name, b"chunked") for name in names]})
        await send(part(b""))

    # Some servers refuse them, and others would send them twice.
    response = TestApp(mount(app).app, lint=False).get("/s")
    assert list(response.headers) == ["x-one"]


def test_a_server_that_closes_early_tells_the_application():
    told = []
    ended = threading.Event()

    async def app(scope, receive, send):
        await receive()
        await send(HEAD)
        await send(part(b"first", more=True))
        told.append((await receive())["type"])
        ended.set()

    body = mount(app).app(
        make_environ("/s"), lambda status, headers, exc_info=None: None
    )
    assert next(iter(body)) == b"first"
    body.close()
    body.close()
    assert ended.wait(10)
    assert told == ["http.disconnect"]


def make_environ(path):
    return {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
    }


def test_what_fails_after_the_answer_is_logged(caplog):
    async def app(scope, receive, send):
        await send(HEAD)
        await send(part(b"answer"))
        failing.set()
        raise LookupError("too late")

    failing = threading.Event()
    assert call(mount(app).app)[:2] == ("200 OK", b"answer")
    assert failing.wait(10)
    poll = threading.Event()
    for _ in range(1000):
        if "failed after its response" in caplog.text:
            break
        poll.wait(0.01)
    assert "too late" in caplog.text


def test_requests_of_threads_overlap():
    barrier = asyncio.Barrier(2)

    async def app(scope, receive, send):
        await barrier.wait()
        await send(HEAD)
        await send(part(scope["path"].encode()))

    wsgi = mount(app).app
    found = {}

    def ask(path):
        found[path] = call(wsgi, path)[1]

    threads = [threading.Thread(target=ask, args=(f"/s/{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == {"/s/0": b"/s/0", "/s/1": b"/s/1"}


# Servers whose requests are greenlets, and whose interface is theirs alone


def test_everything_of_a_server_is_used_where_the_request_is(run):
    async def serve(app, path, **environ):
        started = []

        def start_response(status, headers, exc_info=None):
            assert threading.current_thread() is threading.main_thread()
            started.append((status, exc_info))

        def request():
            body = app({**make_environ(path), **environ}, start_response)
            assert started, "before the body"
            parts = list(body)
            body.close()
            return parts

        parts = await spawn_greenlet(request)
        return started, parts

    def writes(environ, start_response):
        assert threading.current_thread() is not threading.main_thread()
        write = start_response("200 OK", [])
        write(b"written")
        with pytest.raises(GatewayError):
            start_response("200 OK", [])
        yield environ["wsgi.file_wrapper"](io.BytesIO(b"file")).__next__()
        write(b"late")

    def replaces(environ, start_response):
        start_response("200 OK", [])
        try:
            raise LookupError
        except LookupError:
            start_response("500 Oops", [], sys.exc_info())
        return [b"replaced"]

    def fails_late(environ, start_response):
        start_response("200 OK", [])
        yield b"first"
        try:
            raise LookupError("late")
        except LookupError:
            start_response("500 Oops", [], sys.exc_info())

    def eager(app):
        # PEP 3333 lets a generator start its response with its first part.
        def called(environ, start_response):
            body = app(environ, start_response)
            first = next(body)
            return iter([first, *body])

        return called

    def steps(config):
        for app in (writes, replaces, fails_late):
            wrapped = eager(app) if app is writes else app
            config.add_mount(f"/{app.__name__}", wrapped)

    wsgi = mount(echo_body, steps).app
    started, parts = run(serve(wsgi, "/writes"))
    assert (len(started), parts) == (1, [b"written", b"late", b"file"])
    started, parts = run(serve(wsgi, "/replaces"))
    assert (started, parts) == ([("500 Oops", None)], [b"replaced"])
    with pytest.raises((LookupError, AssertionError)):
        run(serve(wsgi, "/fails_late"))
    started, parts = run(serve(wsgi, "/s"))
    assert parts == [b"http.request "]


def test_a_response_may_begin_with_the_first_part(run):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"first"

    async def serve():
        started = []

        def request():
            body = mount(app, path="/g").app(
                make_environ("/g"), lambda *args: started.append(args[0])
            )
            assert not started
            assert next(body) == b"first"
            assert started == ["200 OK"]
            assert list(body) == []
            body.close()

        await spawn_greenlet(request)

    run(serve())


def test_the_view_of_the_application_around_is_not_called(run):
    def view(request):
        raise AssertionError("not to be called")

    step = functools.partial(lambda config: config.add_view(view))
    client = run(Client("/s").call(mount(echo_body, step)))
    assert client.body == b"http.request "
    assert isinstance(Response(), Response)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/s", "503 Service Unavailable"), ("/s/late", "ClientDisconnected")],
)
def test_a_request_that_waits_when_the_process_ends(script, path, expected):
    told = script(
        f"""
        import asyncio, threading
        from pyramid.config import Configurator
        from aioext.background import background_loop

        entered = threading.Event()

        async def app(scope, receive, send):
            assert scope["type"] == "http"
            if scope["path"] == "/s/late":
                start = {{"type": "http.response.start", "status": 200}}
                await send(start)
                await send({{"type": "http.response.body", "more_body": True}})
            entered.set()
            await asyncio.Event().wait()

        with Configurator() as config:
            config.include("aioext")
            config.add_mount("/s", app)
        wsgi = config.make_wsgi_app()
        environ = {{
            "REQUEST_METHOD": "GET",
            "PATH_INFO": {path!r},
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "wsgi.input": None,
        }}
        statuses = []

        def serve():
            def start_response(status, headers):
                statuses.append(status)

            try:
                list(wsgi(environ, start_response))
            except Exception as error:
                statuses.append(type(error).__name__)

        thread = threading.Thread(target=serve)
        thread.start()
        entered.wait()
        background_loop().stop()
        thread.join()
        print(statuses[-1])
        """
    )
    assert told == f"{expected}\n"

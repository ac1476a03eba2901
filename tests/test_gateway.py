"""WSGI applications served by the Gateway, in process."""

import asyncio
import contextlib
import contextvars
import gc
import io
import json
import logging
import sys
import threading
from wsgiref.validate import validator

import pytest
from asgi import Client, make_scope
from pyramid.config import Configurator
from pyramid.response import FileResponse, Response
from pyramid.threadlocal import get_current_request

from aioext import use_executor, wait
from aioext.asgi import Gateway
from aioext.config import InlineMapper
from aioext.exceptions import ClientDisconnected, GatewayError
from aioext.executor import THREAD_NAME
from aioext.wsgi_input import MAX_AHEAD

PLAIN = [("Content-Type", "text/plain")]


def answer(*chunks, status="200 OK", headers=PLAIN):
    """A WSGI application that gives a list."""

    def app(environ, start_response):
        start_response(status, list(headers))
        return list(chunks)

    return app


def stream(function, status="200 OK", headers=PLAIN):
    """A WSGI application whose body is what ``function(environ)`` gives."""

    def app(environ, start_response):
        start_response(status, list(headers))
        return function(environ)

    return app


class Body:
    """A body that counts how often it is closed."""

    def __init__(self, *chunks, on_close=lambda: None):
        self.chunks = iter(chunks)
        self.closed = 0
        self.on_close = on_close

    def __iter__(self):
        return self

    def __next__(self):
        chunk = next(self.chunks)
        return chunk() if callable(chunk) else chunk

    def close(self):
        self.closed += 1
        self.on_close()


def fail(error):
    """A chunk that raises."""

    def chunk():
        raise error

    return chunk


def pyramid(*views, static=None, mapper=None):
    """The Gateway of a Pyramid application; a view's name is its function's."""
    with Configurator() as config:
        config.include("aioext")
        for view in views:
            config.add_view(view, name=view.__name__, mapper=mapper)
        if static is not None:
            config.add_static_view("static", str(static))
        return config.make_asgi_app()


@pytest.fixture
def serve(run):
    """Serve one request; a bare function is a WSGI application."""

    def serve(app, path="/", body=None, **scope):
        gateway = app if isinstance(app, Gateway) else Gateway(app)
        return run(Client(path, body, **scope).call(gateway))

    return serve


# What PEP 3333 says


REQUESTS = [
    {},
    {"method": "HEAD"},
    {"method": "POST", "body": [b"some ", b"body\nx"]},
    {"method": "POST", "body": [b"abc"], "headers": [(b"content-length", b"3")]},
    {"method": "POST", "body": None, "headers": [(b"content-length", b"0")]},
    {"method": "PUT", "http_version": "2", "body": [b"abc"], "headers": []},
    {"method": "DELETE", "path": "/é", "query_string": b"a=%20"},
    {"root_path": "/app", "path": "/app/x", "server": None, "client": None},
]


@pytest.fixture
def valid(serve, capsys):
    """Serve a request with a validator around the application."""

    def valid(app, **request):
        client = serve(validator(app), **request)
        gc.collect()
        # The validator's complaint about a body that was not closed.
        assert capsys.readouterr().err == ""
        return client

    return valid


@pytest.mark.parametrize("request_", REQUESTS)
def test_the_validator_passes_a_list(valid, request_):
    client = valid(answer(b"a", b"b"), **request_)
    assert client.body == (b"" if request_.get("method") == "HEAD" else b"ab")


@pytest.mark.parametrize("request_", REQUESTS)
def test_the_validator_passes_an_application_that_uses_everything(valid, request_):
    def app(environ, start_response):
        errors = environ["wsgi.errors"]
        errors.flush()
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        body = environ["wsgi.input"]
        parts = [body.readline(), body.read(1), *body.readlines(5), *body]
        write(b"written ")

        def generate():
            yield b""
            yield b"".join(parts)

        return generate()

    client = valid(app, **request_)
    if request_.get("method") == "HEAD":
        assert client.body == b""
    else:
        assert client.body == b"written " + b"".join(request_.get("body") or [])


@pytest.mark.parametrize("request_", REQUESTS)
def test_the_validator_passes_a_file(valid, request_):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"x" * 30), 8)

    client = valid(app, **request_)
    assert client.body == (b"" if request_.get("method") == "HEAD" else b"x" * 30)


async def asynchronous(request):
    body = request.body
    await asyncio.sleep(0)
    return Response(body or b"nothing", content_type="text/plain")


def blocking(request):
    return Response(request.body or b"nothing", content_type="text/plain")


async def streamed(request):
    async def generate():
        for part in (b"one ", b"two"):
            await asyncio.sleep(0)
            yield part

    return Response(app_iter=generate(), content_type="text/plain")


@pytest.mark.parametrize("view", ["asynchronous", "blocking", "streamed", "missing"])
@pytest.mark.parametrize("request_", REQUESTS[:6])
def test_the_validator_passes_pyramid(valid, view, request_):
    app = pyramid(asynchronous, blocking, streamed).app
    client = valid(app, **{**request_, "path": f"/{view}"})
    assert client.status == (404 if view == "missing" else 200)
    if request_.get("method") == "HEAD":
        assert client.body == b""
    elif view == "streamed":
        assert client.parts == [b"one ", b"two"]
    elif view != "missing":
        assert client.body == b"".join(request_.get("body") or [b"nothing"])


def test_a_list_is_sent_as_one_message_with_its_length(serve):
    client = serve(answer(b"ab", b"", b"c", headers=[]))
    assert client.response == (200, [(b"content-length", b"3")], b"abc")
    assert len(client.sent) == 2


@pytest.mark.parametrize("body", [[], (), [b""]])
def test_an_empty_body_has_a_length(serve, body):
    client = serve(stream(lambda environ: body, headers=[]))
    assert client.response == (200, [(b"content-length", b"0")], b"")


def test_each_chunk_of_an_iterable_is_a_message_and_empty_ones_are_none(serve):
    client = serve(stream(lambda environ: iter([b"", b"a", b"", b"bc", b""])))
    assert [message.get("body") for message in client.sent] == [None, b"a", b"bc", b""]
    assert client.ended


def test_a_generator_may_call_start_response_when_it_is_first_asked(serve):
    def app(environ, start_response):
        start_response("201 Created", [("X", "1")])
        yield b""
        yield b"a"

    assert serve(app).response == (201, [(b"x", b"1")], b"a")


def test_a_generator_that_yields_nothing_still_answers(serve):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield from ()

    assert serve(app).response == (200, [], b"")


def test_the_head_is_not_sent_before_the_first_chunk_that_is_not_empty(serve):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b""
        try:
            raise KeyError
        except KeyError:
            start_response("500 Oops", [("X", "1")], sys.exc_info())
        yield b"sorry"

    assert serve(app).response == (500, [(b"x", b"1")], b"sorry")


def test_exc_info_after_the_first_chunk_ends_the_response_unfinished(run):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"a"
        try:
            raise KeyError("late")
        except KeyError:
            start_response("500 Oops", [], sys.exc_info())
        yield b"never"

    client = Client()
    with pytest.raises(KeyError, match="late"):
        run(client.call(Gateway(app)))
    assert client.body == b"a"
    assert not client.ended


@pytest.mark.parametrize("place", ["greenlet", "thread"])
def test_write_sends_at_once(serve, place):
    sent = []

    def app(environ, start_response):
        write = start_response("200 OK", PLAIN)

        def work():
            for chunk in (b"a", b"b"):
                write(chunk)
                sent.append(client.body)

        wait(use_executor(work)()) if place == "thread" else work()
        return [b"c"]

    async def main():
        await client.call(Gateway(app))

    client = Client()
    asyncio.run(main())
    assert sent == [b"a", b"ab"]
    assert client.response == (200, [(b"content-type", b"text/plain")], b"abc")


@pytest.mark.parametrize("rest", [[], [b"r"], (b"r",), iter([b"r"])])
def test_what_is_written_comes_before_the_body(serve, rest):
    def app(environ, start_response):
        start_response("200 OK", [])(b"w")
        return rest

    assert serve(app).body in (b"w", b"wr")


def test_the_first_write_sends_the_head_even_if_it_is_empty(run):
    def app(environ, start_response):
        write = start_response("200 OK", [])
        write(b"")
        assert client.started
        return [b"a"]

    client = Client()
    run(client.call(Gateway(app)))
    assert client.body == b"a"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("kind", ["list", "iterable", "late", "write", "async"])
def test_a_response_without_a_body_has_none(serve, method, status, kind):
    body = Body(b"ab", b"c")

    async def generate():
        yield b"abc"

    def app(environ, start_response):
        if kind == "late":
            return late(start_response)
        write = start_response(status, [])
        if kind == "write":
            write(b"ab")
            return [b"c"]
        return {"list": [b"abc"], "iterable": body, "async": generate()}[kind]

    def late(start_response):
        start_response(status, [])
        yield b"abc"

    client = serve(app, method=method)
    expected = b"abc" if method == "GET" and status == "200 OK" else b""
    assert client.body == expected
    assert client.ended
    assert client.status == int(status[:3])
    if kind == "iterable":
        assert body.closed == 1


def test_head_ends_an_endless_body(serve):
    def app(environ, start_response):
        start_response("200 OK", [])
        while True:
            yield b"x"

    assert serve(app, method="HEAD").response == (200, [], b"")


def test_head_keeps_the_length_that_the_application_tells(serve):
    client = serve(answer(b"abc", headers=[("Content-Length", "3")]), method="HEAD")
    assert client.response == (200, [(b"content-length", b"3")], b"")


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (lambda environ, start: [b"a"], "did not call start_response"),
        (lambda environ, start: iter([b"a"]), "did not call start_response"),
        (lambda environ, start: iter([]), "did not call start_response"),
        (lambda environ, start: [], "did not call start_response"),
        (answer("text"), "gave 'text' as a part of the body"),
        (answer(b"a", "text"), "gave 'text' as a part of the body"),
        (answer(b"a", None), "gave None as a part of the body"),
        (stream(lambda environ: iter(["text"])), "gave 'text' as a part of the body"),
        (stream(lambda environ: "text"), "gave 't' as a part of the body"),
        (stream(lambda environ: b"text"), "gave 116 as a part of the body"),
        (stream(lambda environ: None), "returned None"),
        (lambda environ, start: start("200 OK", [])("text"), "gave 'text' as a part"),
    ],
)
def test_an_application_that_breaks_the_rules_is_told_so(run, app, message):
    client = Client()
    with pytest.raises(GatewayError, match=message):
        run(client.call(Gateway(app)))
    assert not client.started


def test_an_asgi_application_in_a_gateway_is_told_so(run):
    async def app(scope, receive):
        raise AssertionError

    with pytest.raises(GatewayError, match="An ASGI application is served as it is"):
        run(Client().call(Gateway(app)))


def test_start_response_twice_is_refused(run):
    def app(environ, start_response):
        start_response("200 OK", [])
        start_response("200 OK", [])

    with pytest.raises(GatewayError, match="a second time"):
        run(Client().call(Gateway(app)))


def test_the_input_is_not_shared_by_requests_that_have_none(serve):
    def app(environ, start_response):
        start_response("200 OK", [])
        assert "wsgi.input_terminated" not in environ
        return [environ["wsgi.input"].read()]

    assert serve(app).body == b""


# The request's body


def test_webob_sees_a_chunked_body_in_every_way(serve):
    def form(request):
        return Response(request.POST["a"])

    async def text(request):
        return Response(request.body)

    def as_json(request):
        return Response(json.dumps(request.json_body))

    def as_file(request):
        return Response(b"".join(request.body_file))

    app = pyramid(form, text, as_json, as_file)

    def post(view, content, kind):
        headers = [(b"host", b"x"), (b"content-type", kind)]
        body = [content[:3], content[3:4], content[4:]]
        return serve(app, f"/{view}", body, method="POST", headers=headers).body

    form = b"application/x-www-form-urlencoded"
    assert post("form", b"a=%C3%BC&b=2", form) == "ü".encode()
    assert post("text", b"some text", b"text/plain") == b"some text"
    assert post("as_json", b'{"a": [1]}', b"application/json") == b'{"a": [1]}'
    assert post("as_file", b"one\ntwo", b"text/plain") == b"one\ntwo"


def test_webob_reads_no_more_than_the_content_length(serve):
    async def view(request):
        return Response(request.body)

    client = serve(
        pyramid(view), "/view", [b"abcdef"], headers=[(b"content-length", b"4")]
    )
    assert client.body == b"abcd"


@pytest.mark.parametrize("mapper", [None, InlineMapper])
def test_a_read_waits_while_other_requests_are_served(run, mapper):
    def view(request):
        return Response(request.body)

    async def main():
        app = pyramid(view, mapper=mapper)
        slow = Client("/view", body=[b"s"], complete=False, method="POST")
        task = slow.start(app)
        for _ in range(5):
            fast = await Client("/view", [b"fast"], method="POST").call(app)
            assert fast.body == b"fast"
        assert not task.done()
        slow.give(b"low", more=False)
        await task
        assert slow.body == b"slow"

    run(main())


def test_a_body_that_nobody_asks_for_is_not_received(serve):
    client = serve(answer(b"no"), body=[b"x" * 1000] * 1000, method="POST")
    assert client.received == 0
    assert client.body == b"no"


def test_a_stream_looks_ahead_of_its_reader_only_so_far(run):
    go = asyncio.Event()

    def generate(environ):
        yield b"a"
        wait(go.wait())

    async def main():
        client = Client(body=[b"x" * 10_000] * 100, method="POST")
        task = client.start(Gateway(stream(generate)))
        await client.until_body(b"a")
        for _ in range(100):
            await asyncio.sleep(0)
        assert 0 < client.received < MAX_AHEAD + 10_000
        go.set()
        await task

    run(main())


def test_a_stream_may_read_what_it_answers_with(run):
    # The watcher and the reader both receive; the client checks: one at a time.
    def echo(environ):
        yield from iter(lambda: environ["wsgi.input"].read(3), b"")

    async def main():
        client = Client(body=[], complete=False, method="POST")
        task = client.start(Gateway(stream(echo)))
        text = b""
        for part in (b"abc", b"def", b"ghi"):
            client.give(part)
            text += part
            await client.until_body(text)
        client.give(b"j", more=False)
        await task
        assert client.body == text + b"j"

    run(main())


def test_a_request_with_a_body_is_not_received_from_before_its_first_chunk(run):
    # Receiving would invite a client that waits for "100 Continue".
    go = asyncio.Event()

    def generate(environ):
        wait(go.wait())
        yield b"a"

    async def main():
        client = Client(body=[b"x"], method="POST")
        task = client.start(Gateway(stream(generate)))
        for _ in range(20):
            await asyncio.sleep(0)
        assert client.received == 0
        go.set()
        await task

    run(main())


@pytest.mark.parametrize("view", ["asynchronous", "blocking"])
def test_a_client_that_leaves_in_mid_body_ends_the_request_in_silence(
    run, view, caplog
):
    async def main():
        client = Client(f"/{view}", body=[b"x"], complete=False, method="POST")
        task = client.start(pyramid(asynchronous, blocking))
        client.leave()
        await task
        assert not client.started

    run(main(), debug=True)
    assert [each for each in caplog.records if each.levelno > logging.INFO] == []


# The response's body


def test_a_body_may_wait_between_its_chunks_while_others_are_served(run):
    async def main():
        queue = asyncio.Queue()

        def generate(environ):
            if environ["PATH_INFO"] == "/fast":
                yield b"fast"
                return
            while chunk := wait(queue.get()):
                yield chunk

        app = Gateway(stream(generate))
        client = Client()
        task = client.start(app)
        text = b""
        for number in range(5):
            assert (await Client("/fast").call(app)).body == b"fast"
            queue.put_nowait(b"%d" % number)
            text += b"%d" % number
            await client.until_body(text)
        queue.put_nowait(b"")
        await task
        assert client.ended

    run(main())


@pytest.mark.parametrize("kind", ["generator", "async", "executor"])
def test_no_chunk_is_made_before_the_one_before_it_has_been_sent(run, kind):
    sent_before_each = []

    async def main():
        client = Client("/view")

        def generate():
            for _ in range(10):
                sent_before_each.append(len(client.parts))
                yield b"x"

        async def agenerate():
            for chunk in generate():
                yield chunk

        def view(request):
            return Response(app_iter=agenerate() if kind == "async" else generate())

        async def send(message):
            # A client that takes its time.
            await asyncio.sleep(0.002)
            await client.send(message)

        app = pyramid(view, mapper=None if kind == "executor" else InlineMapper)
        await app(client.scope, client.receive, send)
        assert client.body == b"x" * 10

    run(main())
    assert sent_before_each == list(range(10))


@pytest.mark.parametrize("kind", ["generator", "async", "executor"])
def test_a_client_that_leaves_without_having_read_ends_the_stream(run, kind):
    events = []

    def generate():
        try:
            while True:
                yield b"x"
        finally:
            events.append("finally")

    async def agenerate():
        try:
            while True:
                yield b"x"
        finally:
            events.append("finally")

    def view(request):
        return Response(app_iter=agenerate() if kind == "async" else generate())

    async def main():
        client = Client("/view")
        sending = asyncio.Event()

        async def send(message):
            sending.set()
            await asyncio.Event().wait()

        app = pyramid(view, mapper=None if kind == "executor" else InlineMapper)
        task = asyncio.create_task(app(client.scope, client.receive, send))
        await sending.wait()
        client.leave()
        await task

    run(main())
    assert events == ["finally"]


def test_an_async_iterable_is_a_body(run):
    closed = []

    async def generate():
        try:
            for number in range(3):
                await asyncio.sleep(0)
                yield b"%d" % number
        finally:
            await asyncio.sleep(0)
            closed.append(asyncio.current_task())

    async def main():
        client = await Client().call(Gateway(stream(lambda environ: generate())))
        assert client.parts == [b"0", b"1", b"2"]
        assert closed == [asyncio.current_task()]

    run(main())


def in_executor():
    return threading.current_thread().name.startswith(THREAD_NAME)


def test_a_body_of_an_executor_view_runs_in_the_executor(serve):
    places = []

    def view(request):
        def generate():
            try:
                for number in range(3):
                    places.append(in_executor())
                    yield b"%d" % number
            finally:
                places.append(in_executor())

        places.append(in_executor())
        return Response(app_iter=generate())

    assert serve(pyramid(view), "/view").parts == [b"0", b"1", b"2"]
    assert places == [True] * 5


def test_the_length_of_a_streamed_response_is_kept(serve):
    def blocking(request):
        return Response(app_iter=iter([b"ab", b"c"]), content_length=3)

    async def asynchronous(request):
        return Response(app_iter=agenerate(), content_length=3)

    async def agenerate():
        yield b"abc"

    app = pyramid(blocking, asynchronous)
    for view in ("/blocking", "/asynchronous"):
        for method in ("GET", "HEAD"):
            client = serve(app, view, method=method)
            assert (b"content-length", b"3") in [
                (name.lower(), value) for name, value in client.headers
            ]
            assert client.body == (b"abc" if method == "GET" else b"")


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file, and where its blocks are read."""
    path = tmp_path / "file.txt"
    path.write_bytes(bytes(range(256)) * 4096)
    places = []
    original = open

    class Recording(io.FileIO):
        def read(self, size=-1):
            places.append(in_executor())
            return super().read(size)

    def recording_open(name, mode="r", *args, **kwargs):
        if str(name) == str(path) and mode == "rb":
            return Recording(name, mode)
        return original(name, mode, *args, **kwargs)

    monkeypatch.setattr("builtins.open", recording_open)
    # What the system has in memory needs no thread.
    monkeypatch.setattr("aioext.body.NOWAIT", None)
    return path, places


@pytest.mark.parametrize("how", ["static", "coroutine", "executor"])
@pytest.mark.parametrize(
    "range_", [None, (0, 9), (300_000, 700_000), (1_048_570, None)]
)
def test_files_are_read_in_the_executor_ranges_too(serve, file, how, range_):
    path, places = file

    async def coroutine(request):
        return FileResponse(str(path), request)

    def executor(request):
        return FileResponse(str(path), request)

    app = pyramid(coroutine, executor, static=path.parent)
    url = "/static/file.txt" if how == "static" else f"/{how}"
    headers = []
    content = path.read_bytes()
    places.clear()
    if range_ is not None:
        start, stop = range_
        value = f"bytes={start}-{'' if stop is None else stop}"
        headers = [(b"range", value.encode())]
        content = content[start:] if stop is None else content[start : stop + 1]
    client = serve(app, url, headers=headers)
    assert client.status == (200 if range_ is None else 206)
    assert client.body == content
    assert places
    assert all(places)


def test_a_file_is_read_in_the_executor_whatever_is_wrapped_around_it(serve, file):
    path, places = file

    class Compressed:
        def __init__(self, body):
            self.body = body

        def __iter__(self):
            for chunk in self.body:
                yield chunk[:1]

        def close(self):
            self.body.close()

    async def view(request):
        response = FileResponse(str(path), request)
        response.app_iter = Compressed(response.app_iter)
        return response

    assert serve(pyramid(view), "/view").body == b"\0" * 4
    assert places == [True] * 5


# close()


def closing_cases():
    """How a body may end; each gives the chunks and what is raised."""
    return {
        "normal": ([b"a", b"b"], None),
        "empty": ([], None),
        "error before the first chunk": ([fail(KeyError("e"))], KeyError),
        "error after the first chunk": ([b"a", fail(KeyError("e"))], KeyError),
        "StopIteration": ([b"a", fail(StopIteration)], None),
        "SystemExit": ([b"a", fail(SystemExit)], SystemExit),
        "no bytes": ([b"a", "text"], GatewayError),
    }


@pytest.mark.parametrize("case", closing_cases())
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("closing", ["plain", "waits", "raises"])
def test_a_body_is_closed_once_however_it_ends(case, method, closing):
    chunks, error = closing_cases()[case]
    # SystemExit in a Task leaves the loop at once; what it left is closed later.
    on_close = {
        "plain": lambda: None,
        "waits": lambda: wait(asyncio.sleep(0)),
        "raises": lambda: fail(ZeroDivisionError())(),
    }[closing]
    body = Body(*chunks, on_close=on_close)
    client = Client(method=method)
    if closing == "raises":
        expected = ZeroDivisionError
    elif method == "HEAD":
        # Nothing is taken once it is known that nothing is to be sent.
        expected = error if case == "error before the first chunk" else None
    else:
        expected = error
    if expected is None:
        asyncio.run(client.call(Gateway(stream(lambda environ: body))))
        assert client.ended
    else:
        with pytest.raises(expected):
            asyncio.run(client.call(Gateway(stream(lambda environ: body))))
    assert body.closed == 1


def test_what_is_no_exception_becomes_one_that_a_server_answers(run):
    class Odd(BaseException):
        pass

    def app(environ, start_response):
        raise Odd("odd")

    with pytest.raises(GatewayError, match="which is no Exception") as caught:
        run(Client().call(Gateway(app)))
    assert isinstance(caught.value.__cause__, Odd)


def test_an_error_of_close_has_the_first_error_as_its_context(run):
    body = Body(fail(KeyError("first")), on_close=fail(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError) as caught:
        run(Client().call(Gateway(stream(lambda environ: body))))
    assert isinstance(caught.value.__context__, KeyError)


def test_a_body_that_cannot_be_iterated_over_is_closed(run):
    class Broken(Body):
        def __iter__(self):
            raise KeyError("iter")

    body = Broken()
    with pytest.raises(KeyError, match="iter"):
        run(Client().call(Gateway(stream(lambda environ: body))))
    assert body.closed == 1


def test_a_body_is_closed_when_start_response_was_not_called(run):
    body = Body(b"a")
    with pytest.raises(GatewayError):
        run(Client().call(Gateway(lambda environ, start_response: body)))
    assert body.closed == 1


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_body_is_closed_when_the_server_says_that_the_client_has_gone(run, after):
    body = Body(*[b"x"] * 5)

    async def main():
        client = Client()

        async def send(message):
            if len(client.parts) == after:
                client.leave(send_fails=True)
            await client.send(message)

        await Gateway(stream(lambda environ: body))(client.scope, client.receive, send)
        assert len(client.parts) == after

    run(main())
    assert body.closed == 1


def test_a_list_for_a_client_that_has_gone_is_no_error(run):
    client = Client()
    client.leave(send_fails=True)
    run(client.call(Gateway(answer(b"a"))))
    assert not client.started


@pytest.mark.parametrize("kind", ["sync", "async", "executor"])
@pytest.mark.parametrize("when", ["before the first chunk", "after it"])
def test_a_stream_ends_when_its_client_leaves_and_its_finally_may_wait(run, kind, when):
    events = []
    waiting = asyncio.Event()

    async def wait_for_ever():
        waiting.set()
        await asyncio.Event().wait()

    def generate():
        try:
            if when == "after it":
                yield b"a"
            wait(wait_for_ever())
        finally:
            wait(asyncio.sleep(0))
            events.append("finally")

    async def agenerate():
        try:
            if when == "after it":
                yield b"a"
            await wait_for_ever()
        finally:
            await asyncio.sleep(0)
            events.append("finally")

    def view(request):
        return Response(app_iter=agenerate() if kind == "async" else generate())

    async def main():
        client = Client("/view")
        app = pyramid(view, mapper=None if kind == "executor" else InlineMapper)
        task = client.start(app)
        await waiting.wait()
        client.leave()
        await task
        assert client.body == (b"a" if when == "after it" else b"")
        assert not client.ended
        # The cancellation was the gateway's own business.
        assert task.cancelling() == 0

    run(main(), debug=True)
    assert events == ["finally"]


@pytest.mark.parametrize("place", ["greenlet", "thread"])
def test_an_application_that_swallows_the_cancellation_ends_at_its_next_chunk(
    run, place
):
    events = []
    waiting = asyncio.Event()

    async def wait_for_ever():
        waiting.set()
        await asyncio.Event().wait()

    def generate():
        yield b"a"
        try:
            wait(wait_for_ever())
        except asyncio.CancelledError:
            events.append("swallowed")
        try:
            while True:
                yield b"b"
                events.append("went on")
        finally:
            events.append("finally")

    def view(request):
        return Response(app_iter=generate())

    async def main():
        client = Client("/view")
        mapper = InlineMapper if place == "greenlet" else None
        task = client.start(pyramid(view, mapper=mapper))
        await waiting.wait()
        client.leave()
        await task
        assert task.cancelling() == 0
        assert client.body == b"a"

    run(main())
    assert events == ["swallowed", "finally"]


def test_write_fails_when_the_client_has_gone(run):
    events = []

    def app(environ, start_response):
        write = start_response("200 OK", [])

        def work():
            try:
                while True:
                    write(b"x")
            except ClientDisconnected:
                events.append("gone")
                raise
            except asyncio.CancelledError:
                events.append("cancelled")
                raise

        wait(use_executor(work)())

    async def main():
        client = Client()
        task = client.start(Gateway(app))
        await client.until(lambda: len(client.parts) > 3)
        # A server whose send() says nothing.
        client.leave()
        await task

    run(main())
    assert len(events) == 1


def test_an_application_that_wrote_and_waits_ends_when_its_client_leaves(run):
    events = []

    def app(environ, start_response):
        start_response("200 OK", [])(b"a")
        try:
            wait(asyncio.Event().wait())
        finally:
            events.append("finally")

    async def main():
        client = Client()
        task = client.start(Gateway(app))
        await client.until_body(b"a")
        client.leave()
        await task

    run(main())
    assert events == ["finally"]


def test_a_close_that_waits_is_not_cut_short_by_the_end_of_the_response(run):
    # uvicorn answers a receive() that still waits with http.disconnect as soon
    # as the response is complete.
    events = []

    def close():
        wait(asyncio.sleep(0.01))
        events.append("closed")

    body = Body(b"a", on_close=close)

    async def main():
        client = Client()

        async def send(message):
            await client.send(message)
            if client.ended:
                client.leave()

        await Gateway(stream(lambda environ: body))(client.scope, client.receive, send)
        assert client.ended

    run(main())
    assert events == ["closed"]


def written(environ, start_response):
    start_response("200 OK", PLAIN)(b"a")
    return [b"b"]


@pytest.mark.parametrize("app", [stream(lambda environ: iter([b"a", b"b"])), written])
def test_no_receive_is_left_when_the_end_of_the_response_is_sent(run, app):
    async def main():
        client = Client()

        async def send(message):
            await client.send(message)
            if client.ended:
                assert not client._receiving

        await Gateway(app)(client.scope, client.receive, send)
        assert client.body == b"ab"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


@pytest.mark.parametrize("kind", ["view", "sync", "async", "executor", "executor view"])
def test_a_server_that_cancels_is_obeyed_after_cleaning_up(run, kind):
    events = []

    async def main():
        event = asyncio.Event()
        started = asyncio.Event()

        async def agenerate():
            try:
                yield b"a"
                await start_waiting(event)
            finally:
                await asyncio.sleep(0)
                events.append("finally")

        def generate():
            yield b"a"
            hold(event)

        async def start_waiting(event):
            started.set()
            await event.wait()

        def hold(event):
            try:
                wait(start_waiting(event))
            finally:
                wait(asyncio.sleep(0))
                events.append("finally")

        def view(request):
            if "view" in kind:
                hold(event)
            return Response(app_iter=agenerate() if kind == "async" else generate())

        client = Client("/view")
        mapper = None if "executor" in kind else InlineMapper
        task = client.start(pyramid(view, mapper=mapper))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not client.ended

    run(main(), debug=True)
    assert events == ["finally"]


def test_a_server_that_cancels_while_the_client_leaves_is_obeyed(run):
    cleaning = asyncio.Event()

    def generate(environ):
        yield b"a"
        try:
            wait(asyncio.Event().wait())
        finally:
            cleaning.set()
            # Both have happened when the request ends.
            wait(asyncio.Event().wait())

    async def main():
        client = Client()
        task = client.start(Gateway(stream(generate)))
        await client.until_body(b"a")
        client.leave()
        await asyncio.wait_for(cleaning.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_an_outer_timeout_is_told_from_a_client_that_leaves(run):
    def generate(environ):
        yield b"a"
        wait(asyncio.Event().wait())

    async def main():
        client = Client()
        app = Gateway(stream(generate))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.call(app)
        client = Client()
        async with asyncio.timeout(5) as outer:
            client.leave()
            await client.call(app)
        assert not outer.expired()
        assert asyncio.current_task().cancelling() == 0

    run(main())


def test_a_task_that_swallowed_a_cancellation_before_can_still_serve(run):
    def generate(environ):
        yield b"a"
        wait(asyncio.Event().wait())

    async def main():
        asyncio.current_task().cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        client = Client()
        client.leave()
        await client.call(Gateway(stream(generate)))
        assert asyncio.current_task().cancelling() == 1

    run(main())


@pytest.mark.parametrize("late", [True, False])
def test_a_cancellation_that_nobody_asked_for_is_an_error(run, late):
    # To gunicorn, a CancelledError is a request that it has cancelled itself:
    # it would close the connection without a word in its log.
    async def cancelled():
        task = asyncio.ensure_future(asyncio.sleep(10))
        task.cancel()
        await task

    def generate(environ):
        if late:
            yield b"a"
        wait(cancelled())
        yield b"b"

    client = Client()
    with pytest.raises(GatewayError, match="nobody has cancelled") as caught:
        run(client.call(Gateway(stream(generate))))
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert client.body == (b"a" if late else b"")


def test_a_request_that_is_dropped_runs_its_finally(run):
    events = []

    def generate(environ):
        try:
            yield b"a"
            wait(asyncio.Event().wait())
        finally:
            events.append("finally")

    async def main():
        client = Client()
        app = Gateway(stream(generate))
        coroutine = app(client.scope, client.receive, client.send)
        coroutine.send(None)
        coroutine.close()

    run(main())
    assert events == ["finally"]


# What is around a request


def test_the_current_request_is_right_while_a_body_is_iterated_over(run):
    seen = {}

    def view(request):
        def generate():
            for _ in range(5):
                assert get_current_request() is request
                wait(asyncio.sleep(0))
                yield b"x"

        class Closing:
            def __init__(self):
                self.chunks = generate()

            def __iter__(self):
                return self.chunks

            def close(self):
                seen[request.query_string] = get_current_request() is request

        return Response(app_iter=Closing())

    async def agenerate(request):
        for _ in range(5):
            assert get_current_request() is request
            await asyncio.sleep(0)
            yield b"x"

    async def coroutine(request):
        return Response(app_iter=agenerate(request))

    async def one(app, path, number):
        client = Client(path, query_string=b"%d" % number)
        await client.call(app)
        assert client.body == b"xxxxx"
        assert get_current_request() is None

    async def main():
        apps = [pyramid(view, coroutine, mapper=InlineMapper), pyramid(view, coroutine)]
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                path = ["/view", "/coroutine"][number // 2 % 2]
                group.create_task(one(apps[number % 2], path, number))
        for app in apps:
            await one(app, "/view", 99)
        assert get_current_request() is None

    run(main())
    assert all(seen.values())
    assert len(seen) == 21


variable = contextvars.ContextVar("variable", default="unset")


def test_a_request_sees_the_context_of_its_server_and_may_change_it(run):
    # As any coroutine does: what middleware around the gateway sets is seen.
    def app(environ, start_response):
        start_response("200 OK", [])
        seen = variable.get()
        variable.set("application's")
        return [seen.encode()]

    async def main():
        variable.set("server's")
        assert (await Client().call(Gateway(app))).body == b"server's"
        assert variable.get() == "application's"

    run(main())


@pytest.mark.parametrize("isolate", [True, False])
def test_requests_in_one_task_do_not_see_each_other(run, isolate):
    def app(environ, start_response):
        start_response("200 OK", [])
        seen = variable.get()
        variable.set(environ["PATH_INFO"])
        wait(asyncio.sleep(0))

        def generate():
            yield seen.encode()

        return generate()

    async def main():
        gateway = Gateway(app, isolate=isolate)
        assert (await Client("/1").call(gateway)).body == b"unset"
        after_first = variable.get()
        assert after_first == ("unset" if isolate else "/1")
        for path in ("/2", "/3"):
            # The server's own context is what each begins with.
            client = await Client(path).call(gateway)
            assert client.body == after_first.encode()
            assert variable.get() == after_first

    run(main())


def test_a_cancelled_request_with_a_task_of_its_own_ends_before_its_server_goes_on(run):
    events = []

    def app(environ, start_response):
        try:
            wait(asyncio.Event().wait())
        finally:
            wait(asyncio.sleep(0))
            events.append("finally")

    async def main():
        task = Client().start(Gateway(app, isolate=True))
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert events == ["finally"]

    run(main())


def test_a_view_may_call_an_asgi_application(serve):
    inner = pyramid(streamed, asynchronous)

    async def outer(request):
        before = get_current_request()
        bodies = []
        for path in ("/streamed", "/asynchronous"):
            client = await Client(path).call(inner)
            bodies.append(client.body)
            assert get_current_request() is before is request
        return Response(b", ".join(bodies))

    def blocking(request):
        client = wait(Client("/streamed").call(inner))
        assert get_current_request() is request
        return Response(client.body)

    app = pyramid(outer, blocking)
    assert serve(app, "/outer").body == b"one two, nothing"
    assert serve(app, "/blocking").body == b"one two"


def test_a_nested_request_whose_client_leaves_does_not_end_the_outer_one(run):
    def endless():
        yield b"a"
        wait(asyncio.Event().wait())

    inner = Gateway(stream(lambda environ: endless()))

    async def outer(request):
        client = Client()
        client.leave()
        await client.call(inner)
        return Response("outer")

    async def main():
        client = await Client("/outer").call(pyramid(outer))
        assert client.body == b"outer"

    run(main())


if hasattr(asyncio, "eager_task_factory"):

    @pytest.mark.parametrize("body", [None, [b"x"]])
    def test_eager_tasks_leave_no_cancellation_behind(run, body):
        # The client has gone already when the watcher looks for the first time.
        async def main():
            factory = asyncio.eager_task_factory
            asyncio.get_running_loop().set_task_factory(factory)
            asyncio.current_task().cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(0)
            client = Client(body=body)
            client.leave()
            await client.call(Gateway(stream(lambda environ: iter([b"a"] * 10))))
            await asyncio.sleep(0)
            assert asyncio.current_task().cancelling() == 1

        run(main())


def test_a_server_that_runs_no_task_is_served():
    # A coroutine may be driven by something else than asyncio's Tasks.
    async def main():
        done = asyncio.get_running_loop().create_future()
        client = Client()
        coroutine = client.call(Gateway(stream(lambda environ: iter([b"a", b"b"]))))

        def step(*_):
            try:
                future = coroutine.send(None)
            except StopIteration:
                done.set_result(None)
            except BaseException as error:
                done.set_exception(error)
            else:
                if future is None:
                    asyncio.get_running_loop().call_soon(step)
                else:
                    future._asyncio_future_blocking = False
                    future.add_done_callback(step)

        asyncio.get_running_loop().call_soon(step)
        await done
        assert client.body == b"ab"

    asyncio.run(main())


# Other scopes


def test_a_websocket_is_refused_before_it_is_accepted(run):
    async def main():
        sent = []

        async def receive():
            return {"type": "websocket.connect"}

        async def send(message):
            sent.append(message)

        await Gateway(answer(b"x"))(
            {**make_scope(), "type": "websocket"}, receive, send
        )
        assert sent == [{"type": "websocket.close"}]

    run(main())


def test_an_unknown_scope_is_refused_by_name(run):
    with pytest.raises(NotImplementedError, match="'telepathy'"):
        run(Gateway(answer(b"x"))({"type": "telepathy"}, None, None))


def test_a_lifespan_starts_and_stops(run):
    async def main():
        incoming = asyncio.Queue()
        sent = asyncio.Queue()
        for event in ("startup", "shutdown"):
            incoming.put_nowait({"type": f"lifespan.{event}"})
        await Gateway(answer(b"x"))({"type": "lifespan"}, incoming.get, sent.put)
        assert sent.get_nowait() == {"type": "lifespan.startup.complete"}
        assert sent.get_nowait() == {"type": "lifespan.shutdown.complete"}

    run(main())


# What a request leaves behind


def garbage(run, serve_one, count=200):
    """How many objects only the garbage collector could free, per request."""

    async def main():
        for _ in range(3):
            await serve_one()
        gc.collect()
        gc.disable()
        try:
            for _ in range(count):
                await serve_one()
            return gc.collect() / count
        finally:
            gc.enable()

    return run(main())


async def leaver(app, path="/"):
    client = Client(path)
    task = client.start(app)
    await client.until(lambda: client.parts)
    client.leave()
    await task


def endless_stream(environ):
    yield b"a"
    wait(asyncio.Event().wait())


LEFT = {
    "list": lambda: Client().call(Gateway(answer(b"a"))),
    "generator": lambda: Client().call(Gateway(stream(lambda environ: iter([b"a"])))),
    "upload": lambda: Client(body=[b"a", b"b"]).call(
        Gateway(stream(lambda environ: [environ["wsgi.input"].read()]))
    ),
    "isolated": lambda: Client().call(Gateway(answer(b"a"), isolate=True)),
    "client leaves": lambda: leaver(Gateway(stream(endless_stream))),
}


@pytest.mark.parametrize("kind", LEFT)
def test_a_request_leaves_nothing_for_the_garbage_collector(run, kind):
    assert garbage(run, LEFT[kind]) < 0.1


@pytest.mark.parametrize("view", ["asynchronous", "blocking", "streamed"])
def test_a_request_to_pyramid_leaves_nothing_for_the_garbage_collector(run, view):
    app = pyramid(asynchronous, blocking, streamed)
    assert garbage(run, lambda: Client(f"/{view}").call(app)) < 0.1


def test_an_upload_that_is_cut_off_leaves_nothing_for_the_garbage_collector(run):
    app = Gateway(stream(lambda environ: [environ["wsgi.input"].read()]))

    async def serve_one():
        client = Client(body=[b"a"], complete=False)
        client.leave()
        await client.call(app)

    assert garbage(run, serve_one) < 0.1


@pytest.mark.parametrize("late", [True, False])
def test_a_failed_request_leaves_nothing_for_the_garbage_collector(run, late):
    def app(environ, start_response):
        start_response("200 OK", [])
        if late:
            yield b"a"
        wait(asyncio.sleep(0))
        raise KeyError("failed")

    async def serve_one():
        with contextlib.suppress(KeyError):
            await Client().call(Gateway(app))

    assert garbage(run, serve_one) < 0.1

"""``FileResponse``: files that are sent without blocking, whole or in part."""

import asyncio
import gc
import http.client
import json
import os
import re
import sys
import threading
from pathlib import Path

import pytest
from asgi import Client
from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.tweens import EXCVIEW
from servers import COMMANDS, WORKER, Server, running
from webtest import TestApp

from aioext import body as body_module
from aioext.assets.files import SMALL
from aioext.assets.response import FileResponse, guess_type
from aioext.body import FileBody, FileWrapper
from aioext.executor import THREAD_NAME
from aioext.gateway import Gateway
from aioext.interfaces import IExecutor

LONG_AGO = 1_000_000_000
LARGE = os.urandom(1000) * 1500


@pytest.fixture
def directory(tmp_path, monkeypatch):
    package = tmp_path / "sent"
    package.mkdir()
    for name, content in (
        ("__init__.py", b""),
        ("small.txt", b"small"),
        ("large.bin", LARGE),
        ("tidy.svg", b"<svg/>"),
        ("table.csv.gz", b"not really"),
    ):
        (package / name).write_bytes(content)
        os.utime(package / name, (LONG_AGO, LONG_AGO))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sent", raising=False)
    return package


def make(view, *parts):
    config = Configurator()
    for part in ("aioext", *parts):
        config.include(part)
    config.add_route("view", "/")
    config.add_view(view, route_name="view")
    return config.make_wsgi_app()


def sending(path, **options):
    async def view(request):
        return FileResponse(path, request, **options)

    return view


def sending_in_a_thread(path, **options):
    return lambda request: FileResponse(path, request, **options)


def ask(app, method="GET", **headers):
    fields = [(n.replace("_", "-").lower(), v) for n, v in headers.items()]
    client = Client(
        method=method,
        headers=[(name.encode(), value.encode()) for name, value in fields],
    )
    asyncio.run(client.call(Gateway(app)))
    status, found, body = client.response
    return status, {n.decode().title(): v.decode() for n, v in found}, body


def opened(directory):
    """The files below a directory that this process has open."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(each)
        except OSError:
            continue
        if target.startswith(str(directory)):
            found.append(target)
    return found


both = pytest.mark.parametrize("make_view", [sending, sending_in_a_thread])


@both
@pytest.mark.parametrize("name", ["small.txt", "large.bin"])
def test_a_file_is_sent(directory, make_view, name):
    path = directory / name
    app = make(make_view(path))
    for _ in range(2):
        status, found, body = ask(app)
        assert (status, body) == (200, path.read_bytes())
        assert found["Content-Length"] == str(len(body))
        assert found["Last-Modified"] == "Sun, 09 Sep 2001 01:46:40 GMT"
        assert found["Accept-Ranges"] == "bytes"
        assert found["Etag"].startswith('"')
    assert TestApp(app).get("/").body == path.read_bytes()
    assert opened(directory) == []


@both
def test_the_path_may_be_a_specification(directory, make_view):
    app = make(make_view("sent:small.txt"))
    assert ask(app)[2] == b"small"


def test_an_overridden_asset(directory):
    def override(config):
        config.override_asset("sent:small.txt", "sent:tidy.svg")

    app = make(sending("sent:small.txt"), override)
    assert ask(app)[2] == b"<svg/>"


def test_a_path_relative_to_the_working_directory(directory, monkeypatch):
    monkeypatch.chdir(directory)
    assert ask(make(sending("small.txt")))[2] == b"small"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.svg", ("image/svg+xml", None)),
        ("a.csv.gz", ("text/csv", "gzip")),
        ("a.tar.gz", ("application/x-tar", "gzip")),
        ("http://x/a,b:c.css", ("text/css", None)),
        ("data:,x.css", ("text/css", None)),
        ("none", ("application/octet-stream", None)),
    ],
)
def test_the_type_by_the_name(name, expected):
    assert guess_type(name) == expected


def test_headers(directory):
    found = ask(make(sending(directory / "table.csv.gz", cache_max_age=60)))[1]
    assert found["Content-Type"].startswith("text/csv")
    assert found["Content-Encoding"] == "gzip"
    assert found["Cache-Control"] == "max-age=60"
    app = make(sending(directory / "table.csv.gz", content_type="application/gzip"))
    found = ask(app)[1]
    assert found["Content-Type"] == "application/gzip"
    assert "Content-Encoding" not in found


# Conditions and ranges --------------------------------------------------------


@both
@pytest.mark.parametrize("name", ["small.txt", "large.bin"])
def test_conditions_and_ranges(directory, make_view, name):
    path = directory / name
    app = make(make_view(path))
    whole, etag = path.read_bytes(), ask(app)[1]["Etag"]
    assert ask(app, If_None_Match=etag)[::2] == (304, b"")
    assert ask(app, "HEAD", If_None_Match=etag)[::2] == (304, b"")
    assert ask(app, If_Match='"other"')[0] == 412
    assert ask(app, Range="bytes=1-3")[::2] == (206, whole[1:4])
    assert ask(app, Range="bytes=-3")[::2] == (206, whole[-3:])
    assert ask(app, Range="bytes=2-")[::2] == (206, whole[2:])
    assert ask(app, Range="bytes=1-3", If_Range=etag)[0] == 206
    assert ask(app, Range="bytes=1-3", If_Range='"other"')[::2] == (200, whole)
    assert ask(app, Range="bytes=99999999-")[0] == 416
    assert ask(app, Range="bytes=0-1,3-4")[::2] == (200, whole)
    status, found, body = ask(app, "HEAD")
    assert (status, found["Content-Length"], body) == (200, str(len(whole)), b"")
    plain = TestApp(app)
    assert plain.get("/", headers={"Range": "bytes=1-3"}).body == whole[1:4]
    assert plain.get("/", headers={"If-None-Match": etag}).status_int == 304
    assert opened(directory) == []


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, 1),
        (0, FileBody.block_size),
        (5, FileBody.block_size + 5),
        (FileBody.block_size - 1, FileBody.block_size + 1),
        (FileBody.block_size, 2 * FileBody.block_size),
        (FileBody.block_size + 1, len(LARGE)),
        (len(LARGE) - 1, len(LARGE)),
        (0, len(LARGE)),
    ],
)
def test_a_range_is_cut_where_it_should_be(directory, start, stop):
    app = make(sending(directory / "large.bin"))
    given = f"bytes={start}-{stop - 1}"
    assert ask(app, Range=given)[::2] == (206, LARGE[start:stop])


def test_a_view_sets_another_etag(directory):
    async def view(request):
        response = FileResponse(directory / "large.bin", request)
        response.etag = "own"
        return response

    app = make(view)
    etag = ask(make(sending(directory / "large.bin")))[1]["Etag"]
    assert ask(app, If_None_Match='"own"')[0] == 304
    assert ask(app, If_None_Match=etag)[::2] == (200, LARGE)


def test_a_status_of_its_own_is_left_alone(directory):
    async def view(request):
        response = FileResponse(directory / "small.txt", request)
        response.status = 404
        return response

    assert ask(make(view), Range="bytes=0-1")[::2] == (404, b"small")


# Where it is read, and closed -------------------------------------------------


def has_no_memory(*args):
    """What the system answers for what is not in its memory."""
    raise BlockingIOError


@pytest.fixture
def threads(monkeypatch):
    """The threads that have read a block."""
    names = []
    read = body_module._read_at

    def noted(*args):
        names.append(threading.current_thread().name)
        return read(*args)

    monkeypatch.setattr(body_module, "_read_at", noted)
    return names


@both
@pytest.mark.parametrize("can_tell", [True, False])
def test_it_is_read_in_threads(directory, make_view, threads, monkeypatch, can_tell):
    if can_tell:
        monkeypatch.setattr(os, "preadv", has_no_memory)
    else:
        monkeypatch.setattr(body_module, "NOWAIT", None)
    assert ask(make(make_view(directory / "large.bin")))[2] == LARGE
    assert len(threads) == len(LARGE) // FileBody.block_size
    assert all(each.startswith(THREAD_NAME) for each in threads)


@pytest.mark.skipif(body_module.NOWAIT is None, reason="only Linux can tell")
@pytest.mark.parametrize("count", [100_000, FileBody.block_size])
def test_what_is_in_memory_takes_no_thread(directory, threads, monkeypatch, count):
    def remembers(fd, buffers, offset, flags):
        assert flags == os.RWF_NOWAIT
        (buffer,) = buffers
        return read(fd, [buffer[:count]], offset)

    read = os.preadv
    monkeypatch.setattr(os, "preadv", remembers)
    app = make(sending(directory / "large.bin"))
    assert ask(app)[2] == LARGE
    assert ask(app, Range="bytes=300001-900001")[2] == LARGE[300_001:900_002]
    assert threads == []


@pytest.mark.skipif(body_module.NOWAIT is None, reason="only Linux can tell")
def test_a_client_that_takes_all_at_once_does_not_hold_the_loop(
    directory, run, monkeypatch
):
    read = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda fd, buffers, offset, _: read(fd, buffers, offset)
    )
    app = Gateway(make(sending(directory / "large.bin")))

    async def main():
        client = Client()
        task = client.start(app)
        seen = set()
        while not task.done():
            await asyncio.sleep(0)
            seen.add(len(client.sent))
        await task
        # There was a turn after each block, and not one after all of them.
        assert len(seen) >= len(LARGE) // FileBody.block_size

    run(main())


def test_a_client_that_leaves_has_the_file_closed(directory, run):
    app = Gateway(make(sending(directory / "large.bin")))

    async def main():
        client = Client()
        client.reads.clear()
        task = client.start(app)
        await client.until(lambda: client.is_sent_to)
        assert len(opened(directory)) == 1
        client.leave(send_fails=True)
        client.reads.set()
        await task

    run(main())
    assert opened(directory) == []


def test_a_request_that_is_cancelled_has_the_file_closed(directory, run):
    app = Gateway(make(sending(directory / "large.bin")))

    async def main():
        client = Client()
        client.reads.clear()
        task = client.start(app)
        await client.until(lambda: client.is_sent_to)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert opened(directory) == []


def test_a_response_that_is_thrown_away_has_the_file_closed(directory):
    async def view(request):
        FileResponse(directory / "large.bin", request)
        raise LookupError

    async def recover(request):
        return Response("recovered")

    def handle(config):
        config.add_exception_view(recover, context=LookupError)

    assert ask(make(view, handle))[2] == b"recovered"
    gc.collect()
    assert opened(directory) == []


@pytest.mark.parametrize("path", ["/", "/static/large.bin"])
@pytest.mark.parametrize("end", ["an error", "another response"])
def test_a_response_that_gets_lost_has_the_file_closed(
    directory, monkeypatch, path, end
):
    def lose(handler, registry):
        def tween(request):
            # The error refers to this frame, and the request to the error.
            request.lost = handler(request)
            assert opened(directory)
            if end == "an error":
                raise LookupError
            return Response("another")

        return tween

    def configure(config):
        config.include("aioext.assets")
        config.add_tween(f"{__name__}.lose", under=EXCVIEW)
        config.add_static_view("static", "sent:")
        config.add_exception_view(
            lambda request: Response("recovered"), context=LookupError
        )

    monkeypatch.setitem(globals(), "lose", lose)
    app = make(sending(directory / "large.bin"), configure)
    client = Client(path)
    gc.disable()
    try:
        asyncio.run(client.call(Gateway(app)))
        assert client.body in (b"recovered", b"another")
        assert opened(directory) == []
    finally:
        gc.enable()


def test_a_slow_client_holds_a_block_and_no_thread(directory, run):
    app = make(sending(directory / "large.bin"))

    async def main():
        client = Client()
        client.reads.clear()
        task = client.start(Gateway(app))
        await client.until(lambda: client.is_sent_to)
        # All threads are free meanwhile.
        executor = app.registry.getUtility(IExecutor)
        barrier = threading.Barrier(executor.workers)
        jobs = [executor.run(barrier.wait, 20) for _ in range(executor.workers)]
        await asyncio.gather(*jobs)
        client.reads.set()
        await task
        assert client.body == LARGE

    run(main())


def test_a_file_that_becomes_shorter_is_cut(directory, run):
    path = directory / "large.bin"
    app = Gateway(make(sending(path)))

    async def main():
        client = Client()
        client.reads.clear()
        task = client.start(app)
        await client.until(lambda: client.is_sent_to)
        os.truncate(path, SMALL + 10)
        client.reads.set()
        with pytest.raises(OSError, match="shorter"):
            await task
        assert not client.ended

    run(main())
    assert opened(directory) == []


def test_a_file_that_grows_is_sent_as_long_as_was_told(directory, run):
    path = directory / "large.bin"
    app = Gateway(make(sending(path)))

    async def main():
        client = Client()
        client.reads.clear()
        task = client.start(app)
        await client.until(lambda: client.is_sent_to)
        path.write_bytes(LARGE + b"more")
        client.reads.set()
        await task
        assert client.body == LARGE

    run(main())


def test_a_file_that_is_replaced_is_sent_as_it_was(directory, run):
    path = directory / "large.bin"
    app = Gateway(make(sending(path)))

    async def main():
        client = Client()
        client.reads.clear()
        task = client.start(app)
        await client.until(lambda: client.is_sent_to)
        (directory / "new").write_bytes(b"new")
        os.replace(directory / "new", path)
        client.reads.set()
        await task
        assert client.body == LARGE

    run(main())


# What the server has for it ---------------------------------------------------


class Wrapper:
    """A ``wsgi.file_wrapper`` of a server's."""

    made = None

    def __init__(self, file, block_size):
        self.file = file
        self.made.append(self)

    def __iter__(self):
        return iter(lambda: self.file.read(8192), b"")

    def close(self):
        self.file.close()


def test_a_wsgi_server_gets_the_file_itself(directory):
    app = make(sending(directory / "large.bin"))
    Wrapper.made = []
    plain = TestApp(app, extra_environ={"wsgi.file_wrapper": Wrapper})
    assert plain.get("/").body == LARGE
    assert len(Wrapper.made) == 1
    # uWSGI would send it from its first byte.
    answer = plain.get("/", headers={"Range": "bytes=5-9"})
    assert answer.body == LARGE[5:10]
    assert len(Wrapper.made) == 1
    assert opened(directory) == []


def test_a_wrapped_file_gives_a_range(directory):
    file = open(directory / "large.bin", "rb")
    body = FileWrapper(file).app_iter_range(5, 10)
    assert b"".join(body) == LARGE[5:10]
    body.close()
    assert file.closed


def test_a_range_of_a_range(directory):
    file = open(directory / "large.bin", "rb")
    file.seek(100)
    wrapped = FileWrapper(file).app_iter_range(10, 90)
    part = wrapped.app_iter_range(5, 50).app_iter_range(1, 4)
    assert b"".join(part) == LARGE[116:119]
    part.close()
    assert file.closed


def test_what_cannot_seek_gives_no_range():
    reading, writing = os.pipe()
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert not hasattr(FileWrapper(pipe), "app_iter_range")


def test_a_body_is_closed_once(directory):
    file = open(directory / "large.bin", "rb")
    body = FileBody(file, 10)
    part = body.app_iter_range(2, 4)
    body.close()
    assert b"".join(part) == LARGE[2:4]
    part.close()
    part.close()
    assert file.closed
    for used in (lambda: body.app_iter_range(0, 1), lambda: next(body)):
        with pytest.raises(ValueError, match="closed"):
            used()


# Bad input --------------------------------------------------------------------


@both
@pytest.mark.parametrize("name", ["missing", ".", "\0", "a" * 5000])
def test_what_is_no_file(directory, make_view, name):
    with pytest.raises((OSError, ValueError)):
        ask(make(make_view(str(directory / name))))


def test_without_a_request(directory):
    async def view(request):
        return FileResponse(directory / "large.bin")

    app = make(view)
    assert ask(app)[2] == LARGE
    assert ask(app, Range="bytes=1-2")[2] == LARGE[1:3]


# On servers -------------------------------------------------------------------

WSGI = "apps.sent_files_app:wsgi()"
ASGI = "apps.sent_files_app:application"
BIND = ("-b", "127.0.0.1:0", "--no-control-socket")

SERVERS = {
    "worker": ("gunicorn", "-k", WORKER, *BIND, WSGI),
    "sync": ("gunicorn", "-k", "sync", *BIND, WSGI),
    "gthread": ("gunicorn", "-k", "gthread", "--threads", "2", *BIND, WSGI),
    "waitress": ("waitress", "--listen", "127.0.0.1:0", "--call", WSGI[:-2]),
    "uvicorn": ("uvicorn", "--port", "0", ASGI),
    "uwsgi": (*COMMANDS["uwsgi"], f"--module={WSGI}"),
    "uwsgi without a loop": (
        *("uwsgi", "--http-socket", "127.0.0.1:0", "--master", "--die-on-term"),
        *("--enable-threads", "--need-app", f"--module={WSGI}"),
    ),
    "uwsgi with threads": (
        *("uwsgi", "--http-socket", "127.0.0.1:0", "--master", "--die-on-term"),
        *("--threads", "2", "--enable-threads", "--need-app", f"--module={WSGI}"),
    ),
    "granian": ("granian", "--interface", "asgi", "--port", "PORT", ASGI),
}

# What a server's own file_wrapper is; the others have ours read the file.
WRAPPERS = {
    "sync": "gunicorn.http.wsgi.FileWrapper",
    "gthread": "gunicorn.http.wsgi.FileWrapper",
    "waitress": "waitress.buffers.ReadOnlyFileBasedBuffer",
    # It is the file itself: uWSGI remembers that it was asked.
    "uwsgi without a loop": "_io.FileIO",
    # It may be asked in its own thread alone, where coroutines do not run.
    "uwsgi with threads": {"/static/large.bin": "_io.FileIO"},
}
OWN = "aioext.body.FileBody"


def get(server, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request("GET", path, headers=fields)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("name", SERVERS)
def test_on_a_server(directory, name):
    environ = {"SENT_FILES_LARGE": str(directory / "large.bin")}
    with running(Server(SERVERS[name], environ=environ)) as server:
        for path in ("/large", "/static/large.bin"):
            status, headers, body = get(server, path)
            assert (status, body) == (200, LARGE)
            wrapper = WRAPPERS.get(name, OWN)
            if isinstance(wrapper, dict):
                wrapper = wrapper.get(path, OWN)
            assert headers["X-Body"] == wrapper
            assert headers["Content-Length"] == str(len(LARGE))
            etag = headers["ETag"]
            assert get(server, path, If_None_Match=etag)[::2] == (304, b"")
            status, headers, body = get(server, path, Range="bytes=700000-700009")
            assert (status, body) == (206, LARGE[700_000:700_010])
        assert get(server, "/static/small.txt")[2] == b"small"
        if name == "granian":
            # The whole was sent by the server, and the range by us.
            sent = re.findall(r"sends http\.response\.(\w+)", server.output)
            assert sent[:2] == ["start", "pathsend"]
            assert sent.count("pathsend") == 2


@pytest.mark.parametrize("name", SERVERS)
def test_on_a_server_without_the_router(directory, name):
    environ = {
        "SENT_FILES_LARGE": str(directory / "large.bin"),
        "SENT_FILES_WITHOUT_TWEEN": "1",
    }
    path = "/static/small.txt"
    with running(Server(SERVERS[name], environ=environ)) as server:
        for _ in range(3):
            status, headers, body = get(server, path)
            assert (status, body) == (200, b"small")
            assert headers["Content-Length"] == "5"
            etag = headers["ETag"]
            assert get(server, path, If_None_Match=etag)[::2] == (304, b"")
            assert get(server, path, Range="bytes=1-2")[::2] == (206, b"ma")
        assert json.loads(get(server, "/shortcuts")[2]) == [path]


def test_a_server_that_sends_files_by_their_paths(directory, run):
    app = Gateway(make(sending(directory / "large.bin")))
    sent = []

    async def send(message):
        sent.append(message)

    async def ask_server(**others):
        sent.clear()
        client = Client(extensions={"http.response.pathsend": {}}, **others)
        await app(client.scope, client.receive, send)
        return [message["type"].removeprefix("http.response.") for message in sent]

    async def main():
        assert await ask_server() == ["start", "pathsend"]
        assert sent[0]["status"] == 200
        assert sent[1]["path"] == str(directory / "large.bin")
        assert opened(directory) == []
        assert "pathsend" not in await ask_server(method="HEAD")
        assert "pathsend" not in await ask_server(headers=[(b"range", b"bytes=0-5")])
        assert b"".join(each.get("body", b"") for each in sent) == LARGE[:6]

    run(main())


def test_a_client_that_leaves_a_server_that_sends_files(directory, run):
    app = Gateway(make(sending(directory / "large.bin")))

    async def send(message):
        raise BrokenPipeError

    async def main():
        client = Client(extensions={"http.response.pathsend": {}})
        await app(client.scope, client.receive, send)

    run(main())
    assert opened(directory) == []

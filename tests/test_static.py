"""Static views: what Pyramid's give, without a thread, and nothing from outside."""

import asyncio
import errno
import gzip
import mimetypes
import os
import sys
import threading
import urllib.parse

import pytest
from asgi import Client
from pyramid.config import Configurator
from pyramid.events import ContextFound
from pyramid.static import static_view
from webtest import TestApp

from aioext.assets import files, response, static
from aioext.assets.files import SMALL
from aioext.gateway import Gateway

LONG_AGO = 1_000_000_000
HEADERS = ("Content-Type", "Content-Length", "Location", "Content-Encoding", "Vary")
CACHING = ("Cache-Control", "Last-Modified")


def write(path, content, mtime=LONG_AGO):
    content = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (mtime, mtime))
    return path


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A package ``shown`` with a directory ``static``, and secrets around that."""
    package = tmp_path / "shown"
    root = package / "static"
    write(package / "__init__.py", "")
    write(package / "secret.txt", "secret")
    write(tmp_path / "secret.txt", "secret")
    write(root / "app.css", "a { color: red }" * 20)
    write(root / "app.css.gz", gzip.compress(b"a { color: red }" * 20))
    write(root / "page.html", "<p>page")
    write(root / "data.json", "{}")
    write(root / "noext", "?")
    write(root / "grüße.txt", "hallo")
    write(root / "a b.txt", "blank")
    write(root / "dir" / "index.html", "<p>index")
    write(root / "empty" / "x.txt", "x")
    write(root / "large.bin", os.urandom(1000) * 1000)
    write(package / "other" / "app.css", "other")
    write(package / "other" / "only.css", "only")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "shown", raising=False)
    return root


def make(spec, *steps, ours=True, name="static", settings=(), **options):
    config = Configurator(settings=dict(settings))
    config.include("aioext")
    if ours:
        config.include("aioext.assets.static")
    for step in steps:
        step(config)
    config.add_static_view(name, str(spec), **options)
    return config.make_wsgi_app()


def on_loop(app, path, method="GET", **headers):
    path, _, query = path.partition("?")
    fields = [
        (name.replace("_", "-").lower().encode(), value.encode())
        for name, value in headers.items()
    ]
    client = Client(
        path,
        method=method,
        query_string=query.encode(),
        headers=[(b"host", b"localhost"), *fields],
    )
    asyncio.run(client.call(Gateway(app)))
    status, found, body = client.response
    return status, {n.decode().title(): v.decode() for n, v in found}, body


def on_wsgi(app, path, method="GET", **headers):
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = TestApp(app).request(
        path.replace(" ", "%20"), method=method, headers=fields, expect_errors=True
    )
    return answer.status_int, {n.title(): v for n, v in answer.headerlist}, answer.body


@pytest.fixture(params=[on_loop, on_wsgi])
def ask(request):
    return request.param


# As Pyramid's -----------------------------------------------------------------

PATHS = [
    "/static/app.css",
    "/static/page.html",
    "/static/data.json",
    "/static/noext",
    "/static/grüße.txt",
    "/static/a b.txt",
    "/static/large.bin",
    "/static/dir",
    "/static/dir?a=1",
    "/static/dir/",
    "/static/dir/index.html",
    "/static/empty/",
    "/static/empty",
    "/static/",
    "/static",
    "/static/missing.css",
    "/static/app.css/",
    "/static/app.css/more",
    "/static//app.css",
    "/static/dir/../app.css",
    "/static/./app.css",
    "/static/../secret.txt",
    "/static/dir/../../secret.txt",
    "/static/..",
]

OPTIONS = [
    {},
    {"cache_max_age": 60},
    {"cache_max_age": 0},
    {"content_encodings": ["gzip"]},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("by", ["path", "package"])
def test_everything_is_answered_as_by_pyramid(root, by, options):
    spec = root if by == "path" else "shown:static"
    ours = make(spec, **options)
    theirs = make(spec, ours=False, **options)
    for path in PATHS:
        for method in ("GET", "HEAD", "POST"):
            for encoding in ("", "gzip", "br, gzip;q=0", "identity"):
                sent = {"Accept_Encoding": encoding} if encoding else {}
                first = on_loop(ours, path, method, **sent)
                again = on_loop(ours, path, method, **sent)
                other = on_loop(theirs, path, method, **sent)
                shown = (path, method, encoding)
                for each in (first, again):
                    # It tells the time.
                    each[1].pop("Expires", None)
                assert first == again, shown
                assert first[0] == other[0], shown
                if other[0] == 200:
                    assert first[2] == other[2], shown
                names = HEADERS
                if other[0] == 200 and options.get("cache_max_age") != 0:
                    names += CACHING
                for name in names:
                    assert first[1].get(name) == other[1].get(name), (shown, name)


def test_on_a_plain_wsgi_server(root):
    ours, theirs = make(root), make(root, ours=False)
    for path in ("/static/app.css", "/static/large.bin", "/static/missing"):
        first, other = on_wsgi(ours, path), on_wsgi(theirs, path)
        assert first[0] == other[0]
        if other[0] == 200:
            assert first[2] == other[2]


@pytest.mark.parametrize("mode", ["executor", "inline", "request"])
def test_wherever_views_run(root, ask, mode):
    app = make("shown:static", settings={"aioext.sync_views": mode})
    for _ in range(2):
        for name in ("app.css", "large.bin"):
            whole = (root / name).read_bytes()
            assert ask(app, f"/static/{name}")[2] == whole
            assert ask(app, f"/static/{name}", Range="bytes=9-19")[2] == whole[9:20]


@pytest.mark.parametrize("spec", ["shown:static", "shown:static/"])
def test_overridden_assets(root, ask, spec):
    def override(config):
        config.override_asset("shown:static/", "shown:other/")
        config.override_asset("shown:static/page.html", "shown:static/data.json")

    app = make(spec, override)
    assert ask(app, "/static/app.css")[2] == b"other"
    assert ask(app, "/static/only.css")[2] == b"only"
    assert ask(app, "/static/page.html")[2] == b"{}"
    assert ask(app, "/static/noext")[2] == b"?"


def test_a_whole_package(root, ask):
    app = make("shown:")
    assert ask(app, "/static/static/noext")[2] == b"?"
    assert ask(app, "/static/static/../secret.txt")[2] == b"secret"
    assert ask(app, "/static/../../secret.txt")[2] == b"secret"


def test_types_that_the_application_has_added_stay(root, ask):
    def add(config):
        mimetypes.add_type("text/x-own", ".own")
        config.include("aioext.assets.static")

    write(root / "a.own", "own")
    app = make(root, add)
    assert ask(app, "/static/a.own")[1]["Content-Type"].startswith("text/x-own")


def test_a_permission_holds(root, ask):
    class Policy:
        def identity(self, request):
            return request.headers.get("User")

        authenticated_userid = identity

        def permits(self, request, context, permission):
            return self.identity(request) == "joe"

    def secure(config):
        config.set_security_policy(Policy())

    app = make(root, secure, permission="view")
    assert ask(app, "/static/app.css")[0] == 403
    assert ask(app, "/static/app.css", User="joe")[0] == 200
    assert ask(app, "/static/app.css")[0] == 403


def test_a_route_prefix_and_two_views(root, ask):
    def include(config):
        config.route_prefix = "under"
        config.add_static_view("files", str(root))
        config.route_prefix = None

    app = make(root / "dir", include)
    assert ask(app, "/under/files/noext")[2] == b"?"
    assert ask(app, "/static/index.html")[2] == b"<p>index"


def test_a_static_view_that_is_added_as_a_view(root, ask):
    def add(config):
        config.add_route("own", "/own/*subpath")
        config.add_view(static_view(str(root), use_subpath=True), route_name="own")
        # By the path of the request, as for a favicon.
        config.add_notfound_view(static_view(str(root), use_subpath=False))

    app = make(root, add)
    assert ask(app, "/own/noext")[2] == b"?"
    assert ask(app, "/noext")[2] == b"?"


def test_a_subclass_with_a_way_of_its_own_is_left_alone(root, ask):
    class Own(static_view):
        def find_resource_path(self, name):
            return super().find_resource_path(name.replace("old", "noext"))

    class Same(static_view):
        pass

    class Called(static_view):
        def __call__(self, context, request):
            response = super().__call__(context, request)
            response.headers["X-Own"] = "yes"
            return response

    def add(config):
        for name, cls in (("own", Own), ("same", Same), ("called", Called)):
            config.add_route(name, f"/{name}/*subpath")
            config.add_view(cls(str(root), use_subpath=True), route_name=name)

    app = make(root, add)
    assert ask(app, "/own/old")[2] == b"?"
    assert "Etag" in ask(app, "/same/noext")[1]
    assert ask(app, "/called/noext")[1]["X-Own"] == "yes"


def test_what_stands_around_the_view_holds(root, ask):
    def deriver(view, info):
        def marked(context, request):
            response = view(context, request)
            response.headers["X-Marked"] = "yes"
            return response

        return marked

    app = make(root, lambda config: config.add_view_deriver(deriver))
    for path in ("/static/noext", "/static/noext", "/static/large.bin"):
        assert ask(app, path)[1]["X-Marked"] == "yes"


def test_callbacks_and_cookies_do_not_stay(root, ask):
    def tween(handler, registry):
        def handle(request):
            response = handler(request)
            response.set_cookie("seen", request.params.get("n", ""))
            return response

        return handle

    globals()["_tween"] = tween
    app = make(root, lambda config: config.add_tween(f"{__name__}._tween"))
    for number in "123":
        found = ask(app, f"/static/noext?n={number}")[1]
        assert found["Set-Cookie"].startswith(f"seen={number}")


# Conditions and ranges --------------------------------------------------------


def test_a_file_that_the_client_has(root, ask):
    app = make(root, cache_max_age=60, content_encodings=["gzip"])
    for path in ("/static/app.css", "/static/large.bin"):
        _, found, _ = ask(app, path)
        for sent in (
            {"If_None_Match": found["Etag"]},
            {"If_None_Match": f'W/{found["Etag"]}, "x"'},
            {"If_Modified_Since": found["Last-Modified"]},
        ):
            for method in ("GET", "HEAD"):
                status, told, body = ask(app, path, method, **sent)
                assert (status, body) == (304, b"")
                assert told["Etag"] == found["Etag"]
                assert told["Cache-Control"] == found["Cache-Control"]
                assert told.get("Vary") == found.get("Vary")
                assert "Content-Length" not in told
                assert "Content-Type" not in told
        assert ask(app, path, If_None_Match='"other"')[0] == 200
        assert ask(app, path, If_Match='"other"')[0] == 412
        assert ask(app, path, If_Match=found["Etag"])[0] == 200


def test_an_encoded_file_has_another_etag(root):
    # WebTest decodes what it gets.
    ask = on_loop
    app = make(root, content_encodings=["gzip"])
    plain = ask(app, "/static/app.css")[1]["Etag"]
    encoded = ask(app, "/static/app.css", Accept_Encoding="gzip")
    assert encoded[1]["Content-Encoding"] == "gzip"
    assert gzip.decompress(encoded[2]) == (root / "app.css").read_bytes()
    assert encoded[1]["Etag"] != plain
    # And so has one of the same size and time in another encoding.
    write(root / "app.css.gz", "gzip")
    write(root / "app.css.br", "br  ")
    app = make(root, content_encodings=["gzip", "br"])
    gzipped = ask(app, "/static/app.css", Accept_Encoding="gzip")
    brotli = ask(app, "/static/app.css", Accept_Encoding="br")
    assert (gzipped[2], brotli[2]) == (b"gzip", b"br  ")
    assert gzipped[1]["Etag"] != brotli[1]["Etag"]
    sent = {"If_None_Match": plain, "Accept_Encoding": "gzip"}
    assert ask(app, "/static/app.css", **sent)[0] == 200


@pytest.mark.parametrize("name", ["app.css", "large.bin"])
def test_ranges(root, ask, name):
    app = make(root)
    path, whole = f"/static/{name}", (root / name).read_bytes()
    for given, expected in (
        ("bytes=0-4", (0, 5)),
        ("bytes=-5", (len(whole) - 5, None)),
    ):
        status, found, body = ask(app, path, Range=given)
        assert (status, body) == (206, whole[slice(*expected)])
        assert found["Content-Length"] == "5"
    status, found, body = ask(app, path, Range=f"bytes={len(whole)}-")
    assert (status, found["Content-Range"]) == (416, f"bytes */{len(whole)}")
    for given in ("bytes=0-1,5-6", "lines=1-2", "bytes=9-1", "bytes=" + "0-,," * 5000):
        assert ask(app, path, Range=given)[::2] == (200, whole)
    assert ask(app, path, Range="bytes=0-4", If_Range='"other"')[::2] == (200, whole)
    start, stop = len(whole) // 2, len(whole) // 2 + 99
    found = ask(app, path, Range=f"bytes={start}-{stop}")
    assert found[2] == whole[start : stop + 1]


# What changes -----------------------------------------------------------------


def test_a_file_that_changes(root, ask, monkeypatch):
    monkeypatch.setattr(files, "TICK_NS", 0)
    app = make(root, settings={"pyramid.reload_assets": "true"})
    for path, size in (("page.html", 5), ("page.html", 50), ("page.html", SMALL + 1)):
        write(root / path, "n" * size, LONG_AGO + size)
        assert len(ask(app, f"/static/{path}")[2]) == size
    (root / "page.html").unlink()
    assert ask(app, "/static/page.html")[0] == 404
    write(root / "page.html", "again")
    assert ask(app, "/static/page.html")[2] == b"again"


def test_a_new_file_is_seen_without_a_reload(root, ask):
    app = make(root)
    assert ask(app, "/static/new.css")[0] == 404
    write(root / "new.css", "new")
    assert ask(app, "/static/new.css")[2] == b"new"


def test_a_large_file_that_is_replaced_between_two_looks(root, ask):
    # It is known for a second, and its length must be that of what is sent.
    app = make(root)
    assert len(ask(app, "/static/large.bin")[2]) == 1_000_000
    write(root / "large.new", b"x" * (SMALL + 7))
    os.replace(root / "large.new", root / "large.bin")
    status, found, body = ask(app, "/static/large.bin")
    assert (status, body) == (200, b"x" * (SMALL + 7))
    assert found["Content-Length"] == str(SMALL + 7)


def test_a_large_file_that_has_gone_between_two_looks(root, ask):
    app = make(root)
    assert ask(app, "/static/large.bin")[0] == 200
    (root / "large.bin").unlink()
    assert ask(app, "/static/large.bin")[0] == 404


def test_a_file_that_was_dropped_from_the_memory(root, ask):
    app = make(root, settings={"aioext.assets.memory": "0"})
    for _ in range(3):
        assert ask(app, "/static/noext")[2] == b"?"
        assert ask(app, "/static/noext", Range="bytes=0-0")[0] == 206


def test_names_are_not_remembered_without_end(root, monkeypatch):
    monkeypatch.setattr(static, "MAX_FOUND", 3)
    seen = []
    made = static._Directory.__init__

    def remember(self, *args):
        made(self, *args)
        seen.append(self)

    monkeypatch.setattr(static._Directory, "__init__", remember)
    app = make(root)
    for number in range(20):
        write(root / f"{number}.txt", "x")
        on_loop(app, f"/static/{number}.txt")
        on_loop(app, f"/static/missing{number}")
    assert 0 < len(seen[0]._found) <= 3
    assert not any("missing" in name for (name,) in seen[0]._found)


# Threads ----------------------------------------------------------------------


def test_a_file_that_is_known_takes_no_thread(root, run, monkeypatch):
    def deriver(view, info):
        # With one, every request comes to the view.
        return lambda context, request: view(context, request)

    app = Gateway(make(root, lambda config: config.add_view_deriver(deriver)))
    jobs = []

    async def main():
        await Client("/static/app.css").call(app)
        perform = static.current_executor

        def counted():
            jobs.append(1)
            return perform()

        monkeypatch.setattr(static, "current_executor", counted)
        for _ in range(5):
            client = await Client("/static/app.css").call(app)
            assert client.status == 200

    run(main())
    assert jobs == []


def test_the_loop_goes_on_while_somebody_looks(root, run, monkeypatch):
    looking, may_go_on = threading.Event(), threading.Event()
    look = files.Files.load

    def slow(self, path):
        looking.set()
        assert may_go_on.wait(20)
        return look(self, path)

    monkeypatch.setattr(files.Files, "load", slow)

    async def main():
        app = Gateway(make(root))
        client = Client("/static/app.css")
        task = client.start(app)
        assert await asyncio.to_thread(looking.wait, 20)
        may_go_on.set()
        await task
        assert client.status == 200

    run(main())


def test_a_request_that_is_cancelled_harms_no_other(root, run, monkeypatch):
    looking, may_go_on = threading.Event(), threading.Event()
    look = files.Files.load

    def slow(self, path):
        looking.set()
        assert may_go_on.wait(20)
        return look(self, path)

    monkeypatch.setattr(files.Files, "load", slow)

    async def main():
        app = Gateway(make(root))
        first = Client("/static/app.css").start(app)
        assert await asyncio.to_thread(looking.wait, 20)
        first.cancel()
        second = Client("/static/app.css")
        other = second.start(app)
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        await other
        assert second.status == 200

    run(main())


# Bad input --------------------------------------------------------------------

BAD = [
    "/static/..%2f..%2fsecret.txt",
    "/static/%2e%2e/secret.txt",
    "/static/%2e%2e%2fsecret.txt",
    "/static/dir%2f..%2f..%2fsecret.txt",
    "/static/..%5csecret.txt",
    "/static/..\\secret.txt",
    "/static/app.css%00",
    "/static/%00",
    "/static/app.css%00.html",
    "/static//etc/passwd",
    "/static/%2fetc/passwd",
    "/static/shown:secret.txt",
    "/static/" + "a" * 5000,
    "/static/" + "a/" * 3000,
    "/static/~root",
    "/static/...",
    "/static/. /secret.txt",
    "/static/C:/secret.txt",
]


@pytest.mark.parametrize("by", ["path", "package"])
@pytest.mark.parametrize("path", BAD)
def test_nothing_is_read_outside(root, by, path):
    app = make(root if by == "path" else "shown:static", content_encodings=["gzip"])
    status, _, body = on_loop(app, urllib.parse.unquote(path))
    assert status == 404
    assert b"secret" not in body.replace(b"secret.txt", b"")


@pytest.mark.parametrize("by", ["path", "package"])
@pytest.mark.parametrize(
    "subpath",
    [("..", "secret.txt"), ("../secret.txt",), ("dir", "..", "..", "secret.txt")],
)
def test_nothing_is_read_outside_whoever_has_made_the_subpath(root, by, subpath):
    def set_subpath(event):
        event.request.subpath = subpath

    def subscribe(config):
        config.add_subscriber(set_subpath, ContextFound)

    app = make(root if by == "path" else "shown:static", subscribe)
    assert on_loop(app, "/static/noext")[0] == 404


def test_a_name_that_is_no_utf_8(root):
    app = make(root)
    status, _, _ = on_loop(app, b"/static/\xff".decode("utf-8", "surrogateescape"))
    assert status == 400


@pytest.mark.parametrize("by", ["path", "package"])
def test_symbolic_links(root, ask, by, caplog):
    (root / "out.txt").symlink_to(root.parent / "secret.txt")
    (root / "up").symlink_to(root.parent)
    (root / "in.txt").symlink_to(root / "noext")
    (root / "loop").symlink_to(root / "loop")
    (root / "dangling").symlink_to(root / "nowhere")
    spec = root if by == "path" else "shown:static"
    app = make(spec)
    for name in ("out.txt", "up/secret.txt", "loop", "dangling"):
        assert ask(app, f"/static/{name}")[0] == 404
    assert "symlinks = any" in caplog.text
    assert ask(app, "/static/in.txt")[2] == b"?"
    app = make(spec, settings={"aioext.assets.symlinks": "any"})
    assert ask(app, "/static/out.txt")[2] == b"secret"
    assert ask(app, "/static/up/secret.txt")[2] == b"secret"


@pytest.mark.parametrize("name", ["large.bin", "dir/large.bin"])
def test_a_link_that_comes_between_two_looks(root, ask, tmp_path, name):
    secrets = tmp_path / "secrets"
    write(secrets / "large.bin", b"secret" * SMALL)
    write(root / name, b"x" * (SMALL + 1))
    app = make(root)
    assert ask(app, f"/static/{name}")[0] == 200
    if "/" in name:
        (root / "dir").rename(root / "away")
        (root / "dir").symlink_to(secrets)
    else:
        (root / name).unlink()
        (root / name).symlink_to(secrets / "large.bin")
    descriptors = len(os.listdir("/proc/self/fd"))
    for headers in {}, {"Range": "bytes=0-3"}, {"If_Match": "*"}:
        status, _, body = ask(app, f"/static/{name}", **headers)
        assert (status, b"secret" in body) == (404, False)
    assert len(os.listdir("/proc/self/fd")) <= descriptors


@pytest.mark.parametrize("name", ["page.html", "dir/index.html", "large.bin"])
def test_a_link_that_is_there_only_while_the_file_is_opened(
    root, tmp_path, monkeypatch, name
):
    secrets = tmp_path / "secrets"
    write(secrets / os.path.basename(name), b"secret" * len((root / name).read_bytes()))
    there, away = root / name.split("/")[0], root / "away"
    target = secrets if "/" in name else secrets / name

    def exchanged(function):
        def exchange(*args):
            there.rename(away)
            there.symlink_to(target)
            try:
                return function(*args)
            finally:
                there.unlink()
                away.rename(there)

        return exchange

    app = make(root)
    for module, function in ((files, "open_file"), (response, "open_file")):
        opened = exchanged(getattr(module, function))
        monkeypatch.setattr(module, function, opened)
    assert on_loop(app, f"/static/{name}")[0] == 404
    monkeypatch.undo()
    assert on_loop(app, f"/static/{name}")[2] == (root / name).read_bytes()


def test_a_link_that_goes_while_it_is_followed(root, monkeypatch):
    (root / "link").symlink_to(root / "page.html")
    readlink = os.readlink

    def gone(path, **options):
        if os.path.basename(path) == "link":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        return readlink(path, **options)

    app = make(root)
    with monkeypatch.context() as patch:
        patch.setattr(os, "readlink", gone)
        assert on_loop(app, "/static/link")[0] == 404
    assert on_loop(app, "/static/link")[0] == 200


def test_a_file_that_is_replaced_while_it_is_opened(root, monkeypatch):
    # By another one of this directory, as a deployment does.
    replaced = []
    load = files.Files.load

    def load_and_replace(self, path):
        found = load(self, path)
        if not replaced:
            replaced.append(path)
            os.replace(write(root / "new", "new"), path)
        return found

    monkeypatch.setattr(files.Files, "load", load_and_replace)
    assert on_loop(make(root), "/static/page.html")[::2] == (200, b"new")
    assert replaced


def test_a_directory_that_is_itself_a_link(root, ask, tmp_path):
    (tmp_path / "linked").symlink_to(root)
    assert ask(make(tmp_path / "linked"), "/static/noext")[2] == b"?"


def test_an_encoded_file_outside(root, ask):
    (root / "noext.gz").symlink_to(root.parent / "secret.txt")
    app = make(root, content_encodings=["gzip"])
    found = ask(app, "/static/noext", Accept_Encoding="gzip")
    assert found[2] == b"?"
    assert "Content-Encoding" not in found[1]


@pytest.mark.parametrize("kind", ["fifo", "unreadable", "index"])
def test_what_is_no_file(root, ask, kind, caplog, monkeypatch):
    path = root / "odd.txt"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "index":
        (root / "empty" / "index.html").mkdir()
        path = root / "empty"
    else:
        path.write_text("secret")

        def refuse(path):
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr(files, "open_file", refuse)
    status, _, body = ask(make(root), f"/static/{path.relative_to(root)}/")
    assert status == 404
    assert b"secret" not in body
    if kind == "unreadable":
        assert "Permission denied" in caplog.text


@pytest.mark.parametrize("accepted", ["", "*", "gzip;q=nonsense", ",,,", "gzip" * 500])
def test_nonsense_for_an_encoding(root, ask, accepted):
    app = make(root, content_encodings=["gzip"])
    assert ask(app, "/static/app.css", Accept_Encoding=accepted)[0] == 200


def test_long_headers_are_not_remembered(root, ask):
    app = make(root, content_encodings=["gzip"])
    static._remembered.cache_clear()
    for accepted in ("x" * 1000 + ",gzip", "gzip", "gzip;q=0" + " " * 1000):
        found = ask(app, "/static/app.css", Accept_Encoding=accepted)[1]
        assert found["Etag"].endswith('-gzip"') == ("q=0" not in accepted)
    assert static._remembered.cache_info().currsize == 1


def test_ours_is_not_used_unless_included(root, ask):
    assert "Etag" not in ask(make(root, ours=False), "/static/noext")[1]

"""``config.add_mount``: several applications in one process, called in process."""

import asyncio
import contextlib
import io
import json
import threading
from contextvars import ContextVar
from urllib.parse import unquote

import pytest
from asgi import Client
from flask import Flask, stream_with_context
from flask import request as flask_request
from inprocess import EXECUTOR, LOOP, make_app, where
from pyramid.config import Configurator
from pyramid.exceptions import (
    ConfigurationConflictError,
    ConfigurationError,
    ConfigurationExecutionError,
)
from pyramid.httpexceptions import HTTPForbidden
from pyramid.request import Request
from pyramid.response import Response
from pyramid.threadlocal import get_current_registry, get_current_request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import aioext
from aioext.asgi import Gateway
from aioext.interfaces import ILifespan
from aioext.lifespan import lifespans_of
from aioext.limits import BodyTooLarge

HOST = [(b"host", b"www.example.com")]


def paths(environ, start_response):
    """A WSGI application that says where it is."""
    body = f"{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}|{where()}".encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


async def asgi_paths(scope, receive, send):
    """An ASGI application that does, and knows no lifespan."""
    assert scope["type"] == "http"
    body = f"{scope['root_path']}|{scope['path']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def mounted(*args, **options):
    """A step of :func:`make_app`."""
    return lambda config: config.add_mount(*args, **options)


def ask(app, path="/", **scope):
    return asyncio.run(Client(path, **scope).call(app))


def refused(*args, **options):
    """The message of the error that add_mount raises at once."""
    config = Configurator()
    config.include("aioext")
    with pytest.raises(ConfigurationError) as caught:
        config.add_mount(*args, **options)
    message = str(caught.value)
    assert "errors.html#mounts" in message
    return message


# The directive


@pytest.mark.parametrize("app", [paths, f"{__name__}:paths", f"{__name__}.paths"])
def test_an_application_is_mounted_by_itself_or_by_its_name(app):
    assert ask(make_app(mounted("/a", app)), "/a/x").body == b"/a|/x|executor"


@pytest.mark.parametrize(
    ("mount", "requested", "expected"),
    [
        ("/a", "/a", b"/a||executor"),
        ("/a", "/a/", b"/a|/|executor"),
        ("/a/", "/a//x", b"/a|//x|executor"),
        ("/a/b", "/a/b/c", b"/a/b|/c|executor"),
        ("/\xe9", "/\xe9/x", "/\xc3\xa9|/x|executor".encode()),
    ],
)
def test_the_path_moves_to_the_script_name(mount, requested, expected):
    assert ask(make_app(mounted(mount, paths)), requested).body == expected


def test_a_path_is_below_the_route_prefix():
    def part(config):
        config.add_mount("/a", paths)

    def whole(config):
        config.include(part, route_prefix="/api")

    app = make_app(whole)
    assert ask(app, "/api/a/x").body == b"/api/a|/x|executor"
    assert ask(app, "/a/x").status == 404


def test_an_application_is_mounted_for_hosts():
    app = make_app(
        mounted(app=paths, host=("www.example.com", ".example.org")),
        mounted("/a", asgi_paths, host="WWW.Example.com."),
    )
    assert ask(app, "/x", headers=HOST).body == b"|/x|executor"
    assert ask(app, "/a", headers=HOST).body == b"/a|/a"
    for host, status in [
        (b"www.example.com:8080", 200),
        (b"a.b.EXAMPLE.org", 200),
        (b"example.org", 404),
        (b"example.com", 404),
        (b"www.example.com.evil.net", 404),
        (b"www.example.com/", 404),
        (b"x@www.example.com", 404),
        (b"www.example.com,localhost", 404),
    ]:
        assert ask(app, headers=[(b"host", host)]).status == status, host
    # Two of them are joined, and are none.
    assert ask(app, headers=[*HOST, (b"host", b"localhost")]).status == 404


def test_hosts_of_every_form():
    for given, asked in [
        ("::1", b"[::1]:80"),
        ("[0::1]", b"[::1]"),
        ("b\xfccher.example", b"xn--bcher-kva.example"),
        (".b\xfccher.example", b"www.xn--bcher-kva.example"),
        ("10.0.0.1", b"10.0.0.1"),
    ]:
        app = make_app(mounted(app=paths, host=given))
        assert ask(app, headers=[(b"host", asked)]).status == 200, given


def test_what_is_not_mounted_is_the_application_s():
    def routes(config):
        config.add_route("page", "/a/{name}")
        config.add_view(lambda request: Response("page"), route_name="page")

    app = make_app(mounted("/a/b", paths), routes)
    assert ask(app, "/a/c").body == b"page"
    assert ask(app, "/a/b").body == b"/a/b||executor"
    assert ask(app, "/a/bc").body == b"page"


@pytest.mark.parametrize(
    "path", ["//a/x", "/./a", "/x/../a/x", "/x/%2e%2e/a", "a", "%61/x", "../a"]
)
def test_another_spelling_of_a_path_leads_nowhere(path):
    # Pyramid's traversal would find the resource of that name.
    def traversal(config):
        config.set_root_factory(lambda request: {"a": {"x": {}}})
        config.add_view(lambda request: Response("a resource"))

    for mount in (paths, asgi_paths):
        app = make_app(mounted("/a", mount), traversal)
        client = ask(app, unquote(path), raw_path=path.encode())
        assert client.status == 404
    assert ask(make_app(traversal), unquote(path)).body == b"a resource"


def test_without_a_mount_nothing_is_added():
    names = {
        type(utility.component).__name__: bool(utility.component)
        for utility in make_app().app.registry.registeredUtilities()
    }
    assert names["Mounts"] is False
    assert type(make_app().app.execution_policy.policy).__name__ != "_Policy"


def test_a_mount_is_introspectable():
    config = Configurator()
    config.include("aioext")
    config.add_mount("/a", paths, host=("a.org", ".b.org"), inline=True)
    config.commit()
    category = config.registry.introspector.get_category("mounts")
    found = [each["introspectable"] for each in category]
    assert [each.title for each in found] == ["a.org/a", ".b.org/a"]
    assert dict(found[0]) == {
        "host": "a.org",
        "path": "/a",
        "app": paths,
        "kind": "wsgi",
        "inline": True,
    }
    assert "test_mounts" in found[0].action_info.file


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"path": "/a"}, {"path": "/a/"}),
        ({"path": "/a", "host": "A.org"}, {"path": "/a", "host": ("b.org", "a.org.")}),
        ({"host": "a.org"}, {"host": "a.org", "path": "/"}),
    ],
)
def test_two_mounts_at_one_place_are_a_conflict(first, second):
    config = Configurator()
    config.include("aioext")
    config.add_mount(app=paths, **first)
    config.add_mount(app=paths, **second)
    with pytest.raises(ConfigurationConflictError):
        config.commit()


def test_one_place_for_each_host_is_none():
    make_app(
        mounted("/a", paths),
        mounted("/a", paths, host="a.org"),
        mounted("/a", paths, host=".a.org"),
        mounted("/b", paths, host=("a.org", "a.org")),
    )


def test_nowhere_is_refused():
    for options in ({}, {"path": "/"}, {"path": "//"}):
        assert "a path other than" in refused(app=paths, **options)


@pytest.mark.parametrize("path", ["", "a", "a/b", 1, b"/a", "http://a.org/"])
def test_a_path_without_a_slash_is_refused(path):
    assert 'config.add_mount("/path", app)' in refused(path, paths)


@pytest.mark.parametrize("path", ["/a//b", "/a/../b", "/./a", "/a?b", "/a#b", "/%20"])
def test_a_path_that_no_request_has_is_refused(path):
    assert repr(path) in refused(path, paths)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "a.org:80",
        "a.org:",
        "[::1]:80",
        "a b",
        "*.a.org",
        "http://a.org",
        "a..org",
        "b\xfc..example",
        (),
        1,
        (1,),
        ("a.org", None),
    ],
)
def test_a_host_that_is_none_is_refused(host):
    assert "add_mount() was given the host" in refused("/a", paths, host=host)


@pytest.mark.parametrize("app", [None, 1, object(), lambda request: None, {}])
def test_what_is_no_application_is_refused(app):
    assert "neither a WSGI nor an ASGI application" in refused("/a", app)


@pytest.mark.parametrize(
    "name", ["no_such_module:app", f"{__name__}:nothing", "not a name", "test_mounts:"]
)
def test_a_name_that_stands_for_nothing_is_refused(name):
    assert f"{name!r}, which cannot be imported: " in refused("/a", name)


def test_an_error_in_a_module_that_is_named_keeps_its_traceback(tmp_path, monkeypatch):
    (tmp_path / "broken_mount.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = Configurator()
    config.include("aioext")
    with pytest.raises(ConfigurationError, match="no_such_dependency") as caught:
        config.add_mount("/a", "broken_mount:app")
    assert isinstance(caught.value.__cause__, ImportError)


def test_a_mount_of_itself_is_refused():
    config = Configurator()
    config.include("aioext")
    app = config.make_wsgi_app()
    for itself in (app, Gateway(app)):
        with pytest.raises(ConfigurationError, match="this very application"):
            config.add_mount("/a", itself)


def test_inline_is_for_wsgi_applications():
    assert "an ASGI application" in refused("/a", asgi_paths, inline=True)
    assert "includes aioext" in refused("/a", make_app(), inline=True)
    app = make_app(mounted("/a", paths, inline=True))
    assert ask(app, "/a").body == b"/a||loop"


# The setting


def test_mounts_are_named_in_settings():
    lines = f"""
        /a {__name__}:paths
        www.example.com  {__name__}:asgi_paths
        .example.org/b/c {__name__}:paths
    """
    app = make_app(settings={"aioext.mounts": lines})
    assert ask(app, "/a/x").body == b"/a|/x|executor"
    assert ask(app, "/x", headers=HOST).body == b"|/x"
    host = [(b"host", b"www.example.org")]
    assert ask(app, "/b/c/d", headers=host).body == b"/b/c|/d|executor"
    assert ask(app, "/b", headers=host).status == 404


def test_the_setting_may_be_a_list_of_lines():
    app = make_app(settings={"aioext.mounts": [f"/a {__name__}:paths"]})
    assert ask(app, "/a/x").body == b"/a|/x|executor"


def test_a_name_in_the_setting_may_be_relative_to_the_application(
    tmp_path, monkeypatch
):
    package = tmp_path / "with_mounts"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "blog.py").write_text(f"from {__name__} import paths as app")
    monkeypatch.syspath_prepend(tmp_path)
    settings = {"aioext.mounts": "/a .blog:app"}
    config = Configurator(settings=settings, package="with_mounts")
    config.include("aioext", route_prefix="/b")
    app = config.make_asgi_app()
    assert ask(app, "/b/a/x").body == b"/b/a|/x|executor"


@pytest.mark.parametrize("lines", ["/a", "/a b c", "/a b\n/c", 1, [()]])
def test_a_line_that_is_none_is_refused(lines):
    with pytest.raises(ConfigurationError, match="lines of a path"):
        make_app(settings={"aioext.mounts": lines})


def test_a_mistake_in_a_line_is_told():
    expected = "In the setting aioext.mounts, /a no_module:app: .* cannot be imported"
    with pytest.raises(ConfigurationExecutionError, match=expected):
        make_app(settings={"aioext.mounts": "/a no_module:app"})


def test_a_line_and_a_statement_for_one_place_are_a_conflict():
    lines = f"/a {__name__}:paths"
    with pytest.raises(ConfigurationExecutionError, match="mounted at /a: one by"):
        make_app(mounted("/a", asgi_paths), settings={"aioext.mounts": lines})
    lines = f"/a {__name__}:paths\n/a/ {__name__}:paths"
    with pytest.raises(ConfigurationConflictError):
        make_app(settings={"aioext.mounts": lines})


def test_after_a_commit_another_one_may_take_the_place():
    def commits(config):
        config.add_mount("/a", asgi_paths)
        config.commit()
        config.add_mount("/a", paths)

    assert ask(make_app(commits), "/a/x").body == b"/a|/x|executor"


def test_a_mount_may_follow_a_commit():
    def commits(config):
        config.commit()
        config.add_mount("/a", paths)
        config.commit()
        config.add_mount("/b", paths)

    app = make_app(commits)
    assert ask(app, "/a/x").body == b"/a|/x|executor"
    assert ask(app, "/b/x").body == b"/b|/x|executor"


def test_a_configurator_may_commit_by_itself():
    app = make_app(mounted("/a", paths), autocommit=True)
    assert ask(app, "/a/x").body == b"/a|/x|executor"


# WSGI applications


def flask_app(name="flask"):
    app = Flask(name)

    @app.route("/")
    def home():
        return f"{name} {flask_request.script_root} {flask_request.path}"

    @app.route("/upload", methods=["POST"])
    def upload():
        return flask_request.get_data()

    @app.route("/where")
    def here():
        return where()

    @app.route("/stream")
    def stream():
        def chunks():
            for _ in range(3):
                yield f"{flask_request.args['q']} {where()}\n"

        return app.response_class(stream_with_context(chunks()))

    return app


def test_flask_runs_in_the_executor():
    app = make_app(mounted("/f", flask_app()))
    assert ask(app, "/f/").body == b"flask /f /"
    assert ask(app, "/f").status == 308
    assert ask(app, "/f/where").body == b"executor"
    assert ask(app, "/f/nothing").status == 404
    assert ask(app, "/f/stream", query_string=b"q=1").body == b"1 executor\n" * 3
    client = ask(app, "/f/upload", method="POST", body=[b"some ", b"text"])
    assert client.body == b"some text"
    assert ask(app, "/f/", method="HEAD").body == b""


def test_flask_may_be_inline():
    app = make_app(mounted("/f", flask_app(), inline=True))
    assert ask(app, "/f/where").body == b"loop"
    assert ask(app, "/f/stream", query_string=b"q=1").body == b"1 loop\n" * 3


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_that_block_do_not_stop_each_other_nor_the_application(run, order):
    events = [threading.Event(), threading.Event()]
    entered = [threading.Event(), threading.Event()]

    def blocking(number):
        def app(environ, start_response):
            entered[number].set()
            assert events[number].wait(10)
            start_response("200 OK", [])
            return [b"%d" % number]

        return app

    def view(config):
        config.add_view(lambda request: Response("view"))

    app = make_app(mounted("/0", blocking(0)), mounted("/1", blocking(1)), view)

    async def overlap():
        tasks = [Client("/0").start(app), Client("/1").start(app)]
        for event in entered:
            await asyncio.to_thread(event.wait, 10)
        assert (await Client("/").call(app)).body == b"view"
        for number in order:
            events[number].set()
            assert (await tasks[number]).body == b"%d" % number

    run(overlap())


def test_every_part_of_a_body_runs_in_a_thread_and_its_context():
    variable = ContextVar("variable")
    seen = []

    class Body:
        def __init__(self, token):
            self.token = token
            self.parts = [b"one", b"two"]

        def __iter__(self):
            seen.append(("iter", where()))
            return self

        def __next__(self):
            seen.append((variable.get(), where()))
            if not self.parts:
                raise StopIteration
            return self.parts.pop(0)

        def close(self):
            seen.append(("close", where()))
            variable.reset(self.token)

    def app(environ, start_response):
        start_response("200 OK", [])
        return Body(variable.set("set"))

    assert ask(make_app(mounted("/a", app)), "/a").parts == [b"one", b"two"]
    steps = ["iter", *["set"] * 3, "close"]
    assert seen == [(each, EXECUTOR) for each in steps]


def test_write_and_errors_after_it(run):
    def app(environ, start_response):
        write = start_response("200 OK", [])
        write(b"written")
        write(b" at once")
        if environ["PATH_INFO"] == "/fail":
            raise LookupError("late")
        return []

    gateway = make_app(mounted("/a", app))
    assert ask(gateway, "/a").parts == [b"written", b" at once"]
    client = Client("/a/fail")
    with pytest.raises(LookupError, match="late"):
        run(client.call(gateway))
    assert client.parts == [b"written", b" at once"]
    assert not client.ended


def test_whoever_is_around_keeps_its_environ():
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/x",
        "SERVER_NAME": "localhost",
    }
    before = dict(environ)

    def changes(environ, start_response):
        environ["changed"] = True
        start_response("200 OK", [])
        return []

    for inline in (False, True):
        app = make_app(mounted("/a", changes, inline=inline)).app
        assert app(environ, lambda *args: None) == []
        assert environ.items() >= before.items()
        assert "changed" not in environ


def test_a_thread_that_takes_too_long_is_answered_for(run):
    entered, released = threading.Event(), threading.Event()

    def slow(environ, start_response):
        entered.set()
        assert released.wait(10)
        start_response("200 OK", [])
        return [b"late"]

    async def wait_for_answer():
        settings = {"aioext.request_timeout": "0.05"}
        client = Client("/a")
        task = client.start(make_app(mounted("/a", slow), settings=settings))
        await client.until(lambda: client.ended)
        assert entered.is_set()
        released.set()
        await task
        assert client.status == 503

    run(wait_for_answer())


def test_an_error_is_the_server_s(run):
    def app(environ, start_response):
        raise LookupError("early")

    def views(config):
        config.add_exception_view(lambda request: Response("caught"), context=Exception)

    client = Client("/a")
    with pytest.raises(LookupError, match="early"):
        run(client.call(make_app(mounted("/a", app), views)))
    assert not client.started


def test_a_client_that_leaves_a_stream_ends_it(run):
    closed = threading.Event()

    class Body:
        def __iter__(self):
            return self

        def __next__(self):
            return b"x"

        def close(self):
            closed.set()

    def app(environ, start_response):
        start_response("200 OK", [])
        return Body()

    async def leave():
        client = Client("/a")
        task = client.start(make_app(mounted("/a", app)))
        await client.until(lambda: len(client.parts) > 3)
        client.leave()
        await task
        assert not client.ended

    run(leave())
    assert closed.is_set()


def test_max_body_holds_for_what_is_mounted():
    def read(environ, start_response):
        data = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [data]

    async def asgi_read(scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    settings = {"aioext.max_body": "4"}
    app = make_app(mounted("/w", read), mounted("/s", asgi_read), settings=settings)
    length = [(b"host", b"localhost"), (b"content-length", b"5")]
    for path in ("/w", "/s"):
        assert ask(app, path, method="POST", body=[b"ab", b"cd"]).body == b"abcd"
        assert ask(app, path, method="POST", body=[b"abcd", b"e"]).status == 413
        client = ask(app, path, method="POST", body=[b"abcde"], headers=length)
        assert (client.status, client.received) == (413, 0)


@pytest.mark.parametrize("inline", [False, True])
def test_a_generator_that_reads_too_much_is_answered_for(inline):
    closed = []

    def generator(environ, start_response):
        try:
            start_response("200 OK", [])
            yield environ["wsgi.input"].read(2)
            yield environ["wsgi.input"].read()
        finally:
            closed.append(environ["PATH_INFO"])

    def begins_with_all(environ, start_response):
        yield from (environ["wsgi.input"].read(), b"")

    settings = {"aioext.max_body": "4"}
    app = make_app(
        mounted("/late", generator, inline=inline),
        mounted("/all", begins_with_all, inline=inline),
        settings=settings,
    )
    given = {"wsgi.input": io.BytesIO(b"abcde"), "wsgi.input_terminated": True}
    in_thread = Request.blank("/all", {"REQUEST_METHOD": "POST", **given})
    status, *_ = in_thread.call_application(app.app, catch_exc_info=True)
    assert status.startswith("413 ")
    assert ask(app, "/all", method="POST", body=[b"abcd", b"e"]).status == 413
    assert ask(app, "/late/1", method="POST", body=[b"ab", b"cd"]).body == b"abcd"
    late = Client("/late/2", method="POST", body=[b"ab", b"cde"])
    with pytest.raises(BodyTooLarge):
        # It has begun to answer.
        asyncio.run(late.call(app))
    assert not late.ended
    assert closed == ["/1", "/2"]


# Pyramid applications


def child(*steps, **options):
    """A Pyramid application to be mounted."""
    return make_app(*steps, **options).app


def seen_by(request):
    """What a view has around it."""
    current = get_current_request()
    return Response(
        json={
            "script": request.script_name,
            "path": request.path_info,
            "own": current is request and get_current_registry() is request.registry,
            "name": request.registry["name"],
            "url": request.route_url("page", name="x"),
        }
    )


def pages(name):
    async def waits(request):
        await asyncio.sleep(0)
        return seen_by(request)

    def routes(config):
        config.registry["name"] = name
        config.add_route("page", "/page/{name}")
        config.add_view(waits, route_name="page")

    return routes


def test_a_pyramid_application_has_its_own_registry_and_request():
    inner = child(pages("inner"))
    app = make_app(mounted("/in", inner), pages("outer"))
    assert json.loads(ask(app, "/in/page/1").body) == {
        "script": "/in",
        "path": "/page/1",
        "own": True,
        "name": "inner",
        "url": "http://localhost/in/page/x",
    }
    assert json.loads(ask(app, "/page/1").body)["name"] == "outer"


def test_requests_of_two_applications_overlap(run):
    barriers = dict.fromkeys(("inner", "outer"), asyncio.Event)
    events = {}
    found = []

    def waiting(name):
        def view(request):
            events[f"{name} entered"].set()
            aioext.wait(events[name].wait())
            own = get_current_request() is request
            found.append((name, own, get_current_registry() is request.registry))
            return Response(name)

        def step(config):
            config.add_view(view, mapper=aioext.config.InlineMapper)

        return step

    inner = child(waiting("inner"))
    app = make_app(mounted("/in", inner), waiting("outer"))

    async def overlap(first, second):
        for name in barriers:
            events[name] = asyncio.Event()
            events[f"{name} entered"] = asyncio.Event()
        tasks = {"inner": Client("/in").start(app), "outer": Client("/").start(app)}
        for name in barriers:
            await events[f"{name} entered"].wait()
        for name in (first, second):
            events[name].set()
            assert (await tasks[name]).body == name.encode()

    run(overlap("inner", "outer"))
    run(overlap("outer", "inner"))
    assert len(found) == 4
    assert all(own and registry for _, own, registry in found)


def test_the_request_of_the_application_around_is_not_current():
    seen = []

    def app(environ, start_response):
        seen.append(get_current_request())
        start_response("200 OK", [])
        return [b""]

    gateway = make_app(mounted("/a", app), mounted("/b", app, inline=True))
    ask(gateway, "/a")
    ask(gateway, "/b")
    assert seen == [None, None]


def test_exceptions_of_a_pyramid_application_are_its_own():
    def views(name):
        def fail(request):
            raise HTTPForbidden

        def step(config):
            config.add_view(fail)
            config.add_forbidden_view(lambda request: Response(name, status=403))

        return step

    app = make_app(mounted("/in", child(views("inner"))), views("outer"))
    assert ask(app, "/in").response[::2] == (403, b"inner")
    assert ask(app, "/").response[::2] == (403, b"outer")


def test_a_pyramid_application_without_aioext_runs_in_the_executor():
    config = Configurator()
    config.add_view(lambda request: Response(where()))
    app = make_app(mounted("/in", config.make_wsgi_app()))
    assert ask(app, "/in").body == b"executor"


def test_a_pyramid_application_says_itself_where_its_views_run():
    def views(config):
        async def coroutine(request):
            return Response(where())

        config.add_view(coroutine, name="loop")
        config.add_view(lambda request: Response(where()), name="thread")

    app = make_app(mounted("/in", child(views)))
    assert ask(app, "/in/loop").body == LOOP.encode()
    assert ask(app, "/in/thread").body == EXECUTOR.encode()


def test_its_own_settings_guard_its_requests(run):
    async def slow(request):
        await asyncio.sleep(60)

    settings = {"aioext.request_timeout": "0.05"}
    inner = child(lambda config: config.add_view(slow), settings=settings)
    around = make_app(mounted("/in", inner))
    assert run(Client("/in").call(around)).status == 503

    async def patient(request):
        await asyncio.sleep(0.2)
        return Response("patient")

    inner = child(lambda config: config.add_view(patient))
    around = make_app(mounted("/in", inner), settings=settings)
    assert run(Client("/in").call(around)).body == b"patient"


def test_mounts_nest():
    innermost = child(mounted("/c", asgi_paths), mounted("/d", paths))
    app = make_app(mounted("/a", child(mounted("/b", innermost))))
    assert ask(app, "/a/b/c/x").body == b"/a/b/c|/a/b/c/x"
    assert ask(app, "/a/b/d/x").body == b"/a/b/d|/x|executor"
    assert ask(app, "/a/b/x").status == 404


def test_a_gateway_is_its_application_here():
    app = make_app(mounted("/in", make_app(pages("inner"))))
    assert json.loads(ask(app, "/in/page/1").body)["own"] is True


# Lifespans


class Record(list):
    def resource(self, name, fail=False):
        @contextlib.asynccontextmanager
        async def opened(registry):
            self.append(f"open {name}")
            if fail:
                raise LookupError(name)
            yield
            self.append(f"close {name}")

        return lambda config: config.add_lifespan(opened)

    def asgi(self, name, fail=None):
        @contextlib.asynccontextmanager
        async def lifespan(app):
            self.append(f"open {name}")
            if fail == "start":
                raise LookupError(name)
            yield {"name": name}
            self.append(f"close {name}")
            if fail == "stop":
                raise LookupError(name)

        async def home(request):
            return PlainTextResponse(request.state.name)

        return Starlette(routes=[Route("/", home)], lifespan=lifespan)


class Server:
    """ASGI's lifespan protocol, from the side of the server."""

    def __init__(self, app):
        self.incoming = asyncio.Queue()
        self.sent = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
        self.task = asyncio.create_task(app(scope, self.incoming.get, self.sent.put))

    async def start(self):
        self.incoming.put_nowait({"type": "lifespan.startup"})
        return await self.sent.get()

    async def stop(self):
        self.incoming.put_nowait({"type": "lifespan.shutdown"})
        answer = await self.sent.get()
        await self.task
        return answer


STARTED = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}


async def live(app, *clients):
    """Start ``app``, have it serve clients, stop it."""
    server = Server(app)
    assert await server.start() == STARTED
    for client in clients:
        await client.call(app)
    assert await server.stop() == STOPPED
    return clients


def test_everything_mounted_is_opened_and_closed_once(run):
    record = Record()
    twice = child(record.resource("twice"))
    starlette = record.asgi("starlette")
    innermost = child(record.resource("innermost"))
    app = make_app(
        record.resource("first"),
        mounted("/a", twice),
        mounted("/b", starlette),
        mounted("/c", child(record.resource("inner"), mounted("/d", innermost))),
        mounted("/e", twice),
        mounted("/f", starlette, host="a.org"),
        record.resource("last"),
    )
    names = ["first", "twice", "starlette", "inner", "innermost", "last"]
    opened = [f"open {name}" for name in names]
    closed = [f"close {name}" for name in reversed(names)]
    (client,) = run(live(app, Client("/b/")))
    assert client.body == b"starlette"
    # What is mounted in one is opened after what that has, in the order of its own.
    assert record == opened + closed


def test_what_was_replaced_after_a_commit_is_not_opened(run):
    record = Record()
    starlette, pyramid = record.asgi("starlette"), child(record.resource("pyramid"))

    def commits(config):
        for path in ("/a", "/b", "/c"):
            config.add_mount(path, record.asgi(f"old {path}"))
        config.add_mount("/d", child(record.resource("old /d")))
        config.add_mount("/e", starlette)
        config.commit()
        config.add_mount("/a", paths)
        config.add_mount("/b", starlette)
        config.add_mount("/d", pyramid)
        config.add_mount("/e", paths)

    run(live(make_app(commits)))
    names = ["old /c", "starlette", "pyramid"]
    opened = [f"open {name}" for name in names]
    assert record == opened + [f"close {name}" for name in reversed(names)]


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_server_s_object_may_contain_them(run, wrapped):
    record = Record()
    inner = child(record.resource("inner"))
    app = make_app(record.resource("outer"), mounted("/in", inner)).app
    if wrapped:
        app = lambda environ, start_response, app=app: app(environ, start_response)  # noqa: E731
    run(live(Gateway(app)))
    assert sorted(record) == ["close inner", "close outer", "open inner", "open outer"]


def test_without_a_lifespan_of_the_server_s_the_first_request_opens(run):
    record = Record()
    inner = child(record.resource("inner"), pages("inner"))
    app = make_app(mounted("/in", inner), mounted("/s", record.asgi("starlette")))

    async def two():
        for path, expected in [("/s/", b"starlette"), ("/in/page/1", b'{"script"')]:
            client = await Client(path).call(app)
            assert client.body.startswith(expected)
        assert (await Client("/s/").call(app)).body == b"starlette"
        assert record == ["open inner", "open starlette"]

    run(two())
    # The loop has ended.
    assert record[2:] == ["close starlette", "close inner"]


@pytest.mark.parametrize("kind", ["pyramid", "asgi"])
def test_one_that_cannot_start_stops_all(run, kind):
    record = Record()
    broken = child(record.resource("b", fail=True))
    if kind == "asgi":
        broken = record.asgi("b", fail="start")
    app = make_app(record.resource("a"), mounted("/b", broken))

    async def start():
        server = Server(app)
        answer = await server.start()
        await server.task
        return answer

    answer = run(start())
    assert answer["type"] == "lifespan.startup.failed"
    assert "LookupError: b" in answer["message"]
    assert record == ["open a", "open b", "close a"]


def test_one_that_cannot_stop_does_not_keep_the_others_from_it(run):
    record = Record()
    app = make_app(record.resource("a"), mounted("/b", record.asgi("b", fail="stop")))

    async def stop():
        server = Server(app)
        assert await server.start() == STARTED
        return await server.stop()

    answer = run(stop())
    assert answer["type"] == "lifespan.shutdown.failed"
    assert "/b could not stop" in answer["message"]
    assert record == ["open a", "open b", "close b", "close a"]


def test_lifespans_of_applications_that_only_partly_take_part(run):
    async def returns(scope, receive, send):
        if scope["type"] == "http":
            await asgi_paths(scope, receive, send)
            assert "state" not in scope

    async def dies(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            return
        await asgi_paths(scope, receive, send)

    app = make_app(
        mounted("/a", asgi_paths), mounted("/b", returns), mounted("/c", dies)
    )
    clients = run(live(app, *[Client(f"/{each}") for each in "abc"]))
    assert [each.body for each in clients] == [b"/a|/a", b"/b|/b", b"/c|/c"]


def test_an_application_may_be_a_function_that_returns_an_awaitable(run):
    def knows_requests(scope, receive, send):
        if scope["type"] != "http":
            raise LookupError(scope["type"])
        return asyncio.ensure_future(asgi_paths(scope, receive, send))

    app = make_app(mounted("/a", knows_requests))
    (client,) = run(live(app, Client("/a/")))
    assert client.body == b"/a|/a/"


def test_one_that_dies_while_it_serves_is_told_at_the_end(run):
    async def fails(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise LookupError("dead")

    async def stop():
        server = Server(make_app(mounted("/a", fails)))
        assert await server.start() == STARTED
        return await server.stop()

    answer = run(stop())
    assert answer["type"] == "lifespan.shutdown.failed"
    assert "dead" in answer["message"]


def test_a_start_that_is_interrupted_interrupts_what_is_mounted(run):
    entered = asyncio.Event()
    record = []

    async def hangs(scope, receive, send):
        entered.set()
        try:
            await asyncio.sleep(60)
        finally:
            record.append("ended")

    async def interrupt():
        server = Server(make_app(mounted("/a", hangs)))
        server.incoming.put_nowait({"type": "lifespan.startup"})
        await entered.wait()
        server.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await server.task

    run(interrupt())
    assert record == ["ended"]


def test_a_lifespan_may_be_opened_again(run):
    record = Record()
    app = make_app(mounted("/a", record.asgi("a")))
    for _ in range(2):
        (client,) = run(live(app, Client("/a/")))
        assert client.body == b"a"
    assert record == ["open a", "close a"] * 2


def test_one_that_two_others_contain_is_opened_once(run):
    record = Record()
    shared = child(record.resource("shared"))
    first = child(record.resource("first"), mounted("/s", shared))
    app = make_app(mounted("/s", shared), mounted("/first", first))
    run(live(app))
    assert record == ["open shared", "open first", "close first", "close shared"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_first_requests_that_overlap_open_what_is_shared_once(run, order):
    record = Record()
    begun = asyncio.Event()

    @contextlib.asynccontextmanager
    async def slow(registry):
        record.append("open")
        await begun.wait()
        yield
        record.append("close")

    shared = child(lambda config: config.add_lifespan(slow), pages("shared"))
    apps = [make_app(mounted("/s", shared)) for _ in range(2)] + [Gateway(shared)]

    async def ask_all():
        clients = [Client("/s") for _ in apps]
        tasks = [clients[each].start(apps[each]) for each in order]
        # Each of them has come to where it waits.
        for _ in range(50):
            await asyncio.sleep(0)
        begun.set()
        await asyncio.gather(*tasks)

    run(ask_all())
    assert record == ["open", "close"]


def test_a_server_knows_the_settings_of_all():
    innermost = child()
    inner = child(mounted("/in", innermost))
    app = make_app(mounted("/in", inner), mounted("/again", innermost)).app
    lifespans = [
        each.registry.getUtility(ILifespan) for each in (app, inner, innermost)
    ]
    assert lifespans_of(app) == lifespans
    assert lifespans_of(innermost) == lifespans[2:]


def test_requests_that_go_on_are_ended_before_their_application(run):
    record = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            record.append("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answered"})
        await asyncio.sleep(0.05)
        record.append("background")

    def around(app):
        return lambda environ, start_response: app(
            environ, lambda *args: start_response(*args)
        )

    gateway = make_app(mounted("/a", app))
    gateway.app, inner = around(gateway.app), gateway.app

    async def serve():
        async with inner.registry.getUtility(ILifespan).open():
            client = await Client("/a").call(gateway)
            assert client.body == b"answered"

    run(serve())
    assert record == ["background", "shutdown"]


def test_a_gateway_in_middleware_of_asgi_is_an_asgi_application(run):
    record = Record()
    gateway = make_app(pages("inner"), record.resource("inner"))

    async def middleware(scope, receive, send):
        await gateway(scope, receive, send)

    app = make_app(mounted("/in", middleware), record.resource("outer"))
    (client,) = run(live(app, Client("/in/page/1")))
    assert json.loads(client.body) == {
        "script": "/in",
        "path": "/page/1",
        "own": True,
        "name": "inner",
        "url": "http://localhost/in/page/x",
    }
    assert record == ["open inner", "open outer", "close outer", "close inner"]

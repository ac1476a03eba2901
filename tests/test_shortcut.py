"""Static files without the router, and applications that would notice."""

import asyncio
import os
import time

import pytest
from asgi import Client
from pyramid.config import Configurator
from pyramid.events import BeforeRender, NewRequest, NewResponse
from pyramid.httpexceptions import HTTPForbidden
from pyramid.interfaces import (
    IRequestFactory,
    IRootFactory,
    IRoutesMapper,
)
from pyramid.request import Request
from pyramid.response import Response
from pyramid.router import Router
from pyramid.traversal import ResourceTreeTraverser
from pyramid.tweens import EXCVIEW
from webtest import TestApp

from aioext.assets import shortcut
from aioext.assets.shortcut import Shortcuts
from aioext.gateway import Gateway
from aioext.interfaces import IShortcuts

LONG_AGO = 1_000_000_000


@pytest.fixture
def root(tmp_path):
    for name, content in (("a.css", "a {}"), ("b.css", "b {}"), ("a.css.gz", "gz")):
        (tmp_path / name).write_text(content)
        os.utime(tmp_path / name, (LONG_AGO, LONG_AGO))
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "index.html").write_text("<p>")
    return tmp_path


def make(root, *steps, settings=(), options=(), **arguments):
    config = Configurator(settings=dict(settings), **arguments)
    config.include("aioext.assets")
    for step in steps:
        step(config)
    config.add_static_view("static", str(root), **dict(options))
    return config.make_wsgi_app()


@pytest.fixture
def routed(monkeypatch):
    """The paths of the requests that have come to the router."""
    paths = []
    invoke = Router.invoke_request

    def noted(self, request, *args, **kwargs):
        paths.append(request.path_qs)
        return invoke(self, request, *args, **kwargs)

    monkeypatch.setattr(Router, "invoke_request", noted)
    return paths


def ask(app, path="/static/a.css", method="GET", **headers):
    path, _, query = path.partition("?")
    fields = [
        (name.replace("_", "-").lower().encode(), value.encode())
        for name, value in headers.items()
    ]
    client = Client(path, method=method, query_string=query.encode(), headers=fields)
    asyncio.run(client.call(Gateway(app)))
    status, found, body = client.response
    return status, {n.decode().title(): v.decode() for n, v in found}, body


def test_the_second_request_needs_no_router(root, routed):
    app = make(root, options={"cache_max_age": 60})
    first = ask(app)
    assert first[::2] == (200, b"a {}")
    again = ask(app)
    assert len(routed) == 1
    assert {**first[1], "Expires": ""} == {**again[1], "Expires": ""}
    assert ask(app, method="HEAD")[::2] == (200, b"")
    etag = first[1]["Etag"]
    assert ask(app, If_None_Match=etag)[::2] == (304, b"")
    assert ask(app, If_None_Match=f'"x", W/{etag}')[::2] == (304, b"")
    assert ask(app, If_None_Match='"x"')[::2] == (200, b"a {}")
    assert ask(app, If_Modified_Since=first[1]["Last-Modified"])[0] == 304
    assert len(routed) == 1


def test_on_a_plain_wsgi_server(root, routed):
    app = TestApp(make(root))
    for _ in range(3):
        assert app.get("/static/a.css").body == b"a {}"
    assert len(routed) == 1


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"Range": "bytes=0-0"}, 206),
        ("GET", {"If_Match": '"x"'}, 412),
        ("GET", {"If_Unmodified_Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 412),
        ("POST", {}, 200),
    ],
)
def test_what_is_not_simple_takes_the_router(root, routed, method, headers, status):
    app = make(root)
    ask(app)
    assert ask(app, method=method, **headers)[0] == status
    assert len(routed) == 2


def test_encodings(root, routed):
    app = make(root, options={"content_encodings": ["gzip"]})
    for _ in range(2):
        plain, encoded = ask(app), ask(app, Accept_Encoding="gzip")
        assert (plain[2], encoded[2]) == (b"a {}", b"gz")
        assert plain[1]["Vary"] == encoded[1]["Vary"] == "Accept-Encoding"
    assert len(routed) == 1


def test_versions(root, routed):
    app = make(root)
    version = str(LONG_AGO * 10**9)
    ask(app)
    assert "immutable" in ask(app, f"/static/a.css?v={version}")[1]["Cache-Control"]
    assert ask(app, "/static/a.css?v=1")[1]["Cache-Control"] == "no-cache"
    assert "Cache-Control" not in ask(app, "/static/a.css?w=1")[1]
    assert "Cache-Control" not in ask(app)[1]
    assert len(routed) == 1
    path = f"/static/v={version}/a.css"
    assert "immutable" in ask(app, path)[1]["Cache-Control"]
    assert "immutable" in ask(app, path)[1]["Cache-Control"]
    assert len(routed) == 2


def test_a_file_is_looked_at_again(root, routed, monkeypatch):
    app = make(root)
    ask(app)
    (root / "a.css").write_text("changed")
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now + 60)
    assert ask(app)[2] == b"changed"
    assert len(routed) == 2
    (root / "a.css").unlink()
    monkeypatch.setattr("time.monotonic", lambda: now + 120)
    assert ask(app)[0] == 404


def test_nothing_is_remembered_of_what_is_not_there(root, routed):
    app = make(root)
    for _ in range(2):
        for path in ("/static/none", "/static/dir", "/static/dir/", "/static/../x"):
            ask(app, path)
    assert len(routed) == 8
    assert app.registry.getUtility(IShortcuts)._known == {}


def test_what_is_remembered_is_bounded(root, monkeypatch):
    monkeypatch.setattr(shortcut, "MAX_PATHS", 2)
    app = make(root)
    for path in ("/static/a.css", "/static//a.css", "/static/./a.css", "/static/b.css"):
        assert ask(app, path)[0] == 200
        assert len(app.registry.getUtility(IShortcuts)._known) <= 2


@pytest.mark.parametrize("vroot", ["/@@/b.css", "/@@/none", "/elsewhere"])
def test_who_names_a_virtual_root_harms_no_other(root, vroot):
    # Pyramid then looks for the path below the view in this header.
    first, app = make(root), make(root)
    ask(first, X_Vhm_Root=vroot)
    assert ask(first)[::2] == (200, b"a {}")
    for _ in range(2):
        assert ask(app)[::2] == (200, b"a {}")
        assert ask(app, X_Vhm_Root=vroot) == ask(make(root), X_Vhm_Root=vroot)
    assert all(app.registry.getUtility(IShortcuts)._known.values())


def test_another_path_below_the_view_is_not_remembered(root):
    app = make(root)
    find = app.registry.getUtility(IShortcuts)
    request = Request.blank("/static/a.css")
    request.registry = app.registry
    mapper = app.registry.getUtility(IRoutesMapper)
    request.matched_route = mapper.get_route("__static/")
    for subpath, is_kept in (("b.css",), False), (("a.css",), True):
        request.subpath = subpath
        assert find._leads_to(request) is is_kept


def test_a_body_is_limited_all_the_same(root, routed):
    app = make(root, settings={"aioext.max_body": "5"})
    ask(app)
    ask(app)
    assert len(routed) == 1
    assert ask(app, Content_Length="6")[0] == 413
    assert ask(app, Content_Length="5")[0] == 200
    assert ask(app, Transfer_Encoding="chunked")[0] == 200
    assert len(routed) == 3


def test_including_it_after_a_commit(root, routed):
    config = Configurator()
    config.include("aioext")
    config.commit()
    config.include("aioext.assets")
    config.add_static_view("static", str(root))
    app = config.make_wsgi_app()
    ask(app)
    ask(app)
    assert len(routed) == 1


def test_long_paths_are_not_remembered(root):
    # Any version leads to the file, and there are as many as somebody likes.
    app = make(root)
    known = app.registry.getUtility(IShortcuts)._known
    for path in (f"/static/v={'1' * 9999}/a.css", f"/static{'/' * 9999}a.css"):
        assert ask(app, path)[::2] == (200, b"a {}")
        assert known == {}
    assert ask(app, "/static/v=1/a.css")[0] == 200
    assert len(known) == 1


def test_a_mounted_application_comes_first(root):
    def mount(config):
        config.add_mount("/static/b.css", elsewhere)

    def elsewhere(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"mounted"]

    app = make(root, mount)
    for _ in range(2):
        assert ask(app, "/static/b.css")[2] == b"mounted"
        assert ask(app, "/static/a.css")[2] == b"a {}"


# Applications that would notice -----------------------------------------------


def tween(handler, registry):
    return lambda request: handler(request)


class Root:
    def __init__(self, request):
        if "User" not in request.headers:
            raise HTTPForbidden


class OwnRequest(Request):
    pass


class Policy:
    def identity(self, request):
        return None

    authenticated_userid = identity

    def permits(self, request, context, permission):
        return True


def ignore(event):
    pass


def deriver(view, info):
    return lambda context, request: view(context, request)


def execution_policy(environ, router):
    with router.request_context(environ) as request:
        return router.invoke_request(request)


def before(config):
    # By something that is not in the path.
    config.add_route("before", "/static/{name}", request_param="x=1")
    config.add_view(lambda request: Response("before"), route_name="before")


def another_view(config):
    config.add_view(
        lambda request: Response("other"),
        route_name="__static/",
        request_param="x=1",
    )


def hidden_tween(config):
    config.introspection = False
    config.add_tween(f"{__name__}.tween")
    config.introspection = True


def hidden_deriver(config):
    config.introspection = False
    config.add_view_deriver(deriver)
    config.introspection = True


class OwnTraverser(ResourceTreeTraverser):
    pass


class NoTokens:
    def get_csrf_token(self, request):
        return "x"

    def check_csrf_token(self, request, supplied_token):
        return True


def check_every_token(config):
    config.set_csrf_storage_policy(NoTokens())
    config.set_default_csrf_options(require_csrf=True, safe_methods=())


NOTICE = {
    "hidden tween": hidden_tween,
    "hidden deriver": hidden_deriver,
    "root factory of the registry": lambda config: config.registry.registerUtility(
        lambda request: None, IRootFactory
    ),
    "request factory of the registry": lambda config: config.registry.registerUtility(
        OwnRequest, IRequestFactory
    ),
    "traverser": lambda config: config.add_traverser(OwnTraverser),
    "CSRF tokens of every request": check_every_token,
    "tween": lambda config: config.add_tween(f"{__name__}.tween"),
    "request subscriber": lambda config: config.add_subscriber(ignore, NewRequest),
    "response subscriber": lambda config: config.add_subscriber(ignore, NewResponse),
    "subscriber to all": lambda config: config.add_subscriber(ignore),
    "root factory": lambda config: config.set_root_factory(lambda request: None),
    "request factory": lambda config: config.set_request_factory(OwnRequest),
    "factory of a request": lambda config: config.set_request_factory(
        lambda environ: Request(environ)
    ),
    "deriver": lambda config: config.add_view_deriver(deriver),
    "execution policy": lambda config: config.set_execution_policy(execution_policy),
    "a route before": before,
    "another view": another_view,
}


@pytest.mark.parametrize("name", NOTICE)
def test_an_application_that_would_notice(root, routed, name):
    app = make(root, NOTICE[name])
    for _ in range(3):
        assert ask(app)[::2] == (200, b"a {}")
    assert len(routed) == 3
    if name != "execution policy":
        # That is not asked, whatever there is.
        assert not any(app.registry.getUtility(IShortcuts)._known.values())


def test_what_another_route_or_view_answers(root):
    for step, expected in ((before, b"before"), (another_view, b"other")):
        app = make(root, step)
        for _ in range(2):
            assert ask(app)[2] == b"a {}"
            assert ask(app, "/static/a.css?x=1")[2] == expected


@pytest.mark.parametrize(
    "options",
    [
        {"permission": "view"},
        {"factory": Root},
        {"request_method": "GET"},
        {"header": "User"},
    ],
)
def test_a_static_view_that_is_not_for_all(root, routed, options):
    def secure(config):
        config.set_security_policy(Policy())

    app = make(root, secure, options=options)
    for _ in range(2):
        assert ask(app, User="joe")[::2] == (200, b"a {}")
    assert len(routed) == 2
    if "factory" in options:
        assert ask(app)[0] == 403


def test_explicit_tweens(root, routed):
    app = make(root, settings={"pyramid.tweens": f"{__name__}.tween {EXCVIEW}"})
    ask(app)
    ask(app)
    assert len(routed) == 2


def test_an_application_without_introspection(root, routed):
    app = make(root, introspection=False)
    ask(app)
    ask(app)
    assert len(routed) == 2


def test_development(root, routed):
    app = make(root, settings={"pyramid.reload_assets": "true"})
    ask(app)
    ask(app)
    assert len(routed) == 2


def test_a_subscriber_to_something_else_is_no_hindrance(root, routed):
    def subscribe(config):
        config.add_subscriber(ignore, BeforeRender)

    app = make(root, subscribe)
    ask(app)
    ask(app)
    assert len(routed) == 1


def test_including_it_twice(root, routed):
    app = make(root, lambda config: (config.commit(), config.include("aioext.assets")))
    assert isinstance(app.registry.getUtility(IShortcuts), Shortcuts)
    ask(app)
    ask(app)
    assert len(routed) == 1

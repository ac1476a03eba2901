"""Versions of files: in addresses, and what is answered to them."""

import asyncio
import hashlib
import os
import sys
import threading

import pytest
from asgi import Client
from inprocess import answer, make_app
from pyramid import testing
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.httpexceptions import HTTPForbidden
from pyramid.request import Request
from pyramid.response import Response
from pyramid.static import QueryStringConstantCacheBuster, static_view
from webtest import TestApp

from aioext.assets import versions
from aioext.assets.files import SMALL
from aioext.assets.urls import static_version, versioned_static_url
from aioext.assets.versions import HashCacheBuster, MtimeCacheBuster, is_plain, split
from aioext.config import InlineMapper
from aioext.interfaces import IExecutor, IFiles, IVersions

IMMUTABLE = "public, max-age=31536000, immutable"
TIME = 1_600_000_000_123_456_789
HASH = hashlib.sha256(b"one").hexdigest()[:16]


def write(path, content, time=TIME):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(time, time))
    return path


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The directory of a package ``versioned``, which has ``static/a.js``."""
    directory = tmp_path / "versioned"
    write(directory / "__init__.py", b"")
    write(directory / "static" / "a.js", b"one")
    monkeypatch.syspath_prepend(tmp_path)
    yield directory
    sys.modules.pop("versioned", None)


def page(request):
    """Says what the method of its name gives for an argument."""
    method = getattr(request, request.params["method"])
    return Response(method(request.params["of"]))


async def coroutine_page(request):
    return page(request)


def app_of(*steps, **settings):
    settings = {name.replace("__", "."): value for name, value in settings.items()}

    def views(config):
        for view in (page, coroutine_page):
            config.add_route(view.__name__, f"/{view.__name__}")
            config.add_view(view, route_name=view.__name__)

    return make_app("aioext.assets", views, *steps, settings=settings)


def static(config):
    config.add_static_view("static", "versioned:static", cache_max_age=60)


def ask(app, of="versioned:static/a.js", method="static_path", view="page"):
    query = f"method={method}&of={of}".encode()
    client = answer(app, f"/{view}", query_string=query)
    assert client.status == 200, client.body
    return client.body.decode()


def fetch(app, url, **options):
    """Status, Cache-Control and body of a file."""
    path, _, query = url.partition("?")
    client = answer(app, path, query_string=query.encode(), **options)
    return client.status, header(client, "cache-control"), client.body


def header(client, name):
    return dict(client.response[1]).get(name.encode(), b"").decode()


# The address


def test_an_address_has_the_time_of_the_file(package):
    for view in ("page", "coroutine_page"):
        assert ask(app_of(static), view=view) == f"/static/a.js?v={TIME}"


def test_the_time_may_stand_in_the_path(package):
    app = app_of(static, aioext__assets__place="path")
    assert ask(app) == f"/static/v={TIME}/a.js"


def test_an_address_has_the_hash_of_the_file(package):
    app = app_of(static, aioext__assets__version="hash")
    assert ask(app) == f"/static/a.js?v={HASH}"
    write(package / "static" / "b.js", b"one", time=1)
    assert ask(app, "versioned:static/b.js") == f"/static/b.js?v={HASH}"


@pytest.mark.parametrize(
    "settings",
    [{"aioext__assets__version": "off"}, {"pyramid__prevent_cachebust": "true"}],
)
def test_versions_can_be_switched_off(package, settings):
    app = app_of(static, **settings)
    assert ask(app) == "/static/a.js"
    assert ask(app, "/static/a.js", "static_version") == "/static/a.js"
    assert ask(app, method="versioned_static_url") == "http://localhost/static/a.js"
    assert fetch(app, f"/static/a.js?v={TIME}")[1] == "max-age=60"
    assert fetch(app, f"/static/v={TIME}/a.js")[0] == 404


def test_without_the_include_nothing_is_added(package):
    config = Configurator()
    config.include("aioext")
    static(config)
    request = request_for(config)
    assert request.static_path("versioned:static/a.js") == "/static/a.js"
    assert not hasattr(request, "static_version")


def request_for(config):
    """A request of an application that is made of a configurator."""
    app = config.make_wsgi_app()
    request = app.request_factory.blank("/")
    request.registry = app.registry
    return request


@pytest.mark.parametrize("reload", [False, True])
def test_a_changed_file_has_another_address(package, reload):
    app = app_of(static, pyramid__reload_assets=reload)
    before = ask(app)
    write(package / "static" / "a.js", b"two", time=TIME + 1)
    if not reload:
        # A look holds for a second.
        assert ask(app) == before
        app.app.registry.getUtility(IFiles).fresh = 1e-9
    assert ask(app) == f"/static/a.js?v={TIME + 1}"


def test_a_file_that_is_known_needs_no_thread(package, monkeypatch):
    app = app_of(static)
    ask(app)
    calls = []
    monkeypatch.setattr(versions, "current_executor", lambda: calls.append(1))
    monkeypatch.setattr("aioext.assets.files.current_executor", lambda: calls.append(1))
    assert ask(app) == f"/static/a.js?v={TIME}"
    assert not calls


def test_files_are_looked_at_in_one_thread(package):
    """The addresses of a page do not each need a thread."""
    names = [f"versioned:static/{number}.js" for number in range(20)]
    for number in range(20):
        write(package / "static" / f"{number}.js", b"")
    write(package / "static" / "gone.js", b"")
    jobs = []

    def make_all(request):
        executor = request.registry.getUtility(IExecutor)
        call = executor.call
        executor.call = lambda *args, **kwargs: jobs.append(1) or call(*args, **kwargs)
        urls = [request.static_path(name) for name in names]
        del executor.call
        return Response("\n".join(urls))

    def add(config):
        config.add_route("all", "/all")
        config.add_view(make_all, route_name="all", mapper=InlineMapper)

    app = app_of(static, add)
    ask(app, "versioned:static/gone.js")
    first = answer(app, "/all").body
    assert len(jobs) == 40
    (package / "static" / "gone.js").unlink()
    files = app.app.registry.getUtility(IFiles)
    *stale, _ = files._entries.values()
    for entry in stale:
        entry._checked -= 1
    jobs.clear()
    app.app.registry.getUtility(IVersions)._looked = 0
    assert answer(app, "/all").body == first
    assert len(jobs) == 1
    assert ask(app, "versioned:static/gone.js") == "/static/gone.js"


def slow_app(monkeypatch):
    """An application that looks for a file until the second event is set."""
    begun, goes_on = threading.Event(), threading.Event()
    locate = versions.locate

    def slow(registry, spec):
        begun.set()
        assert goes_on.wait(20)
        return locate(registry, spec)

    def inline(request):
        return Response(request.static_path("versioned:static/a.js"))

    def add(config):
        config.add_route("inline", "/inline")
        config.add_view(inline, route_name="inline", mapper=InlineMapper)

    monkeypatch.setattr(versions, "locate", slow)
    return app_of(static, add), begun, goes_on


def test_a_request_that_is_cancelled_in_a_look(package, monkeypatch):
    app, begun, goes_on = slow_app(monkeypatch)

    async def main():
        first = asyncio.create_task(Client("/inline").call(app))
        await asyncio.to_thread(begun.wait, 20)
        second = asyncio.create_task(Client("/inline").call(app))
        first.cancel()
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await second

    expected = f"/static/a.js?v={TIME}"
    assert asyncio.run(main()).body.decode() == expected
    assert ask(app) == expected


def test_a_look_does_not_hold_the_loop(package, monkeypatch):
    """Another request is answered while a file system is slow."""
    app, begun, goes_on = slow_app(monkeypatch)

    async def main():
        first = asyncio.create_task(Client("/inline").call(app))
        await asyncio.to_thread(begun.wait, 20)
        other = await Client("/x").call(app)
        goes_on.set()
        return other, await first

    other, first = asyncio.run(main())
    assert other.status == 404
    assert first.body.decode() == f"/static/a.js?v={TIME}"


@pytest.mark.parametrize(
    "name",
    [
        "missing.js",
        "sub",
        "",
        "../secret.js",
        "sub/../a.js",
        "./a.js",
        "/a.js",
        "a.js%00",
        "..%5Csecret.js",
        "%C3%A9" * 200,
    ],
)
@pytest.mark.parametrize("kind", ["mtime", "hash"])
def test_what_is_no_file_has_no_version(package, name, kind, monkeypatch):
    write(package / "secret.js", b"secret")
    (package / "static" / "sub").mkdir()
    app = app_of(static, aioext__assets__version=kind)
    looked = []
    files = app.app.registry.getUtility(IFiles)
    look = files.look
    monkeypatch.setattr(files, "look", lambda path: looked.append(path) or look(path))
    assert "v=" not in ask(app, f"versioned:static/{name}")
    assert "v=" not in ask(app, f"/static/{name}", "static_version")
    assert not [each for each in looked if "secret" in each]


def test_a_file_that_appears_or_goes_is_noticed(package):
    app = app_of(static)
    app.app.registry.getUtility(IFiles).fresh = 1e-9
    path = package / "static" / "b.js"
    assert ask(app, "versioned:static/b.js") == "/static/b.js"
    write(path, b"two")
    assert ask(app, "versioned:static/b.js") == f"/static/b.js?v={TIME}"
    path.unlink()
    assert ask(app, "versioned:static/b.js") == "/static/b.js"


def test_a_file_that_is_missing_is_not_looked_for_each_time(package, monkeypatch):
    app = app_of(static)
    assert ask(app, "versioned:static/b.js") == "/static/b.js"
    monkeypatch.setattr(versions, "locate", None)
    assert ask(app, "versioned:static/b.js") == "/static/b.js"


def test_what_is_remembered_is_bounded(package, monkeypatch):
    monkeypatch.setattr(versions, "MAX_SPECS", 4)
    config = Configurator()
    config.include("aioext.assets")
    static(config)
    request = request_for(config)
    for number in range(10):
        request.static_path(f"versioned:static/{number}.js")
        write(package / "static" / f"x{number}.js", b"x")
        request.static_path(f"versioned:static/x{number}.js")
    kept = request.registry.getUtility(IVersions)
    assert len(kept._paths) <= 4
    assert len(kept._missing) <= 4


def test_an_overridden_file_has_the_version_of_what_overrides_it(package, tmp_path):
    write(tmp_path / "theme" / "__init__.py", b"")
    write(tmp_path / "theme" / "js" / "a.js", b"theme", time=TIME + 5)

    def override(config):
        config.override_asset("versioned:static/", "theme:js/")

    app = app_of(static, override)
    assert ask(app) == f"/static/a.js?v={TIME + 5}"
    assert fetch(app, f"/static/a.js?v={TIME + 5}") == (200, IMMUTABLE, b"theme")
    sys.modules.pop("theme", None)


@pytest.mark.parametrize("reload", [False, True])
def test_what_overrides_a_file_may_go_and_come(package, tmp_path, reload):
    other = write(tmp_path / "other" / "a.js", b"other", time=TIME + 5)

    def override(config):
        config.override_asset("versioned:static/", f"{tmp_path / 'other'}/")

    app = app_of(static, override, pyramid__reload_assets=reload)
    if not reload:
        app.app.registry.getUtility(IFiles).fresh = 1e-9
    assert ask(app) == f"/static/a.js?v={TIME + 5}"
    other.unlink()
    if not reload:
        # It is looked for again.
        assert ask(app) == "/static/a.js"
    assert ask(app) == f"/static/a.js?v={TIME}"
    write(other, b"other", time=TIME + 6)
    if reload:
        assert ask(app) == f"/static/a.js?v={TIME + 6}"


def test_a_directory_of_the_file_system(package):
    app = app_of(
        lambda config: config.add_static_view("s", str(package / "static")),
    )
    assert ask(app, package / "static" / "a.js") == f"/s/a.js?v={TIME}"
    assert fetch(app, f"/s/a.js?v={TIME}")[1] == IMMUTABLE


def test_each_application_has_its_own(package):
    first = app_of(static)
    second = app_of(static, aioext__assets__version="hash")
    assert ask(first) != ask(second)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"a": "1"}, f"a=1&v={TIME}"),
        ([("a", "1"), ("a", "2")], f"a=1&a=2&v={TIME}"),
        ("a=1", f"a=1&v={TIME}"),
        ("", f"v={TIME}"),
        (None, f"v={TIME}"),
    ],
)
def test_a_query_is_kept(package, query, expected):
    config = Configurator()
    config.include("aioext.assets")
    static(config)
    given = query if query is None or isinstance(query, str) else type(query)(query)
    url = request_for(config).static_path("versioned:static/a.js", _query=query)
    assert url == f"/static/a.js?{expected}"
    assert query == given


# Whose cache buster


def test_an_application_s_own_buster_is_kept(package):
    own = QueryStringConstantCacheBuster("7", param="v")

    def bust(config):
        config.add_cache_buster("versioned:static", own)

    for steps in ((static, bust), (bust, static)):
        app = app_of(*steps)
        assert ask(app) == "/static/a.js?v=7"
        # Its parameter is not ours.
        assert fetch(app, "/static/a.js?v=7") == (200, "max-age=60", b"one")
        assert ask(app, "/static/a.js", "static_version") == "/static/a.js"


def test_a_buster_for_a_directory_around_it_is_kept(package):
    own = QueryStringConstantCacheBuster("7")
    app = app_of(static, lambda config: config.add_cache_buster("versioned:", own))
    assert ask(app) == "/static/a.js?x=7"


def test_a_buster_for_a_directory_within_is_kept(package):
    own = QueryStringConstantCacheBuster("7")
    write(package / "static" / "css" / "b.css", b"")

    def bust(config):
        config.add_cache_buster("versioned:static/css", own)

    app = app_of(static, bust)
    assert ask(app) == f"/static/a.js?v={TIME}"
    assert ask(app, "versioned:static/css/b.css") == "/static/css/b.css?x=7"


def test_our_busters_can_be_added(package):
    write(package / "static" / "big" / "b.js", b"one")

    def bust(config):
        config.add_cache_buster("versioned:static", MtimeCacheBuster(place="path"))
        config.add_cache_buster("versioned:static/big", HashCacheBuster())

    app = app_of(static, bust, aioext__assets__version="off")
    assert ask(app) == f"/static/v={TIME}/a.js"
    assert ask(app, "versioned:static/big/b.js") == f"/static/big/b.js?v={HASH}"
    assert fetch(app, f"/static/v={TIME}/a.js")[1] == IMMUTABLE
    assert fetch(app, f"/static/big/b.js?v={HASH}")[1] == IMMUTABLE


def test_our_busters_are_prevented_as_well(package):
    def bust(config):
        config.add_cache_buster("versioned:static", MtimeCacheBuster())

    app = app_of(static, bust, pyramid__prevent_cachebust="true")
    assert ask(app) == ask(app, "/static/a.js", "static_version") == "/static/a.js"
    assert fetch(app, f"/static/a.js?v={TIME}")[1] == "max-age=60"


def test_a_static_view_that_comes_after_a_commit(package):
    config = Configurator()
    config.include("aioext.assets")
    config.commit()
    config.include("aioext.assets")
    static(config)
    request = request_for(config)
    assert request.static_path("versioned:static/a.js") == f"/static/a.js?v={TIME}"
    # A registry with subscribers has four events sent with every request.
    assert not request.registry.has_listeners


def test_the_configurator_of_tests_commits_at_once(package):
    config = testing.setUp(autocommit=False)
    try:
        config.include("aioext.assets")
        static(config)
        config.commit()
        request = Request.blank("/")
        request.registry = config.registry
        assert request.static_path("versioned:static/a.js").endswith(f"?v={TIME}")
    finally:
        testing.tearDown()


def test_without_introspection_there_are_no_versions(package):
    config = Configurator(introspection=False)
    config.include("aioext.assets")
    static(config)
    assert request_for(config).static_path("versioned:static/a.js") == "/static/a.js"


def test_including_it_twice_is_harmless(package):
    app = app_of(static, "aioext.assets", "aioext.assets.versions")
    assert ask(app) == f"/static/a.js?v={TIME}"


def test_a_static_view_on_another_host_has_no_version(package):
    def elsewhere(config):
        config.add_static_view("https://cdn.example.com/s/", "versioned:static")

    app = app_of(elsewhere)
    assert ask(app) == "https://cdn.example.com/s/a.js"
    url = ask(app, method="versioned_static_url")
    assert url == f"https://cdn.example.com/s/a.js?v={TIME}"


def test_a_directory_of_another_host_within_one_of_ours(package):
    write(package / "static" / "big" / "b.js", b"one")

    def elsewhere(config):
        config.add_static_view("//cdn.example.com/", "versioned:static/big")
        static(config)

    app = app_of(elsewhere)
    assert ask(app) == f"/static/a.js?v={TIME}"
    assert ask(app, "versioned:static/big/b.js") == "http://cdn.example.com/b.js"


@pytest.mark.parametrize("cls", [MtimeCacheBuster, HashCacheBuster])
def test_a_buster_knows_two_places(cls):
    with pytest.raises(
        ConfigurationError, match=r'(?s)takes "query".*#versions'
    ) as caught:
        cls(place="header")
    assert cls.__name__ in str(caught.value)


def test_a_buster_needs_the_include(package):
    config = Configurator()
    static(config)
    config.add_cache_buster("versioned:static", MtimeCacheBuster())
    with pytest.raises(ConfigurationError, match=r"include aioext\.assets"):
        request_for(config).static_path("versioned:static/a.js")


@pytest.mark.parametrize("setting", ["version", "place"])
def test_a_setting_that_is_not_allowed(setting):
    config = Configurator(settings={f"aioext.assets.{setting}": "x"})
    with pytest.raises(ConfigurationError, match=f"assets.{setting} is 'x'; it takes"):
        config.include("aioext.assets")


# request.static_version, request.versioned_static_url


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/static/a.js", f"/static/a.js?v={TIME}"),
        ("/static/a.js?x=1#part", f"/static/a.js?x=1&v={TIME}#part"),
        ("/static/a.js#part", f"/static/a.js?v={TIME}#part"),
        ("/static/%61.js", f"/static/a.js?v={TIME}"),
        ("/other/a.js", "/other/a.js"),
        ("/static/none.js?x=1#y", "/static/none.js?x=1#y"),
        ("/static/", "/static/"),
        ("/static", "/static"),
        ("/static//a.js", "/static//a.js"),
        ("/static/x/../a.js", "/static/x/../a.js"),
        ("static/a.js", "static/a.js"),
        ("https://example.com/static/a.js", "https://example.com/static/a.js"),
        ("//example.com/static/a.js", "//example.com/static/a.js"),
        ("//[/a.js", "//[/a.js"),
        ("", ""),
        ("#x", "#x"),
    ],
)
def test_a_path_gets_its_version(package, path, expected):
    config = Configurator()
    config.include("aioext.assets")
    static(config)
    assert request_for(config).static_version(path) == expected


def test_a_path_with_its_place(package):
    config = Configurator()
    config.include("aioext.assets")
    config.include(static, route_prefix="/pre")
    write(package / "static" / "\xe4 b.js", b"")
    request = request_for(config)
    request.script_name = "/app n"
    path = "/pre/static/%C3%A4%20b.js"
    assert request.static_version(path) == f"/app%20n{path}?v={TIME}"
    in_path = f"/app%20n/pre/static/v={TIME}/%C3%A4%20b.js"
    assert request.static_version(path, place="path") == in_path
    assert request.static_version("/none") == "/app%20n/none"


def test_an_address_for_ever(package):
    config = Configurator(package="versioned")
    config.include("aioext.assets")
    static(config)
    request = request_for(config)
    url = f"http://localhost/static/a.js?v={TIME}"
    assert request.versioned_static_url("versioned:static/a.js") == url
    assert request.versioned_static_url("static/a.js") == url
    in_path = request.versioned_static_url("static/a.js", place="path", _app_url="")
    assert in_path == f"/static/v={TIME}/a.js"
    # What it says is for one call.
    assert request.static_url("versioned:static/a.js") == url


@pytest.mark.parametrize("method", [static_version, versioned_static_url])
def test_a_place_that_is_none(package, method):
    config = Configurator()
    config.include("aioext.assets")
    request = request_for(config)
    with pytest.raises(ValueError, match=r"place='header'.*\n.*#versions"):
        method(request, "/static/a.js", place="header")


def test_an_application_without_routes():
    config = Configurator()
    config.include("aioext.assets")
    assert request_for(config).static_version("/static/a.js") == "/static/a.js"


# The answer


def test_the_right_version_is_kept_for_ever(package):
    for place in ("query", "path"):
        app = app_of(static, aioext__assets__place=place)
        assert fetch(app, ask(app)) == (200, IMMUTABLE, b"one")
    # Pages of before still lead to it.
    assert fetch(app, f"/static/a.js?v={TIME}") == (200, IMMUTABLE, b"one")


@pytest.mark.parametrize(
    "asked",
    [
        str(TIME - 1),
        str(TIME + 1),
        "",
        "0",
        "-1",
        "x",
        HASH,
        "nan",
        "1e9",
        "9" * 5000,
        "%00",
        "../../etc",
        f"{TIME}x",
    ],
)
def test_another_version_is_served_and_not_kept(package, asked):
    app = app_of(static)
    assert fetch(app, f"/static/a.js?v={asked}") == (200, "no-cache", b"one")
    if "/" not in asked and "%" not in asked:
        assert fetch(app, f"/static/v={asked}/a.js") == (200, "no-cache", b"one")


def test_without_a_version_it_is_as_before(package):
    app = app_of(static)
    assert fetch(app, "/static/a.js") == (200, "max-age=60", b"one")
    assert fetch(app, "/static/a.js?x=v=1") == (200, "max-age=60", b"one")
    assert fetch(app, "/static/a.js?av=1") == (200, "max-age=60", b"one")


def test_a_version_leads_to_nothing_else(package):
    write(package / "secret.js", b"secret")
    app = app_of(static)
    for path in (
        "/static/v=1",
        "/static/v=1/none.js",
        "/static/v=1/v=1/a.js",
        "/static/v=1/../../secret.js",
        "/static/v=../../secret.js",
        "/static/a.js/v=1",
    ):
        assert fetch(app, path)[0] == 404, path


def test_the_right_hash_is_kept_for_ever(package):
    app = app_of(static, aioext__assets__version="hash")
    for _ in range(2):
        assert fetch(app, f"/static/a.js?v={HASH}") == (200, IMMUTABLE, b"one")
    for wrong in (HASH[:15], HASH + "0", HASH.upper(), "0" * 16, str(TIME)):
        assert fetch(app, f"/static/a.js?v={wrong}")[1] == "no-cache", wrong


def test_a_hash_is_not_computed_for_what_is_none(package, monkeypatch):
    app = app_of(static, aioext__assets__version="hash")
    files = app.app.registry.getUtility(IFiles)
    monkeypatch.setattr(files, "digest", None)
    assert fetch(app, "/static/a.js?v=1")[1] == "no-cache"


def test_a_file_that_changes_under_its_version(package):
    """What is new is never kept for what was asked for."""
    app = app_of(static, aioext__assets__version="hash")
    app.app.registry.getUtility(IFiles).fresh = 1e-9
    write(package / "static" / "a.js", b"two", time=TIME + 1)
    assert fetch(app, f"/static/a.js?v={HASH}") == (200, "no-cache", b"two")


def test_a_digest_of_what_came_after_is_not_taken(package):
    registry = app_of(static, aioext__assets__version="hash").app.registry
    files, kept = registry.getUtility(IFiles), registry.getUtility(IVersions)
    path = str(package / "static" / "a.js")
    old = files.look(path)
    write(package / "static" / "a.js", b"two", time=TIME + 1)
    files.forget(path)
    two = hashlib.sha256(b"two").hexdigest()[:16]
    assert kept.cache_headers(old, two) == "no-cache"
    new = files.look(path)
    for _ in range(2):
        assert kept.cache_headers(new, two) == IMMUTABLE
        new.digest = files.digest(path)
    os.unlink(path)
    files.forget(path)
    assert kept.cache_headers(old, HASH) == "no-cache"


def test_an_encoded_file_that_is_older_is_not_kept(package):
    def encoded(config):
        config.add_static_view("static", "versioned:static", content_encodings=["gzip"])

    headers = [(b"host", b"localhost"), (b"accept-encoding", b"gzip")]
    url = f"/static/a.js?v={TIME}"
    gz = package / "static" / "a.js.gz"
    write(gz, b"", time=TIME - 60 * 10**9)
    assert fetch(app_of(encoded), url, headers=headers) == (200, "no-cache", b"")
    assert fetch(app_of(encoded), url)[1] == IMMUTABLE
    write(gz, b"", time=TIME - 10**9)
    assert fetch(app_of(encoded), url, headers=headers) == (200, IMMUTABLE, b"")


class Guard:
    """A security policy that lets everybody in."""

    def permits(self, request, context, permission):
        return True


def test_a_file_that_not_everybody_gets_is_in_no_shared_cache(package):
    def guarded(config):
        config.set_security_policy(Guard())
        config.add_static_view("static", "versioned:static", permission="view")

    app = app_of(guarded)
    for _ in range(2):
        status, caching, body = fetch(app, f"/static/a.js?v={TIME}")
        assert (status, body) == (200, b"one")
        assert caching == "private, max-age=31536000, immutable"
    assert fetch(app, "/static/a.js?v=1")[1] == "no-cache"


def _refuse_strangers(request):
    if "User" not in request.headers:
        raise HTTPForbidden


@pytest.mark.parametrize(
    "options", [{"header": "User"}, {"factory": _refuse_strangers}]
)
@pytest.mark.parametrize("size", [1, SMALL + 1])
def test_what_a_route_restricts_is_in_no_shared_cache(package, options, size):
    write(package / "static" / "a.js", b"x" * size)
    app = app_of(
        lambda config: config.add_static_view("static", "versioned:static", **options)
    )
    headers = [(b"host", b"localhost"), (b"user", b"joe")]
    for _ in range(2):
        found = fetch(app, f"/static/a.js?v={TIME}", headers=headers)
        assert found[:2] == (200, "private, max-age=31536000, immutable")
    assert fetch(app, f"/static/a.js?v={TIME}")[0] in (403, 404)


@pytest.mark.parametrize("size", [1, SMALL + 1])
def test_what_has_come_with_a_password_is_in_no_shared_cache(package, size):
    write(package / "static" / "a.js", b"x" * size)
    app = app_of(static)
    private = "private, max-age=31536000, immutable"
    headers = [(b"host", b"localhost"), (b"authorization", b"Basic eDp5")]
    for _ in range(2):
        url = f"/static/a.js?v={TIME}"
        assert fetch(app, url, headers=headers)[:2] == (200, private)
        assert fetch(app, url)[:2] == (200, IMMUTABLE)
        assert fetch(app, url, headers=headers, method="HEAD")[1] == private
        assert fetch(app, "/static/a.js", headers=headers)[1] == "max-age=60"


def test_conditions_keep_the_header(package):
    app = app_of(static)
    url = f"/static/a.js?v={TIME}"
    etag = header(answer(app, *url.split("?")[:1]), "etag").encode()
    headers = [(b"host", b"localhost"), (b"if-none-match", etag)]
    assert fetch(app, url, headers=headers) == (304, IMMUTABLE, b"")
    headers = [(b"host", b"localhost"), (b"range", b"bytes=1-1")]
    assert fetch(app, url, headers=headers) == (206, IMMUTABLE, b"n")
    assert fetch(app, url, method="HEAD") == (200, IMMUTABLE, b"")


def test_a_large_file_that_changes_while_it_is_opened(package):
    """The entry that is known is of the old file, and the body of the new one."""
    app = app_of(static)
    path = package / "static" / "big.js"
    write(path, b"1" * 400_000)
    url = f"/static/big.js?v={TIME}"
    assert fetch(app, url)[1] == IMMUTABLE
    write(path, b"2" * 400_000, time=TIME + 1)
    status, caching, body = fetch(app, url)
    assert (status, caching, body[:1]) == (200, "no-cache", b"2")


def test_webtest_and_threads_have_them_too(package):
    app = TestApp(app_of(static).app)
    url = app.get("/page?method=static_path&of=versioned:static/a.js").text
    assert app.get(url).headers["Cache-Control"] == IMMUTABLE


def test_a_static_view_with_a_route_of_its_own(package):
    def direct(config):
        view = static_view("versioned:static", use_subpath=True)
        config.add_route("files", "/files/*subpath")
        config.add_view(view, route_name="files")

    app = app_of(direct)
    assert ask(app, "/files/a.js", "static_version") == "/files/a.js"
    assert fetch(app, f"/files/a.js?v={TIME}") == (200, "max-age=3600", b"one")


@pytest.mark.parametrize(
    ("subpath", "query", "expected"),
    [
        (("a",), "", (("a",), None)),
        (("a",), "v=1", (("a",), "1")),
        (("a",), "av=1", (("a",), None)),
        (("a",), "x=2&v=1&v=3", (("a",), "1")),
        (("v=1", "a"), "", (("a",), "1")),
        (("v=1", "a"), "v=2", (("a",), "1")),
        (("v=", "a"), "", (("a",), "")),
        (("v=1",), "", (("v=1",), None)),
        (("a", "v=1"), "", (("a", "v=1"), None)),
        ((), "v=1", ((), "1")),
    ],
)
def test_a_version_is_told_from_the_rest(subpath, query, expected):
    assert split(subpath, {"QUERY_STRING": query}) == expected
    assert split(subpath, {})[0] == expected[0]


def test_a_plain_path_stays_below():
    assert is_plain("a/b.js")
    for path in ("", "/a", "a/", "a//b", "..", "a/..", ".", "a\0", "a\\b"):
        assert not is_plain(path), path

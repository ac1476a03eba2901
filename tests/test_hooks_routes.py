"""Root factories of routes, pregenerators and cache busters that are coroutines."""

import asyncio

import pytest
from hook_apps import OnLoop, OnWsgi, make
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IRoutesMapper, IStaticURLInfo
from pyramid.response import Response
from pyramid.static import (
    ManifestCacheBuster,
    QueryStringCacheBuster,
    QueryStringConstantCacheBuster,
)

from aioext import synchronize
from aioext.hooks import adapt_hooks


@pytest.fixture(params=[OnLoop, OnWsgi])
def ask(request):
    return request.param()


def commit(config):
    config.commit()


def route(view, pattern="/{name}", **options):
    def add(config):
        config.add_route("it", pattern, **options)
        config.add_view(view, route_name="it")

    return add


def route_of(app, name="it"):
    return app.registry.getUtility(IRoutesMapper).get_route(name)


def paths_of(count):
    return [f"/name{number}" for number in range(count)]


# Factories --------------------------------------------------------------------


@pytest.mark.parametrize("steps", [(), (commit,)])
def test_the_factory_of_a_route_gives_each_request_its_context(ask, steps):
    meet = ask.meeting(20)

    async def factory(request):
        await meet()
        return request.matchdict["name"]

    def view(context, request):
        return Response(f"/{context} {context is request.root}")

    app = make(*steps, route(view, factory=factory))
    answers = ask(app, *paths_of(20))
    assert [answer.text for answer in answers] == [f"{p} True" for p in paths_of(20)]


def test_what_the_factory_gives_may_be_traversed(ask):
    async def factory(request):
        return {"leaf": "leaf"}

    app = make(
        route(lambda context, request: Response(context), "/*traverse", factory=factory)
    )
    assert ask(app, "/leaf")[0].text == "leaf"


def test_a_route_shows_the_factory_that_it_was_given():
    async def factory(request): ...

    class Factory:
        def __init__(self, request): ...

    def other(config):
        config.add_route("class", "/class", factory=Factory)
        config.add_route("none", "/none")
        config.add_route("static", "/static", static=True, factory=factory)

    app = make(route(str, factory=factory), other)
    assert route_of(app).factory == factory
    assert route_of(app, "static").factory.__wrapped__ is factory
    assert route_of(app, "class").factory is Factory
    assert route_of(app, "none").factory is None


# Pregenerators ----------------------------------------------------------------


def pregenerator(meet):
    async def pregenerate(request, elements, kw):
        await meet()
        return (*elements, request.matchdict["name"]), {**kw, "_query": {"q": "1"}}

    return pregenerate


@pytest.mark.parametrize("steps", [(), (commit,)])
def test_a_pregenerator_makes_each_requests_url(ask, steps):
    def view(request):
        url = request.route_url("it", "more", name="x")
        return Response(f"{url} {request.route_path('it', name='y')}")

    meet = ask.meeting(3)
    app = make(*steps, route(view, pregenerator=pregenerator(meet)))
    for path, answer in zip(paths_of(3), ask(app, *paths_of(3)), strict=True):
        expected = f"http://localhost/x/more{path}?q=1 /y{path}?q=1"
        assert answer.text == expected


def test_a_pregenerator_of_a_static_route(ask):
    async def pregenerate(request, elements, kw):
        return elements, {**kw, "name": "made"}

    def other(config):
        config.add_route("static", "/{name}", static=True, pregenerator=pregenerate)

    app = make(route(lambda it: Response(it.route_path("static"))), other)
    assert ask(app, "/x")[0].text == "/made"


def test_a_pregenerator_that_is_synchronized_works_as_before(ask):
    meet = ask.meeting(1)
    app = make(
        route(
            lambda request: Response(request.route_path("it", name="x")),
            pregenerator=synchronize(pregenerator(meet)),
        )
    )
    assert ask(app, "/y")[0].text == "/x/y?q=1"


EXTERNAL = "https://other.example.com/{name}"


async def external(request, elements, kw):
    await asyncio.sleep(0)
    return elements, {**kw, "name": "made"}


def test_a_pregenerator_of_another_hosts_url_is_refused():
    def steps(config):
        config.add_route("other", EXTERNAL, pregenerator=external)

    with pytest.raises(ConfigurationError) as raised:
        make(steps)
    message = str(raised.value)
    assert "'other', function test_hooks_routes.external" in message
    assert "errors.html#hidden-pregenerator" in message


@pytest.mark.parametrize("options", [{}, {"pregenerator": synchronize(external)}])
def test_urls_of_another_host_that_are_allowed(ask, options):
    def steps(config):
        config.add_route("other", EXTERNAL, **options)

    app = make(steps, route(lambda it: Response(it.route_url("other", name="given"))))
    expected = "made" if options else "given"
    assert ask(app, "/x")[0].text == f"https://other.example.com/{expected}"


# Cache busters ----------------------------------------------------------------


class Tokens(QueryStringCacheBuster):
    async def tokenize(self, request, pathspec, kw):
        await asyncio.sleep(0)
        return request.matchdict["name"]


async def function(request, subpath, kw):
    await asyncio.sleep(0)
    return f"{request.matchdict['name']}/{subpath}", kw


class Called:
    async def __call__(self, request, subpath, kw):
        return await function(request, subpath, kw)


def static_url(request):
    return Response(request.static_path("pyramid:scaffolds/a.css"))


def bust(buster, include_first=True):
    def add(config):
        config.add_static_view("static", "pyramid:scaffolds")
        config.add_cache_buster("pyramid:scaffolds", buster)

    return add


@pytest.mark.parametrize(
    ("buster", "expected"),
    [
        (Tokens(), "/static/a.css?x={}"),
        (function, "/static/{}/a.css"),
        (Called(), "/static/{}/a.css"),
        (QueryStringConstantCacheBuster("constant"), "/static/a.css?x=constant"),
    ],
)
@pytest.mark.parametrize("steps", [(), (commit,)])
def test_a_cache_buster_makes_each_requests_url(ask, buster, expected, steps):
    app = make(*steps, bust(buster), route(static_url, "/page/{name}"))
    answers = ask(app, "/page/one", "/page/two")
    assert [answer.text for answer in answers] == [
        expected.format("one"),
        expected.format("two"),
    ]


def test_pyramids_cache_busters_are_left_alone(tmp_path):
    (tmp_path / "manifest.json").write_text('{"a.css": "b.css"}')
    buster = ManifestCacheBuster(str(tmp_path / "manifest.json"))
    app = make(bust(buster))
    ((_, registered, _),) = app.registry.getUtility(IStaticURLInfo).cache_busters
    assert registered is buster


def test_everything_is_adapted_once():
    def steps(config):
        config.include("aioext")
        config.commit()
        config.include("aioext")

    async def factory(request): ...

    app = make(bust(Tokens()), route(str, factory=factory, pregenerator=factory), steps)
    adapt_hooks(app.registry)
    assert route_of(app).factory.__wrapped__ is factory
    assert route_of(app).pregenerator.__wrapped__ is factory
    ((_, buster, _),) = app.registry.getUtility(IStaticURLInfo).cache_busters
    assert type(buster.__wrapped__) is Tokens

"""Renderers that are coroutines, and what JSON renderers find in a value."""

import asyncio
import json

import pytest
from hook_apps import OnLoop, OnWsgi, add_view, commit, make
from pyramid.interfaces import IRendererFactory
from pyramid.renderers import (
    JSON,
    JSONP,
    get_renderer,
    json_renderer_factory,
    render,
    render_to_response,
    string_renderer_factory,
)
from pyramid.response import Response

from aioext.hooks import adapt_hooks


@pytest.fixture(params=[OnLoop, OnWsgi])
def ask(request):
    return request.param()


def add_renderer(factory, name="own"):
    return lambda config: config.add_renderer(name, factory)


def paths_of(count):
    return [f"/name{number}" for number in range(count)]


def path_of(request):
    return {"path": request.path_info}


# Renderers --------------------------------------------------------------------


def factory_of(meet):
    class Factory:
        def __init__(self, info):
            self.info = info

        async def __call__(self, value, system):
            await meet()
            system["request"].response.content_type = "text/plain"
            return f"{self.info.name} {value['path']} {system['request'].path_info}"

    return Factory


@pytest.mark.parametrize("early", [(), (commit,)])
def test_a_renderer_renders_each_requests_value(ask, early):
    app = make(
        *early,
        add_renderer(factory_of(ask.meeting(20))),
        add_view(path_of, renderer="own"),
    )
    for path, answer in zip(paths_of(20), ask(app, *paths_of(20)), strict=True):
        assert answer.text == f"own {path} {path}"


def test_a_renderer_for_an_extension(ask):
    app = make(
        add_renderer(factory_of(ask.meeting(1)), ".own"),
        add_view(path_of, renderer="page.own"),
    )
    assert ask(app, "/joe")[0].text == "page.own /joe /joe"


def test_the_default_renderer(ask):
    app = make(add_renderer(factory_of(ask.meeting(1)), None), add_view(path_of))
    (told,) = [
        factory.__wrapped__
        for name, factory in app.registry.getUtilitiesFor(IRendererFactory)
        if not name
    ]
    assert told.__name__ == "Factory"


@pytest.mark.parametrize("coroutine", [True, False])
def test_a_factory_may_be_a_coroutine(ask, coroutine):
    async def factory(info):
        await asyncio.sleep(0)

        async def render_later(value, system):
            await asyncio.sleep(0)
            return value["path"]

        def render_now(value, system):
            return value["path"].encode()

        return render_later if coroutine else render_now

    app = make(add_renderer(factory), add_view(path_of, renderer="own"))
    assert ask(app, "/joe")[0].text == "/joe"


def test_render_gives_a_string(ask):
    def view(request):
        text = render("own", path_of(request), request=request)
        response = render_to_response("own", path_of(request), request=request)
        return Response(f"{text} {response.text}")

    app = make(add_renderer(factory_of(ask.meeting(1))), add_view(view))
    assert ask(app, "/x")[0].text == "own /x /x own /x /x"


def test_a_renderer_shows_what_it_is(ask):
    class Renderer:
        def __call__(self, value, system):
            return "text"

        def implementation(self):
            return self

    def view(request):
        renderer = get_renderer("own", registry=request.registry)
        assert isinstance(renderer, Renderer)
        return Response(type(renderer.implementation()).__name__)

    app = make(add_renderer(lambda info: Renderer()), add_view(view))
    assert ask(app, "/")[0].text == "Renderer"


def test_a_renderer_may_be_overridden(ask):
    def view(request):
        request.override_renderer = "own"
        return path_of(request)

    app = make(
        add_renderer(factory_of(ask.meeting(1))), add_view(view, renderer="json")
    )
    assert ask(app, "/x")[0].text == "own /x /x"


def test_a_body_that_is_rendered_may_be_iterated_over(ask):
    async def render_parts(value, system):
        return [b"one", b"two"]

    app = make(
        add_renderer(lambda info: render_parts), add_view(path_of, renderer="own")
    )
    assert ask(app, "/")[0].text == "onetwo"


def test_a_renderer_that_raises_is_heard(ask):
    async def fail(value, system):
        await asyncio.sleep(0)
        raise LookupError("no such template")

    app = make(
        add_renderer(lambda info: fail),
        add_view(path_of, renderer="own"),
        lambda config: config.add_exception_view(
            lambda error, request: Response(str(error.args[0])), context=LookupError
        ),
    )
    assert ask(app, "/")[0].text == "no such template"


def test_pyramids_renderers_are_left_alone():
    registry = make().registry
    assert registry.getUtility(IRendererFactory, "string") is string_renderer_factory


def test_every_factory_is_adapted_once():
    factory = factory_of(None)
    app = make(add_renderer(factory), commit, lambda config: config.include("aioext"))
    adapt_hooks(app.registry)
    assert app.registry.getUtility(IRendererFactory, "own").__wrapped__ is factory


# JSON -------------------------------------------------------------------------


class User:
    def __init__(self, name, meet):
        self.name = name
        self.meet = meet

    async def __json__(self, request):
        await self.meet()
        return {"name": self.name, "path": request.path_info}


@pytest.mark.parametrize("renderer", ["json", "own", "jsonp"])
def test_json_of_an_object_may_be_a_coroutine(ask, renderer):
    meet = ask.meeting(20)

    def view(request):
        return {"users": [User(request.path_info, meet)]}

    app = make(
        add_renderer(JSON(indent=1)),
        add_renderer(JSONP(), "jsonp"),
        add_view(view, renderer=renderer),
    )
    for path, answer in zip(paths_of(20), ask(app, *paths_of(20)), strict=True):
        assert json.loads(answer.text) == {"users": [{"name": path, "path": path}]}


def test_what_a_coroutine_gives_may_need_one_again(ask):
    async def inner():
        await asyncio.sleep(0)
        return "inner"

    async def outer():
        return {"inner": inner(), "user": User("joe", lambda: asyncio.sleep(0))}

    app = make(add_view(lambda request: {"outer": outer()}, renderer="json"))
    assert json.loads(ask(app, "/x")[0].text) == {
        "outer": {"inner": "inner", "user": {"name": "joe", "path": "/x"}}
    }


def test_futures_are_waited_for():
    async def view(request):
        return {"task": asyncio.create_task(asyncio.sleep(0, "done"))}

    app = make(add_view(view, renderer="json"))
    assert json.loads(OnLoop()(app, "/")[0].text) == {"task": "done"}


class Money:
    amount = 5


def test_a_json_adapter_may_be_a_coroutine(ask):
    async def adapt(money, request):
        await asyncio.sleep(0)
        return money.amount

    renderer = JSON()
    renderer.add_adapter(Money, adapt)
    app = make(add_renderer(renderer), add_view(lambda it: [Money()], renderer="own"))
    assert json.loads(ask(app, "/")[0].text) == [5]


def test_an_applications_own_adapter_for_coroutines_is_kept(ask):
    def adapt(coroutine, request):
        coroutine.close()
        return "closed"

    renderer = JSON()
    renderer.add_adapter(type(coroutine := asyncio.sleep(0)), adapt)
    coroutine.close()
    app = make(
        add_renderer(renderer),
        add_view(lambda request: [asyncio.sleep(0)], renderer="own"),
    )
    assert json.loads(ask(app, "/")[0].text) == ["closed"]


def test_what_is_no_json_is_still_refused(ask):
    app = make(
        add_view(lambda request: {"it": object()}, renderer="json"),
        lambda config: config.add_exception_view(
            lambda error, request: Response(str(error.args[0])), context=TypeError
        ),
    )
    assert "is not JSON serializable" in ask(app, "/")[0].text


def test_other_applications_of_the_process_keep_pyramids_json():
    async def value():
        return 1

    make()
    coroutine = value()
    with pytest.raises(TypeError, match="is not JSON serializable"):
        json_renderer_factory(None)({"value": coroutine}, {})
    coroutine.close()

"""A tween that gives a coroutine is refused, by its name."""

import asyncio
import functools

import pytest
from inprocess import answer, make_app
from pyramid.config import Configurator
from pyramid.events import ApplicationCreated
from pyramid.exceptions import ConfigurationConflictError, ConfigurationError
from pyramid.interfaces import ITweens
from pyramid.response import Response
from pyramid.router import Router
from pyramid.scripts.ptweens import PTweensCommand
from pyramid.tweens import EXCVIEW, MAIN
from webtest import TestApp

from aioext import synchronize, use_executor
from aioext.hooks.tweens import install_tweens
from aioext.tweens import async_tween


def unmarked(handler, registry):
    async def tween(request):
        return await handler(request)

    return tween


def unmarked_partial(handler, registry):
    return functools.partial(unmarked(handler, registry))


class Unmarked:
    def __init__(self, handler, registry):
        self.handler = handler

    async def __call__(self, request):
        return await self.handler(request)


def unmarked_inside(handler, registry):
    tween = unmarked(handler, registry)
    return functools.wraps(tween)(lambda request: tween(request))


def unmarked_in_executor(handler, registry):
    return use_executor(handler)


async def factory_too(handler, registry):
    return handler


@async_tween
def marked(handler, registry):
    async def tween(request):
        response = await handler(request)
        response.headers["X-Marked"] = "yes"
        return response

    return tween


def synchronized(handler, registry):
    @synchronize
    async def tween(request):
        await asyncio.sleep(0)
        return Response("synchronized")

    return tween


def of_a_future(handler, registry):
    """Gives a Future, which is what aiopyramid's own tests did."""

    def tween(request):
        future = asyncio.get_running_loop().create_future()
        future.set_result(handler(request))
        return future

    return tween


def disabled(handler, registry):
    return handler


def view(request):
    return Response("view")


def with_tween(factory, **place):
    def add(config):
        config.add_tween(f"{__name__}.{factory.__name__}", **place)
        config.add_view(view)

    return add


@pytest.mark.parametrize(
    "factory",
    [
        unmarked,
        unmarked_partial,
        Unmarked,
        unmarked_inside,
        unmarked_in_executor,
    ],
)
@pytest.mark.parametrize("mode", ["executor", "inline", "request"])
def test_it_is_refused_at_the_first_request(factory, mode):
    app = make_app(with_tween(factory), settings={"aioext.sync_views": mode})
    with pytest.raises(ConfigurationError) as caught:
        answer(app)
    message = str(caught.value)
    assert f"{__name__}.{factory.__name__} is a coroutine function" in message
    assert "@aioext.tweens.async_tween" in message
    assert "errors.html#async-tween" in message
    with pytest.raises(ConfigurationError):
        TestApp(app.app).get("/")


def test_an_exception_view_may_answer_what_is_refused_beneath_it():
    def add(config):
        config.add_exception_view(
            lambda error, request: Response("refused"), context=ConfigurationError
        )

    app = make_app(with_tween(unmarked, under=EXCVIEW), add)
    assert answer(app).body == b"refused"


def test_a_factory_that_is_a_coroutine_function_is_refused_where_the_chain_is_made():
    with pytest.raises(ConfigurationError, match=r"factory_too is a coroutine"):
        make_app(with_tween(factory_too))


@pytest.mark.parametrize("factory", [marked, synchronized, of_a_future, disabled])
def test_what_gives_a_response_is_used(factory):
    client = answer(make_app(with_tween(factory)))
    assert client.body == (b"synchronized" if factory is synchronized else b"view")


def test_an_explicit_chain_is_checked_as_well():
    settings = {"pyramid.tweens": [EXCVIEW, f"{__name__}.unmarked"]}
    app = make_app(lambda config: config.add_view(view), settings=settings)
    with pytest.raises(ConfigurationError, match=f"{__name__}.unmarked"):
        answer(app)
    settings = {"pyramid.tweens": [f"{__name__}.marked"]}
    app = make_app(lambda config: config.add_view(view), settings=settings)
    assert (b"x-marked", b"yes") in answer(app).headers


def test_tweens_of_a_configuration_that_is_committed_in_between():
    app = make_app(
        with_tween(marked), lambda config: config.commit(), with_tween(unmarked)
    )
    with pytest.raises(ConfigurationError, match=f"{__name__}.unmarked"):
        answer(app)


@pytest.mark.parametrize("steps", [(with_tween(unmarked), "aioext")])
def test_tweens_that_were_added_before_the_include(steps):
    with pytest.raises(ConfigurationError, match=f"{__name__}.unmarked"):
        answer(make_app(*steps))


def test_conflicts_and_order_are_pyramids():
    config = Configurator()
    config.include("aioext")
    name = f"{__name__}.marked"
    config.add_tween(name, over=MAIN)
    config.add_tween(name, under=EXCVIEW)
    with pytest.raises(ConfigurationConflictError):
        config.commit()


def test_doing_it_twice_is_harmless():
    app = make_app(with_tween(marked), lambda config: config.commit(), "aioext")
    registry = app.app.registry
    tweens = registry.getUtility(ITweens)
    install_tweens(registry)
    assert registry.getUtility(ITweens) is tweens
    assert answer(app).headers.count((b"x-marked", b"yes")) == 1


def test_two_routers_of_one_registry():
    app = make_app(with_tween(marked))
    registry = app.app.registry
    again = Router(registry)
    registry.notify(ApplicationCreated(again))
    assert TestApp(again).get("/").headers["X-Marked"] == "yes"


def test_ptweens_shows_them(tmp_path):
    shown = []
    registry = make_app(with_tween(marked)).app.registry
    command = PTweensCommand(["ptweens", "development.ini"])
    command.out = shown.append
    command.bootstrap = lambda *args, **options: {"registry": registry}
    command.setup_logging = lambda *args, **options: None
    assert command.run() == 0
    assert any(f"{__name__}.marked" in line for line in shown)
    assert any(EXCVIEW in line for line in shown)

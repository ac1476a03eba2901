"""Factories, the locale negotiator and execution policies that are coroutines."""

import asyncio

import pytest
from hook_apps import OnLoop, OnWsgi, make
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import (
    IDefaultRootFactory,
    IExecutionPolicy,
    ILocaleNegotiator,
    IRequestFactory,
    IRootFactory,
    ISessionFactory,
)
from pyramid.request import Request
from pyramid.response import Response
from pyramid.router import default_execution_policy
from pyramid.scripting import get_root, prepare
from pyramid.session import SignedCookieSessionFactory
from pyramid.traversal import DefaultRootFactory

from aioext import wait
from aioext.hooks import adapt_hooks


@pytest.fixture(params=[OnLoop, OnWsgi])
def ask(request):
    return request.param()


def name_of(request):
    return request.path_info.strip("/")


def paths_of(count):
    return [f"/name{number}" for number in range(count)]


def add_view(view, **options):
    # At any path: a root without children has it as the view's name.
    def add(config):
        config.add_route("any", "/*any")
        config.add_view(view, route_name="any", **options)

    return add


def commit(config):
    config.commit()


class Awaitable:
    """An object that is meant to be used, and can be awaited as well."""

    def __init__(self, name):
        self.name = name

    def __await__(self):
        raise AssertionError("it was awaited")


# Root factories ---------------------------------------------------------------


@pytest.mark.parametrize("early", [(), (commit,)])
def test_a_root_factory_gives_each_request_its_root(ask, early):
    meet = ask.meeting(20)

    async def root(request):
        await meet()
        return {"name": name_of(request)}

    app = make(
        *early,
        lambda config: config.set_root_factory(root),
        add_view(lambda root, request: Response(root["name"])),
    )
    answers = ask(app, *paths_of(20))
    assert [f"/{answer.text}" for answer in answers] == paths_of(20)


def test_a_root_that_can_be_awaited_is_used_as_it_is(ask):
    for give in Awaitable, lambda name: asyncio.sleep(0, Awaitable(name)):
        app = make(
            lambda config, give=give: config.set_root_factory(lambda it: give("me")),
            add_view(lambda root, request: Response(root.name)),
        )
        assert ask(app, "/")[0].text == "me"


def test_a_root_factory_that_is_a_class_is_left_alone():
    class Root:
        def __init__(self, request): ...

    for factory in Root, DefaultRootFactory:
        app = make(lambda config, factory=factory: config.set_root_factory(factory))
        for provided in IRootFactory, IDefaultRootFactory:
            assert app.registry.getUtility(provided) is factory
        assert app.root_factory is factory
        assert app.root_policy is factory


def test_scripts_use_the_root_factory_too():
    async def root(request):
        await asyncio.sleep(0)
        return "root"

    app = make(lambda config: config.set_root_factory(root))
    got, closer = get_root(app)
    closer()
    assert got == "root"
    with prepare(registry=app.registry) as environment:
        assert environment["root"] == "root"


# Sessions ---------------------------------------------------------------------


def test_a_session_factory_gives_each_request_its_session(ask):
    meet = ask.meeting(20)

    async def session(request):
        await meet()
        return {"name": name_of(request)}

    def view(request):
        assert request.session is request.session
        return Response(request.session["name"])

    app = make(lambda config: config.set_session_factory(session), add_view(view))
    answers = ask(app, *paths_of(20))
    assert [f"/{answer.text}" for answer in answers] == paths_of(20)


def test_a_session_that_can_be_awaited_is_used_as_it_is(ask):
    async def session(request):
        return Awaitable("session")

    app = make(
        lambda config: config.set_session_factory(session),
        add_view(lambda request: Response(request.session.name)),
    )
    assert ask(app, "/")[0].text == "session"


def test_pyramids_session_factory_is_left_alone():
    factory = SignedCookieSessionFactory("secret")
    app = make(lambda config: config.set_session_factory(factory))
    assert app.registry.getUtility(ISessionFactory) is factory


# The locale -------------------------------------------------------------------


def test_a_locale_negotiator_gives_each_request_its_locale(ask):
    meet = ask.meeting(20)

    async def negotiate(request):
        await meet()
        return name_of(request)

    def view(request):
        return Response(f"{request.locale_name} {request.localizer.locale_name}")

    app = make(lambda config: config.set_locale_negotiator(negotiate), add_view(view))
    for path, answer in zip(paths_of(20), ask(app, *paths_of(20)), strict=True):
        assert answer.text == f"{path[1:]} {path[1:]}"


def test_no_negotiator_is_registered_where_the_application_has_none():
    assert make().registry.queryUtility(ILocaleNegotiator) is None


# Responses and requests -------------------------------------------------------


def test_a_response_factory_makes_the_response_of_a_request(ask):
    async def factory(request):
        await asyncio.sleep(0)
        response = Response()
        response.headers["X-Made"] = name_of(request)
        return response

    app = make(
        lambda config: config.set_response_factory(factory),
        add_view(lambda request: "text", renderer="string"),
    )
    for path, answer in zip(paths_of(3), ask(app, *paths_of(3)), strict=True):
        assert (answer.text, answer.headers["x-made"]) == ("text", path[1:])


@pytest.mark.parametrize("early", [(), (commit,)])
def test_a_request_factory_makes_requests(ask, early):
    class Own(Request):
        mine = "mine"

    async def make_request(environ):
        await asyncio.sleep(0)
        return Own(environ)

    app = make(
        *early,
        lambda config: config.set_request_factory(make_request),
        add_view(lambda request: Response(f"{request.mine} {request.is_websocket}")),
    )
    assert ask(app, "/")[0].text == "mine False"


# Execution policies -----------------------------------------------------------


def retry(meet):
    async def policy(environ, router):
        await meet()
        with router.request_context(environ) as request:
            try:
                return router.invoke_request(request)
            except LookupError:
                await asyncio.sleep(0)
                request.environ["attempt"] = 2
        with router.request_context(environ) as request:
            return router.invoke_request(request)

    return policy


@pytest.mark.parametrize("early", [(), (commit,)])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_execution_policy_may_be_a_coroutine(ask, early, asynchronous):
    def view(request):
        wait(asyncio.sleep(0))
        if "attempt" not in request.environ:
            raise LookupError
        return Response(name_of(request))

    async def coroutine(request):
        return view(request)

    app = make(
        *early,
        lambda config: config.set_execution_policy(retry(ask.meeting(20))),
        add_view(coroutine if asynchronous else view),
    )
    answers = ask(app, *paths_of(20))
    assert [f"/{answer.text}" for answer in answers] == paths_of(20)


@pytest.mark.parametrize(
    "steps", [(), (lambda config: config.set_execution_policy(None),)]
)
def test_pyramids_execution_policy_is_left_alone(steps):
    assert make(*steps).execution_policy.policy is default_execution_policy


def test_an_execution_policy_that_is_a_coroutine_runs_in_no_thread():
    settings = {"aioext.sync_views": "request"}
    with pytest.raises(ConfigurationError, match="sync_views") as raised:
        make(lambda config: config.set_execution_policy(retry(None)), settings=settings)
    assert "function test_hooks_utilities.policy" in str(raised.value)


def test_an_execution_policy_in_a_thread_may_give_what_is_awaitable(ask):
    def policy(environ, router):
        return asyncio.sleep(0, default_execution_policy(environ, router))

    app = make(
        lambda config: config.set_execution_policy(policy),
        add_view(lambda request: Response("in")),
        settings={"aioext.sync_views": "request"},
    )
    assert ask(app, "/")[0].text == "in"


# Stand-ins --------------------------------------------------------------------


def test_everything_is_adapted_once():
    async def factory(request): ...

    def steps(config):
        config.set_root_factory(factory)
        config.set_session_factory(factory)
        config.set_locale_negotiator(factory)
        config.set_execution_policy(factory)

    app = make(steps)
    registry = app.registry
    provided = IRootFactory, ISessionFactory, ILocaleNegotiator, IExecutionPolicy
    before = [registry.getUtility(each) for each in provided]
    adapt_hooks(registry)
    after = [registry.getUtility(each) for each in provided]
    assert all(one is other for one, other in zip(before, after, strict=True))
    assert all(each.__wrapped__ is factory for each in before[:3])
    assert app.root_factory is before[0]
    assert app.root_factory == factory
    assert app.execution_policy is before[3]


def test_the_application_that_is_created_has_what_was_registered():
    def steps(config):
        config.commit()
        config.set_request_factory(type("Own", (Request,), {}))

    app = make(steps)
    assert app.request_factory is app.registry.getUtility(IRequestFactory)
    assert app.request_factory.blank("/").is_websocket is False


def test_a_factory_that_is_registered_afterwards_is_not_adapted():
    config = Configurator()
    config.include("aioext")
    config.make_wsgi_app()

    def factory(request): ...

    config.registry.registerUtility(factory, ISessionFactory)
    assert config.registry.getUtility(ISessionFactory) is factory

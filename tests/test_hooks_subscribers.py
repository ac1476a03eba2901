"""Event subscribers that are coroutine functions."""

import asyncio
import functools

import pytest
from asgi import Client
from inprocess import answer, answers, make_app, where
from pyramid.config import Configurator
from pyramid.events import (
    ApplicationCreated,
    BeforeRender,
    BeforeTraversal,
    ContextFound,
    NewRequest,
    NewResponse,
)
from pyramid.interfaces import INewRequest, INewResponse
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from aioext import AppStarting, AppStopping, use_executor
from aioext.hooks.subscribers import adapt_subscribers
from aioext.testing.life import Life


def view(request):
    return Response("view")


class Custom:
    """An event of the application's own."""


class Instance:
    def __init__(self, function):
        self.function = function

    async def __call__(self, event):
        await self.function(event)

    async def method(self, event):
        await self.function(event)


def noting(seen, word=None):
    async def subscriber(event):
        await asyncio.sleep(0)
        seen.append(word or type(event).__name__)

    return subscriber


def with_subscriber(subscriber, *ifaces, **options):
    def add(config):
        for iface in ifaces or (NewRequest,):
            config.add_subscriber(subscriber, iface)
        config.add_view(view)

    return make_app(add, **options)


@pytest.mark.parametrize("mode", ["executor", "inline", "request"])
def test_every_event_of_a_request(mode):
    seen = []
    events = [BeforeTraversal, NewRequest, ContextFound, BeforeRender, NewResponse]

    def add(config):
        for event in (ApplicationCreated, *events):
            config.add_subscriber(noting(seen), event)
        config.add_view(lambda request: {}, renderer="json")

    app = make_app(add, settings={"aioext.sync_views": mode})
    assert seen == ["ApplicationCreated"]
    assert answer(app).body == b"{}"
    assert sorted(seen[1:]) == sorted(each.__name__ for each in events)
    TestApp(app.app).get("/")
    assert len(seen) == 11


def test_what_it_does_is_done_before_the_request_goes_on():
    async def loading(event):
        await asyncio.sleep(0)
        event.request.loaded = "loaded"

    async def adding(event):
        await asyncio.sleep(0)
        event["added"] = "added"

    class Template:
        def __init__(self, info): ...

        def __call__(self, value, system):
            return system["added"] + value

    def add(config):
        config.add_subscriber(loading, NewRequest)
        config.add_subscriber(adding, BeforeRender)
        config.add_renderer("template", Template)
        config.add_view(lambda request: request.loaded, renderer="template")

    assert answer(make_app(add)).body == b"addedloaded"


@pytest.mark.parametrize(
    "shape",
    [
        lambda function: function,
        functools.partial,
        lambda function: lambda event: function(event),
        lambda function: lambda event, *others: function(event),
        lambda function: Instance(function),
        lambda function: Instance(function).method,
    ],
    ids=["function", "partial", "hidden", "all arguments", "instance", "method"],
)
def test_every_shape(shape):
    seen = []
    assert answer(with_subscriber(shape(noting(seen)))).status == 200
    assert seen == ["NewRequest"]


def test_one_that_aioext_has_made():
    seen = []
    subscriber = use_executor(lambda event: seen.append(where()))
    assert answer(with_subscriber(subscriber)).status == 200
    assert seen == ["executor"]


def test_they_are_called_in_the_order_in_which_they_were_registered():
    seen = []

    def add(config):
        for number in range(6):
            asynchronous = number % 2
            config.add_subscriber(
                noting(seen, number)
                if asynchronous
                else (lambda event, n=number: seen.append(n or "0")),
                NewRequest,
            )
        config.add_view(view)

    answer(make_app(add))
    assert seen == ["0", 1, 2, 3, 4, 5]


def test_one_that_is_registered_twice_is_called_twice():
    seen = []

    async def subscriber(event, *others):
        seen.append(1)

    answer(with_subscriber(subscriber, NewRequest, NewRequest, INewResponse))
    assert seen == [1, 1, 1]


def test_requests_go_on_while_one_waits():
    together = asyncio.Barrier(3)

    async def waiting(event):
        async with asyncio.timeout(10):
            await together.wait()

    clients = answers(with_subscriber(waiting), ["/"] * 3)
    assert [client.status for client in clients] == [200] * 3


def test_an_error_of_it_is_the_requests():
    async def failing(event):
        raise ZeroDivisionError

    def add(config):
        config.add_exception_view(
            lambda error, request: Response("error view"), context=ZeroDivisionError
        )

    app = with_subscriber(failing)
    with pytest.raises(ZeroDivisionError):
        answer(app)
    app = make_app(add, lambda config: config.add_subscriber(failing, ContextFound))
    assert answer(app, "/missing").body == b"error view"


def test_events_of_the_applications_own_and_with_other_objects():
    seen = []

    async def of_both(event, request):
        await asyncio.sleep(0)
        seen.append((type(event), request.path))

    app = with_subscriber(of_both, [Custom, Request])
    app.app.registry.notify(Custom(), Request.blank("/path"))
    assert seen == [(Custom, "/path")]


def test_one_of_every_event():
    seen = []

    def add(config):
        config.add_subscriber(noting(seen))
        config.add_view(view)

    answer(make_app(add))
    assert {"ApplicationCreated", "NewRequest", "NewResponse"} <= set(seen)


def test_the_application_starts_and_stops():
    seen = []
    app = with_subscriber(noting(seen), AppStarting, AppStopping)

    async def main():
        life = Life(app.app)
        await life.open()
        assert seen == ["AppStarting"]
        assert (await Client().call(app)).status == 200
        await life.close()

    asyncio.run(main())
    assert seen == ["AppStarting", "AppStopping"]


@pytest.mark.parametrize("registered", [NewRequest, INewRequest, ApplicationCreated])
def test_subscribers_of_a_configuration_that_is_committed_in_between(registered):
    seen = []

    def add(config):
        config.commit()
        config.add_subscriber(noting(seen), registered)
        config.add_view(view)

    answer(make_app(add))
    assert len(seen) == 1


def test_subscribers_from_before_the_include():
    seen = []

    def add(config):
        config.add_subscriber(noting(seen, "first"), NewRequest)
        config.commit()

    app = make_app(add, "aioext", lambda config: config.add_view(view))
    answer(app)
    assert seen == ["first"]


@pytest.mark.parametrize("adapted", [True, False])
def test_who_registered_one_can_unregister_it(adapted):
    seen = []
    config = Configurator()
    config.include("aioext")

    async def subscriber(event):
        seen.append("async")

    config.registry.registerHandler(subscriber, (NewRequest,))
    config.registry.registerHandler(seen.append, (NewRequest,))
    config.commit()
    if adapted:
        adapt_subscribers(config.registry)
    assert config.registry.unregisterHandler(subscriber, (NewRequest,))
    assert not config.registry.unregisterHandler(subscriber, (NewRequest,))
    adapt_subscribers(config.registry)
    config.registry.notify(NewRequest(Request.blank("/")))
    assert [type(each) for each in seen] == [NewRequest]


def test_doing_it_twice_is_harmless():
    seen = []
    app = with_subscriber(noting(seen))
    before = [each.handler for each in app.app.registry.registeredHandlers()]
    adapt_subscribers(app.app.registry)
    after = [each.handler for each in app.app.registry.registeredHandlers()]
    assert all(one is other for one, other in zip(before, after, strict=True))
    answer(app)
    assert seen == ["NewRequest"]


def test_what_it_is_registered_with_is_kept():
    registry = Configurator().registry
    registry.registerHandler(view, (INewRequest, Custom), info="information")
    (before,) = registry.registeredHandlers()
    adapt_subscribers(registry)
    (after,) = registry.registeredHandlers()
    assert after.required == before.required
    assert after.info == "information"
    assert after.handler == view

"""The attributes that requests have of aioext, without a class for each request."""

import asyncio
import gc
import types

import pytest
from asgi import Client
from inprocess import answer, make_app
from pyramid.config import Configurator
from pyramid.interfaces import IRequest, IRequestFactory
from pyramid.request import Request, apply_request_extensions
from pyramid.response import Response
from pyramid.scripting import prepare

from aioext.request import adapt_request_factory, add_request_attribute

NAMES = [
    "is_websocket",
    "websocket",
    "is_eventsource",
    "is_eventstream",
    "last_event_id",
    "disconnected",
]


class Own(Request):
    """The requests of an application, which has an attribute of its own."""

    last_event_id = "own"


def requests_of(*steps, count=1, **options):
    """Requests as a view of an application sees them."""
    seen = []

    def view(request):
        seen.append(request)
        return Response()

    app = make_app(*steps, lambda config: config.add_view(view), **options)

    async def ask():
        for _ in range(count):
            await Client().call(app)

    asyncio.run(ask())
    return seen


def tell(*steps, **options):
    """What the attributes of a request are, where they are none's own."""
    (request,) = requests_of(*steps, **options)
    told = {name: getattr(request, name) for name in NAMES}
    assert told.pop("disconnected") is not None
    return told


PLAIN = {
    "is_websocket": False,
    "websocket": None,
    "is_eventsource": False,
    "is_eventstream": False,
    "last_event_id": None,
}


def set_factory(factory):
    return lambda config: config.set_request_factory(factory)


def add_method(name="other", value="other", **options):
    options = {"property": True, **options}
    return lambda config: config.add_request_method(
        lambda request: value, name, **options
    )


def commit(config):
    config.commit()


# Every way to configure requests


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (add_method(),),
        (add_method("method", property=False),),
        (add_method(reify=True),),
        ("aioext", commit, add_method()),
        (add_method(), "aioext", commit, add_method("another")),
        ("aioext", commit, "aioext"),
        ("aioext", commit, set_factory(Request)),
    ],
)
def test_a_request_has_them(steps):
    assert tell(*steps) == PLAIN


def test_they_are_there_with_autocommit():
    assert tell(autocommit=True) == PLAIN
    assert tell(add_method(), autocommit=True) == PLAIN


OWN = [Own, lambda environ: Own(environ)]


@pytest.mark.parametrize("factory", OWN, ids=["class", "function"])
@pytest.mark.parametrize(
    "steps", [(), ("aioext", commit, "aioext"), ("aioext", "aioext")]
)
def test_a_request_class_of_the_application_keeps_what_it_has(factory, steps):
    assert tell(set_factory(factory), *steps) == {**PLAIN, "last_event_id": "own"}
    (request,) = requests_of(set_factory(factory), *steps)
    assert isinstance(request, Own)


def test_it_keeps_it_beside_properties_of_the_application():
    told = tell(set_factory(Own), add_method())
    assert told == {**PLAIN, "last_event_id": "own"}


def test_the_class_looks_like_the_applications_own():
    (request,) = requests_of(set_factory(Own))
    cls = type(request)
    assert (cls.__name__, cls.__qualname__, cls.__module__) == (
        "Own",
        "Own",
        __name__,
    )
    assert IRequest.providedBy(request)


def test_a_class_is_derived_once():
    own = type("All", (Request,), dict.fromkeys(NAMES, "own"))

    def create_twice(config):
        config.set_request_factory(own)
        config.include("aioext")
        config.make_wsgi_app()

    (request,) = requests_of(create_twice)
    assert type(request).__bases__ == (own,)


def test_a_function_that_makes_requests_still_has_its_attributes():
    def factory(environ):
        return Own(environ)

    factory.blank = Own.blank
    app = make_app(set_factory(factory))
    registered = app.app.registry.getUtility(IRequestFactory)
    assert registered.blank("/path").path == "/path"
    with pytest.raises(AttributeError):
        registered.nothing  # noqa: B018


def test_a_function_that_makes_requests_is_wrapped_once():
    def factory(environ):
        return Own(environ)

    app = make_app(set_factory(factory), "aioext", lambda config: config.commit())
    adapt_request_factory(app.app.registry)
    assert app.app.registry.getUtility(IRequestFactory).made_by is factory


def test_a_function_may_make_requests_of_several_classes():
    classes = iter([Own, Request, Own])
    seen = requests_of(set_factory(lambda environ: next(classes)(environ)), count=3)
    assert [request.last_event_id for request in seen] == ["own", None, "own"]
    assert type(seen[0]) is type(seen[2]) is not type(seen[1])


# An application's own attributes of the same names


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_property", [True, False])
@pytest.mark.parametrize(
    ("before", "options"),
    [((), {}), (("aioext", commit), {}), ((), {"autocommit": True})],
    ids=["conflict", "commit", "autocommit"],
)
def test_an_application_keeps_its_own(name, is_property, before, options):
    own = add_method(name, "own", property=is_property)
    (request,) = requests_of(*before, own, **options)
    found = getattr(request, name)
    assert (found if is_property else found()) == "own"
    rest = [each for each in NAMES if each != name]
    assert all(hasattr(request, each) for each in rest)


def test_one_may_be_set_on_a_request():
    # By a tween that knows better, or by a test.
    (request,) = requests_of()
    request.is_websocket = True
    assert request.is_websocket is True


def test_one_that_is_computed_once_is_kept():
    calls = []

    def counted(request):
        calls.append(request)
        return len(calls)

    def uncounted(request):
        return counted(request)

    def add(config):
        add_request_attribute(config, counted, once=True)
        add_request_attribute(config, uncounted)

    (request,) = requests_of(add)
    assert [request.counted, request.counted] == [1, 1]
    assert [request.uncounted, request.uncounted] == [2, 3]
    assert calls == [request] * 3


def test_they_are_told_among_the_request_extensions():
    config = Configurator()
    config.include("aioext")
    config.commit()
    category = config.introspector.get_category("request extensions")
    found = [each["introspectable"] for each in category]
    told = {each.discriminator: each for each in found}
    assert set(NAMES) <= set(told)
    assert told["is_websocket"]["reify"] is False
    assert told["is_websocket"]["property"] is True
    assert callable(told["is_websocket"]["callable"])
    assert told["is_websocket"].type_name == "request property"


# What it costs


def test_all_requests_are_of_one_class():
    first, second = requests_of(count=2)
    assert type(first) is type(second)


@pytest.mark.parametrize("factory", [Request, *OWN])
def test_no_class_is_made_for_a_request(factory):
    app = make_app(
        set_factory(factory), lambda config: config.add_view(lambda r: Response())
    )

    async def ask(times):
        for _ in range(times):
            await Client().call(app)

    asyncio.run(ask(5))
    gc.collect()
    before = len(type.__subclasses__(Request)) + len(type.__subclasses__(Own))
    asyncio.run(ask(20))
    after = len(type.__subclasses__(Request)) + len(type.__subclasses__(Own))
    assert after == before


def test_a_request_leaves_no_garbage():
    def view(request):
        assert request.is_websocket is False
        assert request.websocket is None
        return Response()

    app = make_app(lambda config: config.add_view(view))

    async def ask():
        for _ in range(3):
            await Client().call(app)
        gc.collect()
        gc.disable()
        try:
            gc.set_debug(gc.DEBUG_SAVEALL)
            await Client().call(app)
            gc.collect()
            return [each for each in gc.garbage if isinstance(each, Request)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    assert asyncio.run(ask()) == []


def test_adapting_twice_changes_nothing():
    registry = make_app().app.registry
    factory = registry.getUtility(IRequestFactory)
    adapt_request_factory(registry)
    assert registry.getUtility(IRequestFactory) is factory


# Requests that are made by others


def test_a_request_of_a_script_has_them():
    app = make_app().app
    with prepare(registry=app.registry) as env:
        assert env["request"].is_websocket is False


def test_a_subrequest_that_is_made_by_the_factory_has_them():
    def outer(request):
        factory = request.registry.getUtility(IRequestFactory)
        return request.invoke_subrequest(factory.blank("/inner"))

    def inner(request):
        return Response(repr(request.is_websocket))

    app = make_app(
        lambda config: config.add_view(outer),
        lambda config: config.add_view(inner, name="inner"),
    )
    assert answer(app).body == b"False"


@pytest.mark.parametrize("steps", [(), (add_method(),)], ids=["plain", "property"])
def test_a_subrequest_of_another_class_has_them(steps):
    def outer(request):
        return request.invoke_subrequest(Request.blank("/inner"))

    def inner(request):
        return Response(repr(request.is_websocket))

    app = make_app(
        *steps,
        lambda config: config.add_view(outer),
        lambda config: config.add_view(inner, name="inner"),
    )
    assert answer(app).body == b"False"


def test_an_object_that_keeps_its_class_gets_the_methods_of_requests():
    config = Configurator()
    config.include("aioext")
    config.add_request_method(lambda request: "there", "method")
    config.commit()
    request = types.SimpleNamespace(registry=config.registry)
    apply_request_extensions(request)
    assert request.method() == "there"

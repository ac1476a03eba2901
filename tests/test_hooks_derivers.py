"""Decorators and view derivers: an async def wrapper that is not marked is refused."""

import asyncio
import functools
import inspect

import pytest
from inprocess import EXECUTOR, LOOP, answer, make_app, where
from pyramid.config import Configurator
from pyramid.config.views import combine_decorators
from pyramid.exceptions import ConfigurationConflictError, ConfigurationError
from pyramid.interfaces import IViewDerivers
from pyramid.response import Response
from pyramid.view import view_config
from pyramid.viewderivers import VIEW
from webtest import TestApp

from aioext import synchronize, use_executor
from aioext.hooks.derivers import install_derivers
from aioext.wrappers import async_wrapper


def view(request):
    return Response(where())


async def async_view(request):
    await asyncio.sleep(0)
    return Response(where())


def refusal(*steps):
    with pytest.raises(ConfigurationError) as caught:
        make_app(*steps)
    return str(caught.value)


# Decorators


def unmarked(view):
    async def wrapper(context, request):
        return await view(context, request)

    return wrapper


class Unmarked:
    def __init__(self, view):
        self.view = view

    async def __call__(self, context, request):
        return await self.view(context, request)


def generating(view):
    async def wrapper(context, request):
        yield view(context, request)

    return wrapper


def unmarked_partial(view):
    return functools.partial(unmarked(view))


async def decorator_too(view):
    return view


@async_wrapper
def marked(view):
    async def wrapper(context, request):
        await asyncio.sleep(0)
        response = await view(context, request)
        response.headers["X-Marked"] = where()
        return response

    return wrapper


def ordinary(view):
    """Looks at what it gets: a response."""

    def wrapper(context, request):
        response = view(context, request)
        response.headers["X-Ordinary"] = where()
        return response

    return wrapper


def nothing(view):
    return view


def hiding(view):
    """Gives a function around a coroutine function."""

    async def wrapper(context, request):
        await asyncio.sleep(0)
        return view(context, request)

    return functools.wraps(wrapper)(lambda c, r: wrapper(c, r))


def hiding_well(view):
    """Gives a function of which nobody can tell."""
    wrapper = hiding(view)
    del wrapper.__wrapped__
    return wrapper


def synchronized(view):
    @synchronize
    async def wrapper(context, request):
        await asyncio.sleep(0)
        return view(context, request)

    return wrapper


def executing(view):
    """Gives a coroutine function that aioext has made."""
    return use_executor(view)


REFUSED = [unmarked, Unmarked, generating, unmarked_partial, executing]
TAKEN = [marked, ordinary, nothing, hiding, hiding_well, synchronized]


@pytest.mark.parametrize("decorator", [*REFUSED, decorator_too])
def test_an_unmarked_decorator_is_refused_by_name(decorator):
    for given in (
        decorator,
        (decorator,),
        [ordinary, decorator],
        (decorator, ordinary),
        (ordinary, decorator, hiding),
        f"{__name__}.{decorator.__name__}",
    ):
        message = refusal(lambda c, d=given: c.add_view(async_view, decorator=d))
        assert f"{__name__}.{decorator.__name__}" in message
        assert f"the view function {__name__}.async_view" in message
        assert "@aioext.async_wrapper" in message
        assert "errors.html#async-wrapper" in message


def test_the_message_names_the_method_of_a_view_class():
    class View:
        def __init__(self, request): ...

        async def method(self): ...

    message = refusal(lambda c: c.add_view(View, attr="method", decorator=unmarked))
    assert "the view method of class" in message


def test_an_exception_view_is_looked_at_as_well():
    message = refusal(
        lambda c: c.add_exception_view(view, context=KeyError, decorator=unmarked)
    )
    assert f"{__name__}.unmarked" in message


@pytest.mark.parametrize("decorator", TAKEN)
@pytest.mark.parametrize("mode", ["executor", "inline", "request"])
def test_what_gives_a_response_is_taken(decorator, mode):
    def add(config):
        config.add_view(view, decorator=decorator)
        config.add_view(async_view, name="async", decorator=[ordinary, decorator])
        config.add_view(view, name="many", decorator=(ordinary, decorator, nothing))

    app = make_app(add, settings={"aioext.sync_views": mode})
    runs = LOOP if mode == "inline" else EXECUTOR
    # A coroutine of theirs runs on the loop, and calls the view where it runs.
    if decorator in (hiding, hiding_well, synchronized) and mode == "request":
        runs = LOOP
    for path, ran in {"/": runs, "/async": LOOP, "/many": runs}.items():
        client = answer(app, path)
        assert (client.status, client.body.decode()) == (200, ran)
        names = [name for name, _ in client.headers]
        assert (b"x-ordinary" in names) is (path != "/" or decorator is ordinary)
        assert (b"x-marked" in names) is (decorator is marked)
    assert TestApp(app.app).get("/async").status_int == 200


def test_attributes_that_a_decorator_sets_are_kept():
    seen = []

    def naming(view):
        def wrapper(context, request):
            return view(context, request)

        wrapper.name = "name"
        return wrapper

    def reading(view):
        seen.append(view.name)
        return view

    make_app(lambda config: config.add_view(view, decorator=(reading, naming)))
    assert seen == ["name"]


@view_config(name="configured", decorator=(ordinary, marked))
def configured(request):
    return Response("configured")


def test_a_decorator_of_view_config():
    client = answer(make_app(lambda config: config.scan(__name__)), "/configured")
    assert client.body == b"configured"
    assert {b"x-ordinary", b"x-marked"} <= {name for name, _ in client.headers}


def test_pyramid_combines_decorators_as_is_assumed():
    # Its own function, and not one that is meant to be looked into.
    combined = combine_decorators(ordinary, marked)
    assert combined.__code__ is combine_decorators().__code__
    assert inspect.getclosurevars(combined).nonlocals == {
        "decorators": (ordinary, marked)
    }


# View mappers


class Mapper:
    def __init__(self, **options):
        self.options = options

    def __call__(self, view):
        return lambda context, request: view(request)


class AsyncMapper(Mapper):
    async def __call__(self, view):
        return view


async def make_mapper(**options):
    return Mapper(**options)


@pytest.mark.parametrize("mapper", [AsyncMapper, make_mapper])
@pytest.mark.parametrize(
    "configure",
    [
        lambda config, mapper: config.add_view(view, mapper=mapper),
        lambda config, mapper: (config.set_view_mapper(mapper), config.add_view(view)),
    ],
    ids=["one", "default"],
)
def test_a_view_mapper_that_is_a_coroutine_function_is_refused(mapper, configure):
    message = refusal(lambda config: configure(config, mapper))
    assert f"view mapper {'class' if mapper is AsyncMapper else 'function'}" in message
    assert mapper.__name__ in message
    assert "is a coroutine function itself" in message
    assert f"the view function {__name__}.view" in message


def test_a_view_mapper_is_given_pyramids_options():
    made = []

    def make_mapper(**options):
        made.append(options)
        return Mapper(**options)

    app = make_app(
        lambda config: config.add_view(async_view, "name", mapper=make_mapper)
    )
    assert answer(app, "/name").body == b"loop"
    assert made[0]["name"] == "name"


# View derivers


def deriver_of(decorator):
    """A view deriver that does what a decorator does."""

    def deriver(view, info):
        return decorator(view) if info.options.get("derived") else view

    deriver.options = ("derived",)
    return deriver


PLACES = [
    {},
    {"under": "rendered_view", "over": "VIEW"},
    {"under": "INGRESS", "over": "secured_view"},
]


@pytest.mark.parametrize("decorator", REFUSED)
def test_an_unmarked_deriver_is_refused_by_name(decorator):
    def add(config, place):
        config.add_view_deriver(deriver_of(decorator), "waiting", **place)
        config.add_view(async_view, derived=True)

    for place in PLACES:
        message = refusal(lambda config, p=place: add(config, p))
        assert "The view deriver 'waiting' makes" in message
        assert f"the view function {__name__}.async_view" in message
        assert "@aioext.async_wrapper" in message


def test_a_deriver_that_is_a_coroutine_function_is_refused():
    async def deriver(view, info):
        return view

    def add(config):
        config.add_view_deriver(deriver)
        config.add_view(view)

    message = refusal(add)
    assert "The view deriver 'deriver' is a coroutine function itself" in message


def test_what_aioext_has_synchronized_is_looked_at_as_well():
    @synchronize
    async def deriver(view, info):
        return unmarked(view)

    def add(config):
        config.add_view_deriver(deriver, "waiting")
        config.add_view(view)

    assert "The view deriver 'waiting' makes" in refusal(add)


@pytest.mark.parametrize("decorator", TAKEN)
def test_a_deriver_that_gives_a_response_is_taken(decorator):
    def add(config):
        config.add_view_deriver(deriver_of(decorator), "theirs")
        config.add_view(async_view, derived=True)
        config.add_view(view, name="without")

    app = make_app(add)
    assert answer(app).body == b"loop"
    assert answer(app, "/without").body == b"executor"


def test_a_deriver_may_be_marked():
    @async_wrapper
    def deriver(view, info):
        if not info.options.get("derived"):
            return view

        async def wrapper(context, request):
            await asyncio.sleep(0)
            response = await view(context, request)
            response.headers["X-Derived"] = info.options["derived"]
            return response

        return wrapper

    deriver.options = ("derived",)

    def add(config):
        config.add_view_deriver(deriver)
        config.add_view(view, derived="yes")
        config.add_view(view, name="without")

    app = make_app(add)
    assert (b"x-derived", b"yes") in answer(app).headers
    assert b"x-derived" not in dict(answer(app, "/without").headers)


def test_a_deriver_that_stands_above_the_mapper_waits_for_a_value():
    def deriver(view, info):
        async def value(context, request):
            await asyncio.sleep(0)
            return {"value": view(context, request)}

        return lambda context, request: value(context, request)

    def add(config):
        config.add_view_deriver(deriver, "theirs", under="rendered_view", over="VIEW")
        config.add_view(lambda request: 1, renderer="json")

    assert answer(make_app(add)).body == b'{"value": 1}'


def test_derivers_of_a_configuration_that_is_committed_in_between():
    def add(config):
        config.commit()
        config.add_view_deriver(lambda view, info: unmarked(view), "late")
        config.add_view(view)

    assert "view deriver 'late'" in refusal(add)


def test_derivers_that_were_added_before_the_include():
    def add(config):
        config.add_view_deriver(lambda view, info: unmarked(view), "early")
        config.add_view(view)

    assert "view deriver 'early'" in refusal(add, "aioext")


def test_pyramids_own_derivers_are_left_alone():
    delegate = make_app().app.registry.getUtility(IViewDerivers)
    changed = {
        name
        for (name, own), (_, checked) in zip(
            delegate.hook.sorted(), delegate.sorted(), strict=True
        )
        if own is not checked and not name.startswith("aioext_")
    }
    assert changed == {"decorated_view", "mapped_view"}


def deriving(view, info):
    def derived(context, request):
        return {**view(context, request), "title": "derived"}

    return derived


def add_deriving(config):
    config.add_view_deriver(deriving, "deriving", under="rendered_view", over=VIEW)


class PlainMapper:
    """Calls a view, and awaits nothing."""

    def __init__(self, **options):
        pass

    def __call__(self, view):
        return lambda context, request: view(request)


@pytest.mark.parametrize("is_early", [True, False])
@pytest.mark.parametrize("mapper", [None, PlainMapper])
def test_what_renders_stands_around_the_derivers_of_an_application(is_early, mapper):
    async def give(request):
        return {"title": "T"}

    def add_views(config):
        options = {"mapper": mapper}
        config.add_view(give, name="plain", **options)
        config.add_view(give, name="formats", formats={"json": ["title"]}, **options)
        config.add_view(
            give, name="place", renderer="json", render="executor", **options
        )
        config.add_view(give, name="pyramid", renderer="json", **options)

    steps = ["aioext.renderers", add_deriving]
    app = make_app(
        *(reversed(steps) if is_early else steps),
        add_views,
        settings={"aioext.renderers.adapters": "true"},
    )
    for name in "plain", "formats", "place", "pyramid":
        assert answer(app, f"/{name}").body == b'{"title": "derived"}', name


def test_unknown_options_and_conflicts_are_told_by_pyramid():
    with pytest.raises(ConfigurationError, match="Unknown view options"):
        make_app(lambda config: config.add_view(view, nonsense=1))
    config = Configurator()
    config.include("aioext")
    config.add_view_deriver(deriver_of(ordinary), "same")
    config.add_view_deriver(deriver_of(marked), "same")
    with pytest.raises(ConfigurationConflictError):
        config.commit()


def test_doing_it_twice_is_harmless():
    registry = make_app(lambda config: config.commit(), "aioext").app.registry
    derivers = registry.getUtility(IViewDerivers)
    install_derivers(registry)
    assert registry.getUtility(IViewDerivers) is derivers


def test_a_view_that_is_derived_by_hand():
    config = Configurator()
    config.include("aioext")
    config.add_view_deriver(lambda view, info: hiding_well(view), "theirs")
    config.commit()
    assert config.derive_view(async_view)(None, None).text == "background"

"""Every shape of view under every mapper, and what Pyramid puts around a view."""

import asyncio
import functools
import inspect
import re
import sys
import textwrap
import traceback
from unittest.mock import AsyncMock

import pytest
from asgi import Client
from inprocess import BACKGROUND, EXECUTOR, LOOP, answer, make_app, where
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError, ConfigurationExecutionError
from pyramid.httpexceptions import HTTPForbidden, HTTPNotFound
from pyramid.response import Response
from pyramid.threadlocal import get_current_request
from pyramid.view import exception_view_config, view_config, view_defaults
from pyramid.viewderivers import DefaultViewMapper
from webtest import TestApp

from aioext import synchronize, use_executor, wait
from aioext.asgi import Gateway
from aioext.config import (
    CoroutineMapper,
    CoroutineOrExecutorMapper,
    ExecutorMapper,
    InlineMapper,
)

FLAVOURS = {
    "function": ("def", "pass"),
    "coroutine": ("async def", "await asyncio.sleep(0)"),
    "generator": ("def", "yield from asyncio.sleep(0)"),
}
SIGNATURES = ["request", "context, request"]

# The source of a view, the expression that gives it, and its attr. SELF is
# what a method of a view class finds there.
SHAPES = {
    "function": ("DEFINE view(ARGS): PAUSE; return reply(ARGS)", "view", None),
    "partial": (
        "DEFINE view(extra, ARGS): PAUSE; return reply(ARGS)",
        "functools.partial(functools.partial(view), 'extra')",
        None,
    ),
    "decorated": (
        """
        DEFINE view(ARGS): PAUSE; return reply(ARGS)
        inner = view
        @functools.wraps(inner)
        def view(ARGS): return inner(ARGS)
        """,
        "view",
        None,
    ),
    "hidden": (
        """
        DEFINE view(ARGS): PAUSE; return reply(ARGS)
        inner = view
        def view(ARGS): return inner(ARGS)
        """,
        "view",
        None,
    ),
    "class": (
        """
        class view:
            def __init__(self, ARGS): self.args = (ARGS,)
            DEFINE __call__(self): PAUSE; return reply(*self.args)
        """,
        "view",
        None,
    ),
    "method of a class": (
        """
        class view:
            def __init__(self, ARGS): self.args = (ARGS,)
            DEFINE method(self): PAUSE; return reply(*self.args)
        """,
        "view",
        "method",
    ),
    "static method of a class": (
        """
        class view:
            def __init__(self, ARGS): reply(ARGS)
            @staticmethod
            DEFINE method(): PAUSE; return reply(get_current_request())
        """,
        "view",
        "method",
    ),
    "class method of a class": (
        """
        class view:
            def __init__(self, ARGS): reply(ARGS)
            @classmethod
            DEFINE method(cls): PAUSE; return reply(get_current_request())
        """,
        "view",
        "method",
    ),
    "instance": (
        """
        class View:
            DEFINE __call__(self, ARGS): PAUSE; return reply(ARGS)
        """,
        "View()",
        None,
    ),
    "method of an instance": (
        """
        class View:
            DEFINE method(self, ARGS): PAUSE; return reply(ARGS)
        """,
        "View()",
        "method",
    ),
    "static method of an instance": (
        """
        class View:
            @staticmethod
            DEFINE method(ARGS): PAUSE; return reply(ARGS)
        """,
        "View()",
        "method",
    ),
    "bound method": (
        """
        class View:
            DEFINE method(self, ARGS): PAUSE; return reply(ARGS)
        """,
        "View().method",
        None,
    ),
    "static method": (
        """
        class View:
            @staticmethod
            DEFINE method(ARGS): PAUSE; return reply(ARGS)
        """,
        "View.method",
        None,
    ),
    "class method": (
        """
        class View:
            @classmethod
            DEFINE method(cls, ARGS): PAUSE; return reply(ARGS)
        """,
        "View.method",
        None,
    ),
}


def reply(*args):
    """Where the view runs; its arguments are what they ought to be."""
    request = args[-1]
    assert request is get_current_request()
    assert args[:-1] in [(), (request.context,)]
    return Response(where())


def make_view(shape, flavour, signature):
    """A view of that shape, made anew; and its attr."""
    source, expression, attr = SHAPES[shape]
    define, pause = FLAVOURS[flavour]
    source = textwrap.dedent(source)
    for name, value in ("DEFINE", define), ("PAUSE", pause), ("ARGS", signature):
        source = source.replace(name, value)
    namespace = {**globals(), "__name__": __name__}
    exec(source, namespace)
    return eval(expression, namespace), attr


CASES = [
    (shape, flavour, signature)
    for shape in SHAPES
    for flavour in FLAVOURS
    for signature in SIGNATURES
    # A generator that is hidden cannot be told from one for a renderer.
    if (shape, flavour) != ("hidden", "generator")
]


def by_default(shape, flavour):
    return EXECUTOR if flavour == "function" else LOOP


def by_coroutine_mapper(shape, flavour):
    return None if flavour == "function" or shape == "hidden" else LOOP


def by_executor_mapper(shape, flavour):
    if flavour == "function":
        return EXECUTOR
    # The mapper sees the function around it, and then what it returns.
    hidden = shape == "hidden" or (shape, flavour) == ("decorated", "generator")
    return LOOP if hidden else None


def by_inline_mapper(shape, flavour):
    return LOOP


# What runs the view, None where it is refused.
MAPPERS = {
    CoroutineOrExecutorMapper: by_default,
    CoroutineMapper: by_coroutine_mapper,
    ExecutorMapper: by_executor_mapper,
    InlineMapper: by_inline_mapper,
}


@pytest.mark.parametrize(("mapper", "runs"), MAPPERS.items())
def test_every_shape_runs_where_the_mapper_says(mapper, runs):
    expected = {case: runs(*case[:2]) for case in CASES}

    def add_views(config):
        for case in filter(expected.get, CASES):
            view, attr = make_view(*case)
            config.add_view(view, attr=attr, name="-".join(case), mapper=mapper)

    async def request_each():
        app = make_app(add_views)
        return {
            case: (await Client("/" + "-".join(case)).call(app)).body.decode()
            for case in filter(expected.get, CASES)
        }

    assert len(expected) == 82
    answered = asyncio.run(request_each())
    assert answered == {case: ran for case, ran in expected.items() if ran}


@pytest.mark.parametrize(("mapper", "runs"), MAPPERS.items())
def test_what_a_mapper_does_not_take_is_refused_by_name(mapper, runs):
    refused = [case for case in CASES if runs(*case[:2]) is None]
    for case in refused:
        view, attr = make_view(*case)
        config = Configurator()
        config.include("aioext")
        config.add_view(view, attr=attr, mapper=mapper)
        with pytest.raises(ConfigurationExecutionError) as caught:
            config.commit()
        message = str(caught.value)
        assert caught.value.etype is ConfigurationError
        # Named, with what to write instead, and where to read more.
        assert re.search(r"The view .*\b(view|View|method)\b", message)
        assert attr is None or "method of " in message
        assert mapper.__name__ in message
        assert "Leave mapper= out" in message or "leave mapper= out" in message
        assert "errors.html#view-mapper" in message
    assert bool(refused) is (mapper in (CoroutineMapper, ExecutorMapper))


def test_plain_servers_run_every_shape_too():
    def add_views(config):
        for case in CASES:
            view, attr = make_view(*case)
            config.add_view(view, attr=attr, name="-".join(case))

    client = TestApp(make_app(add_views).app)
    for case in CASES:
        ran = LOOP if case[1] == "function" else BACKGROUND
        assert client.get("/" + "-".join(case)).text == ran, case


def replying(request):
    return Response(where())


async def replying_coroutine(request):
    await asyncio.sleep(0)
    return Response(where())


def config_with(*steps, **options):
    """A configurator with aioext; ``steps`` as :func:`make_app` takes them."""
    config = Configurator(**options)
    config.include("aioext")
    for step in steps:
        step(config)
    return config


def refusal(*steps, **options):
    """What committing the configuration is refused with."""
    config = config_with(*steps, **options)
    with pytest.raises(ConfigurationExecutionError) as caught:
        config.commit()
    assert caught.value.etype is ConfigurationError
    return str(caught.value)


def test_a_mock_is_a_view():
    mock = AsyncMock(return_value=Response("mock"))
    app = make_app(lambda config: config.add_view(mock))
    assert answer(app).body == b"mock"
    mock.assert_awaited_once()


if hasattr(inspect, "markcoroutinefunction"):

    def test_a_marked_function_is_a_view():
        marked = inspect.markcoroutinefunction(
            lambda request: replying_coroutine(request)
        )
        app = make_app(lambda config: config.add_view(marked, mapper=CoroutineMapper))
        assert answer(app).body == b"loop"


def test_a_synchronized_view_waits_by_itself():
    view = synchronize(replying_coroutine)

    def add_views(config):
        config.add_view(view)
        config.add_view(view, name="coroutine", mapper=CoroutineMapper)
        config.add_view(view, name="executor", mapper=ExecutorMapper)

    app = make_app(add_views)
    for path in "/", "/coroutine", "/executor":
        assert answer(app, path).body == b"loop"


class Awaitable:
    def __init__(self, request):
        self.coroutine = replying_coroutine(request)

    def __await__(self):
        return self.coroutine.__await__()


def task(request):
    return asyncio.ensure_future(replying_coroutine(request))


def future(request):
    future = asyncio.get_running_loop().create_future()
    future.get_loop().call_soon(future.set_result, Response(where()))
    return future


@pytest.mark.parametrize("view", [Awaitable, task, future])
def test_any_awaitable_that_a_view_returns_is_awaited(view):
    def function(request):
        return view(request)

    app = make_app(lambda config: config.add_view(function, mapper=InlineMapper))
    assert answer(app).body == b"loop"


def test_an_awaitable_that_was_made_in_a_thread_is_awaited_on_the_loop():
    app = make_app(lambda config: config.add_view(lambda request: Awaitable(request)))
    assert answer(app).body == b"loop"


def test_an_asynchronous_generator_is_refused():
    async def stream(request):
        yield b"chunk"

    for mapper in MAPPERS:
        message = refusal(lambda c, m=mapper: c.add_view(stream, mapper=m))
        assert "stream is an asynchronous generator" in message
        assert "Response(app_iter=generator())" in message
        assert "to a renderer, one that returns generator()" in message


def test_an_asynchronous_generator_may_be_decorated_to_a_response():
    def streamed(function):
        @functools.wraps(function)
        def view(request):
            return Response(app_iter=function(request))

        return view

    @streamed
    async def view(request):
        yield b"a"
        await asyncio.sleep(0)
        yield b"b"

    app = make_app(lambda config: config.add_view(view))
    assert answer(app).body == b"ab"


def test_a_generator_that_streams_is_told_what_to_write():
    def stream(request):
        yield b"chunk"

    app = make_app(lambda config: config.add_view(stream))
    with pytest.raises(TypeError, match=r"yielded b'chunk'.*Response\(app_iter="):
        answer(app)


def test_a_function_may_return_a_generator_to_its_renderer():
    def numbers():
        yield 1
        yield 2

    def total(info):
        return lambda value, system: str(sum(value))

    def add_view(config):
        config.add_renderer("total", total)
        config.add_view(lambda request: numbers(), renderer="total")

    assert answer(make_app(add_view)).body == b"3"


def test_a_decorator_may_collect_what_a_generator_yields():
    def collected(function):
        @functools.wraps(function)
        def view(request):
            return [where(), *function(request)]

        return view

    @collected
    def view(request):
        yield 1
        yield 2

    app = make_app(lambda config: config.add_view(view, renderer="json"))
    assert answer(app).body == b'["executor", 1, 2]'


def test_a_decorator_may_run_a_coroutine_function_on_a_loop_of_its_own():
    def run(function):
        @functools.wraps(function)
        def view(request):
            return asyncio.run(function(request))

        return view

    view = run(replying_coroutine)
    app = make_app(lambda config: config.add_view(view))
    assert answer(app).body == b"executor"


def test_the_body_of_a_decorated_coroutine_stays_on_the_loop():
    @functools.wraps(replying_coroutine)
    def view(request):
        async def inner():
            return Response(app_iter=(where().encode() for _ in range(2)))

        return inner()

    app = make_app(lambda config: config.add_view(view))
    assert answer(app).body == b"looploop"


def test_a_view_may_be_shared_by_two_applications():
    def generator(request):
        yield from asyncio.sleep(0)
        return Response(where())

    def plain(request):
        return Response(where())

    for view, elsewhere in (generator, LOOP), (plain, LOOP), (replying, LOOP):
        first = make_app(lambda config, v=view: config.add_view(v))
        second = make_app(
            lambda config, v=view: config.add_view(v, mapper=InlineMapper)
        )
        ran = LOOP if view is generator else EXECUTOR
        assert answer(first).body.decode() == ran
        assert answer(second).body.decode() == elsewhere
        assert answer(first).body.decode() == ran


def test_a_generator_shared_with_a_plain_application_is_still_one():
    def numbers(request):
        yield 1
        yield 2

    make_app(lambda config: config.add_view(numbers))
    plain = Configurator()
    plain.add_renderer("list", lambda info: lambda value, system: str(list(value)))
    plain.add_view(numbers, renderer="list")
    assert TestApp(plain.make_wsgi_app()).get("/").text == "[1, 2]"


# What stands around a view.


def fail(request):
    raise KeyError("fails")


class TestExceptionViews:
    @pytest.mark.parametrize(
        "view", [lambda e, request: Response(where()), replying_coroutine]
    )
    def test_answer_for_a_view_of_any_kind(self, view):
        async def fail_later(request):
            await asyncio.sleep(0)
            fail(request)

        def add_views(config):
            config.add_view(fail)
            config.add_view(fail_later, name="later")
            config.add_exception_view(view, context=KeyError)

        app = make_app(add_views)
        expected = b"loop" if view is replying_coroutine else b"executor"
        assert answer(app).body == answer(app, "/later").body == expected

    @pytest.mark.parametrize("mapper", [CoroutineOrExecutorMapper, InlineMapper])
    def test_see_the_exception_being_handled(self, mapper):
        def view(error, request):
            assert sys.exc_info()[1] is error
            return Response(traceback.format_exc())

        def add_views(config):
            config.add_view(fail)
            config.add_exception_view(view, context=KeyError, mapper=mapper)

        body = answer(make_app(add_views)).body
        assert b"in fail\n" in body
        assert body.endswith(b"KeyError: 'fails'\n")

    def test_see_it_in_a_coroutine_after_a_wait(self):
        async def view(error, request):
            await asyncio.sleep(0)
            assert sys.exc_info()[1] is error
            return Response(traceback.format_exc())

        def add_views(config):
            config.add_view(fail)
            config.add_exception_view(view, context=KeyError)

        assert b"in fail\n" in answer(make_app(add_views)).body

    def test_may_raise_it_again(self):
        def view(error, request):
            raise

        def add_views(config):
            config.add_view(fail)
            config.add_exception_view(view, context=KeyError)

        with pytest.raises(KeyError, match="fails"):
            answer(make_app(add_views))

    def test_of_notfound_and_forbidden(self):
        async def notfound(request):
            await asyncio.sleep(0)
            return Response(f"notfound {where()}", status=404)

        def forbidden(request):
            return Response(f"forbidden {where()}", status=403)

        def forbid(request):
            raise HTTPForbidden

        def add_views(config):
            config.add_notfound_view(notfound)
            config.add_forbidden_view(forbidden)
            config.add_view(forbid, name="forbidden")

        app = make_app(add_views)
        assert answer(app).response[::2] == (404, b"notfound loop")
        client = answer(app, "/forbidden")
        assert client.response[::2] == (403, b"forbidden executor")

    def test_of_notfound_may_append_a_slash(self):
        # Pyramid derives this view before any action has run.
        def add_views(config):
            config.add_notfound_view(replying_coroutine, append_slash=True)
            config.add_route("slash", "/slash/")
            config.add_view(replying, route_name="slash")

        app = make_app(add_views)
        assert answer(app, "/absent").body == b"loop"
        assert answer(app, "/slash").status == 307

    @pytest.mark.parametrize("mode", ["inline", "executor"])
    def test_of_notfound_that_may_append_a_slash_runs_where_the_setting_says(
        self, mode
    ):
        def add_views(config):
            config.add_notfound_view(replying, append_slash=True)

        app = make_app(add_views, settings={"aioext.sync_views": mode})
        expected = {"inline": b"loop", "executor": b"executor"}[mode]
        assert answer(app, "/absent").body == expected

    def test_may_use_the_executor_by_its_decorator(self):
        app = make_app(lambda config: config.add_view(use_executor(replying)))
        assert answer(app).body == b"executor"

    def test_may_be_a_default_exception_response(self):
        async def view(request):
            await asyncio.sleep(0)
            raise HTTPNotFound("absent")

        app = make_app(lambda config: config.add_view(view))
        assert answer(app).status == 404


class TestRenderers:
    def test_render_what_a_coroutine_returns(self):
        async def view(request):
            await asyncio.sleep(0)
            return {"where": where()}

        app = make_app(lambda config: config.add_view(view, renderer="json"))
        assert answer(app).body == b'{"where": "loop"}'

    def test_get_the_instance_of_a_view_class(self, tmp_path):
        class View:
            title = "a title"

            def __init__(self, request):
                self.request = request

            async def page(self):
                await asyncio.sleep(0)
                return {"where": where()}

        (tmp_path / "page.mako").write_text(
            "${view.title}, ${where}, ${request.path}, ${load()}"
        )

        @synchronize
        async def load():
            await asyncio.sleep(0)
            return "loaded"

        def add_view(config):
            config.include("pyramid_mako")
            config.add_settings({"mako.directories": str(tmp_path)})
            config.add_subscriber(
                lambda event: event.update(load=load),
                "pyramid.events.BeforeRender",
            )
            config.add_view(View, attr="page", renderer="page.mako")

        assert answer(make_app(add_view)).body == b"a title, loop, /, loaded"

    def test_alone_make_a_view(self, tmp_path):
        (tmp_path / "alone.mako").write_text("alone: ${request.path}")

        def add_view(config):
            config.include("pyramid_mako")
            config.add_settings({"mako.directories": str(tmp_path)})
            config.add_view(renderer="alone.mako")

        assert answer(make_app(add_view)).body == b"alone: /"


class TestWhatPyramidPutsAroundAView:
    def test_permissions(self):
        class Policy:
            def identity(self, request):
                return wait(asyncio.sleep(0, request.params.get("user")))

            def authenticated_userid(self, request):
                return self.identity(request)

            def permits(self, request, context, permission):
                return self.identity(request) == permission

        def add_view(config):
            config.set_security_policy(Policy())
            config.add_view(replying_coroutine, permission="alice")
            config.add_view(replying, name="thread", permission="alice")

        app = make_app(add_view)
        for path in "/", "/thread":
            assert answer(app, path, query_string=b"user=bob").status == 403
            assert answer(app, path, query_string=b"user=alice").status == 200

    def test_predicates(self):
        async def get(request):
            return Response("get")

        def post(request):
            return Response("post")

        class Waiting:
            def __init__(self, value, config):
                self.value = value

            def text(self):
                return f"waiting = {self.value}"

            phash = text

            def __call__(self, context, request):
                return wait(asyncio.sleep(0, self.value in request.params))

        def add_views(config):
            config.add_view_predicate("waiting", Waiting)
            config.add_view(get, request_method="GET")
            config.add_view(post, request_method="POST")
            config.add_view(replying, request_method="GET", waiting="here")

        app = make_app(add_views)
        assert answer(app).body == b"get"
        assert answer(app, method="POST").body == b"post"
        assert answer(app, query_string=b"here=1").body == b"executor"

    def test_a_decorator(self):
        def decorator(view):
            def decorated(context, request):
                response = view(context, request)
                response.headers["X-Decorated"] = where()
                return response

            return decorated

        def add_view(config):
            config.add_view(replying_coroutine, decorator=decorator)
            config.add_view(replying, name="thread", decorator=(decorator, decorator))

        app = make_app(add_view)
        for path, ran in ("/", b"loop"), ("/thread", b"executor"):
            client = answer(app, path)
            assert client.body == ran
            assert (b"x-decorated", b"loop") in client.headers

    def test_a_decorator_that_gives_coroutines(self):
        def decorator(view):
            async def decorated(context, request):
                await asyncio.sleep(0)
                response = view(context, request)
                await asyncio.sleep(0)
                response.headers["X-Decorated"] = where()
                return response

            return functools.wraps(decorated)(lambda c, r: decorated(c, r))

        def add_view(config):
            config.add_view(replying_coroutine, decorator=decorator, http_cache=10)
            config.add_view(replying, name="thread", decorator=decorator)

        app = make_app(add_view)
        for path, body in {"/": b"loop", "/thread": b"executor"}.items():
            client = answer(app, path)
            assert client.body == body
            assert (b"x-decorated", b"loop") in client.headers

    def test_a_view_deriver(self):
        def deriver(view, info):
            def derived(context, request):
                response = view(context, request)
                response.headers["X-Derived"] = info.options["derived"]
                return response

            return derived if info.options.get("derived") else view

        deriver.options = ("derived",)

        def asynchronous(view, info):
            async def derived(context, request):
                await asyncio.sleep(0)
                return view(context, request)

            return lambda context, request: derived(context, request)

        def add_view(config):
            config.add_view_deriver(deriver)
            config.add_view_deriver(asynchronous, over="deriver")
            config.add_view(replying_coroutine, derived="yes")

        client = answer(make_app(add_view))
        assert client.body == b"loop"
        assert (b"x-derived", b"yes") in client.headers

    def test_a_wrapper_view(self):
        async def wrapper(request):
            await asyncio.sleep(0)
            return Response(b"<" + request.wrapped_body + b">")

        def add_views(config):
            config.add_view(wrapper, name="wrapper")
            config.add_view(replying_coroutine, wrapper="wrapper")

        assert answer(make_app(add_views)).body == b"<loop>"

    def test_a_static_view(self, tmp_path):
        (tmp_path / "file.txt").write_text("static")

        def add_view(config):
            config.add_static_view("static", str(tmp_path))

        app = make_app(add_view)
        assert answer(app, "/static/file.txt").body == b"static"
        assert answer(app, "/static/absent.txt").status == 404

    def test_a_scan_of_decorators(self):
        config = config_with()
        config.scan(__name__, categories=["pyramid", "aioext-tests"])
        app = Gateway(config.make_wsgi_app())
        assert answer(app, "/scanned").body == b"loop"
        assert answer(app, "/scanned-class").body == b'"executor"'
        assert answer(app, "/scanned-error").body == b"scanned error, loop"


class ScannedError(Exception): ...


@view_config(name="scanned")
async def scanned(context, request):
    await asyncio.sleep(0)
    return Response(where())


@view_config(name="scanned-error")
async def scanned_failure(request):
    raise ScannedError


@exception_view_config(ScannedError)
async def scanned_error(error, request):
    await asyncio.sleep(0)
    return Response(f"scanned error, {where()}")


@view_defaults(renderer="json", mapper=ExecutorMapper)
class Scanned:
    def __init__(self, request): ...

    @view_config(name="scanned-class")
    def method(self):
        return where()


# Which mapper is used.


class OtherMapper:
    """Another add-on's mapper; gives the view a third argument."""

    def __init__(self, **options):
        self.attr = options.get("attr")

    def __call__(self, view):
        def mapped(context, request):
            called = getattr(view, self.attr) if self.attr else view
            return called(context, request, "other")

        return mapped


async def takes_three(context, request, third):
    await asyncio.sleep(0)
    return Response(f"{third} {where()}")


class TestAnotherMapper:
    def test_has_its_coroutine_awaited(self):
        def hidden(*args):
            return takes_three(*args)

        class View:
            method = staticmethod(takes_three)

        def add_views(config):
            config.set_view_mapper(OtherMapper)
            config.add_view(takes_three)
            config.add_view(View(), name="attr", attr="method")
            config.add_view(hidden, name="hidden")
            config.add_view(
                lambda request: Response(where()),
                name="ours",
                mapper=CoroutineOrExecutorMapper,
            )

        app = make_app(add_views)
        for path in "/", "/attr", "/hidden":
            assert answer(app, path).body == b"other loop"
        assert answer(app, "/ours").body == b"executor"

    def test_may_be_named_by_the_view(self):
        class View:
            __view_mapper__ = OtherMapper
            method = staticmethod(takes_three)

        app = make_app(lambda config: config.add_view(View(), attr="method"))
        assert answer(app).body == b"other loop"

    def test_may_be_the_default_of_the_configurator(self):
        app = make_app(
            lambda config: config.add_view(takes_three),
            default_view_mapper=OtherMapper,
        )
        assert answer(app).body == b"other loop"

    def test_decides_about_generators_itself(self):
        def generator(context, request, third):
            yield third

        def add_view(config):
            config.add_renderer(
                "list", lambda info: lambda value, system: str(list(value))
            )
            config.add_view(generator, mapper=OtherMapper, renderer="list")

        assert answer(make_app(add_view)).body == b"['other']"

    def test_may_be_derived_from_pyramids(self):
        class Derived(DefaultViewMapper): ...

        app = make_app(
            lambda config: config.add_view(replying_coroutine, mapper=Derived)
        )
        assert answer(app).body == b"loop"


RESTORING = {
    "None": lambda config: config.set_view_mapper(None),
    "the class": lambda config: config.set_view_mapper(DefaultViewMapper),
    "its name": lambda config: config.set_view_mapper(
        "pyramid.viewderivers.DefaultViewMapper"
    ),
}


class TestPyramidsOwnMapper:
    @pytest.mark.parametrize("restore", RESTORING.values(), ids=RESTORING)
    def test_refuses_a_coroutine_by_name(self, restore):
        class View:
            def __init__(self, request): ...

            async def method(self): ...

        def add_view(config):
            restore(config)
            config.add_view(replying_coroutine)

        def add_class(config):
            restore(config)
            config.add_view(View, attr="method")

        message = refusal(add_view)
        assert "function test_mappers.replying_coroutine is a coroutine" in message
        assert "mapper=aioext.config.CoroutineMapper" in message
        assert "errors.html#view-mapper" in message
        assert "method of class" in refusal(add_class)

    def test_refuses_one_in_every_place(self):
        def add_exception_view(config):
            config.add_exception_view(replying_coroutine, mapper=DefaultViewMapper)

        def add_view_of_default(config):
            config.add_view(replying_coroutine)

        assert "replying_coroutine" in refusal(add_exception_view)
        options = {"default_view_mapper": DefaultViewMapper}
        assert "replying_coroutine" in refusal(add_view_of_default, **options)

    def test_refuses_an_asynchronous_generator(self):
        async def stream(request):
            yield

        message = refusal(lambda c: c.add_view(stream, mapper=DefaultViewMapper))
        assert "stream is an asynchronous generator" in message

    def test_takes_what_it_always_took(self):
        def numbers(request):
            yield 1

        def add_views(config):
            config.set_view_mapper(None)
            config.add_renderer(
                "list", lambda info: lambda value, system: str(list(value))
            )
            config.add_view(replying)
            config.add_view(numbers, name="numbers", renderer="list")
            config.add_view(synchronize(replying_coroutine), name="synchronized")

        app = make_app(add_views)
        assert answer(app).body == b"loop"
        assert answer(app, "/numbers").body == b"[1]"
        assert answer(app, "/synchronized").body == b"loop"

    def test_never_drops_a_coroutine_that_it_could_not_see(self):
        def hidden(request):
            return replying_coroutine(request)

        app = make_app(lambda c: c.add_view(hidden, mapper=DefaultViewMapper))
        assert answer(app).body == b"loop"


def run_body(request):
    return Response(app_iter=(where().encode() for _ in range(1)))


async def run_body_of_coroutine(request):
    return run_body(request)


class TestTheSettingSyncViews:
    @pytest.mark.parametrize(
        ("value", "function", "coroutine_body"),
        [
            (None, EXECUTOR, LOOP),
            ("executor", EXECUTOR, LOOP),
            ("inline", LOOP, LOOP),
            # The router call is in a thread, and so is what iterates.
            ("request", EXECUTOR, EXECUTOR),
        ],
    )
    def test_says_where_views_and_their_bodies_run(
        self, value, function, coroutine_body
    ):
        def add_views(config):
            config.add_view(replying, name="function")
            config.add_view(run_body, name="body")
            config.add_view(replying_coroutine, name="coroutine")
            config.add_view(run_body_of_coroutine, name="coroutine-body")

        settings = {} if value is None else {"aioext.sync_views": value}
        app = make_app(add_views, settings=settings)
        assert answer(app, "/function").body.decode() == function
        assert answer(app, "/body").body.decode() == function
        assert answer(app, "/coroutine").body.decode() == LOOP
        assert answer(app, "/coroutine-body").body.decode() == coroutine_body

    def test_is_overridden_by_mapper(self):
        def add_views(config):
            config.add_view(replying, name="executor", mapper=ExecutorMapper)
            config.add_view(run_body, name="body", mapper=ExecutorMapper)
            config.add_view(replying, name="inline", mapper=InlineMapper)

        inline = make_app(add_views, settings={"aioext.sync_views": "inline"})
        executor = make_app(add_views)
        for app in inline, executor:
            assert answer(app, "/executor").body == b"executor"
            assert answer(app, "/body").body == b"executor"
            assert answer(app, "/inline").body == b"loop"

    def test_request_runs_tweens_and_policies_in_a_thread_as_well(self):
        def tween_factory(handler, registry):
            def tween(request):
                response = handler(request)
                response.headers["X-Tween"] = where()
                return response

            return tween

        def add_tween(config):
            config.registry["tween"] = tween_factory
            config.add_tween("test_mappers.tween_of_registry")
            config.add_view(replying_coroutine)

        settings = {"aioext.sync_views": "request"}
        client = answer(make_app(add_tween, settings=settings))
        assert client.body == b"loop"
        assert (b"x-tween", b"executor") in client.headers


def tween_of_registry(handler, registry):
    return registry["tween"](handler, registry)

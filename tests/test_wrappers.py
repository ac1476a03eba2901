"""Wrappers of views that are coroutine functions."""

import asyncio
import functools
import sys
import threading

import pytest
from inprocess import BACKGROUND, EXECUTOR, LOOP, answer, answers, make_app, where
from pyramid.httpexceptions import HTTPForbidden
from pyramid.response import Response
from pyramid.threadlocal import get_current_request
from pyramid.view import render_view_to_response
from webtest import TestApp

import aioext
from aioext import synchronize, wait
from aioext.wrappers import async_wrapper

MODES = ["executor", "inline", "request"]
# Where an ordinary view runs.
VIEW = {"executor": EXECUTOR, "inline": LOOP, "request": EXECUTOR}


def view(request):
    return Response(where())


async def async_view(request):
    await asyncio.sleep(0)
    return Response(where())


@async_wrapper
def noting(view):
    """Notes where it runs."""

    async def wrapper(context, request):
        await asyncio.sleep(0)
        response = await view(context, request)
        await asyncio.sleep(0)
        response.headers.add("X-Noted", where())
        return response

    return wrapper


@async_wrapper
class Noting:
    """The same as a class."""

    def __init__(self, view):
        self.view = view

    async def __call__(self, context, request):
        response = await self.view(context, request)
        response.headers.add("X-Noted", where())
        return response


@async_wrapper
def in_task(view):
    async def wrapper(context, request):
        return await asyncio.create_task(view(context, request))

    return wrapper


@async_wrapper
def in_group(view):
    async def wrapper(context, request):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(view(context, request))
        return task.result()

    return wrapper


@async_wrapper
def timed(view):
    async def wrapper(context, request):
        async with asyncio.timeout(10):
            return await view(context, request)

    return wrapper


@async_wrapper
def catching(view):
    async def wrapper(context, request):
        try:
            return await view(context, request)
        except ZeroDivisionError:
            await asyncio.sleep(0)
            return Response("caught")

    return wrapper


@async_wrapper
def forbidding(view):
    async def wrapper(context, request):
        await asyncio.sleep(0)
        raise HTTPForbidden

    return wrapper


WRAPPERS = [noting, Noting, in_task, in_group, timed]


def with_view(view, mode="executor", *steps, **options):
    def add(config):
        config.add_view(view, **options)

    return make_app(*steps, add, settings={"aioext.sync_views": mode})


@pytest.mark.parametrize("mode", MODES)
class TestInEveryMode:
    @pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda each: each.__name__)
    def test_the_view_runs_where_it_would(self, mode, wrapper):
        decorators = (noting, wrapper, Noting)
        app = with_view(view, mode, decorator=decorators)
        assert answer(app).body.decode() == VIEW[mode]
        app = with_view(async_view, mode, decorator=decorators)
        client = answer(app)
        assert client.body == b"loop"
        noted = 3 if wrapper in (noting, Noting) else 2
        assert client.headers.count((b"x-noted", b"loop")) == noted

    def test_a_thread_is_kept(self, mode):
        threads = []

        def tracing(view):
            def wrapper(context, request):
                threads.append(threading.get_ident())
                assert get_current_request() is request
                return view(context, request)

            return wrapper

        app = with_view(
            view, mode, decorator=(tracing, in_task, tracing, timed, tracing)
        )
        assert answer(app).status == 200
        assert len(threads) == 3
        assert len(set(threads)) == 1

    def test_errors_go_both_ways(self, mode):
        def failing(request):
            raise ZeroDivisionError

        app = with_view(failing, mode, decorator=(catching, noting, in_task))
        assert answer(app).body == b"caught"
        app = with_view(failing, mode, decorator=(in_task, forbidding))
        assert answer(app).status == 403

    def test_an_exception_view_finds_what_is_handled(self, mode):
        def failing(request):
            raise ZeroDivisionError

        def error_view(error, request):
            assert sys.exc_info()[1] is error
            return Response("handled")

        def add(config):
            config.add_exception_view(
                error_view, context=ZeroDivisionError, decorator=(noting, timed)
            )

        assert answer(with_view(failing, mode, add)).body == b"handled"

    def test_a_timeout_cancels_the_view(self, mode):
        ended = []

        @async_wrapper
        def limited(view):
            async def wrapper(context, request):
                try:
                    async with asyncio.timeout(None) as limit:

                        @synchronize
                        async def end():
                            limit.reschedule(-1)

                        request.end = end
                        return await view(context, request)
                except TimeoutError:
                    return Response("too late")

            return wrapper

        def waiting(request):
            request.end()
            try:
                wait(asyncio.Event().wait())
            finally:
                ended.append(where())

        app = with_view(waiting, mode, decorator=(limited, noting))
        assert answer(app).body == b"too late"
        assert ended == [VIEW[mode]]

    def test_requests_overlap(self, mode):
        together = asyncio.Barrier(3)

        async def waiting(request):
            async with asyncio.timeout(10):
                await together.wait()
            assert get_current_request() is request
            return Response("done")

        app = with_view(waiting, mode, decorator=(noting, in_task))
        assert [client.body for client in answers(app, ["/"] * 3)] == [b"done"] * 3

    def test_it_gets_a_response_and_not_the_value_for_the_renderer(self, mode):
        app = with_view(
            lambda request: {"value": 1}, mode, renderer="json", decorator=noting
        )
        client = answer(app)
        assert client.body == b'{"value": 1}'
        assert (b"x-noted", b"loop") in client.headers

    def test_it_stands_beneath_the_permission(self, mode):
        class Policy:
            def permits(self, request, context, permission):
                return permission == "read"

        def add(config):
            config.set_security_policy(Policy())
            config.add_view(view, permission="read", decorator=noting)
            config.add_view(view, name="no", permission="write", decorator=noting)

        app = make_app(add, settings={"aioext.sync_views": mode})
        assert [each.status for each in answers(app, ["/", "/no"])] == [200, 403]

    def test_a_body_is_iterated_over_as_ever(self, mode):
        def streaming(request):
            return Response(app_iter=(where().encode() for _ in range(2)))

        app = with_view(streaming, mode, decorator=noting)
        assert answer(app).body.decode() == VIEW[mode] * 2


def test_on_a_plain_wsgi_server_the_view_keeps_its_thread():
    here = threading.get_ident()

    def checking(request):
        assert threading.get_ident() == here
        return Response(where())

    app = with_view(checking, decorator=(noting, in_task))
    response = TestApp(app.app).get("/")
    assert response.text == LOOP
    assert response.headers["X-Noted"] == BACKGROUND
    app = with_view(async_view, decorator=(noting, in_group))
    assert TestApp(app.app).get("/").text == BACKGROUND


def test_a_view_that_is_rendered_by_another_one():
    def outer(request):
        return render_view_to_response(None, request, "inner")

    def add(config):
        config.add_view(outer)
        config.add_view(async_view, name="inner", decorator=noting)

    client = answer(make_app(add))
    assert client.body == b"loop"
    assert (b"x-noted", b"loop") in client.headers


def test_it_is_at_the_front():
    assert aioext.async_wrapper is async_wrapper


def test_it_gives_an_ordinary_decorator():
    assert noting.__name__ == "noting"
    assert noting.__doc__ == "Notes where it runs."
    wrapper = noting(lambda context, request: None)
    assert not asyncio.iscoroutinefunction(wrapper)
    assert wrapper.__name__ == "wrapper"


def test_a_wrapper_that_is_not_wanted_is_none():
    @async_wrapper
    def nothing(view):
        return view

    assert nothing(view) is view


def test_the_view_that_is_awaited_looks_like_the_view():
    seen = []

    @async_wrapper
    def looking(view):
        seen.append((view.__name__, view.__doc__, asyncio.iscoroutinefunction(view)))
        return view

    def named(context, request):
        """Documented."""

    looking(named)
    assert seen == [("named", "Documented.", True)]


def test_options_of_a_deriver_are_kept():
    def deriver(view, info): ...

    deriver.options = ("one",)
    assert async_wrapper(deriver).options == ("one",)


def test_a_partial_object_makes_wrappers():
    def make(word, view):
        async def wrapper(context, request):
            response = await view(context, request)
            response.text += word
            return response

        return wrapper

    decorator = async_wrapper(functools.partial(make, "!"))
    assert answer(with_view(view, decorator=decorator)).body == b"executor!"


def test_what_it_makes_may_be_ordinary():
    @async_wrapper
    def passing(view):
        return lambda context, request: view(context, request)

    assert answer(with_view(view, decorator=passing)).body == b"executor"


def test_a_coroutine_function_makes_no_wrappers():
    with pytest.raises(TypeError, match=r"above the function[^$]*async-wrapper"):

        @async_wrapper
        async def wrapper(context, request): ...

"""A whole chain of coroutine functions, under load: in process and on the worker."""

import pytest
from addons import (
    BACKWARDS,
    KINDS,
    MANY,
    Crowd,
    add_views,
    as_kind,
    crowded,
    meet,
    site_of,
)
from pyramid.config import not_
from pyramid.events import NewRequest
from pyramid.threadlocal import get_current_request

from aioext import async_wrapper
from aioext.tweens import async_tween


def trace(request):
    assert get_current_request() is request
    return request.environ.setdefault("test.trace", [])


class Even:
    """The number in the path is even, or is not; says so after all others have come."""

    def __init__(self, value, info):
        self.value = value

    def text(self):
        return f"even = {self.value}"

    phash = text

    async def __call__(self, context, request):
        trace(request).append("predicate")
        await meet(request)
        number = int(request.path.rpartition("/")[2])
        return (number % 2 == 0) is self.value


class Begun:
    """Of a subscriber: the request has gone through the tween."""

    def __init__(self, value, info):
        self.value = value

    def text(self):
        return f"begun = {self.value}"

    phash = text

    async def __call__(self, event):
        await meet(event.request)
        return bool(trace(event.request)) is self.value


@async_tween
def tween(handler, registry):
    async def tween(request):
        trace(request).append("tween")
        await meet(request)
        response = await handler(request)
        await meet(request)
        response.headers["X-Trace"] = ",".join(trace(request))
        return response

    return tween


async def subscriber(event):
    await meet(event.request)
    trace(event.request).append("subscriber")


@async_wrapper
def decorator(view):
    async def wrapper(context, request):
        trace(request).append("decorator")
        await meet(request)
        response = await view(context, request)
        response.headers["X-Path"] = request.path
        return response

    return wrapper


@async_wrapper
def deriver(view, info):
    if not info.options.get("derived"):
        return view

    async def wrapper(context, request):
        trace(request).append("deriver")
        await meet(request)
        return await view(context, request)

    return wrapper


deriver.options = ("derived",)


def even(request):
    yield
    return f"even {request.matchdict['number']}"


def odd(request):
    yield
    return f"odd {request.matchdict['number']}"


OPTIONS = {"renderer": "string", "decorator": decorator, "derived": True}


def configure(config):
    config.add_view_predicate("even", Even)
    config.add_route_predicate("even", Even)
    config.add_subscriber_predicate("begun", Begun)
    config.add_tween(f"{__name__}.tween")
    config.add_view_deriver(deriver)
    for begun in (True, False):
        config.add_subscriber(subscriber, NewRequest, begun=begun)
    add_views(config, "/view/{number}", even, even=True, **OPTIONS)
    for kind in KINDS:
        name = f"{kind}/view/{{number}}"
        config.add_view(as_kind(kind, odd), route_name=name, **OPTIONS)
        name = f"{kind}/route/{{number}}"
        config.add_route(f"even {name}", f"/{name}", even=not_(False))
        config.add_view(as_kind(kind, even), route_name=f"even {name}", **OPTIONS)
        config.add_route(name, f"/{name}")
        config.add_view(as_kind(kind, odd), route_name=name, **OPTIONS)


site = site_of(configure)
site_in_threads = site_of(configure, {"aioext.sync_views": "request"})

# No view runs on the loop there unless it is a coroutine.
IN_THREADS = Crowd(("coroutine", "executor"), MANY, BACKWARDS)

BEFORE = ["tween", "subscriber"]
AFTER = ["decorator", "deriver"]


def check(site, crowd, pattern):
    paths = crowd.paths(pattern)
    answers = site.overlap(paths, crowd.order)
    for number, (path, answer) in enumerate(zip(paths, answers, strict=True)):
        assert answer.text == f"{'odd' if number % 2 else 'even'} {number}"
        assert answer.headers["X-Path"] == path
        yield answer.headers["X-Trace"].split(",")


@crowded
@pytest.mark.parametrize("pattern", ["/view/{}", "/route/{}"])
def test_each_request_has_its_chain(site, crowd, pattern):
    for trace in check(site, crowd, pattern):
        assert trace == [*BEFORE, "predicate", *AFTER]


@pytest.mark.parametrize("pattern", ["/view/{}", "/route/{}"])
def test_each_thread_has_its_chain(site_in_threads, pattern):
    for trace in check(site_in_threads, IN_THREADS, pattern):
        assert trace == [*BEFORE, "predicate", *AFTER]

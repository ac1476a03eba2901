"""The application that most of the suite uses, made of parts by path.

``/gateway``, ``/websocket``, ``/events`` and ``/files`` are applications of their own.
What is left is Pyramid with coroutines in its hooks, and views that tell where they
run.
"""

import asyncio
import os
import threading

import eventsource_app
import files_app
import gateway_apps
import websocket_app
from pyramid.config import Configurator
from pyramid.threadlocal import get_current_request

import aioext
from aioext.config import InlineMapper
from aioext.tweens import async_tween

# Seconds that requests wait for each other.
LIMIT = 20

meetings = {}
at_once = 0


async def meet(request):
    """Wait until ``?count=`` requests of one ``?meeting=`` are here; each time."""
    name = request.GET.get("meeting")
    if name is None:
        await asyncio.sleep(0)
        return
    count = int(request.GET["count"])
    barrier = meetings.setdefault(name, asyncio.Barrier(count))
    async with asyncio.timeout(LIMIT):
        await barrier.wait()


async def passed(request, where):
    """Note that ``request`` was there, and let others pass; it is still current."""
    await meet(request)
    assert get_current_request() is request
    request.trail.append(where)


# Hooks.


@async_tween
def tween(handler, registry):
    async def tween(request):
        request.trail = []
        await passed(request, "tween")
        response = await handler(request)
        await passed(request, "back")
        return response

    return tween


class Policy:
    async def identity(self, request):
        await passed(request, "identity")
        return request.GET.get("user")

    async def permits(self, request, context, permission):
        user = await self.identity(request)
        await passed(request, "permits")
        return user == "member"


class Wanted:
    def __init__(self, value, config):
        self.value = value

    def text(self):
        return f"wanted = {self.value}"

    phash = text

    async def __call__(self, context, request):
        await passed(request, "predicate")
        return request.GET.get("wanted", "yes") == self.value


async def root(request):
    await passed(request, "root")
    return Resource(request)


class Resource:
    def __init__(self, request):
        self.request = request

    async def __getitem__(self, name):
        await passed(self.request, name)
        if name != "child":
            raise KeyError(name)
        return Resource(self.request)


class Renderer:
    def __init__(self, info):
        pass

    async def __call__(self, value, system):
        request = system["request"]
        await passed(request, "renderer")
        request.add_response_callback(respond)
        return value


async def respond(request, response):
    await passed(request, "callback")
    response.headers["X-Trail"] = " ".join(request.trail)


async def subscriber(event):
    await passed(event.request, "subscriber")


def hooks(request):
    return f"hello {request.GET['user']} {request.GET.get('name')}"


def add_hooks(config):
    config.add_tween(f"{__name__}.tween")
    config.set_security_policy(Policy())
    config.add_renderer("own", Renderer)
    config.add_subscriber(subscriber, "pyramid.events.NewRequest")
    config.add_view_predicate("wanted", Wanted)
    config.add_route("hooks", "/hooks/*traverse", factory=root)
    config.add_view(
        hooks,
        route_name="hooks",
        context=Resource,
        wanted="yes",
        permission="enter",
        renderer="own",
    )


# Views.


def place():
    """What there is to know about where a view runs."""
    thread = threading.current_thread()
    return {
        "main": thread is threading.main_thread(),
        "executor": thread.name.startswith("aioext-executor"),
        "background": thread.name == "aioext-loop",
    }


async def coroutine(request):
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)
    return {**place(), "opened": request.registry["loop"] is loop}


def function(request):
    return place()


def inline(request):
    """Waits, where it runs."""
    loop = aioext.wait(running_loop())
    return {**place(), "opened": request.registry["loop"] is loop}


async def running_loop():
    await asyncio.sleep(0)
    return asyncio.get_running_loop()


async def meeting(request):
    await meet(request)
    return {}


def thread(request):
    """The thread that waits here for others."""
    aioext.wait(meet(request))
    return {"thread": threading.get_ident()}


async def overlap(request):
    """How many are in here at once, for a while."""
    global at_once
    at_once += 1
    try:
        seen = at_once
        for _ in range(10):
            await asyncio.sleep(0.01)
            seen = max(seen, at_once)
    finally:
        at_once -= 1
    return {"seen": seen}


async def last(request):
    """Takes half a second, and says when it has begun."""
    os.write(1, b"event: last\n")
    await asyncio.sleep(0.5)
    return {"last": True}


async def broken(request):
    await asyncio.sleep(0)
    raise websocket_app.Expected("in a view")


def add_views(config):
    for view in (coroutine, function, meeting, thread, overlap, last, broken):
        name = view.__name__
        config.add_route(name, f"/{name}")
        config.add_view(view, route_name=name, renderer="json")
    config.add_route("inline", "/inline")
    config.add_view(inline, route_name="inline", renderer="json", mapper=InlineMapper)


class Opened:
    """The lifespan: notes which loop it was opened on."""

    def __init__(self, registry):
        self.registry = registry

    async def __aenter__(self):
        self.registry["loop"] = asyncio.get_running_loop()

    async def __aexit__(self, *error):
        del self.registry["loop"]


def make_own():
    with Configurator() as config:
        config.include("aioext")
        config.add_lifespan(Opened)
        add_hooks(config)
        add_views(config)
        return config.make_wsgi_app()


def make():
    """The WSGI application."""
    parts = {
        "gateway": gateway_apps.dispatch,
        "websocket": websocket_app.make(),
        "events": eventsource_app.make(),
        "files": files_app.make(),
    }
    own = make_own()

    def dispatch(environ, start_response):
        first, _, rest = environ["PATH_INFO"].lstrip("/").partition("/")
        if first in parts:
            environ["SCRIPT_NAME"] += f"/{first}"
            environ["PATH_INFO"] = f"/{rest}"
        return parts.get(first, own)(environ, start_response)

    return dispatch

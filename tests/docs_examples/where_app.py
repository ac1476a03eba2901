"""An application that notes where each of its parts runs.

``measure(mode, server)`` is a column of the documentation's table: for each row
the place, in the words of the table.
"""

import asyncio
import inspect
import io
import sys
import threading
from contextlib import asynccontextmanager

from asgi import Client
from pyramid.config import Configurator
from pyramid.events import BeforeRender, ContextFound, NewRequest, NewResponse
from pyramid.response import Response
from webtest import TestApp

from aioext import AppStarting, AppStopping, use_executor, wait
from aioext.bridge import in_bridge
from aioext.gateway import Gateway

EXECUTOR = "executor"
GREENLET = "greenlet"
LOOP = "loop"
SERVER = "server's thread"
BACKGROUND = "background loop"

ASYNCHRONOUS = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

# Row: where it ran.
noted = {}


def note(row):
    """Note where the caller runs."""
    code = sys._getframe(1).f_code
    noted.setdefault(row, set()).add(place(bool(code.co_flags & ASYNCHRONOUS)))


def place(asynchronous):
    name = threading.current_thread().name
    if name.startswith("aioext-executor"):
        return EXECUTOR
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return SERVER
    if name == "aioext-loop":
        return BACKGROUND
    if asynchronous:
        return LOOP
    assert in_bridge()
    return GREENLET


class Root:
    def __init__(self, request):
        note("root factory, traversal")

    def __getitem__(self, name):
        note("root factory, traversal")
        if name != "child":
            raise KeyError(name)
        return self


class Policy:
    def identity(self, request):
        note("security policy")

    authenticated_userid = identity

    def permits(self, request, context, permission):
        note("security policy")
        return True


class Predicate:
    def __init__(self, value, info):
        pass

    def text(self):
        return "noted"

    phash = text

    def __call__(self, context, request):
        note("predicates")
        return True


class Renderer:
    def __init__(self, info):
        pass

    def __call__(self, value, system):
        note("renderers, templates")
        return ""


class File(io.BytesIO):
    def read(self, size=-1):
        note("files: FileResponse, static views")
        return super().read(size)


def tween_factory(handler, registry):
    def tween(request):
        note("tweens")
        return handler(request)

    return tween


def on_event(event):
    note("subscribers")


def on_life_cycle(event):
    note("subscribers to AppStarting, AppStopping")


@asynccontextmanager
async def resource(registry):
    note("lifespans")
    yield
    note("lifespans")


def response_callback(request, response):
    note("response and finished callbacks")


def finished_callback(request):
    note("response and finished callbacks")


@use_executor
def blocking():
    note("functions that use_executor wraps")


async def waited_for():
    await asyncio.sleep(0)
    note("coroutines given to wait()")


async def coroutine_view(request):
    await blocking()
    note("coroutine views")
    request.add_response_callback(response_callback)
    request.add_finished_callback(finished_callback)
    return {}


def other_view(request):
    wait(waited_for())
    note("other views")
    request.add_response_callback(response_callback)
    request.add_finished_callback(finished_callback)
    return {}


async def coroutine_fails(request):
    raise LookupError


async def coroutine_exception_view(request):
    note("coroutine exception views")
    return Response()


def other_fails(request):
    raise ValueError


def other_exception_view(request):
    note("other exception views")
    return Response()


async def asynchronous_chunks():
    note("bodies: asynchronous iterator")
    yield b"x"


async def asynchronous_body(request):
    return Response(app_iter=asynchronous_chunks())


def chunks(row):
    note(row)
    yield b"x"


async def coroutine_body(request):
    return Response(app_iter=chunks("bodies: iterator of a coroutine view"))


def other_body(request):
    return Response(app_iter=chunks("bodies: iterator of another view"))


def file_body(request):
    wrapper = request.environ.get("wsgi.file_wrapper", plain_wrapper)
    return Response(app_iter=wrapper(File(b"content")))


def plain_wrapper(file):
    yield file.read()


VIEWS = [coroutine_view, other_view, coroutine_fails, other_fails]
BODIES = [asynchronous_body, coroutine_body, other_body, file_body]


def make_app(mode):
    """The application, with ``aioext.sync_views = mode``."""
    with Configurator(
        settings={"aioext.sync_views": mode}, root_factory=Root
    ) as config:
        config.include("aioext")
        config.set_security_policy(Policy())
        config.add_renderer("noting", Renderer)
        config.add_tween(f"{__name__}.tween_factory")
        config.add_view_predicate("noted", Predicate)
        for event in (NewRequest, ContextFound, BeforeRender, NewResponse):
            config.add_subscriber(on_event, event)
        for event in (AppStarting, AppStopping):
            config.add_subscriber(on_life_cycle, event)
        config.add_lifespan(resource)
        for view in VIEWS:
            config.add_view(
                view,
                name=view.__name__,
                context=Root,
                renderer="noting",
                permission="view",
                noted=True,
            )
        for view in BODIES:
            config.add_view(view, name=view.__name__, context=Root)
        config.add_exception_view(coroutine_exception_view, context=LookupError)
        config.add_exception_view(other_exception_view, context=ValueError)
    return config.make_wsgi_app()


def measure(mode, server):
    """Where each part runs.

    Args:
        mode: a value of ``aioext.sync_views``.
        server: ``"asgi"`` or ``"wsgi"``.
    """
    noted.clear()
    app = make_app(mode)
    paths = [f"/child/{view.__name__}" for view in VIEWS + BODIES]
    if server == "wsgi":
        for path in paths:
            TestApp(app).get(path, status=200)
    else:
        asyncio.run(_ask(Gateway(app), paths))
    for row, places in noted.items():
        assert len(places) == 1, (row, places)
    return {row: places.pop() for row, places in noted.items()}


async def _ask(app, paths):
    for path in paths:
        client = await Client(path).start(app)
        assert client.status == 200, client.sent

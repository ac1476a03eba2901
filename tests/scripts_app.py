"""An application whose hooks are coroutines, for Pyramid's scripts."""

import asyncio

from pyramid.authorization import Allow
from pyramid.config import Configurator
from pyramid.events import NewRequest
from pyramid.response import Response
from pyramid.traversal import resource_path

from aioext import async_wrapper
from aioext.auth import AsyncSecurityPolicy
from aioext.tweens import async_tween


class Folder:
    """A resource with three children, which have three each."""

    def __init__(self, name="", parent=None):
        self.__name__ = name
        self.__parent__ = parent

    async def __getitem__(self, name):
        await asyncio.sleep(0)
        if name not in ("a", "b", "c"):
            raise KeyError(name)
        return Folder(name, self)

    async def __acl__(self):
        await asyncio.sleep(0)
        return [(Allow, "group:writers", "write")]


async def make_root(request):
    await asyncio.sleep(0)
    return Folder()


async def make_page(request):
    await asyncio.sleep(0)
    return Folder(request.matchdict["name"], Folder())


class Policy(AsyncSecurityPolicy):
    """Knows users by a header."""

    async def load_identity(self, request):
        await asyncio.sleep(0)
        return request.headers.get("User")

    async def principals(self, request):
        await asyncio.sleep(0)
        return ["group:writers"] if request.identity == "ann" else []


class Weekday:
    """A predicate: the day that a header names."""

    def __init__(self, value, info):
        self.value = value

    def text(self):
        return f"weekday = {self.value}"

    phash = text

    async def __call__(self, context, request):
        await asyncio.sleep(0)
        return request.headers.get("Day") == self.value


class Available:
    """A route predicate, which says what it was made with."""

    def __init__(self, value, info):
        self.value = value

    def text(self):
        return f"available = {self.value}"

    phash = text

    async def __call__(self, info, request):
        await asyncio.sleep(0)
        return self.value


@async_tween
def marking_tween_factory(handler, registry):
    async def marking_tween(request):
        response = await handler(request)
        response.headers["Tween"] = "passed"
        return response

    return marking_tween


@async_wrapper
def marked(view):
    async def marked_view(context, request):
        response = await view(context, request)
        response.headers["Wrapper"] = "passed"
        return response

    return marked_view


async def count(event):
    await asyncio.sleep(0)
    event.request.registry["requests"] += 1


async def number(request):
    """A request property: which request of the process this is."""
    await asyncio.sleep(0)
    return request.registry["requests"]


async def show(context, request):
    await asyncio.sleep(0)
    return Response(f"{resource_path(context)} {request.number}")


def write(context, request):
    return Response(f"written by {request.authenticated_userid}")


async def workday(context, request):
    return Response("a workday")


def main(global_config=None, **settings):
    """The application."""
    with Configurator(settings=settings) as config:
        config.include("aioext")
        config.registry["requests"] = 0
        config.set_root_factory(make_root)
        config.set_security_policy(Policy())
        config.add_request_method(number, reify=True)
        config.add_subscriber(count, NewRequest)
        config.add_tween("scripts_app.marking_tween_factory")
        config.add_view_predicate("weekday", Weekday)
        config.add_view(show, context=Folder, decorator=marked)
        config.add_view(write, name="write", permission="write")
        config.add_view(workday, name="work", weekday="monday")
        config.add_route_predicate("available", Available)
        config.add_route("closed", "/closed", available=False)
        config.add_route("page", "/page/{name}", factory=make_page, available=True)
        config.add_view(workday, route_name="closed")
        config.add_view(show, route_name="page", decorator=marked)
        return config.make_wsgi_app()

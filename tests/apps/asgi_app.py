"""A Pyramid application for servers of other makers, and for ``.ini`` files.

It tells what it knows of a request, lets requests wait for each other, and says in
the output when its resources are opened and closed.
"""

import asyncio
import logging
import os
from contextlib import asynccontextmanager

from pyramid.config import Configurator
from pyramid.threadlocal import get_current_request

from aioext import wait
from aioext.eventsource import EventSourceMapper
from aioext.websocket import WebsocketMapper


def tell(*words):
    # In one write, for threads print as well.
    os.write(1, f"event: {' '.join(words)} {os.getpid()}\n".encode())


def facts_of(request):
    return {
        "app": request.registry.settings.get("name"),
        "shown": request.registry.settings.get("shown"),
        "opened": request.registry["opened"],
        "client": request.client_addr,
        "http": request.environ["SERVER_PROTOCOL"],
        "path": request.path_info,
        "remote": request.remote_addr,
        "route": request.route_url("facts"),
        "scheme": request.scheme,
        "script_name": request.script_name,
    }


async def facts(request):
    return facts_of(request)


async def socket_facts(ws):
    await ws.send_json(facts_of(ws.request))


async def echo(ws):
    async for message in ws:
        await ws.send(message)


class Pairs:
    """Requests that wait for each other, by a name."""

    def __init__(self):
        self._events = {}

    def event(self, name):
        return self._events.setdefault(name, asyncio.Event())


async def meet(request):
    """Waits until another request asks for ``free``; tells whose request it is."""
    name = request.params["name"]
    tell("waiting", name)
    await request.registry["pairs"].event(name).wait()
    return {"name": name, "current": get_current_request().params["name"]}


async def free(request):
    request.registry["pairs"].event(request.params["name"]).set()
    return {}


async def events(request):
    try:
        number = 0
        while True:
            yield {"number": number}
            number += 1
            await asyncio.sleep(0.01)
    finally:
        tell("stream ended")


async def fail(request):
    raise LookupError("failed on purpose")


def warn(request):
    logging.getLogger("asgi_app").warning("a line of the application")
    return {}


@asynccontextmanager
async def resource(registry):
    name = registry.settings.get("name", "app")
    tell("opened", name)
    registry["opened"] = True
    yield
    # Closing takes a turn of the loop, which must still be there.
    await asyncio.sleep(0)
    registry["opened"] = False
    tell("closed", name)


@asynccontextmanager
async def failing(registry):
    raise LookupError("there is no database")
    yield


def main(global_config, **settings):
    """The application; ``paste.app_factory``."""
    if settings.get("fail") == "main":
        raise KeyError("broken in main")
    if settings.get("fail") == "attribute":
        raise AttributeError("broken in main")
    with Configurator(settings=settings) as config:
        config.include("aioext")
        config.add_lifespan(resource)
        if settings.get("fail") == "lifespan":
            config.add_lifespan(failing)
        config.registry["opened"] = False
        config.registry["pairs"] = Pairs()
        for view in (facts, meet, free, warn, fail):
            config.add_route(view.__name__, f"/{view.__name__}")
            config.add_view(view, route_name=view.__name__, renderer="json")
        for view in (echo, socket_facts):
            config.add_route(view.__name__, f"/{view.__name__}")
            config.add_view(view, route_name=view.__name__, mapper=WebsocketMapper)
        config.add_route("events", "/events")
        config.add_view(events, route_name="events", mapper=EventSourceMapper)
    return config.make_wsgi_app()


def waiting(global_config, **settings):
    """``paste.app_factory`` of an application that waits when it is made."""

    async def find_loop():
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    found = wait(find_loop())
    serving = asyncio.get_running_loop() is found
    where = "the loop that serves" if serving else "another loop"
    return main(global_config, shown=f"waited on {where}")


def make_asgi():
    """An ASGI application, as ``config.make_asgi_app()`` gives it."""
    from aioext.asgi import Gateway

    return Gateway(main({}))


def asgi_main(global_config, **settings):
    """``paste.app_factory`` of an application that speaks ASGI already."""
    from aioext.asgi import Gateway

    return Gateway(main(global_config, **settings))


class Marking:
    """A filter that puts a header into each response."""

    def __init__(self, app):
        self._app = app

    def __call__(self, environ, start_response):
        def start(status, headers, exc_info=None):
            return start_response(status, [*headers, ("X-Filter", "yes")], exc_info)

        return self._app(environ, start)


def marking(global_config):
    """``paste.filter_factory``."""
    return Marking


def __getattr__(name):
    # What a server names is made when it asks, for to others it would be one
    # application too many.
    if name == "application":
        return make_asgi()
    if name == "behind_a_proxy_for_granian":
        from granian.utils.proxies import wrap_asgi_with_proxy_headers

        return wrap_asgi_with_proxy_headers(make_asgi(), trusted_hosts="127.0.0.1")
    raise AttributeError(name)


def behind_a_proxy_for_hypercorn():
    from hypercorn.middleware import ProxyFixMiddleware

    return ProxyFixMiddleware(make_asgi(), mode="legacy", trusted_hops=1)

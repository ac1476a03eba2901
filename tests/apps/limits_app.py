"""Connections and bodies, as a server's limits meet them."""

import asyncio
import os

from pyramid.config import Configurator
from pyramid.response import Response

from aioext.eventsource import EventSourceMapper
from aioext.websocket import WebsocketMapper


def facts(request):
    return {
        "pid": os.getpid(),
        "client": request.client_addr,
        "remote": request.environ["REMOTE_ADDR"],
        "scheme": request.scheme,
        "host": request.host,
        "url": request.route_url("facts"),
    }


async def take(request):
    await asyncio.sleep(0)
    return Response(b"%d" % len(request.body))


async def pause(request):
    await asyncio.sleep(float(request.params["seconds"]))
    return Response("rested")


async def echo(ws):
    async for message in ws:
        await ws.send(message)


async def stream(request):
    await asyncio.Event().wait()
    yield


def make(**settings):
    """The WSGI application."""
    with Configurator(settings=settings) as config:
        config.include("aioext")
        config.add_route("facts", "/facts")
        config.add_view(facts, route_name="facts", renderer="json")
        config.add_view(take, name="take")
        config.add_view(pause, name="pause")
        config.add_view(echo, name="echo", mapper=WebsocketMapper)
        config.add_view(stream, name="stream", mapper=EventSourceMapper)
    return config.make_wsgi_app()


def make_small():
    """The WSGI application, which takes bodies of 100,000 bytes."""
    return make(**{"aioext.max_body": "100kB"})


def make_small_asgi():
    """The same, as an ASGI application."""
    from aioext.asgi import Gateway

    return Gateway(make_small())


def __getattr__(name):
    # daphne takes no factory.
    if name == "small":
        return make_small_asgi()
    raise AttributeError(name)

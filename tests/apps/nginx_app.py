"""What a proxy may get in the way of: WebSockets, event streams, headers."""

import asyncio

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPForbidden
from pyramid.response import Response

from aioext.eventsource import Event, EventSourceMapper
from aioext.websocket import WebsocketMapper

# Seconds; a proxy that gives up after one is to notice the difference.
OFTEN = 0.2


def facts_of(request):
    return {
        "client": request.client_addr,
        "connection": request.headers.get("Connection"),
        "host": request.host,
        "scheme": request.scheme,
        "url": request.url,
    }


def facts(request):
    return facts_of(request)


async def size(request):
    return Response(b"%d" % len(request.body))


async def socket_facts(ws):
    await ws.send_json(facts_of(ws.request))


async def echo(ws):
    async for message in ws:
        await ws.send(message)


def refused(request):
    response = HTTPForbidden("members only")
    response.headers["X-Reason"] = "no member"
    raise response


class Steps:
    """A stream's events, each of which is made when a client asks for it."""

    def __init__(self):
        self.asked = asyncio.Queue()
        self.ended = asyncio.Event()


async def stream(request):
    steps = request.registry["steps"] = Steps()
    try:
        while True:
            yield Event(await steps.asked.get(), event="step")
    finally:
        steps.ended.set()


async def step(request):
    request.registry["steps"].asked.put_nowait(request.params["name"])
    return Response("asked")


async def ended(request):
    await request.registry["steps"].ended.wait()
    return Response("ended")


async def silence(request):
    await asyncio.Event().wait()
    yield


def make():
    """The WSGI application."""
    with Configurator() as config:
        config.include("aioext")
        config.add_view(facts, name="facts", renderer="json")
        config.add_view(size, name="size")
        for name, view, options in (
            ("echo", echo, {}),
            ("socket-facts", socket_facts, {}),
            ("pinged", echo, {"ping_interval": OFTEN}),
            ("unpinged", echo, {"ping_interval": 0}),
        ):
            config.add_view(view, name=name, mapper=WebsocketMapper, **options)
        config.add_route("refused", "/refused", factory=refused)
        config.add_view(echo, route_name="refused", mapper=WebsocketMapper)
        for name, view, options in (
            ("stream", stream, {}),
            ("beating", silence, {"heartbeat": OFTEN}),
            ("silent", silence, {"heartbeat": 0}),
        ):
            config.add_view(view, name=name, mapper=EventSourceMapper, **options)
        config.add_view(step, name="step")
        config.add_view(ended, name="ended")
    return config.make_wsgi_app()

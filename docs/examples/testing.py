"""The examples of the page on testing; the tests run them."""

import asyncio

import pytest
from pyramid.config import Configurator
from pyramid.testing import DummyRequest

from aioext import spawn_greenlet
from aioext.eventsource import Event, EventSourceMapper
from aioext.gateway import Gateway
from aioext.interfaces import ILifespan
from aioext.testing import TestApp, WebSocketRefused
from aioext.websocket import WebsocketMapper


class Meeting:
    """A place where two requests wait for each other."""

    def __init__(self):
        self.arrived = []
        self.both = asyncio.Event()

    async def meet(self, name):
        self.arrived.append(name)
        if len(self.arrived) == 2:
            self.both.set()
        await self.both.wait()
        return list(self.arrived)


async def hello(request):
    return {"hello": request.matchdict["name"]}


async def meet(request):
    return await request.registry["meeting"].meet(request.matchdict["name"])


async def shout(ws):
    async for message in ws:
        if not message:
            raise ValueError("nothing to shout")
        await ws.send(message.upper())


async def ticks(request):
    number = int(request.last_event_id or 0)
    try:
        while True:
            number += 1
            yield Event(number, event="tick", id=str(number))
    finally:
        request.registry["left"].append(number)


def main(global_config=None, **settings):
    with Configurator(settings=settings) as config:
        config.include("aioext")
        config.add_route("hello", "/hello/{name}")
        config.add_route("meet", "/meet/{name}")
        config.add_route("shout", "/shout")
        config.add_route("ticks", "/ticks")
        config.add_view(hello, route_name="hello", renderer="json")
        config.add_view(meet, route_name="meet", renderer="json")
        config.add_view(shout, route_name="shout", mapper=WebsocketMapper)
        config.add_view(ticks, route_name="ticks", mapper=EventSourceMapper)
        config.registry["left"] = []
        return config.make_wsgi_app()


# webtest
def test_hello():
    with TestApp(main()) as app:
        assert app.get("/hello/you").json == {"hello": "you"}


# end


# websocket
def test_shouting():
    with TestApp(main()) as app, app.websocket("/shout") as ws:
        ws.send("hello")
        assert ws.recv() == "HELLO"
        ws.close()
        assert ws.recv() is None


# end


# refused
def test_other_sites_are_refused():
    with TestApp(main()) as app:
        with pytest.raises(WebSocketRefused) as refused:
            app.websocket("/shout", origin="https://evil.example")
        assert refused.value.response.status_int == 403


# end


# failure
def test_silence_is_an_error():
    with TestApp(main()) as app, app.websocket("/shout") as ws:
        ws.send("")
        with pytest.raises(ValueError, match="nothing to shout"):
            ws.recv()
        assert ws.close_code == 1011


# end


# eventsource
def test_ticks():
    with TestApp(main()) as app:
        with app.eventsource("/ticks", last_event_id="41") as stream:
            tick = stream.next()
            assert (tick.event, tick.id, tick.json) == ("tick", "42", 42)
            assert stream.next().data == "43"
        assert len(app.app.registry["left"]) == 1


# end


# alone
def test_the_view_alone():
    request = DummyRequest(matchdict={"name": "you"})
    assert asyncio.run(hello(request)) == {"hello": "you"}


# end


# overlap
def test_two_requests_meet():
    async def both():
        wsgi_app = main()
        wsgi_app.registry["meeting"] = Meeting()
        app = TestApp(wsgi_app)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            one = group.create_task(spawn_greenlet(app.get, "/meet/one"))
            two = group.create_task(spawn_greenlet(app.get, "/meet/two"))
        return one.result().json, two.result().json

    assert asyncio.run(both()) == (["one", "two"], ["one", "two"])


# end


# gateway
def test_the_gateway():
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/hello/you",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    sent = []

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        sent.append(message)

    asyncio.run(Gateway(main())(scope, receive, send))
    start, body = sent
    assert start["status"] == 200
    assert body["body"] == b'{"hello": "you"}'


# end


# lifespan
def test_the_lifespan():
    async def serve():
        lifespan = main().registry.getUtility(ILifespan)
        async with lifespan.open():
            assert lifespan.is_open

    asyncio.run(serve())


# end

"""The examples of the page on testing; the tests run them."""

import asyncio

from pyramid.config import Configurator
from pyramid.testing import DummyRequest
from webtest import TestApp

from aioext import spawn_greenlet
from aioext.gateway import Gateway
from aioext.interfaces import ILifespan


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


def main(global_config=None, **settings):
    with Configurator(settings=settings) as config:
        config.include("aioext")
        config.add_route("hello", "/hello/{name}")
        config.add_route("meet", "/meet/{name}")
        config.add_view(hello, route_name="hello", renderer="json")
        config.add_view(meet, route_name="meet", renderer="json")
        return config.make_wsgi_app()


# webtest
def test_hello():
    app = TestApp(main())
    assert app.get("/hello/you").json == {"hello": "you"}


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

"""Applications whose hooks are coroutines, asked in both ways.

:class:`OnLoop` serves requests that overlap, through the gateway in process;
:class:`OnWsgi` has WebTest make one request at a time, with no loop in its thread.
"""

import asyncio
from dataclasses import dataclass

import webtest
from asgi import Client
from pyramid.config import Configurator

from aioext.gateway import Gateway

# Seconds that the answers to all requests of a call may take.
LIMIT = 20


def make(*steps, settings=None, **options):
    """A WSGI application; ``steps`` configure it, after the include."""
    config = Configurator(settings=settings or {}, **options)
    config.include("aioext")
    for step in steps:
        step(config)
    return config.make_wsgi_app()


def commit(config):
    """A step that commits what was configured so far."""
    config.commit()


def add_view(view, **options):
    """A step that adds a view for every path."""

    def add(config):
        config.add_route("any", "/*any")
        config.add_view(view, route_name="any", **options)

    return add


@dataclass(frozen=True)
class Answer:
    """What came of a request."""

    status: int
    text: str
    headers: dict[str, str]


class OnLoop:
    """Requests that are served at the same time, each in a Task of its own."""

    def __call__(self, app, *paths, method="GET", headers=(), body=b""):
        gateway = Gateway(app)

        async def one(path):
            path, _, query = path.partition("?")
            sent = [("host", "localhost"), *headers, ("content-length", len(body))]
            client = Client(
                path,
                method=method,
                query_string=query.encode(),
                headers=[(n.lower().encode(), str(v).encode()) for n, v in sent],
                body=[body],
            )
            await client.call(gateway)
            fields = {name.decode(): value.decode() for name, value in client.headers}
            return Answer(client.status, client.body.decode(), fields)

        async def all_of_them():
            async with asyncio.timeout(LIMIT):
                return await asyncio.gather(*map(one, paths))

        return asyncio.run(all_of_them())

    def meeting(self, parties):
        """A coroutine function: it returns when so many have called it."""
        barriers = {}

        async def meet():
            loop = asyncio.get_running_loop()
            await barriers.setdefault(loop, asyncio.Barrier(parties)).wait()

        return meet


class OnWsgi:
    """Requests that come one after the other."""

    def __call__(self, app, *paths, method="GET", headers=(), body=b""):
        client = webtest.TestApp(app)
        answers = []
        for path in paths:
            request = webtest.TestRequest.blank(path, method=method, body=body)
            request.headers.update(headers)
            response = client.do_request(request, expect_errors=True, status="*")
            fields = {name.lower(): value for name, value in response.headerlist}
            answers.append(Answer(response.status_int, response.text, fields))
        return answers

    def meeting(self, parties):
        """A coroutine function that has nobody to wait for."""

        async def meet():
            await asyncio.sleep(0)

        return meet

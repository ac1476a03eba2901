"""Streams of JSON: some wait to be released, end by an error, or never end."""

import asyncio

from pyramid.config import Configurator

released = asyncio.Event()
closed = asyncio.Event()


async def held(request):
    async def items():
        yield {"number": 0}
        await released.wait()
        yield {"number": 1}

    return items()


async def release(request):
    released.set()
    return "released"


async def endless(request):
    async def items():
        try:
            yield 0
            await asyncio.Event().wait()
        finally:
            closed.set()

    return items()


async def is_closed(request):
    await closed.wait()
    return "closed"


async def broken(request):
    async def items():
        yield 0
        await asyncio.sleep(0)
        raise LookupError("in the middle")

    return items()


VIEWS = {
    "held": (held, "json_lines"),
    "release": (release, "string"),
    "endless": (endless, "json"),
    "closed": (is_closed, "string"),
    "broken": (broken, "json"),
}


def make_app():
    with Configurator() as config:
        config.include("aioext.renderers.json")
        for name, (view, renderer) in VIEWS.items():
            config.add_route(name, f"/{name}")
            config.add_view(view, route_name=name, renderer=renderer)
    return config.make_asgi_app()


asgi_app = make_app()
app = asgi_app.app

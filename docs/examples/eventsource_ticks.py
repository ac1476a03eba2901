import asyncio

from pyramid.config import Configurator
from pyramid.view import view_config

from aioext.eventsource import Event, EventSourceMapper


@view_config(route_name="ticks", mapper=EventSourceMapper)
async def ticks(request):
    number = 0
    while True:
        number += 1
        yield Event({"number": number}, event="tick")
        await asyncio.sleep(1)


def main(global_config=None, **settings):
    with Configurator(settings=settings) as config:
        config.include("aioext")
        config.add_route("ticks", "/ticks")
        config.scan()
        return config.make_wsgi_app()

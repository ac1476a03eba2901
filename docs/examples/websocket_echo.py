from pyramid.config import Configurator
from pyramid.view import view_config

from aioext.websocket import WebsocketMapper


@view_config(route_name="echo", mapper=WebsocketMapper)
async def echo(ws):
    async for message in ws:
        await ws.send(message)


def main(global_config=None, **settings):
    with Configurator(settings=settings) as config:
        config.include("aioext")
        config.add_route("echo", "/echo")
        config.scan()
        return config.make_wsgi_app()

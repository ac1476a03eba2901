import asyncio

from pyramid.config import Configurator


async def hello(request):
    await asyncio.sleep(1)  # other requests are served meanwhile
    return {"hello": request.matchdict["name"]}


def main(global_config=None, **settings):
    with Configurator(settings=settings) as config:
        config.include("aioext")
        config.add_route("hello", "/hello/{name}")
        config.add_view(hello, route_name="hello", renderer="json")
        return config.make_wsgi_app()

from pyramid.config import Configurator
from pyramid.response import Response


async def hello(request):
    return Response("Hello")


with Configurator() as config:
    config.include("aioext")
    config.add_view(hello)
    application = config.make_asgi_app()

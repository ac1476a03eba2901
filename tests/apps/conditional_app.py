"""An application of views with ``etag=True``, for servers that run it."""

from pyramid.config import Configurator
from pyramid.response import Response

from aioext.gateway import Gateway

BODY = b"0123456789"


async def chunks():
    for start in range(0, 10, 2):
        yield BODY[start : start + 2]


async def streamed(request):
    response = Response(app_iter=chunks(), content_length=10)
    response.headers["ETag"] = '"streamed"'
    return response


def plain(request):
    return Response(BODY, content_type="application/x")


def make():
    with Configurator() as config:
        config.include("aioext.renderers.etag")
        config.include("aioext")
        for path, view in {"/": plain, "/streamed": streamed}.items():
            config.add_route(path, path)
            config.add_view(view, route_name=path, etag=True)
        return config.make_wsgi_app()


application = make()
asgi = Gateway(application)

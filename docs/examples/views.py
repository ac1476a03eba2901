"""The examples of the page on views; the tests run them."""

import asyncio
import time

from pyramid.response import FileResponse, Response
from pyramid.view import view_config

from aioext.config import InlineMapper


# both
@view_config(name="coroutine", renderer="json")
async def coroutine_view(request):
    await asyncio.sleep(0.01)  # on the loop, which goes on
    return {"view": "coroutine"}


@view_config(name="ordinary", renderer="json")
def ordinary_view(request):
    time.sleep(0.01)  # in a thread of the executor
    return {"view": "ordinary"}


# end


# mapper
@view_config(name="quick", mapper=InlineMapper)
def quick(request):
    return Response("no thread for so little")


# end


# bodies
@view_config(name="numbers")
async def numbers(request):
    async def generate():
        for number in range(3):
            await asyncio.sleep(0.01)
            yield f"{number}\n".encode()

    return Response(app_iter=generate(), content_type="text/plain")


@view_config(name="lines")
def lines(request):
    def generate():
        for number in range(3):
            time.sleep(0.01)  # in the executor, as the view itself
            yield f"{number}\n".encode()

    return Response(app_iter=generate(), content_type="text/plain")


@view_config(name="file")
async def file(request):
    path = request.registry.settings["path"]
    return FileResponse(path, request=request)  # read in the executor


# end

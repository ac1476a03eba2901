"""The examples of the page on transactions."""

from pyramid.response import Response

from aioext import use_executor
from aioext.bridge import shielded


# include
def includeme(config):
    config.include("pyramid_tm")


# end


# hook
def rename(request):
    name = request.params["name"]
    request.tm.get().addAfterCommitHook(tell, (request, name))
    return Response(f"called {name} from now on")


def tell(committed, request, name):
    if committed:
        request.registry["names"].append(name)


# end


# shielded
def store(file, text):
    for part in text.split():
        file.write_part(part)
    file.close()


def upload(request):
    shielded(store, request.registry["file"], request.text)
    return Response("stored")


# end


# thread
@use_executor
def charge(request, amount):
    request.registry["account"].join(request.tm)
    request.registry["account"].charge(amount)


async def buy(request):
    await charge(request, 7)
    return Response("bought")


# end

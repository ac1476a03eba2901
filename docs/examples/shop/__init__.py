"""Pages whose slow part comes later."""

import asyncio

from pyramid.events import BeforeRender, subscriber
from pyramid.view import view_config

from aioext import Pending


# early
async def load_offers(customer):
    await asyncio.sleep(1)  # a request to another server, say
    return [f"an offer for {customer}"]


@view_config(route_name="shop", renderer="templates/shop.mako")
async def shop(request):
    offers = Pending(load_offers(request.matchdict["customer"]))
    basket = await load_basket(request)  # meanwhile
    return {"basket": basket, "offers": offers}


# stream
@view_config(route_name="stream", renderer="templates/shop.mako", stream=True)
async def streamed_shop(request):
    return {
        "basket": await load_basket(request),
        "offers": load_offers(request.matchdict["customer"]),
    }


# executor
@view_config(route_name="report", renderer="templates/report.mako", render="executor")
async def report(request):
    return {"rows": range(10_000)}


# feed
@view_config(route_name="feed", renderer="templates/feed.xml.mako")
async def feed(request):
    return {"entries": ["first", "second"]}


# globals
def plural(number, word):
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


@subscriber(BeforeRender)
def add_globals(event):
    event["plural"] = plural


# end
async def load_basket(request):
    return ["tea"]


def includeme(config):
    config.include("pyramid_mako")
    # include
    config.include("aioext.renderers")
    # end
    for name in "shop", "stream":
        config.add_route(name, f"/{name}/{{customer}}")
    for name in "report", "feed":
        config.add_route(name, f"/{name}")
    config.scan(__name__)

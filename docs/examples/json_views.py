"""Views whose values become JSON."""

import asyncio
import datetime
from dataclasses import dataclass
from decimal import Decimal

from pyramid.view import view_config

from aioext.renderers import JSONRenderer
from aioext.sqlalchemy import session


# values
@dataclass
class Offer:
    title: str
    price: Decimal
    until: datetime.date
    tags: frozenset


@view_config(name="offer", renderer="json")
async def offer(request):
    return Offer("Tea", Decimal("4.50"), datetime.date(2026, 5, 1), frozenset({"new"}))


# end
# wait
class Cart:
    def __init__(self, number):
        self.number = number

    async def __json__(self, request):
        return {"number": self.number, "items": await load_items(self.number)}


@view_config(name="carts", renderer="json")
def carts(request):
    return {"carts": [Cart(1), Cart(2)], "total": count_carts()}  # a coroutine


# end
async def load_items(number):
    await asyncio.sleep(0)
    return ["tea"] * number


async def count_carts():
    await asyncio.sleep(0)
    return 2


# streams
@view_config(name="feed", renderer="json_lines")
async def feed(request):
    return ticks()


async def ticks():
    for number in range(3):
        yield {"number": number, "at": datetime.datetime.now(datetime.UTC)}
        await asyncio.sleep(0.1)


@view_config(name="squares", renderer="json")
def squares(request):
    return ({"number": n, "square": n * n} for n in range(10_000))


# end
# session
@view_config(name="titles", renderer="json")
def titles(request):
    return all_titles(request)


def all_titles(request):
    with session(request) as dbsession:
        for row in dbsession.execute(request.registry["titles"]):
            yield row.title


# end
# adapters
class Money:
    def __init__(self, cents):
        self.cents = cents


def includeme(config):
    config.include("aioext.renderers")
    renderer = JSONRenderer(sort_keys=True)
    renderer.add_adapter(Money, lambda money, request: money.cents / 100)
    config.add_renderer("json", renderer)


# end
# plain
@view_config(name="plain")
def plain(request):
    return {"plain": True}


@view_config(name="csv")
def csv(request):
    request.response.content_type = "text/csv"
    return (f"{n},{n * n}\n" for n in range(3))


# end

"""The examples of the page on event streams; the tests run them."""

import asyncio
import sqlite3
import threading
import time
from contextlib import asynccontextmanager

from pyramid.httpexceptions import HTTPNoContent
from pyramid.view import view_config

from aioext.eventsource import (
    Event,
    EventLog,
    EventSourceMapper,
    EventSourceResponse,
    MemoryEventLog,
    Retry,
)


# views
@view_config(name="count", mapper=EventSourceMapper)
def count(request):
    for number in range(3):
        yield number
        time.sleep(0.01)  # in a thread


@view_config(name="words", mapper=EventSourceMapper)
async def words(context, request):
    return context["text"].split()


@view_config(name="news", mapper=EventSourceMapper, attr="stream")
class News:
    def __init__(self, request):
        self.request = request

    async def stream(self):
        yield f"news for {self.request.params['name']}"


# end


# items
@view_config(name="items", mapper=EventSourceMapper)
async def items(request):
    yield Retry(5)
    yield "text, of one line\nor several"
    yield {"price": 12.5}
    yield Event({"price": 13}, event="price", id="p-2")
    yield Event("", event="closing")


# end


# refusal
@view_config(name="job", mapper=EventSourceMapper)
async def job(request):
    progress = request.registry["jobs"].get(request.params["id"])
    if progress is None:
        return HTTPNoContent()  # a browser does not come back
    return progress()


# end


# both
@view_config(name="prices", renderer="json")
async def prices(request):
    return request.registry["prices"]


@view_config(name="prices", is_eventsource=True)
async def price_stream(request):
    response = EventSourceResponse(changes(request.registry["prices"]), heartbeat=5)
    response.set_cookie("seen", "prices")
    return response


async def changes(prices):
    for name, price in prices.items():
        yield Event({name: price}, event="price")


# end


# finally
@view_config(name="listen", mapper=EventSourceMapper)
async def listen(request):
    queue = asyncio.Queue()
    request.registry["listeners"].add(queue)
    try:
        while True:
            yield await queue.get()
    finally:
        request.registry["listeners"].discard(queue)


# end


# thread
@view_config(name="measure", mapper=EventSourceMapper)
def measure(request):
    while not request.disconnected.is_set():
        yield request.registry["device"].read()  # blocks, a second at most


# end


# log
def includeme(config):
    config.registry["orders"] = MemoryEventLog(size=1000)


@view_config(name="order", renderer="json")
def order(request):
    number = request.json_body["number"]
    request.registry["orders"].append(Event({"number": number}, event="order"))
    return {}


@view_config(name="orders", mapper=EventSourceMapper)
async def orders(request):
    async for event in request.registry["orders"].follow(request.last_event_id):
        yield event


# end


# state
@view_config(name="open-orders", renderer="json")
async def open_orders(request):
    last_event_id = request.registry["orders"].last_event_id
    return {
        "orders": await load_orders(),
        "stream": f"/orders?lastEventId={last_event_id}",
    }


# end


async def load_orders():
    return [1, 2, 3]


# gap
@view_config(name="orders-or-all", mapper=EventSourceMapper)
async def orders_or_all(request):
    def tell(reason):
        return Event({"why": reason}, event="load-everything")

    log = request.registry["orders"]
    async for event in log.follow(request.last_event_id, on_gap=tell):
        yield event


# end


# store
class SQLiteStore:
    def __init__(self, path):
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            path, check_same_thread=False, isolation_level=None
        )
        self._execute("create table if not exists epoch (name text)")
        self._execute(
            "insert into epoch select hex(randomblob(4))"
            " where not exists (select * from epoch)"
        )
        self._execute(
            "create table if not exists event"
            " (position integer primary key autoincrement, type text, data text)"
        )
        ((self.epoch,),) = self._execute("select name from epoch")

    def _execute(self, statement, *values):
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    @property
    def last(self):
        ((position,),) = self._execute("select max(position) from event")
        return position or 0

    def append(self, event):
        statement = "insert into event (type, data) values (?, ?) returning position"
        ((position,),) = self._execute(statement, event.event, event.data)
        return position

    def read(self, after, limit):
        statement = (
            "select position, type, data from event"
            " where position > ? order by position limit ?"
        )
        rows = self._execute(statement, after, limit)
        return [(position, Event(data, event=kind)) for position, kind, data in rows]

    def close(self):
        self._connection.close()


@asynccontextmanager
async def shared_orders(registry):
    store = SQLiteStore(registry.settings["orders.path"])
    log = registry["orders"] = EventLog(store)
    task = asyncio.create_task(look(log))
    yield
    task.cancel()
    await asyncio.wait([task])
    store.close()


async def look(log):
    while True:
        log.notify()  # other processes append to the store as well
        await asyncio.sleep(0.5)


# end

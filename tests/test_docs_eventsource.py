"""The page on event streams: what it shows is run."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from asgi import Client
from pyramid.config import Configurator
from test_docs import DOCS, load

from aioext.eventsource import Event
from aioext.eventsource.event import HEARTBEAT, encode
from aioext.gateway import Gateway
from aioext.interfaces import ILifespan
from aioext.settings import SETTINGS

__all__ = ["load"]

PAGE = (DOCS / "eventsource.rst").read_text("utf-8")
ASKS = [(b"host", b"localhost"), (b"accept", b"text/event-stream")]


@pytest.fixture
def example(load):
    return load("eventsource")


def make_app(module, *includes, root=None, settings=None):
    with Configurator(settings=settings or {}) as config:
        config.include("aioext")
        config.set_root_factory(lambda request: root or {})
        for include in includes:
            config.include(include)
        config.scan(module)
        app = config.make_wsgi_app()
    return Gateway(app), app.registry


def events_of(app, path, **scope):
    """The text of a stream that ends, without its opening."""
    client = asyncio.run(Client(path, **scope).call(app))
    assert client.body.startswith(HEARTBEAT)
    return client.body.removeprefix(HEARTBEAT).decode()


@asynccontextmanager
async def opened(app, path, expected, **scope):
    """A stream that has sent ``expected``."""
    client = Client(path, **scope)
    task = client.start(app)
    await client.until(lambda: expected in client.body.decode())
    yield client
    client.leave()
    await task


def test_views(example):
    app, _ = make_app(example, root={"text": "two words"})
    assert events_of(app, "/count") == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert events_of(app, "/words") == "data: two\n\ndata: words\n\n"
    assert events_of(app, "/news", query_string=b"name=me") == "data: news for me\n\n"


def test_items(example):
    app, _ = make_app(example)
    assert events_of(app, "/items") == (
        "retry: 5000\n\n"
        "data: text, of one line\ndata: or several\n\n"
        'data: {"price": 12.5}\n\n'
        'event: price\nid: p-2\ndata: {"price": 13}\n\n'
        "event: closing\ndata: \n\n"
    )


def test_a_refusal(example):
    async def progress():
        yield 50

    app, registry = make_app(example)
    registry["jobs"] = {"1": progress}
    assert events_of(app, "/job", query_string=b"id=1") == "data: 50\n\n"
    client = asyncio.run(Client("/job", query_string=b"id=2").call(app))
    assert client.status == 204


def test_a_page_and_a_stream(example):
    app, registry = make_app(example)
    registry["prices"] = {"tea": 3}
    client = asyncio.run(Client("/prices").call(app))
    assert json.loads(client.body) == {"tea": 3}
    expected = 'event: price\ndata: {"tea": 3}\n\n'
    assert events_of(app, "/prices", headers=ASKS) == expected
    client = asyncio.run(Client("/prices", headers=ASKS).call(app))
    assert (b"set-cookie", b"seen=prices; Path=/") in client.headers


class Listeners(set):
    def __init__(self):
        super().__init__()
        self.has_one = asyncio.Event()

    def add(self, queue):
        super().add(queue)
        self.has_one.set()


def test_what_is_registered_is_taken_back(example, run):
    app, registry = make_app(example)

    async def listen():
        listeners = registry["listeners"] = Listeners()
        client = Client("/listen")
        task = client.start(app)
        await listeners.has_one.wait()
        (queue,) = listeners
        queue.put_nowait("hello")
        await client.until_body(HEARTBEAT + b"data: hello\n\n")
        client.leave()
        await task
        assert not listeners

    run(listen())


def test_a_thread_that_looks(example, run):
    class Device:
        def read(self):
            return 7

    app, registry = make_app(example)
    registry["device"] = Device()

    async def measure():
        async with opened(app, "/measure", "data: 7\n\ndata: 7\n\n"):
            pass

    run(measure())


def order(app, number):
    body = [json.dumps({"number": number}).encode()]
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    return Client("/order", method="POST", body=body, headers=headers).call(app)


def test_the_log(example, run):
    app, registry = make_app(example, example)

    async def follow():
        beginning = registry["orders"].last_event_id
        for number in (1, 2):
            await order(app, number)
        headers = [(b"last-event-id", beginning.encode())]
        async with opened(app, "/orders", '{"number": 2}', headers=headers) as client:
            await order(app, 3)
            await client.until(lambda: b'{"number": 3}' in client.body)
        text = client.body.decode()
        assert [text.count(f'"number": {number}}}') for number in (1, 2, 3)] == [1] * 3

    run(follow())


def test_the_state_and_what_comes_after_it(example, run):
    app, _ = make_app(example, example)

    async def follow():
        await order(app, 1)
        state = json.loads((await Client("/open-orders").call(app)).body)
        assert state["orders"] == [1, 2, 3]
        await order(app, 2)
        path, _, query = state["stream"].partition("?")
        scope = {"query_string": query.encode()}
        async with opened(app, path, '{"number": 2}', **scope) as client:
            assert b'{"number": 1}' not in client.body

    run(follow())


def test_a_gap(example, run):
    app, _ = make_app(example, example)

    async def come_back(path, expected):
        headers = [(b"last-event-id", b"other-1")]
        async with opened(app, path, expected, headers=headers):
            pass

    run(come_back("/orders", "event: reset\nid: "))
    run(come_back("/orders", 'data: {"reason": "unknown"}\n\n'))
    run(come_back("/orders-or-all", "event: load-everything\nid: "))


def test_a_store_that_processes_share(example, run, tmp_path):
    def include(config):
        config.add_lifespan(example.shared_orders)

    path = str(tmp_path / "orders.sqlite")
    settings = {"orders.path": path}
    app, registry = make_app(example, include, settings=settings)

    async def follow():
        async with registry.getUtility(ILifespan).open():
            beginning = registry["orders"].last_event_id
            await order(app, 1)
            query = f"lastEventId={beginning}".encode()
            scope = {"query_string": query}
            async with opened(app, "/orders", '{"number": 1}', **scope) as client:
                other = example.SQLiteStore(path)
                assert other.epoch == registry["orders"].store.epoch
                other.append(Event('{"number": 2}', event="order"))
                other.close()
                await client.until(lambda: b'{"number": 2}' in client.body)
            return client.body.decode()

    text = run(follow())
    epoch = text.partition("id: ")[2].partition("-")[0]
    assert text == HEARTBEAT.decode() + "".join(
        f'event: order\nid: {epoch}-{number}\ndata: {{"number": {number}}}\n\n'
        for number in (1, 2)
    )
    # And it is still there when the server has been restarted.
    store = example.SQLiteStore(path)
    assert store.epoch == epoch
    assert store.last == 2
    assert [position for position, _ in store.read(0, 1)] == [1]
    store.close()


def test_the_page_has_every_setting():
    for setting in SETTINGS:
        if setting.name.startswith("eventsource."):
            assert f":confval:`aioext.{setting.name}`" in PAGE
            assert f"``{setting.name.partition('.')[2]}=``" in PAGE


def test_the_page_has_the_headers(example):
    app, _ = make_app(example)
    headers = asyncio.run(Client("/items").call(app)).headers
    for name, value in headers:
        if name != b"content-type":
            assert f"{name.decode()}: {value.decode()}" in PAGE.lower()


def test_the_first_example(load, run):
    module = load("eventsource_ticks")
    gateway = Gateway(module.main())
    ticks = encode(Event({"number": 1}, event="tick"))

    async def tick():
        async with opened(gateway, "/ticks", ticks.decode()):
            pass

    run(tick())

"""The page on templates: what it shows does what it says."""

import asyncio
import importlib.util
import sys

import pytest
from asgi import Client
from inprocess import answer, make_app
from pyramid.exceptions import ConfigurationError
from test_docs import EXAMPLES, execute

from aioext import Pending, spawn_greenlet

TEMPLATES = {"mako.directories": str(EXAMPLES / "shop" / "templates")}


@pytest.fixture
def module():
    directory = EXAMPLES / "shop"
    spec = importlib.util.spec_from_file_location(
        "shop", directory / "__init__.py", submodule_search_locations=[str(directory)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["shop"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["shop"]


@pytest.fixture
def app(module):
    return make_app(module.includeme)


class Slow:
    """Stands in the place of what loads the offers."""

    def __init__(self):
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()

    async def __call__(self, customer):
        self.began.set()
        await self.may_end.wait()
        return [f"tea for {customer}"]


HEAD = b"<h1>Basket: tea</h1>\n<ul>\n"
REST = b"  <li>tea for ann</li>\n</ul>\n<p>1 offer</p>\n"


def test_what_is_slow_begins_before_the_rest(module, app, monkeypatch):
    async def main():
        slow = Slow()

        async def load_basket(request):
            await slow.began.wait()
            slow.may_end.set()
            return ["tea"]

        monkeypatch.setattr(module, "load_offers", slow)
        monkeypatch.setattr(module, "load_basket", load_basket)
        client = await Client("/shop/ann").call(app)
        assert client.body == HEAD + REST

    asyncio.run(main())


def test_the_head_of_the_streamed_page_comes_first(module, app, monkeypatch):
    async def main():
        slow = Slow()
        monkeypatch.setattr(module, "load_offers", slow)
        client = Client("/stream/ann")
        task = client.start(app)
        await client.until_body(HEAD)
        slow.may_end.set()
        await task
        assert client.parts == [HEAD, REST]

    asyncio.run(main())


def test_a_long_report(app):
    lines = answer(app, "/report").body.splitlines()
    assert len(lines) == 10_000


def test_the_feed_is_xml(app):
    client = answer(app, "/feed")
    headers = dict(client.headers)
    assert headers[b"content-type"] == b"application/xml; charset=UTF-8"
    assert b"<entry>first</entry>" in client.body


def test_what_the_errors_page_says_of_a_pending():
    names = execute("errors")

    async def main():
        for value, expected in ((1, "some"), (0, "none")):
            pending = Pending(asyncio.sleep(0, value))
            assert await names["in_a_coroutine"](pending) == expected
            assert await spawn_greenlet(names["elsewhere"], pending) == expected

    asyncio.run(main())


def test_the_order_that_the_errors_page_says(app):
    def configure(config, *, first=True):
        if first:
            config.include("pyramid_mako")
        config.include("aioext.renderers")
        config.add_view(lambda request: {}, renderer="report.mako", stream=True)

    make_app(configure, settings=TEMPLATES)
    with pytest.raises(ConfigurationError, match="there is no renderer"):
        make_app(lambda config: configure(config, first=False), settings=TEMPLATES)

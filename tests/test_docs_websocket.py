"""The page on WebSockets: what it shows is run."""

import asyncio
import threading

import pytest
import zope.sqlalchemy
from browser import browse
from life import ENVIRON
from pyramid.config import Configurator
from pyramid_tm import explicit_manager
from servers import serve
from sqlalchemy import create_engine, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from test_docs import DOCS, EXAMPLES, blocks, load
from websockets.sync.client import connect

from aioext import wait
from aioext.settings import SETTINGS
from aioext.testing import TestApp, WebSocketRefused
from aioext.websocket.options import VIEW_OPTIONS

__all__ = ["load"]

PAGE = (DOCS / "websocket.rst").read_text("utf-8")


class Root:
    title = "root"

    def __init__(self, request):
        pass


@pytest.fixture
def module(load):
    return load("websocket")


@pytest.fixture
def make(module):
    """The examples as an application; given settings, and what to include."""
    opened = []

    def make(*includes, **settings):
        with Configurator(settings=settings, root_factory=Root) as config:
            config.include("aioext")
            config.include(module)
            for include in includes:
                config.include(include)
            config.registry["counts"] = []
            config.registry["watchers"] = set()
            config.add_route("own", "/own/{name}", factory=module.own_room)
            config.scan(module)
        app = TestApp(config.make_wsgi_app())
        opened.append(app)
        return app

    yield make
    for app in opened:
        app.close()


@pytest.fixture
def app(make):
    return make()


@pytest.fixture(scope="module")
def server():
    """The first example, served as the page says."""
    with serve(
        "gunicorn", "websocket_echo:main()", directory=EXAMPLES, environ=ENVIRON
    ) as server:
        yield server


def test_the_first_example_answers(load):
    with TestApp(load("websocket_echo").main()) as app, app.websocket("/echo") as ws:
        for message in ("hello", b"\0", ""):
            ws.send(message)
            assert ws.recv() == message


def test_the_script_for_a_page_answers(server, tmp_path):
    (script,) = (
        code for code in blocks("text")["websocket"] if "new WebSocket" in code
    )
    remember = script.replace("console.log(", "(window.told = ")
    assert remember != script
    with browse(tmp_path) as browser:
        browser.open(f"http://127.0.0.1:{server.port}/")
        browser.run(f"{remember}\nreturn null")
        assert browser.wait_until("window.told") == "hello"


def test_handlers_take_what_they_name(app):
    with app.websocket("/greet?name=you") as ws:
        assert ws.recv() == "hello you"
    with app.websocket("/room") as ws:
        ws.send("anybody?")
        assert ws.recv() == "root: anybody?"


def test_a_class_is_told_what_happens(app):
    with app.websocket("/count") as ws:
        assert ws.recv() == "counting"
        for number in (1, 2):
            ws.send("so")
            assert ws.recv() == f"{number}: so"
    assert app.app.registry["counts"] == [2]


def test_functions_wait_and_threads_block(app, module, monkeypatch):
    with app.websocket("/shout") as ws:
        ws.send("hello")
        assert ws.recv() == "HELLO"
    threads = []
    monkeypatch.setattr(
        module.time, "sleep", lambda _: threads.append(threading.current_thread())
    )
    with app.websocket("/slow") as ws:
        ws.send("hello")
        assert ws.recv() == "hello"
    assert threads[0] is not threading.main_thread()


def test_a_view_decides_between_a_page_and_a_websocket(app):
    assert app.get("/news").text == "what is new"
    with app.websocket("/news?id=1") as ws:
        ws.send("again")
        assert ws.recv() == "one, again"
    with pytest.raises(WebSocketRefused) as refused:
        app.websocket("/news?id=2")
    assert refused.value.response.status_int == 409


def test_a_view_uses_the_websocket_itself(app):
    assert app.get("/number").text == "a page"
    with app.websocket("/number") as ws:
        assert ws.recv() == "your number?"
        ws.send("5")
        assert ws.recv() == "it is 5"
        assert ws.recv() is None
    assert ws.close_code == 1000


def test_plain_wsgi_code_has_websockets(app):
    assert app.get("/plain", status=426).text.startswith("This is the address")
    with app.websocket("/plain") as ws:
        ws.send("hello")
        assert ws.recv() == "hello"


def test_a_handler_begins_transactions(make, module, tmp_path):
    path = tmp_path / "entries.sqlite"
    plain = create_engine(f"sqlite:///{path}")
    module.Base.metadata.create_all(plain)
    waiting = create_async_engine(f"sqlite+aiosqlite:///{path}")

    def dbsession(request):
        session = Session(waiting.sync_engine)
        zope.sqlalchemy.register(session, transaction_manager=request.tm)
        return session

    def database(config):
        config.add_settings({"tm.manager_hook": explicit_manager})
        config.include("pyramid_tm")
        config.add_request_method(dbsession, reify=True)

    app = make(database)
    with app.websocket("/log") as ws, Session(plain) as session:
        for number in (1, 2):
            ws.send(f"entry {number}")
            assert ws.recv() == "written"
            assert len(session.scalars(select(module.Entry)).all()) == number
            session.rollback()
    plain.dispose()
    wait(waiting.dispose())


def test_a_routes_factory_refuses(app):
    with app.websocket("/own/joe?user=joe") as ws:
        assert ws.recv() == "the room of joe"
    with pytest.raises(WebSocketRefused) as refused:
        app.websocket("/own/joe?user=jim")
    assert refused.value.response.status_int == 403
    assert "somebody else's room" in refused.value.response.text


def test_partners_may(app):
    for origin in ("own", "https://partner.example", "https://a.b.partner.example"):
        with app.websocket("/partners", origin=origin) as ws:
            assert ws.recv() == "hello, partner"
    for origin in ("http://partner.example", "https://notpartner.example"):
        with pytest.raises(WebSocketRefused):
            app.websocket("/partners", origin=origin)


@pytest.mark.parametrize(
    ("path", "offered", "chosen"),
    [
        ("/versions", ["v1", "v2"], "v2"),
        ("/versions", ["v1", "v0"], "v1"),
        ("/versions", ["v0"], None),
        ("/newest", ["v1", "v9"], "v9"),
        ("/newest", [], None),
    ],
)
def test_a_subprotocol_is_chosen(app, path, offered, chosen):
    with app.websocket(path, subprotocols=offered) as ws:
        assert ws.recv() == f"we speak {chosen}"
        assert ws.subprotocol == chosen


def test_json_is_added_up(app):
    with app.websocket("/add") as ws:
        ws.send_json([1, 2])
        assert ws.recv_json() == {"sum": 3}
    for wrong in ("[1", "5"):
        with app.websocket("/add") as ws:
            ws.send(wrong)
            assert ws.recv() is None
        assert (ws.close_code, ws.close_reason) == (1003, "a list of numbers, please")


class Silent:
    """A WebSocket whose client says nothing."""

    closed_with = None

    async def recv(self, timeout):
        raise TimeoutError

    async def close(self, code, reason):
        self.closed_with = code, reason


def test_a_login_has_a_time_limit(app, module):
    with app.websocket("/login") as ws:
        ws.send("joe")
        assert ws.recv() == "hello joe"
    silent = Silent()
    asyncio.run(module.login(silent))
    assert silent.closed_with == (4000, "too late")


def test_a_handler_cleans_up(app):
    watchers = app.app.registry["watchers"]
    with app.websocket("/watch") as ws:
        ws.disconnect()
        ws.wait_ended()
    assert watchers == set()


def test_everybody_is_told_and_nobody_waits_for_the_slow(app, module, monkeypatch):
    monkeypatch.setattr(module.Chat, "BEHIND", 2)
    with app.websocket("/chat") as slow, app.websocket("/chat") as quick:
        quick.send("hello")
        assert slow.recv() == quick.recv() == "hello"
        # What the connection of the slow one holds, and its queue, and more.
        message = "x" * 50_000
        for _ in range(10):
            quick.send(message)
            assert quick.recv() == message
        received = list(slow)
        assert 1 <= len(received) < 10
        assert (slow.close_code, slow.close_reason) == (1013, "too slow")
    assert app.app.registry["chat"]._queues == {}


def test_another_server_is_asked(make, server):
    app = make(translator=f"ws://127.0.0.1:{server.port}/echo")
    with app.websocket("/translate") as ws:
        ws.send("hello")
        assert ws.recv() == "hello"
    assert app.get("/word?word=hello").text == "hello"


def test_the_first_example_is_served_as_the_page_says(server):
    with connect(f"ws://127.0.0.1:{server.port}/echo", proxy=None) as ws:
        ws.send("hello")
        assert ws.recv() == "hello"


@pytest.mark.parametrize(
    "name",
    [each.name for each in SETTINGS if each.name.startswith("websocket.")],
)
def test_the_page_has_every_setting_of_websockets(name):
    assert f":confval:`aioext.{name}`" in PAGE


def test_the_page_has_every_option_of_a_view():
    for name in VIEW_OPTIONS:
        assert f"``{name}=``" in PAGE or f"``{name}``" in PAGE

"""The page on mounts: what it shows is run."""

import asyncio
import contextlib
import re
import textwrap

import pytest
from asgi import Client
from pyramid.config import Configurator
from test_docs import DOCS, load
from webtest import TestApp

from aioext.asgi import Gateway
from aioext.interfaces import ISettings

__all__ = ["load"]


@pytest.fixture
def module(load):
    return load("mounts")


def test_each_application_answers_below_its_path(module):
    app = TestApp(module.main())
    for path in ("/", "/blog/posts", "/live/greet"):
        assert app.get(path).json["here"] == path
    for host in ("admin.example.com", "www.admin.example.com:8080"):
        headers = {"Host": host}
        assert app.get("/users", headers=headers).json == {"here": "/users"}
    assert app.get("/users", status=404)
    assert app.get("/live/greet").json["says"] == "hello"


def test_a_websocket_reaches_its_application(module):
    async def talk():
        incoming, sent = asyncio.Queue(), asyncio.Queue()
        scope = {**Client("/live/echo").scope, "type": "websocket", "scheme": "ws"}
        for message in (
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": "hello"},
            {"type": "websocket.disconnect", "code": 1000},
        ):
            incoming.put_nowait(message)
        gateway = Gateway(module.main())
        with contextlib.suppress(RuntimeError):
            await gateway(scope, incoming.get, sent.put)
        return [sent.get_nowait() for _ in range(sent.qsize())]

    accepted, echoed = asyncio.run(talk())
    assert accepted["type"] == "websocket.accept"
    assert echoed["text"] == "hello"


def test_the_lines_of_an_ini_file_are_understood():
    text = (DOCS / "mounts.rst").read_text("utf-8")
    (lines,) = re.findall(r"aioext\.mounts =\n((?: {8}.*\n)+)", text)
    config = Configurator(settings={})
    config.include("aioext")
    config.registry.settings["aioext.mounts"] = ""
    config.commit()
    settings = type(config.registry.getUtility(ISettings))
    mounts = settings({"aioext.mounts": textwrap.dedent(lines)}).mounts
    assert mounts == (
        ("/blog", "blog:app"),
        ("admin.example.com", "myproject.admin:application"),
        (".example.com/live", "live:app"),
    )

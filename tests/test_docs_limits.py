"""The page on limits and proxies: what it shows does what it says."""

import asyncio
import configparser
import textwrap

import pytest
from asgi import Client
from gunicorn.config import Config
from inprocess import make_app
from pyramid.request import Request
from pyramid.response import Response
from test_docs import blocks, execute

from aioext.gunicorn.listener import limit_of
from aioext.settings import Settings


@pytest.fixture(scope="module")
def page():
    return execute("limits")


def test_the_setting_is_as_shown():
    (line,) = [each for each in blocks("text")["limits"] if "max_body" in each]
    name, value = line.strip().split(" = ")
    assert Settings({name: value}).max_body == 100 * 1024**2


def test_the_exception_view_answers(page):
    def configure(config):
        config.add_view(lambda request: Response(request.body))
        config.add_exception_view(
            page["too_large"], context=page["HTTPRequestEntityTooLarge"]
        )

    app = make_app(configure, settings={"aioext.max_body": "1"})
    client = Client(method="POST", body=[b"xy"])
    asyncio.run(client.call(app))
    assert (client.status, client.body) == (413, b"At most 100 MiB, please.")


@pytest.mark.parametrize(
    ("sent", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
        ("6.6.6.6,192.0.2.1", "192.0.2.1"),
    ],
)
def test_the_last_address_is_the_proxys_word(page, sent, address):
    request = Request.blank("/", headers={"X-Forwarded-For": sent})
    assert page["client"](request) == address


def test_the_number_of_connections_is_a_limit():
    (section,) = [each for each in blocks("text")["limits"] if "[server:" in each]
    parser = configparser.ConfigParser()
    parser.read_string(textwrap.dedent(section))
    cfg = Config()
    cfg.set("worker_connections", parser["server:main"]["worker_connections"])
    assert limit_of(cfg) == 5000

"""Tests of what the tutorial adds."""

import asyncio

from aioext import spawn_greenlet
from pyramid.testing import DummyRequest

from hello import lookup


def test_a_coroutine_view_alone():
    request = DummyRequest(matchdict={"host": "127.0.0.1"})
    assert asyncio.run(lookup.lookup(request)) == ["127.0.0.1"]


def test_synchronous_code_waits_without_a_server(app):
    assert "localhost is " in app.get("/self")


def test_the_lifespan_is_open(app):
    before = app.get("/visits/test").json["visits"]
    assert app.get("/visits/test").json["visits"] == before + 1


def test_both_ways_to_block_give_the_same(app):
    assert app.get("/digest/x").json == app.get("/digests/x").json


def test_two_requests_wait_for_each_other(app, monkeypatch):
    """Overlapping requests: neither answers before both have arrived."""

    async def ask_both():
        both = asyncio.Barrier(2)

        async def addresses(host):
            await both.wait()
            return [host]

        monkeypatch.setattr(lookup, "addresses", addresses)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            one = group.create_task(spawn_greenlet(app.get, "/lookup/one"))
            other = group.create_task(spawn_greenlet(app.get, "/lookup/other"))
        return one.result().json, other.result().json

    assert asyncio.run(ask_both()) == (["one"], ["other"])

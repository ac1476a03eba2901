"""The page on tweens and wrappers: what it shows is run."""

import asyncio

import pytest
from inprocess import answer, answers, make_app
from pyramid.response import Response
from test_docs import load

from aioext import wait

__all__ = ["load"]


@pytest.fixture
def module(load):
    return load("tweens")


def test_a_tween_limits_requests(module):
    under_way = []

    async def view(request):
        under_way.append(1)
        await asyncio.sleep(0)
        most = len(under_way)
        under_way.pop()
        return Response(str(most))

    app = make_app(module.includeme, lambda config: config.add_view(view))
    assert max(int(client.body) for client in answers(app, ["/"] * 25)) == 20


def test_a_tween_ends_requests(module):
    def view(request):
        return wait(asyncio.Event().wait())

    def add(config):
        config.add_tween("tweens.Timeout")
        config.add_view(view)

    client = answer(make_app(add, settings={"seconds": "0"}))
    assert (client.status, client.body) == (503, b"too late")


def test_an_ordinary_tween_waits(module):
    def add(config):
        config.registry["log"] = asyncio.Queue()
        config.add_tween("tweens.log_requests")
        config.add_view(module.report)

    app = make_app(add)
    assert answer(app).body == b"report"
    log = app.app.registry["log"]
    assert [log.get_nowait(), log.get_nowait()] == ["> /", "< 200 OK"]


def test_a_decorator_awaits_the_view(module):
    class Quota:
        left = 1

        async def take(self, client):
            await asyncio.sleep(0)
            self.left -= 1
            return self.left >= 0

    app = make_app(module.add_report)
    app.app.registry["quota"] = Quota()
    assert [answer(app, "/report").status for _ in range(2)] == [200, 429]


def test_a_deriver_awaits_the_view(module):
    class Lock:
        entered = 0

        async def __aenter__(self):
            self.entered += 1

        async def __aexit__(self, *error):
            await asyncio.sleep(0)

    app = make_app(
        module.add_locked, lambda config: config.add_view(module.report, name="free")
    )
    lock = Lock()
    app.app.registry["locks"] = {"report": lock}
    assert answer(app, "/locked").body == b"report"
    assert lock.entered == 1
    assert answer(app, "/free").body == b"report"
    assert lock.entered == 1

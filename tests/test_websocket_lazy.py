"""A WebSocket that is accepted when it is first used."""

import asyncio

import pytest

from aioext.exceptions import ConnectionClosed
from aioext.websocket import WebSocket
from aioext.websocket.channel import Channel
from aioext.websocket.handshake import Handshake
from aioext.websocket.lazy import LazyChannel


class Loopback(Channel):
    """A connection whose client sends back what it gets."""

    async def send(self, message):
        await asyncio.sleep(0)
        self.check_open()
        self.put(message)

    async def close(self, code=1000, reason=""):
        await asyncio.sleep(0)
        self.end(code, reason, here=True)

    async def ping(self):
        await asyncio.sleep(0)
        return 0.25


class Opener:
    """What accepts: counts, and may be slow or fail."""

    def __init__(self):
        self.calls = []
        self.error = None
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, headers, subprotocol, options):
        self.calls.append((headers, subprotocol))
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return Loopback(options)


def make_lazy():
    opener = Opener()
    handshake = Handshake({}, opener, None)
    started = []

    def start():
        started.append("started")
        handshake.headers = [(b"x-started", b"%d" % len(started))]

    lazy = LazyChannel(handshake, start)
    return WebSocket(lazy), opener, started


USES = [
    lambda ws: ws.recv(),
    lambda ws: ws.send("hello"),
    lambda ws: ws.close(4000),
    lambda ws: ws.ping(),
    lambda ws: ws.send_json(1),
    lambda ws: ws.recv_json(),
    lambda ws: anext(ws),
]


@pytest.mark.parametrize("use", USES)
def test_the_first_use_accepts(run, use):
    async def main():
        ws, opener, started = make_lazy()
        assert (ws.closed, ws.close_code, ws.close_reason) == (False, None, "")
        assert (opener.calls, started) == ([], [])
        using = asyncio.ensure_future(use(ws))
        await asyncio.sleep(0.01)
        assert opener.calls == [([(b"x-started", b"1")], None)]
        assert started == ["started"]
        using.cancel()
        await asyncio.wait([using])

    run(main())


def test_two_first_uses_at_once_accept_once(run):
    async def main():
        ws, opener, started = make_lazy()
        opener.go.clear()
        using = [asyncio.ensure_future(ws.send(str(n))) for n in range(5)]
        await asyncio.sleep(0)
        opener.go.set()
        await asyncio.gather(*using)
        assert len(opener.calls) == len(started) == 1
        return [await ws.recv() for _ in range(5)]

    assert sorted(run(main())) == list("01234")


def test_a_first_use_that_is_cancelled_lets_the_next_one_accept(run):
    async def main():
        ws, opener, _ = make_lazy()
        opener.go.clear()
        using = [asyncio.ensure_future(ws.send(str(n))) for n in range(2)]
        await asyncio.sleep(0)
        using[0].cancel()
        await asyncio.wait([using[0]])
        opener.go.set()
        await using[1]
        return await ws.recv()

    assert run(main()) == "1"


@pytest.mark.parametrize("use", USES)
def test_a_client_that_left_is_told_at_every_use(run, use):
    async def main():
        ws, opener, _ = make_lazy()
        opener.error = ConnectionClosed(1006)
        for _ in range(2):
            with pytest.raises(ConnectionClosed):
                await use(ws)
        assert not ws.closed

    run(main())


def test_once_accepted_it_is_like_any_other(run):
    async def main():
        ws, _, _ = make_lazy()
        await ws.send("hello")
        assert await ws.recv() == "hello"
        assert await ws.ping() == 0.25
        await ws.close(4000, "enough")
        assert (ws.closed, ws.close_code, ws.close_reason) == (True, 4000, "enough")
        assert await ws.recv() is None
        assert [message async for message in ws] == []
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv_json()
        assert caught.value.code == 4000

    run(main())


def test_the_subprotocol_is_known_before_it_is_accepted():
    ws, _, _ = make_lazy()
    ws._channel._handshake.subprotocol = "chat"
    assert ws.subprotocol == "chat"

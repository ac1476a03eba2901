"""The WebSocket that a handler gets, for coroutines and for synchronous code."""

import asyncio
import datetime
import inspect
import json
import threading

import pytest
from pyramid.config import Configurator
from pyramid.renderers import JSON
from pyramid.request import Request

from aioext import spawn_greenlet
from aioext.exceptions import ConnectionClosed
from aioext.executor import Executor
from aioext.websocket import SyncWebSocket, WebSocket
from aioext.websocket.channel import Channel
from aioext.websocket.options import Options


class Loopback(Channel):
    """A connection whose client sends back what it gets."""

    subprotocol = "echo"

    def __init__(self):
        super().__init__(Options())
        self.sent = []

    async def send(self, message):
        await asyncio.sleep(0)
        self.check_open()
        self.sent.append(message)
        self.put(message)

    async def close(self, code=1000, reason=""):
        await asyncio.sleep(0)
        self.end(code, reason, here=True)

    async def ping(self):
        await asyncio.sleep(0)
        return 0.25

    def _resume(self): ...


class Plain:
    """Calls the methods of a WebSocket in a coroutine."""

    def __init__(self, channel, request=None):
        self.ws = WebSocket(channel, request)

    async def call(self, name, *args):
        return await getattr(self.ws, name)(*args)

    async def iterate(self):
        return [message async for message in self.ws]


class Greenlet:
    """The same in synchronous code, in a greenlet."""

    def __init__(self, channel, request=None):
        self.ws = SyncWebSocket(WebSocket(channel, request))

    async def call(self, name, *args):
        return await spawn_greenlet(getattr(self.ws, name), *args)

    async def iterate(self):
        return await spawn_greenlet(list, self.ws)


class Thread(Greenlet):
    """The same in a thread of an executor."""

    async def call(self, name, *args):
        return await executor.run(getattr(self.ws, name), *args)

    async def iterate(self):
        return await executor.run(list, self.ws)


executor = Executor(2)


@pytest.fixture(params=[Plain, Greenlet, Thread])
def face(request):
    """Makes a WebSocket of a channel, and calls it the way it wants it."""
    yield request.param
    asyncio.run(executor.aclose())


# Both faces


def methods(cls):
    return {name for name in vars(cls) if not name.startswith("_")}


def test_both_have_the_same_methods():
    assert methods(WebSocket) == methods(SyncWebSocket)
    for name in methods(WebSocket):
        parameters = [
            list(inspect.signature(getattr(cls, name)).parameters.values())
            for cls in (WebSocket, SyncWebSocket)
        ]
        assert parameters[0] == parameters[1], name


def test_a_message_is_sent_and_received(run, face):
    async def main():
        ws = face(Loopback())
        await ws.call("send", "text")
        await ws.call("send", b"bytes")
        return await ws.call("recv"), await ws.call("recv")

    assert run(main()) == ("text", b"bytes")


def test_iteration_ends_with_the_connection(run, face):
    async def main():
        channel = Loopback()
        for message in ("one", "", b"two"):
            channel.put(message)
        channel.end(1000)
        return await face(channel).iterate()

    assert run(main()) == ["one", "", b"two"]


def test_it_tells_how_it_was_closed(run, face):
    async def main():
        ws = face(Loopback())
        assert (ws.ws.closed, ws.ws.close_code, ws.ws.close_reason) == (False, None, "")
        await ws.call("close", 4000, "enough")
        assert (ws.ws.closed, ws.ws.close_code) == (True, 4000)
        assert ws.ws.close_reason == "enough"
        assert await ws.call("recv") is None
        assert await ws.iterate() == []
        for name, *args in (("send", "x"), ("send_json", 1), ("recv_json",)):
            with pytest.raises(ConnectionClosed) as caught:
                await ws.call(name, *args)
            assert (caught.value.code, caught.value.reason) == (4000, "enough")
        await ws.call("close")

    run(main())


def test_it_closes_with_1000_if_nothing_is_said(run, face):
    async def main():
        ws = face(Loopback())
        await ws.call("close")
        return ws.ws.close_code, ws.ws.close_reason

    assert run(main()) == (1000, "")


def test_a_code_that_cannot_be_sent_is_refused(run, face):
    async def main():
        ws = face(Loopback())
        with pytest.raises(ValueError, match="code 1006"):
            await ws.call("close", 1006)
        assert not ws.ws.closed

    run(main())


def test_it_tells_its_subprotocol_and_request(face):
    ws = face(Loopback(), "request").ws
    assert (ws.subprotocol, ws.request) == ("echo", "request")
    assert face(Loopback()).ws.request is None


def test_a_ping_gives_seconds(run, face):
    async def main():
        return await face(Loopback()).call("ping")

    assert run(main()) == 0.25


def test_a_ping_may_have_a_timeout(run, face):
    class Silent(Loopback):
        async def ping(self):
            await asyncio.Event().wait()

    async def main():
        with pytest.raises(TimeoutError):
            await face(Silent()).call("ping", 0.01)

    run(main())


@pytest.mark.parametrize("name", ["recv", "recv_json"])
def test_recv_may_have_a_timeout_and_loses_nothing(run, face, name):
    async def main():
        channel = Loopback()
        ws = face(channel)
        with pytest.raises(TimeoutError):
            await ws.call(name, 0.01)
        channel.put("5")
        return await ws.call(name, 5)

    assert run(main()) == ("5" if name == "recv" else 5)


@pytest.mark.parametrize("timeout", [0, -1])
def test_what_is_there_already_is_received_in_no_time(run, face, timeout):
    async def main():
        channel = Loopback()
        channel.put("there")
        ws = face(channel)
        assert await ws.call("recv", timeout) == "there"
        with pytest.raises(TimeoutError):
            await ws.call("recv", timeout)
        channel.end(1000)
        assert await ws.call("recv", timeout) is None

    run(main())


@pytest.mark.parametrize("value", [None, True, 5, "text", [], {"a": ["b"]}, "ä"])
def test_json_goes_both_ways(run, face, value):
    async def main():
        ws = face(Loopback())
        await ws.call("send_json", value)
        return await ws.call("recv_json")

    assert run(main()) == value


def test_json_may_come_as_bytes(run, face):
    async def main():
        channel = Loopback()
        channel.put('{"a": "ä"}'.encode())
        return await face(channel).call("recv_json")

    assert run(main()) == {"a": "ä"}


def test_what_is_no_json_is_a_value_error(run, face):
    async def main():
        channel = Loopback()
        channel.put("{")
        channel.put("1")
        ws = face(channel)
        with pytest.raises(ValueError, match="Expecting property name"):
            await ws.call("recv_json")
        assert await ws.call("recv_json") == 1

    run(main())


def test_json_is_made_by_the_renderer_of_the_application(run, face):
    renderer = JSON()
    renderer.add_adapter(datetime.date, lambda value, request: value.isoformat())
    config = Configurator()
    config.add_renderer("json", renderer)
    config.commit()
    request = Request.blank("/")
    request.registry = config.registry

    async def main():
        channel = Loopback()
        await face(channel, request).call("send_json", datetime.date(2026, 1, 2))
        return channel.sent

    assert run(main()) == ['"2026-01-02"']


def test_without_a_request_json_is_plain(run, face):
    async def main():
        channel = Loopback()
        ws = face(channel)
        with pytest.raises(TypeError):
            await ws.call("send_json", datetime.date(2026, 1, 2))
        await ws.call("send_json", {"a": 1})
        return channel.sent

    assert [json.loads(text) for text in run(main())] == [{"a": 1}]


def test_a_second_recv_is_refused(run, face):
    async def main():
        channel = Loopback()
        ws = face(channel)
        first = asyncio.create_task(ws.call("recv"))
        while channel._waiter is None:  # noqa: ASYNC110 - it may be in a thread
            await asyncio.sleep(0.001)
        with pytest.raises(RuntimeError, match="another recv"):
            await ws.call("recv")
        channel.put("message")
        return await first

    assert run(main()) == "message"


def test_synchronous_code_waits_in_a_greenlet_on_the_loop(run):
    async def main():
        channel = Loopback()
        ws = SyncWebSocket(WebSocket(channel))
        turns = []

        def function():
            turns.append(threading.current_thread())
            return ws.recv()

        receiving = asyncio.create_task(spawn_greenlet(function))
        await asyncio.sleep(0)
        turns.append("the loop goes on")
        channel.put("message")
        assert await receiving == "message"
        return turns

    assert run(main()) == [threading.current_thread(), "the loop goes on"]

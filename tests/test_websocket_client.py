"""``aioext.connect()``: a WebSocket to another server."""

import asyncio
import gc
import socket
import threading
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import serve
from websockets.exceptions import InvalidStatus, InvalidURI

import aioext
from aioext import ConnectionClosed, spawn_greenlet, use_executor
from aioext.executor import Executor
from aioext.websocket import SyncWebSocket, WebSocket

OPTIONS = {"proxy": None, "open_timeout": 20, "close_timeout": 20}


async def echo(connection):
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def serving(handler=echo, **options):
    """The URL of a server that ``handler(connection)`` serves."""
    options = {"compression": None, "ping_interval": None, **options}
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


def connect(url, **options):
    return aioext.connect(url, **{**OPTIONS, **options})


# In a coroutine


def test_it_talks(run):
    async def main():
        async with serving() as url, connect(url) as ws:
            assert type(ws) is WebSocket
            assert (ws.request, ws.subprotocol, ws.closed) == (None, None, False)
            await ws.send("text")
            await ws.send(b"bytes")
            await ws.send_json({"a": 1})
            return await ws.recv(), await ws.recv(), await ws.recv_json()

    assert run(main()) == ("text", b"bytes", {"a": 1})


def test_it_is_closed_at_the_end_of_the_block(run):
    async def main():
        closed = asyncio.get_running_loop().create_future()

        async def handler(connection):
            await connection.wait_closed()
            closed.set_result((connection.close_code, connection.close_reason))

        async with serving(handler) as url:
            async with connect(url) as ws:
                pass
            assert (ws.closed, ws.close_code, ws.close_reason) == (True, 1000, "")
            return await closed

    assert run(main()) == (1000, "")


def test_it_is_closed_when_the_block_fails(run):
    async def main():
        async with serving() as url:
            with pytest.raises(KeyError):
                async with connect(url) as ws:
                    raise KeyError
            assert ws.closed

    run(main())


def test_it_may_be_awaited_and_closed_by_hand(run):
    async def main():
        async with serving() as url:
            ws = await connect(url)
            await ws.send("hello")
            assert await ws.recv() == "hello"
            await ws.close(4000, "enough")
            assert (ws.closed, ws.close_code, ws.close_reason) == (True, 4000, "enough")
            await ws.close(4001)
            assert ws.close_code == 4000

    run(main())


def test_options_are_those_of_the_library(run):
    async def handler(connection):
        await connection.send(connection.request.headers["X-Name"])

    async def main():
        headers = {"X-Name": "value"}
        async with serving(handler, subprotocols=["b", "a"]) as url:
            options = {"subprotocols": ["a"], "additional_headers": headers}
            async with connect(url, **options) as ws:
                return ws.subprotocol, await ws.recv()

    assert run(main()) == ("a", "value")


def test_iteration_ends_when_the_server_closes(run):
    async def handler(connection):
        for message in ("one", "", b"two"):
            await connection.send(message)
        await connection.close(4000, "enough")

    async def main():
        async with serving(handler) as url, connect(url) as ws:
            assert [message async for message in ws] == ["one", "", b"two"]
            assert (ws.closed, ws.close_code, ws.close_reason) == (True, 4000, "enough")
            assert await ws.recv() is None
            for use in (ws.send("x"), ws.send_json(1), ws.recv_json(), ws.ping()):
                with pytest.raises(ConnectionClosed) as caught:
                    await use
                assert (caught.value.code, caught.value.reason) == (4000, "enough")

    run(main())


def test_a_close_without_a_code_is_1005(run):
    async def handler(connection):
        connection.protocol.send_close()
        connection.send_data()
        await connection.wait_closed()

    async def main():
        async with serving(handler) as url, connect(url) as ws:
            assert await ws.recv() is None
            return ws.close_code

    assert run(main()) == 1005


def test_a_server_that_vanishes_has_closed_with_1006(run):
    async def handler(connection):
        connection.transport.abort()

    async def main():
        async with serving(handler) as url, connect(url) as ws:
            assert await ws.recv() is None
            with pytest.raises(ConnectionClosed) as caught:
                await ws.send("late")
            return ws.closed, ws.close_code, ws.close_reason, caught.value.code

    assert run(main()) == (True, 1006, "", 1006)


def test_a_server_that_vanishes_wakes_who_waits(run):
    async def main():
        received = asyncio.Event()

        async def handler(connection):
            await connection.recv()
            received.set()
            # A ping is not answered while nobody reads, and then there is no end.
            connection.transport.abort()

        async with serving(handler) as url, connect(url) as ws:
            receiving = asyncio.create_task(ws.recv())
            await ws.send("go")
            assert await receiving is None

    run(main())


@pytest.mark.parametrize("crossing", [True, False])
def test_the_end_that_this_side_began_has_its_code_and_reason(run, crossing):
    async def main():
        go = asyncio.Event()

        async def handler(connection):
            if crossing:
                # It closes as well, and has not read that the other side does.
                connection.transport.pause_reading()
                await connection.send("ready")
                await go.wait()
                connection.protocol.send_close(4001, "theirs")
                connection.send_data()
                connection.transport.resume_reading()
            await connection.wait_closed()

        async with serving(handler) as url, connect(url) as ws:
            if crossing:
                await ws.recv()
            closing = asyncio.create_task(ws.close(4000, "mine"))
            await asyncio.sleep(0)
            go.set()
            await closing
            return ws.close_code, ws.close_reason

    assert run(main()) == (4000, "mine")


def test_what_cannot_be_sent_is_refused(run):
    async def main():
        async with serving() as url, connect(url) as ws:
            with pytest.raises(TypeError, match="send_json"):
                await ws.send(None)
            with pytest.raises(ValueError, match="code 1006"):
                await ws.close(1006)
            await ws.send("right")
            return await ws.recv()

    assert run(main()) == "right"


def test_a_second_recv_is_refused(run):
    async def main():
        async with serving() as url, connect(url) as ws:
            first = asyncio.create_task(ws.recv())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError):
                await ws.recv()
            await ws.send("hello")
            return await first

    assert run(main()) == "hello"


def test_recv_may_have_a_timeout_and_loses_nothing(run):
    async def main():
        async with serving() as url, connect(url) as ws:
            with pytest.raises(TimeoutError):
                await ws.recv(timeout=0.01)
            await ws.send("hello")
            return await ws.recv(timeout=20)

    assert run(main()) == "hello"


def test_a_ping_gives_seconds(run):
    async def main():
        async with serving() as url, connect(url) as ws:
            return await ws.ping(timeout=20)

    assert 0 < run(main()) < 20


def test_a_ping_that_is_not_answered_ends_with_the_connection(run):
    async def handler(connection):
        connection.transport.pause_reading()
        await connection.send("go")
        await asyncio.sleep(0.01)
        connection.transport.abort()

    async def main():
        async with serving(handler) as url, connect(url) as ws:
            assert await ws.recv() == "go"
            with pytest.raises(ConnectionClosed):
                await ws.ping()

    run(main())


# What goes wrong before it is open


def test_a_server_that_is_not_there_is_an_oserror(run):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(OSError, match=str(port)):
            run(connect(f"ws://127.0.0.1:{port}/").__aenter__())


def test_a_server_that_refuses_is_told_with_its_response(run):
    async def main():
        def refuse(connection, request):
            return connection.respond(403, "members only")

        async with serving(process_request=refuse) as url:
            with pytest.raises(InvalidStatus) as caught:
                await connect(url)
            return caught.value.response

    response = run(main())
    assert (response.status_code, response.body) == (403, b"members only")


def test_a_url_of_something_else_is_refused(run):
    async def main():
        with pytest.raises(InvalidURI):
            await connect("http://127.0.0.1/")

    run(main())


class Silent:
    """A server that answers nothing: ``asked``, and then ``left`` by its client."""

    async def __aenter__(self):
        self.asked = asyncio.Event()
        self.left = asyncio.Event()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"ws://127.0.0.1:{port}/"
        return self

    async def __aexit__(self, *error):
        self._server.close()

    async def _serve(self, reader, writer):
        self.asked.set()
        while await reader.read(1000):
            pass
        writer.close()
        self.left.set()


def test_a_server_that_does_not_answer_in_time_is_given_up(run):
    async def main():
        async with Silent() as server:
            with pytest.raises(TimeoutError):
                await connect(server.url, open_timeout=0.05)
            await server.left.wait()

    run(main())


def test_nothing_stays_open_of_a_connect_that_is_cancelled(run):
    async def main():
        async with Silent() as server:
            connecting = asyncio.ensure_future(connect(server.url).__aenter__())
            await server.asked.wait()
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            await server.left.wait()

    run(main())


# In synchronous code


def converse(url):
    with connect(url) as ws:
        assert type(ws) is SyncWebSocket
        ws.send("one")
        ws.send(b"two")
        received = [ws.recv(), ws.recv()]
        assert not ws.closed
    assert (ws.closed, ws.close_code) == (True, 1000)
    return received


def test_synchronous_code_talks_in_a_greenlet(run):
    async def main():
        async with serving() as url:
            return await spawn_greenlet(converse, url)

    assert run(main()) == ["one", b"two"]


def test_synchronous_code_talks_in_a_thread_of_the_executor(run):
    executor = Executor(1)

    async def main():
        async with serving() as url:
            try:
                return await use_executor(converse, executor=executor)(url)
            finally:
                await executor.aclose()

    assert run(main()) == ["one", b"two"]


def test_synchronous_code_talks_where_no_loop_runs():
    ready, done = threading.Event(), threading.Event()
    urls = []

    async def main():
        async with serving() as url:
            urls.append(url)
            ready.set()
            await asyncio.to_thread(done.wait)

    server = threading.Thread(target=asyncio.run, args=(main(),))
    server.start()
    try:
        assert ready.wait(20)
        assert converse(urls[0]) == ["one", b"two"]
        # It was closed, and nothing of it waits to be collected.
        gc.collect()
    finally:
        done.set()
        server.join()


def test_iteration_in_synchronous_code_ends_with_the_connection(run):
    async def handler(connection):
        await connection.send("one")
        await connection.send("two")

    def read_all(url):
        with connect(url) as ws:
            return list(ws)

    async def main():
        async with serving(handler) as url:
            return await spawn_greenlet(read_all, url)

    assert run(main()) == ["one", "two"]


def test_a_failure_in_synchronous_code_closes_it(run):
    def fail(url):
        with connect(url) as ws:
            sockets.append(ws)
            raise KeyError

    sockets = []

    async def main():
        async with serving() as url:
            with pytest.raises(KeyError):
                await spawn_greenlet(fail, url)

    run(main())
    assert sockets[0].closed


def test_on_a_loop_without_a_bridge_it_is_told_what_to_write(run):
    async def main():
        async with serving() as url:
            with pytest.raises(aioext.ScopeError):
                converse(url)

    run(main())

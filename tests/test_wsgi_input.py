"""wsgi.input: reading that waits for the client."""

import asyncio
import io
import random

import pytest
from asgi import request_part

from aioext import spawn_greenlet
from aioext.exceptions import ClientDisconnected
from aioext.executor import Executor
from aioext.wsgi_input import EMPTY, MAX_AHEAD, Input

DISCONNECT = {"type": "http.disconnect"}

READS = {
    "read": lambda body: body.read(),
    "read(n)": lambda body: body.read(1000),
    "readline": lambda body: body.readline(),
    "readline(n)": lambda body: body.readline(1000),
    "readlines": lambda body: body.readlines(),
    "iteration": lambda body: list(body),
}


class Channel:
    """``receive`` of a client that sends what the test puts in."""

    def __init__(self, *messages):
        self._queue = asyncio.Queue()
        self.asked = 0
        self._receiving = False
        for message in messages:
            self.put(message)

    def put(self, message):
        self._queue.put_nowait(message)

    async def __call__(self):
        assert not self._receiving, "receive() was called while another one waits"
        self._receiving = True
        self.asked += 1
        try:
            return await self._queue.get()
        finally:
            self._receiving = False

    @property
    def left(self):
        return self._queue.qsize()


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


def body_of(*parts):
    messages = [request_part(part, True) for part in parts]
    return Channel(*messages, request_part(b"", False))


@pytest.fixture(params=["greenlet", "thread"])
def read(request, run):
    """Call a function with an Input, where a view could be."""

    async def call(function, receive):
        body = Input(receive)
        if request.param == "greenlet":
            return await spawn_greenlet(function, body)
        executor = Executor(1)
        try:
            return await executor.run(function, body)
        finally:
            await executor.aclose()

    return lambda function, receive: run(call(function, receive))


def random_content(rng):
    alphabet = rng.choice([b"ab\n", b"abcdefgh\n\n", b"x", b"\n", bytes(range(256))])
    length = rng.choice([0, 1, 2, 10, 100, 1000])
    return bytes(rng.choice(alphabet) for _ in range(length))


def random_parts(rng, content):
    parts = []
    while content:
        length = rng.choice([0, 1, 1, 2, 3, 10, 100, 1000])
        parts.append(content[:length])
        content = content[length:]
    return parts


def random_calls(rng):
    sizes = [None, -1, 0, 1, 2, 3, 7, 20, 500]
    return [
        (rng.choice(["read", "readline", "readlines", "next"]), rng.choice(sizes))
        for _ in range(rng.randrange(1, 12))
    ]


def perform(calls, body):
    # What a sequence of calls gives, and then the rest.
    results = []
    for name, size in calls:
        if name == "next":
            results.append(next(iter(body), b""))
        elif size is None:
            results.append(getattr(body, name)())
        else:
            results.append(getattr(body, name)(size))
    return [*results, list(body), body.read(), body.read(5), body.readline()]


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence_of_reads_gives_what_a_file_gives(read, seed):
    rng = random.Random(seed)
    for _ in range(100):
        content = random_content(rng)
        parts = random_parts(rng, content)
        calls = random_calls(rng)
        expected = perform(calls, io.BytesIO(content))
        result = read(lambda body, calls=calls: perform(calls, body), body_of(*parts))
        assert result == expected, (content, parts, calls)


def test_a_body_that_ends_with_its_last_part_is_complete(read):
    receive = Channel(request_part(b"a", True), request_part(b"b", False))
    assert read(lambda body: (body.read(), body.read()), receive) == (b"ab", b"")
    assert receive.asked == 2


def test_messages_may_leave_out_what_has_a_default(read):
    receive = Channel(
        {"type": "http.request", "more_body": True}, {"type": "http.request"}
    )
    assert read(lambda body: body.read(), receive) == b""


def test_read_waits_until_it_has_as_much_as_was_asked_for(read):
    # WebOb takes a short read for a client that has gone.
    receive = body_of(b"a", b"b", b"cde")
    assert read(lambda body: [body.read(4), body.read(4)], receive) == [b"abcd", b"e"]


def test_nothing_is_received_before_it_is_needed(read):
    receive = body_of(b"ab\n", b"cd\n", b"ef\n")
    asked = []

    def function(body):
        for call in (lambda: None, body.readline, lambda: body.read(2), body.readline):
            call()
            asked.append(receive.asked)
        body.read(0)
        asked.append(receive.asked)

    read(function, receive)
    assert asked == [0, 1, 2, 2, 2]


def test_a_long_body_without_a_newline_is_one_line(read):
    receive = body_of(*[b"x" * 1000] * 300)
    assert read(lambda body: len(body.readline()), receive) == 300_000


def test_many_short_reads_of_a_large_part_are_all_right(read):
    content = random.Random(1).randbytes(300_000)

    def function(body):
        return b"".join(iter(lambda: body.read(7), b""))

    assert read(function, body_of(content)) == content


def test_a_read_waits_while_the_loop_goes_on(run):
    async def main():
        receive = Channel()
        reading = asyncio.create_task(spawn_greenlet(Input(receive).read))
        for _ in range(5):
            await asyncio.sleep(0)
            assert not reading.done()
            receive.put(request_part(b"x", True))
        receive.put(request_part(b"", False))
        assert await reading == b"xxxxx"

    run(main())


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("parts", [[], [b"some"]])
def test_every_way_to_read_raises_when_the_client_has_gone(read, name, parts):
    messages = [request_part(part, True) for part in parts]

    def function(body):
        for _ in range(2):
            with pytest.raises(ClientDisconnected, match="closed the connection"):
                READS[name](body)
        with pytest.raises(ConnectionResetError):
            READS[name](body)

    receive = Channel(*messages, DISCONNECT)
    read(function, receive)
    assert receive.left == 0
    assert receive.asked == len(messages) + 1


def test_what_came_before_the_client_left_can_be_read(read):
    receive = Channel(request_part(b"one\ntwo", True), DISCONNECT)

    def function(body):
        assert body.readline() == b"one\n"
        assert body.read(2) == b"tw"
        with pytest.raises(ClientDisconnected):
            body.read(2)
        assert body.read(1) == b"o"

    read(function, receive)


def test_a_cancelled_read_loses_nothing(run):
    async def main():
        receive = Channel(request_part(b"abc", True))
        body = Input(receive)

        def function():
            with pytest.raises(asyncio.CancelledError):
                body.read()
            receive.put(request_part(b"def", False))
            return body.read()

        reading = asyncio.create_task(spawn_greenlet(function))
        await settle()
        assert receive.asked == 2
        reading.cancel()
        assert await reading == b"abcdef"
        reading.uncancel()

    run(main())


class TestWatch:
    @pytest.fixture(autouse=True)
    def _be_patient(self, monkeypatch):
        monkeypatch.setattr("aioext.wsgi_input.PATIENCE", 1000)

    def test_ends_when_the_client_leaves(self, run):
        async def main():
            receive = body_of(b"a")
            watching = asyncio.create_task(Input(receive).watch())
            await settle()
            assert not watching.done()
            receive.put(DISCONNECT)
            await watching

        run(main())

    def test_ends_when_the_client_leaves_in_mid_body(self, run):
        async def main():
            body = Input(Channel(request_part(b"ab", True), DISCONNECT))
            await body.watch()
            assert await spawn_greenlet(body.read, 2) == b"ab"
            with pytest.raises(ClientDisconnected):
                await spawn_greenlet(body.read, 1)

        run(main())

    def test_keeps_what_it_saw_for_the_reader(self, run):
        async def main():
            receive = body_of(b"ab", b"cd\n", b"ef")
            body = Input(receive)
            assert await spawn_greenlet(body.read, 1) == b"a"
            watching = asyncio.create_task(body.watch())
            await settle()
            assert receive.left == 0
            assert await spawn_greenlet(body.readline) == b"bcd\n"
            assert await spawn_greenlet(body.read) == b"ef"
            watching.cancel()

        run(main())

    @pytest.mark.parametrize("reader_first", [True, False])
    def test_never_receives_at_the_same_time_as_a_reader(self, run, reader_first):
        async def main():
            receive = Channel()
            body = Input(receive)
            starts = [body.watch, lambda: spawn_greenlet(body.read)]
            if reader_first:
                starts.reverse()
            tasks = [asyncio.create_task(start()) for start in starts]
            if reader_first:
                tasks.reverse()
            watching, reading = tasks
            for _ in range(10):
                await settle()
                receive.put(request_part(b"x", True))
            receive.put(request_part(b"", False))
            assert await reading == b"x" * 10
            assert not watching.done()
            receive.put(DISCONNECT)
            await watching

        run(main())

    def test_the_reader_needs_no_watcher_that_waits_for_the_end(self, run):
        # The watcher is in receive() for good, and the rest is there.
        async def main():
            body = Input(body_of(b"abc"))
            watching = asyncio.create_task(body.watch())
            await settle()
            async with asyncio.timeout(5):
                assert await spawn_greenlet(body.read) == b"abc"
            watching.cancel()

        run(main())

    def test_stops_when_enough_waits_to_be_read(self, run):
        async def main():
            receive = Channel(*[request_part(b"x" * 10_000, True)] * 100)
            body = Input(receive)
            watching = asyncio.create_task(body.watch())
            await settle()
            assert receive.asked == 1 + MAX_AHEAD // 10_000
            watching.cancel()

        run(main())

    def test_sees_the_end_of_a_client_whose_large_body_was_complete(self, run):
        async def main():
            receive = Channel(request_part(b"x" * 2 * MAX_AHEAD, False), DISCONNECT)
            await Input(receive).watch()

        run(main())

    def test_goes_on_when_what_waited_was_read(self, run):
        async def main():
            part = request_part(b"x" * MAX_AHEAD, True)
            receive = Channel(part)
            body = Input(receive)
            watching = asyncio.create_task(body.watch())
            await settle()
            receive.put(DISCONNECT)
            await settle()
            assert not watching.done()
            await spawn_greenlet(body.read, MAX_AHEAD)
            await watching

        run(main())

    def test_finds_the_end_behind_a_body_that_nobody_reads(self, run, monkeypatch):
        monkeypatch.setattr("aioext.wsgi_input.PATIENCE", 0.001)

        async def main():
            receive = Channel(*[request_part(b"x" * MAX_AHEAD, True)] * 3, DISCONNECT)
            body = Input(receive)
            await body.watch()
            assert len(await spawn_greenlet(body.read, 3 * MAX_AHEAD)) == 3 * MAX_AHEAD

        run(main())

    def test_a_body_of_tiny_parts_takes_no_more_memory_than_its_bytes(self, run):
        async def main():
            receive = Channel(*[request_part(b"", True)] * 10_000)
            body = Input(receive)
            watching = asyncio.create_task(body.watch())
            while receive.left:
                await settle()
            assert len(body._ahead) == 0
            watching.cancel()

        run(main())

    def test_watching_while_a_thread_reads_loses_nothing(self, run):
        content = random.Random(2).randbytes(500_000)

        def read_all(body):
            # Short reads, so that the thread is at the buffer most of the time.
            return b"".join(iter(lambda: body.read(61), b""))

        async def main():
            receive = Channel()
            body = Input(receive)
            executor = Executor(1)
            watching = asyncio.create_task(body.watch())
            reading = asyncio.create_task(executor.run(read_all, body))
            for start in range(0, len(content), 500):
                receive.put(request_part(content[start : start + 500], True))
                await asyncio.sleep(0)
            receive.put(request_part(b"", False))
            assert await reading == content
            watching.cancel()
            await executor.aclose()

        run(main())


def test_the_input_of_a_request_without_a_body_is_empty():
    for call in (EMPTY.read, EMPTY.readline):
        assert call() == call(-1) == call(None) == call(5) == b""
    assert EMPTY.readlines() == EMPTY.readlines(3) == list(EMPTY) == []

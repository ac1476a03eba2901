"""Bodies that wait or block while they are iterated over."""

import asyncio
import io
import threading

import pytest
from webob import Request, Response
from webtest import TestApp

from aioext import spawn_greenlet
from aioext.body import AsyncBody, ExecutorBody, FileWrapper, adapt_body
from aioext.executor import THREAD_NAME, Executor


class AsyncChunks:
    """An asynchronous iterator that remembers what was asked of it."""

    def __init__(self, *chunks, error=None):
        self.chunks = list(chunks)
        self.error = error
        self.closed = 0

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        if self.chunks:
            return self.chunks.pop(0)
        raise self.error or StopAsyncIteration

    async def aclose(self):
        await asyncio.sleep(0)
        self.closed += 1


class Chunks:
    """A blocking iterator that remembers the thread of every step."""

    def __init__(self, *chunks):
        self.chunks = list(chunks)
        self.threads = []
        self.closed = 0

    def __iter__(self):
        self.threads.append(threading.current_thread().name)
        return self

    def __next__(self):
        self.threads.append(threading.current_thread().name)
        if self.chunks:
            return self.chunks.pop(0)
        raise StopIteration

    def close(self):
        self.threads.append(threading.current_thread().name)
        self.closed += 1


@pytest.fixture
def bridged(run):
    """Call a function in a request's greenlet, with an executor."""

    def call(function):
        async def main():
            executor = Executor(2)
            try:
                return await spawn_greenlet(function, executor)
            finally:
                await executor.aclose()

        return run(main())

    return call


@pytest.mark.parametrize("bridge", [True, False])
def test_an_async_iterable_is_iterated_over_and_closed(bridged, bridge):
    chunks = AsyncChunks(b"a", b"b")

    def function(executor=None):
        body = AsyncBody(chunks)
        assert list(body) == [b"a", b"b"]
        assert list(body) == []
        body.close()
        assert chunks.closed == 1

    bridged(function) if bridge else function()


def test_an_error_of_an_async_iterable_is_raised(bridged):
    def function(executor):
        body = AsyncBody(AsyncChunks(b"a", error=KeyError("k")))
        assert next(body) == b"a"
        with pytest.raises(KeyError):
            next(body)

    bridged(function)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_an_async_generator_is_closed_wherever_it_stands(bridged, steps):
    events = []

    async def generate():
        try:
            for _ in range(2):
                yield b"x"
        finally:
            await asyncio.sleep(0)
            events.append("finally")

    def function(executor):
        body = AsyncBody(generate())
        for _ in range(steps):
            next(body, None)
        body.close()
        body.close()

    bridged(function)
    assert events == (["finally"] if steps else [])


@pytest.mark.parametrize("asynchronous", [True, False])
def test_what_an_async_iterator_belongs_to_is_closed_too(bridged, asynchronous):
    events = []

    class Source:
        async def __aiter__(self):
            try:
                yield b"x"
            finally:
                events.append("generator")

    class AsyncSource(Source):
        async def aclose(self):
            events.append("source")

    class SyncSource(Source):
        def close(self):
            events.append("source")

    def function(executor):
        body = AsyncBody(AsyncSource() if asynchronous else SyncSource())
        assert next(body) == b"x"
        body.close()

    bridged(function)
    assert events == ["generator", "source"]


def test_an_async_iterator_without_a_close_is_fine(bridged):
    class Endless:
        def __aiter__(self):
            return self

        async def __anext__(self):
            return b"x"

    def function(executor):
        body = AsyncBody(Endless())
        assert next(body) == b"x"
        body.close()

    bridged(function)


def test_a_server_may_iterate_asynchronously(run):
    async def main():
        chunks = AsyncChunks(b"a", b"b")
        body = AsyncBody(chunks)
        assert [chunk async for chunk in body] == [b"a", b"b"]
        await body.aclose()
        return chunks.closed

    assert run(main()) == 1


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_closing_asynchronously_closes_a_generator_wherever_it_stands(run, steps):
    events = []

    async def generate():
        try:
            for _ in range(2):
                yield b"x"
        finally:
            await asyncio.sleep(0)
            events.append("finally")

    async def main():
        body = AsyncBody(generate())
        chunks = aiter(body)
        for _ in range(steps):
            await anext(chunks, None)
        await body.aclose()
        await body.aclose()

    run(main())
    assert events == (["finally"] if steps else [])


def test_what_an_async_iterator_belongs_to_is_closed_though_that_fails(run):
    events = []

    class Source:
        async def __aiter__(self):
            try:
                yield b"x"
            finally:
                raise KeyError("mistake")

        async def aclose(self):
            events.append("source")

    async def main():
        body = AsyncBody(Source())
        assert await anext(aiter(body)) == b"x"
        with pytest.raises(KeyError):
            await body.aclose()

    run(main())
    assert events == ["source"]


def test_every_step_of_an_executor_body_runs_in_the_executor(bridged):
    chunks = Chunks(b"a", b"b")

    def function(executor):
        body = ExecutorBody(chunks, executor)
        assert list(body) == [b"a", b"b"]
        body.close()

    bridged(function)
    assert chunks.closed == 1
    assert len(chunks.threads) == 5
    assert all(name.startswith(THREAD_NAME) for name in chunks.threads)


def test_an_executor_body_takes_one_step_at_a_time_and_none_ahead(bridged):
    def function(executor):
        chunks = Chunks(b"a", b"b", b"c")
        body = ExecutorBody(chunks, executor)
        assert chunks.threads == []
        for left in (2, 1, 0):
            next(body)
            assert len(chunks.chunks) == left

    bridged(function)


def test_an_executor_body_without_a_bridge_runs_where_it_is_asked():
    chunks = Chunks(b"a")
    body = ExecutorBody(chunks, Executor(1))
    assert list(body) == [b"a"]
    body.close()
    assert set(chunks.threads) == {threading.current_thread().name}


def test_an_executor_body_that_was_never_started_is_closed_once(bridged):
    chunks = Chunks(b"a")

    def function(executor):
        ExecutorBody(chunks, executor).close()
        ExecutorBody([b"no close"], executor).close()

    bridged(function)
    assert chunks.closed == 1
    assert chunks.chunks == [b"a"]


def test_an_error_in_a_thread_is_raised_for_the_one_who_iterates(bridged):
    def generate():
        yield b"a"
        raise KeyError("k")

    def function(executor):
        body = ExecutorBody(generate(), executor)
        assert next(body) == b"a"
        with pytest.raises(KeyError):
            next(body)

    bridged(function)


class RangeBody(Chunks):
    def app_iter_range(self, start, stop):
        return RangeBody(b"".join(self.chunks)[start:stop])


def test_a_range_of_an_executor_body_runs_in_the_executor_as_well(bridged):
    def function(executor):
        part = ExecutorBody(RangeBody(b"abc", b"def"), executor).app_iter_range(2, 4)
        assert list(part) == [b"cd"]
        return part._body

    body = bridged(function)
    assert all(name.startswith(THREAD_NAME) for name in body.threads)
    assert body.threads


def test_an_executor_body_has_a_range_only_if_its_body_has_one():
    assert not hasattr(ExecutorBody(Chunks(b"a"), Executor(1)), "app_iter_range")
    body = ExecutorBody(RangeBody(b"a"), Executor(1))
    assert hasattr(body, "app_iter_range")
    assert not hasattr(body, "encoding")


class File(io.BytesIO):
    def __init__(self, content):
        super().__init__(content)
        self.reads = []
        self.closes = 0

    def read(self, size=-1):
        self.reads.append((size, threading.current_thread().name))
        return super().read(size)

    def close(self):
        self.closes += 1


def test_a_file_is_read_in_blocks_in_the_executor_and_closed(bridged):
    file = File(b"x" * 25)

    def function(executor):
        wrapper = FileWrapper(file, 10)
        assert [len(block) for block in wrapper] == [10, 10, 5]
        wrapper.close()

    bridged(function)
    assert {size for size, _ in file.reads} == {10}
    assert all(name.startswith(THREAD_NAME) for _, name in file.reads)
    assert file.closes == 1


def test_a_file_that_cannot_be_closed_gives_a_body_that_cannot():
    class Bare:
        def read(self, size):
            return b""

    wrapper = FileWrapper(Bare())
    assert not hasattr(wrapper, "close")
    assert list(wrapper) == []


class TestAdaptBody:
    def test_leaves_lists_and_other_things_alone(self):
        for response in (Response(b"abc"), object(), None, "text"):
            before = getattr(response, "app_iter", None)
            assert adapt_body(response, Executor(1)) is response
            assert getattr(response, "app_iter", None) is before

    def test_leaves_a_tuple_alone(self):
        response = Response(app_iter=(b"a",))
        assert adapt_body(response, Executor(1)).app_iter == (b"a",)

    def test_gives_an_async_iterable_an_iterator(self):
        response = adapt_body(Response(app_iter=AsyncChunks(b"a")))
        assert type(response.app_iter) is AsyncBody

    def test_gives_a_blocking_iterator_to_the_executor(self):
        response = adapt_body(Response(app_iter=Chunks(b"a")), Executor(1))
        assert type(response.app_iter) is ExecutorBody

    def test_leaves_a_blocking_iterator_where_there_is_no_executor(self):
        chunks = Chunks(b"a")
        assert adapt_body(Response(app_iter=chunks)).app_iter is chunks

    @pytest.mark.parametrize("executor", [None, Executor(1)])
    def test_does_nothing_a_second_time(self, executor):
        for chunks in (AsyncChunks(b"a"), Chunks(b"a"), FileWrapper(File(b"a"))):
            response = adapt_body(Response(app_iter=chunks), executor)
            body = response.app_iter
            assert adapt_body(response, executor).app_iter is body

    @pytest.mark.parametrize("chunks", [AsyncChunks(b"abc"), Chunks(b"abc")])
    @pytest.mark.parametrize("length", [3, None])
    def test_keeps_the_length(self, chunks, length):
        response = Response(app_iter=chunks, content_length=length)
        assert adapt_body(response, Executor(1)).app_iter is not chunks
        assert response.content_length == length


def test_an_async_body_is_served_by_plain_wsgi_as_well():
    chunks = AsyncChunks(b"a", b"b")

    def app(environ, start_response):
        return adapt_body(Response(app_iter=chunks))(environ, start_response)

    assert TestApp(app).get("/").body == b"ab"
    assert chunks.closed == 1


def test_a_head_request_closes_an_async_body_and_takes_nothing():
    chunks = AsyncChunks(b"a")
    response = adapt_body(Response(app_iter=chunks, content_length=1))
    head = Request.blank("/", method="HEAD").get_response(response)
    assert list(head.app_iter) == []
    head.app_iter.close()
    assert head.content_length == 1
    assert (chunks.closed, chunks.chunks) == (1, [b"a"])

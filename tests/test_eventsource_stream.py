"""The flow of an event stream: its Tasks, heartbeats, backpressure and its ends."""

import asyncio
import contextlib
import contextvars
import gc
import re
import threading
import weakref

import anyio
import anyio.lowlevel
import pytest
from asgi import Client
from inprocess import EXECUTOR, LOOP, make_app, where
from pyramid.threadlocal import get_current_request

from aioext import shutdown, wait
from aioext.eventsource import EventSourceMapper
from aioext.eventsource import stream as stream_module
from aioext.eventsource.event import HEARTBEAT
from aioext.eventsource.stream import EventStream

OPENING = HEARTBEAT
MODES = ["executor", "inline", "request"]


def serve(view, settings=None, **options):
    """An application with one view, a stream."""
    options = {"mapper": EventSourceMapper, **options}
    return make_app(lambda config: config.add_view(view, **options), settings=settings)


def event(text):
    return b"data: %s\n\n" % text.encode()


def events_in(client):
    """The data of what was sent, without the comments."""
    return re.findall(r"(?m)^data: (.*)$", client.body.decode())


@contextlib.asynccontextmanager
async def opened(app, *expected, path="/", **scope):
    """A client that has got ``expected``; it leaves at the end."""
    client = Client(path, **scope)
    task = client.start(app)
    try:
        await client.until(lambda: events_in(client) == list(expected))
        yield client, task
        client.leave()
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def settle():
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Probe:
    """A view whose generator waits after each event until it is told to go on.

    Attributes:
        steps: what has happened, in order.
        goes: set: it goes on.
    """

    def __init__(self):
        self.steps = []
        self.goes = asyncio.Event()
        self.has_ended = asyncio.Event()
        self.waits = asyncio.Event()

    async def __call__(self, request):
        self.steps.append("begun")
        try:
            number = 0
            while True:
                yield str(number)
                self.steps.append(f"{number} taken")
                number += 1
                self.waits.set()
                await self.goes.wait()
                self.goes.clear()
                self.waits.clear()
        except BaseException as error:
            self.steps.append(type(error).__name__)
            raise
        finally:
            await asyncio.sleep(0)
            self.steps.append("disconnected" * request.disconnected.is_set())
            self.has_ended.set()


# The beginning


def test_the_head_leaves_before_the_first_line_runs(run):
    async def main():
        probe = Probe()
        client = Client()
        client.reads.clear()
        task = client.start(serve(probe))
        await settle()
        assert probe.steps == []
        client.reads.set()
        await client.until(lambda: events_in(client) == ["0"])
        assert client.status == 200
        assert client.parts == [OPENING, event("0")]
        client.leave()
        await task

    run(main())


def test_each_event_is_sent_when_it_is_yielded(run):
    async def main():
        probe = Probe()
        async with opened(serve(probe), "0") as (client, _):
            for number in range(1, 4):
                await probe.waits.wait()
                probe.goes.set()
                await client.until(lambda n=number: events_in(client)[-1] == str(n))
        parts = [OPENING, *[event(str(number)) for number in range(4)]]
        assert client.parts == parts

    run(main())


def test_the_end_of_the_generator_is_the_end_of_the_response():
    async def view(request):
        yield "only"

    async def main():
        return (await Client().call(serve(view))).response

    status, _, body = asyncio.run(main())
    assert (status, body) == (200, OPENING + event("only"))


# Heartbeats


@pytest.mark.parametrize("kind", ["asynchronous", "plain"])
@pytest.mark.parametrize("mode", MODES)
def test_silence_is_filled_and_the_generator_hears_nothing_of_it(run, kind, mode):
    async def main():
        goes = asyncio.Event()
        heard = []

        async def asynchronous(request):
            yield "first"
            try:
                await goes.wait()
            except BaseException as error:
                heard.append(error)
                raise
            yield "second"

        def plain(request):
            yield "first"
            try:
                wait(goes.wait())
            except BaseException as error:
                heard.append(error)
                raise
            yield "second"

        view = {"asynchronous": asynchronous, "plain": plain}[kind]
        settings = {
            "aioext.eventsource.heartbeat": "0.005",
            "aioext.sync_views": mode,
        }
        client = Client()
        task = client.start(serve(view, settings))
        await client.until(lambda: client.body.endswith(3 * HEARTBEAT))
        goes.set()
        await task
        assert heard == []
        assert events_in(client) == ["first", "second"]
        assert client.ended

    run(main())


def test_heartbeats_begin_before_the_first_event(run):
    async def view(request):
        await asyncio.Event().wait()
        yield

    async def main():
        async with opened(serve(view, heartbeat=0.005)) as (client, _):
            await client.until(lambda: len(client.parts) == 4)
        assert set(client.parts) == {HEARTBEAT}

    run(main())


def test_a_stream_that_is_not_silent_has_no_heartbeats(run):
    interval = 0.05

    async def main():
        loop = asyncio.get_running_loop()

        async def view(request):
            # Less than half of the interval is between two events.
            until = loop.time() + 6 * interval
            while loop.time() < until:
                yield "x"
                await asyncio.sleep(interval / 10)

        client = Client()
        longest, last = 0, loop.time()
        task = client.start(serve(view, heartbeat=interval))
        while not client.ended:
            count = len(client.sent)
            await client.until(lambda n=count: len(client.sent) > n)
            longest, last = max(longest, loop.time() - last), loop.time()
        await task
        return longest, client

    # The machine may have been busy with something else.
    for _ in range(10):
        longest, client = run(main())
        if longest < interval:
            break
    assert client.parts.count(HEARTBEAT) == 1


def test_heartbeats_can_be_turned_off(run):
    async def main():
        async with (
            opened(serve(Probe(), heartbeat=0), "0") as (quiet, _),
            opened(serve(Probe(), heartbeat=0.001), "0") as (beating, _),
        ):
            await beating.until(lambda: len(beating.parts) == 12)
            assert quiet.parts == [OPENING, event("0")]

    run(main())


def test_an_event_that_comes_while_a_heartbeat_is_sent_is_not_lost(run):
    async def main():
        probe = Probe()
        async with opened(serve(probe, heartbeat=0.001), "0") as (client, _):
            await client.until(lambda: client.parts[-1] == HEARTBEAT)
            client.reads.clear()
            # The next heartbeat is on its way, and does not arrive.
            await asyncio.sleep(0.01)
            probe.goes.set()
            await settle()
            assert probe.steps == ["begun", "0 taken"]
            client.reads.set()
            await client.until(lambda: events_in(client) == ["0", "1"])

    run(main())


# Backpressure


def test_a_client_that_does_not_read_holds_the_generator_back(run):
    made = []

    async def main():
        async def view(request):
            while True:
                made.append(None)
                yield "x" * 1000

        client = Client()
        task = client.start(serve(view, heartbeat=0.001))
        await client.until(lambda: len(client.parts) > 10)
        client.reads.clear()
        await settle()
        count = len(made)
        await asyncio.sleep(0.01)
        assert len(made) == count
        taken = len(client.parts)
        client.reads.set()
        await client.until(lambda: len(client.parts) > taken + 10)
        assert len(made) - len(events_in(client)) <= 1
        client.leave()
        await task

    run(main())


def test_a_yield_returns_when_the_event_has_been_taken(run):
    async def main():
        probe = Probe()
        client = Client()
        task = client.start(serve(probe))
        client.reads.clear()
        await settle()
        client.reads.set()
        await client.until(lambda: client.parts == [OPENING])
        client.reads.clear()
        await settle()
        assert probe.steps == ["begun"]
        client.reads.set()
        await probe.waits.wait()
        assert probe.steps == ["begun", "0 taken"]
        client.leave()
        await task

    run(main())


# The Task of the generator


def test_every_step_runs_in_one_task_and_one_context(run):
    variable = contextvars.ContextVar("variable", default=0)
    seen = []

    async def view(request):
        try:
            for number in range(1, 4):
                seen.append((asyncio.current_task(), variable.get(), where()))
                variable.set(number)
                yield "x"
        finally:
            seen.append((asyncio.current_task(), variable.get(), where()))

    async def main():
        await Client().call(serve(view))

    run(main())
    tasks, values, places = zip(*seen, strict=True)
    assert len(set(tasks)) == 1
    assert values == (0, 1, 2, 3)
    assert set(places) == {LOOP}


def test_a_timeout_may_span_yields_while_the_client_does_not_read(run):
    async def main():
        caught = asyncio.Event()

        async def view(request):
            try:
                async with asyncio.timeout(0.01):
                    while True:
                        yield "within"
            except TimeoutError:
                caught.set()
            yield "after"

        client = Client()
        task = client.start(serve(view, heartbeat=0.001))
        await client.until(lambda: events_in(client))
        client.reads.clear()
        # It is noticed where the generator stands, and not by what sends.
        await caught.wait()
        client.reads.set()
        await task
        assert client.ended
        assert events_in(client)[-1] == "after"

    run(main())


def test_a_timeout_during_a_heartbeat_reaches_the_generator_alone(run):
    async def main():
        caught = asyncio.Event()

        async def view(request):
            try:
                async with asyncio.timeout(0.02):
                    await asyncio.Event().wait()
            except TimeoutError:
                caught.set()
            yield "after"

        client = Client()
        task = client.start(serve(view, heartbeat=0.001))
        await client.until(lambda: len(client.parts) == 2)
        client.reads.clear()
        await caught.wait()
        client.reads.set()
        await task
        assert events_in(client) == ["after"]

    run(main())


def test_a_cancel_scope_may_span_yields(run):
    async def view(request):
        with anyio.move_on_after(0.01) as scope:
            while True:
                yield "within"
                await anyio.lowlevel.checkpoint()
        yield f"after {scope.cancelled_caught}"

    async def main():
        client = await Client().call(serve(view))
        assert events_in(client)[-1] == "after True"

    run(main())


@pytest.mark.parametrize("stands", ["at a yield", "in a wait"])
def test_a_task_group_may_span_yields(run, stands):
    async def main():
        fails = asyncio.Event()

        async def fail():
            await fails.wait()
            raise ValueError("of the child")

        async def view(request):
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(fail())
                    yield "within"
                    if stands == "in a wait":
                        await asyncio.Event().wait()
            except* ValueError as group:
                caught = str(group.exceptions[0])
            yield caught

        client = Client()
        task = client.start(serve(view))
        if stands == "at a yield":
            await client.until(lambda: client.parts == [OPENING])
            client.reads.clear()
        else:
            await client.until(lambda: events_in(client) == ["within"])
        fails.set()
        await settle()
        client.reads.set()
        await task
        assert events_in(client) == ["within", "of the child"]

    run(main())


def test_synchronous_code_of_a_generator_may_wait(run):
    def helper():
        return wait(asyncio.sleep(0.001, "waited for"))

    async def view(request):
        yield helper()
        try:
            await asyncio.Event().wait()
        finally:
            steps.append(helper())

    steps = []

    async def main():
        async with opened(serve(view), "waited for"):
            pass

    run(main())
    assert steps == ["waited for"]


@pytest.mark.parametrize("mode", MODES)
def test_streams_that_overlap_have_their_own_request(run, mode):
    count = 40
    variable = contextvars.ContextVar("variable", default=None)

    async def main():
        all_are_here = asyncio.Barrier(2 * count)

        def check(request):
            assert get_current_request() is request
            assert variable.get() in (None, request.query_string)
            variable.set(request.query_string)
            return request.query_string

        async def asynchronous(request):
            for _ in range(3):
                yield check(request)
                await asyncio.sleep(0)
            await all_are_here.wait()
            yield check(request)

        def plain(request):
            for _ in range(3):
                yield check(request)
                wait(asyncio.sleep(0))
            wait(all_are_here.wait())
            yield check(request)

        def configure(config):
            for view in (asynchronous, plain):
                config.add_view(view, name=view.__name__, mapper=EventSourceMapper)

        settings = {"aioext.sync_views": mode, "aioext.executor_workers": 2 * count}
        app = make_app(configure, settings=settings)
        clients = [
            Client(path, query_string=b"%d" % number)
            for number in range(count)
            for path in ("/asynchronous", "/plain")
        ]
        await asyncio.gather(*[client.call(app) for client in clients])
        for client in clients:
            expected = client.scope["query_string"].decode()
            assert events_in(client) == [expected] * 4

    run(main())


# Plain generators


@pytest.mark.parametrize(
    ("mode", "place"), [("executor", EXECUTOR), ("inline", LOOP), ("request", EXECUTOR)]
)
def test_a_plain_generator_runs_where_the_setting_says(run, mode, place):
    seen = []

    def view(request):
        try:
            seen.append(where())
            yield "x"
            seen.append(where())
            wait(asyncio.Event().wait())
        finally:
            seen.append(where())

    async def main():
        settings = {"aioext.sync_views": mode}
        async with opened(serve(view, settings, heartbeat=0.001), "x") as (client, _):
            await client.until(lambda: len(seen) == 2)

    run(main())
    assert seen == [place] * 3


def test_a_generator_that_blocks_in_a_thread_holds_nobody_up(run):
    async def main():
        goes = threading.Event()
        blocks = threading.Event()

        def view(request):
            yield "x"
            blocks.set()
            goes.wait(30)
            yield "y"

        client = Client()
        task = client.start(serve(view, heartbeat=0.001))
        await client.until(lambda: client.body.endswith(event("x") + 2 * HEARTBEAT))
        await asyncio.to_thread(blocks.wait)
        goes.set()
        await task
        assert events_in(client) == ["x", "y"]

    run(main())


def test_a_thread_that_blocks_can_see_that_its_client_has_left(run):
    async def main():
        begun, ended = threading.Event(), threading.Event()

        def view(request):
            try:
                yield "x"
                begun.set()
                while not request.disconnected.is_set():
                    ended.wait(0.001)
            finally:
                ended.set()

        async with opened(serve(view), "x") as (client, task):
            await asyncio.to_thread(begun.wait)
            client.leave()
            await task
            assert ended.is_set()

    run(main())


# The client leaves


def test_a_generator_that_waits_is_cancelled_and_its_finally_may_wait(run):
    async def main():
        probe = Probe()
        async with opened(serve(probe), "0"):
            await probe.waits.wait()
        assert probe.steps == ["begun", "0 taken", "CancelledError", "disconnected"]

    run(main())


@pytest.mark.parametrize("send_fails", [False, True])
def test_a_generator_that_stands_at_a_yield_is_closed_there(run, send_fails):
    async def main():
        probe = Probe()
        client = Client()
        task = client.start(serve(probe))
        await client.until(lambda: client.parts == [OPENING])
        client.reads.clear()
        await settle()
        client.leave(send_fails)
        client.reads.set()
        await task
        assert probe.steps[0] == "begun"
        assert probe.steps[-1] == "disconnected"
        assert probe.steps[-2] in ("GeneratorExit", "CancelledError")

    run(main())


class Resource:
    """An iterable that is not a generator, and counts."""

    def __init__(self, probe=None):
        self.closed = 0
        self.begun = 0

    async def aclose(self):
        await asyncio.sleep(0)
        self.closed += 1

    def __aiter__(self):
        self.begun += 1
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        return "x"


class PlainResource:
    def __init__(self):
        self.closed = 0
        self.begun = 0

    def close(self):
        wait(asyncio.sleep(0))
        self.closed += 1

    def __iter__(self):
        self.begun += 1
        return iter("xyz")


@pytest.mark.parametrize("make", [Resource, PlainResource])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stage", ["HEAD", "before the head", "after it", "in it"])
def test_what_is_streamed_is_closed_once_at_every_stage(run, make, mode, stage):
    async def main():
        resource = make()
        app = serve(lambda request: resource, {"aioext.sync_views": mode})
        client = Client(method="HEAD" if stage == "HEAD" else "GET")
        if stage == "before the head":
            client.reads.clear()
        task = client.start(app)
        if stage == "before the head":
            await client.until(lambda: client.is_sent_to)
        elif stage == "after it":
            await client.until(lambda: client.parts)
        elif stage == "in it":
            await client.until(lambda: len(client.parts) > 1)
        if stage != "HEAD":
            client.leave()
            await settle()
            client.reads.set()
        await task
        assert resource.closed == 1
        if stage in ("HEAD", "before the head"):
            assert resource.begun == 0

    run(main())


@pytest.mark.parametrize("make", [Resource, PlainResource])
def test_a_task_that_never_began_leaves_nothing_open(run, make):
    async def main():
        resource = make()
        body = EventStream(resource)
        await anext(body)
        waiting = asyncio.ensure_future(anext(body))
        await asyncio.sleep(0)
        # The generator's Task is made, and has not taken its first step.
        body._task.cancel()
        waiting.cancel()
        await asyncio.wait([waiting])
        await body.aclose()
        assert (resource.begun, resource.closed) == (0, 1)

    run(main())


def test_an_iterator_is_closed_and_so_is_what_it_iterates_over(run):
    closed = []

    class Rows:
        async def __aiter__(self):
            try:
                yield "x"
                await asyncio.Event().wait()
            finally:
                closed.append("iterator")

        async def aclose(self):
            closed.append("iterable")

    async def main():
        async with opened(serve(lambda request: Rows()), "x"):
            pass

    run(main())
    assert closed == ["iterator", "iterable"]


def test_a_generator_that_swallows_its_cancellation_ends_at_its_next_yield(run):
    async def main():
        steps = []

        async def view(request):
            yield "x"
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            try:
                yield "y"
            except GeneratorExit:
                steps.append("closed")
                raise

        async with opened(serve(view), "x") as (client, _):
            await settle()
        assert steps == ["closed"]
        assert events_in(client) == ["x"]

    run(main())


def test_a_second_cancellation_reaches_a_finally_that_waits(run):
    async def main():
        closing = asyncio.Event()
        steps = []

        async def view(request):
            try:
                yield "x"
                await asyncio.Event().wait()
            finally:
                closing.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    steps.append("cancelled again")
                    raise

        client = Client()
        task = client.start(serve(view))
        await client.until(lambda: events_in(client) == ["x"])
        client.leave()
        await closing.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert steps == ["cancelled again"]

    run(main())


def test_the_request_is_told_when_its_client_has_left(run):
    async def main():
        told = asyncio.Event()

        async def watch(request):
            await request.disconnected.wait()
            told.set()

        async def view(request):
            watcher = asyncio.create_task(watch(request))
            yield str(request.disconnected.is_set())
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await watcher

        async with opened(serve(view), "False"):
            assert not told.is_set()
        assert told.is_set()

    run(main())


def test_a_thousand_clients_that_leave_leave_nothing_behind(run):
    bodies = weakref.WeakSet()

    async def main():
        ended = []

        async def view(request):
            bodies.add(request)
            try:
                yield "x"
                await asyncio.Event().wait()
            finally:
                ended.append(None)

        app = serve(view)
        stages = [
            lambda client: True,
            lambda client: client.started,
            lambda client: client.parts == [OPENING],
            lambda client: events_in(client) == ["x"],
        ]
        before = asyncio.all_tasks()

        async def come_and_go(number):
            client = Client()
            task = client.start(app)
            await client.until(lambda: stages[number % len(stages)](client))
            client.leave(send_fails=number % 3 == 0)
            await task

        for start in range(0, 1000, 100):
            await asyncio.gather(
                *[come_and_go(number) for number in range(start, start + 100)]
            )
        assert asyncio.all_tasks() == before
        announcement = shutdown._announcements[asyncio.get_running_loop()]
        assert not announcement.callbacks
        assert len(ended) >= 250

    gc.collect()
    run(main())
    gc.collect()
    assert not bodies


@pytest.mark.parametrize("end", ["left", "failed", "exhausted"])
def test_a_stream_that_is_over_is_no_work_for_the_collector(run, end):
    async def main():
        alive = weakref.WeakSet()

        async def view(request):
            alive.add(request)
            yield "x"
            if end == "failed":
                raise ValueError
            if end != "exhausted":
                await asyncio.Event().wait()

        app = serve(view)

        async def come_and_go():
            client = Client()
            task = client.start(app)
            await client.until(lambda: events_in(client) == ["x"])
            if end == "left":
                client.leave()
            await asyncio.wait([task])
            # For the error, which the loop would complain of.
            task.exception()

        await come_and_go()
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                await come_and_go()
            await settle()
            # An idle greenlet may know the last error that went through it.
            assert len(alive) <= (end == "failed")
        finally:
            gc.enable()

    run(main())


class Root:
    def __init__(self, request):
        self.request = request


def test_the_context_is_lent_to_the_request_for_the_stream_alone(run):
    requests = []

    async def view(request):
        requests.append(request)
        assert request.context.request is request
        yield "x"

    def configure(config):
        config.set_root_factory(Root)
        config.add_view(view, mapper=EventSourceMapper)

    async def main():
        await Client().call(make_app(configure))

    run(main())
    (request,) = requests
    assert not hasattr(request, "context")


# Errors


def test_an_error_ends_the_stream_and_is_raised_to_the_server(run):
    async def main():
        async def view(request):
            yield "x"
            raise ValueError("of the generator")

        client = Client()
        with pytest.raises(ValueError, match="of the generator"):
            await client.call(serve(view))
        assert events_in(client) == ["x"]
        assert not client.ended

    run(main())


def test_an_error_in_the_first_line_is_no_status(run):
    async def main():
        async def view(request):
            raise ValueError("in the first line")
            yield

        client = Client()
        with pytest.raises(ValueError, match="in the first line"):
            await client.call(serve(view))
        assert client.status == 200

    run(main())


@pytest.mark.parametrize("stands", ["in a wait", "at a yield"])
def test_an_error_while_it_is_closed_is_raised_to_the_server(run, stands):
    async def main():
        async def view(request):
            try:
                yield "x"
                await asyncio.Event().wait()
            finally:
                raise ValueError("while it was closed")

        client = Client()
        task = client.start(serve(view))
        if stands == "in a wait":
            await client.until(lambda: events_in(client) == ["x"])
            await settle()
        else:
            await client.until(lambda: client.parts == [OPENING])
            client.reads.clear()
            await settle()
        client.leave()
        with pytest.raises(ValueError, match="while it was closed"):
            await task

    run(main())


def test_a_cancellation_of_nobody_is_an_error(run):
    async def main():
        async def view(request):
            yield "x"
            cancelled = asyncio.ensure_future(asyncio.Event().wait())
            cancelled.cancel()
            await cancelled

        with pytest.raises(Exception, match="nobody has cancelled its request"):
            await Client().call(serve(view))

    run(main())


async def gives_none(request):
    yield "x"
    yield


def gives_bytes(request):
    yield b"bytes"


@pytest.mark.parametrize(
    ("view", "item", "line"),
    [(gives_none, "None", 2), (gives_bytes, "b'bytes'", 1)],
)
def test_what_is_no_event_is_told_with_its_place(run, view, item, line):
    line += view.__code__.co_firstlineno
    place = re.escape(f"given {item} in {__file__}, line {line}, which is no event")

    async def main():
        with pytest.raises(TypeError, match=place):
            await Client().call(serve(view))

    run(main())


def test_what_is_no_event_has_no_place_if_no_generator_gave_it(run):
    async def main():
        with pytest.raises(TypeError, match="given None, which is no event"):
            await Client().call(serve(lambda request: [None]))

    run(main())


# The server stops


async def announce():
    shutdown.announce(asyncio.get_running_loop())


def hints_in(client):
    return [int(each) for each in re.findall(rb"(?m)^retry: (\d+)$", client.body)]


@pytest.mark.parametrize("kind", ["asynchronous", "plain"])
def test_every_stream_ends_at_once_with_a_hint(run, kind):
    async def main():
        told = []

        async def asynchronous(request):
            try:
                yield "x"
                await asyncio.Event().wait()
            finally:
                told.append(request.disconnected.is_set())

        def plain(request):
            try:
                yield "x"
                wait(asyncio.Event().wait())
            finally:
                told.append(request.disconnected.is_set())

        view = {"asynchronous": asynchronous, "plain": plain}[kind]
        settings = {
            "aioext.eventsource.retry": "3",
            "aioext.executor_workers": 50,
        }
        app = serve(view, settings)
        clients = [Client() for _ in range(40)]
        tasks = [client.start(app) for client in clients]
        for client in clients:
            await client.until(lambda c=client: events_in(c) == ["x"])
        await announce()
        await asyncio.gather(*tasks)
        hints = [hint for client in clients for hint in hints_in(client)]
        assert all(client.ended for client in clients)
        assert told == [True] * 40
        assert len(hints) == 40
        assert 3000 <= min(hints) < max(hints) <= 6000

    run(main())


def test_an_event_that_is_there_is_sent_before_the_end(run):
    async def main():
        probe = Probe()
        client = Client()
        task = client.start(serve(probe, heartbeat=0.001))
        await client.until(lambda: client.body.endswith(event("0") + HEARTBEAT))
        client.reads.clear()
        # The next heartbeat is on its way, and does not arrive.
        await asyncio.sleep(0.01)
        probe.goes.set()
        await settle()
        await announce()
        client.reads.set()
        await task
        assert events_in(client) == ["0", "1"]
        assert client.parts[-1].startswith(b"retry: ")

    run(main())


def test_a_stream_that_opens_while_the_server_stops_ends_at_once(run):
    async def main():
        probe = Probe()
        await announce()
        client = await Client().call(serve(probe))
        assert client.ended
        assert len(hints_in(client)) == 1
        assert probe.steps == []

    run(main())


def test_the_hint_can_be_turned_off(run):
    async def main():
        probe = Probe()
        client = Client()
        task = client.start(serve(probe, retry=0))
        await client.until(lambda: events_in(client) == ["0"])
        await announce()
        await task
        assert client.ended
        assert client.parts == [OPENING, event("0")]

    run(main())


def test_a_client_that_does_not_read_delays_the_end_of_the_server_little(
    run, monkeypatch
):
    monkeypatch.setattr(stream_module, "PATIENCE", 0.01)

    async def main():
        probe = Probe()
        client = Client()
        task = client.start(serve(probe))
        await client.until(lambda: client.parts == [OPENING])
        client.reads.clear()
        await settle()
        await announce()
        await asyncio.wait([task])
        assert task.cancelled()
        assert probe.steps[-1] == "disconnected"

    run(main())


@pytest.mark.parametrize("patience", [30, 0.001])
def test_the_end_of_the_response_waits_for_a_finally_but_not_for_ever(
    run, monkeypatch, patience
):
    monkeypatch.setattr(stream_module, "PATIENCE", patience)

    async def main():
        closing, goes = asyncio.Event(), asyncio.Event()
        steps = []

        async def view(request):
            try:
                yield "x"
                await asyncio.Event().wait()
            finally:
                closing.set()
                await goes.wait()
                steps.append("closed")

        client = Client()
        task = client.start(serve(view))
        await client.until(lambda: events_in(client) == ["x"])
        await announce()
        await closing.wait()
        if patience < 1:
            await client.until(lambda: client.ended)
        else:
            await client.until(lambda: hints_in(client))
            await settle()
            # A server that sees the end of the response does not wait for more.
            assert not client.ended
        assert steps == []
        goes.set()
        await task
        assert client.ended
        assert steps == ["closed"]

    run(main())


def test_a_client_that_reads_slowly_is_not_cut_off(run, monkeypatch):
    patience = 0.05
    monkeypatch.setattr(stream_module, "PATIENCE", patience)

    async def main():
        loop = asyncio.get_running_loop()
        probe = Probe()
        client = Client()
        task = client.start(serve(probe))
        await client.until(lambda: events_in(client) == ["0"])
        await announce()
        # The hint was taken late, for the loop was busy: it has its own time.
        begin = loop.time()
        while loop.time() < begin + 2 * patience:
            pass
        await task
        assert client.ended

    run(main())


# The body by itself


def test_a_step_that_is_cancelled_loses_nothing(run):
    async def main():
        goes = asyncio.Event()

        async def generate():
            await goes.wait()
            yield "x"

        body = EventStream(generate())
        assert await anext(body) == OPENING
        for _ in range(3):
            waiting = asyncio.ensure_future(anext(body))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        goes.set()
        assert await anext(body) == event("x")
        assert [chunk async for chunk in body] == []
        await body.aclose()
        await body.aclose()
        assert [chunk async for chunk in body] == []

    run(main())


@pytest.mark.parametrize("steps", range(4))
def test_a_body_may_be_closed_just_when_it_was_asked(run, steps):
    async def main():
        ended = []

        async def generate():
            try:
                yield "x"
                await asyncio.Event().wait()
            finally:
                ended.append(None)

        body = EventStream(generate())
        assert await anext(body) == OPENING
        assert await anext(body) == event("x")
        waiting = asyncio.ensure_future(anext(body))
        for _ in range(steps):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await body.aclose()
        assert ended == [None]

    run(main())


def test_a_generator_goes_on_after_a_cancellation_of_its_own_making(run):
    async def main():
        async def generate():
            try:
                yield "x"
            except asyncio.CancelledError:
                yield "y"

        assert await cancelled_at_its_yield(generate()) == [event("y")]

    run(main())


def test_a_generator_may_end_by_a_cancellation(run):
    async def main():
        async def generate():
            with contextlib.suppress(asyncio.CancelledError):
                yield "x"

        assert await cancelled_at_its_yield(generate()) == []

    run(main())


@pytest.mark.parametrize("make", [Resource, PlainResource])
def test_what_is_no_generator_is_closed_by_a_cancellation(run, make):
    async def main():
        resource = make()
        with pytest.raises(asyncio.CancelledError):
            await cancelled_at_its_yield(resource)
        assert resource.closed == 1

    run(main())


async def cancelled_at_its_yield(items):
    """What comes after the generator's Task was cancelled between two steps."""
    body = EventStream(items)
    assert await anext(body) == OPENING
    assert await anext(body) == event("x")
    body._task.cancel()
    await settle()
    rest = [chunk async for chunk in body]
    await body.aclose()
    return rest


def test_a_body_that_was_closed_before_its_time_has_ended(run):
    async def main():
        resource = Resource()
        body = EventStream(resource)
        await body.aclose()
        assert resource.closed == 1
        body = EventStream(resource)
        assert await anext(body) == OPENING
        await body.aclose()
        assert [chunk async for chunk in body] == []
        assert (resource.begun, resource.closed) == (0, 2)

    run(main())

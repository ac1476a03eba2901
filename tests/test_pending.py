"""Pending: begun at once, used later, ended with its request."""

import asyncio
import contextvars
import gc
import logging
import operator
import threading
import weakref

import pytest
from asgi import Client
from asgi_websocket import InProcess
from gate import Gate, on_a_loop
from inprocess import answer, make_app
from pyramid.response import Response
from pyramid.threadlocal import get_current_request
from webtest import TestApp as WebTest

import aioext
from aioext import ScopeError, spawn_greenlet, use_executor, wait
from aioext.eventsource import EventSourceResponse
from aioext.pending import Pending
from aioext.websocket import WebSocketResponse

variable = contextvars.ContextVar("variable", default="unset")


class Work(Gate):
    """Something slow, which is awaited as a coroutine."""

    async def __call__(self):
        return await self.wait()


async def give(value):
    await asyncio.sleep(0)
    return value


async def fail():
    await asyncio.sleep(0)
    raise LookupError("lost")


# Using it ---------------------------------------------------------------------


@on_a_loop
async def test_it_begins_at_once():
    work = Work("done")
    pending = Pending(work())
    await work.reached.wait()
    assert not pending.is_done
    assert repr(pending) == "<Pending, under way>"
    work.opened.set()
    assert await pending == "done"
    assert pending.is_done
    assert repr(pending) == "<Pending, done>"


@on_a_loop
async def test_it_can_be_used_often_and_everywhere():
    pending = Pending(give("<b>"))
    assert await pending == "<b>"
    assert pending.result() == str(pending) == "<b>"
    assert pending.__html__() == "&lt;b&gt;"
    assert await spawn_greenlet(pending.result) == "<b>"
    assert await use_executor(pending.result)() == "<b>"
    assert await asyncio.gather(pending, pending) == ["<b>", "<b>"]


@on_a_loop
async def test_html_of_the_result_is_its_own():
    class Html:
        def __html__(self):
            return "<b>"

    pending = Pending(give(Html()))
    assert await spawn_greenlet(pending.__html__) == "<b>"


@on_a_loop
async def test_synchronous_code_waits_for_it():
    for place in spawn_greenlet, lambda function: use_executor(function)():
        work = Work("done")
        pending = Pending(work())
        using = asyncio.create_task(place(pending.result))
        await work.reached.wait()
        work.opened.set()
        assert await using == "done"


@on_a_loop
async def test_it_begins_in_a_thread_as_well():
    def in_thread():
        pending = Pending(give(1))
        other = Pending(give(2))
        return other.result() + pending.result(timeout=10)

    assert await use_executor(in_thread)() == 3


@on_a_loop
async def test_it_is_awaited_before_its_loop_has_begun_it():
    made = []

    def in_thread():
        made.append(Pending(give(1)))
        # The loop has not had its turn since.
        tell.set()

    tell = threading.Event()
    making = asyncio.create_task(use_executor(in_thread)())
    await asyncio.sleep(0)
    # The loop is held, as by a busy callback.
    assert tell.wait(20)
    assert await made[0] == 1
    await making


def test_it_begins_where_there_is_no_loop():
    pending = Pending(give(1))
    assert pending.result() == 1
    assert aioext.run(lambda: Pending(give(2)).result()) == 2


@on_a_loop
async def test_what_it_raises_is_raised_wherever_it_is_used():
    pending = Pending(fail())
    depths = []
    for _ in range(3):
        with pytest.raises(LookupError, match="lost") as raised:
            await pending
        depths.append(len(raised.traceback))
    with pytest.raises(LookupError, match="lost"):
        pending.result()
    with pytest.raises(LookupError, match="lost"):
        await spawn_greenlet(str, pending)
    # A traceback that grew with each use would.
    assert depths[1] == depths[2]


@on_a_loop
async def test_an_error_that_nobody_asks_for_is_nobodys():
    heard = []
    asyncio.get_running_loop().set_exception_handler(lambda *args: heard.append(args))
    pending = Pending(fail())
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
    assert pending.is_done
    del pending
    gc.collect()
    await asyncio.sleep(0)
    assert not heard


@on_a_loop
async def test_an_exit_is_raised_where_it_is_used():
    async def leave():
        raise SystemExit(3)

    pending = Pending(leave())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(SystemExit):
        pending.result()


def test_ctrl_c_ends_the_loop():
    async def interrupted():
        raise KeyboardInterrupt

    async def main():
        pending = Pending(interrupted())
        await asyncio.Event().wait()
        del pending

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())


@on_a_loop
async def test_it_may_call_synchronous_code_that_waits():
    async def load():
        return wait(give("waited"))

    assert await Pending(load()) == "waited"


@on_a_loop
async def test_it_has_a_copy_of_the_context():
    async def look():
        seen = variable.get()
        variable.set("its own")
        return seen

    variable.set("given")
    pending = Pending(look())
    variable.set("later")
    assert await pending == "given"
    assert variable.get() == "later"


@on_a_loop
async def test_tasks_futures_and_others_can_be_pending():
    class Awaitable:
        def __await__(self):
            return give("object").__await__()

    future = asyncio.get_running_loop().create_future()
    pendings = [Pending(Awaitable()), Pending(asyncio.create_task(give("task")))]
    pendings += [Pending(future), Pending(Pending(give("pending")))]
    future.set_result("future")
    results = await asyncio.gather(*pendings)
    assert results == ["object", "task", "future", "pending"]


# Waiting and its end ----------------------------------------------------------


@on_a_loop
async def test_who_waits_is_cancelled_alone():
    work = Work("done")
    pending = Pending(work())
    waiting = asyncio.ensure_future(pending)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await pending
    await work.reached.wait()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    work.opened.set()
    assert await pending == "done"


@on_a_loop
async def test_a_timeout_leaves_it_alone():
    work = Work("done")
    pending = Pending(work())
    for place in spawn_greenlet, lambda *args: use_executor(args[0])(*args[1:]):
        with pytest.raises(TimeoutError, match=r"no result after 0\.01 seconds"):
            await place(pending.result, 0.01)
    work.opened.set()
    assert await spawn_greenlet(pending.result, 10) == "done"


@on_a_loop
async def test_it_is_cancelled():
    work = Work("done")
    pending = Pending(work())
    await work.reached.wait()
    assert pending.cancel()
    await work.left.wait()
    assert work.outcome == "cancelled"
    with pytest.raises(asyncio.CancelledError):
        await pending
    with pytest.raises(asyncio.CancelledError):
        pending.result()
    assert not pending.cancel()


@on_a_loop
async def test_it_is_cancelled_by_a_thread():
    work = Work("done")
    pending = Pending(work())
    await work.reached.wait()
    assert await use_executor(pending.cancel)()
    await work.left.wait()
    assert work.outcome == "cancelled"


@on_a_loop
async def test_before_its_first_step_it_is_closed():
    # A coroutine that nobody has awaited would be warned of.
    pending = Pending(give(1))
    assert pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending


@on_a_loop
async def test_in_a_thread_it_is_cancelled_at_once():
    work = Work("done")

    def in_thread():
        pending = Pending(work())
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            pending.result()

    await use_executor(in_thread)()


@on_a_loop
async def test_without_a_request_it_ends_when_nobody_refers_to_it():
    work = Work("done")
    pending = Pending(work())
    await work.reached.wait()
    del pending
    await work.left.wait()
    assert work.outcome == "cancelled"


# What it refuses --------------------------------------------------------------


@on_a_loop
async def test_in_a_coroutine_it_is_awaited():
    pending = Pending(give(1))
    for arguments in (), (1,):
        with pytest.raises(ScopeError, match="await pending") as raised:
            pending.result(*arguments)
        assert __file__ in str(raised.value)
    assert await pending == 1


@pytest.mark.parametrize("use", [bool, lambda pending: pending or ""])
def test_it_is_neither_true_nor_false(use):
    pending = Pending(give(1))
    with pytest.raises(TypeError, match=r"pending\.result"):
        use(pending)
    assert pending.result() == 1


@pytest.mark.parametrize(
    "use", [list, len, operator.itemgetter(0), lambda pending: 1 in pending]
)
def test_it_has_no_items(use):
    pending = Pending(give([1]))
    with pytest.raises(TypeError, match=r"for each in pending\.result"):
        use(pending)
    assert pending.result() == [1]


@pytest.mark.parametrize("thing", [give, 1, None])
def test_it_takes_an_awaitable(thing):
    with pytest.raises(TypeError, match=r"^Pending\(\) takes an awaitable"):
        Pending(thing)


def test_it_belongs_to_its_loop():
    pending = Pending(give(1))

    async def use():
        await pending

    with pytest.raises(ScopeError, match="another"):
        asyncio.run(use())
    assert pending.result() == 1


def test_a_loop_that_ends_ends_it():
    work = []

    async def main():
        work.append(Work("done"))
        return Pending(work[0]())

    pending = asyncio.run(main())
    with pytest.raises(asyncio.CancelledError):
        pending.result()


# In a request -----------------------------------------------------------------


def served(*views, **options):
    def configure(config):
        for view in views:
            config.add_view(view, name=view.__name__)

    return make_app(configure, **options)


MODES = ["executor", "inline", "request"]


@pytest.mark.parametrize("mode", MODES)
def test_a_view_uses_it(mode):
    async def who():
        await asyncio.sleep(0)
        return get_current_request().path

    def sync(request):
        return Response(Pending(who()).result())

    async def coroutine(request):
        return Response(await Pending(who()))

    app = served(sync, coroutine, settings={"aioext.sync_views": mode})
    assert answer(app, "/sync").body == b"/sync"
    assert answer(app, "/coroutine").body == b"/coroutine"


def test_a_view_uses_it_on_a_plain_server():
    async def who():
        return get_current_request().path

    def view(request):
        pendings = [Pending(who()), Pending(who())]
        return Response(" ".join(map(str, pendings)))

    async def coroutine(request):
        return Response(await Pending(who()))

    app = WebTest(served(view, coroutine).app)
    assert app.get("/view").text == "/view /view"
    assert app.get("/coroutine").text == "/coroutine"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("end", ["response", "error"])
@on_a_loop
async def test_it_ends_with_its_request(mode, end):
    work = Work("done")

    def view(request):
        # Nobody refers to it but the request.
        Pending(work())
        wait(work.reached.wait())
        if end == "error":
            raise KeyError(end)
        return Response(end)

    app = served(view, settings={"aioext.sync_views": mode})
    client = Client("/view")
    if end == "error":
        with pytest.raises(KeyError):
            await client.call(app)
    else:
        await client.call(app)
        assert client.body == b"response"
    await work.left.wait()
    assert work.outcome == "cancelled"


@on_a_loop
async def test_it_ends_with_a_request_that_is_cancelled():
    work = Work("done")

    async def view(request):
        await Pending(work())

    client = Client("/view")
    task = client.start(served(view))
    await work.reached.wait()
    client.leave()
    await work.left.wait()
    await asyncio.wait([task])
    assert work.outcome == "cancelled"


@pytest.mark.parametrize("outcome", ["passed", "cancelled"])
@on_a_loop
async def test_a_streamed_body_uses_it_still(outcome):
    work, unused = Work(b"late"), Work("done")

    async def view(request):
        pendings = Pending(work()), Pending(unused())

        async def body():
            yield b"early "
            yield await pendings[0]

        return Response(app_iter=body())

    client = Client("/view")
    task = client.start(served(view))
    await client.until_body(b"early ")
    assert work.reached.is_set()
    if outcome == "passed":
        work.opened.set()
    else:
        client.leave()
    await asyncio.wait([task])
    await work.left.wait()
    await unused.left.wait()
    assert (work.outcome, unused.outcome) == (outcome, "cancelled")
    if outcome == "passed":
        assert client.body == b"early late"


class Seen:
    """How many Pendings there are still, each time that one was used."""

    def __init__(self):
        self.alive = weakref.WeakSet()
        self.counts = []

    async def __call__(self):
        pending = Pending(give(1))
        self.alive.add(pending)
        await pending
        del pending
        self.counts.append(len(self.alive))

    async def items(self, item):
        for _ in range(4):
            await self()
            yield item


def body_view(request, seen):
    return Response(app_iter=seen.items(b"x"))


async def body_after_another_view(request, seen):
    await Pending(give(1))
    return Response(app_iter=seen.items(b"x"))


def events_view(request, seen):
    return EventSourceResponse(seen.items("x"))


def json_view(request, seen):
    return seen.items("x")


@pytest.mark.parametrize(
    "view", [body_view, body_after_another_view, events_view, json_view]
)
@on_a_loop
async def test_a_body_that_goes_on_keeps_none(view):
    seen = Seen()

    def configure(config):
        config.include("aioext.renderers")
        renderer = "json" if view is json_view else None
        config.add_view(lambda request: view(request, seen), renderer=renderer)

    await Client().call(make_app(configure))
    # A body of items has its first one before the request is over.
    assert seen.counts[1:] == [0, 0, 0]


@on_a_loop
async def test_a_websocket_keeps_none():
    seen, unused = Seen(), Work("done")

    async def handler(ws):
        for _ in range(4):
            await seen()
        pending = Pending(unused())
        await unused.reached.wait()
        del pending
        await unused.left.wait()

    def configure(config):
        config.add_view(lambda request: WebSocketResponse(handler))

    with InProcess(make_app(configure)) as server:
        async with server.connect("/"):
            await unused.left.wait()
    assert unused.outcome == "cancelled"
    assert seen.counts == [0, 0, 0, 0]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@on_a_loop
async def test_overlapping_requests_have_their_own(order):
    works = [Work("first"), Work("second")]

    async def load():
        number = int(get_current_request().params["number"])
        value = await works[number]()
        assert get_current_request().params["number"] == str(number)
        return value

    async def view(request):
        return Response(await Pending(load()))

    app = served(view)
    clients = [Client("/view", query_string=b"number=%d" % n) for n in range(2)]
    tasks = [client.start(app) for client in clients]
    for work in works:
        await work.reached.wait()
    for number in order:
        works[number].opened.set()
        await asyncio.wait([tasks[number]])
    assert [client.body for client in clients] == [b"first", b"second"]


def test_nothing_is_logged(caplog):
    def view(request):
        Pending(fail())
        Pending(Work("done")())
        return Response("quiet")

    with caplog.at_level(logging.DEBUG):
        assert answer(served(view), "/view").body == b"quiet"
    gc.collect()
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


@on_a_loop
async def test_as_many_views_as_threads_may_wait_for_threads():
    def view(request):
        early = Pending(use_executor(lambda: "early")())
        late = Pending(use_executor(lambda: "late")())
        return Response(f"{early} {late}")

    app = served(view, settings={"aioext.executor_workers": "1"})
    client = await Client("/view").call(app)
    assert client.body == b"early late"

"""Every request has its own ``get_current_request()``, wherever it waits.

Two applications serve 200 requests that wait at random at every place where
Pyramid calls an application's code; each place asks, before and after its wait,
which request and which registry are current. The same must go wrong without
aioext's manager, or the test would prove nothing.
"""

import asyncio
import functools
import gc
import random
import threading
import weakref

import pytest
from asgi import Client
from inprocess import make_app
from pyramid.request import Request
from pyramid.response import Response
from pyramid.threadlocal import (
    get_current_registry,
    get_current_request,
    manager,
)

from aioext import threadlocal, use_executor, wait
from aioext.config import ExecutorMapper, InlineMapper
from aioext.interfaces import IExecutor

REQUESTS = 200
WORKERS = 4


class Witness:
    """Asks which request is current, and waits at random.

    Attributes:
        seen: how often each place was asked.
        wrong: the places that were given another request or registry.
    """

    def __init__(self, seed):
        self._random = random.Random(seed)
        self.seen = {}
        self.wrong = []

    def ask(self, place, request):
        self.seen[place] = self.seen.get(place, 0) + 1
        current = get_current_request()
        if current is not request or get_current_registry() is not request.registry:
            self.wrong.append(place)

    async def pause(self):
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)

    def visit(self, place, request):
        """Be at a place, in synchronous code."""
        self.ask(place, request)
        wait(self.pause())
        self.ask(place, request)

    async def visit_async(self, place, request):
        """Be at a place, in a coroutine."""
        self.ask(place, request)
        await self.pause()
        self.ask(place, request)


class Error(Exception): ...


class ErrorInExecutor(Exception): ...


def add_views(config, witness):
    """A view of every kind, which asks ``witness``."""
    visit, visit_async = witness.visit, witness.visit_async

    @use_executor
    def in_executor(request):
        visit("a function in the executor", request)

    async def coroutine(request):
        await visit_async("a coroutine view", request)
        await in_executor(request)
        await asyncio.create_task(visit_async("a child task", request))
        return {}

    def function(request):
        visit("a view in the executor", request)
        return {}

    def inline(request):
        visit("a view in the greenlet", request)
        return {}

    def generator(request):
        yield from visit_async("a generator view", request)
        return {}

    async def failing(request):
        await visit_async("a view that fails", request)
        raise Error

    def failing_in_executor(request):
        raise ErrorInExecutor

    async def subrequesting(request):
        request.invoke_subrequest(Request.blank("/function"), use_tweens=True)
        await visit_async("a view after a subrequest", request)
        return {}

    add = functools.partial(config.add_view, renderer="visiting")
    add(coroutine, "coroutine")
    add(function, "function", mapper=ExecutorMapper)
    add(inline, "inline", mapper=InlineMapper)
    add(generator, "generator")
    add(failing, "failing")
    add(failing_in_executor, "failing-in-executor")
    add(subrequesting, "subrequesting")


def add_exception_views(config, witness):
    async def error(context, request):
        await witness.visit_async("an exception view", request)
        return {}

    def error_in_executor(context, request):
        witness.visit("an exception view in the executor", request)
        return {}

    add = functools.partial(config.add_exception_view, renderer="visiting")
    add(error, Error)
    add(error_in_executor, ErrorInExecutor, mapper=ExecutorMapper)


def add_streaming_views(config, witness):
    def body(request, place):
        for _ in range(2):
            witness.visit(place, request)
            yield b"chunk"

    async def asynchronous_body(request):
        for _ in range(2):
            await witness.visit_async("an asynchronous body", request)
            yield b"chunk"

    async def stream(request):
        return Response(app_iter=body(request, "a body"))

    def stream_in_executor(request):
        return Response(app_iter=body(request, "a body in the executor"))

    async def stream_asynchronously(request):
        return Response(app_iter=asynchronous_body(request))

    config.add_view(stream, "stream")
    config.add_view(stream_in_executor, "stream-in-executor", mapper=ExecutorMapper)
    config.add_view(stream_asynchronously, "stream-asynchronously")


def add_surroundings(config, witness):
    """What Pyramid calls around a view, and asks ``witness``."""
    visit = witness.visit
    config.registry["witness"] = witness
    config.add_tween("test_isolation.visiting_tween")
    for name in "NewRequest", "BeforeTraversal", "ContextFound", "NewResponse":
        config.add_subscriber(
            lambda event: visit("a subscriber", event.request),
            f"pyramid.events.{name}",
        )
    config.add_subscriber(
        lambda event: visit("a subscriber to BeforeRender", event["request"]),
        "pyramid.events.BeforeRender",
    )

    def render(value, system):
        visit("a renderer", system["request"])
        return "rendered"

    def root_factory(request):
        visit("a root factory", request)
        return {}

    config.add_renderer("visiting", lambda info: render)
    config.set_root_factory(root_factory)


def visiting_tween(handler, registry):
    witness = registry["witness"]

    def call_back(request, response=None):
        place = "a finished callback" if response is None else "a response callback"
        witness.visit(place, request)

    def tween(request):
        request.add_response_callback(call_back)
        request.add_finished_callback(call_back)
        witness.visit("a tween", request)
        try:
            return handler(request)
        finally:
            witness.visit("a tween", request)

    return tween


VIEWS = [
    "coroutine",
    "function",
    "inline",
    "generator",
    "failing",
    "failing-in-executor",
    "subrequesting",
    "stream",
    "stream-in-executor",
    "stream-asynchronously",
]
PLACES = 20


def make_apps(witness, sync_views):
    settings = {"aioext.sync_views": sync_views, "aioext.executor_workers": WORKERS}
    return [
        make_app(
            lambda config: add_views(config, witness),
            lambda config: add_exception_views(config, witness),
            lambda config: add_streaming_views(config, witness),
            lambda config: add_surroundings(config, witness),
            settings=settings,
        )
        for _ in range(2)
    ]


async def interleave(apps):
    """Serve all the requests at once, in one order of ending or another."""
    clients = [Client("/" + VIEWS[i % len(VIEWS)]) for i in range(REQUESTS)]
    tasks = [
        client.start(apps[i // len(VIEWS) % 2]) for i, client in enumerate(clients)
    ]
    await asyncio.gather(*tasks)
    assert all(client.ended and client.status == 200 for client in clients)


def stack_here():
    """What is on this thread's stack, and in this context."""
    return list(manager.stack), get_current_request()


async def stacks_of_threads(app):
    """The same, for each thread of the application's executor."""
    barrier = threading.Barrier(WORKERS)

    def look():
        barrier.wait(10)
        return stack_here()

    executor = app.app.registry.getUtility(IExecutor)
    return await asyncio.gather(*[executor.run(look) for _ in range(WORKERS)])


@pytest.mark.parametrize("sync_views", ["executor", "inline", "request"])
def test_interleaved_requests_are_isolated(run, sync_views):
    witness = Witness(seed=sync_views)
    apps = make_apps(witness, sync_views)

    async def main():
        await interleave(apps)
        stacks = [stack_here()]
        for app in apps:
            stacks += await stacks_of_threads(app)
        return stacks

    stacks = run(main())
    assert witness.wrong == []
    # Every place was asked, before and after its waits, by every request.
    assert len(witness.seen) == PLACES
    assert min(witness.seen.values()) >= REQUESTS / len(VIEWS)
    assert sum(witness.seen.values()) > 20 * REQUESTS
    assert stacks == [([], None)] * (1 + 2 * WORKERS)
    assert stack_here() == ([], None)


def test_without_isolation_every_place_is_wrong(run):
    witness = Witness(seed="control")
    apps = make_apps(witness, "executor")
    threadlocal.uninstall()
    try:
        run(interleave(apps))
    finally:
        manager.clear()
        threadlocal.install()
    assert set(witness.wrong) == set(witness.seen)
    assert len(witness.wrong) > sum(witness.seen.values()) / 2


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("sync_views", ["executor", "inline", "request"])
@pytest.mark.parametrize("kind", ["coroutine", "function"])
def test_requests_may_end_in_any_order(run, order, sync_views, kind):
    started = [asyncio.Event(), asyncio.Event()]
    released = [asyncio.Event(), asyncio.Event()]
    ended = []

    async def meet(request):
        number = int(request.path[1:])
        assert get_current_request() is request
        started[number].set()
        await released[number].wait()
        assert get_current_request() is request
        ended.append(number)
        return Response("ended")

    def function(request):
        response = wait(meet(request))
        assert get_current_request() is request
        return response

    def add_routes(config):
        config.add_route("number", "/{number}")
        view = meet if kind == "coroutine" else function
        config.add_view(view, route_name="number")

    app = make_app(add_routes, settings={"aioext.sync_views": sync_views})

    async def main():
        tasks = []
        for number in 0, 1:
            tasks.append(Client(f"/{number}").start(app))
            await started[number].wait()
        for number in order:
            released[number].set()
            client = await tasks[number]
            assert client.body == b"ended"
            assert get_current_request() is None
        return stack_here()

    assert run(main()) == ([], None)
    assert ended == list(order)


def test_a_request_is_current_again_while_its_body_is_iterated_over(run):
    seen = []

    class Body:
        def __iter__(self):
            seen.append(get_current_request())
            yield b"chunk"
            wait(asyncio.sleep(0))
            seen.append(get_current_request())

        def close(self):
            seen.append(get_current_request())

    requests = []

    async def view(request):
        requests.append(request)
        return Response(app_iter=Body())

    app = make_app(lambda config: config.add_view(view))

    async def main():
        await Client().call(app)
        # In this very Task, which served the request.
        return get_current_request(), get_current_registry()

    current, registry = run(main())
    assert requests * 3 == seen
    assert current is None
    assert registry is not app.app.registry


def test_a_child_task_keeps_its_request(run):
    request_ended = asyncio.Event()
    children = []

    async def child(request):
        await request_ended.wait()
        return get_current_request() is request

    async def view(request):
        children.append(asyncio.create_task(child(request)))
        return Response("parent")

    app = make_app(lambda config: config.add_view(view))

    async def main():
        await Client().call(app)
        assert get_current_request() is None
        request_ended.set()
        return await children[0]

    assert run(main())


def test_a_task_that_a_request_made_may_serve_another_one(run):
    # A server may start its next request in the context of the one before.
    tasks = []
    seen = []

    async def view(request):
        seen.append(get_current_request() is request)
        if request.path == "/":
            tasks.append(Client("/next").start(app))
        return Response("served")

    app = make_app(
        lambda config: config.add_view(view),
        lambda config: config.add_view(view, "next"),
    )

    async def main():
        await Client().call(app)
        await tasks[0]
        return get_current_request()

    assert run(main()) is None
    assert seen == [True, True]


@pytest.mark.parametrize("sync_views", ["executor", "inline", "request"])
@pytest.mark.parametrize("kind", ["coroutine", "function", "stream"])
def test_no_request_outlives_its_end(run, sync_views, kind):
    requests = []

    async def coroutine(request):
        await asyncio.sleep(0)
        return function(request)

    def function(request):
        requests.append(weakref.ref(request))
        return Response("function")

    def stream(request):
        function(request)

        def body():
            yield b"chunk"
            assert get_current_request() is requests[-1]()

        return Response(app_iter=body())

    views = {"coroutine": coroutine, "function": function, "stream": stream}
    app = make_app(
        lambda config: config.add_view(views[kind]),
        settings={"aioext.sync_views": sync_views},
    )
    executor = app.app.registry.getUtility(IExecutor)

    async def main():
        for _ in range(3):
            client = await Client().call(app)
            assert client.status == 200
        # Threads let go of a call a moment after they have ended it.
        await executor.aclose()
        return [request() for request in requests]

    gc.disable()
    try:
        assert run(main()) == [None] * 3
    finally:
        gc.enable()

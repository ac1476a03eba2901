"""Tweens that are coroutine functions, between ordinary ones and in every mode."""

import asyncio
import contextvars
import functools
import sys
import threading

import pytest
from asgi import Client
from inprocess import BACKGROUND, EXECUTOR, LOOP, answer, answers, make_app, where
from pyramid.httpexceptions import HTTPFound
from pyramid.response import Response
from pyramid.threadlocal import get_current_request
from pyramid.tweens import EXCVIEW, INGRESS
from webtest import TestApp

from aioext import ScopeError, synchronize, threads, use_executor, wait
from aioext.tweens import async_tween

MODES = ["executor", "inline", "request"]
# Where an ordinary view runs.
VIEW = {"executor": EXECUTOR, "inline": LOOP, "request": EXECUTOR}

variable = contextvars.ContextVar("variable", default="unset")


def trace(request):
    return request.environ.setdefault("test.trace", [])


# Factories, by their dotted names


def ordinary(handler, registry):
    """A tween as everybody writes them."""

    def tween(request):
        trace(request).append("ordinary")
        response = handler(request)
        trace(request).append("ordinary after")
        return response

    return tween


def noting(handler, registry):
    """Notes in which thread it runs."""

    def tween(request):
        registry["threads"].append(threading.get_ident())
        return handler(request)

    return tween


noting_beneath = noting


@async_tween
def marked(handler, registry):
    """Waits before and after."""

    async def tween(request):
        trace(request).append("marked")
        await asyncio.sleep(0)
        response = await handler(request)
        await asyncio.sleep(0)
        trace(request).append("marked after")
        response.headers["X-Tween"] = where()
        return response

    return tween


@async_tween
class Marked:
    """The same as a class."""

    def __init__(self, handler, registry):
        self.handler = handler
        self.registry = registry

    async def __call__(self, request):
        trace(request).append("class")
        await asyncio.sleep(0)
        response = await self.handler(request)
        trace(request).append("class after")
        return response


@async_tween
def in_task(handler, registry):
    """Awaits the handler in a Task of its own."""

    async def tween(request):
        return await asyncio.create_task(handler(request))

    return tween


@async_tween
def in_group(handler, registry):
    async def tween(request):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(handler(request))
            group.create_task(asyncio.sleep(0))
        return task.result()

    return tween


@async_tween
def gathered(handler, registry):
    async def tween(request):
        response, _ = await asyncio.gather(handler(request), asyncio.sleep(0))
        return response

    return tween


@async_tween
def timed(handler, registry):
    async def tween(request):
        async with asyncio.timeout(10):
            return await handler(request)

    return tween


def end_by(limit):
    @synchronize
    async def end():
        limit.reschedule(-1)

    return end


@async_tween
def limited(handler, registry):
    """Gives up when the request says so."""

    async def tween(request):
        try:
            async with asyncio.timeout(None) as limit:
                request.environ["test.end"] = end_by(limit)
                return await handler(request)
        except TimeoutError:
            return Response("too late", status=503)

    return tween


@async_tween
def catching(handler, registry):
    """Makes a response of an error."""

    async def tween(request):
        try:
            return await handler(request)
        except ZeroDivisionError as error:
            await asyncio.sleep(0)
            return Response("caught" if sys.exc_info()[1] is error else "lost")

    return tween


@async_tween
def raising(handler, registry):
    async def tween(request):
        await asyncio.sleep(0)
        await handler(request)
        raise HTTPFound("/elsewhere")

    return tween


@async_tween
def again(handler, registry):
    """Calls the handler as often as it fails."""

    async def tween(request):
        while True:
            try:
                return await handler(request)
            except ZeroDivisionError:
                await asyncio.sleep(0)

    return tween


@async_tween
def handling(handler, registry):
    """The same, while it handles the error."""

    async def tween(request):
        try:
            return await handler(request)
        except ZeroDivisionError:
            return await tween(request)

    return tween


@async_tween
def twice(handler, registry):
    """Awaits two at once."""

    async def tween(request):
        responses = await asyncio.gather(handler(request), handler(request))
        return Response("".join(response.text for response in responses))

    return tween


@async_tween
def setting(handler, registry):
    async def tween(request):
        variable.set("tween")
        response = await handler(request)
        response.headers["X-Variable"] = variable.get()
        return response

    return tween


@async_tween
def staying_out(handler, registry):
    return handler


@async_tween
def hidden(handler, registry):
    """An ordinary function that gives a coroutine."""

    async def inner(request):
        return await handler(request)

    return lambda request: inner(request)


@async_tween
def answering(handler, registry):
    async def tween(request):
        await asyncio.sleep(0)
        return Response("answered")

    return tween


@async_tween
def synchronous_inside(handler, registry):
    """ordinary"""

    def tween(request):
        return Response("ordinary")

    return tween


@async_tween
def giving_an_awaitable(handler, registry):
    """awaitable"""

    class Awaitable:
        def __init__(self, request):
            self.request = request

        def __await__(self):
            yield from handler(self.request).__await__()
            return Response("awaitable")

    return Awaitable


def with_tweens(*factories, view=None, mode="executor", steps=(), **options):
    """An application with these tweens, the first one on top."""

    async def default_view(request):
        trace(request).append(where())
        return Response(where())

    def add(config):
        under = INGRESS
        for factory in factories:
            name = factory if isinstance(factory, str) else name_of(factory)
            config.add_tween(name, under=under, over=EXCVIEW)
            under = name
        config.add_view(view or default_view)

    settings = {"aioext.sync_views": mode}
    return make_app(add, *steps, settings=settings, **options)


def name_of(factory):
    return name_in(factory.__name__)


def name_in(module_name):
    return f"{__name__}.{module_name}"


@pytest.mark.parametrize("mode", MODES)
class TestInEveryMode:
    def test_it_stands_between_ordinary_tweens(self, mode):
        seen = []

        def view(request):
            seen.extend(trace(request))
            request.add_finished_callback(lambda r: seen.extend(trace(r)))
            return Response("done")

        client = answer(with_tweens(marked, ordinary, Marked, view=view, mode=mode))
        assert client.body == b"done"
        before = ["marked", "ordinary", "class"]
        after = ["class after", "ordinary after", "marked after"]
        assert seen == [*before, *before, *after]
        assert (b"x-tween", b"loop") in client.headers

    @pytest.mark.parametrize(
        "factory",
        [marked, Marked, in_task, in_group, gathered, timed, hidden, staying_out],
        ids=lambda factory: factory.__name__,
    )
    def test_the_rest_of_the_request_runs_where_it_would(self, mode, factory):
        threads = []

        @synchronize
        async def load():
            await asyncio.sleep(0)
            return where()

        def view(request):
            threads.append(threading.get_ident())
            assert get_current_request() is request
            assert load() == LOOP
            return Response(where())

        app = with_tweens(
            noting, ordinary, factory, name_in("noting_beneath"), view=view, mode=mode
        )
        app.app.registry["threads"] = threads
        assert answer(app).body.decode() == VIEW[mode]
        *tweens, view_thread = threads
        assert len(set(tweens)) == 1
        # What the request has opened may belong to its thread.
        assert (view_thread in tweens) is (mode != "executor")

    def test_an_error_goes_up_through_it(self, mode):
        def view(request):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            answer(with_tweens(marked, view=view, mode=mode))
        assert answer(with_tweens(catching, view=view, mode=mode)).body == b"caught"
        app = with_tweens(
            catching, marked, ordinary, in_group_free, view=view, mode=mode
        )
        assert answer(app).body == b"caught"

    def test_an_error_of_it_goes_up_to_an_exception_view(self, mode):
        def add(config):
            config.add_tween(name_of(raising), under=EXCVIEW)
            config.add_view(lambda request: Response("view"))

        app = make_app(add, settings={"aioext.sync_views": mode})
        client = answer(app)
        assert client.status == 302

    def test_an_exception_view_finds_what_is_handled(self, mode):
        def failing(request):
            raise ZeroDivisionError

        def error_view(error, request):
            assert sys.exc_info()[1] is error
            return Response("handled")

        def add(config):
            config.add_exception_view(error_view, context=ZeroDivisionError)

        app = with_tweens(marked, in_task, view=failing, mode=mode, steps=[add])
        assert answer(app).body == b"handled"

    @pytest.mark.parametrize("tween", [again, handling])
    def test_it_may_call_the_handler_again(self, mode, tween):
        handled = []

        def view(request):
            handled.append(sys.exc_info()[0])
            if len(handled) < 3:
                raise ZeroDivisionError
            return Response("third")

        app = with_tweens(tween, marked, view=view, mode=mode)
        assert answer(app).body == b"third"
        if tween is handling:
            assert handled == [None, ZeroDivisionError, ZeroDivisionError]

    def test_it_may_await_two_at_once(self, mode):
        async def view(request):
            await asyncio.sleep(0)
            return Response("x")

        assert answer(with_tweens(twice, view=view, mode=mode)).body == b"xx"

    def test_context_variables_go_both_ways(self, mode):
        async def view(request):
            seen = variable.get()
            variable.set("view")
            return Response(seen)

        client = answer(with_tweens(setting, view=view, mode=mode))
        assert client.body == b"tween"
        assert (b"x-variable", b"view") in client.headers

    def test_a_timeout_of_it_cancels_the_rest(self, mode):
        ended = []

        def view(request):
            request.environ["test.end"]()
            try:
                wait(asyncio.Event().wait())
            except asyncio.CancelledError:
                ended.append(where())
                raise

        async def async_view(request):
            return view(request)

        for each in view, async_view:
            client = answer(with_tweens(ordinary, limited, view=each, mode=mode))
            assert (client.status, client.body) == (503, b"too late")
        assert len(ended) == 2

    def test_requests_overlap(self, mode):
        together = asyncio.Barrier(3)

        async def view(request):
            async with asyncio.timeout(10):
                await together.wait()
            assert get_current_request() is request
            return Response("served")

        app = with_tweens(ordinary, marked, in_task, view=view, mode=mode)
        clients = answers(app, ["/"] * 3)
        assert [client.body for client in clients] == [b"served"] * 3

    def test_it_may_answer_itself(self, mode):
        assert answer(with_tweens(answering, mode=mode)).body == b"answered"

    def test_a_subrequest_goes_through_it(self, mode):
        async def view(request):
            if request.params:
                return Response(where())
            inner = request.blank("/?inner=1", base_url=request.host_url)
            return request.invoke_subrequest(inner, use_tweens=True)

        app = with_tweens(ordinary, marked, in_task, view=view, mode=mode)
        client = answer(app)
        assert client.body == b"loop"
        assert client.headers.count((b"x-tween", b"loop")) == 1

    def test_a_cancelled_request_ends_in_all_of_it(self, mode):
        ended = []

        async def main():
            waiting = asyncio.Event()

            async def for_ever():
                waiting.set()
                await asyncio.Event().wait()

            def view(request):
                try:
                    wait(for_ever())
                finally:
                    ended.append("view")

            app = with_tweens(finishing, marked, in_task, view=view, mode=mode)
            app.app.registry["ended"] = ended
            task = Client().start(app)
            await waiting.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert ended == ["view", "tween"]


@async_tween
def finishing(handler, registry):
    async def tween(request):
        try:
            return await handler(request)
        finally:
            await asyncio.sleep(0)
            registry["ended"].append("tween")

    return tween


@async_tween
def in_group_free(handler, registry):
    """A TaskGroup, and the one error that it has."""

    async def tween(request):
        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(handler(request))
        except* ZeroDivisionError as errors:
            error = errors.exceptions[0]
        else:
            return task.result()
        raise error

    return tween


def test_a_request_that_was_cancelled_before_does_not_begin_a_tween(run):
    app = with_tweens(holding, marked, mode="request")
    registry = app.app.registry
    registry["holding"], registry["held"] = threading.Event(), threading.Event()

    async def main():
        task = Client().start(app)
        await asyncio.to_thread(registry["holding"].wait, 10)
        task.cancel()
        # Nothing tells of it.
        while not registry["scope"].cancellation_pending:  # noqa: ASYNC110
            await asyncio.sleep(0)
        registry["held"].set()
        with pytest.raises(asyncio.CancelledError):
            await task

    # The coroutine of the tween beneath would warn that it was never awaited.
    run(main())


def holding(handler, registry):
    """Blocks, and waits for nothing that could be cancelled."""

    def tween(request):
        registry["scope"] = threads.current_scope()
        registry["holding"].set()
        assert registry["held"].wait(10)
        return handler(request)

    return tween


def test_few_threads_serve_many_requests():
    # Each request holds a thread, and needs another one beneath its tweens.
    blocking = use_executor(lambda: where())

    def view(request):
        return Response(wait(blocking()) + where())

    settings = {"aioext.sync_views": "request", "aioext.executor_workers": "2"}

    def add(config):
        config.add_settings(settings)
        for factory in (marked, in_task, gathered):
            config.add_tween(name_of(factory))
        config.add_view(view)

    clients = answers(make_app(add), ["/"] * 50)
    assert {client.body for client in clients} == {b"executorexecutor"}


def test_a_request_in_a_thread_gets_the_thread_back_from_tasks_left_behind(run):
    left = []

    def view(request):
        request.environ["test.begun"].set()
        try:
            wait(asyncio.Event().wait())
        finally:
            left.append(where())

    app = with_tweens(leaving, view=view, mode="request")
    assert run(Client().call(app)).body == b"left"
    assert left == [EXECUTOR]


@async_tween
def leaving(handler, registry):
    async def tween(request):
        loop = asyncio.get_running_loop()
        begun = asyncio.Event()

        class FromThread:
            def set(self):
                loop.call_soon_threadsafe(begun.set)

        request.environ["test.begun"] = FromThread()
        registry["task"] = asyncio.create_task(handler(request))
        registry["task"].add_done_callback(lambda task: task.cancelled())
        await begun.wait()
        return Response("left")

    return tween


def test_a_task_left_behind_cannot_have_the_thread_any_more(run):
    app = with_tweens(too_late, mode="request")

    async def main():
        client = await Client().call(app)
        app.app.registry["answered"].set()
        with pytest.raises(ScopeError, match="left behind"):
            await app.app.registry["task"]
        return client

    assert run(main()).body == b"early"


@async_tween
def too_late(handler, registry):
    async def tween(request):
        registry["answered"] = answered = asyncio.Event()

        async def late():
            await answered.wait()
            return await handler(request)

        registry["task"] = asyncio.create_task(late())
        return Response("early")

    return tween


def test_a_task_left_behind_before_its_turn_is_cancelled(run):
    called = []

    def view(request):
        called.append(wait(asyncio.sleep(0)))
        return Response("view")

    async def main():
        app = with_tweens(hurried, mode="request", view=view)
        client = await Client().call(app)
        assert all(task.done() for task in app.app.registry["tasks"])
        return client

    assert run(main()).body == b"hurried"
    assert len(called) < 3


@async_tween
def hurried(handler, registry):
    async def tween(request):
        # The thread takes them one after the other.
        registry["tasks"] = [asyncio.create_task(handler(request)) for _ in range(3)]
        await asyncio.sleep(0)
        return Response("hurried")

    return tween


class TestPlainWSGI:
    @pytest.mark.parametrize("mode", MODES)
    def test_the_rest_runs_in_the_servers_thread(self, mode):
        here = threading.get_ident()

        def view(request):
            assert threading.get_ident() == here
            assert get_current_request() is request
            return Response(where())

        app = with_tweens(ordinary, marked, in_task, timed, view=view, mode=mode)
        response = TestApp(app.app).get("/")
        assert response.text == LOOP
        assert response.headers["X-Tween"] == BACKGROUND

    def test_a_coroutine_view_runs_in_the_background(self):
        app = with_tweens(ordinary, marked, in_group)
        assert TestApp(app.app).get("/").text == BACKGROUND

    def test_errors_and_timeouts(self):
        def view(request):
            raise ZeroDivisionError

        app = with_tweens(marked, catching, in_task, view=view)
        assert TestApp(app.app).get("/").text == "caught"

        def waiting(request):
            request.environ["test.end"]()
            wait(asyncio.Event().wait())

        app = with_tweens(marked, limited, view=waiting)
        assert TestApp(app.app).get("/", status=503).text == "too late"


# The way of aiopyramid, which has no decorator


def coroutine_logger_tween_factory(handler, registry):
    """Logs in a thread, by a synchronized coroutine."""
    written = registry.setdefault("written", [])

    @synchronize
    async def write(content):
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, written.append, content)

    def coroutine_logger_tween(request):
        write("request")
        response = handler(request)
        write("response")
        return response

    return coroutine_logger_tween


@pytest.mark.parametrize("mode", MODES)
def test_an_ordinary_tween_may_call_what_is_synchronized(mode):
    app = with_tweens(coroutine_logger_tween_factory, marked, mode=mode)
    assert answer(app).status == 200
    assert app.app.registry["written"] == ["request", "response"]
    TestApp(app.app).get("/")
    assert len(app.app.registry["written"]) == 4


# The decorator


def test_it_gives_an_ordinary_factory():
    assert marked.__name__ == "marked"
    assert marked.__doc__ == "Waits before and after."
    tween = marked(lambda request: request, None)
    assert not asyncio.iscoroutinefunction(tween)
    assert tween.__name__ == "tween"


def test_a_tween_that_stays_out_of_the_way_is_none():
    handler = object.__new__(type("Handler", (), {"__call__": lambda self, r: r}))
    assert staying_out(handler, None) is handler


@pytest.mark.parametrize("mode", MODES)
def test_a_tween_may_be_ordinary_after_all_or_give_any_awaitable(mode):
    for factory in synchronous_inside, giving_an_awaitable:
        client = answer(with_tweens(factory, mode=mode))
        assert client.body.decode() == factory.__doc__


def test_a_partial_object_may_be_a_factory():
    def factory(word, handler, registry):
        async def tween(request):
            response = await handler(request)
            response.text += word
            return response

        return tween

    tween = async_tween(functools.partial(factory, "!"))
    assert tween(lambda request: Response("x"), None)(None).text == "x!"


def test_a_coroutine_function_is_no_factory():
    with pytest.raises(TypeError, match=r"above the function[^$]*async-tween"):

        @async_tween
        async def tween(request): ...

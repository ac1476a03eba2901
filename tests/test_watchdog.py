"""``aioext.debug.blocking``: what holds the loop is named."""

# ruff: noqa: ASYNC251 - to block is what it is about

import asyncio
import logging
import os
import signal
import sys
import threading
import time

import pytest
from asgi import Client
from inprocess import make_app
from pyramid.exceptions import ConfigurationError
from pyramid.response import Response
from test_disconnect import Talk, answer, start

from aioext import wait, watchdog
from aioext.interfaces import ILifespan

LIMIT = 0.05
# Far longer than the limit, on a machine with much to do.
HELD = 0.3


def line_of(function, offset):
    """Where a message says that the line of ``function`` with that offset is."""
    code = function.__code__
    return f"{code.co_filename}, line {code.co_firstlineno + offset},"


def watched(*steps, **settings):
    """An application with the watchdog."""
    settings = {f"aioext.{key}": value for key, value in settings.items()}
    return make_app(*steps, settings={"aioext.debug.blocking": str(LIMIT), **settings})


def configure(view, **options):
    return lambda config: config.add_view(view, renderer="json", **options)


def serve(run, app, *clients):
    """Serve the requests at once, as a server does with a lifespan."""

    async def main():
        async with lifespan_of(app).open():
            await asyncio.gather(*[client.call(app) for client in clients])

    run(main())


def lifespan_of(app):
    return app.app.registry.getUtility(ILifespan)


@pytest.fixture
def told(caplog):
    """The messages so far."""
    caplog.set_level(logging.WARNING, "aioext")
    return lambda: [
        record.message for record in caplog.records if "loop was held" in record.message
    ]


def dogs():
    return [each for each in threading.enumerate() if each.name == "aioext-watchdog"]


def test_a_coroutine_view_that_blocks_is_named(run, told):
    async def view(request):
        time.sleep(HELD)
        return {}

    serve(run, watched(configure(view)), Client())
    (message,) = told()
    assert line_of(view, 1) in message
    assert "in test_a_coroutine_view_that_blocks_is_named.<locals>.view" in message
    assert "held for more than 50 ms" in message
    # Its stack, the innermost last, from the call of the application on.
    first, *_, last = message.strip().splitlines()[1:]
    assert "gateway.py" in first
    assert last.strip() == "time.sleep(HELD)"


def test_what_computes_is_named_as_well(run, told):
    async def view(request):
        end = time.monotonic() + HELD
        while time.monotonic() < end:
            sum(range(1000))
        return {}

    serve(run, watched(configure(view)), Client())
    (message,) = told()
    assert view.__code__.co_filename in message


def test_the_place_is_the_applications_and_not_its_librarys(run, told):
    async def view(request):
        threading.Event().wait(HELD)
        return {}

    serve(run, watched(configure(view)), Client())
    (message,) = told()
    assert line_of(view, 1) in message
    assert "threading.py" in message


def test_a_tween_that_blocks_is_named(run, told):
    def factory(handler, registry):
        def tween(request):
            time.sleep(HELD)
            return handler(request)

        return tween

    slow_tween.factory = factory
    app = watched(configure(quick), lambda c: c.add_tween(f"{__name__}.slow_tween"))
    serve(run, app, Client())
    (message,) = told()
    assert "in test_a_tween_that_blocks_is_named.<locals>.factory.<locals>.tween" in (
        message
    )


def slow_tween(handler, registry):
    return slow_tween.factory(handler, registry)


async def quick(request):
    return {}


@pytest.mark.parametrize("kind", ["callback", "task"])
def test_what_is_no_request_is_named(run, told, kind):
    def callback():
        time.sleep(HELD)

    async def task():
        await asyncio.sleep(0)
        callback()

    async def main():
        app = watched(configure(quick))
        async with lifespan_of(app).open():
            if kind == "callback":
                asyncio.get_running_loop().call_soon(callback)
                await asyncio.sleep(0.01)
            else:
                await asyncio.create_task(task())

    run(main())
    (message,) = told()
    assert line_of(callback, 1) in message


def test_a_lifespan_and_a_subscriber_are_watched(run, told):
    import contextlib

    @contextlib.asynccontextmanager
    async def resource(registry):
        time.sleep(HELD)
        yield

    app = watched(configure(quick), lambda c: c.add_lifespan(resource))
    serve(run, app)
    (message,) = told()
    assert line_of(resource.__wrapped__, 2) in message


def test_each_place_is_named_once(run, told):
    async def view(request):
        if request.params["n"] == "1":
            time.sleep(HELD)
        else:
            time.sleep(HELD)
        return {}

    clients = [Client(query_string=f"n={n}".encode()) for n in (1, 2, 1, 2)]
    serve(run, watched(configure(view)), *clients)
    first, second = told()
    assert line_of(view, 2) in first
    assert line_of(view, 4) in second


def test_what_moves_on_while_it_holds_the_loop_is_named_once(run, told):
    async def view(request):
        for _ in range(10):
            time.sleep(LIMIT / 2)
            time.sleep(LIMIT / 2)
            time.sleep(LIMIT / 2)
        return {}

    serve(run, watched(configure(view)), Client())
    assert len(told()) == 1


def test_many_that_are_short_hold_nothing(run, told):
    async def view(request):
        for _ in range(3):
            time.sleep(0.01)
            await asyncio.sleep(0)
        return {}

    # Together they keep each beat waiting for longer than the limit.
    limit = {"aioext.debug.blocking": "300ms"}
    serve(
        run, make_app(configure(view), settings=limit), *[Client() for _ in range(40)]
    )
    assert told() == []


def test_a_thread_that_blocks_holds_nothing(run, told):
    def view(request):
        time.sleep(HELD)
        return {}

    serve(run, watched(configure(view)), Client())
    assert told() == []


def test_waiting_holds_nothing(run, told):
    def view(request):
        wait(asyncio.sleep(HELD))
        return {}

    serve(run, watched(configure(view), sync_views="inline"), Client())
    assert told() == []


# Locks


class Locked:
    """Views of which one holds a lock while it waits, and one wants it."""

    def __init__(self, lock):
        self.lock = lock
        self.holder = asyncio.Event()

    def holds(self, request):
        with self.lock:
            self.holder.set()
            wait(self.rest())
        return {}

    async def holds_too(self, request):
        with self.lock:
            self.holder.set()
            await self.rest()
        return {}

    async def streams(self, request):
        async def chunks():
            yield b"first"
            with self.lock:
                self.holder.set()
                await self.rest()

        return Response(app_iter=chunks())

    async def rest(self):
        await asyncio.sleep(60)

    def wants(self, request):
        with self.lock:
            return {}

    def acquires(self, request):
        self.lock.acquire()
        self.lock.release()
        return {}


@pytest.mark.parametrize("holding", ["holds", "holds_too", "streams"])
@pytest.mark.parametrize("wanting", ["wants", "acquires"])
def test_a_lock_is_named_with_who_may_hold_it(run, told, holding, wanting):
    lock = threading.Lock()
    locked = Locked(lock)

    def add_views(config):
        config.add_view(getattr(locked, holding), name="a", renderer="json")
        config.add_view(getattr(locked, wanting), name="b", renderer="json")

    app = watched(add_views, sync_views="inline")

    async def main():
        async with lifespan_of(app).open():
            holder = Client("/a").start(app)
            await locked.holder.wait()
            # What nobody else can do, for the loop stands.
            release = threading.Timer(HELD * 2, lock.release)
            release.start()
            await Client("/b").call(app)
            lock.acquire()
            holder.cancel()
            with pytest.raises(asyncio.CancelledError):
                await holder
            release.join()

    run(main())
    (message,) = told()
    held, _, by = message.partition("It stands in a lock's acquire().")
    assert line_of(getattr(Locked, wanting), 1) in held
    assert "held by one of these:\nGET '/a'" in by
    # Down to where it waits.
    assert f"in {'chunks' if holding == 'streams' else holding}\n" in by
    assert "in rest\n    await asyncio.sleep(60)" in by
    assert "GET '/b'" not in by


def test_a_lock_that_a_thread_holds_is_named_with_its_stack(run, told):
    lock = threading.Lock()
    begun = threading.Event()

    def holds(request):
        with lock:
            begun.set()
            time.sleep(HELD * 2)
        return {}

    async def wants(request):
        begun.wait(10)
        with lock:
            return {}

    def add_views(config):
        config.add_view(holds, name="a", renderer="json")
        config.add_view(wants, name="b", renderer="json")

    app = watched(add_views)
    serve(run, app, Client("/a"), Client("/b"))
    message = told()[-1]
    _, _, by = message.partition("It stands in a lock's acquire().")
    assert "thread aioext-executor" in by
    assert "time.sleep(HELD * 2)" in by


def test_a_lock_of_logging_is_named_without_logging(run, capfd, monkeypatch):
    monkeypatch.setattr(watchdog, "PATIENCE", 0.1)
    logger = logging.getLogger("aioext")
    begun, ended = threading.Event(), threading.Event()

    class Handler(logging.Handler):
        def emit(self, record):
            pass

    handler = Handler()

    def holds():
        with handler.lock:
            begun.set()
            ended.wait(10)

    async def view(request):
        with handler.lock:
            return {}

    logger.addHandler(handler)
    thread = threading.Thread(target=holds)
    thread.start()
    begun.wait(10)
    threading.Timer(HELD * 2, ended.set).start()
    try:
        serve(run, watched(configure(view)), Client())
    finally:
        thread.join()
        logger.removeHandler(handler)
    assert line_of(view, 1) in capfd.readouterr().err


def test_only_a_lock_has_the_others_shown(run, told):
    async def view(request):
        time.sleep(HELD)
        return {}

    serve(run, watched(configure(view)), Client(), Client())
    (message,) = told()
    assert "acquire()" not in message
    assert "GET '/'" not in message


# Its life


def test_it_begins_and_ends_with_the_lifespan(run):
    app = watched(configure(quick))

    async def main():
        assert dogs() == []
        async with lifespan_of(app).open():
            assert len(dogs()) == 1
            assert watchdog.is_on
        assert dogs() == []
        assert not watchdog.is_on

    run(main())
    run(main())


def test_without_the_setting_there_is_none(run):
    app = make_app(configure(quick))

    async def main():
        async with lifespan_of(app).open():
            assert dogs() == []
            await Client().call(app)

    run(main())


def test_two_applications_on_one_loop_have_one(run, told):
    async def view(request):
        time.sleep(HELD)
        return {}

    first, second = watched(configure(quick)), watched(configure(view))

    async def main():
        async with lifespan_of(first).open(), lifespan_of(second).open():
            assert len(dogs()) == 1
            await Client().call(second)

    run(main())
    assert len(told()) == 1


def test_it_keeps_nothing_of_a_request(run):
    import gc
    import weakref

    requests = []

    async def view(request):
        requests.append(weakref.ref(request))
        time.sleep(HELD)
        await asyncio.sleep(0)
        return {}

    async def main():
        app = watched(configure(view))
        async with lifespan_of(app).open():
            await Client().call(app)
            await asyncio.sleep(LIMIT * 2)
            gc.collect()
            return requests[0]()

    assert run(main()) is None
    assert not watchdog._requests


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_has_none_and_may_start_its_own(script):
    told = script(
        """
        import asyncio, os, sys, time
        sys.path.insert(0, "tests")
        import logging
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        from test_watchdog import configure, lifespan_of, watched, serve
        from aioext import watchdog

        async def view(request):
            time.sleep(0.3)
            return {}

        app = watched(configure(view))

        async def main():
            async with lifespan_of(app).open():
                pid = os.fork()
                if pid:
                    assert os.waitpid(pid, 0)[1] == 0
                    assert watchdog.is_on
                    return
            assert not watchdog.is_on
            os._exit(0)

        asyncio.run(main())

        async def again():
            from asgi import Client
            async with lifespan_of(app).open():
                await Client().call(app)

        pid = os.fork()
        if not pid:
            asyncio.run(again())
            sys.stdout.flush()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        """
    )
    assert told.count("the event loop was held") == 1


@pytest.mark.parametrize("value", ["100ms", "100 ms", "0.1", "0.1s", " .1 "])
def test_times_are_read(value):
    app = make_app(settings={"aioext.debug.blocking": value})
    (dog,) = lifespan_of(app).factories
    assert dog._limit == pytest.approx(0.1)


@pytest.mark.parametrize("value", ["soon", "-1", "100 m", "1e999", "nan", ""])
def test_what_is_no_time_is_refused(value):
    with pytest.raises(ConfigurationError, match="it takes a time, as 100ms"):
        make_app(settings={"aioext.debug.blocking": value})


def test_a_worker_names_what_blocks_and_stops_as_always():
    with start("gunicorn", "watched") as server:
        talk = Talk(server)
        assert answer(server, "/holds") == 200
        talk.wait_for("in holds.")
        assert "guards_app.py, line" in talk.said
        assert talk.said.count("the event loop was held") == 1
        server.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert "closed" in talk.said
        assert "Traceback" not in talk.said


# What it relies on


@pytest.mark.parametrize("statement", ["with lock: pass", "lock.acquire()"])
def test_the_interpreter_still_tells_that_a_frame_stands_in_a_lock(statement):
    lock = threading.Lock()
    lock.acquire()
    thread = threading.Thread(target=exec, args=(statement, {"lock": lock}))
    thread.start()

    def stands():
        frame = sys._current_frames().get(thread.ident)
        # As long as it does not stand there yet, it is in the starting thread's code.
        return frame.f_code.co_filename == "<string>" and watchdog._acquires(frame)

    try:
        deadline = time.monotonic() + 10
        while not stands():
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        lock.release()
        thread.join()

"""pyramid_debugtoolbar: every request has its own panels, and the loop goes on."""

import asyncio
import inspect
import logging
import re
import threading
from urllib.parse import quote

import pytest
from addons import (
    BACKWARDS,
    CROWDS,
    FORWARDS,
    Ask,
    add_views,
    in_every_kind,
    served,
    site_of,
)
from asgi_websocket import InProcess
from greenlet import gettrace, settrace
from inprocess import make_app
from pyramid.httpexceptions import HTTPFound
from pyramid.request import Request
from pyramid.response import Response
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool
from webtest import TestApp

from aioext import ScopeError, debugtoolbar, spawn_greenlet, use_executor, wait
from aioext.config import CoroutineMapper, ExecutorMapper, InlineMapper
from aioext.debugtoolbar import ProfilerLock
from aioext.eventsource import EventSourceMapper
from aioext.websocket import WebsocketMapper

log = logging.getLogger("addon.debugtoolbar")

SETTINGS = {
    "debugtoolbar.exclude_prefixes": "/panels",
    "debugtoolbar.max_request_history": "1000",
    "sqlalchemy.url": "sqlite+aiosqlite:///FILES/database",
}
TOOLBAR = re.compile(r"/_debug_toolbar/([0-9a-f]+)")
PROFILED = {"Cookie": "pdtb_active=performance"}
# Seconds.
PAUSE = 0.002

engine = create_engine("sqlite://", poolclass=NullPool)


# The application


def configure(config):
    log.setLevel(logging.INFO)
    config.include("aioext")
    config.include("pyramid_debugtoolbar")
    config.include("aioext.sqlalchemy")
    config.add_tween(
        f"{__name__}.logging_tween", under="pyramid_debugtoolbar.toolbar_tween_factory"
    )
    add_views(config, "/page/{name}", page)
    add_views(config, "/broken/{name}", broken)
    for view, mapper, pattern in [
        (profile, InlineMapper, "/profile/{calls}"),
        (noise, CoroutineMapper, "/noise/{profiles}"),
        (work, InlineMapper, "/busy/{calls}"),
        (parent, InlineMapper, "/parent/{use_tweens}"),
        (child, CoroutineMapper, "/child"),
        (form, ExecutorMapper, "/form"),
        (redirect, CoroutineMapper, "/redirect"),
        (ticks, EventSourceMapper, "/ticks"),
        (echo, WebsocketMapper, "/echo"),
    ]:
        config.add_route(view.__name__, pattern)
        config.add_view(view, route_name=view.__name__, mapper=mapper)
    config.add_route("panels", "/panels")
    config.add_view(panels, route_name="panels", renderer="json")


def logging_tween(handler, registry):
    def tween(request):
        log.info("begin of %s", request.path)
        response = handler(request)
        log.info("end of %s", request.path)
        return response

    return tween


def page(request):
    name = request.matchdict["name"]
    log.info("view of %s", name)
    with engine.connect() as connection:
        connection.execute(text("SELECT :name"), {"name": name})
        yield
        connection.execute(text("SELECT :name"), {"name": f"{name} again"})
    wait(log_elsewhere(name))
    yield
    log.info("view of %s again", name)
    request.dbsession.execute(text("SELECT :name"), {"name": f"{name} in a session"})
    return html(name)


async def log_elsewhere(name):
    log.info("coroutine of %s", name)
    await use_executor(log.info)("thread of %s", name)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(spawn_greenlet(log.info, "task of %s", name))


def html(name):
    return Response(f"<html><body>{name}</body></html>")


def expected_messages(kind, name):
    path = f"/{kind}/page/{name}"
    return [
        f"begin of {path}",
        f"view of {name}",
        f"coroutine of {name}",
        f"thread of {name}",
        f"task of {name}",
        f"view of {name} again",
        f"end of {path}",
    ]


class BrokenError(Exception):
    pass


def broken(request):
    yield
    raise BrokenError(request.matchdict["name"])


# How many requests have been profiled, and are at work meanwhile.
_profiles = 0
_noises = 0


def profile(request):
    """Waits while another one works, and calls ``own_work`` as often as it is told."""
    global _profiles
    wait(until(lambda: _noises))
    for _ in range(int(request.matchdict["calls"])):
        own_work()
        wait(asyncio.sleep(PAUSE))
    _profiles += 1
    return html("profiled")


async def noise(request):
    """Works until as many requests as it is told have been profiled."""
    global _noises
    last = _profiles + int(request.matchdict["profiles"])
    _noises += 1
    while _profiles < last:
        other_work()
        await asyncio.sleep(0)
    _noises -= 1
    return html("noise")


async def until(condition):
    while not condition():  # noqa: ASYNC110 - the loop is to have something to do
        await asyncio.sleep(0)


def work(request):
    calls = request.matchdict["calls"]
    wait(log_elsewhere(calls))
    with engine.connect() as connection:
        connection.execute(text("SELECT :name"), {"name": calls})
    for _ in range(int(calls)):
        own_work()
        wait(asyncio.sleep(0))
    return html("worked")


def own_work():
    return [own_step() for _ in range(3)]


def own_step():
    return None


def other_work():
    return own_step()


def parent(request):
    log.info("parent")
    environ = {"REMOTE_ADDR": request.remote_addr}
    subrequest = Request.blank("/child", environ, headers=request.headers)
    use_tweens = request.matchdict["use_tweens"] == "true"
    answer = request.invoke_subrequest(subrequest, use_tweens=use_tweens)
    log.info("parent again")
    return html(f"parent of {answer.text}")


async def child(request):
    log.info("child")
    await asyncio.sleep(0)
    log.info("child again")
    return Response("child", content_type="text/plain")


def form(request):
    return html(request.POST["field"])


async def redirect(request):
    raise HTTPFound("/child")


async def ticks(request):
    log.info("first tick")
    yield "first"
    await asyncio.sleep(0)
    yield "second"


async def echo(ws):
    async for message in ws:
        log.info("message")
        await ws.send(message)


def panels(request):
    """What the panels of requests have found, by id; of the last one, if not told."""
    history = dict(request.registry.pdtb_history)
    ids = request.text.split() or [request.registry.pdtb_history.last(1)[0][0]]
    return [told_by(history[each].panels) for each in ids]


def told_by(panels):
    found = {panel.name: panel.data for panel in panels}
    return {
        "log": [each["message"] for each in found["logging"]["records"]],
        "queries": [
            each["parameters"][0]
            for each in found["sqlalchemy"]["queries"]
            if each["raw_sql"] == "SELECT ?"
        ],
        "calls": {
            function[1]: [each["ncalls"], each["cumtime"]]
            for each in found["performance"]["function_calls"]
            if (function := re.search(r"\((\w+)\)", each["filename"]))
        },
        "selects": [
            each["query_index"]
            for each in found["sqlalchemy"]["queries"]
            if each["is_select"]
        ],
        "exception": found["traceback"].get("exception"),
    }


# The tests

site = site_of(configure, SETTINGS, is_clean=False)


def found(site, *answers):
    """What the panels of requests have found; of the last one, if not told."""
    ids = [TOOLBAR.search(answer.text)[1] for answer in answers]
    told = site.ask("/panels", method="POST", body=" ".join(ids).encode()).json()
    assert len(told) == max(len(ids), 1)
    return told


# The toolbar takes its time: many requests in one order only.
@pytest.mark.parametrize("crowd", CROWDS[:-1], ids=str)
def test_every_request_has_its_own_panels(site, crowd):
    paths = crowd.paths("/page/{}")
    answers = site.overlap(paths, crowd.order)
    for (name, _), path, facts in zip(crowd, paths, found(site, *answers), strict=True):
        assert facts["queries"] == [f"{name}", f"{name} again", f"{name} in a session"]
        assert facts["log"] == [
            f"begin of {path}",
            f"view of {name}",
            f"coroutine of {name}",
            f"thread of {name}",
            f"task of {name}",
            f"view of {name} again",
            f"end of {path}",
        ]


@in_every_kind
def test_every_error_has_its_own_page(site, kind):
    paths = [f"/{kind}/broken/<{number}>" for number in range(20)]
    answers = site.overlap([quote(path) for path in paths], BACKWARDS)
    for number, facts in enumerate(found(site, *answers)):
        assert answers[number].status == 500
        assert f"BrokenError: &lt;{number}&gt;" in answers[number].text
        assert facts["exception"].endswith(f"BrokenError: &lt;{number}&gt;")


def test_requests_are_profiled_one_by_one_and_the_others_go_on(site):
    calls = list(range(1, 20))
    asks = [Ask(f"/profile/{each}", headers=PROFILED) for each in calls]
    *answers, noise = site.overlap([*asks, f"/noise/{len(calls)}"], FORWARDS)
    for each, facts in zip(calls, found(site, *answers), strict=True):
        assert facts["calls"]["own_work"][0] == each
        assert facts["calls"]["own_step"][0] == 3 * each
        assert "other_work" not in facts["calls"]
        # Milliseconds, the waits included; a loop's clock may be one too early.
        assert facts["calls"]["profile"][1] >= each * (PAUSE * 1000 - 1)
    assert not found(site, noise)[0]["calls"]


def test_a_subrequest_has_its_own_log(site):
    answer = site.ask("/parent/true")
    assert found(site)[0]["log"] == [
        "begin of /child",
        "child",
        "child again",
        "end of /child",
    ]
    assert found(site, answer)[0]["log"] == [
        "begin of /parent/true",
        "parent",
        "parent again",
        "end of /parent/true",
    ]


def test_a_profiled_request_is_told_not_to_wait_for_itself(site):
    assert site.ask("/parent/false", headers=PROFILED).status == 200
    answer = site.ask("/parent/true", headers=PROFILED)
    assert "ScopeError" in answer.text
    assert "use_tweens=False" in answer.text
    # The next one has its turn.
    assert site.ask("/child", headers=PROFILED).status == 200


def test_the_pages_of_the_toolbar_are_served(site):
    answer = site.ask("/inline/page/shown")
    address = TOOLBAR.search(answer.text)[0]
    page = site.ask(address)
    assert page.status == 200
    assert "coroutine of shown" in page.text
    assert "shown again" in page.text
    events = site.ask("/_debug_toolbar/sse")
    assert events.headers["Content-Type"].startswith("text/event-stream")
    assert '"path": "/inline/page/shown"' in events.text


def test_the_toolbar_repeats_queries_on_either_engine(site):
    answer = site.ask("/executor/page/shown")
    address = TOOLBAR.search(answer.text)[0]
    selects = found(site, answer)[0]["selects"]
    assert len(selects) == 3
    for index in selects:
        for action in ("select", "explain"):
            done = site.ask(f"{address}/sqlalchemy/{action}/{index}")
            assert done.status == 200, done.text


def test_redirects_and_forms_are_as_they_were(site):
    moved = site.ask("/redirect")
    assert moved.status == 302
    assert found(site)[0]["log"] == ["begin of /redirect", "end of /redirect"]
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = site.ask("/form", method="POST", headers=headers, body=b"field=sent")
    assert "sent" in answer.text


def test_an_event_stream_is_streamed(site):
    answer = site.ask("/ticks")
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert "first" in answer.text
    assert "second" in answer.text
    # It began when the toolbar had looked.
    assert found(site)[0]["log"] == ["begin of /ticks", "end of /ticks"]


def test_a_websocket_is_opened(run):
    async def talk():
        async with server.connect("/echo") as ws:
            await ws.send("said")
            return await ws.recv()

    server = InProcess(make_app(configure, settings=SETTINGS))
    assert run(talk()) == "said"


def test_the_panels_are_right_without_a_loop():
    with served("process", configure, SETTINGS) as site:
        app = TestApp(site.app.app, extra_environ={"REMOTE_ADDR": "127.0.0.1"})
        app.get("/busy/3", headers=PROFILED)
        [facts] = app.post("/panels").json
    assert facts["log"][1:-1] == ["coroutine of 3", "thread of 3", "task of 3"]
    assert facts["queries"] == ["3"]
    assert facts["calls"]["own_work"][0] == 3


def test_a_request_in_a_thread_is_profiled_there():
    settings = {**SETTINGS, "aioext.sync_views": "request"}
    with served("process", configure, settings) as site:
        asks = [Ask(f"/busy/{calls}", headers=PROFILED) for calls in (1, 2, 3)]
        answers = found(site, *site.overlap(asks, FORWARDS))
    assert [each["calls"]["own_work"][0] for each in answers] == [1, 2, 3]


# The lock


@pytest.fixture
def lock():
    return ProfilerLock()


class Holder:
    """Has a lock, in a Task or a thread of its own, until it is told to go."""

    def __init__(self, lock):
        self.lock = lock
        self.entered = threading.Event()
        self.leave = threading.Event()

    def __call__(self):
        with self.lock:
            self.entered.set()
            while not self.leave.is_set():
                self.wait()

    def wait(self):
        wait(asyncio.sleep(0))


class Thread(Holder):
    """One that blocks."""

    def wait(self):
        self.leave.wait(10)


async def passes(event):
    while not event.is_set():  # noqa: ASYNC110 - of a thread, or of the loop's own
        await asyncio.sleep(0.001)


def start(holder):
    return asyncio.create_task(spawn_greenlet(holder))


def test_turns_come_in_order(run, lock):
    async def main():
        holders = [Holder(lock) for _ in range(3)]
        tasks = [start(each) for each in holders]
        for number, holder in enumerate(holders):
            await passes(holder.entered)
            assert not any(each.entered.is_set() for each in holders[number + 1 :])
            holder.leave.set()
        await asyncio.gather(*tasks)

    run(main())


def test_one_that_is_cancelled_gives_its_turn_away(run, lock):
    async def main():
        first, second, third = (Holder(lock) for _ in range(3))
        tasks = [start(each) for each in (first, second, third)]
        await passes(first.entered)
        tasks[1].cancel()
        await asyncio.wait(tasks[1:2])
        await asyncio.sleep(0)
        assert not third.entered.is_set()
        first.leave.set()
        await passes(third.entered)
        third.leave.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in results] == [
            type(None),
            asyncio.CancelledError,
            type(None),
        ]
        assert not second.entered.is_set()

    run(main())


def test_a_turn_that_comes_with_a_cancellation_is_passed_on(run, lock):
    async def main():
        first, second, third = (Holder(lock) for _ in range(3))
        task = start(first)
        await passes(first.entered)
        cancelled = start(second)
        other = start(third)
        await asyncio.sleep(0)
        first.leave.set()
        # Its turn has come, and it does not know yet.
        await task
        cancelled.cancel()
        await passes(third.entered)
        third.leave.set()
        await other
        assert not second.entered.is_set()

    run(main())


def test_threads_and_loops_share_it(run, lock):
    async def main():
        in_thread, plain, here = Thread(lock), Thread(lock), Holder(lock)
        task = asyncio.create_task(use_executor(in_thread)())
        await passes(in_thread.entered)
        thread = threading.Thread(target=plain)
        thread.start()
        while not lock._turns:  # noqa: ASYNC110 - a thread tells nobody that it waits
            await asyncio.sleep(0.001)
        other = start(here)
        await asyncio.sleep(0)
        in_thread.leave.set()
        await passes(plain.entered)
        assert not here.entered.is_set()
        plain.leave.set()
        await passes(here.entered)
        here.leave.set()
        await asyncio.gather(task, other)
        thread.join()

    run(main())


def test_a_thread_of_the_executor_waits_as_others_do(run, lock):
    async def main():
        first, second = Holder(lock), Thread(lock)
        task = start(first)
        await passes(first.entered)
        waiting = asyncio.create_task(use_executor(second)())
        while not lock._turns:  # noqa: ASYNC110 - a thread tells nobody that it waits
            await asyncio.sleep(0.001)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        first.leave.set()
        await task
        assert not second.entered.is_set()
        with lock:
            pass

    run(main())


def test_it_is_not_entered_twice(lock):
    with lock:
        with pytest.raises(ScopeError, match="use_tweens=False"):
            lock.__enter__()
    with lock:
        pass


def test_a_tracer_of_somebody_else_goes_on(run, lock):
    seen = []

    def tracer(event, switch):
        seen.append(event)

    async def main():
        await spawn_greenlet(traced)

    def traced():
        before = settrace(tracer)
        try:
            with lock:
                wait(asyncio.sleep(0))
                assert seen
            assert gettrace() is tracer
        finally:
            settrace(before)

    run(main())


# The toolbar's own parts


def test_the_toolbar_is_as_it_is_known():
    from pyramid_debugtoolbar.panels import logger, performance

    original = type(logger.handler)
    assert issubclass(original, logging.Handler)
    for name in ("get_records", "clear_records"):
        parameters = inspect.signature(getattr(original, name)).parameters
        assert list(parameters) == ["self", "thread"]
    assert "with lock:" in inspect.getsource(performance.PerformanceDebugPanel)
    assert "lock = threading.Lock()" in inspect.getsource(performance)


def test_records_of_a_thread_are_asked_for_as_before():
    from pyramid_debugtoolbar.panels.logger import handler

    debugtoolbar.adapt_log_panel()
    debugtoolbar.adapt_log_panel()
    thread = threading.Thread()
    handler.get_records(thread).append("of the thread")
    assert handler.records[thread] == ["of the thread"]
    handler.clear_records(thread)
    assert thread not in handler.records
    # Where no request is, nothing is kept.
    handler.get_records().append("of nobody")
    assert handler.get_records() == []
    handler.clear_records()


@pytest.mark.parametrize(
    ("module", "name"), [("logger", "handler"), ("performance", "lock")]
)
def test_what_a_toolbar_lacks_is_told(module, name, monkeypatch, caplog):
    path = f"pyramid_debugtoolbar.panels.{module}.{name}"
    monkeypatch.delattr(path)
    debugtoolbar._warn.cache_clear()
    make_app(configure, settings=SETTINGS)
    make_app(configure, settings=SETTINGS)
    [record] = [each for each in caplog.records if "panels" in each.message]
    assert (record.name, record.levelname) == ("aioext", "WARNING")
    assert path in record.getMessage()
    assert "errors.html#debugtoolbar" in record.getMessage()


def test_a_toolbar_that_is_not_used_is_left_alone(script):
    source = """
        import sys
        from pyramid.config import Configurator

        def make(*includes, **settings):
            config = Configurator(settings=settings)
            config.include("aioext")
            for each in includes:
                config.include(each)
            config.make_wsgi_app()

        make()
        assert "pyramid_debugtoolbar" not in sys.modules
        from pyramid_debugtoolbar.panels import logger, performance
        made = performance.lock
        make()
        make("pyramid_debugtoolbar", **{"debugtoolbar.enabled": "false"})
        assert performance.lock is made
        make("pyramid_debugtoolbar")
        assert performance.lock is not made
        """
    script(source)

"""The manager that aioext gives Pyramid: loops, threads, and test runners."""

import asyncio
import contextvars
import subprocess
import sys
import threading
import types
import unittest
from pathlib import Path

import pytest
from asgi import Client
from inprocess import make_app
from pyramid import testing
from pyramid import threadlocal as pyramid_threadlocal
from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.scripting import prepare
from pyramid.threadlocal import (
    ThreadLocalManager,
    get_current_registry,
    get_current_request,
    manager,
)
from pyramid.view import render_view
from webtest import TestApp

from aioext import spawn_greenlet, threadlocal, wait
from aioext.executor import Executor

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def isolation():
    """Has aioext's manager installed, and nothing on its stacks afterwards."""
    threadlocal.install()
    yield
    left = list(manager.stack), get_current_request()
    threadlocal.install()
    manager.clear()
    assert left == ([], None)


class Entry(dict):
    """Something to push; ``current()`` tells whether it is current."""

    def __init__(self, name):
        super().__init__(request=name, registry=name)

    def current(self):
        return manager.get() is self and get_current_request() == self["request"]


# The manager itself.


def test_the_object_stays_and_its_class_changes():
    assert pyramid_threadlocal.manager is manager
    assert type(manager) is threadlocal.ContextLocalManager
    threadlocal.install()
    assert type(manager) is threadlocal.ContextLocalManager
    threadlocal.uninstall()
    assert type(manager) is ThreadLocalManager
    threadlocal.uninstall()
    assert type(manager) is ThreadLocalManager
    assert Configurator.manager is manager


def test_what_was_pushed_outlives_a_change_of_the_class():
    entry = Entry("request")
    threadlocal.uninstall()
    manager.push(entry)
    threadlocal.install()
    assert entry.current()
    threadlocal.uninstall()
    assert manager.pop() is entry


def test_nothing_is_done_where_greenlets_are_isolated_already(monkeypatch):
    # gevent's threads are greenlets, and its thread-locals refuse another class.
    class Refusing(ThreadLocalManager):
        __slots__ = ("more",)

    refusing = Refusing(default=dict)
    monkeypatch.setattr(threadlocal, "manager", refusing)
    monkeypatch.setattr(threadlocal, "ThreadLocalManager", Refusing)
    threadlocal.install()
    assert type(refusing) is Refusing


def in_a_loop(function):
    """Call ``function`` where a loop runs."""

    async def main():
        return function()

    return asyncio.run(main())


def in_a_thread(function):
    """Call ``function`` in a thread with an empty context."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def directly(function):
    return function()


@pytest.mark.parametrize("call", [directly, in_a_loop, in_a_thread])
class TestTheStack:
    def test_gives_what_was_pushed_last(self, call):
        def push_and_pop():
            first, second = Entry("first"), Entry("second")
            manager.push(first)
            manager.set(second)
            assert second.current()
            assert manager.pop() is second
            assert first.current()
            assert manager.pop() is first
            return get_current_request()

        assert call(push_and_pop) is None

    def test_may_be_popped_too_often(self, call):
        assert call(manager.pop) is None

    def test_may_be_cleared(self, call):
        def clear():
            for name in "first", "second":
                manager.push(Entry(name))
            manager.clear()
            return get_current_request(), manager.pop()

        assert call(clear) == (None, None)

    def test_takes_entries_of_any_form(self, call):
        def push_and_pop():
            manager.push({"registry": "registry"})
            assert get_current_registry() == "registry"
            return manager.pop()

        assert call(push_and_pop) == {"registry": "registry"}


def test_a_loop_sees_what_the_thread_pushed_before_and_adds_to_it():
    outer, inner = Entry("outer"), Entry("inner")

    def push_and_pop():
        assert outer.current()
        manager.push(inner)
        assert inner.current()
        assert manager.pop() is inner
        return outer.current()

    manager.push(outer)
    assert in_a_loop(push_and_pop)
    assert manager.pop() is outer


def test_what_a_loop_pushes_ends_with_its_task():
    in_a_loop(lambda: manager.push(Entry("left behind")))
    assert get_current_request() is None


def test_a_thread_sees_nothing_of_another_ones():
    manager.push(Entry("request"))
    assert in_a_thread(get_current_request) is None
    manager.pop()


def test_a_task_cannot_pop_from_the_stack_of_the_one_that_made_it(run):
    async def main():
        entry = Entry("request")
        manager.push(entry)

        async def child():
            assert entry.current()
            assert manager.pop() is entry
            manager.push(Entry("child"))

        await asyncio.create_task(child())
        assert entry.current()
        return manager.pop()

    assert run(main())["request"] == "request"


def test_what_a_thread_of_the_executor_pushes_is_not_for_the_next_call(run):
    executor = Executor(workers=1)

    def push():
        manager.push(Entry("left behind"))
        assert get_current_request() == "left behind"

    async def main():
        # In a Task, so that its context is not this one.
        await asyncio.create_task(executor.run(push))
        current = await executor.run(get_current_request)
        await executor.aclose()
        return current

    assert run(main()) is None


def test_synchronous_code_shares_the_stack_of_its_coroutine(run):
    async def main():
        entry = Entry("request")
        await spawn_greenlet(manager.push, entry)
        assert entry.current()
        return await spawn_greenlet(manager.pop) is entry

    assert run(main())


def test_code_that_imported_the_manager_before_is_isolated_as_well():
    program = """
import asyncio, sys
from pyramid.threadlocal import get_current_request, manager
push = manager.push
from pyramid.config import Configurator
from pyramid.response import Response
sys.path.insert(0, "tests")
from asgi import Client
from aioext.asgi import Gateway

async def view(request):
    await asyncio.sleep(0 if request.path == "/0" else 0.01)
    assert manager.get()["request"] is request
    assert get_current_request() is request
    return Response("own")

config = Configurator()
config.include("aioext")
config.add_route("any", "/{any}")
config.add_view(view, route_name="any")
app = Gateway(config.make_wsgi_app())

async def main():
    clients = [Client(f"/{number}").call(app) for number in range(10)]
    return {client.body for client in await asyncio.gather(*clients)}

assert asyncio.run(main()) == {b"own"}
push({"request": "pushed", "registry": None})
assert get_current_request() == "pushed"
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)


# Test runners: ``pyramid.testing`` around code that runs on a loop.


@pytest.fixture
def request_and_app():
    """A request for ``setUp``, and an application with requests of its own."""

    async def view(request):
        assert get_current_request() is request
        await asyncio.sleep(0)
        assert get_current_request() is request
        return Response("own")

    app = make_app(lambda config: config.add_view(view))
    return testing.DummyRequest(), app


async def check(request, app):
    """``request`` is current, and stays so whatever is served meanwhile."""
    assert get_current_request() is request
    assert (await Client().call(app)).body == b"own"
    assert get_current_request() is request
    served = await asyncio.create_task(Client().call(app))
    assert served.body == b"own"
    assert get_current_request() is request


def test_set_up_around_a_plain_function(request_and_app):
    request, app = request_and_app
    config = testing.setUp(request=request)
    assert get_current_request() is request
    assert get_current_registry() is config.registry
    assert TestApp(app.app).get("/").text == "own"
    assert get_current_request() is request
    testing.tearDown()
    assert get_current_request() is None


def test_set_up_before_asyncio_run(request_and_app):
    request, app = request_and_app
    testing.setUp(request=request)
    asyncio.run(check(request, app))
    assert get_current_request() is request
    testing.tearDown()


def test_set_up_within_asyncio_run(request_and_app):
    request, app = request_and_app

    async def main():
        testing.setUp(request=request)
        await check(request, app)
        testing.tearDown()
        assert get_current_request() is None

    asyncio.run(main())


def test_set_up_before_and_tear_down_within_asyncio_run(request_and_app):
    request, app = request_and_app
    testing.setUp(request=request)

    async def main():
        await check(request, app)
        testing.tearDown()
        assert get_current_request() is None

    asyncio.run(main())
    assert get_current_request() is None


async def current():
    return get_current_request()


def test_set_up_while_a_runner_is_kept_open(request_and_app):
    request, app = request_and_app
    with asyncio.Runner() as runner:
        # The runner copies its context here.
        assert runner.run(current()) is None
        for _ in range(2):
            testing.setUp(request=request)
            runner.run(check(request, app))
            testing.tearDown()
            assert runner.run(current()) is None


def test_set_up_in_a_runner_that_is_kept_open(request_and_app):
    request, app = request_and_app

    async def set_up():
        testing.setUp(request=request)

    async def tear_down():
        testing.tearDown()

    with asyncio.Runner() as runner:
        for _ in range(2):
            runner.run(set_up())
            runner.run(check(request, app))
            runner.run(tear_down())
            assert runner.run(current()) is None


@pytest.mark.parametrize("asynchronous_set_up", [False, True])
@pytest.mark.parametrize("asynchronous_tear_down", [False, True])
def test_set_up_in_an_asynchronous_test_case(
    request_and_app, asynchronous_set_up, asynchronous_tear_down
):
    request, app = request_and_app

    class Case(unittest.IsolatedAsyncioTestCase):
        def setUp(self):
            if not asynchronous_set_up:
                testing.setUp(request=request)

        async def asyncSetUp(self):
            if asynchronous_set_up:
                testing.setUp(request=request)

        async def test(self):
            await check(request, app)

        async def test_again(self):
            await check(request, app)

        async def asyncTearDown(self):
            if asynchronous_tear_down:
                testing.tearDown()
                assert get_current_request() is None

        def tearDown(self):
            if not asynchronous_tear_down:
                testing.tearDown()
                assert get_current_request() is None

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    assert result.testsRun == 2
    assert result.errors == result.failures == []


def test_a_thread_sees_what_was_set_up_on_the_loop(run):
    request = testing.DummyRequest()

    async def main():
        testing.setUp(request=request)
        seen = await asyncio.to_thread(get_current_request)
        testing.tearDown()
        return seen

    assert run(main()) is request


def test_a_thread_does_not_see_what_was_set_up_before_the_loop(run):
    # As without aioext: each thread has a stack of its own.
    async def main():
        return await asyncio.to_thread(get_current_request)

    testing.setUp(request=testing.DummyRequest())
    assert run(main()) is None
    testing.tearDown()


def test_test_config_sets_up_and_tears_down(request_and_app):
    request, _ = request_and_app

    async def view(request):
        await asyncio.sleep(0)
        return Response(str(get_current_request() is request))

    with testing.testConfig(request=request) as config:
        config.include("aioext")
        config.add_view(view, name="view")
        request.registry = config.registry
        assert render_view(None, request, "view") == b"True"


def test_a_script_prepares_a_request(request_and_app):
    _, app = request_and_app
    with prepare(registry=app.app.registry) as environment:
        request = environment["request"]
        assert get_current_request() is request
        # What waits sees it on the background loop, too.
        assert wait(current()) is request
    assert get_current_request() is None


# What the gateway uses.


def test_a_context_is_used_once_it_has_had_a_request(run):
    async def main():
        assert not threadlocal.context_is_used()
        manager.push(Entry("request"))
        assert threadlocal.context_is_used()
        assert threadlocal.ended_entry() is None
        assert threadlocal.isolated().run(get_current_request) is None
        assert not threadlocal.isolated().run(threadlocal.context_is_used)
        entry = manager.pop()
        assert threadlocal.ended_entry() is entry
        assert threadlocal.context_is_used()
        threadlocal.forget()
        assert threadlocal.ended_entry() is None
        assert threadlocal.context_is_used()
        assert not threadlocal.isolated().run(threadlocal.context_is_used)

    run(main())


def test_pushed_gives_back_what_was_there():
    entry = Entry("request")
    with threadlocal.pushed(entry):
        assert entry.current()
    assert get_current_request() is None
    with threadlocal.pushed(None):
        assert get_current_request() is None
    with pytest.raises(KeyError), threadlocal.pushed(entry):
        raise KeyError
    assert get_current_request() is None


def test_a_snapshot_is_of_the_threads_own_stack():
    entry = Entry("request")
    context = contextvars.copy_context()
    context.run(threadlocal.snapshot)
    assert context.run(manager.get)["request"] is None
    manager.push(Entry("below"))
    manager.push(entry)
    context.run(threadlocal.snapshot)
    threadlocal.uninstall()
    context.run(threadlocal.snapshot)
    threadlocal.install()
    manager.clear()
    assert context.run(manager.get) is entry


def test_pyramids_manager_is_what_is_relied_on():
    # No public interface: what aioext's class builds upon.
    assert type(ThreadLocalManager.__init__) is types.FunctionType
    assert issubclass(ThreadLocalManager, threading.local)
    assert {"push", "set", "pop", "get", "clear"} <= set(vars(ThreadLocalManager))
    plain = ThreadLocalManager(default=lambda: "default")
    assert plain.stack == []
    assert plain.get() == "default"

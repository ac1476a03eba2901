"""``config.include('aioext')``: when, how often, and what stays usable beside it."""

import asyncio
import os
import subprocess
import sys
import threading
import types
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from inprocess import EXECUTOR, LOOP, answer, make_app, where
from pyramid import testing
from pyramid.config import Configurator
from pyramid.events import NewRequest
from pyramid.exceptions import ConfigurationConflictError
from pyramid.interfaces import IExecutionPolicy, IViewDerivers, IViewMapperFactory
from pyramid.response import Response
from pyramid.router import default_execution_policy
from pyramid.view import render_view_to_response
from webtest import TestApp

from aioext.asgi import Gateway
from aioext.config import CoroutineOrExecutorMapper, InlineMapper
from aioext.interfaces import IExecutor, ILifespan, ISettings, ISockets

ROOT = Path(__file__).parent.parent


def function(request):
    return Response(where())


async def coroutine(request):
    await asyncio.sleep(0)
    return Response(where())


def add_views(config):
    config.add_view(function, name="function")
    config.add_view(coroutine, name="coroutine")


def ran(app):
    """Where a function and a coroutine run in ``app``."""
    paths = "/function", "/coroutine"
    return tuple(answer(app, path).body.decode() for path in paths)


def test_the_include_registers_what_is_documented():
    registry = make_app().app.registry
    for utility in IExecutor, ILifespan, ISettings, ISockets:
        assert registry.queryUtility(utility) is not None
    assert [name for name, _ in registry.getUtilitiesFor(IExecutor)] == [
        "",
        "websocket",
    ]
    mapper = registry.queryUtility(IViewMapperFactory)
    assert mapper is CoroutineOrExecutorMapper
    # There is nothing to do for an execution policy under a server with a loop.
    assert registry.queryUtility(IExecutionPolicy).policy is default_execution_policy


def test_views_may_be_added_before_or_after():
    assert ran(make_app("aioext", add_views)) == (EXECUTOR, LOOP)
    assert ran(make_app(add_views, "aioext")) == (EXECUTOR, LOOP)


def test_including_it_twice_is_harmless():
    assert ran(make_app("aioext", add_views, "aioext")) == (EXECUTOR, LOOP)

    def include_again(config):
        config.include("aioext")

    app = make_app("aioext", lambda config: config.include(include_again), add_views)
    assert ran(app) == (EXECUTOR, LOOP)


def test_it_may_be_included_from_the_settings():
    config = Configurator(settings={"pyramid.includes": "aioext"})
    add_views(config)
    assert ran(Gateway(config.make_wsgi_app())) == (EXECUTOR, LOOP)


def test_a_commit_in_the_middle_changes_nothing():
    def commit(config):
        config.commit()

    assert ran(make_app("aioext", commit, add_views)) == (EXECUTOR, LOOP)
    assert ran(make_app("aioext", add_views, commit)) == (EXECUTOR, LOOP)
    assert ran(make_app("aioext", commit, "aioext", add_views)) == (EXECUTOR, LOOP)


def test_what_was_registered_survives_an_include_after_a_commit():
    opened = []

    def lifespan(name):
        @asynccontextmanager
        async def open_it(registry):
            opened.append(name)
            yield

        return open_it

    def steps(config):
        config.add_lifespan(lifespan("first"))
        config.commit()
        executor = config.registry.getUtility(IExecutor)
        config.include("aioext")
        config.add_lifespan(lifespan("second"))
        config.commit()
        assert config.registry.getUtility(IExecutor) is executor

    answer(make_app(steps, add_views), "/function")
    assert opened == ["first", "second"]


def test_views_that_were_committed_before_keep_pyramids_mapper():
    def commit(config):
        config.add_view(function, name="before")
        config.commit()

    app = make_app(commit, "aioext", add_views)
    assert ran(app) == (EXECUTOR, LOOP)
    assert answer(app, "/before").body.decode() == LOOP


def test_an_application_may_set_its_own_mapper_before_or_after():
    def set_mapper(config):
        config.set_view_mapper(InlineMapper)

    for steps in ("aioext", set_mapper), (set_mapper, "aioext"):
        assert ran(make_app(*steps, add_views)) == (LOOP, LOOP)


def test_an_application_may_register_its_own_executor():
    class Executor:
        called = 0

        def call(self, fn, *args, **kwargs):
            type(self).called += 1
            return fn(*args, **kwargs)

        async def aclose(self): ...

    def register(config):
        config.registry.registerUtility(Executor(), IExecutor)

    for steps in ("aioext", register), (register, "aioext"):
        assert ran(make_app(*steps, add_views)) == (LOOP, LOOP)
    assert Executor.called == 2


def test_an_included_module_and_the_application_do_not_conflict():
    def add_on(config):
        config.include("aioext")
        config.add_view(function, name="function")

    config = Configurator()
    config.include(add_on)
    config.include("aioext")
    config.add_view(coroutine, name="function")
    config.commit()
    # Two of the same rank conflict, as ever.
    config.add_view(function, name="same")
    config.add_view(coroutine, name="same")
    with pytest.raises(ConfigurationConflictError):
        config.commit()


def test_the_view_deriver_stands_where_a_coroutine_may_appear():
    registry = make_app().app.registry
    names = [name for name, _ in registry.getUtility(IViewDerivers).sorted()]
    above = names[names.index("rendered_view") + 1 : names.index("mapped_view")]
    assert "aioext_awaited_view" in above


@pytest.mark.parametrize(
    "place",
    [
        {},
        {"under": "rendered_view", "over": "VIEW"},
        {"under": "rendered_view", "over": "mapped_view"},
        {"under": "rendered_view", "over": "aioext_awaited_view"},
        {"under": "http_cached_view", "over": "decorated_view"},
        {"under": "INGRESS", "over": "secured_view"},
    ],
    ids=str,
)
def test_an_add_on_may_put_its_view_deriver_anywhere(place):
    seen = []

    def deriver(view, info):
        def derived(context, request):
            response = view(context, request)
            seen.append(response.text)
            return response

        return derived

    def add_deriver(config):
        config.add_view_deriver(deriver, "theirs", **place)

    for steps in ("aioext", add_deriver), (add_deriver, "aioext"):
        assert ran(make_app(*steps, add_views)) == (EXECUTOR, LOOP)
    assert seen == [EXECUTOR, LOOP] * 2


def test_an_autocommitting_configurator_has_all_of_it():
    app = make_app("aioext", add_views, autocommit=True)
    assert ran(app) == (EXECUTOR, LOOP)
    settings = {"aioext.sync_views": "request"}
    app = make_app("aioext", add_views, autocommit=True, settings=settings)
    assert ran(app) == (EXECUTOR, LOOP)


def test_derive_view_waits_before_anything_is_committed():
    config = Configurator()
    config.include("aioext")
    view = config.derive_view(coroutine)
    assert view(None, testing.DummyRequest()).text == "background"


def test_unit_tests_may_include_it():
    request = testing.DummyRequest()
    with testing.testConfig(request=request) as config:
        config.include("aioext")
        config.testing_securitypolicy(userid="alice", permissive=True)
        add_views(config)
        request.registry = config.registry
        for name, text in ("function", LOOP), ("coroutine", "background"):
            assert render_view_to_response(None, request, name).text == text


def test_a_make_asgi_app_stands_for_make_wsgi_app():
    config = Configurator()
    config.include("aioext")
    add_views(config)
    app = config.make_asgi_app()
    assert isinstance(app, Gateway)
    assert app.app.registry is config.registry
    assert ran(app) == (EXECUTOR, LOOP)


def test_two_applications_have_an_executor_each():
    first, second = (make_app(add_views) for _ in range(2))
    executors = {each.app.registry.getUtility(IExecutor) for each in (first, second)}
    assert len(executors) == 2
    assert ran(first) == ran(second) == (EXECUTOR, LOOP)


def test_the_application_serves_without_a_loop_as_well():
    client = TestApp(make_app(add_views).app)
    assert client.get("/function").text == LOOP
    assert client.get("/coroutine").text == "background"
    names = []
    thread = threading.Thread(
        target=lambda: names.append(client.get("/coroutine").text)
    )
    thread.start()
    thread.join()
    assert names == ["background"]


# Pyramid does without events where nobody listens.


def test_nobody_is_told_of_events_if_nobody_listens():
    assert make_app(add_views).app.registry.has_listeners is False


@pytest.mark.parametrize("steps", [("aioext", None), (None, "aioext")])
def test_subscribers_are_told_of_events(steps):
    told = []

    def subscribe(config):
        config.add_subscriber(lambda event: told.append(1), "pyramid.events.NewRequest")

    app = make_app(*[each or subscribe for each in steps], add_views)
    answer(app, "/function")
    assert told == [1]


def test_a_subscriber_may_come_when_the_application_serves_already():
    told = []
    app = make_app(add_views)
    registry = app.app.registry
    registry.registerHandler(told.append, (NewRequest,))
    assert ran(app) == (EXECUTOR, LOOP)
    assert len(told) == 2


# Pyramid's own commands.


APPLICATION = """
import asyncio
from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.threadlocal import get_current_request

async def view(request):
    await asyncio.sleep(0)
    assert get_current_request() is request
    return Response("answered by a coroutine")

def tween_factory(handler, registry):
    return handler

def main(global_config, **settings):
    config = Configurator(settings=settings)
    config.add_route("home", "/home")
    config.add_view(view, route_name="home")
    config.add_tween("application.tween_factory")
    return config.make_wsgi_app()
"""

INI = """
[app:main]
use = call:application:main
pyramid.includes = aioext
aioext.sync_views = inline
"""

PSHELL = """
import asyncio, aioext
from pyramid.threadlocal import get_current_request as current
print("current" if current() is request else "another")
print("waited", aioext.wait(asyncio.sleep(0, 42)))
"""

# The command, what it reads, and what it has to print.
COMMANDS = {
    "prequest": (["/home"], "", "answered by a coroutine"),
    "pviews": (["/home"], "", "application.view"),
    "proutes": ([], "", "application.view"),
    "ptweens": ([], "", "application.tween_factory"),
    "pshell": (
        ["-p", "python"],
        PSHELL,
        "waited 42",
    ),
}


def test_pyramids_commands_work_on_an_application(tmp_path):
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "development.ini").write_text(INI)
    paths = [str(tmp_path), str(ROOT)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    started = {}
    for name, (arguments, _, _) in COMMANDS.items():
        module = f"pyramid.scripts.{name}"
        ini = str(tmp_path / "development.ini")
        options = arguments if name == "pshell" else []
        rest = [] if name == "pshell" else arguments
        started[name] = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", module, *options, ini, *rest],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environ,
            text=True,
        )
    for name, process in started.items():
        _, text, expected = COMMANDS[name]
        output, _ = process.communicate(text, timeout=60)
        assert process.returncode == 0, f"{name}: {output}"
        assert expected in output, f"{name}: {output}"
        assert "another" not in output


def test_a_stub_of_uwsgi_is_not_uwsgi(monkeypatch):
    monkeypatch.setitem(sys.modules, "uwsgi", types.ModuleType("uwsgi"))
    assert TestApp(make_app().app).get("/", status=404).status_code == 404

"""A pytest plugin that has Pyramid's own tests run on aioext.

``tests/pyramid_suite.py`` says what for, and starts pytest with it.

Theory of operation
===================

The tests know nothing of asyncio. They build applications with ``Configurator``
and send requests with WebTest's ``TestApp``, so methods of those classes are
replaced while the plugin is loaded, as a harness may and a package may not:

* ``Configurator.setup_registry`` includes aioext, with the settings of the mode,
  and a view deriver of this module;
* ``DefaultViewMapper.__call__``, through which other mappers call their views,
  counts where each view runs;
* ``TestApp.do_request``, and WebOb's ``call_application`` for tests that do
  without WebTest, put a :class:`Bridge` before the application. It makes an ASGI
  scope of the environ, has a :class:`~aioext.gateway.Gateway` serve it on a
  running loop, and makes a WSGI response of the messages. WebTest's linter
  stands on both sides. The application's lifespan lasts from its first request
  to the end of the test;
* ``Router.__call__`` refuses what has not come through the bridge.

One request at a time proves little about a server of many, so each is made to
overlap with those of another application, the :class:`Neighbour`. The view
deriver waits before and after every view; with each wait one request of the
neighbour's begins, and the one before ends. So the first to start is the first
to end, the order in which a stack that is shared by mistake shows. The deriver
and the neighbour check that ``get_current_request()`` is theirs.

In the modes of traversal no request is served. aioext's traverser stands where the
tests import Pyramid's from, and each test runs in a bridge; ``async-traversal``
makes a coroutine function of the ``__getitem__`` of the resources.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import threading
import unittest
from collections import Counter
from collections.abc import Callable, Iterable
from http.client import responses
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyramid.traversal
import pytest
from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.router import Router
from pyramid.threadlocal import get_current_request
from pyramid.viewderivers import INGRESS, DefaultViewMapper
from webob.request import BaseRequest
from webtest import TestApp, lint

from aioext import spawn_greenlet, threadlocal, wait
from aioext.body import FileWrapper
from aioext.config import CoroutineMapper
from aioext.executor import THREAD_NAME
from aioext.gateway import Gateway
from aioext.traversal import AsyncioTraverser

DEADLINE = 10.0
PIECE = 1000

# What is counted.
REQUESTS = "requests"
OVERLAPPING = "overlapping requests"
SUSPENDED = "suspended views"
IN_THREAD = "views in threads"
ON_LOOP = "views on the loop"
WALKS = "traversals"
SUSPENDED_STEPS = "suspended steps"

Environ = dict[str, Any]
Message = dict[str, Any]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("aioext")
    group.addoption("--aioext-mode", required=True)
    group.addoption("--aioext-loop", default="asyncio")
    group.addoption("--aioext-counts", type=Path, help="where to write them to")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[harness] = Harness(
        config.getoption("--aioext-mode"), config.getoption("--aioext-loop")
    )
    config.stash[harness].install()


def pytest_collection_finish(session: pytest.Session) -> None:
    for module in {item.module for item in session.items}:
        session.config.stash[harness].adapt_resources(module)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    item.config.stash[harness].end_lifespans()


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[harness].uninstall()
    counts = config.getoption("--aioext-counts")
    if counts is not None:
        counts.write_text(json.dumps(config.stash[harness].counts))


class Harness:
    """What is replaced, and what is counted.

    Args:
        mode: ``bridge`` to serve the applications as they are; ``suspend`` to
            make a coroutine of every view; ``traversal`` and ``async-traversal``
            for tests of traversal; else the value of the setting
            ``aioext.sync_views``.
        loop: ``asyncio`` or ``uvloop``.
    """

    def __init__(self, mode: str, loop: str) -> None:
        self.mode = mode
        self.counts: Counter[str] = Counter()
        self.runner = asyncio.Runner(loop_factory=_loop_factory(loop))
        self.patches = pytest.MonkeyPatch()
        self.neighbour = Neighbour(self.counts)
        self.lifespans: dict[Any, Lifespan] = {}

    def install(self) -> None:
        threadlocal.install()
        if self.mode in ("traversal", "async-traversal"):
            self._replace_traverser()
            return
        self._replace(TestApp, "do_request", self._do_request)
        self._replace(BaseRequest, "call_application", self._call_application)
        if self.mode != "bridge":
            self._replace(Configurator, "setup_registry", self._setup_registry)
            self._replace(Router, "__call__", self._call_router)
        if self.mode in ("executor", "inline", "request"):
            self._replace(DefaultViewMapper, "__call__", self._map_view)

    def uninstall(self) -> None:
        self.patches.undo()
        threadlocal.uninstall()
        self.runner.close()

    def _replace(self, owner: type, name: str, method: Callable[..., Any]) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def replacement(instance: Any, *args: Any, **kwargs: Any) -> Any:
            return method(functools.partial(original, instance), instance, args, kwargs)

        self.patches.setattr(owner, name, replacement)

    def _replace_traverser(self) -> None:
        counts = self.counts

        class CountedTraverser(AsyncioTraverser):
            def __call__(self, request: Any) -> dict[str, Any]:
                counts[WALKS] += 1
                return super().__call__(request)

        self.patches.setattr(
            pyramid.traversal, "ResourceTreeTraverser", CountedTraverser
        )
        self._replace(unittest.TestCase, "run", self._run_test)

    def _run_test(
        self, original: Any, test: unittest.TestCase, args: Any, kwargs: Any
    ) -> Any:
        return self.runner.run(spawn_greenlet(original, *args, **kwargs))

    def adapt_resources(self, module: Any) -> None:
        """Make the resources of a module of tests asynchronous, if the mode says so."""
        if self.mode != "async-traversal":
            return
        getitem, counts = module.DummyContext.__getitem__, self.counts

        async def suspending_getitem(resource: Any, name: str) -> Any:
            counts[SUSPENDED_STEPS] += 1
            await asyncio.sleep(0)
            return getitem(resource, name)

        self.patches.setattr(module.DummyContext, "__getitem__", suspending_getitem)

    def _do_request(
        self, original: Any, testapp: TestApp, args: Any, kwargs: Any
    ) -> Any:
        if not isinstance(testapp.app, Bridge):
            testapp.app = Bridge(testapp.app, self)
        return original(*args, **kwargs)

    def _call_application(
        self, original: Any, request: BaseRequest, args: Any, kwargs: Any
    ) -> Any:
        application, *args = args
        if isinstance(application, Router) and not self.neighbour.serving:
            application = Bridge(application, self)
        return original(application, *args, **kwargs)

    def _call_router(
        self, original: Any, router: Router, args: Any, kwargs: Any
    ) -> Any:
        assert self.neighbour.serving, "this request goes past the bridge"
        return original(*args, **kwargs)

    def begin_lifespan(self, app: Any) -> None:
        if app not in self.lifespans:
            lifespan = Lifespan()
            self.runner.run(lifespan.begin(app))
            self.lifespans[app] = lifespan

    def end_lifespans(self) -> None:
        while self.lifespans:
            self.runner.run(self.lifespans.popitem()[1].end())

    def _map_view(self, original: Any, mapper: Any, args: Any, kwargs: Any) -> Any:
        mapped = original(*args, **kwargs)

        @functools.wraps(mapped)
        def counted(context: Any, request: Any) -> Any:
            in_thread = threading.current_thread().name.startswith(THREAD_NAME)
            self.counts[IN_THREAD if in_thread else ON_LOOP] += 1
            return mapped(context, request)

        return counted

    def _setup_registry(
        self, original: Any, config: Configurator, args: Any, kwargs: Any
    ) -> None:
        original(*args, **kwargs)
        if self.mode == "suspend":
            config.set_view_mapper(functools.partial(SuspendingMapper, self.counts))
        else:
            config.add_settings({"aioext.sync_views": self.mode})
        config.include("aioext")
        config.add_view_deriver(
            self.overlapped_view, "overlapped", under=INGRESS, over="secured_view"
        )

    def overlapped_view(self, view: Any, info: Any) -> Any:
        """View deriver: have the view overlap with the neighbour's requests."""

        def overlapped(context: Any, request: Any) -> Any:
            if not self.neighbour.serving:
                return view(context, request)
            self._overlap(request)
            try:
                return view(context, request)
            finally:
                self._overlap(request)

        return overlapped

    def _overlap(self, request: Any) -> None:
        _check_current(request)
        wait(self.neighbour.overlap())
        _check_current(request)


harness: pytest.StashKey[Harness] = pytest.StashKey()


def _loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if loop == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return asyncio.new_event_loop


def _check_current(request: Any) -> None:
    current = get_current_request()
    assert current is request, f"another request is current: {current!r}"


class SuspendingMapper:
    """Makes a coroutine of every view, which suspends before and after it."""

    def __init__(self, counts: Counter[str], **options: Any) -> None:
        self.counts = counts
        self.options = options

    def __call__(self, view: Any) -> Any:
        mapped = DefaultViewMapper(**self.options)(view)

        async def suspending(context: Any, request: Any) -> Any:
            self.counts[SUSPENDED] += 1
            await asyncio.sleep(0)
            try:
                return mapped(context, request)
            finally:
                await asyncio.sleep(0)

        return CoroutineMapper(**(self.options | {"attr": None}))(suspending)


class Bridge:
    """A WSGI application that serves another one as an ASGI server would."""

    def __init__(self, app: Any, harness: Harness) -> None:
        self.app = app
        self.harness = harness

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        exchange = Exchange(environ)
        gateway = Gateway(Inside(self.app, environ))
        self.harness.counts[REQUESTS] += 1
        self.harness.begin_lifespan(self.app)
        self.harness.runner.run(
            self._serve(gateway, exchange), context=contextvars.copy_context()
        )
        start_response(*exchange.head())
        return exchange.body

    async def _serve(self, gateway: Gateway, exchange: Exchange) -> None:
        async with asyncio.timeout(DEADLINE), self.harness.neighbour:
            await gateway(exchange.scope, exchange.receive, exchange.send)


class Inside:
    """The tests' application, seen from the gateway.

    What WebTest tells an application in the environ and no client could tell a
    server is added here; what a client does tell must have arrived unchanged.
    """

    def __init__(self, app: Any, sent: Environ) -> None:
        self.app = lint.middleware(app)
        self.sent = sent

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        for key, value in self.sent.items():
            if _from_client(key):
                assert environ[key] == value, (key, value, environ[key])
            elif key == "wsgi.errors" or not key.startswith(("wsgi.", "webob.")):
                environ[key] = value
        body = self.app(environ, start_response)
        if type(body.original_iterator) in (list, tuple, FileWrapper):
            # The gateway knows these by their types.
            body.closed = True
            return body.original_iterator
        return body


_FROM_CLIENT = {
    "CONTENT_TYPE",
    "PATH_INFO",
    "QUERY_STRING",
    "REMOTE_ADDR",
    "REQUEST_METHOD",
    "SCRIPT_NAME",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "wsgi.url_scheme",
}


def _from_client(key: str) -> bool:
    return key in _FROM_CLIENT or key.startswith("HTTP_")


class Exchange:
    """A request and its response in ASGI messages."""

    def __init__(self, environ: Environ) -> None:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else b""
        self._pieces = [body[i : i + PIECE] for i in range(0, len(body), PIECE)] or [
            b""
        ]
        self._messages: list[Message] = []
        self.body: list[bytes] = []
        self.scope = scope_of(environ)

    async def receive(self) -> Message:
        await asyncio.sleep(0)
        if not self._pieces:
            # The client stays until it has been answered.
            await asyncio.get_running_loop().create_future()
        piece = self._pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}

    async def send(self, message: Message) -> None:
        await asyncio.sleep(0)
        if self._messages:
            assert message["type"] == "http.response.body"
            assert self._messages[-1].get("more_body", True), "after the end"
            self.body.append(message["body"])
        else:
            assert message["type"] == "http.response.start"
        self._messages.append(message)

    def head(self) -> tuple[str, list[tuple[str, str]]]:
        """The status and the headers of the response, which must be complete."""
        assert len(self._messages) > 1
        assert not self._messages[-1].get("more_body", False)
        start = self._messages[0]
        status = start["status"]
        headers = [
            (name.decode("ascii").title(), value.decode("latin-1"))
            for name, value in start["headers"]
        ]
        return f"{status} {responses.get(status, 'Unknown')}", headers


class Lifespan:
    """An application's life in ASGI messages."""

    async def begin(self, app: Any) -> None:
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._task = asyncio.get_running_loop().create_task(
            Gateway(app)({"type": "lifespan"}, self._events.get, self._answers.put),
            context=contextvars.Context(),
        )
        await self._tell("lifespan.startup")

    async def end(self) -> None:
        await self._tell("lifespan.shutdown")
        await self._task

    async def _tell(self, event: str) -> None:
        self._events.put_nowait({"type": event})
        async with asyncio.timeout(DEADLINE):
            answer = await self._answers.get()
        assert answer == {"type": f"{event}.complete"}


def scope_of(environ: Environ) -> dict[str, Any]:
    """The ASGI scope of what WebTest has made."""
    script_name = environ["SCRIPT_NAME"].encode("latin-1")
    path = script_name + environ["PATH_INFO"].encode("latin-1")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": environ["SERVER_PROTOCOL"].removeprefix("HTTP/"),
        "method": environ["REQUEST_METHOD"],
        "scheme": environ["wsgi.url_scheme"],
        "path": path.decode("utf-8", "replace"),
        "raw_path": quote(path).encode("ascii"),
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "root_path": script_name.decode("utf-8"),
        "headers": list(_headers(environ)),
        "client": (environ.get("REMOTE_ADDR", "127.0.0.1"), 40000),
        "server": (environ["SERVER_NAME"], int(environ["SERVER_PORT"])),
    }


def _headers(environ: Environ) -> Iterable[tuple[bytes, bytes]]:
    for key, value in environ.items():
        if key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            name = key
        elif key.startswith("HTTP_"):
            name = key.removeprefix("HTTP_")
        else:
            continue
        yield name.lower().replace("_", "-").encode("ascii"), value.encode("latin-1")


class Neighbour:
    """Another application on the same loop, used as a context manager.

    Its one view waits until it is told to end.
    """

    def __init__(self, counts: Counter[str]) -> None:
        config = Configurator()
        config.include("aioext")
        config.add_view(self._view)
        self._gateway = Gateway(config.make_wsgi_app())
        self._counts = counts
        self._visit: Visit | None = None
        self.serving = False

    async def __aenter__(self) -> None:
        self.serving = True

    async def __aexit__(self, *exc_info: object) -> None:
        self.serving = False
        visit, self._visit = self._visit, None
        if visit is not None:
            await visit.end()

    async def overlap(self) -> None:
        """Begin a request, and end the one that the last call has begun."""
        previous, self._visit = self._visit, Visit(self._gateway)
        await self._visit.begin()
        self._counts[OVERLAPPING] += 1
        if previous is not None:
            await previous.end()

    async def _view(self, request: Any) -> Response:
        visit = request.environ["asgi.scope"]["state"]["visit"]
        _check_current(request)
        visit.began.set_result(None)
        await visit.ending
        _check_current(request)
        return Response("neighbour")


class Visit:
    """One request to the neighbour."""

    def __init__(self, gateway: Gateway) -> None:
        loop = asyncio.get_running_loop()
        self.began: asyncio.Future[None] = loop.create_future()
        self.ending: asyncio.Future[None] = loop.create_future()
        self._exchange = Exchange(TestApp.RequestClass.blank("/").environ)
        self._exchange.scope["state"] = {"visit": self}
        self._task = loop.create_task(
            gateway(self._exchange.scope, self._exchange.receive, self._exchange.send),
            context=contextvars.Context(),
        )

    async def begin(self) -> None:
        """Return when the view waits."""
        waiting = (self._task, self.began)
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()

    async def end(self) -> None:
        """Return when the request is over."""
        self.ending.set_result(None)
        await self._task
        assert self._exchange.body == [b"neighbour"]

"""OpenTelemetry: spans have the parents that they have in plain code.

Both instrumentations, Pyramid's and the one for any WSGI application, keep the
current span in a context variable.
"""

import asyncio
import itertools
import json
from contextlib import closing

import pytest
from addons import (
    BACKWARDS,
    FORWARDS,
    PLACES,
    Ask,
    InProcess,
    OnWorker,
    add_views,
    application,
    crowded,
    in_every_kind,
)
from asgi import Client
from asgi_websocket import InProcess as WebSocketServer
from life import ENVIRON, assert_clean
from opentelemetry import trace
from opentelemetry.instrumentation.pyramid import PyramidInstrumentor
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pyramid.response import Response
from servers import serve

from aioext import spawn_greenlet, use_executor, wait
from aioext.config import CoroutineMapper
from aioext.eventsource import EventSourceMapper
from aioext.gateway import Gateway
from aioext.websocket import WebsocketMapper

PYRAMID = "Pyramid's"
WSGI = "WSGI's"
BOTH = "both"

# The parent of a trace's first span.
REMOTE = "remote"

exporter = InMemorySpanExporter()
tracer = trace.get_tracer(__name__)


# The application


def configure(config):
    PyramidInstrumentor.instrument_config(config)
    configure_views(config)


def configure_views(config):
    observe()
    add_views(config, "/page/{name}", page, renderer="json")
    add_views(config, "/broken/{name}", broken)
    config.add_exception_view(failed, context=BrokenError)
    for view, mapper, pattern in [
        (streamed, CoroutineMapper, "/streamed/{name}"),
        (ticks, EventSourceMapper, "/ticks/{name}"),
        (endless, EventSourceMapper, "/endless"),
        (echo, WebsocketMapper, "/echo"),
        (spans, CoroutineMapper, "/spans"),
    ]:
        config.add_route(view.__name__, pattern)
        config.add_view(view, route_name=view.__name__, mapper=mapper)


def observe():
    """Keep the spans of this process; once, for it has one provider."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)


def page(request):
    name = request.matchdict["name"]
    with tracer.start_as_current_span(f"view {name}"):
        yield
        wait(elsewhere(name))
        yield
        with tracer.start_as_current_span(f"end {name}"):
            yield
    return {"name": name}


async def elsewhere(name):
    with tracer.start_as_current_span(f"coroutine {name}"):
        await asyncio.sleep(0)
        await use_executor(in_span)(f"thread {name}")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(spawn_greenlet(in_span, f"task {name}"))


def in_span(name):
    with tracer.start_as_current_span(name):
        wait(asyncio.sleep(0))


class BrokenError(Exception):
    pass


def broken(request):
    with tracer.start_as_current_span("view"):
        yield
        raise BrokenError(request.matchdict["name"])


async def failed(error, request):
    await asyncio.sleep(0)
    return Response(f"failed {error}", status=503)


async def streamed(request):
    async def body():
        for number in range(2):
            with tracer.start_as_current_span(f"chunk {number}"):
                await asyncio.sleep(0)
                yield b"."

    return Response(app_iter=body())


async def ticks(request):
    with tracer.start_as_current_span("stream"):
        yield "tick"
        await asyncio.sleep(0)
        with tracer.start_as_current_span("tick"):
            yield "tock"


async def endless(request):
    with tracer.start_as_current_span("endless"):
        while True:
            yield "tick"
            await asyncio.sleep(0.001)


async def echo(ws):
    with tracer.start_as_current_span("handler"):
        async for message in ws:
            with tracer.start_as_current_span(f"message {message}"):
                await ws.send(message)


async def spans(request):
    """The spans of traces, as JSON: the name of each one's parent, by its own."""
    finished = exporter.get_finished_spans()
    traces = {}
    for span in finished:
        traces.setdefault(span.context.trace_id, []).append(span)
    exporter.clear()
    wanted = [int(each, 16) for each in request.text.split()]
    return Response(json=[tree(traces.get(each, ())) for each in wanted])


def tree(found):
    names = {span.context.span_id: span.name for span in found}
    return {span.name: names.get(span.parent.span_id, REMOTE) for span in found}


def instrumented(how, **settings):
    """An application, for a server."""
    names = {PYRAMID: "configure", WSGI: "configure_views", BOTH: "configure"}
    app = application(f"{__name__}:{names[how]}", settings)
    return app if how == PYRAMID else OpenTelemetryMiddleware(app)


# The tests


SITES = [
    *itertools.product(PLACES, (PYRAMID, WSGI)),
    ("process", BOTH),
]
in_every_way = pytest.mark.parametrize("how", [PYRAMID, WSGI, BOTH])


@pytest.fixture(scope="module", params=SITES, ids="-".join)
def served(request):
    """A site, and how it is instrumented."""
    place, how = request.param
    if place == "process":
        with closing(InProcess(instrumented(how))) as site:
            yield site, how
        return
    command = f"{__name__}:instrumented({how!r})"
    with serve("gunicorn", command, environ=ENVIRON) as server:
        with closing(OnWorker(server)) as site:
            yield site, how
        assert server.stop() == 0
        assert_clean(server)


numbers = itertools.count(1)


def ask(path):
    """A request that belongs to a trace of its own, and the trace's id."""
    trace_id = f"{next(numbers):032x}"
    return trace_id, Ask(path, headers={"traceparent": f"00-{trace_id}-{1:016x}-01"})


def trees(site, traces):
    body = " ".join(traces).encode()
    return site.ask("/spans", method="POST", body=body).json()


def request_span(how, pattern, path):
    """The span that a request's own code is in, and all that are made for it."""
    inner, outer = pattern, f"GET {path}"
    return {
        PYRAMID: (inner, {inner: REMOTE}),
        WSGI: (outer, {outer: REMOTE}),
        BOTH: (inner, {inner: outer, outer: REMOTE}),
    }[how]


@crowded
def test_spans_have_their_parents(served, crowd):
    site, how = served
    paths = crowd.paths("/page/{}")
    traces, asks = zip(*map(ask, paths), strict=True)
    for (name, _), answer in zip(crowd, site.overlap(asks, crowd.order), strict=True):
        assert answer.json() == {"name": str(name)}
    found = trees(site, traces)
    for (name, kind), path, spans in zip(crowd, paths, found, strict=True):
        outer, expected = request_span(how, f"/{kind}/page/{{name}}", path)
        assert spans == {
            **expected,
            f"view {name}": outer,
            f"coroutine {name}": f"view {name}",
            f"thread {name}": f"coroutine {name}",
            f"task {name}": f"coroutine {name}",
            f"end {name}": f"view {name}",
        }


@in_every_way
def test_spans_have_their_parents_where_requests_run_in_threads(how):
    app = instrumented(how, **{"aioext.sync_views": "request"})
    paths = [f"/{kind}/broken/{kind}" for kind in ("coroutine", "executor")] * 10
    traces, asks = zip(*map(ask, paths), strict=True)
    with closing(InProcess(app)) as site:
        answers = site.overlap(asks, FORWARDS)
        found = trees(site, traces)
    for path, answer, spans in zip(paths, answers, found, strict=True):
        assert answer.status == 503
        pattern = path.rpartition("/")[0] + "/{name}"
        outer, expected = request_span(how, pattern, path)
        assert spans == {**expected, "view": outer}


@in_every_kind
def test_errors_leave_no_span_behind(served, kind):
    site, how = served
    paths = [f"/{kind}/broken/{number}" for number in range(20)]
    traces, asks = zip(*map(ask, paths), strict=True)
    for answer in site.overlap(asks, BACKWARDS):
        assert answer.status == 503
    for path, found in zip(paths, trees(site, traces), strict=True):
        outer, expected = request_span(how, f"/{kind}/broken/{{name}}", path)
        assert found == {**expected, "view": outer}


@pytest.mark.parametrize("view", ["streamed", "ticks"])
def test_what_is_sent_later_belongs_to_the_server_s_span(served, view):
    site, how = served
    paths = [f"/{view}/{number}" for number in range(20)]
    traces, asks = zip(*map(ask, paths), strict=True)
    site.overlap(asks, BACKWARDS)
    for path, found in zip(paths, trees(site, traces), strict=True):
        _, expected = request_span(how, f"/{view}/{{name}}", path)
        if how != PYRAMID:
            # Pyramid's own has ended when the body begins.
            expected |= {
                "streamed": dict.fromkeys(("chunk 0", "chunk 1"), f"GET {path}"),
                "ticks": {"stream": f"GET {path}", "tick": "stream"},
            }[view]
        assert found == expected


@in_every_way
def test_a_websocket_belongs_to_the_server_s_span(how, run):
    app = Gateway(instrumented(how))
    traces, asks = zip(*[ask("/echo") for _ in range(20)], strict=True)

    async def talk(number):
        headers = asks[number].headers.items()
        async with WebSocketServer(app).connect("/echo", headers=headers) as ws:
            await ws.send(f"first {number}")
            await ws.recv()
            meeting.append(number)
            while len(meeting) < len(asks):  # noqa: ASYNC110 - of several tasks
                await asyncio.sleep(0)
            await ws.send(f"second {number}")
            await ws.recv()

    async def main():
        await asyncio.gather(*map(talk, range(len(asks))))
        client = Client("/spans", [" ".join(traces).encode()], method="POST")
        await client.call(app)
        return json.loads(client.body)

    meeting = []
    for number, found in enumerate(run(main())):
        _, expected = request_span(how, "/echo", "/echo")
        if how != PYRAMID:
            expected |= {
                "handler": "GET /echo",
                f"message first {number}": "handler",
                f"message second {number}": "handler",
            }
        assert found == expected


@in_every_way
def test_a_client_that_leaves_ends_the_spans_where_they_began(how, run, caplog):
    app = Gateway(instrumented(how))
    trace_id, wanted = ask("/endless")

    async def main():
        [(name, value)] = wanted.headers.items()
        headers = [(b"host", b"localhost"), (name.encode(), value.encode())]
        client = Client("/endless", headers=headers)
        serving = client.start(app)
        await client.until(lambda: b"tick" in client.body)
        client.leave()
        await serving
        client = Client("/spans", [trace_id.encode()], method="POST")
        await client.call(app)
        return json.loads(client.body)

    [found] = run(main())
    _, expected = request_span(how, "/endless", "/endless")
    assert found == expected | ({"endless": "GET /endless"} if how != PYRAMID else {})
    # It logs what it cannot detach from the context.
    assert not caplog.records

"""Event streams as views: the mapper, the response, options and request attributes."""

import asyncio
import datetime
import functools
import json
import threading

import pytest
from asgi import Client
from inprocess import EXECUTOR, LOOP, answer, make_app, where
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError, ConfigurationError
from pyramid.httpexceptions import HTTPForbidden, HTTPNoContent
from pyramid.renderers import JSON
from pyramid.request import Request
from pyramid.response import Response
from pyramid.testing import DummyRequest
from pyramid.threadlocal import get_current_request

from aioext import wait
from aioext.eventsource import (
    Event,
    EventSourceMapper,
    EventSourceResponse,
    MemoryEventLog,
    Retry,
)
from aioext.eventsource.event import HEARTBEAT

MODES = ["executor", "inline", "request"]

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]


def serve(view, settings=None, **options):
    options = {"mapper": EventSourceMapper, **options}
    return make_app(lambda config: config.add_view(view, **options), settings=settings)


def events_of(app, **scope):
    """What a stream that ends sends, without the opening."""
    client = answer(app, **scope)
    assert client.status == 200
    assert client.ended
    assert client.body.startswith(HEARTBEAT)
    return client.body.removeprefix(HEARTBEAT)


# Views


async def asynchronous_generator(request):
    assert get_current_request() is request
    yield 1
    await asyncio.sleep(0)
    yield 2


def plain_generator(request):
    assert get_current_request() is request
    yield 1
    wait(asyncio.sleep(0))
    yield 2


def function(request):
    assert get_current_request() is request
    return [1, 2]


def function_with_generator(request):
    return asynchronous_generator(request)


async def coroutine(request):
    await asyncio.sleep(0)
    return plain_generator(request)


async def coroutine_with_generator(request):
    await asyncio.sleep(0)
    return asynchronous_generator(request)


async def with_context(context, request):
    try:
        assert context is request.context
        yield 1
        yield 2
    finally:
        assert context is request.context


def partial(unused, request):
    return plain_generator(request)


class AsynchronousClass:
    def __init__(self, request):
        self.request = request

    async def __call__(self):
        async for number in asynchronous_generator(self.request):
            yield number


class PlainClass:
    def __init__(self, context, request):
        self.request = request

    def __call__(self):
        yield from plain_generator(self.request)


class Instance:
    async def __call__(self, request):
        yield 1
        yield 2


class InstanceWithContext:
    async def __call__(self, context, request):
        yield 1
        yield 2


def decorated(request):
    return decorated.__wrapped__(request)


functools.update_wrapper(decorated, asynchronous_generator)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "view",
    [
        asynchronous_generator,
        plain_generator,
        function,
        function_with_generator,
        coroutine,
        coroutine_with_generator,
        with_context,
        functools.partial(partial, None),
        AsynchronousClass,
        PlainClass,
        Instance(),
        InstanceWithContext(),
        decorated,
    ],
    ids=lambda view: getattr(view, "__name__", type(view).__name__),
)
def test_what_may_be_a_view(view, mode):
    app = serve(view, {"aioext.sync_views": mode})
    assert events_of(app) == b"data: 1\n\ndata: 2\n\n"


@pytest.mark.parametrize("attr", ["stream", "plain", "listed"])
def test_a_method_may_be_a_view(attr):
    class View:
        def __init__(self, request):
            self.request = request

        def stream(self):
            return asynchronous_generator(self.request)

        def plain(self):
            yield from plain_generator(self.request)

        def listed(self):
            return [1, 2]

    assert events_of(serve(View, attr=attr)) == b"data: 1\n\ndata: 2\n\n"


@pytest.mark.parametrize(
    ("mode", "place"), [("executor", EXECUTOR), ("inline", LOOP), ("request", EXECUTOR)]
)
@pytest.mark.parametrize("cls", [AsynchronousClass, PlainClass])
def test_a_class_is_made_where_its_view_runs(cls, mode, place):
    places = []

    class View(cls):
        def __init__(self, request):
            places.append(where())
            self.request = request

    answer(serve(View, {"aioext.sync_views": mode}))
    # The whole router call runs in a thread in the last mode.
    if cls is AsynchronousClass and mode != "request":
        place = LOOP
    assert places == [place]


def test_a_generator_that_another_view_waits_in_is_still_one_here():
    def configure(config):
        # The default mapper makes a coroutine of a generator function, for good.
        config.add_view(plain_generator, name="coroutine")
        config.add_view(plain_generator, mapper=EventSourceMapper)

    assert events_of(make_app(configure)) == b"data: 1\n\ndata: 2\n\n"


@pytest.mark.parametrize("mode", MODES)
def test_a_view_may_answer_otherwise(mode):
    def forbid(request):
        return HTTPForbidden("not you")

    async def decline(request):
        return HTTPNoContent()

    settings = {"aioext.sync_views": mode}
    forbidden = answer(serve(forbid, settings))
    assert forbidden.status == 403
    assert b"not you" in forbidden.body
    # That is how a browser is told not to come back.
    assert answer(serve(decline, settings)).status == 204


@pytest.mark.parametrize("returned", [None, "text", b"bytes", {"a": 1}, 5])
@pytest.mark.parametrize("mode", MODES)
def test_a_view_that_gives_no_events_is_told(returned, mode):
    def silent(request):
        return returned

    with pytest.raises(TypeError, match=r"function .*silent.*EventSourceMapper.*yield"):
        answer(serve(silent, {"aioext.sync_views": mode}))


def test_a_permission_is_checked_before():
    begun = []

    async def view(request):
        begun.append(request)
        yield 1

    class Policy:
        def permits(self, request, context, permission):
            return False

        def identity(self, request):
            return None

    def configure(config):
        config.set_security_policy(Policy())
        config.add_view(view, mapper=EventSourceMapper, permission="read")

    client = answer(make_app(configure))
    assert client.status == 403
    assert begun == []


# The response


def test_the_head():
    client = answer(serve(function))
    assert client.status == 200
    assert client.headers == HEADERS


def test_a_head_request_gets_the_head_alone():
    begun = []

    async def view(request):
        begun.append(request)
        yield 1

    client = answer(serve(view), method="HEAD")
    assert client.response == (200, HEADERS, b"")
    assert begun == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["function", "coroutine"])
@pytest.mark.parametrize("generator", [asynchronous_generator, plain_generator])
def test_any_view_may_return_a_stream(mode, kind, generator):
    threads = []

    def stream(request):
        for item in generator(request):
            threads.append(threading.current_thread())
            yield item

    def respond(request):
        iterable = generator(request)
        if generator is plain_generator:
            iterable = stream(request)
        response = EventSourceResponse(iterable)
        response.set_cookie("seen", "yes")
        return response

    async def respond_later(request):
        await asyncio.sleep(0)
        return respond(request)

    view = respond if kind == "function" else respond_later
    app = serve(view, {"aioext.sync_views": mode}, mapper=None)
    client = answer(app)
    assert client.body == HEARTBEAT + b"data: 1\n\ndata: 2\n\n"
    assert (b"set-cookie", b"seen=yes; Path=/") in client.headers
    # It is iterated over where it was made.
    on_the_loop = {thread is threading.main_thread() for thread in threads}
    if generator is plain_generator:
        assert on_the_loop == {kind == "coroutine" or mode == "inline"}


@pytest.mark.parametrize("executor", [True, False])
def test_where_a_plain_iterable_runs_may_be_chosen(executor):
    threads = []

    def stream():
        threads.append(threading.current_thread())
        yield 1

    async def view(request):
        return EventSourceResponse(stream(), executor=executor)

    assert events_of(serve(view, mapper=None)) == b"data: 1\n\n"
    (thread,) = threads
    assert (thread is not threading.main_thread()) is executor


@pytest.mark.parametrize("thing", [None, 5, "text", b"bytes", {"a": 1}])
def test_a_stream_is_made_of_an_iterable(thing):
    with pytest.raises(TypeError, match="takes an iterable of events"):
        EventSourceResponse(thing)


@pytest.mark.parametrize("option", ["heartbeat", "retry"])
@pytest.mark.parametrize("value", [-1, "soon", float("nan"), float("inf")])
def test_a_time_is_a_number_of_seconds(option, value):
    with pytest.raises(ValueError, match=f"{option}=.*it takes a number of seconds"):
        EventSourceResponse([], **{option: value})


def test_a_stream_has_no_body_to_be_had_whole():
    response = EventSourceResponse([1])
    for name in ("body", "text", "json"):
        with pytest.raises(TypeError, match="sent bit by bit"):
            getattr(response, name)
    response.body = b"something else"
    assert response.app_iter == [b"something else"]


def test_nobody_collects_a_stream_to_compress_it():
    sent = asyncio.Event()

    def configure(config):
        config.add_tween("test_eventsource.compressing_tween")
        config.add_view(view, mapper=EventSourceMapper)

    async def view(request):
        yield "first"
        await sent.wait()

    async def main():
        client = Client()
        task = client.start(make_app(configure))
        await client.until_body(HEARTBEAT + b"data: first\n\n")
        assert client.headers == HEADERS
        sent.set()
        await task

    asyncio.run(main())


def compressing_tween(handler, registry):
    def tween(request):
        response = handler(request)
        response.encode_content()
        return response

    return tween


def test_a_response_that_is_replaced_begins_nothing():
    closed = []

    class Items:
        def __aiter__(self):
            raise AssertionError

    def configure(config):
        config.add_tween("test_eventsource.replacing_tween")
        config.add_view(lambda request: Items(), mapper=EventSourceMapper)

    assert answer(make_app(configure)).body == b"instead"
    assert closed == []


def replacing_tween(handler, registry):
    def tween(request):
        handler(request)
        return Response(b"instead")

    return tween


def test_data_is_json_by_the_renderer_of_the_application():
    def configure(config):
        renderer = JSON(indent=1)
        renderer.add_adapter(datetime.date, lambda date, request: request.path)
        config.add_renderer("json", renderer)
        config.add_view(view, mapper=EventSourceMapper)

    class Model:
        def __json__(self, request):
            return {"id": 7}

    async def view(request):
        yield [datetime.date.today()]
        yield Event(Model(), event="model")

    assert events_of(make_app(configure)) == (
        b'data: [\ndata:  "/"\ndata: ]\n\n'
        b'event: model\ndata: {\ndata:  "id": 7\ndata: }\n\n'
    )


def test_a_stream_without_a_request_makes_its_own_json(run):
    async def main():
        response = EventSourceResponse([{"a": 1}], executor=False)
        return b"".join([chunk async for chunk in response.app_iter])

    assert run(main()) == HEARTBEAT + b'data: {"a": 1}\n\n'


def test_a_stream_for_a_dummy_request(run):
    async def main():
        response = EventSourceResponse([1], request=DummyRequest(), executor=False)
        body = b"".join([chunk async for chunk in response.app_iter])
        await response.app_iter.aclose()
        return body

    assert run(main()) == HEARTBEAT + b"data: 1\n\n"


def test_a_retry_may_be_yielded():
    async def view(request):
        yield Retry(2.5)

    assert events_of(serve(view)) == b"retry: 2500\n\n"


# Without a server that has a loop


def call(app, environ):
    """What a WSGI server does, in this thread; gives the head and the body."""
    heads = []
    body = app.app(environ, lambda *head: heads.append(head))
    parts = []
    try:
        parts.extend(body)
    finally:
        body.close()
    ((status, headers),) = heads
    return status, dict(headers), parts


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("view", [asynchronous_generator, plain_generator, coroutine])
def test_a_plain_server_streams_too(view, mode):
    app = serve(view, {"aioext.sync_views": mode})
    status, headers, parts = call(app, Request.blank("/").environ)
    assert status == "200 OK"
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert parts == [HEARTBEAT, b"data: 1\n\n", b"data: 2\n\n"]


def test_a_plain_server_that_stops_iterating_closes_the_generator():
    ended = []

    async def view(request):
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            ended.append(get_current_request() is request)

    app = serve(view)
    body = app.app(Request.blank("/").environ, lambda *head: None)
    assert next(body) == HEARTBEAT
    assert next(body) == b"data: 1\n\n"
    body.close()
    assert ended == [True]


# Options


@pytest.mark.parametrize(
    ("setting", "option", "argument", "expected"),
    [
        (None, None, None, 15),
        ("5", None, None, 5),
        ("5", 6, None, 6),
        ("5", "6", None, 6),
        ("5", 0, None, 0),
        ("5", 6, 7, 7),
        ("5", None, 7, 7),
        ("0", None, None, 0),
    ],
)
def test_the_nearest_option_counts(setting, option, argument, expected):
    responses = []

    def view(request):
        responses.append(EventSourceResponse([], heartbeat=argument))
        return responses[0]

    settings = {} if setting is None else {"aioext.eventsource.heartbeat": setting}
    options = {} if option is None else {"heartbeat": option}
    app = serve(view, settings, **options)
    answer(app)
    assert responses[0]._stream.heartbeat == expected


def test_an_option_that_is_no_time_is_a_mistake_of_the_configuration():
    with pytest.raises(ConfigurationError, match=r"asynchronous_gen.*heartbeat=-1"):
        serve(asynchronous_generator, heartbeat=-1)
    with pytest.raises(ConfigurationError, match=r"stream of .*has retry='x'"):
        serve(AsynchronousClass, attr="stream", retry="x")


def test_options_of_a_view_that_is_no_stream_are_harmless():
    app = serve(lambda request: Response(b"page"), mapper=None, heartbeat=1)
    assert answer(app).body == b"page"


def test_including_it_again_is_harmless():
    def configure(config):
        config.include("aioext.eventsource.config")
        config.add_view(function, mapper=EventSourceMapper, is_eventsource=False)
        config.commit()
        config.include("aioext")
        config.include("aioext.eventsource.config")

    assert events_of(make_app(configure)) == b"data: 1\n\ndata: 2\n\n"


def test_an_application_s_own_attribute_is_kept():
    def configure(config):
        config.add_request_method(lambda request: "own", "last_event_id", property=True)
        config.add_view(lambda request: [request.last_event_id], mapper=mapper)

    mapper = EventSourceMapper
    assert events_of(make_app(configure)) == b"data: own\n\n"


def test_a_predicate_of_an_add_on_is_a_conflict():
    def add_on(config):
        config.add_view_predicate("is_eventsource", object)

    config = Configurator()
    config.include("aioext")
    config.include("aioext.eventsource.config")
    config.include(add_on)
    with pytest.raises(ConfigurationConflictError):
        config.commit()


# What a request tells


ASKS = [(b"accept", b"text/event-stream")]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, False),
        ("", False),
        ("*/*", False),
        ("text/*", False),
        ("text/html", False),
        ("text/event-stream", True),
        ("Text/Event-Stream", True),
        ("text/event-stream;charset=utf-8", True),
        ("text/html, text/event-stream;q=0.5", True),
        ("text/event-stream;q=0", False),
        ("text/event-streams", False),
        ("text/event-stream,,,", True),
        ("\xff;;", False),
    ],
)
def test_who_asks_for_an_event_stream(accept, expected):
    def view(request):
        return [request.is_eventsource, request.is_eventstream]

    headers = [] if accept is None else [(b"accept", accept.encode("latin-1"))]
    text = json.dumps(expected).encode()
    body = b"data: %s\n\ndata: %s\n\n" % (text, text)
    assert events_of(serve(view), headers=headers) == body


def test_one_address_may_have_a_page_and_a_stream():
    def configure(config):
        config.add_view(lambda request: Response(b"page"))
        config.add_view(function, mapper=EventSourceMapper, is_eventsource=True)

    app = make_app(configure)
    assert answer(app).body == b"page"
    assert answer(app, headers=ASKS).headers == HEADERS


def test_a_predicate_may_exclude_streams():
    def configure(config):
        config.add_view(lambda request: Response(b"page"), is_eventsource=False)

    app = make_app(configure)
    assert answer(app).body == b"page"
    assert answer(app, headers=ASKS).status == 404


@pytest.mark.parametrize(
    ("header", "query", "expected"),
    [
        (None, "", None),
        (None, "lastEventId=", None),
        (None, "a=b", None),
        ("a-1", "", "a-1"),
        (None, "lastEventId=a-1", "a-1"),
        (None, "lastEventId=a%20%C3%A9&x=1", "a \xe9"),
        (None, "lastEventId=%ff", "\ufffd"),
        # A browser that comes back asks the address of the first time.
        ("a-2", "lastEventId=a-1", "a-2"),
        ("", "lastEventId=a-1", "a-1"),
        ("\xe9\u20ac", "", "\xe9\u20ac"),
        (b"\xff", "", "\ufffd"),
    ],
)
def test_the_last_event_id(header, query, expected):
    def view(request):
        return [json.dumps(request.last_event_id)]

    headers = []
    if header is not None:
        value = header if isinstance(header, bytes) else header.encode()
        headers = [(b"last-event-id", value)]
    body = events_of(serve(view), headers=headers, query_string=query.encode())
    assert json.loads(body.removeprefix(b"data: ")) == expected


# Reconnecting


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["generator", "plain generator", "function"])
def test_a_client_that_comes_back_gets_what_it_missed(run, mode, kind):
    log = MemoryEventLog()

    async def generator(request):
        async for event in log.follow(request.last_event_id):
            yield event

    def plain(request):
        yield from log.follow(request.last_event_id)

    def returned(request):
        return log.follow(request.last_event_id)

    view = {"generator": generator, "plain generator": plain, "function": returned}
    app = serve(view[kind], {"aioext.sync_views": mode})

    async def visit(event_id, count):
        headers = [(b"last-event-id", event_id.encode())]
        client = Client(headers=headers)
        task = client.start(app)
        await client.until(lambda: client.body.count(b"data: ") == count)
        client.leave()
        await task
        return client.body.removeprefix(HEARTBEAT)

    async def main():
        beginning = log.last_event_id
        first = log.append({"n": 1})
        body = await visit(beginning, 1)
        assert body == f'id: {first}\ndata: {{"n": 1}}\n\n'.encode()
        second = log.append("two")
        third = log.append("three")
        body = await visit(first, 2)
        assert body == (
            f"id: {second}\ndata: two\n\nid: {third}\ndata: three\n\n".encode()
        )
        body = await visit("other-1", 1)
        assert body == (
            f'event: reset\nid: {third}\ndata: {{"reason": "unknown"}}\n\n'.encode()
        )

    run(main())

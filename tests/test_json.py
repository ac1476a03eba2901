"""The renderers ``json`` and ``json_lines``: values that wait, and streams."""

import asyncio
import contextlib
import gc
import json
import threading
from pathlib import Path

import pytest
from asgi import Client
from hook_apps import OnLoop, OnWsgi, add_view, commit, make
from inprocess import EXECUTOR, LOOP, where
from pyramid.config import Configurator
from pyramid.interfaces import IRendererFactory
from pyramid.renderers import (
    JSON,
    JSONP,
    json_renderer_factory,
    render,
    render_to_response,
)
from pyramid.response import Response
from pyramid.threadlocal import get_current_request
from pyramid.tweens import EXCVIEW
from servers import receive_until, serve

from aioext import spawn_greenlet, wait
from aioext.exceptions import ScopeError
from aioext.gateway import Gateway
from aioext.hooks.values import is_own
from aioext.renderers import JSONRenderer, unsent
from aioext.renderers import items as module
from aioext.renderers.items import LIMIT
from aioext.renderers.json import json_lines

APPS = Path(__file__).parent / "apps"
MODES = ["executor", "inline", "request"]
RENDERERS = ["json", "json_lines"]


def include(config):
    config.include("aioext.renderers.json")


@pytest.fixture(params=[OnLoop, OnWsgi])
def ask(request):
    return request.param()


@pytest.fixture(params=["stdlib", "orjson"])
def library(request):
    if request.param == "orjson":
        pytest.importorskip("orjson")
    return request.param


def renderer_of(app, name="json"):
    return app.registry.getUtility(IRendererFactory, name)


def told(error, request):
    return Response(f"{type(error).__name__}: {error}", status=500)


def add_told(config):
    config.add_exception_view(told, context=Exception)


# Whose renderer it is ---------------------------------------------------------


class Money:
    def __init__(self, amount=5):
        self.amount = amount


def adapt(money, request):
    return money.amount


@pytest.mark.parametrize("early", [(), (commit,)])
def test_it_stands_in_the_place_of_pyramids(early):
    app = make(*early, include)
    assert type(renderer_of(app)) is JSONRenderer
    assert is_own(renderer_of(app))


@pytest.mark.parametrize("steps", [(), ("before",), ("before", "commit")])
@pytest.mark.parametrize("own", [JSON(indent=1), JSONP(), JSONRenderer(indent=1)])
def test_an_applications_own_is_left_there(steps, own):
    def add(config):
        config.add_renderer("json", own)

    steps = {"before": [add], "commit": [commit]}.get(steps[:1], [])
    app = make(*(steps or []), include, *([] if steps else [add]))
    assert renderer_of(app) is own


def test_that_of_an_add_on_is_left_there_and_is_no_conflict():
    own = JSON(indent=1)

    def add_on(config):
        config.add_renderer("json", own)

    app = make(lambda config: config.include(add_on), include)
    assert renderer_of(app) is own


def test_adapters_of_pyramids_renderer_are_found():
    # Of the process's, and of the copy that an application has of it.
    def add_to_copy(config):
        renderer_of(config).add_adapter(Money, adapt)

    app = make(
        commit, add_to_copy, include, add_view(lambda r: Money(), renderer="json")
    )
    assert OnLoop()(app, "/")[0].text == "5"


def test_adapters_that_the_process_is_given_later_are_found():
    class Late:
        pass

    app = make(include, add_view(lambda request: Late(), renderer="json"))
    json_renderer_factory.add_adapter(Late, lambda late, request: "late")
    assert OnLoop()(app, "/")[0].text == '"late"'


def test_pyramids_renderer_is_not_given_our_adapters():
    app = make(include)
    renderer_of(app).add_adapter(Money, adapt)
    with pytest.raises(TypeError):
        json_renderer_factory(None)(Money(), {})


def test_without_the_include_nothing_changes():
    app = make(add_view(lambda request: {1}, renderer="json"), add_told)
    assert "is not JSON serializable" in OnLoop()(app, "/")[0].text


def test_it_may_be_included_twice_and_in_two_applications():
    one = make(include, commit, include, commit, include)
    other = make(include)
    assert renderer_of(one) is not renderer_of(other)


def test_adapters_survive_a_second_include():
    app = make(include, add_view(lambda request: Money(), renderer="json"))
    renderer = renderer_of(app)
    renderer.add_adapter(Money, adapt)
    again = Configurator(registry=app.registry)
    again.include("aioext.renderers.json")
    again.commit()
    assert renderer_of(app) is renderer
    assert OnLoop()(app, "/")[0].text == "5"


def test_json_lines_of_ones_own():
    own = JSON()
    app = make(lambda config: config.add_renderer("json_lines", own), include)
    assert renderer_of(app, "json_lines") is own


# Values that wait -------------------------------------------------------------


class User:
    def __init__(self, meet):
        self.meet = meet

    async def __json__(self, request):
        await self.meet()
        assert get_current_request() is request
        return {"path": request.path_info}


async def path_after(meet, request):
    await meet()
    return request.path_info


@pytest.mark.parametrize("mode", MODES)
def test_requests_that_wait_in_their_values_overlap(ask, mode, library):
    meet = ask.meeting(5)

    async def adapted(money, request):
        await meet()
        return request.path_info

    def view(request):
        return {
            "coroutine": path_after(meet, request),
            "users": [User(meet)],
            "money": Money(),
            "items": (wait(path_after(meet, request)) for _ in "a"),
        }

    app = make(
        include,
        add_view(view, renderer="json"),
        settings={"aioext.sync_views": mode, "aioext.json": library},
    )
    renderer_of(app).add_adapter(Money, adapted)
    paths = [f"/{number}" for number in range(5)]
    for path, answer in zip(paths, ask(app, *paths), strict=True):
        assert json.loads(answer.text) == {
            "coroutine": path,
            "users": [{"path": path}],
            "money": path,
            "items": [path],
        }


@pytest.mark.parametrize("order", [1, -1])
def test_the_first_to_wait_may_be_the_last_to_end(library, order):
    # Both wait within the encoder, whose call stacks must not be mixed up.
    async def main():
        steps = [asyncio.Event(), asyncio.Event()]

        async def value(request):
            number = int(request.path_info[1:])
            waiting.release()
            await steps[number].wait()
            ended.append(number)
            return number

        waiting, ended = asyncio.Semaphore(0), []
        gateway = Gateway(
            make(
                include,
                add_view(lambda request: [value(request)], renderer="json"),
                settings={"aioext.json": library},
            )
        )
        clients = [Client(f"/{number}") for number in (0, 1)]
        tasks = [client.start(gateway) for client in clients]
        async with asyncio.timeout(10):
            for _ in tasks:
                await waiting.acquire()
            for step, task in list(zip(steps, tasks, strict=True))[::order]:
                step.set()
                await task
        assert ended == [0, 1][::order]
        assert [client.body for client in clients] == [b"[0]", b"[1]"]

    asyncio.run(main())


@pytest.mark.parametrize("mode", MODES)
def test_a_client_that_leaves_ends_what_a_value_waits_for(run, library, mode):
    async def main():
        reached, events = asyncio.Event(), []

        async def value():
            try:
                reached.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                events.append("cancelled")
                raise

        async def never():
            events.append("never")

        client = Client()
        view = add_view(lambda request: [value(), never()], renderer="json")
        settings = {"aioext.json": library, "aioext.sync_views": mode}
        task = client.start(Gateway(make(include, view, settings=settings)))
        await reached.wait()
        client.leave()
        await asyncio.wait([task])
        assert events == ["cancelled"]
        assert not client.started

    run(main())


def test_it_renders_where_nothing_runs():
    renderer = renderer_of(make(include))(None)
    assert renderer({"a": asyncio.sleep(0, "later")}, {}) == '{"a": "later"}'


# Streams ----------------------------------------------------------------------


class Items:
    """An asynchronous generator that is told when to go on."""

    def __init__(self, count, error=None):
        self.count = count
        self.error = error
        self.begun = 0
        self.closed = 0
        self.gates = [asyncio.Event() for _ in range(count + 1)]

    def view(self, request):
        return self.generate()

    async def generate(self):
        try:
            for number in range(self.count):
                await self.gates[number].wait()
                self.begun += 1
                yield {"number": number}
            await self.gates[self.count].wait()
            if self.error:
                raise self.error
        finally:
            await asyncio.sleep(0)
            self.closed += 1

    def let(self, *numbers):
        for number in numbers:
            self.gates[number].set()


def streaming_app(view, renderer="json", *steps, **settings):
    settings = {f"aioext.{name}": value for name, value in settings.items()}
    app = make(include, add_view(view, renderer=renderer), *steps, settings=settings)
    return Gateway(app)


EXPECTED = {
    "json": [b'[{"number": 0}', b',\n{"number": 1}', b',\n{"number": 2}', b"]"],
    "json_lines": [b'{"number": 0}\n', b'{"number": 1}\n', b'{"number": 2}\n'],
}
CONTENT_TYPES = {"json": b"application/json", "json_lines": b"application/x-ndjson"}


@pytest.mark.parametrize("renderer", RENDERERS)
def test_each_item_is_sent_when_it_is_there(run, renderer):
    async def main():
        items = Items(3)
        client = Client()
        task = client.start(streaming_app(items.view, renderer))
        expected = EXPECTED[renderer]
        for number in range(3):
            items.let(number)
            await client.until_body(b"".join(expected[: number + 1]))
        assert client.status == 200
        assert client.headers == [(b"content-type", CONTENT_TYPES[renderer])]
        items.let(3)
        await task
        assert client.body == b"".join(expected)
        assert (client.parts, client.ended) == (expected, True)
        assert items.closed == 1

    run(main())


def numbers(count=3):
    for number in range(count):
        yield {"number": number}


async def numbers_later(count=3):
    for number in range(count):
        await asyncio.sleep(0)
        yield {"number": number}


class AsyncIterable:
    def __aiter__(self):
        return numbers_later()


KINDS = {
    "generator": lambda request: numbers(),
    "iterator": lambda request: iter(list(numbers())),
    "asynchronous generator": lambda request: numbers_later(),
    "asynchronous iterable": lambda request: AsyncIterable(),
}


async def in_a_coroutine(request):
    return numbers_later()


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("view", [*KINDS.values(), in_a_coroutine])
def test_a_stream_of_any_kind(ask, view, mode, renderer):
    app = make(
        include,
        add_view(view, renderer=renderer),
        settings={"aioext.sync_views": mode, "aioext.executor_workers": "1"},
    )
    for answer in ask(app, "/", "/"):
        assert answer.text.encode() == b"".join(EXPECTED[renderer])
        assert answer.headers["content-type"].encode() == CONTENT_TYPES[renderer]


@pytest.mark.parametrize(("renderer", "body"), [("json", "[]"), ("json_lines", "")])
@pytest.mark.parametrize("items", [numbers, numbers_later])
def test_a_stream_of_nothing(ask, items, renderer, body):
    app = make(include, add_view(lambda request: items(0), renderer=renderer))
    assert ask(app, "/")[0].text == body


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ([1, {"a": "\n"}], '1\n{"a": "\\n"}\n'),
        ((1,), "1\n"),
        ({"a": 1}, '{"a": 1}\n'),
        ("text", '"text"\n'),
        ([], ""),
    ],
)
def test_lines_of_what_is_there(ask, value, lines):
    app = make(include, add_view(lambda request: value, renderer="json_lines"))
    answer = ask(app, "/")[0]
    assert answer.text == lines
    assert answer.headers["content-length"] == str(len(lines))


def test_lines_of_what_is_awaited():
    async def later(value):
        await asyncio.sleep(0)
        return value

    render_lines = json_lines(make(include))
    assert render_lines(later(later([1, 2])), {}) == "1\n2\n"


@pytest.mark.parametrize("own", [JSON(indent=2), JSONRenderer(indent=2)])
@pytest.mark.parametrize(
    "view", [lambda r: [[1, Money()]], lambda r: iter([[1, Money()]])]
)
def test_lines_are_made_by_the_applications_renderer(ask, own, view):
    own.add_adapter(Money, adapt)
    app = make(
        lambda config: config.add_renderer("json", own),
        include,
        add_view(view, renderer="json_lines"),
    )
    (line,) = ask(app, "/")[0].text.splitlines()
    assert json.loads(line) == [1, 5]


def test_items_are_converted_like_everything_else(ask):
    def view(request):
        return iter([{3, 1}, path_after(ask.meeting(1), request), numbers(1)])

    app = make(include, add_view(view, renderer="json"))
    assert json.loads(ask(app, "/x")[0].text) == [[1, 3], "/x", [{"number": 0}]]


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("is_async", [True, False])
def test_an_error_before_the_first_item_is_a_status(ask, is_async, renderer):
    def plain():
        raise LookupError("at once")
        yield

    async def asynchronous():
        await asyncio.sleep(0)
        raise LookupError("at once")
        yield

    view = asynchronous if is_async else plain
    app = make(include, add_view(lambda request: view(), renderer=renderer), add_told)
    answer = ask(app, "/")[0]
    assert (answer.status, answer.text) == (500, "LookupError: at once")


def test_an_item_that_is_no_json_is_a_status_if_it_is_the_first(ask):
    app = make(include, add_view(lambda r: iter([b""]), renderer="json"), add_told)
    assert ask(app, "/")[0].status == 500


@pytest.mark.parametrize("item", ["error", "no json"])
@pytest.mark.parametrize("is_async", [True, False])
def test_an_error_in_the_middle_cuts_the_response(run, is_async, item):
    closed = []

    def plain():
        try:
            yield 1
            if item == "error":
                raise LookupError("in the middle")
            yield object()
        finally:
            closed.append(item)

    async def asynchronous():
        with contextlib.closing(plain()) as items:
            for each in items:
                yield each

    async def main():
        view = asynchronous if is_async else plain
        client = Client()
        with pytest.raises((LookupError, TypeError)):
            await client.call(streaming_app(lambda request: view()))
        assert client.body == b"[1"
        assert not client.ended
        assert closed == [item]

    run(main())


def test_nothing_runs_between_the_first_item_and_the_sending(run):
    # A transaction is committed there.
    async def main():
        items = Items(3)
        items.let(0, 1, 2, 3)
        seen = []

        def tween_factory(handler, registry):
            def tween(request):
                response = handler(request)
                for _ in range(5):
                    wait(asyncio.sleep(0))
                seen.append((items.begun, "content-length" in response.headers))
                return response

            return tween

        globals()["tween_factory"] = tween_factory
        app = streaming_app(
            items.view,
            "json",
            lambda config: config.add_tween(f"{__name__}.tween_factory"),
        )
        client = await Client().call(app)
        assert seen == [(1, False)]
        assert client.body == b"".join(EXPECTED["json"])

    run(main())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("is_async", [True, False])
def test_a_client_that_does_not_read_holds_the_items_back(run, mode, is_async):
    count = 0
    item = "x" * 1000
    loop, enough = None, asyncio.Event()

    def plain():
        nonlocal count
        for _ in range(1000):
            count += 1
            if count == LIMIT // 1010:
                loop.call_soon_threadsafe(enough.set)
            yield item

    async def asynchronous():
        for each in plain():
            yield each

    async def main():
        nonlocal loop
        loop = asyncio.get_running_loop()
        view = asynchronous if is_async else plain
        client = Client()
        client.reads.clear()
        task = client.start(streaming_app(lambda request: view(), sync_views=mode))
        await client.until(lambda: client.is_sent_to)
        # It goes on until the limit, and not further.
        await enough.wait()
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert count <= 2 * LIMIT // 1000 + 2
        client.reads.set()
        await task
        assert len(json.loads(client.body)) == count == 1000
        if is_async:
            # What is fast is sent in large parts.
            assert len(client.parts) < 20

    run(main())


@pytest.mark.parametrize("leaves_at", ["wait", "yield"])
def test_a_client_that_leaves_ends_the_items(run, leaves_at):
    async def main():
        items = Items(3)
        items.let(0)
        client = Client()
        if leaves_at == "yield":
            items.let(1, 2, 3)
            client.reads.clear()
        task = client.start(streaming_app(items.view))
        await client.until(lambda: client.is_sent_to)
        client.leave()
        await asyncio.wait([task])
        assert items.closed == 1
        assert not client.ended

    run(main())


def test_a_client_that_leaves_before_the_first_item(run):
    async def main():
        items = Items(1)
        reached = asyncio.Event()

        def view(request):
            reached.set()
            return items.generate()

        client = Client()
        task = client.start(streaming_app(view, sync_views="inline"))
        await reached.wait()
        await asyncio.sleep(0)
        client.leave()
        await asyncio.wait([task])
        assert items.closed == 1
        assert not client.started

    run(main())


@pytest.mark.parametrize("is_async", [True, False])
def test_a_first_item_that_takes_too_long(run, is_async):
    closed = []

    def plain():
        try:
            wait(asyncio.Event().wait())
            yield
        finally:
            closed.append(True)

    async def asynchronous():
        try:
            await asyncio.Event().wait()
            yield
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main():
        view = asynchronous if is_async else plain
        app = streaming_app(lambda request: view(), request_timeout="0.05")
        client = await Client().call(app)
        assert client.status == 503
        assert closed == [True]

    run(main())


def test_a_thread_that_makes_an_item_is_waited_for(run):
    begun, may_go = threading.Event(), threading.Event()
    closed = []

    def items():
        try:
            yield 1
            begun.set()
            may_go.wait(10)
            yield 2
            closed.append("never")
        finally:
            closed.append(where())

    async def main():
        client = Client()
        task = client.start(streaming_app(lambda request: items()))
        await client.until_body(b"[1")
        await asyncio.to_thread(begun.wait, 10)
        client.leave()
        for _ in range(50):
            await asyncio.sleep(0)
        assert not task.done()
        may_go.set()
        await asyncio.wait([task])
        assert closed == [EXECUTOR]

    run(main())


@pytest.mark.parametrize(("mode", "place"), [("executor", EXECUTOR), ("inline", LOOP)])
def test_where_a_plain_generator_runs(run, mode, place):
    places = []

    def items():
        try:
            places.append(where())
            yield 1
            wait(asyncio.sleep(0))
            places.append(where())
            yield 2
        finally:
            wait(asyncio.sleep(0))
            places.append(where())

    async def main():
        app = streaming_app(lambda request: items(), sync_views=mode)
        client = await Client().call(app)
        assert json.loads(client.body) == [1, 2]
        assert places == [place] * 3

    run(main())


def test_the_request_is_current_and_its_own(ask):
    requests = []

    async def items(request):
        requests.append(request)
        for _ in range(3):
            await asyncio.sleep(0)
            assert get_current_request() is request
            assert request.context is not None
            yield User(ask.meeting(1))

    def plain(request):
        for _ in range(3):
            wait(asyncio.sleep(0))
            assert get_current_request() is request
            assert request.context is not None
            yield {"path": request.path_info}

    for view in (lambda request: items(request), lambda request: plain(request)):
        app = make(include, add_view(view, renderer="json"))
        paths = [f"/{number}" for number in range(5)]
        for path, answer in zip(paths, ask(app, *paths), strict=True):
            assert json.loads(answer.text) == [{"path": path}] * 3
    assert len(requests) == 5
    assert not any(hasattr(request, "context") for request in requests)


def test_a_timeout_may_span_a_yield(run):
    # And what it cancels is the generator, and not the sending.
    async def items():
        try:
            async with asyncio.timeout(0.01):
                yield 1
                await asyncio.Event().wait()
        except TimeoutError:
            yield "late"

    async def main():
        client = await Client().call(streaming_app(lambda request: items()))
        assert json.loads(client.body) == [1, "late"]
        assert client.ended

    run(main())


def test_a_head_request_closes_the_items(run):
    async def main():
        items = Items(2)
        items.let(0, 1, 2)
        client = await Client(method="HEAD").call(streaming_app(items.view))
        assert (client.status, client.body, items.closed) == (200, b"", 1)

    run(main())


def test_headers_and_status_of_the_response(ask):
    def view(request):
        request.response.status = 202
        request.response.content_type = "application/vnd.own+json"
        request.response.set_cookie("name", "value")
        return numbers(1)

    app = make(include, add_view(view, renderer="json"))
    answer = ask(app, "/")[0]
    assert answer.status == 202
    assert answer.headers["content-type"] == "application/vnd.own+json"
    assert answer.headers["set-cookie"].startswith("name=value")


def test_a_tween_may_have_the_whole_body(ask):
    def view(request):
        response = render_to_response("json", numbers_later(), request)
        return Response(response.body)

    async def streamed(request):
        return numbers_later()

    def callback(event):
        event.response.body = event.response.body.upper()

    app = make(
        include,
        add_view(streamed, renderer="json"),
        lambda config: config.add_subscriber(callback, "pyramid.events.NewResponse"),
    )
    assert ask(app, "/")[0].text.startswith('[{"NUMBER": 0}')
    app = make(include, add_view(view))
    assert len(json.loads(ask(app, "/")[0].text)) == 3


@pytest.mark.parametrize(
    ("renderer", "expected"),
    [("json", '[{"number": 0}]'), ("json_lines", '{"number": 0}\n')],
)
def test_render_gives_a_string(ask, renderer, expected):
    def view(request):
        texts = [
            render(renderer, items(1), request) for items in (numbers, numbers_later)
        ]
        assert texts == [expected] * 2
        return Response("yes")

    app = make(include, add_view(view))
    assert ask(app, "/")[0].text == "yes"


class Own:
    """It could be iterated over, and says itself what is shown of it."""

    def __init__(self):
        self.left = [1, 2]

    def __iter__(self):
        return self

    def __next__(self):
        raise AssertionError

    def __json__(self, request):
        return "own"


class AdaptedIterator(Own):
    __json__ = property()


@pytest.mark.parametrize("cls", [Own, AdaptedIterator])
def test_json_of_its_own_comes_before_a_stream(ask, cls):
    app = make(include, add_view(lambda request: cls(), renderer="json"))
    renderer_of(app).add_adapter(AdaptedIterator, lambda value, request: "own")
    answer = ask(app, "/")[0]
    assert (answer.text, answer.headers["content-length"]) == ('"own"', "5")


# Responses that are not sent ---------------------------------------------------


class Unsent:
    """Items that tell when they are closed."""

    def __init__(self):
        self.closed = asyncio.Event()

    async def later(self, request):
        try:
            yield 1
            yield request
        finally:
            await self.close()

    def now(self, request):
        try:
            yield 1
            yield request
        finally:
            wait(self.close())

    async def close(self):
        await asyncio.sleep(0)
        self.closed.set()

    def app(self, is_async, *steps):
        generate = self.later if is_async else self.now
        return streaming_app(lambda request: generate(request), "json", *steps)


@pytest.mark.parametrize("is_async", [True, False])
def test_a_stream_of_a_request_that_fails_is_closed(run, is_async):
    def fail(request, response):
        raise LookupError("after the view")

    def subscribe(config):
        config.add_subscriber(
            lambda event: event.request.add_response_callback(fail),
            "pyramid.events.NewRequest",
        )

    async def main():
        items = Unsent()
        with pytest.raises(LookupError):
            await Client().call(items.app(is_async, subscribe))
        assert items.closed.is_set()

    run(main())


@pytest.mark.parametrize("is_async", [True, False])
def test_a_stream_whose_response_is_replaced_is_closed(run, is_async, monkeypatch):
    monkeypatch.setattr(unsent, "PATIENCE", 0.01)

    def replace(event):
        event.request.add_response_callback(set_body)

    def set_body(request, response):
        response.body = b"another"

    async def main():
        items = Unsent()
        app = items.app(
            is_async,
            lambda config: config.add_subscriber(replace, "pyramid.events.NewRequest"),
        )
        client = await Client().call(app)
        assert client.body == b"another"
        await items.closed.wait()

    run(main())


@pytest.mark.parametrize("is_async", [True, False])
def test_a_stream_that_an_exception_view_replaces_is_closed(run, is_async, monkeypatch):
    monkeypatch.setattr(unsent, "PATIENCE", 0.01)

    def fail_tween_factory(handler, registry):
        def tween(request):
            handler(request)
            raise LookupError("after the view")

        return tween

    async def main():
        items = Unsent()
        globals()["fail_tween_factory"] = fail_tween_factory
        tween = f"{__name__}.fail_tween_factory"
        app = items.app(
            is_async, add_told, lambda config: config.add_tween(tween, under=EXCVIEW)
        )
        client = await Client().call(app)
        assert client.status == 500
        await items.closed.wait()

    run(main())


def test_a_stream_that_takes_its_time_to_be_sent(run, monkeypatch):
    monkeypatch.setattr(unsent, "PATIENCE", 0.2)

    def late(environ, start_response):
        body = app(environ, start_response)
        wait(asyncio.sleep(0))
        return body

    items = Items(2)
    app = streaming_app(items.view).app

    async def main():
        items.let(0)
        client = Client()
        client.reads.clear()
        task = client.start(Gateway(late))
        await client.until(lambda: client.is_sent_to)
        await asyncio.sleep(0.3)
        client.reads.set()
        items.let(1, 2)
        await task
        assert client.ended

    run(main())


def test_a_stream_that_nobody_closes_ends_with_its_loop(caplog):
    closed = []

    async def items():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    async def main():
        form = module.Array(lambda item: b"1")
        return await spawn_greenlet(module.stream, items(), form, None)

    body = asyncio.run(main())
    assert closed == [True]
    del body
    gc.collect()
    assert not caplog.records


def test_in_a_coroutine_of_ones_own_there_is_no_bridge(run):
    app = make(include)

    async def main():
        items = numbers_later()
        with pytest.raises(ScopeError):
            renderer_of(app)(None)(items, {"view": main})
        await items.aclose()

    run(main())


# The body itself --------------------------------------------------------------


async def body_of(items):
    form = module.Array(lambda item: json.dumps(item).encode())
    return await spawn_greenlet(module.stream, items, form, None)


def test_an_error_that_was_told_is_not_raised_again_by_closing(run):
    async def items():
        yield 1
        raise LookupError("once")

    async def main():
        body = await body_of(items())
        with pytest.raises(LookupError):
            async for _ in body:
                pass
        await body.aclose()
        await body.aclose()

    run(main())


def test_an_error_in_closing_is_raised(run):
    async def items():
        try:
            yield 1
        finally:
            raise LookupError("closing")

    async def main():
        body = await body_of(items())
        with pytest.raises(LookupError, match="closing"):
            await body.aclose()
        await body.aclose()

    run(main())


def test_closing_that_is_cancelled_waits_and_is_passed_on(run):
    events = []
    reached = asyncio.Event()

    async def items():
        try:
            yield 1
        finally:
            try:
                reached.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                events.append("closed")
                raise

    async def main():
        body = await body_of(items())
        closing = asyncio.create_task(body.aclose())
        await reached.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert events == ["closed"]

    run(main())


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("size", [1, 2 * LIMIT])
def test_items_that_go_on_although_they_were_cancelled(run, is_async, size):
    closed = []

    async def asynchronous():
        try:
            while True:
                yield "x"
                reached.set()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                yield "x" * size
        finally:
            closed.append(True)

    def plain():
        try:
            while True:
                yield "x"
                wait(reach())
                with contextlib.suppress(asyncio.CancelledError):
                    wait(asyncio.Event().wait())
                yield "x" * size
        finally:
            closed.append(True)

    async def reach():
        reached.set()

    reached = asyncio.Event()

    async def main():
        body = await body_of(asynchronous() if is_async else plain())
        await anext(aiter(body))
        await reached.wait()
        await body.aclose()
        assert closed == [True]

    run(main())


def test_what_an_iterable_gives_is_closed(run):
    closed = []

    class Iterable:
        async def __aiter__(self):
            try:
                yield 1
                yield 2
            finally:
                await asyncio.sleep(0)
                closed.append("generator")

        async def aclose(self):
            closed.append("iterable")

    async def main():
        body = await body_of(Iterable())
        await body.aclose()
        assert closed == ["generator", "iterable"]

    run(main())


def test_what_is_closed_is_closed_once(run):
    class Rows:
        closed = 0

        def __aiter__(self):
            return self

        async def __anext__(self):
            return 1

        async def aclose(self):
            self.closed += 1

    class Cursor(Rows):
        aclose = property()

        def close(self):
            assert where() == LOOP
            self.closed += 1

    async def main():
        for rows in (Rows(), Cursor()):
            body = await body_of(rows)
            assert (await anext(aiter(body))).startswith(b"[1")
            await body.aclose()
            await body.aclose()
            assert rows.closed == 1
            assert [part async for part in body] == []

    run(main())


# Servers ----------------------------------------------------------------------


SERVERS = {"gunicorn": "json_app:app", "uvicorn": "json_app:asgi_app"}


@pytest.fixture(scope="module", params=SERVERS)
def server(request):
    with serve(request.param, SERVERS[request.param], directory=APPS) as server:
        yield server


def test_a_server_sends_the_first_item_before_there_is_another(server):
    with server.connect() as connection, server.connect() as other:
        connection.sendall(b"GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = receive_until(connection, b'{"number": 0}\n')
        assert b"content-length" not in received.lower()
        other.sendall(b"GET /release HTTP/1.1\r\nHost: localhost\r\n\r\n")
        receive_until(other, b"released")
        receive_until(connection, b'{"number": 1}\n')


def test_a_server_tells_the_items_that_the_client_has_left(server):
    with server.connect() as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        receive_until(connection, b"[0")
    with server.connect() as other:
        other.sendall(b"GET /closed HTTP/1.1\r\nHost: localhost\r\n\r\n")
        receive_until(other, b"closed")


def test_a_server_cuts_a_response_with_an_error_in_it(server):
    with server.connect() as connection:
        connection.sendall(b"GET /broken HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                received += part
    assert b"[0" in received
    assert not received.endswith(b"0\r\n\r\n")
    server.wait_for("in the middle")

"""What WebSockets add to a configurator: mapper, options, predicate, attributes."""

import asyncio
import importlib
import threading

import pytest
from asgi import Client
from asgi_websocket import InProcess
from inprocess import EXECUTOR, LOOP, make_app, where
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.httpexceptions import HTTPConflict
from pyramid.response import Response
from pyramid_retry import RetryableException
from ws_client import Refused

from aioext.exceptions import ConnectionClosed
from aioext.executor import THREAD_NAME, Executor
from aioext.interfaces import IExecutor, ILifespan, ISockets
from aioext.websocket import (
    SyncWebSocket,
    UWSGIWebsocketMapper,
    WebSocket,
    WebsocketConnectionView,
    WebsocketMapper,
)
from aioext.websocket.config import Threads
from aioext.websocket.helpers import ignore_websocket_closed
from aioext.websocket.options import Options


async def talk(app, message="hello", path="/", **options):
    """What the client is answered."""
    async with InProcess(app).connect(path, **options) as ws:
        await ws.send(message)
        return await ws.recv()


async def refusal(app, path="/", **options):
    with pytest.raises(Refused) as caught:
        await talk(app, path=path, **options)
    return caught.value


def app_of(view, *steps, settings=None, **options):
    return make_app(
        lambda config: config.add_view(view, **options), *steps, settings=settings
    )


def socket_app(view, *steps, **options):
    return app_of(view, *steps, mapper=WebsocketMapper, **options)


async def echo(ws):
    async for message in ws:
        await ws.send(message)


# The mapper


@pytest.mark.parametrize("mapper", [WebsocketMapper, UWSGIWebsocketMapper])
def test_the_mapper_has_two_names(run, mapper):
    assert run(talk(app_of(echo, mapper=mapper))) == "hello"


def test_a_view_may_name_its_mapper_itself(run):
    class View:
        __view_mapper__ = WebsocketMapper

        def __init__(self, request): ...

        async def __call__(self, ws):
            await ws.send(await ws.recv())

    assert run(talk(app_of(View))) == "hello"


@pytest.mark.parametrize("sync_views", ["executor", "inline", "request"])
@pytest.mark.parametrize("in_thread", [True, False])
def test_a_function_runs_on_the_loop_or_in_its_thread(run, sync_views, in_thread):
    def view(ws):
        ws.send(where())

    settings = {"aioext.sync_views": sync_views}
    app = socket_app(view, settings=settings, executor=in_thread)
    assert run(talk(app)) == (EXECUTOR if in_thread else LOOP)


@pytest.mark.parametrize("sync_views", ["executor", "inline", "request"])
def test_a_coroutine_runs_on_the_loop(run, sync_views):
    async def view(ws):
        await ws.send(where())

    settings = {"aioext.sync_views": sync_views}
    assert run(talk(socket_app(view, settings=settings))) == LOOP


def refused(view, **options):
    with pytest.raises(ConfigurationError) as caught:
        socket_app(view, **options)
    return str(caught.value)


def test_a_coroutine_that_is_to_run_in_a_thread_is_refused():
    message = refused(echo, executor=True)
    assert f"The view function {__name__}.echo is a coroutine, and executor" in message


def test_an_asynchronous_generator_is_refused():
    async def view(ws):
        yield "hello"

    assert "is an asynchronous generator" in refused(view)


def test_other_parameters_are_refused():
    def view(ws, a, b, c): ...

    assert "takes ['ws', 'a', 'b', 'c'], and WebsocketMapper gives" in refused(view)


def test_a_class_without_a_method_is_refused():
    class View:
        def __init__(self, request): ...

    assert "without a method __call__()" in refused(View)
    assert "without a method talk()" in refused(View, attr="talk")


def test_the_view_of_an_instance_is_made_when_it_is_asked_for(run):
    class View:
        def __init__(self, context, request):
            if "refuse" in request.params:
                raise HTTPConflict("taken")

        async def talk(self, ws):
            await ws.send("hello")

    app = socket_app(View, attr="talk")
    assert run(talk(app)) == "hello"
    assert run(refusal(app, "/?refuse=")).status == 409


def test_a_plain_request_is_told_to_upgrade(run):
    client = run(Client().call(socket_app(echo)))
    status, headers, body = client.response
    assert status == 426
    assert (b"upgrade", b"websocket") in headers
    assert b"Open it with a WebSocket client" in body


# Threads


def threaded(ws):
    for message in ws:
        ws.send(message)


def test_threads_are_as_many_as_the_settings_say():
    registry = socket_app(echo, settings={"aioext.websocket.threads": "7"}).app.registry
    threads = registry.getUtility(IExecutor, name="websocket")
    assert threads is registry.getUtility(ISockets).threads
    assert threads.workers == 7
    assert isinstance(threads, Executor)
    # Views that block have others.
    assert registry.getUtility(IExecutor) is not threads


def test_a_thread_is_reserved_before_it_is_needed():
    threads = Threads(2)
    assert [threads.reserve() for _ in range(3)] == [True, True, False]
    threads.free()
    assert [threads.reserve() for _ in range(2)] == [True, False]


def test_the_threads_end_with_the_application(run):
    app = socket_app(threaded, executor=True)

    def count():
        return sum(
            thread.name.startswith(THREAD_NAME) for thread in threading.enumerate()
        )

    async def main():
        before = count()
        async with app.app.registry.getUtility(ILifespan).open():
            assert await talk(app) == "hello"
            assert count() == before + 1
        assert count() == before

    run(main())


def test_a_request_that_is_tried_again_keeps_its_thread(run):
    def configure(config):
        config.include("pyramid_retry")
        config.add_tween(f"{__name__}.make_retried")

    app = socket_app(
        threaded,
        configure,
        executor=True,
        settings={"aioext.websocket.threads": 1, "retry.attempts": 3},
    )

    async def main():
        return [await talk(app) for _ in range(3)]

    assert run(main()) == ["hello"] * 3


def make_retried(handler, registry):
    def tween(request):
        response = handler(request)
        if request.environ["retry.attempt"] < 2:
            raise RetryableException
        return response

    return tween


def test_a_page_that_may_not_takes_no_thread(run):
    app = socket_app(threaded, executor=True, settings={"aioext.websocket.threads": 1})

    async def main():
        for _ in range(3):
            refused = await refusal(app, origin="https://other.example")
            assert refused.status == 403
        return await talk(app)

    assert run(main()) == "hello"


# Settings and the options of views


def options_seen(run, *, settings=None, **options):
    """The options of the WebSocket of a view with ``options``."""
    seen = []

    async def view(request, ws):
        seen.append(request.environ["aioext.websocket"].options)
        await ws.send("hello")

    run(talk(socket_app(view, settings=settings, **options)))
    return seen[0]


def test_a_view_has_the_options_of_the_application_or_its_own(run):
    settings = {"aioext.websocket.max_size": 70, "aioext.websocket.queue": 5}
    assert options_seen(run) == Options()
    assert options_seen(run, settings=settings) == Options(max_size=70, queue=5)
    seen = options_seen(run, settings=settings, max_size="80", subprotocols=["a"])
    assert seen == Options(max_size=80, queue=5, subprotocols=("a",))


def test_options_are_made_once_for_all_requests(run):
    seen = []

    async def view(request, ws):
        seen.append(request.environ["aioext.websocket"].options)
        await ws.send("hello")

    app = socket_app(view, max_size=80)

    async def main():
        for _ in range(2):
            await talk(app)

    run(main())
    assert seen[0] is seen[1]


def test_settings_that_are_added_later_hold(run):
    def add(config):
        config.add_settings({"aioext.websocket.max_size": 70})

    seen = []

    async def view(request, ws):
        seen.append(request.environ["aioext.websocket"].options.max_size)
        await ws.send("hello")

    run(talk(socket_app(view, add)))
    assert seen == [70]


@pytest.mark.parametrize("mapper", [WebsocketMapper, None])
def test_a_wrong_option_is_told_when_it_is_configured(mapper):
    with pytest.raises(ConfigurationError) as caught:
        app_of(echo, mapper=mapper, max_size=0)
    assert f"The view function {__name__}.echo has max_size=0; it takes" in str(
        caught.value
    )


def test_a_wrong_origin_in_the_settings_is_told_when_it_is_configured():
    with pytest.raises(ConfigurationError) as caught:
        make_app(settings={"aioext.websocket.origins": "https://a.example b.example"})
    message = str(caught.value)
    assert "The setting aioext.websocket.origins takes origins like" in message
    assert "'b.example'" in message


def test_options_are_for_views_of_any_form(run):
    async def view(request):
        ws = request.websocket
        if ws is None:
            return Response("page")
        await ws.send(str(request.environ["aioext.websocket"].options.max_size))
        return ws

    app = app_of(view, max_size=80)
    assert run(talk(app)) == "80"
    assert run(Client().call(app)).body == b"page"


def test_limits_of_the_protocol_are_remembered_for_who_cannot_apply_them():
    def sockets(settings=None, **options):
        app = socket_app(echo, settings=settings, **options)
        return app.app.registry.getUtility(ISockets).not_applied

    assert sockets() == []
    assert sockets(max_size=5, queue=5, subprotocols=["a"]) == []
    assert sockets({"aioext.websocket.ping_timeout": 5}) == [
        "aioext.websocket.ping_timeout"
    ]
    (told,) = sockets(ping_interval=5, compression="off")
    assert told == f"ping_interval, compression of function {__name__}.echo"


# The predicate


def test_the_predicate_tells_sockets_from_pages(run):
    def configure(config):
        config.add_view(echo, mapper=WebsocketMapper, is_websocket=True)
        config.add_view(lambda request: Response("page"), is_websocket=False)

    app = make_app(configure)
    assert run(talk(app)) == "hello"
    assert run(Client().call(app)).body == b"page"


def test_a_view_for_sockets_only_is_not_found_by_others(run):
    app = socket_app(echo, is_websocket=True)
    assert run(Client().call(app)).status == 404


# What a request tells


async def tell(request):
    ws = request.websocket
    if ws is None:
        return Response(f"{request.is_websocket}")
    assert request.is_websocket is True
    assert request.websocket is ws
    await ws.send(type(ws).__name__)
    return ws


def tell_in_thread(request):
    ws = request.websocket
    ws.send(f"{type(ws).__name__} {where()}")
    return ws


@pytest.mark.parametrize(
    ("view", "told"),
    [(tell, "WebSocket"), (tell_in_thread, f"SyncWebSocket {EXECUTOR}")],
)
def test_a_request_has_its_websocket_for_the_view_that_asks(run, view, told):
    assert run(talk(app_of(view))) == told


def test_any_other_request_has_none(run):
    assert run(Client().call(app_of(tell))).body == b"False"


def test_a_view_of_a_mapper_gets_the_same_socket(run):
    async def view(request, ws):
        assert isinstance(ws, WebSocket)
        assert isinstance(request.websocket, WebSocket)
        await request.websocket.send("hello")

    def function(request, ws):
        assert isinstance(ws, SyncWebSocket)
        assert isinstance(request.websocket, SyncWebSocket)
        request.websocket.send("hello")

    for each in view, function:
        assert run(talk(socket_app(each))) == "hello"


def test_the_headers_of_the_response_go_into_the_handshake(run):
    async def view(request):
        request.response.headers["X-Name"] = "value"
        await request.websocket.send("hello")
        return request.websocket

    async def main():
        async with InProcess(app_of(view)).connect("/") as ws:
            return ws.headers

    assert run(main()) == [("x-name", "value")]


def test_another_page_is_refused_where_the_socket_is_asked_for(run):
    asked = []

    async def view(request):
        asked.append(request.is_websocket)
        ws = request.websocket
        asked.append(ws)
        return ws

    refused = run(refusal(app_of(view), origin="https://other.example"))
    assert refused.status == 403
    assert asked == [True]


@pytest.mark.parametrize("status", [200, 302, 404, 503])
def test_what_a_view_returns_once_it_has_used_the_socket_is_not_sent(run, status):
    async def view(request):
        await request.websocket.send(await request.websocket.recv())
        return Response("nobody sees this", status=status)

    async def main():
        async with InProcess(app_of(view)).connect("/") as ws:
            await ws.send("hello")
            return await ws.recv(), await ws.closed()

    message, (code, _) = run(main())
    assert message == "hello"
    assert code == (1000 if status < 400 else 1011)


def test_a_socket_that_was_never_used_and_is_returned_is_refused_with_nothing(run):
    async def view(request):
        return request.websocket

    refused = run(refusal(app_of(view)))
    assert (refused.status, refused.body) == (200, "")


# Beside other configurations


def test_it_can_be_included_twice():
    config = Configurator()
    config.include("aioext")
    config.include("aioext.websocket.config")
    config.include("aioext")
    config.add_view(echo, mapper=WebsocketMapper, max_size=5)
    config.commit()


def test_a_commit_in_the_middle_keeps_it_working(run):
    def commit(config):
        config.commit()

    app = make_app(
        "aioext",
        commit,
        lambda config: config.add_view(echo, mapper=WebsocketMapper, max_size=70),
    )
    assert run(talk(app)) == "hello"


def test_100_sockets_at_once_have_their_own(run):
    async def view(request, ws):
        async for message in ws:
            await asyncio.sleep(0)
            await ws.send(f"{request.params['name']} {message}")

    app = socket_app(view)

    async def main():
        paths = [f"/?name={number}" for number in range(100)]
        return await asyncio.gather(*(talk(app, path=path) for path in paths))

    assert run(main()) == [f"{number} hello" for number in range(100)]


@pytest.mark.parametrize(
    ("path", "thing"),
    [
        ("config:WebsocketMapper", WebsocketMapper),
        ("config:UWSGIWebsocketMapper", UWSGIWebsocketMapper),
        ("view:WebsocketConnectionView", WebsocketConnectionView),
        ("exceptions:WebsocketClosed", ConnectionClosed),
    ],
)
def test_aiopyramids_users_find_what_they_import(path, thing):
    module, _, name = path.partition(":")
    found = importlib.import_module(f"aioext.websocket.{module}")
    assert name in found.__all__
    assert getattr(found, name) is thing


def test_what_aiopyramids_users_wrapped_around_an_application_does_nothing():
    app = object()
    with pytest.warns(DeprecationWarning, match="does nothing any more") as caught:
        assert ignore_websocket_closed(app) is app
    # It is told where it is called.
    assert caught[0].filename == __file__

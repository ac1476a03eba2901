"""The response that turns a request into a WebSocket, and those that refuse."""

import asyncio
import logging

import pytest
from asgi_websocket import InProcess
from inprocess import make_app
from pyramid import testing
from pyramid.httpexceptions import HTTPBadRequest, HTTPForbidden, HTTPNotImplemented
from pyramid.request import Request
from pyramid.response import Response
from pyramid.threadlocal import get_current_request
from webtest import TestApp
from ws_client import Refused

from aioext import ConnectionClosed, spawn_greenlet, wait
from aioext.executor import Executor
from aioext.websocket import HTTPUpgradeRequired, SyncWebSocket, WebSocketResponse
from aioext.websocket.channel import Channel
from aioext.websocket.handler import Handler
from aioext.websocket.handshake import KEY, Handshake
from aioext.websocket.options import Options
from aioext.websocket.response import (
    WebSocketBody,
    admit,
    is_closed,
    upgrade_error,
)

KEY_16 = "AAAAAAAAAAAAAAAAAAAAAA=="
UPGRADE = {
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_UPGRADE": "websocket",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
    "HTTP_SEC_WEBSOCKET_KEY": KEY_16,
}


class Quiet(Channel):
    """A connection on which nothing comes; tells how it was closed."""

    def __init__(self, *_):
        super().__init__(Options())
        self.closed_with = []

    async def send(self, message):
        self.check_open()

    async def close(self, code=1000, reason=""):
        self.closed_with.append(code)
        self.end(code, reason)


def make_request(opener=None, options=None, **environ):
    """A request that is a handshake, of an application with aioext."""
    request = Request.blank("/", environ)
    request.registry = make_app().app.registry
    handshake = Handshake(request.environ, opener, None)
    handshake.options = options
    request.environ[KEY] = handshake
    return request


# What refuses


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"HTTP_UPGRADE": ""}, HTTPUpgradeRequired),
        ({"HTTP_UPGRADE": "h2c"}, HTTPUpgradeRequired),
        ({"HTTP_SEC_WEBSOCKET_VERSION": ""}, HTTPUpgradeRequired),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, HTTPUpgradeRequired),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "13, 8"}, HTTPUpgradeRequired),
        ({"HTTP_SEC_WEBSOCKET_KEY": ""}, HTTPBadRequest),
        ({"HTTP_SEC_WEBSOCKET_KEY": "short"}, HTTPBadRequest),
        ({"REQUEST_METHOD": "POST"}, HTTPBadRequest),
        ({"HTTP_CONNECTION": "close"}, HTTPBadRequest),
        ({}, HTTPNotImplemented),
        ({"HTTP_SEC_WEBSOCKET_VERSION": " 13 "}, HTTPNotImplemented),
    ],
)
def test_what_cannot_become_a_websocket_is_told_why(changed, error):
    environ = Request.blank("/", {**UPGRADE, **changed}).environ
    assert type(upgrade_error(environ)) is error


def test_an_unknown_version_is_told_the_one_that_is_spoken():
    environ = {**UPGRADE, "HTTP_SEC_WEBSOCKET_VERSION": "8"}
    response = Request.blank("/", environ).get_response(upgrade_error(environ))
    assert response.status_int == 426
    assert response.headers["Sec-WebSocket-Version"] == "13"
    assert "has to be 13" in response.text


@pytest.mark.parametrize("is_asgi", [True, False])
def test_the_upgrade_header_is_for_servers_that_pass_it_on(is_asgi):
    environ = {"asgi.scope": {}} if is_asgi else {}
    response = Request.blank("/", environ).get_response(HTTPUpgradeRequired())
    assert response.status == "426 Upgrade Required"
    assert response.headers.get("Upgrade") == ("websocket" if is_asgi else None)
    assert "Open it with a WebSocket client" in response.text


def test_the_application_runs_in_webtest_with_a_plain_refusal():
    def view(request):
        return WebSocketResponse(lambda ws: None)

    app = TestApp(make_app(lambda config: config.add_view(view)).app)
    assert app.get("/", status=426).status_int == 426
    headers = {name[5:].replace("_", "-"): value for name, value in UPGRADE.items()}
    assert app.get("/", headers=headers, status=501).status_int == 501


# Admission


def test_a_request_that_is_no_handshake_is_not_admitted():
    request = Request.blank("/")
    with pytest.raises(HTTPUpgradeRequired):
        admit(request)


def test_the_options_are_the_applications_unless_the_view_has_some():
    request = make_request()
    handshake = admit(request)
    assert handshake is request.environ[KEY]
    assert handshake.options == Options()
    own = Options(max_size=5)
    assert admit(make_request(options=own)).options is own


def test_an_application_without_aioext_has_the_defaults():
    request = make_request()
    request.registry = testing.setUp().registry
    try:
        assert admit(request).origin_is_allowed
    finally:
        testing.tearDown()


def test_another_page_is_not_admitted():
    request = make_request(HTTP_ORIGIN="https://other.example")
    with pytest.raises(HTTPForbidden) as caught:
        admit(request)
    assert "A page of https://other.example may not open" in caught.value.detail
    options = Options(origins=("https://other.example",))
    admit(make_request(options=options, HTTP_ORIGIN="https://other.example"))


def test_the_subprotocol_is_chosen_with_the_request():
    seen = []

    def choose(offered, request):
        seen.append(request)
        return offered[0]

    options = Options(subprotocols=choose)
    request = make_request(options=options, HTTP_SEC_WEBSOCKET_PROTOCOL="a, b")
    assert admit(request).subprotocol == "a"
    assert seen == [request]


# The response


async def quiet(ws): ...


def test_it_is_a_101_without_a_body_to_tell_of():
    response = WebSocketResponse(quiet, make_request())
    assert response.status == "101 Switching Protocols"
    assert response.headerlist == []


def test_the_request_is_the_one_that_is_under_way():
    request = make_request(HTTP_ORIGIN="https://other.example")
    testing.setUp(request=request)
    try:
        with pytest.raises(HTTPForbidden):
            WebSocketResponse(quiet)
    finally:
        testing.tearDown()


@pytest.mark.parametrize("environ", [{}, UPGRADE])
def test_without_a_handshake_it_is_refused_where_it_is_made(environ):
    request = Request.blank("/", environ)
    request.registry = make_app().app.registry
    with pytest.raises((HTTPUpgradeRequired, HTTPNotImplemented)):
        WebSocketResponse(quiet, request)


def test_without_a_request_it_is_refused_where_it_is_sent():
    response = Request.blank("/").get_response(WebSocketResponse(quiet))
    assert response.status_int == 426


def test_it_starts_with_its_headers_and_its_body_is_the_handler():
    request = make_request()
    response = WebSocketResponse(quiet, request)
    response.set_cookie("name", "value")
    started = []
    body = response(request.environ, lambda *args: started.append(args))
    assert type(body) is WebSocketBody
    ((status, headers),) = started
    assert status == "101 Switching Protocols"
    assert headers == [("Set-Cookie", "name=value; Path=/")]


def test_a_handler_may_be_made_by_the_caller(run):
    handler = Handler(quiet)
    assert WebSocketResponse(handler, make_request())._handler is handler


async def converse(view, *messages, **options):
    """What the client is sent, and the code that it was closed with."""
    served = InProcess(make_app(lambda config: config.add_view(view)))
    async with served.connect("/", **options) as ws:
        for message in messages:
            await ws.send(message)
        received = []
        while (message := await ws.recv()) is not None:
            received.append(message)
        return received, ws._code


def test_a_view_hands_it_to_a_coroutine(run):
    async def handler(ws):
        await ws.send(await ws.recv())

    def view(request):
        return WebSocketResponse(handler)

    assert run(converse(view, "hello")) == (["hello"], 1000)


def test_a_view_hands_it_to_a_function(run):
    def handler(ws):
        assert type(ws) is SyncWebSocket
        ws.send(ws.recv())

    async def view(request):
        return WebSocketResponse(handler, request)

    assert run(converse(view, "hello")) == (["hello"], 1000)


def test_a_view_hands_it_to_a_thread(run):
    executor = Executor(1)

    def handler(ws):
        ws.send(ws.recv())

    async def view(request):
        return WebSocketResponse(handler, executor=executor)

    async def main():
        try:
            return await converse(view, "hello")
        finally:
            await executor.aclose()

    assert run(main()) == (["hello"], 1000)


def test_a_view_is_refused_for_another_page(run):
    def view(request):
        return WebSocketResponse(quiet)

    with pytest.raises(Refused) as caught:
        run(converse(view, origin="https://other.example"))
    assert caught.value.status == 403


# The body


def serve(run, handler, channel=None):
    """The channel that ``handler`` has served."""
    channel = channel or Quiet()

    async def opener(*args):
        return channel

    body = WebSocketBody(Handshake({}, opener, None), Handler(handler), None, None)
    run(body.run())
    return channel


def test_it_is_closed_with_1000_once_the_handler_returns(run):
    assert serve(run, quiet).closed_with == [1000]


@pytest.mark.parametrize("error", [KeyError("mistake"), TimeoutError(), OSError()])
def test_it_is_closed_with_1011_once_the_handler_fails(run, caplog, error):
    async def handler(ws):
        raise error

    assert serve(run, handler).closed_with == [1011]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("aioext", logging.ERROR)
    assert record.exc_info[1] is error


def test_that_it_is_closed_is_no_failure(run, caplog):
    async def handler(ws):
        ws._channel.end(1001)
        await ws.send("late")

    assert serve(run, handler).closed_with == [1000]
    assert not caplog.records


def test_that_it_is_closed_is_no_failure_of_a_task_group(run, caplog):
    async def handler(ws):
        ws._channel.end(1001)
        async with asyncio.TaskGroup() as group:
            group.create_task(ws.send("late"))
            group.create_task(ws.send("late"))

    serve(run, handler)
    assert not caplog.records


def test_that_another_one_is_closed_is_a_failure(run, caplog):
    async def handler(ws):
        raise ConnectionClosed(1006)

    assert serve(run, handler).closed_with == [1011]
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionClosed(1000), True),
        (KeyError(), False),
        (ConnectionResetError(), False),
        (ExceptionGroup("", [ConnectionClosed(1), ConnectionClosed(2)]), True),
        (ExceptionGroup("", [ConnectionClosed(1), KeyError()]), False),
        (ExceptionGroup("", [ExceptionGroup("", [ConnectionClosed(1)])]), True),
    ],
)
def test_what_says_that_a_websocket_is_closed(error, expected):
    assert is_closed(error) is expected


def test_a_client_that_left_before_is_for_the_server(run):
    async def opener(*args):
        raise ConnectionClosed(1006)

    def handler(ws):
        raise AssertionError

    body = WebSocketBody(Handshake({}, opener, None), Handler(handler), None, None)
    with pytest.raises(ConnectionClosed):
        run(body.run())


def test_who_iterates_over_it_waits_for_the_handler(run):
    async def opener(*args):
        return Quiet()

    async def handler(ws):
        await asyncio.sleep(0)
        ended.append(True)

    ended = []
    body = WebSocketBody(Handshake({}, opener, None), Handler(handler), None, None)
    assert run(spawn_greenlet(list, body)) == []
    assert ended == [True]


def test_a_request_keeps_no_empty_lists_of_callbacks(run):
    request = make_request()
    seen = []

    async def opener(*args):
        return Quiet()

    async def handler(ws):
        seen.append(set(vars(request)))

    assert len(request.response_callbacks) == len(request.finished_callbacks) == 0
    handshake = Handshake({}, opener, None)
    body = WebSocketBody(handshake, Handler(handler), request, None)
    run(body.run())
    assert not seen[0] & {"response_callbacks", "finished_callbacks"}
    # There are new ones for who asks.
    request.add_finished_callback(print)
    run(body.run())
    assert list(request.finished_callbacks) == [print]


@pytest.mark.parametrize("kind", ["coroutine", "function"])
def test_the_request_is_current_in_the_handler_and_its_callbacks_have_run(run, kind):
    happened = []

    def tell(request, ws):
        assert get_current_request() is request is ws.request
        happened.append("handler")

    async def coroutine(ws):
        await asyncio.sleep(0)
        tell(ws.request, ws)

    def function(ws):
        wait(asyncio.sleep(0))
        tell(ws.request, ws)

    async def view(request):
        request.add_response_callback(lambda *_: happened.append("response"))
        request.add_finished_callback(lambda _: happened.append("finished"))
        return WebSocketResponse(coroutine if kind == "coroutine" else function)

    assert run(converse(view)) == ([], 1000)
    assert happened == ["response", "finished", "handler"]


def test_a_view_may_return_something_else(run):
    def view(request):
        WebSocketResponse(quiet)
        return Response("page")

    with pytest.raises(Refused) as caught:
        run(converse(view))
    assert (caught.value.status, caught.value.body) == (200, "page")

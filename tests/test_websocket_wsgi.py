"""``get_websocket()``: a WebSocket in plain WSGI code."""

import pytest
from asgi_websocket import InProcess
from inprocess import make_app
from pyramid.exceptions import ConfigurationError
from pyramid.wsgi import wsgiapp
from ws_client import Refused

from aioext.gateway import Gateway
from aioext.websocket import SyncWebSocket, get_websocket
from aioext.websocket.handshake import handshake_of
from aioext.websocket.options import Options


def app_with(**options):
    """A WSGI application that tells its options, once it is a WebSocket."""

    def app(environ, start_response):
        ws = get_websocket(environ, start_response, **options)
        if ws is None:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"page"]
        seen.append((handshake_of(environ).options, ws))
        for message in ws:
            ws.send(message)
        return [b"nobody sees this"]

    seen = app.seen = []
    return app


async def talk(app, **options):
    """What the client receives for ``hello``, and the subprotocol."""
    async with InProcess(app).connect("/", **options) as ws:
        await ws.send("hello")
        return await ws.recv(), ws.subprotocol


async def refusal(app, **options):
    with pytest.raises(Refused) as caught:
        await talk(app, **options)
    return caught.value


def test_it_talks(run):
    app = app_with()
    assert run(talk(Gateway(app))) == ("hello", None)
    ((options, ws),) = app.seen
    assert type(ws) is SyncWebSocket
    assert ws.request is None
    assert options == Options()


def test_a_plain_request_has_none(run):
    async def main():
        answer = await InProcess(Gateway(app_with())).get("/")
        return answer.status, answer.body

    assert run(main()) == (200, "page")


def test_it_has_options_as_a_view_has(run):
    app = app_with(subprotocols=["b", "a"], max_size="100", ping_interval=5)
    assert run(talk(Gateway(app), subprotocols=["a", "b"])) == ("hello", "b")
    options = app.seen[0][0]
    assert (options.max_size, options.ping_interval) == (100, 5.0)


def test_a_callable_that_chooses_gets_no_request(run):
    def choose(offered, request):
        assert request is None
        return offered[0]

    app = Gateway(app_with(subprotocols=choose))
    assert run(talk(app, subprotocols=["a"])) == ("hello", "a")


def test_an_option_that_does_not_exist_is_refused(run):
    with pytest.raises(TypeError, match=r"given \['max_sise'\].*'max_size'"):
        run(talk(Gateway(app_with(max_sise=5))))


def test_a_wrong_option_is_told(run):
    with pytest.raises(ConfigurationError, match="max_size=0") as caught:
        run(talk(Gateway(app_with(max_size=0))))
    assert str(caught.value).startswith("The view that calls get_websocket() has")


def test_a_page_that_may_not_is_refused_before_it_is_accepted(run):
    app = app_with()
    refused = run(refusal(Gateway(app), origin="https://other.example"))
    assert refused.status == 403
    assert "A page of https://other.example may not open" in refused.body
    assert app.seen == []


def test_other_pages_may_if_it_says_so(run):
    app = Gateway(app_with(allowed_origins=["https://other.example"]))
    assert run(talk(app, origin="https://other.example")) == ("hello", None)


def test_the_settings_of_an_application_around_it_hold(run):
    app = app_with(queue=5)
    settings = {
        "aioext.websocket.max_size": "77",
        "aioext.websocket.origins": "https://other.example",
    }
    served = make_app(lambda config: config.add_view(wsgiapp(app)), settings=settings)
    assert run(talk(served, origin="https://other.example")) == ("hello", None)
    options = app.seen[0][0]
    assert (options.max_size, options.queue) == (77, 5)


def test_nothing_is_accepted_until_it_is_used(run):
    def app(environ, start_response):
        get_websocket(environ, start_response)
        start_response("409 Conflict", [("Content-Type", "text/plain")])
        return [b"taken"]

    refused = run(refusal(Gateway(app)))
    assert (refused.status, refused.body) == (409, "taken")

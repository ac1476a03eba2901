"""What a request says of the WebSocket that it asks for."""

import pytest

from aioext.exceptions import ConnectionClosed
from aioext.websocket.handshake import (
    KEY,
    Handshake,
    asks_for_websocket,
    handshake_of,
    malformation,
)
from aioext.websocket.options import Options

KEY_16 = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {"REQUEST_METHOD": "GET", "HTTP_CONNECTION": "Upgrade"}


class Channel:
    subprotocol = None


def make(opener=None, options=None, **environ):
    """A handshake of a request that came to http://example.com."""
    environ = {
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "example.com",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "6543",
        **environ,
    }
    handshake = Handshake(environ, opener, None)
    handshake.options = options
    return handshake


# The origin


def origin_is_allowed(origin, **options):
    handshake = make(HTTP_ORIGIN=origin, options=Options(**options))
    return handshake.origin_is_allowed


def test_a_client_that_is_no_page_is_allowed():
    assert make().origin_is_allowed


@pytest.mark.parametrize(
    ("origin", "expected"),
    [("http://example.com", True), ("https://example.com", False), ("null", False)],
)
def test_a_page_of_the_application_itself_is_allowed(origin, expected):
    assert origin_is_allowed(origin) is expected


def test_other_pages_are_allowed_by_the_options():
    other = "https://other.example"
    assert not origin_is_allowed(other)
    assert origin_is_allowed(other, origins=(other,))
    assert origin_is_allowed(other, trusted=("other.example",))


def test_without_options_only_its_own_pages_are_allowed():
    assert make(HTTP_ORIGIN="http://example.com").origin_is_allowed
    assert not make(HTTP_ORIGIN="https://other.example").origin_is_allowed


@pytest.mark.parametrize("host", ["", None])
def test_a_request_without_a_host_is_of_the_address_of_the_server(host):
    handshake = make(HTTP_ORIGIN="http://127.0.0.1:6543", HTTP_HOST=host)
    assert handshake.origin_is_allowed
    del handshake._environ["HTTP_HOST"]
    assert handshake.origin_is_allowed


def test_the_scheme_of_the_request_counts():
    environ = {"wsgi.url_scheme": "https", "HTTP_ORIGIN": "https://example.com"}
    assert make(**environ).origin_is_allowed
    assert not make(
        **{**environ, "HTTP_ORIGIN": "http://example.com"}
    ).origin_is_allowed


# The subprotocol


@pytest.mark.parametrize(
    ("header", "offered"),
    [
        (None, []),
        ("", []),
        (" , ,", []),
        ("chat", ["chat"]),
        ("b,a", ["b", "a"]),
        (" v2.chat ,\tv1.chat ", ["v2.chat", "v1.chat"]),
    ],
)
def test_the_client_offers_subprotocols_in_its_order(header, offered):
    environ = {} if header is None else {"HTTP_SEC_WEBSOCKET_PROTOCOL": header}
    assert make(**environ).subprotocols == offered


def choose(offered, wanted, request=None):
    handshake = make(
        HTTP_SEC_WEBSOCKET_PROTOCOL=offered, options=Options(subprotocols=wanted)
    )
    handshake.choose_subprotocol(request)
    return handshake.subprotocol


@pytest.mark.parametrize(
    ("offered", "wanted", "chosen"),
    [
        ("a, b", (), None),
        ("", ("a",), None),
        ("c", ("a", "b"), None),
        ("b, a", ("a", "b"), "a"),
        ("b", ("a", "b"), "b"),
        # Their names differ in case.
        ("A", ("a",), None),
    ],
)
def test_the_first_that_the_view_prefers_is_chosen(offered, wanted, chosen):
    assert choose(offered, wanted) == chosen


def test_a_callable_chooses_among_the_offered_and_sees_the_request():
    seen = []

    def last(offered, request):
        seen.append((offered, request))
        return offered[-1]

    assert choose("a, b", last, "request") == "b"
    assert seen == [(["a", "b"], "request")]


def test_a_callable_may_choose_none():
    assert choose("a", lambda offered, request: None) is None


@pytest.mark.parametrize("chosen", ["c", "", "A"])
def test_a_callable_cannot_choose_what_was_not_offered(chosen):
    with pytest.raises(ValueError, match=rf"chose '{chosen}'.* offered \['a', 'b'\]"):
        choose("a, b", lambda offered, request: chosen)


def test_it_is_chosen_once():
    calls = []
    handshake = make(options=Options(subprotocols=lambda *args: calls.append(args)))
    handshake.choose_subprotocol(None)
    handshake.choose_subprotocol(None)
    assert len(calls) == 1


# Accepting


def test_it_is_accepted_once_with_headers_subprotocol_and_options(run):
    opened = []

    async def opener(*args):
        opened.append(args)
        return Channel()

    options = Options(subprotocols=("a",), max_size=5)
    handshake = make(opener, options, HTTP_SEC_WEBSOCKET_PROTOCOL="a")
    handshake.choose_subprotocol(None)
    handshake.headers = [(b"x-name", b"value")]

    async def accept_twice():
        return await handshake.accept(), await handshake.accept()

    channel, again = run(accept_twice())
    assert channel is again is handshake.channel
    assert channel.subprotocol == "a"
    assert opened == [([(b"x-name", b"value")], "a", options)]


def test_a_client_that_has_left_is_told(run):
    async def opener(*args):
        raise ConnectionClosed(1006)

    handshake = make(opener)
    with pytest.raises(ConnectionClosed):
        run(handshake.accept())
    assert handshake.channel is None


def test_its_end_is_told_once_to_everybody():
    handshake = make()
    ended = []
    handshake.at_end(lambda: ended.append(1))
    handshake.at_end(lambda: ended.append(2))
    handshake.end()
    assert sorted(ended) == [1, 2]
    handshake.end()
    assert sorted(ended) == [1, 2]


# Requests that are, or want to be, a handshake


def test_the_environ_has_the_handshake():
    handshake = make()
    assert handshake_of({KEY: handshake}) is handshake
    assert handshake_of({}) is None


@pytest.mark.parametrize(
    ("upgrade", "expected"),
    [
        (None, False),
        ("", False),
        ("h2c", False),
        ("websockets", False),
        ("websocket", True),
        ("WebSocket", True),
        ("h2c, websocket", True),
        (" websocket ", True),
    ],
)
def test_a_plain_request_may_want_to_be_one(upgrade, expected):
    environ = {} if upgrade is None else {"HTTP_UPGRADE": upgrade}
    assert asks_for_websocket(environ) is expected


@pytest.mark.parametrize("key", [KEY_16, f" {KEY_16} ", "AAAAAAAAAAAAAAAAAAAAAA=="])
def test_nothing_is_wrong_with_a_key_of_16_bytes(key):
    assert malformation({**UPGRADE, "HTTP_SEC_WEBSOCKET_KEY": key}) is None


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        "short",
        "c2hvcnQ=",
        KEY_16 + KEY_16,
        KEY_16[:-2],
        f"{KEY_16}, {KEY_16}",
        "dGhlIHNhbXBsZSBub25jZQ=!",
        "dGhlIHNhbXBsZSBub25j\u00e9Q==",
    ],
)
def test_any_other_key_is_wrong(key):
    environ = {**UPGRADE}
    if key is not None:
        environ["HTTP_SEC_WEBSOCKET_KEY"] = key
    assert malformation(environ) == ("its Sec-WebSocket-Key is not 16 bytes in base64")


@pytest.mark.parametrize("method", ["POST", "HEAD", "get"])
def test_any_other_method_is_wrong(method):
    environ = {**UPGRADE, "REQUEST_METHOD": method}
    assert malformation(environ) == "its method is not GET"


@pytest.mark.parametrize(
    ("connection", "is_wrong"),
    [
        (None, True),
        ("", True),
        ("close", True),
        ("upgraded", True),
        ("Upgrade", False),
        ("keep-alive, upgrade", False),
    ],
)
def test_the_connection_has_to_be_upgraded(connection, is_wrong):
    environ = {**UPGRADE, "HTTP_SEC_WEBSOCKET_KEY": KEY_16}
    del environ["HTTP_CONNECTION"]
    if connection is not None:
        environ["HTTP_CONNECTION"] = connection
    assert bool(malformation(environ)) is is_wrong

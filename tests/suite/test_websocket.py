"""What a WebSocket does for an application, the same on every runtime.

The application is ``apps/websocket_app.py``. What a runtime cannot do stands in
``runtimes.py``, and the tests assert what it does instead.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack

import pytest
from asgi_websocket import InProcess
from life import APPS
from runtimes import (
    ALL,
    CODES,
    CUT_SOCKETS,
    EARLY,
    EMPTY,
    HANDSHAKE_HEADERS,
    OWN_CODES,
    OWN_REASONS,
    PINGS,
    REASONS,
    REFUSAL_HEADERS,
    REFUSALS,
    SOCKETS,
    is_patient,
)
from servers import poll
from ws_client import HANDSHAKE, Refused, values

sys.path.insert(0, str(APPS))
import websocket_app

pytestmark = pytest.mark.feature(SOCKETS)

IN_PROCESS = "in process"
# What servers answer to a handshake of another version, if not 426.
OWN_ANSWERS = {"uvicorn": 400, "hypercorn": 400, "granian": 400, "daphne": 101}
# Where gunicorn itself ends what a client has left, after its usual time.
IMPATIENT = [each.name for each in ALL if each.has(SOCKETS) and not is_patient(each)]


@pytest.fixture(scope="session")
def lingering(running):
    """Handlers that clients have left already, for they take their time to end."""
    if running.runtime.is_in_process or is_patient(running.runtime):
        return None
    return asyncio.run(leave_lingering(running.sockets))


@pytest.fixture
def served(running, lingering):
    return running.sockets


def told_close(served, code, reason):
    """What ``closed``, ``close_code`` and ``close_reason`` are once a client closed."""
    if not served.has(CODES):
        code = 1006
    if not served.has(REASONS):
        reason = ""
    return [True, code, reason]


async def refusal(served, path, **options):
    """The response to a handshake that is refused."""
    with pytest.raises(Refused) as caught:
        async with served.connect(path, **options):
            pass
    return caught.value


async def assert_refused(served, path, status, body=None, **options):
    refused = await refusal(served, path, **options)
    if not served.has(REFUSALS):
        status, body = 403, ""
    assert refused.status == status
    if body is not None:
        assert refused.body == body
    return refused


async def is_accepted(served, path, **options):
    """Whether an echo is accepted, and not forbidden."""
    try:
        async with served.connect(path, **options) as ws:
            await ws.send("hello")
            return (await ws.recv()).endswith("hello")
    except Refused as refused:
        # 400: an empty origin, to a server that looks at it.
        if refused.status not in (400, 401, 403):
            raise
        return False


# Messages --------------------------------------------------------------------


MESSAGES = [
    "text",
    b"binary",
    "",
    b"",
    "\u00e9\u20ac\U0001f600",
    "with \0 in it",
    bytes(range(256)),
    "x" * 65_536,
    b"\xff" * websocket_app.MAX_SIZE,
]


@pytest.mark.either(EMPTY)
def test_a_message_comes_back_as_it_was(served, run):
    async def talk():
        async with served.connect("/echo") as ws:
            for message in MESSAGES:
                if not message and not served.has(EMPTY):
                    continue
                await ws.send(message)
                received = await ws.recv()
                assert type(received) is type(message)
                assert received == message

    run(talk())


def test_a_burst_is_answered_in_order_and_complete(served, run):
    count = 500

    async def talk():
        async with served.connect("/echo") as ws:

            async def send():
                for number in range(count):
                    await ws.send(f"{number}" if number % 2 else b"%d" % number)

            sending = asyncio.create_task(send())
            received = [await ws.recv() for _ in range(count)]
            await sending
        return received

    expected = [f"{n}" if n % 2 else b"%d" % n for n in range(count)]
    assert run(talk()) == expected


def test_messages_of_many_senders_do_not_mix(served, run):
    async def talk():
        async with served.connect("/send-at-once") as ws:
            return [await ws.recv() for _ in range(80)]

    seen = {}
    for message in run(talk()):
        assert message == message[0] * len(message)
        seen.setdefault(message[0], []).append(len(message))
    # And those of each sender are in their order.
    assert seen == {str(digit): [1, 100_000] * 5 for digit in range(8)}


def test_a_message_over_the_limit_of_its_view_closes_with_1009(served, run):
    async def talk():
        async with served.connect("/small") as ws:
            await ws.send("x" * 10)
            assert await ws.recv() == "x" * 10
            await ws.send("\u00e9" * 5)
            assert await ws.recv() == "\u00e9" * 5
            await ws.send("\u00e9" * 5 + "x")
            code, _ = await ws.closed()
            assert code == (1009 if served.has(OWN_CODES) else 1011)

    run(talk())


@pytest.mark.either(OWN_CODES)
@pytest.mark.parametrize(
    "path", ["/echo", "/page-or-socket", "/page-or-socket-in-executor", "/plain"]
)
def test_a_message_over_the_limit_closes_with_1009_in_every_form(served, run, path):
    async def talk():
        async with served.connect(path) as ws:
            await ws.send("hello")
            assert (await ws.recv()).endswith("hello")
            await ws.send(b"x" * (websocket_app.MAX_SIZE + 1))
            code, _ = await ws.closed()
            assert code == (1009 if served.has(OWN_CODES) else 1011)

    run(talk())


def test_recv_gives_up_after_its_timeout_and_loses_nothing(served, run):
    async def talk():
        async with served.connect("/patient") as ws:
            assert await ws.recv() == "nothing yet"
            await ws.send("here")
            assert await ws.recv() == "here"

    run(talk())


def test_a_recv_that_is_cancelled_loses_nothing(served, run):
    async def talk():
        async with served.connect("/cancel-receive") as ws:
            assert await ws.recv() == "cancelled"
            await ws.send("first")
            await ws.send("second")
            assert await ws.recv() == "first"
            assert await ws.recv() == "second"

    run(talk())


def test_a_second_recv_at_the_same_time_is_refused(served, run):
    async def talk():
        async with served.connect("/receive-twice") as ws:
            assert (await ws.recv()).startswith("refused: recv() was called while")
            await ws.send("for the first")
            assert await ws.recv() == "for the first"

    run(talk())


@pytest.mark.either(CODES, REASONS)
def test_json_goes_both_ways(served, run):
    async def talk():
        async with served.connect("/echo-json") as ws:
            for value in (None, 1.5, "\u00e9", ["a", {"b": None}]):
                await ws.send(json.dumps(value))
                answer = await ws.recv()
                assert type(answer) is str
                assert json.loads(answer) == {"received": value}
            await ws.close(4000, "enough")
        _, code, reason = told_close(served, 4000, "enough")
        assert await served.told(ws.key) == [[code, reason]]

    run(talk())


def test_only_str_and_bytes_are_messages(served, run):
    async def talk():
        async with served.connect("/send-wrong") as ws:
            for shown in ("None", "5", "['a']"):
                told = await ws.recv()
                assert told.startswith("TypeError: send() takes a str")
                assert shown in told

    run(talk())


@pytest.mark.either(PINGS)
def test_an_application_can_ping_where_the_server_lets_it(served, run):
    async def talk():
        async with served.connect("/ping") as ws:
            answer = await ws.recv()
        if served.has(PINGS):
            assert 0 < float(answer.removeprefix("took ")) < 20
        else:
            assert answer.startswith("NotImplementedError: This server pings")

    run(talk())


@pytest.mark.either(PINGS)
def test_limits_that_a_server_does_not_apply_are_told_once(served):
    if not served.has(EARLY):
        # Nobody starts it, and so nobody is told.
        return
    told = 0 if served.has(PINGS) else 1
    assert served.output.count("so these have no effect: ping_interval of") == told


# Closing ---------------------------------------------------------------------


@pytest.mark.either(CODES, REASONS)
@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ((1000, ""), (1000, "")),
        ((1001, "gone"), (1001, "gone")),
        ((4321, "\u00e9"), (4321, "\u00e9")),
        ((None, ""), (1005, "")),
    ],
)
def test_iteration_ends_and_sending_fails_once_the_client_has_closed(
    served, run, sent, told
):
    async def talk():
        async with served.connect("/watch") as ws:
            await ws.send("one")
            await ws.send("two")
            await ws.close(*sent)
        return await served.told(ws.key, 3)

    received, outcome, tries = run(talk())
    assert received == ["one", "two"]
    assert outcome == told_close(served, *told)
    closed = ["ConnectionClosed", *outcome[1:]]
    assert tries == {
        "recv": None,
        "recv_json": closed,
        "send": closed,
        "send_json": closed,
        "close": None,
    }


@pytest.mark.either(CUT_SOCKETS)
def test_a_client_that_vanishes_has_closed_with_1006(served, run):
    async def talk():
        async with served.connect("/watch") as ws:
            await ws.send("one")
            await ws.vanish()
        return await served.told(ws.key, 3)

    received, outcome, tries = run(talk())
    code = 1006 if served.has(CUT_SOCKETS) else 1005
    assert received == ["one"]
    assert outcome == [True, code, ""]
    assert tries["send"] == tries["recv_json"] == ["ConnectionClosed", code, ""]
    assert tries["recv"] is None


@pytest.mark.either(OWN_CODES, OWN_REASONS)
@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (4000, "b\u00e9"), (1013, "x")]
)
def test_the_application_closes_with_code_and_reason(served, run, code, reason):
    async def talk():
        async with served.connect(f"/close?code={code}&reason={reason}") as ws:
            await ws.send("close")
            told = reason if served.has(OWN_REASONS) else ""
            if code == 1013 and not served.has(OWN_CODES):
                # The call of close() fails.
                assert await ws.closed() == (1011, told)
                return None
            assert await ws.closed() == (code, told)
        return await served.told(ws.key, 2)

    result = run(talk())
    if result is None:
        return
    outcome, tries = result
    assert outcome == [True, code, reason]
    assert tries["recv"] is None
    assert tries["close"] is None
    for name in ("send", "send_json", "recv_json"):
        assert tries[name] == ["ConnectionClosed", code, reason]


def test_what_no_close_frame_can_carry_is_refused(served, run):
    async def talk():
        async with served.connect("/close-wrong") as ws:
            told = [await ws.recv() for _ in range(5)]
            assert told == [f"ValueError {n}" for n in (1005, 1006, 999, 5000, 1000)]
            # It was not closed by that, but by the handler's end.
            assert await ws.closed() == (1000, "")

    run(talk())


def test_it_is_closed_with_1000_when_its_handler_returns(served, run):
    async def talk():
        async with served.connect("/end") as ws:
            await ws.send("bye")
            assert await ws.recv() == "bye"
            assert await ws.closed() == (1000, "")

    run(talk())


@pytest.mark.parametrize("path", ["/fail", "/fail-sync", "/fail-threaded"])
def test_a_handler_that_fails_is_logged_once_and_closes_with_1011(served, run, path):
    async def talk():
        async with served.connect(path) as ws:
            await ws.send(f"failed {ws.key} in {path}")
            code, _ = await ws.closed()
            assert code == 1011
        return ws.key

    told = f"Expected: failed {run(talk())} in {path}"
    poll(lambda: told in served.output, lambda: served.output)
    assert served.output.count(told) == 1


@pytest.mark.parametrize("leave", ["close", "vanish"])
def test_a_handler_that_only_sends_hears_of_the_end(served, run, leave):
    async def talk():
        async with served.connect("/flood") as ws:
            for _ in range(10):
                await ws.recv()
            await getattr(ws, leave)()
        outcome, error = await served.told(ws.key, 2)
        assert outcome[0]
        assert outcome[1:] == error

    run(talk())


async def leave_lingering(served):
    """Leave handlers that take no notice of it; gives the keys of their clients."""

    async def leave(path, how):
        async with served.connect(path) as ws:
            await getattr(ws, how)()
            return ws.key

    paths = ["/linger", "/linger-sync", "/linger-threaded"]
    left = [leave(path, "vanish") for path in paths]
    return await asyncio.gather(*left, leave("/linger", "close"))


@pytest.mark.only(*IMPATIENT)
def test_a_handler_that_does_not_end_is_cancelled_after_its_connection(
    served, run, lingering
):
    async def talk():
        # They have been left already where that works, for this takes its time.
        keys = lingering or await leave_lingering(served)
        for key in keys:
            outcome, end, seconds = await served.told(key, 3)
            assert outcome[0]
            assert end == "cancelled"
            assert 2.5 < seconds < 20

    run(talk())


# Forms of a handler ----------------------------------------------------------


FORMS = {
    "/only-ws": "ws",
    "/only-parameter": "ws",
    "/only-request": "request",
    "/request-and-ws": "request-and-ws",
    "/ws-and-request": "ws-and-request",
    "/room-1/": "room-1",
    "/context-and-request": "root",
    "/context-request-and-ws": "root context-request-and-ws",
    "/generator": "generator",
    "/function": "function",
    "/function-of-request": "request",
    "/threaded": "thread",
    "/Instance": "Instance",
    "/Method": "root",
    "/Function": "Function",
}


def test_a_handler_has_any_of_these_forms(served, run):
    async def talk():
        for path, answer in FORMS.items():
            async with served.connect(path) as ws:
                await ws.send("hello")
                assert await ws.recv() == f"{answer} hello"

    run(talk())


@pytest.mark.parametrize("path", ["/Coroutines", "/Generators", "/Functions"])
def test_a_connection_view_is_called_for_each_message(served, run, path):
    async def talk():
        async with served.connect(path) as ws:
            assert await ws.recv() == "open root"
            for message in ("one", "two"):
                await ws.send(message)
                assert await ws.recv() == f"message {message}"
            await ws.close(4000, "enough")
        assert await served.told(ws.key) == [told_close(served, 4000, "enough")]

    run(talk())


@pytest.mark.parametrize("path", ["/page-or-socket", "/page-or-socket-in-executor"])
def test_a_view_serves_a_page_and_a_socket(served, run, path):
    async def talk():
        page = await served.get(path)
        assert page.status == 200
        assert page.body.split()[0] == "page"
        assert "True" not in page.body
        async with served.connect(path) as ws:
            for number in range(2):
                await ws.send(f"hello {number}")
                answer = await ws.recv()
                assert answer.split()[0] == "socket"
                assert answer.endswith(f"hello {number}")
                assert "False" not in answer

    run(talk())


@pytest.mark.either(REFUSALS)
def test_a_view_refuses_before_it_has_used_the_socket(served, run):
    async def talk():
        assert (await served.get("/choosy")).body == "page"
        for path in ("/choosy", "/choosy?raise=1"):
            refused = await assert_refused(served, path, 409)
            if served.has(REFUSALS):
                assert "taken" in refused.body
                assert values(refused.headers, "x-owner") == ["somebody"]

    run(talk())


def test_a_response_hands_the_socket_to_a_handler(served, run):
    async def talk():
        assert (await served.get("/respond")).body == "page"
        async with served.connect("/respond") as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
        async with served.connect("/respond-from-executor") as ws:
            await ws.send("hello")
            assert await ws.recv() == "function hello"
            if served.has(HANDSHAKE_HEADERS):
                assert "made=here; Path=/" in values(ws.headers, "set-cookie")
        assert (await served.get("/respond-from-executor")).status == 426

    run(talk())


def test_plain_wsgi_code_gets_a_socket(served, run):
    async def talk():
        assert (await served.get("/plain")).body == "page"
        async with served.connect("/plain", subprotocols=["x", "plain"]) as ws:
            assert ws.subprotocol == "plain"
            for number in range(2):
                await ws.send(f"{number}")
                assert await ws.recv() == f"plain {number}"
        # Nothing of Pyramid looks at the origin in its stead.
        assert not await is_accepted(served, "/plain", origin="http://evil.example")

    run(talk())


def test_a_predicate_tells_sockets_from_pages(served, run):
    async def talk():
        assert (await served.get("/either")).body == "page"
        assert await is_accepted(served, "/either")

    run(talk())


def test_a_server_is_a_client_of_another_one(served, run):
    if served.kind == IN_PROCESS:
        # There is nothing to connect to, but there is on every other server.
        return

    async def talk():
        url = f"{served.origin}{served.prefix}/echo".replace("http", "ws")
        for path in ("/relay", "/relay-sync"):
            async with served.connect(f"{path}?url={url}") as ws:
                for number in range(2):
                    await ws.send(f"{number}")
                    assert await ws.recv() == f"relayed {number}"

    run(talk())


# The handshake ---------------------------------------------------------------


@pytest.mark.either(HANDSHAKE_HEADERS)
def test_headers_and_cookies_of_a_tween_are_part_of_the_handshake(served, run):
    async def talk():
        for path in ("/echo", "/respond", "/order"):
            async with served.connect(path) as ws:
                assert values(ws.headers, "content-length") == []
                assert values(ws.headers, "content-type") == []
                if not served.has(HANDSHAKE_HEADERS):
                    continue
                assert values(ws.headers, "x-tween") == ["was here"]
                cookies = [
                    each.split(";")[0] for each in values(ws.headers, "set-cookie")
                ]
                assert cookies == ["first=1", "second=2"]

    run(talk())


SUBPROTOCOLS = [
    ("/prefer", ["v1.chat", "v2.chat"], "v2.chat"),
    ("/prefer", ["v1.chat"], "v1.chat"),
    ("/prefer", ["v3.chat"], None),
    ("/prefer", None, None),
    ("/choose", ["v2.a", "v1.b", "v1.c"], "v1.b"),
    ("/choose", ["v2.a"], None),
    ("/choose", None, None),
    ("/echo", ["v1.chat"], None),
]


def test_the_view_chooses_a_subprotocol(served, run):
    async def talk():
        for path, offered, chosen in SUBPROTOCOLS:
            async with served.connect(path, subprotocols=offered) as ws:
                assert ws.subprotocol == chosen
                await ws.send("hello")
                assert await ws.recv() == "hello"

    run(talk())


@pytest.mark.feature(REFUSALS)
@pytest.mark.either(REFUSAL_HEADERS)
def test_a_refusal_is_a_response_of_the_application(served, run):
    guest = [("X-User", "guest")]

    async def talk():
        refused = await assert_refused(served, "/members", 401, "who are you?")
        assert values(refused.headers, "www-authenticate") == ["Guess"]
        # It went through the tweens.
        assert values(refused.headers, "x-tween") == ["was here"]
        cookies = 2 if served.has(REFUSAL_HEADERS) else 1
        assert len(values(refused.headers, "set-cookie")) == cookies
        await assert_refused(served, "/members", 403, "members only", headers=guest)
        await assert_refused(
            served, "/nowhere", 404, f"nothing at {served.prefix}/nowhere"
        )
        refused = await assert_refused(served, "/overload", 503, "come back later")
        assert values(refused.headers, "retry-after") == ["7"]
        assert await is_accepted(served, "/members", headers=[("X-User", "member")])

    run(talk())


@pytest.mark.without(REFUSALS)
def test_a_refusal_is_403_where_the_server_knows_no_other(served, run):
    async def talk():
        for path in ("/members", "/nowhere", "/overload"):
            await assert_refused(served, path, 403, "")
        assert await is_accepted(served, "/members", headers=[("X-User", "member")])

    run(talk())


def test_an_application_without_asgi_s_extension_for_refusals_answers_403(run):
    async def talk():
        with InProcess(websocket_app.make_asgi(), extensions=()) as served:
            for path in (
                "/members",
                "/nowhere",
                "/overload",
                "/choosy",
                "/told?count=0",
            ):
                await assert_refused(served, path, 403, "")
            assert await is_accepted(served, "/echo")

    run(talk())


def test_a_view_that_is_no_socket_answers_a_handshake_as_ever(served, run):
    async def talk():
        await assert_refused(served, "/told?count=0", 200)

    run(talk())


def test_no_thread_left_is_503_before_it_is_accepted(served, run):
    threads = websocket_app.THREADS

    async def talk():
        async with AsyncExitStack() as stack:
            # They run at once, each in a thread.
            for _ in range(threads):
                await stack.enter_async_context(await open_soon(served, "/threaded"))
            await assert_refused(served, "/threaded", 503)
            # Others need no thread.
            assert await is_accepted(served, "/echo")
        # Their threads are given back.
        async with asyncio.timeout(10), AsyncExitStack() as stack:
            for _ in range(threads):
                await stack.enter_async_context(await open_soon(served, "/threaded"))

    run(talk())


async def open_soon(served, path):
    # Once a thread is free, which is a moment after its client has left.
    while True:
        try:
            async with AsyncExitStack() as stack:
                ws = await stack.enter_async_context(served.connect(path))
                await ws.send("hello")
                assert await ws.recv() == "thread hello"
                return stack.pop_all()
        except Refused:
            pass


ORIGINS = {
    None: True,
    "own": True,
    "https://trusted.example": True,
    "https://a.wild.example": True,
    "https://csrf.example": True,
    "null": False,
    "": False,
    "https://evil.example": False,
    "http://trusted.example": False,
    "https://trusted.example:8443": False,
    "https://trusted.example.evil.example": False,
    "https://wild.example": False,
    "https://evilwild.example": False,
    "http://localhost": False,
    "https://partner.example": False,
}


@pytest.mark.parametrize("path", ["/echo", "/only-ws", "/page-or-socket", "/respond"])
def test_the_origin_is_checked(served, run, path):
    async def talk():
        for origin, accepted in ORIGINS.items():
            sent = served.origin if origin == "own" else origin
            seen = await is_accepted(served, path, origin=sent)
            assert seen is accepted, origin

    run(talk())


def test_a_view_has_origins_of_its_own(served, run):
    async def talk():
        for origin, accepted in (
            ("https://partner.example", True),
            ("https://csrf.example", True),
            (served.origin, True),
            ("https://evil.example", False),
            ("null", False),
        ):
            assert await is_accepted(served, "/partners", origin=origin) is accepted

    run(talk())


def test_another_page_learns_why_it_is_refused(served, run):
    async def talk():
        evil = "https://evil.example"
        # By way of the application's forbidden view, and its tweens.
        await assert_refused(served, "/echo", 401, "who are you?", origin=evil)
        await assert_refused(
            served, "/echo", 403, "members only", origin=evil, headers=[("X-User", "x")]
        )

    run(talk())


def test_a_plain_request_is_told_to_upgrade(served, run):
    async def talk():
        for path in ("/echo", "/Coroutines", "/threaded", "/only-request", "/room-1/"):
            answer = await served.get(path)
            assert answer.status == 426
            upgrades = [each.lower() for each in values(answer.headers, "upgrade")]
            assert upgrades == ["websocket"]
            assert values(answer.headers, "content-type")[0].startswith("text/plain")
            assert "WebSocket" in answer.body

    run(talk())


def test_a_bad_handshake_is_refused_by_whoever_sees_it_first(served, run):
    def headers(**others):
        pairs = {**HANDSHAKE, **others}
        return [(name, value) for name, value in pairs.items() if value]

    async def talk():
        without = headers(**{"Sec-WebSocket-Key": None})
        assert (await served.get("/echo", without)).status == 400
        old = headers(**{"Sec-WebSocket-Version": "8"})
        answer = await served.get("/echo", old)
        assert answer.status == OWN_ANSWERS.get(served.kind, 426)
        if answer.status == 426:
            assert values(answer.headers, "sec-websocket-version") == ["13"]

    run(talk())


# The request around it -------------------------------------------------------


@pytest.mark.parametrize("path", ["/current", "/current-sync"])
def test_each_of_100_handlers_at_once_has_its_own_current_request(served, run, path):
    async def talk():
        async with AsyncExitStack() as stack:
            opened = await asyncio.gather(
                *(stack.enter_async_context(served.connect(path)) for _ in range(100))
            )
            for number in range(3):
                for ws in opened:
                    await ws.send(str(number))
                for ws in reversed(opened):
                    assert await ws.recv() == f"{ws.key} {number}"

    run(talk())


def test_the_transaction_is_over_when_the_handler_starts(served, run):
    async def talk():
        async with served.connect("/order") as ws:
            (*before, last) = await served.told(ws.key, 4)
            assert last == "handled"
            assert sorted(before) == ["committed", "finished", "responded"]
            assert before[-1] == "finished"

    run(talk())

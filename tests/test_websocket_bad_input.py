"""WebSockets of the gunicorn worker, whose clients misbehave.

Each test says what the client is told, what its handler is told, and that
nobody else notices.
"""

import contextlib
import http.client
import random
import signal
import struct
import sys
import time

import pytest
import servers
from life import APPS, ENVIRON, assert_clean, get
from servers import poll, serve
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from ws_client import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Raw,
    close_frame,
    deflated,
    frame,
    handshake,
)

MEBIBYTE = 1_048_576
# As in apps/websocket_stress.py.
MAX_SIZE = 65_536
THREADS = 64

DEFLATE = ["Sec-WebSocket-Extensions: permessage-deflate"]


def start(*options, app="websocket_stress:make()"):
    """The gunicorn worker with the application."""
    return serve("gunicorn", app, *options, directory=APPS, environ=ENVIRON)


@pytest.fixture(scope="module")
def server():
    with start() as server:
        # Before anybody was there.
        server.counts = counts(server)
        yield server
        assert server.stop() == 0
        assert_clean(server)


@pytest.fixture
def bystander(server):
    """Another client, to whom nothing may happen."""
    with opened(server, "/watch") as client:
        yield client
        client.send("still here")
        assert client.recv(timeout=5) == "still here"


def opened(server, path, **options):
    """A client that behaves."""
    return connect(
        f"ws://127.0.0.1:{server.port}{path}", proxy=None, ping_interval=None, **options
    )


def told(server, key, count=1):
    """What the application has told about a client."""
    status, facts = get(server, f"/told?key={key}&count={count}")
    assert status == 200
    return facts


def ask(server, path):
    """The JSON of a page."""
    status, facts = get(server, path)
    assert status == 200
    return facts


def counts(server, connection=None):
    """What there is in the worker; each connection has a Task for a while."""
    status, facts = get(server, "/counts", connection=connection)
    assert status == 200
    return facts


def worker(server):
    """The id of the one worker, once it exists."""
    (pid,) = poll(server.children, server.describe)
    return pid


def worker_memory(server):
    return servers.memory(worker(server))


# What breaks the protocol -----------------------------------------------------

BAD_FRAMES = {
    "an oversize message": (1009, [frame(BINARY, b"x" * (MAX_SIZE + 1))]),
    "an oversize message that is only announced": (
        1009,
        [frame(TEXT, b"x", length=1 << 62)],
    ),
    "fragments that are oversize together": (
        1009,
        [
            frame(TEXT, b"x" * (MAX_SIZE - 1), fin=False),
            frame(CONT, b"x", fin=False),
            frame(CONT, b"x"),
        ],
    ),
    "text that is not UTF-8": (1007, [frame(TEXT, b"\xff\xfe")]),
    "text that ends within a character": (1007, [frame(TEXT, "\u20ac".encode()[:2])]),
    "fragments that are not UTF-8 together": (
        1007,
        [frame(TEXT, b"\xe2\x82", fin=False), frame(CONT, b"\xff")],
    ),
    "a surrogate": (1007, [frame(TEXT, b"\xed\xa0\x80")]),
    "a reserved bit": (1002, [frame(TEXT, b"x", rsv=4)]),
    "another reserved bit": (1002, [frame(TEXT, b"x", rsv=2)]),
    "the last reserved bit": (1002, [frame(TEXT, b"x", rsv=1)]),
    "a reserved opcode": (1002, [frame(3, b"x")]),
    "a reserved control opcode": (1002, [frame(11, b"x")]),
    "an unmasked frame": (1002, [frame(TEXT, b"x", masked=False)]),
    "an unmasked close frame": (
        1002,
        [frame(CLOSE, struct.pack("!H", 1000), masked=False)],
    ),
    "a long ping": (1002, [frame(PING, b"x" * 126)]),
    "a long close frame": (1002, [close_frame(1000, b"x" * 124)]),
    "a fragmented ping": (1002, [frame(PING, b"x", fin=False)]),
    "a continuation of nothing": (1002, [frame(CONT, b"x")]),
    "a message within a message": (
        1002,
        [frame(TEXT, b"x", fin=False), frame(TEXT, b"y")],
    ),
    "a close frame with one byte": (1002, [frame(CLOSE, b"x")]),
    "a reason that is not UTF-8": (1007, [close_frame(1000, b"\xff")]),
    "compressed, which was not agreed on": (
        1002,
        [frame(TEXT, deflated(b"hello"), rsv=4)],
    ),
    **{
        f"close code {code}": (1002, [close_frame(code)])
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535)
    },
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_what_breaks_the_protocol_closes_with_its_code(server, bystander, name):
    code, frames = BAD_FRAMES[name]
    with Raw(server, "/watch") as client:
        client.send(frame(TEXT, b"before"))
        assert client.read() == (TEXT, b"before")
        client.send(*frames, frame(TEXT, b"behind"))
        assert client.end()[0] == code
    received, outcome = told(server, client.key, 2)
    assert received == ["before"]
    assert outcome[:2] == [True, code]


def test_what_came_before_it_is_received(server):
    with Raw(server, "/hold") as client:
        assert told(server, client.key) == ["held"]
        client.send(frame(TEXT, b"a"), frame(TEXT, b"b"), frame(TEXT, b"x", rsv=2))
        assert client.end()[0] == 1002
        ask(server, "/open-gate")
    facts = told(server, client.key, 3)
    assert facts[1] == [2, True]
    assert facts[2][:2] == [True, 1002]


def test_it_does_so_byte_by_byte(server):
    for name, (code, frames) in BAD_FRAMES.items():
        data = b"".join(frames)
        if len(data) > 1000:
            # Its beginning and its end are what matters.
            parts = [data[:5], data[5:9], data[9:-5], data[-5:]]
        else:
            parts = [data[at : at + 1] for at in range(len(data))]
        with Raw(server, "/watch") as client:
            # It may be told before it has sent the rest.
            with contextlib.suppress(OSError):
                for part in parts:
                    client.send(part)
            assert client.end()[0] == code, name


GOOD_FRAMES = {
    "a character split over fragments": (
        [frame(TEXT, b"\xe2\x82", fin=False), frame(CONT, b"\xac")],
        "\u20ac".encode(),
    ),
    "empty fragments": (
        [frame(TEXT, fin=False), frame(CONT, fin=False), frame(CONT)],
        b"",
    ),
    "a ping between fragments": (
        [frame(TEXT, b"a", fin=False), frame(PING, b"p"), frame(CONT, b"b")],
        b"ab",
    ),
    "a pong that nobody asked for": ([frame(PONG, b"x"), frame(TEXT, b"a")], b"a"),
    "the largest message": ([frame(TEXT, b"x" * MAX_SIZE)], b"x" * MAX_SIZE),
    "the largest message in fragments": (
        [frame(TEXT, b"x" * (MAX_SIZE - 1), fin=False), frame(CONT, b"x")],
        b"x" * MAX_SIZE,
    ),
    "many fragments": (
        [frame(TEXT, fin=False), *[frame(CONT, b"x", fin=False)] * 5000, frame(CONT)],
        b"x" * 5000,
    ),
}


@pytest.mark.parametrize("name", GOOD_FRAMES)
def test_what_is_odd_and_allowed_is_served(server, name):
    frames, expected = GOOD_FRAMES[name]
    with Raw(server, "/watch") as client:
        client.send(*frames)
        found = client.read()
        if name == "a ping between fragments":
            assert found == (PONG, b"p")
            found = client.read()
        assert found == (TEXT, expected)
        client.send(close_frame(1000))
        assert client.end() == (1000, "")


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999])
def test_a_close_frame_is_answered_with_its_code(server, code):
    with Raw(server, "/watch") as client:
        client.send(close_frame(code, "\u00e9".encode()), frame(TEXT, b"behind"))
        assert client.end()[0] == code
    assert told(server, client.key, 2) == [[], [True, code, "\u00e9"]]


def test_a_close_frame_without_a_code_is_answered_with_none(server):
    with Raw(server, "/watch") as client:
        client.send(frame(CLOSE))
        assert client.read() == (CLOSE, b"")
        assert client.read() is None
    assert told(server, client.key, 2) == [[], [True, 1005, ""]]


def test_a_close_frame_that_crosses_ours_ends_it(server):
    with Raw(server, "/close") as client:
        client.send(frame(TEXT, b"close"), frame(TEXT, b"behind"))
        assert client.read() == (CLOSE, struct.pack("!H", 4000) + b"enough")
        # What comes before the answer is dropped.
        client.send(frame(TEXT, b"x" * 1000) * 100)
        client.send(close_frame(1000))
        assert client.read() is None
    assert told(server, client.key, 2) == [[True, 4000, "enough"], None]


def test_garbage_after_the_handshake_is_a_protocol_error(server, bystander):
    garbage = random.Random(3)
    for _ in range(30):
        with Raw(server, "/watch") as client:
            # Neither a frame that goes on for ever, nor a good one.
            client.send(b"\x7f" + garbage.randbytes(200))
            assert client.end()[0] == 1002
            assert told(server, client.key, 2)[1][:2] == [True, 1002]


# Around the handshake ---------------------------------------------------------


def test_frames_that_come_with_the_handshake_do_no_harm(server):
    # No client may send them. gunicorn drops what comes in one piece with the
    # handshake before anybody else sees it.
    with Raw(server, "/watch", after=frame(TEXT, b"early") * 5) as client:
        assert client.status == 101
        client.send(frame(TEXT, b"hello"))
        assert client.read() == (TEXT, b"hello")


@pytest.mark.parametrize("path", ["/late", "/late-sync"])
def test_frames_that_come_before_it_is_accepted_are_not_lost(server, path):
    begun = ask(server, "/begun-so-far")["begun"]
    with Raw(server, path, wait=False) as client:
        poll(lambda: ask(server, "/begun-so-far")["begun"] > begun, server.describe)
        for number in range(5):
            client.send(frame(TEXT, b"%d" % number))
        ask(server, "/open-gate")
        client.read_head()
        assert client.status == 101
        for number in range(5):
            assert client.read() == (TEXT, b"%d" % number)


def test_a_client_that_floods_before_it_is_accepted_is_held_back(server, bystander):
    before = worker_memory(server)
    begun = ask(server, "/begun-so-far")["begun"]
    with Raw(server, "/late", wait=False) as client:
        poll(lambda: ask(server, "/begun-so-far")["begun"] > begun, server.describe)
        data = frame(BINARY, b"x" * 10_000)
        taken = client.fill(data, limit=16 * MEBIBYTE)
        assert worker_memory(server) < before + 16 * MEBIBYTE
        ask(server, "/open-gate")
        client.read_head()
        client.send(data[taken % len(data) :])
        for _ in range(taken // len(data) + 1):
            assert client.message() == b"x" * 10_000


@pytest.mark.parametrize("length", [1, 20, 100, -5, -1])
def test_half_a_handshake_is_nothing(server, bystander, length):
    with server.connect() as client:
        client.sendall(handshake("/watch")[:length])
    with server.connect() as client:
        client.sendall(handshake("/watch")[:length] + b"\0\0\r\n\r\n")
        data = b""
        while part := client.recv(65_536):
            data += part
        assert data == b"" or data.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        (("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"), 426),
        (("Sec-WebSocket-Version: 13", "X-Nothing: 1"), 426),
        (("Sec-WebSocket-Key", "Sec-WebSocket-Kee"), 400),
        (("Sec-WebSocket-Key: ", "Sec-WebSocket-Key: a"), 400),
        (("Upgrade: websocket", "Upgrade: h2c"), 426),
        (("Connection: Upgrade", "Connection: close"), 400),
        (("GET", "POST"), 400),
    ],
)
def test_a_handshake_that_is_none_has_an_answer(server, changed, status):
    request = handshake("/watch").replace(*(each.encode() for each in changed))
    with server.connect() as client:
        client.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = client.recv(65_536)
            assert part, answer
            answer += part
    assert int(answer.split()[1]) == status
    if "Version" in changed[0]:
        assert b"sec-websocket-version: 13\r\n" in answer.lower()


# Compression -----------------------------------------------------------------


def test_messages_are_compressed_for_who_offers_it(server):
    with Raw(server, "/watch", DEFLATE) as client:
        assert "permessage-deflate" in client.head
        client.send(frame(TEXT, deflated(b"hello " * 1000), rsv=4))
        opcode, payload = client.read()
        assert opcode == TEXT
        assert len(payload) < 200
    with opened(server, "/watch", compression="deflate") as client:
        client.send("hello " * 1000)
        assert client.recv() == "hello " * 1000


@pytest.mark.parametrize("fragments", [1, 50])
def test_a_bomb_is_refused_and_takes_no_memory(server, bystander, fragments):
    before = worker_memory(server)
    bomb = deflated(bytes(100 * MEBIBYTE))
    size = len(bomb) // fragments + 1
    parts = [bomb[at : at + size] for at in range(0, len(bomb), size)]
    # Each of them is smaller than a message may be.
    assert len(parts[0]) < MAX_SIZE * 2
    frames = [
        frame(CONT if at else BINARY, part, fin=part is parts[-1], rsv=0 if at else 4)
        for at, part in enumerate(parts)
    ]
    for _ in range(5):
        with Raw(server, "/watch", DEFLATE) as client:
            with contextlib.suppress(OSError):
                client.send(*frames)
            assert client.end()[0] == 1009
            assert told(server, client.key, 2)[1][:2] == [True, 1009]
    assert worker_memory(server) < before + 8 * MEBIBYTE


def test_compressed_garbage_is_refused(server, bystander):
    with Raw(server, "/watch", DEFLATE) as client:
        client.send(frame(TEXT, b"\xff" * 100, rsv=4))
        assert client.end()[0] in (1002, 1007)


# Backpressure ----------------------------------------------------------------


def test_a_client_that_never_reads_holds_its_handler_back(server, bystander):
    before = worker_memory(server)
    count = 20
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(
                Raw(server, "/flood?size=65000", receive_buffer=4096, wait=False)
            )
            for _ in range(count)
        ]

        def sent():
            return [
                ask(server, f"/sent-so-far?key={client.key}")["sent"]
                for client in clients
            ]

        poll(lambda: all(sent()), server.describe)
        # It comes to rest, though nobody waits for that but this test.
        seen = [sent()]

        def rests():
            seen.append(sent())
            return seen[-1] == seen[-2]

        poll(rests, server.describe)
        # Kernel's buffers included.
        assert max(seen[-1]) * 65_000 < 8 * MEBIBYTE
        assert worker_memory(server) < before + 16 * MEBIBYTE
        start = time.monotonic()
        for number in range(100):
            bystander.send(f"{number}")
            assert bystander.recv(timeout=5) == f"{number}"
        assert time.monotonic() - start < 2
        # One of them reads, and gets more.
        clients[0].read_head()
        for _ in range(seen[-1][0] + 20):
            assert clients[0].message() == b"x" * 65_000
    for client in clients:
        assert told(server, client.key)[0][0] is True


def test_a_handler_that_never_receives_holds_its_client_back(server, bystander):
    before = worker_memory(server)
    with Raw(server, "/hold") as client:
        data = frame(BINARY, b"x" * 60_000)
        taken = client.fill(data, limit=16 * MEBIBYTE)
        assert worker_memory(server) < before + 8 * MEBIBYTE
        ask(server, "/open-gate")
        client.send(data[taken % len(data) :], close_frame(1000))
        assert client.end() == (1000, "")
    facts = told(server, client.key, 3)
    assert facts[1:] == [[taken // len(data) + 1, True], [True, 1000, ""]]


def test_small_messages_that_nobody_receives_take_no_memory(server, bystander):
    before = worker_memory(server)
    with Raw(server, "/hold") as client:
        client.fill(frame(TEXT) * 10_000, limit=16 * MEBIBYTE)
        assert worker_memory(server) < before + 8 * MEBIBYTE
        client.reset()
    ask(server, "/open-gate")


@pytest.mark.parametrize("path", ["/watch", "/watch-sync", "/watch-threaded"])
def test_a_burst_in_one_segment_is_delivered_in_order(server, path):
    numbers = [b"%d" % number for number in range(1000)]
    with Raw(server, path) as client:
        client.send(*(frame(TEXT, number) for number in numbers))
        assert [client.message() for _ in numbers] == numbers


def test_a_burst_waits_until_its_handler_takes_it(server):
    numbers = [f"{number:04}".encode() for number in range(1000)]
    with Raw(server, "/hold") as client:
        assert told(server, client.key) == ["held"]
        client.send(*(frame(TEXT, each) for each in numbers), close_frame(4000))
        ask(server, "/open-gate")
        assert client.end()[0] == 4000
    assert told(server, client.key, 3)[1:] == [[1000, True], [True, 4000, ""]]


# Pings -----------------------------------------------------------------------


def test_a_client_that_does_not_answer_pings_is_closed_with_1011(server, bystander):
    with Raw(server, "/pinged") as client:
        start = time.monotonic()
        assert client.read()[0] == PING
        code, reason = client.end()
        assert (code, reason) == (1011, "keepalive ping timeout")
        assert 1.4 < time.monotonic() - start < 5
    assert told(server, client.key, 2)[1][:2] == [True, 1011]


def test_a_client_that_says_anything_is_alive(server):
    with Raw(server, "/pinged") as client:
        for _ in range(3):
            opcode, payload = client.read()
            assert opcode == PING
            client.send(frame(PONG, payload))
        client.send(frame(TEXT, b"hello"))
        assert client.message() == b"hello"


def test_a_loop_that_is_busy_kills_nobody(server):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Raw(server, "/pinged")) for _ in range(10)]
        others = [stack.enter_context(opened(server, "/pinged")) for _ in range(10)]
        blocking = stack.enter_context(opened(server, "/block"))
        pings = [client.read() for client in clients]
        blocking.send("3")
        assert blocking.recv(timeout=5) == "blocks"
        # They answer at once, and the server looks when the deadline is long over.
        for client, (opcode, payload) in zip(clients, pings, strict=True):
            assert opcode == PING
            client.send(frame(PONG, payload))
        assert blocking.recv(timeout=20) == "blocked 3"
        for client in clients:
            client.send(frame(TEXT, b"hello"))
            assert client.message() == b"hello"
        for client in (*others, blocking):
            client.ping().wait(5)


# Disconnects -----------------------------------------------------------------

DISCONNECTS = 1000
BATCH = 50


def leave_in_the_handshake(client):
    pass


def leave_after_it(client):
    client.read_head()


def leave_in_a_message(client):
    client.read_head()
    client.send(frame(TEXT, b"hello" * 10)[:20])


def leave_between_fragments(client):
    client.read_head()
    client.send(frame(TEXT, b"hello", fin=False))


def leave_in_a_conversation(client):
    client.read_head()
    client.send(frame(TEXT, b"hello") * 30)


def leave_in_the_close(client):
    client.read_head()
    client.send(frame(TEXT, b"hello"), close_frame(1000))


def leave_in_the_close_of_the_server(client):
    client.read_head()
    client.send(frame(TEXT, b"close"))
    assert client.read()[0] == CLOSE


def leave_while_it_sends(client):
    client.read_head()
    client.read()


STAGES = {
    "the handshake": ("/watch", leave_in_the_handshake),
    "before it is accepted": ("/late", leave_in_the_handshake),
    "before it is accepted, in a thread": ("/late-sync", leave_in_the_handshake),
    "after it is accepted": ("/watch", leave_after_it),
    "after it is accepted, in a greenlet": ("/watch-sync", leave_after_it),
    "after it is accepted, in a thread": ("/watch-threaded", leave_after_it),
    "in a message": ("/watch", leave_in_a_message),
    "between fragments": ("/watch", leave_between_fragments),
    "in a conversation": ("/watch", leave_in_a_conversation),
    "in a conversation with a thread": ("/watch-threaded", leave_in_a_conversation),
    "in the close": ("/watch", leave_in_the_close),
    "in the server's close": ("/close", leave_in_the_close_of_the_server),
    "while it sends": ("/flood?size=10000", leave_while_it_sends),
    "unnoticed": ("/linger", leave_after_it),
}


def leave_in_half_a_handshake(server):
    data = handshake("/watch")
    for at in range(BATCH):
        with server.connect() as client:
            client.sendall(data[: at * 5])


def disconnect(server, stage):
    """Have a batch of clients leave."""
    path, leave = STAGES[stage]
    # Those before have been accepted then: the queue for that is not to overflow.
    ask(server, "/begun-so-far")
    clients = [Raw(server, path, receive_buffer=4096, wait=False) for _ in range(BATCH)]
    for at, client in enumerate(clients):
        leave(client)
        client.reset() if at % 2 else client.close()
    if "/late" in path:
        # Those that wait in there find nobody.
        ask(server, "/open-gate")


def disconnect_at_every_stage(server, count):
    for _ in range(0, count, BATCH):
        leave_in_half_a_handshake(server)
        for stage in STAGES:
            disconnect(server, stage)


def counts_at_rest(server, before):
    """What there is in the worker once that is not more than ``before``."""
    # One connection asks all the time: each has a Task, and for a while.
    asking = http.client.HTTPConnection("127.0.0.1", server.port)
    now = {}

    def is_back():
        get(server, "/open-gate", connection=asking)
        now.update(counts(server, asking))
        return all(now[name] <= count for name, count in before.items())

    poll(is_back, lambda: f"{now} after {before}")
    asking.close()
    return now


def use_all_threads(server):
    """One WebSocket in each thread; later ones find these."""
    with contextlib.ExitStack() as stack:
        for _ in range(THREADS):
            client = stack.enter_context(opened(server, "/watch-threaded"))
            client.send("hello")
            assert client.recv(timeout=10) == "hello"


def test_nothing_is_left_of_1000_disconnects_at_every_stage(server):
    # What is made at the first use, and kept, is no leak.
    use_all_threads(server)
    disconnect_at_every_stage(server, BATCH)
    before = {**server.counts, "objects": sys.maxsize}
    # A connection that is kept has dozens.
    before["objects"] = counts_at_rest(server, before)["objects"] + DISCONNECTS // 4
    disconnect_at_every_stage(server, DISCONNECTS)
    counts_at_rest(server, before)
    # Their threads are free as well.
    use_all_threads(server)


# The end of the server --------------------------------------------------------


def open_many(server, stack):
    """50 clients of every sort, and functions that give what each is told."""
    clients = [
        stack.enter_context(opened(server, path))
        for path in ("/watch", "/watch-sync", "/watch-threaded", "/pinged") * 12
    ]
    for client in clients[:20]:
        client.send("hello")
        assert client.recv(timeout=10) == "hello"
    # One in the middle of a message, and one that sends a lot.
    partial = stack.enter_context(Raw(server, "/watch"))
    partial.send(frame(TEXT, b"hello" * 10)[:20])
    flooded = stack.enter_context(Raw(server, "/flood?size=1000"))
    return clients, [partial, flooded]


def assert_told_to_come_back(clients, raw):
    for client in clients:
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=10)
        assert client.close_code == 1012
    for client in raw:
        client.socket.settimeout(10)
        found = client.read()
        while found[0] != CLOSE:
            found = client.read()
        assert found[1][:2] == struct.pack("!H", 1012)


def test_a_reload_and_the_end_close_every_socket_with_1012():
    with start() as server, contextlib.ExitStack() as stack:
        old = worker(server)
        clients, raw = open_many(server, stack)
        server.send_signal(signal.SIGHUP)
        assert_told_to_come_back(clients, raw)
        poll(lambda: old not in server.children(), server.describe)
        clients, raw = open_many(server, stack)
        begin = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert_told_to_come_back(clients, raw)
        for client in raw:
            client.close()
        assert server.process.wait(10) == 0
        assert time.monotonic() - begin < 2
        assert_clean(server)


def test_clients_that_do_not_answer_do_not_delay_the_end():
    with start() as server, contextlib.ExitStack() as stack:
        for path in ("/watch", "/watch-sync", "/watch-threaded"):
            stack.enter_context(Raw(server, path))
        for _ in range(3):
            silent = Raw(server, "/flood?size=60000", receive_buffer=4096)
            stack.enter_context(silent)
        begin = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        assert time.monotonic() - begin < 2
        assert_clean(server)


def test_a_worker_that_has_served_enough_closes_its_sockets_with_1012():
    options = ["--max-requests", "20"]
    with start(*options) as server, contextlib.ExitStack() as stack:
        old = worker(server)
        with opened(server, "/watch") as client:
            for _ in range(20):
                assert get(server, "/page") == (200, "page")
            with pytest.raises(ConnectionClosed):
                client.recv(timeout=10)
            assert client.close_code == 1012
        poll(lambda: server.children() not in ([], [old]), server.describe)
        client = stack.enter_context(opened(server, "/watch"))
        client.send("hello")
        assert client.recv(timeout=10) == "hello"

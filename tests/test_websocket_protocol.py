"""A WebSocket on a transport: websockets' client on the other end of it.

Most tests use a transport in memory, and a clock that jumps to the next timer, so
minutes pass at once. What only a socket does is tested on real ones, at the end.
"""

import array
import asyncio
import gc
import itertools
import logging
import selectors
import socket
import struct
import tracemalloc
import weakref
from random import Random

import pytest
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from aioext import shutdown
from aioext.exceptions import ConnectionClosed
from aioext.websocket import protocol as module
from aioext.websocket.options import Options
from aioext.websocket.protocol import (
    CLOSE_TIMEOUT,
    SHUTDOWN_TIMEOUT,
    TransportChannel,
    answer_handshake,
)

DEFLATE = "permessage-deflate"


class Clock(selectors.DefaultSelector):
    """Has time pass at once where nothing happens until the next timer."""

    now = 1000.0

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready and timeout != 0:
            assert timeout is not None, "everything waits, and for ever"
            self.now += timeout
        return ready


class Loop(asyncio.SelectorEventLoop):
    def __init__(self):
        self.clock = Clock()
        super().__init__(self.clock)

    def time(self):
        return self.clock.now


@pytest.fixture
def run():
    """Run a coroutine on a loop whose clock jumps.

    What hangs fails, once hours have passed.
    """

    async def limited(coroutine):
        async with asyncio.timeout(10_000):
            return await coroutine

    def run(coroutine):
        with asyncio.Runner(loop_factory=Loop) as runner:
            return runner.run(limited(coroutine))

    return run


def busy(seconds):
    """Have the loop do something else for so long."""
    asyncio.get_running_loop().clock.now += seconds


class Before(asyncio.Protocol):
    """Whose transport it was before."""

    def __init__(self):
        self.lost = []

    def connection_lost(self, exc):
        self.lost.append(exc)


class Transport(asyncio.Transport):
    """A transport without a socket; as strict as uvloop's.

    Args:
        limit: bytes that may wait to be written.
        half_close: whether only one direction can be closed (TLS cannot).
    """

    def __init__(self, limit=65_536, half_close=True):
        super().__init__()
        self._limit = limit
        self._half_close = half_close
        self.protocol = Before()
        self.written = b""
        self.is_reading = True
        self.eof_written = self.is_lost = self._is_closing = self._is_full = False
        # What the client has sent, and was not read yet.
        self.incoming = []

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_protocol(self):
        return self.protocol

    def is_closing(self):
        return self._is_closing or self.is_lost

    def write(self, data):
        assert not self.is_lost
        assert data
        if self._is_closing:
            return
        assert not self.eof_written, "written after the end"
        self.written += data
        if len(self.written) > self._limit and not self._is_full:
            self._is_full = True
            self.protocol.pause_writing()

    def take(self):
        """What was written: the client reads."""
        written, self.written = self.written, b""
        if self._is_full:
            self._is_full = False
            self.protocol.resume_writing()
        if self._is_closing:
            self.lose()
        return written

    def can_write_eof(self):
        return self._half_close

    def write_eof(self):
        self.eof_written = True

    def pause_reading(self):
        assert not self.is_lost
        self.is_reading = False

    def resume_reading(self):
        assert not self.is_lost
        self.is_reading = True
        asyncio.get_running_loop().call_soon(self.deliver)

    def deliver(self, *data):
        """What the client has sent, as far as it is read."""
        self.incoming += data
        while self.incoming and self.is_reading and not self.is_lost:
            data = self.incoming.pop(0)
            if data is not None:
                self.protocol.data_received(data)
            elif not self.protocol.eof_received():
                self.close()

    def close(self):
        self._is_closing = True
        self.is_reading = False
        if not self.written:
            asyncio.get_running_loop().call_soon(self.lose)

    def abort(self):
        self._is_closing = True
        asyncio.get_running_loop().call_soon(self.lose)

    def lose(self, error=None):
        """The connection is lost."""
        if not self.is_lost:
            self.is_lost = True
            self.protocol.connection_lost(error)


class Connection:
    """A channel, and the client that it talks with."""

    def __init__(self, *, offers=True, early=b"", limit=65_536, tls=False, **options):
        factories = [ClientPerMessageDeflateFactory()] if offers else None
        uri = parse_uri("ws://localhost/path")
        self.client = ClientProtocol(uri, extensions=factories, max_size=None)
        request = self.client.connect()
        self.client.send_request(request)
        self.client.data_to_send()
        self.options = Options(**options)
        protocol, response = answer_handshake(
            request.path, request.headers.raw_items(), self.options
        )
        self.response = response
        self.transport = Transport(limit, half_close=not tls)
        self.before = self.transport.protocol
        self.channel = TransportChannel(
            self.transport, protocol, self.options, self.before
        )
        self.client.receive_data(response.serialize())
        assert [type(each) for each in self.client.events_received()] == [Response]
        assert self.client.state is State.OPEN
        self.channel.start(early)

    def flush(self):
        """Send what the client has to say."""
        for data in self.client.data_to_send():
            self.transport.deliver(data or None)

    def send(self, *messages):
        """Send messages in one segment."""
        for message in messages:
            if isinstance(message, str):
                self.client.send_text(message.encode())
            else:
                self.client.send_binary(message)
        self.raw(b"".join(self.client.data_to_send()))

    def raw(self, data):
        """Send these bytes."""
        self.transport.deliver(data)

    def frames(self):
        """What the client reads: its frames."""
        data = self.transport.take()
        if data:
            self.client.receive_data(data)
        if self.transport.eof_written or self.transport.is_lost:
            self.client.receive_eof()
        return self.client.events_received()

    def messages(self):
        """What the client reads: the messages."""
        return [
            str(frame.data, "utf-8") if frame.opcode is Opcode.TEXT else frame.data
            for frame in self.frames()
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY)
        ]

    def vanish(self):
        """Cut the connection."""
        self.transport.lose(ConnectionResetError())

    @property
    def outcome(self):
        channel = self.channel
        return channel.closed, channel.close_code, channel.close_reason


def text(data, fin=True, opcode=Opcode.TEXT):
    """A frame of a client."""
    return Frame(opcode, data, fin).serialize(mask=True)


def cont(data, fin=False):
    return text(data, fin, Opcode.CONT)


async def settle():
    """Let every Task go on until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


async def drain(channel):
    """What can be received without waiting."""
    received = []
    while channel._messages:
        received.append(await channel.receive())
    return received


# The handshake


@pytest.mark.parametrize(
    ("offers", "compression", "agreed"),
    [(True, "deflate", True), (True, "off", False), (False, "deflate", False)],
)
def test_compression_is_agreed_on_where_both_want_it(run, offers, compression, agreed):
    async def main():
        connection = Connection(offers=offers, compression=compression)
        extensions = connection.response.headers.get("Sec-WebSocket-Extensions", "")
        assert extensions.startswith(DEFLATE) is agreed
        connection.send("question " * 1000)
        assert await connection.channel.receive() == "question " * 1000
        await connection.channel.send("answer " * 1000)
        assert (len(connection.transport.written) < 1000) is agreed
        assert connection.messages() == ["answer " * 1000]
        connection.vanish()

    run(main())


def test_a_wrong_handshake_is_answered_with_what_is_wrong():
    _, response = answer_handshake("/", [("Upgrade", "websocket")], Options())
    assert response.status_code == 426
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "short"),
    ]
    _, response = answer_handshake("/", headers, Options())
    assert response.status_code == 400


def test_what_came_with_the_handshake_is_not_lost(run):
    async def main():
        connection = Connection(early=text(b"early"), offers=False)
        assert await connection.channel.receive() == "early"
        connection.vanish()

    run(main())


def test_nothing_is_logged_about_what_clients_do(run, caplog):
    async def main():
        connection = Connection()
        connection.send("hello")
        connection.client.send_close()
        connection.flush()
        connection.vanish()

    with caplog.at_level(logging.INFO):
        run(main())
    assert not caplog.records


# Messages


@pytest.mark.parametrize(
    "message", ["", "text", "ä€😀", b"", b"\0\xff", b"x" * 100_000]
)
def test_a_message_is_the_same_on_the_other_side(run, message):
    async def main():
        connection = Connection()
        connection.send(message)
        received = await connection.channel.receive()
        assert type(received) is type(message)
        assert received == message
        await connection.channel.send(message)
        assert connection.messages() == [message]
        connection.vanish()

    run(main())


class Text(str):
    __slots__ = ()

    def __str__(self):
        return "something else"


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        (Text("text"), "text"),
        (bytearray(b"bytes"), b"bytes"),
        (memoryview(b"bytes"), b"bytes"),
        (memoryview(b"b.y.t.e.s.")[::2], b"bytes"),
        (memoryview(array.array("H", [1, 2])), array.array("H", [1, 2]).tobytes()),
    ],
    ids=["str", "bytearray", "memoryview", "strided", "items"],
)
@pytest.mark.parametrize("offers", [True, False], ids=["deflate", "plain"])
def test_what_is_like_text_or_bytes_is_sent_as_that(run, message, sent, offers):
    async def main():
        connection = Connection(offers=offers)
        await connection.channel.send(message)
        await connection.channel.send("behind")
        assert connection.messages() == [sent, "behind"]
        connection.vanish()

    run(main())


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("offers", [True, False], ids=["deflate", "plain"])
def test_a_frame_has_any_length(run, length, offers):
    async def main():
        connection = Connection(offers=offers, limit=10**9)
        for message in ("x" * length, b"x" * length):
            connection.send(message)
            assert await connection.channel.receive() == message
            sending = asyncio.create_task(connection.channel.send(message))
            await settle()
            assert connection.messages() == [message]
            await sending
        connection.vanish()

    run(main())


def test_it_is_written_so_that_the_transport_may_pause_it(run):
    # writelines() never pauses the writing before 3.12.9 and 3.13.2.
    def writelines(lines):
        raise AssertionError

    async def main():
        for offers in (True, False):
            connection = Connection(offers=offers, limit=10**9)
            connection.transport.writelines = writelines
            for length in (10, 1000, 100_000):
                sending = asyncio.create_task(connection.channel.send(b"x" * length))
                await settle()
                assert len(connection.messages()[0]) == length
                await sending
            connection.vanish()

    run(main())


def test_what_is_no_message_is_refused_and_harms_nothing(run):
    async def main():
        connection = Connection()
        for wrong in (None, 5, ["a"]):
            with pytest.raises(TypeError, match="send_json"):
                await connection.channel.send(wrong)
        with pytest.raises(UnicodeEncodeError):
            await connection.channel.send("\ud800")
        await connection.channel.send("right")
        assert connection.messages() == ["right"]
        connection.vanish()

    run(main())


@pytest.mark.parametrize("cut", range(1, 12))
def test_frames_may_come_in_any_pieces(run, cut):
    async def main():
        connection = Connection(offers=False)
        data = text(b"one") + text(b"two") + text(b"three")
        for start in range(0, len(data), cut):
            connection.raw(data[start : start + cut])
        assert await drain(connection.channel) == ["one", "two", "three"]
        connection.vanish()

    run(main())


def test_fragments_are_one_message(run):
    async def main():
        connection = Connection(offers=False)
        # An end within a character, and an empty fragment.
        connection.raw(text("ä".encode()[:1], fin=False))
        connection.raw(cont("ä".encode()[1:]))
        connection.raw(cont(b""))
        connection.raw(cont(b"b", fin=True))
        connection.raw(text(b"c", False, Opcode.BINARY) + cont(b"d", fin=True))
        assert await drain(connection.channel) == ["äb", b"cd"]
        connection.vanish()

    run(main())


def test_a_ping_between_fragments_is_answered_at_once(run):
    async def main():
        connection = Connection(offers=False)
        connection.raw(text(b"a", fin=False) + text(b"now", opcode=Opcode.PING))
        (pong,) = connection.frames()
        assert (pong.opcode, pong.data) == (Opcode.PONG, b"now")
        connection.raw(cont(b"b", fin=True))
        assert await connection.channel.receive() == "ab"
        connection.vanish()

    run(main())


@pytest.mark.parametrize(
    "frames",
    [
        [text(b"\xff")],
        [text(b"\xed\xa0\x80")],
        [text("ä".encode()[:1])],
        [text(b"fine", fin=False), cont(b"\xff", fin=True)],
        [text("ä".encode()[:1], fin=False), cont(b"", fin=True)],
    ],
    ids=["byte", "surrogate", "cut", "fragment", "cut fragment"],
)
def test_text_that_is_not_utf8_closes_with_1007(run, frames):
    async def main():
        connection = Connection(offers=False)
        connection.send("before")
        connection.raw(b"".join(frames) + text(b"behind"))
        assert connection.outcome == (True, 1007, "not UTF-8")
        assert await connection.channel.receive() == "before"
        assert await connection.channel.receive() is None
        connection.frames()
        assert connection.client.close_rcvd.code == 1007
        assert connection.transport.eof_written
        connection.vanish()
        assert connection.outcome == (True, 1007, "not UTF-8")

    run(main())


@pytest.mark.parametrize(
    "frames",
    [
        [text(b"x" * 11)],
        [text(b"x" * 10, fin=False), cont(b"x", fin=True)],
        [text(b"x" * 5, fin=False), cont(b"x" * 5), cont(b"x")],
    ],
)
def test_a_message_over_the_limit_closes_with_1009(run, frames):
    async def main():
        connection = Connection(offers=False, max_size=10)
        connection.send("x" * 10)
        connection.raw(b"".join(frames))
        assert connection.outcome[:2] == (True, 1009)
        assert await connection.channel.receive() == "x" * 10
        assert await connection.channel.receive() is None
        connection.frames()
        assert connection.client.close_rcvd.code == 1009
        connection.vanish()

    run(main())


def test_a_limit_is_for_what_was_compressed(run):
    async def main():
        connection = Connection(max_size=1000)
        connection.send("x" * 1000)
        assert await connection.channel.receive() == "x" * 1000
        connection.send("x" * 1001)
        assert connection.outcome[:2] == (True, 1009)
        connection.vanish()

    run(main())


def test_an_application_may_have_no_limit(run):
    async def main():
        connection = Connection(max_size=0)
        connection.send(b"x" * 3_000_000)
        assert len(await connection.channel.receive()) == 3_000_000
        connection.vanish()

    run(main())


@pytest.mark.parametrize(
    "data",
    [
        Frame(Opcode.TEXT, b"x", True).serialize(mask=False),
        b"\xc1\x80\0\0\0\0",
        b"\x83\x80\0\0\0\0",
        cont(b"x"),
        text(b"a", fin=False) + text(b"b"),
        text(b"x", fin=False, opcode=Opcode.BINARY)
        + text(b"\x03\xe8", opcode=Opcode.CLOSE),
        text(b"\x03", opcode=Opcode.CLOSE),
        text(b"\x03\xed", opcode=Opcode.CLOSE),
    ],
    ids=["mask", "bit", "opcode", "cont", "nested", "unfinished", "short", "code"],
)
def test_what_breaks_the_protocol_closes_with_1002(run, data):
    async def main():
        connection = Connection(offers=False)
        connection.send("before")
        connection.raw(data)
        assert connection.outcome[:2] == (True, 1002)
        assert await connection.channel.receive() == "before"
        assert await connection.channel.receive() is None
        connection.frames()
        assert connection.client.close_rcvd.code == 1002
        await connection.channel.close()
        assert connection.before.lost

    run(main())


def judged_by_the_library(data, max_size):
    """The messages in ``data``, and the code that closes, as websockets has it."""
    protocol = ServerProtocol(state=State.OPEN, max_size=max_size)
    protocol.receive_data(data)
    messages, parts, is_text = [], b"", False
    for frame in protocol.events_received():
        if frame.opcode is Opcode.CLOSE:
            return messages, protocol.close_sent.code
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            parts, is_text = b"", frame.opcode is Opcode.TEXT
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            parts += frame.data
            if frame.fin:
                try:
                    messages.append(str(parts, "utf-8") if is_text else parts)
                except UnicodeDecodeError:
                    return messages, 1007
    failed = protocol.parser_exc is not None
    return messages, protocol.close_sent.code if failed else None


def random_frames(random):
    """Frames of a client that is right most of the time."""
    within = False
    for _ in range(random.randrange(1, 30)):
        kind = random.random()
        payload = random.choice([b"", b"x", "ä€".encode(), random.randbytes(3)])
        payload *= random.choice([1, 1, 30, 70, 200])
        if kind < 0.2:
            opcode = random.choice([Opcode.PING, Opcode.PONG])
            yield Frame(opcode, payload[:125]).serialize(mask=True)
        elif kind < 0.93:
            fin = random.random() < 0.6
            opcode = random.choice([Opcode.TEXT, Opcode.BINARY])
            if random.random() < 0.9 and opcode is Opcode.TEXT:
                payload = payload.decode("utf-8", "ignore").encode()
            yield Frame(Opcode.CONT if within else opcode, payload, fin).serialize(
                mask=True
            )
            within = not fin
        else:
            head = bytearray(Frame(Opcode.TEXT, payload).serialize(mask=True))
            head[random.randrange(2)] ^= 1 << random.randrange(8)
            yield bytes(head)
    if random.random() < 0.3:
        yield text(b"\x0f\xa0", opcode=Opcode.CLOSE) + text(b"behind")


@pytest.mark.parametrize("seed", range(300))
def test_it_judges_as_the_library_does_however_it_is_cut(run, seed):
    random = Random(seed)
    data = b"".join(random_frames(random))
    max_size = random.choice([100, 1000])
    expected = judged_by_the_library(data, max_size)

    async def main():
        connection = Connection(
            offers=False, max_size=max_size, queue=random.choice([1, 2, 1000])
        )
        received = []

        async def receive():
            while (message := await connection.channel.receive()) is not None:
                received.append(message)

        receiving = asyncio.create_task(receive())
        position = 0
        while position < len(data):
            step = random.choice([1, 2, 7, 50, 1000])
            connection.raw(data[position : position + step])
            position += step
            if random.random() < 0.5:
                await settle()
        for _ in range(100):
            await settle()
        code = connection.channel.close_code
        connection.vanish()
        await receiving
        return received, code

    assert run(main()) == expected


@pytest.mark.parametrize(
    ("begun", "head", "code"),
    [
        (b"", text(b"x" * 11)[:2], 1009),
        (text(b"x" * 8, fin=False), cont(b"x" * 3)[:2], 1009),
        (b"", Frame(Opcode.TEXT, b"xx").serialize(mask=False)[:2], 1002),
        # A control frame of that length does not exist, nor does the opcode.
        (b"", b"\x89\xfe", 1009),
        (b"", b"\x83\x85\0\0\0\0", 1002),
    ],
    ids=["message", "fragment", "mask", "control", "opcode"],
)
def test_a_frame_that_cannot_be_accepted_is_not_waited_for(run, begun, head, code):
    async def main():
        connection = Connection(offers=False, max_size=10)
        connection.raw(begun)
        connection.raw(head)
        if head == b"\x89\xfe":
            connection.raw(b"\x01\x00")
        connection.raw(b"\0" * 4)
        assert connection.outcome[:2] == (True, code)
        connection.vanish()

    run(main())


def test_a_message_that_comes_bit_by_bit_is_looked_at_a_few_times(run):
    async def main():
        connection = Connection(offers=False)
        looks = []
        parse = connection.channel._parse

        def counted(data):
            looks.append(len(data))
            return parse(data)

        connection.channel._parse = counted
        data = text(b"x" * 100_000)
        for position in range(0, len(data), 100):
            connection.raw(data[position : position + 100])
        assert await connection.channel.receive() == "x" * 100_000
        assert len(looks) < 5
        connection.vanish()

    run(main())


def test_a_client_that_goes_on_after_it_failed_is_not_heard(run):
    async def main():
        connection = Connection(offers=False)
        connection.raw(text(b"\xff"))
        for _ in range(5):
            connection.raw(text(b"more") + text(b"", opcode=Opcode.PING))
        assert await connection.channel.receive() is None
        connection.frames()
        await asyncio.sleep(CLOSE_TIMEOUT)
        assert connection.before.lost == [None]

    run(main())


def test_a_message_that_is_never_complete_is_forgotten_at_the_end(run):
    async def main():
        connection = Connection(offers=False)
        connection.raw(text(b"x" * 1000, fin=False))
        connection.vanish()
        assert connection.channel._partial is None

    run(main())


def test_empty_fragments_take_no_memory(run):
    async def main():
        connection = Connection(offers=False)
        connection.raw(text(b"", fin=False))
        fragments = cont(b"") * 2000
        connection.raw(fragments)
        tracemalloc.start()
        try:
            for _ in range(10):
                connection.raw(fragments)
            grown, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert grown < 20_000
        connection.raw(cont(b"end", fin=True))
        assert await connection.channel.receive() == "end"
        connection.vanish()

    run(main())


# Backpressure


@pytest.mark.parametrize("offers", [True, False], ids=["deflate", "plain"])
def test_no_more_of_a_burst_is_taken_than_the_queue_holds(run, offers):
    async def main():
        connection = Connection(offers=offers, queue=4)
        channel = connection.channel
        connection.send(*map(str, range(20_000)))
        assert not connection.transport.is_reading
        connection.send("last")
        received = []
        while not received or received[-1] != "last":
            assert len(channel._messages) <= 4
            received.append(await channel.receive())
        assert received == [*map(str, range(20_000)), "last"]
        await settle()
        assert connection.transport.is_reading
        connection.vanish()

    run(main())


@pytest.mark.parametrize("kind", ["pings", "fragments", "messages"])
def test_others_have_their_turn_while_one_client_sends(run, kind):
    async def main():
        connection = Connection(offers=False, queue=100_000)
        small = {
            "pings": text(b"", opcode=Opcode.PING),
            "fragments": cont(b""),
            "messages": text(b"x"),
        }[kind]
        if kind == "fragments":
            connection.raw(text(b"", fin=False))
        connection.raw(small * 20_000)
        turns = 0
        connection.raw(text(b"", opcode=Opcode.PONG))
        while connection.channel._unparsed:
            await asyncio.sleep(0)
            turns += 1
        assert turns > 10
        assert connection.transport.is_reading
        connection.vanish()

    run(main())


def test_what_comes_while_others_have_their_turn_waits_as_well(run):
    async def main():
        connection = Connection(offers=False)
        ping = text(b"", opcode=Opcode.PING)
        connection.raw(ping * 2000)
        assert not connection.transport.is_reading
        answered = len(connection.transport.written)
        # Some transports have read it already.
        connection.channel.data_received(ping * 10)
        assert len(connection.transport.written) == answered
        pongs = len(connection.frames())
        while connection.channel._unparsed:
            await asyncio.sleep(0)
            pongs += len(connection.frames())
        assert pongs == 2010
        connection.vanish()

    run(main())


def test_a_client_that_reads_again_waits_for_its_turn(run):
    async def main():
        connection = Connection(offers=False, limit=100)
        connection.raw(text(b"", opcode=Opcode.PING) * 2000)
        connection.frames()
        assert not connection.transport.is_reading
        for _ in range(10):
            await asyncio.sleep(0)
            connection.frames()
        assert connection.transport.is_reading
        connection.vanish()

    run(main())


def test_a_queue_is_full_of_large_messages_earlier(run):
    async def main():
        connection = Connection(max_size=1000, queue=16)
        connection.send(*["x" * 600] * 5)
        assert len(connection.channel._messages) == 2
        assert not connection.transport.is_reading
        received = []
        while len(received) < 5:
            received.append(await connection.channel.receive())
            await settle()
        assert connection.transport.is_reading
        connection.vanish()

    run(main())


def test_reading_pauses_at_the_limit_and_goes_on_below(run):
    async def main():
        connection = Connection(queue=2)
        channel, transport = connection.channel, connection.transport
        connection.send("one")
        assert transport.is_reading
        connection.send("two")
        assert not transport.is_reading
        connection.send("three")
        assert await channel.receive() == "one"
        assert transport.is_reading
        await settle()
        assert await drain(channel) == ["two", "three"]
        connection.vanish()

    run(main())


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
def test_what_was_received_outlives_the_connection(run, error):
    async def main():
        connection = Connection(offers=False, queue=2)
        connection.raw(text(b"message") * 10_000)
        kept = len(connection.channel._messages)
        assert connection.channel._unparsed
        connection.transport.lose(error)
        assert not connection.channel._unparsed
        received = []
        while (message := await connection.channel.receive()) is not None:
            received.append(message)
        assert received == ["message"] * kept
        assert connection.outcome == (True, 1006, "")

    run(main())


def test_sending_waits_while_the_client_does_not_read(run):
    async def main():
        connection = Connection(offers=False, limit=1000)
        channel = connection.channel
        await channel.send("x" * 500)
        sending = [asyncio.create_task(channel.send("x" * 600)) for _ in range(3)]
        await settle()
        assert not any(task.done() for task in sending)
        # Cancelling one of them leaves the others alone.
        sending[0].cancel()
        await settle()
        assert [task.done() for task in sending] == [True, False, False]
        assert len(connection.messages()) == 4
        await asyncio.gather(*sending[1:])
        connection.vanish()

    run(main())


@pytest.mark.parametrize("end", ["lost", "eof", "aborted"])
def test_a_sender_that_waits_is_released_when_the_connection_ends(run, end):
    async def main():
        connection = Connection(limit=1000, offers=False)
        sending = asyncio.create_task(connection.channel.send("x" * 2000))
        await settle()
        started = asyncio.get_running_loop().time()
        if end == "lost":
            connection.vanish()
        elif end == "eof":
            connection.transport.deliver(None)
        else:
            closing = asyncio.create_task(connection.channel.close(4000))
        with pytest.raises(ConnectionClosed) as caught:
            await sending
        took = asyncio.get_running_loop().time() - started
        assert took == (0 if end == "lost" else CLOSE_TIMEOUT)
        if end == "aborted":
            await closing
        assert caught.value.code == (4000 if end == "aborted" else 1006)
        assert connection.before.lost

    run(main())


def test_a_client_that_pings_and_does_not_read_is_held_back(run):
    async def main():
        connection = Connection(offers=False, limit=1000, ping_interval=0)
        channel, transport = connection.channel, connection.transport
        pings = text(b"x" * 125, opcode=Opcode.PING) * 10
        for _ in range(100):
            connection.raw(pings)
        assert not transport.is_reading
        assert len(transport.written) < 3000
        # It need not have taken a message to be read on.
        connection.raw(text(b"behind"))
        received = asyncio.create_task(channel.receive())
        pongs = 0
        for _ in range(1000):
            pongs += len(connection.frames())
            await asyncio.sleep(0)
        assert pongs == 1000
        assert await received == "behind"
        assert transport.is_reading
        connection.vanish()

    run(main())


def test_a_client_that_is_held_back_is_not_read_for_a_message_that_was_taken(run):
    async def main():
        connection = Connection(offers=False, limit=1000, queue=1, ping_interval=0)
        sending = asyncio.create_task(connection.channel.send("x" * 1000))
        await settle()
        connection.raw(text(b"message") + text(b"", opcode=Opcode.PING))
        assert await connection.channel.receive() == "message"
        assert not connection.transport.is_reading
        connection.frames()
        await sending
        assert connection.transport.is_reading
        connection.vanish()

    run(main())


def test_a_client_that_writes_and_does_not_read_is_read_on(run):
    # It may read once it has written all; both would wait for each other.
    async def main():
        connection = Connection(offers=False, limit=1000)
        sending = asyncio.create_task(connection.channel.send("x" * 2000))
        await settle()
        connection.send("one", "two")
        assert await drain(connection.channel) == ["one", "two"]
        assert connection.transport.is_reading
        connection.frames()
        await sending
        connection.vanish()

    run(main())


def test_others_have_their_turn_while_one_only_sends(run):
    async def main():
        connection = Connection(limit=10**9)
        turns = []

        async def tick():
            while True:
                turns.append(1)
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        for _ in range(2000):
            await connection.channel.send("x")
        ticking.cancel()
        connection.vanish()
        return len(turns)

    assert run(main()) > 2


# Closing


@pytest.mark.parametrize("tls", [False, True])
def test_the_application_closes(run, tls):
    async def main():
        connection = Connection(tls=tls)
        closing = asyncio.create_task(connection.channel.close(4000, "enough"))
        await settle()
        assert not closing.done()
        assert connection.outcome == (True, 4000, "enough")
        connection.frames()
        close = connection.client.close_rcvd
        assert (close.code, close.reason) == (4000, "enough")
        connection.flush()
        if not tls:
            assert connection.transport.eof_written
            connection.transport.deliver(None)
        connection.frames()
        await closing
        assert connection.before.lost == [None]
        assert asyncio.get_running_loop().time() == Clock.now

    run(main())


@pytest.mark.parametrize("answers", [False, True])
def test_a_client_has_some_seconds_to_end_it(run, answers):
    async def main():
        connection = Connection()
        closing = asyncio.create_task(connection.channel.close())
        await settle()
        connection.frames()
        if answers:
            # And leaves the connection as it is.
            connection.flush()
        await closing
        assert connection.before.lost == [None]
        assert asyncio.get_running_loop().time() == Clock.now + CLOSE_TIMEOUT

    run(main())


def test_closing_twice_is_closing_once(run):
    async def main():
        connection = Connection()
        both = asyncio.gather(
            connection.channel.close(4000), connection.channel.close(4001)
        )
        await settle()
        assert connection.outcome == (True, 4000, "")
        connection.vanish()
        await both
        await connection.channel.close(4002)
        assert connection.outcome == (True, 4000, "")

    run(main())


def test_a_close_that_is_cancelled_closes_all_the_same(run):
    async def main():
        connection = Connection()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await connection.channel.close(4000)
        connection.frames()
        assert connection.client.close_rcvd.code == 4000
        await connection.channel.close()
        assert connection.before.lost == [None]

    run(main())


def test_what_cannot_be_sent_does_not_close(run):
    async def main():
        connection = Connection()
        with pytest.raises(ValueError, match="code 1006"):
            await connection.channel.close(1006)
        with pytest.raises(ValueError, match="124 bytes"):
            await connection.channel.close(1000, "x" * 124)
        assert not connection.channel.closed
        connection.vanish()

    run(main())


@pytest.mark.parametrize(
    ("code", "reason", "seen", "echoed"),
    [
        (1000, "", 1000, b"\x03\xe8"),
        (4000, "enough", 4000, b"\x0f\xa0enough"),
        (None, "", 1005, b""),
    ],
)
def test_the_client_closes(run, code, reason, seen, echoed):
    async def main():
        connection = Connection()
        connection.send("before")
        connection.client.send_close(code, reason)
        connection.flush()
        assert connection.outcome == (True, seen, reason)
        assert await connection.channel.receive() == "before"
        assert await connection.channel.receive() is None
        assert [frame.data for frame in connection.frames()] == [echoed]
        assert connection.transport.eof_written
        connection.flush()
        await settle()
        assert connection.before.lost == [None]
        await connection.channel.close()

    run(main())


def test_the_end_is_found_behind_messages_that_wait(run):
    async def main():
        connection = Connection(offers=False, queue=1)
        connection.client.send_text(b"one")
        connection.client.send_text(b"two")
        connection.client.send_close(4000)
        connection.raw(b"".join(connection.client.data_to_send()))
        connection.transport.deliver(None)
        received = [await connection.channel.receive() for _ in range(3)]
        assert received == ["one", "two", None]
        assert connection.outcome == (True, 4000, "")
        connection.frames()
        await settle()
        assert connection.before.lost == [None]
        assert asyncio.get_running_loop().time() == Clock.now

    run(main())


def test_a_client_that_closed_and_does_not_leave_is_cut(run):
    async def main():
        connection = Connection()
        connection.client.send_close()
        connection.raw(connection.client.data_to_send()[0])
        await connection.channel.close()
        assert connection.before.lost == [None]
        assert asyncio.get_running_loop().time() == Clock.now + CLOSE_TIMEOUT

    run(main())


def test_close_frames_may_cross(run):
    async def main():
        connection = Connection()
        connection.client.send_close(4001)
        closing = asyncio.create_task(connection.channel.close(4000))
        await settle()
        connection.flush()
        assert connection.outcome == (True, 4000, "")
        connection.frames()
        connection.flush()
        await closing
        assert asyncio.get_running_loop().time() == Clock.now

    run(main())


def test_an_answer_behind_much_that_nobody_takes_is_found(run):
    async def main():
        connection = Connection(offers=False, queue=1)
        connection.raw(text(b"x") * 50_000)
        connection.raw(text(b"y") * 10)
        assert connection.channel._unparsed
        closing = asyncio.create_task(connection.channel.close())
        await settle()
        connection.frames()
        connection.flush()
        assert connection.transport.eof_written
        connection.transport.deliver(None)
        await closing
        assert asyncio.get_running_loop().time() == Clock.now

    run(main())


@pytest.mark.parametrize("way", ["eof", "lost", "reset"])
def test_a_client_that_vanishes_has_closed_with_1006(run, way):
    async def main():
        connection = Connection()
        connection.send("before")
        receiving = asyncio.create_task(drain(connection.channel))
        if way == "eof":
            connection.transport.deliver(None)
        else:
            error = ConnectionResetError() if way == "reset" else None
            connection.transport.lose(error)
        assert await receiving == ["before"]
        assert await connection.channel.receive() is None
        assert connection.outcome == (True, 1006, "")
        with pytest.raises(ConnectionClosed) as caught:
            await connection.channel.send("late")
        assert caught.value.code == 1006
        await connection.channel.close()
        assert len(connection.before.lost) == 1

    run(main())


def test_a_client_that_vanishes_between_the_two_close_frames_keeps_the_code(run):
    async def main():
        connection = Connection()
        closing = asyncio.create_task(connection.channel.close(4000, "enough"))
        await settle()
        connection.vanish()
        await closing
        assert connection.outcome == (True, 4000, "enough")

    run(main())


def test_the_protocol_before_is_told_of_the_end_once_with_its_error(run):
    async def main():
        connection = Connection()
        error = ConnectionResetError()
        connection.transport.lose(error)
        connection.channel.connection_lost(None)
        assert connection.before.lost == [error]

    run(main())


# The end of the server


def test_the_end_of_the_server_closes_with_1012_at_once(run):
    async def main():
        connection = Connection()
        connection.send("not taken")
        shutdown.announce(asyncio.get_running_loop())
        assert connection.outcome == (True, 1012, "")
        assert await connection.channel.receive() is None
        connection.frames()
        assert connection.client.close_rcvd.code == 1012
        connection.flush()
        connection.transport.deliver(None)
        await connection.channel.close()
        assert connection.before.lost == [None]

    run(main())


@pytest.mark.parametrize("state", ["open", "answers", "silent", "full", "closing"])
def test_no_client_delays_the_end_of_the_server(run, state):
    async def main():
        connection = Connection(limit=1000, offers=False)
        channel = connection.channel
        if state == "full":
            sending = asyncio.create_task(channel.send("x" * 2000))
            await settle()
        if state == "closing":
            closing = asyncio.create_task(channel.close())
            await settle()
        shutdown.announce(asyncio.get_running_loop())
        if state != "full":
            connection.frames()
        if state == "answers":
            # But does not end the connection.
            connection.raw(connection.client.data_to_send()[0])
        await channel.close()
        assert asyncio.get_running_loop().time() == Clock.now + SHUTDOWN_TIMEOUT
        if state == "full":
            with pytest.raises(ConnectionClosed):
                await sending
        if state == "closing":
            await closing

    run(main())


def test_a_connection_that_comes_after_the_announcement_is_closed_too(run):
    async def main():
        shutdown.announce(asyncio.get_running_loop())
        connection = Connection()
        await settle()
        assert connection.outcome == (True, 1012, "")
        connection.vanish()

    run(main())


def test_a_connection_that_has_ended_is_not_announced_anything(run):
    async def main():
        connection = Connection()
        connection.vanish()
        shutdown.announce(asyncio.get_running_loop())
        assert connection.outcome == (True, 1006, "")

    run(main())


# Pings


def test_a_ping_takes_until_its_answer(run):
    async def main():
        connection = Connection()
        pinging = asyncio.create_task(connection.channel.ping())
        await settle()
        assert not pinging.done()
        connection.frames()
        connection.flush()
        assert 0 <= await pinging < 10
        assert connection.channel._pings == {}
        connection.vanish()

    run(main())


def test_an_answer_to_another_ping_is_none(run):
    async def main():
        connection = Connection()
        pinging = asyncio.create_task(connection.channel.ping())
        await settle()
        for payload in (b"", b"nobody sent this"):
            connection.client.send_pong(payload)
        connection.flush()
        await settle()
        assert not pinging.done()
        connection.vanish()
        with pytest.raises(ConnectionClosed):
            await pinging

    run(main())


def test_an_answer_to_the_last_of_several_pings_is_one_to_all(run):
    async def main():
        connection = Connection()
        pinging = [asyncio.create_task(connection.channel.ping()) for _ in range(4)]
        await settle()
        *_, asked, _ = (frame.data for frame in connection.frames())
        connection.client.data_to_send()
        connection.client.send_pong(asked)
        connection.flush()
        await settle()
        assert [task.done() for task in pinging] == [True, True, True, False]
        connection.vanish()
        await asyncio.wait(pinging)
        assert isinstance(pinging[3].exception(), ConnectionClosed)

    run(main())


def test_an_answer_that_comes_too_late_is_not_one_to_the_next_ping(run):
    async def main():
        connection = Connection()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await connection.channel.ping()
        assert connection.channel._pings == {}
        connection.frames()
        pinging = asyncio.create_task(connection.channel.ping())
        await settle()
        # The answer to the first.
        connection.flush()
        await settle()
        assert not pinging.done()
        connection.frames()
        connection.flush()
        await pinging
        connection.vanish()

    run(main())


@pytest.mark.parametrize("end", ["here", "there", "lost"])
def test_a_ping_ends_with_the_connection(run, end):
    async def main():
        connection = Connection()
        pinging = asyncio.create_task(connection.channel.ping())
        await settle()
        if end == "here":
            closing = asyncio.create_task(connection.channel.close(4000))
            await settle()
        elif end == "there":
            connection.client.send_close(4000)
            connection.flush()
        else:
            connection.vanish()
        with pytest.raises(ConnectionClosed) as caught:
            await pinging
        assert caught.value.code == (1006 if end == "lost" else 4000)
        with pytest.raises(ConnectionClosed):
            await connection.channel.ping()
        connection.vanish()
        if end == "here":
            await closing

    run(main())


def pings(connection):
    return [f for f in connection.frames() if f.opcode is Opcode.PING]


INTERVAL, TIMEOUT = 20, 10


def keepalive(**options):
    options = {"ping_interval": INTERVAL, "ping_timeout": TIMEOUT, **options}
    return Connection(offers=False, **options)


def test_a_silent_client_is_pinged_and_given_up(run):
    async def main():
        connection = keepalive()
        await asyncio.sleep(INTERVAL - 0.1)
        assert not pings(connection)
        await asyncio.sleep(0.2)
        assert len(pings(connection)) == 1
        connection.client.data_to_send()
        await asyncio.sleep(TIMEOUT - 0.2)
        assert not connection.channel.closed
        await asyncio.sleep(0.2)
        assert connection.outcome == (True, 1011, "keepalive ping timeout")
        assert await connection.channel.receive() is None
        connection.frames()
        assert connection.client.close_rcvd.code == 1011
        await connection.channel.close()
        assert connection.before.lost == [None]

    run(main())


def test_a_client_that_answers_is_pinged_at_intervals(run):
    async def main():
        connection = keepalive()
        loop = asyncio.get_running_loop()
        pinged = []
        while len(pinged) < 4:
            await asyncio.sleep(0.5)
            if pings(connection):
                pinged.append(loop.time())
            connection.flush()
        assert not connection.channel.closed
        apart = [b - a for a, b in itertools.pairwise(pinged)]
        assert all(INTERVAL - 1 <= each <= INTERVAL + 1 for each in apart), apart
        connection.vanish()

    run(main())


@pytest.mark.parametrize(
    "sign",
    [
        text(b"x"),
        text(b"", opcode=Opcode.PING),
        text(b"unasked", opcode=Opcode.PONG),
        text(b"", opcode=Opcode.PONG),
        # The first byte of a frame; the next ones are its masking key.
        b"\0",
    ],
    ids=["message", "ping", "pong", "answer", "byte"],
)
def test_whatever_a_client_says_when_it_was_pinged_is_a_sign_of_life(run, sign):
    async def main():
        connection = keepalive()
        if sign == b"\0":
            connection.raw(b"\x81\xfe\x10\x00")
        for _ in range(5):
            while not pings(connection):  # noqa: ASYNC110 - its time is what counts
                await asyncio.sleep(0.5)
            connection.client.data_to_send()
            await asyncio.sleep(TIMEOUT - 1)
            connection.raw(sign)
        assert not connection.channel.closed
        connection.vanish()

    run(main())


def test_a_client_that_talks_is_not_pinged(run):
    async def main():
        connection = keepalive()
        for _ in range(10):
            await asyncio.sleep(INTERVAL - 1)
            connection.raw(text(b"x"))
            await drain(connection.channel)
        assert not pings(connection)
        connection.vanish()

    run(main())


def test_an_answer_that_this_loop_was_too_busy_to_read_counts(run):
    async def main():
        connection = keepalive()
        await asyncio.sleep(INTERVAL + 0.1)
        connection.frames()
        # The answer has come; but for this loop the deadline is over first.
        busy(TIMEOUT + 5)
        await settle()
        assert not connection.channel.closed
        connection.flush()
        await asyncio.sleep(1)
        assert not connection.channel.closed
        connection.vanish()

    run(main())


def test_silence_of_a_client_that_is_not_read_says_nothing(run):
    async def main():
        connection = keepalive(queue=1)
        connection.raw(text(b"message"))
        assert not connection.transport.is_reading
        for _ in range(5):
            await asyncio.sleep(INTERVAL + TIMEOUT)
            connection.frames()
            connection.flush()
        assert not connection.channel.closed
        assert await connection.channel.receive() == "message"
        # Its answers are read now.
        await asyncio.sleep(1)
        assert connection.channel._heard_at > Clock.now
        connection.client.data_to_send()
        await asyncio.sleep(2 * (INTERVAL + TIMEOUT))
        assert connection.outcome[:2] == (True, 1011)
        connection.vanish()

    run(main())


def test_a_client_that_never_reads_is_given_up_and_cut(run):
    async def main():
        connection = keepalive(limit=1000)
        sending = asyncio.create_task(connection.channel.send("x" * 2000))
        await asyncio.sleep(INTERVAL + TIMEOUT + 1)
        assert connection.outcome[:2] == (True, 1011)
        with pytest.raises(ConnectionClosed):
            await sending
        assert connection.before.lost == [None]

    run(main())


def test_the_end_of_a_client_that_was_held_back_and_given_up_is_noticed(run):
    async def main():
        connection = keepalive(limit=100)
        connection.raw(text(b"x" * 125, opcode=Opcode.PING) * 2)
        assert not connection.transport.is_reading
        await asyncio.sleep(INTERVAL + TIMEOUT + 1)
        assert connection.outcome[:2] == (True, 1011)
        assert connection.transport.is_reading
        connection.transport.deliver(None)
        connection.frames()
        await settle()
        assert connection.before.lost == [None]

    run(main())


def test_an_answer_that_nobody_asked_for_changes_nothing(run):
    async def main():
        connection = keepalive()
        timer = connection.channel._timer
        connection.raw(text(b"", opcode=Opcode.PONG))
        assert connection.channel._timer is timer
        connection.vanish()

    run(main())


def test_pings_can_be_off(run):
    async def main():
        connection = keepalive(ping_interval=0)
        await asyncio.sleep(1000)
        assert connection.frames() == []
        assert not connection.channel.closed
        connection.vanish()

    run(main())


def test_the_deadline_can_be_off(run):
    async def main():
        connection = keepalive(ping_timeout=0)
        await asyncio.sleep(INTERVAL * 10.5)
        assert len(pings(connection)) == 10
        assert not connection.channel.closed
        connection.vanish()

    run(main())


def test_nothing_is_left_on_the_loop_by_a_connection_that_ended(run):
    async def main():
        loop = asyncio.get_running_loop()
        before = set(loop._scheduled)
        for end in ("vanish", "close", "client", "fail"):
            connection = keepalive()
            if end == "close":
                closing = asyncio.create_task(connection.channel.close())
                await settle()
            elif end == "client":
                connection.client.send_close()
                connection.flush()
            elif end == "fail":
                connection.raw(text(b"\xff"))
            connection.vanish()
            if end == "close":
                await closing
            await settle()
        left = set(loop._scheduled) - before
        assert not [each for each in left if not each.cancelled()]
        assert len(asyncio.all_tasks()) == 1

    run(main())


@pytest.mark.parametrize("way", ["lost", "closed"])
def test_nothing_is_kept_of_a_connection_that_ended(run, way):
    async def main():
        connection = keepalive()
        if way == "closed":
            shutdown.announce(asyncio.get_running_loop())
        alive = weakref.ref(connection.channel)
        connection.vanish()
        del connection
        await settle()
        gc.collect()
        return alive()

    assert run(main()) is None


# What only sockets do


@pytest.fixture(params=["asyncio", "uvloop"])
def run_real(request):
    """Run a coroutine on a loop whose clock is the real one."""
    if request.param == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop
    else:
        factory = asyncio.new_event_loop

    async def limited(coroutine):
        async with asyncio.timeout(30):
            return await coroutine

    def run(coroutine):
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(limited(coroutine))

    return run


HEADERS = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
]


class Accepted(Before):
    """Serves a connection as a WebSocket from its first byte on."""

    def __init__(self, accepted, options):
        super().__init__()
        self.is_lost = asyncio.get_running_loop().create_future()
        self._accepted = accepted
        self._options = options

    def connection_made(self, transport):
        protocol, _ = answer_handshake("/", HEADERS, self._options)
        channel = TransportChannel(transport, protocol, self._options, self)
        channel.start()
        self._accepted.set_result((channel, self))

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.is_lost.set_result(None)


async def connect(**options):
    """A channel, the protocol before it, and the socket of its client."""
    loop = asyncio.get_running_loop()
    accepted = loop.create_future()
    options = Options(**{"compression": "off", **options})
    server = await loop.create_server(
        lambda: Accepted(accepted, options), "127.0.0.1", 0
    )
    client = socket.create_connection(server.sockets[0].getsockname())
    channel, before = await accepted
    server.close()
    return channel, before, client


def reset(client):
    """Close a socket without a word."""
    linger = struct.pack("ii", 1, 0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.close()


async def flood(channel, length):
    """Send without an end."""
    while True:
        await channel.send("x" * length)
        await asyncio.sleep(0)


async def until(condition):
    while not condition():  # noqa: ASYNC110 - it is not always an event
        await asyncio.sleep(0.001)


def test_a_reset_while_reading_was_paused_loses_nothing(run_real):
    async def main():
        channel, before, client = await connect(queue=2)
        sending = asyncio.to_thread(client.sendall, text(b"message") * 8000)
        await sending
        await until(lambda: channel._unparsed)
        kept = len(channel._messages)
        reset(client)
        with pytest.raises(ConnectionClosed):
            await flood(channel, 10_000)
        await before.is_lost
        received = []
        while (message := await channel.receive()) is not None:
            received.append(message)
        assert received == ["message"] * kept

    run_real(main())


@pytest.mark.parametrize("leave", ["reset", "half-close", "shut"])
def test_a_sender_to_a_client_that_never_reads_ends_with_it(
    run_real, monkeypatch, leave
):
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.2)

    async def main():
        channel, before, client = await connect()

        flooding = asyncio.create_task(flood(channel, 100_000))
        await until(lambda: channel._writable is not None)
        if leave == "reset":
            reset(client)
        else:
            client.shutdown(socket.SHUT_WR)
        if leave == "shut":
            client.shutdown(socket.SHUT_RD)
        with pytest.raises(ConnectionClosed) as caught:
            await flooding
        assert caught.value.code == 1006
        await before.is_lost
        client.close()

    run_real(main())


def test_many_senders_hear_of_a_reset_in_one_word(run_real):
    async def main():
        channel, before, client = await connect()

        flooding = [asyncio.create_task(flood(channel, 1000)) for _ in range(5)]
        await asyncio.to_thread(client.recv, 1000)
        reset(client)
        await asyncio.wait(flooding)
        for task in flooding:
            assert isinstance(task.exception(), ConnectionClosed)
        await before.is_lost

    run_real(main())


def test_a_flood_of_pings_takes_no_memory(run_real):
    async def main():
        channel, before, client = await connect(ping_interval=0)
        pings = text(b"x" * 125, opcode=Opcode.PING) * 1_000_000
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(client.sendall, pings)
        assert channel._transport.get_write_buffer_size() < 1_000_000
        client.close()
        await before.is_lost

    run_real(main())


def test_the_close_frame_is_read_before_the_end_of_the_connection(run_real):
    async def main():
        channel, before, client = await connect(queue=1)
        # What nobody reads would have the system reset the connection.
        await asyncio.to_thread(client.sendall, text(b"x") * 5000)
        await until(lambda: channel._messages)
        closing = asyncio.create_task(channel.close(4000, "enough"))

        def answer():
            with client:
                read = client.recv(1000)
                client.sendall(text(b"\x0f\xa0", opcode=Opcode.CLOSE))
                return read, client.recv(1000)

        close_frame = Frame(Opcode.CLOSE, b"\x0f\xa0enough").serialize(mask=False)
        assert await asyncio.to_thread(answer) == (close_frame, b"")
        await closing
        assert before.lost == [None]

    run_real(main())

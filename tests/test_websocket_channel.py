"""The queue of a WebSocket: nothing is lost, and no more comes than is taken."""

import asyncio

import pytest

from aioext.exceptions import ConnectionClosed
from aioext.websocket.channel import ABNORMAL, Channel, check_close, check_message
from aioext.websocket.options import Options


class Queue(Channel):
    """A channel without a connection; counts how often it could go on."""

    def __init__(self, queue=2):
        super().__init__(Options(queue=queue))
        self.resumed = 0

    def _resume(self):
        self.resumed += 1


async def settle():
    """Let every Task go on until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


# Receiving


def test_messages_come_in_order(run):
    async def main():
        channel = Queue(10)
        for message in ("one", b"two", ""):
            channel.put(message)
        return [await channel.receive() for _ in range(3)]

    assert run(main()) == ["one", b"two", ""]


def test_receiving_waits_for_a_message(run):
    async def main():
        channel = Queue()
        receiving = asyncio.create_task(channel.receive())
        await settle()
        assert not receiving.done()
        channel.put("message")
        return await receiving

    assert run(main()) == "message"


def test_two_messages_at_once_wake_a_receiver_once(run):
    async def main():
        channel = Queue()
        receiving = asyncio.create_task(channel.receive())
        await settle()
        channel.put("one")
        channel.put("two")
        return await receiving, await channel.receive()

    assert run(main()) == ("one", "two")


def test_a_second_receiver_is_refused_and_the_first_goes_on(run):
    async def main():
        channel = Queue()
        receiving = asyncio.create_task(channel.receive())
        await settle()
        with pytest.raises(RuntimeError, match="another recv"):
            await channel.receive()
        channel.put("message")
        return await receiving

    assert run(main()) == "message"


def test_a_second_receiver_does_not_take_what_the_first_was_woken_for(run):
    async def main():
        channel = Queue()
        receiving = asyncio.create_task(channel.receive())
        await settle()
        channel.put("message")
        # The first one has been woken, and did not run yet.
        with pytest.raises(RuntimeError, match="another recv"):
            await channel.receive()
        return await receiving

    assert run(main()) == "message"


@pytest.mark.parametrize("arrives", ["before", "with", "after"])
def test_a_receiver_that_is_cancelled_loses_no_message(run, arrives):
    async def main():
        channel = Queue()
        receiving = asyncio.create_task(channel.receive())
        await settle()
        if arrives == "before":
            channel.put("message")
        receiving.cancel()
        if arrives == "with":
            channel.put("message")
        with pytest.raises(asyncio.CancelledError):
            await receiving
        if arrives == "after":
            channel.put("message")
        return await channel.receive()

    assert run(main()) == "message"


def test_a_receiver_that_is_cancelled_makes_room_for_another(run):
    async def main():
        channel = Queue()
        for _ in range(3):
            receiving = asyncio.create_task(channel.receive())
            await settle()
            receiving.cancel()
            await asyncio.wait([receiving])
        channel.put("message")
        return await channel.receive()

    assert run(main()) == "message"


# Room


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_full_queue_asks_for_a_pause(run, limit):
    async def main():
        channel = Queue(limit)
        welcome = [channel.put(str(n)) for n in range(limit + 1)]
        assert welcome == [True] * (limit - 1) + [False, False]
        # One more than the limit was put: there is no room after the first.
        await channel.receive()
        assert channel.resumed == 0
        await channel.receive()
        assert channel.resumed == 1
        while channel._messages:
            await channel.receive()
        assert channel.resumed == 1
        assert channel.put("again") is (limit > 1)

    run(main())


def test_it_is_full_of_few_large_messages_too(run):
    async def main():
        channel = Queue(10)
        channel._max_size = 10
        assert channel.put("x" * 10)
        assert not channel.put("y")
        assert not channel.put("z" * 10)
        # More than its limit of bytes remain after the first.
        await channel.receive()
        assert channel.resumed == 0
        await channel.receive()
        assert channel.resumed == 1
        await channel.receive()
        assert channel.put("x" * 10)

    run(main())


def test_one_message_of_any_size_has_room(run):
    async def main():
        channel = Queue(10)
        channel._max_size = 10
        channel.put("x" * 100)
        await channel.receive()
        assert channel.resumed == 1
        assert channel.put("y")

    run(main())


def test_without_a_limit_of_size_only_their_number_counts():
    channel = Channel(Options(max_size=0, queue=2))
    assert channel.put(b"x" * 10_000_000)


def test_it_may_be_filled_again_while_it_resumes(run):
    async def main():
        channel = Queue(1)
        channel._resume = lambda: channel.put("next")
        channel.put("first")
        received = [await channel.receive() for _ in range(4)]
        assert len(channel._messages) == 1
        return received

    assert run(main()) == ["first", "next", "next", "next"]


# The end


def test_what_came_before_the_client_closed_can_still_be_received(run):
    async def main():
        channel = Queue()
        channel.put("before")
        channel.end(4000, "enough")
        return [await channel.receive() for _ in range(3)]

    assert run(main()) == ["before", None, None]


def test_what_came_before_this_side_closed_cannot(run):
    async def main():
        channel = Queue()
        channel.put("before")
        channel.end(4000, "enough", here=True)
        return await channel.receive()

    assert run(main()) is None


@pytest.mark.parametrize("here", [True, False])
def test_the_end_wakes_a_receiver(run, here):
    async def main():
        channel = Queue()
        receiving = asyncio.create_task(channel.receive())
        await settle()
        channel.end(1000, here=here)
        return await receiving

    assert run(main()) is None


def test_the_end_wakes_a_receiver_that_is_cancelled_at_the_same_time(run):
    async def main():
        channel = Queue()
        receiving = asyncio.create_task(channel.receive())
        await settle()
        receiving.cancel()
        channel.end(1000)
        with pytest.raises(asyncio.CancelledError):
            await receiving
        return await channel.receive()

    assert run(main()) is None


def test_the_end_can_be_an_exception_for_who_iterates(run):
    async def main():
        channel = Queue()
        channel.put("before")
        channel.end(1000)
        assert await channel.receive(StopAsyncIteration) == "before"
        with pytest.raises(StopAsyncIteration):
            await channel.receive(StopAsyncIteration)

    run(main())


def test_only_the_first_end_counts():
    channel = Queue()
    assert (channel.closed, channel.close_code, channel.close_reason) == (
        False,
        None,
        "",
    )
    channel.end(4000, "first")
    channel.end(4001, "second", here=True)
    assert (channel.closed, channel.close_code, channel.close_reason) == (
        True,
        4000,
        "first",
    )


def test_the_end_is_told_once():
    ended = []
    channel = Queue()
    channel.when_ended(lambda: ended.append("told"))
    assert ended == []
    channel.end(1000)
    channel.end(1000)
    assert ended == ["told"]


def test_an_end_that_has_come_is_told_at_once():
    ended = []
    channel = Queue()
    channel.end(1000)
    channel.when_ended(lambda: ended.append("told"))
    assert ended == ["told"]


def test_who_uses_it_afterwards_hears_how_it_was_closed():
    channel = Queue()
    channel.check_open()
    channel.end(4000, "enough")
    with pytest.raises(ConnectionClosed) as caught:
        channel.check_open()
    assert (caught.value.code, caught.value.reason) == (4000, "enough")


def test_without_a_code_it_was_lost():
    assert Queue().closed_error().code == ABNORMAL == 1006


def test_a_server_that_keeps_pings_to_itself_says_so(run):
    with pytest.raises(NotImplementedError, match="pings its clients by itself"):
        run(Queue().ping())


# What can be sent


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
)
def test_an_application_may_close_with(code):
    check_close(code, "")


@pytest.mark.parametrize(
    "code", [-1, 0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, None]
)
def test_an_application_may_not_close_with(code):
    with pytest.raises(ValueError, match=rf"^close\(\) was given the code {code}\."):
        check_close(code, "")


@pytest.mark.parametrize("reason", ["", "x" * 123, "é" * 61])
def test_a_reason_fits_into_a_frame(reason):
    check_close(1000, reason)


@pytest.mark.parametrize(("reason", "length"), [("x" * 124, 124), ("é" * 62, 124)])
def test_a_longer_reason_is_refused(reason, length):
    with pytest.raises(ValueError, match=f"a reason of {length} bytes"):
        check_close(1000, reason)


@pytest.mark.parametrize(
    "message", ["", "a", b"", b"a", bytearray(b"a"), memoryview(b"")]
)
def test_text_and_bytes_are_messages(message):
    check_message(message)


@pytest.mark.parametrize("message", [None, 1, ["a"], {"a": 1}])
def test_nothing_else_is(message):
    with pytest.raises(TypeError, match=r"Write send_json\(\.\.\.\)"):
        check_message(message)

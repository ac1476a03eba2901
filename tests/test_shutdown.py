"""The end of a server is announced to whatever would delay it."""

import asyncio
import gc
import logging
import os
import signal
import threading
import weakref

import pytest

from aioext.shutdown import (
    announce,
    announce_at_signals,
    is_announced,
    on_shutdown,
)


def test_everybody_who_is_registered_is_told_once_and_in_order(run):
    async def main():
        loop = asyncio.get_running_loop()
        told = []
        for number in range(5):
            on_shutdown(lambda number=number: told.append(number))
        assert not is_announced(loop)
        announce(loop)
        assert is_announced(loop)
        announce(loop)
        return told

    assert run(main()) == [0, 1, 2, 3, 4]


def test_who_takes_it_back_is_not_told(run):
    async def main():
        told = []
        forget = on_shutdown(lambda: told.append("first"))
        on_shutdown(lambda: told.append("second"))
        assert forget() is None
        assert forget() is None
        announce(asyncio.get_running_loop())
        assert forget() is None
        return told

    assert run(main()) == ["second"]


def test_who_comes_later_is_told_soon(run):
    async def main():
        announce(asyncio.get_running_loop())
        told = []
        on_shutdown(lambda: told.append("later"))
        # Not yet: whoever registers may not be ready.
        assert told == []
        await asyncio.sleep(0)
        assert told == ["later"]
        announce(asyncio.get_running_loop())
        return told

    assert run(main()) == ["later"]


def test_who_comes_later_may_take_it_back(run):
    async def main():
        announce(asyncio.get_running_loop())
        told = []
        on_shutdown(lambda: told.append("later"))()
        await asyncio.sleep(0)
        return told

    assert run(main()) == []


def test_callbacks_may_register_and_take_back(run):
    async def main():
        told = []

        def first():
            told.append("first")
            forget()
            on_shutdown(lambda: told.append("third"))

        on_shutdown(first)
        forget = on_shutdown(lambda: told.append("second"))
        announce(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return told

    assert run(main()) == ["first", "third"]


def test_a_failure_is_logged_and_the_others_are_told(run, caplog):
    def fail():
        raise KeyError("mistake")

    async def main():
        told = []
        on_shutdown(fail)
        on_shutdown(lambda: told.append("told"))
        announce(asyncio.get_running_loop())
        return told

    assert run(main()) == ["told"]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("aioext", logging.ERROR)
    assert record.exc_info[0] is KeyError


def test_two_servers_in_two_threads_know_nothing_of_each_other(run):
    told = []

    async def register(name):
        on_shutdown(lambda: told.append(name))
        registered.wait()
        if name == "first":
            announce(asyncio.get_running_loop())
        announced.wait()
        return is_announced(asyncio.get_running_loop())

    outcomes = {}

    def serve(name):
        outcomes[name] = asyncio.run(register(name))

    registered, announced = threading.Barrier(2), threading.Barrier(2)
    threads = [threading.Thread(target=serve, args=(n,)) for n in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == ["first"]
    assert outcomes == {"first": True, "second": False}


def test_a_loop_that_announced_and_ended_is_forgotten():
    async def main():
        on_shutdown(lambda: None)
        announce(asyncio.get_running_loop())
        return weakref.ref(asyncio.get_running_loop())

    alive = asyncio.run(main())
    gc.collect()
    assert alive() is None


def test_only_a_loop_that_runs_can_be_registered_with():
    with pytest.raises(RuntimeError, match="no running event loop"):
        on_shutdown(print)


# Servers that are not ours


@pytest.fixture
def handled():
    """The signals that the handler of a server has got."""
    got = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    for number in numbers:
        signal.signal(number, lambda number, frame: got.append(number))
    yield got
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


async def until(condition):
    while not condition():  # noqa: ASYNC110 - a signal is no event
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_announced_and_left_to_the_server(run, handled, number):
    async def main():
        loop = asyncio.get_running_loop()
        told = []
        on_shutdown(lambda: told.append("told"))
        with announce_at_signals():
            os.kill(os.getpid(), number)
            await until(lambda: is_announced(loop))
        return told

    assert run(main()) == ["told"]
    assert handled == [number]


def test_afterwards_signals_are_the_servers_alone(run, handled):
    before = signal.getsignal(signal.SIGTERM)

    async def main():
        with announce_at_signals():
            assert signal.getsignal(signal.SIGTERM) is not before
        assert signal.getsignal(signal.SIGTERM) is before
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: handled)
        assert not is_announced(asyncio.get_running_loop())

    run(main())


def test_a_handler_that_is_set_later_stays(run, handled):
    def later(number, frame): ...

    async def main():
        with announce_at_signals():
            signal.signal(signal.SIGTERM, later)
        assert signal.getsignal(signal.SIGTERM) is later

    run(main())


def test_a_signal_that_the_server_ignores_is_ignored(run, handled):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

    async def main():
        with announce_at_signals():
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN

    run(main())


def test_a_handler_of_the_loop_is_called_as_well(run, handled):
    # hypercorn and granian have theirs set by asyncio.
    async def main():
        loop = asyncio.get_running_loop()
        got = []
        loop.add_signal_handler(signal.SIGTERM, got.append, "by the loop")
        with announce_at_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            await until(lambda: got and is_announced(loop))
        loop.remove_signal_handler(signal.SIGTERM)
        return got

    assert run(main()) == ["by the loop"]


def test_in_another_thread_nothing_is_done(handled):
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    async def main():
        with announce_at_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_signal_that_comes_after_the_loop_is_the_servers_alone(handled):
    async def main():
        stack = announce_at_signals()
        stack.__enter__()
        return stack

    stack = asyncio.run(main())
    os.kill(os.getpid(), signal.SIGTERM)
    signal.getsignal(signal.SIGTERM)
    assert handled == [signal.SIGTERM]
    stack.__exit__(None, None, None)

"""Event logs: nothing lost, nothing doubled, and what is missing is told."""

import asyncio
import json
import random
import sys
import threading
import time

import pytest
from servers import poll
from zope.interface.verify import verifyObject

from aioext import spawn_greenlet
from aioext.eventsource import Event, EventLog, IEventStore, MemoryEventLog


async def take(follower, count):
    """The data of the next events."""
    return [(await anext(follower)).data for _ in range(count)]


async def take_nothing(follower):
    """Check that there is nothing to take now."""
    waiting = asyncio.ensure_future(anext(follower))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])


def log_of(count, **options):
    log = MemoryEventLog(**options)
    for number in range(1, count + 1):
        log.append(str(number))
    return log


def test_ids_have_an_epoch_and_a_position():
    log, other = MemoryEventLog(), MemoryEventLog()
    before = log.last_event_id
    first, second = log.append("a"), log.append("b")
    epoch = before.removesuffix("-0")
    assert (first, second) == (f"{epoch}-1", f"{epoch}-2")
    assert log.last_event_id == second
    assert not other.append("a").startswith(epoch)


def test_a_new_follower_gets_what_comes_after_its_call(run):
    log = log_of(3)

    async def follow():
        follower = log.follow()
        log.append("4")
        assert await take(follower, 1) == ["4"]
        await take_nothing(follower)

    run(follow())


def test_who_comes_back_gets_what_was_missed_and_then_what_comes(run):
    log = log_of(2)
    id_of_2 = log.last_event_id

    async def follow():
        log.append("3")
        follower = log.follow(id_of_2)
        log.append("4")
        events = [await anext(follower) for _ in range(2)]
        assert [event.data for event in events] == ["3", "4"]
        assert events[1].id == log.last_event_id
        await take_nothing(follower)
        log.append("5")
        assert await take(follower, 1) == ["5"]

    run(follow())


def test_the_place_before_the_first_event_is_one_to_come_back_to(run):
    log = MemoryEventLog()
    beginning = log.last_event_id
    log.append("1")
    assert run(take(log.follow(beginning), 1)) == ["1"]


def test_events_keep_what_they_have(run):
    log = MemoryEventLog()
    follower = log.follow()
    given = log.append(Event({"a": 1}, event="tick", retry=2, comment="c"))
    event = run(anext(follower))
    expected = Event('{"a": 1}', event="tick", retry=2, comment="c", id=given)
    assert event == expected


def test_data_is_made_json_when_it_is_appended(run):
    log = MemoryEventLog(dumps=lambda value: json.dumps(value, default=str))
    follower = log.follow()
    data = {"a": 1}
    log.append(data)
    data["a"] = 2
    log.append([3j])
    assert run(take(follower, 2)) == ['{"a": 1}', '["3j"]']


def test_what_cannot_be_appended_is_refused_where_it_is_appended():
    log = MemoryEventLog()
    with pytest.raises(TypeError, match="not JSON serializable"):
        log.append({"a": 1j})
    with pytest.raises(TypeError, match="bytes"):
        log.append(b"bytes")
    with pytest.raises(ValueError, match="append\\(\\) returns"):
        log.append(Event("x", id=1))
    assert log.last_event_id.endswith("-0")


# Gaps


def reason_of(event):
    assert event.event == "reset"
    return json.loads(event.data)["reason"]


def unknown_ids(log):
    epoch = log.last_event_id.rpartition("-")[0]
    return [
        "",
        "-",
        "1",
        "other-1",
        f"{epoch}-",
        f"{epoch}-999",
        f"{epoch}--1",
        f"{epoch}-+1",
        f"{epoch}- 1",
        f"{epoch}-1_0",
        f"{epoch}-\u0661",
        f"{epoch}-" + "9" * 5000,
        f"{epoch}-\ufffd",
        MemoryEventLog().last_event_id,
    ]


def test_an_id_of_another_log_is_told(run):
    log = log_of(3)

    async def come_back(event_id):
        follower = log.follow(event_id)
        gap = await anext(follower)
        assert reason_of(gap) == "unknown"
        assert gap.id == log.last_event_id
        log.append("next")
        assert await take(follower, 1) == ["next"]

    for event_id in unknown_ids(log):
        run(come_back(event_id))


def test_an_id_that_fell_out_of_the_log_is_told(run):
    log = log_of(1, size=3)
    old = log.last_event_id
    for number in (2, 3, 4):
        log.append(str(number))
    # It still has all that came after the first one.
    assert run(take(log.follow(old), 3)) == ["2", "3", "4"]
    log.append("5")
    follower = log.follow(old)
    gap = run(anext(follower))
    assert reason_of(gap) == "expired"
    # What the page fetches now has everything up to here.
    assert gap.id == log.last_event_id
    log.append("6")
    assert run(take(follower, 1)) == ["6"]


def test_a_follower_that_is_too_slow_is_told(run):
    log = MemoryEventLog(size=3)
    follower = log.follow()
    for number in range(1, 6):
        log.append(str(number))

    async def follow():
        assert reason_of(await anext(follower)) == "slow"
        log.append("6")
        assert await take(follower, 1) == ["6"]

    run(follow())


def test_a_gap_may_be_told_otherwise_or_not_at_all(run):
    log = log_of(1)
    reasons = []

    def tell(reason):
        reasons.append(reason)
        return Event("again", event="reload")

    event = run(anext(log.follow("gone", on_gap=tell)))
    assert (event.event, event.data) == ("reload", "again")
    follower = log.follow("gone", on_gap=reasons.append)
    log.append("2")
    assert run(take(follower, 1)) == ["2"]
    assert reasons == ["unknown", "unknown"]


@pytest.mark.parametrize("size", [0, -1])
def test_a_log_keeps_something(size):
    with pytest.raises(ValueError, match="at least 1"):
        MemoryEventLog(size)


def test_a_small_log_is_a_log(run):
    log = log_of(5, size=1)
    last = log.last_event_id
    follower = log.follow(last)
    log.append("6")
    assert run(take(follower, 1)) == ["6"]


# Many at once


@pytest.fixture
def _threads_take_turns_often():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_threads_take_turns_often")
def test_appends_from_threads_reach_followers_on_loops(run):
    log = MemoryEventLog(size=10_000)
    writers, each = 4, 250
    total = writers * each
    begin = log.last_event_id
    received = []
    ready = threading.Barrier(writers + 2)

    def write(name):
        ready.wait()
        for number in range(each):
            log.append(f"{name}:{number}")

    async def follow():
        followers = [log.follow(begin) for _ in range(5)]
        await asyncio.to_thread(ready.wait)
        return await asyncio.gather(*[take(each, total) for each in followers])

    def loop_in_a_thread():
        received.extend(asyncio.run(follow()))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(writers)]
    threads.append(threading.Thread(target=loop_in_a_thread))
    for thread in threads:
        thread.start()
    received.extend(run(follow()))
    for thread in threads:
        thread.join()
    assert len(received) == 10
    first = received[0]
    assert len(set(first)) == total
    assert all(other == first for other in received)
    for name in range(writers):
        own = [data for data in first if data.startswith(f"{name}:")]
        assert own == [f"{name}:{number}" for number in range(each)]


@pytest.mark.usefixtures("_threads_take_turns_often")
def test_a_position_is_given_once():
    store = MemoryEventLog(size=10).store
    writers, each = 8, 2000
    given = [[] for _ in range(writers)]
    ready = threading.Barrier(writers)

    def write(positions):
        ready.wait()
        for _ in range(each):
            positions.append(store.append(None))

    threads = [threading.Thread(target=write, args=(each,)) for each in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.last == writers * each
    assert len(set().union(*given)) == writers * each
    assert all(positions == sorted(positions) for positions in given)


def test_who_comes_and_goes_at_random_misses_nothing_and_gets_nothing_twice(run):
    log = MemoryEventLog(size=100_000)
    total = 2000
    chance = random.Random(1)
    begin = log.last_event_id

    async def write():
        for number in range(total):
            log.append(str(number))
            if chance.random() < 0.3:
                await asyncio.sleep(0)

    async def read():
        seen, last = [], begin
        while len(seen) < total:
            follower = log.follow(last)
            for _ in range(chance.randrange(1, 40)):
                if len(seen) == total:
                    break
                event = await anext(follower)
                seen.append(event.data)
                last = event.id
            await asyncio.sleep(0)
        return seen

    async def both():
        results = await asyncio.gather(write(), *[read() for _ in range(20)])
        return results[1:]

    expected = [str(number) for number in range(total)]
    assert all(seen == expected for seen in run(both()))


def test_who_looks_when_something_has_just_come_does_not_wait(run):
    async def wait():
        log = MemoryEventLog()
        waiting = log.wait_beyond(0)
        log.append("x")
        await waiting

    run(wait())


def test_a_wait_that_is_cancelled_loses_nothing(run):
    log = MemoryEventLog()

    async def follow():
        follower = log.follow()
        for number in range(20):
            waiting = asyncio.ensure_future(anext(follower))
            await asyncio.sleep(0)
            log.append(str(number))
            waiting.cancel()
            await asyncio.wait([waiting])
            assert await take(follower, 1) == [str(number)]
        assert not log._waiting.get(asyncio.get_running_loop())

    run(follow())


def test_a_follower_whose_loop_is_closed_disturbs_nobody(run):
    log = MemoryEventLog()
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(log.wait_beyond(0))
    loop.run_until_complete(asyncio.sleep(0))
    # Nobody has cancelled what waits.
    loop.close()
    del waiting
    follower = log.follow()
    log.append("x")
    assert run(take(follower, 1)) == ["x"]


def test_followers_keep_nothing_that_they_have_given(run):
    log = log_of(1000)
    follower = log.follow(log.id_of(0))

    async def follow():
        for _ in range(1000):
            await anext(follower)
            assert len(follower._batch) < 100

    run(follow())


# Synchronous code


def test_synchronous_code_follows_too(run):
    log = log_of(2)

    def follow():
        follower = iter(log.follow(log.id_of(0)))
        seen = [next(follower).data for _ in range(2)]
        asyncio.get_running_loop().call_soon(log.append, "3")
        return [*seen, next(follower).data]

    assert run(spawn_greenlet(follow)) == ["1", "2", "3"]


# Forks


def test_a_fork_has_a_log_of_its_own(script):
    output = script("""
        import os, threading
        from aioext.eventsource import MemoryEventLog

        log = MemoryEventLog()
        log.append("1")
        before = log.last_event_id
        with log._lock, log.store._lock:
            pid = os.fork()
            if pid == 0:
                try:
                    log.append("2")
                    known = log._position_of(before, log.store.last)
                    print(known, log.last_event_id != before, flush=True)
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
        print(log.last_event_id == before)
    """)
    assert output.split() == ["None", "True", "True"]


# Other stores


class SharedStore:
    """A store that other processes append to: what they tell is late."""

    epoch = "shared"

    def __init__(self):
        self.events = []

    @property
    def last(self):
        return self.events[-1][0] if self.events else 0

    def append(self, event):
        # Positions may have holes.
        self.events.append((self.last + 10, event))
        return self.last

    def read(self, after, limit):
        return [entry for entry in self.events if entry[0] > after][:limit]


def test_a_store_of_ones_own(run):
    store = SharedStore()
    log = EventLog(store)
    assert log.append("a") == "shared-10"

    async def follow():
        follower = log.follow("shared-0")
        assert await take(follower, 1) == ["a"]
        waiting = asyncio.ensure_future(anext(follower))
        await asyncio.sleep(0)
        store.append(Event("b"))
        await asyncio.sleep(0)
        assert not waiting.done()
        log.notify()
        event = await waiting
        assert (event.data, event.id) == ("b", "shared-20")

    run(follow())


def test_the_store_in_memory_is_one():
    store = MemoryEventLog().store
    assert verifyObject(IEventStore, store)


def test_many_waiting_followers_cost_an_append_little(run):
    log = MemoryEventLog()

    async def follow():
        tasks = [asyncio.ensure_future(anext(log.follow())) for _ in range(2000)]
        await asyncio.sleep(0)
        begin = time.perf_counter()
        log.append("x")
        taken = time.perf_counter() - begin
        await asyncio.wait(tasks)
        assert {task.result().data for task in tasks} == {"x"}
        return taken

    # They are woken by the loop, in one call, and not by who appends.
    assert poll(lambda: run(follow()) < 0.005, timeout=10)

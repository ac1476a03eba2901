"""What an event stream does for an application, the same on every runtime.

The application is ``apps/eventsource_app.py``.
"""

import itertools
import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from runtimes import ALL, CUTS, EVENTS, MANY_EVENTS, NO_THREADS, THREADS
from servers import memory, poll
from ws_client import values

from suite.streams import assert_taken

TYPE = "text/event-stream; charset=utf-8"
OPENING = ":\n\n"
MEBIBYTE = 1_048_576

keys = itertools.count()
# Where a client sees that a stream was not to end.
CUTTING = [
    each.name
    for each in ALL
    if each.has(MANY_EVENTS) and (each.has(CUTS) or each.is_in_process)
]
gunicorn = pytest.mark.only("gunicorn on uvloop")


@pytest.fixture
def served(running):
    return running.events


@pytest.fixture
def key():
    return f"k{next(keys)}"


def state(served):
    return json.loads(served.ask("/state")[1])


def until_ended(served, key, expected=1):
    """Wait until the stream of ``key`` has been closed."""
    poll(lambda: state(served)["ended"].get(key, 0) >= expected)
    assert state(served)["ended"][key] == expected


def ids_in(text):
    return re.findall(r"(?m)^id: (.*)$", text)


# On every runtime -------------------------------------------------------------


@pytest.mark.feature(EVENTS)
def test_a_stream_that_ends(running):
    answer = running.get("/events/three")
    assert answer.status == 200
    assert values(answer.headers, "content-type") == [TYPE]
    assert values(answer.headers, "cache-control") == ["no-store, no-transform"]
    assert values(answer.headers, "x-accel-buffering") == ["no"]
    events = [f"data: line {n}\ndata: of \u20ac\n\n" for n in range(3)]
    assert answer.body == OPENING + "".join(events)


@pytest.mark.feature(EVENTS)
def test_a_refusal_is_a_response(running):
    answer = running.get("/events/forbid")
    assert answer.status == 403
    assert "not you" in answer.body


@pytest.mark.without(MANY_EVENTS)
def test_a_stream_has_the_server_to_itself(running, key):
    if running.events is None:
        # There is a response when the generator has ended, and not before.
        assert running.get("/events/three").body.count("data: line") == 3
        assert running.get("/events/state").json["streams"] == 0
    else:
        assert_taken(running.events, key, 1)


@pytest.mark.without(NO_THREADS)
def test_streams_have_all_threads_to_themselves(served, key):
    assert_taken(served, key, THREADS)


# While it lasts ---------------------------------------------------------------


@pytest.mark.feature(MANY_EVENTS)
def test_the_head(served, key):
    stream = served.open(f"/mute?key={key}")
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.headers["cache-control"] == "no-store, no-transform"
    assert stream.headers["x-accel-buffering"] == "no"
    assert "content-length" not in stream.headers
    stream.until("^:\n\n")
    stream.close()
    until_ended(served, key)


@pytest.mark.feature(MANY_EVENTS)
def test_a_head_request_gets_the_head_alone(served, key):
    stream = served.open(f"/ticks?key={key}", method="HEAD")
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.until_end().text == ""
    stream.close()


@pytest.mark.feature(MANY_EVENTS)
@pytest.mark.parametrize("view", ["ticks", "plain"])
def test_each_event_arrives_before_the_next_one_is_made(served, key, view):
    stream = served.open(f"/{view}?key={key}")
    for number in range(1, 6):
        stream.until(f'data: {{"number": {number}}}\n\n')
        assert ids_in(stream.text) == [str(n) for n in range(1, number + 1)]
        served.ask(f"/go?key={key}")
    stream.close()
    until_ended(served, key)


@pytest.mark.feature(MANY_EVENTS)
@pytest.mark.parametrize("view", ["ticks", "plain"])
def test_silence_is_filled_with_comments(served, key, view):
    stream = served.open(f"/{view}?key={key}").until("number")
    stream.until("number.*\n\n:\n\n:\n\n:\n\n")
    served.ask(f"/go?key={key}")
    stream.until('"number": 2')
    stream.close()
    until_ended(served, key)


@pytest.mark.feature(MANY_EVENTS)
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("view", ["ticks", "plain", "mute", "slow_to_close"])
def test_a_client_that_leaves_is_noticed(served, key, view, reset):
    stream = served.open(f"/{view}?key={key}").until("^:\n\n")
    if view != "mute":
        stream.until("data: ")
    stream.close(reset)
    until_ended(served, key)


@pytest.mark.only(*CUTTING)
def test_an_error_ends_the_stream_and_is_logged(running, served):
    stream = served.open("/fail").until("first").until_end()
    assert stream.is_cut
    stream.close()
    if not running.runtime.is_in_process:
        poll(lambda: "Expected: in the stream" in served.output)


@pytest.mark.feature(MANY_EVENTS)
def test_a_client_comes_back_without_loss(served):
    first = json.loads(served.ask("/append?text=one")[1])["id"]
    stream = served.open("/follow", headers=[f"Last-Event-ID: {first}"])
    for text in ("two", "three"):
        served.ask(f"/append?text={text}")
    stream.until("data: three\n\n")
    assert re.findall("data: (.*)", stream.text) == ["two", "three"]
    stream.close()
    for text in ("four", "five"):
        served.ask(f"/append?text={text}")
    last = ids_in(stream.text)[-1]
    stream = served.open(f"/follow?lastEventId={last}").until("data: five\n\n")
    assert re.findall("data: (.*)", stream.text) == ["four", "five"]
    stream.close()


@pytest.mark.feature(MANY_EVENTS)
def test_an_id_of_another_server_is_told(served):
    stream = served.open("/follow", headers=["Last-Event-ID: other-5"])
    stream.until(r'event: reset\nid: .*\ndata: \{"reason": "unknown"\}\n\n')
    stream.close()


@pytest.mark.feature(MANY_EVENTS)
def test_many_streams_at_once(served):
    count = 50
    # In process there may be some of other modules' tests.
    before = state(served)["streams"]
    last = json.loads(served.ask("/append?text=before")[1])["id"]
    streams = [served.open(f"/follow?lastEventId={last}") for _ in range(count)]
    for number in range(20):
        served.ask(f"/append?text={number}")
    for stream in streams:
        stream.until("data: 19\n\n")
        assert re.findall("data: (.*)", stream.text) == [str(n) for n in range(20)]
        stream.close()
    poll(lambda: state(served)["streams"] <= before, lambda: str(state(served)))


# On the worker ----------------------------------------------------------------


def worker_memory(served):
    (pid,) = served.server.children()
    return memory(pid)


def until_stuck(served, key):
    """Wait until no more is made for ``key``; gives how much was."""
    counts = []

    def has_stopped():
        counts.append(state(served)["made"].get(key, 0))
        # Others are served meanwhile, and each of them takes some time.
        return len(counts) > 20 and counts[-20] == counts[-1] > 0

    poll(has_stopped)
    return counts[-1]


@gunicorn
def test_a_client_that_never_reads_holds_only_itself_up(served, key):
    served.ask("/state")
    before = worker_memory(served)
    stream = served.begin(f"/flood?key={key}", small=True)
    assert until_stuck(served, key) < 200
    assert worker_memory(served) < before + 32 * MEBIBYTE
    stream.close()
    until_ended(served, key)


STAGES = [None, "^:\n\n", "data: ", ":\n\n$"]


@gunicorn
def test_a_thousand_clients_that_leave_leave_nothing_behind(served, key):
    def come_and_go(number):
        view = ("ticks", "mute", "flood", "follow")[number % 4]
        stage = STAGES[number // 4 % len(STAGES)]
        if view in ("mute", "follow") and stage == "data: ":
            stage = None
        stream = served.begin(f"/{view}?key={key}")
        if stage is not None:
            stream.receive_head().until(stage)
        stream.close(reset=number % 3 == 0)

    served.ask("/state")
    before = state(served)
    logged = len(served.output)
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(come_and_go, range(1000)))
    poll(lambda: state(served)["streams"] == 0)
    poll(lambda: state(served)["tasks"] <= before["tasks"])
    assert "Traceback" not in served.output[logged:]

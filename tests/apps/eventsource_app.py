"""Event streams of every form, for the suite that runs on every server.

A client names itself with ``?key=``. ``/go?key=`` lets its stream take the next
step, ``/state`` tells what there is in this process.
"""

import asyncio
import gc
import sys
import threading

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPForbidden

from aioext import wait
from aioext.asgi import Gateway
from aioext.eventsource import Event, EventSourceMapper, MemoryEventLog
from aioext.eventsource.stream import EventStream

# Seconds; less than a test waits for something.
HEARTBEAT = 0.2
LARGE = "x" * 65_536

log = MemoryEventLog(size=100)
steps = {}
made = {}
ended = {}


class Expected(Exception):
    """Raised on purpose; the only error that the log may have."""


def key_of(request):
    return request.GET["key"]


def step(request):
    """The semaphore that lets a client's stream go on."""
    return steps.setdefault(key_of(request), asyncio.Semaphore(0))


def count(counts, key):
    counts[key] = counts.get(key, 0) + 1


def end(request):
    assert request.disconnected.is_set()
    count(ended, key_of(request))
    sys.stderr.write(f"ended {key_of(request)}\n")
    sys.stderr.flush()


async def ticks(request):
    number = 0
    try:
        while True:
            number += 1
            yield Event({"number": number}, event="tick", id=number)
            await step(request).acquire()
    finally:
        await asyncio.sleep(0)
        end(request)


def plain(request):
    number = 0
    try:
        while True:
            number += 1
            yield Event({"number": number}, event="tick", id=number)
            wait(step(request).acquire())
    finally:
        wait(asyncio.sleep(0))
        end(request)


async def flood(request):
    try:
        while True:
            count(made, key_of(request))
            yield LARGE
    finally:
        end(request)


async def three(request):
    for number in range(3):
        yield f"line {number}\nof \u20ac"


async def fail(request):
    yield "first"
    raise Expected("in the stream")


async def mute(request):
    try:
        await asyncio.Event().wait()
        yield
    finally:
        end(request)


async def follow(request):
    async for event in log.follow(request.last_event_id):
        yield event


async def slow_to_close(request):
    try:
        yield "first"
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.5)
        end(request)


def forbid(request):
    return HTTPForbidden("not you")


async def go(request):
    step(request).release()
    return {}


async def append(request):
    return {"id": log.append(request.GET["text"])}


async def state(request):
    gc.collect()
    streams = sum(type(each) is EventStream for each in gc.get_objects())
    return {
        "streams": streams,
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "made": made,
        "ended": ended,
    }


STREAMS = (ticks, plain, flood, three, fail, mute, follow, slow_to_close, forbid)


def make():
    """The WSGI application."""
    settings = {
        "aioext.eventsource.heartbeat": str(HEARTBEAT),
        "aioext.executor_workers": "64",
    }
    with Configurator(settings=settings) as config:
        config.include("aioext")
        for view in STREAMS:
            config.add_view(view, name=view.__name__, mapper=EventSourceMapper)
        for view in (go, append, state):
            config.add_view(view, name=view.__name__, renderer="json")
        return config.make_wsgi_app()


def make_asgi():
    """The ASGI application."""
    return Gateway(make())

"""WebSockets whose clients misbehave, and counters that have to be back at zero.

``/counts`` tells what exists in this process on behalf of its WebSockets.
"""

import asyncio
import gc
import os
import threading
import time

from pyramid.config import Configurator
from pyramid.response import Response
from websocket_app import outcome, tell, tell_facts, told

from aioext import wait
from aioext.exceptions import ConnectionClosed
from aioext.greenlets import BridgeGreenlet
from aioext.websocket import SyncWebSocket, WebSocket, WebsocketMapper
from aioext.websocket.channel import Channel
from aioext.websocket.handshake import Handshake

KEPT = (Channel, Handshake, SyncWebSocket, WebSocket)
# An idle greenlet is five objects: it, its job, and a function with its closure. How
# many are kept depends on how many were needed at once.
OBJECTS_OF_A_GREENLET = 5

MAX_SIZE = 65_536
QUEUE = 8
THREADS = 64

# How many handlers run now, how often one has begun, and what they have sent.
running = [0]
begun = [0]
sent = {}
# Holds back what waits for it, which is so many.
gate = [asyncio.Event()]
waiting = [0]


class Running:
    """Counts a handler as long as it runs."""

    _lock = threading.Lock()

    def __enter__(self):
        with self._lock:
            running[0] += 1
            begun[0] += 1

    def __exit__(self, *args):
        with self._lock:
            running[0] -= 1


async def wait_at_the_gate():
    waiting[0] += 1
    try:
        await gate[0].wait()
    finally:
        waiting[0] -= 1


async def watch(request, ws):
    """Echoes, and tells what it got and how it was closed."""
    received = []
    with Running():
        async for message in ws:
            received.append(message if type(message) is str else len(message))
            await ws.send(message)
    tell(request, received, outcome(ws))


def watch_sync(ws):
    with Running():
        for message in ws:
            ws.send(message)


async def flood(request, ws):
    """Sends without end."""
    message = "x" * int(request.params["size"])
    with Running():
        try:
            while True:
                await ws.send(message)
                sent[request.params["key"]] = sent.get(request.params["key"], 0) + 1
        except ConnectionClosed:
            tell(request, outcome(ws))


async def hold(request, ws):
    """Receives nothing before the gate is open."""
    tell(request, "held")
    with Running():
        await wait_at_the_gate()
        received = [message async for message in ws]
    tell(request, [len(received), received == sorted(received)], outcome(ws))


async def late(request):
    """Accepts when the gate is open."""
    ws = request.websocket
    with Running():
        await wait_at_the_gate()
        async for message in ws:
            await ws.send(message)
    return ws


def late_sync(request):
    """As the other, in a thread of the executor until it accepts."""
    ws = request.websocket
    with Running():
        wait(wait_at_the_gate())
        for message in ws:
            ws.send(message)
    return ws


async def linger(request, ws):
    """Takes no notice of the end."""
    with Running():
        await asyncio.Event().wait()


async def block(ws):
    """Blocks the loop."""
    async for message in ws:
        await ws.send("blocks")
        time.sleep(float(message))  # noqa: ASYNC251
        await ws.send(f"blocked {message}")


async def close(request, ws):
    with Running():
        await ws.recv()
        await ws.close(4000, "enough")
        tell(request, outcome(ws), await ws.recv())


async def open_gate(request):
    gate[0].set()
    gate[0] = asyncio.Event()
    return {}


async def counts(request):
    # What was told is not of the sockets.
    told.clear()
    sent.clear()
    gc.collect()
    objects = gc.get_objects()
    alive = [each for each in objects if isinstance(each, KEPT)]
    greenlets = sum(isinstance(each, BridgeGreenlet) for each in objects)
    return {
        "objects": len(objects) - OBJECTS_OF_A_GREENLET * greenlets,
        "running": running[0],
        "kept": len(alive),
        "tasks": len(asyncio.all_tasks()),
        "files": len(os.listdir("/proc/self/fd")),
    }


async def begun_so_far(request):
    return {"begun": begun[0], "waiting": waiting[0]}


async def sent_so_far(request):
    return {"sent": sent.get(request.params["key"], 0)}


async def page(request):
    return Response("page")


def make(**settings):
    """The WSGI application."""
    settings = {
        "aioext.websocket.threads": THREADS,
        "aioext.websocket.max_size": MAX_SIZE,
        "aioext.websocket.queue": QUEUE,
        "aioext.websocket.ping_interval": 0,
        **settings,
    }
    with Configurator(settings=settings) as config:
        config.include("aioext")

        def add(view, name=None, **options):
            name = name or view.__name__.replace("_", "-")
            config.add_view(view, name=name, mapper=WebsocketMapper, **options)

        for view in (watch, watch_sync, flood, hold, linger, close):
            add(view)
        add(watch_sync, "watch-threaded", executor=True)
        add(watch, "pinged", ping_interval=0.5, ping_timeout=1)
        add(block, ping_interval=0.5, ping_timeout=1)
        for view in (late, late_sync, page):
            config.add_view(view, name=view.__name__.replace("_", "-"))
        for view in (counts, begun_so_far, sent_so_far, open_gate):
            name = view.__name__.replace("_", "-")
            config.add_view(view, name=name, renderer="json")
        config.add_view(tell_facts, name="told", renderer="json")
    return config.make_wsgi_app()

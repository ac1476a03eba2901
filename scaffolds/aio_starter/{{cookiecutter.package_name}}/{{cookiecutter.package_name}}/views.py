"""The views: two coroutines and an ordinary function."""

import asyncio
import os
import threading
import time

from pyramid.response import Response
from pyramid.view import view_config


async def wait(name, seconds):
    """Stand in for a query, or for a request to another service."""
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    return {"name": name, "seconds": time.perf_counter() - started}


def place():
    """Tell where a coroutine runs."""
    return {
        "event_loop": type(asyncio.get_running_loop()).__module__,
        "thread": threading.current_thread().name,
    }


@view_config(route_name="home", renderer="templates/home.mako")
async def home(request):
    """Wait for two things at once: the page takes as long as the longer one."""
    started = time.perf_counter()
    waits = await asyncio.gather(wait("one", 0.1), wait("another", 0.2))
    return {
        "waits": waits,
        "elapsed": time.perf_counter() - started,
        **place(),
    }


@view_config(
    route_name="status",
    formats={
        "html": "templates/status.mako",
        "json": ("status", "event_loop", "thread"),
    },
)
async def status(request):
    """Answer people with a page, and programs with what is named above."""
    await asyncio.sleep(0)
    return {"status": "ok", "process": os.getpid(), **place()}


@view_config(route_name="thread")
def thread(request):
    """Block, as synchronous code does; the event loop goes on meanwhile."""
    time.sleep(0.01)
    name = threading.current_thread().name
    return Response(f"This view ran in the thread {name}.\n", content_type="text/plain")

"""Uploads, and what they cost: how long the loop was held up, memory, open files."""

import asyncio
import contextlib
import os
import resource
import tempfile
import time

from pyramid.config import Configurator

import aioext
from aioext.asgi import Gateway
from aioext.uploads import save

STEP = 0.005
lags = [0.0]


@contextlib.asynccontextmanager
async def watching(registry):
    """Note how much later than asked for the loop comes back to a Task."""
    with tempfile.TemporaryDirectory() as registry["into"]:
        task = asyncio.create_task(watch())
        yield
        task.cancel()


async def watch():
    while True:
        begun = time.monotonic()
        await asyncio.sleep(STEP)
        lags.append(time.monotonic() - begun - STEP)


async def keep(request):
    begun = time.monotonic()
    form = await request.form()
    return await kept(request, form, begun)


def keep_post(request):
    begun = time.monotonic()
    return aioext.wait(kept(request, request.POST, begun))


async def kept(request, form, begun):
    field = form["file"]
    path = await save(field, request.registry["into"])
    seconds = time.monotonic() - begun
    return {"name": path.name, "size": path.stat().st_size, "seconds": seconds}


async def facts(request):
    """Of the process since the last time, and remove what was kept."""
    lag, lags[:] = max(lags), [0.0]
    into = request.registry["into"]
    names = sorted(os.listdir(into))
    for name in names:
        os.unlink(os.path.join(into, name))
    return {
        "lag": lag,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "temporary": temporary_files(),
        "names": names,
    }


def temporary_files():
    """How many the process has open; they have no name."""
    count = 0
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += "(deleted)" in os.readlink(f"/proc/self/fd/{each}")
    return count


def make():
    """The WSGI application."""
    with Configurator(settings={"aioext.max_body": "1MiB"}) as config:
        config.include("aioext")
        config.add_lifespan(watching)
        for view in (keep, keep_post):
            name = view.__name__
            config.add_view(view, name=name, renderer="json", max_body="100MiB")
        config.add_view(facts, name="facts", renderer="json")
        config.add_view(keep, name="small", renderer="json")
    return config.make_wsgi_app()


def make_asgi():
    """The same, as an ASGI application."""
    return Gateway(make())

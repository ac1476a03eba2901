"""Applications whose clients leave, for tests/test_disconnect.py and others.

What happens in the server's process is written to stderr, a line each.
"""

import asyncio
import contextlib
import sys
import time

from pyramid.config import Configurator

from aioext import wait
from aioext.gateway import Gateway
from aioext.shutdown import on_shutdown

released = asyncio.Event()


def say(*words):
    sys.stderr.write(" ".join(map(str, words)) + "\n")
    sys.stderr.flush()


@contextlib.contextmanager
def told(request, name):
    say("begun", name)
    try:
        yield
    except asyncio.CancelledError:
        # The cleanup may wait.
        wait(asyncio.sleep(0))
        say("cancelled", name)
        raise
    say("finished", name)


async def coroutine(request):
    with told(request, "coroutine"):
        await released.wait()
    return {}


def thread(request):
    with told(request, "thread"):
        wait(released.wait())
    return {}


async def body(request):
    size = len(request.body)
    with told(request, f"body {size}"):
        await released.wait()
    return {}


async def asks(request):
    with told(request, "asks"):
        await request.disconnected.wait()
    return {}


async def stubborn(request):
    with contextlib.suppress(asyncio.CancelledError):
        with told(request, "stubborn"):
            await released.wait()
    return {}


async def release(request):
    released.set()
    return {}


async def renew(request):
    released.clear()
    return {}


async def at_the_end(request):
    # Has some work left when the server stops.
    stopping = asyncio.Event()
    on_shutdown(stopping.set)
    with told(request, "end"):
        await stopping.wait()
        await asyncio.sleep(float(request.params["seconds"]))
    return {}


async def sleeps(request):
    await asyncio.sleep(60)


def blocks(request):
    say("begun blocks")
    time.sleep(1)
    say("finished blocks")
    return {}


async def holds(request):
    time.sleep(0.5)  # noqa: ASYNC251 - on purpose
    return {}


@contextlib.asynccontextmanager
async def resource(registry):
    yield
    say("closed")


VIEWS = (
    coroutine,
    thread,
    body,
    asks,
    stubborn,
    release,
    renew,
    at_the_end,
    sleeps,
    blocks,
    holds,
)


def make(**settings):
    settings = {f"aioext.{key}": value for key, value in settings.items()}
    with Configurator(settings=settings) as config:
        config.include("aioext")
        config.add_lifespan(resource)
        for view in VIEWS:
            config.add_view(view, name=view.__name__, renderer="json")
        return config.make_wsgi_app()


def make_asgi(**settings):
    return Gateway(make(**settings))


wsgi = make()
asgi = Gateway(wsgi)
always = make(cancel_on_disconnect="always")
timed = make_asgi(request_timeout="0.3")
watched = make(**{"debug.blocking": "100ms"})

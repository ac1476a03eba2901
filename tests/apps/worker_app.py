"""A Pyramid application that says where and when its parts run.

What happens in its life is printed, a line each, so that a test finds it in
the server's output, in order and with the process that it happened in.
"""

import asyncio
import gc
import os
import sys
import threading
from contextlib import asynccontextmanager

from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.threadlocal import get_current_registry

import aioext
from aioext.eventsource import EventSourceMapper
from aioext.gateway import Gateway
from aioext.websocket import WebsocketMapper


def tell(*words):
    # In one write, for threads print as well.
    os.write(1, f"event: {' '.join(words)} {os.getpid()}\n".encode())


def resource(name):
    """A lifespan that tells when it is opened and closed."""

    @asynccontextmanager
    async def opened(registry):
        assert get_current_registry() is registry
        tell("opened", name)
        registry["first"] = asyncio.get_running_loop()
        yield
        # Closing takes a turn of the loop, which must still be there.
        await asyncio.sleep(0)
        tell("closed", name)

    return opened


@asynccontextmanager
async def failing(registry):
    raise LookupError("there is no database")
    yield


def started(event):
    tell("starting")


def stopped(event):
    tell("stopping")


async def where(request):
    loop = asyncio.get_running_loop()
    return {
        "pid": os.getpid(),
        "thread": threading.current_thread().name,
        "loop": type(loop).__module__.partition(".")[0],
        "opened": request.registry["first"] is loop,
        "registry": get_current_registry() is request.registry,
        "frozen": gc.get_freeze_count(),
        "threshold": gc.get_threshold()[0],
        "multiprocess": request.environ["wsgi.multiprocess"],
        "scheme": request.scheme,
        "script_name": request.script_name,
        "path": request.path_info,
        "client": request.client_addr,
        "url": request.url,
    }


def sync(request):
    return {"pid": os.getpid(), "thread": threading.current_thread().name}


async def read(request):
    """Answers when the whole body has come, which is when the client says."""
    tell("reading")
    return {"body": request.body.decode(), "thread": threading.current_thread().name}


def read_sync(request):
    tell("reading_sync")
    return {"body": request.body.decode(), "thread": threading.current_thread().name}


async def _endless():
    tell("streaming")
    try:
        while True:
            yield b"x"
            await asyncio.sleep(0.05)
    finally:
        tell("streamed")


async def stream(request):
    return Response(app_iter=_endless())


async def idle(request):
    """An event stream that says nothing."""
    await asyncio.Event().wait()
    yield None


async def echo(ws):
    async for message in ws:
        await ws.send(message)


async def count(request):
    async def numbers():
        for number in range(3):
            yield b"%d\n" % number

    await asyncio.sleep(0)
    return Response(app_iter=numbers())


_background = set()


async def leave(request):
    """Leaves a coroutine running behind."""

    async def left():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            tell("left")

    _background.add(asyncio.create_task(left()))
    return {}


def block(request):
    """Keeps an executor thread waiting for something that does not come."""
    tell("blocking")
    try:
        aioext.wait(asyncio.sleep(3600))
    finally:
        tell("unblocked")


async def leave_off(request):
    """Ends the process, as no view should."""
    if request.params["how"] == "KeyboardInterrupt":
        raise KeyboardInterrupt
    sys.exit(int(request.params["how"]))


def main(global_config, **settings):
    """The application; ``paste.app_factory``."""
    with Configurator(settings=settings) as config:
        config.include("aioext")
        prefix = settings.get("name", "")
        config.add_lifespan(resource(prefix + "first"))
        config.add_lifespan(resource(prefix + "second"))
        if "fail" in settings:
            config.add_lifespan(failing)
        config.registry["first"] = None
        config.add_subscriber(started, aioext.AppStarting)
        config.add_subscriber(stopped, aioext.AppStopping)
        for view in (where, sync, read, read_sync, leave, block):
            config.add_view(view, name=view.__name__, renderer="json")
        for view in (stream, count, leave_off):
            config.add_view(view, name=view.__name__)
        config.add_view(idle, name="idle", mapper=EventSourceMapper)
        config.add_view(echo, name="echo", mapper=WebsocketMapper)
    return config.make_wsgi_app()


def make(**settings):
    """A factory for ``gunicorn 'worker_app:make()'``."""
    return main({}, **settings)


def make_asgi():
    """An ASGI application, as ``config.make_asgi_app()`` gives it."""
    return Gateway(make())


def misconfigured():
    config = Configurator(settings={"aioext.sync_view": "inline"})
    config.include("aioext")
    return config.make_wsgi_app()


def broken_in_an_action():
    config = Configurator()
    config.action(None, lambda: 1 / 0)
    return config.make_wsgi_app()


def without_aioext():
    config = Configurator()
    config.add_view(lambda request: Response("answered"))
    return config.make_wsgi_app()

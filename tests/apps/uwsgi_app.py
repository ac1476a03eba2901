"""A Pyramid application for uWSGI that says what it sees of its requests.

What happens in its life is printed, a line each.
"""

import asyncio
import contextvars
import gc
import importlib
import logging
import os
import signal
import threading
import time
from contextlib import asynccontextmanager

import uwsgi
from greenlet import greenlet
from pyramid.config import Configurator
from pyramid.response import FileResponse, Response
from pyramid.threadlocal import get_current_request
from pyramid.view import view_config
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

import aioext
import aioext.exceptions
from aioext.adopted import AdoptedJob
from aioext.bridge import shielded
from aioext.config import ExecutorMapper, InlineMapper
from aioext.shutdown import on_shutdown
from aioext.uwsgi import call
from aioext.uwsgi.request import Exchange

variable = contextvars.ContextVar("variable", default=None)
events = {}


def tell(*words):
    os.write(1, f"event: {' '.join(words)} {os.getpid()}\n".encode())


def event(name):
    return events.setdefault(name, asyncio.Event())


def own():
    """What uWSGI says of the request in whose greenlet this is called."""
    return (uwsgi.connection_fd(), uwsgi.request_id(), uwsgi.get_logvar("name"))


async def turn():
    await asyncio.sleep(0)


def begin(request):
    uwsgi.set_logvar("name", request.GET.get("name", "-"))
    return own()


# Waiting


@view_config(route_name="hold", renderer="json")
async def hold(request):
    """Wait until another request sets the event; look at oneself all the time."""
    mine, task = begin(request), asyncio.current_task()
    variable.set(mine)
    tell("holding", request.params["name"])
    for wait in (event(request.params["name"]).wait, *[turn] * 3):
        await wait()
        assert own() == mine
        assert asyncio.current_task() is task
        assert get_current_request() is request
        assert variable.get() == mine
    return {"name": mine[2].decode()}


@view_config(route_name="set", renderer="json")
async def set_event(request):
    event(request.params["name"]).set()
    return {}


def nested(depth):
    async def deeper():
        await asyncio.sleep(0)
        mine = own()
        value = nested(depth - 1)
        await aioext.spawn_greenlet(aioext.wait, asyncio.sleep(0))
        assert own() == mine
        return value + 1

    return aioext.wait(deeper()) if depth else 0


@view_config(route_name="nested", renderer="json", mapper=InlineMapper)
def nested_view(request):
    begin(request)
    return {"depth": nested(5)}


@view_config(route_name="gather", renderer="json")
async def gather(request):
    mine = begin(request)

    async def one(number):
        await asyncio.sleep(0)
        return await aioext.spawn_greenlet(aioext.wait, asyncio.sleep(0, number))

    async with asyncio.timeout(20):
        numbers = await asyncio.gather(*map(one, range(5)))
    assert own() == mine
    try:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
    except TimeoutError:
        numbers.append("timeout")
    assert own() == mine
    return numbers


@view_config(route_name="fail")
async def fail(request):
    await asyncio.sleep(0)
    raise LookupError("it failed")


@view_config(route_name="split")
async def split(request):
    """A header that would be two."""
    return Response(headerlist=[("X-A", "a\r\nX-B: b")], app_iter=Part())


class Part:
    """A body that tells when it is closed."""

    def __iter__(self):
        return iter([b"x"])

    def close(self):
        tell("closed split")


@view_config(route_name="astray")
async def astray(request):
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    await cancelled


@view_config(route_name="mixed", renderer="json")
async def mixed(request):
    """Wait for the socket and for the loop by turns, in one coroutine."""
    mine = begin(request)
    task = asyncio.current_task()
    size = 0
    while chunk := request.environ["wsgi.input"].read(100_000):
        size += len(chunk)
        await asyncio.sleep(0)
        assert own() == mine
        assert asyncio.current_task() is task
    return {"size": size}


@view_config(route_name="joined", renderer="json")
async def joined(request):
    """Await what another Task awaits as well, after uWSGI has waited."""
    shared = asyncio.get_running_loop().create_future()

    async def other():
        return await shared

    task = asyncio.create_task(other())
    tell("reading")
    size = len(request.environ["wsgi.input"].read(5))
    asyncio.get_running_loop().call_soon(shared.set_result, size)
    assert await shared == await task
    return {"size": size}


@view_config(route_name="alchemy", renderer="json", mapper=InlineMapper)
def alchemy(request):
    """SQLAlchemy's synchronous side, over an asynchronous driver."""
    mine = begin(request)
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=NullPool)
    with engine.sync_engine.connect() as connection:
        value = connection.execute(text("select 6 * 7")).scalar()
    assert own() == mine

    async def run():
        async with AsyncSession(engine) as session:
            return await session.run_sync(lambda s: s.scalar(text("select 1")))

    assert aioext.wait(run()) == 1
    assert own() == mine
    return {"value": value}


@view_config(route_name="forked", renderer="json", mapper=InlineMapper)
def forked(request):
    """Wait in a child process, where this request has no loop."""
    child = os.fork()
    if not child:
        try:
            tell("forked", str(aioext.wait(asyncio.sleep(0, 7))))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return {}


@view_config(route_name="below", renderer="json", mapper=InlineMapper)
def below(request):
    """Read in a greenlet of the application's own."""

    def read():
        try:
            return request.environ["wsgi.input"].read(1)
        except aioext.exceptions.ScopeError as error:
            return str(error)

    return {"answer": greenlet(read).switch()}


# Threads


@view_config(route_name="thread", renderer="json", mapper=ExecutorMapper)
def thread(request):
    size = len(request.body)
    assert aioext.wait(asyncio.sleep(0, 5)) == 5
    assert get_current_request() is request
    descriptor = call(uwsgi.connection_fd)
    call(uwsgi.set_logvar, "descriptor", str(descriptor))
    assert int(call(uwsgi.get_logvar, "descriptor")) == descriptor
    return {"size": size, "thread": threading.current_thread().name}


@view_config(route_name="form", renderer="json", mapper=ExecutorMapper)
def form(request):
    return {"name": request.POST["name"], "size": len(request.POST["file"].file.read())}


# Bodies


@view_config(route_name="upload", renderer="json")
async def upload(request):
    source = request.environ["wsgi.input"]
    lines = [source.readline(), source.readline(3), source.read(0)]
    rest = source.readlines()
    return {
        "lines": [line.decode() for line in lines],
        "rest": sum(map(len, rest)),
        "end": source.read().decode(),
    }


@view_config(route_name="stream")
async def stream(request):
    """Parts that wait, made by a coroutine or by a function."""
    name = request.params["name"]
    mine = begin(request)

    def check():
        assert get_current_request() is request
        assert own() == mine

    async def parts():
        try:
            for number in range(3):
                yield b"%d" % number
                await event(f"{name}{number}").wait()
                check()
        finally:
            await asyncio.sleep(0)
            tell("closed", name)

    def sync_parts():
        try:
            for number in range(3):
                yield b"%d" % number
                aioext.wait(event(f"{name}{number}").wait())
                check()
        finally:
            aioext.wait(asyncio.sleep(0))
            tell("closed", name)

    body = sync_parts() if "sync" in request.params else parts()
    return Response(app_iter=body, content_type="text/plain")


@view_config(route_name="file")
async def file(request):
    return FileResponse(__file__, request)


@view_config(route_name="thread_file", mapper=ExecutorMapper)
def thread_file(request):
    return FileResponse(__file__, request)


@view_config(route_name="large")
async def large(request):
    await asyncio.sleep(0)
    return Response(bytes(16_777_216), content_type="application/octet-stream")


# The end


@view_config(route_name="leave")
async def leave(request):
    name = request.params["name"]
    tell("waiting", name)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        tell("cancelled", name)
        raise
    finally:
        await asyncio.sleep(0)
        mine = own()
        await asyncio.sleep(0)
        assert own() == mine
        tell("left", name)


@view_config(route_name="linger")
async def linger(request):
    tell("waiting", "linger")
    try:
        await asyncio.Event().wait()
    finally:
        tell("lingering")
        await asyncio.sleep(1)


@view_config(route_name="flood")
async def flood(request):
    """More than a client reads; tell whether the loop spins at the end."""

    async def parts():
        try:
            while True:
                yield bytes(4 * 1_048_576)
        finally:
            start = time.process_time()
            await asyncio.sleep(0.5)
            tell("spun" if time.process_time() - start > 0.25 else "calm")

    return Response(app_iter=parts(), content_type="text/plain")


@view_config(route_name="kept")
async def kept(request):
    """Be cancelled while uWSGI waits, before what must not be interrupted."""
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
    tell("reading", "kept")
    request.environ["wsgi.input"].read(5)

    async def finish():
        await asyncio.sleep(0)
        tell("kept")

    shielded(aioext.wait, finish())


@view_config(route_name="last", renderer="json")
async def last(request):
    """Take longer than the server does to be told to stop."""
    stopping = asyncio.Event()
    on_shutdown(stopping.set)
    tell("waiting", "last")
    await stopping.wait()
    await asyncio.sleep(0.1)
    return {"last": os.getpid()}


@view_config(route_name="look", renderer="json")
async def look(request):
    tell("looking", request.params["name"])
    await request.disconnected.wait()
    tell("gone", request.params["name"])
    return {}


@view_config(route_name="late", request_timeout=0.2)
async def late(request):
    begin(request)
    try:
        await asyncio.Event().wait()
    finally:
        await event("late").wait()
        tell("late")


@view_config(route_name="census", renderer="json")
async def census(request):
    """What there is in the process."""
    await asyncio.sleep(0)
    return count()


def count():
    gc.collect()
    counted = dict.fromkeys((AdoptedJob, Exchange, greenlet, asyncio.Task), 0)
    for each in gc.get_objects():
        if type(each) in counted:
            counted[type(each)] += 1
    found = {kind.__name__: number for kind, number in counted.items()}
    return found | {"descriptors": len(os.listdir("/proc/self/fd"))}


def waiting_tween(handler, registry):
    def tween(request):
        mine = call(uwsgi.connection_fd)
        aioext.wait(turn())
        response = handler(request)
        aioext.wait(turn())
        assert call(uwsgi.connection_fd) == mine
        return response

    return tween


@asynccontextmanager
async def resource(registry):
    tell("opened")
    yield
    await asyncio.sleep(0)
    tell("closed", "resource")


@asynccontextmanager
async def failing(registry):
    raise LookupError("there is no database")
    yield


@asynccontextmanager
async def slow(registry):
    tell("opening")
    try:
        await asyncio.Event().wait()
        yield
    finally:
        tell("given up")


def interrupted():
    """The first worker is told to stop before uWSGI listens to that."""

    def interrupt():
        if not os.path.exists(os.environ["FLAG"]):
            open(os.environ["FLAG"], "w").close()
            os.kill(os.getpid(), signal.SIGINT)

    importlib.import_module("uwsgidecorators").postfork(interrupt)
    return make()


def make(lifespan=resource, **settings):
    with Configurator(settings=settings) as config:
        config.include("aioext")
        config.add_lifespan(lifespan)
        config.add_tween("uwsgi_app.waiting_tween")
        names = (
            "hold set nested gather fail mixed joined alchemy thread form upload "
            "forked "
            "astray split "
            "below "
            "linger flood kept "
            "stream file thread_file large leave last look late census"
        )
        for name in names.split():
            config.add_route(name, f"/{name}")
        config.scan("uwsgi_app")
        return config.make_wsgi_app()


logging.basicConfig(level=os.environ.get("LOGGING", "WARNING"))
VARIANTS = {
    "plain": make,
    "failing": lambda: make(failing),
    "slow": lambda: make(slow),
    "interrupted": interrupted,
    "inline": lambda: make(**{"aioext.sync_views": "inline"}),
    "request": lambda: make(**{"aioext.sync_views": "request"}),
}
application = VARIANTS[os.environ.get("VARIANT", "plain")]()

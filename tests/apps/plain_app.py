"""An application for plain WSGI servers, with everything that may wait.

What it does when is printed, a line each (``event: name pid``), so that a test finds
it in the server's output. ``/go?key=`` lets what waits for that key go on.
"""

import asyncio
import contextvars
import gc
import io
import multiprocessing
import os
import threading
from contextlib import asynccontextmanager

from pyramid.authorization import Allow, Everyone
from pyramid.config import Configurator
from pyramid.events import NewRequest
from pyramid.response import FileIter, Response
from pyramid.threadlocal import get_current_request

import aioext
from aioext.eventsource import EventSourceMapper
from aioext.tweens import async_tween

# Seconds; less than a test waits for something.
HEARTBEAT = 0.1
FILE = b"0123456789" * 100_000

gates = {}
mark = contextvars.ContextVar("mark", default="unset")


class Expected(Exception):
    """Raised on purpose."""


def tell(*words):
    # In one write, for threads print as well.
    os.write(1, f"event: {' '.join(words)} {os.getpid()}\n".encode())


def gate(request):
    return gates.setdefault(request.GET["key"], asyncio.Semaphore(0))


async def visit(request, place):
    await asyncio.sleep(0)
    assert get_current_request() is request, place
    visited = request.environ.setdefault("visited", [])
    visited.append(place)


# Every kind of hook -----------------------------------------------------------


class Folder:
    """A resource whose children come asynchronously."""

    __acl__ = ((Allow, Everyone, "view"),)

    def __init__(self, request):
        self.request = request

    async def __getitem__(self, name):
        await visit(self.request, "traversal")
        if name != "folder":
            raise KeyError(name)
        return self


async def root_factory(request):
    await visit(request, "root factory")
    return Folder(request)


class Policy:
    """A security policy of coroutines."""

    async def identity(self, request):
        await visit(request, "identity")
        return "ann"

    async def authenticated_userid(self, request):
        return await self.identity(request)

    async def permits(self, request, context, permission):
        await visit(request, "permits")
        return True


@async_tween
def tween_factory(handler, registry):
    async def tween(request):
        await visit(request, "tween")
        response = await handler(request)
        await visit(request, "tween again")
        return response

    return tween


class Asked:
    """A view predicate that waits."""

    def __init__(self, value, info):
        self.value = value

    def text(self):
        return f"asked = {self.value}"

    phash = text

    async def __call__(self, context, request):
        await visit(request, "predicate")
        return True


async def subscriber(event):
    await visit(event.request, "subscriber")


def note_thread(event):
    event.request.environ["thread"] = threading.get_ident()


class Renderer:
    """Writes what was visited."""

    def __init__(self, info):
        pass

    async def __call__(self, value, system):
        request = system["request"]
        await visit(request, "renderer")
        return "\n".join(request.environ["visited"])


async def everything(request):
    await visit(request, "coroutine view")

    async def callback(request, response):
        await visit(request, "response callback")
        response.headers["X-Last"] = request.environ["visited"][-1]

    request.add_response_callback(callback)
    return {}


def synchronous(request):
    aioext.wait(visit(request, "function"))
    return {}


# Waiting ----------------------------------------------------------------------


async def meet(request):
    key = request.GET["key"]
    mark.set(key)
    tell("waits", key)
    try:
        await gate(request).acquire()
        assert get_current_request() is request
    finally:
        await asyncio.sleep(0)
        tell("left", key)
    return {"mark": mark.get(), "thread": request.environ["thread"]}


def meet_sync(request):
    key = request.GET["key"]
    mark.set(key)
    tell("waits", key)
    try:
        aioext.wait(gate(request).acquire())
        assert get_current_request() is request
    finally:
        aioext.wait(asyncio.sleep(0))
        tell("left", key)
    return {"mark": mark.get(), "thread": request.environ["thread"]}


async def soon(request):
    """Answers by itself, a moment after it was asked."""
    tell("waits", request.GET["key"])
    await asyncio.sleep(float(request.GET.get("seconds", "0.5")))
    return {}


def go(request):
    gate(request).release()
    return {}


def marked(request):
    """What the last request of this thread has left behind."""
    assert get_current_request() is request
    return {"mark": mark.get(), "thread": request.environ["thread"]}


# Bodies -----------------------------------------------------------------------


async def chunks(request):
    key = request.GET["key"]
    tell("begins", key)
    try:
        for number in range(int(request.GET.get("n", "3"))):
            await gate(request).acquire()
            current = get_current_request() is request
            yield f"{number} {current} {mark.get()}\n".encode()
    finally:
        await asyncio.sleep(0)
        tell("closed", key)


def sync_chunks(request):
    key = request.GET["key"]
    tell("begins", key)
    try:
        for number in range(int(request.GET.get("n", "3"))):
            aioext.wait(gate(request).acquire())
            current = get_current_request() is request
            yield f"{number} {current} {mark.get()}\n".encode()
    finally:
        aioext.wait(asyncio.sleep(0))
        tell("closed", key)


async def body(request):
    mark.set(request.GET["key"])
    return Response(app_iter=chunks(request), content_type="text/plain")


def sync_body(request):
    mark.set(request.GET["key"])
    return Response(app_iter=sync_chunks(request), content_type="text/plain")


def file(request):
    wrapper = request.environ.get("wsgi.file_wrapper", FileIter)
    response = Response(content_type="application/octet-stream")
    response.app_iter = wrapper(io.BytesIO(FILE), 65_536)
    response.content_length = len(FILE)
    return response


async def fail(request):
    await asyncio.sleep(0)
    raise Expected("in a view")


async def fail_late(request):
    async def failing():
        yield b"first"
        raise Expected("in a body")

    return Response(app_iter=failing(), content_length=100)


async def cancel(request):
    raise asyncio.CancelledError


async def upload(request):
    await asyncio.sleep(0)
    return {"length": len(request.body), "sum": sum(request.body)}


# Event streams and WebSockets -------------------------------------------------


async def events(request):
    key = request.GET["key"]
    number = 0
    try:
        while True:
            number += 1
            yield {"number": number}
            await gate(request).acquire()
    finally:
        await asyncio.sleep(0)
        tell("ended", key)


async def three(request):
    for number in range(3):
        yield {"number": number, "current": get_current_request() is request}


# Processes --------------------------------------------------------------------


async def which_loop():
    await asyncio.sleep(0)
    return asyncio.get_running_loop()


def in_child(code):
    # Something else than 0 tells that the child has waited on a loop of its own.
    os._exit(code + (aioext.wait(which_loop()) is not None))


def fork(request):
    """What a forked process gives that waits."""
    pid = os.fork()
    if not pid:
        in_child(6)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {"status": status, "still": aioext.wait(which_loop()) is not None}


def multiprocess(request):
    """The same with multiprocessing."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=in_child, args=(6,))
    process.start()
    process.join()
    return {"status": process.exitcode}


async def state(request):
    gc.collect()
    return {
        "pid": os.getpid(),
        "threads": threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "tasks": len(asyncio.all_tasks()),
        "thread": threading.current_thread().name,
    }


@asynccontextmanager
async def resource(registry):
    tell("opened")
    yield
    # Closing takes a turn of the loop, which must still be there.
    await asyncio.sleep(0)
    tell("closed resource")


def main(global_config=None, **settings):
    """The application; ``paste.app_factory``."""
    settings.setdefault("aioext.eventsource.heartbeat", str(HEARTBEAT))
    with Configurator(settings=settings, root_factory=root_factory) as config:
        config.include("aioext")
        config.set_security_policy(Policy())
        config.add_lifespan(resource)
        config.add_renderer("visited", Renderer)
        config.add_view_predicate("asked", Asked)
        config.add_tween(f"{__name__}.tween_factory")
        config.add_subscriber(subscriber, NewRequest)
        config.add_subscriber(note_thread, NewRequest)
        for view in (everything, synchronous):
            config.add_view(
                view,
                name=view.__name__,
                context=Folder,
                permission="view",
                renderer="visited",
                asked=True,
            )
        for view in (
            meet,
            meet_sync,
            soon,
            go,
            marked,
            upload,
            fork,
            multiprocess,
            state,
        ):
            config.add_view(view, name=view.__name__, renderer="json")
        for view in (body, sync_body, file, fail, fail_late, cancel):
            config.add_view(view, name=view.__name__)
        for view in (events, three):
            config.add_view(view, name=view.__name__, mapper=EventSourceMapper)
    return config.make_wsgi_app()


def make(**settings):
    """A factory that needs no file."""
    return main(**settings)


def make_waiting(**settings):
    """One that waits while it is loaded."""
    assert aioext.wait(which_loop()) is not None
    tell("loaded")
    return main(**settings)

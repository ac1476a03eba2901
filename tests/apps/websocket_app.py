"""WebSocket views of every form, for the suite that runs on every server.

A client names itself with ``?key=``, and what happens to it in here is told
under that key; ``/told?key=...&count=...`` answers once there is so much of it.
"""

import asyncio
import threading
import time

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPConflict
from pyramid.response import Response
from pyramid.threadlocal import get_current_registry, get_current_request
from pyramid.wsgi import wsgiapp
from pyramid_tm import explicit_manager

import aioext
from aioext import wait
from aioext.asgi import Gateway
from aioext.exceptions import ConnectionClosed
from aioext.websocket import (
    WebsocketConnectionView,
    WebsocketMapper,
    WebSocketResponse,
    get_websocket,
)

# The threads for handlers with executor=True.
THREADS = 2
MAX_SIZE = 262_144

told = {}


class Expected(Exception):
    """Raised on purpose; the only error that the log may have."""


class Overloaded(Exception): ...


def tell(request, *facts):
    told.setdefault(request.params.get("key"), []).extend(facts)


async def tell_facts(request):
    key, count = request.params["key"], int(request.params["count"])
    async with asyncio.timeout(20):
        # Threads tell as well.
        while len(told.get(key, ())) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return told.get(key, [])


def outcome(ws):
    """How it was closed."""
    return [ws.closed, ws.close_code, ws.close_reason]


async def tries_after_close(ws):
    """What comes of using a WebSocket that is closed."""
    tries = {}
    for name, arguments in (
        ("recv", ()),
        ("recv_json", ()),
        ("send", ("late",)),
        ("send_json", ("late",)),
        ("close", ()),
    ):
        try:
            tries[name] = await getattr(ws, name)(*arguments)
        except ConnectionClosed as error:
            tries[name] = ["ConnectionClosed", error.code, error.reason]
    return tries


def thread_of_loop():
    """Whether this runs in the thread of the loop, which all servers have there."""
    return threading.current_thread() is threading.main_thread()


# Messages.


async def echo(ws):
    async for message in ws:
        await ws.send(message)


async def watch(request, ws):
    received = [message async for message in ws]
    tell(request, received, outcome(ws), await tries_after_close(ws))


async def send_at_once(ws):
    async def send(digit):
        for length in (1, 100_000) * 5:
            await ws.send(str(digit) * length)

    await asyncio.gather(*map(send, range(8)))


async def flood(request, ws):
    try:
        while True:
            await ws.send("x" * 1000)
    except ConnectionClosed as error:
        tell(request, outcome(ws), [error.code, error.reason])


async def patient(ws):
    try:
        await ws.recv(timeout=0.01)
    except TimeoutError:
        await ws.send("nothing yet")
    await ws.send(await ws.recv(timeout=20))


async def receive_twice(ws):
    first = asyncio.create_task(ws.recv())
    await asyncio.sleep(0)
    try:
        await ws.recv()
    except RuntimeError as error:
        await ws.send(f"refused: {error}")
    await ws.send(await first)


async def cancel_receive(ws):
    waiting = asyncio.create_task(ws.recv())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await ws.send("cancelled")
    await echo(ws)


async def echo_json(request, ws):
    try:
        while True:
            await ws.send_json({"received": await ws.recv_json()})
    except ConnectionClosed as error:
        tell(request, [error.code, error.reason])


async def send_wrong(ws):
    for message in (None, 5, ["a"]):
        try:
            await ws.send(message)
        except TypeError as error:
            await ws.send(f"TypeError: {error}")


async def ping(request, ws):
    try:
        seconds = await ws.ping(timeout=20)
        await ws.send(f"took {seconds:.9f}")
    except NotImplementedError as error:
        await ws.send(f"NotImplementedError: {error}")


# Closing.


async def close(request, ws):
    code, reason = int(request.params["code"]), request.params["reason"]
    await ws.recv()
    await ws.close(code, reason)
    tell(request, outcome(ws), await tries_after_close(ws))


async def close_wrong(request, ws):
    for code, reason in (
        (1005, ""),
        (1006, ""),
        (999, ""),
        (5000, ""),
        (1000, "é" * 62),
    ):
        try:
            await ws.close(code, reason)
        except ValueError:
            await ws.send(f"ValueError {code}")


async def end(ws):
    await ws.send(await ws.recv())


async def fail(ws):
    raise Expected(await ws.recv())


def fail_sync(ws):
    raise Expected(ws.recv())


def fail_class(ws):
    raise Expected(ws.recv())


async def linger(request, ws):
    await ws.recv()
    tell(request, outcome(ws))
    start = time.monotonic()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        tell(request, "cancelled", time.monotonic() - start)
        raise


def linger_sync(request, ws):
    ws.recv()
    tell(request, outcome(ws))
    start = time.monotonic()
    try:
        wait(asyncio.Event().wait())
    except asyncio.CancelledError:
        tell(request, "cancelled", time.monotonic() - start)
        raise


# Forms of a handler.


async def only_ws(ws):
    await ws.send(f"ws {await ws.recv()}")


async def only_parameter(connection):
    await connection.send(f"ws {await connection.recv()}")


async def only_request(request):
    ws = request.websocket
    await ws.send(f"request {await ws.recv()}")


async def request_and_ws(request, ws):
    assert ws.request is request
    await ws.send(f"{request.view_name} {await ws.recv()}")


async def ws_and_request(ws, request):
    await ws.send(f"{request.view_name} {await ws.recv()}")


async def context_and_request(context, request):
    ws = request.websocket
    await ws.send(f"{context.name} {await ws.recv()}")


async def context_request_and_ws(context, request, ws):
    await ws.send(f"{context.name} {request.view_name} {await ws.recv()}")


def generator(ws):
    message = yield from ws.recv()
    yield from ws.send(f"generator {message}")


def function(ws):
    assert thread_of_loop()
    for message in ws:
        ws.send(f"function {message}")


def function_of_request(request):
    assert thread_of_loop()
    ws = request.websocket
    ws.send(f"request {ws.recv()}")


def threaded(ws):
    assert not thread_of_loop()
    for message in ws:
        ws.send(f"thread {message}")


class Instance:
    def __init__(self, request):
        self.request = request

    async def __call__(self, ws):
        await ws.send(f"{self.request.view_name} {await ws.recv()}")


class Method:
    def __init__(self, context, request):
        self.context = context

    async def talk(self, ws):
        await ws.send(f"{self.context.name} {await ws.recv()}")


class Function:
    def __init__(self, request):
        self.request = request

    def __call__(self, ws):
        for message in ws:
            ws.send(f"{self.request.view_name} {message}")


class Coroutines(WebsocketConnectionView):
    async def on_open(self):
        await self.send(f"open {self.context.name}")

    async def on_message(self, message):
        await asyncio.sleep(0)
        await self.ws.send(f"message {message}")

    async def on_close(self):
        tell(self.request, outcome(self.ws))


class Generators(WebsocketConnectionView):
    def on_open(self):
        yield from self.send(f"open {self.context.name}")

    def on_message(self, message):
        yield from asyncio.sleep(0)
        yield from self.send(f"message {message}")

    def on_close(self):
        tell(self.request, outcome(self.ws))
        yield from asyncio.sleep(0)


class Functions(WebsocketConnectionView):
    def on_open(self):
        self.send(f"open {self.context.name}")

    def on_message(self, message):
        wait(asyncio.sleep(0))
        self.send(f"message {message}")

    def on_close(self):
        tell(self.request, outcome(self.ws))


FORMS = {
    only_ws: {},
    only_parameter: {},
    only_request: {},
    request_and_ws: {},
    ws_and_request: {},
    context_and_request: {},
    context_request_and_ws: {},
    generator: {},
    function: {},
    function_of_request: {},
    threaded: {"executor": True},
    Instance: {},
    Method: {"attr": "talk"},
    Function: {},
    Coroutines: {},
    Generators: {},
    Functions: {},
}


# Views that are no handlers.


async def page_or_socket(request):
    ws = request.websocket
    if ws is None:
        return Response(f"page {request.is_websocket}")
    async for message in ws:
        await ws.send(f"socket {request.is_websocket} {message}")
    return ws


def page_or_socket_in_executor(request):
    ws = request.websocket
    if ws is None:
        return Response("page")
    for message in ws:
        ws.send(f"socket {message}")
    return Response("nobody sees this")


async def choosy(request):
    if request.websocket is None:
        return Response("page")
    response = HTTPConflict("taken")
    response.headers["X-Owner"] = "somebody"
    if "raise" in request.params:
        raise response
    return response


async def respond(request):
    if request.is_websocket:
        return WebSocketResponse(echo)
    return Response("page")


def respond_from_executor(request):
    response = WebSocketResponse(function)
    response.set_cookie("made", "here")
    return response


@wsgiapp
def plain(environ, start_response):
    ws = get_websocket(environ, start_response, subprotocols=["plain"])
    if ws is None:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"page"]
    for message in ws:
        ws.send(f"plain {message}")
    return [b"nobody sees this"]


async def page(request):
    return Response("page")


# What is current, and what is over.


async def current(request, ws):
    async for message in ws:
        await asyncio.sleep(0)
        seen = get_current_request()
        assert seen is request is ws.request
        assert get_current_registry() is request.registry
        await ws.send(f"{seen.params['key']} {message}")


def current_sync(request, ws):
    for message in ws:
        wait(asyncio.sleep(0))
        seen = get_current_request()
        assert seen is request is ws.request
        assert get_current_registry() is request.registry
        ws.send(f"{seen.params['key']} {message}")


class Order:
    """A context that learns in which order things happen."""

    def __init__(self, request):
        happened = self.happened = []
        request.tm.get().addAfterCommitHook(
            lambda success: happened.append("committed" if success else "aborted")
        )
        request.add_response_callback(lambda *_: happened.append("responded"))
        request.add_finished_callback(lambda _: happened.append("finished"))


async def order(context, request, ws):
    context.happened.append("handled")
    tell(request, *context.happened)


async def relay(request, ws):
    async with aioext.connect(request.params["url"]) as other:
        async for message in ws:
            await other.send(message)
            await ws.send(f"relayed {await other.recv()}")


def relay_sync(request, ws):
    with aioext.connect(request.params["url"]) as other:
        for message in ws:
            other.send(message)
            ws.send(f"relayed {other.recv()}")


# Around the views.


class Root:
    name = "root"

    def __init__(self, request):
        pass

    def __getitem__(self, name):
        if name.startswith("room-"):
            return Room(name)
        raise KeyError(name)


class Room:
    def __init__(self, name):
        self.name = name

    def __getitem__(self, name):
        raise KeyError(name)


class Policy:
    """Everybody is who they say; only members may enter."""

    def identity(self, request):
        return request.headers.get("X-User")

    authenticated_userid = identity

    def permits(self, request, context, permission):
        return self.identity(request) == "member"

    def remember(self, request, userid, **options):
        return []

    forget = remember


def respond_with(text, status, header="X-Nothing", value="1"):
    response = Response(text, status=status)
    response.headers[header] = value
    return response


def forbidden(request):
    if request.identity is None:
        return respond_with("who are you?", 401, "WWW-Authenticate", "Guess")
    return respond_with("members only", 403)


def notfound(request):
    return respond_with(f"nothing at {request.path}", 404)


def overloaded(context, request):
    return respond_with("come back later", 503, "Retry-After", "7")


def overload(request):
    raise Overloaded


def make_tween(handler, registry):
    def tween(request):
        response = handler(request)
        response.headers["X-Tween"] = "was here"
        response.set_cookie("first", "1")
        response.set_cookie("second", "2")
        return response

    return tween


def choose(offered, request):
    return next((each for each in offered if each.startswith("v1.")), None)


def add_views(config):
    def add(view, name=None, **options):
        name = view.__name__.replace("_", "-") if name is None else name
        config.add_view(view, name=name, mapper=WebsocketMapper, **options)

    for view in (echo, watch, send_at_once, flood, patient, receive_twice):
        add(view)
    for view in (cancel_receive, echo_json, send_wrong, ping, close, close_wrong):
        add(view)
    for view in (end, fail, fail_sync, linger, linger_sync):
        add(view)
    for view in (current, current_sync, relay, relay_sync):
        add(view)
    for view, options in FORMS.items():
        add(view, **options)
    add(fail_sync, "fail-threaded", executor=True)
    add(linger_sync, "linger-threaded", executor=True)
    add(echo, "members", permission="enter")
    add(echo, "prefer", subprotocols=["v2.chat", "v1.chat"])
    add(echo, "choose", subprotocols=choose)
    add(echo, "small", max_size=10)
    add(echo, "pinged", ping_interval=5)
    add(echo, "partners", allowed_origins=["https://partner.example"])
    add(context_and_request, "", context=Room)
    add(echo, "either", is_websocket=True)


def add_other_views(config):
    def add(view, name=None, **options):
        name = view.__name__.replace("_", "-") if name is None else name
        config.add_view(view, name=name, **options)

    add(tell_facts, "told", renderer="json")
    for view in (page_or_socket, page_or_socket_in_executor, choosy, respond):
        add(view)
    add(respond_from_executor)
    add(plain)
    add(page, "either", is_websocket=False)
    config.add_forbidden_view(forbidden)
    config.add_notfound_view(notfound)
    config.add_exception_view(overloaded, context=Overloaded)
    config.add_route("overload", "/overload", factory=overload)
    config.add_view(echo, route_name="overload", mapper=WebsocketMapper)
    config.add_route("order", "/order", factory=Order)
    config.add_view(order, route_name="order", mapper=WebsocketMapper)


def make(**settings):
    """The WSGI application."""
    settings = {
        "aioext.websocket.threads": THREADS,
        "aioext.websocket.max_size": MAX_SIZE,
        "aioext.websocket.origins": "https://trusted.example https://*.wild.example",
        "pyramid.csrf_trusted_origins": "csrf.example",
        "tm.manager_hook": explicit_manager,
        **settings,
    }
    with Configurator(settings=settings, root_factory=Root) as config:
        config.include("aioext")
        config.include("pyramid_tm")
        config.set_security_policy(Policy())
        config.add_tween(f"{__name__}.make_tween")
        add_views(config)
        add_other_views(config)
    return config.make_wsgi_app()


def make_asgi():
    """The same for servers that speak ASGI only."""
    return Gateway(make())

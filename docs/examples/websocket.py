"""The examples of the page on WebSockets; the tests run them."""

import asyncio
import time
from contextlib import suppress

from pyramid.httpexceptions import HTTPConflict, HTTPForbidden
from pyramid.response import Response
from pyramid.view import view_config
from pyramid.wsgi import wsgiapp
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import aioext
from aioext import ConnectionClosed
from aioext.websocket import (
    WebsocketConnectionView,
    WebsocketMapper,
    WebSocketResponse,
    get_websocket,
)


# arguments
@view_config(name="greet", mapper=WebsocketMapper)
async def greet(request, ws):
    await ws.send(f"hello {request.params['name']}")


@view_config(name="room", mapper=WebsocketMapper, attr="talk")
class Room:
    def __init__(self, context, request):
        self.context = context

    async def talk(self, ws):
        async for message in ws:
            await ws.send(f"{self.context.title}: {message}")


# end


# class
@view_config(name="count", mapper=WebsocketMapper)
class Count(WebsocketConnectionView):
    async def on_open(self):
        self.number = 0
        await self.send("counting")

    async def on_message(self, message):
        self.number += 1
        await self.send(f"{self.number}: {message}")

    async def on_close(self):
        self.request.registry["counts"].append(self.number)


# end


# function
@view_config(name="shout", mapper=WebsocketMapper)
def shout(ws):
    for message in ws:  # waits, and the loop goes on
        ws.send(message.upper())


# end


# thread
@view_config(name="slow", mapper=WebsocketMapper, executor=True)
def slow(ws):
    for message in ws:
        time.sleep(0.01)  # in a thread of its own
        ws.send(message)


# end


# response
@view_config(name="news")
async def news(request):
    if not request.is_websocket:
        return Response("what is new")
    article = await find_article(request.params["id"])
    if article is None:
        raise HTTPConflict("that one is gone")

    async def follow(ws):
        async for message in ws:
            await ws.send(f"{article}, {message}")

    return WebSocketResponse(follow)


# end


async def find_article(number):
    return {"1": "one"}.get(number)


# request
@view_config(name="number")
async def number(request):
    ws = request.websocket
    if ws is None:
        return Response("a page")
    await ws.send("your number?")
    answer = await ws.recv(timeout=60)
    await ws.send(f"it is {answer}")
    return ws


# end


# wsgi
@view_config(name="plain")
@wsgiapp
def plain(environ, start_response):
    ws = get_websocket(environ, start_response)
    if ws is None:
        start_response("426 Upgrade Required", [("Content-Type", "text/plain")])
        return [b"This is the address of a WebSocket."]
    for message in ws:
        ws.send(message)
    return []


# end


class Base(DeclarativeBase):
    pass


class Entry(Base):
    __tablename__ = "entries"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


# transaction
@view_config(name="log", mapper=WebsocketMapper)
async def log(request, ws):
    async for message in ws:
        with request.tm:  # begins, and commits or aborts
            request.dbsession.add(Entry(text=message))
        await ws.send("written")


# end


# refuse
def own_room(request):
    """A route's factory."""
    if request.matchdict["name"] != request.params.get("user"):
        raise HTTPForbidden("this is somebody else's room")
    return request.matchdict["name"]


@view_config(route_name="own", mapper=WebsocketMapper)
async def own(context, request, ws):
    await ws.send(f"the room of {context}")


# end


# origins
@view_config(
    name="partners",
    mapper=WebsocketMapper,
    allowed_origins=["https://partner.example", "https://*.partner.example"],
)
async def partners(ws):
    await ws.send("hello, partner")


# end


# subprotocols
@view_config(name="versions", mapper=WebsocketMapper, subprotocols=["v2", "v1"])
async def versions(ws):
    await ws.send(f"we speak {ws.subprotocol}")


def newest(offered, request):
    return max(offered, default=None)


@view_config(name="newest", mapper=WebsocketMapper, subprotocols=newest)
async def speak_newest(ws):
    await ws.send(f"we speak {ws.subprotocol}")


# end


# json
@view_config(name="add", mapper=WebsocketMapper)
async def add(ws):
    while True:
        try:
            numbers = await ws.recv_json()
            await ws.send_json({"sum": sum(numbers)})
        except (TypeError, ValueError):
            await ws.close(1003, "a list of numbers, please")


# end


# timeout
@view_config(name="login", mapper=WebsocketMapper)
async def login(ws):
    try:
        name = await ws.recv(timeout=10)
    except TimeoutError:
        await ws.close(4000, "too late")
        return
    if name is None:  # it was closed meanwhile
        return
    await ws.send(f"hello {name}")


# end


# cleanup
@view_config(name="watch", mapper=WebsocketMapper)
async def watch(request, ws):
    watchers = request.registry["watchers"]
    watchers.add(ws)
    try:
        await ws.recv()
    finally:
        watchers.discard(ws)


# end


# broadcast
class Chat:
    """Whoever is in it gets what one of them says."""

    BEHIND = 100  # messages that a client may be behind

    def __init__(self):
        self._queues = {}

    def tell(self, message):
        """Tell everybody, and wait for nobody."""
        for ws, queue in list(self._queues.items()):
            if queue.full():
                del self._queues[ws]
            else:
                queue.put_nowait(message)

    async def serve(self, ws):
        queue = self._queues[ws] = asyncio.Queue(self.BEHIND)
        sending = asyncio.create_task(self._send(ws, queue))
        try:
            async for message in ws:
                self.tell(message)
        finally:
            if ws in self._queues:
                del self._queues[ws]
                sending.cancel()
            await asyncio.wait([sending])

    async def _send(self, ws, queue):
        with suppress(ConnectionClosed):
            while ws in self._queues:
                await ws.send(await queue.get())
            await ws.close(1013, "too slow")


@view_config(name="chat", mapper=WebsocketMapper)
async def chat(request, ws):
    await request.registry["chat"].serve(ws)


def includeme(config):
    config.registry["chat"] = Chat()


# end


# connect
@view_config(name="translate", mapper=WebsocketMapper)
async def translate(request, ws):
    async with aioext.connect(request.registry.settings["translator"]) as translator:
        async for message in ws:
            await translator.send(message)
            await ws.send(await translator.recv(timeout=5))


@view_config(name="word", renderer="string")
def word(request):
    with aioext.connect(request.registry.settings["translator"]) as translator:
        translator.send(request.params["word"])
        return translator.recv(timeout=5)


# end

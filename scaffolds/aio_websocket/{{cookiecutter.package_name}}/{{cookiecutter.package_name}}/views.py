"""The views: the page, and the two connections that it opens."""

import asyncio

from aioext import ConnectionClosed
from aioext.eventsource import EventSourceMapper
from aioext.websocket import WebsocketMapper
from pyramid.view import view_config


@view_config(route_name="home", renderer="templates/home.mako")
async def home(request):
    """The page; its script does the rest."""
    return {}


# A longer message than max_size, in bytes, ends its sender's connection.
@view_config(route_name="chat", mapper=WebsocketMapper, max_size=10_000)
async def chat(request, ws):
    """Tell everybody in the room what this one says, and this one what all say."""
    with request.room.enter() as inbox:
        async with asyncio.TaskGroup() as tasks:
            delivery = tasks.create_task(deliver(inbox, ws))
            async for message in ws:
                request.room.say(message)
            delivery.cancel()


async def deliver(inbox, ws):
    """Send what is said in the room, as fast as this one reads."""
    try:
        while True:
            await ws.send(await inbox.get())
    except ConnectionClosed:
        pass  # the other end of the chat has noticed as well


@view_config(route_name="ticks", mapper=EventSourceMapper)
async def ticks(request):
    """Send every tick, and first those that were missed by one who comes back."""
    async for event in request.ticks.follow(request.last_event_id):
        yield event

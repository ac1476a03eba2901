"""The addresses of a host: a coroutine, and who uses it."""

import asyncio
import socket

from aioext import wait
from pyramid.response import Response
from pyramid.view import view_config


async def addresses(host):
    """Ask the resolver, without blocking anybody."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return sorted({address[0] for *_, address in found})


@view_config(route_name="lookup", renderer="json")
async def lookup(request):
    """A coroutine view."""
    return await addresses(request.matchdict["host"])


def own_addresses(request):
    """A property of every request: synchronous code that waits."""
    return wait(addresses(request.domain))


@view_config(route_name="self")
def about_self(request):
    """An ordinary view, which uses that property."""
    return Response(f"{request.domain} is {', '.join(request.own_addresses)}\n")


def includeme(config):
    config.add_route("lookup", "/lookup/{host}")
    config.add_route("self", "/self")
    config.add_request_method(own_addresses, reify=True)

"""Work that blocks: in threads, so that the loop goes on."""

import hashlib

from aioext import use_executor
from pyramid.view import view_config


def derive(password):
    """Keep a processor busy for a while."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), b"salt", 100_000).hex()


@view_config(route_name="digest", renderer="json")
def digest(request):
    """An ordinary view: it runs in a thread of the executor."""
    return {"digest": derive(request.matchdict["password"])}


@view_config(route_name="digests", renderer="json")
async def digests(request):
    """A coroutine view that takes only the blocking part to a thread."""
    return {"digest": await use_executor(derive)(request.matchdict["password"])}


def includeme(config):
    config.add_route("digest", "/digest/{password}")
    config.add_route("digests", "/digests/{password}")

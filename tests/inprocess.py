"""Pyramid applications served in process, through the gateway.

::

    app = make_app(lambda config: config.add_view(view))
    assert answer(app).body == b"..."
"""

import asyncio
import threading

from asgi import Client
from pyramid.config import Configurator

from aioext.gateway import Gateway

EXECUTOR = "executor"
LOOP = "loop"
BACKGROUND = "background"


def make_app(*steps, settings=None, **options):
    """An ASGI application with aioext.

    Args:
        steps: configure it, in order: names of modules to include, and
            functions to call with the configurator. Without ``"aioext"`` among
            them, it is the first.
    """
    config = Configurator(settings=settings or {}, **options)
    if "aioext" not in steps:
        config.include("aioext")
    for step in steps:
        if isinstance(step, str):
            config.include(step)
        else:
            step(config)
    return Gateway(config.make_wsgi_app())


def answer(app, path="/", **scope):
    """The :class:`asgi.Client` of one request, served on a loop of its own."""
    return asyncio.run(Client(path, **scope).call(app))


def answers(app, paths):
    """The clients of requests that overlap, in the order of ``paths``."""

    async def overlap():
        return await asyncio.gather(*[Client(path).call(app) for path in paths])

    return asyncio.run(overlap())


def where():
    """The thread that this runs in: the executor's, a server's, or a background's."""
    thread = threading.current_thread()
    if thread.name.startswith("aioext-executor"):
        return EXECUTOR
    if thread.name == "aioext-loop":
        return BACKGROUND
    assert thread is threading.main_thread(), thread.name
    return LOOP

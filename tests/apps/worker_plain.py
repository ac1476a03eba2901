"""Applications without Pyramid, and objects that are none."""

import asyncio
import gc
import json
import os
import threading
import time

import aioext


def _facts(**facts):
    return json.dumps({"frozen": gc.get_freeze_count(), "pid": os.getpid(), **facts})


def wsgi(environ, start_response):
    """A WSGI application that waits for a coroutine."""
    waited = aioext.wait(asyncio.sleep(0, "waited"))
    start_response("200 OK", [("Content-Type", "application/json")])
    facts = _facts(
        said=waited,
        thread=threading.current_thread().name,
        multiprocess=environ["wsgi.multiprocess"],
    )
    return [facts.encode()]


async def asgi(scope, receive, send):
    """An ASGI application, which knows no lifespan."""
    assert scope["type"] == "http"
    head = {"type": "http.response.start", "status": 200, "headers": []}
    await send(head)
    body = _facts(said="asgi").encode()
    await send({"type": "http.response.body", "body": body})


def undeclared_asgi(scope, receive, send):
    """An ASGI application that only its three arguments give away."""
    return asgi(scope, receive, send)


def neither(request):
    """A view, as somebody may name instead of the application."""


def make_neither(global_config):
    """``paste.app_factory``, that forgets to call what it gives."""
    return neither


class WithRegistry:
    """A WSGI application whose ``registry`` is not Pyramid's."""

    registry = {}  # noqa: RUF012

    def __call__(self, environ, start_response):
        return wsgi(environ, start_response)


with_registry = WithRegistry()


class Filter:
    """A PasteDeploy filter: what it hides, only an event can find."""

    def __init__(self, app):
        self._app = app

    def __call__(self, environ, start_response):
        environ["filtered"] = "yes"
        return self._app(environ, start_response)


def make_filter(global_config):
    """``paste.filter_factory``."""
    return Filter


def make_composite(loader, global_config, **settings):
    """``paste.composite_factory``: a path prefix for each application."""
    apps = {f"/{name}": loader.get_app(app) for name, app in settings.items()}

    def composite(environ, start_response):
        prefix = "/" + environ["PATH_INFO"].split("/")[1]
        environ["SCRIPT_NAME"] += prefix
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(prefix)
        return apps[prefix](environ, start_response)

    return composite


def blocking(environ, start_response):
    """A WSGI application that can block the loop."""
    if environ["PATH_INFO"] == "/block":
        time.sleep(3600)
    return wsgi(environ, start_response)

"""Sends a file, and tells how: served by real servers, see test_file_response.py."""

import os
import sys

from pyramid.config import Configurator

from aioext.assets.response import FileResponse
from aioext.interfaces import IShortcuts

LARGE = os.environ.get("SENT_FILES_LARGE", "")


def telling(handler, registry):
    """Tween: the body that the server gets is told in a header."""

    def tween(request):
        response = handler(request)
        cls = type(response.app_iter)
        response.headers["X-Body"] = f"{cls.__module__}.{cls.__name__}"
        return response

    return tween


async def shortcuts(request):
    """The paths that need no router any more."""
    return sorted(request.registry.getUtility(IShortcuts)._known)


async def large(request):
    return FileResponse(LARGE, request)


def make():
    config = Configurator()
    config.include("aioext")
    config.include("aioext.assets.static")
    if "SENT_FILES_WITHOUT_TWEEN" not in os.environ:
        config.add_tween("apps.sent_files_app.telling")
    config.add_route("large", "/large")
    config.add_view(large, route_name="large")
    config.add_route("shortcuts", "/shortcuts")
    config.add_view(shortcuts, route_name="shortcuts", renderer="json")
    config.add_static_view("static", os.path.dirname(LARGE) or os.getcwd())
    return config


def wsgi():
    return make().make_wsgi_app()


def make_asgi():
    """The ASGI application; what it sends is told on stdout."""
    app = make().make_asgi_app()

    async def told(scope, receive, send):
        async def tell(message):
            sys.stdout.write(f"sends {message['type']}\n")
            sys.stdout.flush()
            await send(message)

        await app(scope, receive, tell if scope["type"] == "http" else send)

    return told


def __getattr__(name):
    if name == "application":
        return make_asgi()
    raise AttributeError(name)

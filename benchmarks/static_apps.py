"""The applications that serve files, each from the same directory.

The directory is in the environment variable :data:`VARIABLE`, and its files are at
``/static/``. ``/`` answers at once.
"""

from __future__ import annotations

import os
from typing import Any

from .apps import BODY, hello

VARIABLE = "AIOEXT_BENCHMARK_FILES"
PREFIX = "static"


def _pyramid(*includes: str) -> Any:
    from pyramid.config import Configurator

    config = Configurator()
    for each in includes:
        config.include(each)
    config.add_route("home", "/")
    config.add_view(hello, route_name="home")
    return config


def assets() -> Any:
    """A static view of an application that includes ``aioext.assets``."""
    config = _pyramid("aioext", "aioext.assets")
    config.add_static_view(PREFIX, os.environ[VARIABLE])
    return config.make_wsgi_app()


def routed_assets() -> Any:
    """The same in an application that has a tween."""
    config = _pyramid("aioext", "aioext.assets")
    config.add_tween(f"{__name__}.tween_factory")
    config.add_static_view(PREFIX, os.environ[VARIABLE])
    return config.make_wsgi_app()


def tween_factory(handler: Any, registry: Any) -> Any:
    """A tween that does nothing."""

    def tween(request: Any) -> Any:
        return handler(request)

    return tween


def pyramid_static() -> Any:
    """Pyramid's static view, on the bridge."""
    config = _pyramid("aioext")
    config.add_static_view(PREFIX, os.environ[VARIABLE])
    return config.make_wsgi_app()


def whitenoise() -> Any:
    """whitenoise around an application on the bridge."""
    from whitenoise import WhiteNoise

    app = _pyramid("aioext").make_wsgi_app()
    return WhiteNoise(app, root=os.environ[VARIABLE], prefix=PREFIX)


def blocking_whitenoise() -> Any:
    """whitenoise around an application without aioext."""
    from whitenoise import WhiteNoise

    app = _pyramid().make_wsgi_app()
    return WhiteNoise(app, root=os.environ[VARIABLE], prefix=PREFIX)


def static_files() -> Any:
    """starlette's ``StaticFiles``."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    async def home(request: Any) -> PlainTextResponse:
        return PlainTextResponse(BODY)

    files = StaticFiles(directory=os.environ[VARIABLE])
    return Starlette(routes=[Route("/", home), Mount("/" + PREFIX, files)])

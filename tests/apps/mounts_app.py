"""Two Flask applications, one of Starlette's and two of Pyramid's in one process.

:func:`make` makes the one that the others are mounted in. What happens is written to
stdout.
"""

import asyncio
import contextlib
import sys
import threading

from flask import Flask, url_for
from flask import request as flask_request
from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.threadlocal import get_current_request
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from aioext.asgi import Gateway
from aioext.websocket import WebsocketMapper

released = threading.Event()


def tell(what):
    sys.stdout.write(f"told: {what}.\n")
    sys.stdout.flush()


def lifespan_of(name):
    @contextlib.asynccontextmanager
    async def lifespan(app):
        tell(f"open {name}")
        yield
        await asyncio.sleep(0)
        tell(f"close {name}")

    return lifespan


def flask(name):
    app = Flask(name)

    @app.route("/")
    def home():
        return {"app": name, "url": url_for("home"), "path": flask_request.path}

    @app.route("/slow")
    def slow():
        tell(f"slow {name}")
        return {"app": name, "released": released.wait(30)}

    @app.route("/upload", methods=["POST"])
    def upload():
        return {"size": len(flask_request.get_data())}

    @app.route("/endless")
    def endless():
        def parts():
            try:
                while True:
                    yield b"x" * 1000
            finally:
                tell(f"closed endless {name}")

        return app.response_class(parts())

    return app


blog = flask("blog")
shop = flask("shop")


async def star_home(request):
    return JSONResponse({"app": "star", "url": str(request.url_for("home"))})


async def star_upload(request):
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return JSONResponse({"size": size})


async def star_endless(request):
    async def parts():
        try:
            yield "first"
            await asyncio.sleep(60)
        finally:
            tell("closed endless star")

    return StreamingResponse(parts())


async def star_echo(ws):
    await ws.accept()
    async for text in ws.iter_text():
        await ws.send_text(f"star {text}")
    tell("left star")


star = Starlette(
    routes=[
        Route("/", star_home, name="home"),
        Route("/upload", star_upload, methods=["POST"]),
        Route("/endless", star_endless),
        WebSocketRoute("/echo", star_echo),
    ],
    lifespan=lifespan_of("star"),
)


def configured(name):
    config = Configurator()
    config.include("aioext")
    config.add_lifespan(lifespan_of(name))

    async def home(request):
        await asyncio.sleep(0)
        own = get_current_request() is request
        return {"app": name, "url": request.route_path("home"), "own": own}

    async def echo(ws):
        async for text in ws:
            await ws.send(f"{name} {text}")
        tell(f"left {name}")

    config.add_route("home", "/")
    config.add_view(home, route_name="home", renderer="json")
    config.add_route("echo", "/echo")
    config.add_view(echo, route_name="echo", mapper=WebsocketMapper)
    return config


def release(request):
    released.set()
    return Response("released")


def inner_app(global_config=None, **settings):
    """For a PasteDeploy composite."""
    return configured("inner").make_wsgi_app()


def outer_app(global_config=None, **settings):
    """For a PasteDeploy composite."""
    return configured("outer").make_wsgi_app()


def make():
    """The application that all the others are mounted in."""
    config = configured("outer")
    config.add_route("release", "/release")
    config.add_view(release, route_name="release")
    config.add_mount("/blog", "mounts_app:blog")
    config.add_mount("/shop", shop)
    config.add_mount(app=shop, host=("shop.example.com", ".shop.example.com"))
    config.add_mount("/star", star)
    config.add_mount("/in", inner_app())
    return config.make_wsgi_app()


def make_asgi():
    """The same for an ASGI server."""
    return Gateway(make())


def __getattr__(name):
    # For servers that know no factories.
    if name == "asgi_application":
        return make_asgi()
    raise AttributeError(name)

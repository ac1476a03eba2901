import asyncio
from contextlib import asynccontextmanager

from flask import Flask, url_for
from pyramid.config import Configurator
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

# flask: a WSGI application, which may block
blog = Flask(__name__)


@blog.route("/posts")
def posts():
    return {"here": url_for("posts")}


# starlette: an ASGI application, with a lifespan and a WebSocket
@asynccontextmanager
async def lifespan(app):
    yield {"greeting": "hello"}


async def greet(request):
    here = request.url_for("greet").path
    return JSONResponse({"here": here, "says": request.state.greeting})


async def echo(ws):
    await ws.accept()
    async for text in ws.iter_text():
        await ws.send_text(text)


live = Starlette(
    routes=[Route("/greet", greet, name="greet"), WebSocketRoute("/echo", echo)],
    lifespan=lifespan,
)


# pyramid: two applications, each with its own registry
def admin():
    async def users(request):
        await asyncio.sleep(0)
        return {"here": request.route_path("users")}

    with Configurator() as config:
        config.include("aioext")
        config.add_route("users", "/users")
        config.add_view(users, route_name="users", renderer="json")
    return config.make_wsgi_app()


def home(request):
    return {"here": "/"}


def main(global_config=None, **settings):
    with Configurator(settings=settings) as config:
        config.include("aioext")
        config.add_mount("/blog", blog)
        config.add_mount("/live", live)
        config.add_mount(app=admin(), host=("admin.example.com", ".admin.example.com"))
        # and what the application itself has
        config.add_route("home", "/")
        config.add_view(home, route_name="home", renderer="json")
    return config.make_wsgi_app()


# end

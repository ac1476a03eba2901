"""A file whose build takes as long as a test wants it to, in a static view."""

import os
from pathlib import Path

from pyramid.config import Configurator

# Tells that it has begun and who it is, and waits to be let go.
SLOW = "echo $$ >> calls; until [ -e may_end ]; do sleep 0.02; done; cat {source}"
BROKEN = "echo what is wrong >&2; false"


async def ping(request):
    return "pong"


def blocking(request):
    return "pong"


async def page(request):
    place = Path(os.environ["BUILT_PLACE"])
    return request.versioned_static_url(str(place / "static" / "slow.txt"))


async def contents(request):
    place = Path(os.environ["BUILT_PLACE"])
    return await request.asset(str(place / "static" / "slow.txt")).text()


def main():
    return configure().make_wsgi_app()


def asgi():
    return configure().make_asgi_app()


def configure():
    place = Path(os.environ["BUILT_PLACE"])
    settings = {"aioext.assets.cache_dir": str(place / "cache")}
    with Configurator(settings=settings) as config:
        config.include("aioext.assets")
        config.add_static_view("static", str(place / "static"))
        for name, line in [("slow", SLOW), ("broken", BROKEN)]:
            config.add_built_asset(
                place / "static" / f"{name}.txt",
                place / "source.txt",
                ["sh", "-c", f"cd {place}; {line.replace('{source}', 'source.txt')}"],
            )
        for view in (ping, blocking, page, contents):
            name = view.__name__
            config.add_route(name, f"/{name}")
            config.add_view(view, route_name=name, renderer="string")
    return config

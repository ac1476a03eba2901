"""Pages, JSON, files and uploads, as a server may treat them.

What a test has to know about the inside of the process is written to stderr, a line
each.
"""

import asyncio
import atexit
import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from pyramid.config import Configurator
from pyramid.request import Request

import aioext
from aioext.assets import FileResponse
from aioext.uploads import save

SMALL = b"body { color: black }\n"
# Every line is its number, so that a range tells where it is from.
LARGE = b"".join(b"%015d\n" % number for number in range(65_536))
HUGE = 64 * 1024**2

PAGE = "<h1>${title}</h1>${secret}"
SLOW = """\
<h1>${title}</h1>
% for tick in ticks:
<p>${tick}</p>
% endfor
"""


def say(*words):
    sys.stderr.write(" ".join(map(str, words)) + "\n")
    sys.stderr.flush()


class Copy:
    """A temporary file that closes itself.

    The one that WebOb makes for request.POST does not, which is a warning where tests
    look for some.
    """

    def __init__(self):
        self._file = tempfile.TemporaryFile()

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __del__(self):
        self._file.close()


class OwnRequest(Request):
    def make_tempfile(self):
        return Copy()


async def page(request):
    await asyncio.sleep(0)
    return {"title": "One", "secret": "password"}


def ticks(key):
    """Has no end but its client's."""
    try:
        while True:
            aioext.wait(asyncio.sleep(0.01))
            yield "tick"
    finally:
        say("finally", key)


async def slow(request):
    return {"title": "head", "ticks": ticks(request.GET["key"])}


async def rows(request):
    async def give():
        try:
            while True:
                yield {"row": 1}
                await asyncio.sleep(0.01)
        finally:
            say("finally", request.GET["key"])

    return give()


def numbers(request):
    return (number for number in range(1000))


async def asset(request):
    text = await request.asset(f"{request.registry['static']}/small.css").text()
    return {"text": text}


def large(request):
    return FileResponse(f"{request.registry['static']}/large.txt", request)


async def huge(request):
    return FileResponse(f"{request.registry['root']}/huge", request)


def facts(request):
    """The address of a file with its version, and how often the huge one is open."""
    path = f"{request.registry['root']}/huge"
    is_open = 0
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            is_open += os.readlink(f"/proc/self/fd/{each}") == path
    url = request.static_path(f"{request.registry['static']}/small.css")
    return {"url": url, "open": is_open}


def build(sources, target):
    say("built", target.name)
    target.write_bytes(b"".join(each.read_bytes() for each in sources) * 2)


async def upload(request):
    form = await request.form()
    path = await save(form["file"], f"{request.registry['root']}/into", mkdir=True)
    text = path.read_text()
    path.unlink()
    return {"name": path.name, "text": text, "title": form.get("title")}


def upload_in_function(request):
    field = request.POST["file"]
    path = aioext.wait(save(field, f"{request.registry['root']}/into", mkdir=True))
    text = path.read_text()
    path.unlink()
    return {"name": path.name, "text": text, "title": request.POST.get("title")}


def make_files():
    """Make the files that are served; gives their directory."""
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    static = root / "static"
    static.mkdir()
    (static / "small.css").write_bytes(SMALL)
    (static / "large.txt").write_bytes(LARGE)
    (static / "out").symlink_to(root)
    (root / "outside.txt").write_bytes(b"outside")
    (root / "page.mako").write_text(PAGE)
    (root / "slow.mako").write_text(SLOW)
    with (root / "huge").open("wb") as file:
        file.truncate(HUGE)
    return root


def make():
    """The WSGI application."""
    root = make_files()
    settings = {
        "mako.directories": str(root),
        "aioext.max_body": "10kB",
        "aioext.assets.cache_dir": f"{root}/cache",
    }
    with Configurator(settings=settings, request_factory=OwnRequest) as config:
        config.registry["root"] = root
        config.registry["static"] = f"{root}/static"
        config.include("pyramid_mako")
        config.include("aioext.renderers")
        config.include("aioext.assets")
        config.add_static_view("static", f"{root}/static", cache_max_age=60)
        config.add_built_asset(
            f"{root}/static/built.css",
            sources=[f"{root}/static/small.css"],
            build=build,
        )
        config.add_format_route("page", "/page")
        config.add_view(
            page,
            route_name="page",
            formats={"html": "page.mako", "json": ("title",)},
            etag=True,
        )
        config.add_view(slow, name="slow", renderer="slow.mako", stream=True)
        config.add_view(rows, name="rows", renderer="json_lines")
        for view in (asset, facts, numbers):
            config.add_view(view, name=view.__name__, renderer="json")
        for view in (large, huge):
            config.add_view(view, name=view.__name__)
        for view in (upload, upload_in_function):
            name = view.__name__
            config.add_view(view, name=name, renderer="json")
            config.add_view(view, name=f"{name}_less", renderer="json", max_body=1000)
            config.add_view(
                view, name=f"{name}_more", renderer="json", max_body="100kB"
            )
    return config.make_wsgi_app()

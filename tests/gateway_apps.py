"""WSGI applications that the suite serves with real servers.

What a test has to know about the inside of the server's process is written to
stderr, a line each.
"""

import asyncio
import contextvars
import json
import sys
import threading
from urllib.parse import parse_qs

from pyramid.config import Configurator
from pyramid.response import Response

from aioext import wait
from aioext.asgi import Gateway
from aioext.exceptions import ClientDisconnected

MEBIBYTE = b"x" * 1_048_576
TEXT = [("Content-Type", "text/plain")]


class Expected(Exception):
    """Raised on purpose; the only error that the log may have."""


def say(*words):
    sys.stderr.write(" ".join(map(str, words)) + "\n")
    sys.stderr.flush()


def argument(environ, name, default=""):
    return parse_qs(environ["QUERY_STRING"]).get(name, [default])[0]


def show_environ(environ, start_response):
    shown = {key: value for key, value in environ.items() if type(value) is str}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(shown).encode()]


def upload(environ, start_response):
    # Reads in blocks and tells the sum.
    body = environ["wsgi.input"]
    start = body.readline()
    total = len(start) + sum(map(len, iter(lambda: body.read(65_536), b"")))
    start_response("200 OK", TEXT)
    return [b"%s%d" % (start[:10], total)]


def ignore(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"ignored"]


READS = {
    "read": lambda body: body.read(),
    "sized": lambda body: body.read(1_000_000),
    "readline": lambda body: body.readline(),
    "readlines": lambda body: body.readlines(),
    "iteration": lambda body: list(body),
}


def read(environ, start_response):
    way = argument(environ, "way")
    say("reading", way)
    try:
        READS[way](environ["wsgi.input"])
    except ClientDisconnected:
        say("gone", way)
        raise
    # Where a server does not tell.
    start_response("200 OK", TEXT)
    return []


def fail(environ, start_response):
    raise Expected("failed early")


def fail_late(environ, start_response):
    start_response("200 OK", TEXT)

    def generate():
        yield b"first"
        raise Expected("failed late")

    return generate()


def stream(environ, start_response):
    # One chunk, or many, and then nothing until the client leaves.
    kind = environ["PATH_INFO"].rpartition("/")[2]
    start_response("200 OK", TEXT)

    def generate():
        try:
            if kind != "mute":
                yield b"first"
            while kind == "busy":
                wait(asyncio.sleep(0.01))
                yield b"x" * 1000
            try:
                wait(asyncio.Event().wait())
            except asyncio.CancelledError:
                if kind != "stubborn":
                    raise
            while True:
                yield b"x"
        finally:
            wait(asyncio.sleep(0))
            say("finally", kind)

    return generate()


released = asyncio.Event()


def hold(environ, start_response):
    start_response("200 OK", TEXT)

    def generate():
        yield b"first"
        wait(released.wait())

    return generate()


def release(environ, start_response):
    released.set()
    start_response("200 OK", TEXT)
    return []


def download(environ, start_response):
    count = int(argument(environ, "mebibytes"))
    start_response("200 OK", [("Content-Length", str(count * len(MEBIBYTE)))])
    return (b"%08d" % number + MEBIBYTE[8:] for number in range(count))


async def coroutine(request):
    async def generate():
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            say("finally coroutine")

    return Response(app_iter=generate())


def executor(request):
    def generate():
        try:
            yield b"first"
            wait(asyncio.Event().wait())
        finally:
            say("finally executor", threading.current_thread().name)

    return Response(app_iter=generate())


def form(request):
    return Response(request.POST["a"])


def make_pyramid():
    with Configurator() as config:
        config.include("aioext")
        for view in (coroutine, executor, form):
            config.add_view(view, name=view.__name__)
        return config.make_wsgi_app()


variable = contextvars.ContextVar("variable", default="unset")


def context(environ, start_response):
    seen = variable.get()
    variable.set(environ["QUERY_STRING"])
    wait(asyncio.sleep(0))
    start_response("200 OK", TEXT)
    return [seen.encode()]


PATHS = {
    "upload": upload,
    "ignore": ignore,
    "read": read,
    "fail": fail,
    "fail-late": fail_late,
    "stream": stream,
    "download": download,
    "hold": hold,
    "release": release,
    "pyramid": make_pyramid(),
    "context": context,
}


def dispatch(environ, start_response):
    first, _, rest = environ["PATH_INFO"].lstrip("/").partition("/")
    app = PATHS.get(first, show_environ)
    if first == "pyramid":
        environ["SCRIPT_NAME"] += "/pyramid"
        environ["PATH_INFO"] = f"/{rest}"
    return app(environ, start_response)


application = Gateway(dispatch)
# gunicorn's worker puts the Gateway around it.
wsgi_application = dispatch

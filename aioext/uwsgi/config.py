"""What aioext does to a configurator in a process of uWSGI's."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import logging
import os
import sys
import time
from typing import Any, NoReturn

from ..exceptions import explain
from . import websocket
from .request import serve
from .worker import ATTEMPT_INTERVAL, ATTEMPTS, start, stop_master

__all__ = ["includeme"]

log = logging.getLogger("aioext")

# uWSGI's own name of its loop engine.
ASYNCIO = b"asyncio"


def includeme(config: Any) -> None:
    """Have the application's requests wait for coroutines, if uWSGI runs a loop.

    In another mode of uWSGI's it is a plain WSGI server, which is told once.
    """
    # There is no such module anywhere else.
    api = importlib.import_module("uwsgi")
    if api.loop == ASYNCIO:
        _check_asyncio(api)
        start(api, serve)
        websocket.install(api)
    else:
        log.warning(PLAIN)


def _check_asyncio(api: Any) -> None:
    if not api.opt.get("greenlet"):
        _refuse(api, NO_GREENLET)
    if not _is_main_interpreter():
        _refuse(api, SECOND_INTERPRETER)
    for name in ("max-requests", "reload-on-as", "reload-on-rss"):
        if api.opt.get(name):
            log.warning(NEVER_RESTARTED, name)


def _is_main_interpreter() -> bool:
    # uWSGI gives each application after the first one a sub-interpreter.
    current = ctypes.pythonapi.PyInterpreterState_Get
    current.restype = ctypes.c_void_p
    number_of = ctypes.pythonapi.PyInterpreterState_GetID
    number_of.argtypes, number_of.restype = [ctypes.c_void_p], ctypes.c_int64
    return bool(number_of(current()) == 0)


def _refuse(api: Any, message: str) -> NoReturn:
    # uWSGI logs an exception and goes on without an application; this ends it. A
    # master would start a worker that ends over and over.
    sys.stderr.write(explain(f"aioext: {message}", "uwsgi") + "\n")
    sys.stderr.flush()
    if api.worker_id():
        _stop_master(api)
    raise SystemExit(1)


def _stop_master(api: Any) -> NoReturn:
    # It is deaf until it has started all workers, and ends this one when it hears.
    with contextlib.suppress(KeyboardInterrupt):
        for _ in range(ATTEMPTS):
            stop_master(api)
            time.sleep(ATTEMPT_INTERVAL)
    os._exit(1)


NO_GREENLET = """\
uWSGI runs its asyncio loop without greenlets, so a request that waits would hold all \
others. Start it with --greenlet (greenlet = true)."""

SECOND_INTERPRETER = """\
uWSGI runs its asyncio loop with several applications, each in an interpreter of its \
own, and crashes at the first request for the second one. Start it with \
--single-interpreter (single-interpreter = true), or use config.add_mount()."""

NEVER_RESTARTED = """\
aioext: uWSGI's asyncio loop does not look at %s: the master would kill the worker, \
with the requests in it, when worker-reload-mercy is over. Leave it out."""

PLAIN = """\
aioext: uWSGI runs no asyncio loop, so coroutines run on a background loop, and a \
request that waits keeps its thread. For more at once, start it with --asyncio 1000 \
--greenlet. A uWSGI that does not know these options was built without them; in the \
environment of the application: pip install greenlet wheel 'setuptools<82' && \
CFLAGS="-I$(python -c 'import sys; print("%s/include/site/python%d.%d" % (sys.prefix, \
*sys.version_info[:2]))')" UWSGI_PROFILE=asyncio pip install --no-cache-dir \
--no-build-isolation --force-reinstall uwsgi"""

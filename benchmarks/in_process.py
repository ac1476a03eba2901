"""What a request costs in the process itself, without server and network.

Every call has a context of its own, as a server gives each request: a second
request in the same context is given a Task of its own by the Gateway, and that
would be measured instead. The coroutines are driven by hand, for a Task's own
cost is the server's; only the executor needs a loop that really runs.

Processor time is taken, not the clock's, so that other programs disturb little;
except for the executor, where waiting for the thread is what it costs.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import statistics
import time
from collections.abc import Callable, Coroutine
from typing import Any

from aioext import greenlets, threadlocal
from aioext.asgi import Gateway

from . import apps
from .report import Report, Row, at_most, ratio_of

ROUNDS = 20
EXECUTOR_CALLS = 300

HEADERS = [
    (b"host", b"localhost:8000"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Firefox/128.0"),
    (b"accept", b"text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"),
    (b"accept-language", b"en-US,en;q=0.5"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"connection", b"keep-alive"),
    (b"cookie", b"session=0123456789abcdef"),
    (b"referer", b"http://localhost:8000/"),
    (b"upgrade-insecure-requests", b"1"),
    (b"cache-control", b"max-age=0"),
]

Call = Callable[[], Any]


def run(report: Report, calls: int) -> None:
    """Measure, and print the section.

    Args:
        report: prints it.
        calls: how many there are in one round of one case.
    """
    # Made before a loop runs, as a worker makes them.
    plain, inline = apps.plain_pyramid(), apps.inline_pyramid()
    executor = apps.aioext_pyramid()
    gc.collect()
    gc.freeze()
    try:
        results = asyncio.run(_measure(plain, inline, executor, calls))
    finally:
        gc.unfreeze()
    columns = ("median of 20 alternating rounds", "us", "")
    title = "A Pyramid hello world, in process"
    report.section(title, columns, _rows(results), NOTES)


NOTES = """\
Ratios are to the direct call of the same application, an inline view of
aioext's. "plain Pyramid" is the same view without aioext in the application.
The bridge is given its environ; the Gateway an ASGI scope with 10 headers, up
to the messages it sends."""


def _rows(results: dict[str, list[float]]) -> list[Row]:
    goals = {BRIDGE: at_most(1.2), GATEWAY: at_most(1.5)}
    direct = results[DIRECT]
    return [
        Row(
            name,
            f"{statistics.median(times):.2f}",
            "clock" if name == EXECUTOR else "",
            ratio_of(times, direct),
            goals.get(name),
        )
        for name, times in results.items()
    ]


PLAIN = "plain Pyramid, direct call"
DIRECT = "inline view, direct call"
BRIDGE = "inline view, bridge"
GATEWAY = "inline view, Gateway"
COROUTINE = "coroutine view, Gateway"
SUSPENDING = "coroutine view with one sleep(0), Gateway"
EXECUTOR = "executor view, Gateway"


async def _measure(
    plain: Any, inline: Any, executor: Any, calls: int
) -> dict[str, list[float]]:
    environ = await _environ_of("/")
    cases = {
        DIRECT: _direct(inline, environ),
        BRIDGE: _bridged(inline, environ),
        GATEWAY: _served(inline, "/"),
        COROUTINE: _served(inline, "/coroutine"),
        SUSPENDING: _served(inline, "/suspend"),
    }
    results: dict[str, list[float]] = {PLAIN: [], **{name: [] for name in cases}}
    results[EXECUTOR] = []
    plain_call, threaded = _direct(plain, environ), Gateway(executor)
    for _ in range(ROUNDS + 1):
        # Without aioext in its process, an application has Pyramid's own stack.
        threadlocal.uninstall()
        results[PLAIN].append(_time(plain_call, calls))
        threadlocal.install()
        for name, call in cases.items():
            results[name].append(_time(call, calls))
        results[EXECUTOR].append(await _time_tasks(threaded))
    # The first round warmed up.
    return {name: times[1:] for name, times in results.items()}


def _time(call: Call, calls: int) -> float:
    copy_context = contextvars.copy_context
    start = time.process_time()
    for _ in range(calls):
        copy_context().run(call)
    return (time.process_time() - start) / calls * 1e6


async def _time_tasks(app: Gateway) -> float:
    loop = asyncio.get_running_loop()
    scope = _scope("/")
    start = time.perf_counter()
    for _ in range(EXECUTOR_CALLS):
        context = contextvars.copy_context()
        await loop.create_task(app(scope, _receive, _send), context=context)
    return (time.perf_counter() - start) / EXECUTOR_CALLS * 1e6


def _drive(coroutine: Coroutine[Any, Any, Any]) -> None:
    try:
        while True:
            coroutine.send(None)
    except StopIteration:
        pass


def _direct(app: Any, environ: dict[str, Any]) -> Call:
    def call() -> None:
        for _ in app(environ.copy(), _start_response):
            pass

    return call


def _bridged(app: Any, environ: dict[str, Any]) -> Call:
    async def serve() -> None:
        for _ in await greenlets.run(app, (environ.copy(), _start_response)):
            pass

    return lambda: _drive(serve())


def _served(app: Any, path: str) -> Call:
    gateway, scope = Gateway(app), _scope(path)
    return lambda: _drive(gateway(scope, _receive, _send))


async def _environ_of(path: str) -> dict[str, Any]:
    environs: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environs.append(environ)
        start_response("200 OK", [])
        return []

    await asyncio.create_task(Gateway(app)(_scope(path), _receive, _send))
    return environs[0]


def _scope(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": HEADERS,
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 8000),
    }


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Any) -> None:
    pass


def _start_response(status: str, headers: Any, exc_info: Any = None) -> None:
    pass

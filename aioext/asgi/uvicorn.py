"""``pserve`` on uvicorn: ``[server:main] use = egg:aioext#uvicorn``.

The options are those of uvicorn's command line, without the dashes, and are read by
that command line itself: their types, their defaults and the environment variables
``UVICORN_*`` are its own. They are read before the application is loaded, so that a
mistake is told at once. One is added, ``listen``, which other servers of ``pserve``
have. One has another default: ``reset_contextvars`` is on, for a pipelined request
would begin with the context variables of the one before it.

``pserve`` has loaded the application when it calls the server, so whatever starts
other processes that load it once more is refused, with what to write instead.

uvicorn has a logging of its own, unless the ``.ini`` file says something about a
logger ``uvicorn``: then that holds.

When it is told to stop by SIGTERM, uvicorn closes everything and then lets the signal
have its way, so the process ends by it. pserve hides the exit status of a server that
could not start; the status is therefore insisted upon.
"""

from __future__ import annotations

import atexit
import difflib
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from ..boot import end_process
from ..exceptions import explain
from .loading import as_asgi

__all__ = ["make_server"]

# What the command line has and a server of pserve cannot, and what to write instead.
IN_PLACE = "AIOEXT_INI={} uvicorn --workers {} aioext.asgi:app"
_RELOADER = "pserve --reload {0}"
_NOTHING = "nothing: the file says which application is served"
REFUSED = {
    "app": _NOTHING,
    "app_dir": _NOTHING,
    "env_file": "variables into the environment of pserve: the application is loaded",
    "factory": _NOTHING,
    "interface": _NOTHING,
    "reload": _RELOADER,
    "reload_delay": _RELOADER,
    "reload_dirs": _RELOADER,
    "reload_excludes": _RELOADER,
    "reload_includes": _RELOADER,
    "version": "uvicorn --version",
}

# Without effect: the loggers are left as they are.
AS_CONFIGURED = {"version": 1, "incremental": True}


def make_server(
    global_conf: Mapping[str, str] | None, **options: str
) -> Callable[[Any], None]:
    """The server of a ``[server:...]`` section; PasteDeploy calls this.

    Args:
        global_conf: what PasteDeploy knows of the file.
        options: those of uvicorn's command line, by their names, and ``listen``:
            ``host:port``, ``[address]:port`` or ``unix:path``.

    Returns:
        what serves an application, WSGI or ASGI, until it is told to stop.

    Raises:
        SystemExit: uvicorn is not installed, or an option does not exist or has a
            value that it does not take; with a message of one line.
    """
    try:
        import uvicorn
    except ImportError:
        _refuse(NOT_INSTALLED)
    path = (global_conf or {}).get("__file__", "development.ini")
    values = _read(uvicorn.main, options, os.path.basename(path))
    failures: list[int] = []
    # Called last, for the application's own have not been registered yet.
    atexit.register(_insist_on, failures)

    def serve(app: Any) -> None:
        try:
            uvicorn.main.callback(**{**values, "app": as_asgi(app)})
        except SystemExit as end:
            if isinstance(end.code, int) and end.code != 0:
                failures.append(end.code)
            raise

    return serve


def _insist_on(failures: list[int]) -> None:
    if failures:
        end_process(failures[-1])


def _read(command: Any, options: Mapping[str, str], file: str) -> dict[str, Any]:
    import click

    given: dict[str, Any] = {"reset_contextvars": True}
    parameters = {each.name: each for each in command.params}
    for name, value in _without_listen(options).items():
        if name in REFUSED:
            _refuse(NOT_HERE.format(name, REFUSED[name].format(file)))
        if name not in parameters or name == "help":
            _refuse(_unknown(name, parameters))
        given[name] = _headers(value) if name == "headers" else value.strip()
    try:
        context = command.make_context("uvicorn", ["app"], default_map=given)
    except click.ClickException as error:
        _refuse(WRONG.format(error.format_message()))
    values = context.params
    if (values["workers"] or 1) > 1:
        instead = IN_PLACE.format(file, values["workers"])
        _refuse(NOT_HERE.format("workers", instead))
    # Not what the environment says: that is for uvicorn's own command.
    values |= {"workers": 1, "reload": False}
    if values["log_config"] is None and _is_configured("uvicorn"):
        values |= {"log_config": AS_CONFIGURED, "use_colors": None}
    return values


def _without_listen(options: Mapping[str, str]) -> dict[str, str]:
    given = {name.replace("-", "_"): value for name, value in options.items()}
    listen = given.pop("listen", None)
    if listen is None:
        return given
    if {"host", "port", "uds"} & set(given) or len(listen.split()) != 1:
        _refuse(LISTEN.format(listen))
    kind, _, rest = listen.partition(":")
    if kind == "unix":
        return {**given, "uds": rest}
    host, _, port = listen.rpartition(":")
    if ":" not in listen or not port.isdigit():
        _refuse(LISTEN.format(listen))
    return {**given, "host": host.strip("[]") or "0.0.0.0", "port": port}


def _headers(value: str) -> list[str]:
    pairs = [line.partition(":") for line in value.splitlines() if line.strip()]
    if not all(colon for _, colon, _ in pairs):
        _refuse(HEADERS.format(value))
    return [f"{name.strip()}:{text.strip()}" for name, _, text in pairs]


def _is_configured(name: str) -> bool:
    loggers = [logging.getLogger(f"{name}{part}") for part in ("", ".error", ".access")]
    return any(each.handlers or each.level != logging.NOTSET for each in loggers)


def _unknown(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, [*known, "listen"], n=1)
    meant = f"Did you mean {close[0]}?" if close else "See: uvicorn --help"
    return NO_OPTION.format(name, meant)


def _refuse(message: str) -> NoReturn:
    sys.exit(f"aioext: {explain(message, 'pserve-uvicorn')}")


NOT_INSTALLED = """\
[server:...] has use = egg:aioext#uvicorn, and uvicorn is not installed. Write: \
pip install 'aioext[uvicorn]'"""

NO_OPTION = "uvicorn has no option {}. {}"

WRONG = "An option of [server:...] is not what uvicorn takes. {}"

NOT_HERE = "{} is no option under pserve. Write instead: {}"

HEADERS = "headers = {} is not one `Name: value` on each line."

LISTEN = """\
listen = {} is not one address: write host:port, [address]:port or unix:path, and \
no host, port or uds beside it."""

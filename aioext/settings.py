"""The settings of aioext in an application's ``.ini``, each declared once.

The documentation's table is made of :data:`SETTINGS`. All begin with
``aioext.``; one that does not exist is refused, with the name that was
probably meant.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid.settings import asbool
from zope.interface import implementer

from .exceptions import explain
from .executor import DEFAULT_WORKERS
from .interfaces import ISettings

__all__ = ["SETTINGS", "Setting", "Settings", "settings_of"]

PREFIX = "aioext."


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: without the prefix.
        cast: makes a value of a string; raises ValueError with what is allowed.
        default: what it is when it is not set.
        prose: what it does.
    """

    name: str
    cast: Callable[[Any], Any]
    default: Any
    prose: str

    @property
    def attribute(self) -> str:
        """Its name in :class:`Settings`."""
        return self.name.replace(".", "_")


def _one_of(*choices: str) -> Callable[[Any], str]:
    def cast(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return value

    return cast


def _positive(value: Any) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError("a whole number of at least 1")
    return number


def _seconds(value: Any) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ValueError("a number of seconds, 0 for off")
    return number


# K and KiB are 1024 bytes, and kB is 1000, as for GNU's tools.
_SIZES = {
    **dict.fromkeys(("", "b"), 1),
    **dict.fromkeys(("k", "kib"), 1024),
    **dict.fromkeys(("m", "mib"), 1024**2),
    **dict.fromkeys(("g", "gib"), 1024**3),
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
}


def _size(value: Any) -> int:
    match = re.fullmatch(r"([0-9]{1,18}) ?([a-z]*)", str(value).strip().lower())
    if match is None or match[2] not in _SIZES:
        raise ValueError("a number of bytes, as 100MiB or 104857600, 0 for no limit")
    return int(match[1]) * _SIZES[match[2]]


def _room(value: Any) -> int:
    try:
        return _size(value)
    except ValueError:
        raise ValueError("a number of bytes, as 16MiB, 0 for none") from None


_UNITS = {"ms": 0.001, "s": 1.0}


def _duration(value: Any) -> float:
    text = str(value).strip()
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s)?", text)
    if match is None:
        raise ValueError("a time, as 100ms, 0.1s or 0.1, or 0 for off")
    return float(match[1]) * _UNITS[match[2] or "s"]


def _words(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.split())
    if isinstance(value, (list, tuple)) and all(
        isinstance(each, str) for each in value
    ):
        return tuple(value)
    raise ValueError("words, separated by spaces or on lines of their own")


def _mounts(value: Any) -> tuple[tuple[str, str], ...]:
    lines = value if isinstance(value, (list, tuple)) else str(value).splitlines()
    mounts = []
    for line in lines:
        words = str(line).split()
        if len(words) == 2:
            mounts.append((words[0], words[1]))
        elif words:
            raise ValueError(
                "lines of a path, or a host and a path, and an application"
            )
    return tuple(mounts)


def _absolute_path(value: Any) -> str:
    path = os.fspath(value) if isinstance(value, os.PathLike) else str(value).strip()
    if path and not os.path.isabs(path):
        raise ValueError("an absolute path; in an .ini file, %(here)s/… is one")
    return path


def _boolean(value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in {"true", "yes", "on", "1", "false", "no", "off", "0"}:
        raise ValueError("true or false")
    return asbool(value)


SETTINGS = (
    Setting(
        "sync_views",
        _one_of("executor", "inline", "request"),
        "executor",
        "Where a view that is no coroutine runs, unless ``mapper=`` says so: "
        "``executor``: in a thread of the executor, with a synchronous body "
        "iterator that it returns; ``inline``: in the request's greenlet, on the "
        "loop; ``request``: the whole router call runs in a thread, and only "
        "coroutines on the loop.",
    ),
    Setting(
        "executor_workers",
        _positive,
        DEFAULT_WORKERS,
        "How many threads the application's executor has at most.",
    ),
    Setting(
        "allow_threadlocal_transactions",
        _boolean,
        False,
        "Whether ``request.tm`` may be the ``transaction.manager`` that all requests "
        "of a thread share. ``pyramid_tm`` then gets no other one by default, and "
        "nothing of :doc:`transactions` is promised.",
    ),
    Setting(
        "gc_freeze",
        _boolean,
        True,
        "Whether a worker, once the application is loaded, takes the objects "
        "that exist then out of the garbage collector's sight and makes it run "
        "less often.",
    ),
    Setting(
        "request_timeout",
        _seconds,
        0.0,
        "How many seconds a request may take until its response begins; then it is "
        "cancelled, and answered with 503. 0: any time.",
    ),
    Setting(
        "max_body",
        _size,
        0,
        "How many bytes the body of a request may have, as ``100MiB``, unless its view "
        "says so; a larger one is answered with 413. 0: any number.",
    ),
    Setting(
        "cancel_on_disconnect",
        _one_of("safe", "always", "never"),
        "safe",
        "Which requests are cancelled when their client leaves before the response "
        "begins: ``safe``: GET, HEAD, OPTIONS and TRACE; ``always``: all; ``never``: "
        "none.",
    ),
    Setting(
        "debug.blocking",
        _duration,
        0.0,
        "For development: whatever holds the event loop for longer than this, as "
        "``100ms`` or ``0.1``, is named in the log, with its stack. 0: off.",
    ),
    Setting(
        "json",
        _one_of("stdlib", "orjson"),
        "stdlib",
        "With ``aioext.renderers``: what writes JSON: ``stdlib``: Python's own module; "
        "``orjson``: the library of that name, and Python's where that refuses. See "
        ":doc:`json`.",
    ),
    Setting(
        "renderers.adapters",
        _boolean,
        False,
        "With ``aioext.renderers``: whether a view without a renderer may return a "
        "str, bytes, a dict, a list, a generator or a file. See :doc:`json`.",
    ),
    Setting(
        "mounts",
        _mounts,
        (),
        "Applications that are mounted in this one, a line each: a path, a host, or "
        "both in one, and the dotted name of the application, as ``/blog blog:app`` or "
        "``www.example.com/shop shop:app``. See :doc:`mounts`.",
    ),
    Setting(
        "assets.cache_dir",
        _absolute_path,
        "",
        "Where built files are kept: an absolute path, ``%(here)s/build/assets`` for "
        "example. Empty: ``aioext/assets`` in the cache of the user "
        "(``$XDG_CACHE_HOME`` or ``~/.cache``). See :doc:`built`.",
    ),
    Setting(
        "assets.memory",
        _room,
        16 * 1024**2,
        "How many bytes of small files are kept in memory, as ``16MiB``. 0: none.",
    ),
    Setting(
        "assets.symlinks",
        _one_of("inside", "any"),
        "inside",
        "Which symbolic links a static view follows: ``inside``: those that lead to "
        "something in its directory; ``any``: all.",
    ),
    Setting(
        "assets.version",
        _one_of("mtime", "hash", "off"),
        "mtime",
        "What stands for the version of a file in the addresses that "
        "``request.static_url()`` makes: ``mtime``: when it was changed; ``hash``: of "
        "what is in it, the same on several machines; ``off``: none. See "
        ":doc:`versions`.",
    ),
    Setting(
        "assets.place",
        _one_of("query", "path"),
        "query",
        "Where the version stands: ``query``: ``/static/a.js?v=1``; ``path``: "
        "``/static/v=1/a.js``.",
    ),
    Setting(
        "render",
        _one_of("inline", "executor"),
        "inline",
        "With ``aioext.renderers``: where templates are rendered, unless the view says "
        "so: ``inline``: where its value arrives, in the greenlet of the request; "
        "``executor``: in a thread. See :doc:`templates`.",
    ),
    Setting(
        "websocket.origins",
        _words,
        (),
        "Which origins may open a WebSocket beside the application's own, as "
        "``https://example.com`` or ``https://*.example.com``.",
    ),
    Setting(
        "websocket.max_size",
        _positive,
        1_048_576,
        "How many bytes a message of a client may have; a larger one closes the "
        "WebSocket with 1009.",
    ),
    Setting(
        "websocket.queue",
        _positive,
        16,
        "How many messages of a client may wait for their handler before the "
        "server stops reading from that client.",
    ),
    Setting(
        "websocket.ping_interval",
        _seconds,
        20.0,
        "After how many seconds of silence a client is pinged; 0: never.",
    ),
    Setting(
        "websocket.ping_timeout",
        _seconds,
        20.0,
        "How many seconds a pinged client may stay silent before its WebSocket "
        "is closed with 1011; 0: for ever.",
    ),
    Setting(
        "websocket.compression",
        _one_of("deflate", "off"),
        "deflate",
        "Whether messages are compressed for clients that offer it "
        "(permessage-deflate).",
    ),
    Setting(
        "websocket.threads",
        _positive,
        32,
        "How many WebSocket handlers with ``executor=True`` run at once; one "
        "more client is refused with 503.",
    ),
    Setting(
        "eventsource.heartbeat",
        _seconds,
        15.0,
        "After how many seconds of silence an event stream sends a comment; 0: never.",
    ),
    Setting(
        "eventsource.retry",
        _seconds,
        1.0,
        "When the server stops, clients of event streams are told to come back "
        "after this many seconds, or up to twice as many, at random; 0: they decide.",
    ),
)


def settings_of(part: str) -> dict[str, Setting]:
    """The settings whose names begin with ``part.``, by what follows."""
    return {
        each.name.removeprefix(f"{part}."): each
        for each in SETTINGS
        if each.name.startswith(f"{part}.")
    }


@implementer(ISettings)
class Settings:
    """The values, an attribute each.

    Args:
        settings: the application's settings.

    Raises:
        ConfigurationError: a value is not allowed, or a name does not exist.
    """

    sync_views: str
    executor_workers: int
    allow_threadlocal_transactions: bool
    gc_freeze: bool
    request_timeout: float
    max_body: int
    cancel_on_disconnect: str
    debug_blocking: float
    json: str
    renderers_adapters: bool
    mounts: tuple[tuple[str, str], ...]
    assets_cache_dir: str
    assets_memory: int
    assets_symlinks: str
    assets_version: str
    assets_place: str
    render: str
    websocket_origins: tuple[str, ...]
    websocket_max_size: int
    websocket_queue: int
    websocket_ping_interval: float
    websocket_ping_timeout: float
    websocket_compression: str
    websocket_threads: int
    eventsource_heartbeat: float
    eventsource_retry: float

    def __init__(self, settings: Mapping[str, Any]) -> None:
        _refuse_unknown(settings)
        for setting in SETTINGS:
            setattr(self, setting.attribute, _read(settings, setting))


def _read(settings: Mapping[str, Any], setting: Setting) -> Any:
    key = PREFIX + setting.name
    if key not in settings:
        return setting.default
    value = settings[key]
    try:
        return setting.cast(value)
    except ValueError as error:
        message = f"The setting {key} is {value!r}; it takes {error}."
        raise ConfigurationError(explain(message, "settings")) from None


def _refuse_unknown(settings: Mapping[str, Any]) -> None:
    known = [PREFIX + setting.name for setting in SETTINGS]
    for key in settings:
        if str(key).startswith(PREFIX) and key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
            meant = f"Did you mean {close[0]}?" if close else f"Known: {known}."
            message = f"There is no setting {key}. {meant}"
            raise ConfigurationError(explain(message, "settings"))

"""What guards requests, as far as it is configured: the view option
``request_timeout``, ``request.disconnected``, and the watchdog.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from pyramid.exceptions import ConfigurationError

from .. import bridge
from ..exceptions import explain
from ..guards import KEY
from ..interfaces import ILifespan, ISettings
from ..request import add_request_attribute
from ..settings import SETTINGS
from ..watchdog import watch
from .mappers import describe
from .policy import LAST

__all__ = ["disconnected", "timed_view"]

OPTION = "request_timeout"
_SETTING = next(each for each in SETTINGS if each.name == OPTION)


def includeme(config: Any) -> None:
    """Add what guards need; ``config.include('aioext')`` does so."""
    config.add_view_deriver(timed_view, "aioext_timed_view")
    add_request_attribute(config, disconnected)
    # Before those that look whether there is a lifespan.
    config.action(None, _add_watchdog, (config.registry,), order=LAST - 1)


def timed_view(view: Any, info: Any) -> Any:
    """View deriver: tell the request's guard which view it is, and its own time.

    Raises:
        ConfigurationError: the option ``request_timeout`` has a value that is not
            allowed.
    """
    timeout = _read_option(info)
    settings = info.registry.queryUtility(ISettings)
    is_limited = settings is not None and settings.request_timeout
    if timeout is None and not is_limited:
        return view
    name = describe(info.original_view, info.options.get("attr"))

    def view_with_timeout(context: Any, request: Any) -> Any:
        guarded = request.environ.get(KEY)
        if guarded is None:
            return view(context, request)
        guarded.enter_view(name, timeout)
        response = view(context, request)
        if guarded.has_expired:
            # A thread hears of it where it waits, and is not to commit before.
            bridge.wait(asyncio.sleep(0))
        return response

    return view_with_timeout


timed_view.options = (OPTION,)  # type: ignore[attr-defined]


def _read_option(info: Any) -> float | None:
    value = info.options.get(OPTION)
    if value is None:
        return None
    try:
        return _SETTING.cast(value)
    except ValueError as error:
        what = describe(info.original_view, info.options.get("attr"))
        message = f"The view {what} has {OPTION}={value!r}; it takes {error}."
        raise ConfigurationError(explain(message, "request-timeout")) from None


def disconnected(request: Any) -> asyncio.Event:
    """Set once the client has left, or the event stream that answers it is over.

    ``is_set()`` may be called in any thread, ``await wait()`` on the loop.
    """
    guarded = request.environ.get(KEY)
    if guarded is not None:
        return guarded.disconnected
    # Not reified: the loop and a thread may both be the first to ask.
    return vars(request).setdefault("_aioext_disconnected", asyncio.Event())


def _add_watchdog(registry: Any) -> None:
    limit = registry.getUtility(ISettings).debug_blocking
    factories = registry.getUtility(ILifespan).factories
    if not limit or any(isinstance(each, _Watchdog) for each in factories):
        return
    # First, so that it watches what the others do.
    factories.insert(0, _Watchdog(limit))


class _Watchdog:
    # A lifespan of the application; one that is told from others.
    def __init__(self, limit: float) -> None:
        self._limit = limit

    @contextlib.asynccontextmanager
    async def __call__(self, registry: Any) -> AsyncIterator[None]:
        with watch(asyncio.get_running_loop(), self._limit):
            yield

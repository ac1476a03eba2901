"""Which of the two interfaces an application has, by the way it can be called."""

from __future__ import annotations

import inspect
from typing import Any

__all__ = ["speaks_asgi", "speaks_wsgi"]


def speaks_asgi(application: Any) -> bool:
    """Whether ``application`` is an ASGI application.

    That is a coroutine function, or else a callable that cannot be called as a
    WSGI application, but with the three arguments of ASGI.
    """
    call = getattr(application, "__call__", None)  # noqa: B004 - not only callable?
    if inspect.iscoroutinefunction(application) or inspect.iscoroutinefunction(call):
        return True
    return not speaks_wsgi(application) and _takes(application, {}, None, None)


def speaks_wsgi(application: Any) -> bool:
    """Whether ``application`` can be called with an environ and a callable."""
    return _takes(application, {}, None)


def _takes(application: Any, *args: Any) -> bool:
    if not callable(application):
        return False
    try:
        inspect.signature(application).bind(*args)
    except TypeError:
        return False
    except ValueError:
        # A callable that does not tell its signature has the benefit of doubt.
        return True
    return True

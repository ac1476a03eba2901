"""Event subscribers that may be coroutine functions.

Pyramid throws away what a subscriber returns, so a coroutine would never run. What
has been registered is registered again, adapted: all of it, in the order in which
it was registered, for that is the order in which subscribers are called.
"""

from __future__ import annotations

from typing import Any

from .values import Settled

__all__ = ["adapt_subscribers"]


def adapt_subscribers(registry: Any) -> None:
    """Have the subscribers of ``registry`` be waited for; idempotent.

    Each is equal to what was registered, so that who registered it can
    unregister it.
    """
    registered = list(registry.registeredHandlers())
    if all(type(each.handler) is Settled for each in registered):
        return
    for each in registered:
        registry.unregisterHandler(each.handler, each.required)
    for each in registered:
        registry.registerHandler(_settled(each.handler), each.required, info=each.info)


def _settled(handler: Any) -> Settled:
    return handler if type(handler) is Settled else Settled(handler)

"""Tweens: one that gives a coroutine is refused by its name.

A tween that was written as ``async def`` calls a handler that gives a response, and
cannot ``await`` it. So there is nothing to wait for: :func:`aioext.tweens.async_tween`
is what its factory lacks. It is told at the first request, by an error that names
it; a tween is any callable, and what comes of it is seen when it is called.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import ITweens

from .. import transaction
from ..exceptions import explain
from ..greenlets import close
from ..views import Kind, kind_of
from .chain import Delegate, stand_in_for
from .subscribers import adapt_subscribers
from .values import is_coroutine, is_own, settle

__all__ = ["install_tweens"]

Handler = Callable[[Any], Any]


def install_tweens(registry: Any) -> None:
    """Have the tweens of ``registry`` checked; idempotent."""
    stand_in_for(registry, _Tweens, ITweens)


class _Tweens(Delegate):
    def __call__(self, handler: Handler, registry: Any) -> Handler:
        # The router is being made. ApplicationCreated is next, and who subscribes
        # to it is looked up before any subscriber could adapt the others.
        adapt_subscribers(registry)
        for name, factory in reversed(self.explicit or self.implicit()):
            tween = factory(handler, registry)
            if name == transaction.TWEEN:
                tween = transaction.ending(tween)
            handler = _checked(name, tween, handler)
        return handler


def _checked(name: str, tween: Any, handler: Handler) -> Handler:
    if is_coroutine(tween):
        close(tween)
        raise _refused(IS_A_COROUTINE, name)
    if tween is handler or is_own(tween) or kind_of(tween) is Kind.SYNCHRONIZED:
        return tween

    @functools.wraps(tween)
    def checked_tween(request: Any) -> Any:
        response = tween(request)
        if is_coroutine(response) and not asyncio.isfuture(response):
            close(response)
            raise _refused(GIVES_A_COROUTINE, name)
        return settle(response)

    return checked_tween


def _refused(message: str, name: str) -> ConfigurationError:
    return ConfigurationError(explain(message.format(name), "async-tween"))


GIVES_A_COROUTINE = """\
The tween {} is a coroutine function, and Pyramid calls tweens as ordinary ones: it \
gave a coroutine in place of a response. Decorate its factory with \
@aioext.tweens.async_tween, and have it await the handler: response = await \
handler(request)."""

IS_A_COROUTINE = """\
The tween factory {} is a coroutine function, and Pyramid calls it as an ordinary \
one. Write it as def; the tween that it returns may be async def if the factory is \
decorated with @aioext.tweens.async_tween. What takes waiting at the start goes into \
a lifespan: config.add_lifespan()."""

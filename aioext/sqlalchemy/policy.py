"""Requests where no loop serves them: the execution policy.

On a plain WSGI server, in WebTest and under ``prequest`` a request runs in a thread
that may block. SQLAlchemy's asynchronous engines want a greenlet around it all the
same (:func:`aioext.threads.provide`), and so does the body, which the server iterates
over afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyramid.interfaces import IExecutionPolicy
from pyramid.router import default_execution_policy

from .. import bridge, threads
from ..views import Kind, kind_of

__all__ = ["adapt_execution_policy"]

_END = object()


def adapt_execution_policy(registry: Any) -> None:
    """Wrap the registered policy; does nothing the second time.

    Nor with one that is a coroutine: it runs on a loop, the one in the background.
    """
    policy = registry.queryUtility(IExecutionPolicy, default=default_execution_policy)
    if not isinstance(policy, _Policy) and kind_of(policy) is not Kind.COROUTINE:
        registry.registerUtility(_Policy(policy), IExecutionPolicy)


class _Policy:
    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def __call__(self, environ: dict[str, Any], router: Any) -> Any:
        if bridge.in_bridge():
            return self._policy(environ, router)
        response = threads.provide(self._policy, environ, router)
        body = getattr(response, "app_iter", None)
        if body is not None and type(body) not in (list, tuple):
            # WebOb forgets the length when the body is assigned.
            length = response.content_length
            response.app_iter = _Body(body)
            response.content_length = length
        return response


class _Body:
    # Each step of a body, and its end, in a greenlet.
    def __init__(self, body: Any) -> None:
        self._body = body
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = threads.provide(self._next)
        if chunk is _END:
            raise StopIteration
        return chunk

    def _next(self) -> Any:
        if self._chunks is None:
            self._chunks = iter(self._body)
        return next(self._chunks, _END)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            threads.provide(close)

    def __getattr__(self, name: str) -> Any:
        # WebOb asks a body that can give a range of itself for it.
        if name != "app_iter_range":
            raise AttributeError(name)
        give_range = self._body.app_iter_range
        return lambda start, stop: _Body(give_range(start, stop))

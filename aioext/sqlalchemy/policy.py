"""Requests where no loop serves them: the execution policy.

On a plain WSGI server, in WebTest and under ``prequest`` a request runs in a thread
that may block. SQLAlchemy's asynchronous engines want a greenlet around it all the
same (:func:`aioext.threads.provide`), and so does the body, which the server iterates
over afterwards.
"""

from __future__ import annotations

from typing import Any

from pyramid.interfaces import IExecutionPolicy
from pyramid.router import default_execution_policy

from .. import bridge, threads
from ..body import CalledBody, replace_body
from ..views import Kind, kind_of

__all__ = ["adapt_execution_policy"]


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
            replace_body(response, CalledBody(body, threads.provide))
        return response

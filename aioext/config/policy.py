"""The execution policy, adapted once the configuration has ended.

An execution policy of an add-on's (pyramid_retry's, say) keeps its place: it
is wrapped, not replaced, and only where there is something to do: a policy that may
be a coroutine, a lifespan to open where the server does not, or a whole router call
to run in a thread.
"""

from __future__ import annotations

from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IExecutionPolicy
from pyramid.router import default_execution_policy
from pyramid.util import object_description
from zope.interface import implementedBy

from .. import bridge
from ..body import adapt_body
from ..events import AppStarting, AppStopping
from ..exceptions import explain
from ..hooks.values import is_own, settle
from ..interfaces import IExecutor, ILifespan, ISettings
from ..views import Kind, kind_of

__all__ = ["LAST", "adapt_execution_policy"]

# The order of an action that adapts it: after everything that an application and
# its add-ons register.
LAST = 1_000_000


def adapt_execution_policy(registry: Any) -> None:
    """Wrap the registered policy if need be; does nothing the second time.

    Raises:
        ConfigurationError: the policy is a coroutine, and is to run in a thread.
    """
    policy = registry.queryUtility(IExecutionPolicy, default=default_execution_policy)
    if isinstance(policy, _Policy):
        return
    in_thread = registry.getUtility(ISettings).sync_views == "request"
    if in_thread and kind_of(policy) is Kind.COROUTINE:
        message = NOT_IN_THREAD.format(object_description(policy))
        raise ConfigurationError(explain(message, "execution-policy"))
    if in_thread or not is_own(policy) or _has_lifespan(registry):
        adapted = _Policy(policy, registry, in_thread)
        registry.registerUtility(adapted, IExecutionPolicy)


def _has_lifespan(registry: Any) -> bool:
    if registry.getUtility(ILifespan).factories:
        return True
    handled = {handler.required[0] for handler in registry.registeredHandlers()}
    return any(
        implementedBy(event).isOrExtends(specification)
        for event in (AppStarting, AppStopping)
        for specification in handled
    )


class _Policy:
    def __init__(self, policy: Any, registry: Any, in_thread: bool) -> None:
        self._policy = policy
        self._lifespan = registry.getUtility(ILifespan)
        self._executor = registry.getUtility(IExecutor)
        self._in_thread = in_thread

    def __call__(self, environ: dict[str, Any], router: Any) -> Any:
        if not self._lifespan.is_open:
            bridge.wait(self._lifespan.ensure_open())
        if not self._in_thread:
            return settle(self._policy(environ, router))
        response = settle(self._executor.call(self._policy, environ, router))
        return adapt_body(response, self._executor)


NOT_IN_THREAD = """\
The execution policy {} is a coroutine, which runs on the event loop, and with \
aioext.sync_views = request the whole request is to run in a thread. Write the policy \
as a function, or leave aioext.sync_views at its default."""

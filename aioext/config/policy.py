"""The execution policy, adapted once the configuration has ended.

An execution policy of an add-on's (pyramid_retry's, say) keeps its place: it
is wrapped, not replaced. What is around all of them tells whether a bridge surrounds
the request, and has answered before where a static file needs no router; within it
there is more only where there is something to do: a policy that may be a coroutine, a
lifespan to open where the server does not, a limit for bodies, an application that is
mounted, or a whole router call to run in a thread.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IExecutionPolicy
from pyramid.router import default_execution_policy
from pyramid.util import object_description
from zope.interface import implementedBy

from .. import adopted, bridge, threaded
from ..body import adapt_body
from ..events import AppStarting, AppStopping
from ..exceptions import explain
from ..hooks.values import is_own, settle
from ..interfaces import (
    IBodyLimits,
    IExecutor,
    ILifespan,
    IMounts,
    ISettings,
    IShortcuts,
)
from ..limits import BodyTooLarge, answer, limit_body
from ..views import Kind, kind_of

__all__ = ["LAST", "adapt_execution_policy"]

# The order of an action that adapts it: after everything that an application and
# its add-ons register.
LAST = 1_000_000


def adapt_execution_policy(registry: Any) -> None:
    """Wrap the registered policy; does nothing the second time.

    Raises:
        ConfigurationError: the policy is a coroutine, and is to run in a thread.
    """
    registered = registry.queryUtility(
        IExecutionPolicy, default=default_execution_policy
    )
    is_outermost = isinstance(registered, _Outermost)
    policy = registered.policy if is_outermost else registered
    own = policy.policy if isinstance(policy, _Policy) else policy
    if own is policy:
        policy = _with_work(policy, registry)
    shortcuts = registry.queryUtility(IShortcuts) if is_own(own) else None
    outermost = _Outermost(policy, shortcuts)
    if not is_outermost or not outermost.is_as(registered):
        registry.registerUtility(outermost, IExecutionPolicy)


def _with_work(policy: Any, registry: Any) -> Any:
    # The policy, with what there is to do around it.
    settings = registry.getUtility(ISettings)
    in_thread = settings.sync_views == "request"
    if in_thread and kind_of(policy) is Kind.COROUTINE:
        message = NOT_IN_THREAD.format(object_description(policy))
        raise ConfigurationError(explain(message, "execution-policy"))
    has_work = in_thread or settings.max_body or _has_lifespan(registry)
    if has_work or registry.getUtility(IMounts) or not is_own(policy):
        return _Policy(policy, registry, in_thread)
    return policy


def _has_lifespan(registry: Any) -> bool:
    if registry.getUtility(ILifespan).factories:
        return True
    handled = {handler.required[0] for handler in registry.registeredHandlers()}
    return any(
        implementedBy(event).isOrExtends(specification)
        for event in (AppStarting, AppStopping)
        for specification in handled
    )


class _Outermost:
    def __init__(self, policy: Any, shortcuts: Any) -> None:
        self.policy = policy
        self._shortcuts = shortcuts

    def is_as(self, other: _Outermost) -> bool:
        """Whether both do the same."""
        return (self.policy, self._shortcuts) == (other.policy, other._shortcuts)

    def __call__(self, environ: dict[str, Any], router: Any) -> Any:
        if self._shortcuts is not None:
            found = self._shortcuts.find(environ)
            if found is not None:
                return found
        if bridge.in_bridge():
            return adopted.serve(self.policy, environ, router)
        return threaded.serve(self.policy, environ, router)


class _Policy:
    def __init__(self, policy: Any, registry: Any, in_thread: bool) -> None:
        self.policy = policy
        self._lifespan = registry.getUtility(ILifespan)
        self._executor = registry.getUtility(IExecutor)
        self._mounts = registry.getUtility(IMounts)
        self._in_thread = in_thread
        self._limits = registry.getUtility(IBodyLimits)

    def __call__(self, environ: dict[str, Any], router: Any) -> Any:
        if not self._lifespan.is_open:
            bridge.wait(self._lifespan.ensure_open())
        # Views may be added later.
        limits = self._limits
        if not limits.default:
            return self._serve(environ, router)
        try:
            if limits.largest:
                limit_body(environ, limits.largest)
            return self._serve(environ, router)
        except BodyTooLarge as error:
            return self._call(partial(answer, error), environ, router)

    def _serve(self, environ: dict[str, Any], router: Any) -> Any:
        mounted = self._mounts.find(environ) if self._mounts else None
        if mounted is not None:
            if self._limits.default:
                # What views of ours may take is not for others.
                limit_body(environ, self._limits.default)
            # It is a WSGI application, and so is a response.
            return mounted
        return self._call(self.policy, environ, router)

    def _call(self, policy: Any, environ: dict[str, Any], router: Any) -> Any:
        if not self._in_thread:
            return settle(policy(environ, router))
        response = settle(self._executor.call(policy, environ, router))
        return adapt_body(response, self._executor)


NOT_IN_THREAD = """\
The execution policy {} is a coroutine, which runs on the event loop, and with \
aioext.sync_views = request the whole request is to run in a thread. Write the policy \
as a function, or leave aioext.sync_views at its default."""

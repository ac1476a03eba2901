"""Security policies, access control lists and old policies with coroutines in them.

An application's own security policy needs nothing of this module: its methods may be
coroutine functions, and ``request.identity`` and the others give values. What is here
spares writing the same policy again, and serves what Pyramid cannot tell us of: an
``__acl__`` belongs to a resource, and the helper that reads it to the application.

Theory of operation
===================

Pyramid's ``ACLHelper`` decides, as ever. It is handed a stand-in for the context.
That has the ``__acl__`` and the ``__parent__`` of the resource, and waits for a list
that is a coroutine's before it is looked at. A coroutine is never taken for a list,
and an exception on the way leaves the helper: neither can become a permission.

:class:`AsyncSecurityPolicy` loads the identity and the principals once for each
request. Two tasks of one request may ask at the same time; the second waits for the
first. If the first is cancelled, or fails, the second loads them itself: nobody gets
the exception of somebody else.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, Self

from pyramid import authorization
from pyramid.authorization import Authenticated, Everyone
from pyramid.interfaces import IAuthenticationPolicy, ISecurityPolicy
from pyramid.request import RequestLocalCache
from zope.interface import implementer

from . import bridge
from .exceptions import explain
from .hooks.values import Settled, is_coroutine, settle

__all__ = [
    "ACLAuthorizationPolicy",
    "ACLHelper",
    "AsyncSecurityPolicy",
    "CoroutineAuthenticationPolicyProxy",
    "authn_policy_factory",
    "coroutine_callback_authentication_policy_factory",
]

Headers = list[tuple[str, str]]


class ACLHelper(authorization.ACLHelper):
    """Pyramid's ACL helper, for resources whose ``__acl__`` may be ``async def``.

    ``__acl__`` may be a list, a method, a coroutine function, a function made by
    :func:`aioext.synchronize`, or a property that gives an awaitable, and another one
    in each resource of a lineage.

    Raises:
        ScopeError: an ``__acl__`` is to be waited for in a Task of its own, with no
            bridge around it.
    """

    def permits(
        self, context: Any, principals: Collection[str], permission: str
    ) -> authorization.ACLAllowed | authorization.ACLDenied:
        """Whether one of ``principals`` has ``permission`` in ``context``.

        Args:
            context: a resource; those in its lineage are asked after it.
            principals: of whoever asks.
            permission: the name of the permission.

        Returns:
            ``ACLAllowed``, which is true, or ``ACLDenied``, which is false.
        """
        location = None if context is None else _Location(context)
        result = super().permits(location, settle(principals), permission)
        # What is told of it names the resource, not what stood for it.
        found = _resource(result.context)
        parts = result.ace, result.acl, result.permission, result.principals
        return type(result)(*parts, found)

    def principals_allowed_by_permission(
        self, context: Any, permission: str
    ) -> set[str]:
        """The principals that the lists of a lineage allow ``permission``."""
        location = None if context is None else _Location(context)
        return super().principals_allowed_by_permission(location, permission)


class ACLAuthorizationPolicy(authorization.ACLAuthorizationPolicy):
    """Pyramid's deprecated policy of this name, with our :class:`ACLHelper`."""

    def __init__(self) -> None:
        super().__init__()
        self.helper = ACLHelper()


class _Location:
    # What stands for a resource while its lineage is walked.
    __slots__ = ("resource",)

    def __init__(self, resource: Any) -> None:
        self.resource = resource

    @property
    def __parent__(self) -> _Location | None:
        parent = self.resource.__parent__
        return None if parent is None else _Location(parent)

    @property
    def __acl__(self) -> Any:
        acl = self.resource.__acl__
        if acl and callable(acl):
            return Settled(acl)
        if inspect.isawaitable(acl):
            # Waited for when it is called: an AttributeError of the attribute says
            # that there is no list, one of the coroutine says that it has failed.
            return lambda: settle(acl)
        return acl


def _resource(value: Any) -> Any:
    return value.resource if type(value) is _Location else value


@implementer(ISecurityPolicy)
class AsyncSecurityPolicy:
    """Base of a security policy that loads the user by ``await``.

    ::

        class Policy(AsyncSecurityPolicy):
            async def load_identity(self, request):
                return await users.find(request.session.get("user"))

            async def principals(self, request):
                return [f"group:{name}" for name in request.identity.groups]

    What Pyramid calls are ordinary methods, so ``request.identity``,
    ``request.authenticated_userid`` and ``request.has_permission()`` give values in
    every view, template, tween and subscriber. Permissions are those of the
    ``__acl__`` of resources, by :class:`ACLHelper`; override :meth:`permits` for
    others. Each method that is overridden may be a coroutine function.

    Raises:
        ScopeError: something is to be loaded in a Task of its own, with no bridge
            around it. What was loaded before is there as well.

    Cancellation: what is loaded is cancelled with the task that has asked first; a
    second one that waits for it begins anew.
    """

    def __new__(cls, *args: Any, **options: Any) -> Self:
        # A subclass may have an __init__ that does not call ours.
        policy = super().__new__(cls)
        policy._cache = RequestLocalCache()
        policy._lock = threading.Lock()
        policy._helper = ACLHelper()
        return policy

    async def load_identity(self, request: Any) -> Any:
        """Who makes the request; None: nobody that is known.

        Called once for each request, when it is first asked for. It must not ask for
        the identity itself, nor for a permission.
        """
        raise NotImplementedError(NOT_WRITTEN.format(type(self), "load_identity"))

    async def principals(self, request: Any) -> Iterable[str]:
        """What ``__acl__`` knows whoever makes the request by; by default nothing.

        ``Everyone`` and, if there is an identity, ``Authenticated`` are added. The
        userid is not: a user who may choose it could choose the name of a group. Give
        it a prefix, ``f"user:{request.authenticated_userid}"``.

        Called once for each request, when a permission is first asked for.
        """
        return ()

    def userid_of(self, identity: Any) -> Any:
        """The userid of an identity that is not None.

        By default the identity itself, if that is a string or a number.
        """
        if isinstance(identity, (str, int)):
            return identity
        raise NotImplementedError(NOT_WRITTEN.format(type(self), "userid_of"))

    def identity(self, request: Any) -> Any:
        """What :meth:`load_identity` has given; ``request.identity``."""
        return self._loaded(request).identity.get(request)

    def authenticated_userid(self, request: Any) -> Any:
        """The userid, or None; ``request.authenticated_userid``."""
        identity = self.identity(request)
        return None if identity is None else settle(self.userid_of(identity))

    def effective_principals(self, request: Any) -> list[str]:
        """All principals of the request."""
        known = [] if self.identity(request) is None else [Authenticated]
        return [Everyone, *known, *self._loaded(request).principals.get(request)]

    def permits(self, request: Any, context: Any, permission: str) -> Any:
        """Whether the ``__acl__`` of ``context`` allows it."""
        principals = self.effective_principals(request)
        return self._helper.permits(context, principals, permission)

    async def remember(self, request: Any, userid: Any, **options: Any) -> Headers:
        """The headers that make a browser remember ``userid``."""
        raise NotImplementedError(NOT_WRITTEN.format(type(self), "remember"))

    async def forget(self, request: Any, **options: Any) -> Headers:
        """The headers that make a browser forget who it was."""
        raise NotImplementedError(NOT_WRITTEN.format(type(self), "forget"))

    def reset(self, request: Any) -> None:
        """Have the identity and the principals loaded again when they are asked for.

        For a view that signs a user in or out, and then shows a page to them.
        """
        self._cache.clear(request)

    def _loaded(self, request: Any) -> _Loaded:
        # Held for no wait: threads of one request may ask at the same time.
        with self._lock:
            return self._cache.get_or_create(request, self._nothing_yet)

    def _nothing_yet(self, request: Any) -> _Loaded:
        return _Loaded(_Once(self.load_identity), _Once(self._load_principals))

    async def _load_principals(self, request: Any) -> list[str]:
        return list(await _call(self.principals, request))


NOT_WRITTEN = """\
{0.__module__}.{0.__qualname__} has no {1}(): AsyncSecurityPolicy cannot know. \
Write `{1}` in that class."""


class _Loaded:
    # What was loaded for one request.
    __slots__ = ("identity", "principals")

    def __init__(self, identity: _Once, principals: _Once) -> None:
        self.identity = identity
        self.principals = principals


class _Once:
    """A value that the first who asks for it loads.

    Args:
        load: a coroutine function, called with the request.
    """

    __slots__ = ("_is_loaded", "_load", "_lock", "_value")

    def __init__(self, load: Callable[[Any], Awaitable[Any]]) -> None:
        self._load = load
        self._lock = asyncio.Lock()
        self._is_loaded = False
        self._value: Any = None

    def get(self, request: Any) -> Any:
        """The value; waits for it, if it is not there."""
        return self._value if self._is_loaded else bridge.wait(self._get(request))

    async def _get(self, request: Any) -> Any:
        loading = _loading.get()
        if self in loading and self._lock.locked():
            raise RuntimeError(
                explain(IN_A_CIRCLE.format(self._load), "identity-in-a-circle")
            )
        async with self._lock:
            if not self._is_loaded:
                token = _loading.set((*loading, self))
                try:
                    self._value = await _call(self._load, request)
                finally:
                    _loading.reset(token)
                self._is_loaded = True
            return self._value


# What this task, or one that it comes from, is loading.
_loading: contextvars.ContextVar[tuple[_Once, ...]] = contextvars.ContextVar(
    "aioext.auth.loading", default=()
)

IN_A_CIRCLE = """\
{0.__qualname__}() asked for what it is to load itself: request.identity, \
request.authenticated_userid or request.has_permission(). That would wait for its own \
end. Read the cookie, the session or the headers there instead."""


async def _call(load: Callable[[Any], Any], request: Any) -> Any:
    loaded = load(request)
    if inspect.isawaitable(loaded):
        loaded = await loaded
        while is_coroutine(loaded):
            # Somebody forgot an await; a coroutine is nobody's identity.
            loaded = await loaded
        return loaded
    raise TypeError(explain(NOT_ASYNC.format(load), "identity-not-async"))


NOT_ASYNC = """\
{0.__qualname__}() is called on the event loop, and has to be `async def`. If it \
blocks, have it `await use_executor(function)()`."""


@implementer(IAuthenticationPolicy, ISecurityPolicy)
class CoroutineAuthenticationPolicyProxy:
    """An authentication policy of Pyramid 1, as a security policy of Pyramid 2.

    Made by :func:`authn_policy_factory`. Give it to ``config.set_security_policy``:
    the identity is the userid, and permissions are those of ``__acl__``. It may also be
    given to the deprecated ``config.set_authentication_policy``.

    Args:
        policy: an authentication policy. Its methods may be coroutine functions, and
            what it calls may be made by :func:`aioext.synchronize`.
    """

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self._helper = ACLHelper()

    def unauthenticated_userid(self, request: Any) -> Any:
        """The userid that the request claims."""
        return settle(self._policy.unauthenticated_userid(request))

    def authenticated_userid(self, request: Any) -> Any:
        """The userid, or None."""
        return settle(self._policy.authenticated_userid(request))

    def identity(self, request: Any) -> Any:
        """The userid as well."""
        return self.authenticated_userid(request)

    def effective_principals(self, request: Any) -> list[str]:
        """All principals of the request."""
        return settle(self._policy.effective_principals(request))

    def permits(self, request: Any, context: Any, permission: str) -> Any:
        """Whether the ``__acl__`` of ``context`` allows it."""
        principals = self.effective_principals(request)
        return self._helper.permits(context, principals, permission)

    def remember(self, request: Any, userid: Any, **options: Any) -> Headers:
        """The headers that make a browser remember ``userid``."""
        return settle(self._policy.remember(request, userid, **options))

    def forget(self, request: Any, **options: Any) -> Headers:
        """The headers that make a browser forget who it was."""
        return settle(self._policy.forget(request, **options))


def coroutine_callback_authentication_policy_factory(
    policy_class: Callable[..., Any],
    coroutine: Callable[..., Any] | None = None,
    *args: Any,
    **options: Any,
) -> CoroutineAuthenticationPolicyProxy:
    """An authentication policy whose callback is a coroutine function.

    ::

        config.set_security_policy(
            authn_policy_factory(AuthTktAuthenticationPolicy, groups_of, "secret")
        )

    Pyramid's own classes take the result of their callback as it is: one that is a
    coroutine function, passed to them directly, lets everybody in.

    Args:
        policy_class: makes the policy.
        coroutine: its ``callback=``, if there is one.
        args: for ``policy_class``. Coroutine functions among them, and among the
            options, are called as ordinary functions as well: the ``check`` of
            ``BasicAuthAuthenticationPolicy``.
        options: for ``policy_class``.
    """
    if coroutine is not None:
        options["callback"] = Settled(coroutine)
    args = tuple(map(_synchronous, args))
    options = {name: _synchronous(value) for name, value in options.items()}
    return CoroutineAuthenticationPolicyProxy(policy_class(*args, **options))


authn_policy_factory = coroutine_callback_authentication_policy_factory


def _synchronous(argument: Any) -> Any:
    return Settled(argument) if inspect.iscoroutinefunction(argument) else argument

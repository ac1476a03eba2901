"""Transactions of one request each, and what a cancellation does to them.

Theory of operation
===================

``pyramid_tm`` begins a transaction before a request's view and ends it afterwards, by
the manager ``request.tm``. What it leaves to be done on an event loop is done where
that manager is made, for whoever has it has it from there:

* It has to be the request's own. ``pyramid_tm``'s default, ``transaction.manager``, is
  one for each *thread*, and requests that take turns in a thread would end each
  other's transactions. So the setting ``tm.manager_hook`` gets a default, and a
  manager that belongs to a thread is refused.
* Its ``commit()`` and ``abort()``, once begun, are not reached by a cancellation, which
  is delivered when they have ended (:func:`aioext.bridge.shielded`). The object is
  given a subclass of its class for that; it stays the object that the application has.
* ``pyramid_tm`` aborts on ``Exception``. What else ends a request (a cancellation,
  ``SystemExit``) goes past it, and it leaves in the environ that it is active. Where
  the chain of tweens is made its tween is wrapped, in its place and by its name: a
  tween above it may catch that, call it again, or show an error by what it reads in a
  new transaction. A finished callback does the same for who calls it otherwise.

All of this follows the property ``request.tm``, so it holds for whichever tween,
setting or add-on asks for it first, and changes nothing in the order of the tweens.

Things that do not work
=======================

* A tween around ``pyramid_tm``'s. One more name changes the order of tweens that say
  nothing about each other, and it is missing where ``pyramid.tweens`` lists them.
* A tween beneath ``pyramid_tm``'s. It sees neither the user's name being waited for,
  which ``pyramid_tm`` asks for once it has begun, nor the commit.
* Shielding the commit alone: an abort that is cancelled halfway costs the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from pyramid.decorator import reify
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IRequestExtensions

from . import bridge
from .exceptions import explain
from .guards import KEY
from .interfaces import ISettings

__all__ = ["TWEEN", "adapt_transactions", "ending", "shield", "warn_of_thread_sessions"]

log = logging.getLogger("aioext")

HOOK = "tm.manager_hook"
# Where pyramid_tm notes in the environ that it manages the request, and by what.
ACTIVE = "tm.active"
MANAGER = "tm.manager"
# The same of repoze.tm, middleware around the application.
MIDDLEWARE = "repoze.tm.active"


def adapt_transactions(registry: Any) -> None:
    """Guard ``request.tm``, and give ``pyramid_tm`` a manager for each request.

    Does nothing where ``pyramid_tm`` is not used, and nothing the second time. Warns of
    sessions that belong to threads, each once.
    """
    warn_of_thread_sessions(registry)
    extensions = registry.queryUtility(IRequestExtensions)
    if "pyramid_tm" not in sys.modules or extensions is None:
        return
    made = extensions.descriptors.get("tm")
    if type(made) is not reify:
        return
    _choose_hook(registry)
    # It may stand within another wrapper, which shows its attributes.
    if not getattr(made.wrapped, "is_guarded", False):
        extensions.descriptors["tm"] = reify(_guarded(made.wrapped))


def _choose_hook(registry: Any) -> None:
    from pyramid_tm import explicit_manager

    if not registry.settings.get(HOOK) and not _is_thread_local_allowed(registry):
        registry.settings[HOOK] = explicit_manager
        log.info(CHOSEN)


CHOSEN = """\
aioext: tm.manager_hook is not set; pyramid_tm.explicit_manager gives each request a \
transaction manager of its own"""


def _is_thread_local_allowed(registry: Any) -> bool:
    settings = registry.queryUtility(ISettings)
    return settings is not None and settings.allow_threadlocal_transactions


def _guarded(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(make)
    def tm(request: Any) -> Any:
        manager = make(request)
        _guard(request, manager)
        return manager

    tm.is_guarded = True  # type: ignore[attr-defined]
    return tm


def _guard(request: Any, manager: Any) -> None:
    from transaction.interfaces import ITransactionManager

    if not ITransactionManager.providedBy(manager):
        # An attribute of that name, and of another meaning.
        return
    if _is_thread_local(manager):
        if not _is_thread_local_allowed(request.registry):
            raise ConfigurationError(explain(THREAD_LOCAL, "thread-local-transactions"))
        return
    shield(manager)
    environ = request.environ
    if hasattr(type(manager), MARK):
        manager.__dict__[GUARDED] = environ.get(KEY)
    # Who has begun a transaction before this request ends it after it.
    if not environ.get(ACTIVE) and MIDDLEWARE not in environ:
        request.add_finished_callback(_abort_what_is_left)


def _is_thread_local(manager: Any) -> bool:
    import transaction

    # Neither a class derived from it, which may keep its manager elsewhere.
    if type(manager) is transaction.ThreadTransactionManager:
        return True
    return manager is transaction.manager.manager


THREAD_LOCAL = """\
request.tm is transaction.manager, which all requests of a thread share. They take \
turns there, and one would commit what another one aborts. Remove the setting \
tm.manager_hook, or write tm.manager_hook = pyramid_tm.explicit_manager, and use \
request.tm wherever the application uses transaction.manager, transaction.get(), \
transaction.commit() and the like. To have it all the same: \
aioext.allow_threadlocal_transactions = true."""


def _abort_what_is_left(request: Any) -> None:
    # pyramid_tm removes both before it ends its transaction.
    if request.environ.pop(ACTIVE, False):
        _abort(request.environ.pop(MANAGER, request.tm))


def ending(tween: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``pyramid_tm``'s tween, which aborts whatever ends the request beneath it."""

    @functools.wraps(tween)
    def tm_tween(request: Any) -> Any:
        begun_before = ACTIVE in request.environ
        try:
            return tween(request)
        except Exception:
            raise
        except BaseException:
            if not begun_before:
                _abort_what_is_left(request)
            raise

    return tm_tween


# The tween's name in the chain.
TWEEN = "pyramid_tm.tm_tween_factory"


def _abort(manager: Any) -> None:
    from transaction.interfaces import NoTransaction

    try:
        manager.abort()
    except NoTransaction:
        # The application has ended it.
        pass
    except Exception:
        # What has ended the request is on its way, and is to arrive.
        log.exception("aioext: a transaction could not be aborted")


# The names of modules in which was looked for sessions.
_looked_at: set[str] = set()


def warn_of_thread_sessions(registry: Any) -> None:
    """Log each ``scoped_session`` of SQLAlchemy's that has one session for each thread.

    Those that stand in a module can be found, in modules that were not looked at yet.
    """
    settings = registry.queryUtility(ISettings)
    in_turns = settings is not None and settings.sync_views != "request"
    if in_turns and "sqlalchemy.orm" in sys.modules:
        for name in _thread_sessions():
            log.warning("%s", explain(THREAD_SESSION.format(name), "scoped-session"))


THREAD_SESSION = """\
aioext: the scoped_session {} has one session for each thread, and requests take turns \
in a thread: they would share it. Make a session for each request (request.dbsession), \
or give scoped_session a scopefunc that tells requests apart."""


def _thread_sessions() -> Iterator[str]:
    from sqlalchemy.orm import scoped_session

    seen = set()
    for name, module in list(sys.modules.items()):
        if name in _looked_at:
            continue
        _looked_at.add(name)
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            # Of an object that stands for another one, isinstance() would ask that.
            if issubclass(type(value), scoped_session) and value not in seen:
                seen.add(value)
                if getattr(value.registry, "scopefunc", None) is None:
                    yield f"{name}.{attribute}"


def shield(manager: Any) -> None:
    """Let no cancellation reach ``commit()`` and ``abort()`` of a transaction manager.

    It is delivered when they have ended. Does nothing the second time, nor to an object
    whose class cannot be another one.
    """
    cls = type(manager)
    if not hasattr(cls, MARK):
        with contextlib.suppress(TypeError):
            manager.__class__ = _shielding(cls)


# An attribute of the classes that do so.
MARK = "_aioext_shielded"


# What guards the manager's request, among its attributes.
GUARDED = "_aioext_guarded"


def _check_deadline(manager: Any) -> None:
    # The client has been told that its request has failed. Who swallows the
    # cancellation gets it once more.
    guarded = manager.__dict__.get(GUARDED)
    if guarded is not None and guarded.has_expired:
        raise asyncio.CancelledError


@functools.lru_cache
def _shielding(cls: type) -> type:
    def commit(manager: Any) -> Any:
        try:
            bridge.deliver_cancellation()
            _check_deadline(manager)
        except BaseException:
            # Who commits takes it for done, whatever comes of it.
            _abort(manager)
            raise
        return bridge.shielded(cls.commit, manager)  # type: ignore[attr-defined]

    def abort(manager: Any) -> Any:
        return bridge.shielded(cls.abort, manager)  # type: ignore[attr-defined]

    names = {
        each.__name__: functools.wraps(getattr(cls, each.__name__))(each)
        for each in (commit, abort)
    }
    names |= {MARK: True, "__module__": cls.__module__, "__doc__": cls.__doc__}
    return types.new_class(cls.__name__, (cls,), {}, lambda space: space.update(names))

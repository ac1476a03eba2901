"""The sessions: ``request.dbsession``, and those of their own.

Both are ordinary sessions of SQLAlchemy's, on an engine whose driver is asynchronous:
what they wait for, the bridge waits for.

``request.dbsession`` takes part in the request's transaction, as
``zope.sqlalchemy.register(session, transaction_manager=request.tm)`` would have it.
It is looked at before anything is done with the session whether there is such a
transaction: SQLAlchemy would begin one of its own as soon as a connection is checked
out, and leave it open.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from pyramid.exceptions import ConfigurationError
from sqlalchemy import event
from sqlalchemy.orm import Session
from transaction import TransactionManager
from transaction.interfaces import NoTransaction as NothingBegun
from zope.sqlalchemy import ZopeTransactionEvents

from .. import bridge
from ..exceptions import NoTransaction, explain
from .interfaces import IEngines
from .pool import check_greenlet

__all__ = ["RequestSession", "dbsession", "session"]

# The events of a session that zope.sqlalchemy listens to. It would listen to those of
# each session by itself, which takes longer than all else that a request costs here.
EVENTS = (
    "after_attach",
    "after_begin",
    "after_bulk_delete",
    "after_bulk_update",
    "after_flush",
    "before_commit",
    "do_orm_execute",
)
KEY = "aioext.dbsession"


class WaitingSession(Session):
    """A session on an engine whose driver is asynchronous.

    Raises, whatever is asked of it:
        ScopeError: nothing can wait here.
    """

    def get_bind(self, *args: Any, **kwargs: Any) -> Any:
        """The engine; every operation asks for it, before it does anything."""
        check_greenlet()
        return super().get_bind(*args, **kwargs)


class RequestSession(WaitingSession):
    """A session that takes part in the transaction of a request.

    Attributes:
        manager: the transaction manager of the request.

    Raises, whatever is asked of it:
        NoTransaction: the request has no transaction, or none any more.
    """

    def __init__(self, engine: Any, request: Any) -> None:
        super().__init__(engine, info={"request": request})
        self.manager = request.tm
        self._zope = ZopeTransactionEvents(transaction_manager=request.tm)

    def get_bind(self, *args: Any, **kwargs: Any) -> Any:
        """As that of every session here."""
        self.check()
        return super().get_bind(*args, **kwargs)

    def check(self) -> None:
        """Raise :class:`NoTransaction` unless there is a transaction."""
        check_transaction(self.manager)

    def tell(self, name: str, *args: Any) -> None:
        """Tell zope.sqlalchemy of an event."""
        getattr(self._zope, name)(*args)


def check_transaction(manager: Any) -> None:
    """Raise :class:`NoTransaction` unless ``manager`` has begun a transaction."""
    try:
        manager.get()
    except NothingBegun:
        raise NoTransaction(OVER) from None


def _listener(name: str) -> Callable[..., None]:
    def listener(first: Any, *rest: Any) -> None:
        # What happened in bulk, or is executed, comes with its session.
        session = first if isinstance(first, Session) else first.session
        if name == "after_attach":
            session.check()
        session.tell(name, first, *rest)

    return listener


for _name in EVENTS:
    event.listen(RequestSession, _name, _listener(_name))


def dbsession(request: Any) -> Session:
    """The session of the request's transaction: ``request.dbsession``.

    It is made when it is first asked for, and the same one from then on. A session in
    ``request.environ["app.dbsession"]``, a test's, is used instead.

    Raises:
        NoTransaction: the request has no transaction: it has not begun yet, or is
            over, as it is for the handler of a WebSocket, for an event stream and
            for a body that is streamed. See :func:`session`.
    """
    given = request.environ.get("app.dbsession")
    if given is not None:
        return given
    manager = request.tm
    check_transaction(manager)
    made = request.environ.get(KEY)
    if made is None or made.manager is not manager:
        made = RequestSession(engine_of(request.registry), request)
        request.environ[KEY] = made
        request.add_finished_callback(_forget)
        if not request.environ.get("tm.active"):
            _wait_at_the_end(manager)
    # mark_changed(session) would join it to the thread's transaction otherwise, which
    # nobody ends.
    made.tell("join_transaction", made)
    return made


def _forget(request: Any) -> None:
    # It refers to the request: that would be a cycle.
    request.environ.pop(KEY, None)


def _wait_at_the_end(manager: Any) -> None:
    # A script ends its transaction itself, in a finally block as likely as not, after
    # what it has run in a greenlet. No request does, which would make a cycle.
    if isinstance(manager, TransactionManager):
        for name in ("abort", "commit"):
            method = getattr(type(manager), name)
            setattr(manager, name, functools.partial(bridge.run, method, manager))


def engine_of(registry: Any) -> Any:
    """The engine to use here, an ordinary one."""
    engines = registry.queryUtility(IEngines)
    if engines is None:
        raise ConfigurationError(explain(NOT_INCLUDED, "sqlalchemy-url"))
    return engines.current().sync_engine


def session(owner: Any) -> contextlib.AbstractContextManager[Session]:
    """Open a session with a transaction of its own::

        with aioext.sqlalchemy.session(request) as session:
            session.add(Message(text=text))

    For what runs when the request's own transaction is over, in which
    ``request.dbsession`` cannot be used: handlers of WebSockets, event streams,
    bodies that are streamed; and for what runs without a request. The transaction is
    committed at the end of the block, and rolled back if that is left by an
    exception. ``session.commit()`` in the block is allowed.

    Args:
        owner: a request, or the application's registry.

    Raises:
        ScopeError: nothing can wait here.

    Cancellation: in the block, where it waits; the transaction is rolled back. A
        commit that has begun is ended first.
    """
    registry = getattr(owner, "registry", owner)
    info = {} if registry is owner else {"request": owner}
    return _opened(WaitingSession(engine_of(registry), info=info))


@contextlib.contextmanager
def _opened(session: Session) -> Iterator[Session]:
    with session:
        yield session
        bridge.deliver_cancellation()
        bridge.shielded(session.commit)


OVER = """\
request.dbsession takes part in the request's transaction, and there is none here: it \
has not begun yet, or it is over. Handlers of WebSockets, event streams and bodies \
that are streamed run after the commit. Open a session and a transaction there:
    with aioext.sqlalchemy.session(request) as session: ...
In a script, begin the request's own: with request.tm: ..."""

NOT_INCLUDED = """\
There is no database to open a session of: the application has not included it. Write \
config.include('aioext.sqlalchemy')."""

"""SQLAlchemy's ordinary sessions, on asyncio.

``config.include('aioext.sqlalchemy')``, and synchronous code that uses
``request.dbsession`` waits for the database without blocking the loop; see
:func:`includeme`.
"""

from __future__ import annotations

from typing import Any

from .session import session as session

__all__ = ["includeme", "session"]


def includeme(config: Any) -> None:
    """Give requests a session: ``config.include('aioext.sqlalchemy')``.

    The setting ``sqlalchemy.url`` names a database with an asynchronous driver; other
    settings under ``sqlalchemy.`` are options of
    :func:`sqlalchemy.ext.asyncio.async_engine_from_config`.

    It includes ``aioext`` and ``pyramid_tm``, and adds ``request.dbsession``: an
    ordinary :class:`sqlalchemy.orm.Session` that takes part in the request's
    transaction. It is made when it is first asked for.

    Raises:
        ConfigurationError: when the configuration is committed, if ``sqlalchemy.url``
            is missing or names a driver that would block, or an option is wrong.
    """
    config.include("aioext.sqlalchemy.config")

"""One application of SQLAlchemy's ORM, for three ways of waiting for PostgreSQL.

The models and the views are the same for each: ordinary functions that use
``request.dbsession``. What differs is the URL, and who makes the session: an
application that blocks makes it as applications do (:func:`blocking`), and
:mod:`aioext.sqlalchemy` makes it for the others.

Paths: ``/`` asks the database nothing; ``/read`` reads twenty articles, and the
author of each, by lazy loading; ``/write`` inserts a row, and gives up every
fourth transaction; ``/wait`` has the database sleep for :data:`PAUSE` seconds.
The address of the database is in the environment variable :data:`VARIABLE`.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
)

VARIABLE = "AIOEXT_BENCHMARK_DATABASE"
POOL = 20
PAUSE = 0.05
AUTHORS = 5
ARTICLES = 20
# Of so many transactions, one is aborted.
ABORTED = 4


class Base(DeclarativeBase):
    """The root of the models."""


class Author(Base):
    """Wrote some articles."""

    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Article(Base):
    """Has one author."""

    __tablename__ = "article"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("author.id"))
    author: Mapped[Author] = relationship()


class Visit(Base):
    """What ``/write`` inserts."""

    __tablename__ = "visit"
    id: Mapped[int] = mapped_column(primary_key=True)
    kept: Mapped[bool]


def fill(url: str) -> None:
    """Make the tables and their rows; ``url`` is one of a blocking driver."""
    engine = sa.create_engine(url)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        authors = [Author(name=f"Author {number}") for number in range(AUTHORS)]
        session.add_all(authors)
        for number in range(ARTICLES):
            author = authors[number % AUTHORS]
            session.add(Article(title=f"Article {number}", author=author))
    engine.dispose()


def kept_visits(url: str) -> tuple[int, int]:
    """How many rows ``/write`` has left, and how many it was to give up."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        rows = sa.select(sa.func.count()).select_from(Visit)
        kept = connection.scalar(rows.where(Visit.kept))
        wrong = connection.scalar(rows.where(sa.not_(Visit.kept)))
    engine.dispose()
    return kept or 0, wrong or 0


def hello(request: Any) -> Any:
    """The view of ``/``."""
    return _text(request, "Hello World!")


def read(request: Any) -> Any:
    """The view of ``/read``."""
    articles = request.dbsession.scalars(sa.select(Article).order_by(Article.id))
    lines = [f"{article.title} by {article.author.name}" for article in articles]
    return _text(request, "\n".join(lines))


_numbers = itertools.count(1)


def write(request: Any) -> Any:
    """The view of ``/write``."""
    is_kept = next(_numbers) % ABORTED != 0
    request.dbsession.add(Visit(kept=is_kept))
    request.dbsession.flush()
    if not is_kept:
        request.tm.doom()
    return _text(request, "kept" if is_kept else "given up")


def wait(request: Any) -> Any:
    """The view of ``/wait``."""
    request.dbsession.execute(sa.select(sa.func.pg_sleep(PAUSE)))
    return _text(request, "waited")


def _text(request: Any, text: str) -> Any:
    request.response.text = text
    request.response.content_type = "text/plain"
    return request.response


def _application(driver: str, settings: dict[str, str], *includes: Any) -> Any:
    from pyramid.config import Configurator

    config = Configurator(
        settings={
            "sqlalchemy.url": f"postgresql+{driver}://{os.environ[VARIABLE]}",
            "sqlalchemy.pool_size": str(POOL),
            "sqlalchemy.max_overflow": "0",
            "tm.manager_hook": "pyramid_tm.explicit_manager",
            **settings,
        }
    )
    for each in includes:
        config.include(each)
    for path, view in ("/", hello), ("/read", read), ("/write", write), ("/wait", wait):
        config.add_route(path, path)
        config.add_view(view, route_name=path)
    return config.make_wsgi_app()


def asyncpg() -> Any:
    """aioext with asyncpg; views run in the request's greenlet."""
    return _asynchronous("asyncpg")


def psycopg() -> Any:
    """aioext with psycopg, its asynchronous side."""
    return _asynchronous("psycopg")


def _asynchronous(driver: str) -> Any:
    settings = {"aioext.sync_views": "inline"}
    return _application(driver, settings, "aioext", "aioext.sqlalchemy")


def blocking() -> Any:
    """Without aioext, on psycopg2, for servers that have threads."""
    return _application("psycopg2", {}, "pyramid_tm", _blocking_sessions)


def greened() -> Any:
    """Without aioext, on psycopg2 that waits for gevent."""
    from psycogreen.gevent import patch_psycopg

    patch_psycopg()
    return blocking()


def _blocking_sessions(config: Any) -> None:
    import zope.sqlalchemy

    engine = sa.engine_from_config(config.get_settings())

    def dbsession(request: Any) -> Session:
        session = Session(engine)
        zope.sqlalchemy.register(session, transaction_manager=request.tm)
        return session

    config.add_request_method(dbsession, reify=True)

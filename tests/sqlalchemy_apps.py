"""An application with a database, for the tests: authors and their books.

::

    with open_store("aiosqlite", tmp_path) as store:
        (client,) = ask(make(store), "/count")
        assert client.body == b"1"
"""

import asyncio
import contextlib
import os
import sys

import sqlalchemy
from asgi import Client
from inprocess import make_app
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response
from pyramid.scripting import prepare
from sqlalchemy import ForeignKey, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.pool import NullPool

import aioext
from aioext import wait
from aioext.sqlalchemy.interfaces import IEngines

SQLITE = "aiosqlite"
POSTGRESQL = ["asyncpg", "psycopg"]
DRIVERS = [SQLITE, *POSTGRESQL]


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    books: Mapped[list["Book"]] = relationship(
        back_populates="author", order_by="Book.title"
    )


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


class Store:
    """A database with the tables, seen from outside of the application.

    Attributes:
        driver: the name of the asynchronous driver.
        url: what ``sqlalchemy.url`` is to be.
        engine: an ordinary, synchronous engine.
    """

    def __init__(self, url, synchronous_url):
        self.driver = sqlalchemy.make_url(url).get_driver_name()
        self.url = url
        self.engine = create_engine(synchronous_url, poolclass=NullPool)
        Base.metadata.drop_all(self.engine)
        Base.metadata.create_all(self.engine)
        with sqlalchemy.orm.Session(self.engine) as session, session.begin():
            books = [Book(title="Emma"), Book(title="Persuasion")]
            session.add(Author(name="Austen", books=books))

    @property
    def settings(self):
        return {"sqlalchemy.url": self.url, "aioext.sync_views": "inline"}

    def names(self):
        """The names of the authors, sorted."""
        with self.engine.connect() as connection:
            return sorted(connection.scalars(select(Author.name)))


@contextlib.contextmanager
def open_store(driver, directory, postgresql=None):
    """A :class:`Store` for ``driver``."""
    if driver == SQLITE:
        path = directory / "store.sqlite"
        store = Store(f"sqlite+aiosqlite:///{path}", f"sqlite:///{path}")
    else:
        store = Store(postgresql.url(driver), postgresql.url("psycopg"))
    try:
        yield store
    finally:
        store.engine.dispose()


class Root:
    """A resource tree that is read from the database."""

    def __init__(self, request):
        self.request = request

    def __getitem__(self, name):
        found = self.request.dbsession.scalar(select(Author).where(Author.name == name))
        if found is None:
            raise KeyError(name)
        return found


def count(request):
    return Response(str(len(request.dbsession.scalars(select(Author)).all())))


async def count_in_coroutine(request):
    await asyncio.sleep(0)
    return count(request)


def add(request):
    """Add the author ``name``; then wait, and ``fail`` if that is asked for."""
    request.dbsession.add(Author(name=request.params["name"]))
    request.dbsession.flush()
    wait(asyncio.sleep(0))
    if "fail" in request.params:
        raise ValueError("after the flush")
    return Response("added")


def show_author(author, request):
    # Its books are loaded by whoever renders this.
    return {"author": author}


def failed(error, request):
    request.response.status = 500
    request.response.text = str(error)
    return request.response


class LazyRenderer:
    """Renders an author, loading the books."""

    def __init__(self, info): ...

    def __call__(self, value, system):
        author = value["author"]
        return f"{author.name}: {', '.join(book.title for book in author.books)}"


def counting_tween(handler, registry):
    """Tells how many authors there were before and after, in headers."""

    def number(request):
        return str(len(request.dbsession.scalars(select(Author.id)).all()))

    def tween(request):
        before = number(request)
        response = handler(request)
        response.headers["X-Before"] = before
        response.headers["X-After"] = number(request)
        return response

    return tween


def missing(request):
    raise HTTPNotFound


def slow(request):
    """Keep a connection busy for a while, and add an author before."""
    request.dbsession.add(Author(name=request.params.get("name", "slow")))
    request.dbsession.flush()
    seconds = float(request.params.get("seconds", 60))
    request.dbsession.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
    if "fail" in request.params:
        raise ValueError("after the sleep")
    return Response("slept")


def configure(config):
    """What the applications have in common."""
    config.include("aioext.sqlalchemy")
    config.set_root_factory(Root)
    config.add_renderer("lazy", LazyRenderer)
    config.add_tween(f"{__name__}.counting_tween", under="pyramid_tm.tm_tween_factory")
    config.add_view(count, name="count")
    config.add_view(count_in_coroutine, name="coroutine")
    config.add_view(add, name="add")
    config.add_view(slow, name="slow")
    config.add_view(show_author, context=Author, renderer="lazy")
    config.add_view(failed, context=ValueError)


def make(store, *steps, **settings):
    """The application, in process."""
    return make_app(configure, *steps, settings={**store.settings, **settings})


def checked_out(request):
    """How many connections are in use: one at least, for the traversal."""
    engine = request.registry.getUtility(IEngines).current()
    return Response(str(engine.pool.checkedout()))


def served():
    """The application for a server: ``sqlalchemy_apps:served()``."""
    settings = {
        "sqlalchemy.url": os.environ["STORE_URL"],
        "aioext.sync_views": os.environ.get("SYNC_VIEWS", "inline"),
        "sqlalchemy.pool_size": "20",
        "sqlalchemy.max_overflow": "0",
    }
    with Configurator(settings=settings) as config:
        configure(config)
        config.add_view(checked_out, name="checked_out")
        config.add_view(pid, name="pid")
        app = config.make_wsgi_app()
    if "--preload" in sys.argv:
        # The master uses the database before it forks.
        with prepare(registry=app.registry) as environment:
            request = environment["request"]
            with request.tm:
                aioext.run(count, request)
    return app


def pid(request):
    """Which process this is, having asked the database something."""
    count(request)
    return Response(str(os.getpid()))


def client_of(path):
    """The :class:`asgi.Client` of a path with a query."""
    path, _, query = path.partition("?")
    return Client(path, query_string=query.encode())


def ask(app, *paths):
    """The clients of requests that overlap, in the order of ``paths``."""

    async def overlap():
        return await asyncio.gather(*[client_of(path).call(app) for path in paths])

    return asyncio.run(overlap())

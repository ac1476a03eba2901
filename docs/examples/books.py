"""An application with a database: the examples of the page on SQLAlchemy."""

import sys

from pyramid.config import Configurator
from pyramid.paster import bootstrap, setup_logging
from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

import aioext.sqlalchemy
from aioext.testing import TestApp
from aioext.websocket import WebsocketMapper


# model
class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    books: Mapped[list["Book"]] = relationship()


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))


# end


# application
def main(global_config=None, **settings):
    with Configurator(settings=settings) as config:
        config.include("aioext.sqlalchemy")
        config.add_route("author", "/authors/{name}")
        config.add_view(author, route_name="author", renderer="json")
        config.include(live)
        return config.make_wsgi_app()


def author(request):
    by_name = select(Author).where(Author.name == request.matchdict["name"])
    found = request.dbsession.scalars(by_name).one()
    return {"name": found.name, "books": [book.title for book in found.books]}


# end


# socket
async def guestbook(request, ws):
    async for name in ws:
        with aioext.sqlalchemy.session(request) as db:
            db.add(Author(name=name))
        await ws.send(f"Welcome, {name}")


def live(config):
    config.add_route("guestbook", "/guestbook")
    config.add_view(guestbook, route_name="guestbook", mapper=WebsocketMapper)


# end


# script
def fill_database(argv=sys.argv):
    setup_logging(argv[1])
    with bootstrap(argv[1]) as env:
        aioext.run(add_authors, env["request"])


def add_authors(request):
    with request.tm:
        request.dbsession.add(Author(name="Austen", books=[Book(title="Emma")]))


# end


# tests
def make_test_app(directory):
    path = directory / "test.sqlite"
    engine = create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    engine.dispose()
    return TestApp(main(**{"sqlalchemy.url": f"sqlite+aiosqlite:///{path}"}))


# end

"""The page on SQLAlchemy: what it shows is run."""

import alembic.command
import alembic.config
import pytest
from sqlalchemy import create_engine, inspect, select
from sqlalchemy.orm import Session
from test_docs import EXAMPLES, load
from webtest import TestApp as PlainTestApp

__all__ = ["load"]

INI = """
[app:main]
use = call:books:main
sqlalchemy.url = sqlite+aiosqlite:///%(here)s/test.sqlite

[alembic]
script_location = %(here)s/migrations
"""

MIGRATION = """
from alembic import op
from sqlalchemy import Column, Integer, String

revision = "one"
down_revision = None


def upgrade():
    op.create_table(
        "author",
        Column("id", Integer, primary_key=True),
        Column("name", String, unique=True),
    )


def downgrade():
    op.drop_table("author")
"""


@pytest.fixture
def books(load):
    return load("books")


@pytest.fixture
def ini(tmp_path):
    path = tmp_path / "app.ini"
    path.write_text(INI, "utf-8")
    return path


@pytest.fixture
def engine(tmp_path):
    """Of the same database."""
    engine = create_engine(f"sqlite:///{tmp_path}/test.sqlite")
    yield engine
    engine.dispose()


def test_the_application_is_as_shown(books, tmp_path, ini, engine):
    with books.make_test_app(tmp_path) as app:
        books.fill_database(["fill", str(ini)])
        assert app.get("/authors/Austen").json == {"name": "Austen", "books": ["Emma"]}
        with app.websocket("/guestbook") as ws:
            ws.send("Eliot")
            assert ws.recv() == "Welcome, Eliot"
    with Session(engine) as session:
        names = session.scalars(select(books.Author.name)).all()
    assert sorted(names) == ["Austen", "Eliot"]
    plain = PlainTestApp(app.app)
    assert plain.get("/authors/Eliot").json == {"name": "Eliot", "books": []}


def test_a_test_may_give_its_own_session(books, tmp_path, ini, engine):
    with books.make_test_app(tmp_path) as app, Session(engine) as session:
        session.add(books.Author(name="Woolf"))
        session.flush()
        environ = {"app.dbsession": session}
        answer = app.get("/authors/Woolf", extra_environ=environ)
        assert answer.json == {"name": "Woolf", "books": []}


def test_migrations_run_over_the_asynchronous_driver(books, tmp_path, ini, engine):
    migrations = tmp_path / "migrations"
    (migrations / "versions").mkdir(parents=True)
    env = (EXAMPLES / "alembic_env.py").read_text("utf-8")
    (migrations / "env.py").write_text(env, "utf-8")
    (migrations / "versions" / "one.py").write_text(MIGRATION, "utf-8")
    config = alembic.config.Config(str(ini))
    alembic.command.upgrade(config, "head")
    assert inspect(engine).has_table("author")
    alembic.command.downgrade(config, "base")
    assert not inspect(engine).has_table("author")

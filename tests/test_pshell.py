"""The shell of ``pshell`` in which everything may wait."""

import io
import logging
import sys

import pytest
from pyramid.scripts.prequest import PRequestCommand
from pyramid.scripts.pshell import PShellCommand
from sqlalchemy_apps import configure, open_store

from aioext.pshell import AwaitingConsole, run_shell

INI = """
[app:main]
use = call:test_pshell:application
sqlalchemy.url = {url}
aioext.sync_views = inline

[pshell]
setup = test_pshell.setup
select = sqlalchemy.select
Author = sqlalchemy_apps.Author
"""


def application(global_config, **settings):
    from pyramid.config import Configurator

    with Configurator(settings=settings) as config:
        configure(config)
        return config.make_wsgi_app()


def setup(env):
    """As the one of Pyramid's cookiecutter."""
    request = env["request"]
    request.tm.begin()
    env["tm"] = request.tm
    env["dbsession"] = request.dbsession
    try:
        yield
    finally:
        request.tm.abort()


@pytest.fixture
def store(tmp_path):
    with open_store("aiosqlite", tmp_path) as store:
        (tmp_path / "app.ini").write_text(INI.format(url=store.url), "utf-8")
        yield store


@pytest.fixture
def typed(monkeypatch, capsys):
    """Types lines into what a function reads; gives what it wrote."""

    def typed(function, *lines):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
        function()
        out, err = capsys.readouterr()
        return out + err

    return typed


@pytest.fixture
def shell(typed, store, tmp_path):
    command = PShellCommand(["pshell", str(tmp_path / "app.ini")])
    return lambda *lines: typed(lambda: command.run(shell=run_shell), *lines)


def test_a_session_works_as_in_a_view(shell, store):
    written = shell(
        "author = dbsession.scalars(select(Author)).one()",
        "[book.title for book in author.books]",
        "author.name = 'Jane'",
        "dbsession.flush()",
    )
    assert "['Emma', 'Persuasion']" in written
    assert "Traceback" not in written
    # The setup has aborted, outside of what was typed.
    assert store.names() == ["Austen"]


def test_what_is_committed_stays(shell, store):
    shell(
        "dbsession.add(Author(name='Eliot'))",
        "tm.commit()",
        "tm.begin()",
    )
    assert store.names() == ["Austen", "Eliot"]


def test_await_stands_at_the_top_level(shell):
    written = shell(
        "import asyncio",
        "await asyncio.sleep(0, 'awaited')",
        "found = await asyncio.sleep(0, 'kept')",
        "found * 2",
        "async def lookup():",
        "    await asyncio.sleep(0)",
        "    return dbsession.scalars(select(Author.name)).one()",
        "",
        "await lookup()",
    )
    for text in ("'awaited'", "'keptkept'", "'Austen'"):
        assert text in written
    assert "Traceback" not in written


def test_the_banner_tells_what_there_is(shell):
    written = shell("")
    assert "Environment:" in written
    assert "Active request object." in written
    assert "can be awaited" in written


def test_an_error_is_shown_and_the_shell_goes_on(shell):
    written = shell("1 / 0", "await nothing()", "print('still', 'here')")
    assert "ZeroDivisionError" in written
    assert "NameError" in written
    assert "still here" in written


def test_exit_ends_it(typed):
    def enter():
        with pytest.raises(SystemExit):
            AwaitingConsole({}).interact("")

    assert "unreached" not in typed(enter, "raise SystemExit", "print('unreached')")


def test_prequest_works(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", True)
    command = PRequestCommand(["prequest", str(tmp_path / "app.ini"), "/Austen"])
    assert command.run() == 0
    assert capsys.readouterr().out == "Austen: Emma, Persuasion\n"
    command = PRequestCommand(
        ["prequest", str(tmp_path / "app.ini"), "/add?name=Eliot"]
    )
    assert command.run() == 0
    assert store.names() == ["Austen", "Eliot"]

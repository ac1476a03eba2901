"""``request.dbsession``: an ordinary session, wherever a request is served."""

import asyncio
import gc
import threading

import pytest
import transaction
from asgi_websocket import InProcess
from inprocess import make_app
from postgresql import postgresql
from pyramid.response import Response
from pyramid.scripting import prepare
from sqlalchemy import delete, event, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.exc import TimeoutError as TooMany
from sqlalchemy.orm import Session
from sqlalchemy_apps import (
    DRIVERS,
    POSTGRESQL,
    Author,
    Book,
    ask,
    client_of,
    make,
    open_store,
)
from webtest import TestApp
from zope.sqlalchemy import mark_changed, register

import aioext
from aioext import sqlalchemy as database
from aioext.body import CalledBody
from aioext.eventsource import EventSourceMapper
from aioext.exceptions import NoTransaction, ScopeError
from aioext.sqlalchemy.interfaces import IEngines
from aioext.sqlalchemy.session import EVENTS, KEY
from aioext.threads import provide
from aioext.websocket import WebsocketMapper

__all__ = ["postgresql"]

MODES = ["inline", "executor", "request"]


@pytest.fixture(params=DRIVERS)
def store(request, tmp_path):
    """A database of each kind."""
    server = None
    if request.param != "aiosqlite":
        server = request.getfixturevalue("postgresql")
    with open_store(request.param, tmp_path, server) as store:
        yield store


@pytest.fixture
def sqlite(tmp_path):
    """The cheapest one, for what has nothing to do with the driver."""
    with open_store("aiosqlite", tmp_path) as store:
        yield store


@pytest.mark.parametrize("mode", MODES)
def test_it_works_in_views_and_all_that_is_around_them(store, mode):
    app = make(store, **{"aioext.sync_views": mode})
    paths = ["/count", "/coroutine", "/Austen", "/add?name=Eliot", "/nobody"]
    clients = [ask(app, path)[0] for path in paths]
    assert [client.status for client in clients] == [200, 200, 200, 200, 404]
    assert clients[0].body == clients[1].body == b"1"
    assert clients[2].body == b"Austen: Emma, Persuasion"
    assert (b"x-before", b"1") in clients[3].headers
    assert (b"x-after", b"2") in clients[3].headers
    assert store.names() == ["Austen", "Eliot"]


@pytest.mark.parametrize("mode", MODES)
def test_a_template_loads_what_it_shows(sqlite, tmp_path, mode):
    def configure(config):
        config.include("pyramid_jinja2")
        config.add_jinja2_search_path(str(tmp_path))
        config.add_view(view, renderer="author.jinja2")

    def view(request):
        return {"author": request.dbsession.scalars(select(Author)).one()}

    template = "{% for book in author.books %}{{ book.title }} {% endfor %}"
    (tmp_path / "author.jinja2").write_text(template, "utf-8")
    app = make(sqlite, configure, **{"aioext.sync_views": mode})
    clients = ask(app, *["/"] * 5)
    assert {client.body for client in clients} == {b"Emma Persuasion "}


def test_one_request_too_many_is_told(sqlite):
    def view(request):
        request.dbsession.connection()
        with database.session(request) as session, pytest.raises(TooMany):
            session.connection()
        return Response()

    few = {"pool_size": "1", "max_overflow": "0", "pool_timeout": "0"}
    settings = {f"sqlalchemy.{name}": value for name, value in few.items()}
    app = make(sqlite, lambda config: config.add_view(view), **settings)
    assert ask(app, "/")[0].status == 200


def test_a_request_that_fails_leaves_nothing_and_the_others_all(store):
    names = [f"author {number}" for number in range(20)]
    paths = [
        f"/add?name={name}{'&fail=1' if number % 4 == 0 else ''}"
        for number, name in enumerate(names)
    ]
    clients = ask(make(store), *(path.replace(" ", "%20") for path in paths))
    failed = [client.status == 500 for client in clients]
    assert failed == [number % 4 == 0 for number in range(20)]
    kept = {name for number, name in enumerate(names) if number % 4}
    assert set(store.names()) == {"Austen", *kept}


# Where no loop serves


def test_it_works_under_a_plain_wsgi_server(store):
    app = TestApp(make(store).app)
    assert app.get("/count").body == b"1"
    assert app.get("/coroutine").body == b"1"
    assert app.get("/Austen").body == b"Austen: Emma, Persuasion"
    added = app.get("/add?name=Eliot")
    assert (added.headers["X-Before"], added.headers["X-After"]) == ("1", "2")
    assert app.get("/add?name=Woolf&fail=1", status=500)
    assert store.names() == ["Austen", "Eliot"]


def test_it_works_in_the_threads_of_a_plain_wsgi_server(store):
    app = TestApp(make(store).app)
    names = [f"author{number}" for number in range(8)]
    threads = [
        threading.Thread(target=app.get, args=(f"/add?name={name}",)) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.names() == sorted(["Austen", *names])


@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_it_works_with_an_execution_policy_of_the_application_s_own(sqlite, kind):
    def function(environ, router):
        with router.request_context(environ) as request:
            return router.invoke_request(request)

    async def coroutine(environ, router):
        return await aioext.spawn_greenlet(function, environ, router)

    policy = {"function": function, "coroutine": coroutine}[kind]
    app = make(sqlite, lambda config: config.set_execution_policy(policy))
    assert TestApp(app.app).get("/count").body == b"1"
    assert ask(app, "/count")[0].body == b"1"


def test_a_range_of_a_body_can_be_asked_for(sqlite):
    class Body:
        closed = False

        def __iter__(self):
            return iter([b"body"])

        def app_iter_range(self, start, stop):
            return [b"body"[start:stop]]

        def close(self):
            self.closed = True

    def view(request):
        return Response(app_iter=body, content_length=4, conditional_response=True)

    body = Body()
    app = TestApp(make(sqlite, lambda config: config.add_view(view)).app)
    assert app.get("/").headers["Content-Length"] == "4"
    assert body.closed
    assert app.get("/", headers={"Range": "bytes=1-2"}).body == b"od"
    assert not hasattr(CalledBody([], provide), "anything_else")


def test_it_works_in_scripts(store):
    registry = make(store).app.registry

    def rename(request):
        (author,) = request.dbsession.scalars(select(Author))
        author.name = f"Jane {author.name}"
        assert len(author.books) == 2

    with prepare(registry=registry) as environment:
        request = environment["request"]
        with request.tm:
            aioext.run(rename, request)
        assert store.names() == ["Jane Austen"]
        with pytest.raises(ZeroDivisionError), request.tm:  # noqa: PT012
            aioext.run(rename, request)
            raise ZeroDivisionError
        assert store.names() == ["Jane Austen"]
        request.tm.begin()
        aioext.run(rename, request)
        request.tm.abort()
    assert store.names() == ["Jane Austen"]


def test_a_script_may_use_the_manager_of_its_thread(sqlite):
    settings = {"aioext.allow_threadlocal_transactions": "true"}
    registry = make(sqlite, **settings).app.registry

    def add_author(request):
        assert request.tm is transaction.manager
        with request.tm:
            request.dbsession.add(Author(name="Eliot"))

    with prepare(registry=registry) as environment:
        aioext.run(add_author, environment["request"])
    assert sqlite.names() == ["Austen", "Eliot"]


def test_a_script_without_run_is_told_to_write_it(store):
    with prepare(registry=make(store).app.registry) as environment:
        request = environment["request"]
        with request.tm, pytest.raises(ScopeError, match=r"aioext\.run\(function\)"):
            request.dbsession.scalars(select(Author))


def test_a_task_of_its_own_is_told_to_spawn_a_greenlet(sqlite):
    async def view(request):
        async def task():
            return request.dbsession.scalars(select(Author)).all()

        with pytest.raises(ScopeError, match="spawn_greenlet"):
            await asyncio.create_task(task())
        found = await asyncio.create_task(aioext.spawn_greenlet(lookup, request))
        return Response(found)

    def lookup(request):
        return request.dbsession.scalars(select(Author.name)).one()

    app = make(sqlite, lambda config: config.add_view(view))
    assert ask(app, "/")[0].body == b"Austen"


# After the commit


def test_a_body_that_is_streamed_opens_a_session_of_its_own(sqlite):
    def body(request):
        with pytest.raises(NoTransaction, match=r"aioext\.sqlalchemy\.session"):
            request.dbsession.scalars(select(Author))
        with database.session(request) as session:
            session.add(Author(name="Woolf"))
            for author in session.scalars(select(Author).order_by(Author.name)):
                yield author.name.encode()

    def view(request):
        request.dbsession.add(Author(name="Eliot"))
        return Response(app_iter=body(request))

    app = make(sqlite, lambda config: config.add_view(view))
    assert ask(app, "/")[0].body == b"AustenEliotWoolf"
    assert sqlite.names() == ["Austen", "Eliot", "Woolf"]


def test_a_body_that_is_streamed_by_a_plain_wsgi_server_does_too(sqlite):
    def body(request):
        with database.session(request) as session:
            for author in session.scalars(select(Author)):
                yield author.name.encode()

    def view(request):
        return Response(app_iter=body(request))

    app = make(sqlite, lambda config: config.add_view(view))
    assert TestApp(app.app).get("/").body == b"Austen"


def test_a_session_that_was_kept_is_refused_after_the_commit(sqlite):
    def body(session):
        for use in (
            lambda: session.scalars(select(Author)),
            lambda: session.add(Author(name="Woolf")),
            lambda: session.execute(text("SELECT 1")),
            session.connection,
        ):
            with pytest.raises(NoTransaction):
                use()
        yield b"refused"

    def view(request):
        return Response(app_iter=body(request.dbsession))

    app = make(sqlite, lambda config: config.add_view(view))
    assert ask(app, "/")[0].body == b"refused"
    assert sqlite.names() == ["Austen"]


def test_a_stream_of_events_opens_a_session_of_its_own(sqlite):
    async def names(request):
        with pytest.raises(NoTransaction):
            request.dbsession  # noqa: B018
        with database.session(request) as session:
            for author in session.scalars(select(Author)):
                yield author.name

    app = make(sqlite, lambda c: c.add_view(names, mapper=EventSourceMapper))
    assert b"Austen" in ask(app, "/")[0].body


def test_the_handler_of_a_websocket_opens_a_session_of_its_own(sqlite):
    async def guestbook(request, ws):
        async for name in ws:
            with pytest.raises(NoTransaction):
                request.dbsession  # noqa: B018
            with database.session(request) as session:
                session.add(Author(name=name))
            await ws.send(str(len(sqlite.names())))

    async def talk():
        async with InProcess(app).connect("/") as ws:
            await ws.send("Eliot")
            return await ws.recv()

    app = make(sqlite, lambda c: c.add_view(guestbook, mapper=WebsocketMapper))
    assert asyncio.run(talk()) == "2"
    assert sqlite.names() == ["Austen", "Eliot"]


# A session of its own


def test_what_fails_in_a_session_of_its_own_is_rolled_back(sqlite):
    registry = make(sqlite).app.registry

    def fail():
        with database.session(registry) as session:
            session.add(Author(name="Eliot"))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        aioext.run(fail)
    assert sqlite.names() == ["Austen"]


def test_a_session_of_its_own_is_an_ordinary_one(sqlite):
    registry = make(sqlite).app.registry

    def work():
        with database.session(registry) as session:
            assert isinstance(session, Session)
            session.add(Author(name="Eliot"))
            session.commit()
            assert sqlite.names() == ["Austen", "Eliot"]
            session.add(Author(name="Woolf"))

    aioext.run(work)
    assert sqlite.names() == ["Austen", "Eliot", "Woolf"]


@pytest.mark.parametrize("point", ["in the block", "in the commit"])
def test_a_cancellation_ends_a_session_of_its_own(sqlite, point):
    async def main():
        begun, going_on = asyncio.Event(), asyncio.Event()

        def pause():
            begun.set()
            aioext.wait(going_on.wait())

        def work():
            with database.session(registry) as session:
                if point == "in the commit":
                    event.listen(session, "before_commit", lambda session: pause())
                session.add(Author(name="Eliot"))
                session.flush()
                if point == "in the block":
                    pause()

        task = asyncio.create_task(aioext.spawn_greenlet(work))
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        going_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        engine = registry.getUtility(IEngines).current()
        assert engine.pool.checkedout() == 0

    registry = make(sqlite).app.registry
    asyncio.run(main())
    # A commit that has begun is ended.
    kept = ["Austen", "Eliot"] if point == "in the commit" else ["Austen"]
    assert sqlite.names() == kept


# The session


@pytest.mark.parametrize("driver", POSTGRESQL)
def test_a_transaction_that_another_one_was_in_the_way_of_is_retried(
    postgresql,
    tmp_path,
    driver,
):
    attempts = []

    def view(request):
        # Each reads what the other one writes.
        number = len(request.dbsession.scalars(select(Author)).all())
        attempts.append(number)
        if len(attempts) == 2:
            both.set()
        aioext.wait(both.wait())
        request.dbsession.add(Author(name=f"author {number} {request.params['name']}"))
        return Response()

    def configure(config):
        config.include("pyramid_retry")
        config.add_view(view, name="both")

    async def main():
        nonlocal both
        both = asyncio.Event()
        paths = ["/both?name=a", "/both?name=b"]
        clients = await asyncio.gather(*[client_of(p).call(app) for p in paths])
        return [client.status for client in clients]

    both = None
    with open_store(driver, tmp_path, postgresql) as store:
        settings = {"sqlalchemy.isolation_level": "SERIALIZABLE"}
        app = make(store, configure, **settings)
        assert asyncio.run(main()) == [200, 200]
        assert len(store.names()) == 3
    assert attempts == [1, 1, 2]


def test_it_is_made_once_and_only_if_it_is_asked_for(sqlite):
    made = []

    def view(request):
        request.environ.get(KEY) is None or made.append("too early")
        made.append(request.dbsession is request.dbsession)
        made.append(isinstance(request.dbsession, Session))
        made.append(request.dbsession.info["request"] is request)
        return Response()

    # Without the tween, which asks for it.
    settings = {**sqlite.settings}
    app = make_app("aioext.sqlalchemy", lambda c: c.add_view(view), settings=settings)
    assert ask(app, "/")[0].status == 200
    assert made == [True, True, True]


def test_one_that_a_test_gives_is_used_instead(sqlite):
    app = TestApp(make(sqlite).app)
    with Session(sqlite.engine) as session:
        session.add(Author(name="Eliot"))
        session.flush()
        environ = {"app.dbsession": session}
        assert app.get("/count", extra_environ=environ).body == b"2"
    assert sqlite.names() == ["Austen"]


def test_a_manager_that_a_test_gives_is_used(sqlite):
    app = TestApp(make(sqlite).app)
    manager = transaction.TransactionManager(explicit=True)
    environ = {"tm.active": True, "tm.manager": manager}
    manager.begin()
    assert app.get("/add?name=Eliot", extra_environ=environ).body == b"added"
    aioext.run(manager.abort)
    assert sqlite.names() == ["Austen"]


def test_it_cannot_commit_by_itself(sqlite):
    def view(request):
        request.dbsession.add(Author(name="Eliot"))
        with pytest.raises(AssertionError, match="using the transaction manager"):
            request.dbsession.commit()
        request.tm.abort()
        request.tm.begin()
        return Response()

    app = make(sqlite, lambda config: config.add_view(view))
    assert ask(app, "/")[0].status == 200
    assert sqlite.names() == ["Austen"]


def test_it_goes_on_in_the_next_transaction_of_its_request(sqlite):
    def view(request):
        session = request.dbsession
        session.add(Author(name="Eliot"))
        request.tm.commit()
        request.tm.begin()
        assert request.dbsession is session
        session.add(Author(name="Woolf"))
        request.tm.abort()
        request.tm.begin()
        return Response(str(len(session.scalars(select(Author)).all())))

    app = make(sqlite, lambda config: config.add_view(view))
    assert ask(app, "/")[0].body == b"2"
    assert sqlite.names() == ["Austen", "Eliot"]


def test_what_is_changed_in_bulk_is_committed(sqlite):
    def view(request):
        request.dbsession.execute(update(Author).values(name="Jane Austen"))
        request.dbsession.execute(delete(Book))
        return Response()

    app = make(sqlite, lambda config: config.add_view(view))
    ask(app, "/")
    assert sqlite.names() == ["Jane Austen"]


def test_savepoints_work(postgresql, tmp_path):
    def view(request):
        request.dbsession.add(Author(name="Eliot"))
        savepoint = request.tm.savepoint()
        request.dbsession.add(Author(name="Woolf"))
        request.dbsession.flush()
        savepoint.rollback()
        with pytest.raises(IntegrityError), request.dbsession.begin_nested():
            request.dbsession.add(Author(name="Austen"))
        return Response()

    with open_store("asyncpg", tmp_path, postgresql) as store:
        app = make(store, lambda config: config.add_view(view))
        assert ask(app, "/")[0].status == 200
        assert store.names() == ["Austen", "Eliot"]


def test_zope_listens_to_the_events_that_are_passed_on(monkeypatch):
    listened = set()
    monkeypatch.setattr(
        event, "listen", lambda target, name, listener: listened.add(name)
    )
    register(Session())
    assert listened == set(EVENTS)


def test_a_session_is_no_garbage(sqlite):
    app = make(sqlite)

    async def count():
        await client_of("/add?name=Eliot").call(app)
        await client_of("/count").call(app)
        gc.collect()
        gc.disable()
        try:
            await client_of("/count").call(app)
            # By their types: some stand for others.
            return [
                type(each)
                for each in gc.get_objects()
                if issubclass(type(each), Session)
            ]
        finally:
            gc.enable()

    assert asyncio.run(count()) == []


def test_a_session_is_marked_without_naming_its_manager(store):
    def mark(request):
        mark_changed(request.dbsession)
        insert = text("INSERT INTO author (name) VALUES ('Bronte')")
        request.dbsession.execute(insert)
        return Response("marked")

    def configure(config):
        # Nothing has asked the session before.
        config.add_view(mark, name="mark")

    app = make_app("aioext.sqlalchemy", configure, settings=store.settings)
    (client,) = ask(app, "/mark")
    assert client.status == 200
    assert store.names() == ["Austen", "Bronte"]


@pytest.mark.parametrize("mode", MODES)
def test_connections_before_threads_are_warned_of(mode, caplog):
    settings = {"sqlalchemy.url": "sqlite+aiosqlite://", "aioext.sync_views": mode}
    make_app("aioext.sqlalchemy", settings=settings)
    told = [each for each in caplog.messages if "have a connection" in each]
    assert len(told) == (mode == "executor")

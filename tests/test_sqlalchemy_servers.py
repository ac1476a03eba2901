"""The application with a database, served by real servers over real sockets."""

import asyncio
import http.client
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from life import ENVIRON, assert_clean
from postgresql import postgresql
from servers import COMMANDS, DEADLINE, poll, run
from sqlalchemy_apps import open_store
from test_sqlalchemy_load import SLEEPING, Watch

__all__ = ["postgresql"]

APP = "sqlalchemy_apps:served()"
GTHREAD = ["gunicorn", "-k", "gthread", "--threads", "8", "-b", "127.0.0.1:0"]


@pytest.fixture
def store(postgresql, tmp_path):
    with open_store("asyncpg", tmp_path, postgresql) as store:
        yield store


def environ(store, mode="inline"):
    return {**ENVIRON, "STORE_URL": store.url, "SYNC_VIEWS": mode}


def get(server, path):
    """Status and body of the answer to a GET on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def get_all(server, paths):
    """The answers to GETs that overlap."""
    with ThreadPoolExecutor(len(paths)) as pool:
        return list(pool.map(lambda path: get(server, path), paths))


SERVERS = {
    "worker, inline": (COMMANDS["gunicorn"], "inline"),
    "worker, executor": (COMMANDS["gunicorn"], "executor"),
    "worker, request": (COMMANDS["gunicorn"], "request"),
    "gthread": (GTHREAD, "executor"),
}


@pytest.mark.parametrize("kind", SERVERS)
def test_requests_that_overlap_have_transactions_of_their_own(store, kind):
    command, mode = SERVERS[kind]
    paths = [
        f"/add?name=author{number}{'&fail=1' if number % 4 == 0 else ''}"
        for number in range(20)
    ]
    with run([*command, APP], environ=environ(store, mode)) as server:
        statuses = [status for status, _ in get_all(server, paths)]
        assert statuses == [500 if number % 4 == 0 else 200 for number in range(20)]
        assert get(server, "/Austen") == (200, "Austen: Emma, Persuasion")
        assert server.stop() == 0
        assert_clean(server)
    kept = {f"author{number}" for number in range(20) if number % 4}
    assert set(store.names()) == {"Austen", *kept}


@pytest.mark.parametrize("kind", ["worker, inline", "gthread"])
def test_what_was_opened_before_the_fork_is_not_used_after_it(store, kind):
    command, mode = SERVERS[kind]
    options = ["--preload", "--workers", "2"]
    with run([*command, *options, APP], environ=environ(store, mode)) as server:
        workers = set()

        def both():
            answers = get_all(server, ["/pid"] * 8)
            assert {status for status, _ in answers} == {200}
            workers.update(pid for _, pid in answers)
            return len(workers) == 2

        poll(both, server.describe)
        assert server.stop() == 0
        assert_clean(server)


def leave(server, path):
    """Ask for something; gives the socket, to be closed."""
    client = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return client


@pytest.mark.parametrize("mode", ["inline", "executor"])
def test_clients_that_hang_up_leave_no_connection_checked_out(
    store,
    postgresql,
    mode,
):
    command = [*COMMANDS["gunicorn"], APP]
    with (
        run(command, environ=environ(store, mode)) as server,
        Watch(postgresql) as watch,
    ):
        for number in range(2):
            clients = [
                leave(server, f"/slow?name=author{number}-{each}") for each in range(20)
            ]
            asyncio.run(watch.until(20, SLEEPING))
            for client in clients:
                client.close()
            asyncio.run(watch.until(0, SLEEPING))
        poll(lambda: get(server, "/checked_out") == (200, "1"), server.describe)
        assert get(server, "/count") == (200, "1")
        assert server.stop() == 0
    assert store.names() == ["Austen"]

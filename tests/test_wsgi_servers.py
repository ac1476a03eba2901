"""Plain WSGI servers: the application is the same, and a request has a thread.

The application is ``apps/plain_app.py``, the servers that are not somebody's are in
``apps/plain_servers.py``.
"""

import http.client
import itertools
import json
import re
import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
from life import APPS, ENVIRON, get
from servers import DEADLINE, poll, run

GUNICORN = ["gunicorn", "-b", "127.0.0.1:0", "--no-control-socket"]
FACTORY = "plain_app:make"
SERVERS = {
    "waitress": [
        *("waitress", "--host=127.0.0.1", "--port=0", "--threads=8"),
        *("--call", FACTORY),
    ],
    "gthread": [*GUNICORN, "-k", "gthread", "--threads", "8", f"{FACTORY}()"],
    "granian": [
        *("granian", "--interface", "wsgi", "--port", "PORT"),
        *("--blocking-threads", "8", "--factory", FACTORY),
    ],
    "threads": ["plain_servers", "threads", FACTORY],
    "foreign": ["plain_servers", "foreign", FACTORY],
    "sync": [*GUNICORN, "-k", "sync", f"{FACTORY}()"],
    "wsgiref": ["plain_servers", "wsgiref", FACTORY],
}
ONE_AT_A_TIME = {"sync", "wsgiref"}
# wsgiref knows no chunked requests.
CHUNKED = ["waitress", "gthread", "granian", "sync"]

keys = itertools.count()


def start(kind):
    return run(SERVERS[kind], APPS, ENVIRON)


@pytest.fixture(scope="module", params=SERVERS)
def server(request):
    with start(request.param) as server:
        server.kind = request.param
        yield server
        errors = server.output.count("Traceback")
        expected = re.findall(
            r"^(?:\w+\.)*(?:Expected|GatewayError):", server.output, re.M
        )
        # One has the CancelledError that it is about as its cause.
        assert errors <= len(expected) * 2, server.output


threaded = pytest.mark.parametrize(
    "server", [kind for kind in SERVERS if kind not in ONE_AT_A_TIME], indirect=True
)


@pytest.fixture
def key():
    return f"k{next(keys)}"


def ask(server, path, method="GET", body=None, headers=(), **options):
    """The response, read, to a request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
    try:
        connection.request(method, path, body, dict(headers), **options)
        response = connection.getresponse()
        response.body = response.read()
    finally:
        connection.close()
    return response


class Stream:
    """A response that is read in parts."""

    def __init__(self, server, path):
        self._socket = server.connect()
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close"]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._response = http.client.HTTPResponse(self._socket)
        self.text = ""

    def begin(self):
        self._response.begin()
        return self

    def until(self, text):
        while text not in self.text:
            part = self._response.read1(65_536)
            assert part, (text, self.text)
            self.text += part.decode()
        return self

    @property
    def status(self):
        return self._response.status

    def until_end(self):
        while part := self._response.read1(65_536):
            self.text += part.decode()
        return self

    def close(self, reset=False):
        if reset:
            linger = struct.pack("ii", 1, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._response.close()
        self._socket.close()


def go(server, key, times=1):
    for _ in range(times):
        assert get(server, f"/go?key={key}") == (200, {})


# What an application is made of -----------------------------------------------


def test_every_kind_of_hook_waits(server):
    response = ask(server, "/folder/folder/everything")
    assert (response.status, response.body.decode().split("\n")) == (
        200,
        [
            *("tween", "subscriber", "root factory"),
            *("traversal", "traversal", "traversal", "predicate"),
            *("permits", "coroutine view", "renderer"),
        ],
    )
    assert response.headers["X-Last"] == "response callback"


def test_a_function_waits(server):
    assert "function" in get(server, "/folder/synchronous")[1]


def test_all_requests_use_one_loop_of_the_process(server):
    states = [get(server, "/state")[1] for _ in range(5)]
    assert {state["thread"] for state in states} == {"aioext-loop"}
    assert len({state["pid"] for state in states}) == 1
    assert server.output.count("event: opened ") == 1


# Requests at once -------------------------------------------------------------


@threaded
@pytest.mark.parametrize("view", ["meet", "meet_sync"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_requests_wait_at_once_and_end_in_any_order(server, view, order):
    pair = [f"k{next(keys)}" for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        asked = []
        for each in pair:
            asked.append(pool.submit(get, server, f"/{view}?key={each}"))
            server.wait_for(f"event: waits {each} ")
        for number in order:
            go(server, pair[number])
            status, facts = asked[number].result(DEADLINE)
            assert (status, facts["mark"]) == (200, pair[number])
        assert len({each.result()[1]["thread"] for each in asked}) == 2


@pytest.mark.parametrize("view", ["meet", "meet_sync"])
def test_what_a_request_sets_is_not_seen_by_the_next_one_of_its_thread(
    server, key, view
):
    go(server, key)
    thread = get(server, f"/{view}?key={key}")[1]["thread"]

    def same_thread():
        facts = get(server, "/marked")[1]
        assert facts["mark"] == "unset"
        return facts["thread"] == thread

    if server.kind in {"threads", "foreign"}:
        # Its threads serve one request each.
        same_thread()
    else:
        poll(same_thread, server.describe)


# Bodies -----------------------------------------------------------------------


@threaded
@pytest.mark.parametrize("view", ["body", "sync_body"])
@pytest.mark.parametrize("order", ["aabb", "abab", "abba"])
def test_bodies_are_their_request_s_own(server, view, order):
    names = {each: f"k{next(keys)}" for each in "ab"}
    streams = {}
    for each, name in names.items():
        streams[each] = Stream(server, f"/{view}?key={name}&n=2")
        server.wait_for(f"event: begins {name} ")
    done = dict.fromkeys(names, 0)
    for each in order:
        if not done[each]:
            # The head goes out with the first part, on some servers.
            go(server, names[each])
            streams[each].begin()
        else:
            go(server, names[each])
        streams[each].until(f"{done[each]} True {names[each]}\n")
        done[each] += 1
    for each, stream in streams.items():
        stream.until_end().close()
        assert server.output.count(f"event: closed {names[each]} ") == 1


@pytest.mark.parametrize("view", ["body", "sync_body"])
def test_a_body_that_is_there_when_it_is_asked_for(server, key, view):
    go(server, key, 3)
    status, text = get(server, f"/{view}?key={key}")
    assert (status, text) == (200, "".join(f"{n} True {key}\n" for n in range(3)))
    assert get(server, "/marked")[1]["mark"] == "unset"


@pytest.mark.parametrize("view", ["body", "sync_body"])
def test_head_has_no_body(server, key, view):
    response = ask(server, f"/{view}?key={key}", "HEAD")
    assert (response.status, response.body) == (200, b"")
    assert get(server, "/state")[0] == 200
    # What has not begun has nothing to close.
    assert f"begins {key} " not in server.output


@threaded
@pytest.mark.parametrize("view", ["body", "sync_body"])
@pytest.mark.parametrize("reset", [False, True])
def test_a_body_whose_client_has_left_is_closed_once(server, key, view, reset):
    stream = Stream(server, f"/{view}?key={key}&n=1000000")
    go(server, key)
    stream.begin().until(f"0 True {key}")
    stream.close(reset)

    def closed():
        # It is told when it sends its next part.
        go(server, key)
        return f"event: closed {key} " in server.output

    poll(closed, server.describe)
    assert server.output.count(f"event: closed {key} ") == 1


def test_a_file_is_the_server_s_to_send(server):
    response = ask(server, "/file")
    assert response.status == 200
    assert response.body == b"0123456789" * 100_000


# What comes in, and errors ----------------------------------------------------


CONTENT = bytes(range(256)) * 8_192


def upload(server, body, **options):
    response = ask(server, "/upload", "POST", body, **options)
    expected = {"length": len(CONTENT), "sum": sum(CONTENT)}
    assert (response.status, json.loads(response.body)) == (200, expected)


def test_uploads(server):
    upload(server, CONTENT)


@pytest.mark.parametrize("server", CHUNKED, indirect=True)
def test_uploads_of_unknown_length(server):
    upload(server, iter([CONTENT[:7], CONTENT[7:]]), encode_chunked=True)


def test_an_error_in_a_view_is_the_server_s_to_answer(server):
    before = server.output.count("Expected: in a view")
    assert get(server, "/fail")[0] == 500
    poll(lambda: server.output.count("Expected: in a view") > before)
    assert get(server, "/marked")[1]["mark"] == "unset"


def test_an_error_in_a_body_cuts_it(server):
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        ask(server, "/fail_late")
    assert get(server, "/marked")[0] == 200


def test_a_cancellation_that_nobody_has_asked_for_is_an_error(server):
    assert get(server, "/cancel")[0] == 500
    server.wait_for("GatewayError: The application raised CancelledError")
    assert get(server, "/marked")[0] == 200


# Event streams ----------------------------------------------------------------


def test_an_event_stream_that_ends(server):
    response = ask(server, "/three")
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    found = re.findall(r"data: (.*)\n", response.body.decode())
    expected = [{"number": number, "current": True} for number in range(3)]
    assert [json.loads(each) for each in found] == expected


def test_a_server_that_serves_one_at_a_time_is_told_so_once():
    with start("sync") as server:
        for number in range(2):
            assert get(server, "/three")[0] == 200
            said = server.output.count("'/three' is an event stream, and this server")
            assert said == 1, number
        assert "with threads (gthread, waitress)" in server.output


# Forks ------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["fork", "multiprocess"])
def test_a_process_forked_in_a_request_waits_on_a_loop_of_its_own(server, view):
    for _ in range(3):
        assert get(server, f"/{view}")[1]["status"] == 7
    assert get(server, "/state")[1]["thread"] == "aioext-loop"


# Nothing is left --------------------------------------------------------------


PATHS = ["/folder/everything", "/folder/synchronous", "/three", "/marked", "/file"]


@pytest.mark.parametrize("kind", ["gthread", "foreign"])
def test_a_thousand_requests_leave_nothing_behind(kind):
    with start(kind) as server, ThreadPoolExecutor(8) as pool:

        def some(count):
            paths = itertools.islice(itertools.cycle(PATHS), count)
            statuses = pool.map(lambda path: ask(server, path).status, paths)
            assert set(statuses) == {200}

        some(100)
        before = get(server, "/state")[1]
        some(1000)

        def settled():
            after = get(server, "/state")[1]
            counts = ["tasks", "threads", "descriptors"]
            # Of the server's own threads one or the other has not ended, or not begun.
            return all(after[name] <= before[name] + 2 for name in counts)

        poll(settled, server.describe)

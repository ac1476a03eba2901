"""What runs an application of aioext, how it is started, and what it cannot do.

::

    with RUNTIMES["uvicorn"].serve("worker_app") as server:
        ...
    assert not RUNTIMES["granian"].has(HANDSHAKE_HEADERS)

A runtime that is not said to lack a feature has it: the tests in ``tests/suite``
show that, and they show what happens where it is lacking. The table in
``docs/support.rst`` is made of both.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from dataclasses import dataclass, field

from life import APPS, ENVIRON, ROOT
from servers import COMMANDS, WORKER, Server, running

# Threads of those that have some.
THREADS = 64

# Features, and what they are a part of: whoever lacks the whole lacks the part.

REQUESTS = "Requests"
FEATURES = {REQUESTS: ()}


def feature(name, *parts_of):
    FEATURES[name] = parts_of or (REQUESTS,)
    return name


HOOKS = feature("Hooks that are coroutines")
EXECUTOR = feature("Views in the executor")
AT_ONCE = feature("Several requests at once")
NO_THREADS = feature("Requests that wait need no thread", AT_ONCE)
CONNECTIONS = feature("Connections")
STREAMS = feature("Responses in parts", CONNECTIONS)
CHUNKED = feature("Chunked request bodies", CONNECTIONS)
CUTS = feature("A response that fails midway is cut", STREAMS)
ENDS_READING = feature("A read ends when its client leaves", CONNECTIONS)
ENDS_WAITING = feature("A wait ends when its client leaves", STREAMS)
BESIDE = feature("WSGI code beside Pyramid, alike", CONNECTIONS)
FORMATS = feature("Page and JSON from one view")
PAGES = feature("Pages whose head is sent first", FORMATS, STREAMS)
FILES = feature("Files, their ranges, conditions and versions")
UPLOADS = feature("Forms and uploads, a limit for each view")
EVENTS = feature("Event streams")
MANY_EVENTS = feature("Event streams beside other requests", EVENTS)
SOCKETS = feature("WebSockets")
EMPTY = feature("Empty messages", SOCKETS)
HANDSHAKE_HEADERS = feature("Headers and cookies with the handshake", SOCKETS)
REFUSALS = feature("Refusals are the application's responses", SOCKETS)
REFUSAL_HEADERS = feature("Repeated headers with a refusal", REFUSALS)
OWN_CODES = feature("Any code to close with", SOCKETS)
OWN_REASONS = feature("A reason to close with", SOCKETS)
CODES = feature("The code a client closed with", SOCKETS)
REASONS = feature("The reason a client gave", SOCKETS)
CUT_SOCKETS = feature("A cut is told from a close without a code", SOCKETS)
PINGS = feature("Pings by the application, and their limits", SOCKETS)
EARLY = feature("Lifespans open before the first request", CONNECTIONS)
CLOSED = feature("Lifespans close at the end", CONNECTIONS)
ANSWERS_LAST = feature("Requests under way are answered at the end", CONNECTIONS)
HINTS = feature("Event streams end with a hint at the end", MANY_EVENTS, CONNECTIONS)
RESTARTS = feature("WebSockets close with 1012 at the end", SOCKETS, CONNECTIONS)

ASGI, WSGI = "ASGI", "WSGI"


@dataclass(frozen=True)
class Runtime:
    """One of them.

    Attributes:
        name: in the table of the documentation.
        kind: the interface it speaks, for those that find no better way.
        command: what comes after ``python -m``, with the application; empty for those
            in process.
        lacks: the features that it does not have, and why: a sentence each.
        number: the signal that it stops in order with.
    """

    name: str
    kind: str
    command: tuple[str, ...] = ()
    lacks: dict[str, str] = field(default_factory=dict, hash=False)
    number: int = signal.SIGTERM

    def __str__(self):
        return self.name

    def has(self, feature):
        """Whether it has a feature, with all that this is a part of."""
        return feature not in self.lacks and all(map(self.has, FEATURES[feature]))

    def may_lack(self, feature):
        """Whether it lacks a feature by itself: it has what that is a part of."""
        return feature in self.lacks and all(map(self.has, FEATURES[feature]))

    @property
    def is_in_process(self):
        return not self.command

    @contextmanager
    def serve(self, app, *options):
        """Serve the application of the module ``app``; a :class:`servers.Server`."""
        early = None if options else _started.pop((self.name, app), None)
        with running(early or self._start(app, *options)) as server:
            yield server

    def start_early(self, app):
        """Start what the next ``serve(app)`` will give, and do not wait for it."""
        if not self.is_in_process and (self.name, app) not in _started:
            _started[self.name, app] = self._start(app)

    def _start(self, app, *options):
        environ = {**ENVIRON, "SUITE_APP": app}
        return Server([*self.command, *options], APPS, environ)


# By name and application: servers that nobody has asked for so far.
_started = {}


def close_started():
    """End them."""
    while _started:
        _started.popitem()[1].close()


GUNICORN = ("gunicorn", "-b", "127.0.0.1:0", "--no-control-socket", "-k")
# So that it is not gunicorn that ends what a client has left.
ALONE = ("--asgi-disconnect-grace-period", "60")


def is_patient(runtime):
    """Whether requests whose clients have left are the application's to end."""
    return ALONE[0] in runtime.command


IN_PROCESS = {
    CONNECTIONS: "There is no connection: the test is the client.",
    PINGS: "There is no connection that could be pinged.",
}

PLAIN = {
    NO_THREADS: "A request keeps the server's thread while it waits.",
    EXECUTOR: "A view runs in the server's thread, which is one to block.",
    ENDS_READING: "The server reads a body before it calls, or tells of no end.",
    ENDS_WAITING: "The server looks for its client when it has something to send.",
    SOCKETS: "WSGI has nothing for what follows the handshake; the answer is 501.",
    EARLY: "WSGI tells nothing of a start: the first request opens them.",
}
WHOLE = "It gives a response when it is complete."
ONE = "It serves one request at a time."

ALL = [
    Runtime("in process", ASGI, lacks=IN_PROCESS),
    Runtime(
        "gunicorn on uvloop",
        ASGI,
        (*GUNICORN, WORKER, *ALONE, "--asgi-loop", "uvloop", "suite.entry:wsgi()"),
    ),
    Runtime(
        "gunicorn on asyncio",
        ASGI,
        (*GUNICORN, WORKER, "--asgi-loop", "asyncio", "suite.entry:wsgi()"),
    ),
    Runtime(
        "pserve",
        ASGI,
        ("pyramid.scripts.pserve", str(APPS.parent / "suite" / "pserve.ini")),
    ),
    Runtime(
        "uvicorn",
        ASGI,
        (*COMMANDS["uvicorn"], "--factory", "suite.entry:asgi"),
        {
            CUT_SOCKETS: "Both have 1005.",
            PINGS: "ASGI has no message for a ping; the server pings by itself.",
        },
    ),
    Runtime(
        "hypercorn",
        ASGI,
        (*COMMANDS["hypercorn"], "suite.entry:asgi()"),
        {
            CODES: "It tells the application 1006, whatever the code was.",
            REASONS: "It does not tell the application.",
            PINGS: "ASGI has no message for a ping; the server pings by itself.",
        },
    ),
    Runtime(
        "granian",
        ASGI,
        (*COMMANDS["granian"], "--factory", "suite.entry:asgi"),
        {
            HANDSHAKE_HEADERS: "It sends none of the application's.",
            REFUSAL_HEADERS: "It sends each name once, of cookies the first.",
            REASONS: "It does not tell the application.",
            CUT_SOCKETS: "Both have 1005.",
            PINGS: "ASGI has no message for a ping; the server pings by itself.",
            RESTARTS: "It may cut the connection first.",
        },
    ),
    Runtime(
        "daphne",
        ASGI,
        (*COMMANDS["daphne"], "suite.entry:asgi_application"),
        {
            ENDS_READING: "It reads a body before it calls the application.",
            CUTS: "It leaves the connection open.",
            EMPTY: "It drops them.",
            HANDSHAKE_HEADERS: "It sends none of the application's.",
            REFUSALS: "It answers with 403 by itself.",
            OWN_CODES: "It sends 1000 and 3000 to 4999. With another one it logs an "
            "error, and clients see 1011.",
            OWN_REASONS: "It sends none.",
            REASONS: "It does not tell the application.",
            PINGS: "ASGI has no message for a ping; the server pings by itself.",
            ANSWERS_LAST: "It stops at once.",
            HINTS: "It stops at once, and cuts.",
            RESTARTS: "It stops at once: clients see 1006.",
            EARLY: "It has no lifespan protocol: the first request opens them.",
        },
    ),
    Runtime(
        "uWSGI",
        WSGI,
        (*COMMANDS["uwsgi"], "--module", "suite.entry:wsgi()"),
        {
            CUTS: "It closes the connection, which is the end of a response that has "
            "no length.",
            BESIDE: "uWSGI calls it: there is no answer to an error, and nothing ends "
            "a wait.",
            ENDS_READING: "A read fails, as uWSGI has it.",
            ANSWERS_LAST: "It has them cancelled; they are answered with 503.",
        },
    ),
    Runtime(
        "WebTest",
        WSGI,
        lacks={
            **PLAIN,
            **IN_PROCESS,
            MANY_EVENTS: WHOLE,
            AT_ONCE: "A test makes one request after the other.",
        },
    ),
    Runtime(
        "waitress",
        WSGI,
        (
            *("waitress", "--listen", "127.0.0.1:0", "--threads", str(THREADS)),
            *("--call", "suite.entry:wsgi"),
        ),
        PLAIN,
        signal.SIGINT,
    ),
    Runtime(
        "gunicorn gthread",
        WSGI,
        (
            *("gunicorn", "-c", str(ROOT / "docs/examples/gunicorn_threads.py")),
            *("-b", "127.0.0.1:0", "--no-control-socket", "--threads", str(THREADS)),
            "suite.entry:wsgi()",
        ),
        PLAIN,
    ),
    Runtime(
        "gunicorn sync",
        WSGI,
        (*GUNICORN, "sync", "suite.entry:wsgi()"),
        {**PLAIN, AT_ONCE: ONE, MANY_EVENTS: ONE},
    ),
    Runtime(
        "wsgiref",
        WSGI,
        ("plain_servers", "wsgiref", "suite.entry:wsgi"),
        {
            **PLAIN,
            AT_ONCE: ONE,
            MANY_EVENTS: ONE,
            CHUNKED: "It speaks HTTP/1.0.",
            CUTS: "In HTTP/1.0 the end of the connection is the end of the response.",
            ANSWERS_LAST: "It stops where it is.",
        },
        signal.SIGINT,
    ),
    Runtime(
        "gunicorn gevent",
        WSGI,
        (*GUNICORN, "gevent", "suite.entry:wsgi()"),
        {
            REQUESTS: "gevent makes greenlets of all threads, so none can run an "
            "event loop. The server ends at its start, with the reason."
        },
    ),
]
RUNTIMES = {runtime.name: runtime for runtime in ALL}

"""The application ``suite/app.py`` on a runtime, in its own process or in this one.

What a client does is the same for both::

    running.get("/function").json
    running.get_all(["/a", "/b"])   # at the same time
    running.sockets                 # as ws_client.Remote
    running.events                  # as streams.Remote
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import unquote

import asgi_websocket
import webtest
import ws_client
from asgi import Client
from life import APPS
from runtimes import WSGI
from servers import DEADLINE

sys.path.insert(0, str(APPS))
import eventsource_app
import websocket_app

from aioext.asgi import Gateway
from suite import app, streams


class Running:
    """What they have in common.

    Attributes:
        runtime: a :class:`runtimes.Runtime`.
        output: what has been logged so far.
        sockets: a :class:`ws_client.Served`; None where there are none.
        events: a :class:`streams.Remote`, or what has its interface.
    """

    output = ""
    sockets = events = None
    # Keys of WebSockets that were left at the start.
    lingering = None

    def __init__(self, runtime):
        self.runtime = runtime
        self.has = runtime.has


class Remote(Running):
    """In a process of its own, a :class:`servers.Server`."""

    def __init__(self, runtime, server):
        super().__init__(runtime)
        self.server = server
        self.sockets = ws_client.Remote(runtime.name, server, "/websocket")
        self.sockets.has = runtime.has
        self.events = streams.Remote(server, "/events")
        self._own = ws_client.Remote(runtime.name, server)

    @property
    def output(self):
        return self.server.output

    def get(self, path, headers=()):
        """The :class:`ws_client.Answer` to a GET."""
        return self._own.fetch(path, headers)

    def request(self, method, path, headers=(), body=None):
        """The answer to any request."""
        return self._own.fetch(path, headers, method, body)

    def get_all(self, paths):
        """The answers to requests that are made at the same time."""
        with ThreadPoolExecutor(len(paths)) as pool:
            return list(pool.map(self.get, paths))


class OnLoop(Running):
    """ASGI in this process, on a loop in a thread."""

    def __init__(self, runtime, loop, sockets):
        super().__init__(runtime)
        self._loop = loop
        self._app = Gateway(app.make())
        self.sockets = sockets
        sockets.has = runtime.has
        events = eventsource_app.make_asgi()
        self.events = streams.InProcess(events, loop, eventsource_app.Expected)

    def get(self, path, headers=()):
        return self.request("GET", path, headers)

    def request(self, method, path, headers=(), body=None):
        asking = self._ask(path, headers, method, body)
        return self._loop.submit(asking).result(DEADLINE)

    def get_all(self, paths):
        async def ask():
            return await asyncio.gather(*map(self._ask, paths))

        return self._loop.submit(ask()).result(DEADLINE)

    async def _ask(self, path, headers=(), method="GET", body=None):
        path, _, query = path.partition("?")
        sent = {"Host": "localhost", **dict(headers)}
        if body is not None:
            sent["Content-Length"] = str(len(body))
        client = Client(
            unquote(path),
            None if body is None else [body],
            method=method,
            query_string=query.encode(),
            headers=[(n.lower().encode(), v.encode()) for n, v in sent.items()],
        )
        await client.call(self._app)
        status, received, body = client.response
        return ws_client.Answer(status, asgi_websocket.decoded(received), body)


class OnWsgi(Running):
    """WSGI in this process, one request after the other."""

    def __init__(self, runtime):
        super().__init__(runtime)
        self._app = webtest.TestApp(app.make())

    def get(self, path, headers=()):
        return self.request("GET", path, headers)

    def request(self, method, path, headers=(), body=None):
        options = {} if body is None else {"body": body}
        response = self._app.request(
            path, method=method, headers=dict(headers), status="*", **options
        )
        return ws_client.Answer(
            response.status_int, response.headers.items(), response.body
        )

    def get_all(self, paths):
        return [self.get(path) for path in paths]


@contextmanager
def start(runtime):
    """Have the application run; gives a :class:`Running`."""
    if not runtime.is_in_process:
        with runtime.serve("suite.app") as server:
            yield Remote(runtime, server)
    elif runtime.kind == WSGI:
        yield OnWsgi(runtime)
    else:
        with (
            streams.Loop().running() as loop,
            asgi_websocket.InProcess(websocket_app.make_asgi()) as sockets,
        ):
            yield OnLoop(runtime, loop, sockets)

"""Clients that leave before they are answered: which requests end, and how."""

import asyncio
import contextlib
import gc
import inspect
import logging
import socket
import ssl
import struct
import threading

import asgi
import h2.config
import h2.connection
import pytest
import servers
import trustme
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers.gasgi import ASGIWorker
from inprocess import make_app
from pyramid.response import Response

from aioext import guards, use_executor, wait
from aioext.gateway import Gateway
from aioext.gunicorn.shelter import Shelter
from aioext.gunicorn.worker import AsyncGunicornWorker

SERVERS = ["gunicorn", "uvicorn", "hypercorn", "granian"]
SAFE = ["GET", "HEAD", "OPTIONS", "TRACE"]
UNSAFE = ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"]


@pytest.fixture(autouse=True)
def _looks_soon(monkeypatch):
    monkeypatch.setattr(guards, "LOOK_AFTER", 0.01)


class Client(asgi.Client):
    @property
    def messages_left(self):
        """How many messages nobody has received."""
        return self._incoming.qsize()


class Probe:
    """Views that wait, and tell what becomes of them."""

    def __init__(self):
        self.steps = []
        self.begun = asyncio.Event()
        self.released = asyncio.Event()

    def _begin(self, request):
        self.request = request
        self.loop.call_soon_threadsafe(self.begun.set)

    async def _serve(self, request):
        self._begin(request)
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.steps.append("cancelled")
            raise
        finally:
            # The cleanup may wait.
            await asyncio.sleep(0)
            self.steps.append("finally")
        self.steps.append("finished")

    async def coroutine(self, request):
        await self._serve(request)
        return {}

    def inline(self, request):
        wait(self._serve(request))
        return {}

    def thread(self, request):
        wait(self._serve(request))
        self.steps.append(threading.current_thread().name)
        return {}

    async def swallows(self, request):
        with contextlib.suppress(asyncio.CancelledError):
            await self._serve(request)
        return {}

    def app(self, view="coroutine", **settings):
        if view == "inline":
            settings["sync_views"] = "inline"
        settings = {f"aioext.{key}": value for key, value in settings.items()}

        def configure(config):
            config.add_view(getattr(self, view), renderer="json")

        return make_app(configure, settings=settings)

    async def leave(self, client, app):
        """Have the client leave while the view waits; gives the request's Task."""
        self.loop = asyncio.get_running_loop()
        task = client.start(app)
        await self.begun.wait()
        client.leave()
        return task


@pytest.fixture
def probe():
    return Probe()


async def until_noticed(client):
    """Return when whoever looks for the client's end has been told."""
    async with asyncio.timeout(10):
        while client.messages_left:  # noqa: ASYNC110 - a queue tells nobody
            await asyncio.sleep(0.001)
    for _ in range(5):
        await asyncio.sleep(0)


# Which requests end


@pytest.mark.parametrize("view", ["coroutine", "inline", "thread"])
def test_a_safe_request_is_cancelled_where_it_waits(run, probe, view):
    async def main():
        client = Client()
        await (await probe.leave(client, probe.app(view)))
        return client.sent

    assert run(main()) == []
    assert probe.steps == ["cancelled", "finally"]


@pytest.mark.parametrize("method", SAFE)
def test_safe_methods_end_with_their_client(run, probe, method):
    async def main():
        await (await probe.leave(Client(method=method), probe.app()))

    run(main())
    assert probe.steps == ["cancelled", "finally"]


@pytest.mark.parametrize("method", UNSAFE)
def test_unsafe_methods_run_to_their_end(run, probe, method):
    async def main():
        client = Client(method=method)
        task = await probe.leave(client, probe.app())
        # Long enough for a watcher that there must not be.
        await asyncio.sleep(guards.LOOK_AFTER * 5)
        assert client.messages_left == 2
        probe.released.set()
        await task
        return client.status

    assert run(main()) == 200
    assert probe.steps == ["finally", "finished"]


@pytest.mark.parametrize(
    ("rule", "method", "outcome"),
    [
        ("always", "POST", "cancelled"),
        ("always", "GET", "cancelled"),
        ("never", "GET", "finished"),
        ("never", "POST", "finished"),
    ],
)
def test_the_setting_decides(run, probe, rule, method, outcome):
    async def main():
        client = Client(method=method)
        task = await probe.leave(client, probe.app(cancel_on_disconnect=rule))
        if outcome == "finished":
            await asyncio.sleep(guards.LOOK_AFTER * 5)
            probe.released.set()
        await task

    run(main())
    assert outcome in probe.steps


def test_a_request_that_is_answered_soon_is_not_watched(run, monkeypatch):
    monkeypatch.setattr(guards, "LOOK_AFTER", 10)

    async def view(request):
        await asyncio.sleep(0.01)
        return {}

    async def main():
        client = Client()
        await client.call(make_app(lambda c: c.add_view(view, renderer="json")))
        return client.messages_left

    assert run(main()) == 1


def test_each_request_ends_with_its_own_client(run):
    gone = []

    async def view(request):
        number = int(request.params["n"])
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            gone.append(number)
            raise
        return {"n": number}

    async def main():
        app = make_app(lambda config: config.add_view(view, renderer="json"))
        clients = [Client(query_string=b"n=%d" % n) for n in range(200)]
        tasks = [client.start(app) for client in clients]
        await asyncio.sleep(0.05)
        for client in clients[::2]:
            client.leave()
        await asyncio.gather(*tasks)
        return [client.body for client in clients]

    bodies = run(main())
    assert sorted(gone) == list(range(0, 200, 2))
    assert bodies[1::2] == [b'{"n": %d}' % n for n in range(1, 200, 2)]
    assert bodies[::2] == [b""] * 100


# The body of the request


def test_a_body_that_is_read_is_whole_although_the_request_is_watched(run):
    bodies = []
    read = asyncio.Event()

    async def view(request):
        await asyncio.sleep(guards.LOOK_AFTER * 3)
        bodies.append(request.body)
        read.set()
        await asyncio.sleep(60)

    async def main():
        app = make_app(
            lambda config: config.add_view(view),
            settings={"aioext.cancel_on_disconnect": "always"},
        )
        client = Client(method="POST", body=[b"ab", b"cd"])
        task = client.start(app)
        await read.wait()
        client.leave()
        await task

    run(main())
    assert bodies == [b"abcd"]


def test_a_client_that_awaits_an_invitation_is_not_invited_by_the_watcher(run):
    received = []
    read = asyncio.Event()

    async def view(request):
        await asyncio.sleep(guards.LOOK_AFTER * 5)
        received.append(client.received)
        assert request.body == b"abcd"
        read.set()
        await asyncio.sleep(60)

    headers = [(b"content-length", b"4"), (b"expect", b"100-continue")]
    client = Client(method="POST", body=[b"abcd"], headers=headers)

    async def main():
        app = make_app(
            lambda config: config.add_view(view),
            settings={"aioext.cancel_on_disconnect": "always"},
        )
        task = client.start(app)
        await read.wait()
        # Now that the body has been read it is watched.
        client.leave()
        await task

    run(main())
    assert received == [0]


# request.disconnected


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_is_told(run, probe, method):
    async def main():
        client = Client(method=method)
        app = probe.app("swallows")
        probe.loop = asyncio.get_running_loop()
        task = client.start(app)
        await probe.begun.wait()
        event = probe.request.disconnected
        assert not event.is_set()
        client.leave()
        await event.wait()
        probe.released.set()
        await task

    run(main())
    assert ("finished" in probe.steps) == (method == "POST")


@pytest.mark.parametrize("when", ["before it waits", "while it waits"])
def test_a_thread_is_told(run, when):
    told = []

    def view(request):
        if when == "while it waits":
            wait(asyncio.sleep(0.01))
        event = request.disconnected
        wait(left.wait())
        wait(event.wait())
        told.append(event.is_set())
        return {}

    async def main():
        nonlocal left
        left = asyncio.Event()
        client = Client(method="POST")
        app = make_app(lambda config: config.add_view(view, renderer="json"))
        task = client.start(app)
        await asyncio.sleep(0.03)
        client.leave()
        left.set()
        await task

    left = None
    run(main())
    assert told == [True]


def test_whoever_asks_for_it_twice_gets_the_same(run):
    def view(request):
        return {"same": request.disconnected is request.disconnected}

    app = make_app(lambda config: config.add_view(view, renderer="json"))
    client = run(Client().call(app))
    assert client.body == b'{"same": true}'


def test_it_may_be_asked_for_when_all_is_over(run):
    requests = []

    async def view(request):
        await asyncio.sleep(0)
        requests.append(request)
        return {}

    app = make_app(lambda config: config.add_view(view, renderer="json"))
    run(Client().call(app))
    # The loop is closed by now.
    assert not requests[0].disconnected.is_set()


# What does not end


def test_a_request_that_swallows_its_cancellation_is_named(run, probe, caplog):
    async def main():
        client = Client(query_string=b"a=1")
        await (await probe.leave(client, probe.app("swallows")))
        return client.sent

    with caplog.at_level(logging.WARNING):
        assert run(main()) == []
    (record,) = caplog.records
    assert "GET '/' was cancelled" in record.message
    assert "its client had left, and went on" in record.message


def test_a_cancellation_of_the_server_is_still_obeyed(run, probe):
    async def main():
        client = Client()
        probe.loop = asyncio.get_running_loop()
        task = client.start(probe.app())
        await probe.begun.wait()
        await asyncio.sleep(guards.LOOK_AFTER * 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert probe.steps == ["cancelled", "finally"]


def test_the_task_of_the_server_does_not_look_cancelled(run, probe):
    async def main():
        app = probe.app()

        async def serve():
            await Client.call(client, app)
            # A Task that were still cancelled could not wait here.
            await asyncio.sleep(0)
            return asyncio.current_task().cancelling()

        client = Client()
        probe.loop = asyncio.get_running_loop()
        task = asyncio.create_task(serve())
        await probe.begun.wait()
        client.leave()
        return await task

    assert run(main()) == 0


def test_a_timeout_of_the_view_is_not_taken_for_the_clients_end(run):
    async def view(request):
        try:
            async with asyncio.timeout(guards.LOOK_AFTER * 3):
                await asyncio.sleep(60)
        except TimeoutError:
            return {"too": "late"}

    app = make_app(lambda config: config.add_view(view, renderer="json"))
    client = run(Client().call(app))
    assert client.body == b'{"too": "late"}'


def test_a_blocking_call_is_waited_for(run):
    steps = []
    begun, ended = threading.Event(), threading.Event()

    async def view(request):
        try:
            await use_executor(block)()
        finally:
            steps.append("finally")

    def block():
        begun.set()
        ended.wait(10)
        steps.append("thread")

    async def main():
        client = Client()
        task = client.start(make_app(lambda config: config.add_view(view)))
        await asyncio.to_thread(begun.wait)
        client.leave()
        await until_noticed(client)
        assert not task.done()
        ended.set()
        await task

    run(main())
    assert steps == ["thread", "finally"]


def test_a_stream_is_watched_whatever_was_watched_before(run):
    steps = []

    async def view(request):
        await asyncio.sleep(guards.LOOK_AFTER * 3)

        async def chunks():
            try:
                yield b"first"
                await asyncio.sleep(60)
            finally:
                steps.append("closed")

        return Response(app_iter=chunks())

    async def main(method):
        client = Client(method=method)
        task = client.start(make_app(lambda config: config.add_view(view)))
        await client.until_body(b"first")
        client.leave()
        await task

    run(main("GET"))
    run(main("POST"))
    assert steps == ["closed", "closed"]


def test_it_works_behind_a_filter(run, probe):
    async def main():
        inner = probe.app().app
        app = Gateway(lambda environ, start: inner(environ, start))
        await (await probe.leave(Client(), app))

    run(main())
    assert probe.steps == ["cancelled", "finally"]


# What a request leaves behind


@pytest.mark.parametrize("kind", ["client leaves", "watched", "expired"])
def test_a_guarded_request_leaves_nothing_for_the_garbage_collector(
    run, monkeypatch, kind
):
    monkeypatch.setattr(guards, "LOOK_AFTER", 0)
    monkeypatch.setattr(guards.log, "disabled", True)

    async def view(request):
        begun.set()
        await asyncio.sleep(0.005 if kind == "watched" else 60)
        return {}

    settings = {"aioext.request_timeout": "0.005"} if kind == "expired" else {}
    app = make_app(lambda c: c.add_view(view, renderer="json"), settings=settings)

    async def serve_one():
        begun.clear()
        client = Client()
        task = client.start(app)
        if kind == "client leaves":
            await begun.wait()
            client.leave()
        await task

    async def main():
        for _ in range(3):
            await serve_one()
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                await serve_one()
            return gc.collect()
        finally:
            gc.enable()

    begun = asyncio.Event()
    assert run(main()) < 10


# On servers


def head(path, method="GET", headers=()):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def reset(client):
    """Close with RST instead of FIN."""
    linger = struct.pack("ii", 1, 0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.close()


class Talk:
    """What a server's process has said since this was made."""

    def __init__(self, server):
        self.server = server
        self._start = len(server.output)

    @property
    def said(self):
        return self.server.output[self._start :]

    def wait_for(self, words):
        servers.poll(lambda: words in self.said, self.server.describe, self.server)


def answer(server, path):
    with server.connect() as client:
        client.sendall(head(path, headers=["Connection: close"]))
        data = b""
        while part := client.recv(65_536):
            data += part
        return int(data.split(b" ")[1])


def start(kind, name="wsgi", *options):
    if kind == "gunicorn":
        options = ["--asgi-disconnect-grace-period", "60", *options]
    elif name == "wsgi":
        name = "asgi"
    directory = servers.HERE / "apps"
    return servers.serve(kind, f"guards_app:{name}", *options, directory=directory)


@pytest.fixture(scope="module", params=SERVERS)
def server(request):
    with start(request.param) as server:
        yield server


def leave(server, talk, path, name, method="GET", body=b"", end=socket.socket.close):
    client = server.connect()
    headers = [f"Content-Length: {len(body)}"] if body else []
    client.sendall(head(path, method, headers) + body)
    talk.wait_for(f"begun {name}")
    end(client)


@pytest.mark.parametrize("end", [socket.socket.close, reset])
@pytest.mark.parametrize("name", ["coroutine", "thread"])
def test_every_server_tells_that_a_client_has_left(server, name, end):
    talk = Talk(server)
    assert answer(server, "/renew") == 200
    leave(server, talk, f"/{name}", name, end=end)
    talk.wait_for(f"cancelled {name}")
    assert answer(server, "/renew") == 200
    assert "Traceback" not in talk.said
    assert "WARN" not in talk.said.upper()


@pytest.mark.parametrize("name", ["coroutine", "thread"])
def test_on_every_server_an_unsafe_request_runs_to_its_end(server, name):
    talk = Talk(server)
    assert answer(server, "/renew") == 200
    leave(server, talk, f"/{name}", name, "POST")
    assert answer(server, "/release") == 200
    talk.wait_for(f"finished {name}")
    assert f"cancelled {name}" not in talk.said
    assert "Traceback" not in talk.said


def test_on_every_server_whoever_asks_is_told(server):
    talk = Talk(server)
    leave(server, talk, "/asks", "asks", "POST")
    talk.wait_for("finished asks")
    assert "Traceback" not in talk.said


def test_on_every_server_the_end_is_noticed_behind_a_body(server):
    talk = Talk(server)
    assert answer(server, "/renew") == 200
    leave(server, talk, "/body", "body 3", "GET", body=b"abc")
    talk.wait_for("cancelled body 3")


# gunicorn


@pytest.fixture(scope="module")
def impatient():
    with start("gunicorn", "wsgi", "--asgi-disconnect-grace-period", "0") as server:
        yield server


@pytest.mark.parametrize("name", ["coroutine", "thread"])
def test_gunicorn_does_not_cancel_an_unsafe_request(impatient, name):
    talk = Talk(impatient)
    assert answer(impatient, "/renew") == 200
    leave(impatient, talk, f"/{name}", name, "POST")
    # gunicorn has noticed it when it serves the next ones.
    for _ in range(3):
        assert answer(impatient, "/renew") == 200
    assert answer(impatient, "/release") == 200
    talk.wait_for(f"finished {name}")
    assert f"cancelled {name}" not in talk.said


def test_an_unsafe_request_is_cancelled_if_the_application_says_so():
    with start("gunicorn", "always") as server:
        talk = Talk(server)
        leave(server, talk, "/body", "body 3", "POST", body=b"abc")
        talk.wait_for("cancelled body 3")


def test_a_request_without_a_client_has_its_time_when_the_worker_stops():
    with start("gunicorn", "wsgi", "--graceful-timeout", "20") as server:
        talk = Talk(server)
        leave(server, talk, "/at_the_end?seconds=0.5", "end", "POST")
        # gunicorn has noticed that the client has left.
        assert answer(server, "/renew") == 200
        assert server.stop() == 0
        assert "finished end" in talk.said
        assert talk.said.index("finished end") < talk.said.index("closed")


def test_a_request_without_a_client_is_cut_when_the_time_is_over():
    with start("gunicorn", "wsgi", "--graceful-timeout", "2") as server:
        talk = Talk(server)
        leave(server, talk, "/at_the_end?seconds=60", "end", "POST")
        assert answer(server, "/renew") == 200
        assert server.stop() == 0
        assert "cancelled end" in talk.said
        assert "closed" in talk.said


class Gone:
    """What a worker knows of connections, as gunicorn counts them."""

    def __init__(self):
        self.worker = AsyncGunicornWorker.__new__(AsyncGunicornWorker)
        self.worker.nr_conns = 0


def test_a_worker_waits_for_connections_and_for_what_outlives_them():
    worker = Gone().worker
    worker.nr_conns += 1
    worker.nr_conns += 1
    worker.sheltered += 1
    assert worker.nr_conns == 2
    worker.nr_conns -= 1
    worker.nr_conns -= 1
    assert worker.nr_conns == 1
    worker.nr_conns += 1
    worker.sheltered += 1
    assert worker.nr_conns == 2
    worker.nr_conns -= 1
    worker.sheltered -= 2
    assert worker.nr_conns == 0


def test_gunicorn_still_counts_its_connections_where_the_worker_looks():
    source = inspect.getsource(ASGIProtocol)
    assert "worker.nr_conns += 1" in source
    assert "worker.nr_conns -= 1" in source
    assert "self.nr_conns > 0" in inspect.getsource(ASGIWorker)


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ({"safe"}, ["POST"]),
        ({"never"}, ["GET", "POST"]),
        ({"safe", "always"}, ["POST"]),
        ({"never", "always"}, ["GET", "POST"]),
    ],
)
def test_what_one_of_several_applications_wants_to_keep_is_kept(run, rules, kept):
    async def app(scope, receive, send):
        tasks.add(asyncio.current_task())

    async def main():
        shelter = Shelter(app, rules, Gone().worker)
        for method in ("GET", "POST"):
            tasks.clear()
            await shelter({"type": "http", "method": method}, None, None)
            own = asyncio.current_task() in tasks
            assert own == (method not in kept), method
        tasks.clear()
        await shelter({"type": "websocket"}, None, None)
        assert asyncio.current_task() in tasks

    tasks = set()
    run(main())


def test_an_error_of_a_sheltered_request_is_the_servers_to_log(run):
    async def app(scope, receive, send):
        raise OSError("failed")

    async def main():
        worker = Gone().worker
        with pytest.raises(OSError, match="failed"):
            await Shelter(app, ["safe"], worker)(
                {"type": "http", "method": "POST"}, 0, 0
            )
        return worker.sheltered

    assert run(main()) == 0


# HTTP/2, on gunicorn


@pytest.mark.parametrize(
    ("method", "outcome"), [("GET", "cancelled"), ("POST", "finished")]
)
def test_a_stream_of_http2_that_is_reset_is_a_client_that_left(
    tmp_path, method, outcome
):
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "pem"
    )
    pem = str(tmp_path / "pem")
    options = ["--certfile", pem, "--keyfile", pem, "--http-protocols", "h2,h1"]
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols(["h2"])
    with start("gunicorn", "wsgi", *options) as server:
        talk = Talk(server)
        client = context.wrap_socket(server.connect(), server_hostname="localhost")
        with client:
            connection = h2.connection.H2Connection(h2.config.H2Configuration())
            connection.initiate_connection()
            stream = request_by_http2(connection, method, "/coroutine")
            client.sendall(connection.data_to_send())
            talk.wait_for("begun coroutine")
            connection.reset_stream(stream)
            request_by_http2(connection, "GET", "/release" * (method == "POST"))
            client.sendall(connection.data_to_send())
            talk.wait_for(f"{outcome} coroutine")
            assert "Traceback" not in talk.said


def request_by_http2(connection, method, path):
    stream = connection.get_next_available_stream_id()
    pseudo = {"method": method, "path": path or "/", "scheme": "https"}
    fields = [(f":{name}", value) for name, value in pseudo.items()]
    connection.send_headers(stream, [*fields, (":authority", "x")], end_stream=True)
    return stream

"""The gunicorn worker, in real gunicorn processes."""

import asyncio
import contextlib
import gc
import http.client
import inspect
import json
import os
import re
import signal
import socket
import ssl
import threading
import time

import h2.config
import h2.connection
import h2.events
import pytest
from certificates import write_parts
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.reloader import preferred_reloader, reloader_engines
from gunicorn.workers.gasgi import ASGIWorker
from life import (
    APPS,
    CLOSED,
    ENVIRON,
    OPENED,
    assert_clean,
    events,
    facts,
    get,
    pids,
    python,
)
from servers import DEADLINE, WORKER, Server, free_port, poll
from workers import Held, ends, fails, gunicorn, paste, pserve, write_ini

from aioext.gunicorn.worker import (
    CLOSING,
    AsyncGunicornWorker,
    speaks_asgi,
    speaks_wsgi,
)
from aioext.shutdown import on_shutdown

LOGGING = """
[loggers]
keys = root

[handlers]
keys = console

[formatters]
keys = generic

[logger_root]
level = INFO
handlers = console

[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = generic

[formatter_generic]
format = logged %(levelname)s [%(name)s] %(message)s
"""


# Serving ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A starter-like project, served by ``pserve``; stopped cleanly at the end."""
    ini = write_ini(
        tmp_path_factory.mktemp("project") / "development.ini",
        server="""
        accesslog = -
        keepalive = 1
        limit_request_line = 300
        root_path = /mounted
        """.replace("        ", ""),
        more=LOGGING,
    )
    with pserve(ini) as server:
        yield server
        assert server.stop() == 0
        assert events(server)[:3] == OPENED
        assert events(server)[-3:] == CLOSED
        assert_clean(server)


def test_pserve_runs_coroutine_views_on_the_loop_and_others_in_threads(served):
    where = facts(served, "/mounted/where")
    assert where["thread"] == "MainThread"
    assert where["pid"] in served.children()
    sync = facts(served, "/mounted/sync")
    assert sync["thread"].startswith("aioext-executor")
    assert sync["pid"] == where["pid"]


def test_lifespans_are_open_before_the_first_request_on_its_loop(served):
    where = facts(served, "/mounted/where")
    assert where["opened"]
    assert where["registry"]
    assert pids(served, "opened first") == [where["pid"]]
    assert re.search(r"event: starting.*ASGI server listening", served.output, re.S)


def test_the_collector_does_not_see_what_was_loaded(served):
    where = facts(served, "/mounted/where")
    assert where["frozen"] > 10_000
    assert where["threshold"] == 25_000


def test_uvloop_is_used_where_it_is_installed(served):
    pytest.importorskip("uvloop")
    assert facts(served, "/mounted/where")["loop"] == "uvloop"


def test_pserve_and_gunicorn_log_every_line_once(served):
    marker = "/mounted/where?once"
    get(served, marker)
    served.wait_for(r"GET /mounted/where\?once")
    assert served.output.count("where?once") == 1
    assert served.output.count("Listening at") == 1
    assert served.output.count("Using worker") == 1


def test_an_access_is_one_line_with_status_and_length(served):
    get(served, "/mounted/nothing")
    line = served.wait_for(
        r'127\.0\.0\.1 .*"GET /mounted/nothing HTTP/1\.1" (\d+) (\d+)'
    )
    assert line[1] == "404"
    assert int(line[2]) > 0


def test_the_root_path_is_the_script_name(served):
    where = facts(served, "/mounted/where")
    assert where["script_name"] == "/mounted"
    assert where["path"] == "/where"
    assert where["url"].endswith("/mounted/where")


def test_the_scheme_is_believed_of_a_proxy_that_is_allowed_to_say_it(served):
    headers = {"X-Forwarded-Proto": "https"}
    _, where = get(served, "/mounted/where", headers)
    assert where["scheme"] == "https"


def test_a_connection_serves_several_requests_and_is_closed_when_idle(served):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=DEADLINE)
    for _ in range(3):
        assert get(served, "/mounted/where", connection=connection)[0] == 200
    assert connection.sock.recv(1) == b""
    connection.close()


def test_a_request_line_that_is_too_long_is_refused(served):
    assert get(served, "/mounted/where?" + 300 * "x")[0] == 414
    assert get(served, "/mounted/where?" + 100 * "x")[0] == 200


def test_a_body_is_streamed_as_it_is_made(served):
    assert get(served, "/mounted/count") == (200, "0\n1\n2\n")


def test_two_requests_overlap_and_end_in_either_order(served):
    for first_to_end in (0, 1):
        held = [
            Held(served, "/mounted/read", "reading"),
            Held(served, "/mounted/read_sync", "reading_sync"),
        ]
        status, body = held.pop(first_to_end).finish()
        assert (status, body["body"]) == (200, "ab")
        status, body = held.pop().finish()
        assert (status, body["body"]) == (200, "ab")


# Ways to start ---------------------------------------------------------------


def test_gunicorn_paste_serves_on_plain_asyncio_without_freezing(tmp_path):
    ini = write_ini(
        tmp_path / "app.ini",
        app="paste.app_factory = worker_app:main\naioext.gc_freeze = false",
    )
    with paste(ini, "--asgi-loop", "asyncio", "--forwarded-allow-ips", "") as server:
        where = facts(server)
        assert where["loop"] == "asyncio"
        # Python 3.12 begins with some hundred.
        assert where["frozen"] < 1_000
        assert where["threshold"] == gc.get_threshold()[0]
        _, where = get(server, "/where", {"X-Forwarded-Proto": "https"})
        assert where["scheme"] == "http"
        assert server.stop() == 0
        assert events(server) == OPENED + CLOSED
        assert_clean(server)


@pytest.fixture(scope="module")
def workers():
    """Two workers, of an application made by a factory."""
    with gunicorn("worker_app:make()", "--workers", "2") as server:
        server.wait_for("(?s)ASGI server listening.*ASGI server listening")
        yield server


def test_every_worker_opens_its_lifespans_and_makes_its_threads(workers):
    opened = pids(workers, "opened first")
    assert len(opened) == 2
    assert set(opened) == set(workers.children())
    seen = set()

    def ask():
        sync = facts(workers, "/sync")
        assert sync["thread"].startswith("aioext-executor")
        seen.add(sync["pid"])
        return seen == set(opened)

    poll(ask, workers.describe)
    assert facts(workers)["multiprocess"] is True


def test_a_view_that_ends_its_worker_does_not_end_the_server():
    with gunicorn("worker_app:make()") as server:
        for number, how in enumerate(["3", "4", "KeyboardInterrupt"], 1):
            with contextlib.suppress(OSError, http.client.HTTPException):
                get(server, f"/leave_off?how={how}")
            wanted = number + 1
            poll(lambda n=wanted: len(pids(server, "starting")) == n, server.describe)
            assert get(server, "/sync")[0] == 200
        assert server.process.poll() is None


def test_all_workers_close_their_lifespans_at_the_end(workers):
    alive = workers.children()
    assert workers.stop() == 0
    assert set(pids(workers, "closed first")) == set(alive)
    assert len(pids(workers, "opened first")) == 2


def test_an_application_loaded_in_the_master_is_opened_in_the_worker():
    with gunicorn("worker_app:make()", "--preload", "--reload") as server:
        where = facts(server)
        assert where["opened"]
        assert where["multiprocess"] is False
        assert facts(server, "/sync")["pid"] == where["pid"] != server.process.pid
        assert server.output.count("aioext: reload has no effect") == 1
        assert server.stop() == 0
        assert events(server) == OPENED + CLOSED


def test_an_asgi_application_of_pyramid_gets_what_only_the_worker_knows():
    with gunicorn("worker_app:make_asgi()", "--workers", "2") as server:
        where = facts(server)
        assert where["opened"]
        assert where["multiprocess"] is True
        assert where["frozen"] > 10_000


@pytest.mark.parametrize(
    ("name", "said"),
    [("wsgi", "waited"), ("with_registry", "waited"), ("asgi", "asgi")],
)
def test_an_application_need_not_be_pyramid(name, said):
    with gunicorn(f"worker_plain:{name}") as server:
        answer = facts(server, "/")
        assert answer["said"] == said
        assert answer["frozen"] > 1_000
        assert server.stop() == 0
        assert_clean(server)


def test_an_application_behind_a_filter_and_two_in_a_composite_are_opened(tmp_path):
    ini = tmp_path / "composite.ini"
    ini.write_text(f"""
[composite:main]
paste.composite_factory = worker_plain:make_composite
one = filtered
two = two

[pipeline:filtered]
pipeline = filter one

[filter:filter]
paste.filter_factory = worker_plain:make_filter

[app:one]
paste.app_factory = worker_app:main
name = one_

[app:two]
paste.app_factory = worker_app:main
name = two_

[server:main]
use = egg:gunicorn#main
worker_class = {WORKER}
host = 127.0.0.1
port = 0
control_socket_disable = true
""")
    with pserve(ini) as server:
        assert facts(server, "/one/where")["opened"]
        assert facts(server, "/two/where")["opened"]
        assert facts(server, "/two/where")["script_name"] == "/two"
        assert server.stop() == 0
        assert_clean(server)
        names = ["one_first", "one_second", "starting"]
        names += ["two_first", "two_second", "starting"]
        opened = [name.removeprefix("opened ") for name in events(server)[:6]]
        assert opened == names
        closed = [name.removeprefix("closed ") for name in events(server)[6:]]
        names[2] = names[5] = "stopping"
        assert closed == names[::-1]


# Transports ------------------------------------------------------------------


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a unix socket."""

    def __init__(self, path):
        super().__init__("localhost")
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(self._path)


def test_a_unix_socket_is_served(tmp_path):
    path = str(tmp_path / "socket")
    command = ["gunicorn", "-k", WORKER, "-b", f"unix:{path}", "--no-control-socket"]
    server = Server([*command, "worker_app:make()"], APPS, ENVIRON)
    with contextlib.closing(server):
        server.wait_for("ASGI server listening")
        connection = UnixConnection(path)
        status, where = get(server, "/where", connection=connection)
        assert status == 200
        assert where["client"] == ""
        assert where["url"] == "http://localhost/where"
        connection.close()
        assert server.stop() == 0
        assert_clean(server)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost, and its key."""
    return write_parts(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def secure(certificate):
    """A server that speaks TLS, and HTTP/2 as well as HTTP/1.1."""
    cert, key = certificate
    options = ["--certfile", str(cert), "--keyfile", str(key)]
    options += ["--http-protocols", "h2,h1"]
    with gunicorn("worker_app:make()", *options) as server:
        yield server
        assert server.stop() == 0
        assert_clean(server)


@pytest.fixture
def connect_secure(secure, certificate):
    """Connect to it, offering protocols; gives the TLS socket."""
    context = ssl.create_default_context(cafile=certificate[0])
    opened = []

    def connect(*protocols):
        context.set_alpn_protocols(protocols)
        plain = secure.connect()
        opened.append(context.wrap_socket(plain, server_hostname="localhost"))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


def test_tls_is_served_with_the_scheme_of_it(connect_secure):
    tls = connect_secure("http/1.1")
    tls.sendall(b"GET /where HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = http.client.HTTPResponse(tls)
    answer.begin()
    where = json.loads(answer.read())
    assert where["scheme"] == "https"
    assert where["url"] == "https://localhost/where"


class Http2:
    """A client of one HTTP/2 connection; streams may overlap."""

    def __init__(self, tls):
        assert tls.selected_alpn_protocol() == "h2"
        self._tls = tls
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration())
        self._h2.initiate_connection()
        self.status = {}
        self.chunks = {}
        self.ended = set()

    def request(self, method, path, end=True):
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(
            stream,
            [
                (":method", method),
                (":path", path),
                (":scheme", "https"),
                (":authority", "localhost"),
            ],
            end_stream=end,
        )
        self.chunks[stream] = []
        self._flush()
        return stream

    def send(self, stream, data, end=False):
        self._h2.send_data(stream, data, end_stream=end)
        self._flush()

    def body(self, stream):
        """The chunks of the response, when it is complete."""
        while stream not in self.ended:
            data = self._tls.recv(65_536)
            assert data, "the server closed the connection"
            for event in self._h2.receive_data(data):
                self._handle(event)
            self._flush()
        return self.chunks[stream]

    def _handle(self, event):
        if isinstance(event, h2.events.ResponseReceived):
            self.status[event.stream_id] = dict(event.headers)[b":status"]
        elif isinstance(event, h2.events.DataReceived):
            if event.data:
                self.chunks[event.stream_id].append(event.data)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended.add(event.stream_id)

    def _flush(self):
        self._tls.sendall(self._h2.data_to_send())


def test_http2_takes_a_body_without_a_length(secure, connect_secure):
    client = Http2(connect_secure("h2"))
    stream = client.request("POST", "/read", end=False)
    secure.wait_for("event: reading ")
    client.send(stream, b"in ")
    client.send(stream, b"parts", end=True)
    assert json.loads(b"".join(client.body(stream)))["body"] == "in parts"
    assert client.status[stream] == b"200"


def test_http2_streams_overlap_on_one_connection(secure, connect_secure):
    client = Http2(connect_secure("h2"))
    held = client.request("POST", "/read_sync", end=False)
    secure.wait_for("event: reading_sync ")
    chunks = client.body(client.request("GET", "/count"))
    assert chunks == [b"0\n", b"1\n", b"2\n"]
    client.send(held, b"x", end=True)
    assert json.loads(b"".join(client.body(held)))["body"] == "x"


# The end ---------------------------------------------------------------------


@pytest.fixture
def worker():
    """A worker that has not been started."""
    return AsyncGunicornWorker.__new__(AsyncGunicornWorker)


@pytest.mark.parametrize("place", ["on the loop", "in a thread"])
def test_the_end_of_a_worker_is_announced_once(worker, place):
    async def main():
        told = []
        on_shutdown(lambda: told.append(threading.current_thread()))
        worker.loop = asyncio.get_running_loop()
        worker._serving = asyncio.create_task(asyncio.Event().wait())
        assert worker.alive
        for _ in range(2):
            if place == "on the loop":
                worker.alive = False
            else:
                await asyncio.to_thread(setattr, worker, "alive", False)
        # gunicorn's main loop, which looks once a second, is woken.
        await asyncio.wait([worker._serving])
        assert not worker.alive
        return told

    assert asyncio.run(main()) == [threading.main_thread()]


def test_the_end_of_a_worker_is_not_cancelled_if_it_looks_when_it_is_told(worker):
    async def serve():
        worker._serving = asyncio.current_task()
        with contextlib.suppress(asyncio.CancelledError):
            while worker.alive:  # noqa: ASYNC110
                await asyncio.sleep(0)
        # What gunicorn does at the end takes some turns of the loop.
        for _ in range(3):
            await asyncio.sleep(0)
        return "ended"

    async def main():
        worker.loop = asyncio.get_running_loop()
        serving = asyncio.create_task(serve())
        await asyncio.sleep(0)
        worker.alive = False
        return await serving

    assert asyncio.run(main()) == "ended"


def test_a_worker_may_be_told_to_stop_before_and_after_its_loop(worker):
    worker.alive = False
    worker.alive = True
    worker.loop = asyncio.new_event_loop()
    worker.loop.close()
    worker.alive = False
    assert not worker.alive


# Reloading -------------------------------------------------------------------


APPLICATION = """
from pyramid.config import Configurator
from pyramid.response import Response

async def hello(request):
    return Response("ANSWER")

def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include("aioext")
        config.add_view(hello)
    return config.make_wsgi_app()
"""


class Project:
    """A module that is edited while it is served."""

    def __init__(self, directory):
        self.directory = directory
        self._module = directory / "edited_app.py"
        self.edit("first")
        self.ini = write_ini(
            directory / "app.ini",
            app="paste.app_factory = edited_app:main",
            server=f"port = {free_port()}",
        )
        text = self.ini.read_text().replace("port = 0\n", "")
        self.ini.write_text(text)

    def edit(self, answer):
        self._touched, self._patience = time.monotonic(), 1.5
        self._module.write_text(APPLICATION.replace("ANSWER", answer))

    def break_syntax(self):
        self._touched, self._patience = time.monotonic(), 1.5
        self._module.write_text("def main(:\n")

    def touch(self):
        """Edit it again after some time: a new reloader may have missed it.

        Ever later, for each time the server starts again, which may take longer.
        """
        if time.monotonic() - self._touched > self._patience:
            self._touched = time.monotonic()
            self._patience *= 2
            os.utime(self._module)


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def answers(server, project, expected, status=200):
    """Wait until the server, which may be away meanwhile, answers that."""

    def ask():
        project.touch()
        with contextlib.suppress(OSError, http.client.HTTPException):
            found, body = get(server, "/")
            return found == status and expected in body

    poll(ask, server.describe)


def test_gunicorn_reloads_a_module_that_is_edited_broken_and_mended(project):
    options = ["--reload", "--reload-engine", "poll"]
    with paste(project.ini, *options, directory=project.directory) as server:
        answers(server, project, "first")
        assert "aioext: reload" not in server.output
        project.edit("second")
        answers(server, project, "second")
        project.break_syntax()
        answers(server, project, "Application error", status=500)
        project.edit("third, and longer")
        answers(server, project, "third, and longer")
        assert server.stop() == 0


def test_pserve_reloads_a_module_that_is_edited(project):
    with pserve("--reload", project.ini, directory=project.directory) as server:
        answers(server, project, "first")
        project.edit("second")
        answers(server, project, "second")
        assert "Traceback" not in server.output


def test_reload_under_pserve_is_warned_of_in_one_line(tmp_path):
    ini = write_ini(tmp_path / "app.ini", server="reload = true\nworkers = 2")
    with pserve(ini) as server:
        server.wait_for("(?s)ASGI server listening.*ASGI server listening")
        lines = [line for line in server.output.splitlines() if "aioext" in line]
        warnings = [line for line in lines if "[WARNING]" in line]
        assert len(warnings) == 1
        assert "pserve --reload" in warnings[0]


# Refusals --------------------------------------------------------------------


def complaints(output, word="aioext: "):
    return [line for line in output.splitlines() if word in line]


def test_what_is_no_application_ends_the_server_with_one_line():
    status, output = fails("worker_plain:neither")
    assert status == Arbiter.APP_LOAD_ERROR
    (line,) = complaints(output)
    assert "neither a WSGI nor an ASGI application" in line
    assert "function neither" in line
    assert output.count("Booting worker") == 1
    assert "Traceback" not in output


def test_a_mistake_in_the_configuration_ends_the_server_with_its_message():
    status, output = fails("worker_app:misconfigured()")
    assert status == 4
    assert output.count("There is no setting aioext.sync_view.") == 1
    assert "Did you mean aioext.sync_views?" in output
    assert "Traceback" not in output


def test_any_other_error_in_the_configuration_has_its_traceback():
    status, output = fails("worker_app:broken_in_an_action()")
    assert status != 0
    assert "ZeroDivisionError" in output
    assert "Traceback" in output


def test_an_application_that_does_not_include_aioext_is_warned_of():
    with gunicorn("worker_app:without_aioext()") as server:
        assert get(server, "/")[0] == 200
        assert server.output.count("does not include aioext") == 1


def test_a_lifespan_that_fails_ends_the_server_with_its_cause():
    status, output = fails('worker_app:make(fail="yes")')
    assert status == Arbiter.WORKER_BOOT_ERROR
    (line,) = complaints(output, "[ERROR] ASGI lifespan startup failed")
    assert "LookupError: there is no database" in line
    assert output.count("Booting worker") == 1
    assert output.count("Traceback") == 1
    assert output.index("event: closed first") < output.index("startup failed")
    assert "event: starting" not in output


PSERVE_FAILURES = {
    "no application": (
        "paste.app_factory = worker_plain:make_neither",
        Arbiter.APP_LOAD_ERROR,
        "neither a WSGI nor an ASGI application",
    ),
    "lifespan": (
        "paste.app_factory = worker_app:main\nfail = yes",
        Arbiter.WORKER_BOOT_ERROR,
        "LookupError: there is no database",
    ),
}


@pytest.mark.parametrize("failure", PSERVE_FAILURES)
def test_pserve_does_not_start_a_worker_again_that_cannot_serve(tmp_path, failure):
    app, status, cause = PSERVE_FAILURES[failure]
    ini = write_ini(tmp_path / "app.ini", app=app)
    _, output = ends("pyramid.scripts.pserve", str(ini))
    assert f"exited with code {status}" in output
    assert len(complaints(output, f"[ERROR] {ERROR_OF[failure]}")) == 1
    assert cause in output
    assert output.count("Booting worker") == 1


ERROR_OF = {"no application": "aioext: ", "lifespan": "ASGI lifespan startup failed"}


def test_an_application_that_fails_on_import_ends_the_server():
    status, output = fails("worker_broken:application")
    assert status == Arbiter.WORKER_BOOT_ERROR
    assert "this module is broken" in output
    assert output.count("Booting worker") == 1
    assert "aioext: " not in output


TOO_OLD = (
    "aioext: this worker needs gunicorn >= 27, found 26.1.0. "
    "Write: pip install 'aioext[gunicorn]'"
)


@pytest.fixture
def old_gunicorn(tmp_path):
    """A directory with a gunicorn that says that it is an old one."""
    import gunicorn as real

    package = tmp_path / "gunicorn"
    package.mkdir()
    package.joinpath("__init__.py").write_text(
        f"__path__ = {list(real.__path__)!r}\n"
        "version_info = (26, 1, 0)\n"
        "__version__ = '26.1.0'\n"
        "SERVER = 'gunicorn'\n"
        "SERVER_SOFTWARE = 'gunicorn/26.1.0'\n"
    )
    return tmp_path


def test_a_gunicorn_that_is_too_old_ends_the_server_with_one_line(old_gunicorn):
    status, output = fails("worker_plain:wsgi", directory=old_gunicorn)
    assert status == 1
    assert output == TOO_OLD + "\n"


def test_a_gunicorn_that_is_too_old_ends_pserve_with_one_line(old_gunicorn):
    old_gunicorn.joinpath("plain.py").write_text("def main(config): return main")
    app = "paste.app_factory = plain:main"
    ini = write_ini(old_gunicorn / "app.ini", app=app)
    command = ["pyramid.scripts.pserve", str(ini)]
    _, output = ends(*command, directory=old_gunicorn)
    (line,) = complaints(output)
    assert TOO_OLD in line
    assert "Booting worker" not in output


def test_without_gunicorn_the_import_fails_with_what_to_install():
    code = """
import sys
sys.modules["gunicorn"] = None
try:
    import aioext.gunicorn.worker
except ImportError as error:
    print(error)
"""
    assert python(code) == (
        "aioext: this worker needs gunicorn >= 27, found none. "
        "Write: pip install 'aioext[gunicorn]'\n"
    )


def test_importing_the_worker_changes_nothing_in_the_process():
    code = """
import gc, signal, threading
from pyramid.threadlocal import ThreadLocalManager, manager
before = signal.getsignal(signal.SIGTERM)
threshold = gc.get_threshold()
frozen = gc.get_freeze_count()
import aioext.gunicorn.worker
assert type(manager) is ThreadLocalManager
assert threading.active_count() == 1
assert gc.get_freeze_count() == frozen
assert gc.get_threshold() == threshold
assert signal.getsignal(signal.SIGTERM) is before
"""
    assert python(code) == ""


# What kind of application it is ----------------------------------------------


class AsgiInstance:
    async def __call__(self, scope, receive, send):
        """As frameworks have it."""


class WsgiInstance:
    def __call__(self, environ, start_response):
        """As Pyramid has it."""


class WsgiClass:
    def __init__(self, environ, start_response):
        """As PEP 3333 allows it."""


async def asgi_function(scope, receive, send):
    """As the specification has it."""


def asgi_in_disguise(scope, receive, send):
    return asgi_function(scope, receive, send)


def anything(*args):
    """Takes what comes."""


@pytest.mark.parametrize(
    "application", [AsgiInstance(), asgi_function, asgi_in_disguise]
)
def test_asgi_is_told_from_wsgi(application):
    assert speaks_asgi(application)


@pytest.mark.parametrize(
    "application",
    [WsgiInstance(), WsgiClass, anything, dict],
)
def test_wsgi_is_told_from_asgi(application):
    assert speaks_wsgi(application)
    assert not speaks_asgi(application)


@pytest.mark.parametrize("application", [None, "text", 1, lambda request: None])
def test_neither_is_told(application):
    assert not speaks_wsgi(application)
    assert not speaks_asgi(application)


# The contract with gunicorn --------------------------------------------------


def test_gunicorn_still_has_what_the_worker_builds_on():
    for name in ("load_wsgi", "handle_exit_signal", "handle_quit_signal"):
        method = getattr(ASGIWorker, name)
        assert list(inspect.signature(method).parameters) == ["self"], name
    check = inspect.signature(ASGIWorker.check_config)
    assert list(check.parameters) == ["cfg", "log"]
    assert issubclass(AsyncGunicornWorker, ASGIWorker)


def test_gunicorn_still_puts_the_application_where_the_worker_takes_it():
    class Application:
        def wsgi(self):
            return asgi_function

    worker = ASGIWorker.__new__(ASGIWorker)
    worker.app = Application()
    worker.load_wsgi()
    assert worker.asgi is asgi_function


def test_gunicorn_still_has_the_settings_that_the_worker_reads():
    cfg = Config()
    assert cfg.workers >= 1
    assert cfg.reload is False
    assert cfg.protocol == "http"
    assert cfg.graceful_timeout > CLOSING


def test_gunicorn_still_ends_for_an_application_that_does_not_load():
    assert Arbiter.APP_LOAD_ERROR == 4
    assert Arbiter.WORKER_BOOT_ERROR == 3


@pytest.mark.parametrize("engine", ["auto", "poll"])
def test_gunicorn_still_watches_files_that_it_is_told_of(engine):
    assert preferred_reloader in reloader_engines.values()
    assert callable(reloader_engines[engine].add_extra_file)


def test_a_signal_after_the_end_of_the_loop_is_nothing():
    worker = AsyncGunicornWorker.__new__(AsyncGunicornWorker)
    worker.loop = asyncio.new_event_loop()
    noticed = worker._on_the_loop(worker.handle_exit_signal)
    worker.loop.close()
    noticed(signal.SIGTERM, None)

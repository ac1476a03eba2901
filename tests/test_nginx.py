"""nginx in front of the worker, with the configuration that the documentation shows.

nginx is the system's (Debian: ``apt-get install nginx-light``). Each runs in a
directory of its own, on free ports, with ``docs/examples/nginx.conf`` but for its
addresses: one port with TLS, as there, and one without.
"""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from certificates import write_whole
from life import APPS, ENVIRON, assert_clean
from servers import DEADLINE, free_port, poll, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from aioext.settings import SETTINGS, Settings

EXAMPLE = Path(__file__).resolve().parent.parent / "docs" / "examples" / "nginx.conf"

# Debian has it where only root looks for commands.
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")

# As in the example.
HOST = "hello.example"
# Seconds after which nginx gives a silent application up, where that is tested.
PATIENCE = 1

# What a configuration for a whole server has, and one for a site has not.
AROUND = """\
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {site}
}}
"""


class Nginx:
    """An nginx that runs.

    Args:
        directory: where it keeps its files.
        site: the configuration of one site.
        ports: where it listens, by scheme.
        trust: an ``ssl.SSLContext`` of clients.
    """

    def __init__(self, directory, site, ports, trust):
        self._ports = ports
        self._trust = trust
        self._log = directory / "log"
        configuration = directory / "nginx.conf"
        configuration.write_text(AROUND.format(site=site))
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [NGINX, "-e", "stderr", "-p", directory, "-c", configuration],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_until_listening(self):
        poll(self._accepts, self._log.read_text, self)

    def _accepts(self):
        try:
            for scheme in self._ports:
                self.connect(scheme).close()
        except ConnectionRefusedError:
            return False
        return True

    def connect(self, scheme="https"):
        """A socket connected to it, with TLS if the scheme has it."""
        address = ("127.0.0.1", self._ports[scheme])
        connection = socket.create_connection(address, DEADLINE)
        if scheme == "https":
            return self._trust.wrap_socket(connection, server_hostname=HOST)
        return connection

    @contextmanager
    def ask(self, path, *, method="GET", scheme="https", headers=()):
        """The ``http.client.HTTPResponse`` to a request."""
        client = http.client.HTTPConnection(HOST)
        with self.connect(scheme) as client.sock:
            client.request(method, path, headers=dict(headers))
            with client.getresponse() as answer:
                yield answer

    @contextmanager
    def websocket(self, path, *, scheme="https", host=HOST, origin=None, headers=()):
        """A WebSocket through it, of a client of websockets'."""
        address = f"{'wss' if scheme == 'https' else 'ws'}://{host}{path}"
        options = {"ssl": self._trust} if scheme == "https" else {}
        with connect(
            address,
            sock=socket.create_connection(("127.0.0.1", self._ports[scheme]), DEADLINE),
            origin=origin,
            additional_headers=dict(headers),
            ping_interval=None,
            proxy=None,
            **options,
        ) as ws:
            yield ws

    def stop(self):
        """End it; gives what it has logged."""
        self.process.terminate()
        self.process.wait(DEADLINE)
        return self._log.read_text()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for the host, and a context of clients that trust it."""
    return write_whole(tmp_path_factory.mktemp("certificate"), HOST)


@pytest.fixture(scope="module")
def start(certificate, tmp_path_factory):
    """Start nginx before the socket of a worker; ends at the end."""
    if NGINX is None:
        pytest.skip("there is no nginx: apt-get install nginx-light")
    started = []

    def start(upstream, patience="60s"):
        ports = {"https": free_port(), "http": free_port()}
        path, trust = certificate
        site = site_for(upstream, ports, path, patience)
        nginx = Nginx(tmp_path_factory.mktemp("nginx"), site, ports, trust)
        started.append(nginx)
        nginx.wait_until_listening()
        return nginx

    yield start
    for nginx in started:
        assert not re.search(r"\[(warn|alert|crit|emerg)\]", nginx.stop())


def site_for(upstream, ports, certificate, patience):
    """The example, with addresses of this machine."""
    listen = (
        f"listen 127.0.0.1:{ports['https']} ssl;\n    listen 127.0.0.1:{ports['http']};"
    )
    keys = f"ssl_certificate {certificate};\n    ssl_certificate_key {certificate};"
    site = EXAMPLE.read_text("utf-8")
    for shown, here in (
        ("unix:/run/hello/socket;", f"unix:{upstream};"),
        ("listen 443 ssl;", listen),
        ("# ssl_certificate ...", keys),
        ("proxy_read_timeout 60s;", f"proxy_read_timeout {patience};"),
    ):
        assert site.count(shown) == 1
        site = site.replace(shown, here)
    return site


@contextmanager
def worker(directory):
    """The gunicorn worker; gives its server and the address of its socket."""
    upstream = directory / "socket"
    bind = ["-b", f"unix:{upstream}"]
    command = ["gunicorn", "nginx_app:make()", *bind]
    with serve(*command, directory=APPS, environ=ENVIRON) as server:
        yield server, upstream
        if server.process.poll() is None:
            assert server.stop() == 0
        assert_clean(server)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    with worker(tmp_path_factory.mktemp("worker")) as (_, upstream):
        yield upstream


@pytest.fixture(scope="module")
def nginx(start, upstream):
    return start(upstream)


@pytest.fixture(scope="module")
def impatient(start, upstream):
    return start(upstream, f"{PATIENCE}s")


SCHEMES = ["https", "http"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_messages_pass(nginx, scheme):
    with nginx.websocket("/echo", scheme=scheme) as ws:
        for message in ("hello", b"\0\xff", "", "x" * 1_000_000):
            ws.send(message)
            assert ws.recv(DEADLINE) == message


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("host", [HOST, f"{HOST}:8443"])
def test_the_origin_is_compared_with_what_the_browser_sees(nginx, scheme, host):
    with nginx.websocket(
        "/echo", scheme=scheme, host=host, origin=f"{scheme}://{host}"
    ) as ws:
        ws.send("hello")
        assert ws.recv(DEADLINE) == "hello"


@pytest.mark.parametrize(
    ("scheme", "origin"),
    [
        ("https", f"http://{HOST}"),
        ("http", f"https://{HOST}"),
        ("https", "https://elsewhere.example"),
        ("https", "null"),
    ],
)
def test_another_origin_is_refused(nginx, scheme, origin):
    with (
        pytest.raises(InvalidStatus) as refused,
        nginx.websocket("/echo", scheme=scheme, origin=origin),
    ):
        pass
    assert refused.value.response.status_code == 403
    assert origin.encode() in refused.value.response.body


def test_a_client_cannot_say_by_which_scheme_and_from_where_it_comes(nginx):
    claims = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
    with nginx.websocket("/socket-facts", scheme="http", headers=claims) as ws:
        of_socket = json.loads(ws.recv(DEADLINE))
    with nginx.ask("/facts", scheme="http", headers=claims) as answer:
        of_page = json.load(answer)
    for facts in (of_socket, of_page):
        assert (facts["scheme"], facts["client"]) == ("http", "127.0.0.1")


def test_the_application_sees_the_address_that_the_browser_has(nginx):
    with nginx.websocket("/socket-facts", host=f"{HOST}:8443") as ws:
        facts = json.loads(ws.recv(DEADLINE))
    assert facts["host"] == f"{HOST}:8443"
    assert facts["url"] == f"https://{HOST}:8443/socket-facts"


def upload(nginx, size, *, said=None):
    """Status and body of the answer to so many bytes; fewer than said are not sent."""
    client = http.client.HTTPConnection(HOST)
    with nginx.connect("https") as client.sock:
        client.putrequest("POST", "/size")
        client.putheader("Content-Length", str(said or size))
        client.endheaders()
        if said is None:
            client.send(b"x" * size)
        with client.getresponse() as answer:
            return answer.status, answer.read()


def test_a_body_within_the_limit_of_nginx_passes(nginx):
    size = 2 * 1024**2
    assert upload(nginx, size) == (200, b"%d" % size)


def test_nginx_and_the_application_have_the_same_limit(nginx):
    status, body = upload(nginx, 0, said=100 * 1024**2 + 1)
    assert status == 413
    assert b"nginx" in body
    production = (EXAMPLE.parent / "production.ini").read_text("utf-8")
    assert "aioext.max_body = 100MiB" in production
    assert "client_max_body_size 100m;" in EXAMPLE.read_text("utf-8")
    assert Settings({"aioext.max_body": "100MiB"}).max_body == 100 * 1024**2


def test_no_other_upgrade_is_passed_on(nginx):
    upgrade = {"Upgrade": "h2c", "Connection": "Upgrade"}
    with nginx.ask("/facts", headers=upgrade) as answer:
        assert json.load(answer)["connection"] is None


def test_a_refusal_is_the_applications_response(nginx):
    with pytest.raises(InvalidStatus) as refused, nginx.websocket("/refused"):
        pass
    response = refused.value.response
    assert response.status_code == 403
    assert response.headers["X-Reason"] == "no member"
    assert b"members only" in response.body


def test_a_page_that_is_a_websocket_says_so(nginx):
    with nginx.ask("/echo") as answer:
        assert answer.status == 426
        assert b"WebSocket" in answer.read()


def event_of(answer):
    """The lines of the next event, without comments."""
    lines = []
    while True:
        line = answer.readline().decode()
        assert line, "the stream has ended"
        if line == "\n" and lines:
            return lines
        if line != "\n" and not line.startswith(":"):
            lines.append(line.strip())


def test_each_event_arrives_before_the_next_one_is_made(nginx):
    with nginx.ask("/stream") as answer:
        assert answer.readline() == b":\n"
        for name in ("one", "two", "three"):
            with nginx.ask(f"/step?name={name}", method="POST") as step:
                assert step.read() == b"asked"
            assert event_of(answer) == ["event: step", f"data: {name}"]
    with nginx.ask("/ended") as ended:
        assert ended.read() == b"ended"


def test_pings_keep_an_idle_websocket_from_being_cut(impatient):
    with impatient.websocket("/pinged") as pinged:
        # Long enough for one ping not to be enough.
        for _ in range(2):
            with (
                impatient.websocket("/unpinged") as unpinged,
                pytest.raises(ConnectionClosed) as cut,
            ):
                unpinged.recv(DEADLINE)
            assert cut.value.rcvd is None
        pinged.send("still here")
        assert pinged.recv(DEADLINE) == "still here"


def test_heartbeats_keep_a_silent_stream_from_being_cut(impatient):
    with (
        impatient.ask("/beating") as beating,
        impatient.ask("/silent") as silent,
    ):
        with pytest.raises(http.client.IncompleteRead):
            silent.read()
        # Twice as many as may have come meanwhile.
        for _ in range(10 * PATIENCE):
            assert beating.readline() == b":\n"
            assert beating.readline() == b"\n"


def test_the_example_waits_for_longer_than_a_client_may_be_silent():
    patience = re.search(r"proxy_read_timeout (\d+)s;", EXAMPLE.read_text("utf-8"))
    default = {setting.name: setting.default for setting in SETTINGS}
    assert default["websocket.ping_interval"] < int(patience[1])
    assert default["eventsource.heartbeat"] < int(patience[1])


def test_the_end_of_the_server_is_told(start, tmp_path):
    with worker(tmp_path) as (server, upstream):
        nginx = start(upstream)
        with nginx.ask("/stream") as stream, nginx.websocket("/echo") as ws:
            assert stream.readline() == b":\n"
            ws.send("hello")
            assert ws.recv(DEADLINE) == "hello"
            server.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                ws.recv(DEADLINE)
            assert closed.value.rcvd.code == 1012
            assert re.search(rb"^retry: \d+\n\n", stream.read(), re.MULTILINE)
        assert server.process.wait(DEADLINE) == 0


def test_a_reload_is_told_and_whoever_comes_back_is_served(start, tmp_path):
    with worker(tmp_path) as (server, upstream):
        nginx = start(upstream)
        with nginx.websocket("/echo") as ws:
            ws.send("hello")
            assert ws.recv(DEADLINE) == "hello"
            server.send_signal(signal.SIGHUP)
            with pytest.raises(ConnectionClosed) as closed:
                ws.recv(DEADLINE)
        assert closed.value.rcvd.code == 1012
        with nginx.websocket("/echo") as ws:
            ws.send("here again")
            assert ws.recv(DEADLINE) == "here again"

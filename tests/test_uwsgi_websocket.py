"""WebSockets under uWSGI: the same promises as on the gunicorn worker.

What a client may do wrong is asked of both in the same tests, those of
``test_websocket_bad_input``.
"""

import contextlib
import shutil
import signal
import ssl
import struct
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import servers
import test_websocket_bad_input as bad_input
import trustme
from life import APPS, ENVIRON, assert_clean, get
from servers import COMMANDS, Server, free_port, launch, poll, serve
from test_websocket_bad_input import bystander, counts  # noqa: F401
from ws_client import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Raw,
    close_frame,
    frame,
    handshake,
)

from aioext.uwsgi import websocket as module

MEBIBYTE = 1_048_576

STRESS = "websocket_stress:make()"
APP = "websocket_app:make()"

# Those that are about something else than gunicorn.
SHARED = """
    test_what_breaks_the_protocol_closes_with_its_code
    test_what_came_before_it_is_received
    test_what_is_odd_and_allowed_is_served
    test_a_close_frame_is_answered_with_its_code
    test_a_close_frame_without_a_code_is_answered_with_none
    test_a_close_frame_that_crosses_ours_ends_it
    test_garbage_after_the_handshake_is_a_protocol_error
    test_frames_that_come_before_it_is_accepted_are_not_lost
    test_a_client_that_floods_before_it_is_accepted_is_held_back
    test_a_handshake_that_is_none_has_an_answer
    test_messages_are_compressed_for_who_offers_it
    test_compressed_garbage_is_refused
    test_a_client_that_never_reads_holds_its_handler_back
    test_a_handler_that_never_receives_holds_its_client_back
    test_small_messages_that_nobody_receives_take_no_memory
    test_a_burst_in_one_segment_is_delivered_in_order
    test_a_burst_waits_until_its_handler_takes_it
    test_a_client_that_does_not_answer_pings_is_closed_with_1011
    test_a_client_that_says_anything_is_alive
    test_nothing_is_left_of_1000_disconnects_at_every_stage
""".split()
globals().update({name: getattr(bad_input, name) for name in SHARED})


def start(app, *options):
    """uWSGI with an application of ``apps/``."""
    return serve("uwsgi", app, *options, directory=APPS, environ=ENVIRON)


@contextmanager
def start_at(listen, *options, app=APP):
    """The same, listening as ``listen`` says, which may have the port ``PORT``."""
    port = str(free_port())
    command = [
        each.replace("PORT", port)
        for each in ("uwsgi", *listen, *COMMANDS["uwsgi"][3:], *options)
    ]
    server = Server([*command, "--module", app], APPS, ENVIRON)
    server.port = int(port)
    try:
        server.wait_for("asyncio loop engine")
        yield server
        if server.process.poll() is None:
            assert server.stop() == 0
    finally:
        server.close()


@pytest.fixture(scope="module", autouse=True)
def _as_uwsgi_has_it():
    with pytest.MonkeyPatch.context() as patch:
        # It keeps no connection for a second request.
        patch.setattr(bad_input, "get", lambda *args, connection=None: get(*args))
        patch.setattr(bad_input, "DISCONNECTS", 50)
        yield


@pytest.fixture(scope="module")
def server():
    with start(STRESS) as server:
        server.counts = counts(server)
        yield server
        assert server.stop() == 0
        assert_clean(server)
        assert_quiet(server)


@pytest.fixture(scope="module")
def app():
    with start(APP) as server:
        yield server
        assert server.stop() == 0
        assert server.output.count("Traceback") == server.output.count("Expected: ")
        assert_quiet(server)


# What uWSGI says when something goes wrong on a connection.
NOISE = ("SIGPIPE", "write error", "Broken pipe", "BUG", "DANGER", "Segmentation")


def assert_quiet(server):
    """uWSGI has found nothing wrong either."""
    found = [each for each in NOISE if each in server.output]
    assert not found, server.describe(f"wrote {found}")


def told(server, client, count=1):
    """What the application has told about a client."""
    status, facts = get(server, f"/told?key={client.key}&count={count}")
    assert status == 200
    return facts


def answered_close(client):
    """Code and reason of the server's close frame, which is answered."""
    opcode, payload = client.read()
    assert opcode == CLOSE
    client.send(frame(CLOSE, payload))
    assert client.read() is None
    return struct.unpack("!H", payload[:2])[0], payload[2:].decode()


def echoes(client, *payloads):
    for payload in payloads:
        client.send(frame(TEXT, payload))
        assert client.read() == (TEXT, payload)


# What it relies on -----------------------------------------------------------------


def test_uwsgi_exports_the_function_that_has_what_was_read_ahead():
    # For its plugins: ssize_t (struct wsgi_request *, char *, size_t), and the address
    # of the first is an attribute of the request's greenlet.
    (program,) = launch(["uwsgi"])
    assert module.READER.encode() + b"\0" in Path(program).read_bytes()


HTTPS = {"wsgi.url_scheme": "https"}
HERE = ("127.0.0.1", 8000)


@pytest.mark.parametrize(
    ("options", "environ", "address", "status"),
    [
        ({}, {}, HERE, None),
        ({"http-socket": b":8000"}, {"SERVER_PROTOCOL": "HTTP/1.1"}, HERE, None),
        ({"http-socket": b":8000"}, {"SERVER_PROTOCOL": "HTTP/1.0"}, HERE, 400),
        ({"https-socket": b":8000,c.pem,k.pem"}, HTTPS, HERE, 501),
        ({"https-socket": b"127.0.0.1:0,c.pem,k.pem"}, HTTPS, HERE, 501),
        ({"https-socket": b"=0,c.pem,k.pem"}, HTTPS, HERE, 501),
        ({"https-socket": b":8443,c.pem,k.pem"}, HTTPS, HERE, None),
        ({"https-socket": [b":8443,c,k", b":8000,c,k"]}, HTTPS, HERE, 501),
        ({"https-socket": b":8000,c.pem,k.pem"}, HTTPS, "/run/app.sock", None),
        ({"https-socket": b":0,c.pem,k.pem"}, {}, HERE, None),
        ({"suwsgi-socket": b":8000,c.pem,k.pem"}, HTTPS, HERE, 501),
        ({"fastcgi-socket": b"/run/app.sock"}, {}, "/run/app.sock", 501),
        ({"fastcgi-socket": b"/run/other.sock"}, {}, "/run/app.sock", None),
        ({"fastcgi-socket": b"@app"}, {}, b"\0app", None),
        ({"http11-socket": b":8000"}, {}, HERE, 501),
        ({"http11-socket": True}, {}, HERE, None),
        ({"protocol": b"fastcgi", "socket": b":8000"}, {}, HERE, 501),
        ({"protocol": b"http", "socket": b":8000"}, {}, HERE, None),
        ({"protocol": b"https", "socket": b":8000"}, HTTPS, HERE, 501),
        ({"http": b":80"}, {}, HERE, 501),
        ({"http": b":80", "http-websockets": True}, {}, HERE, None),
        ({"https": b":443,c,k", "http-raw-body": True}, HTTPS, HERE, None),
        ({"http": b":80", "socket": b":8000"}, {}, HERE, None),
    ],
)
def test_where_there_can_be_no_websocket_the_answer_says_why(
    options, environ, address, status
):
    refusal = module.why_not(options, environ, address)
    assert (refusal and refusal.status_int) == status
    assert refusal is None or len(refusal.detail.splitlines()) == 1


# Messages ----------------------------------------------------------------------

FORMS = {
    "/echo": b"",
    "/page-or-socket": b"socket True ",
    "/page-or-socket-in-executor": b"socket ",
    "/respond": b"",
    "/respond-from-executor": b"function ",
    "/function": b"function ",
    "/threaded": b"thread ",
    "/plain": b"plain ",
}


@pytest.mark.parametrize("path", FORMS)
def test_every_form_of_a_view_talks(app, path):
    with Raw(app, path) as client:
        assert client.status == 101
        for number in range(3):
            client.send(frame(TEXT, b"%d" % number))
            assert client.read() == (TEXT, b"%s%d" % (FORMS[path], number))
        client.send(close_frame(1000, b"bye"))
        assert client.end() == (1000, "bye")


@pytest.mark.parametrize("path", FORMS)
def test_what_comes_in_one_piece_with_the_handshake_is_not_lost(app, path):
    early = [b"first", b"second", b""]
    with Raw(app, path, after=b"".join(frame(TEXT, each) for each in early)) as client:
        for each in early:
            assert client.read() == (TEXT, FORMS[path] + each)


def test_half_a_frame_may_come_with_the_handshake(app):
    data = frame(TEXT, b"hello")
    with Raw(app, "/echo", after=data[:4]) as client:
        client.send(data[4:])
        assert client.read() == (TEXT, b"hello")


def test_fragments_of_two_clients_do_not_mix(server):
    pids = server.children()
    with Raw(server, "/watch") as one, Raw(server, "/watch") as other:
        for client, letter in ((one, b"a"), (other, b"b")):
            client.send(frame(TEXT, letter, fin=False))
        for _ in range(3):
            other.send(frame(CONT, b"b", fin=False))
            one.send(frame(CONT, b"a", fin=False), frame(PING, b"within"))
            assert one.read() == (PONG, b"within")
        one.send(frame(CONT, b"a"))
        assert one.read() == (TEXT, b"a" * 5)
        other.send(frame(CONT, b"b"))
        assert other.read() == (TEXT, b"b" * 5)
    assert get(server, "/page") == (200, "page")
    assert server.children() == pids


@pytest.mark.parametrize("count", [1, 2, 7, 100, 1000])
def test_a_burst_of_any_length_arrives(app, count):
    numbers = [b"%d" % number for number in range(count)]
    with Raw(app, "/echo") as client:
        client.send(*(frame(TEXT, number) for number in numbers))
        assert [client.message() for _ in numbers] == numbers


def test_empty_messages_are_messages(app):
    with Raw(app, "/echo") as client:
        client.send(frame(TEXT), frame(BINARY), frame(TEXT, b"x"))
        assert [client.read() for _ in range(3)] == [
            (TEXT, b""),
            (BINARY, b""),
            (TEXT, b"x"),
        ]


def test_a_ping_is_answered_with_its_payload_though_nobody_receives(app):
    with Raw(app, "/linger") as client:
        for payload in (b"", b"payload", b"x" * 125):
            client.send(frame(PING, payload))
            assert client.read() == (PONG, payload)


def test_a_slow_reader_gets_thirty_megabytes(server):
    size, count = 60_000, 524
    (pid,) = server.children()
    before = servers.memory(pid)
    with Raw(server, f"/flood?size={size}", receive_buffer=4096) as client:
        most = before
        for number in range(count):
            assert client.message() == b"x" * size
            if number % 50 == 0:
                most = max(most, servers.memory(pid))
        assert size * count > 30_000_000
        assert most < before + 8 * MEBIBYTE


@pytest.mark.parametrize("path", ["/current", "/current-sync"])
def test_interleaved_sockets_keep_their_own_request(app, path):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Raw(app, path)) for _ in range(4)]
        for order in (clients, clients[::-1]):
            for client in order:
                client.send(frame(TEXT, b"one"), frame(TEXT, b"two"))
            for client in order[::-1]:
                key = client.key.encode()
                assert client.message() == key + b" one"
                assert client.message() == key + b" two"


def test_one_that_blocks_in_a_thread_holds_nobody_up(app):
    with Raw(app, "/threaded") as one, Raw(app, "/threaded") as other:
        for client in (one, other):
            client.send(frame(TEXT, b"x"))
            assert client.message() == b"thread x"
        # There are two threads.
        with Raw(app, "/threaded") as third:
            assert third.status == 503
        assert get(app, "/page-or-socket") == (200, "page False")


# The handshake -------------------------------------------------------------------


def test_the_response_has_the_headers_of_the_application(app):
    with Raw(app, "/prefer", ["Sec-WebSocket-Protocol: v1.chat, v2.chat"]) as client:
        head = client.head.lower()
    assert head.startswith("http/1.1 101 ")
    assert head.count("\r\nset-cookie: ") == 2
    assert "\r\nx-tween: was here" in head
    assert "\r\nsec-websocket-protocol: v2.chat" in head
    for name in ("upgrade", "connection", "sec-websocket-accept", "date"):
        assert head.count(f"\r\n{name}: ") == 1
    for name in ("content-length", "content-type", "transfer-encoding"):
        assert f"\r\n{name}: " not in head


def test_it_is_compressed_for_who_offers_it(app):
    with Raw(app, "/echo", bad_input.DEFLATE) as client:
        assert "permessage-deflate" in client.head


@pytest.mark.parametrize(
    ("path", "headers", "status", "body"),
    [
        ("/members", [], 401, "who are you?"),
        ("/members", ["X-User: guest"], 403, "members only"),
        ("/echo", ["Origin: https://evil.example"], 401, "who are you?"),
        ("/nothing", [], 404, "nothing at /nothing"),
        ("/overload", [], 503, "come back later"),
        ("/choosy", [], 409, "taken"),
        ("/choosy?raise=1", [], 409, "taken"),
    ],
)
def test_a_refusal_is_a_response_as_any_other(app, path, headers, status, body):
    with Raw(app, path, headers) as client:
        assert client.status == status
        rest = client._received
        while data := client.socket.recv(65_536):
            rest += data
    assert body in rest.decode()


def test_a_page_that_is_a_websocket_only_says_so(app):
    with app.connect() as client:
        client.sendall(b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while part := client.recv(65_536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 426 ")
    assert b"\r\nUpgrade: websocket\r\n" in answer
    assert b"Open it with a WebSocket client" in answer


def test_a_request_of_http_1_0_is_refused(app):
    with app.connect() as client:
        client.sendall(handshake("/echo").replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        answer = client.recv(65_536)
    assert answer.split()[1] == b"400"
    assert b"HTTP/1.0" in answer


@pytest.mark.parametrize("length", [1, 20, 100, -5, -1])
def test_half_a_handshake_is_nothing(server, bystander, length):  # noqa: F811
    data = handshake("/watch")[:length]
    with server.connect() as client:
        client.sendall(data)
    with server.connect() as client:
        client.sendall(data + b"\0\0\r\n\r\n")
        answer = b""
        while part := client.recv(65_536):
            answer += part
    assert answer == b"" or answer[:10] in (b"HTTP/1.0 4", b"HTTP/1.1 4")


# Its end -------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/watch", "/watch-sync", "/watch-threaded"])
def test_the_client_closes(server, path):
    with Raw(server, path) as client:
        echoes(client, b"hello")
        client.send(close_frame(4001, b"enough"))
        assert client.end() == (4001, "enough")
    if path == "/watch":
        assert told(server, client, 2) == [["hello"], [True, 4001, "enough"]]


@pytest.mark.parametrize("leave", [Raw.close, Raw.reset])
def test_the_client_cuts(server, leave):
    with Raw(server, "/watch") as client:
        echoes(client, b"hello")
        leave(client)
    assert told(server, client, 2) == [["hello"], [True, 1006, ""]]


def test_the_client_cuts_while_it_is_sent_to(server):
    with Raw(server, "/flood?size=65000", receive_buffer=4096) as client:
        client.read()
        client.reset()
    assert told(server, client) == [[True, 1006, ""]]


def test_uwsgi_logs_a_socket_as_one_request_and_writes_nothing_else(app):
    with Raw(app, "/echo") as client:
        echoes(client, b"hello")
        client.send(close_frame(1000))
        assert client.end() == (1000, "")
    line = app.wait_for(rf"GET /echo\?key={client.key} => (.*)").group(1)
    assert "(HTTP/1.1 101)" in line
    assert "generated 0 bytes" in line


# When the server stops -----------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_every_socket_is_closed_with_1012_when_the_worker_ends(number):
    # At the same port before and after a reload.
    listen = ["--http-socket", "127.0.0.1:PORT"]
    with start_at(listen, app=STRESS) as server, contextlib.ExitStack() as stack:
        paths = ["/watch", "/watch-sync", "/watch-threaded", "/linger"] * 3
        clients = [stack.enter_context(Raw(server, path)) for path in paths]
        (pid,) = server.children()
        began = time.monotonic()
        server.send_signal(number)
        for client in clients:
            assert answered_close(client) == (1012, "")
        if number == signal.SIGHUP:
            poll(lambda: server.children() not in ([pid], []), server.describe)
            with Raw(server, "/watch") as client:
                echoes(client, b"after the reload")
        else:
            assert server.process.wait(servers.DEADLINE) == 0
        # /linger is cancelled.
        assert time.monotonic() - began < 10
        assert_clean(server)
        assert_quiet(server)


def test_what_a_view_returns_or_raises_after_it_was_accepted_is_not_sent():
    with start("uwsgi_websocket_app:views()") as server:
        with Raw(server, "/hasty") as client:
            echoes(client, b"hello")
            assert answered_close(client) == (1000, "")
        with Raw(server, "/broken") as client:
            client.send(frame(TEXT, b"hello"))
            assert answered_close(client) == (1011, "")
        assert server.stop() == 0
        assert server.output.count("Expected: in the view") == 1
        assert_quiet(server)


# Around the application ----------------------------------------------------------


def test_headers_of_middleware_are_in_the_response():
    with start("uwsgi_websocket_app:wrapped()") as server:
        with Raw(server, "/echo") as client:
            assert client.head.lower().count("\r\nx-outside: 1") == 1
            assert "\r\nx-tween: was here" in client.head.lower()
            echoes(client, b"one", b"two")
            client.send(close_frame(1000))
            assert client.end() == (1000, "")
        with Raw(server, "/page-or-socket") as client:
            client.send(frame(TEXT, b"one"))
            assert client.read() == (TEXT, b"socket True one")
            client.send(close_frame(1000))
            assert client.end() == (1000, "")
        assert server.stop() == 0
        assert_clean(server)


@pytest.mark.parametrize("path", FORMS)
def test_it_works_where_requests_run_in_threads(in_threads, path):
    with Raw(in_threads, path, after=frame(TEXT, b"early")) as client:
        assert client.read() == (TEXT, FORMS[path] + b"early")
        client.send(close_frame(1000, b"bye"))
        assert client.end() == (1000, "bye")


@pytest.fixture(scope="module")
def in_threads():
    with start("uwsgi_websocket_app:in_threads()") as server:
        yield server
        assert server.stop() == 0
        assert_clean(server)
        assert_quiet(server)


# Too many ------------------------------------------------------------------------


def test_the_last_core_is_left_for_requests():
    with start(STRESS, "--asyncio", "4") as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Raw(server, "/watch")) for _ in range(3)]
        for _ in range(2):
            with Raw(server, "/watch") as refused:
                assert refused.status == 503
            assert get(server, "/page") == (200, "page")
        for client in clients:
            echoes(client, b"still here")
        assert server.output.count("each keeps one of uWSGI's 4 cores") == 1
        clients[0].close()
        poll(lambda: is_accepted(server), server.describe)


def is_accepted(server):
    with Raw(server, "/watch") as client:
        return client.status == 101


# Where uWSGI listens -------------------------------------------------------------


def test_its_own_http_router_passes_sockets_on():
    listen = ["--http", "127.0.0.1:PORT", "--http-websockets"]
    with start_at(listen) as server, Raw(server, "/echo") as client:
        echoes(client, b"one", b"two")
        client.send(close_frame(1000))
        assert client.end() == (1000, "")


def test_its_own_http_router_cuts_at_the_end():
    listen = ["--http", "127.0.0.1:PORT", "--http-websockets"]
    with start_at(listen) as server, Raw(server, "/echo") as client:
        echoes(client, b"one")
        assert server.stop() == 0
        assert client.read() is None


def test_its_http_router_without_the_option_is_refused_in_one_line():
    with start_at(["--http", "127.0.0.1:PORT"]) as server:
        with Raw(server, "/echo") as client:
            assert client.status == 501
            assert "--http-websockets" in client._received.decode()
        assert get(server, "/page-or-socket") == (200, "page False")


@pytest.mark.parametrize("kind", ["https-socket", "http11-socket"])
def test_a_socket_that_carries_something_else_is_refused(kind, tmp_path):
    listen = [f"--{kind}", "127.0.0.1:PORT"]
    if kind == "https-socket":
        listen[1] += certificate(tmp_path)
    with start_at(listen) as server, tls_or_not(server, kind) as client:
        client.sendall(handshake("/echo"))
        answer = b""
        while b"http-socket, or" not in answer and b"router" not in answer:
            part = client.recv(65_536)
            assert part, answer
            answer += part
        assert answer.startswith(b"HTTP/1.1 501 ")
        assert kind.encode() in answer


def tls_or_not(server, kind):
    if kind != "https-socket":
        return server.connect()
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(server.connect())


def certificate(directory):
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    made.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
    made.private_key_pem.write_to_path(str(directory / "key.pem"))
    return f",{directory}/cert.pem,{directory}/key.pem"


NGINX = """\
pid {directory}/nginx.pid;
error_log {directory}/error.log;
daemon off;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory};
    proxy_temp_path {directory};
    fastcgi_temp_path {directory};
    uwsgi_temp_path {directory};
    scgi_temp_path {directory};
    server {{
        listen 127.0.0.1:{port};
        location / {{
            include /etc/nginx/uwsgi_params;
            uwsgi_pass 127.0.0.1:{uwsgi};
        }}
    }}
}}
"""


@contextmanager
def nginx_before(server, directory):
    """A proxy that speaks uwsgi with ``server``; gives what clients connect to."""
    port = free_port()
    settings = directory / "nginx.conf"
    settings.write_text(NGINX.format(directory=directory, port=port, uwsgi=server.port))
    process = subprocess.Popen(["nginx", "-p", str(directory), "-c", str(settings)])
    front = Front(port)
    try:
        poll(lambda: front.listens(), lambda: (directory / "error.log").read_text())
        yield front
    finally:
        process.terminate()
        process.wait()


class Front:
    def __init__(self, port):
        self.port = port

    def connect(self):
        return servers.socket.create_connection(("127.0.0.1", self.port), 20)

    def listens(self):
        with contextlib.suppress(ConnectionRefusedError), self.connect():
            return True
        return False


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_passes_sockets_on_by_uwsgi_pass(tmp_path):
    with (
        start_at(["--socket", "127.0.0.1:PORT"]) as server,
        nginx_before(server, tmp_path) as front,
        Raw(front, "/echo") as client,
    ):
        echoes(client, b"one", b"two" * 30_000)
        client.send(close_frame(4000, b"bye"))
        assert client.end() == (4000, "bye")

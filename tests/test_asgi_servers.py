"""Applications from ``.ini`` files on ASGI servers; proxies, HTTP/2, pserve, daphne."""

import asyncio
import contextlib
import http.client
import json
import logging
import logging.config
import os
import re
import signal
import ssl
import sys
import time

import pytest
from asgi import Client
from certificates import write_parts
from http2 import Http2
from life import APPS, ENVIRON, get
from pyramid.exceptions import ConfigurationError
from servers import COMMANDS, DEADLINE, Server, free_port, poll, run, serve
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode

import aioext.asgi
from aioext.asgi import Gateway, make_app
from aioext.asgi.loading import LateApp
from aioext.asgi.uvicorn import make_server

INI = APPS / "asgi.ini"
VARIABLE = "AIOEXT_INI"

# How each server is told that the environment names the application.
FROM_THE_ENVIRONMENT = {
    "uvicorn": ["uvicorn", "aioext.asgi:app"],
    "uvicorn, factory": ["uvicorn", "--factory", "aioext.asgi:make_app"],
    "hypercorn": ["hypercorn", "aioext.asgi:app"],
    "hypercorn, factory": ["hypercorn", "aioext.asgi:make_app()"],
    "granian": ["granian", "aioext.asgi:app"],
    "granian, factory": ["granian", "--factory", "aioext.asgi:make_app"],
    "daphne": ["daphne", "aioext.asgi:app"],
    "gunicorn": ["gunicorn", "aioext.asgi:app"],
}


def from_the_environment(kind, config_uri, *options):
    """A server of an ``.ini`` file, as a context manager."""
    server, *arguments, app = FROM_THE_ENVIRONMENT[kind]
    environ = {**ENVIRON, VARIABLE: config_uri}
    return serve(server, app, *arguments, *options, directory=APPS, environ=environ)


def start(kind, *options, app="asgi_app:application"):
    """A server of the application, as a context manager."""
    if kind == "hypercorn" and app == "asgi_app:application":
        app = "asgi_app:make_asgi()"
    return serve(kind, app, *options, directory=APPS, environ=ENVIRON)


def ends(command, **environ):
    """The exit status and the output of a command that ends by itself."""
    server = Server(command, APPS, {**ENVIRON, **environ})
    try:
        return server.process.wait(DEADLINE), server.output
    finally:
        server.close()


def socket_facts(server, source="127.0.0.1", headers=None):
    async def receive():
        url = f"ws://127.0.0.1:{server.port}/socket_facts"
        async with (
            asyncio.timeout(DEADLINE),
            connect(url, additional_headers=headers, local_addr=(source, 0)) as ws,
        ):
            return json.loads(await ws.recv())

    return asyncio.run(receive())


def echoes(server, *messages):
    """What an echo gives for messages."""

    async def talk():
        url = f"ws://127.0.0.1:{server.port}/echo"
        async with asyncio.timeout(DEADLINE), connect(url) as ws:
            for message in messages:
                await ws.send(message)
            return [await ws.recv() for _ in messages]

    return asyncio.run(talk())


def facts_from(server, source, path="/facts", headers=None):
    """The facts, asked for from another address of this machine."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", server.port, timeout=DEADLINE, source_address=(source, 0)
    )
    status, facts = get(server, path, headers, connection)
    connection.close()
    assert status == 200, facts
    return facts


# An application of an .ini file ------------------------------------------------


@pytest.fixture(autouse=True)
def _apps(monkeypatch):
    monkeypatch.syspath_prepend(APPS)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(vars(aioext.asgi), "app", LateApp())


@pytest.fixture
def _logging():
    # What fileConfig does is not undone by anybody else.
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.mark.usefixtures("_logging")
@pytest.mark.parametrize("name", ["", "#main", "#filtered", "#site"])
def test_what_a_file_describes_is_put_into_a_gateway(name):
    app = make_app(f"{INI}{name}", multiprocess=True)
    assert type(app) is Gateway
    assert app._base["wsgi.multiprocess"] is True


@pytest.mark.usefixtures("_logging")
def test_an_asgi_application_of_a_file_is_served_as_it_is():
    app = make_app(f"{INI}#asgi")
    assert app.app.registry.settings["name"] == "asgi"


@pytest.mark.usefixtures("_logging")
def test_the_application_of_the_environment_is_loaded_once(monkeypatch):
    monkeypatch.setenv(VARIABLE, f"{INI}?variable=set#varied")
    app = aioext.asgi.app
    assert aioext.asgi.app is app
    assert app.app.registry.settings["shown"] == "set"


def test_importing_loads_nothing(script, monkeypatch):
    monkeypatch.setenv(VARIABLE, "there-is-no.ini")
    script("""
        import aioext.asgi, inspect
        assert "app" not in dir(aioext.asgi)
        inspect.getmembers(aioext.asgi)
        from aioext.asgi import *
        assert not hasattr(aioext.asgi, "application")
    """)


MISTAKES = {
    "there-is-no.ini": "there is none at",
    "noextension": "Could not determine the loader scheme",
    "settings.yaml": "Could not find a matching loader",
    f"{INI}#third": "No section 'third'",
    f"{INI}#without_a_factory": "No loader given in section",
    f"{INI}#not_installed": "there-is-no-such-package",
    f"{INI}#misconfigured": "Did you mean aioext.sync_views?",
}


@pytest.mark.usefixtures("_logging")
@pytest.mark.parametrize("config_uri", MISTAKES)
def test_what_is_wrong_with_a_file_is_told(config_uri, monkeypatch, capsys):
    with pytest.raises(ConfigurationError) as caught:
        make_app(config_uri)
    assert MISTAKES[config_uri] in str(caught.value)
    # A server that asks gets the same on stderr, and its end.
    monkeypatch.setenv(VARIABLE, config_uri)
    with pytest.raises(SystemExit) as ended:
        aioext.asgi.app  # noqa: B018 - the access is the test
    assert ended.value.code == 3
    assert capsys.readouterr().err == f"aioext: {caught.value}\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[app:main", "MissingSectionHeaderError"),
        ("[app:main]\nx = %(nowhere)s\n", "nowhere"),
        (
            "[app:main]\npaste.app_factory = asgi_app:main\n[loggers]\nkeys = root\n",
            "on logging: KeyError",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_told(tmp_path, text, told):
    path = tmp_path / "app.ini"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=told):
        make_app(str(path))


@pytest.mark.parametrize("data", [b"\xff\xfe[app:main]", b"[app:main]\nx = \xe9\n"])
def test_a_file_that_is_no_text_is_told(tmp_path, data):
    path = tmp_path / "binary.ini"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"cannot be loaded\. UnicodeDecode"):
        make_app(str(path))


def test_an_environment_without_the_variable_is_told(capsys):
    with pytest.raises(SystemExit):
        make_app()
    assert f"{VARIABLE} is not set" in capsys.readouterr().err


@pytest.mark.usefixtures("_logging")
@pytest.mark.parametrize(
    ("name", "error"),
    [("fails_in_main", KeyError), ("fails_with_attribute", AttributeError)],
)
def test_what_an_application_raises_keeps_its_traceback(name, error, monkeypatch):
    with pytest.raises(error):
        make_app(f"{INI}#{name}")
    monkeypatch.setenv(VARIABLE, f"{INI}#{name}")
    # Nothing that a server takes for a name that does not exist.
    with pytest.raises(RuntimeError, match=name) as caught:
        aioext.asgi.app  # noqa: B018 - the access is the test
    assert type(caught.value.__cause__) is error


# On servers --------------------------------------------------------------------


@pytest.mark.parametrize("kind", [k for k in FROM_THE_ENVIRONMENT if "factory" in k])
def test_a_factory_that_reads_the_environment(kind):
    with from_the_environment(kind, "asgi.ini#second") as server:
        assert get(server, "/facts")[1]["app"] == "second"


@pytest.fixture(
    scope="module", params=[k for k in FROM_THE_ENVIRONMENT if "factory" not in k]
)
def served(request):
    with from_the_environment(request.param, "asgi.ini?variable=set#varied") as server:
        server.kind = request.param
        yield server
        server.stop()
        assert re.findall(r"event: (\w+) varied", server.output) == ["opened", "closed"]
        assert "Traceback" not in server.output


def test_a_page_of_the_application_that_the_environment_names(served):
    status, facts = get(served, "/facts")
    assert status == 200
    assert (facts["app"], facts["shown"]) == ("varied", "set")
    assert facts["opened"] is True
    assert facts["route"] == f"http://127.0.0.1:{served.port}/facts"


def test_a_websocket(served):
    messages = ["text", b"binary", "x" * 100_000, "\u00e9"]
    assert echoes(served, *messages) == messages


def test_requests_that_wait_for_each_other(served):
    waiting = []
    for name in ("one", "two"):
        waiting.append(served.connect())
        waiting[-1].sendall(
            f"GET /meet?name={name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        served.wait_for(f"event: waiting {name}")
    # The first is answered first: their greenlets do not end as a stack does.
    for name, client in zip(("one", "two"), waiting, strict=True):
        assert get(served, f"/free?name={name}")[0] == 200
        response = http.client.HTTPResponse(client)
        response.begin()
        assert json.loads(response.read()) == {"name": name, "current": name}
        client.close()


def test_logging_is_set_up_by_the_file(served):
    assert get(served, "/warn")[0] == 200
    line = "in the format of the file: asgi_app: a line of the application"
    served.wait_for(line)
    assert served.output.count("a line of the application") == 1


ENDING = ["uvicorn", "hypercorn", "hypercorn, factory", "granian", "daphne"]


def ends_on(kind, config_uri):
    """The exit status and the output of a server that cannot start."""
    server, *arguments = FROM_THE_ENVIRONMENT[kind]
    status, output = ends([*COMMANDS[server], *arguments], AIOEXT_INI=config_uri)
    assert status != 0 or is_silent(COMMANDS[server])
    return output


def is_silent(command):
    """Whether it is hypercorn with workers, whose status is 0 whatever theirs are."""
    return command[0] == "hypercorn" and "-w" not in command


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("hypercorn", ["-w", "1"], 0),
        ("hypercorn", ["-w", "0"], 3),
        ("uvicorn", ["--workers", "2", "--timeout-worker-healthcheck", "1"], 0),
    ],
    ids=["hypercorn", "hypercorn, one process", "uvicorn, workers"],
)
def test_the_status_of_a_server_whose_workers_cannot_start(kind, options, expected):
    command = [*COMMANDS[kind], *options, "aioext.asgi:app"]
    status, output = ends(command, AIOEXT_INI="there-is-no.ini")
    assert (status, "names no file" in output) == (expected, True)


@pytest.mark.parametrize("kind", ENDING)
def test_a_file_that_does_not_exist_is_one_message(kind):
    output = ends_on(kind, "there-is-no.ini")
    assert output.count("there-is-no.ini names no file") == 1
    assert "Traceback" not in output


@pytest.mark.parametrize("kind", ["uvicorn", "hypercorn"])
def test_an_application_that_cannot_be_loaded_ends_the_server(kind):
    output = ends_on(kind, "asgi.ini#fails_in_main")
    assert "KeyError: 'broken in main'" in output
    assert "the application of asgi.ini#fails_in_main failed" in output


@pytest.mark.usefixtures("_logging")
def test_an_application_that_is_loaded_late_may_wait(run, monkeypatch):
    # It would end the tests.
    monkeypatch.setattr("aioext.asgi.loading.end_process", pytest.fail)
    monkeypatch.setenv(VARIABLE, f"{INI}#waits")
    client = Client("/facts")
    run(client.call(vars(aioext.asgi)["app"]))
    assert json.loads(client.body)["shown"] == "waited on the loop that serves"


def test_every_application_of_a_composite_is_opened_and_served():
    with from_the_environment("uvicorn", "asgi.ini#site") as server:
        status, facts = get(server, "/facts")
        assert (status, facts["app"], facts["script_name"]) == (200, "main", "")
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", "/second/facts")
        answer = connection.getresponse()
        facts = json.loads(answer.read())
        connection.close()
        assert answer.headers["X-Filter"] == "yes"
        assert (facts["app"], facts["script_name"]) == ("second", "/second")
        assert facts["opened"] is True
        assert facts["route"].endswith("/second/facts")
        server.stop()
        told = re.findall(r"event: ((?:opened|closed) \w+)", server.output)
        assert told[:2] == ["opened main", "opened second"]
        assert sorted(told[2:]) == ["closed main", "closed second"]


@pytest.mark.parametrize(
    ("loop", "implementation"),
    [("asyncio", "websockets"), ("uvloop", "wsproto"), ("uvloop", "websockets-sansio")],
)
def test_uvicorn_s_loops_and_protocols(loop, implementation):
    # websockets' legacy protocol is deprecated, and uvicorn says so.
    with start("uvicorn", "--loop", loop, "--ws", implementation) as server:
        assert get(server, "/facts")[0] == 200
        assert echoes(server, "", "text", b"") == ["", "text", b""]


# Proxies -----------------------------------------------------------------------

FORWARDED = {"X-Forwarded-For": "203.0.113.9, 198.51.100.7"}
FORWARDED["X-Forwarded-Proto"] = "https"

# Applications and options that trust a proxy, and are below a path; the paths that a
# proxy may pass on; the address that is believed; whether others are believed, too.
BEHIND = {
    "uvicorn": (
        ["asgi_app:application", "--root-path", "/sub"],
        ["/facts"],
        "198.51.100.7",
        False,
    ),
    "hypercorn": (
        ["asgi_app:behind_a_proxy_for_hypercorn()", "--root-path", "/sub"],
        ["/facts", "/sub/facts"],
        "198.51.100.7",
        True,
    ),
    "granian": (
        ["asgi_app:behind_a_proxy_for_granian", "--url-path-prefix", "/sub"],
        ["/facts", "/sub/facts"],
        "198.51.100.7",
        False,
    ),
    "daphne": (
        ["asgi_app:application", "--root-path", "/sub", "--proxy-headers"],
        ["/facts", "/sub/facts"],
        "203.0.113.9",
        True,
    ),
}


@pytest.mark.parametrize("kind", BEHIND)
def test_behind_a_proxy(kind):
    (app, *options), paths, believed, believes_all = BEHIND[kind]
    with start(kind, *options, app=app) as server:
        base = f"127.0.0.1:{server.port}/sub/facts"
        for path in paths:
            facts = facts_from(server, "127.0.0.1", path, FORWARDED)
            assert (facts["script_name"], facts["path"]) == ("/sub", "/facts")
            assert (facts["scheme"], facts["remote"]) == ("https", believed)
            assert facts["route"] == f"https://{base}"
        facts = facts_from(server, "127.0.0.2", paths[0], FORWARDED)
        if believes_all:
            assert (facts["scheme"], facts["remote"]) == ("https", believed)
        else:
            assert (facts["scheme"], facts["remote"]) == ("http", "127.0.0.2")
            assert facts["route"] == f"http://{base}"
        facts = socket_facts(server, headers=FORWARDED)
        # daphne says nothing of the scheme of a WebSocket.
        assert facts["scheme"] == ("http" if kind == "daphne" else "https")
        assert facts["remote"] == believed


@pytest.mark.parametrize("kind", ["uvicorn", "hypercorn", "granian", "daphne"])
def test_without_being_told_to_nobody_is_believed(kind):
    options = ["--no-proxy-headers"] if kind == "uvicorn" else []
    with start(kind, *options) as server:
        for facts in (
            facts_from(server, "127.0.0.1", headers=FORWARDED),
            socket_facts(server, headers=FORWARDED),
        ):
            assert (facts["scheme"], facts["remote"]) == ("http", "127.0.0.1")
            # WebOb's own reading, on every server.
            assert facts["client"] == "203.0.113.9"


# HTTP/2 and TLS ----------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The paths of a certificate for localhost, and of its key."""
    return write_parts(tmp_path_factory.mktemp("certificate"))


SECURE = {
    "hypercorn": ("--certfile", "--keyfile"),
    "granian": ("--ssl-certificate", "--ssl-keyfile"),
}


@contextlib.contextmanager
def http2(server, scheme, certificate):
    """A connection of HTTP/2 to a server; without TLS by prior knowledge."""
    with server.connect() as sock:
        if scheme == "https":
            context = ssl.create_default_context(cafile=certificate[0])
            context.set_alpn_protocols(["h2"])
            sock = context.wrap_socket(sock, server_hostname="localhost")
            assert sock.selected_alpn_protocol() == "h2"
        with sock:
            yield Http2(sock, scheme)


@pytest.fixture(
    scope="module",
    params=[(kind, scheme) for kind in SECURE for scheme in ("https", "http")],
    ids=" ".join,
)
def http2_server(request, certificate):
    """A server that speaks HTTP/2, and what connects to it."""
    kind, scheme = request.param
    options = []
    if scheme == "https":
        options = [
            each
            for option, path in zip(SECURE[kind], certificate, strict=True)
            for each in (option, str(path))
        ]
    with start(kind, *options) as server:
        server.kind, server.scheme = kind, scheme
        server.http2 = lambda: http2(server, scheme, certificate)
        yield server


@pytest.mark.parametrize("order", [("one", "two"), ("three", "four")])
def test_requests_of_one_http2_connection_stay_apart(http2_server, order):
    with http2_server.http2() as connection:
        streams = {}
        for name in sorted(order):
            streams[name] = connection.get(f"/meet?name={name}")
            http2_server.wait_for(f"event: waiting {name} ")
        # Of the second pair, the one that came last is answered first.
        for name in order:
            connection.json(connection.get(f"/free?name={name}"))
            told = connection.json(streams[name])
            assert told == {"name": name, "current": name}
        facts = connection.json(connection.get("/facts"))
        assert facts["http"] in ("HTTP/2", "HTTP/2.0")
        assert facts["route"] == f"{http2_server.scheme}://localhost/facts"


def test_a_websocket_over_http2(http2_server):
    if http2_server.kind == "granian":
        # It does not offer them.
        return
    with http2_server.http2() as connection:
        stream = connection.connect("/echo")
        connection.write(stream, Frame(Opcode.TEXT, b"hello").serialize(mask=True))
        echoed = Frame(Opcode.TEXT, b"hello").serialize(mask=False)
        assert connection.read(stream, len(echoed)) == echoed
        # Over HTTP/2 as over HTTP/1.1 beside it.
        assert connection.json(connection.get("/facts"))["opened"] is True
        close = Frame(Opcode.CLOSE, b"\x03\xe8")
        connection.write(stream, close.serialize(mask=True))
        assert connection.read(stream, 4) == close.serialize(mask=False)


# pserve on uvicorn -------------------------------------------------------------


@pytest.fixture
def callback(monkeypatch):
    """What uvicorn's command line would have been called with, once it was."""
    uvicorn = pytest.importorskip("uvicorn")
    called = {}
    monkeypatch.setattr(uvicorn.main, "callback", lambda **kw: called.update(kw))
    return called


def test_options_are_read_as_uvicorn_reads_them(callback):
    serve = make_server(
        {"__file__": "/somewhere/app.ini"},
        host="::1",
        port="6543",
        access_log="false",
        timeout_graceful_shutdown="7",
        ws_ping_interval="2.5",
        headers="X-One: 1\n  X-Two:two: three\n",
        forwarded_allow_ips="10.0.0.0/8",
    )
    serve(lambda environ, start_response: [])
    assert type(callback.pop("app")) is Gateway
    expected = {
        "host": "::1",
        "port": 6543,
        "access_log": False,
        "timeout_graceful_shutdown": 7,
        "ws_ping_interval": 2.5,
        "forwarded_allow_ips": "10.0.0.0/8",
        "workers": 1,
        "reload": False,
        # Ours.
        "reset_contextvars": True,
    }
    assert callback.items() >= expected.items()
    assert list(callback["headers"]) == ["X-One:1", "X-Two:two: three"]


def test_an_option_may_have_dashes_and_say_no(callback):
    server = make_server(None, **{"reset-contextvars": "no", "root-path": "/sub"})
    server(lambda environ, start_response: [])
    assert callback["reset_contextvars"] is False
    assert callback["root_path"] == "/sub"


def test_the_environment_starts_no_processes(callback, monkeypatch):
    monkeypatch.setenv("UVICORN_RELOAD", "true")
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    make_server(None)(lambda environ, start_response: [])
    assert (callback["workers"], callback["reload"]) == (1, False)


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:80", {"host": "127.0.0.1", "port": 80}),
        ("[::1]:8080", {"host": "::1", "port": 8080}),
        (":80", {"host": "0.0.0.0", "port": 80}),
        ("unix:/run/app.sock", {"uds": "/run/app.sock"}),
    ],
)
def test_an_address_to_listen_at(callback, listen, expected):
    make_server(None, listen=listen)(lambda environ, start_response: [])
    assert callback.items() >= expected.items()


@pytest.mark.usefixtures("callback")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"prt": "80"}, "uvicorn has no option prt. Did you mean port?"),
        ({"ident": "x"}, "uvicorn has no option ident. See: uvicorn --help"),
        ({"port": "http"}, "'http' is not a valid integer"),
        ({"lifespan": "maybe"}, "'maybe' is not one of"),
        ({"workers": "2"}, "AIOEXT_INI=app.ini uvicorn --workers 2 aioext.asgi:app"),
        ({"reload": "true"}, "Write instead: pserve --reload app.ini"),
        ({"app": "hello:app"}, "the file says which application is served"),
        ({"help": "true"}, "uvicorn has no option help"),
        ({"headers": "X-One"}, "headers = X-One is not one"),
        ({"listen": "localhost"}, "is not one address"),
        ({"listen": "6543"}, "is not one address"),
        ({"listen": "[::1]:80 127.0.0.1:80"}, "is not one address"),
        ({"listen": "127.0.0.1:80", "port": "81"}, "is not one address"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(options, told):
    with pytest.raises(SystemExit) as ended:
        make_server({"__file__": "/somewhere/app.ini"}, **options)
    line, more = str(ended.value).splitlines()
    assert told in line
    assert more.endswith("#pserve-uvicorn)")


def test_a_missing_uvicorn_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit, match=r"pip install 'aioext\[uvicorn\]'"):
        make_server(None)


def test_a_logger_that_the_file_configures_is_left_alone(callback, monkeypatch):
    def log_config():
        make_server(None, use_colors="true")(lambda environ, start_response: [])
        return callback["log_config"]

    # Of its own tests.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
    assert log_config() is None
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "level", logging.WARNING)
    logging.config.dictConfig(log_config())
    assert callback["use_colors"] is None
    assert logging.getLogger("uvicorn.access").level == logging.WARNING
    assert not logging.getLogger("uvicorn").handlers


def pserve(*arguments, directory=APPS):
    """``pserve``, as a context manager."""
    return run(["pyramid.scripts.pserve", *arguments], directory, ENVIRON)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -15), (2, 0)])
def test_pserve_on_uvicorn(number, status):
    with pserve("asgi.ini", "-n", "site") as server:
        facts = facts_from(server, "127.0.0.1", "/second/facts")
        assert (facts["app"], facts["opened"]) == ("second", True)
        assert echoes(server, "text") == ["text"]
        assert get(server, "/warn")[0] == 200
        with server.connect() as client:
            client.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(100)
            assert server.stop(number) == status
        assert server.output.count("asgi_app: a line of the application") == 1
        assert server.output.count("Uvicorn running on") == 1
        told = re.findall(r"event: (\w+ \w+)", server.output)
        assert sorted(told[-2:]) == ["closed main", "closed second"]
        assert "Traceback" not in server.output


def test_a_failure_at_the_start_is_the_exit_status_of_pserve():
    command = ["pyramid.scripts.pserve", "asgi.ini", "-n", "fails_at_start"]
    status, output = ends(command)
    assert "there is no database" in output
    assert "event: closed app" in output
    assert status == 3


def test_a_wrong_option_ends_pserve_before_the_application_is_loaded(tmp_path):
    path = tmp_path / "app.ini"
    text = INI.read_text().replace("port = 0", "prt = 0")
    path.write_text(text.replace("name = main", "fail = main"))
    status, output = ends(["pyramid.scripts.pserve", str(path)])
    assert status == 1
    assert output.startswith("aioext: uvicorn has no option prt. Did you mean port?\n")
    assert "Traceback" not in output


def test_pserve_reloads_on_uvicorn(tmp_path):
    (tmp_path / "reloaded.py").write_text("name = 'before'\n")
    (tmp_path / "reloaded_app.py").write_text(RELOADED)
    text = INI.read_text().replace("asgi_app:main", "reloaded_app:main")
    port = free_port()
    (tmp_path / "app.ini").write_text(text.replace("port = 0", f"port = {port}"))
    with pserve("--reload", "app.ini", directory=tmp_path) as server:
        assert get(server, "/")[1] == "before"
        module = tmp_path / "reloaded.py"
        module.write_text("name = 'after it'\n")
        edited = [time.monotonic()]

        def is_reloaded():
            # The monitor may have looked for the first time after the edit.
            if time.monotonic() - edited[-1] > 1.5:
                edited.append(time.monotonic())
                os.utime(module)
            with contextlib.suppress(OSError, http.client.HTTPException):
                return get(server, "/")[1] == "after it"

        poll(is_reloaded, server.describe)


RELOADED = """\
import reloaded
from pyramid.config import Configurator
from pyramid.response import Response


async def hello(request):
    return Response(reloaded.name)


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include("aioext")
        config.add_view(hello)
        return config.make_wsgi_app()
"""


# daphne ------------------------------------------------------------------------


def test_daphne_opens_with_the_first_request_and_closes_at_its_end():
    with start("daphne") as server:
        assert "event: opened" not in server.output
        assert get(server, "/facts")[1]["opened"] is True
        client = server.connect()
        client.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = client.recv(65_536)
        assert server.stop() == 0
        while part := client.recv(65_536):
            data += part
        client.close()
        # The client is told when to come back.
        assert b"\nretry: " in data
        told = re.findall(r"event: ([\w ]+?) \d+\n", server.output)
        assert told == ["opened app", "stream ended", "closed app"]


def test_what_is_different_on_daphne():
    with start("daphne") as server:
        # A handshake is refused with this status and nothing else.
        with pytest.raises(InvalidStatus) as caught:
            refuse(server)
        assert caught.value.response.status_code == 403
        assert not caught.value.response.body
        # Empty messages are not sent.
        assert echoes_until(server, "", b"", "end") == ["end"]
        # The path that the application is at is what a client says.
        facts = facts_from(server, "127.0.0.1", headers={"Daphne-Root-Path": "/its"})
        assert facts["script_name"] == "/its"
        assert get(server, "/fail")[0] == 500
        assert server.output.count("failed on purpose") > 0


def refuse(server):
    async def talk():
        async with connect(f"ws://127.0.0.1:{server.port}/nothing-is-here"):
            pass

    asyncio.run(talk())


def echoes_until(server, *messages):
    async def talk():
        url = f"ws://127.0.0.1:{server.port}/echo"
        received = []
        async with asyncio.timeout(DEADLINE), connect(url) as ws:
            for message in messages:
                await ws.send(message)
            while not received or received[-1] != messages[-1]:
                received.append(await ws.recv())
        return received

    return asyncio.run(talk())

"""gunicorn with our worker, started in the ways that there are.

::

    with gunicorn("worker_app:make()", "--workers", "2") as server:
        held = Held(server, "/read", "reading")
        ...
        assert held.finish() == (200, {...})
"""

import contextlib
import http.client
import json

from life import APPS, ENVIRON
from servers import COMMANDS, DEADLINE, WORKER, Server, run, serve


def gunicorn(app, *options, directory=APPS):
    """``gunicorn app``, as a context manager."""
    return serve("gunicorn", app, *options, directory=directory, environ=ENVIRON)


def pserve(*arguments, directory=APPS):
    """``pserve arguments``, as a context manager."""
    command = ["pyramid.scripts.pserve", *map(str, arguments)]
    return run(command, directory, ENVIRON)


def paste(ini, *options, directory=APPS):
    """``gunicorn --paste ini``, as a context manager."""
    return gunicorn(str(ini), *options, "--paste", directory=directory)


def fails(app, *options, directory=APPS):
    """The exit status and the output of a gunicorn that does not start."""
    return ends(*COMMANDS["gunicorn"], *options, app, directory=directory)


def ends(*command, directory=APPS):
    """The exit status and the output of a command that ends by itself."""
    server = Server([*command], directory, ENVIRON)
    try:
        return server.process.wait(DEADLINE), server.output
    finally:
        server.close()


def write_ini(path, app="paste.app_factory = worker_app:main", server="", more=""):
    """Settings for pserve, which ask for gunicorn and our worker."""
    path.write_text(f"""\
[app:main]
{app}

[server:main]
use = egg:gunicorn#main
worker_class = {WORKER}
host = 127.0.0.1
port = 0
control_socket_disable = true
{server}

{more}
""")
    return path


class Held:
    """A request whose last byte is sent when the test says so."""

    def __init__(self, server, path, event):
        self._socket = server.connect()
        self._socket.sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na".encode()
        )
        server.wait_for(f"event: {event} ")

    def close(self):
        """Leave without sending it."""
        self._socket.close()

    def finish(self):
        """Send it, and give status and JSON of the answer."""
        with self._socket:
            self._socket.sendall(b"b")
            answer = http.client.HTTPResponse(self._socket)
            with contextlib.closing(answer):
                answer.begin()
                return answer.status, json.loads(answer.read())


def read_until_closed(client):
    """What a socket still gets."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65_536):
            received += data
    return received

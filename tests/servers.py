"""Real servers in processes of their own, for the tests.

::

    with serve("gunicorn", "servers_apps:application") as server:
        connection = server.connect()
        ...
        assert server.stop() == 0

An application is named ``module:attr``; modules beside this one are found, and
so are those in ``directory``.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

WORKER = "aioext.gunicorn.worker.AsyncGunicornWorker"
# Seconds: for a server to start and to stop, on a machine with much to do.
DEADLINE = 30

HERE = Path(__file__).parent

# Where a server says that it listens.
ADDRESS = r"(?:https?://|bound to TCP address )127\.0\.0\.1:(\d+)"

COMMANDS = {
    "gunicorn": ["gunicorn", "-k", WORKER, "-b", "127.0.0.1:0", "--no-control-socket"],
    "uvicorn": ["uvicorn", "--port", "0"],
    "hypercorn": ["hypercorn", "-w", "0", "-b", "127.0.0.1:0"],
    "uwsgi": [
        *("uwsgi", "--http-socket", "127.0.0.1:0", "--master", "--die-on-term"),
        *("--asyncio", "1200", "--greenlet", "--enable-threads", "--need-app"),
    ],
    "granian": ["granian", "--interface", "asgi", "--port", "PORT"],
    "daphne": ["daphne", "-b", "127.0.0.1", "-p", "PORT"],
}


class Server:
    """A process that listens on 127.0.0.1, at a port that the system chose.

    Args:
        command: the arguments after ``python -m``; ``PORT`` is replaced by a
            free port, for a server that does not tell which one it was given.
        directory: where it runs, and finds modules.
        environ: what its environment has beside ours.

    Attributes:
        process: the ``subprocess.Popen``.
        port: where it listens, once :meth:`wait_until_listening` has returned.
    """

    def __init__(self, command, directory=HERE, environ=None):
        self.port = None
        if "PORT" in command:
            self.port = free_port()
            command = [str(self.port) if each == "PORT" else each for each in command]
        paths = [str(each) for each in (directory, HERE, HERE.parent)]
        paths.append(os.environ.get("PYTHONPATH", ""))
        arguments = launch(command)
        self._log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            arguments,
            cwd=directory,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "PYTHONUNBUFFERED": "1",
                **(environ or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def output(self):
        """What it has written so far, to stdout and stderr."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")

    def wait_until_listening(self):
        """Return when it accepts connections."""
        if self.port is None:
            self.port = int(self.wait_for(ADDRESS).group(1))
        poll(self._accepts, self.describe)

    def _accepts(self):
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return False
        return True

    def wait_for(self, pattern):
        """The first match of a regular expression in the output."""
        return poll(lambda: re.search(pattern, self.output), self.describe, self)

    def connect(self, timeout=DEADLINE):
        """A socket connected to it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def children(self):
        """The ids of the processes that it started: gunicorn's workers."""
        pid = self.process.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(each) for each in text.split()]

    def send_signal(self, number):
        """Send it a signal."""
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM, timeout=DEADLINE):
        """Send it a signal, wait for its end; gives its exit status."""
        self.send_signal(number)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.describe("did not stop")) from None

    def describe(self, what="did not get there in time"):
        """A message for a test that fails, with the output."""
        return f"{self.process.args} {what}; its output:\n{self.output}"

    def close(self):
        """End it and what it started, whatever their state."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self._log.close()


@contextmanager
def serve(kind, app, *options, directory=HERE, environ=None):
    """Serve ``app`` with a server of :data:`COMMANDS`; gives a :class:`Server`.

    It is stopped at the end, unless the test has done so: gracefully if the
    test succeeded, so that it may write its coverage.
    """
    app = f"--module={app}" if kind == "uwsgi" else app
    with run([*COMMANDS[kind], *options, app], directory, environ) as server:
        yield server


@contextmanager
def run(command, directory=HERE, environ=None):
    """As :func:`serve`, for any command: ``["pserve", "development.ini"]``."""
    with running(Server(command, directory, environ)) as server:
        yield server


@contextmanager
def running(server):
    """The same of a server that has been started."""
    try:
        server.wait_until_listening()
        yield server
        if server.process.poll() is None:
            server.stop()
    finally:
        server.close()


def launch(command):
    """The arguments of a process: of a Python module, or of uWSGI."""
    if command[0] != "uwsgi":
        return [sys.executable, "-m", *command]
    program = shutil.which("uwsgi", path=os.path.dirname(sys.executable))
    if program is None:
        pytest.skip("uWSGI is not installed; see `make test` in README.rst")
    return [program, *command[1:]]


def free_port():
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def poll(condition, describe=lambda: "", server=None, timeout=DEADLINE):
    """What ``condition()`` gives as soon as that is true.

    Raises:
        AssertionError: it is not within ``timeout`` seconds, or ``server`` has
            ended before; with what ``describe()`` gives.
    """
    deadline = time.monotonic() + timeout
    while True:
        ended = server is not None and server.process.poll() is not None
        result = condition()
        if result:
            return result
        if ended or time.monotonic() > deadline:
            raise AssertionError(describe())
        time.sleep(0.01)


def receive_until(client, expected):
    """What ``client``, a socket, receives until there is ``expected`` in it."""
    data = b""
    while expected not in data:
        part = client.recv(65_536)
        assert part, data
        data += part
    return data


def memory(pid):
    """The resident memory of a process, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no VmRSS for process {pid}")

"""A PostgreSQL for the tests: a server of their own, a database for each module.

::

    from postgresql import postgresql

    __all__ = ["postgresql"]  # a fixture

    def test_something(postgresql):
        engine = create_async_engine(postgresql.url("asyncpg"))
        assert postgresql.execute("SELECT count(*) FROM note") == [(0,)]

The server is started when the first test asks for a database, in a temporary
directory, on 127.0.0.1 and a socket there, and stopped when the process ends, even
if that is killed. PostgreSQL refuses to run as root: there it runs as another user.
What is to survive a crash is not written to disk, so nothing waits for the disk.

Outside of pytest::

    with database() as db:
        ...
"""

import atexit
import contextlib
import ctypes
import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from servers import free_port

DEBIAN = "/usr/lib/postgresql"
USER = "aioext"
PREFIX = "aioext-postgresql-"
# Seconds that it may take to start and to stop.
DEADLINE = 60

SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "127.0.0.1",
    "max_connections": "300",
    "shared_buffers": "32MB",
    "synchronous_commit": "off",
}

_PR_SET_PDEATHSIG = 1


class Missing(Exception):
    """There is no PostgreSQL on this machine; the message says what to install."""


@dataclass(frozen=True)
class Database:
    """One database, to be used by anybody on this machine, without a password."""

    directory: str
    port: int
    name: str
    user: str = USER
    host: str = "127.0.0.1"

    def url(self, driver="asyncpg", **query):
        """Its URL for SQLAlchemy; without a ``driver``, for libpq."""
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        options = "&".join(f"{key}={value}" for key, value in query.items())
        address = f"{self.user}@{self.host}:{self.port}/{self.name}"
        return f"{scheme}://{address}{'?' if options else ''}{options}"

    def execute(self, statement, *parameters):
        """Execute a statement on a connection of its own; gives the rows."""
        import psycopg

        with psycopg.connect(self.url(driver=""), autocommit=True) as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def connections(self):
        """What others do in it: ``[(pid, state, query), ...]``."""
        return self.execute(
            "SELECT pid, state, query FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


class Cluster:
    """A server in a temporary directory.

    Raises:
        Missing: there is none to run.
    """

    def __init__(self):
        self._program = find_programs()
        _remove_left_behind()
        self.pid = os.getpid()
        self.directory = tempfile.mkdtemp(prefix=f"{PREFIX}{self.pid}-")
        self.port = free_port()
        self._count = itertools.count(1)
        self._as_user = {}
        self._process = None
        try:
            self._initialize()
            self._start()
        except BaseException:
            self.stop()
            raise

    def _initialize(self):
        if os.getuid() == 0:
            user = _unprivileged()
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            self._as_user = {
                "user": user.pw_uid,
                "group": user.pw_gid,
                "extra_groups": [],
            }
        self.data = Path(self.directory, "data")
        options = ["--no-sync", "--no-locale", "--auth=trust", "--encoding=UTF8"]
        command = [self._program / "initdb", "-D", self.data, "-U", USER, *options]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd="/", **self._as_user
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _start(self):
        settings = {
            **SETTINGS,
            "port": self.port,
            "unix_socket_directories": self.directory,
        }
        options = [f"--{key}={value}" for key, value in settings.items()]
        self._log = Path(self.directory, "log").open("w+b")
        self._process = subprocess.Popen(
            [self._program / "postgres", "-D", self.data, *options],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
            preexec_fn=_end_with_parent,
            **self._as_user,
        )
        self._wait_until_ready()

    def _wait_until_ready(self):
        # The file's last line says so, once the server takes connections.
        status = self.data / "postmaster.pid"
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError):
                if status.read_text().splitlines()[7:8] == ["ready   "]:
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"PostgreSQL did not start:\n{self.log}")

    @property
    def log(self):
        """What the server has written."""
        return Path(self.directory, "log").read_text("utf-8", "replace")

    @contextlib.contextmanager
    def database(self):
        """A new :class:`Database`, dropped at the end with whoever uses it."""
        main = Database(self.directory, self.port, "postgres")
        name = f"test_{next(self._count)}"
        main.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            yield Database(self.directory, self.port, name)
        finally:
            main.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def stop(self):
        """End the server, and remove everything; not in a fork."""
        if os.getpid() != self.pid:
            return
        if self._process is not None:
            # Immediately: what it would save is to be removed.
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(DEADLINE)
            self._log.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def find_programs():
    """The directory of ``initdb`` and ``postgres``."""
    found = shutil.which("postgres")
    candidates = [Path(found).resolve().parent] if found else []
    candidates += sorted(
        Path(DEBIAN).glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True
    )
    for directory in candidates:
        if (directory / "initdb").exists() and (directory / "postgres").exists():
            return directory
    raise Missing("no PostgreSQL server: apt-get install postgresql")


def _unprivileged():
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise Missing("PostgreSQL does not run as root, and there is no other user")


def _end_with_parent():
    # In the child, before it becomes the server: a test run that is killed has no
    # chance to stop it. Other systems than Linux do without.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _remove_left_behind():
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid = path.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists() and Path("/proc").exists():
            shutil.rmtree(path, ignore_errors=True)


@functools.cache
def cluster():
    """The server of this process."""
    started = Cluster()
    atexit.register(started.stop)
    return started


@contextlib.contextmanager
def database():
    """A new :class:`Database` in the server of this process."""
    with cluster().database() as made:
        yield made


@pytest.fixture(scope="module")
def postgresql():
    """A :class:`Database` for the tests of one module."""
    try:
        cluster()
    except Missing as missing:
        pytest.skip(str(missing))
    with database() as made:
        yield made

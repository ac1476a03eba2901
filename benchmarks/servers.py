"""Servers as processes: started, loaded, measured, stopped.

Every server is one worker process on a port of 127.0.0.1 that the system
picks, pinned to one core; what loads it, wrk or a client of ours, is pinned to
another. Nothing but what is started here is ever ended, and that by its own
process id.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

__all__ = [
    "Candidate",
    "Load",
    "Server",
    "Unavailable",
    "describe_pinning",
    "gunicorn",
    "measure",
    "pinned",
    "raise_limits",
    "running",
    "uvicorn",
]

ROOT = Path(__file__).resolve().parent.parent
# Seconds that a server may take to answer for the first time, and to end.
START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
POLL = 0.02
WARM_UP_REQUESTS = 300
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
# More than the greatest number of connections of any benchmark.
MAX_CONNECTIONS = 8192

AIOEXT_WORKER = "aioext.gunicorn.worker.AsyncGunicornWorker"


class Unavailable(Exception):
    """A candidate cannot be measured here; says why, or what to install."""


@dataclass(frozen=True)
class Candidate:
    """A server and an application.

    Attributes:
        name: in the table.
        arguments: of the Python interpreter.
        needs: modules, by the names that pip installs them by.
    """

    name: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()


def gunicorn(
    name: str,
    app: str,
    worker: str,
    *options: str,
    needs: tuple[str, ...] = (),
    module: str = "apps",
) -> Candidate:
    """gunicorn with one worker, its own settings but for the limits."""
    arguments = ["-m", "gunicorn", f"benchmarks.{module}:{app}()", "-k", worker]
    arguments += ["-b", "127.0.0.1:0", "-w", "1", "--keep-alive", "30"]
    arguments += ["--worker-connections", str(MAX_CONNECTIONS)]
    arguments += ["--backlog", str(MAX_CONNECTIONS), "--graceful-timeout", "1"]
    return Candidate(name, (*arguments, *options), ("gunicorn", *needs))


def uvicorn(
    name: str, app: str, *options: str, needs: tuple[str, ...] = ()
) -> Candidate:
    """uvicorn with one process, on uvloop if that is installed."""
    arguments = ["-m", "uvicorn", f"benchmarks.apps:{app}", "--factory"]
    arguments += ["--host", "127.0.0.1", "--port", "0", "--no-access-log"]
    arguments += ["--timeout-keep-alive", "30", "--backlog", str(MAX_CONNECTIONS)]
    return Candidate(name, (*arguments, *options), ("uvicorn", *needs))


def raise_limits() -> None:
    """Let this process and those it starts open as many files as allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@functools.cache
def _cores() -> tuple[list[str], list[str]]:
    # Command prefixes that pin a server and a client to a core each.
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2 or shutil.which("taskset") is None:
        return [], []
    return ["taskset", "-c", str(cores[0])], ["taskset", "-c", str(cores[1])]


def describe_pinning(client: str = "wrk") -> str:
    """Where the server and its ``client`` run, for the notes of a table."""
    on_server, on_client = _cores()
    if not on_server:
        return "neither server nor client is pinned to a core"
    return (
        f"the server is pinned to core {on_server[-1]}, "
        f"{client} to core {on_client[-1]}"
    )


@contextmanager
def pinned() -> Iterator[None]:
    """Run what is within on the client's core, in this process itself."""
    _, on_client = _cores()
    before = os.sched_getaffinity(0)
    if on_client:
        os.sched_setaffinity(0, {int(on_client[-1])})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Server:
    """A running server.

    Attributes:
        candidate: what it is.
        url: its address, without a path.
    """

    url: str

    def __init__(self, candidate: Candidate, log: Path) -> None:
        self.candidate = candidate
        self._log = log
        for module in candidate.needs:
            if importlib.util.find_spec(module) is None:
                raise Unavailable(f"missing: pip install {module}")
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*_cores()[0], sys.executable, "-W", "ignore", *candidate.arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
            )

    def wait_until_ready(self) -> None:
        """Wait for the first answer.

        Raises:
            Unavailable: the server has ended, or does not answer.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            text = self._log.read_text("utf-8", "replace")
            address = re.search(r"http://127\.0\.0\.1:[1-9][0-9]*", text)
            if address and self._answers(address[0]):
                self.url = address[0]
                return
            if self._process.poll() is not None:
                break
            time.sleep(POLL)
        raise Unavailable(f"did not start: {self._last_words()}")

    def _answers(self, url: str) -> bool:
        try:
            with urllib.request.urlopen(url, timeout=START_TIMEOUT) as response:
                return response.status == 200
        except OSError:
            return False

    def _last_words(self) -> str:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def get(self, path: str) -> bytes:
        """The body of the answer to one request."""
        with urllib.request.urlopen(self.url + path, timeout=START_TIMEOUT) as answer:
            return answer.read()

    def processor_seconds(self) -> float:
        """What all its processes have used so far."""
        return sum(_processor_seconds(pid) for pid in self._pids())

    def memory(self) -> int:
        """The resident bytes of its largest process, the one that serves."""
        return max(_resident_bytes(pid) for pid in self._pids())

    def _pids(self) -> set[int]:
        pids = {self._process.pid}
        parents = _parents()
        while found := {pid for pid, ppid in parents.items() if ppid in pids} - pids:
            pids |= found
        return pids

    def warm_up(self, path: str = "/") -> None:
        """Ask for ``path`` some hundred times."""
        address = urlsplit(self.url)
        connection = HTTPConnection(
            address.hostname or "", address.port, timeout=START_TIMEOUT
        )
        for _ in range(WARM_UP_REQUESTS):
            # A connection that the server closed is opened again.
            connection.request("GET", path)
            connection.getresponse().read()
        connection.close()

    @contextmanager
    def watched(self) -> Iterator[int]:
        """A descriptor that can be read once its process has ended."""
        descriptor = os.pidfd_open(self._process.pid)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def end(self) -> None:
        """Tell it to end."""
        if self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        self.end()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _parents() -> dict[int, int]:
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))):
            parents[int(entry)] = int(fields[1])
    return parents


def _stat(pid: int) -> list[str]:
    # From the state on: the name before it may contain spaces. Empty for a
    # process that has ended.
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return []
    return text.rpartition(") ")[2].split()


def _processor_seconds(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS if fields else 0.0


def _resident_bytes(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[21]) * PAGE if fields else 0


@contextmanager
def running(
    candidates: list[Candidate],
) -> Iterator[tuple[dict[str, Server], dict[str, str]]]:
    """Start servers, and stop them at the end.

    Gives those that run, and why the others do not, each by its name.
    """
    servers: dict[str, Server] = {}
    absent: dict[str, str] = {}
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        for number, candidate in enumerate(candidates):
            log = Path(directory, f"{number}.log")
            try:
                server = Server(candidate, log)
            except Unavailable as error:
                absent[candidate.name] = str(error)
                continue
            stack.callback(server.stop)
            servers[candidate.name] = server
        for name, server in list(servers.items()):
            try:
                server.wait_until_ready()
            except Unavailable as error:
                absent[name] = str(error)
                del servers[name]
        try:
            yield servers, absent
        finally:
            # All of them before the first is waited for.
            for server in servers.values():
                server.end()


@dataclass(frozen=True)
class Load:
    """What came of loading a server for some seconds.

    Attributes:
        rate: answered requests a second.
        processor: microseconds of the server's processes for each of them.
        failed: requests that were not answered, or not with success.
    """

    rate: float
    processor: float
    failed: int

    @property
    def busy(self) -> float:
        """Which part of one core the server had."""
        return self.rate * self.processor / 1e6


def measure(
    server: Server,
    path: str,
    connections: int,
    seconds: int,
    headers: Mapping[str, str] | None = None,
) -> Load:
    """Load ``server`` with requests for ``path``.

    Args:
        server: is running.
        path: of each request.
        connections: at the same time.
        seconds: how long.
        headers: of each request, beside wrk's own.

    Raises:
        Unavailable: wrk is missing, or says nothing that can be read.
    """
    if shutil.which("wrk") is None:
        raise Unavailable("wrk is missing: apt-get install wrk")
    before = server.processor_seconds()
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s"]
    command += ["--timeout", "10s"]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    command.append(server.url + path)
    done = subprocess.run([*_cores()[1], *command], capture_output=True, text=True)
    used = server.processor_seconds() - before
    total = re.search(r"(\d+) requests in ", done.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if total is None or rate is None:
        raise Unavailable(f"wrk: {(done.stdout + done.stderr).strip()}")
    requests = int(total[1])
    return Load(float(rate[1]), used / max(requests, 1) * 1e6, _failed(done.stdout))


def _failed(output: str) -> int:
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    failed = int(refused[1]) if refused else 0
    if errors := re.search(r"Socket errors: (.+)", output):
        failed += sum(int(number) for number in re.findall(r"\d+", errors[1]))
    return failed

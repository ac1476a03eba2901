"""Projects that were made from a scaffold: installed, and served for real."""

import os
import queue
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.request
import venv
from pathlib import Path

PATIENCE = 60
"""Seconds after which something that should have happened counts as failed."""

INSTALL = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]


def environment_with(home):
    """The environment of the processes: a home of their own, nothing else changed."""
    ignored = "ignore:pkg_resources is deprecated:UserWarning"
    return os.environ | {"HOME": str(home), "PYTHONWARNINGS": ignored}


def install(project, directory, environment):
    """Install a project into a new virtual environment; gives its interpreter.

    The virtual environment sees what the running interpreter has, so that nothing
    needs to be fetched.
    """
    venv.create(directory, symlinks=True)
    interpreter = directory / "bin" / "python"
    site = sysconfig.get_path(
        "purelib", "venv", vars={"base": directory, "platbase": directory}
    )
    Path(site, "outer.pth").write_text(
        "".join(
            f"import site; site.addsitedir({path!r})\n"
            for path in sys.path
            if path.endswith("site-packages")
        )
    )
    subprocess.run(
        [interpreter, *INSTALL, "--editable", project], check=True, env=environment
    )
    return interpreter


class Server:
    """A project served by ``pserve``, with what it has written so far.

    Args:
        python: the interpreter that :func:`install` gave.
        project: the directory of the project.
        settings: the name of an ini file in it.
        environment: what :func:`environment_with` gave.
        port: where it listens; the system chooses one if this is 0.

    Attributes:
        address: where it listens, once :meth:`wait_until_listening` has returned.
        output: the lines that it has written.
    """

    def __init__(self, python, project, settings, environment, port=0):
        self.process = subprocess.Popen(
            [python, "-m", "pyramid.scripts.pserve", settings, f"http_port={port}"],
            cwd=project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = []
        self._lines = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        with self.process.stdout:
            for line in self.process.stdout:
                self.output.append(line)
                self._lines.put(line)
        self._lines.put(None)

    def wait_until_listening(self, workers=1):
        """Return when it can be connected to."""
        self.address = self.wait_for(r"Listening at: (http://127\.0\.0\.1:\d+)")[1]
        for _ in range(workers):
            self.wait_for("ASGI server listening on")

    @property
    def port(self):
        """The port of its address."""
        return int(self.address.rpartition(":")[2])

    def wait_for(self, pattern):
        """The next line that matches, as a match object."""
        deadline = time.monotonic() + PATIENCE
        while True:
            line = self._lines.get(timeout=max(0, deadline - time.monotonic()))
            assert line is not None, "".join(self.output)
            if match := re.search(pattern, line):
                return match

    def get(self, path):
        """The type and the text of what it answers."""
        with urllib.request.urlopen(self.address + path, timeout=PATIENCE) as answer:
            return answer.headers.get_content_type(), answer.read().decode()

    def stop(self):
        """Ask it to end; gives its exit status."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return self.process.returncode

    def kill(self):
        """End it, if it has not ended."""
        self.process.kill()
        self.process.wait()
        self._reader.join()

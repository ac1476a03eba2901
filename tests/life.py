"""What the applications in ``tests/apps`` tell of their life, and where they run.

``apps/worker_app.py`` prints a line for each thing that happens to it; these
find the lines in the output of a server, a :class:`servers.Server`.
"""

import http.client
import json
import re
import subprocess
import sys
from pathlib import Path

from servers import DEADLINE

APPS = Path(__file__).parent / "apps"
ROOT = APPS.parent.parent

# For processes, whose warnings the filters of pytest do not reach.
ENVIRON = {"PYTHONWARNINGS": "ignore:pkg_resources is deprecated:UserWarning"}

OPENED = ["opened first", "opened second", "starting"]
CLOSED = ["stopping", "closed second", "closed first"]

# What no server that starts, serves and stops as it should has to say.
UNCLEAN = re.compile(
    r"Traceback|Warning|\[WARNING\]|\[ERROR\]|\[CRITICAL\]|\bERROR\b|\bWARNI?\b"
    r"|Exception ignored|never (awaited|retrieved)|destroyed but"
)


def told(output):
    """What was told, in order: (name, id of the process)."""
    found = re.findall(r"^event: ([\w ]+) (\d+)$", output, re.MULTILINE)
    return [(name, int(pid)) for name, pid in found]


def events(server):
    """The names of what was told, in order."""
    return [name for name, _ in told(server.output)]


def pids(server, event):
    """The processes in which an event happened, in order."""
    return [pid for name, pid in told(server.output) if name == event]


def assert_clean(server):
    """Its log has no warning, no error, no traceback."""
    unclean = UNCLEAN.search(server.output)
    assert not unclean, server.describe(f"wrote {unclean[0]!r}")


def get(server, path, headers=None, connection=None):
    """Status and JSON, or text, of the answer to a GET."""
    used = connection or http.client.HTTPConnection(
        "127.0.0.1", server.port, timeout=DEADLINE
    )
    try:
        used.request("GET", path, headers=headers or {})
        answer = used.getresponse()
        body = answer.read()
    finally:
        if connection is None:
            used.close()
    if answer.headers.get_content_type() == "application/json":
        return answer.status, json.loads(body)
    return answer.status, body.decode()


def facts(server, path="/where"):
    """The JSON of a successful answer."""
    status, body = get(server, path)
    assert status == 200, server.describe(f"answered {status}")
    return body if isinstance(body, dict) else json.loads(body)


def python(code):
    """What a new interpreter that runs ``code`` writes; it finds the apps."""
    path = f"import sys; sys.path[:0] = {[str(APPS), str(ROOT)]!r}\n"
    done = subprocess.run(
        [sys.executable, "-W", ENVIRON["PYTHONWARNINGS"], "-c", path + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE,
    )
    return done.stdout

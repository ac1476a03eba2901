"""The page on ASGI servers: its commands and options exist."""

import configparser
import re
import subprocess
import sys

import pytest
from test_asgi_servers import FROM_THE_ENVIRONMENT
from test_docs import DOCS, EXAMPLES

PAGE = (DOCS / "asgi.rst").read_text("utf-8")
SERVERS = ["uvicorn", "hypercorn", "granian", "daphne"]


@pytest.fixture(scope="module")
def options():
    """What each server's ``--help`` mentions."""
    found = {}
    for server in SERVERS:
        command = [sys.executable, "-W", "ignore", "-m", server, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        found[server] = set(re.findall(r"--[a-z][a-z_-]+", done.stdout))
    return found


def test_the_options_that_the_page_names_exist(options):
    own = {"--help"}
    named = set(re.findall(r"--[a-z][a-z-]+", PAGE)) - own
    # pserve's is uvicorn's as well.
    assert len(named) > 10
    assert named <= set.union(*options.values()), named


@pytest.mark.parametrize("kind", FROM_THE_ENVIRONMENT)
def test_the_commands_of_the_page_are_those_of_the_tests(kind):
    server, *arguments = FROM_THE_ENVIRONMENT[kind]
    if server == "gunicorn":
        # It has a page, and commands, of its own.
        return
    if server == "granian":
        arguments = ["--interface", "asgi", *arguments]
    shown = " ".join([server, *arguments]).replace("'", "")
    assert shown in PAGE.replace("'", "")


def load(name):
    parser = configparser.ConfigParser()
    parser.read(EXAMPLES / name)
    return parser


def test_the_section_for_pserve_is_taken(monkeypatch):
    import uvicorn

    from aioext.asgi.uvicorn import make_server

    called = {}
    monkeypatch.setattr(
        uvicorn.main, "callback", lambda **values: called.update(values)
    )
    section = dict(load("asgi_server.ini")["server:main"])
    assert section.pop("use") == "egg:aioext#uvicorn"
    make_server(None, **section)(lambda environ, start_response: [])
    assert (called["host"], called["port"]) == ("127.0.0.1", 6543)
    assert called["access_log"] is False

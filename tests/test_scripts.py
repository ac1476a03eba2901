"""Pyramid's scripts, with an application whose hooks are coroutines."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Seconds for a script, on a machine with much to do.
PATIENCE = 60

INI = """\
[app:main]
use = call:scripts_app:main
"""


@pytest.fixture
def script(tmp_path):
    """Run a script of Pyramid's with the application; gives what it has written.

    It must write nothing to stderr, a warning least of all, but what ``stderr``
    matches.
    """
    (tmp_path / "app.ini").write_text(INI)

    def script(name, *arguments, stdin="", options=(), stderr=""):
        # Pyramid's own, about what it imports.
        ignored = ["-W", "ignore::UserWarning"]
        command = [sys.executable, *ignored, "-m", f"pyramid.scripts.{name}"]
        paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
        done = subprocess.run(
            [*command, *options, "app.ini", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(stderr, done.stderr, re.DOTALL), done.stderr
        return done.stdout

    return script


def test_ptweens_names_the_tween(script):
    written = script("ptweens")
    names = re.findall(r"^(?:\d+|-) +(\S+)", written, re.MULTILINE)
    assert names.index("scripts_app.marking_tween_factory") < names.index(
        "pyramid.tweens.excview_tween_factory"
    )
    assert {"INGRESS", "MAIN"} <= set(names)


def test_proutes_names_the_view(script):
    (line,) = re.findall(r"^page .*$", script("proutes"), re.MULTILINE)
    assert line.split()[1:3] == ["/page/{name}", "scripts_app.show"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        # A traversal that waits for every step.
        ("/a/b/c", ["scripts_app.Folder", "scripts_app.show"]),
        ("/a/write", ["scripts_app.write", "required permission = write"]),
        ("/a/work", ["scripts_app.workday", "weekday = monday"]),
        ("/page/one", ["route name: page", "scripts_app.show"]),
    ],
)
def test_pviews_finds_the_view(script, path, found):
    written = script("pviews", path)
    for text in found:
        assert text in written


@pytest.mark.parametrize(
    ("path", "headers", "status", "text"),
    [
        ("/a/b", {}, 200, "/a/b 1"),
        ("/page/one", {}, 200, "/one 1"),
        ("/a/write", {"User": "ann"}, 200, "written by ann"),
        # What denies, denies here as well.
        ("/a/write", {"User": "bob"}, 403, None),
        ("/a/work", {"Day": "monday"}, 200, "a workday"),
        ("/a/work", {"Day": "sunday"}, 404, None),
        ("/closed", {}, 404, None),
    ],
)
def test_prequest_prints_the_response(script, path, headers, status, text):
    options = ["-d", *(f"--header={name}:{value}" for name, value in headers.items())]
    head, *lines = script("prequest", path, options=options).splitlines()
    assert head.startswith(f"{status} ")
    assert "Tween: passed" in lines
    assert ("Wrapper: passed" in lines) is (text in ("/a/b 1", "/one 1"))
    assert text in (None, lines[-1])


SESSION = """\
from pyramid.traversal import find_resource, resource_path
from aioext import synchronize, wait
resource_path(find_resource(root, '/a/b'))
request.number
bool(request.has_permission('write', root))
type(root_factory(request)).__name__

async def load():
    return 'loaded'

wait(load())
synchronize(load)()
type(request).blank('/page/one').get_response(app).text
"""


def test_pshell_gives_values(script):
    # The shell's banner goes to stderr, and so does what it could not execute.
    banner = r"Python 3(?!.*(?:Traceback|Warning)).*"
    written = script("pshell", stdin=SESSION, options=["-p", "python"], stderr=banner)
    # Of the shell's prompts nothing is left but the values.
    _, _, session = written.partition(">>> ")
    values = [line for line in re.split(r"(?:>>> |\.\.\. |\n)+", session) if line]
    assert values == [
        "'/a/b'",
        "0",
        "False",
        "'Folder'",
        "'loaded'",
        "'loaded'",
        "'/one 1'",
    ]

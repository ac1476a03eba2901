"""``aioext-assets``: files are built ahead of time, and whenever a source changes."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pyramid.config import global_registries

from aioext.scripts import assets

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60

INI = """\
[app:main]
use = call:built_app:main
aioext.assets.cache_dir = %(here)s/cache
get target = called

[app:empty]
use = call:built_app:empty

[app:wrong]
use = call:built_app:wrong

[composite:both]
use = egg:Paste#urlmap
/ = main
/empty = empty

[DEFAULT]
called = a
"""

APP = """\
from pathlib import Path
from pyramid.config import Configurator
from aioext.exceptions import BuildError

HERE = Path(__file__).parent

def upper(sources, target):
    text = "".join(each.read_text() for each in sources)
    if "bad" in text:
        raise BuildError("The source is bad.")
    target.write_text(text.upper())

def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include("aioext")
        config.include("aioext.assets.built")
        config.add_built_asset(HERE / f"{settings['target']}.up", HERE / "a.txt", upper)
        config.add_built_asset(HERE / "*.low", HERE / "*.txt", upper)
        return config.make_wsgi_app()

def empty(global_config, **settings):
    with Configurator() as config:
        return config.make_wsgi_app()

def wrong(global_config, **settings):
    with Configurator(settings={"aioext.assets.cache_dir": "here"}) as config:
        config.include("aioext")
"""

CHANGED = iter(range(1_700_000_000, 1_800_000_000))


def write(path, text):
    """Write a file at once; its time is that of no other."""
    new = path.with_name("new")
    new.write_text(text)
    os.utime(new, (next(CHANGED),) * 2)
    new.rename(path)


@pytest.fixture
def place(tmp_path):
    """An application with two files, in a directory."""
    write(tmp_path / "app.ini", INI)
    write(tmp_path / "built_app.py", APP)
    write(tmp_path / "a.txt", "one")
    return tmp_path


@pytest.fixture
def environment(place):
    """The environment of its processes."""
    return os.environ | {
        "PYTHONPATH": f"{place}:{ROOT}",
        "PYTHONWARNINGS": "ignore::UserWarning,ignore::DeprecationWarning",
    }


@pytest.fixture
def start(place, environment):
    """Start the script in a process of its own."""
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "aioext.scripts.assets", *arguments],
                    cwd=place,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def script(start):
    """Run it to its end: its exit status and what it has written."""

    def script(*arguments):
        process = start(*arguments)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    return script


def test_what_is_due_is_built_and_told(script, place):
    status, out, err = script("build", "app.ini")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"[1/2] {place}/a.up built in 0.")
    assert lines[0].endswith(" s, 3 bytes")
    assert lines[1].startswith(f"[2/2] {place}/a.low built in 0.")
    assert [path.read_text() for path in place.glob("cache/*/a.up")] == ["ONE"]
    out = script("build", "app.ini")[1]
    assert out.splitlines()[0] == f"[1/2] {place}/a.up is up to date, 3 bytes"
    assert script("build", "--force", "app.ini")[1].count("built in") == 2


def test_variables_of_the_file_are_taken(script, place):
    assert f"{place}/b.up built" in script("build", "app.ini", "called=b")[1]


def test_several_applications_of_one_file_are_built(script):
    pytest.importorskip("paste")
    assert script("build", "app.ini#both")[1].count("built in") == 2


def test_an_application_that_builds_nothing_says_so(script):
    assert script("build", "app.ini#empty") == (
        0,
        "app.ini#empty: the application builds no files.\n",
        "",
    )


def test_what_fails_is_told_and_the_rest_is_built(script, place):
    write(place / "b.txt", "two")
    write(place / "a.txt", "bad")
    status, out, err = script("build", "app.ini")
    assert status == 1
    assert f"[1/3] {place}/a.up failed\n" in out
    assert f"{place}/b.low built in" in out
    first, *_, last = err.splitlines()
    assert first == (
        f"aioext-assets: {place}/a.up could not be built. The source is bad."
    )
    assert last == "aioext-assets: 2 of 3 failed"


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["build", "none.ini"], 1, "aioext-assets: there is no file none.ini\n"),
        (["build", "app.ini#none"], 1, "aioext-assets: app.ini#none: No section"),
        (["build", "app.ini#wrong"], 1, "app.ini#wrong: The setting aioext.assets."),
        (["build", "app.ini", "name"], 2, "'name' is not NAME=VALUE"),
        (["watch", "app.ini", "-i", "0"], 2, "argument -i/--interval: invalid"),
        ([], 2, "the following arguments are required: COMMAND"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(script, arguments, status, told):
    ended, out, err = script(*arguments)
    assert (ended, out) == (status, "")
    assert told in err
    assert "Traceback" not in err


def test_the_version(script):
    assert script("--version")[1].startswith("aioext-assets (aioext ")


def test_a_reader_that_leaves_is_no_error(place, environment):
    line = f"{sys.executable} -m aioext.scripts.assets build app.ini | true"
    ended = subprocess.run(
        ["sh", "-c", line],
        cwd=place,
        env=environment,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert ended.stderr == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_changes_are_built_until_it_is_ended(start, place, number):
    process = start("watch", "app.ini", "-i", "0.05")
    read = process.stdout.readline
    assert read() == "Watching the sources of 2 files; Ctrl-C ends it.\n"
    assert {read().split(" in ")[0] for _ in "12"} == {
        f"{place}/a.{suffix} built" for suffix in ("up", "low")
    }
    write(place / "b.txt", "two")
    assert read().startswith(f"{place}/b.low built in")
    write(place / "b.txt", "bad")
    assert read() == f"{place}/b.low failed\n"
    assert "The source is bad." in process.stderr.readline()
    write(place / "b.txt", "three")
    # It has not been tried again in between.
    assert read().startswith(f"{place}/b.low built in")
    assert [path.read_text() for path in place.glob("cache/*/b.low")] == ["THREE"]
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "", "")


def test_an_interrupt_ends_the_command_under_way(start, place):
    command = "sh -c 'echo $$ > pid; exec sleep 60'"
    write(place / "built_app.py", APP.replace("upper)", f"{command!r})"))
    process = start("build", "app.ini")
    deadline = time.monotonic() + PATIENCE
    while not (place / "pid").exists() or not (place / "pid").read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # It waits for the command once it sleeps.
    state = Path(f"/proc/{process.pid}/stat")
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "S":
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert err == "aioext-assets: interrupted\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int((place / "pid").read_text()), 0)


def test_it_may_be_called_in_this_process(place, monkeypatch):
    monkeypatch.syspath_prepend(place)
    monkeypatch.setattr(assets, "setup_logging", lambda *arguments: None)
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    before = list(global_registries)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert assets.main(["build", str(place / "app.ini")]) == 0
    assert f"{place}/a.up built in" in out.getvalue()
    for each in list(global_registries):
        if not any(each is other for other in before):
            global_registries.remove(each)
    sys.modules.pop("built_app")

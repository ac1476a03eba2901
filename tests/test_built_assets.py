"""``config.add_built_asset``: who builds, when, and what is served if that fails."""

import asyncio
import functools
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError, ConfigurationError

import aioext
from aioext import ScopeError, spawn_greenlet
from aioext.assets.built import asset as building
from aioext.assets.built import cache, commands
from aioext.assets.spec import built_asset as find
from aioext.events import AppStopping
from aioext.exceptions import BuildError
from aioext.executor import Executor
from aioext.interfaces import IBuiltAssets

ROOT = Path(__file__).resolve().parent.parent
# Seconds after which what should have happened counts as failed.
PATIENCE = 30


class Builder:
    """Writes its sources in capitals; knows how often it was called."""

    def __init__(self, *read):
        self.calls = 0
        self.read = read
        self.broken = False
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self, sources, target):
        self.calls += 1
        self.begun.set()
        assert self.may_end.wait(PATIENCE)
        if self.broken:
            raise BuildError("The source is no good.")
        target.write_text("".join(each.read_text() for each in sources).upper())
        return self.read


@pytest.fixture
def build():
    return Builder()


@pytest.fixture
def place(tmp_path):
    """A directory with a source that was changed some time ago."""
    write(tmp_path / "src" / "a.txt", "one\n")
    return tmp_path


CHANGED = iter(range(1_700_000_000, 1_800_000_000))


def write(path, text):
    """Write a file; its time is that of no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    touch(path)


def touch(path):
    os.utime(path, (next(CHANGED),) * 2)


@pytest.fixture
def configure(place):
    """Gives a configuration with this cache, in production unless ``reload``."""

    def configure(reload=False, **settings):
        settings["aioext.assets.cache_dir"] = str(place / "cache")
        settings["pyramid.reload_assets"] = str(reload)
        config = Configurator(settings=settings)
        config.include("aioext")
        config.include("aioext.assets.built")
        return config

    return configure


@pytest.fixture
def make(configure, place):
    """Gives what is built of ``src/a.txt``, in an application of its own."""

    def make(build, reload=False, sources=("src/a.txt",), depends=()):
        config = configure(reload)
        config.add_built_asset(
            str(place / "static" / "a.up"),
            [str(place / each) for each in sources],
            build,
            depends=[str(place / each) for each in depends],
        )
        config.commit()
        return find(config.registry, str(place / "static" / "a.up"))

    return make


def text(asset):
    return Path(asset.path()).read_text()


# When it is built.


def test_it_is_built_when_it_is_first_used(make, build, place):
    asset = make(build)
    assert (build.calls, asset.is_due()) == (0, True)
    assert text(asset) == "ONE\n"
    assert text(asset) == "ONE\n"
    assert (build.calls, asset.is_due()) == (1, False)
    assert Path(asset.path()).name == "a.up"
    assert not (place / "static").exists()


def test_an_application_that_starts_again_finds_it(make, build):
    assert make(build).path() == make(build).path()
    assert build.calls == 1


def test_in_production_a_source_that_changes_is_seen_by_the_next_start(
    make, build, place
):
    asset = make(build)
    assert text(asset) == "ONE\n"
    write(place / "src/a.txt", "two\n")
    assert text(asset) == "ONE\n"
    assert build.calls == 1
    assert text(make(build)) == "TWO\n"


def test_in_development_a_source_that_is_touched_is_built_again(make, build, place):
    asset = make(build, reload=True)
    asset.path()
    before = os.stat(asset.path()).st_mtime_ns
    touch(place / "src/a.txt")
    assert text(asset) == "ONE\n"
    assert build.calls == 2
    # Browsers keep what they have.
    assert os.stat(asset.path()).st_mtime_ns == before
    asset.path()
    assert build.calls == 2


def test_a_source_that_changes_while_it_is_read_is_built_again(make, place):
    def change(sources, target):
        calls.append(sources)
        target.write_text(sources[0].read_text())
        if len(calls) == 1:
            write(place / "src/a.txt", "two\n")

    calls = []
    asset = make(change, reload=True)
    assert text(asset) == "one\n"
    assert text(asset) == "two\n"
    asset.path()
    assert len(calls) == 2


def test_wildcards_see_files_that_come_and_go(make, build, place):
    asset = make(build, reload=True, sources=["src/*.txt", "src/**/*.txt"])
    assert text(asset) == "ONE\n"
    write(place / "src/deep/er/b.txt", "two\n")
    write(place / "src/.hidden.txt", "hidden\n")
    write(place / "src/c.md", "other\n")
    assert text(asset) == "ONE\nTWO\n"
    (place / "src/a.txt").unlink()
    with pytest.raises(BuildError, match=r"there is no file .*/src/\*\.txt"):
        asset.build()
    write(place / "src/0.txt", "zero\n")
    assert text(asset) == "ZERO\nTWO\n"


def test_sources_are_in_the_order_in_which_they_are_given(make, build, place):
    for name in ("b", "c"):
        write(place / f"src/{name}.txt", name)
    asset = make(build, sources=["src/c.txt", "src/*.txt"])
    assert text(asset) == "CONE\nB"


def test_what_it_depends_on_is_not_given_to_the_builder(make, build, place):
    write(place / "other/a.inc", "1")
    asset = make(build, reload=True, depends=["other/**"])
    assert text(asset) == "ONE\n"
    touch(place / "other/a.inc")
    assert text(asset) == "ONE\n"
    assert build.calls == 2


def test_what_the_builder_has_read_is_a_source_from_then_on(make, place):
    write(place / "read.inc", "1")
    build = Builder(place / "read.inc")
    asset = make(build, reload=True)
    asset.path()
    asset.path()
    assert build.calls == 1
    touch(place / "read.inc")
    asset.path()
    assert build.calls == 2
    build.read = ()
    touch(place / "read.inc")
    asset.path()
    touch(place / "read.inc")
    asset.path()
    assert build.calls == 3


def test_what_may_have_changed_while_it_was_read_is_not_trusted(make, place):
    def build(sources, target):
        calls.append(None)
        target.write_text(read.read_text())
        if len(calls) == 1:
            read.write_text("changed")
        return [read]

    calls = []
    read = place / "read.inc"
    write(read, "read")
    asset = make(build, reload=True)
    assert text(asset) == "read"
    assert text(asset) == "changed"
    asset.path()
    assert len(calls) == 2


def test_the_module_of_the_builder_is_a_source(make, place):
    module = place / "builder_of_this_test.py"
    write(module, "def build(sources, target):\n    target.write_text('1')\n")
    namespace = {"__name__": "builder_of_this_test"}
    exec(compile(module.read_text(), module, "exec"), namespace)
    asset = make(functools.partial(namespace["build"]), reload=True)
    asset.path()
    assert not asset.is_due()
    touch(module)
    assert asset.is_due()


def test_a_builder_may_be_a_coroutine_function(make, run):
    async def build(sources, target):
        await asyncio.sleep(0)
        target.write_text("awaited")

    asset = make(build)
    assert text(asset) == "awaited"
    assert asset.build(force=True)
    assert run(spawn_greenlet(text, make(build))) == "awaited"


def test_builders_are_told_apart():
    def one(sources, target):
        pass

    partial = functools.partial
    names = [
        building.identity(each)
        for each in (one, partial(one, 1), partial(one, a=1), Builder(), print)
    ]
    assert len(set(names)) == len(names)
    assert not any(" at 0x" in each for each in names)
    assert building.source_of(print) is None
    assert building.source_of(partial(one)) == __file__
    assert building.source_of(Builder()) == __file__


# One at a time.


def test_one_build_serves_all_who_ask(make, build, run):
    asset = make(build)
    build.may_end.clear()
    asking = []
    threads_that_build = []

    def ask():
        asking.append(None)
        if len(asking) == 60:
            names = [each.name for each in threading.enumerate()]
            threads_that_build.append(names.count("aioext-build"))
            build.may_end.set()
        return text(asset)

    async def ask_on_the_loop():
        return await asyncio.gather(*(spawn_greenlet(ask) for _ in range(30)))

    with ThreadPoolExecutor(30) as threads:
        in_threads = [threads.submit(ask) for _ in range(30)]
        assert set(run(ask_on_the_loop())) == {"ONE\n"}
        assert {each.result(PATIENCE) for each in in_threads} == {"ONE\n"}
    assert build.calls == 1
    assert threads_that_build == [1]


def test_a_full_executor_does_not_keep_it_from_being_built(make, build, run):
    asset = make(build)
    executor = Executor(1)

    async def ask():
        asking = [executor.run(text, asset) for _ in range(3)]
        try:
            return await asyncio.gather(*asking)
        finally:
            await executor.aclose()

    assert run(ask()) == ["ONE\n"] * 3
    assert build.calls == 1


def test_an_asker_that_is_cancelled_leaves_the_build_to_the_others(make, build, run):
    asset = make(build)
    build.may_end.clear()

    async def ask():
        first = asyncio.create_task(spawn_greenlet(text, asset))
        await asyncio.to_thread(build.begun.wait, PATIENCE)
        second = asyncio.create_task(spawn_greenlet(text, asset))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert not second.done()
        build.may_end.set()
        return await second

    assert run(ask()) == "ONE\n"
    assert build.calls == 1


def test_the_loop_goes_on_while_it_is_built(make, build, run):
    asset = make(build)
    build.may_end.clear()

    async def ask():
        asking = asyncio.create_task(spawn_greenlet(text, asset))
        await asyncio.to_thread(build.begun.wait, PATIENCE)
        build.may_end.set()
        return await asking

    assert run(ask()) == "ONE\n"


def test_a_bare_coroutine_is_told_what_to_write(make, build, run):
    asset = make(build)

    async def ask():
        return asset.path()

    with pytest.raises(ScopeError):
        run(ask())


PROGRAM = """
import os, sys, threading, time
from pathlib import Path
from pyramid.config import Configurator
from aioext.assets.spec import built_asset as find

begun = threading.Event()
place = Path({place!r})

def build(sources, target):
    with open(place / "calls", "a") as calls:
        calls.write("called\\n")
    print("building", flush=True)
    begun.set()
    sys.stdin.readline()
    target.write_text("by a process")

def main():
    config = Configurator(settings={{"aioext.assets.cache_dir": str(place / "cache")}})
    config.include("aioext")
    config.include("aioext.assets.built")
    config.add_built_asset(str(place / "a.up"), str(place / "src/a.txt"), build)
    config.commit()
    print("asking", flush=True)
    path = find(config.registry, str(place / "a.up")).path()
    print(Path(path).read_text(), flush=True)

def fork_and_build():
    begun.clear()
    threading.Thread(target=main).start()
    begun.wait()
    child = os.fork()
    if not child:
        time.sleep(1000)
    print(child, flush=True)

"""


@pytest.fixture
def start(place):
    """Start a program that asks for the file."""
    processes = []
    module = place / "asking.py"
    write(module, PROGRAM.format(place=str(place)))

    def start(last="main()"):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", f"import asking\nasking.{last}"],
            cwd=place,
            env=os.environ | {"PYTHONPATH": f"{place}:{ROOT}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_for_lock(pid):
    """Return when that process waits for a lock on a file."""
    deadline = time.monotonic() + PATIENCE
    waiting = re.compile(rf"-> FLOCK .* {pid} ")
    while not waiting.search(Path("/proc/locks").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_process_builds_for_all(start, place):
    first = start()
    assert [first.stdout.readline() for _ in "12"] == ["asking\n", "building\n"]
    second = start()
    assert second.stdout.readline() == "asking\n"
    wait_for_lock(second.pid)
    for process in (first, second):
        told, _ = process.communicate("go on\n", timeout=PATIENCE)
        assert told == "by a process" + "\n"
    assert (place / "calls").read_text() == "called\n"


def test_a_process_that_is_killed_leaves_nothing_unfinished(start, place):
    first = start()
    assert [first.stdout.readline() for _ in "12"] == ["asking\n", "building\n"]
    assert [each.name for each in place.glob("cache/*/*")]
    first.kill()
    first.wait()
    (left,) = place.glob("cache/*/.building-*")
    second = start()
    told, _ = second.communicate("go on\n", timeout=PATIENCE)
    assert told == "asking\nbuilding\nby a process\n"
    assert not left.exists()
    assert {each.name for each in place.glob("cache/*/*")} == {
        ".lock",
        ".record.json",
        "a.up",
    }


def test_a_fork_of_a_process_that_is_killed_holds_nobody_up(start, place):
    first = start("fork_and_build()")
    assert [first.stdout.readline() for _ in "12"] == ["asking\n", "building\n"]
    pid = int(first.stdout.readline())
    try:
        first.kill()
        first.wait()
        second = start()
        told, _ = second.communicate("go on\n", timeout=PATIENCE)
        assert told == "asking\nbuilding\nby a process\n"
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_process_that_is_forked_builds_for_itself(script, place):
    told = script(f"""
        import os, sys, threading
        from pathlib import Path
        from pyramid.config import Configurator
        from aioext.assets.spec import built_asset as find
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_built_assets import wait_for_lock

        begun, may_end = threading.Event(), threading.Event()

        def build(sources, target):
            begun.set()
            assert may_end.wait({PATIENCE})
            print("built", flush=True)
            target.write_text("done")

        config = Configurator(settings={{"aioext.assets.cache_dir": {str(place)!r}}})
        config.include("aioext")
        config.include("aioext.assets.built")
        config.add_built_asset("/a.up", "{place}/src/a.txt", build)
        config.commit()
        asset = find(config.registry, "/a.up")
        thread = threading.Thread(target=asset.path)
        thread.start()
        begun.wait({PATIENCE})
        # A build is under way, whose thread the child does not have.
        child = os.fork()
        if child:
            wait_for_lock(child)
            may_end.set()
            thread.join()
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        may_end.set()
        assert Path(asset.path()).read_text() == "done"
        os._exit(0)
    """)
    assert told == "built\n"


def test_the_end_of_the_process_ends_its_commands(place):
    program = f"""
    import threading
    from pathlib import Path
    from aioext.assets.built import commands
    from pyramid.config import Configurator
    from aioext.assets.spec import built_asset as find

    config = Configurator(settings={{"aioext.assets.cache_dir": {str(place)!r}}})
    config.include("aioext")
    config.include("aioext.assets.built")
    config.add_built_asset("/a.up", "{place}/src/a.txt", "sleep 60")
    config.commit()
    find(config.registry, "/a.up")._begin()
    while not commands._running:
        pass
    print(next(iter(commands._running)).pid)
    """
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ended.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(ended.stdout), 0)
    assert "Traceback" not in ended.stderr
    assert "was not run to its end, for the application stops" in ended.stderr


def test_an_application_that_stops_ends_its_commands_alone(configure, package, caplog):
    def application(command):
        config = configure()
        config.add_built_asset("packaged:b.up", "packaged:src/a.txt", command)
        config.add_built_asset("packaged:*.up", "packaged:src/*.txt", command)
        config.commit()
        return config.registry

    def begin(registry, name):
        return find(registry, f"packaged:{name}")._begin()

    one, other = application("sleep 60"), application("sleep 61")
    ending = [begin(one, "a.up"), begin(one, "b.up")]
    going_on = begin(other, "a.up")
    deadline = time.monotonic() + PATIENCE
    while len(commands._running) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    one.notify(AppStopping(one, None))
    for each in ending:
        assert "not run to its end" in each.result(PATIENCE)
    assert not going_on.done()
    # Nothing runs any more, which is no matter.
    one.notify(AppStopping(one, None))
    other.notify(AppStopping(other, None))
    assert "for the application stops" in going_on.result(PATIENCE)
    assert not commands._running


def test_a_build_that_was_stopped_begins_no_command(make, build, place):
    def with_a_command(sources, target):
        build(sources, target)
        commands.run(["touch", str(place / "begun")])

    asset = make(with_a_command)
    build.may_end.clear()
    building = asset._begin()
    assert build.begun.wait(PATIENCE)
    asset.stop()
    build.may_end.set()
    assert "for the application stops" in building.result(PATIENCE)
    assert not (place / "begun").exists()


# When it fails.


def test_without_a_good_file_the_error_is_raised(make, build, caplog):
    build.broken = True
    asset = make(build)
    for _ in range(3):
        with pytest.raises(BuildError, match=r"a\.up could not be built\. The source"):
            asset.path()
    assert build.calls == 1
    (record,) = caplog.records
    assert "The source is no good." in record.getMessage()
    assert record.levelname == "ERROR"
    assert not record.exc_info


def test_what_failed_is_tried_again_after_a_while(make, build, monkeypatch, caplog):
    monkeypatch.setattr(building, "RETRY", 0)
    build.broken = True
    asset = make(build)
    with pytest.raises(BuildError):
        asset.path()
    build.broken = False
    assert text(asset) == "ONE\n"


@pytest.mark.parametrize("reload", [True, False])
def test_the_last_good_file_is_served(make, build, place, caplog, reload):
    make(build).path()
    build.broken = True
    write(place / "src/a.txt", "two\n")
    asset = make(build, reload)
    assert text(asset) == text(asset) == "ONE\n"
    assert build.calls == 2
    told = [each.getMessage().splitlines()[0] for each in caplog.records]
    assert len(told) == 2
    assert told[0].endswith("a.up could not be built. The source is no good.")
    assert told[1].endswith("is served as it was when it could last be built.")
    build.broken = False
    write(place / "src/a.txt", "three\n")
    assert text(asset) == ("THREE\n" if reload else "ONE\n")


def test_a_source_that_is_gone_leaves_the_last_good_file(make, build, place, caplog):
    make(build).path()
    (place / "src/a.txt").unlink()
    assert text(make(build)) == "ONE\n"
    assert "there is no file" in caplog.text


def test_an_error_of_a_function_is_logged_with_its_traceback(make, caplog):
    def build(sources, target):
        raise LookupError("nothing")

    with pytest.raises(BuildError, match="LookupError: nothing"):
        make(build).path()
    (record,) = caplog.records
    assert record.exc_info[0] is LookupError


def test_a_builder_that_ends_its_thread_leaves_nobody_waiting(make, caplog):
    def build(sources, target):
        raise SystemExit("sassc")

    asset = make(build)
    for _ in "12":
        with pytest.raises(BuildError, match="SystemExit: sassc"):
            asset.path()
    assert len(caplog.records) == 1


def test_a_builder_that_writes_nothing_is_told_of(make, caplog):
    with pytest.raises(BuildError, match=r"builtins\.print has not written /.*/a\.up"):
        make(print).path()


def test_a_cache_that_cannot_be_written_to_is_told_of(make, build, place, caplog):
    (place / "cache").write_text("no directory")
    with pytest.raises(BuildError, match=r"NotADirectoryError: .*/cache"):
        make(build).path()
    assert not caplog.records[0].exc_info


def test_a_thread_that_cannot_be_started_is_told_of(make, build, monkeypatch):
    def start(thread):
        monkeypatch.undo()
        raise RuntimeError("can't start new thread")

    asset = make(build)
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(BuildError, match="can't start new thread"):
        asset.path()
    assert text(asset) == "ONE\n"


def test_who_looked_before_it_failed_does_not_have_it_tried_again(make, build, caplog):
    build.broken = True
    asset = make(build)
    assert asset._look() is None
    with pytest.raises(BuildError):
        asset.path()
    assert asset._begin().result(PATIENCE).endswith("The source is no good.")
    assert build.calls == len(caplog.records) == 1


def test_sources_that_cannot_be_looked_at_are_told_of(make, build, monkeypatch):
    def expand(spec):
        raise PermissionError(13, "Permission denied", spec)

    monkeypatch.setattr(building.files, "expand", expand)
    with pytest.raises(BuildError, match=r"Permission denied: '/.*/src/a\.txt'"):
        make(build).path()


def test_every_asker_gets_an_error_of_its_own(make, build, run):
    asset = make(build)
    build.broken = True

    async def ask():
        asking = [spawn_greenlet(asset.path) for _ in range(3)]
        return await asyncio.gather(*asking, return_exceptions=True)

    errors = run(ask())
    assert [type(each) for each in errors] == [BuildError] * 3
    assert len(set(map(id, errors))) == 3


@pytest.mark.parametrize("damage", ["truncated", "no record", "no json", "other json"])
def test_a_damaged_cache_is_built_again(make, build, damage):
    path = Path(make(build).path())
    record = path.with_name(cache.RECORD)
    if damage == "truncated":
        path.write_text("")
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text("{" if damage == "no json" else "[]")
    assert text(make(build)) == "ONE\n"
    assert build.calls == 2


# How it is found.


def test_it_is_found_by_its_specification_and_by_its_path(configure, build, place):
    config = configure()
    config = config.with_package("aioext.assets")
    config.add_built_asset("static/a.up", str(place / "src/a.txt"), build)
    config.commit()
    registry = config.registry
    asset = find(registry, "aioext.assets:static/a.up")
    assert asset.spec == "aioext.assets:static/a.up"
    assert find(registry, "aioext.assets:./static//b/../a.up") is asset
    path = Path(aioext.__file__).parent / "assets" / "static" / "a.up"
    assert find(registry, str(path)) is asset
    for other in ("aioext:static/a.up", "aioext.assets:a.up", "a.up", "", "a\0b"):
        assert find(registry, other) is None
    assert list(registry.getUtility(IBuiltAssets)) == [asset]


def test_an_application_without_any_finds_nothing(configure):
    assert find(configure().registry, "aioext:a.up") is None
    assert find(Configurator().registry, "aioext:a.up") is None


@pytest.fixture
def package(place, monkeypatch):
    """A package with a source."""
    write(place / "packaged/__init__.py", "")
    write(place / "packaged/src/a.txt", "one")
    write(place / "packaged/src/_part.txt", "part")
    monkeypatch.syspath_prepend(place)
    yield "packaged"
    sys.modules.pop("packaged", None)


def test_a_source_may_be_overridden(configure, build, package, place):
    write(place / "packaged/theme/a.txt", "theme")
    config = configure()
    config.add_built_asset("packaged:a.up", "packaged:src/a.txt", build)
    config.override_asset("packaged:src/", "packaged:theme/")
    config.commit()
    assert text(find(config.registry, "packaged:a.up")) == "THEME"


def test_what_is_overridden_is_not_built(configure, build, package, place):
    write(place / "packaged/theme/a.up", "theme")
    config = configure()
    for name in ("a.up", "b.up"):
        config.add_built_asset(f"packaged:static/{name}", "packaged:src/a.txt", build)
    config.override_asset("packaged:static/", "packaged:theme/")
    config.commit()
    assert find(config.registry, "packaged:static/a.up") is None
    assert find(config.registry, "packaged:static/b.up") is not None


def test_a_pattern_stands_for_a_file_of_each_source(configure, build, package, place):
    config = configure()
    sources = ["packaged:src/*.txt", "packaged:src/_part.txt"]
    config.add_built_asset("packaged:static/*.up", sources, build)
    config.commit()
    asset = find(config.registry, "packaged:static/a.up")
    assert text(asset) == "ONEPART"
    assert find(config.registry, str(place / "packaged/static/a.up")) is asset
    assert list(config.registry.getUtility(IBuiltAssets)) == [asset]
    assert find(config.registry, "packaged:static/b.up") is None
    write(place / "packaged/src/b.txt", "two")
    assert text(find(config.registry, "packaged:static/b.up")) == "TWOPART"
    (place / "packaged/src/b.txt").unlink()
    assert find(config.registry, "packaged:static/b.up") is None


@pytest.mark.parametrize(
    "name",
    [
        "_part.up",
        ".up",
        "?.up",
        "[a].up",
        "*.up",
        "b/../a.txt",
        "../a.up",
        "x",
        "a\0.up",
    ],
)
def test_a_pattern_gives_away_no_other_file(configure, build, package, name):
    config = configure()
    config.add_built_asset("packaged:static/*.up", "packaged:src/*.txt", build)
    config.commit()
    assert find(config.registry, f"packaged:static/{name}") is None


def test_a_name_that_could_be_a_wildcard_is_no_file(configure, build, package, place):
    write(place / "packaged/src/[a].txt", "another")
    config = configure()
    config.add_built_asset("packaged:static/*.up", "packaged:src/*.txt", build)
    config.commit()
    assert find(config.registry, "packaged:static/[a].up") is None


def test_a_pattern_whose_sources_are_all_gone_has_no_files(configure, build, package):
    config = configure()
    config.add_built_asset("packaged:*.up", "packaged:none/*.txt", build)
    config.commit()
    assert list(config.registry.getUtility(IBuiltAssets)) == []
    assert find(config.registry, "packaged:a.up") is None


def test_a_pattern_at_the_top_of_a_package(configure, build, package):
    config = configure()
    config.add_built_asset("packaged:*.up", "packaged:src/*.txt", build)
    config.commit()
    asset = find(config.registry, "packaged:a.up")
    assert text(asset) == "ONE"
    assert Path(asset.path()).name == "a.up"


# Configuration.


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"target": ""}, "a file for a target, got ''"),
        ({"target": "static/"}, "a file for a target, got 'static/'"),
        ({"target": 5}, "a file for a target, got 5"),
        ({"target": "aioext:../a.css"}, "leads out of its package"),
        ({"target": "a\0.css"}, "leads out of its package"),
        ({"target": "no_such_package:a.css"}, "whose package cannot be imported"),
        ({"target": "*/a.css"}, "a target has no wildcard, or one"),
        ({"target": "a?.css"}, "a target has no wildcard, or one"),
        ({"target": "**.css"}, "a target has no wildcard, or one"),
        ({"target": "*.css"}, "do not say what each is built from"),
        ({"target": "*.css", "sources": ["a/*/b.scss"]}, "do not say what each is"),
        ({"target": "*.css", "sources": ["**/*.scss"]}, "do not say what each is"),
        ({"sources": []}, "was given no sources"),
        ({"sources": None}, "a file for a source, got None"),
        ({"sources": [None]}, "a file for a source, got None"),
        ({"sources": ["a.css"]}, "was given itself as a source"),
        ({"depends": ["a.css"]}, "was given itself as a source"),
        ({"depends": [""]}, "a file for what it depends on, got ''"),
        ({"build": None}, "takes for build a builder as scss(), a command as"),
        ({"build": ""}, "takes a program and its arguments"),
    ],
)
def test_what_cannot_be_is_refused(configure, change, told):
    config = configure().with_package("aioext")
    options = {"target": "a.css", "sources": ["a.scss"], "build": print} | change
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        config.add_built_asset(**options)


def test_a_builder_that_was_not_made_is_refused(configure):
    from aioext.assets import command, css, js, scss

    for each in (command, css, js, scss):
        with pytest.raises(ConfigurationError, match=rf"Write build={each.__name__}\("):
            configure().add_built_asset("/a.css", "/b.css", each)


def test_two_statements_for_one_file_are_a_conflict(configure, build):
    config = configure()
    config.add_built_asset("aioext:a.up", "aioext:a.txt", build)
    config.add_built_asset("aioext:./a.up", "aioext:b.txt", build)
    with pytest.raises(ConfigurationConflictError):
        config.commit()


def test_paths_may_be_path_objects(configure, build, place):
    config = configure()
    config.add_built_asset(place / "a.up", place / "src" / "a.txt", build)
    config.commit()
    assert text(find(config.registry, str(place / "a.up"))) == "ONE\n"


def test_it_is_introspectable(configure, build):
    config = configure()
    config.add_built_asset("/a.up", "/a.txt", build, depends="/b.txt")
    config.commit()
    intr = config.introspector.get("built assets", "/a.up")
    assert (intr["target"], intr["sources"], intr["depends"], intr["build"]) == (
        "/a.up",
        ["/a.txt"],
        ["/b.txt"],
        build,
    )


def test_including_it_again_keeps_what_was_added(configure, build):
    config = configure()
    config.add_built_asset("/a.up", "/a.txt", build)
    config.commit()
    config.include("aioext.assets.built")
    config.commit()
    assert find(config.registry, "/a.up") is not None


def test_the_directory_of_the_cache(monkeypatch, configure, build, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.default_directory() == tmp_path / "xdg" / "aioext" / "assets"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.default_directory() == Path.home() / ".cache" / "aioext" / "assets"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    config = Configurator(settings={})
    config.include("aioext")
    config.include("aioext.assets.built")
    config.add_built_asset("/a.up", str(tmp_path / "src/a.txt"), build)
    config.commit()
    assert find(config.registry, "/a.up").path().startswith(str(tmp_path / "xdg"))


def test_a_cache_at_a_relative_path_is_refused():
    config = Configurator(settings={"aioext.assets.cache_dir": "cache"})
    with pytest.raises(ConfigurationError, match="an absolute path"):
        config.include("aioext")

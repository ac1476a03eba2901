"""Files by their asset specifications, and the small ones in memory."""

import asyncio
import hashlib
import os
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from asgi import Client
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.response import Response
from webtest import TestApp

from aioext import wait
from aioext.assets import asset as asset_module
from aioext.assets import files
from aioext.assets.asset import Asset, locate
from aioext.assets.files import SMALL, Files, open_file
from aioext.executor import THREAD_NAME

LONG_AGO = 1_000_000_000


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """A package ``sample`` with files that were written long ago."""
    package = tmp_path / "sample"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    write(package / "data" / "a.txt", "Grüße\n")
    write(package / "data" / "other.txt", "other")
    write(package / "data" / "large.bin", b"x" * (SMALL + 1))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sample", raising=False)
    return package


def write(path, content, mtime=LONG_AGO):
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(content)
    os.utime(path, (mtime, mtime))
    return str(path)


@pytest.fixture
def settled(monkeypatch):
    """The clock of the file system is as fine as need be."""
    monkeypatch.setattr(files, "TICK_NS", 0)


def make(view, **settings):
    config = Configurator(settings=settings)
    config.include("aioext")
    config.include("aioext.assets.asset")
    config.add_route("view", "/")
    config.add_view(view, route_name="view")
    return config


# A file as it is now ----------------------------------------------------------


def test_an_entry_tells_what_there_is(tmp_path):
    path = write(tmp_path / "a.txt", "abc")
    entry = Files().entry(path)
    assert (entry.path, entry.size, entry.mtime) == (path, 3, LONG_AGO)
    assert entry.mtime_ns == LONG_AGO * 10**9
    assert entry.last_modified == "Sun, 09 Sep 2001 01:46:40 GMT"
    assert entry.etag.startswith('"')
    assert entry.etag.endswith('"')
    assert entry.etag_of("gzip") != entry.etag
    assert entry.body is None


def test_the_etag_changes_with_the_time_and_the_size(tmp_path):
    found = set()
    for mtime, text in ((1, "a"), (2, "a"), (2, "ab")):
        path = write(tmp_path / "a.txt", text, mtime)
        found.add(Files().entry(path).etag)
    assert len(found) == 3


def test_a_small_file_is_read_once(tmp_path, settled):
    kept = Files()
    path = write(tmp_path / "a.txt", "abc")
    first, body = kept.load(path)
    assert body == first.body == b"abc"
    assert kept.peek(path) is first
    assert kept.load(path) == (first, b"abc")


def test_a_large_file_is_not_read(tmp_path):
    entry, body = Files().load(write(tmp_path / "a.bin", bytes(SMALL + 1)))
    assert (entry.size, body, entry.body) == (SMALL + 1, None, None)


def test_a_look_holds_for_a_while(tmp_path, settled):
    kept = Files(fresh=60)
    path = write(tmp_path / "a.txt", "abc")
    first = kept.entry(path)
    write(tmp_path / "a.txt", "abcdef")
    assert kept.entry(path) is first
    kept.forget(path)
    assert kept.entry(path).size == 6


def test_a_file_that_has_changed_is_read_again(tmp_path, settled):
    kept = Files(fresh=0)
    path = write(tmp_path / "a.txt", "abc")
    assert kept.load(path)[1] == b"abc"
    write(tmp_path / "a.txt", "abcdef")
    assert kept.load(path)[1] == b"abcdef"


def test_a_file_that_has_not_changed_is_not_read_again(tmp_path, settled):
    kept = Files(fresh=0)
    path = write(tmp_path / "a.txt", "abc")
    assert kept.load(path)[1] is kept.load(path)[1]


def test_a_change_within_a_tick_of_the_clock_is_seen(tmp_path):
    # Its size and its times are those that it had.
    kept = Files(fresh=0)
    path = tmp_path / "a.txt"
    path.write_text("abc")
    status = path.stat()
    assert kept.load(str(path))[1] == b"abc"
    entry = kept.look(str(path))
    with open(path, "r+b") as file:
        file.write(b"xyz")
    entry._stamp = files._stamp(path.stat())
    assert status.st_size == path.stat().st_size
    assert kept.load(str(path))[1] == b"xyz"


def test_whoever_asks_while_another_looks_has_what_was_known(tmp_path, monkeypatch):
    kept = Files(fresh=0.01)
    path = write(tmp_path / "a.txt", "abc")
    first = kept.entry(path)
    first._checked = 0
    kept._claim(path)
    assert kept.peek(path) is first


def test_a_digest(tmp_path):
    kept = Files()
    for size in (0, 3, SMALL + 5):
        path = write(tmp_path / f"{size}", b"a" * size)
        assert kept.digest(path) == hashlib.sha256(b"a" * size).hexdigest()
        assert kept.digest(path) == kept.entry(path).digest


def test_the_memory_is_bounded(tmp_path):
    kept = Files(memory=250)
    paths = [write(tmp_path / str(number), b"x" * 100) for number in range(5)]
    for path in paths:
        assert kept.load(path)[1] == b"x" * 100
    held = [kept.entry(path) for path in paths if kept.entry(path).body is not None]
    assert len(held) == 2
    assert kept._used == sum(len(entry.body) for entry in held)


def test_what_is_asked_for_again_and_again_stays(tmp_path):
    kept = Files(memory=250)
    hot = write(tmp_path / "hot", b"h" * 100)
    kept.load(hot)
    for number in range(10):
        kept.load(write(tmp_path / str(number), b"x" * 100))
        assert kept.peek(hot).body is not None


def test_a_file_that_does_not_fit_is_given_and_not_kept(tmp_path):
    kept = Files(memory=0)
    entry, body = kept.load(write(tmp_path / "a.txt", "abc"))
    assert (body, entry.body, kept._used) == (b"abc", None, 0)


def test_the_number_of_entries_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_ENTRIES", 3)
    kept = Files()
    for number in range(10):
        kept.load(write(tmp_path / str(number), b"x"))
    assert len(kept._entries) == 3
    assert (len(kept._bodies), kept._used) == (3, 3)


def test_what_has_gone_is_forgotten(tmp_path):
    kept = Files(fresh=0)
    path = write(tmp_path / "a.txt", "abc")
    entry, _ = kept.load(path)
    os.unlink(path)
    with pytest.raises(FileNotFoundError):
        kept.load(path)
    assert (kept._entries, kept._bodies, kept._used) == ({}, {}, 0)
    assert entry.body is None


def test_a_file_that_becomes_shorter_while_it_is_read(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", "abcdef")

    def open_half(path):
        file, status = open_file(path)
        file.seek(3)
        return file, status

    monkeypatch.setattr(files, "open_file", open_half)
    with pytest.raises(OSError, match="being written"):
        Files().load(path)


@pytest.mark.parametrize("method", ["load", "digest"])
def test_a_file_that_is_written_while_it_is_read(
    tmp_path, monkeypatch, settled, method
):
    # Its bytes are the old ones, and its stamp may be the new one.
    size = files.SMALL + 3 if method == "digest" else 3
    path = write(tmp_path / "a.txt", "o" * size)
    kept = Files(fresh=0)

    class File:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def fileno(self):
            return self.file.fileno()

        def read(self, count):
            block = self.file.read(count)
            write(tmp_path / "a.txt", "n" * size)
            return block

    def open_and_write(path):
        file, status = open_file(path)
        return File(file), status

    monkeypatch.setattr(files, "open_file", open_and_write)
    first = getattr(kept, method)(path)
    monkeypatch.setattr(files, "open_file", open_file)
    entry = kept._entries[path]
    # As if the look had come between the two.
    entry._stamp = files._stamp(os.stat(path))
    assert getattr(kept, method)(path) != first
    if method == "load":
        assert kept.load(path)[1] == b"nnn"
    else:
        assert kept.digest(path) == hashlib.sha256(b"n" * size).hexdigest()


@pytest.mark.parametrize("kind", ["directory", "fifo", "missing", "nul", "long"])
def test_what_is_no_file(tmp_path, kind):
    path = str(tmp_path / "a")
    if kind == "directory":
        os.mkdir(path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "nul":
        path += "\0"
    elif kind == "long":
        path += "a" * 5000
    for ask in (Files().entry, Files().load, Files().digest, open_file):
        with pytest.raises((OSError, ValueError)):
            ask(path)


def test_it_is_read_by_many_threads_at_once(tmp_path):
    kept = Files(memory=1000, fresh=0)
    paths = [write(tmp_path / str(n), str(n) * 50) for n in range(10)]
    wrong = []

    def read():
        for _ in range(50):
            for number, path in enumerate(paths):
                entry, body = kept.load(path)
                if body != str(number).encode() * 50 or entry.path != path:
                    wrong.append(path)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []
    held = sum(len(e.body) for e in kept._entries.values() if e.body is not None)
    assert kept._used == held <= 1000


def test_a_child_process_does_not_wait_for_a_thread_that_it_does_not_have(script):
    told = script(
        """
        import os
        from aioext.assets.files import Files

        kept = Files()
        kept._lock.acquire()
        child = os.fork()
        if not child:
            kept.load(os.__file__)
            os._exit(0)
        print(os.waitpid(child, 0)[1])
        """
    )
    assert told == "0\n"


# Where a specification leads --------------------------------------------------


def test_locate(directory):
    registry = make(Response()).registry
    found = str(directory / "data" / "a.txt")
    assert locate(registry, "sample:data/a.txt") == found
    assert locate(registry, found) == found
    assert locate(registry, "sample:missing") == str(directory / "missing")


def test_overridden_assets_are_those_of_the_registry_that_is_given(directory):
    config = make(Response())
    config.override_asset("sample:data/a.txt", "sample:data/other.txt")
    config.commit()
    other = make(Response())
    other.commit()
    assert locate(config.registry, "sample:data/a.txt").endswith("other.txt")
    assert locate(other.registry, "sample:data/a.txt").endswith("a.txt")


@pytest.mark.parametrize("spec", ["data/a.txt", "", "sample:a\0b"])
def test_what_is_no_specification(spec):
    with pytest.raises(ValueError, match="package:path"):
        locate(make(Response()).registry, spec)


# request.asset ----------------------------------------------------------------


async def text(request):
    return Response(await request.asset(request.params["spec"]).text())


def text_in_a_thread(request):
    return Response(wait(request.asset(request.params["spec"]).text()))


@pytest.fixture(params=[text, text_in_a_thread])
def app(request, directory):
    return make(request.param).make_asgi_app()


def ask_for(spec):
    return Client(query_string=f"spec={spec}".encode())


def test_a_view_reads_a_file(app, run):
    client = run(ask_for("sample:data/a.txt").call(app))
    assert client.response[2].decode() == "Grüße\n"
    answer = TestApp(app.app).get("/", {"spec": "sample:data/a.txt"})
    assert answer.text == "Grüße\n"


def test_a_view_reads_a_file_that_is_overridden(directory, run):
    config = make(text)
    config.override_asset("sample:data/a.txt", "sample:data/other.txt")
    app = config.make_asgi_app()
    assert run(ask_for("sample:data/a.txt").call(app)).response[2] == b"other"


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("sample:missing", FileNotFoundError),
        ("sample:data", IsADirectoryError),
        ("no.such.package:a", ModuleNotFoundError),
        ("relative", ValueError),
    ],
)
def test_a_view_that_asks_for_what_is_not_there(app, run, spec, error):
    with pytest.raises(error):
        run(ask_for(spec).call(app))


def test_all_of_an_asset(directory, run):
    told = {}

    async def view(request):
        small = request.asset("sample:data/a.txt")
        large = request.asset("sample:data/large.bin")
        told.update(
            path=small.path,
            spec=small.spec,
            shown=repr(small),
            exists=await small.exists(),
            missing=await request.asset("sample:missing").exists(),
            folder=await request.asset("sample:data").exists(),
            nowhere=await request.asset("no.such.package:a").exists(),
            latin=await small.text("latin-1"),
            large=len(await large.read()),
            again=await small.read() is await small.read(),
        )
        return Response()

    run(Client().call(make(view).make_asgi_app()))
    assert told == {
        "path": str(directory / "data" / "a.txt"),
        "spec": "sample:data/a.txt",
        "shown": "<Asset sample:data/a.txt>",
        "exists": True,
        "missing": False,
        "folder": False,
        "nowhere": False,
        "latin": "GrÃ¼Ã\x9fe\n",
        "large": SMALL + 1,
        "again": True,
    }


def test_a_file_is_read_in_a_thread(directory, run, monkeypatch):
    threads = []

    def read(self):
        threads.append(threading.current_thread().name)
        return b""

    monkeypatch.setattr(Asset, "_read", read)
    run(ask_for("sample:data/a.txt").call(make(text).make_asgi_app()))
    assert len(threads) == 1
    assert threads[0].startswith(THREAD_NAME)


def test_a_file_that_is_known_takes_no_thread(directory, run, monkeypatch):
    jobs = []
    locate = asset_module.locate

    def noted(registry, spec):
        jobs.append(spec)
        return locate(registry, spec)

    monkeypatch.setattr(asset_module, "locate", noted)

    async def main(app, expected):
        for _ in range(3):
            client = await ask_for("sample:data/a.txt").call(app)
            assert client.body.decode() == "Grüße\n"
        assert len(jobs) == expected

    run(main(make(text).make_asgi_app(), 1))
    reloading = make(text, **{"pyramid.reload_assets": "true"})
    run(main(reloading.make_asgi_app(), 4))


def test_what_overrides_an_asset_may_come_later(directory, run, monkeypatch):
    # Also if what it overrides is asked for all the time by its own name.
    config = make(text)
    (directory / "theme").mkdir()
    config.override_asset("sample:data/", "sample:theme/")
    app = config.make_asgi_app()
    own = str(directory / "data" / "a.txt")

    async def ask(spec):
        return (await ask_for(spec).call(app)).body

    async def main():
        now = time.monotonic()
        assert await ask("sample:data/a.txt") == (await ask(own)) != b"theme"
        write(directory / "theme" / "a.txt", "theme")
        clock = SimpleNamespace(monotonic=lambda: now + 60, time_ns=time.time_ns)
        monkeypatch.setattr(files, "time", clock)
        assert await ask(own) != b"theme"
        assert await ask("sample:data/a.txt") == b"theme"

    run(main())


def test_the_number_of_specifications_is_bounded(monkeypatch):
    monkeypatch.setattr(files, "MAX_ENTRIES", 3)
    kept = Files()
    for number in range(10):
        kept.remember(f"sample:{number}", f"/{number}")
    assert len(kept._paths) <= 3


def test_the_loop_goes_on_while_a_file_is_read(directory, run, monkeypatch):
    reading, may_go_on = threading.Event(), threading.Event()

    def read(self):
        reading.set()
        assert may_go_on.wait(20)
        return b"slow"

    monkeypatch.setattr(Asset, "_read", read)

    async def main():
        app = make(text).make_asgi_app()
        client = ask_for("sample:data/a.txt")
        task = client.start(app)
        assert await asyncio.to_thread(reading.wait, 20)
        may_go_on.set()
        await task
        return client.response[2]

    assert run(main()) == b"slow"


def test_reload_assets_has_every_request_look(directory):
    config = make(text, **{"pyramid.reload_assets": "true"})
    config.commit()
    assert files.files_of(config.registry).fresh == 0


def test_the_setting_for_the_memory(directory):
    config = make(text, **{"aioext.assets.memory": "2KiB"})
    config.commit()
    kept = files.files_of(config.registry)
    assert (kept.memory, kept.fresh) == (2048, files.FRESH)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory", "much"),
        ("memory", "-1"),
        ("memory", "16 MiBs"),
        ("symlinks", "none"),
        ("symlinks", ""),
    ],
)
def test_settings_that_are_not_allowed(name, value):
    key = f"aioext.assets.{name}"
    with pytest.raises(ConfigurationError, match=key) as caught:
        make(text, **{key: value}).commit()
    allowed = {"memory": "0 for none", "symlinks": "one of inside, any"}
    assert allowed[name] in str(caught.value)


# Built files ------------------------------------------------------------------


def test_a_file_that_is_built(directory, tmp_path, run):
    built = []

    def upper(sources, target):
        built.append(target)
        target.write_text("".join(each.read_text() for each in sources).upper())

    async def view(request):
        asset = request.asset("sample:static/up.txt")
        if request.params.get("how") == "sent":
            return asset.response()
        return Response(await asset.text())

    (directory / "static").mkdir()
    cache = str(tmp_path / "cache")
    config = Configurator(settings={"aioext.assets.cache_dir": cache})
    config.include("aioext.assets")
    config.add_built_asset(
        "sample:static/up.txt", sources=["sample:data/other.txt"], build=upper
    )
    config.add_static_view("static", "sample:static")
    config.add_route("view", "/")
    config.add_view(view, route_name="view")
    app = config.make_asgi_app()

    async def main():
        for client in (
            Client("/static/up.txt"),
            Client("/static/up.txt"),
            Client("/"),
            Client("/", query_string=b"how=sent"),
        ):
            await client.call(app)
            assert client.response[::2] == (200, b"OTHER")
        client = Client("/static/none.txt")
        await client.call(app)
        assert client.status == 404

    run(main())
    assert len(built) == 1

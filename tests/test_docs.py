"""The documentation: it builds, and what it shows is run.

Python in ``docs/examples`` is imported and exercised here. Python that stands in a
page is executed, in the order of the page. What is neither has to be listed, with
a reason.
"""

import ast
import asyncio
import configparser
import contextlib
import csv
import doctest
import fnmatch
import importlib
import importlib.util
import logging
import os
import re
import subprocess
import sys
import textwrap
import threading
import tomllib
import urllib.request
from pathlib import Path

import pytest
from asgi import Client
from docs_examples import where_app
from gunicorn.config import KNOWN_SETTINGS
from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.testing import DummyRequest
from pyramid.threadlocal import get_current_request
from servers import free_port, run
from webtest import TestApp

import aioext
from aioext import spawn_greenlet, use_executor, wait
from aioext.gateway import Gateway
from aioext.interfaces import ILifespan
from aioext.scripts.pcreate import create
from aioext.settings import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
PAGES = sorted(DOCS.glob("*.rst"))
SOURCES = sorted((ROOT / "aioext").rglob("*.py"))

# Seconds that the build may take, on a machine with much to do.
BUILDING = 60

# Examples that are not imported by a test of their own, and why.
NOT_IMPORTED = {
    "hello.service": "for systemd, which is not here",
    "nginx.conf": "test_nginx",
    "alembic_env.py": "alembic runs it, in test_docs_sqlalchemy",
    "coveragerc.ini": "compared with the project's own settings",
    "pytest.ini": "read below",
    "server.ini": "its settings are looked up",
    "gunicorn_threads.py": "test_wsgi_processes",
    "production.ini": "its settings are looked up",
    "scaffolds.toml": "its entry point is looked up",
    "testing_conftest.py": "test_testing_plugin",
}


def example(name):
    """A new module of an example."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def load():
    """:func:`example`, with the modules forgotten after the test."""
    names = []

    def load(name):
        names.append(name)
        return example(name)

    yield load
    for name in names:
        sys.modules.pop(name, None)


def app_of(*includes, settings=None):
    """An application that includes aioext, and what is given."""
    with Configurator(settings=settings or {}) as config:
        config.include("aioext")
        for include in includes:
            config.include(include)
    return config.make_wsgi_app()


def resolve(name):
    """What a dotted name stands for: a module, or an attribute of something."""
    try:
        return importlib.import_module(name)
    except ImportError:
        parent, _, attribute = name.rpartition(".")
        return getattr(resolve(parent), attribute)


# The build --------------------------------------------------------------------


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The documentation, built as ``make docs`` does."""
    pytest.importorskip("sphinx")
    directory = tmp_path_factory.mktemp("html")
    command = [sys.executable, "-W", "ignore", "-m", "sphinx"]
    options = ["-W", "-n", "--keep-going", "-E", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, *options, "docs", directory],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILDING,
    )
    assert done.returncode == 0, done.stdout
    return directory


def test_the_docs_build_without_a_warning(html):
    assert {path.stem for path in PAGES} <= {path.stem for path in html.glob("*.html")}


def test_the_docs_need_no_network(html):
    pages = [path.read_text("utf-8") for path in html.glob("*.html")]
    for page in pages:
        assert not re.search(r"<(script|link|img)[^>]+(src|href)=\"(https?:)?//", page)


def anchors():
    """The anchors that error messages lead to, with where they stand."""
    found = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Name(id="explain") | ast.Attribute(attr="explain"),
                    args=[_, ast.Constant(value=str(anchor))],
                ):
                    found[anchor] = f"{path.name}:{node.lineno}"
                case ast.Assign(
                    targets=[ast.Name(id="anchor" | "ANCHOR")],
                    value=ast.Constant(value=str(anchor)),
                ):
                    found[anchor] = f"{path.name}:{node.lineno}"
    return found


def test_the_anchors_of_messages_are_found():
    found = {"scope-error", "view-mapper", "settings", "gateway-error", "event-stream"}
    assert found <= set(anchors())


@pytest.mark.parametrize("anchor", sorted(anchors()))
def test_every_error_message_leads_to_a_section(html, anchor):
    page = (html / "errors.html").read_text("utf-8")
    assert f'id="{anchor}"' in page, f"{anchors()[anchor]}: docs/errors.rst lacks it"


def test_every_setting_is_documented(html):
    page = (html / "settings.html").read_text("utf-8")
    for setting in SETTINGS:
        assert f'id="confval-aioext.{setting.name}"' in page


def test_every_public_name_is_documented(html):
    page = (html / "api.html").read_text("utf-8")
    errors = {"ConnectionClosed", "ScopeError"}
    for name in set(aioext.__all__) - {"__version__"} - errors:
        assert f'id="aioext.{name}"' in page
    for name in errors:
        assert f'id="aioext.exceptions.{name}"' in page


# What stands in the pages -----------------------------------------------------


BLOCK = re.compile(
    r"^(?P<indent> *)\.\. (?:code-block|code|sourcecode):: (?P<language>[\w+-]+)\n"
    r"(?P<body>(?:(?: *|(?P=indent) +\S.*)\n)+)",
    re.MULTILINE,
)
INCLUDED = re.compile(r"\.\. literalinclude:: (\S+)((?:\n +:.*)*)")


def blocks(language):
    """The code blocks of a language, by page: ``{page: [code]}``."""
    found = {}
    for path in PAGES:
        text = path.read_text("utf-8") + "\n"
        for block in BLOCK.finditer(text):
            if block["language"] == language:
                code = textwrap.dedent(block["body"]).strip("\n") + "\n"
                found.setdefault(path.stem, []).append(code)
    return found


def test_code_blocks_have_a_language_that_is_looked_at():
    languages = set()
    for path in PAGES:
        languages |= set(re.findall(r"\.\. code-block:: (.*)", path.read_text("utf-8")))
    assert languages <= {"python", "console", "sh", "text"}


def test_no_code_is_without_a_language():
    for path in PAGES:
        bare = re.findall(r"^(?! *\.\. ).*::$", path.read_text("utf-8"), re.MULTILINE)
        assert not bare, f"{path.name}: {bare}"


def names_in_pages():
    """The dotted names of aioext that the pages mention."""
    names = set()
    for path in PAGES:
        text = path.read_text("utf-8")
        names |= set(re.findall(r"(?<![\w./-])aioext(?:\.[A-Za-z_]\w*)+", text))
    return names - {f"aioext.{setting.name}" for setting in SETTINGS}


def test_names_in_pages_are_found():
    assert {"aioext.config.CoroutineMapper", "aioext.helpers"} <= names_in_pages()


@pytest.mark.parametrize("name", sorted(names_in_pages()))
def test_every_name_in_a_page_exists(name):
    resolve(name)


async def _load():
    return "loaded"


def prelude():
    """What the code in a page may use without defining it."""
    return {
        "asyncio": asyncio,
        "blocking": lambda: None,
        "config": Configurator(package=aioext, settings={}),
        "contextlib": contextlib,
        "function": lambda: wait(_load()),
        "load": _load,
        "Response": Response,
        "spawn_greenlet": spawn_greenlet,
        "synchronize": aioext.synchronize,
        "use_executor": use_executor,
        "wait": wait,
        "wsgi_application": lambda environ, start_response: [],
    }


def execute(page):
    """Execute the Python of a page; gives its names."""
    names = prelude()
    names["config"].include("aioext")
    for code in blocks("python")[page]:
        exec(compile(code, f"{page}.rst", "exec"), names)
    names["config"].commit()
    return names


@pytest.mark.parametrize("page", blocks("python"))
def test_python_in_a_page_is_executed(page):
    execute(page)


def test_what_the_errors_page_says_to_write_instead_works():
    names = execute("errors")
    asyncio.run(names["main"]())
    asyncio.run(names["in_a_view"](None))
    assert names["load_it"]() == "loaded"
    assert names["first"]([]) is None
    stream = asyncio.run(names["stream"](None))
    assert hasattr(stream.app_iter, "__aiter__")

    async def cancelled():
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        return await spawn_greenlet(names["outcome"], task)

    assert asyncio.run(cancelled()) is None


def test_a_page_that_does_not_run_would_be_noticed(monkeypatch):
    monkeypatch.setitem(globals(), "blocks", lambda _: {"page": ["unknown_name\n"]})
    with pytest.raises(NameError):
        execute("page")


@pytest.mark.parametrize(
    "page", [path for path in PAGES if ">>> " in path.read_text("utf-8")], ids=str
)
def test_sessions_in_a_page_are_as_shown(page):
    failed, tried = doctest.testfile(
        str(page),
        module_relative=False,
        optionflags=doctest.ELLIPSIS,
    )
    assert tried
    assert not failed


def test_every_included_part_exists_and_every_example_is_included():
    included = set()
    for path in PAGES:
        for name, options in INCLUDED.findall(path.read_text("utf-8")):
            included.add(DOCS / name)
            text = (DOCS / name).read_text("utf-8")
            for marker in re.findall(r":(?:start|end)-\w+: (.*)", options):
                assert marker in text, f"{path.name}: {name} has no {marker!r}"
    files = {
        path
        for path in EXAMPLES.rglob("[!.]*.*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert included == files


def test_every_example_is_tested():
    tests = Path(__file__).parent.glob("test_docs*.py")
    source = "".join(path.read_text("utf-8") for path in tests)
    for path in EXAMPLES.glob("*.*"):
        name = path.stem if path.suffix == ".py" else path.name
        assert path.name in NOT_IMPORTED or f'load("{name}")' in source, path.name


# The examples -----------------------------------------------------------------


def test_hello(load, monkeypatch):
    module = load("hello")
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    app = TestApp(module.main())
    assert app.get("/hello/you").json == {"hello": "you"}
    assert slept == [1]


def test_asgi_app(load):
    client = asyncio.run(Client("/").call(load("asgi_app").application))
    assert client.body == b"Hello"


class Database:
    async def fetch_owner(self, document):
        await asyncio.sleep(0)
        return f"owner of {document}"


def request_with(**registry):
    request = DummyRequest(matchdict={"id": "1"})
    request.registry = registry
    return request


@pytest.fixture
def bridge(load):
    return load("bridge")


def test_the_owner_is_found_from_coroutine_view_ordinary_view_and_script(bridge):
    async def coroutine_view(request):
        return Response(request.owner)

    def ordinary_view(request):
        return Response(request.owner)

    def views(config):
        config.registry["database"] = Database()
        for view in (coroutine_view, ordinary_view):
            config.add_route(view.__name__, f"/{view.__name__}/{{id}}")
            config.add_view(view, route_name=view.__name__)

    app = app_of(bridge, views)
    gateway = Gateway(app)

    async def answer(path):
        return await Client(path).call(gateway)

    for path in ("/coroutine_view/7", "/ordinary_view/7"):
        assert asyncio.run(answer(path)).body == b"owner of 7"
        assert TestApp(app).get(path).text == "owner of 7"
    assert bridge.owner(request_with(database=Database())) == "owner of 1"


def test_several_templates_are_rendered_at_once(bridge):
    async def render_all():
        both = asyncio.Barrier(2)

        def render(name, value, request):
            wait(both.wait())
            return name

        async with asyncio.timeout(10):
            return await bridge.render_all(None, ["one", "two"], render)

    assert asyncio.run(render_all()) == ["one", "two"]


def test_a_blocking_function_runs_in_a_thread(bridge, tmp_path):
    path = tmp_path / "file"
    path.write_text("text")

    def views(config):
        config.add_view(bridge.show, renderer="json")

    app = TestApp(app_of(views, settings={"path": str(path)}))
    assert app.get("/").json == {"text": "text"}


def test_a_timeout_reaches_the_coroutine_and_lets_it_clean_up(bridge, monkeypatch):
    events = []

    class Service:
        async def ask(self):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                events.append("cancelled")
                raise

        async def release(self):
            await asyncio.sleep(0)
            events.append("released")

    timeout = asyncio.timeout
    monkeypatch.setattr(bridge.asyncio, "timeout", lambda seconds: timeout(0))
    view = bridge.view(request_with(service=Service()))
    assert asyncio.run(view) == {"answer": None}
    assert events == ["cancelled", "released"]


def test_a_lock_excludes_while_a_request_waits(bridge):
    class Account:
        def __init__(self):
            self.lock = asyncio.Lock()
            self.amount = 100

        async def balance(self):
            await asyncio.sleep(0)
            return self.amount

        async def set_balance(self, amount):
            await asyncio.sleep(0)
            self.amount = amount

    async def withdraw():
        account = Account()
        withdrawals = [spawn_greenlet(bridge.withdraw, account, 10) for _ in range(5)]
        await asyncio.gather(*withdrawals)
        return account.amount

    assert asyncio.run(withdraw()) == 50


async def hold_while_waiting(lock, events):
    """Two requests that want a lock; the first waits while it holds it."""
    held, may_go = asyncio.Event(), asyncio.Event()

    def request(name):
        if not lock.acquire(blocking=False):
            events.append(f"{name} would block the loop")
            return
        events.append(f"{name} is inside")
        held.set()
        wait(may_go.wait())
        lock.release()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(spawn_greenlet(request, "one"))
        await held.wait()
        other = group.create_task(spawn_greenlet(request, "other"))
        group.create_task(_set_after_a_turn(may_go))
        await other


async def _set_after_a_turn(event):
    # Tasks run in the order in which they were made: the other one has begun.
    event.set()


@pytest.mark.parametrize(
    ("lock", "other"),
    [
        (threading.Lock(), "other would block the loop"),
        (threading.RLock(), "other is inside"),
    ],
    ids=["Lock", "RLock"],
)
def test_a_lock_for_threads_does_what_the_page_warns_of(lock, other):
    events = []
    asyncio.run(hold_while_waiting(lock, events))
    assert events == ["one is inside", other]


def test_views(load, tmp_path):
    module = load("views")
    path = tmp_path / "file.txt"
    path.write_text("content")
    gateway = Gateway(
        app_of(lambda config: config.scan(module), settings={"path": str(path)})
    )
    expected = {
        "/coroutine": b'{"view": "coroutine"}',
        "/ordinary": b'{"view": "ordinary"}',
        "/quick": b"no thread for so little",
        "/numbers": b"0\n1\n2\n",
        "/lines": b"0\n1\n2\n",
        "/file": b"content",
    }

    async def answer(path):
        return (await Client(path).call(gateway)).body

    for path, body in expected.items():
        assert asyncio.run(answer(path)) == body
        assert TestApp(gateway.app).get(path).body == body


def bodies(config):
    def chunks(request):
        yield b"current" if get_current_request() is request else b"none"

    async def asynchronous_chunks(request):
        yield b"current" if get_current_request() is request else b"none"

    def ordinary(request):
        return Response(app_iter=chunks(request))

    async def coroutine(request):
        return Response(app_iter=chunks(request))

    async def asynchronous(request):
        return Response(app_iter=asynchronous_chunks(request))

    for view in (ordinary, coroutine, asynchronous):
        config.add_view(view, name=view.__name__)


@pytest.mark.parametrize("mode", ["executor", "inline", "request"])
@pytest.mark.parametrize("view", ["ordinary", "coroutine", "asynchronous"])
def test_the_request_is_current_in_its_body_as_the_page_says(mode, view):
    app = app_of(bodies, settings={"aioext.sync_views": mode})
    client = Client(f"/{view}")
    assert asyncio.run(client.call(Gateway(app))).body == b"current"
    assert TestApp(app).get(f"/{view}").body == b"current"


def test_life_cycle(load, caplog):
    caplog.set_level(logging.INFO)
    module = load("lifecycle")
    refreshed = asyncio.Event()

    class Pool(module.Pool):
        async def refresh(self):
            await super().refresh()
            if self.refreshed == 2:
                refreshed.set()
                raise OSError("which the task is to survive")

    module.Pool = Pool

    def more(config):
        config.add_lifespan(module.refreshing)
        module.subscribe(config)

    app = app_of(module, more, settings={"pool.url": "here"})

    async def live():
        async with app.registry.getUtility(ILifespan).open():
            pool = app.registry["pool"]
            await refreshed.wait()
            assert not pool.closed
        return pool

    assert asyncio.run(live()).closed
    assert "was not refreshed" in caplog.text
    assert "is stopping" in caplog.text


def test_testing(load):
    module = load("testing")
    tests = [name for name in vars(module) if name.startswith("test_")]
    assert len(tests) == 9
    for name in tests:
        getattr(module, name)()


def test_a_scaffold(load):
    toml = tomllib.loads((EXAMPLES / "scaffolds.toml").read_text("utf-8"))
    ((name, target),) = toml["project"]["entry-points"]["pyramid.scaffold"].items()
    module = load("scaffolds")
    function = getattr(module, target.partition(":")[2])
    assert function.__name__ == name
    assert Path(function()) == EXAMPLES / "shop"


@pytest.mark.parametrize("name", ["server.ini", "production.ini"])
def test_settings_of_the_server_are_known_to_gunicorn(name):
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(EXAMPLES / name)
    known = {setting.name for setting in KNOWN_SETTINGS}
    own = {"use", "host", "port"}
    assert set(parser["server:main"]) - own <= known
    known = {f"aioext.{setting.name}" for setting in SETTINGS}
    assert set(parser["app:main"]) - {"use"} <= known


def test_settings_of_gunicorn_that_the_page_explains_exist():
    text = (DOCS / "server.rst").read_text("utf-8")
    section = text.partition("Settings of gunicorn that matter here")[2]
    section = section.partition(".. _reload:")[0]
    terms = re.findall(r"^``\w+``.*$", section, re.MULTILINE)
    names = set(re.findall(r"``(\w+)``", " ".join(terms)))
    assert len(names) > 10
    assert names <= {setting.name for setting in KNOWN_SETTINGS}


def test_the_settings_of_pytest_and_coverage_are_ours():
    parser = configparser.ConfigParser()
    parser.read([EXAMPLES / "pytest.ini", EXAMPLES / "coveragerc.ini"])
    assert "error::RuntimeWarning" in parser["pytest"]["filterwarnings"]
    own = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    concurrency = own["tool"]["coverage"]["run"]["concurrency"]
    assert parser["run"]["concurrency"].split(",") == concurrency


# What runs where --------------------------------------------------------------


def the_table():
    """The table: ``{column: {row: place}}``."""
    with (DOCS / "where.csv").open(newline="") as file:
        rows = [[cell.replace("``", "") for cell in row] for row in csv.reader(file)]
    header, *rows = rows
    return {
        column: {row[0]: row[number] for row in rows}
        for number, column in enumerate(header)
        if number
    }


@pytest.mark.parametrize("mode", ["executor", "inline", "request"])
def test_parts_run_where_the_table_says_under_a_server_with_a_loop(mode):
    assert where_app.measure(mode, "asgi") == the_table()[mode]


@pytest.mark.parametrize("mode", ["executor", "inline", "request"])
def test_parts_run_where_the_table_says_under_a_plain_server(mode):
    assert where_app.measure(mode, "wsgi") == the_table()["a plain WSGI server"]


# The tutorial -----------------------------------------------------------------


TUTORIAL = EXAMPLES / "tutorial"


def console(page):
    """The commands of a page, each with the output that is shown."""
    commands = []
    for block in blocks("console").get(page, ()):
        for line in block.splitlines():
            if line.startswith("$ "):
                commands.append([line[2:], ""])
            else:
                commands[-1][1] += f"{line}\n"
    return commands


# Commands of the tutorial that are run elsewhere, or only in part.
RUN_ELSEWHERE = {
    "python3 -m venv .venv": "test_packaging",
    ". .venv/bin/activate": "test_packaging",
    "pip install 'aioext[gunicorn,mako,scaffold]'": "test_packaging",
    "cd hello": "test_packaging",
    "pip install -e '.[testing]'": "test_packaging, without the extra",
    "pip install aiosqlite": "is installed with what the tests need",
    "pserve --reload development.ini": "below without --reload; test_worker with it",
}
RUN_HERE = {"pcreate -s aio_starter hello", "pytest", "pserve production.ini"}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project at the end of the tutorial, as good as installed."""
    directory = create("aio_starter", tmp_path_factory.mktemp("tutorial") / "hello")
    generated = (directory / "hello" / "__init__.py").read_text("utf-8").splitlines()
    for path in TUTORIAL.rglob("*.py"):
        target = directory / path.relative_to(TUTORIAL)
        target.write_text(path.read_text("utf-8"), "utf-8")
    edited = (directory / "hello" / "__init__.py").read_text("utf-8").splitlines()
    added = [line.strip() for line in edited if line not in generated]
    assert [line for line in edited if line in generated] == generated
    assert added == [f'config.include(".{n}")' for n in ("lookup", "visits", "digest")]
    metadata = directory / "hello-0.1.dev0.dist-info"
    metadata.mkdir()
    write = (metadata / "METADATA").write_text
    write("Metadata-Version: 2.1\nName: hello\nVersion: 0.1.dev0\n")
    write = (metadata / "entry_points.txt").write_text
    write("[paste.app_factory]\nmain = hello:main\n")
    return directory


def environ(project):
    return {
        "PYTHONPATH": os.pathsep.join(map(str, (project, ROOT))),
        "PYTHONWARNINGS": "ignore:pkg_resources is deprecated:UserWarning",
    }


def test_every_command_of_the_tutorial_is_run():
    commands = {command for command, _ in console("tutorial")}
    curl = {command for command in commands if command.startswith("curl ")}
    assert curl
    assert commands - curl == set(RUN_ELSEWHERE) | RUN_HERE


def lines_of(text, numbers):
    """The lines that ``:lines:`` of a literalinclude names."""
    lines = text.splitlines()
    picked = []
    for part in numbers.split(","):
        first, _, last = part.strip().partition("-")
        picked += lines[int(first) - 1 : int(last or first)]
    return picked


def test_the_tutorial_includes_a_module_once_it_is_there():
    text = (DOCS / "tutorial.rst").read_text("utf-8")
    order = []
    for name, options in INCLUDED.findall(text):
        path = DOCS / name
        if path.name != "__init__.py":
            order.append(path.stem)
            continue
        numbers = re.search(r":lines: (.*)", options)[1]
        added = re.findall(
            r'config\.include\("\.(\w+)"\)',
            "\n".join(lines_of(path.read_text("utf-8"), numbers)),
        )
        order.append([module for module in added if module != "routes"])
    assert order[:7] == [
        "lookup",
        "lookup",
        ["lookup"],
        "visits",
        ["visits"],
        "digest",
        ["digest"],
    ]


def test_the_tests_of_the_tutorial_pass(project):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project,
        env={**os.environ, **environ(project)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILDING,
    )
    assert done.returncode == 0, done.stdout
    written = (TUTORIAL / "tests" / "test_tutorial.py").read_text("utf-8")
    assert written.count("\ndef test_") == 5
    assert re.search(r"\b16 passed", done.stdout), done.stdout
    assert "Traceback" not in done.stdout


def ask(url, port):
    url = url.replace(":6543", f":{port}")
    with urllib.request.urlopen(url, timeout=30) as response:
        return response.read().decode()


def test_the_answers_of_the_tutorial_are_as_shown(project):
    port = free_port()
    command = ["pyramid.scripts.pserve", "development.ini", f"http_port={port}"]
    with run(command, project, environ(project)) as server:
        server.port = port
        server.wait_for("ASGI server listening")
        for command, shown in console("tutorial"):
            if not command.startswith("curl "):
                continue
            answer = ask(command.removeprefix("curl "), port).strip()
            pattern = shown.strip().replace("[", "[[]").replace("...", "*")
            assert fnmatch.fnmatchcase(answer, pattern), (command, answer)
        assert server.stop() == 0
        assert "Traceback" not in server.output


def test_the_workers_of_production_share_what_the_tutorial_says(project):
    ini = project / "production.ini"
    use = "use = egg:hello\n"
    line = (TUTORIAL / "production.ini").read_text("utf-8")
    text = ini.read_text("utf-8").replace(use, use + line)
    ini.write_text(text, "utf-8")
    port = free_port()
    command = ["pyramid.scripts.pserve", "production.ini", f"http_port={port}"]
    url = "http://127.0.0.1:6543/visits/home"
    with run(command, project, environ(project)) as server:
        server.port = port
        server.wait_for("(?s)(?:ASGI server listening.*){2}")
        counts = [ask(url, port) for _ in range(6)]
        assert counts == [f'{{"visits": {number}}}' for number in range(1, 7)]
        assert server.stop() == 0
        assert "Traceback" not in server.output
    assert (project / "hello.sqlite").exists()

"""A real application, ported by the steps of the page: then it does not block.

The application is the one of Pyramid's own tutorial on SQLAlchemy, which comes with
Pyramid's source distribution: made from its cookiecutter, then grown to a wiki with
users, permissions, forms, migrations, a script and tests. The page's patches are
applied to it, and nothing else.
"""

import re
import shutil
import subprocess
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import patches
import projects
import psycopg
import pyramid_suite
import pytest
from postgresql import postgresql  # noqa: F401 - a fixture

DOCS = Path(__file__).resolve().parent.parent / "docs"
PATCHES = DOCS / "examples" / "porting"
ORDER = ("settings", "models", "views", "alembic", "script", "tests")
# The size of the pool, as the page sets it, and SQLAlchemy's default for more.
POOL = 20 + 10
REQUESTS = 50
PATIENCE = 60


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The application as it was."""
    found = pyramid_suite.source_directory() / "docs/tutorials/wiki2/src/tests"
    return Path(shutil.copytree(found, tmp_path_factory.mktemp("ported") / "tutorial"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return projects.environment_with(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def python(original, environment, tmp_path_factory):
    """The interpreter of an environment in which the application is installed."""
    return projects.install(original, tmp_path_factory.mktemp("venv"), environment)


@pytest.fixture(scope="module")
def execute(python, original, environment):
    """Run a module of Python in the project's directory; gives what it wrote."""

    def execute(*arguments):
        done = subprocess.run(
            [python, *arguments],
            cwd=original,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return execute


PYTEST = ("-W", "ignore", "-m", "pytest", "-q", "-p", "no:cacheprovider")


@pytest.fixture(scope="module")
def before(execute):
    """What its own tests say before it is ported."""
    return execute(*PYTEST)


@pytest.fixture(scope="module")
def ported(original, before, postgresql):  # noqa: F811
    """The application, ported, with a database of this test's."""
    for name in ORDER:
        patches.apply((PATCHES / f"{name}.diff").read_text("utf-8"), original)
    settings = original / "development.ini"
    text = settings.read_text("utf-8")
    address = re.search(r"postgresql\+asyncpg://\S+", text)[0]
    text = text.replace(address, postgresql.url("asyncpg"))
    text = text.replace("bind = localhost:6543", "bind = 127.0.0.1:%(http_port)s")
    settings.write_text(text, "utf-8")
    return original


@pytest.fixture(scope="module")
def filled(ported, execute, python):
    """The same, with its tables and its first rows."""
    execute("-m", "alembic", "-c", "development.ini", "upgrade", "head")
    execute(python.parent / "initialize_tutorial_db", "development.ini")
    return ported


@pytest.fixture(scope="module")
def server(filled, python, environment):
    server = projects.Server(python, filled, "development.ini", environment)
    try:
        server.wait_until_listening()
        yield server
    finally:
        server.kill()


def passed(output):
    return int(re.search(r"(\d+) passed", output)[1])


def test_the_page_shows_the_patches_in_this_order():
    page = (DOCS / "porting_wsgi.rst").read_text("utf-8")
    assert re.findall(r"examples/porting/(\w+)\.diff", page) == list(ORDER)


def test_its_own_tests_pass_as_before(before, ported, execute):
    assert passed(execute(*PYTEST)) == passed(before) > 20


def test_migrations_and_the_script_fill_the_database(filled, postgresql):  # noqa: F811
    rows = postgresql.execute("SELECT name, role FROM users ORDER BY name")
    assert rows == [("basic", "basic"), ("editor", "editor")]
    assert postgresql.execute("SELECT name FROM pages") == [("FrontPage",)]


def test_a_page_is_served_with_what_the_toolbar_adds(server):
    kind, text = server.get("/FrontPage")
    assert kind == "text/html"
    assert "This is the front page" in text
    assert "pDebug" in text


def test_one_thread_serves_while_the_database_lets_all_wait(server, postgresql):  # noqa: F811
    with (
        ThreadPoolExecutor(REQUESTS) as clients,
        psycopg.connect(postgresql.url(driver="")) as locking,
    ):
        locking.execute("LOCK TABLE pages IN ACCESS EXCLUSIVE MODE")
        waiting = [clients.submit(server.get, "/FrontPage") for _ in range(REQUESTS)]
        wait_until(lambda: waiting_for_a_lock(postgresql) == POOL)
        # The others wait for a connection. Nobody waits for a thread.
        assert server.get("/static/theme.css")[0] == "text/css"
        assert not any(each.done() for each in waiting)
        locking.rollback()
        texts = [each.result(PATIENCE)[1] for each in waiting]
    assert all("This is the front page" in text for text in texts)


def waiting_for_a_lock(database):
    states = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    own = " AND datname = current_database()"
    return database.execute(states + own)[0][0]


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_user_logs_in_and_edits(server):
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    form = token_of(ask(opener, server, "/login?next=%2FFrontPage"))
    form += "&login=editor&password=editor&next=%2FFrontPage"
    assert "Logout" in ask(opener, server, "/login", form)
    form = token_of(ask(opener, server, "/FrontPage/edit_page"))
    ask(opener, server, "/FrontPage/edit_page", form + "&body=Written+anew")
    assert "Written anew" in server.get("/FrontPage")[1]


def ask(opener, server, path, form=None):
    data = None if form is None else form.encode()
    with opener.open(server.address + path, data, PATIENCE) as answer:
        return answer.read().decode()


def token_of(page):
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    return f"csrf_token={found[1]}"


def test_it_stops_when_it_is_told(server):
    assert server.stop() == 0
    assert "never awaited" not in "".join(server.output)
    assert "Traceback" not in "".join(server.output)

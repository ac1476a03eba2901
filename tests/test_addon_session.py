"""Sessions on the server: pyramid_beaker in files, pyramid_session_redis.

Redis is asked by its ordinary client, and by an asynchronous one that waits, as
the documentation shows it.
"""

import contextlib
import re
import shutil
import subprocess
import tempfile
import textwrap
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from addons import MANY, Ask, add_views, crowded, pause, served
from pyramid.exceptions import BadCSRFToken
from servers import DEADLINE, poll

# pyramid_session_redis 1.8 calls what redis 8 has deprecated.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Call to deprecated setex:DeprecationWarning"
)

PAGE = Path(__file__).parent.parent / "docs" / "addons.rst"

# By the name of a store: what is included, and its settings.
BEAKER = {
    "session.type": "file",
    "session.data_dir": "FILES/data",
    "session.lock_dir": "FILES/locks",
    "session.key": "session",
    "session.secret": "secret",
}
REDIS = {
    "redis.sessions.secret": "secret",
    # Each thread that asks at the same time needs one; there are 100 by default.
    "redis.sessions.redis_url": f"unix://FILES/redis.sock?max_connections={2 * MANY}",
}
WAITING = {
    "redis.sessions.secret": "secret",
    "redis.sessions.redis_client_callable": "test_addon_session.waiting_client",
    "redis.url": "unix://FILES/redis.sock",
}
STORES = {"beaker": BEAKER, "redis": REDIS, "waiting": WAITING}


def login(request):
    assert not request.session.get("name")
    request.session["name"] = request.matchdict["name"]
    request.session["visits"] = 0
    yield
    request.session.flash(f"Welcome {request.matchdict['name']}")
    return {"token": request.session.get_csrf_token()}


def visit(request):
    session = request.session
    before = session.get("name")
    yield
    session["visits"] = session.get("visits", 0) + 1
    yield
    assert session is request.session
    assert session.get("name") == before
    return {
        "name": before,
        "visits": session["visits"],
        "flash": session.pop_flash(),
        "token": session.get_csrf_token(),
    }


def post(request):
    """Is protected by the session's token."""
    yield
    return {"name": request.session["name"]}


def logout(request):
    request.session.invalidate()
    yield
    return {"name": request.session.get("name")}


def refused(error, request):
    pause(request)
    request.response.status = 400
    return {"refused": request.session["name"]}


def add_all_views(config):
    for view in (login, visit, logout):
        add_views(config, f"/{view.__name__}/{{name}}", view, renderer="json")
    add_views(config, "/post/{name}", post, renderer="json", require_csrf=True)
    config.add_exception_view(refused, context=BadCSRFToken, renderer="json")


def configure_beaker(config):
    config.include("pyramid_beaker")
    add_all_views(config)


def configure_redis(config):
    config.include("pyramid_session_redis")
    add_all_views(config)


def recipe():
    """The names of the documentation's example."""
    blocks = re.findall(
        r"(?m)^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", PAGE.read_text("utf-8")
    )
    (code,) = [textwrap.dedent(block) for block in blocks if "WaitingRedis" in block]
    names = {}
    exec(code, names)
    return names


def waiting_client(request, **options):
    return request.registry["redis"]


def configure_waiting(config):
    config.add_lifespan(recipe()["redis_client"])
    configure_redis(config)


@contextlib.contextmanager
def redis_server(directory):
    """A server on a socket in a directory."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (apt-get install redis-server)")
    path = Path(directory, "redis.sock")
    process = subprocess.Popen(
        [
            program,
            "--port",
            "0",
            "--unixsocket",
            path,
            "--save",
            "",
            "--dir",
            directory,
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        poll(path.exists, lambda: "redis-server did not start")
        yield
    finally:
        process.terminate()
        process.wait(DEADLINE)


CONFIGURE = {
    "beaker": configure_beaker,
    "redis": configure_redis,
    "waiting": configure_waiting,
}


@pytest.fixture(
    scope="module",
    params=[
        "beaker process",
        "beaker worker",
        "redis process",
        "redis worker",
        "waiting process",
        "waiting worker",
    ],
)
def site(request):
    store, place = request.param.split()
    with tempfile.TemporaryDirectory() as directory:
        settings = {
            name: value.replace("FILES", directory)
            for name, value in STORES[store].items()
        }
        with contextlib.ExitStack() as stack:
            if store != "beaker":
                stack.enter_context(redis_server(directory))
            yield stack.enter_context(served(place, CONFIGURE[store], settings))


class Visitors:
    """So many clients, each with its cookies."""

    def __init__(self, site, crowd):
        self.site, self.crowd = site, crowd
        self.cookies = [{} for _ in crowd]

    def go(self, page):
        """All of them go to a page at once; gives the answers."""
        return self._sent([self._ask(page, *each) for each in self.crowd])

    def post(self, tokens):
        """All of them post, each with a token."""
        return self._sent(
            [
                self._ask("post", *each, "POST", {"X-CSRF-Token": token}, b"")
                for each, token in zip(self.crowd, tokens, strict=True)
            ]
        )

    def _ask(self, page, number, kind, method="GET", headers=None, body=None):
        cookies = self.cookies[number].items()
        headers = dict(headers or {})
        if cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies)
        return Ask(f"/{kind}/{page}/{number}", method, headers, body)

    def _sent(self, asks):
        answers = self.site.overlap(asks, self.crowd.order)
        for cookies, answer in zip(self.cookies, answers, strict=True):
            for field in answer.headers.get_all("Set-Cookie", ()):
                for name, morsel in SimpleCookie(field).items():
                    cookies[name] = morsel.value
        return answers


@crowded
def test_everybody_has_a_session(site, crowd):
    visitors = Visitors(site, crowd)
    tokens = [answer.json()["token"] for answer in visitors.go("login")]
    assert len(set(tokens)) == crowd.count
    assert len({cookies["session"] for cookies in visitors.cookies}) == crowd.count
    for visits in (1, 2):
        for number, answer in enumerate(visitors.go("visit")):
            assert answer.json() == {
                "name": str(number),
                "visits": visits,
                "flash": [f"Welcome {number}"] if visits == 1 else [],
                "token": tokens[number],
            }
    # Every second one posts with the token of its neighbour.
    used = [token if n % 2 else tokens[n - 1] for n, token in enumerate(tokens)]
    for number, answer in enumerate(visitors.post(used)):
        outcome = "name" if number % 2 else "refused"
        assert answer.json() == {outcome: str(number)}
    for answer in visitors.go("logout"):
        assert answer.json() == {"name": None}
    for answer in visitors.go("visit"):
        assert (answer.json()["name"], answer.json()["visits"]) == (None, 1)

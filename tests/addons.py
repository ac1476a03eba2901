"""Add-ons under load: one application, in process and on the worker.

An add-on's test configures an application once, in a function of its module,
and serves it in both places::

    def page(request):
        request.session["name"] = request.matchdict["name"]
        yield  # here every other request is served
        return {"name": request.session["name"]}

    def configure(config):
        config.include("pyramid_some_addon")
        add_views(config, "/page/{name}", page, renderer="json")

    site = site_of(configure)

    @crowded
    def test_everybody_has_a_session(site, crowd):
        answers = site.overlap(crowd.paths("/page/{}"), crowd.order)
        for number, answer in enumerate(answers):
            assert answer.json() == {"name": str(number)}

A view is written once, as a generator that says where others may run, and is
served in each of :data:`KINDS`: as a coroutine, as a function on the loop, and
as a function in a thread of the executor. At each ``yield`` a request of
:meth:`Site.overlap` waits until all of them have arrived there, so that they
overlap for certain; they go on in the order of their numbers, or in
the reverse order. Code that is no such view (a tween, a template) has
:func:`meet` and :func:`pause` for the same purpose.

The worker imports the test's module, and runs its ``configure`` there: what the
test and the application are to share goes through requests and answers.
"""

import asyncio
import http.client
import io
import itertools
import json
import tempfile
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import pytest
import servers
from asgi import Client
from babel.messages import Catalog, mofile
from inprocess import EXECUTOR, LOOP, where
from life import ENVIRON, assert_clean
from pyramid.config import Configurator
from pyramid.path import DottedNameResolver

from aioext import wait
from aioext.config import CoroutineMapper, ExecutorMapper, InlineMapper
from aioext.gateway import Gateway
from aioext.testing.life import Life

# How a view is written and where it runs.
KINDS = {
    "coroutine": (CoroutineMapper, LOOP),
    "inline": (InlineMapper, LOOP),
    "executor": (ExecutorMapper, EXECUTOR),
}
FORWARDS = "forwards"
BACKWARDS = "backwards"
FEW, MANY = 20, 200
PLACES = ("process", "worker")


@dataclass(frozen=True)
class Crowd:
    """So many requests that overlap, and that end in ``order``.

    Attributes:
        kinds: of the views that they ask for, in turn.
    """

    kinds: tuple[str, ...]
    count: int
    order: str

    def __iter__(self):
        """Number and kind of each."""
        for number in range(self.count):
            yield number, self.kinds[number % len(self.kinds)]

    def __str__(self):
        kind = "mixed" if len(self.kinds) > 1 else self.kinds[0]
        return f"{self.count}-{kind}-{self.order}"

    def paths(self, pattern):
        """A path for each, of a pattern as ``/page/{}``."""
        return [f"/{kind}{pattern.format(number)}" for number, kind in self]


# Few of each kind, and many of all kinds; both orders occur. Where requests are told
# apart by a stack, it shows when the first that begins is the first that ends.
CROWDS = [
    Crowd(("coroutine",), FEW, BACKWARDS),
    Crowd(("inline",), FEW, FORWARDS),
    Crowd(("executor",), FEW, BACKWARDS),
    Crowd(tuple(KINDS), MANY, FORWARDS),
]
crowded = pytest.mark.parametrize("crowd", CROWDS, ids=str)
# For what an add-on does beside its main work.
crowded_by_few = pytest.mark.parametrize("crowd", CROWDS[:-1], ids=str)
in_every_kind = pytest.mark.parametrize("kind", KINDS)

# A request in the executor keeps its thread while it waits for the others.
SETTINGS = {"aioext.executor_workers": MANY}

OVERLAP = "X-Overlap"


# In the application


def add_views(config, pattern, view, renderer=None, factory=None, **options):
    """Serve a generator view in every kind, each at ``/{kind}{pattern}``.

    Its routes are named ``{kind}{pattern}``; ``options`` are those of ``add_view``,
    and ``factory`` is the route's.
    """
    for kind in KINDS:
        name = kind + pattern
        config.add_route(name, f"/{name}", factory=factory)
        made = as_kind(kind, view)
        config.add_view(made, route_name=name, renderer=renderer, **options)


def as_kind(kind, view):
    """A view of one kind, with its mapper, made of ``view(request)``.

    The generator yields where the others may run, and returns what a view does.
    """
    mapper, place = KINDS[kind]

    async def coroutine(request):
        assert where() == place
        with closing(view(request)) as steps:
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    return end.value
                await meet(request)

    def function(request):
        assert where() == place
        with closing(view(request)) as steps:
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    return end.value
                pause(request)

    made = coroutine if kind == "coroutine" else function
    made.__view_mapper__ = mapper
    made.__name__ = made.__qualname__ = f"{kind}_{view.__name__}"
    return made


# Requests of one overlap that have arrived, by number.
_arrived = {}


async def meet(request):
    """Wait until every request of the same overlap has come here.

    They have to meet equally often. A request of no overlap only lets others run.
    """
    if OVERLAP not in request.headers:
        await asyncio.sleep(0)
        return
    overlap = request.headers[OVERLAP]
    group, number, count, order = overlap.split("/")
    here = _arrived.setdefault(group, {})
    assert int(number) not in here, f"{overlap}: it was here already"
    loop = asyncio.get_running_loop()
    here[int(number)] = released = loop.create_future()
    if len(here) == int(count):
        del _arrived[group]
        # Not at once: the last one that comes is not to be the first that goes.
        loop.call_soon(_release, here, order)
    try:
        async with asyncio.timeout(servers.DEADLINE):
            await released
    except TimeoutError:
        missing = sorted(set(range(int(count))) - {*here})
        raise AssertionError(f"{overlap}: did not come: {missing}") from None


def _release(here, order):
    for number in sorted(here, reverse=order == BACKWARDS):
        here[number].set_result(None)


def pause(request):
    """:func:`meet`, for synchronous code; gives nothing to see in a template."""
    wait(meet(request))
    return ""


def application(name, settings, is_last=False):
    """The application that ``name``, a ``module:function``, configures.

    It includes aioext before that, or after it.
    """
    config = Configurator(settings={**SETTINGS, **settings})
    steps = [
        lambda config: config.include("aioext"),
        DottedNameResolver().resolve(name),
    ]
    for step in reversed(steps) if is_last else steps:
        step(config)
    return config.make_wsgi_app()


def catalog(locale, domain, messages):
    """A compiled catalog, as a file of :func:`served`.

    Args:
        messages: translations by what is translated; pairs for plurals.
    """
    translations = Catalog(locale, domain)
    for message, translation in messages.items():
        translations.add(message, translation)
    compiled = io.BytesIO()
    mofile.write_mo(compiled, translations)
    return {f"locale/{locale}/LC_MESSAGES/{domain}.mo": compiled.getvalue()}


# In the test


@dataclass(frozen=True)
class Ask:
    """What a client asks for; a string alone is a path."""

    path: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True)
class Answer:
    """What it got; ``headers`` may be asked for by name, in any case."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self):
        return self.body.decode()

    def json(self):
        return json.loads(self.body)


class Site:
    """An application that is served; closed by whoever made it."""

    _groups = itertools.count()

    def __init__(self):
        self._runner = asyncio.Runner()

    def ask(self, path, **others):
        """The :class:`Answer` to one request: an :class:`Ask`, or what makes one."""
        ask = path if isinstance(path, Ask) else Ask(path, **others)
        return self._run([ask])[0]

    def overlap(self, asks, order):
        """The answers to requests that overlap, in the order of ``asks``.

        The views go on from each meeting, and end, in ``order``.
        """
        group = f"{next(self._groups)}"
        asks = [each if isinstance(each, Ask) else Ask(each) for each in asks]
        return self._run(
            [
                Ask(
                    each.path,
                    each.method,
                    {**each.headers, OVERLAP: f"{group}/{number}/{len(asks)}/{order}"},
                    each.body,
                )
                for number, each in enumerate(asks)
            ]
        )

    def _run(self, asks):
        return self._runner.run(self._gather(asks))

    async def _gather(self, asks):
        async with asyncio.timeout(2 * servers.DEADLINE):
            return await asyncio.gather(*map(self._serve, asks))


class InProcess(Site):
    """Served through a Gateway, on the loop of the test.

    An exception that the application raises is the test's.
    """

    def __init__(self, app):
        super().__init__()
        self.app = Gateway(app)
        self._life = Life(app)
        self._runner.run(self._life.open())

    async def _serve(self, ask):
        path, _, query = ask.path.partition("?")
        headers = {"Host": "localhost", **_with_length(ask)}
        client = Client(
            unquote(path),
            None if ask.body is None else [ask.body],
            raw_path=path.encode(),
            query_string=query.encode(),
            method=ask.method,
            headers=[
                (name.lower().encode(), value.encode("latin-1"))
                for name, value in headers.items()
            ],
        )
        await client.call(self.app)
        status, fields, body = client.response
        lines = b"".join(b"%s: %s\r\n" % each for each in fields)
        message = http.client.parse_headers(io.BytesIO(lines + b"\r\n"))
        return Answer(status, message, body)

    def close(self):
        self._runner.run(self._life.close())
        self._runner.close()


class OnWorker(Site):
    """Served by the gunicorn worker, in a process of its own.

    Args:
        server: a :class:`servers.Server`.
    """

    def __init__(self, server):
        super().__init__()
        self.server = server

    async def _serve(self, ask):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        headers = {"Host": "localhost", "Connection": "close", **_with_length(ask)}
        head = [f"{ask.method} {ask.path} HTTP/1.1"]
        head += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*head, "", ""]).encode("latin-1") + (ask.body or b""))
        received = await reader.read()
        writer.close()
        await writer.wait_closed()
        response = http.client.HTTPResponse(_Received(received), method=ask.method)
        response.begin()
        return Answer(response.status, response.headers, response.read())

    def close(self):
        self._runner.close()


class _Received:
    """The socket of an ``HTTPResponse`` that has come already."""

    def __init__(self, data):
        self._data = data

    def makefile(self, mode):
        return io.BytesIO(self._data)


def _with_length(ask):
    if ask.body is None:
        return ask.headers
    return {"Content-Length": str(len(ask.body)), **ask.headers}


@contextmanager
def served(
    place, configure, settings=None, *, files=None, is_clean=True, is_last=False
):
    """A :class:`Site`, in one of :data:`PLACES`.

    Args:
        configure: takes a configurator; a function of a module, for the worker
            finds it by its name.
        settings: the application's; literals, for the worker is told them.
        files: strings or bytes by path, for a directory whose name replaces
            ``FILES`` in settings, and is the setting ``files``.
        is_clean: False: the application may log errors and warnings.
        is_last: include aioext after what ``configure`` includes.
    """
    name = f"{configure.__module__}:{configure.__qualname__}"
    with tempfile.TemporaryDirectory() as directory:
        write(directory, files or {})
        settings = {"files": "FILES", **(settings or {})}
        for key, value in settings.items():
            if isinstance(value, str):
                settings[key] = value.replace("FILES", directory)
        serving = _in_process if place == "process" else _on_worker
        with serving(is_clean, name, settings, is_last) as site:
            yield site


def write(directory, files):
    """Write ``files``, strings or bytes by path, into a directory."""
    for name, content in files.items():
        path = Path(directory, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def _in_process(is_clean, *options):
    with closing(InProcess(application(*options))) as site:
        yield site


@contextmanager
def _on_worker(is_clean, *options):
    call = f"addons:application{options!r}"
    with servers.serve("gunicorn", call, environ=ENVIRON) as server:
        with closing(OnWorker(server)) as site:
            yield site
        assert server.stop() == 0
        if is_clean:
            assert_clean(server)


def site_of(configure, settings=None, *, places=PLACES, **options):
    """A fixture that serves an application for a whole module, in each place.

    Args:
        options: see :func:`served`.
    """

    @pytest.fixture(scope="module", params=places)
    def site(request):
        with served(request.param, configure, settings, **options) as site:
            yield site

    return site

"""One view, several formats: what is sent, and what is not."""

import asyncio
import collections
import functools
import json
import operator
from dataclasses import dataclass
from decimal import Decimal

import pytest
from asgi import Client
from inprocess import EXECUTOR, LOOP, answer, answers, make_app, where
from pyramid.events import BeforeRender, NewRequest
from pyramid.exceptions import ConfigurationError
from pyramid.httpexceptions import HTTPConflict, HTTPException, HTTPFound
from pyramid.renderers import JSON, JSONP, null_renderer
from pyramid.response import Response
from pyramid.view import view_config, view_defaults
from webob import Response as WebObResponse

from aioext.eventsource import EventSourceMapper

RENDERERS = "aioext.renderers"
PAGE = "page.text"
JSON_KEYS = ("title", "items")
FORMATS = {"html": PAGE, "json": JSON_KEYS}
VALUE = {"title": "T", "items": [1], "secret": "S"}

JSON_TYPE = "application/json"


class Text:
    """A renderer factory: what is in the value, and what it is told besides."""

    def __init__(self, info):
        self.name = info.name
        self.package = info.package.__name__

    def __call__(self, value, system):
        what = value if isinstance(value, str) else ",".join(map(str, value.values()))
        context = system["context"]
        seen = system["view"], context, system["renderer_name"], system.get("added")
        system["request"].seen = seen
        return f"{self.name}: {what}"


def prepare(config):
    config.add_renderer(".text", Text)
    config.add_renderer("csv", Text)
    config.add_format_route("page", "/page", (None, "html", "json", "csv"))


def page_app(
    view=lambda request: VALUE, *steps, formats=FORMATS, settings=None, **options
):
    """An application with one view, at ``/page`` and at ``/``."""

    def configure(config):
        for step in steps:
            config.include(step)
        config.add_view(view, formats=formats, **options)
        config.add_view(view, formats=formats, route_name="page", **options)

    return make_app(RENDERERS, prepare, configure, settings=settings)


def get(app, path="/", accept=None, **scope):
    headers = [(b"host", b"localhost")]
    if accept is not None:
        headers.append((b"accept", accept.encode("latin-1")))
    client = answer(app, path, headers=headers, **scope)
    client.told = dict(client.headers)
    return client


def type_of(client):
    return client.told[b"content-type"].decode().partition(";")[0]


def vary_of(client):
    return client.told.get(b"vary", b"").decode()


# Which one


@pytest.mark.parametrize(
    ("path", "accept", "expected", "vary"),
    [
        ("/", None, "html", "Accept"),
        ("/", "*/*", "html", "Accept"),
        ("/", "nonsense", "html", "Accept"),
        ("/", JSON_TYPE, "json", "Accept"),
        ("/", "application/json;charset=UTF-8", "json", "Accept"),
        ("/", "text/html;q=0.1, application/json;q=0.2", "json", "Accept"),
        # The same where the path has no extension.
        ("/page", None, "html", "Accept"),
        ("/page", JSON_TYPE, "json", "Accept"),
        # The extension decides alone.
        ("/page.json", None, "json", ""),
        ("/page.json", "text/html", "json", ""),
        ("/page.json", "image/png", "json", ""),
        ("/page.html", JSON_TYPE, "html", ""),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_the_extension_decides_or_the_accept_header(
    path, accept, expected, vary, method
):
    client = get(page_app(), path, accept, method=method)
    assert client.status == 200
    assert vary_of(client) == vary
    if expected == "json":
        assert type_of(client) == JSON_TYPE
        expected = {"title": "T", "items": [1]}
        assert method == "HEAD" or json.loads(client.body) == expected
    else:
        assert type_of(client) == "text/html"
        assert method == "HEAD" or client.body == b"page.text: T,[1],S"


@pytest.mark.parametrize("accept", ["image/png", "*/*;q=0", "application/json;q=0"])
def test_what_is_not_acceptable_is_406_before_the_view_is_called(accept):
    called = []
    formats = {"json": JSON_KEYS, "xml": PAGE}
    if accept.startswith(JSON_TYPE):
        formats = {"json": JSON_KEYS}
    app = page_app(lambda request: called.append(1), formats=formats)
    client = get(app, "/", accept, method="POST")
    assert client.status == 406
    assert JSON_TYPE in client.body.decode()
    assert ("application/xml" in client.body.decode()) is ("xml" in formats)
    assert vary_of(client) == "Accept"
    assert not called


def test_an_extension_that_the_view_has_no_format_for_is_not_found():
    called = []
    client = get(page_app(lambda request: called.append(1)), "/page.csv", "text/html")
    assert client.status == 404
    assert "csv" in client.body.decode()
    assert vary_of(client) == ""
    assert not called


def test_a_view_without_formats_is_left_alone():
    def configure(config):
        config.add_view(lambda request: VALUE, renderer="json")
        config.add_view(lambda request: VALUE, name="none", formats=None, renderer=PAGE)
        config.add_view(
            lambda request: request.matchdict, route_name="page", renderer="json"
        )

    app = make_app(RENDERERS, prepare, configure)
    assert json.loads(get(app, "/", "text/html").body) == VALUE
    assert vary_of(get(app)) == ""
    assert get(app, "/none", JSON_TYPE).body == b"page.text: T,[1],S"
    assert json.loads(get(app, "/page.csv").body) == {"extension": "csv"}


def test_requests_that_overlap_get_each_its_own():
    barriers = []

    async def view(request):
        async with asyncio.timeout(10):
            await barriers[-1].wait()
        return {"title": request.path, "items": [], "secret": "S"}

    app = page_app(view)
    for paths in ["/page.json", "/page.html"], ["/page.html", "/page.json"]:
        barriers.append(asyncio.Barrier(2))
        for path, client in zip(paths, answers(app, paths), strict=True):
            if path.endswith("json"):
                assert json.loads(client.body) == {"title": path, "items": []}
            else:
                assert client.body == b"page.text: /page.html,[],S"


# What JSON sends


def json_of(app):
    client = get(app, "/page.json")
    assert (client.status, type_of(client)) == (200, JSON_TYPE), client.body
    return json.loads(client.body)


@pytest.mark.parametrize(
    "keys", [("title",), ["title"], {"title"}, frozenset(["title"])]
)
def test_keys_that_are_not_named_never_leave(keys):
    app = page_app(formats={"html": PAGE, "json": keys})
    assert json_of(app) == {"title": "T"}
    assert b"S" in get(app, "/page.html").body


def test_a_key_that_is_not_there_is_left_out():
    app = page_app(formats={"json": ("title", "other")})
    assert json_of(app) == {"title": "T"}


def test_the_order_is_that_of_the_value():
    app = page_app(
        lambda request: {"b": 1, "a": 2, "c": 3}, formats={"json": ("a", "b", "c")}
    )
    assert get(app, "/page.json").body == b'{"b": 1, "a": 2, "c": 3}'


class Page(collections.UserDict):
    def __getitem__(self, key):
        assert key != "secret"
        return super().__getitem__(key)


def test_of_a_mapping_only_what_is_named_is_looked_at():
    app = page_app(lambda request: Page(VALUE), formats={"json": JSON_KEYS})
    assert json_of(app) == {"title": "T", "items": [1]}


def test_coroutines_that_are_not_sent_are_closed():
    async def slow():
        raise AssertionError

    async def title():
        await asyncio.sleep(0)
        return "T"

    def view(request):
        return {"title": title(), "slow": slow()}

    # A coroutine that nobody awaits would be a warning, which is an error.
    assert json_of(page_app(view, formats={"json": ("title",)})) == {"title": "T"}


class Model:
    secret = "S"

    def __init__(self, title):
        self.title = title

    def __json__(self, request):
        return {"title": self.title, "path": request.path}


class Chosen:
    """What a class in the place of a callable makes of the value."""

    def __init__(self, value):
        self.title = value["title"]

    def __json__(self, request):
        return {"title": self.title}

    def method(self, value):
        return {"title": value["title"]}

    def __call__(self, value, request):
        return {"title": value["title"], "path": request.path}


async def coroutine(value, request):
    await asyncio.sleep(0)
    return {"title": value["title"], "path": request.path}


TITLE = {"title": "T"}
TITLE_AND_PATH = {"title": "T", "path": "/page.json"}


@pytest.mark.parametrize(
    ("exposed", "expected"),
    [
        (lambda value: {"title": value["title"]}, TITLE),
        (lambda value, indent=2: {"title": value["title"]}, TITLE),
        (lambda *values: {"title": values[0]["title"]}, TITLE),
        (lambda value, **others: {"title": value["title"]}, TITLE),
        (lambda v, r: {"title": v["title"], "path": r.path}, TITLE_AND_PATH),
        (coroutine, TITLE_AND_PATH),
        (Chosen, TITLE),
        (Chosen({"title": ""}).method, TITLE),
        (Chosen({"title": ""}), TITLE_AND_PATH),
        (functools.partial(coroutine, request=None), AttributeError),
        (functools.partial(lambda a, v: {"title": v["title"]}, 1), TITLE),
        (operator.itemgetter("title"), "T"),
        (len, 3),
        (lambda value: [value["title"]] * 2, ["T", "T"]),
        (lambda value: None, None),
        (lambda value: Model(value["title"]), TITLE_AND_PATH),
    ],
)
@pytest.mark.parametrize("mode", ["executor", "inline", "request"])
def test_a_callable_chooses(exposed, expected, mode):
    def configure(config):
        config.add_view(
            lambda request: VALUE, formats={"json": exposed}, route_name="page"
        )

    settings = {"aioext.sync_views": mode}
    app = make_app(RENDERERS, prepare, configure, settings=settings)
    if isinstance(expected, type):
        with pytest.raises(expected):
            answer(app, "/page.json")
    else:
        assert json_of(app) == expected


@pytest.mark.parametrize(("render", "place"), [(None, LOOP), ("executor", EXECUTOR)])
def test_a_callable_runs_where_the_view_is_rendered(render, place):
    places = []

    def expose(value):
        places.append(where())
        return value["title"]

    def view(request):
        places.append(where())
        return VALUE

    json_of(page_app(view, formats={"json": expose}, render=render))
    assert places == [EXECUTOR, place]


def test_a_coroutine_may_choose_in_a_thread():
    app = page_app(formats={"json": title_of}, render="executor")
    assert json_of(app) == "T"


async def title_of(value):
    await asyncio.sleep(0)
    return value["title"]


@pytest.mark.parametrize(
    ("exposed", "expected"), [(coroutine, TITLE_AND_PATH), (title_of, "T")]
)
def test_what_a_coroutine_chooses_is_there_for_any_renderer(exposed, expected):
    def own(config):
        config.add_renderer("json", lambda info: lambda value, system: repr(value))

    app = page_app(lambda request: VALUE, own, formats={"json": exposed})
    assert get(app, "/page.json").body.decode() == repr(expected)


def items(value):
    yield from value["items"]


async def async_items(value):
    for each in value["items"]:
        await asyncio.sleep(0)
        yield {"item": each}


def test_a_callable_may_give_a_stream():
    formats = {"html": PAGE, "json": items, "jsonl": async_items}
    app = page_app(lambda request: {**VALUE, "items": [1, 2]}, formats=formats)
    assert json_of(app) == [1, 2]
    client = get(app, "/", "application/x-ndjson")
    assert type_of(client) == "application/x-ndjson"
    assert [json.loads(line) for line in client.body.splitlines()] == [
        {"item": 1},
        {"item": 2},
    ]
    assert vary_of(client) == "Accept"
    assert b"content-length" not in client.told


def test_a_model_says_what_it_is():
    app = page_app(lambda request: Model("T"), formats={"json": True})
    assert json_of(app) == TITLE_AND_PATH


class ModelDict(dict):
    def __json__(self, request):
        return {"title": self["title"]}


class ModelList(list):
    async def __json__(self, request):
        await asyncio.sleep(0)
        return {"title": self[0]}


@pytest.mark.parametrize("library", ["stdlib", "orjson"])
@pytest.mark.parametrize("value", [ModelDict(VALUE), ModelList(["T", "secret"])])
def test_a_model_that_an_encoder_knows_says_what_it_is_as_well(value, library):
    app = page_app(
        lambda request: value,
        formats={"json": True, "jsonl": True},
        settings={"aioext.json": library},
    )
    assert json_of(app) == {"title": "T"}
    lines = get(app, "/", "application/x-ndjson").body
    assert [json.loads(line) for line in lines.splitlines()] == [{"title": "T"}]


@dataclass
class NoModel:
    secret: str = "S"


@pytest.mark.parametrize("value", [VALUE, [Model("T")], NoModel(), None, "S"])
def test_what_is_no_model_is_refused(value):
    app = page_app(lambda request: value, formats={"json": True})
    with pytest.raises(TypeError, match="which has no method __json__"):
        answer(app, "/page.json")


@pytest.mark.parametrize("value", [[VALUE], Model("T"), NoModel(), None, "S"])
def test_what_has_no_keys_is_refused(value):
    app = page_app(lambda request: value)
    with pytest.raises(TypeError, match="which has no keys to choose from"):
        answer(app, "/page.json")


def test_response_adapters_are_not_asked_for_data():
    def adapters(config):
        for kind in dict, list, str, object:
            config.add_response_adapter(lambda value: Response(repr(value)), kind)

    app = page_app(lambda request: VALUE, adapters)
    assert json_of(app) == {"title": "T", "items": [1]}
    assert get(app, "/page.html").body == b"page.text: T,[1],S"


@pytest.mark.parametrize("value", [VALUE, [VALUE], NoModel(), Page(VALUE), None])
def test_a_string_is_not_made_of_all_there_is(value):
    app = page_app(lambda request: value, formats={"txt": "string"})
    with pytest.raises(TypeError, match="would send all of it as text"):
        answer(app)


@pytest.mark.parametrize(
    ("value", "text"),
    [("T", b"T"), (5, b"5"), (1.5, b"1.5"), (Decimal("1.50"), b"1.50")],
)
def test_a_string_is_made_of_text(value, text):
    assert get(page_app(lambda request: value, formats={"txt": "string"})).body == text


@pytest.mark.parametrize("renderer", ["json", "json_lines", "own", "string"])
def test_what_overrides_the_renderer_sends_no_more(renderer):
    def own(config):
        config.add_renderer("own", JSON())

    def view(request):
        request.override_renderer = renderer
        return VALUE

    app = page_app(view, own, formats={"html": PAGE, "json": ("title",)})
    if renderer == "string":
        with pytest.raises(TypeError, match="would send all of it as text"):
            answer(app)
    else:
        assert json.loads(get(app).body) == {"title": "T"}
        app = page_app(view, own, formats={"html": PAGE})
        with pytest.raises(TypeError, match="override_renderer is"):
            answer(app)


def test_the_json_renderer_is_the_applications_own():
    renderer = JSON(indent=1)
    renderer.add_adapter(NoModel, lambda value, request: "adapted")

    def own(config):
        config.add_renderer("json", renderer)

    app = page_app(lambda request: {"title": NoModel()}, own)
    assert get(app, "/page.json").body == b'{\n "title": "adapted"\n}'


# What is rendered


@pytest.mark.parametrize(
    ("name", "renderer", "expected"),
    [
        ("html", PAGE, "text/html; charset=UTF-8"),
        ("xml", "feed.text", "application/xml; charset=UTF-8"),
        ("csv", "csv", "text/csv; charset=UTF-8"),
        ("txt", "string", "text/plain; charset=UTF-8"),
        ("svg", PAGE, "image/svg+xml; charset=UTF-8"),
        ("ics", PAGE, "text/calendar; charset=UTF-8"),
        ("rss", PAGE, "application/rss+xml; charset=UTF-8"),
        ("pdf", PAGE, "application/pdf"),
    ],
)
def test_any_renderer_with_the_type_of_its_format(name, renderer, expected):
    value = "é" if renderer == "string" else {"a": "é"}
    app = page_app(lambda request: value, formats={name: renderer})
    client = get(app)
    assert client.told[b"content-type"].decode() == expected
    assert "é".encode() in client.body


@pytest.mark.parametrize("path", ["/page.html", "/page.json"])
def test_what_the_view_sets_is_kept(path):
    def view(request):
        request.response.status = 201
        request.response.set_cookie("a", "b")
        request.response.content_type = "application/x-own"
        request.response.vary = ("Cookie",)
        return VALUE

    app = page_app(view)
    client = get(app, path)
    assert client.status == 201
    assert type_of(client) == "application/x-own"
    assert client.told[b"set-cookie"].startswith(b"a=b")
    assert vary_of(client) == "Cookie"
    assert vary_of(get(app)) == "Cookie, Accept"


@pytest.mark.parametrize("vary", ["*", "accept", "Cookie, ACCEPT"])
def test_vary_is_not_said_twice(vary):
    def view(request):
        request.response.headers["Vary"] = vary
        return VALUE

    assert vary_of(get(page_app(view))) == vary


@pytest.mark.parametrize("is_early", [True, False])
def test_what_several_headers_vary_by_is_kept(is_early):
    def view(request):
        if is_early:
            tell(request, request.response)
            return VALUE
        return Response("own")

    def tell(request, response):
        response.headers.add("Vary", "Cookie")
        response.headers.add("Vary", "Accept-Language")

    def add(config):
        config.add_subscriber(
            lambda event: is_early or event.request.add_response_callback(tell),
            NewRequest,
        )

    client = get(page_app(view, add))
    assert vary_of(client) == "Cookie, Accept-Language, Accept"


@pytest.mark.parametrize("response_class", [Response, WebObResponse])
@pytest.mark.parametrize(("path", "vary"), [("/", "Accept"), ("/page.json", "")])
def test_a_response_of_the_view_passes(response_class, path, vary):
    app = page_app(lambda request: response_class(b"own", content_type="text/x-own"))
    client = get(app, path, JSON_TYPE)
    assert (client.body, type_of(client)) == (b"own", "text/x-own")
    assert vary_of(client) == vary


def test_what_an_adapter_makes_a_response_of_passes():
    def adapters(config):
        config.add_response_adapter(lambda value: Response("adapted"), NoModel)

    app = page_app(lambda request: NoModel(), adapters)
    assert get(app, "/page.json").body == b"adapted"


@pytest.mark.parametrize("error", [HTTPConflict, HTTPFound])
def test_responses_that_are_raised_vary_too(error):
    def view(request):
        raise error("/x")

    app = page_app(view)
    assert vary_of(get(app)) == "Accept"
    assert vary_of(get(app, "/page.json")) == ""


def looking_tween_factory(handler, registry):
    def tween(request):
        response = handler(request)
        registry.seen = response.vary
        return response

    return tween


def test_tweens_see_the_vary():
    registries = []

    def tweens(config):
        registries.append(config.registry)
        config.add_tween(f"{__name__}.looking_tween_factory")

    get(page_app(lambda request: VALUE, tweens))
    assert registries[0].seen == ("Accept",)


@view_defaults(formats=FORMATS)
class Views:
    def __init__(self, context, request):
        self.context = context
        self.request = request

    @view_config(name="attr")
    def value(self):
        return VALUE

    @view_config(name="async")
    async def async_value(self):
        await asyncio.sleep(0)
        return VALUE

    @view_config(name="own", formats={"json": ("secret",)})
    def own(self):
        return VALUE


def decorated(view):
    def wrapper(context, request):
        response = view(context, request)
        response.headers["X-Decorated"] = "yes"
        return response

    return wrapper


@pytest.mark.parametrize("name", ["attr", "async"])
def test_methods_of_classes(name):
    seen = []

    def finish(event):
        event.request.add_finished_callback(lambda request: seen.append(request.seen))

    def configure(config):
        config.add_subscriber(finish, NewRequest)
        config.add_subscriber(lambda event: event.update(added=1), BeforeRender)
        config.add_view(Views, attr="value", name="attr", decorator=decorated)
        config.add_view(Views, attr="async_value", name="async", decorator=decorated)
        config.add_view(Views, attr="own", name="own", formats={"json": ("secret",)})

    app = make_app(RENDERERS, prepare, configure, root_factory=Root)
    client = get(app, f"/{name}")
    assert client.body == b"page.text: T,[1],S"
    assert client.told[b"x-decorated"] == b"yes"
    ((view, context, renderer, added),) = seen
    assert type(view) is Views
    assert context is view.context
    assert (type(context), renderer, added) == (Root, PAGE, 1)


def test_options_of_the_class_are_overridden():
    def configure(config):
        config.add_subscriber(set_seen, NewRequest)
        config.add_view(Views, attr="own", name="own", formats={"json": ("secret",)})

    app = make_app(RENDERERS, prepare, configure)
    assert json.loads(get(app, "/own").body) == {"secret": "S"}


def set_seen(event):
    event.request.seen = None


class Root(dict):
    def __init__(self, request):
        super().__init__()


def test_relative_paths_are_of_the_package_of_the_view():
    packages = []

    class Kept(Text):
        def __init__(self, info):
            super().__init__(info)
            packages.append(self.package)

    def configure(config):
        config.add_renderer(".kept", Kept)
        config.add_view(lambda request: VALUE, formats={"html": "a.kept"})

    app = make_app(RENDERERS, prepare, configure, package="json")
    get(app)
    assert packages == ["json"]


def test_the_application_may_override_the_renderer():
    def view(request):
        request.override_renderer = "string"
        return "own"

    client = get(page_app(view), "/", JSON_TYPE)
    assert (client.body, type_of(client)) == (b"own", "text/plain")
    assert vary_of(client) == "Accept"


FILES = {
    "page.mako": "<h1>${title}</h1>${secret}${h}",
    "feed.xml.mako": "<feed>${title}</feed>",
    "page.jinja2": "<h1>{{ title }}</h1>{{ secret }}",
}


@pytest.fixture
def files(tmp_path):
    """A directory with templates."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def templates(config):
    config.include("pyramid_mako")
    config.include("pyramid_jinja2")
    config.add_subscriber(lambda event: event.update(h="!"), BeforeRender)


@pytest.mark.parametrize("options", [{}, {"render": "executor"}, {"stream": True}])
def test_templates(files, options):
    formats = {
        "html": f"{files}/page.mako",
        "xhtml": "page.jinja2",
        "xml": f"{files}/feed.xml.mako",
        "json": ("title",),
    }
    options["settings"] = {"jinja2.directories": str(files)}
    app = page_app(lambda request: VALUE, templates, formats=formats, **options)
    expected = {
        "text/html": b"<h1>T</h1>S!",
        "application/xhtml+xml": b"<h1>T</h1>S",
        "application/xml": b"<feed>T</feed>",
        "application/json": b'{"title": "T"}',
    }
    for media_type, body in expected.items():
        client = get(app, "/", media_type)
        assert (type_of(client), client.body) == (media_type, body)
        assert vary_of(client) == "Accept"


def test_a_template_that_cannot_be_streamed_is_refused():
    pytest.importorskip("pyramid_chameleon")
    formats = {"html": "page.pt", "json": JSON_KEYS}
    with pytest.raises(ConfigurationError, match="can be rendered only as a whole"):
        page_app(
            lambda request: VALUE, "pyramid_chameleon", formats=formats, stream=True
        )


def test_each_format_has_an_etag_of_its_own():
    app = page_app(
        lambda request: "same", formats={"html": PAGE, "txt": PAGE}, etag=True
    )
    tags = {}
    for accept in "text/html", "text/plain":
        client = get(app, "/", accept)
        assert vary_of(client) == "Accept"
        tags[accept] = client.told[b"etag"]
    assert len(set(tags.values())) == 2
    for accept, status in ("text/html", 304), ("text/plain", 200):
        headers = [(b"accept", accept.encode()), (b"if-none-match", tags["text/html"])]
        client = answer(app, headers=headers)
        assert client.status == status
        assert (b"vary", b"Accept") in client.headers


def test_the_head_of_a_streamed_page_varies_and_json_waits(files, run):
    (files / "slow.mako").write_text("head ${slow} end")

    async def overlap():
        ready = asyncio.Event()

        async def slow():
            await ready.wait()
            return "slow"

        formats = {"html": f"{files}/slow.mako", "json": ("slow",)}
        view = lambda request: {"slow": slow()}  # noqa: E731
        app = page_app(view, templates, formats=formats, stream=True)
        page, data = Client("/page.html"), Client("/page.json")
        tasks = [page.start(app), data.start(app)]
        await page.until(lambda: b"head" in page.body)
        assert not page.ended
        assert not data.started
        ready.set()
        await asyncio.gather(*tasks)
        assert page.body == b"head slow end"
        assert json.loads(data.body) == {"slow": "slow"}

    run(overlap())


def test_what_overrides_the_renderer_is_rendered_where_the_view_says():
    places = []

    def own(config):
        config.add_renderer("own", lambda info: render)

    def render(value, system):
        places.append(where())
        return "own"

    def view(request):
        request.override_renderer = "own"
        return VALUE

    app = page_app(view, own, render="executor")
    assert get(app).body == b"own"
    assert places == [EXECUTOR]


# Exceptions


@pytest.mark.parametrize(
    ("path", "accept", "expected", "vary"),
    [
        ("/page", None, "html", "Accept"),
        ("/page", JSON_TYPE, "json", "Accept"),
        ("/page.json", "text/html", "json", ""),
        ("/page.html", JSON_TYPE, "html", ""),
        # An error is told in any case.
        ("/page.csv", JSON_TYPE, "json", "Accept"),
        ("/page.csv", "image/png", "html", "Accept"),
    ],
)
def test_exception_views_have_formats(path, accept, expected, vary):
    def error_view(error, request):
        request.response.status = 418
        return {"title": str(error), "secret": "S"}

    def view(request):
        raise KeyError("raised")

    def configure(config):
        config.add_view(view, route_name="page")
        config.add_exception_view(error_view, context=KeyError, formats=FORMATS)

    client = get(make_app(RENDERERS, prepare, configure), path, accept)
    assert client.status == 418
    assert vary_of(client) == vary
    if expected == "json":
        assert json.loads(client.body) == {"title": "'raised'"}
    else:
        assert client.body == b"page.text: 'raised',S"


def test_406_is_shown_by_an_exception_view_with_formats():
    def error_view(error, request):
        request.response.status = error.status
        return {"title": error.detail}

    def errors(config):
        config.add_exception_view(error_view, context=HTTPException, formats=FORMATS)

    client = get(page_app(lambda request: VALUE, errors), "/", "image/png")
    assert (client.status, type_of(client)) == (406, "text/html")
    assert client.body == b"page.text: Available are: text/html, application/json."


def test_notfound_and_forbidden_views_have_formats():
    def missing(request):
        request.response.status = 404
        return {"title": "nothing", "secret": "S"}

    def errors(config):
        config.add_notfound_view(missing, formats=FORMATS)

    app = page_app(lambda request: VALUE, errors)
    client = get(app, "/page.xml", JSON_TYPE)
    assert client.status == 404
    assert json.loads(client.body) == {"title": "nothing"}
    # This one has matched the route, and decides by the extension, which it lacks.
    client = get(app, "/page.csv", JSON_TYPE)
    assert (client.status, json.loads(client.body)) == (404, {"title": "nothing"})


@pytest.mark.parametrize("kind", ["function", "coroutine", "method"])
def test_a_notfound_view_that_appends_slashes_has_formats(kind):
    class Missing:
        def __init__(self, error, request):
            self.request = request

        def show(self):
            return missing(self.request)

    def missing(request):
        request.response.status = 404
        return VALUE

    async def missing_later(request):
        await asyncio.sleep(0)
        return missing(request)

    view = {"function": missing, "coroutine": missing_later, "method": Missing}[kind]
    attr = "show" if kind == "method" else None

    def configure(config):
        config.add_route("slash", "/slash/")
        config.add_notfound_view(
            view,
            attr=attr,
            append_slash=True,
            renderer=null_renderer,
            formats=FORMATS,
        )

    app = make_app(RENDERERS, prepare, configure)
    client = get(app, "/none", JSON_TYPE)
    assert client.status == 404
    assert json.loads(client.body) == {"title": "T", "items": [1]}
    assert get(app, "/none").body == b"page.text: T,[1],S"
    client = get(app, "/slash")
    assert (client.status, vary_of(client)) == (307, "Accept")


# Configuration


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        ({}, "formats={}"),
        ((), "formats=()"),
        (("html", "json"), "formats=('html', 'json')"),
        ("json", "formats='json'"),
        (True, "formats=True"),
        ({"html": None}, "has None for 'html'"),
        ({"html": ""}, "has '' for 'html'"),
        ({"html": ("title",)}, "has ('title',) for 'html'"),
        ({"html": "page.missing"}, "no renderer '.missing'"),
        ({"html": "missing"}, "no renderer 'missing'"),
        ({"missing": PAGE}, "no media type is known"),
        ({"text/html": PAGE}, "no media type is known"),
        ({"": PAGE}, "no media type is known"),
        ({None: PAGE}, "no media type is known"),
        ({"json": "json"}, "It takes what may be sent"),
        ({"json": "title"}, "It takes what may be sent"),
        ({"json": ()}, "It takes what may be sent"),
        ({"json": (1,)}, "It takes what may be sent"),
        ({"json": {"title": True}}, "It takes what may be sent"),
        ({"json": None}, "It takes what may be sent"),
        ({"json": False}, "It takes what may be sent"),
        ({"json": lambda: 1}, "It takes what may be sent"),
        ({"json": lambda *, value: 1}, "It takes what may be sent"),
        ({"json": lambda a, b, c: 1}, "It takes what may be sent"),
        ({"jsonl": "json_lines"}, "It takes what may be sent"),
        ({"txt": "json"}, "would send all"),
        ({"js": "jsonp"}, "would send all"),
        ({"html": "own"}, "would send all"),
    ],
)
def test_formats_that_cannot_be_are_refused(formats, message):
    def own(config):
        config.add_renderer("own", JSON(indent=1))
        config.add_renderer("jsonp", JSONP())

    with pytest.raises(ConfigurationError) as refused:
        page_app(lambda request: VALUE, own, formats=formats)
    assert message in str(refused.value)
    assert "lambda" in str(refused.value)
    assert "#formats" in str(refused.value)


@pytest.mark.parametrize("renderer", ["json", PAGE])
def test_a_renderer_beside_formats_is_refused(renderer):
    with pytest.raises(ConfigurationError, match="both renderer=") as refused:
        page_app(renderer=renderer)
    assert renderer in str(refused.value)


def test_a_renderer_that_the_class_has_is_put_out_by_none():
    @view_defaults(renderer="json")
    class Defaults:
        def __init__(self, request):
            pass

        def __call__(self):
            return VALUE

    with pytest.raises(ConfigurationError, match="write renderer=None"):
        page_app(Defaults)
    app = page_app(Defaults, renderer=None)
    assert json_of(app) == {"title": "T", "items": [1]}


async def ticks(request):
    yield "tick"


def test_an_event_stream_has_no_formats():
    with pytest.raises(ConfigurationError, match="is an event stream"):
        page_app(ticks, mapper=EventSourceMapper)


def test_an_event_stream_stands_beside_a_view_with_formats():
    def configure(config):
        config.add_view(lambda request: VALUE, formats=FORMATS)
        config.add_view(ticks, mapper=EventSourceMapper, is_eventsource=True)

    app = make_app(RENDERERS, prepare, configure)
    client = get(app, "/", "text/event-stream")
    assert (client.status, type_of(client)) == (200, "text/event-stream")
    assert b"data: tick" in client.body
    assert json.loads(get(app, "/", JSON_TYPE).body) == {"title": "T", "items": [1]}


def test_a_default_renderer_is_no_renderer_beside():
    def default(config):
        config.add_renderer(None, Text)

    def configure(config):
        default(config)
        config.commit()
        config.add_view(lambda request: VALUE, formats=FORMATS)

    app = make_app(RENDERERS, prepare, configure)
    assert json.loads(get(app, "/", JSON_TYPE).body) == {"title": "T", "items": [1]}


def test_without_the_include_the_option_is_unknown():
    with pytest.raises(ConfigurationError, match="Unknown view options"):
        make_app(lambda config: config.add_view(lambda request: 1, formats=FORMATS))


def test_included_alone():
    def configure(config):
        config.add_view(lambda request: VALUE, formats={"json": ("title",)})

    app = make_app("aioext.renderers.formats", configure)
    assert json.loads(get(app).body) == {"title": "T"}


def test_views_of_a_later_commit():
    def configure(config):
        config.add_view(lambda request: VALUE, formats=FORMATS)
        config.commit()
        config.include(RENDERERS)
        config.add_view(lambda request: VALUE, name="later", formats=FORMATS)

    app = make_app(RENDERERS, prepare, configure)
    for path in "/", "/later":
        assert json.loads(get(app, path, JSON_TYPE).body) == {
            "title": "T",
            "items": [1],
        }

"""Routes with extensions: what matches, and what is generated."""

import asyncio
import itertools
import json
from urllib.parse import unquote

import pytest
from inprocess import answer, answers, make_app
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError, ConfigurationError
from pyramid.request import apply_request_extensions
from pyramid.testing import DummyRequest

from aioext.renderers.routes import extension_of

ROUTES = "aioext.renderers.routes"
BOTH = (None, "json")


def show(request):
    """What the route has found, in a form that JSON keeps."""
    return dict(request.matchdict, route=request.matched_route.name)


def app_of(*routes):
    """An application; ``routes`` are the arguments of ``add_format_route``."""

    def configure(config):
        for number, (pattern, extensions) in enumerate(routes):
            name = f"route{number}"
            config.add_format_route(name, pattern, extensions)
            config.add_view(show, route_name=name, renderer="json")

    return make_app(ROUTES, configure)


def json_of(app, path="/"):
    """The body of a response, read as JSON; None: there is no such page."""
    client = answer(app, path)
    return None if client.status == 404 else json.loads(client.body)


def found(app, path):
    """What the first route has found; None: it has not."""
    matchdict = json_of(app, path)
    if matchdict is None:
        return None
    assert matchdict.pop("route") == "route0"
    return matchdict


# Matching


LITERAL = "/thing"
MARKER = "/items/{id}"
SUBPATH = "/files/*subpath"


@pytest.mark.parametrize(
    ("pattern", "path", "with_none", "without"),
    [
        # After a literal, an extension that is not listed is not found.
        (LITERAL, "/thing", {"extension": None}, None),
        (LITERAL, "/thing.json", {"extension": "json"}, {"extension": "json"}),
        (LITERAL, "/thing.xml", None, None),
        (LITERAL, "/thing.JSON", None, None),
        (LITERAL, "/thing.json/", None, None),
        (LITERAL, "/thing/.json", None, None),
        (LITERAL, "/thing.", None, None),
        (LITERAL, "/thingjson", None, None),
        (LITERAL, "/thing.json.json", None, None),
        (LITERAL, "/thing.xml.json", None, None),
        # After a marker, it belongs to the value.
        (MARKER, "/items/1", {"id": "1", "extension": None}, None),
        (MARKER, "/items/1.json", *[{"id": "1", "extension": "json"}] * 2),
        (MARKER, "/items/1.xml", {"id": "1.xml", "extension": None}, None),
        (MARKER, "/items/1.json.xml", {"id": "1.json.xml", "extension": None}, None),
        (MARKER, "/items/1.xml.json", *[{"id": "1.xml", "extension": "json"}] * 2),
        (MARKER, "/items/1.json.json", *[{"id": "1.json", "extension": "json"}] * 2),
        (MARKER, "/items/.json", {"id": ".json", "extension": None}, None),
        (MARKER, "/items/...json", {"id": "...json", "extension": None}, None),
        (MARKER, "/items/", None, None),
        (MARKER, "/items/é.json", *[{"id": "é", "extension": "json"}] * 2),
        (MARKER, "/items/\n.json", *[{"id": "\n", "extension": "json"}] * 2),
        (r"/{n:\d+}", "/12.json", *[{"n": "12", "extension": "json"}] * 2),
        (r"/{n:\d+}", "/12.xml", None, None),
        (r"/{n:\d{4}}", "/2026.json", *[{"n": "2026", "extension": "json"}] * 2),
        (r"/{n:.+}", "/a/b.json", *[{"n": "a/b", "extension": "json"}] * 2),
        (r"/{n:.*\.json}", "/a.json", {"n": "a.json", "extension": None}, None),
        ("/{a}-{b}", "/1-2.json", *[{"a": "1", "b": "2", "extension": "json"}] * 2),
        ("/:a", "/1.json", *[{"a": "1", "extension": "json"}] * 2),
        # What is in the middle is no extension.
        ("/{a}/end", "/1.json/end", {"a": "1.json", "extension": None}, None),
        # After a subpath, it belongs to its last element.
        (SUBPATH, "/files/", {"subpath": [], "extension": None}, None),
        (SUBPATH, "/files/a/b", {"subpath": ["a", "b"], "extension": None}, None),
        (
            SUBPATH,
            "/files/a.json/b.json",
            *[{"subpath": ["a.json", "b"], "extension": "json"}] * 2,
        ),
        (
            SUBPATH,
            "/files/a/b.txt",
            {"subpath": ["a", "b.txt"], "extension": None},
            None,
        ),
        (SUBPATH, "/files/.json", {"subpath": [".json"], "extension": None}, None),
        (SUBPATH, "/files/a.json/", {"subpath": ["a.json"], "extension": None}, None),
        (
            SUBPATH,
            "/files/a/...json",
            {"subpath": ["a", "...json"], "extension": None},
            None,
        ),
    ],
)
def test_a_path_may_end_in_an_extension(pattern, path, with_none, without):
    assert found(app_of((pattern, BOTH)), path) == with_none
    assert found(app_of((pattern, ("json",))), path) == without


def test_the_longest_extension_counts():
    app = app_of((MARKER, (None, "gz", "tar.gz")))
    assert found(app, "/items/a.tar.gz") == {"id": "a", "extension": "tar.gz"}
    assert found(app, "/items/a.gz") == {"id": "a", "extension": "gz"}
    assert found(app, "/items/tar.gz") == {"id": "tar", "extension": "gz"}
    assert found(app, "/items/.tar.gz") == {"id": ".tar", "extension": "gz"}


def test_one_extension_may_be_a_string():
    app = app_of((LITERAL, "json"))
    assert found(app, "/thing.json") == {"extension": "json"}
    assert found(app, "/thing") is None


def test_what_a_route_does_not_match_is_left_to_the_next():
    app = app_of((LITERAL, ("json",)), ("/{anything}", (None, "csv")))
    assert json_of(app, "/thing.json")["route"] == "route0"
    assert json_of(app, "/thing")["route"] == "route1"
    assert json_of(app, "/thing.xml") == {
        "route": "route1",
        "anything": "thing.xml",
        "extension": None,
    }


def test_a_prefix_is_put_before():
    def included(config):
        config.add_format_route("page", "/page")
        config.add_format_route("start", "", inherit_slash=True)
        for name in "page", "start":
            config.add_view(show, route_name=name, renderer="json")

    app = make_app(ROUTES, lambda config: config.include(included, route_prefix="/api"))
    assert json_of(app, "/api/page.json")["route"] == "page"
    assert json_of(app, "/api.json") == {"route": "start", "extension": "json"}
    assert json_of(app, "/api") == {"route": "start", "extension": None}


class Resource:
    def __init__(self, name):
        self.name = name

    def __getitem__(self, name):
        if name == "missing":
            raise KeyError(name)
        return Resource(f"{self.name}/{name}")


@pytest.mark.parametrize("traverse", [None, "/x/{id}"])
def test_traversal_finds_resources_without_the_extension(traverse):
    def configure(config):
        pattern = "/tree/{id}" if traverse else "/tree/*traverse"
        config.add_format_route(
            "tree", pattern, factory=lambda request: Resource(""), traverse=traverse
        )
        config.add_view(
            lambda context, request: [context.name, request.matchdict["extension"]],
            route_name="tree",
            renderer="json",
        )

    app = make_app(ROUTES, configure)
    expected = "/x/a" if traverse else "/a"
    assert json_of(app, "/tree/a.json") == [expected, "json"]
    assert json_of(app, "/tree/a.b") == [f"{expected}.b", None]


def test_predicates_find_the_extension():
    seen = []

    class Predicate:
        def __init__(self, value, config):
            self.text = self.phash = lambda: "seen"

        def __call__(self, info, request):
            seen.append(dict(info["match"]))
            return True

    def configure(config):
        config.add_route_predicate("seen", Predicate)
        config.add_format_route("page", MARKER, seen=True, request_method="GET")
        config.add_view(show, route_name="page", renderer="json")

    app = make_app(ROUTES, configure)
    assert answer(app, "/items/1.json").status == 200
    assert answer(app, "/items/1.json", method="POST").status == 404
    assert seen == [{"id": "1", "extension": "json"}]


def test_requests_that_overlap_keep_their_extensions():
    meetings = []

    async def view(request):
        async with asyncio.timeout(10):
            await meetings[-1].wait()
        return [request.matchdict["extension"], extension_of(request)]

    def configure(config):
        config.add_format_route("page", LITERAL, (None, "json"))
        config.add_view(view, route_name="page", renderer="json")

    app = make_app(ROUTES, configure)
    for paths in ["/thing", "/thing.json"], ["/thing.json", "/thing"]:
        meetings.append(asyncio.Barrier(2))
        got = [json.loads(client.body) for client in answers(app, paths)]
        assert got == [["json"] * 2 if "." in path else [None] * 2 for path in paths]


def test_other_routes_have_no_extension():
    def view(request):
        return [extension_of(request)]

    def configure(config):
        config.add_route("own", "/own.{extension}")
        config.add_view(view, route_name="own", renderer="json")
        config.add_view(view, renderer="json")

    app = make_app(ROUTES, configure)
    assert json_of(app, "/own.json") == [None]
    assert json_of(app, "/") == [None]


# URLs


def request_of(*routes, **options):
    """A request of an application with ``routes``."""
    config = Configurator(**options)
    config.include(ROUTES)
    for name, pattern, *rest in routes:
        keywords = rest.pop() if rest and isinstance(rest[-1], dict) else {}
        config.add_format_route(name, pattern, *rest, **keywords)
    config.commit()
    request = DummyRequest()
    request.registry = config.registry
    apply_request_extensions(request)
    return request


FILE = "/files/a.d/b.json"
ITEM = ("item", MARKER)
FILES = ("files", SUBPATH)


@pytest.mark.parametrize(
    ("name", "elements", "kw", "expected"),
    [
        ("item", (), {}, "/items/1"),
        ("item", (), {"extension": None}, "/items/1"),
        ("item", (), {"extension": "json"}, "/items/1.json"),
        ("item", (), {"extension": "json", "id": "a/b c.d"}, "/items/a/b%20c.d.json"),
        ("item", (), {"extension": "json", "id": "é%"}, "/items/%C3%A9%25.json"),
        (
            "item",
            (),
            {"extension": "json", "_query": {"a": "b.c"}, "_anchor": "d"},
            "/items/1.json?a=b.c#d",
        ),
        ("item", ("more", "e"), {"extension": "json"}, "/items/1/more/e.json"),
        ("item", ("more", 2), {"extension": "json"}, "/items/1/more/2.json"),
        ("item", ("more",), {}, "/items/1/more"),
        ("files", (), {"subpath": ("a", "b")}, "/files/a/b"),
        (
            "files",
            (),
            {"subpath": ("a.d", "b"), "extension": "json"},
            "/files/a.d/b.json",
        ),
        ("files", (), {"subpath": "a", "extension": "json"}, "/files/a.json"),
        ("files", ("b",), {"subpath": (), "extension": "json"}, "/files/b.json"),
    ],
)
def test_an_extension_touches_the_last_segment_only(name, elements, kw, expected):
    request = request_of(ITEM, FILES)
    path = request.route_path(name, *elements, **{"id": 1, **kw})
    assert path == expected
    url = request.route_url(name, *elements, **{"id": 1, **kw})
    assert url == f"http://example.com{expected}"


def test_the_first_extension_is_the_default_where_there_has_to_be_one():
    request = request_of(
        ("data", "/data", ("json", "csv")), ("page", "/p", ("html", None))
    )
    assert request.route_path("data") == "/data.json"
    assert request.route_path("data", extension="csv") == "/data.csv"
    assert request.route_path("data", "a") == "/data/a.json"
    assert request.route_path("page") == "/p"


VALUES = ["1", "1.xml", "a b", "é", ".json"]


@pytest.mark.parametrize(
    "pattern", [LITERAL, MARKER, SUBPATH, "/{a}-{id}", "/tree/*id"]
)
@pytest.mark.parametrize(
    ("value", "extension"),
    # Without an extension of its own, a.json is a, as JSON.
    [*itertools.product(VALUES, [None, "json"]), ("a.json", "json")],
)
def test_what_is_generated_is_matched_again(pattern, extension, value):
    values = {"id": value, "a": "x", "subpath": ("d", value)}
    request = request_of(("page", pattern))
    path = request.route_path("page", extension=extension, **values)
    matchdict = found(app_of((pattern, BOTH)), unquote(path))
    assert matchdict.pop("extension") == extension
    for key, each in matchdict.items():
        expected = [value] if pattern.endswith("*id") else values[key]
        assert each == (list(expected) if isinstance(expected, tuple) else expected)


def test_the_url_of_the_current_request_keeps_its_extension():
    def view(request):
        return [
            request.current_route_path(),
            request.current_route_path(extension=None),
            request.current_route_path(extension="json"),
            request.current_route_path(_route_name="plain"),
            request.current_route_path(id=2),
        ]

    def configure(config):
        config.add_format_route("item", MARKER)
        config.add_route("plain", "/plain/{id}")
        config.add_view(view, route_name="item", renderer="json")

    app = make_app(ROUTES, configure)
    page, data, plain = "/items/1", "/items/1.json", "/plain/1"
    assert json_of(app, page) == [page, page, data, plain, "/items/2"]
    assert json_of(app, data) == [data, page, data, plain, "/items/2.json"]


def test_the_extension_of_the_request_is_not_that_of_another_route():
    def view(request):
        return [
            request.current_route_path(_route_name="item"),
            request.route_path("table", **request.matchdict),
            request.current_route_path(_route_name="table"),
        ]

    def configure(config):
        config.add_format_route("item", MARKER)
        config.add_format_route("table", "/tables/{id}", ("csv", "html"))
        config.add_format_route("sheet", "/sheets/{id}", (None, "xml", "html"))
        config.add_view(view, route_name="sheet", renderer="json")

    app = make_app(ROUTES, configure)
    item, table, page = "/items/1", "/tables/1.csv", "/tables/1.html"
    assert json_of(app, "/sheets/1") == [item, table, table]
    assert json_of(app, "/sheets/1.xml") == [item, table, table]
    assert json_of(app, "/sheets/1.html") == [item, page, page]


def test_what_the_caller_asks_for_is_refused_all_the_same():
    def view(request):
        with pytest.raises(ValueError, match="extension='csv'"):
            request.current_route_path(_route_name="other", extension="csv")
        with pytest.raises(ValueError, match="extension='xml'"):
            request.current_route_path(extension="xml")
        return "refused"

    def configure(config):
        config.add_format_route("item", MARKER)
        config.add_format_route("other", "/others/{id}")
        config.add_view(view, route_name="item", renderer="json")

    assert json_of(make_app(ROUTES, configure), "/items/1.json") == "refused"


class Located:
    __name__ = ""
    __parent__ = None


def test_a_resource_has_a_url_with_an_extension():
    root, inner = Located(), Located()
    inner.__name__, inner.__parent__ = "a", root
    request = request_of(("tree", "/tree/*traverse"))

    def path(resource, *elements, **kw):
        return request.resource_path(
            resource, *elements, route_name="tree", route_kw=kw
        )

    assert path(inner, extension="json") == path(inner).removesuffix("/") + ".json"
    assert path(inner, "edit", extension="json").endswith("a/edit.json")
    with pytest.raises(ValueError, match="The last segment has to have a name"):
        path(root, extension="json")


def test_the_applications_own_pregenerator_is_called():
    def pregenerator(request, elements, kw):
        seen.append(kw.get("extension", "none"))
        kw.setdefault("id", 7)
        return (*elements, "more"), kw

    async def coroutine(request, elements, kw):
        await asyncio.sleep(0)
        return elements, {**kw, "extension": "json"}

    seen = []

    def view(request):
        path = request.route_path
        return [
            path("sync"),
            path("sync", extension="json"),
            path("async", id=1, extension=None),
        ]

    def configure(config):
        config.add_format_route("sync", MARKER, pregenerator=pregenerator)
        config.add_format_route("async", MARKER, pregenerator=coroutine)
        config.add_view(view, renderer="json")

    app = make_app(ROUTES, configure)
    assert json_of(app) == ["/items/7/more", "/items/7/more.json", "/items/1.json"]
    assert seen == ["none", "json"]


def test_a_route_that_only_generates():
    request = request_of(("static", "/static/{id}", {"static": True}))
    assert request.route_path("static", id=1, extension="json") == "/static/1.json"


@pytest.mark.parametrize("extension", ["xml", "", ".json", 1, "a/b", ("json",)])
def test_an_extension_that_is_not_listed_is_refused(extension):
    request = request_of(ITEM)
    with pytest.raises(ValueError, match="asked for a URL with extension=") as refused:
        request.route_path("item", id=1, extension=extension)
    assert "'item'" in str(refused.value)
    assert "#format-routes" in str(refused.value)


@pytest.mark.parametrize("value", ["", "..", "."])
def test_an_extension_needs_a_name_before_it(value):
    request = request_of(ITEM, FILES)
    for name, elements, values in [
        ("item", (), {"id": value}),
        ("files", (), {"subpath": ("a", value)}),
        ("item", ("a", value), {"id": 1}),
    ]:
        with pytest.raises(ValueError, match="has to have a name"):
            request.route_path(name, *elements, extension="json", **values)
        assert request.route_path(name, *elements, **values)


# Configuration


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("/a/",), "does not end in a segment"),
        (("/",), "does not end in a segment"),
        (("",), "does not end in a segment"),
        ((None,), "does not end in a segment"),
        (("/a.{extension}",), "the marker 'extension'"),
        (("/{extension:a|b}/c",), "the marker 'extension'"),
        (("/:extension",), "the marker 'extension'"),
        (("/a/*extension",), "the marker 'extension'"),
        (("https://example.com/a",), "a URL of another host"),
        (("//example.com/a",), "a URL of another host"),
        (("/a", ()), "extensions=()"),
        (("/a", (None,)), "extensions=(None,)"),
        (("/a", None), "extensions=None"),
        (("/a", True), "extensions=True"),
        (("/a", ""), "extensions=''"),
        (("/a", (".json",)), "extensions=('.json',)"),
        (("/a", ("json", "")), "extensions=('json', '')"),
        (("/a", ("a/b",)), "extensions=('a/b',)"),
        (("/a", ("json", 1)), "extensions=('json', 1)"),
        (("/a", ("json", ["xml"])), "extensions=('json', ['xml'])"),
        (("/a", ("aéa",)), "extensions=('aéa',)"),
        (("/a", ("a\n",)), "extensions=('a\\n',)"),
    ],
)
def test_a_route_that_cannot_be_is_refused(arguments, message):
    config = Configurator()
    config.include(ROUTES)
    with pytest.raises(ConfigurationError) as refused:
        config.add_format_route("page", *arguments)
    assert "The format route 'page'" in str(refused.value)
    assert message in str(refused.value)
    assert "#format-routes" in str(refused.value)


@pytest.mark.parametrize("pattern", ["/{extensions}", "/extension", "/{my_extension}"])
def test_a_marker_of_another_name_is_none_of_that(pattern):
    assert request_of(("page", pattern))


def test_two_routes_of_one_name_conflict():
    config = Configurator()
    config.include(ROUTES)
    config.add_format_route("page", "/a")
    config.add_format_route("page", "/b")
    with pytest.raises(ConfigurationConflictError) as conflict:
        config.commit()
    assert "test_format_routes" in str(conflict.value)


@pytest.mark.parametrize("plain", [False, True])
def test_an_application_overrides_the_route_of_what_it_includes(plain):
    def configure(config):
        config.include(lambda config: config.add_format_route("page", "/included"))
        if plain:
            config.add_route("page", "/own")
        else:
            config.add_format_route("page", "/own", (None, "csv"))
        config.add_view(
            lambda request: request.matchdict, route_name="page", renderer="json"
        )

    app = make_app(ROUTES, configure)
    assert json_of(app, "/own") == ({} if plain else {"extension": None})
    assert answer(app, "/own.json").status == 404
    assert answer(app, "/own.csv").status == (404 if plain else 200)
    assert answer(app, "/included").status == 404


def test_a_route_of_a_later_commit():
    def configure(config):
        config.add_format_route("page", "/page")
        config.add_view(show, route_name="page", renderer="json")
        config.commit()
        config.include(ROUTES)
        config.add_format_route("later", "/later")
        config.add_view(show, route_name="later", renderer="json")

    app = make_app(ROUTES, configure)
    for name in "page", "later":
        expected = {"route": name, "extension": "json"}
        assert json_of(app, f"/{name}.json") == expected
        assert answer(app, f"/{name}.json.json").status == 404


def test_with_autocommit():
    request = request_of(ITEM, autocommit=True)
    assert request.route_path("item", id=1, extension="json") == "/items/1.json"


def test_a_route_can_be_looked_up():
    config = Configurator()
    config.include(ROUTES)
    config.add_format_route("page", "/page/{id}", ["json", None, "json"])
    config.commit()
    told = config.introspector.get("format routes", "page")
    assert told["extensions"] == ("json", None)
    (route,) = config.introspector.related(told)
    assert route["pattern"] == told["pattern"] == "/page/{id}"

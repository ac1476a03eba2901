"""The page on formats: its example, and its table."""

import importlib.util
import json
import re
import sys

import pytest
from inprocess import answer, make_app
from pyramid.testing import DummyRequest
from test_docs import DOCS, EXAMPLES, execute

from aioext.gateway import Gateway


@pytest.fixture(scope="module")
def app():
    """The example, which is a package."""
    directory = EXAMPLES / "albums"
    spec = importlib.util.spec_from_file_location(
        "albums", directory / "__init__.py", submodule_search_locations=[str(directory)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["albums"] = module
    spec.loader.exec_module(module)
    yield Gateway(module.main())
    del sys.modules["albums"]


def get(app, path, accept="*/*"):
    return answer(app, path, headers=[(b"accept", accept.encode())])


def json_of(client):
    assert (b"content-type", b"application/json") in client.headers, client.sent
    return json.loads(client.body)


def test_a_view_as_a_page_and_as_json(app):
    page = get(app, "/albums/blue").body.decode()
    for each in "<h1>blue</h1>", "<p>One</p>", "40 %", 'href="/albums/blue.json"':
        assert each in page
    expected = '{"title": "blue", "tracks": ["One", "Two"]}'
    assert expected in (DOCS / "formats.rst").read_text("utf-8")
    assert get(app, "/albums/blue.json").body.decode() == expected
    assert get(app, "/albums/blue", "application/json").body.decode() == expected
    assert get(app, "/albums/blue", "image/png").status == 406


def test_several_formats(app):
    assert b'href="/albums/blue"' in get(app, "/albums").body
    href = "/albums/blue.json"
    assert json_of(get(app, "/albums.json")) == [{"title": "blue", "href": href}]
    assert json.loads(get(app, "/albums.jsonl").body) == "blue"
    assert get(app, "/albums.csv").body == b"blue\r\n"
    assert get(app, "/albums", "text/csv").body == b"blue\r\n"


def test_errors_have_formats(app):
    client = get(app, "/albums/red.json")
    assert (client.status, json_of(client)) == (404, {"detail": "no such album"})
    client = get(app, "/albums/red", "image/png, text/html;q=0.1")
    assert b"/albums/red: no such album" in client.body


ROW = re.compile(r"   \* -(.*)\n     - (.*)\n     - (.*)\n     - (.*)\n")


def rows():
    """The table: pattern, path, and what is found with None, and without."""
    found_rows = []
    pattern = ""
    for row in ROW.findall((DOCS / "formats.rst").read_text("utf-8"))[1:]:
        first, path, *found = (cell.strip().replace("``", "") for cell in row)
        pattern = first or pattern
        found_rows.append((pattern, path, *found))
    return found_rows


def test_the_table_is_found():
    assert len(rows()) == 8


@pytest.mark.parametrize(("pattern", "path", "with_none", "without"), rows())
def test_what_the_table_says_is_found(pattern, path, with_none, without):
    for extensions, expected in ((None, "json"), with_none), (("json",), without):

        def configure(config, extensions=extensions):
            config.add_format_route("route", pattern, extensions)
            config.add_view(
                lambda request: request.matchdict, route_name="route", renderer="json"
            )

        client = answer(make_app("aioext.renderers", configure), path)
        if expected == "404":
            assert client.status == 404
            continue
        matchdict = json.loads(client.body)
        extension = matchdict.pop("extension")
        values = [*matchdict.get("subpath", matchdict.values()), extension]
        assert ", ".join(map(str, values)) == expected


def test_urls():
    names = execute("formats")
    request = DummyRequest(matchdict={"year": "2025", "extension": None})
    request.registry = names["config"].registry
    request.matched_route = names["config"].get_routes_mapper().get_route("report")
    assert names["links"](request) == [
        "http://example.com/reports/2026",
        "http://example.com/reports/2026.csv",
        "http://example.com/reports/2025.json",
    ]

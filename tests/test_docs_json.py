"""The page on JSON: what it shows is run."""

import json

import pytest
from hook_apps import OnLoop, make
from sqlalchemy import text
from test_docs import blocks, load

from aioext.renderers import JSONRenderer

__all__ = ["load"]


@pytest.fixture
def example(load):
    return load("json_views")


def make_app(example, *steps, **settings):
    def configure(config):
        config.include("aioext.renderers")
        config.scan(example)

    settings = {name.replace("_", "."): value for name, value in settings.items()}
    return make(*steps, configure, settings=settings)


def ask(app, path):
    (answer,) = OnLoop()(app, path)
    assert answer.status == 200
    return answer


@pytest.mark.parametrize("library", ["stdlib", "orjson"])
def test_values_are_as_shown(example, library):
    if library == "orjson":
        pytest.importorskip("orjson")
    app = make_app(example, aioext_json=library)
    (shown,) = [each for each in blocks("text")["json"] if "Tea" in each]
    assert json.loads(ask(app, "/offer").text) == json.loads(shown)


def test_values_that_wait(example):
    assert json.loads(ask(make_app(example), "/carts").text) == {
        "carts": [
            {"number": 1, "items": ["tea"]},
            {"number": 2, "items": ["tea", "tea"]},
        ],
        "total": 2,
    }


def test_streams(example):
    app = make_app(example)
    lines = ask(app, "/feed").text.splitlines()
    assert [json.loads(line)["number"] for line in lines] == [0, 1, 2]
    squares = json.loads(ask(app, "/squares").text)
    assert squares[-1] == {"number": 9999, "square": 9999**2}


def test_a_stream_with_a_session_of_its_own(example, tmp_path):
    statement = text("SELECT 'one' AS title UNION SELECT 'two' ORDER BY title")

    def database(config):
        config.include("aioext.sqlalchemy")
        config.registry["titles"] = statement

    url = f"sqlite+aiosqlite:///{tmp_path}/test.sqlite"
    app = make_app(example, database, sqlalchemy_url=url)
    assert json.loads(ask(app, "/titles").text) == ["one", "two"]


def test_adapters(example):
    def view(request):
        return {"b": example.Money(450), "a": {1}}

    def configure(config):
        config.add_route("money", "/money")
        config.add_view(view, route_name="money", renderer="json")
        config.include(example.includeme)

    answer = ask(make(configure), "/money")
    assert answer.text == '{"a": [1], "b": 4.5}'
    assert JSONRenderer.__module__ == "aioext.renderers.json"


def test_views_without_a_renderer(example):
    app = make_app(example, aioext_renderers_adapters="true")
    assert json.loads(ask(app, "/plain").text) == {"plain": True}
    csv = ask(app, "/csv")
    assert csv.text == "0,0\n1,1\n2,4\n"
    assert csv.headers["content-type"].startswith("text/csv")

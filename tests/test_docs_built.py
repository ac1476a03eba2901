"""The page on built files: what it shows is run."""

import gzip
import re
import sys
from pathlib import Path

import pytest
from test_docs import DOCS, console, load
from webtest import TestApp

from aioext.interfaces import IBuiltAssets
from aioext.scripts import assets

__all__ = ["load"]

pytest.importorskip("sass")
pytest.importorskip("rjsmin")

FILES = {
    "__init__.py": "",
    "scss/shop.scss": '@import "colours"; a { color: $link }',
    "scss/_colours.scss": "$link: red;",
    "js/first.js": "var first = 1;",
    "js/then.js": "var then = first;",
    "messages/a.txt": "two\none\n",
    "messages/b.txt": "two\nthree\n",
    "data/list.txt": "a list",
}


@pytest.fixture
def module(load):
    return load("built")


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The directory of a package ``shop``."""
    for name, text in FILES.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    # Other pages have a package of that name as well.
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    yield tmp_path / "shop"
    sys.modules.pop("shop", None)


@pytest.fixture
def app(module, shop):
    """The application of the page, in development."""
    settings = {
        "aioext.assets.cache_dir": str(shop.parent / "cache"),
        "pyramid.reload_assets": "true",
    }
    return TestApp(module.main({}, **settings))


def test_what_is_built_is_served(app, shop):
    answer = app.get("/static/shop.css")
    assert answer.content_type == "text/css"
    assert answer.text == "a{color:red}\n"
    assert app.get("/static/shop.js").text == "var first=1;\nvar then=first;\n"
    assert app.get("/static/messages.txt").text == "one\nthree\ntwo"
    assert gzip.decompress(app.get("/static/list.txt.gz").body) == b"a list"
    assert app.get("/static/other.txt.gz", status=404)
    assert not (shop / "static").exists()


def test_a_change_is_seen_when_the_page_is_loaded_again(app, shop):
    first = app.get("/static/shop.css")
    (shop / "scss/_colours.scss").write_text("$link: darkgreen;")
    assert app.get("/static/shop.css").text == "a{color:#006400}\n"
    again = app.get(
        "/static/shop.css", headers={"If-None-Match": first.headers["ETag"]}
    )
    assert again.status_int == 200


def test_what_it_depends_on_stands_in_the_configuration(app):
    found = {each.spec: each for each in app.app.registry.getUtility(IBuiltAssets)}
    assert found["shop:static/page.js"].depends == ("shop:ts/**/*.ts",)
    assert set(found) == {
        "shop:static/list.txt.gz",
        "shop:static/messages.txt",
        "shop:static/page.js",
        "shop:static/shop.css",
        "shop:static/shop.js",
    }


def test_the_script_writes_what_the_page_shows(app, shop, capsys):
    registry = app.app.registry
    wanted = ["shop:static/shop.css", "shop:static/shop.js"]
    built = [each for each in registry.getUtility(IBuiltAssets) if each.spec in wanted]
    built[1].build()
    for number, asset in enumerate(built, 1):
        assert assets._make(asset, f"[{number}/2] ")
    ((_, shown),) = console("built")
    numbers = re.compile(r"[\d.,]+(?= s,| bytes)")
    assert numbers.sub("n", capsys.readouterr().out) == numbers.sub("n", shown)


def test_the_options_of_the_script_exist():
    page = (DOCS / "built.rst").read_text("utf-8")
    told = set(re.findall(r"``(--\w+)``", page))
    assert told == {"--force"}
    for line in ("build --force a.ini a=b", "watch development.ini"):
        assert assets._parser().parse_args(line.split()).ini.endswith(".ini")


def test_the_extra_has_the_libraries():
    setup = (Path(DOCS).parent / "setup.py").read_text("utf-8")
    (line,) = re.findall(r"^assets = \[(.*)\]$", setup, re.MULTILINE)
    assert re.findall(r'"(\w+)', line) == ["libsass", "rcssmin", "rjsmin"]

"""The page on versions: what it shows is run."""

import json
import sys

import pytest
from pyramid.config import Configurator
from test_docs import load
from webtest import TestApp

__all__ = ["load"]

IMMUTABLE = "public, max-age=31536000, immutable"


@pytest.fixture
def module(load):
    return load("versions")


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The directory of the static files of a package ``shop``."""
    directory = tmp_path / "shop" / "static"
    for name in ("app.js", "logo.svg", "fonts/a.woff2", "dist/assets/a-BRBmoGS9.js"):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (tmp_path / "shop" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield directory
    sys.modules.pop("shop", None)


def request_of(step):
    config = Configurator()
    config.include(step)
    app = config.make_wsgi_app()
    request = app.request_factory.blank("/")
    request.registry = app.registry
    return request


def test_the_addresses_of_the_page(module, shop):
    app = TestApp(module.main())
    found = app.get("/").json
    for name, file, after in [
        ("script", "app.js", ""),
        ("logo", "logo.svg", "#small"),
    ]:
        time = (shop / file).stat().st_mtime_ns
        assert found[name] == f"/static/{file}?v={time}{after}"
        assert app.get(found[name]).headers["Cache-Control"] == IMMUTABLE
    caching = app.get("/static/app.js?v=1").headers["Cache-Control"]
    assert caching == "no-cache"
    assert app.get("/static/app.js").headers["Cache-Control"] == "max-age=3600"


def test_a_manifest(module, shop):
    manifest = shop / "dist" / ".vite" / "manifest.json"
    manifest.parent.mkdir()
    manifest.write_text(json.dumps({"src/a.js": {"file": "assets/a-BRBmoGS9.js"}}))
    request = request_of(module.bundle)
    url = request.static_path("shop:static/dist/src/a.js")
    assert url == "/static/dist/assets/a-BRBmoGS9.js"
    tags = request.asset_tags("src/a.js", nonce="x")
    assert tags == f'<script type="module" src="{url}" nonce="x"></script>'


def test_a_buster_for_some_files(module, shop):
    request = request_of(module.hashes)
    assert "?v=" in request.static_path("shop:static/app.js")
    url = request.static_path("shop:static/fonts/a.woff2")
    # The hash of nothing.
    assert url == "/static/v=e3b0c44298fc1c14/fonts/a.woff2"

"""What bundlers have built: names with hashes, and the tags of a page."""

import json
import os
import sys
from html.parser import HTMLParser

import pytest
from inprocess import answer
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError, ConfigurationError
from pyramid.response import Response

from aioext.assets.bundles import is_hashed, parse
from aioext.assets.manifest import Markup
from aioext.gateway import Gateway

IMMUTABLE = "public, max-age=31536000, immutable"
TIME = 1_600_000_000_000_000_000

VITE = {
    "_shared-B7PI925R.js": {
        "file": "assets/shared-B7PI925R.js",
        "name": "shared",
        "css": ["assets/shared-ChJ_j-JJ.css"],
    },
    "_deep-C1d2E3f4.js": {
        "file": "assets/deep-C1d2E3f4.js",
        "imports": ["_shared-B7PI925R.js"],
        "css": ["assets/deep-Zz9yXx8w.css"],
    },
    "views/foo.js": {
        "file": "assets/foo-BRBmoGS9.js",
        "src": "views/foo.js",
        "isEntry": True,
        "imports": ["_deep-C1d2E3f4.js", "_shared-B7PI925R.js", "_gone.js"],
        "css": ["assets/foo-5UjPuW-k.css"],
        "assets": ["assets/logo-a1b2c3d4.svg"],
    },
    "style.css": {
        "file": "assets/style-D4x5y6z7.css",
        "src": "style.css",
        "isEntry": True,
    },
    "plain.js": {"file": "plain.js", "src": "plain.js", "isEntry": True},
}

WEBPACK = {
    "main.js": "/static/dist/main.3f2a9c81d4e5.js",
    "main.css": "/static/dist/main.77aa9c81d4e5.css",
    "vendor.js": {
        "src": "/static/dist/vendor.0011aabbccdd.js",
        "integrity": "sha384-x+y/z=",
    },
    "old.js": {"src": "/static/dist/old.js"},
    "entrypoints": {
        "app": {
            "assets": {
                "js": [
                    "/static/dist/vendor.0011aabbccdd.js",
                    "/static/dist/main.3f2a9c81d4e5.js",
                ],
                "css": ["/static/dist/main.77aa9c81d4e5.css"],
            }
        },
        "encore": {"js": ["/static/dist/main.3f2a9c81d4e5.js"]},
        "odd": 7,
        "odder": {"assets": 7},
    },
    "version": 5,
}


class Tags(HTMLParser):
    """The tags of HTML, as ``(tag, attributes)``."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def urls(text):
    """The kind of each tag, with its address."""
    return [
        (
            attrs.get("rel") or attrs.get("type") or tag,
            attrs.get("href") or attrs["src"],
        )
        for tag, attrs in Tags(text).found
    ]


def write(path, content, time=TIME):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, str):
        content = json.dumps(content)
    path.write_text(content)
    os.utime(path, ns=(time, time))


@pytest.fixture
def dist(tmp_path, monkeypatch):
    """The directory that a bundler has written to, ``bundled:static/dist``."""
    directory = tmp_path / "bundled" / "static" / "dist"
    write(tmp_path / "bundled" / "__init__.py", "")
    monkeypatch.syspath_prepend(tmp_path)
    yield directory
    sys.modules.pop("bundled", None)


def configure(*args, settings=None, **options):
    config = Configurator(settings=settings or {}, package="bundled")
    config.include("aioext.assets")
    config.add_static_view("static", "bundled:static")
    config.add_asset_manifest(*(args or ["bundled:static/dist"]), **options)
    return config


def request_of(config):
    app = config.make_wsgi_app()
    request = app.request_factory.blank("/")
    request.registry = app.registry
    request.registry["app"] = app
    return request


def vite(dist, content=None, time=TIME):
    write(dist / ".vite" / "manifest.json", content or VITE, time)
    for chunk in (content or VITE).values():
        for file in [chunk["file"], *chunk.get("css", ()), *chunk.get("assets", ())]:
            write(dist / file, "")


# Addresses


def test_an_address_leads_to_the_name_with_the_hash(dist):
    vite(dist)
    request = request_of(configure())
    for name, expected in [
        ("views/foo.js", "assets/foo-BRBmoGS9.js"),
        ("style.css", "assets/style-D4x5y6z7.css"),
        # What has its hash already.
        ("assets/foo-BRBmoGS9.js", "assets/foo-BRBmoGS9.js"),
        # What has none has a version.
        ("plain.js", f"plain.js?v={TIME}"),
        ("missing.js", "missing.js"),
    ]:
        url = request.static_path(f"bundled:static/dist/{name}")
        assert url == f"/static/dist/{expected}"
        path = request.static_version(f"/static/dist/{name}")
        assert path == f"/static/dist/{expected}"
        for_ever = request.versioned_static_url(
            f"bundled:static/dist/{name}", place="query", _app_url=""
        )
        assert for_ever == f"/static/dist/{expected}"
    write(dist.parent / "other.js", "")
    assert (
        request.static_path("bundled:static/other.js") == f"/static/other.js?v={TIME}"
    )


def test_a_name_without_a_hash_has_the_version_of_its_file(dist):
    content = {"src/a.js": {"file": "out/a.js", "src": "src/a.js"}}
    vite(dist, content)
    write(dist / "src" / "a.js", "", time=TIME + 7)
    request = request_of(configure(settings={"aioext.assets.place": "path"}))
    url = request.static_path("bundled:static/dist/src/a.js")
    assert url == f"/static/v={TIME}/dist/out/a.js"


def test_a_static_view_of_the_directory_itself(dist):
    vite(dist)
    config = Configurator()
    config.include("aioext.assets")
    config.add_static_view("dist", "bundled:static/dist")
    config.add_asset_manifest("bundled:static/dist/")
    url = request_of(config).static_path("bundled:static/dist/views/foo.js")
    assert url == "/dist/assets/foo-BRBmoGS9.js"


def test_a_static_view_on_another_host(dist):
    vite(dist)
    config = Configurator()
    config.include("aioext.assets")
    config.add_static_view("https://cdn.example.com/", "bundled:static")
    config.add_asset_manifest("bundled:static/dist")
    request = request_of(config)
    url = "https://cdn.example.com/dist/assets/style-D4x5y6z7.css"
    assert request.static_url("bundled:static/dist/style.css") == url
    assert urls(request.asset_tags("style.css")) == [("stylesheet", url)]


def test_names_of_webpack(dist):
    write(dist / "manifest.json", WEBPACK)
    write(dist / "old.js", "")
    request = request_of(configure(public_path="/static/dist/"))
    for name, expected in [
        ("main.js", "main.3f2a9c81d4e5.js"),
        ("vendor.js", "vendor.0011aabbccdd.js"),
        ("old.js", f"old.js?v={TIME}"),
    ]:
        url = request.static_path(f"bundled:static/dist/{name}")
        assert url == f"/static/dist/{expected}"


def test_a_relative_directory_and_a_manifest_elsewhere(dist):
    write(dist.parent / "dist.json", {"a.js": "./a.3f2a9c81.js"})
    for manifest in ("bundled:static/dist.json", str(dist.parent / "dist.json")):
        config = configure("static/dist", manifest)
        url = request_of(config).static_path("bundled:static/dist/a.js")
        assert url == "/static/dist/a.3f2a9c81.js"
    write(dist / "sub" / "m.json", {"a.js": "b.3f2a9c81.js"})
    url = request_of(configure("static/dist", "sub/m.json")).static_path(
        "bundled:static/dist/a.js"
    )
    assert url == "/static/dist/b.3f2a9c81.js"


def test_an_overridden_manifest(dist, tmp_path):
    vite(dist)
    write(tmp_path / "other" / "manifest.json", {"a.js": "a.3f2a9c81.js"})
    config = configure()
    config.override_asset("bundled:static/dist/.vite/", str(tmp_path / "other") + "/")
    url = request_of(config).static_path("bundled:static/dist/a.js")
    assert url == "/static/dist/a.3f2a9c81.js"


# The answer


def test_a_name_with_a_hash_is_kept_for_ever(dist):
    vite(dist)
    write(dist / "assets" / "older-a1b2c3d4.js", "")
    app = Gateway(configure().make_wsgi_app())
    for path, expected in [
        ("assets/foo-BRBmoGS9.js", IMMUTABLE),
        ("assets/shared-ChJ_j-JJ.css", IMMUTABLE),
        ("assets/logo-a1b2c3d4.svg", IMMUTABLE),
        ("plain.js", None),
        # It may be of any age, and of anybody.
        ("assets/older-a1b2c3d4.js", None),
    ]:
        client = answer(app, f"/static/dist/{path}")
        assert client.status == 200, path
        found = dict(client.response[1]).get(b"cache-control")
        assert found == (expected and expected.encode()), path


@pytest.mark.parametrize("hashed", [True, False])
def test_it_may_be_said_whether_names_have_a_hash(dist, hashed):
    vite(dist)
    request = request_of(configure(hashed=hashed))
    plain = request.static_path("bundled:static/dist/plain.js")
    foo = request.static_path("bundled:static/dist/views/foo.js")
    assert ("v=" in plain, "v=" in foo) == (not hashed, not hashed)


# The tags


def test_the_tags_of_an_entry_of_vite(dist):
    vite(dist)
    request = request_of(configure())
    for entry in ("views/foo.js", "bundled:static/dist/views/foo.js"):
        tags = request.asset_tags(entry)
        assert urls(tags) == [
            ("stylesheet", "/static/dist/assets/shared-ChJ_j-JJ.css"),
            ("stylesheet", "/static/dist/assets/deep-Zz9yXx8w.css"),
            ("stylesheet", "/static/dist/assets/foo-5UjPuW-k.css"),
            ("module", "/static/dist/assets/foo-BRBmoGS9.js"),
            ("modulepreload", "/static/dist/assets/shared-B7PI925R.js"),
            ("modulepreload", "/static/dist/assets/deep-C1d2E3f4.js"),
        ]
        assert tags.__html__() == tags
    assert urls(request.asset_tags("style.css")) == [
        ("stylesheet", "/static/dist/assets/style-D4x5y6z7.css")
    ]


def test_chunks_that_import_each_other():
    content = {
        "a.js": {"file": "a.js", "imports": ["b.js"], "css": ["x.css"]},
        "b.js": {"file": "b.js", "imports": ["a.js", "b.js"], "css": ["x.css"]},
    }
    entry = parse(json.dumps(content).encode()).entry("a.js")
    assert (entry.styles, entry.modules) == (["x.css"], ["a.js"])
    assert entry.preloads == ["b.js"]


def test_the_tags_of_an_entry_of_webpack(dist):
    write(dist / "manifest.json", WEBPACK)
    request = request_of(configure(public_path="/static/dist/"))
    style = ("stylesheet", "/static/dist/main.77aa9c81d4e5.css")
    script = ("script", "/static/dist/main.3f2a9c81d4e5.js")
    vendor = ("script", "/static/dist/vendor.0011aabbccdd.js")
    for entry, expected in [
        ("app", [style, vendor, script]),
        ("encore", [script]),
        ("main", [style, script]),
        ("main.js", [script]),
        ("vendor", [vendor]),
    ]:
        assert urls(request.asset_tags(entry)) == expected, entry
    ((_, attrs),) = Tags(request.asset_tags("vendor")).found
    assert attrs["integrity"] == "sha384-x+y/z="
    assert attrs["crossorigin"] == "anonymous"
    assert "defer" in attrs


def test_attributes_are_escaped(dist):
    vite(dist, {"a.js": {"file": "a&b-a1b2c3d4.js"}})
    tags = request_of(configure()).asset_tags(
        "a.js", nonce='"><b>', data_x=1, hidden=True, gone=None, off=False
    )
    ((tag, attrs),) = Tags(tags).found
    assert tag == "script"
    assert attrs == {
        "type": "module",
        "src": "/static/dist/a&b-a1b2c3d4.js",
        "nonce": '"><b>',
        "data-x": "1",
        "hidden": None,
    }
    assert "a&amp;b" in tags


def test_templates_do_not_escape_tags():
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Environment(autoescape=True).from_string("{{ tags }}")
    assert template.render(tags=Markup("<b>")) == "<b>"
    mako = pytest.importorskip("mako.template")
    template = mako.Template("${tags}", default_filters=["h"])
    assert template.render(tags=Markup("<b>")) == "<b>"


def test_the_server_of_the_bundler(dist):
    request = request_of(configure(server="http://localhost:5173/"))
    server = "http://localhost:5173"
    assert urls(request.asset_tags("src/main.js")) == [
        ("module", f"{server}/@vite/client"),
        ("module", f"{server}/src/main.js"),
    ]
    found = urls(request.asset_tags("bundled:static/dist/a.scss"))
    assert found[1:] == [("stylesheet", f"{server}/a.scss")]
    # Nothing is built yet.
    url = request.static_path("bundled:static/dist/a.js")
    assert url == "/static/dist/a.js"


def test_several_manifests(dist):
    vite(dist)
    other = dist.parent / "other"
    write(other / "manifest.json", {"b.js": "b.3f2a9c81.js", "style.css": "s.css"})
    config = configure()
    config.add_asset_manifest("bundled:static/other")
    request = request_of(config)
    (found,) = urls(request.asset_tags("b.js"))
    assert found == ("script", "/static/other/b.3f2a9c81.js")
    (first,) = urls(request.asset_tags("style.css"))
    assert first[1] == "/static/dist/assets/style-D4x5y6z7.css"
    (second,) = urls(request.asset_tags("bundled:static/other/style.css"))
    assert second[1] == "/static/other/s.css"


def test_an_entry_that_there_is_not(dist):
    vite(dist)
    with pytest.raises(LookupError) as caught:
        request_of(configure()).asset_tags("none.js")
    message = str(caught.value)
    assert "no entry 'none.js'" in message
    assert "views/foo.js" in message
    assert "#asset-manifest" in message


def test_tags_without_a_manifest(dist):
    config = Configurator()
    config.include("aioext.assets")
    with pytest.raises(LookupError, match=r"add_asset_manifest\("):
        request_of(config).asset_tags("main.js")


# Reading it


def test_a_manifest_that_is_not_there(dist):
    with pytest.raises(ConfigurationError) as caught:
        configure().commit()
    message = str(caught.value)
    for part in ("bundled:static/dist/.vite/manifest.json", "Run the bundler"):
        assert part in message
    assert "#asset-manifest" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no JSON object"),
        ('{"a.js": "/static/dist/a.js"}', "public_path"),
        ('{"a.js": "https://example.com/a.js"}', "public_path"),
        ('{"a.js": "../a.js"}', "not below"),
        ('{"a.js": {"file": "a.js", "css": ["x/../../b.css"]}}', "not below"),
        ('{"a.js": {"file": "a.js", "assets": ["\\u0000"]}}', "not below"),
        ('{"a.js": ""}', "not below"),
        (b"\xff".decode("latin-1"), "no JSON"),
    ],
)
def test_a_manifest_that_is_none(dist, content, expected):
    write(dist / "manifest.json", content)
    with pytest.raises(ConfigurationError, match=expected) as caught:
        configure().commit()
    assert str(dist / "manifest.json") in str(caught.value)


def test_a_manifest_is_read_again_in_development(dist, caplog):
    reload = {"pyramid.reload_assets": "true"}
    request = request_of(configure(settings=reload))
    name = "bundled:static/dist/a.js"
    # The bundler has not run yet; that is told once.
    for _ in range(3):
        assert request.static_path(name) == "/static/dist/a.js"
    (record,) = caplog.records
    assert "has no manifest" in record.getMessage()
    with pytest.raises(LookupError, match="has no manifest"):
        request.asset_tags("a.js")
    write(dist / "manifest.json", {"a.js": "a.3f2a9c81.js"})
    write(dist / "a.3f2a9c81.js", "")
    assert request.static_path(name) == "/static/dist/a.3f2a9c81.js"
    assert "3f2a9c81" in request.asset_tags("a.js")
    client = answer(Gateway(request.registry["app"]), "/static/dist/a.3f2a9c81.js")
    assert dict(client.response[1])[b"cache-control"].decode() == IMMUTABLE
    write(dist / "manifest.json", {"a.js": "a.ffffffffff11.js"}, time=TIME + 1)
    assert request.static_path(name) == "/static/dist/a.ffffffffff11.js"
    # What cannot be read leaves what was there before, and is told once.
    caplog.clear()
    write(dist / "manifest.json", "{", time=TIME + 2)
    for _ in range(3):
        assert request.static_path(name) == "/static/dist/a.ffffffffff11.js"
    (record,) = caplog.records
    assert "manifest.json cannot be used" in record.getMessage()


def test_otherwise_it_is_read_once(dist):
    vite(dist)
    request = request_of(configure())
    (dist / ".vite" / "manifest.json").unlink()
    url = request.static_path("bundled:static/dist/style.css")
    assert url == "/static/dist/assets/style-D4x5y6z7.css"


def test_it_works_where_requests_run(dist):
    vite(dist)

    def page(request):
        return Response(request.asset_tags("style.css"))

    async def coroutine(request):
        return page(request)

    config = configure(settings={"pyramid.reload_assets": "true"})
    for view in (page, coroutine):
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(view, route_name=view.__name__)
    app = Gateway(config.make_wsgi_app())
    for path in ("/page", "/coroutine"):
        client = answer(app, path)
        assert b"style-D4x5y6z7.css" in client.body


# The directive


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        ([""], {}, "takes the directory"),
        ([None], {}, "takes the directory"),
        (["static/dist"], {"server": "localhost:5173"}, "server='localhost:5173'"),
    ],
)
def test_arguments_that_are_not_allowed(dist, arguments, options, expected):
    with pytest.raises(ConfigurationError, match=expected) as caught:
        configure(*arguments, **options)
    assert "#asset-manifest" in str(caught.value)


def test_two_manifests_for_one_directory_conflict(dist):
    vite(dist)
    config = configure()
    config.add_asset_manifest("bundled:static/dist")
    with pytest.raises(ConfigurationConflictError):
        config.commit()


def test_manifests_are_introspectable(dist):
    vite(dist)
    config = configure()
    config.commit()
    (found,) = config.introspector.get_category("asset manifests")
    assert found["introspectable"]["directory"] == "bundled:static/dist/"


def test_versions_may_be_off(dist):
    vite(dist)
    request = request_of(configure(settings={"aioext.assets.version": "off"}))
    for name, expected in [
        ("plain.js", "plain.js"),
        ("style.css", "assets/style-D4x5y6z7.css"),
    ]:
        url = request.static_path(f"bundled:static/dist/{name}")
        assert url == f"/static/dist/{expected}"
    prevent = {"pyramid.prevent_cachebust": "true"}
    request = request_of(configure(settings=prevent))
    url = request.static_path("bundled:static/dist/style.css")
    assert url == "/static/dist/style.css"


# Which names have a hash


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("assets/main-BRBmoGS9.js", "src/main.js"),
        ("assets/main.4889e940.js", "main.js"),
        ("assets/shared-B7PI925R.js", None),
        ("shared-ChJ_j-JJ.css", None),
        ("main.3f2a9c81d4e5.chunk.js", "main.js"),
        ("my-long-component-5UjPuW-k.js", "src/my-long-component.js"),
        ("x.0a1b2c3d4e5f.js.map", None),
    ],
)
def test_a_name_has_a_hash(file, source):
    assert is_hashed(file, source)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("main.js", "src/main.js"),
        ("main.bundle.js", "main.js"),
        ("main.production.js", "main.js"),
        ("main.development2.js", "main.js"),
        ("shared-MyComponent.js", None),
        ("my-chart-v2.css", None),
        ("bootstrap-datepicker3.js", "bootstrap-datepicker3.js"),
        ("report-20240115.js", "report.js"),
        ("jquery-3.7.1.min.js", "jquery.js"),
        ("main-B7PI925R.js", "main-B7PI925R.js"),
        ("assets-B7PI925R/main.js", "main.js"),
        ("B7PI925R", None),
        ("main.js", None),
    ],
)
def test_a_name_has_no_hash(file, source):
    assert not is_hashed(file, source)

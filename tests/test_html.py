"""Templates: what they are sent as, and where they are rendered."""

import asyncio
import json

import pytest
from inprocess import EXECUTOR, LOOP, answer, make_app, where
from pyramid.config import Configurator
from pyramid.events import BeforeRender
from pyramid.exceptions import ConfigurationError
from pyramid.renderers import (
    get_renderer,
    null_renderer,
    render,
    render_to_response,
)
from pyramid.response import Response
from pyramid.threadlocal import get_current_request

from aioext import Pending, wait
from aioext.gateway import Gateway
from aioext.renderers.html import content_type_of

ENGINES = {
    ".mako": "${say()}",
    ".jinja2": "{{ say() }}",
    ".pt": "<p>${say()}</p>",
}

ADDONS = ["pyramid_mako", "pyramid_jinja2", "pyramid_chameleon"]


# Where the engines look for templates, in each test.
DIRECTORIES = {}


@pytest.fixture(autouse=True)
def directory(tmp_path):
    DIRECTORIES.update({f"{engine}.directories": str(tmp_path) for engine in SEARCH})
    return tmp_path


SEARCH = ["mako", "jinja2"]


@pytest.fixture
def template(directory):
    """Makes the file of a template; gives its name."""

    def make(name, text):
        path = directory / name
        path.write_text(text, "utf-8")
        return str(path) if name.endswith(".pt") else name

    return make


def app_with(*steps, settings=None):
    settings = DIRECTORIES | (settings or {})
    return make_app("aioext", *ADDONS, "aioext.renderers", *steps, settings=settings)


def serving(view, renderer, settings=None, **options):
    """An application with one view that gives a dictionary."""

    def configure(config):
        config.add_view(view, renderer=renderer, **options)

    return app_with(configure, settings=settings)


def content_type(client):
    return dict(client.headers)[b"content-type"].decode()


# Content types ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("page.mako", None),
        ("page.html.mako", "text/html"),
        ("page.HTML.pt", "text/html"),
        ("pkg:templates/feed.xml.mako", "application/xml"),
        ("feed.xml#item.mako", "application/xml"),
        ("feed.rss.jinja2", "application/rss+xml"),
        ("feed.atom.jinja2", "application/atom+xml"),
        ("data.json.mako", "application/json"),
        ("style.css.mako", "text/css"),
        ("script.js.mako", "text/javascript"),
        ("mail.txt.mako", "text/plain"),
        ("v1.html/page.mako", None),
        ("page.v2.mako", None),
        ("page.old.txt.mako", "text/plain"),
        (".mako", None),
        (".xml.mako", None),
        ("", None),
    ],
)
def test_the_inner_extension_is_the_content_type(name, expected):
    assert content_type_of(name) == expected


@pytest.mark.parametrize("extension", ENGINES)
@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ("", "text/html; charset=UTF-8"),
        (".html", "text/html; charset=UTF-8"),
        (".xml", "application/xml; charset=UTF-8"),
        (".json", "application/json"),
    ],
)
def test_a_page_is_sent_as_its_name_says(template, extension, inner, expected):
    name = template(f"feed{inner}{extension}", ENGINES[extension])
    client = answer(serving(lambda request: {"say": lambda: "é"}, name))
    assert content_type(client) == expected
    assert "é" in client.body.decode("utf-8")


def test_what_the_view_says_stays(template):
    def view(request):
        request.response.content_type = "text/x-own"
        return {}

    client = answer(serving(view, template("feed.xml.mako", "text")))
    assert content_type(client) == "text/x-own; charset=UTF-8"


def test_what_the_template_says_stays(template):
    text = '<% request.response.content_type = "text/x-own" %>'
    client = answer(serving(lambda request: {}, template("feed.xml.mako", text)))
    assert content_type(client) == "text/x-own; charset=UTF-8"


def test_a_response_that_a_view_renders_has_the_type_as_well(template):
    name = template("feed.xml.mako", "feed")

    def view(request):
        return render_to_response(name, {}, request=request)

    client = answer(app_with(lambda config: config.add_view(view)))
    assert content_type(client) == "application/xml; charset=UTF-8"


def test_a_text_that_a_view_renders_leaves_its_response_alone(template):
    mail = template("mail.txt.mako", "mail")

    def view(request):
        return {"mail": render(mail, {}, request=request)}

    client = answer(serving(view, template("page.mako", "<p>${mail}")))
    assert content_type(client) == "text/html; charset=UTF-8"
    assert client.body == b"<p>mail"


def test_without_a_request_there_is_nothing_to_set(template):
    name = template("mail.txt.mako", "mail")
    registry = app_with().app.registry
    config = Configurator(registry=registry)
    config.begin()
    try:
        assert render(name, {}) == "mail"
    finally:
        config.end()


def test_a_renderer_that_overrides_the_views_has_its_own_type(template):
    feed = template("feed.xml.mako", "feed")

    def view(request):
        request.override_renderer = feed
        return {}

    for options in {}, {"render": "executor"}, {"stream": True}:
        app = serving(view, template("page.html.mako", "page"), **options)
        client = answer(app)
        assert content_type(client) == "application/xml; charset=UTF-8"
        assert client.body == b"feed"


def test_an_application_without_the_renderers_is_unchanged(template):
    def configure(config):
        config.add_view(lambda request: {}, renderer=name)

    name = template("feed.xml.mako", "feed")
    client = answer(make_app("pyramid_mako", configure, settings=DIRECTORIES))
    assert content_type(client) == "text/html; charset=UTF-8"


def test_a_renderer_that_is_added_late_is_one_as_well(template):
    def renderer(info):
        return lambda value, system: "late"

    def commit(config):
        config.commit()
        config.include("aioext.renderers")
        config.add_renderer(".late", renderer)
        config.add_view(lambda request: {}, renderer="feed.xml.late")

    client = answer(app_with(commit))
    assert content_type(client) == "application/xml; charset=UTF-8"


def test_a_configuration_may_be_committed_at_once(template):
    config = Configurator(autocommit=True, settings=DIRECTORIES)
    config.include("pyramid_mako")
    config.include("aioext.renderers")
    name = template("feed.xml.mako", "feed")
    config.add_view(lambda request: {}, renderer=name)
    client = answer(Gateway(config.make_wsgi_app()))
    assert content_type(client) == "application/xml; charset=UTF-8"


def test_a_renderer_has_its_own_attributes(template):
    name = template("page.mako", "<p>")

    def view(request):
        return Response(get_renderer(name).template.uri)

    client = answer(app_with(lambda config: config.add_view(view)))
    assert client.body.decode() == name


# Where templates are rendered -------------------------------------------------


def in_template():
    """Called by a template: says where that is, after a wait."""

    async def pause():
        return "waited"

    assert wait(pause()) == "waited"
    assert get_current_request().path == "/"
    return where()


async def coroutine(request):
    return {"say": in_template}


def function(request):
    return {"say": in_template}


@pytest.mark.parametrize("view", [coroutine, function])
@pytest.mark.parametrize("extension", ENGINES)
@pytest.mark.parametrize(
    ("setting", "option", "place"),
    [
        (None, None, LOOP),
        ("inline", None, LOOP),
        ("executor", None, EXECUTOR),
        ("executor", "inline", LOOP),
        ("inline", "executor", EXECUTOR),
        (None, "executor", EXECUTOR),
    ],
)
def test_templates_are_rendered_where_it_is_said(
    template, extension, view, setting, option, place
):
    settings = {} if setting is None else {"aioext.render": setting}
    options = {} if option is None else {"render": option}
    name = template(f"page{extension}", ENGINES[extension])
    client = answer(serving(view, name, settings, **options))
    assert place in client.body.decode()


def test_a_request_in_a_thread_is_rendered_there(template):
    settings = {"aioext.sync_views": "request"}
    for option in "inline", "executor":
        name = template("page.mako", ENGINES[".mako"])
        client = answer(serving(function, name, settings, render=option))
        assert client.body.decode() == EXECUTOR


@pytest.mark.parametrize("place", ["inline", "executor"])
def test_what_a_subscriber_adds_is_there(template, place):
    def configure(config):
        config.add_subscriber(add_globals, BeforeRender)
        config.add_view(lambda request: {}, renderer=name, render=place)

    def add_globals(event):
        event["greet"] = lambda name: f"Hello {name}, {event['request'].path}"

    name = template("page.mako", "${greet('you')}")
    assert answer(app_with(configure)).body == b"Hello you, /"


BOTH = {
    ".mako": "${late} ${task.result()}",
    ".jinja2": "{{ late }} {{ task.result() }}",
    ".pt": "<p>${late} ${task.result()}</p>",
}


@pytest.mark.parametrize("place", ["inline", "executor"])
@pytest.mark.parametrize("extension", BOTH)
def test_coroutines_among_the_values_begin(template, extension, place):
    async def say(text):
        await asyncio.sleep(0)
        return text

    async def page(request):
        return {"late": say("<late>"), "task": asyncio.create_task(say("task"))}

    def configure(config):
        formats = {"html": name, "json": ("late", "task")}
        config.add_view(page, formats=formats, render=place)

    name = template(f"page{extension}", BOTH[extension])
    app = app_with(configure)
    assert b"&lt;late&gt; task" in answer(app).body
    client = answer(app, headers=[(b"host", b"h"), (b"accept", b"application/json")])
    assert json.loads(client.body) == {"late": "<late>", "task": "task"}


def test_other_renderers_run_where_their_view_says():
    class Thing:
        def __json__(self, request):
            return where()

    def view(request):
        return {"thing": Thing()}

    for options, place in ({}, LOOP), ({"render": "executor"}, EXECUTOR):
        settings = {"aioext.render": "inline"}
        client = answer(serving(view, "json", settings, **options))
        assert place in client.body.decode()


@pytest.mark.parametrize("extension", ENGINES)
@pytest.mark.parametrize("place", ["inline", "executor"])
def test_a_pending_is_its_result_in_a_template(template, extension, place):
    text = ENGINES[extension].replace("say()", "late")
    name = template(f"page{extension}", text)

    async def view(request):
        return {"late": Pending(asyncio.sleep(0.001, "<late>"))}

    client = answer(serving(view, name, render=place))
    assert "&lt;late&gt;" in client.body.decode()


def test_an_error_of_a_template_is_the_views(template):
    def configure(config):
        config.add_view(lambda request: {}, renderer=name, render="executor")
        config.add_exception_view(lambda error, request: Response(str(error)))

    name = template("page.jinja2", "{{ 1 / 0 }}")
    assert answer(app_with(configure)).body == b"division by zero"


def test_flush_does_nothing_in_a_page_that_is_sent_whole(template):
    for extension, text in (".mako", "a${flush()}b"), (".jinja2", "a{{ flush() }}b"):
        client = answer(serving(lambda request: {}, template(f"p{extension}", text)))
        assert client.body == b"ab"
        assert dict(client.headers)[b"content-length"] == b"2"


def test_a_view_may_have_its_own_flush(template):
    def view(request):
        return {"flush": lambda: "own"}

    assert answer(serving(view, template("p.mako", "${flush()}"))).body == b"own"


# What is refused --------------------------------------------------------------


@pytest.mark.parametrize("value", ["thread", True, "", 1])
def test_a_place_that_there_is_not_is_refused(template, value):
    name = template("page.mako", "")
    with pytest.raises(ConfigurationError, match=r"render=.*it takes") as raised:
        serving(function, name, render=value)
    assert "function" in str(raised.value)


def test_a_view_with_nothing_to_render_is_refused():
    with pytest.raises(ConfigurationError, match="nothing to render"):
        serving(function, None, render="executor")


@pytest.mark.parametrize("option", [{"stream": True}, {"render": "executor"}])
def test_a_notfound_view_that_appends_slashes_is_rendered_by_formats(template, option):
    name = template("page.mako", "none at ${where}")

    def missing(request):
        request.response.status = 404
        return {"where": request.path}

    def add(**options):
        return lambda config: config.add_notfound_view(
            missing, append_slash=True, **options, **option
        )

    with pytest.raises(ConfigurationError, match="renderer=null_renderer and formats="):
        app_with(add(renderer=name))
    app = app_with(add(renderer=null_renderer, formats={"html": name}))
    client = answer(app, "/nowhere")
    assert (client.status, client.body) == (404, b"none at /nowhere")


def test_a_setting_that_there_is_not_is_refused():
    with pytest.raises(ConfigurationError, match=r"aioext\.render is 'threads'"):
        app_with(settings={"aioext.render": "threads"})

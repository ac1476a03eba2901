"""pyramid_jinja2: filters that ask for the request, i18n; templates that wait."""

from addons import add_views, catalog, crowded, pause, site_of
from pyramid.threadlocal import get_current_request

DOMAIN = "shop"
GERMAN = {"Hello": "Hallo", ("an item", "items"): ("Ding", "Dinge")}
FRENCH = {"Hello": "Bonjour", ("an item", "items"): ("objet", "objets")}

FILES = {
    **catalog("de", DOMAIN, GERMAN),
    **catalog("fr", DOMAIN, FRENCH),
    "layout.jinja2": """\
{{ pause(request) }}{% block top %}{% endblock %} {{ pause(request) }}
{% block main %}{% endblock %} {{ name }}
""",
    # Imported without the context, so that it has no `request`.
    "parts.jinja2": """\
{% macro link(name) %}{{ wait_here() }}{{ "inline/page/{name}"|route_path(name=name) }}\
{% endmacro %}
{% macro greeting() %}{{ wait_here() }}{% trans %}Hello{% endtrans %}{% endmacro %}
""",
    "page.jinja2": """\
{% extends "layout.jinja2" %}
{% from "parts.jinja2" import link, greeting %}
{% block top %}{{ greeting() }} {{ _("Hello") }}{% endblock %}
{% block main %}
{{ link(name) }}
{{ "coroutine/page/{name}"|route_url(name=name) }}
{% trans count=count %}an item{% pluralize %}items{% endtrans %}
{{ name|shout }} {{ request.context|resource_url(name) }}
{% include "included.jinja2" %}
{% endblock %}
""",
    "included.jinja2": "{{ pause(request) }}{{ name }}",
}

SETTINGS = {
    "jinja2.directories": "FILES",
    "jinja2.i18n.domain": DOMAIN,
    "jinja2.undefined": "strict",
    "jinja2.filters": """
        shout = test_addon_jinja2.shout
        route_path = pyramid_jinja2.filters:route_path_filter
        route_url = pyramid_jinja2.filters:route_url_filter
        resource_url = pyramid_jinja2.filters:resource_url_filter
    """,
    "jinja2.globals": "wait_here = test_addon_jinja2.wait_here",
    "available_languages": "en de fr",
}

# By locale: the greeting, and the plural.
WORDS = {
    "en": ("Hello", "an item", "items"),
    "de": ("Hallo", "Ding", "Dinge"),
    "fr": ("Bonjour", "objet", "objets"),
}


def shout(text):
    """A filter that waits."""
    wait_here()
    return text.upper()


def wait_here():
    return pause(get_current_request())


def page(request):
    name = request.matchdict["name"]
    yield
    return {"name": name, "pause": pause, "count": len(name)}


def configure(config):
    config.include("pyramid_jinja2")
    config.add_translation_dirs(f"{config.registry.settings['files']}/locale")
    add_views(config, "/page/{name}", page, renderer="page.jinja2")


site = site_of(configure, SETTINGS, files=FILES)


@crowded
def test_a_page_is_in_its_reader_s_language(site, crowd):
    names = [f"n{number}" if number % 2 else "n" for number, _ in crowd]
    locales = [list(WORDS)[number % 4 % 3] for number, _ in crowd]
    paths = [
        f"/{kind}/page/{name}?_LOCALE_={locale}"
        for name, locale, (_, kind) in zip(names, locales, crowd, strict=True)
    ]
    answers = site.overlap(paths, crowd.order)
    for name, locale, answer in zip(names, locales, answers, strict=True):
        greeting, singular, plural = WORDS[locale]
        assert answer.text.split("\n")[0].strip() == f"{greeting} {greeting}"
        assert [line.strip() for line in answer.text.split("\n")[1:] if line] == [
            f"/inline/page/{name}",
            f"http://localhost/coroutine/page/{name}",
            singular if len(name) == 1 else plural,
            f"{name.upper()} http://localhost/{name}",
            name,
            name,
        ]

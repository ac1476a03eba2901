"""pyramid_chameleon: macros, slots, translations; templates that wait."""

from addons import add_views, catalog, crowded, crowded_by_few, pause, site_of
from pyramid.threadlocal import get_current_request

DOMAIN = "shop"

FILES = {
    **catalog("de", DOMAIN, {"Hello, ${name}!": "Hallo, ${name}!", "Bye": "Auf bald"}),
    **catalog("fr", DOMAIN, {"Hello, ${name}!": "Bonjour, ${name}!", "Bye": "Salut"}),
    "layout.pt": """\
<html metal:define-macro="page" i18n:domain="shop"
    xmlns:i18n="http://xml.zope.org/namespaces/i18n"
    xmlns:metal="http://xml.zope.org/namespaces/metal">
<h1 i18n:translate="">Hello, <b i18n:name="name">${wait_for(request, name)}</b>!</h1>
<div metal:define-slot="main"/>
<p title="Bye" i18n:attributes="title">${wait_for(request, name)}</p>
</html>
""",
    "page.pt": """\
<html metal:use-macro="load: layout.pt"
    xmlns:metal="http://xml.zope.org/namespaces/metal"
    xmlns:tal="http://xml.zope.org/namespaces/tal">
<div metal:fill-slot="main" i18n:domain="shop"
    xmlns:i18n="http://xml.zope.org/namespaces/i18n">\
<i tal:repeat="part name">${wait_for(request, part)}</i>\
<u tal:define="found current().matchdict['name']" i18n:translate="">Bye</u>\
${current().matchdict['name']}</div>
</html>
""",
    "mail.txt": """\
Dear ${wait_for(request, name)}, ${current().matchdict['name']}""",
}

# By locale: the greeting and the farewell.
WORDS = {
    "en": ("Hello", "Bye"),
    "de": ("Hallo", "Auf bald"),
    "fr": ("Bonjour", "Salut"),
}


def wait_for(request, text):
    assert request is get_current_request()
    pause(request)
    return text


def page(request):
    name = request.matchdict["name"]
    yield
    return {"name": name, "wait_for": wait_for, "current": get_current_request}


def configure(config):
    config.include("pyramid_chameleon")
    files = config.registry.settings["files"]
    config.add_translation_dirs(f"{files}/locale")
    add_views(config, "/page/{name}", page, renderer=f"{files}/page.pt")
    add_views(config, "/mail/{name}", page, renderer=f"{files}/mail.txt")


site = site_of(configure, files=FILES)


@crowded
def test_a_page_is_in_its_reader_s_language(site, crowd):
    # All names are equally long, for the page waits in a loop over their letters.
    names = [f"{number:03}" for number, _ in crowd]
    locales = [list(WORDS)[number % 4 % 3] for number, _ in crowd]
    paths = [
        f"/{kind}/page/{name}?_LOCALE_={locale}"
        for name, locale, (_, kind) in zip(names, locales, crowd, strict=True)
    ]
    answers = site.overlap(paths, crowd.order)
    for name, locale, answer in zip(names, locales, answers, strict=True):
        hello, bye = WORDS[locale]
        assert f"<h1>{hello}, <b>{name}</b>!</h1>" in answer.text
        letters = "\n".join(f"<i>{letter}</i>" for letter in name)
        assert f"<div>{letters}<u>{bye}</u>{name}</div>" in answer.text
        assert f'<p title="{bye}">{name}</p>' in answer.text


@crowded_by_few
def test_a_template_may_be_plain_text(site, crowd):
    paths = crowd.paths("/mail/{}")
    for number, answer in enumerate(site.overlap(paths, crowd.order)):
        assert answer.text == f"Dear {number}, {number}"

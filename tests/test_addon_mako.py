"""pyramid_mako: inheritance, parts, filters; templates that wait."""

from urllib.parse import quote

from addons import add_views, crowded, crowded_by_few, pause, site_of
from pyramid.response import Response
from pyramid.threadlocal import get_current_request
from pyramid_mako import MakoRenderingException

FILES = {
    "layout.mako": """\
<%namespace name="parts" file="parts.mako"/>
${pause(request)}
[${self.title()}] ${parts.signed(name)} ${next.body()} ${pause(request)} ${name}
""",
    "parts.mako": """\
<%page args="name=None"/>
<%def name="signed(name)" filter="trim">\
${pause(current())}${current().matchdict["name"]}-${name}\
</%def>
<%def name="only()">${name} ${pause(request)} ${current().matchdict["name"]}</%def>
""",
    "page.mako": """\
<%inherit file="layout.mako"/>
<%def name="title()">${caller_of(request)}</%def>
<%include file="included.mako" args="number=2"/>
${name | n,shout} ${name}
""",
    "fails.mako": """\
${pause(request)}
<%
    try:
        raise KeyError("first " + name)
    except KeyError:
        pause(request)
        raise
%>
""",
    "included.mako": """\
<%page args="number"/>${pause(request)}${name * number}
""",
}

SETTINGS = {
    "mako.directories": "FILES",
    "mako.module_directory": "FILES/compiled",
    "mako.strict_undefined": "true",
    "mako.imports": """
        from test_addon_mako import shout
        from pyramid.threadlocal import get_current_request as current
    """,
}


def shout(text):
    """A filter that waits."""
    pause(get_current_request())
    return text.upper()


def caller_of(request):
    assert request is get_current_request()
    return request.matchdict["name"]


def page(request):
    name = request.matchdict["name"]
    yield
    return {"name": name, "pause": pause, "caller_of": caller_of}


def failed(error, request):
    assert request is get_current_request()
    return Response(str(error), status=500)


def configure(config):
    config.include("pyramid_mako")
    config.add_exception_view(failed, context=MakoRenderingException)
    add_views(config, "/page/{name}", page, renderer="page.mako")
    add_views(config, "/only/{name}", page, renderer="parts#only.mako")
    add_views(config, "/fails/{name}", page, renderer="fails.mako")


site = site_of(configure, SETTINGS, files=FILES)


def escaped(name):
    return name.replace("<", "&lt;").replace(">", "&gt;")


@crowded
def test_every_part_of_a_page_is_its_own(site, crowd):
    names = [f"<é{number}>" for number, _ in crowd]
    paths = crowd.paths(f"/page/{quote('<é')}{{}}{quote('>')}")
    for name, answer in zip(names, site.overlap(paths, crowd.order), strict=True):
        shown = escaped(name)
        assert answer.text.split() == [
            f"[{shown}]",
            f"{shown}-{shown}",
            shown * 2,
            name.upper(),
            shown,
            shown,
        ]


@crowded_by_few
def test_a_def_of_a_template_is_a_renderer(site, crowd):
    paths = crowd.paths("/only/{}")
    for number, answer in enumerate(site.overlap(paths, crowd.order)):
        assert answer.text.split() == [str(number), str(number)]


@crowded_by_few
def test_the_error_of_a_template_tells_of_its_own_page(site, crowd):
    paths = crowd.paths("/fails/n{}")
    for number, answer in enumerate(site.overlap(paths, crowd.order)):
        assert answer.status == 500
        assert answer.text.strip().endswith(f"KeyError: 'first n{number}'")

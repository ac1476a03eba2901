"""Pyramid's i18n: every request speaks its own language, also after it has waited."""

import asyncio

from addons import (
    BACKWARDS,
    Ask,
    add_views,
    catalog,
    crowded,
    in_every_kind,
    pause,
    site_of,
)
from pyramid.i18n import TranslationStringFactory, get_locale_name, get_localizer
from pyramid.response import Response
from pyramid.threadlocal import get_current_request

from aioext import spawn_greenlet, use_executor, wait
from aioext.config import CoroutineMapper

DOMAIN = "shop"
LOCALES = "af bg ca da de el eo es et eu fi fo gl gu fy it nb nl sq sv".split()
_ = TranslationStringFactory(DOMAIN)

FILES = {
    "page.mako": """\
${translate(_("Hello"))}|${pause(request)}${translate(_("Hello"))}|${text}|
${pause(request)}${pluralize("${n} item", "${n} items", 2)}""",
}
for locale in LOCALES:
    translations = {
        "Hello": f"Hello in {locale}",
        ("${n} item", "${n} items"): (f"one {locale}", f"${{n}} {locale}"),
    }
    FILES |= catalog(locale, DOMAIN, translations)


# The application


def configure(config):
    config.include("pyramid_mako")
    config.add_translation_dirs(f"{config.registry.settings['files']}/locale")
    config.set_locale_negotiator(negotiate)
    config.add_subscriber(add_translations, "pyramid.events.BeforeRender")
    add_views(config, "/page", page, renderer="page.mako")
    add_views(config, "/texts", texts, renderer="json")
    add_views(config, "/broken", broken)
    config.add_exception_view(failed, context=BrokenError, mapper=CoroutineMapper)


async def negotiate(request):
    """Asks elsewhere; does not know for some requests."""
    await asyncio.sleep(0)
    return request.headers.get("X-Locale")


async def add_translations(event):
    await asyncio.sleep(0)
    localizer = event["request"].localizer
    event.update(
        _=_,
        pause=pause,
        translate=localizer.translate,
        pluralize=lambda one, many, n: localizer.pluralize(
            one, many, n, domain=DOMAIN, mapping={"n": n}
        ),
    )


def page(request):
    yield
    text = request.localizer.translate(_("Hello"))
    yield
    return {"text": text}


def texts(request):
    """What the request is told in all the places where it may ask."""
    before = request.localizer.translate(_("Hello"))
    yield
    elsewhere = wait(ask_elsewhere())
    yield
    return {
        "before": before,
        "after": request.localizer.translate(_("Hello")),
        "name": [request.locale_name, get_locale_name(request)],
        **elsewhere,
    }


async def ask_elsewhere():
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(spawn_greenlet(hello))
    return {
        "coroutine": hello(),
        "thread": await use_executor(hello)(),
        "task": task.result(),
    }


def hello():
    return get_localizer(get_current_request()).translate(_("Hello"))


class BrokenError(Exception):
    pass


def broken(request):
    yield
    raise BrokenError


async def failed(error, request):
    await asyncio.sleep(0)
    return Response(hello(), status=503)


# The tests

site = site_of(configure, {"mako.directories": "FILES"}, files=FILES)


def in_languages(paths):
    """Requests, each in another language than its neighbours; every tenth in none."""
    locales = [
        LOCALES[number % len(LOCALES)] if number % 10 else None
        for number in range(len(paths))
    ]
    asks = [
        Ask(path, headers={"X-Locale": locale} if locale else {})
        for path, locale in zip(paths, locales, strict=True)
    ]
    return asks, locales


def expected(locale):
    return "Hello" if locale is None else f"Hello in {locale}"


@crowded
def test_a_template_that_waits_is_in_one_language(site, crowd):
    asks, locales = in_languages(crowd.paths("/page"))
    for locale, answer in zip(locales, site.overlap(asks, crowd.order), strict=True):
        text = expected(locale)
        parts = answer.text.replace("None", "").replace("\n", "").split("|")
        assert parts == [text, text, text, f"2 {locale or 'items'}"]


@crowded
def test_the_language_is_the_request_s_everywhere(site, crowd):
    asks, locales = in_languages(crowd.paths("/texts"))
    for locale, answer in zip(locales, site.overlap(asks, crowd.order), strict=True):
        places = ["before", "after", "coroutine", "thread", "task"]
        assert answer.json() == {
            **dict.fromkeys(places, expected(locale)),
            "name": [locale or "en"] * 2,
        }


@in_every_kind
def test_an_error_is_told_in_the_request_s_language(site, kind):
    asks, locales = in_languages([f"/{kind}/broken"] * 20)
    for locale, answer in zip(locales, site.overlap(asks, BACKWARDS), strict=True):
        assert (answer.status, answer.text) == (503, expected(locale))

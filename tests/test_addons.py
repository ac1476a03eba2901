"""The tests of add-ons: what they stand on, and the documentation's table of them."""

import csv
import importlib
import threading
from importlib import metadata
from pathlib import Path

import pytest
from addons import (
    BACKWARDS,
    FEW,
    FORWARDS,
    KINDS,
    Ask,
    Crowd,
    add_views,
    crowded,
    in_every_kind,
    meet,
    pause,
    served,
    site_of,
)
from packaging.version import Version
from pyramid.threadlocal import get_current_request

from aioext import wait

HERE = Path(__file__).parent

shared = threading.local()
entered = []


def own(request):
    before = get_current_request() is request
    yield
    after = get_current_request() is request
    yield
    return {"name": request.matchdict["name"], "is_own": [before, after]}


def mixed(request):
    shared.name = request.matchdict["name"]
    yield
    return {"name": getattr(shared, "name", None)}


def order_of(request):
    yield
    entered.append(request.matchdict["name"])
    return {"before": len(entered) - 1}


def echo(request):
    yield
    request.response.headers["X-Method"] = request.method
    return {
        "path": request.path_info,
        "query": dict(request.GET),
        "body": request.text,
        "header": request.headers.get("X-Own"),
    }


def configure(config):
    add_views(config, "/own/{name}", own, renderer="json")
    add_views(config, "/mixed/{name}", mixed, renderer="json")
    add_views(config, "/echo/{name}", echo, renderer="json")
    add_views(config, "/order/{name}", order_of, renderer="json")


site = site_of(configure)


@crowded
def test_everybody_gets_an_answer_of_its_own(site, crowd):
    paths = crowd.paths("/own/{}")
    for number, answer in enumerate(site.overlap(paths, crowd.order)):
        assert answer.status == 200
        assert answer.json() == {"name": str(number), "is_own": [True, True]}


@pytest.mark.parametrize("order", [FORWARDS, BACKWARDS])
def test_what_is_mixed_up_is_noticed(site, order):
    crowd = Crowd(("coroutine", "inline"), FEW, order)
    paths = crowd.paths("/mixed/{}")
    found = {answer.json()["name"] for answer in site.overlap(paths, crowd.order)}
    # All were there before the first went on.
    assert len(found) == 1


@pytest.mark.parametrize("kind", ["coroutine", "inline"])
@pytest.mark.parametrize("order", [FORWARDS, BACKWARDS])
def test_they_go_on_in_the_order_that_was_asked_for(site, kind, order):
    first = site.ask(f"/{kind}/order/first").json()["before"] + 1
    paths = [f"/{kind}/order/{number}" for number in range(20)]
    before = [answer.json()["before"] - first for answer in site.overlap(paths, order)]
    assert before == sorted(before, reverse=order == BACKWARDS)
    assert sorted(before) == list(range(20))


@in_every_kind
def test_one_request_is_enough(site, kind):
    answer = site.ask(f"/{kind}/own/one")
    assert answer.json()["is_own"] == [True, True]
    assert answer.headers["content-type"] == "application/json"
    assert site.ask("/nowhere").status == 404


@in_every_kind
def test_a_request_is_what_was_asked(site, kind):
    asks = [
        Ask(f"/{kind}/echo/%C3%A9{n}?q={n}", "POST", {"X-Own": str(n)}, b"body %d" % n)
        for n in range(20)
    ]
    for number, answer in enumerate(site.overlap(asks, FORWARDS)):
        assert answer.headers["X-Method"] == "POST"
        assert answer.json() == {
            "path": f"/{kind}/echo/é{number}",
            "query": {"q": str(number)},
            "body": f"body {number}",
            "header": str(number),
        }


def failing(request):
    yield
    raise KeyError("fails")


def configure_failing(config):
    add_views(config, "/fails", failing)


def test_what_fails_in_process_fails_the_test():
    with served("process", configure_failing) as site:
        with pytest.raises(KeyError):
            site.ask("/coroutine/fails")


def test_what_fails_on_the_worker_fails_the_test():
    with pytest.raises(AssertionError, match="Traceback"):
        with served("worker", configure_failing) as site:
            assert site.ask("/coroutine/fails").status == 500


def metering(handler, registry):
    def tween(request):
        pause(request)
        response = handler(request)
        wait(meet(request))
        return response

    return tween


def configure_tween(config):
    config.add_tween("test_addons.metering")
    configure(config)


@crowded
def test_they_meet_in_tweens_as_well(crowd):
    with served("process", configure_tween) as site:
        paths = crowd.paths("/own/{}")
        for number, answer in enumerate(site.overlap(paths, crowd.order)):
            assert answer.json() == {"name": str(number), "is_own": [True, True]}


# Where an add-on's views show their number, and in which kinds of them.
PAGES = {
    "test_addon_chameleon": "/mail/{}",
    "test_addon_exclog": "/handled/{}",
    "test_addon_jinja2": "/page/{}",
    "test_addon_mako": "/only/{}",
    "test_addon_services": "/folder/{}",
}


@pytest.mark.parametrize("name", PAGES)
def test_an_add_on_may_be_included_before_aioext(name):
    tested = importlib.import_module(name)
    settings = getattr(tested, "SETTINGS", {})
    files = getattr(tested, "FILES", {})
    crowd = Crowd(tuple(KINDS), FEW, FORWARDS)
    with served(
        "process", tested.configure, settings, files=files, is_last=True
    ) as site:
        paths = crowd.paths(PAGES[name])
        for number, answer in enumerate(site.overlap(paths, crowd.order)):
            assert str(number) in answer.text


# The table of the documentation


def rows():
    """The rows of the table, by the add-on's name."""
    with open(HERE.parent / "docs" / "addons.csv", encoding="utf-8") as lines:
        return {row["Add-on"].strip("`"): row for row in csv.DictReader(lines)}


# Where each is tested, and by which name it is found there.
TESTED = {
    "SQLAlchemy": ("test_sqlalchemy.py", "aioext.sqlalchemy"),
    "aiosqlite": ("sqlalchemy_apps.py", "aiosqlite"),
    "asyncpg": ("test_sqlalchemy_servers.py", "asyncpg"),
    "cornice": ("test_addon_cornice.py", "aioext.cornice"),
    "opentelemetry-instrumentation-pyramid": (
        "test_addon_opentelemetry.py",
        "PyramidInstrumentor",
    ),
    "opentelemetry-instrumentation-wsgi": (
        "test_addon_opentelemetry.py",
        "OpenTelemetryMiddleware",
    ),
    "psycopg": ("test_sqlalchemy_load.py", "psycopg"),
    "pyramid_beaker": ("test_addon_session.py", "pyramid_beaker"),
    "pyramid_chameleon": ("test_addon_chameleon.py", "pyramid_chameleon"),
    "pyramid_debugtoolbar": ("test_addon_debugtoolbar.py", "pyramid_debugtoolbar"),
    "pyramid_exclog": ("test_addon_exclog.py", "pyramid_exclog"),
    "pyramid_jinja2": ("test_addon_jinja2.py", "pyramid_jinja2"),
    "pyramid_mako": ("test_addon_mako.py", "pyramid_mako"),
    "pyramid_openapi3": ("test_addon_openapi3.py", "pyramid_openapi3"),
    "pyramid_retry": ("test_addon_retry.py", "pyramid_retry"),
    "pyramid_services": ("test_addon_services.py", "pyramid_services"),
    "pyramid_session_redis": ("test_addon_session.py", "pyramid_session_redis"),
    "pyramid_tm": ("test_addon_tm.py", "pyramid_tm"),
    "transaction": ("test_addon_tm.py", "transaction"),
    "zope.sqlalchemy": ("test_sqlalchemy.py", "zope"),
}


def test_the_table_has_what_is_tested():
    assert rows().keys() == TESTED.keys()


@pytest.mark.parametrize("name", TESTED)
def test_a_row_of_the_table_is_right(name):
    file, mentioned = TESTED[name]
    assert mentioned in (HERE / file).read_text("utf-8")
    installed = Version(metadata.version(name))
    told = rows()[name]["Version"]
    assert told == f"{installed.major}.{installed.minor}", (
        f"{name} {installed} is installed: change its version in docs/addons.csv"
    )


def test_every_test_of_an_add_on_is_in_the_table():
    files = {path.name for path in HERE.glob("test_addon_*.py")}
    # Its translations are Pyramid's own.
    assert files - {"test_addon_i18n.py"} <= {file for file, _ in TESTED.values()}

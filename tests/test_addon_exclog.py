"""pyramid_exclog: what is logged is the request that failed."""

import asyncio
import configparser
import logging
import re
from pathlib import Path

import pytest
from addons import add_views, crowded, crowded_by_few, in_every_kind, pause, site_of
from asgi import Client
from inprocess import make_app
from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response
from pyramid.threadlocal import get_current_request


class Refused(Exception):
    """Is not logged."""


class Keeper(logging.Handler):
    """Keeps what is logged, for :func:`report`."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        error = record.exc_info[1]
        self.records.append((record.getMessage(), repr(error)))


keeper = Keeper()


def keep():
    logger = logging.getLogger("exc_logger")
    logger.propagate = False
    logger.handlers[:] = [keeper]
    keeper.records.clear()


def message(request):
    """The message of a request; finding it takes a while."""
    assert get_current_request() is request
    pause(request)
    return f"{request.path} {request.GET.get('q')}"


def handled(request):
    yield
    raise KeyError(request.path)


def unhandled(request):
    yield
    raise ValueError(request.path)


def ignored(request):
    yield
    pause(request)
    raise (Refused if request.matchdict["name"] == "0" else HTTPNotFound)(request.path)


def answered(error, request):
    pause(request)
    return Response(str(error), status=500)


def report(request):
    """What was logged since the last time."""
    records, keeper.records = keeper.records, []
    return records


def make_unhandled(handler, registry):
    """A tween that answers what nobody has answered below exclog's."""

    def tween(request):
        try:
            return handler(request)
        except ValueError as error:
            return Response(f"unhandled {error}", status=500)

    return tween


def configure(config):
    config.include("pyramid_exclog")
    config.add_tween(
        "test_addon_exclog.make_unhandled", over="pyramid_exclog.exclog_tween_factory"
    )
    for view in (handled, unhandled, ignored):
        add_views(config, f"/{view.__name__}/{{name}}", view)
    config.add_exception_view(answered, context=KeyError)
    config.add_exception_view(answered, context=Refused)
    config.add_route("report", "/report")
    config.add_view(report, route_name="report", renderer="json")
    keep()


SETTINGS = {
    "exclog.get_message": "test_addon_exclog.message",
    "exclog.ignore": "pyramid.httpexceptions.HTTPNotFound test_addon_exclog.Refused",
}
site = site_of(configure, SETTINGS)


@crowded
def test_a_handled_error_is_logged_with_its_request(site, crowd):
    site.ask("/report")
    paths = crowd.paths("/handled/{}")
    asks = [f"{path}?q={number}" for number, path in enumerate(paths)]
    for path, answer in zip(paths, site.overlap(asks, crowd.order), strict=True):
        assert answer.status == 500
        assert answer.text == repr(path)
    logged = [tuple(each) for each in site.ask("/report").json()]
    expected = [(f"{path} {n}", f"KeyError({path!r})") for n, path in enumerate(paths)]
    assert sorted(logged) == sorted(expected)


@crowded_by_few
def test_an_unhandled_error_is_logged_with_its_request(site, crowd):
    site.ask("/report")
    paths = crowd.paths("/unhandled/{}")
    for path, answer in zip(paths, site.overlap(paths, crowd.order), strict=True):
        assert answer.text == f"unhandled {path}"
    logged = [tuple(each) for each in site.ask("/report").json()]
    expected = [(f"{path} None", f"ValueError({path!r})") for path in paths]
    assert sorted(logged) == sorted(expected)


@in_every_kind
def test_what_is_ignored_is_not_logged(site, kind):
    site.ask("/report")
    paths = [f"/{kind}/ignored/{number}" for number in range(20)]
    assert {answer.status for answer in map(site.ask, paths)} == {404, 500}
    assert site.ask("/report").json() == []


PAGE = Path(__file__).parent.parent / "docs" / "addons.rst"


def documented():
    """The setting that the documentation recommends."""
    block = re.search(r"    (exclog.ignore =\n(?:        .*\n)+)", PAGE.read_text())[1]
    parser = configparser.ConfigParser()
    parser.read_string(f"[app]\n{block}")
    return dict(parser["app"])


@pytest.mark.parametrize("settings", [{}, documented()])
def test_a_client_that_leaves_is_logged_unless_it_is_ignored(settings, run):
    keep()
    entered = asyncio.Event()

    async def view(request):
        entered.set()
        await asyncio.Event().wait()

    app = make_app(
        "pyramid_exclog",
        lambda config: config.add_view(view),
        settings=settings,
    )

    async def leave():
        client = Client()
        task = client.start(app)
        await entered.wait()
        client.leave()
        await asyncio.wait([task])

    run(leave())
    assert [error for _, error in keeper.records] == (
        [] if settings else ["CancelledError()"]
    )

"""What the page on contexts says is right after a wait, and what is not."""

import asyncio
import contextvars
import decimal
import locale
import logging
import threading
import warnings
from decimal import Decimal, localcontext

import pytest
from addons import BACKWARDS, FORWARDS, add_views, crowded, served, site_of
from pyramid.decorator import reify
from pyramid.response import Response
from test_docs import execute

from aioext import spawn_greenlet, use_executor, wait
from aioext.config import InlineMapper

page = execute("contexts")
log = logging.getLogger("test.contexts")


# The application


class Records(logging.Handler):
    """Keeps what its filters have added to records, by message."""

    def __init__(self):
        super().__init__()
        self.found = {}

    def emit(self, record):
        told = [record.path, record.customer, record.by_thread]
        self.found.setdefault(record.getMessage(), []).append(told)


class Local(threading.local):
    customer = "-"


records = Records()
local = Local()
account_lock = threading.Lock()


def by_thread(record):
    """A filter that keeps what it adds where it is wrong."""
    record.by_thread = local.customer
    return True


def configure(config):
    records.filters = [page["RequestFilter"](), by_thread]
    log.handlers = [records]
    log.setLevel(logging.INFO)
    log.propagate = False
    config.add_tween(f"{__name__}.customer_tween")
    for view, pattern in [
        (digits, "/digits/{name}"),
        (logged, "/logged/{name}"),
        (warned, "/warned/{name}"),
        (formatted, "/formatted/{name}"),
        (locked, "/locked/{name}"),
    ]:
        add_views(config, pattern, view, renderer="json")
    config.add_route("reified", "/reified")
    config.add_view(reified, route_name="reified", renderer="json")


def customer_tween(handler, registry):
    def tween(request):
        token = page["customer"].set(request.path.rpartition("/")[2])
        try:
            return handler(request)
        finally:
            page["customer"].reset(token)

    return tween


def digits(request):
    """The digits of a third, in the context of a request, at each place."""
    with localcontext(prec=int(request.matchdict["name"]) + 1):
        before = third()
        yield
        elsewhere = wait(third_elsewhere())
        yield
        return [before, *elsewhere, third()]


def third():
    return len(str(Decimal(1) / 3)) - len("0.")


async def third_elsewhere():
    await asyncio.sleep(0)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(spawn_greenlet(third))
    return [third(), await use_executor(third)(), task.result()]


def logged(request):
    """What the filters have added to a request's records, at each place."""
    name = request.matchdict["name"]
    local.customer = name
    yield
    log.info(name)
    wait(log_elsewhere(name))
    yield
    log.info(name)
    return records.found.pop(name)


async def log_elsewhere(name):
    await asyncio.sleep(0)
    log.info(name)
    await use_executor(log.info)(name)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(spawn_greenlet(log.info, name))


def warned(request):
    """What a request is warned of while it does not wait."""
    texts = []
    for _ in range(3):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.warn(request.matchdict["name"], stacklevel=1)
        texts += [str(each.message) for each in caught]
        yield
    return texts


def formatted(request):
    """A price in the language of the request, before and after a wait."""
    name = int(request.matchdict["name"])
    request.locale_name = ("de", "en")[name % 2]
    before = page["price"](request)["price"]
    yield
    return [before, page["price"](request)["price"]]


# What is changed by many requests at once, under a lock.
balance = 0


def locked(request):
    global balance
    for _ in range(100):
        with account_lock:
            before = balance
            balance = before + 1
    yield
    return balance


class Property:
    @reify
    def value(self):
        wait(asyncio.sleep(0.001))
        return "reified"


def reified(request):
    return Property().value


# The tests

# Contexts have nothing to do with a server.
site = site_of(configure, places=("process",))


@crowded
def test_decimals_have_the_precision_of_their_request(site, crowd):
    answers = site.overlap(crowd.paths("/digits/{}"), crowd.order)
    for (number, _), answer in zip(crowd, answers, strict=True):
        assert answer.json() == [number + 1] * 5


@crowded
def test_records_tell_of_their_request(site, crowd):
    paths = crowd.paths("/logged/{}")
    answers = site.overlap(paths, crowd.order)
    mixed = 0
    for (number, kind), path, answer in zip(crowd, paths, answers, strict=True):
        for *told, by_thread in answer.json():
            assert told == [path, str(number)]
            mixed += kind != "executor" and by_thread != str(number)
        assert len(answer.json()) == 5
    if crowd.kinds != ("executor",):
        assert mixed, "a thread-local has become right: say so in the page"


@pytest.mark.parametrize("kind", ["coroutine", "inline"])
def test_warnings_are_caught_where_nothing_waits(site, kind):
    paths = [f"/{kind}/warned/{number}" for number in range(20)]
    for number, answer in enumerate(site.overlap(paths, BACKWARDS)):
        assert answer.json() == [str(number)] * 3


@crowded
def test_numbers_are_formatted_in_the_request_s_language(site, crowd):
    answers = site.overlap(crowd.paths("/formatted/{}"), crowd.order)
    for (number, _), answer in zip(crowd, answers, strict=True):
        assert answer.json() == [("1.234,5", "1,234.5")[number % 2]] * 2


@crowded
def test_a_lock_excludes_where_nothing_waits(site, crowd):
    before = max(each.json() for each in site.overlap(["/inline/locked/0"], FORWARDS))
    answers = site.overlap(crowd.paths("/locked/{}"), crowd.order)
    assert {each.json() for each in answers} == {before + 100 * crowd.count}


def test_what_is_reified_may_wait_everywhere_at_once(site):
    for answer in site.overlap(["/reified"] * 40, FORWARDS):
        assert answer.json() == "reified"


def test_the_example_of_decimals():
    class Service:
        async def total(self):
            await asyncio.sleep(0)
            return 1

    class Request:
        def __init__(self, digits):
            self.registry = services
            self.params = {"digits": digits}

    async def main():
        shares = [spawn_greenlet(page["share"], Request(each)) for each in (2, 5)]
        return await asyncio.gather(*shares)

    services = {"service": Service()}
    assert asyncio.run(main()) == [{"share": "0.33"}, {"share": "0.33333"}]


def test_the_example_of_tracing_is_an_application():
    from webtest import TestApp

    app = TestApp(page["main"]())
    with pytest.raises(KeyError, match="digits"):
        app.get("/share")


# What is wrong, as the page says


async def overlap(*functions):
    """Call functions, each of which waits for the others; the first goes on first."""
    waiting = []

    async def meet():
        loop = asyncio.get_running_loop()
        waiting.append(loop.create_future())
        if len(waiting) == len(functions):
            # Not at once: the last one that comes is not to be the first that goes.
            loop.call_soon(release)
        await waiting[-1]

    def release():
        for each in waiting:
            each.set_result(None)

    calls = [spawn_greenlet(each, lambda: wait(meet())) for each in functions]
    return await asyncio.gather(*calls)


def test_a_decimal_context_of_the_process_is_everybody_s(run):
    def change(meet):
        decimal.getcontext().prec = 6
        meet()

    def look(meet):
        meet()
        return decimal.getcontext().prec

    with localcontext():
        # The process has one, which every Task has a reference to.
        assert run(overlap(change, look)) == [None, 6]
    # Where it has none, each has its own.
    context = asyncio.run(in_new_context(overlap, change, look))
    assert context == [None, decimal.DefaultContext.prec]


async def in_new_context(function, *args):
    loop = asyncio.get_running_loop()
    return await loop.create_task(function(*args), context=contextvars.Context())


def test_filters_of_warnings_stay_wrong_after_a_wait(run):
    def catch(meet):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            meet()

    before = list(warnings.filters)
    with warnings.catch_warnings():
        run(overlap(catch, catch))
        assert list(warnings.filters) != before


def test_the_locale_of_the_process_is_everybody_s(run):
    def change(meet):
        locale.setlocale(locale.LC_CTYPE, "C")
        meet()

    def look(meet):
        meet()
        return locale.setlocale(locale.LC_CTYPE)

    before = locale.setlocale(locale.LC_CTYPE)
    try:
        assert run(overlap(change, look)) == [None, "C"]
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


def test_thread_locals_are_right_in_a_thread_for_each_request():
    with served("process", configure_keeping, {"aioext.sync_views": "request"}) as site:
        for number, answer in enumerate(site.overlap(KEEPING, BACKWARDS)):
            assert answer.text == str(number)


KEEPING = [f"/keeping/{number}" for number in range(20)]


def configure_keeping(config):
    config.add_route("keeping", "/keeping/{name}")
    config.add_view(keeping, route_name="keeping", mapper=InlineMapper)


def keeping(request):
    local.customer = request.matchdict["name"]
    wait(asyncio.sleep(0.001))
    return Response(local.customer)

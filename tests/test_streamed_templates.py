"""Streamed templates: the head of a page is sent before the slow part is there."""

import asyncio
import concurrent.futures
import functools
import gc
import logging
import weakref

import pytest
import sqlalchemy
from asgi import Client
from gate import Gate, is_ours, on_a_loop
from inprocess import EXECUTOR, LOOP, answer, make_app, where
from pyramid import testing
from pyramid.csrf import CookieCSRFStoragePolicy, get_csrf_token
from pyramid.events import BeforeRender
from pyramid.exceptions import ConfigurationError
from pyramid.request import Request
from pyramid.response import Response
from pyramid.threadlocal import get_current_request
from pyramid.tweens import EXCVIEW
from pyramid.view import render_view_to_response
from pyramid_mako import MakoRenderingException
from sqlalchemy.util import await_only

from aioext import wait
from aioext.pending import Pending
from aioext.renderers import unsent
from aioext.renderers.page import ENOUGH

ENGINES = {"mako": ("${", "}"), "jinja2": ("{{", "}}")}

# Where the template runs: the settings, and the options of the view.
MODES = {
    "inline": ({}, {}),
    "executor": ({}, {"render": "executor"}),
    "request": ({"aioext.sync_views": "request"}, {}),
}
PLACES = {"inline": LOOP, "executor": EXECUTOR, "request": EXECUTOR}


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture
def directory(tmp_path):
    return tmp_path


class Site:
    """Makes applications with one streamed view, and the templates for it."""

    def __init__(self, directory, engine, mode):
        self.directory = directory
        self.engine = engine
        self.settings, self.options = MODES[mode]

    def write(self, name, text):
        """Make a template of a text in which ``[[...]]`` is an expression."""
        begin, end = ENGINES[self.engine]
        text = text.replace("[[", begin).replace("]]", end)
        (self.directory / f"{name}.{self.engine}").write_text(text, "utf-8")
        return f"{name}.{self.engine}"

    def app(self, view, text, *steps, name="page", **options):
        renderer = self.write(name, text)
        options = {"stream": True} | self.options | options

        def configure(config):
            config.add_view(view, renderer=renderer, **options)

        return self.app_of(configure, *steps)

    def app_of(self, *steps):
        settings = {f"{self.engine}.directories": str(self.directory)} | self.settings
        addon = f"pyramid_{self.engine}"
        included = ("aioext", addon, "aioext.renderers")
        return make_app(*included, *steps, settings=settings)


@pytest.fixture
def site(directory, engine, mode):
    return Site(directory, engine, mode)


@pytest.fixture
def mako(directory):
    return Site(directory, "mako", "inline")


QUERY = sqlalchemy.text("select 42")


async def none(request):
    return {}


# The head first ---------------------------------------------------------------


@on_a_loop
async def test_the_head_is_sent_before_what_is_slow(site):
    gate = Gate()

    async def view(request):
        return {"title": "<T>", "slow": Pending(gate.wait())}

    client = Client()
    task = client.start(site.app(view, "<h1>[[title]]</h1>[[slow]]<p>end"))
    await client.until_body(b"<h1>&lt;T&gt;</h1>")
    assert client.status == 200
    headers = dict(client.headers)
    assert headers[b"content-type"] == b"text/html; charset=UTF-8"
    assert headers[b"x-accel-buffering"] == b"no"
    assert b"content-length" not in headers
    assert not gate.left.is_set()
    gate.opened.set()
    await task
    assert client.parts == [b"<h1>&lt;T&gt;</h1>", b"&lt;late&gt;<p>end"]
    assert client.ended


@on_a_loop
async def test_each_wait_sends_what_there_is(site):
    gates = [Gate("1"), Gate("2"), Gate("3")]

    def view(request):
        return {"gates": gates}

    text = "a[[gates[0]()]]b[[gates[1]()]]c[[gates[2]()]]d"
    client = Client()
    task = client.start(site.app(view, text))
    for number, body in enumerate([b"a", b"a1b", b"a1b2c"]):
        await client.until_body(body)
        gates[number].opened.set()
    await task
    assert client.parts == [b"a", b"1b", b"2c", b"3d"]


@on_a_loop
async def test_awaitables_among_the_values_become_pending(site):
    gates = [Gate("1"), Gate("2")]

    async def view(request):
        task = asyncio.create_task(gates[1].wait())
        return {"coroutine": gates[0].wait(), "task": task}

    client = Client()
    task = client.start(site.app(view, "a[[coroutine]]b[[task]]c[[task]]"))
    await client.until_body(b"a")
    # Both have begun.
    for gate in reversed(gates):
        await gate.reached.wait()
        gate.opened.set()
    await task
    assert client.body == b"a1b2c2"


@on_a_loop
async def test_the_template_has_its_request_all_the_time(site, mode):
    gate = Gate("")

    def configure(config):
        config.set_root_factory(lambda request: "root")
        config.add_subscriber(add_names, BeforeRender)

    def add_names(event):
        event["tell"] = lambda: (
            f"{get_current_request() is event['request']} "
            f"{get_current_request().context} {event.rendering_val['own']} {where()}"
        )

    def view(request):
        return {"own": 1, "slow": gate}

    client = Client()
    app = site.app(view, "[[tell()]][[slow()]], [[tell()]]", configure)
    task = client.start(app)
    told = f"True root 1 {PLACES[mode]}".encode()
    await client.until_body(told)
    gate.opened.set()
    await task
    assert client.body == told + b", " + told


def use_csrf_tokens(config):
    config.set_csrf_storage_policy(CookieCSRFStoragePolicy())


@pytest.mark.parametrize("is_early", [True, False])
@on_a_loop
async def test_a_cookie_that_is_too_late_is_told(site, caplog, is_early):
    gate = Gate("slow")
    gate.opened.set()

    def view(request):
        if is_early:
            get_csrf_token(request)
        return {"slow": gate}

    app = site.app(view, "head [[slow()]] [[get_csrf_token()]]", use_csrf_tokens)
    client = Client()
    await client.call(app)
    token = client.body.split()[-1]
    cookies = [value for name, value in client.headers if name == b"set-cookie"]
    if is_early:
        assert token in cookies[0]
        assert not caplog.messages
    else:
        assert not cookies
        assert "'page" in caplog.text
        assert "has set a cookie after the first part" in caplog.text


@on_a_loop
async def test_a_cookie_of_a_page_that_is_sent_whole_is_not_lost(site, caplog):
    app = site.app(lambda request: {}, "[[get_csrf_token()]]", use_csrf_tokens)
    client = Client()
    await client.call(app)
    assert client.body in dict(client.headers)[b"set-cookie"]
    assert not caplog.messages


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@on_a_loop
async def test_overlapping_pages_are_apart(site, order):
    gates = {"first": Gate(), "second": Gate()}

    def look():
        return get_current_request().params["name"]

    def view(request):
        return {"look": look, "slow": lambda: gates[look()]() and ""}

    app = site.app(view, "[[look()]][[slow()]] [[look()]]")
    clients = [Client(query_string=f"name={n}".encode()) for n in gates]
    tasks = [client.start(app) for client in clients]
    for gate in gates.values():
        await gate.reached.wait()
    for number in order:
        list(gates.values())[number].opened.set()
        await asyncio.wait([tasks[number]])
    assert [each.body for each in clients] == [b"first first", b"second second"]


# When it is sent --------------------------------------------------------------


@on_a_loop
async def test_a_page_without_a_wait_is_sent_whole(site):
    async def view(request):
        request.response.status = 201
        return {"slow": Pending(asyncio.sleep(0, "early"))}

    client = await Client().call(site.app(none, "page[[flush and '']]"))
    assert client.body == b"page"
    assert dict(client.headers)[b"content-length"] == b"4"
    client = await Client().call(site.app(view, "[[slow]]"))
    assert (client.status, client.body) == (201, b"early")
    assert dict(client.headers)[b"content-length"] == b"5"


@on_a_loop
async def test_white_space_does_not_make_a_page(site):
    gate = Gate()

    def view(request):
        return {"slow": gate}

    client = Client()
    task = client.start(site.app(view, " \n[[slow() and '']]page"))
    await gate.reached.wait()
    assert not client.started
    gate.opened.set()
    await task
    assert client.body == b" \npage"
    assert b"content-length" in dict(client.headers)


@on_a_loop
async def test_flush_sends_what_there_is(site):
    def view(request):
        return {"say": wait_never}

    def wait_never():
        return "b"

    client = await Client().call(site.app(view, "a[[flush()]][[say()]][[flush()]]c"))
    assert client.parts == [b"a", b"b", b"c"]


@on_a_loop
async def test_a_view_may_have_its_own_flush(mako):
    async def view(request):
        return {"flush": lambda: "own"}

    client = await Client().call(mako.app(view, "${flush()}"))
    assert client.body == b"own"


@on_a_loop
async def test_a_long_page_is_sent_in_parts_and_held_by_its_client(site):
    made = []

    def row(number):
        made.append(number)
        return "x" * 1024

    def view(request):
        return {"rows": map(row, range(1000))}

    loops = {
        "mako": "% for row in rows:\n${row}\n% endfor\n",
        "jinja2": "{% for row in rows %}{{ row }}\n{% endfor %}",
    }
    client = Client()
    client.reads.clear()
    task = client.start(site.app(view, loops[site.engine]))
    await client.until(lambda: client.is_sent_to)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(made) <= 2 * ENOUGH // 1024 + 1
    client.reads.set()
    await task
    assert client.body == (b"x" * 1024 + b"\n") * 1000
    assert max(map(len, client.parts)) < 2 * ENOUGH


@on_a_loop
async def test_the_text_is_in_the_encoding_of_the_response(site):
    gate = Gate("ß")

    def view(request):
        request.response.charset = "latin-1"
        return {"slow": gate}

    client = Client()
    task = client.start(site.app(view, "é[[slow()]]"))
    await client.until_body(b"\xe9")
    gate.opened.set()
    await task
    assert client.body == b"\xe9\xdf"


@on_a_loop
async def test_the_name_of_the_template_says_its_type(site):
    gate = Gate()
    client = Client()
    app = site.app(none, "a[[flush()]]b", name="feed.xml")
    await client.call(app)
    assert client.parts == [b"a", b"b"]
    assert dict(client.headers)[b"content-type"] == b"application/xml; charset=UTF-8"
    assert not gate.reached.is_set()


@on_a_loop
async def test_nobody_gets_the_body_of_head(site):
    gate = Gate()

    def view(request):
        return {"slow": gate}

    client = await Client(method="HEAD").call(site.app(view, "a[[slow()]]"))
    assert (client.status, client.body) == (200, b"")
    assert gate.outcome in (None, "cancelled")


# Errors -----------------------------------------------------------------------


class Expected(Exception):
    """Raised on purpose."""


def fail():
    raise Expected("on purpose")


def with_error_page(config):
    for error in Expected, MakoRenderingException:
        config.add_exception_view(error_page, context=error)


def error_page(error, request):
    assert request is get_current_request()
    return Response(f"{type(error).__name__}", status=500)


@pytest.mark.parametrize("text", ["a[[fail()]]", " [[slow() and '']] [[fail()]]"])
@on_a_loop
async def test_an_error_before_the_head_has_an_error_page(site, text):
    def view(request):
        return {"fail": fail, "slow": lambda: wait(asyncio.sleep(0, "x"))}

    client = await Client().call(site.app(view, text, with_error_page))
    name = "MakoRenderingException" if site.engine == "mako" else "Expected"
    assert (client.status, client.body) == (500, name.encode())


@on_a_loop
async def test_an_error_after_the_head_cuts_the_response(site):
    gate = Gate()

    def view(request):
        return {"fail": fail, "slow": gate}

    client = Client()
    app = site.app(view, "a[[slow() and '']]b[[fail()]]c", with_error_page)
    task = client.start(app)
    await client.until_body(b"a")
    gate.opened.set()
    await asyncio.wait([task])
    assert "on purpose" in str(task.exception())
    assert client.body == b"ab"
    assert not client.ended


@on_a_loop
async def test_the_error_of_a_pending_is_the_templates(site):
    gate = Gate()

    async def lost():
        await gate.wait()
        raise Expected("on purpose")

    async def view(request):
        return {"lost": lost()}

    client = Client()
    task = client.start(site.app(view, "a[[lost]]b"))
    await client.until_body(b"a")
    gate.opened.set()
    await asyncio.wait([task])
    assert "on purpose" in str(task.exception())
    assert (client.body, client.ended) == (b"a", False)


@on_a_loop
async def test_what_cannot_be_encoded_is_an_error(mako):
    def view(request):
        request.response.charset = "latin-1"
        return {}

    client = Client()
    task = client.start(mako.app(view, "a${flush()}€"))
    await asyncio.wait([task])
    assert isinstance(task.exception(), UnicodeEncodeError)
    assert (client.body, client.ended) == (b"a", False)


def test_a_value_that_is_no_dictionary_is_an_error(mako):
    async def view(request):
        return 7

    def show(config):
        config.add_exception_view(lambda error, request: Response(str(error)))

    assert b"takes a dictionary" in answer(mako.app(view, "", show)).body


# Clients that leave, and responses that are not sent --------------------------


@on_a_loop
async def test_the_template_ends_where_it_waits_when_the_client_leaves(site, caplog):
    gate = Gate()
    unused = Gate()

    def view(request):
        return {"slow": gate, "unused": unused.wait()}

    client = Client()
    with caplog.at_level(logging.INFO):
        task = client.start(site.app(view, "a[[slow()]]b"))
        await client.until_body(b"a")
        await gate.reached.wait()
        client.leave()
        await asyncio.wait([task])
    assert gate.outcome == "cancelled"
    await unused.left.wait()
    assert unused.outcome == "cancelled"
    assert client.body == b"a"
    assert not caplog.records


@on_a_loop
async def test_a_template_that_is_held_ends_when_the_client_leaves(site):
    ended = []

    def rows():
        try:
            while True:
                yield "x" * 1024
        finally:
            ended.append(where())

    def view(request):
        return {"rows": rows()}

    loops = {
        "mako": "% for row in rows:\n${row}\n% endfor\n",
        "jinja2": "{% for row in rows %}{{ row }}{% endfor %}",
    }
    client = Client()
    client.reads.clear()
    task = client.start(site.app(view, loops[site.engine]))
    await client.until(lambda: client.is_sent_to)
    client.leave()
    await asyncio.wait([task])
    gc.collect()
    assert ended


@on_a_loop
async def test_a_request_that_is_cancelled_before_the_head_ends_the_template(site):
    gate = Gate()

    def view(request):
        return {"slow": gate}

    client = Client()
    task = client.start(site.app(view, " [[slow()]]b"))
    await gate.reached.wait()
    client.leave()
    await asyncio.wait([task])
    await gate.left.wait()
    assert gate.outcome == "cancelled"
    assert not client.started


@pytest.mark.parametrize("end", ["another response", "another body", "an error"])
@on_a_loop
async def test_a_page_that_is_not_sent_ends(site, end, monkeypatch):
    monkeypatch.setattr(unsent, "PATIENCE", 0.01)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow():
        try:
            return gate()
        finally:
            loop.call_soon_threadsafe(ended.set)

    def replace(handler, registry):
        def tween(request):
            # An error refers to this frame, the request to the error, and the template
            # to the request.
            request.replaced = handler(request)
            if end == "an error":
                raise Expected
            if end == "another body":
                return Response(app_iter=iter([b"another"]))
            return Response("another")

        return tween

    def configure(config):
        config.add_tween(f"{__name__}.replacing", under=EXCVIEW)
        with_error_page(config)

    globals()["replacing"] = replace

    def view(request):
        return {"slow": slow}

    gate = Gate()
    client = await Client().call(site.app(view, "a[[slow()]]b", configure))
    assert client.body in (b"another", b"Expected")
    await ended.wait()
    # What the template was about to wait for had not begun.
    assert gate.outcome is None


# The transaction --------------------------------------------------------------


@on_a_loop
async def test_what_the_template_waits_for_begins_after_the_commit(site):
    events = []

    async def load(name):
        events.append(name)
        await asyncio.sleep(0)
        return name

    def committing(handler, registry):
        def tween(request):
            response = handler(request)
            wait(asyncio.sleep(0))
            events.append("commit")
            return response

        return tween

    globals()["committing"] = committing

    def view(request):
        return {"load": lambda name: wait(load(name))}

    app = site.app(
        view,
        "[[load('first') and '']] head [[load('second')]] [[load('third')]]",
        lambda config: config.add_tween(f"{__name__}.committing"),
    )
    client = await Client().call(app)
    assert client.body.split() == [b"head", b"second", b"third"]
    assert events == ["first", "commit", "second", "third"]


@on_a_loop
async def test_what_a_session_asks_for_before_the_commit_is_in_its_transaction(site):
    events = []

    async def ask(name):
        await asyncio.sleep(0)
        events.append(name)
        return name

    def committing(handler, registry):
        def tween(request):
            response = handler(request)
            events.append("commit")
            return response

        return tween

    globals()["committing"] = committing

    def view(request):
        # As SQLAlchemy's sessions do.
        return {
            "query": lambda name: await_only(ask(name)),
            "load": lambda name: wait(ask(name)),
        }

    app = site.app(
        view,
        "head [[query('first')]] [[load('second')]] [[query('third')]]",
        lambda config: config.add_tween(f"{__name__}.committing"),
    )
    client = await Client().call(app)
    assert client.body == b"head first second third"
    assert client.parts[0] == b"head first "
    assert events == ["first", "commit", "second", "third"]


@on_a_loop
async def test_a_session_is_used_before_the_commit_and_not_after(site, directory):
    site.settings = site.settings | {
        "sqlalchemy.url": f"sqlite+aiosqlite:///{directory}/test.sqlite",
        "aioext.sync_views": site.settings.get("aioext.sync_views", "inline"),
    }

    def view(request):
        query = functools.partial(request.dbsession.scalar, QUERY)
        later = functools.partial(getattr, request, "dbsession")
        return {"query": query, "later": later}

    app = site.app(
        view,
        "head [[query()]] [[flush()]] [[later()]]",
        lambda config: config.include("aioext.sqlalchemy"),
    )
    client = Client()
    task = client.start(app)
    await asyncio.wait([task])
    assert (client.body, client.ended) == (b"head 42  ", False)
    assert "request.dbsession" in str(task.exception())


# Threads ----------------------------------------------------------------------


@on_a_loop
async def test_pages_in_threads_need_no_thread_of_the_views(directory):
    site = Site(directory, "mako", "request")
    site.settings = site.settings | {"aioext.executor_workers": "1"}
    gates = [Gate("1"), Gate("2")]

    def view(request):
        return {"slow": gates.pop(0)}

    first, second = gates
    app = site.app(view, "a${slow()}")
    clients = [Client(), Client()]
    tasks = [client.start(app) for client in clients]
    await clients[0].until_body(b"a")
    first.opened.set()
    await clients[1].until_body(b"a")
    second.opened.set()
    await asyncio.gather(*tasks)
    assert [client.body for client in clients] == [b"a1", b"a2"]


def test_a_plain_server_streams_as_well(directory, engine):
    site = Site(directory, engine, "inline")
    gate = concurrent.futures.Future()

    async def slow():
        return await asyncio.wrap_future(gate)

    def view(request):
        return {"slow": slow(), "where": where}

    app = site.app(view, "[[where()]][[slow]] [[where()]]").app
    response = Request.blank("/").get_response(app)
    parts = iter(response.app_iter)
    assert next(parts) == EXECUTOR.encode()
    gate.set_result("late")
    assert b"".join(parts) == f"late {EXECUTOR}".encode()
    response.app_iter.close()


def test_a_plain_server_ends_the_template(directory, engine):
    site = Site(directory, engine, "inline")
    began, ended = concurrent.futures.Future(), concurrent.futures.Future()

    async def never():
        began.set_result(True)
        try:
            await asyncio.Event().wait()
        finally:
            ended.set_result(True)

    def view(request):
        return {"slow": lambda: wait(never())}

    response = Request.blank("/").get_response(site.app(view, "a[[slow()]]").app)
    parts = iter(response.app_iter)
    assert next(parts) == b"a"
    assert began.result(timeout=10)
    response.app_iter.close()
    assert ended.result(timeout=10)


# What is left -----------------------------------------------------------------


@on_a_loop
async def test_a_page_that_was_sent_leaves_nothing_behind(directory):
    # Mako's contexts refer to themselves, streamed or not.
    site = Site(directory, "jinja2", "inline")
    requests = []

    def view(request):
        requests.append(weakref.ref(request))
        return {"slow": asyncio.sleep(0, "late"), "unused": asyncio.Event().wait()}

    app = site.app(view, "head [[slow]]")
    gc.collect()
    gc.disable()
    try:
        for end in b"head late", b"head ":
            client = Client(method="GET" if end == b"head late" else "HEAD")
            await asyncio.create_task(client.call(app))
        # What was pending and not used was cancelled.
        if left := list(filter(is_ours, asyncio.all_tasks())):
            await asyncio.wait(left)
        del left
        # Their callbacks, and those of what these end, have a turn each.
        for _ in range(20):
            await asyncio.sleep(0)
        assert [reference() for reference in requests] == [None, None]
    finally:
        gc.enable()


# Mako and Jinja2 --------------------------------------------------------------


@on_a_loop
async def test_the_layout_of_a_page_is_sent_first(site):
    gate = Gate()
    layouts = {
        "mako": "<html>${next.body()}</html>",
        "jinja2": "<html>{% block body %}{% endblock %}</html>",
    }
    pages = {
        "mako": '<%inherit file="layout.mako"/>${slow()}',
        "jinja2": '{% extends "layout.jinja2" %}'
        "{% block body %}{{ slow() }}{% endblock %}",
    }
    site.write("layout", layouts[site.engine])

    def view(request):
        return {"slow": gate}

    client = Client()
    task = client.start(site.app(view, pages[site.engine]))
    await client.until_body(b"<html>")
    gate.opened.set()
    await task
    assert client.body == b"<html>&lt;late&gt;</html>"


@on_a_loop
async def test_a_def_of_a_mako_template_is_streamed(mako):
    gate = Gate()

    def view(request):
        return {"slow": gate, "name": "n", "context": "root"}

    text = "<%def name='part(name)'>${name}${slow()}${_context}</%def>never"
    mako.write("parts", text)

    def configure(config):
        config.add_view(view, renderer="parts#part.mako", stream=True)

    client = Client()
    task = client.start(mako.app_of(configure))
    await client.until_body(b"n")
    gate.opened.set()
    await task
    assert client.body == b"n&lt;late&gt;root"


@on_a_loop
async def test_a_page_of_mako_takes_its_arguments(mako):
    async def view(request):
        return {"number": 3}

    text = '<%page args="number, other=4"/>${number}${flush()}${other}'
    client = await Client().call(mako.app(view, text))
    assert client.parts == [b"3", b"4"]
    text = "${flush() + str(pageargs['number'])}"
    client = await Client().call(mako.app(view, text))
    assert client.body == b"3"


# Options ----------------------------------------------------------------------


@pytest.mark.parametrize("value", ["yes", 2, [1]])
def test_a_stream_that_is_no_boolean_is_refused(mako, value):
    with pytest.raises(ConfigurationError, match=r"stream=.*True or False"):
        mako.app(none, "", stream=value)


@on_a_loop
async def test_one_of_several_formats_is_streamed(site):
    gate = Gate()
    renderer = site.write("page", "<h1>[[title]]</h1>[[slow()]]")
    formats = {"html": renderer, "json": ("title",)}

    def view(request):
        return {"title": "T", "slow": gate}

    def configure(config):
        config.add_view(view, formats=formats, stream=True, **site.options)

    app = site.app_of(configure)
    accept = [(b"accept", b"application/json")]
    client = await Client(headers=accept).call(app)
    assert client.body == b'{"title": "T"}'
    client = Client()
    task = client.start(app)
    await client.until_body(b"<h1>T</h1>")
    gate.opened.set()
    await task
    assert client.body == b"<h1>T</h1>&lt;late&gt;"


def test_a_format_that_cannot_be_streamed_is_refused(mako):
    formats = {"html": "page.pt", "json": ("title",)}

    def configure(config):
        config.include("pyramid_chameleon")
        config.add_view(none, formats=formats, stream=True)

    with pytest.raises(ConfigurationError, match="only as a whole"):
        mako.app_of(configure)


def test_a_stream_may_be_turned_off(mako):
    app = mako.app(none, "a${flush()}b", stream=False)
    assert answer(app).body == b"ab"


@pytest.mark.parametrize(
    ("renderer", "message"),
    [
        ("page.pt", "can be rendered only as a whole"),
        ("page.genshi", "there is no renderer '.genshi'"),
        (None, "nothing to render"),
    ],
)
def test_what_cannot_be_streamed_is_refused(mako, renderer, message):
    def configure(config):
        config.include("pyramid_chameleon")
        config.add_view(none, renderer=renderer, stream=True)

    with pytest.raises(ConfigurationError, match=message) as raised:
        mako.app_of(configure)
    assert "none" in str(raised.value)


@pytest.mark.parametrize("addons", [[], ["pyramid_mako"]])
@pytest.mark.parametrize("option", ["renderer", "formats"])
def test_a_view_is_tested_with_a_dummy_renderer(addons, option):
    with testing.testConfig() as config:
        for addon in [*addons, "aioext.renderers"]:
            config.include(addon)
        renderer = config.testing_add_renderer("page.mako")
        rendered = {"renderer": "page.mako", "formats": {"html": "page.mako"}}[option]
        config.add_view(lambda request: {"a": 1}, stream=True, **{option: rendered})
        response = render_view_to_response(None, testing.DummyRequest())
        assert response.status_code == 200
        assert renderer.a == 1


def test_a_view_that_returns_a_response_returns_it(mako):
    async def view(request):
        return Response("its own")

    assert answer(mako.app(view, "")).body == b"its own"

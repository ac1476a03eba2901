"""How large the body of a request may be, on the servers of every kind."""

import asyncio
import contextlib
import io
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from asgi import Client
from inprocess import make_app
from life import APPS, ENVIRON
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.httpexceptions import HTTPRequestEntityTooLarge
from pyramid.response import Response
from pyramid.testing import DummyRequest
from pyramid.view import render_view_to_response
from servers import COMMANDS, DEADLINE, WORKER, free_port, run
from websockets.sync.client import connect

from aioext import wait
from aioext.config.limits import limited_view
from aioext.gateway import Gateway
from aioext.limits import KEY, BodyLimit, BodyTooLarge, LimitedInput, limit_body
from aioext.settings import Settings
from aioext.testing import TestApp

LIMIT = 10
SETTINGS = {"aioext.max_body": str(LIMIT)}

READS = {
    "read": lambda body: body.read(),
    "read(None)": lambda body: body.read(None),
    "read(n)": lambda body: b"".join(iter(lambda: body.read(3), b"")),
    "read(more)": lambda body: body.read(1000),
    "readline": lambda body: b"".join(iter(body.readline, b"")),
    "readline(n)": lambda body: b"".join(iter(lambda: body.readline(3), b"")),
    "readline(-1)": lambda body: b"".join(iter(lambda: body.readline(-1), b"")),
    "readlines": lambda body: b"".join(body.readlines()),
    "iteration": lambda body: b"".join(body),
}


# The setting


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("0", 0),
        (5, 5),
        (" 104857600 ", 104857600),
        ("7 B", 7),
        ("1k", 1024),
        ("1KiB", 1024),
        ("1 kB", 1000),
        ("100MiB", 104857600),
        ("100m", 104857600),
        ("100MB", 100_000_000),
        ("2GiB", 2 * 1024**3),
        ("2G", 2 * 1024**3),
        ("2GB", 2_000_000_000),
    ],
)
def test_a_size_has_a_unit(value, size):
    assert Settings({"aioext.max_body": value}).max_body == size


@pytest.mark.parametrize(
    "value", ["", "-1", "1.5MiB", "100MBit", "MiB", "1TiB", None, True, 1.5, "\u0661"]
)
def test_a_size_is_nothing_else(value):
    with pytest.raises(ConfigurationError) as refused:
        Settings({"aioext.max_body": value})
    assert (
        f"The setting aioext.max_body is {value!r}; it takes a number of bytes, as "
        "100MiB or 104857600, 0 for no limit."
    ) in str(refused.value)


# The input


class File(io.BytesIO):
    """An input; ``given`` is how much has been read of it."""

    @property
    def given(self):
        return self.tell()


def limited(body, maximum=LIMIT):
    file = File(body)
    limit = BodyLimit(maximum, None)
    return LimitedInput(file, limit), file, limit


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("body", [b"", b"a", b"ab\ncd\n", b"\n" * LIMIT, b"x" * LIMIT])
def test_a_body_within_the_limit_is_read_as_it_is(read, body):
    limited_input, _, limit = limited(body)
    assert read(limited_input) == body
    assert limited_input.read() == limited_input.readline() == b""
    assert limit.taken == len(body)


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("body", [b"x" * 1000, b"\n" * 1000, b"xy\n" * 1000])
def test_no_more_than_one_byte_beyond_the_limit_is_read(read, body):
    limited_input, file, _ = limited(body)
    with pytest.raises(BodyTooLarge, match="larger than 10 bytes"):
        read(limited_input)
    assert file.given == LIMIT + 1


@pytest.mark.parametrize("first", READS.values(), ids=READS)
def test_there_is_nothing_to_read_after_that(first):
    limited_input, file, _ = limited(b"x" * 1000)
    for read in (first, *READS.values()):
        with pytest.raises(BodyTooLarge):
            read(limited_input)
    assert file.given == LIMIT + 1


def test_lines_are_read_up_to_a_hint():
    limited_input, _, _ = limited(b"ab\ncd\nef")
    assert limited_input.readlines(4) == [b"ab\n", b"cd\n"]
    assert limited_input.readlines(0) == [b"ef"]


def test_the_limit_may_be_raised_while_the_body_is_read():
    limited_input, _, limit = limited(b"x" * 20)
    assert limited_input.read(8) == b"x" * 8
    limit.maximum = 20
    assert limited_input.read() == b"x" * 12


def test_the_limit_may_be_lifted():
    limited_input, _, limit = limited(b"x" * 20)
    limit.maximum = None
    assert limited_input.read() == b"x" * 20


def test_the_limit_may_be_lowered_below_what_was_read():
    limited_input, _, limit = limited(b"x" * 9)
    limited_input.read(8)
    limit.maximum = 5
    with pytest.raises(BodyTooLarge, match="larger than 5 bytes"):
        limit.check()
    with pytest.raises(BodyTooLarge):
        limited_input.read()


# The environ


CHUNKED = {"HTTP_TRANSFER_ENCODING": "chunked"}


def environ_of(length=None, **others):
    environ = {"wsgi.input": File(b"x" * 100), **others}
    if length is not None:
        environ["CONTENT_LENGTH"] = length
    return environ


@pytest.mark.parametrize("length", [None, "", "0"])
def test_a_request_without_a_body_keeps_its_input(length):
    environ = environ_of(length)
    body = environ["wsgi.input"]
    limit_body(environ, LIMIT)
    assert environ["wsgi.input"] is body


@pytest.mark.parametrize("length", ["1", str(LIMIT), "0010"])
def test_a_request_that_declares_as_much_keeps_its_input(length):
    environ = environ_of(length)
    body = environ["wsgi.input"]
    limit_body(environ, LIMIT)
    assert environ["wsgi.input"] is body
    assert environ[KEY].maximum == LIMIT


@pytest.mark.parametrize("length", ["11", "0" * 30 + "11", "1" * 5000])
def test_a_request_that_declares_more_is_refused(length):
    environ = environ_of(length)
    body = environ["wsgi.input"]
    with pytest.raises(BodyTooLarge):
        limit_body(environ, LIMIT)
    with pytest.raises(BodyTooLarge):
        environ["wsgi.input"].read(1)
    assert body.given == 0


@pytest.mark.parametrize(
    "environ",
    [
        environ_of(HTTP_TRANSFER_ENCODING="chunked"),
        environ_of(**{"wsgi.input_terminated": True}),
        environ_of("many", **{"wsgi.input_terminated": True}),
        environ_of("-1"),
        environ_of("+50"),
        environ_of(" 50"),
        environ_of("5_0"),
        environ_of("\u0665\u0660"),
    ],
)
def test_what_declares_nothing_is_counted(environ):
    limit_body(environ, LIMIT)
    with pytest.raises(BodyTooLarge):
        environ["wsgi.input"].read()


def test_a_length_may_be_known_before_and_the_limit_be_lowered():
    environ = environ_of("8")
    limit_body(environ, LIMIT)
    environ[KEY].maximum = 7
    with pytest.raises(BodyTooLarge, match="larger than 7 bytes"):
        environ[KEY].check()


@pytest.mark.parametrize(("outer", "inner"), [(5, 50), (50, 5)])
def test_the_lower_limit_of_two_applications_holds(outer, inner):
    environ = environ_of(HTTP_TRANSFER_ENCODING="chunked")
    limit_body(environ, outer)
    body = environ["wsgi.input"]
    limit_body(environ, inner)
    assert environ["wsgi.input"] is body
    with pytest.raises(BodyTooLarge, match="larger than 5 bytes"):
        body.read()


# In process


@pytest.mark.parametrize("outer", [{"length": "8"}, CHUNKED, {"length": "11"}])
def test_another_body_has_a_limit_of_its_own(outer):
    environ = environ_of(**outer)
    with contextlib.suppress(BodyTooLarge):
        limit_body(environ, LIMIT)
    environ |= {"wsgi.input": File(b"x" * 100), "CONTENT_LENGTH": "100"}
    with pytest.raises(BodyTooLarge, match="larger than 50 bytes"):
        limit_body(environ, 50)
    environ |= {"wsgi.input": File(b"x" * 100), "CONTENT_LENGTH": "", **CHUNKED}
    limit_body(environ, 50)
    with pytest.raises(BodyTooLarge, match="larger than 50 bytes"):
        environ["wsgi.input"].read()


async def read_in_coroutine(request):
    await asyncio.sleep(0)
    return Response(b"%d" % len(request.body))


def read_in_thread(request):
    return Response(b"%d" % len(request.body_file.read()))


def read_form(request):
    return Response(",".join(request.POST))


def never_read(request):
    return Response(b"unread")


VIEWS = {each.__name__: each for each in (read_in_coroutine, read_in_thread, read_form)}


def app_of(view, *steps, sync_views="executor", **settings):
    return make_app(
        "aioext",
        *steps,
        lambda config: config.add_view(view),
        settings={**SETTINGS, "aioext.sync_views": sync_views, **settings},
    )


def post(app, parts, length=None, **others):
    headers = [(b"host", b"localhost")]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    client = Client(method="POST", body=parts, headers=headers, **others)
    return asyncio.run(client.call(app))


PLACES = pytest.mark.parametrize("sync_views", ["executor", "inline", "request"])


@PLACES
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_declared_length_above_the_limit_is_413_and_nothing_is_read(view, sync_views):
    called = []

    def counted(request):
        called.append(request)
        return view(request)

    client = post(app_of(counted, sync_views=sync_views), [b"x" * 11], 11)
    assert client.status == 413
    assert b"larger than 10 bytes" in client.body
    assert (client.received, called) == (0, [])


@PLACES
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_chunked_body_above_the_limit_is_413_where_it_is_read(view, sync_views):
    app = app_of(view, sync_views=sync_views)
    client = post(app, [b"x" * 4] * 1000)
    assert client.status == 413
    assert b"larger than 10 bytes" in client.body
    # What came with the eleventh byte, and not what the client had behind it.
    assert client.received == 12


@PLACES
@pytest.mark.parametrize("length", [10, None])
def test_a_body_of_the_limit_passes(sync_views, length):
    for view in (read_in_coroutine, read_in_thread):
        app = app_of(view, sync_views=sync_views)
        assert post(app, [b"x" * 5] * 2, length).body == b"10"


def test_a_body_that_is_not_read_is_not_refused():
    assert post(app_of(never_read), [b"x" * 4] * 1000).body == b"unread"


def test_http_2_needs_no_header_for_a_body():
    headers = [(b"host", b"localhost"), (b"transfer-encoding", b"")]
    app = app_of(read_in_thread)
    client = Client(method="POST", body=[b"x" * 11], headers=headers, http_version="2")
    client.scope["headers"].pop()
    assert asyncio.run(client.call(app)).status == 413


def test_without_the_setting_there_is_no_limit():
    def show(request):
        assert KEY not in request.environ
        return Response(b"%d" % len(request.body))

    app = make_app(lambda config: config.add_view(show))
    assert post(app, [b"x" * 100] * 100).body == b"10000"


def test_the_view_may_catch_it():
    async def view(request):
        try:
            request.body_file.read()
        except HTTPRequestEntityTooLarge:
            return Response(b"caught", status=400)

    client = post(app_of(view), [b"x" * 11])
    assert (client.status, client.body) == (400, b"caught")


@PLACES
@pytest.mark.parametrize("length", [11, None])
@pytest.mark.parametrize("is_coroutine", [True, False])
def test_exception_views_answer(sync_views, length, is_coroutine):
    async def answer(error, request):
        await asyncio.sleep(0)
        return Response(f"at most {request.registry.settings['aioext.max_body']}")

    def wait_for_answer(error, request):
        return wait(answer(error, request))

    def add(config):
        view = answer if is_coroutine else wait_for_answer
        config.add_exception_view(view, context=HTTPRequestEntityTooLarge)

    app = app_of(read_in_thread, add, sync_views=sync_views)
    assert post(app, [b"x" * 11], length).body == b"at most 10"


@pytest.mark.parametrize("length", [11, None])
def test_an_exception_view_that_reads_the_body_does_not_get_it(length):
    def add(config):
        config.add_exception_view(read_in_thread, context=HTTPRequestEntityTooLarge)

    client = post(app_of(read_in_thread, add), [b"x" * 11], length)
    assert client.status == 413
    assert client.received <= 11


def test_finished_callbacks_of_a_refused_request_are_called():
    ended = []

    def answer(error, request):
        request.add_finished_callback(lambda request: ended.append(request.path))
        return error

    def add(config):
        config.add_exception_view(answer, context=HTTPRequestEntityTooLarge)

    assert post(app_of(never_read, add), [b"x" * 11], 11).status == 413
    assert ended == ["/"]


def test_no_exception_view_is_needed():
    config = Configurator(settings=SETTINGS, exceptionresponse_view=None)
    config.include("aioext")
    config.add_view(read_in_thread)
    app = config.make_asgi_app()
    assert post(app, [b"x" * 11], 11).status == 413
    # Without Pyramid's own, HTTP exceptions pass, up to the policy.
    assert post(app, [b"x" * 11]).status == 413


def test_a_policy_that_copies_the_body_first_does_not_matter():
    # pyramid_retry makes bodies seekable before the first attempt.
    app = app_of(read_in_thread, "pyramid_retry", **{"retry.attempts": "3"})
    assert post(app, [b"x" * 11]).status == 413
    assert post(app, [b"x" * 10]).body == b"10"


@PLACES
def test_overlapping_requests_have_limits_of_their_own(sync_views):
    app = app_of(read_in_thread, sync_views=sync_views)

    async def overlap():
        first = Client(method="POST", body=[b"x" * 6], complete=False)
        second = Client(method="POST", body=[b"x" * 6], complete=False)
        tasks = [first.start(app), second.start(app)]
        second.give(b"x" * 4, more=False)
        await tasks[1]
        first.give(b"x" * 5, more=False)
        await tasks[0]
        return first, second

    first, second = asyncio.run(overlap())
    assert (first.status, second.body) == (413, b"10")


# The limits of views


def sized(request):
    """How much of the body there is, read in the executor."""
    return Response(b"%d" % len(request.body))


async def sized_later(request):
    await asyncio.sleep(0)
    return Response(b"%d" % len(request.body))


def views_app(*steps, maximum=LIMIT, view=sized, sync_views="executor", **settings):
    """Views that take 5 bytes, 20, any number, and what the application says."""

    def add(config):
        config.add_view(view)
        config.add_view(view, name="small", max_body=5)
        config.add_view(view, name="large", max_body="20 B")

    settings |= {"aioext.max_body": str(maximum), "aioext.sync_views": sync_views}
    return make_app("aioext", *steps, add, settings=settings)


def add_endless(config):
    config.add_view(sized, name="endless", max_body=0)


@PLACES
@pytest.mark.parametrize("view", [sized, sized_later])
@pytest.mark.parametrize("is_declared", [True, False])
@pytest.mark.parametrize(("path", "limit"), [("/small", 5), ("/", 10), ("/large", 20)])
def test_a_view_has_a_limit_of_its_own(sync_views, view, is_declared, path, limit):
    app = views_app(view=view, sync_views=sync_views)
    for size, status in ((limit, 200), (limit + 1, 413), (1000, 413)):
        client = post(app, [b"x"] * size, size if is_declared else None, path=path)
        assert client.status == status
        expected = b"%d" % size if status == 200 else b"larger than %d bytes" % limit
        if size < 1000:
            assert expected in client.body
        if status == 413:
            # Of what declares its size nothing is read.
            assert client.received == (0 if is_declared else limit + 1)


@pytest.mark.parametrize("length", [21, None])
def test_what_is_larger_than_any_view_allows_is_refused_first(length):
    called = []

    def add_tween(config):
        config.add_tween(f"{__name__}.counting_tween")
        config.registry["called"] = called

    client = post(views_app(add_tween), [b"x" * 21], length, path="/large")
    assert client.status == 413
    assert b"larger than 20 bytes" in client.body
    assert len(called) == (length is None)


def counting_tween(handler, registry):
    def tween(request):
        registry["called"].append(request)
        return handler(request)

    return tween


def test_a_view_may_take_any_number():
    app = views_app(add_endless)
    assert post(app, [b"x" * 100] * 100, path="/endless").body == b"10000"
    assert post(app, [b"x" * 10_000], 10_000, path="/endless").body == b"10000"
    for path, size in (("/", 11), ("/large", 21)):
        for length in (size, None):
            assert post(app, [b"x" * size], length, path=path).status == 413


def test_without_the_setting_only_that_view_has_a_limit():
    app = views_app(maximum=0)
    for length in (1000, None):
        assert post(app, [b"x" * 1000], length).body == b"1000"
        client = post(app, [b"x" * 1000], length, path="/small")
        assert (client.status, client.received > 6) == (413, length is None)


def test_a_view_that_does_not_read_refuses_what_is_declared():
    def add(config):
        config.add_view(never_read, name="unread", max_body=5)

    app = make_app(add)
    assert post(app, [b"x" * 6], 6, path="/unread").status == 413
    assert post(app, [b"x" * 6], path="/unread").body == b"unread"


@pytest.mark.parametrize("length", [20, None])
def test_a_body_that_was_copied_before_is_within_the_limit_of_its_view(length):
    # pyramid_retry copies it when no view is known.
    app = views_app("pyramid_retry", **{"retry.attempts": "3"})
    assert post(app, [b"x" * 20], length, path="/large").body == b"20"
    assert post(app, [b"x" * 20], length).status == 413
    assert post(app, [b"x" * 20], length, path="/small").status == 413
    assert post(app, [b"x" * 5], length and 5, path="/small").body == b"5"


def test_the_limit_is_there_before_the_csrf_check_reads_the_form():
    def add(config):
        config.set_default_csrf_options(require_csrf=True)
        config.add_view(read_form, name="checked", max_body=5)

    app = make_app(add)
    client = post(app, [b"csrf_token=x"], path="/checked")
    assert client.status == 413
    assert b"larger than 5 bytes" in client.body


def test_views_of_one_name_have_limits_of_their_own():
    def add(config):
        for method, limit in (("POST", 5), ("PUT", 10)):
            config.add_view(sized, request_method=method, max_body=limit)

    app = make_app(add)
    body = [b"x" * 8]
    assert post(app, body, 8).status == 413
    client = Client(method="PUT", body=body)
    assert asyncio.run(client.call(app)).body == b"8"


def test_a_view_that_answers_an_error_is_not_stopped_by_its_own_limit():
    def fail(request):
        raise ValueError(request.body)

    def answer(error, request):
        return Response(b"%d" % len(request.body), status=500)

    def add(config):
        config.add_view(fail, name="fail", max_body=20)
        config.add_exception_view(answer, context=ValueError)
        # One that is an ordinary view as well.
        config.add_view(lambda request: request.no_such, name="other", max_body=20)
        config.add_view(answer, context=AttributeError)

    app = make_app(add, settings=SETTINGS)
    for path in ("/fail", "/other"):
        client = post(app, [b"x" * 15], 15, path=path)
        assert (client.status, client.body) == (500, b"15")


def test_exception_views_answer_what_a_view_refuses():
    def add(config):
        config.add_exception_view(
            lambda error, request: Response("too much"),
            context=HTTPRequestEntityTooLarge,
        )

    for length in (6, None):
        client = post(views_app(add), [b"x" * 6], length, path="/small")
        assert client.body == b"too much"


@pytest.mark.parametrize("length", [15, None])
@pytest.mark.parametrize("steps", [(), ("pyramid_retry",)])
@pytest.mark.parametrize("read", [read_form, sized, read_in_thread])
def test_what_a_view_refuses_its_exception_view_does_not_get(length, steps, read):
    tried = []

    def answer(error, request):
        tried.append(error)
        return read(request)

    def add(config):
        config.add_exception_view(answer, context=HTTPRequestEntityTooLarge)
        config.add_view(read, name="form", max_body=5)

    app = views_app(*steps, add, **({"retry.attempts": "3"} if steps else {}))
    for path in ("/", "/small", "/form"):
        kind = [(b"content-type", b"application/x-www-form-urlencoded")]
        kind += [(b"content-length", b"%d" % length)] if length else []
        client = Client(path, method="POST", body=[b"x" * 15], headers=kind)
        assert asyncio.run(client.call(app)).status == 413
        assert b"larger than" in client.body
    assert tried


def test_the_limit_of_an_application_around_this_one_holds():
    app = views_app()

    async def outer(scope, receive, send):
        await app(scope, receive, send)

    def limiting(environ, start_response):
        limit_body(environ, 15)
        return app.app(environ, start_response)

    client = Client("/large", method="POST", body=[b"x" * 16])
    asyncio.run(client.call(Gateway(limiting)))
    assert client.status == 413


@pytest.mark.parametrize("larger", [20, 0])
@pytest.mark.parametrize("length", [15, None])
def test_what_is_mounted_has_the_limit_of_the_application(larger, length):
    def mounted(environ, start_response):
        body = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [b"%d" % len(body)]

    def add(config):
        config.add_mount("/mounted", mounted)
        config.add_view(sized, name="large", max_body=larger)

    app = make_app(add, settings=SETTINGS)
    assert post(app, [b"x" * 15], length, path="/large").body == b"15"
    assert post(app, [b"x" * 15], length, path="/mounted").status == 413
    assert post(app, [b"x" * 10], length and 10, path="/mounted").body == b"10"


def test_a_view_may_be_added_later():
    config = Configurator(settings=SETTINGS)
    config.include("aioext")
    config.add_view(sized)
    app = config.make_asgi_app()
    assert post(app, [b"x" * 20], 20).status == 413
    config.add_view(sized, name="large", max_body=20)
    config.commit()
    assert post(app, [b"x" * 20], 20).status == 413
    assert post(app, [b"x" * 20], 20, path="/large").body == b"20"


def test_a_view_that_is_called_by_a_test_needs_no_body():
    config = Configurator(settings=SETTINGS)
    config.include("aioext")
    config.add_view(lambda request: Response("seen"), name="seen", max_body=5)
    config.commit()
    request = DummyRequest()
    request.registry = config.registry
    assert render_view_to_response(None, request, "seen").body == b"seen"


def test_a_view_without_the_option_is_left_as_it_is():
    config = Configurator()
    config.include("aioext")
    config.commit()
    info = SimpleNamespace(registry=config.registry, options={}, exception_only=False)
    assert limited_view(sized, info) is sized


@pytest.mark.parametrize("value", ["many", -1, True, 1.5])
def test_a_limit_of_a_view_is_a_size(value):
    with pytest.raises(ConfigurationError) as refused:
        make_app(lambda config: config.add_view(sized, max_body=value))
    assert (
        f"The view function test_limits.sized has max_body={value!r}; it takes a "
        "number of bytes, as 100MiB or 104857600, 0 for no limit."
    ) in str(refused.value)
    assert "#view-max-body" in str(refused.value)


@pytest.mark.parametrize("method", ["add_view", "add_exception_view"])
def test_an_exception_view_has_no_limit(method):
    def add(config):
        getattr(config, method)(sized, context=ValueError, max_body=5)

    with pytest.raises(ConfigurationError, match="exception view function"):
        make_app(add)


@PLACES
def test_overlapping_requests_of_different_views_do_not_share_a_limit(sync_views):
    app = views_app(sync_views=sync_views)

    async def overlap(order):
        paths = {"/small": 6, "/large": 20}
        clients = [
            Client(path, method="POST", body=[b"x"], complete=False) for path in paths
        ]
        tasks = [each.start(app) for each in clients]
        for place in order:
            clients[place].give(b"x" * (list(paths.values())[place] - 1), more=False)
            await tasks[place]
        return [each.status for each in clients]

    assert asyncio.run(overlap((0, 1))) == asyncio.run(overlap((1, 0))) == [413, 200]


# On a plain WSGI server, in process


@PLACES
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_without_a_loop_of_the_servers_there_is_the_same_limit(view, sync_views):
    with webtest_app(view, sync_views) as app:
        assert "larger than 10 bytes" in app.post("/", b"x" * 11, status=413).text
        chunked = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
        request = app.RequestClass.blank("/", chunked, method="POST")
        request.body_file_raw = io.BytesIO(b"x" * 11)
        request.content_length = None
        assert app.do_request(request, status=413).status_int == 413


def webtest_app(view, sync_views):
    return TestApp(app_of(view, sync_views=sync_views))


# On servers


GUNICORN = ["gunicorn", "-b", "127.0.0.1:0", "--no-control-socket", "-k"]
ASGI = "limits_app:make_small_asgi"
WSGI = "limits_app:make_small()"


@dataclass(frozen=True)
class Kind:
    """A server.

    Attributes:
        command: how it is started, after ``python -m``.
        collects: it takes a whole body before it calls the application.
        invites: it says ``100 Continue`` before the application has said anything.
    """

    command: tuple[str, ...]
    collects: bool = False
    invites: bool = False


KINDS = {
    "asyncio": Kind((*GUNICORN, WORKER, "--asgi-loop", "asyncio", WSGI)),
    "uvloop": Kind((*GUNICORN, WORKER, "--asgi-loop", "uvloop", WSGI)),
    "uvicorn": Kind(("uvicorn", "--port", "0", "--factory", ASGI)),
    "hypercorn": Kind(("hypercorn", "-b", "127.0.0.1:0", f"{ASGI}()"), invites=True),
    "granian": Kind(
        ("granian", "--interface", "asgi", "--port", "PORT", "--factory", ASGI)
    ),
    "daphne": Kind(
        ("daphne", "-b", "127.0.0.1", "-p", "PORT", "limits_app:small"),
        collects=True,
        invites=True,
    ),
    "waitress": Kind(
        ("waitress", "--listen", "127.0.0.1:{}", "--call", WSGI.removesuffix("()")),
        collects=True,
        invites=True,
    ),
    "gthread": Kind((*GUNICORN, "gthread", "--threads", "4", WSGI), invites=True),
    "uwsgi": Kind((*COMMANDS["uwsgi"], f"--module={WSGI}")),
    "sync": Kind((*GUNICORN, "sync", WSGI), invites=True),
}

HEAD = b"POST /take HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
CHUNK = b"3e8\r\n%s\r\n" % (b"x" * 1000)


@pytest.fixture(scope="module", params=KINDS)
def served(request):
    """A server, and what it does by itself; its application takes 100,000 bytes."""
    kind = KINDS[request.param]
    command = [each.format(free_port()) for each in kind.command]
    with run(command, APPS, ENVIRON) as server:
        yield server, kind
        assert "Traceback" not in server.output


def ask(server, *parts):
    """The answer to a request whose parts are sent at once; up to its last line."""
    with server.connect() as client:
        # A server may have closed the connection before all is sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for each in parts:
                client.sendall(each)
        return read_answer(client)


def read_answer(client):
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while not received.endswith((b"100000 bytes.\n\n", b"\r\n\r\n100000")):
            data = client.recv(65_536)
            if not data:
                break
            received += data
    return received


def test_a_server_refuses_by_the_declared_length(served):
    server, kind = served
    body = [b"x" * 200_000] if kind.collects else [b"x"]
    answer = ask(server, HEAD + b"Content-Length: 200000\r\n\r\n", *body)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"larger than 100000 bytes" in answer


def test_a_server_does_not_invite_what_is_refused(served):
    server, kind = served
    head = b"Content-Length: 200000\r\nExpect: 100-continue\r\n\r\n"
    with server.connect() as client:
        client.sendall(HEAD + head)
        if kind.invites:
            assert client.recv(12) == b"HTTP/1.1 100"
            return
        assert read_answer(client).startswith(b"HTTP/1.1 413 ")


def test_a_server_refuses_a_chunked_body_that_grows(served):
    server, kind = served
    end = [b"0\r\n\r\n"] if kind.collects else []
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    answer = ask(server, head, CHUNK * 101, *end)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"larger than 100000 bytes" in answer


def test_a_server_takes_a_body_of_the_limit(served):
    server, _ = served
    for head, *parts in (
        (b"Content-Length: 100000\r\n\r\n", b"x" * 100_000),
        (b"Transfer-Encoding: chunked\r\n\r\n", CHUNK * 100, b"0\r\n\r\n"),
    ):
        answer = ask(server, HEAD + head, *parts)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"100000" in answer


@pytest.mark.parametrize("served", ["asyncio", "uvloop"], indirect=True)
def test_the_worker_closes_a_connection_whose_body_is_not_read(served):
    server, _ = served
    with server.connect() as client:
        client.sendall(HEAD.replace(b"close", b"keep-alive"))
        client.sendall(b"Content-Length: 200000\r\n\r\nx")
        assert read_answer(client).startswith(b"HTTP/1.1 413 ")
        assert client.recv(1) == b""


@pytest.mark.parametrize("served", ["asyncio", "uvicorn", "uwsgi"], indirect=True)
def test_a_websocket_has_a_limit_of_its_own(served):
    server, _ = served
    url = f"ws://127.0.0.1:{server.port}/echo"
    with connect(url, open_timeout=DEADLINE, proxy=None) as ws:
        ws.send("x" * 200_000)
        assert ws.recv(DEADLINE) == "x" * 200_000

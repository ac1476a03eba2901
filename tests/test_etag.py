"""The view option ``etag=True``: tags, conditional answers and ranges of views."""

import asyncio
import json
import threading
from http.client import HTTPConnection

import pytest
from asgi import Client
from inprocess import EXECUTOR, LOOP, answer, make_app, where
from life import APPS, ENVIRON
from pyramid.exceptions import ConfigurationError
from pyramid.httpexceptions import HTTPForbidden, HTTPNotFound, HTTPOk
from pyramid.response import FileResponse, Response
from pyramid.view import render_view
from servers import COMMANDS, DEADLINE, run
from webtest import TestApp

from aioext import assets
from aioext.renderers import etag as module

PART = "aioext.renderers.etag"
BODY = b"0123456789"
WHOLE = b"bytes 0-9/10"
MODES = ("executor", "inline", "request")


def app_of(*views, settings=None, **options):
    """An application: ``(path, view, options)`` each, with ``etag=True``."""

    def configure(config):
        for path, view, others in views:
            config.add_route(path, path)
            config.add_view(
                view, route_name=path, **{"etag": True, **options, **others}
            )

    return make_app(PART, configure, settings=settings)


def app_with(view, settings=None, **options):
    """An application of one view, at ``/``."""
    return app_of(("/", view, options), settings=settings)


def ask(app, path="/", method="GET", **headers):
    """The status, the headers as a dict of strings, and the body of an answer."""
    named = [
        (name.replace("_", "-").encode(), value.encode())
        for name, value in headers.items()
    ]
    client = answer(app, path, method=method, headers=[(b"host", b"h"), *named])
    sent = {name.decode(): value.decode() for name, value in client.headers}
    return client.status, sent, client.body


def tag_of(app, path="/"):
    status, headers, _ = ask(app, path)
    assert status == 200
    return headers["etag"]


def plain(request):
    return Response(BODY, content_type="application/x")


async def plain_coroutine(request):
    return plain(request)


# Tags


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("view", [plain, plain_coroutine])
def test_a_version_that_the_client_has_is_not_sent(view, mode):
    app = app_with(view, settings={"aioext.sync_views": mode})
    status, headers, body = ask(app)
    assert (status, body) == (200, BODY)
    status, later, body = ask(app, if_none_match=headers["etag"])
    assert (status, body) == (304, b"")
    assert later == {"etag": headers["etag"]}


def test_a_tag_is_strong_and_the_same_in_every_process():
    assert tag_of(app_with(plain)) == '"c99af3649b107b763e9a3676be30a49f"'


def test_another_body_has_another_tag():
    bodies = iter([b"one", b"two", b"two"])
    app = app_with(lambda request: Response(next(bodies)))
    first, second = tag_of(app), tag_of(app)
    assert first != second
    assert ask(app, if_none_match=second)[0] == 304


VALUE = "[1, 2]"


@pytest.mark.parametrize(
    "header", ["Content-Type", "Content-Encoding", "Content-Language"]
)
def test_what_says_how_to_read_a_body_is_part_of_its_version(header):
    def view(request):
        response = Response(VALUE, content_type="text/plain")
        value = request.GET.get("as")
        if value:
            response.headers[header] = value
        return response

    app = app_with(view)
    tags = {ask_with(app, f"as={value}") for value in ("", "text/html", "gzip", "de")}
    assert len(tags) == 4


def ask_with(app, query):
    client = answer(app, query_string=query.encode())
    return dict(client.headers)[b"etag"]


def test_the_same_bytes_as_json_and_as_a_page_are_two_versions():
    app = app_of(
        ("/page.json", lambda request: [1, 2], {"renderer": "json"}),
        ("/page.html", lambda request: Response(VALUE), {}),
    )
    assert ask(app, "/page.json")[2] == ask(app, "/page.html")[2] == VALUE.encode()
    as_json, as_page = tag_of(app, "/page.json"), tag_of(app, "/page.html")
    assert as_json != as_page
    assert ask(app, "/page.json", if_none_match=as_json)[0] == 304
    assert ask(app, "/page.json", if_none_match=as_page)[0] == 200


def test_values_do_not_run_into_each_other():
    def tag(**headers):
        return module.etag_of(
            [BODY], Response(headerlist=list(headers.items())).headers
        )

    one = tag(**{"Content-Encoding": "de"})
    other = tag(**{"Content-Language": "de"})
    assert len({one, other, tag(), tag(**{"Content-Type": "de"})}) == 4


def test_every_language_counts():
    def tag(*languages):
        listed = [("Content-Language", each) for each in languages]
        return module.etag_of([BODY], Response(headerlist=listed).headers)

    assert len({tag("de"), tag("de", "fr"), tag("fr"), tag()}) == 4


def test_how_a_body_is_cut_does_not_matter():
    headers = Response().headers
    whole = module.etag_of([BODY], headers)
    assert module.etag_of((BODY[:3], b"", BODY[3:]), headers) == whole


@pytest.mark.parametrize("given", ['"mine"', 'W/"mine"'])
def test_a_tag_that_the_view_gives_is_kept(given):
    def view(request):
        response = plain(request)
        response.headers["ETag"] = given
        return response

    app = app_with(view)
    assert tag_of(app) == given
    assert ask(app, if_none_match=given)[0] == 304


def test_a_date_that_the_view_gives_is_compared():
    def view(request):
        response = plain(request)
        response.last_modified = 784111777
        return response

    app = app_with(view)
    date = ask(app)[1]["last-modified"]
    assert ask(app, if_modified_since=date)[0] == 304
    assert ask(app, if_modified_since=date, if_none_match='"x"')[0] == 200


# What has none


async def stream():
    yield BODY


def generator():
    yield BODY


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("body", [stream, generator])
def test_a_streamed_body_has_no_tag(body, mode):
    app = app_with(
        lambda request: Response(app_iter=body()), settings={"aioext.sync_views": mode}
    )
    status, headers, sent = ask(app, range="bytes=0-1", if_none_match='"x"')
    assert (status, sent) == (200, BODY)
    assert "etag" not in headers
    assert "accept-ranges" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods_are_left_alone(method):
    app = app_with(plain)
    status, headers, body = ask(app, method=method, if_none_match="*", range="bytes=0-")
    assert (status, body) == (200, BODY)
    assert not {"etag", "accept-ranges"} & set(headers)


@pytest.mark.parametrize("status", [201, 404, 500])
def test_other_statuses_are_left_alone(status):
    app = app_with(lambda request: Response(BODY, status=status))
    answered, headers, body = ask(app, if_none_match="*", range="bytes=0-1")
    assert (answered, body) == (status, BODY)
    assert "etag" not in headers


def test_an_error_that_is_raised_is_left_alone():
    def missing(request):
        raise HTTPNotFound

    assert ask(app_with(missing), if_none_match="*")[0] == 404


def test_a_response_that_makes_its_body_later_has_no_tag():
    def view(request):
        return HTTPOk(detail=request.GET["detail"])

    app = app_with(view)
    client = answer(app, query_string=b"detail=first")
    assert b"first" in client.body
    assert b"etag" not in dict(client.headers)


def test_what_is_not_to_be_stored_has_no_tag():
    app = app_with(plain, http_cache=0)
    status, headers, _ = ask(app)
    assert status == 200
    assert "no-store" in headers["cache-control"]
    assert "etag" not in headers


@pytest.mark.parametrize("option", [None, False])
def test_a_view_without_the_option_is_left_as_it_is(option):
    class Info:
        options = {} if option is None else {"etag": option}

    assert module.etag_view(plain, Info) is plain


def test_an_application_without_the_option_is_left_alone():
    status, headers, body = ask(app_with(plain, etag=None), if_none_match="*")
    assert (status, body) == (200, BODY)
    assert not {"etag", "accept-ranges"} & set(headers)


@pytest.mark.parametrize("option", ["yes", 1, "true", lambda request: "x"])
def test_an_option_that_is_neither_is_refused(option):
    with pytest.raises(ConfigurationError, match="it takes True or False"):
        app_with(plain, etag=option)


# HEAD


def test_a_head_has_the_tag_of_the_get():
    app = app_with(plain)
    tag = tag_of(app)
    status, headers, body = ask(app, method="HEAD", range="bytes=0-1")
    assert (status, body) == (200, b"")
    assert (headers["etag"], headers["content-length"]) == (tag, "10")
    assert ask(app, method="HEAD", if_none_match=tag)[0] == 304


def test_a_head_without_the_body_has_no_tag_of_nothing():
    def view(request):
        response = Response(b"")
        response.content_length = 10
        return response

    status, headers, _ = ask(app_with(view), method="HEAD")
    assert status == 200
    assert "etag" not in headers
    assert headers["content-length"] == "10"


# What stands around a view


def test_what_a_decorator_does_is_covered():
    def louder(view):
        def wrapper(context, request):
            response = view(context, request)
            response.body = response.body.upper()
            response.headers["Content-Language"] = request.GET.get("in", "en")
            return response

        return wrapper

    app = app_of(
        ("/loud", lambda request: Response(b"abc"), {"decorator": louder}),
        ("/same", lambda request: Response(b"ABC", content_language="en"), {}),
    )
    assert ask(app, "/loud")[2] == b"ABC"
    assert tag_of(app, "/loud") == tag_of(app, "/same")


def test_what_is_wrapped_is_covered_with_its_wrapper():
    def page(request):
        return Response(b"<p>" + request.wrapped_body + b"</p>")

    def configure(config):
        config.add_view(page, name="page", etag=True)
        config.add_view(plain, wrapper="page", etag=True)

    app = make_app(PART, configure)
    status, headers, body = ask(app)
    assert body == b"<p>0123456789</p>"
    status, _, body = ask(app, if_none_match=headers["etag"])
    assert (status, body) == (304, b"")


def test_http_cache_holds_for_the_304_as_well():
    app = app_with(plain, http_cache=3600)
    status, headers, _ = ask(app, if_none_match=tag_of(app))
    assert status == 304
    assert headers["cache-control"] == "max-age=3600"
    assert "expires" in headers


def test_an_error_is_not_cached_like_the_answer():
    app = app_with(plain, http_cache=3600)
    for condition in ({"range": "bytes=10-"}, {"if_match": '"x"'}):
        status, headers, _ = ask(app, **condition)
        assert status in (412, 416)
        assert not {"cache-control", "expires", "etag"} & set(headers)


def test_no_permission_is_asked_for_by_a_condition():
    class Policy:
        def permits(self, request, context, permission):
            return False

        def identity(self, request): ...

    def configure(config):
        config.set_security_policy(Policy())
        config.add_view(plain, etag=True, permission="see")
        config.add_forbidden_view(lambda request: HTTPForbidden())

    app = make_app(PART, configure)
    for conditions in ({"if_none_match": "*"}, {"range": "bytes=99-"}):
        assert ask(app, **conditions)[0] == 403


def test_a_private_answer_stays_private():
    def view(request):
        response = plain(request)
        response.set_cookie("session", "1")
        response.vary = ["Cookie"]
        response.cache_control = "private"
        return response

    app = app_with(view)
    status, headers, _ = ask(app, if_none_match=tag_of(app))
    assert status == 304
    assert headers["cache-control"] == "private"
    assert headers["vary"] == "Cookie"
    assert headers["set-cookie"].startswith("session=1")


def test_nothing_is_said_of_caches():
    assert "cache-control" not in ask(app_with(plain))[1]


def test_a_callback_of_the_response_has_its_say():
    def view(request):
        request.add_response_callback(
            lambda request, response: response.headers.update({"X-Seen": "yes"})
        )
        return plain(request)

    app = app_with(view)
    assert ask(app)[1]["x-seen"] == "yes"
    assert ask(app, if_none_match=tag_of(app))[1]["x-seen"] == "yes"


def test_a_response_that_all_requests_share_is_not_changed():
    shared = Response(BODY)
    before = list(shared.headerlist)
    app = app_with(lambda request: shared)
    tag = tag_of(app)
    assert ask(app, if_none_match=tag)[0] == 304
    assert ask(app, range="bytes=0-0")[2] == b"0"
    assert ask(app)[2] == BODY
    assert (shared.status_code, shared.body) == (200, BODY)
    assert shared.headerlist == before
    shared.body = b"another"
    assert ask(app, if_none_match=tag)[2] == b"another"


class Marked(Response):
    def __init__(self, mark):
        super().__init__(BODY)
        self.mark = mark


def marking_tween_factory(handler, registry):
    def tween(request):
        response = handler(request)
        response.headers["X-Mark"] = f"{type(response).__name__} {response.mark}"
        response.cache_control.private = True
        return response

    return tween


@pytest.mark.parametrize("is_own", [True, False])
def test_a_response_of_an_applications_class_stays_one(is_own):
    def view(request):
        response = request.response if is_own else Marked("own")
        response.cache_control.max_age = 60
        response.body = BODY
        return response

    def configure(config):
        config.set_response_factory(lambda request: Marked("own"))
        config.add_tween(f"{__name__}.marking_tween_factory")
        config.add_view(view, etag=True)

    app = make_app("aioext.renderers", configure)
    for headers, expected in ({}, 200), ({"if_none_match": tag_of(app)}, 304):
        status, told, _ = ask(app, **headers)
        assert status == expected
        assert told["x-mark"] == "Marked own"
        assert told["cache-control"] == "max-age=60, private"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_requests_that_overlap_get_their_own_answers(order):
    async def overlap():
        gates = [asyncio.Event(), asyncio.Event()]

        async def view(request):
            await gates[int(request.GET["n"])].wait()
            return Response(BODY)

        app = app_with(view)
        conditions = [[(b"range", b"bytes=0-0")], [(b"if-match", b'"x"')]]
        clients = [
            Client("/", query_string=b"n=%d" % n, headers=[(b"host", b"h"), *each])
            for n, each in enumerate(conditions)
        ]
        tasks = [client.start(app) for client in clients]
        for n in order:
            gates[n].set()
            await tasks[n]
        return [client.status for client in clients]

    assert asyncio.run(overlap()) == [206, 412]


class Page:
    def __init__(self, request):
        self.request = request

    async def show(self):
        return {"n": 1}


def test_methods_of_classes():
    app = app_with(Page, attr="show", renderer="json")
    _, headers, body = ask(app)
    assert json.loads(body) == {"n": 1}
    assert ask(app, if_none_match=headers["etag"])[0] == 304


# Large bodies


@pytest.mark.parametrize(
    ("size", "thread"), [(module.LARGE - 1, LOOP), (module.LARGE, EXECUTOR)]
)
def test_a_large_body_is_hashed_in_a_thread(size, thread, monkeypatch):
    places = []
    hash_ = module._hash
    monkeypatch.setattr(
        module, "_hash", lambda *given: places.append(where()) or hash_(*given)
    )

    async def view(request):
        return Response(bytes(size))

    app = app_with(view)
    tag = tag_of(app)
    assert ask(app, if_none_match=tag)[0] == 304
    assert places == [thread, thread]


def test_the_loop_goes_on_while_a_large_body_is_hashed(monkeypatch):
    begun, served = threading.Event(), threading.Event()
    hash_ = module._hash

    def slow(head, body):
        begun.set()
        assert served.wait(10)
        return hash_(head, body)

    monkeypatch.setattr(module, "_hash", slow)

    async def large(request):
        return Response(bytes(module.LARGE))

    async def other(request):
        return Response(b"other")

    app = app_of(("/large", large, {}), ("/other", other, {"etag": False}))

    async def overlap():
        hashing = Client("/large").start(app)
        assert await asyncio.to_thread(begun.wait, 10)
        client = await Client("/other").call(app)
        served.set()
        return client.body, (await hashing).status

    assert asyncio.run(overlap()) == (b"other", 200)


# Ranges


@pytest.mark.parametrize("mode", MODES)
def test_a_range_of_a_page(mode):
    app = app_with(plain, settings={"aioext.sync_views": mode})
    tag = tag_of(app)
    status, headers, body = ask(app, range="bytes=2-4", if_range=tag)
    assert (status, body) == (206, b"234")
    assert headers["content-range"] == "bytes 2-4/10"
    assert headers["content-length"] == "3"
    assert (headers["etag"], headers["accept-ranges"]) == (tag, "bytes")
    assert ask(app, range="bytes=2-4", if_range='"older"')[2] == BODY


@pytest.mark.parametrize(
    ("header", "status", "sent"),
    [
        ("bytes=-3", 206, b"789"),
        ("bytes=0-", 206, BODY),
        ("bytes=0-1,3-4", 200, BODY),
        ("lines=1-2", 200, BODY),
        ("nonsense", 200, BODY),
        ("bytes=" + "0-," * 2000, 200, BODY),
        ("bytes=10-", 416, None),
    ],
)
def test_what_becomes_of_ranges(header, status, sent):
    answered, headers, body = ask(app_with(plain), range=header)
    assert answered == status
    assert sent is None or body == sent
    assert int(headers["content-length"]) == len(body)


def test_a_length_that_the_view_does_not_tell_is_known_all_the_same():
    app = app_with(lambda request: Response(app_iter=[BODY[:5], BODY[5:]]))
    assert ask(app, range="bytes=4-5")[2] == b"45"


class AsyncChunks:
    """An asynchronous body of three chunks, that waits before the last one."""

    def __init__(self):
        self.closed = 0
        self.more = asyncio.Event()
        self._chunks = iter((b"0123", b"45", b"6789"))

    def __aiter__(self):
        return self

    async def __anext__(self):
        chunk = next(self._chunks, None)
        if chunk is None:
            raise StopAsyncIteration
        if chunk == b"6789":
            await self.more.wait()
        return chunk

    async def aclose(self):
        self.closed += 1


def streaming_app(bodies, etag):
    def view(request):
        bodies.append(AsyncChunks())
        response = Response(app_iter=bodies[-1], content_length=10)
        response.headers["ETag"] = etag
        return response

    return app_with(view)


def test_a_range_of_a_stream_whose_length_is_known():
    bodies = []
    app = streaming_app(bodies, '"mine"')

    async def ranged():
        client = Client(headers=[(b"host", b"h"), (b"range", b"bytes=3-6")])
        task = client.start(app)
        await client.until_body(b"345")
        bodies[0].more.set()
        return await task

    client = asyncio.run(ranged())
    assert (client.status, client.body) == (206, b"3456")
    assert bodies[0].closed == 1


def test_a_range_of_a_stream_ends_when_the_client_leaves():
    bodies = []
    app = streaming_app(bodies, '"mine"')

    async def leave():
        client = Client(headers=[(b"host", b"h"), (b"range", b"bytes=3-9")])
        task = client.start(app)
        await client.until_body(b"345")
        client.leave()
        async with asyncio.timeout(10):
            await asyncio.wait([task])

    asyncio.run(leave())
    assert bodies[0].closed == 1


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ((b"if-none-match", b'"mine"'), 304),
        ((b"range", b"bytes=99-"), 416),
        ((b"if-match", b'"other"'), 412),
    ],
)
def test_a_stream_that_is_not_sent_is_closed(header, status):
    bodies = []
    app = streaming_app(bodies, '"mine"')
    client = answer(app, headers=[(b"host", b"h"), header])
    assert client.status == status
    assert bodies[0].closed == 1


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(BODY)
    return path


@pytest.mark.parametrize("mode", MODES)
def test_pyramids_own_file_responses(path, mode):
    def view(request):
        return FileResponse(path, request=request)

    app = app_with(view, settings={"aioext.sync_views": mode})
    status, headers, body = ask(app)
    assert (status, body) == (200, BODY)
    assert "etag" not in headers
    date = headers["last-modified"]
    assert ask(app, if_modified_since=date)[0] == 304
    assert ask(app, if_unmodified_since="Sun, 06 Nov 1994 08:49:37 GMT")[0] == 412
    assert ask(app, range="bytes=3-5")[::2] == (206, b"345")
    assert ask(app, range="bytes=3-5,7-8")[::2] == (200, BODY)
    assert ask(app, range="bytes=30-")[0] == 416


@pytest.mark.parametrize("size", [10, 500_000])
def test_our_own_file_responses(tmp_path, size):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(250)) * 2000 if size > 10 else BODY)
    body = path.read_bytes()

    def view(request):
        return assets.FileResponse(path, request=request)

    app = make_app("aioext.assets", PART, lambda c: c.add_view(view, etag=True))
    status, headers, sent = ask(app)
    assert (status, sent) == (200, body)
    assert ask(app, if_none_match=headers["etag"])[::2] == (304, b"")
    assert ask(app, range="bytes=3-5")[::2] == (206, body[3:6])
    assert ask(app, range=f"bytes={size}-")[0] == 416


# On servers


SERVERS = {
    "gunicorn": COMMANDS["gunicorn"],
    "uvicorn": COMMANDS["uvicorn"],
    "gthread": ["gunicorn", "-k", "gthread", "-b", "127.0.0.1:0", "--threads", "2"],
}


@pytest.mark.parametrize("kind", SERVERS)
def test_answers_on_one_connection_are_told_apart(kind):
    pytest.importorskip(SERVERS[kind][0])
    name = "asgi" if kind == "uvicorn" else "application"
    command = [*SERVERS[kind], f"conditional_app:{name}"]
    with run(command, APPS, ENVIRON) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)

        def get(path, method="GET", **headers):
            named = {name.replace("_", "-"): each for name, each in headers.items()}
            connection.request(method, path, headers=named)
            response = connection.getresponse()
            return response.status, response.headers, response.read()

        status, headers, body = get("/")
        assert (status, body) == (200, BODY)
        tag = headers["ETag"]
        for _ in range(3):
            assert get("/", if_none_match=tag)[::2] == (304, b"")
            assert get("/", range="bytes=2-4", if_range=tag)[::2] == (206, b"234")
            assert get("/", method="HEAD", range="bytes=0-1")[::2] == (200, b"")
            assert get("/", range="bytes=10-")[0] == 416
            assert get("/", if_match='"x"')[0] == 412
            assert get("/streamed", if_none_match='"streamed"')[::2] == (304, b"")
            assert get("/streamed", range="bytes=3-6")[::2] == (206, b"3456")
            assert get("/streamed", range="bytes=-1")[::2] == (206, b"9")
            assert get("/streamed", range="bytes=10-")[0] == 416
            assert get("/streamed")[::2] == (200, BODY)
        connection.close()


def test_it_works_on_plain_wsgi():
    app = TestApp(app_with(plain).app)
    tag = app.get("/").headers["ETag"]
    assert app.get("/", headers={"If-None-Match": tag}).status_int == 304
    assert app.get("/", headers={"Range": "bytes=1-2"}).body == b"12"


# With the other parts


class Twelve:
    """The same bytes in every format."""

    def __str__(self):
        return "12"

    def __json__(self, request):
        return 12


async def numbers():
    yield 1
    yield 2


def formats_app():
    def configure(config):
        config.add_format_route("page", "/page", extensions=(None, "json", "txt"))
        config.add_renderer("page", lambda info: lambda value, system: str(value))
        formats = {"html": "page", "txt": "string", "json": True}
        config.add_view(
            lambda request: Twelve(), route_name="page", formats=formats, etag=True
        )
        config.add_route("stream", "/stream")
        config.add_view(
            lambda request: numbers(), route_name="stream", renderer="json", etag=True
        )

    return make_app("aioext.renderers", configure)


def test_each_format_of_a_view_is_a_version_of_its_own():
    app = formats_app()
    paths = ("/page", "/page.txt", "/page.json")
    assert {ask(app, path)[2] for path in paths} == {b"12"}
    tags = {path: tag_of(app, path) for path in paths}
    assert len(set(tags.values())) == 3
    for path in paths:
        for other, tag in tags.items():
            expected = 304 if other == path else 200
            assert ask(app, path, if_none_match=tag)[0] == expected


def test_a_format_by_accept_is_told_in_the_304():
    app = formats_app()
    accept = {"accept": "application/json"}
    _, headers, _ = ask(app, "/page", **accept)
    status, later, _ = ask(app, "/page", if_none_match=headers["etag"], **accept)
    assert status == 304
    assert later["vary"] == headers["vary"] == "Accept"
    assert ask(app, "/page", if_none_match=headers["etag"])[0] == 200


def test_streamed_json_has_no_tag():
    status, headers, body = ask(formats_app(), "/stream", range="bytes=0-0")
    assert (status, json.loads(body)) == (200, [1, 2])
    assert not {"etag", "accept-ranges"} & set(headers)


@pytest.mark.parametrize("is_own", [True, False])
@pytest.mark.parametrize("renderer", ["json", None])
def test_a_view_that_another_one_calls_makes_a_part_of_its_page(is_own, renderer):
    def part(request):
        return Response(BODY) if renderer is None else {"part": True}

    def page(context, request):
        rendered = render_view(context, request, "part")
        if is_own:
            return Response(b"page: " + rendered)
        request.response.content_type = "text/plain"
        request.response.body = b"page: " + rendered
        return request.response

    def configure(config):
        config.add_view(part, name="part", renderer=renderer, etag=True)
        config.add_view(page, name="plain")
        config.add_view(page, name="tagged", etag=True)

    app = make_app("aioext.renderers", configure)
    whole = ask(app, "/plain")[2]
    assert whole.startswith(b"page: ")
    for condition in {"range": "bytes=0-2"}, {"if_none_match": "*"}:
        status, headers, body = ask(app, "/plain", **condition)
        assert (status, body) == (200, whole)
        assert "etag" not in headers
    assert tag_of(app, "/tagged") != tag_of(app, "/part")
    assert ask(app, "/tagged", range="bytes=0-2")[::2] == (206, b"pag")
    tag = tag_of(app, "/tagged")
    assert ask(app, "/tagged", if_none_match=tag)[0] == 304


def test_including_it_twice_is_harmless():
    app = make_app(
        "aioext.renderers",
        PART,
        lambda config: config.commit(),
        lambda config: config.include(PART),
        lambda config: config.add_view(plain, etag=True),
    )
    assert ask(app, if_none_match=tag_of(app))[0] == 304

"""Forms and the files in them: read off the loop, and kept."""

import asyncio
import errno
import gc
import http.client
import io
import json
import os
import random
import re
import stat
import threading
import unicodedata
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace

import pytest
from asgi import Client
from inprocess import EXECUTOR, LOOP, make_app, where
from life import APPS, ENVIRON
from pyramid.httpexceptions import HTTPBadRequest
from pyramid.request import Request
from pyramid.response import Response
from pyramid.testing import DummyRequest
from pyramid_retry import RetryableException
from servers import DEADLINE, poll, serve
from webob.compat import parse_header

import aioext
from aioext import forms, uploads
from aioext.forms import MAX_ESCAPES, MAX_FIELDS, MAX_HEAD, BadForm
from aioext.testing import TestApp
from aioext.uploads import save, tame

BOUNDARY = "b0undary"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
URLENCODED = "application/x-www-form-urlencoded"


def part(name, value, filename=None, *headers):
    """A part of a form, as bytes."""
    filename = "" if filename is None else f'; filename="{filename}"'
    lines = [
        f"--{BOUNDARY}",
        f'Content-Disposition: form-data; name="{name}"{filename}',
        *headers,
        "",
        "",
    ]
    value = value if isinstance(value, bytes) else value.encode()
    return "\r\n".join(lines).encode() + value + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def post(app, body, kind=MULTIPART, path="/", length=True, parts=None):
    headers = [(b"host", b"localhost"), (b"content-type", kind.encode())]
    if length:
        headers.append((b"content-length", b"%d" % len(body)))
    client = Client(path, method="POST", body=parts or [body], headers=headers)
    return asyncio.run(client.call(app))


async def show(request):
    """What the form has."""
    form = await request.form()
    assert form is request.POST
    return {name: shown(value) for name, value in form.items()}


def shown(value):
    if isinstance(value, str):
        return value
    return [value.filename, value.file.read().decode()]


def show_post(request):
    return {name: shown(value) for name, value in request.POST.items()}


def app_of(view=show, *steps, **options):
    settings = options.pop("settings", {})

    def add(config):
        config.add_view(view, renderer="json", **options)

    return make_app("aioext", *steps, add, settings=settings)


# WebOb does not close the copy of a body that request.POST has made, and a thread may
# let go of it later. What is closed in time is looked at below.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

PLACES = pytest.mark.parametrize("sync_views", ["executor", "inline", "request"])


# The form


@PLACES
@pytest.mark.parametrize("view", [show, show_post])
@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("size", [1, 2000, 20_000])
def test_a_form_has_fields_and_files(view, sync_views, length, size):
    app = app_of(view, settings={"aioext.sync_views": sync_views})
    text = "é" * size
    body = part("text", text) + part("file", text, "ä.txt") + END
    client = post(app, body, length=length)
    expected = Response(json_body={"text": text, "file": ["ä.txt", text]}).json
    assert Response(client.body, content_type="application/json").json == expected
    client = post(app, b"a=1&b=%C3%A9&a=2", URLENCODED, length=length)
    assert Response(client.body).json == {"a": "2", "b": "é"}


@pytest.mark.parametrize("size", [10, 20_000])
@pytest.mark.parametrize("kind", [MULTIPART, URLENCODED])
def test_a_form_is_read_once_whoever_asks(size, kind):
    async def view(request):
        first, second = await asyncio.gather(request.form(), request.form())
        assert first is second is request.POST is await request.form()
        assert len(request.body) > size
        assert request.POST is first
        return {"a": len(first["a"])}

    body = part("a", "x" * size) + END if kind == MULTIPART else b"a=" + b"x" * size
    assert Response(post(app_of(view), body, kind).body).json == {"a": size}


def test_a_form_that_somebody_else_has_read_is_not_read_again():
    async def view(request):
        post = request.POST
        assert await request.form() is post
        return {"a": post["a"]}

    for body, kind in ((part("a", "1") + END, MULTIPART), (b"a=1", URLENCODED)):
        assert Response(post(app_of(view), body, kind).body).json == {"a": "1"}


@pytest.mark.parametrize(
    ("method", "kind"), [("GET", ""), ("POST", "application/json"), ("PUT", "")]
)
def test_what_is_no_form_is_empty(method, kind):
    async def view(request):
        form = await request.form()
        assert form is not None
        assert not form
        # Nothing was read for that.
        assert not request.is_body_seekable
        return {"body": request.body.decode()}

    headers = [(b"content-type", kind.encode())] if kind else []
    client = Client(method=method, body=[b'{"a": 1}'], headers=headers)
    asyncio.run(client.call(app_of(view)))
    assert Response(client.body).json == {"body": '{"a": 1}'}


def test_a_request_without_a_body_has_an_empty_form():
    async def view(request):
        return dict(await request.form())

    assert post(app_of(view), b"").body == b"{}"
    assert post(app_of(view), b"", URLENCODED).body == b"{}"


def test_a_form_that_may_be_large_is_taken_apart_in_a_thread(monkeypatch):
    places = []

    def note(function):
        def noted(*args):
            places.append(where())
            return function(*args)

        monkeypatch.setattr(forms, function.__name__, noted)

    note(forms._split)
    note(forms._take_apart)
    post(app_of(), b"a=1", URLENCODED)
    post(app_of(), b"a=1", URLENCODED, length=False)
    post(app_of(), b"a=" + b"x" * 20_000, URLENCODED)
    post(app_of(), part("a", "1") + END)
    assert places == [LOOP, LOOP, EXECUTOR, EXECUTOR]


def test_slow_clients_hold_no_threads():
    async def main():
        slow = [
            Client(
                path="/form",
                method="POST",
                body=[part("file", b"a" * 100_000, "a.txt")],
                complete=False,
                headers=[(b"content-type", MULTIPART.encode())],
            )
            for _ in range(3)
        ]
        tasks = [client.start(app) for client in slow]
        while not all(client.received for client in slow):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        quick = await Client("/thread").call(app)
        assert quick.body == EXECUTOR.encode()
        for client in slow:
            client.give(END, more=False)
        await asyncio.wait(tasks)
        return [client.body for client in slow]

    async def form(request):
        return Response((await request.form())["file"].filename)

    def configure(config):
        config.add_view(form, name="form")
        config.add_view(lambda request: Response(where()), name="thread")

    app = make_app(configure, settings={"aioext.executor_workers": "2"})
    assert asyncio.run(asyncio.wait_for(main(), DEADLINE)) == [b"a.txt"] * 3


def test_a_function_waits_for_the_form():
    def view(request):
        assert where() == EXECUTOR
        return {"a": aioext.wait(request.form())["a"]}

    assert post(app_of(view), part("a", "1") + END).body == b'{"a": "1"}'


def test_an_application_may_have_a_form_of_its_own():
    def form(request):
        return "its own"

    def view(request):
        return {"form": request.form()}

    app = app_of(view, lambda config: config.add_request_method(form))
    assert post(app, b"a=1", URLENCODED).body == b'{"form": "its own"}'


def test_without_a_loop_of_the_servers_a_form_is_the_same():
    with TestApp(app_of()) as app:
        response = app.post("/", {"a": "1"}, upload_files=[("f", "f.txt", b"text")])
        assert response.json == {"a": "1", "f": ["f.txt", "text"]}
        assert app.post("/", {"a": "1"}).json == {"a": "1"}
        request = app.RequestClass.blank("/", method="POST", content_type=MULTIPART)
        request.body = b"hello"
        assert "cannot be read" in app.do_request(request, status=400).text


def test_forms_of_overlapping_requests_do_not_mix():
    app = app_of()

    async def overlap(order):
        clients = [
            Client(
                method="POST",
                body=[part("a", str(number))[:-2]],
                complete=False,
                headers=[(b"content-type", MULTIPART.encode())],
            )
            for number in range(2)
        ]
        tasks = [each.start(app) for each in clients]
        for number in order:
            clients[number].give(b"%d\r\n" % number + END, more=False)
            await tasks[number]
        return [each.body for each in clients]

    for order in ((0, 1), (1, 0)):
        assert asyncio.run(overlap(order)) == [b'{"a": "00"}', b'{"a": "11"}']


@pytest.mark.parametrize("kind", [MULTIPART, URLENCODED])
def test_a_server_s_own_input_is_not_read_on_the_loop(kind):
    # It blocks as long as the client likes, and the loop is that of all coroutines.
    places = []

    class Blocking(io.BytesIO):
        def read(self, *args):
            places.append(where())
            return super().read(*args)

    body = part("a", "1") + END if kind == MULTIPART else b"a=1"
    with TestApp(app_of()) as app:
        request = app.RequestClass.blank("/", method="POST", content_type=kind)
        request.content_length = len(body)
        request.environ["wsgi.input"] = Blocking(body)
        request.environ["webob.is_body_seekable"] = False
        status, _, found = called(request, app.app)
        assert (status, found) == ("200 OK", b'{"a": "1"}')
    assert set(places) == {EXECUTOR}


def called(request, app):
    status, headers, body = request.call_application(app)
    return status, headers, b"".join(body)


# What is wrong with it


def nested(depth):
    """A part in a part, and so on."""
    heads = [
        f"--{BOUNDARY if not n else n}\r\nContent-Type: multipart/mixed; "
        f"boundary={n + 1}\r\n\r\n"
        for n in range(depth)
    ]
    return "".join(heads).encode()


MALFORMED = {
    "no boundary": (part("a", "1") + END, "multipart/form-data"),
    "a boundary that is none": (part("a", "1") + END, MULTIPART + "\xe9"),
    "another boundary": (part("a", "1") + END, "multipart/form-data; boundary=x"),
    "no end": (part("a", "1"), MULTIPART),
    "half of a file": (part("a", "1" * 5000, "a")[:3000], MULTIPART),
    "half of a head": (part("a", "1")[:30], MULTIPART),
    "half of an end": (part("a", "1") + END[:-4], MULTIPART),
    "a charset": (
        part("a", "1", None, "Content-Type: a/b; charset=x") + END,
        MULTIPART,
    ),
    "no base64": (
        part("a", "1", None, "Content-Transfer-Encoding: base64") + END,
        MULTIPART,
    ),
    "a long head": (part("a", "1", None, "X: " + "x" * MAX_HEAD) + END, MULTIPART),
    "many parts": (part("a", "1") * (MAX_FIELDS + 1) + END, MULTIPART),
    "parts in parts": (nested(2000), MULTIPART),
    "a part in a part": (
        part("a", "", None, "Content-Type:", " Multipart/mixed; boundary=x; charset=x")
        + END,
        MULTIPART,
    ),
    "a form in a part": (
        part("a", "b=1&c=2", None, f"Content-Type: {URLENCODED}") + END,
        MULTIPART,
    ),
    "no name": (part("a", "1").replace(b' name="a"', b"") + END, MULTIPART),
    "many fields": (b"a=1&" * (MAX_FIELDS + 1), URLENCODED),
    "only separators": (b"&" * 20_000, URLENCODED),
    "many escapes": (b"a=" + b"%" * (MAX_ESCAPES + 1), URLENCODED),
    "text": (b"hello", MULTIPART),
}


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("what", MALFORMED)
def test_a_form_that_cannot_be_read_is_400(what, length):
    body, kind = MALFORMED[what]
    client = post(app_of(), body, kind, length=length)
    assert client.status == 400, client.body
    assert b"The form in the body of the request cannot be read: " in client.body
    assert client.body.count(b"\n") < 8


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_400_or_a_form(seed):
    numbers = random.Random(seed)
    body = bytearray(
        part("a", "1") + part("f", "x" * 1500, "f", "Content-Type: a/b") + END
    )
    for _ in range(numbers.randrange(1, 30)):
        place = numbers.randrange(len(body))
        body[place : place + numbers.randrange(3)] = numbers.randbytes(
            numbers.randrange(3)
        )

    async def view(request):
        for value in (await request.form()).values():
            getattr(value, "filename", None)
        return {}

    assert post(app_of(view), bytes(body)).status in (200, 400)


def test_a_head_of_many_lines_takes_no_time():
    # By itself, cgi takes minutes, for it copies what it has for each line.
    body = part("a", "1")[:-5] + b"a\n" * 200_000 + END
    assert post(app_of(), body).status == 400


@pytest.mark.parametrize(
    "kind",
    [
        f"multipart/form-data; boundary=x; boundary={BOUNDARY}",
        f"multipart/form-data; boundary={BOUNDARY}; boundary=x",
        f"multipart/form-data; Boundary=x, multipart/form-data; boundary={BOUNDARY}",
        f"multipart/form-data; boundary*=utf-8''x; boundary={BOUNDARY}",
        f"multipart/form-data; boundary=<{BOUNDARY}>",
        f"multipart/form-data; boundary = {BOUNDARY}",
        f'multipart/form-data; boundary="{BOUNDARY}\\\\"',
        f'multipart/form-data; boundary="{BOUNDARY};"',
        f'multipart/form-data; x="; boundary=x"; boundary={BOUNDARY}',
        f"multipart/form-data; boundary={BOUNDARY}; charset=utf-8",
        f'multipart/form-data; charset=utf-8;boundary="{BOUNDARY}" ;',
    ],
)
def test_whatever_the_boundary_the_form_is_watched(kind):
    # What cgi takes for it has to be what we take for it.
    taken = parse_header(kind)[1].get("boundary", BOUNDARY).encode()
    for body in (
        part("a", "1") * (MAX_FIELDS + 1) + END,
        part("a", "1")[:-5] + b"a\n" * MAX_HEAD + END,
    ):
        client = post(app_of(), body.replace(BOUNDARY.encode(), taken), kind)
        assert client.status == 400
        assert re.search(b"boundary|more than", client.body), client.body


@pytest.mark.parametrize(
    "boundary",
    [
        "----WebKitFormBoundaryABCdef123",
        "----geckoformboundary0123456789abcdef",
        "---------------------------735323031399963166993862150",
        "=_Part=1'()+_,-./:=?",
        "dd; boundary",
        "x" * 200,
    ],
)
@pytest.mark.parametrize("told", ["{}", '"{}"', '{}; charset="utf-8"'])
def test_a_boundary_may_have_many_forms(boundary, told):
    kind = f"multipart/form-data; boundary={told.format(boundary)}"
    body = (part("a", "1") + END).replace(BOUNDARY.encode(), boundary.encode())
    is_wrong = ";" in boundary
    assert post(app_of(), body, kind).status == (400 if is_wrong else 200)


def test_what_stands_around_the_parts_does_not_matter():
    before, after = b"Nothing.\r\n\r\nNo multipart/mixed.\r\n", b"\r\nno end"
    body = before + part("f", "text", "multipart/x") + END + after
    assert Response(post(app_of(), body).body).json == {"f": ["multipart/x", "text"]}
    body = part("a", "1").replace(b"\r\n", b"\n") + END
    assert Response(post(app_of(), body).body).json == {"a": "1"}
    assert post(app_of(), END).body == b"{}"
    kind = MULTIPART.replace(BOUNDARY, f'"{BOUNDARY}"')
    assert post(app_of(), part("a", "1") + END, kind).body == b'{"a": "1"}'


def random_body(numbers):
    """A form with all that may be taken for a boundary, or for the end of a line."""
    pieces = [b"\r\n", b"\n", b"\r", b"-", b"--", b" ", b"x", b"\r\r\n", b"x" * 300]
    pieces += [b"\n" * 300, b"\r\n" * 200, b"\n--", b"\n-- ", f"--{BOUNDARY}x".encode()]
    pieces += [f"{start}--{BOUNDARY}".encode() for start in ("x", "\n ", "\r", "-", "")]
    parts = [b"".join(numbers.choices(pieces, k=numbers.randrange(4)))]
    for number in range(numbers.randrange(1, 6)):
        content = b"".join(numbers.choices(pieces, k=numbers.randrange(12)))
        filename = numbers.choice([None, "f"])
        head = part(str(number), "", filename).removesuffix(b"\r\n")
        if not parts[-1].endswith(b"\n") and parts[-1]:
            parts.append(b"\n")
        blank = numbers.choice([b"", b"", b" ", b"\t \r"])
        parts.append(head.replace(b"\r\n", blank + b"\r\n", 1) + content + b"\r\n")
    after = b"".join(numbers.choices(pieces, k=numbers.randrange(3)))
    return b"".join(parts) + END + numbers.choice([b"", b"\n" + after])


def contents(form):
    return [
        (name, value if isinstance(value, str) else value.file.read())
        for name, value in form.items()
    ]


@pytest.mark.parametrize("block", [100, 128, 257, 1000, forms.CONTENT])
def test_contents_are_what_webob_reads(monkeypatch, block):
    # It gets them in blocks, and not in lines.
    monkeypatch.setattr(forms, "CONTENT", block)
    for seed in range(150):
        body = random_body(random.Random(seed))
        ours, plain = (
            Request.blank("/", POST=body, content_type=MULTIPART) for _ in range(2)
        )
        try:
            expected = contents(plain.POST)
        except ValueError:
            continue
        try:
            assert contents(forms._parse(ours, 1000)) == expected, (seed, body)
        except BadForm:
            # A part without a head has no name; WebOb has it all the same.
            assert any(name is None for name, _ in expected), (seed, body)


@pytest.mark.parametrize("line", [b"\n", b"\r\n", b"--\n", b"--b0undary \r.\n", b"-"])
@pytest.mark.parametrize("place", ["before", "file", "value"])
def test_lines_take_no_time(monkeypatch, line, place):
    # By itself, cgi asks for each line, and takes a second for a megabyte of ends.
    asked = []
    readline = forms._Watched.readline

    def count(self, *args):
        asked.append(args)
        return readline(self, *args)

    monkeypatch.setattr(forms._Watched, "readline", count)
    lines = line * (1_000_000 // len(line))
    if place == "before":
        body = lines + b"\r\n" + part("a", "1")
    else:
        body = part("a", lines.decode(), "f" if place == "file" else None)
    assert post(app_of(), body + END).status == 200
    assert len(asked) < 60


def test_long_heads_of_many_parts_are_refused():
    # One may be long, and many may be short.
    long = part("a", "1", None, "X: " + "x" * (MAX_HEAD - 200))
    assert post(app_of(), long * 20 + END).status == 200
    client = post(app_of(), long * 100 + END)
    assert client.status == 400
    assert b"in the mean" in client.body


def test_as_many_fields_as_allowed_pass():
    body = part("a", "1") * MAX_FIELDS + END
    assert post(app_of(), body).status == 200
    assert post(app_of(), b"&".join([b"a=1"] * MAX_FIELDS), URLENCODED).status == 200


def test_files_are_not_opened_without_end():
    long, short = part("f", "x" * 1100, "f"), part("f", "x" * 900, "f")
    assert post(app_of(), (long + short) * forms.MAX_FILES + END).status == 200
    client = post(app_of(), (long + short) * (forms.MAX_FILES + 1) + END)
    assert client.status == 400
    assert b"have more than 1000 bytes" in client.body

    async def more(request):
        return {"a": len(await request.form(max_fields=5000))}

    body = part("f", "line\n" * 300, "f") * 400 + END
    assert post(app_of(more), body).body == b'{"a": 400}'


def test_as_many_escapes_as_allowed_pass():
    body = b"a=" + b"%41" * MAX_ESCAPES
    assert (
        Response(post(app_of(), body, URLENCODED).body).json["a"] == "A" * MAX_ESCAPES
    )


def test_a_view_may_allow_more_fields_or_less():
    async def more(request):
        return {"a": len(await request.form(max_fields=3000))}

    async def less(request):
        return {"a": len(await request.form(max_fields=1))}

    for body, kind in (
        (part("a", "1") * 2000 + END, MULTIPART),
        (b"&".join([b"a=1"] * 2000), URLENCODED),
    ):
        assert post(app_of(more), body, kind).body == b'{"a": 2000}'
    assert post(app_of(less), part("a", "1") * 2 + END).status == 400
    assert post(app_of(less), b"a=1&b=2", URLENCODED).status == 400


def test_lines_in_a_file_are_no_head():
    # Long lines, and empty ones, of contents have no limit.
    text = "x" * (2 * MAX_HEAD) + "\r\n" + "\n" * (2 * MAX_FIELDS)
    body = part("f", text, "f") + part("t", text) + END
    assert Response(post(app_of(), body).body).json == {"f": ["f", text], "t": text}


@pytest.mark.parametrize("kind", [MULTIPART, URLENCODED])
def test_another_charset_is_415(kind):
    client = post(app_of(), b"a=1", f"{kind}; charset=latin-1")
    assert client.status == 415
    assert b"has to be in UTF-8" in client.body


@PLACES
@pytest.mark.parametrize("length", [True, False])
def test_a_form_that_is_too_large_is_413(sync_views, length):
    settings = {"aioext.max_body": "1000", "aioext.sync_views": sync_views}
    app = app_of(settings=settings)
    assert post(app, part("a", "x" * 1000) + END, length=length).status == 413
    assert post(app, b"a=" + b"x" * 1000, URLENCODED, length=length).status == 413
    app = app_of(settings=settings, max_body=2000)
    assert post(app, part("a", "x" * 1000) + END, length=length).status == 200


def test_the_view_may_catch_it():
    async def view(request):
        with pytest.raises(HTTPBadRequest) as refused:
            await request.form()
        return {"said": type(refused.value).__name__}

    assert post(app_of(view), b"hello").body == b'{"said": "BadForm"}'


@pytest.mark.parametrize("kind", [MULTIPART, URLENCODED])
def test_a_client_that_leaves_in_mid_form_is_not_answered(kind):
    async def leave():
        client = Client(
            method="POST",
            body=[b"--"],
            complete=False,
            headers=[(b"content-type", kind.encode()), (b"content-length", b"100")],
        )
        task = client.start(app_of())
        client.leave()
        await task
        return client

    assert not asyncio.run(leave()).sent


def test_a_body_that_ends_early_on_a_plain_server_is_400():
    with TestApp(app_of()) as app:
        request = app.RequestClass.blank("/", method="POST", content_type=MULTIPART)
        request.body_file_raw = io.BytesIO(b"--")
        request.content_length = 100
        response = app.do_request(request, status=400)
    assert "ended before its form did" in response.text


@pytest.mark.parametrize("kind", [MULTIPART, URLENCODED])
def test_who_waits_for_a_form_may_be_cancelled(kind):
    ended = []

    async def view(request):
        try:
            async with asyncio.timeout(0.01):
                await request.form()
        except TimeoutError:
            ended.append(True)
        return {}

    async def cancel():
        headers = [(b"content-type", kind.encode()), (b"content-length", b"100")]
        client = Client(method="POST", body=[b"-"], complete=False, headers=headers)
        return await client.call(app_of(view))

    assert (asyncio.run(cancel()).status, ended) == (200, [True])


# Its files


def large_form(size=100_000):
    return part("f", b"x" * size, "f.txt") + part("t", "t" * 5000) + END


def open_files():
    """How many temporary files this process has open."""
    count = 0
    for each in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            count += "(deleted)" in os.readlink(f"/proc/self/fd/{each}")
    return count


@pytest.fixture
def kept(monkeypatch):
    """Forms of requests that somebody keeps; no collection ends them."""
    forms_kept = []
    gc.collect()
    gc.disable()
    before = open_files()
    yield forms_kept
    assert forms_kept
    forms_kept.clear()
    gc.enable()
    gc.collect()
    # A thread may keep its last job for a moment.
    poll(lambda: open_files() == before)


def test_files_are_closed_when_the_request_ends(kept):
    before = open_files()

    async def view(request):
        kept.append((request, await request.form()))
        assert open_files() == before + 2
        assert request.POST["f"].file.read() == b"x" * 100_000
        return {}

    assert post(app_of(view), large_form()).status == 200
    assert open_files() == before
    assert kept[0][1]["f"].file.closed


def test_files_are_closed_when_the_view_fails(kept):
    before = open_files()

    async def view(request):
        kept.append((request, await request.form()))
        raise BadForm

    assert post(app_of(view), large_form()).status == 400
    assert open_files() == before


def test_files_of_a_form_that_is_malformed_are_closed(kept):
    before = open_files()

    async def view(request):
        kept.append(request)
        await request.form()

    files = part("f", "x" * 20_000, "f") * 3
    for end in (b"", b"--", part("a", "1", None, "X: " + "x" * MAX_HEAD) + END):
        assert post(app_of(view), files + end).status == 400
    assert open_files() == before


def test_files_are_closed_when_the_request_is_cancelled(kept):
    before = open_files()

    async def view(request):
        kept.append((request, await request.form()))
        raise asyncio.CancelledError

    with suppress(asyncio.CancelledError, Exception):
        post(app_of(view), large_form())
    assert open_files() == before


def test_a_response_may_send_what_was_uploaded(kept):
    async def view(request):
        form = await request.form()
        kept.append(form)
        return Response(app_iter=iter(lambda: form["f"].file.read(10_000), b""))

    client = post(app_of(view), large_form())
    assert client.body == b"x" * 100_000
    kept[0]["f"].file.close()


def test_another_attempt_has_the_files_again(kept):
    attempts = []

    async def view(request):
        form = await request.form()
        kept.append(form)
        attempts.append(form["f"].file.read())
        if len(attempts) < 3:
            raise RetryableException
        return {}

    app = app_of(view, "pyramid_retry", settings={"retry.attempts": "3"})
    assert post(app, large_form()).status == 200
    assert attempts == [b"x" * 100_000] * 3


def test_files_of_a_view_that_reads_post_are_closed_with_it():
    gc.collect()
    gc.disable()
    try:
        before = open_files()
        app = app_of(show_post)
        for _ in range(3):
            assert post(app, large_form()).status == 200
        poll(lambda: open_files() <= before)
    finally:
        gc.enable()


@pytest.mark.parametrize("is_wrong", [True, False])
def test_a_request_that_has_read_its_form_is_kept_by_nobody(is_wrong):
    requests = []

    async def view(request):
        requests.append(weakref.ref(request))
        with suppress(BadForm):
            await request.form()
        return {}

    app = app_of(view)
    gc.collect()
    gc.disable()
    try:
        assert post(app, b"wrong" if is_wrong else large_form()).status == 200
        poll(lambda: requests[0]() is None)
    finally:
        gc.enable()


# Names


TAMED = {
    "a.png": "a.png",
    "Ünïcödé 中文.txt": "Ünïcödé 中文.txt",
    "../../etc/passwd": "passwd",
    "/etc/passwd": "passwd",
    "C:\\Users\\me\\a.png": "a.png",
    "..\\..\\a.png": "a.png",
    "a/b\\c.txt": "c.txt",
    "a.png/": "",
    "": "",
    ".": "",
    "..": "",
    "...": "",
    "/": "",
    " . ": "",
    "-": "",
    "\x00": "",
    ".htaccess": "htaccess",
    ".-.-rf": "rf",
    "-rf": "rf",
    "--help.txt": "help.txt",
    "a\x00.png": "a.png",
    "a\r\nb.png": "ab.png",
    "a\u202egnp.exe": "agnp.exe",
    "a\u200b.png": "a.png",
    "\ud800.png": "png",
    "a  b \t c.png": "a b c.png",
    "a.png ": "a.png",
    "a.png.": "a.png",
    "a.png::$DATA": "a.png_DATA",
    "file:stream": "file_stream",
    'a<b>c|d?e*f"g.txt': "a_b_c_d_e_f_g.txt",
    "$(reboot).txt": "_(reboot).txt",
    "con": "_con",
    "NUL.txt": "_NUL.txt",
    "nul .txt": "_nul .txt",
    "com1": "_com1",
    "LPT\u00b9.a": "_LPT\u00b9.a",
    "console.txt": "console.txt",
    "com10": "com10",
    "e\u0301.txt": "é.txt",
    "e\u200d\u0301.txt": "é.txt",
    "~root": "_root",
}


@pytest.mark.parametrize("name", TAMED, ids=ascii)
def test_a_name_is_tamed(name):
    assert tame(name) == TAMED[name]


@pytest.mark.parametrize("letter", ["a", "é", "中", "😀"])
@pytest.mark.parametrize("suffix", [".png", "", "." + "x" * 300, ".tar.gz"])
def test_a_long_name_is_cut_between_characters(letter, suffix):
    name = tame(letter * 300 + suffix)
    assert 230 < len(name.encode()) <= uploads.LONGEST
    assert name.startswith(letter * 50)
    if len(suffix) < 10:
        assert name.endswith(os.path.splitext(suffix)[1])


def test_any_text_becomes_a_harmless_name_or_none():
    numbers = random.Random(7)
    special = "./\\-~ :*?\"<>|\x00\x1f\u202e\u0301\u200b\ud800\uffff\n$'ﬁ①é中😀aconul"
    for _ in range(3000):
        name = "".join(numbers.choices(special, k=numbers.randrange(1, 300)))
        tamed = tame(name)
        assert tame(tamed) == tamed == unicodedata.normalize("NFC", tamed)
        assert not set('/\\\x00\n\x1f:*?"<>|') & set(tamed)
        assert tamed[:1] not in tuple(".- ")
        assert len(tamed.encode()) <= uploads.LONGEST


# Saving


def field(contents=b"contents", filename="a.png"):
    """An uploaded file."""
    return SimpleNamespace(file=io.BytesIO(contents), filename=filename)


def saved(*args, **kwargs):
    return asyncio.run(save(*args, **kwargs))


def listing(path):
    return {each.name: each.read_bytes() for each in path.iterdir()}


def test_a_file_is_saved_by_its_name(tmp_path):
    path = saved(field(), str(tmp_path))
    assert path == tmp_path / "a.png"
    assert listing(tmp_path) == {"a.png": b"contents"}


def test_a_file_may_have_another_name(tmp_path):
    assert saved(field(filename=".."), tmp_path, ".own").name == ".own"


def test_a_field_may_be_saved_twice_and_read(tmp_path):
    one = field()
    one.file.read(3)
    assert saved(one, tmp_path).name == "a.png"
    assert saved(one, tmp_path).name == "a.1.png"
    assert one.file.read() == b"contents"
    assert listing(tmp_path) == dict.fromkeys(("a.png", "a.1.png"), b"contents")


def test_names_that_are_taken_get_a_number(tmp_path):
    names = [saved(field(filename="a.tar.gz"), tmp_path).name for _ in range(3)]
    assert names == ["a.tar.gz", "a.tar.1.gz", "a.tar.2.gz"]
    assert [saved(field(filename="b"), tmp_path).name for _ in range(2)] == ["b", "b.1"]


def test_after_many_there_is_a_random_one(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "TRIES", 3)
    names = {saved(field(), tmp_path).name for _ in range(20)}
    assert len(names) == len(listing(tmp_path)) == 20
    assert {"a.png", "a.1.png", "a.2.png"} < names


def test_a_name_of_the_greatest_length_gets_a_number(tmp_path):
    long = "é" * 400 + ".png"
    names = [saved(field(filename=long), tmp_path).name for _ in range(2)]
    assert names[1] == names[0].removesuffix(".png") + ".1.png"


@pytest.mark.parametrize("has_links", [True, False])
def test_of_many_at_once_each_gets_a_name(tmp_path, monkeypatch, has_links):
    if not has_links:
        monkeypatch.setattr(os, "link", refuse)

    async def save_all():
        fields = [field(b"%d" % number) for number in range(50)]
        return await asyncio.gather(*[save(each, tmp_path) for each in fields])

    paths = asyncio.run(save_all())
    assert [each.read_bytes() for each in paths] == [b"%d" % n for n in range(50)]
    assert len(listing(tmp_path)) == 50


def refuse(*args):
    raise PermissionError(errno.EPERM, "no links here")


def test_a_file_may_be_replaced(tmp_path):
    (tmp_path / "a.png").write_bytes(b"old")
    assert saved(field(), tmp_path, dup="o") == tmp_path / "a.png"
    assert listing(tmp_path) == {"a.png": b"contents"}


@pytest.mark.parametrize("dup", ["u", "o"])
@pytest.mark.parametrize("target", ["elsewhere", "missing"])
def test_a_link_is_not_followed(tmp_path, dup, target):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"old")
    into = tmp_path / "into"
    into.mkdir()
    (into / "a.png").symlink_to(tmp_path / target)
    path = saved(field(), into, dup=dup)
    assert path.read_bytes() == b"contents"
    assert path.name == ("a.png" if dup == "o" else "a.1.png")
    assert listing(tmp_path / "into") if dup == "o" else True
    assert elsewhere.read_bytes() == b"old"
    assert not (tmp_path / "missing").exists()


def test_a_directory_is_not_replaced(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(BadForm, match="there is a directory"):
        saved(field(), tmp_path, dup="o")
    assert os.listdir(tmp_path) == ["a.png"]
    assert saved(field(), tmp_path).name == "a.1.png"


def test_a_directory_is_made_if_that_is_wanted(tmp_path):
    into = tmp_path / "a" / "b"
    with pytest.raises(FileNotFoundError, match=r"save\([.]{3}, mkdir=True\) makes it"):
        saved(field(), into)
    assert listing(tmp_path) == {}
    assert saved(field(), into, mkdir=True) == into / "a.png"
    assert saved(field(), into, mkdir=True) == into / "a.1.png"


def test_what_is_no_directory_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for mkdir in (True, False):
        with pytest.raises(OSError, match="file"):
            saved(field(), tmp_path / "file", mkdir=mkdir)


def test_a_directory_may_be_an_asset(tmp_path, monkeypatch):
    (tmp_path / "uploading").mkdir()
    (tmp_path / "uploading" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    path = saved(field(), "uploading:files", mkdir=True)
    assert path == tmp_path / "uploading" / "files" / "a.png"


def test_a_file_has_the_mode_of_any_other(tmp_path):
    mask = os.umask(0o027)
    try:
        path = saved(field(), tmp_path)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("value", ["", b"", "text"])
def test_a_field_without_a_file_is_400(tmp_path, value):
    with pytest.raises(BadForm, match="No file was sent"):
        saved(value, tmp_path)


@pytest.mark.parametrize("filename", ["..", "/", "\x00", "", None])
def test_a_name_that_is_nothing_is_400(tmp_path, filename):
    with pytest.raises(BadForm, match="has nothing that can be used"):
        saved(field(filename=filename), tmp_path)
    assert listing(tmp_path) == {}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a\\b", "a\x00", "a\n"])
def test_a_name_of_the_application_is_refused_and_not_changed(tmp_path, name):
    with pytest.raises(ValueError, match="is no name of a file"):
        saved(field(), tmp_path, name)


def test_other_mistakes_are_told(tmp_path):
    with pytest.raises(ValueError, match="dup='x'"):
        saved(field(), tmp_path, dup="x")
    for wrong in (None, 1, object(), io.BytesIO()):
        with pytest.raises(TypeError, match="no uploaded file"):
            saved(wrong, tmp_path)


def test_what_fails_leaves_nothing(tmp_path):
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell():
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().read(3)

    one = SimpleNamespace(file=Failing(b"contents"), filename="a")
    for dup in ("u", "o"):
        with pytest.raises(OSError, match="No space"):
            saved(one, tmp_path, dup=dup)
    assert listing(tmp_path) == {}


class Slow(io.BytesIO):
    """A file of which a block comes when it is let."""

    def __init__(self, contents):
        super().__init__(contents)
        self.reads = threading.Semaphore(0)
        self.begun = threading.Event()

    def read(self, size=-1):
        self.begun.set()
        assert self.reads.acquire(timeout=10)
        return super().read(size)


@pytest.mark.parametrize("dup", ["u", "o"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_a_cancelled_save_leaves_nothing(tmp_path, dup, blocks):
    # With one block, the thread hears of it when the file is complete.
    (tmp_path / "a").write_bytes(b"old")
    file = Slow(b"x" * (uploads.BLOCK * blocks - 1))

    async def cancel():
        one = SimpleNamespace(file=file, filename="a")
        task = asyncio.create_task(save(one, tmp_path, dup=dup))
        await asyncio.to_thread(file.begun.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        file.reads.release(10)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert os.listdir(tmp_path) == ["a"]
    if dup == "u" or blocks == 2:
        assert (tmp_path / "a").read_bytes() == b"old"


def test_a_save_that_is_cancelled_before_it_began_does_nothing(tmp_path):
    async def cancel():
        task = asyncio.create_task(save(field(), tmp_path / "new", mkdir=True))
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert listing(tmp_path) == {}


def test_nobody_sees_half_of_a_file(tmp_path):
    file = Slow(b"x" * (uploads.BLOCK * 2))

    async def look():
        one = SimpleNamespace(file=file, filename="a")
        task = asyncio.create_task(save(one, tmp_path))
        await asyncio.to_thread(file.begun.wait, 10)
        file.reads.release()
        names = os.listdir(tmp_path)
        file.reads.release(10)
        await task
        return names

    (name,) = asyncio.run(look())
    assert name.startswith(".")
    assert name.endswith(".part")
    assert os.listdir(tmp_path) == ["a"]


def test_a_form_is_saved_in_a_request(tmp_path):
    async def view(request):
        form = await request.form()
        path = await save(form["f"], tmp_path)
        return {"path": path.name}

    def in_thread(request):
        path = aioext.wait(save(request.POST["f"], tmp_path))
        return {"path": path.name}

    for expected in ("f.txt", "f.1.txt"):
        client = post(app_of(view), large_form())
        assert client.body == b'{"path": "%s"}' % expected.encode()
    client = post(app_of(in_thread), large_form())
    assert client.body == b'{"path": "f.2.txt"}'
    assert set(listing(tmp_path).values()) == {b"x" * 100_000}


def test_a_form_without_a_file_is_told_to_its_client(tmp_path):
    async def view(request):
        await save((await request.form())["f"], tmp_path)

    for body in (part("f", "", ""), part("f", "text"), part("f", "", "..")):
        client = post(app_of(view), body + END)
        assert client.status == 400, body


def test_a_dummy_request_has_no_form():
    assert not hasattr(DummyRequest(), "form")


# On a server

MEBIBYTE = 1_048_576
UPLOAD = 64 * MEBIBYTE


@pytest.fixture(scope="module", params=["gunicorn", "uvicorn"])
def server(request):
    app = {"gunicorn": "uploads_app:make()", "uvicorn": "uploads_app:make_asgi"}
    options = ["--factory"] if request.param == "uvicorn" else []
    kind = request.param
    with serve(kind, *options, app[kind], directory=APPS, environ=ENVIRON) as server:
        yield server
        assert "Traceback" not in server.output


def ask(server, path, parts=()):
    """What a view answers; ``parts`` are those of a body, of which nothing is kept."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
    headers = {"Content-Type": MULTIPART}
    parts = list(parts)
    if parts:
        headers["Content-Length"] = str(sum(map(len, parts)))
        # A server may have closed the connection before all is sent.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", path, iter(parts), headers)
    else:
        connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return json.loads(body) if response.status == 200 else response.status


def upload(size):
    """Parts of a form with a file of many short lines, which is what takes longest."""
    block = (b"x" * 63 + b"\n") * (MEBIBYTE // 64)
    head = part("file", "", "a.txt").removesuffix(b"\r\n")
    return [head, *[block] * (size // MEBIBYTE), b"\r\n", END]


@pytest.mark.parametrize("view", ["keep", "keep_post"])
def test_a_large_upload_takes_no_memory_and_holds_nobody_up(server, view):
    before = ask(server, "/facts")
    answer = ask(server, f"/{view}", upload(UPLOAD))
    after = ask(server, "/facts")
    assert (answer["name"], answer["size"]) == ("a.txt", UPLOAD)
    assert after["names"] == ["a.txt"]
    assert after["peak"] - before["peak"] < UPLOAD / 4
    assert after["lag"] < answer["seconds"] / 3
    assert after["temporary"] == before["temporary"]


def test_a_server_refuses_by_the_limit_of_the_view(server):
    assert ask(server, "/small", upload(2 * MEBIBYTE)) == 413
    assert ask(server, "/keep", upload(101 * MEBIBYTE)) == 413
    assert ask(server, "/keep", upload(2 * MEBIBYTE))["size"] == 2 * MEBIBYTE
    assert ask(server, "/facts")["names"] == ["a.txt"]


def test_uploads_at_once_have_names_of_their_own(server):
    before = ask(server, "/facts")["temporary"]
    with ThreadPoolExecutor(4) as pool:
        answers = [
            pool.submit(ask, server, f"/{view}", upload(MEBIBYTE))
            for view in ("keep", "keep_post") * 2
        ]
        names = {each.result()["name"] for each in answers}
    assert names == {"a.txt", "a.1.txt", "a.2.txt", "a.3.txt"}
    assert ask(server, "/facts")["temporary"] == before


def test_a_client_that_leaves_in_mid_upload_leaves_nothing(server):
    before = ask(server, "/facts")["temporary"]
    with server.connect() as client:
        head, *blocks = upload(2 * MEBIBYTE)
        client.sendall(
            f"POST /keep HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MULTIPART}"
            f"\r\nContent-Length: {3 * MEBIBYTE}\r\n\r\n".encode()
            + head
            + blocks[0]
        )
        # Its body is being copied.
        poll(lambda: ask(server, "/facts")["temporary"] > before, server.describe)
    poll(lambda: ask(server, "/facts")["temporary"] == before, server.describe)
    assert ask(server, "/facts")["names"] == []

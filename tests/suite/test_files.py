"""Pages and JSON from one view, files, and forms that are uploaded."""

import itertools
import json

import files_app
import pytest
from runtimes import CONNECTIONS, FILES, FORMATS, PAGES, UPLOADS
from servers import poll, receive_until
from ws_client import values

keys = (f"files{n}" for n in itertools.count())

LARGE = files_app.LARGE.decode()


def get(running, path, *headers):
    return running.get(f"/files{path}", headers)


def one(answer, name):
    (value,) = values(answer.headers, name)
    return value


# Page and JSON ----------------------------------------------------------------

HTML = ("Accept", "text/html,*/*;q=0.8")
JSON = ("Accept", "application/json")


@pytest.mark.feature(FORMATS)
def test_a_view_is_a_page_and_json(running):
    for headers in ([HTML], [("Accept", "*/*")], []):
        answer = get(running, "/page", *headers)
        assert (answer.status, answer.body) == (200, "<h1>One</h1>password")
        assert one(answer, "content-type").startswith("text/html")
        assert "Accept" in one(answer, "vary")
    for path, headers in (("/page", [JSON]), ("/page.json", [HTML])):
        answer = get(running, path, *headers)
        # The secret is not among what was named.
        assert answer.json == {"title": "One"}
        assert one(answer, "content-type") == "application/json"


@pytest.mark.feature(FORMATS)
def test_what_a_view_has_not_is_refused(running):
    assert get(running, "/page", ("Accept", "image/png")).status == 406
    assert get(running, "/page.xml").status == 404


@pytest.mark.feature(FORMATS)
def test_formats_have_etags_of_their_own(running):
    answers = [get(running, "/page", each) for each in (HTML, JSON)]
    tags = [one(each, "etag") for each in answers]
    assert tags[0] != tags[1]
    for tag, kind in zip(tags, (HTML, JSON), strict=True):
        answer = get(running, "/page", kind, ("If-None-Match", tag))
        assert (answer.status, answer.body) == (304, "")
    answer = get(running, "/page", JSON, ("If-None-Match", tags[0]))
    assert answer.json == {"title": "One"}


@pytest.mark.feature(FORMATS)
def test_a_generator_becomes_json(running):
    answer = get(running, "/numbers")
    assert answer.json == list(range(1000))


# Streams ----------------------------------------------------------------------

STREAMS = {"page": ("/slow", b"<h1>head</h1>"), "json": ("/rows", b'{"row": 1}')}


@pytest.mark.feature(PAGES)
@pytest.mark.parametrize("kind", STREAMS)
def test_the_head_is_sent_before_the_rest_is_there(running, kind):
    path, head = STREAMS[kind]
    key = next(keys)
    with running.server.connect() as client:
        request = f"GET /files{path}?key={key} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client.sendall(request.encode())
        # There is no end that it could wait for.
        receive_until(client, head)
    poll(lambda: f"finally {key}" in running.output, running.server.describe)
    assert get(running, "/page", JSON).status == 200


# Files ------------------------------------------------------------------------


@pytest.mark.feature(FILES)
def test_a_static_file_is_conditional(running):
    answer = get(running, "/static/small.css")
    assert (answer.status, answer.body) == (200, files_app.SMALL.decode())
    assert one(answer, "content-type").startswith("text/css")
    assert one(answer, "cache-control").endswith("max-age=60")
    for name, value in (
        ("If-None-Match", one(answer, "etag")),
        ("If-Modified-Since", one(answer, "last-modified")),
    ):
        again = get(running, "/static/small.css", (name, value))
        assert (again.status, again.body) == (304, "")
    again = get(running, "/static/small.css", ("If-None-Match", '"other"'))
    assert again.status == 200
    again = get(running, "/static/small.css", ("If-Match", '"other"'))
    assert again.status == 412


@pytest.mark.feature(FILES)
@pytest.mark.parametrize("path", ["/static/large.txt", "/large"])
def test_a_large_file_comes_whole_or_in_part(running, path):
    size = len(LARGE)
    answer = get(running, path)
    assert (answer.status, answer.body == LARGE) == (200, True)
    assert one(answer, "content-length") == str(size)
    for asked, first, last in (
        ("16-31", 16, 31),
        ("500000-", 500_000, size - 1),
        ("-20", size - 20, size - 1),
        ("0-99999999", 0, size - 1),
    ):
        part = get(running, path, ("Range", f"bytes={asked}"))
        assert (part.status, part.body == LARGE[first : last + 1]) == (206, True)
        assert one(part, "content-range") == f"bytes {first}-{last}/{size}"
    for asked in ("bytes=0-1,4-5", "bytes=5-1", "lines=1-2", "bytes=x"):
        answer = get(running, path, ("Range", asked))
        assert (answer.status, answer.body == LARGE) == (200, True)
    assert get(running, path, ("Range", f"bytes={size}-")).status == 416


@pytest.mark.feature(FILES)
def test_a_head_has_what_a_get_would_have(running):
    for path in ("/static/large.txt", "/static/small.css", "/large", "/page"):
        answer = running.request("HEAD", f"/files{path}")
        whole = get(running, path)
        assert (answer.status, answer.body) == (200, "")
        for name in ("content-type", "etag"):
            assert one(answer, name) == one(whole, name)


@pytest.mark.feature(FILES)
def test_a_right_version_is_kept_for_ever(running):
    url = get(running, "/facts").json["url"]
    path, _, version = url.removeprefix("/files").partition("?v=")
    assert path == "/static/small.css"
    answer = get(running, f"{path}?v={version}")
    assert answer.body == files_app.SMALL.decode()
    assert one(answer, "cache-control") == "public, max-age=31536000, immutable"
    for wrong in (f"{version}1", "x", "", "%00"):
        answer = get(running, f"{path}?v={wrong}")
        assert answer.status == 200
        assert "immutable" not in one(answer, "cache-control")


@pytest.mark.feature(FILES)
@pytest.mark.parametrize(
    "path",
    [
        "/static/missing.css",
        "/static/%2e%2e/outside.txt",
        "/static/..%2foutside.txt",
        "/static/x/%2e%2e/%2e%2e/outside.txt",
        "/static/out/outside.txt",
        "/static/small.css%00",
        "/static/small.css/x",
        "/static/%5c..%5coutside.txt",
        "/static/" + "x" * 300,
    ],
)
def test_nothing_else_is_read(running, path):
    answer = get(running, path)
    assert answer.status in (400, 404), answer
    assert answer.body != "outside"


@pytest.mark.feature(FILES)
def test_an_asset_is_read(running):
    assert get(running, "/asset").json == {"text": files_app.SMALL.decode()}


@pytest.mark.feature(FILES)
def test_a_built_file_is_built_once_however_many_ask(running):
    for answer in running.get_all(["/files/static/built.css"] * 4):
        assert (answer.status, answer.body) == (200, files_app.SMALL.decode() * 2)
        assert one(answer, "content-type").startswith("text/css")
    if running.has(CONNECTIONS):
        assert running.output.count("built built.css") == 1


@pytest.mark.feature(FILES, CONNECTIONS)
def test_a_file_is_closed_when_its_client_leaves(running):
    for way in ("close", "keep-alive"):
        with running.server.connect() as client:
            client.sendall(
                b"GET /files/huge HTTP/1.1\r\nHost: localhost\r\n"
                b"Connection: %s\r\n\r\n" % way.encode()
            )
            receive_until(client, b"\r\n\r\n\0")
        poll(lambda: get(running, "/facts").json["open"] == 0, running.server.describe)


# Uploads ----------------------------------------------------------------------

BOUNDARY = "b0undary"
KIND = ("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
VIEWS = pytest.mark.parametrize("view", ["upload", "upload_in_function"])


def form(text, filename="../a.txt"):
    parts = [
        ('name="title"', "A file"),
        (f'name="file"; filename="{filename}"', text),
    ]
    lines = [
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n"
        for head, value in parts
    ]
    return "".join([*lines, f"--{BOUNDARY}--\r\n"]).encode()


def post(running, path, body):
    return running.request("POST", f"/files/{path}", [KIND], body)


@pytest.mark.feature(UPLOADS)
@VIEWS
@pytest.mark.parametrize("size", [1, 2000, 9000])
def test_a_file_is_uploaded(running, view, size):
    text = "x" * size
    answer = post(running, view, form(text))
    assert answer.json == {"name": "a.txt", "text": text, "title": "A file"}


@pytest.mark.feature(UPLOADS)
@VIEWS
def test_views_have_limits_of_their_own(running, view):
    for name, size in ((f"{view}_less", 500), (view, 9000), (f"{view}_more", 90_000)):
        text = "x" * size
        assert post(running, name, form(text)).json["text"] == text
    for name, size in ((f"{view}_less", 1000), (view, 11_000)):
        answer = post(running, name, form("x" * size))
        assert answer.status == 413
        assert "The body of the request is larger than" in answer.body


@pytest.mark.feature(UPLOADS)
def test_what_cannot_be_kept_is_told(running):
    for body in (b"hello", form("text")[:-10], form("text", "..")):
        assert post(running, "upload", body).status == 400
    assert json.loads(post(running, "upload", form("text")).body)["text"] == "text"

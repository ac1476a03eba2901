"""Views without a renderer that return plain contents."""

import asyncio
import io
import json

import pytest
from asgi import Client
from hook_apps import OnLoop, OnWsgi, add_view, commit, make
from pyramid.response import Response

from aioext import wait
from aioext.gateway import Gateway

MODES = ["executor", "inline", "request"]


@pytest.fixture(params=[OnLoop, OnWsgi])
def ask(request):
    return request.param()


def app_with(*steps, adapters="true", **settings):
    settings = {f"aioext.{name}": value for name, value in settings.items()}
    settings["aioext.renderers.adapters"] = adapters
    steps = [lambda config: config.include("aioext.renderers"), *steps]
    return make(*steps, settings=settings)


def add_told(config):
    def told(error, request):
        return Response(f"{type(error).__name__}: {error}", status=500)

    config.add_exception_view(told, context=Exception)


async def later(*items):
    for item in items:
        await asyncio.sleep(0)
        yield item


def now(*items):
    for item in items:
        wait(asyncio.sleep(0))
        yield item


TEXT = "text/plain; charset=UTF-8"
JSON = "application/json"
BYTES = "application/octet-stream"

CONTENTS = {
    "str": (lambda: "é", TEXT, "é"),
    "nothing": (lambda: "", TEXT, ""),
    "bytes": (lambda: b"bytes", BYTES, "bytes"),
    "dict": (lambda: {"a": {1}}, JSON, '{"a": [1]}'),
    "empty": (dict, JSON, "{}"),
    "list": (lambda: [1, "é"], JSON, '[1, "\\u00e9"]'),
    "file": (lambda: io.BytesIO(b"file"), BYTES, "file"),
    "of str": (lambda: now("é", "b"), TEXT, "éb"),
    "of str and bytes": (lambda: now("a", b"b"), TEXT, "ab"),
    "of bytes": (lambda: now(b"a", "é"), BYTES, "aé"),
    "of others": (lambda: now({"a": 1}, "b"), JSON, '[{"a": 1},\n"b"]'),
    "of nothing": (lambda: now(), TEXT, ""),
    "of empty str": (lambda: now("", ""), TEXT, ""),
    "of str, later": (lambda: later("é", "b"), TEXT, "éb"),
    "of others, later": (lambda: later(1, {2}), JSON, "[1,\n[2]]"),
    "iterator": (lambda: map(str, [1, 2]), TEXT, "12"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("is_coroutine", [True, False])
@pytest.mark.parametrize("kind", CONTENTS)
def test_contents(ask, kind, is_coroutine, mode):
    give, content_type, text = CONTENTS[kind]

    async def coroutine(request):
        return give()

    view = coroutine if is_coroutine else lambda request: give()
    answer = ask(app_with(add_view(view), sync_views=mode), "/")[0]
    assert (answer.status, answer.text) == (200, text)
    assert answer.headers["content-type"] == content_type


def test_of_a_class_with_a_method():
    class View:
        def __init__(self, request):
            self.request = request

        def text(self):
            return self.request.path_info

    assert OnLoop()(app_with(add_view(View, attr="text")), "/x")[0].text == "/x"


@pytest.mark.parametrize("value", ["text", b"bytes", {}, now("a"), later("a")])
def test_the_requests_response_is_used(value):
    def view(request):
        request.response.status = 202
        request.response.content_type = "text/csv"
        request.response.headers["X-Own"] = "yes"
        return value

    answer = OnLoop()(app_with(add_view(view)), "/")[0]
    assert answer.status == 202
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["x-own"] == "yes"


def test_a_view_with_a_renderer_keeps_it():
    # Pyramid asks response adapters before it renders.
    app = app_with(add_view(lambda request: {"a": 1}, renderer="string"))
    assert OnLoop()(app, "/")[0].text == "{'a': 1}"


def test_a_view_with_formats_keeps_them():
    def view(request):
        return {"shown": 1, "secret": 2}

    app = app_with(add_view(view, formats={"json": ("shown",)}))
    assert OnLoop()(app, "/")[0].text == '{"shown": 1}'


def test_a_default_renderer_is_a_renderer():
    def factory(info):
        return lambda value, system: f"own {value}"

    app = app_with(
        lambda config: config.add_renderer(None, factory),
        add_view(lambda request: "text"),
    )
    assert OnLoop()(app, "/")[0].text == "own text"


@pytest.mark.parametrize("generate", [now, later])
def test_nothing_is_no_part_of_a_body(run, generate):
    async def main():
        app = Gateway(app_with(add_view(lambda request: generate("", "a", "", "b"))))
        client = await Client().call(app)
        assert client.body == b"ab"

    run(main())


def test_an_error_after_nothing_is_a_status(ask):
    def items():
        yield ""
        wait(asyncio.sleep(0))
        raise LookupError("in time")

    app = app_with(add_view(lambda request: items()), add_told)
    assert ask(app, "/")[0].text == "LookupError: in time"


def test_a_response_passes():
    app = app_with(add_view(lambda request: Response("own", status=201)))
    assert OnLoop()(app, "/")[0].status == 201


def test_response_adapters_of_the_application_come_first():
    calls = []

    def adapt(text):
        calls.append(text)
        return Response(f"own {text}")

    app = app_with(
        lambda config: config.add_response_adapter(adapt, str),
        add_view(lambda request: "text"),
    )
    assert OnLoop()(app, "/")[0].text == "own text"
    assert calls == ["text"]


@pytest.mark.parametrize("value", [None, 1, object(), ("text", 201)])
def test_what_is_none_of_these_is_refused_by_pyramid(value):
    answer = OnLoop()(app_with(add_view(lambda request: value), add_told), "/")[0]
    assert "Could not convert return value of the view" in answer.text


@pytest.mark.parametrize("settings", [{"adapters": "false"}, {}])
def test_it_is_off_by_default(settings):
    def include(config):
        config.include("aioext.renderers")

    app = make(
        include,
        add_view(lambda request: "text"),
        add_told,
        settings={f"aioext.renderers.{name}": on for name, on in settings.items()},
    )
    assert "Could not convert return value" in OnLoop()(app, "/")[0].text


def test_exception_views_and_notfound_views():
    def notfound(error, request):
        request.response.status = 404
        return {"missing": request.path_info}

    def slashed(request):
        return "slashed"

    app = app_with(
        # Pyramid derives a notfound view with append_slash at once, by the view
        # derivers that it knows by then.
        commit,
        lambda config: config.add_notfound_view(notfound, append_slash=True),
        lambda config: config.add_route("slashed", "/slashed/"),
        lambda config: config.add_view(slashed, route_name="slashed"),
    )
    ask = OnLoop()
    missing = ask(app, "/missing")[0]
    assert (missing.status, json.loads(missing.text)) == (404, {"missing": "/missing"})
    assert ask(app, "/slashed")[0].status == 307
    assert ask(app, "/slashed/")[0].text == "slashed"


@pytest.mark.parametrize("items", [now, later])
def test_an_error_at_once_is_a_status_and_one_later_cuts(run, items):
    async def main():
        app = app_with(add_view(lambda request: items(*steps)), add_told)
        client = Client()
        for steps in ((object(),), ("a", 1)):
            client = Client()
            if steps[0] == "a":
                with pytest.raises(TypeError, match="#plain-contents"):
                    await client.call(Gateway(app))
                assert (client.status, client.body) == (200, b"a")
                assert not client.ended
            else:
                await client.call(Gateway(app))
                assert client.status == 500

    run(main())


@pytest.mark.parametrize("leaves", [True, False])
def test_a_file_is_read_in_blocks_and_closed(run, leaves):
    sizes = []

    class File(io.BytesIO):
        def read(self, size=-1):
            sizes.append(size)
            return super().read(size)

    async def main():
        file = File(b"x" * 1_000_000)
        client = Client()
        if leaves:
            client.reads.clear()
        task = client.start(Gateway(app_with(add_view(lambda request: file))))
        await client.until(lambda: client.is_sent_to)
        if leaves:
            client.leave()
        await asyncio.wait([task])
        assert file.closed
        assert -1 not in sizes
        assert leaves or len(client.body) == 1_000_000

    run(main())

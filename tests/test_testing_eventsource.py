"""Event streams of a ``TestApp``.

Most applications here are ASGI applications, written by hand, in the place of the
gateway: each does one thing, right or wrong, that a server would see.
"""

import asyncio
import contextlib
import itertools

import pytest
from webtest import AppError, TestResponse

from aioext import spawn_greenlet, wait
from aioext.exceptions import ScopeError
from aioext.testing import ServerEvent, TestApp, TestEventSource, serving

EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]
PAGE = [(b"content-type", b"text/html; charset=utf-8")]


def wsgi_app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"page"]


@pytest.fixture
def serve():
    """A ``TestApp`` whose streams are served by ``handler(server)``."""

    def serve(handler, **options):
        async def gateway(scope, receive, send):
            assert (await receive())["type"] == "http.request"
            await handler(Server(scope, receive, send))

        app = stack.enter_context(TestApp(wsgi_app, **options))
        app.gateway = gateway
        return app

    with contextlib.ExitStack() as stack:
        yield serve


class Server:
    """One request on the side of an ASGI application."""

    def __init__(self, scope, receive, send):
        self.scope = scope
        self.receive = receive
        self.send_message = send

    @property
    def headers(self):
        return {name.decode(): value.decode() for name, value in self.scope["headers"]}

    async def start(self, status=200, headers=EVENTS):
        start = {"type": "http.response.start", "status": status, "headers": headers}
        await self.send_message(start)

    async def send(self, body=b"", more=True):
        await self.send_message(
            {"type": "http.response.body", "body": body, "more_body": more}
        )

    async def respond(self, body, status=200, headers=PAGE):
        await self.start(status, headers)
        await self.send(body, more=False)

    async def gone(self):
        assert await self.receive() == {"type": "http.disconnect"}


def sending(*chunks):
    """A handler that streams ``chunks``, and ends."""

    async def handler(server):
        await server.start()
        for chunk in chunks:
            await server.send(chunk)
        await server.send(more=False)

    return handler


async def silence(server):
    await server.start()
    await server.gone()


# Events


def test_events_come_one_by_one(serve):
    chunks = [
        b": hi\n\n",
        b"data: a\n\ndata: b\n\n",
        b"id: 3\nretry: 500\nda",
        b"ta: c",
    ]
    with serve(sending(*chunks, b"\n\n")).eventsource("/") as stream:
        assert stream.next() == ServerEvent("a", comments=("hi",))
        assert stream.next().data == "b"
        assert stream.last_event_id is None
        event = stream.next()
        assert (event.data, event.id, event.retry) == ("c", "3", 0.5)
        assert (stream.last_event_id, stream.retry) == ("3", 0.5)
        assert stream.comments == ["hi"]
        assert stream.next() is None
        assert stream.next() is None


def test_iteration_ends_with_the_stream(serve):
    with serve(sending(b"data: 1\n\n", b"data: 2\n\n")).eventsource("/") as stream:
        assert [event.data for event in stream] == ["1", "2"]


def test_the_head_is_there_before_any_event(serve):
    with serve(silence).eventsource("/ticks") as stream:
        assert isinstance(stream, TestEventSource)
        assert isinstance(stream.response, TestResponse)
        assert stream.status == stream.response.status == "200 OK"
        assert stream.headers["Content-Type"] == "text/event-stream; charset=utf-8"


def test_an_endless_stream_is_asked_for_what_is_taken(serve):
    sent = []

    async def count(server):
        await server.start()
        with contextlib.suppress(OSError):
            for number in itertools.count(1):
                await server.send(f"data: {number}\n\n".encode())
                sent.append(number)

    with serve(count).eventsource("/") as stream:
        assert [event.data for event in itertools.islice(stream, 100)] == [
            str(number) for number in range(1, 101)
        ]
        assert 100 <= len(sent) <= 101


def test_a_stream_goes_on_between_two_requests(serve):
    posted = []

    async def follow(server):
        event = posted[0]
        await server.start()
        await event.wait()
        await server.send(b"data: posted\n\n")

    app = serve(follow)
    posted.append(asyncio.Event())
    with app.eventsource("/") as stream:
        assert app.get("/").text == "page"
        stream._serving._loop.call_soon_threadsafe(posted[0].set)
        assert stream.next().data == "posted"


# The request


@pytest.fixture
def scope_of(serve):
    """The scope of a request, as the application gets it."""

    def scope_of(*args, extra_environ=None, cookies=(), **options):
        seen = []

        async def look(server):
            seen.append(server)
            headers = [*EVENTS, (b"set-cookie", b"b=2; Path=/")]
            await server.start(headers=headers)

        app = serve(look, extra_environ=extra_environ)
        for name, value in cookies:
            app.set_cookie(name, value)
        with app.eventsource(*(args or ["/"]), **options):
            pass
        return seen[0], app

    return scope_of


def test_the_scope_is_that_of_a_browser(scope_of):
    server, app = scope_of("/a%20b?x=1", cookies=[("a", "1")])
    scope = server.scope
    assert (scope["type"], scope["method"]) == ("http", "GET")
    assert (scope["scheme"], scope["path"]) == ("http", "/a b")
    assert scope["query_string"] == b"x=1"
    assert server.headers["accept"] == "text/event-stream"
    assert server.headers["cookie"] == 'a="1"'
    assert "last-event-id" not in server.headers
    assert "content-length" not in server.headers
    assert app.cookies["b"] == "2"


def test_the_last_event_id_is_sent_as_utf8(scope_of):
    server, _ = scope_of("/", last_event_id="é7")
    assert dict(server.scope["headers"])[b"last-event-id"] == "é7".encode()


def test_headers_may_replace_those_of_a_browser(scope_of):
    server, _ = scope_of("/", headers={"Accept": "*/*", "X-Thing": "x"})
    assert server.headers["accept"] == "*/*"
    assert server.headers["x-thing"] == "x"


def test_the_environ_of_the_test_app_counts(scope_of):
    environ = {"wsgi.url_scheme": "https", "HTTP_HOST": "example.com"}
    server, _ = scope_of(extra_environ=environ)
    assert server.scope["scheme"] == "https"
    assert server.headers["host"] == "example.com"


# Other answers


async def forbid(server):
    await server.start(403, PAGE)
    await server.send(b"100% not ")
    await server.send(b"yours", more=False)


def test_a_status_that_is_not_expected_is_an_error(serve):
    with pytest.raises(AppError) as caught:
        serve(forbid).eventsource("/")
    assert "Bad response: 403 Forbidden" in str(caught.value)
    assert "100% not yours" in str(caught.value)


@pytest.mark.parametrize("status", [403, "*", "403 *"])
def test_a_status_that_is_expected_gives_the_response(serve, status):
    app = serve(forbid)
    with app.eventsource("/", status=status) as stream:
        assert stream.status == "403 Forbidden"
        assert stream.response.text == "100% not yours"
        assert stream.response.test_app is app
        assert stream.next() is None


def test_a_refusal_of_the_type_of_a_stream_is_no_stream(serve):
    async def refuse(server):
        await server.respond(b"data: not yours\n\n", 403, EVENTS)

    with serve(refuse).eventsource("/", status=403) as stream:
        assert stream.response.text == "data: not yours\n\n"
        assert stream.next() is None


def test_a_stream_that_is_not_expected_is_an_error_and_ended(serve):
    ended = []

    async def handler(server):
        await silence(server)
        ended.append(True)

    with pytest.raises(AppError, match="Bad response: 200 OK"):
        serve(handler).eventsource("/", status=403)
    assert ended


def test_a_page_that_is_no_stream_is_an_error(serve):
    async def page(server):
        await server.respond(b"<p>100% page</p>")

    with pytest.raises(AppError) as caught:
        serve(page).eventsource("/page")
    message = str(caught.value)
    assert "http://localhost/page gave a page of type 'text/html'" in message
    assert "mapper=EventSourceMapper" in message
    assert "100% page" in message


def test_any_answer_may_be_expected(serve):
    async def page(server):
        await server.respond(b"<p>page</p>")

    with serve(page).eventsource("/", status="*") as stream:
        assert stream.response.text == "<p>page</p>"
        assert stream.next() is None


def test_a_redirection_can_be_followed(serve):
    async def redirect(server):
        await server.respond(b"", 302, [*PAGE, (b"location", b"/there")])

    with serve(redirect).eventsource("/") as stream:
        assert stream.response.follow().text == "page"


def test_no_content_tells_a_browser_to_stay_away(serve):
    async def nothing(server):
        await server.respond(b"", 204, [])

    with serve(nothing).eventsource("/") as stream:
        assert stream.status == "204 No Content"
        assert stream.next() is None


# Errors


def test_an_error_before_the_head_is_raised(serve):
    async def fail(server):
        raise LookupError("no such stream")

    with pytest.raises(LookupError, match="no such stream"):
        serve(fail).eventsource("/")


async def fail(server):
    await server.start()
    await server.send(b"data: 1\n\n")
    raise LookupError("no such stream")


def test_an_error_is_raised_once_all_events_were_taken(serve):
    with serve(fail).eventsource("/") as stream:
        assert stream.next().data == "1"
        with pytest.raises(LookupError, match="no such stream"):
            stream.next()
        assert stream.next() is None


def test_an_error_is_raised_at_the_end_of_the_block(serve):
    with pytest.raises(LookupError), serve(fail).eventsource("/"):
        pass


def test_an_error_is_noted_where_the_test_fails_itself(serve):
    def test():
        with serve(fail).eventsource("/x") as stream:
            assert stream.next() is None

    with pytest.raises(AssertionError) as caught:
        test()
    assert "EventSource /x failed in the application" in "".join(caught.value.__notes__)


def test_an_application_that_does_not_answer(serve, monkeypatch):
    monkeypatch.setattr(serving, "GRACE", 0.01)

    async def leave(server):
        pass

    with pytest.raises(AssertionError, match="EventSource /x had no answer: the app"):
        serve(leave).eventsource("/x")

    async def hang(server):
        await asyncio.get_running_loop().create_future()

    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        serve(hang).eventsource("/x", timeout=0.01)


def test_a_head_after_the_application_has_returned_is_none(serve):
    returned = asyncio.Event()
    late = []

    async def answer(server):
        await returned.wait()
        await server.start()

    async def leave(server):
        late.append(asyncio.create_task(answer(server)))

    with pytest.raises(AssertionError, match="sent nothing"):
        serve(leave).eventsource("/")
    (task,) = late
    task.get_loop().call_soon_threadsafe(returned.set)

    async def end():
        await task

    wait(end())


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.response.body"}],
        [{"type": "http.nonsense"}],
        [{"type": "http.response.start", "status": 200}] * 2,
        [
            {"type": "http.response.start", "status": 200, "headers": EVENTS},
            {"type": "http.response.body"},
            {"type": "http.response.body"},
        ],
    ],
)
def test_what_is_not_asgi_is_refused(serve, messages):
    async def send(server):
        for message in messages:
            await server.send_message(message)

    with (
        pytest.raises(AssertionError, match="which is not its turn"),
        serve(send).eventsource("/"),
    ):
        pass


# The end


def test_the_application_hears_that_the_client_has_gone(serve):
    events = []

    async def handler(server):
        await server.start()
        await server.gone()
        # Servers say it again to whom asks again.
        await server.gone()
        events.append("gone")
        try:
            await server.send(b"data: late\n\n")
        except OSError as error:
            events.append(type(error))

    stream = serve(handler).eventsource("/")
    stream.disconnect()
    stream.wait_ended()
    assert events == ["gone", BrokenPipeError]
    assert stream.next() is None


def test_a_sender_that_is_held_back_hears_it_too(serve):
    errors = []

    async def handler(server):
        await server.start()
        try:
            while True:
                await server.send(b"data: 1\n\n")
        except OSError as error:
            errors.append(error)

    with serve(handler).eventsource("/") as stream:
        assert stream.next().data == "1"
    assert len(errors) == 1


def test_an_application_that_asks_for_ever_is_cancelled(serve, monkeypatch):
    monkeypatch.setattr(serving, "GRACE", 0.01)

    async def handler(server):
        await server.start()
        while True:
            await server.gone()

    with serve(handler).eventsource("/"):
        pass


def test_a_timeout_says_what_was_waited_for(serve):
    async def talk(server):
        await server.start()
        await server.send(b": one\n\n: two\n\n")
        await server.send(b"data: 1\n\n")
        await server.gone()

    with serve(talk).eventsource("/x", timeout=0.02) as stream:
        assert stream.next(5).data == "1"
        with pytest.raises(TimeoutError) as caught:
            stream.next()
        with pytest.raises(TimeoutError, match=r"0\.01 s"):
            stream.next(timeout=0.01)
    message = str(caught.value)
    assert message.startswith("No event came from EventSource /x within 0.02 s. Rec")
    assert "Received: 1, the last was ServerEvent(data='1'" in message
    assert message.endswith("2 comments. The application still runs.")


def test_a_timeout_without_any_event(serve):
    with (
        serve(silence).eventsource("/x") as stream,
        pytest.raises(TimeoutError, match="Received: no events; 0 comments"),
    ):
        stream.next(0.01)


def test_comments_do_not_prolong_a_timeout(serve):
    async def chatter(server):
        await server.start()
        with contextlib.suppress(OSError):
            while True:
                await server.send(b":\n\n")
                await asyncio.sleep(0)

    with (
        serve(chatter).eventsource("/x") as stream,
        pytest.raises(TimeoutError, match=r"no events; \d+ comments"),
    ):
        stream.next(0.05)


# On a loop


def test_a_coroutine_cannot_use_it_and_a_greenlet_can(serve, run):
    app = serve(sending(b"data: 1\n\n"))

    def take():
        with app.eventsource("/") as stream:
            return stream.next().data

    async def main():
        with pytest.raises(ScopeError, match=r"await spawn_greenlet\(function\)"):
            app.eventsource("/")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(spawn_greenlet(take)) for _ in range(3)]
        return [task.result() for task in tasks]

    assert run(main()) == ["1", "1", "1"]

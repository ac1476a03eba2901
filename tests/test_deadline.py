"""``aioext.request_timeout``: requests that take too long."""

import asyncio
import contextlib
import threading

import pytest
from asgi import Client
from inprocess import make_app
from pyramid.exceptions import ConfigurationError
from pyramid.response import Response
from test_disconnect import Talk, head, start

from aioext import use_executor, wait

SECONDS = 0.05
ANSWER = b"503 Service Unavailable\n\nThe request took too long.\n"


def make(view, timeout=SECONDS, *, options=(), **settings):
    """An application of one view, with a deadline."""
    settings = {f"aioext.{key}": value for key, value in settings.items()}
    if timeout is not None:
        settings["aioext.request_timeout"] = str(timeout)

    def configure(config):
        config.add_view(view, renderer="json", **dict(options))

    return make_app(configure, settings=settings)


class Steps(list):
    """Views that take too long, and tell what becomes of them."""

    def __init__(self):
        super().__init__()
        self.released = threading.Event()

    async def _sleep(self):
        try:
            await asyncio.sleep(60)
        finally:
            # The cleanup may wait.
            await asyncio.sleep(0)
            self.append("finally")

    async def coroutine(self, request):
        await self._sleep()

    def inline(self, request):
        wait(self._sleep())

    def thread(self, request):
        wait(self._sleep())

    def blocks(self, request):
        self.released.wait(10)
        self.append("thread ended")
        wait(asyncio.sleep(0))
        self.append("went on")


@pytest.fixture
def steps():
    return Steps()


@pytest.mark.parametrize("view", ["coroutine", "inline", "thread"])
@pytest.mark.parametrize("mode", ["executor", "inline", "request"])
def test_a_request_that_takes_too_long_is_cancelled_and_answered(
    run, steps, caplog, view, mode
):
    app = make(getattr(steps, view), sync_views=mode)
    client = run(Client().call(app))
    assert client.status == 503
    assert client.body == ANSWER
    assert steps == ["finally"]
    (record,) = caplog.records
    named = f"GET '/' (view method {view} of class test_deadline.Steps)"
    assert named in record.message
    assert f"within its time, {SECONDS} s" in record.message


def test_head_is_answered_without_a_body(run, steps):
    client = run(Client(method="HEAD").call(make(steps.coroutine)))
    assert client.status == 503
    assert client.body == b""
    assert (b"content-length", b"%d" % len(ANSWER)) in client.headers


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_the_method_does_not_matter(run, steps, method):
    client = run(Client(method=method).call(make(steps.coroutine)))
    assert client.status == 503


def test_a_request_in_time_is_answered_as_always(run, caplog):
    async def view(request):
        await asyncio.sleep(0.01)
        return {}

    client = run(Client().call(make(view, 10)))
    assert client.status == 200
    assert not caplog.records


def test_without_the_setting_there_is_no_deadline(run):
    async def view(request):
        await asyncio.sleep(SECONDS * 2)
        return {}

    assert run(Client().call(make(view, None))).status == 200


def test_each_request_has_its_own(run):
    async def view(request):
        await asyncio.sleep(float(request.params["s"]))
        return {}

    async def main():
        app = make(view, 0.2)
        slow = [Client(query_string=b"s=60").call(app) for _ in range(20)]
        quick = [Client(query_string=b"s=0.01").call(app) for _ in range(20)]
        clients = await asyncio.gather(*slow, *quick)
        return [client.status for client in clients]

    assert run(main()) == [503] * 20 + [200] * 20


# Threads


@pytest.mark.parametrize("mode", ["executor", "request"])
def test_the_answer_does_not_wait_for_a_thread(run, steps, mode):
    async def main():
        app = make(steps.blocks, sync_views=mode)
        client = Client()
        task = client.start(app)
        await client.until(lambda: client.ended)
        assert client.status == 503
        assert steps == []
        assert not task.done()
        steps.released.set()
        await task

    run(main())
    # The cancellation is raised in the thread where it waits.
    assert steps == ["thread ended"]


def test_the_thread_keeps_its_place_in_the_pool(run, steps):
    async def main():
        app = make(steps.blocks, executor_workers="1")
        first, second = Client(), Client()
        tasks = [first.start(app), second.start(app)]
        for client in (first, second):
            await client.until(lambda client=client: client.ended)
            assert client.status == 503
        steps.released.set()
        await asyncio.gather(*tasks)

    run(main())
    # The second one never began.
    assert steps == ["thread ended"]


def test_a_blocking_call_of_a_coroutine_is_not_waited_for_either(run, steps):
    async def view(request):
        await use_executor(steps.blocks)(request)

    async def main():
        client = Client()
        task = client.start(make(view))
        await client.until(lambda: client.ended)
        steps.released.set()
        await task
        return client.status

    assert run(main()) == 503


class Data:
    """A data manager that notes what becomes of it."""

    def __init__(self, manager, steps):
        self.transaction_manager = manager
        self.steps = steps

    def abort(self, transaction):
        self.steps.append("aborted")

    def tpc_begin(self, transaction):
        self.steps.append("committed")

    tpc_vote = tpc_finish = commit = tpc_abort = lambda self, transaction: None

    def sortKey(self):
        return "data"


@pytest.mark.parametrize("mode", ["executor", "request"])
def test_the_transaction_is_aborted_when_the_thread_has_ended(run, steps, mode):
    def view(request):
        request.tm.get().join(Data(request.tm, steps))
        steps.released.wait(10)
        steps.append("thread ended")
        return {}

    async def main():
        settings = {
            "aioext.request_timeout": str(SECONDS),
            "aioext.sync_views": mode,
        }
        app = make_app(
            lambda config: config.add_view(view, renderer="json"),
            "aioext",
            "pyramid_tm",
            settings=settings,
        )
        client = Client()
        task = client.start(app)
        await client.until(lambda: client.ended)
        assert steps == []
        steps.released.set()
        await task
        return client.status

    assert run(main()) == 503
    assert steps == ["thread ended", "aborted"]


# What was cancelled and goes on


@pytest.mark.parametrize("kind", ["list", "async", "generator"])
def test_what_is_answered_after_that_is_not_sent(run, caplog, kind):
    closed = []

    async def view(request):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        if kind == "list":
            return Response("too late")

        async def chunks():
            try:
                yield b"too late"
            finally:
                closed.append(True)

        return Response(app_iter=chunks() if kind == "async" else iter([b"too late"]))

    client = run(Client().call(make(view)))
    assert client.status == 503
    assert client.body == ANSWER
    assert closed == []
    told = [record.message for record in caplog.records]
    assert any("its deadline had come, and went on" in each for each in told[1:])


def test_an_error_of_the_cleanup_is_the_servers_to_log(run):
    async def view(request):
        try:
            await asyncio.sleep(60)
        finally:
            raise OSError("the cleanup failed")

    async def main():
        client = Client()
        with pytest.raises(OSError, match="the cleanup failed"):
            await client.call(make(view))
        return client.status

    assert run(main()) == 503


def test_a_client_that_has_left_is_no_error(run, steps):
    async def main():
        client = Client(method="POST")
        task = client.start(make(steps.coroutine))
        await asyncio.sleep(0)
        client.leave(send_fails=True)
        await task
        return client.sent

    assert run(main()) == []
    assert steps == ["finally"]


def test_a_server_that_cancels_meanwhile_is_obeyed(run, steps):
    async def main():
        client = Client()
        task = client.start(make(steps.blocks))
        await client.until(lambda: client.ended)
        task.cancel()
        steps.released.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_the_task_does_not_look_cancelled_afterwards(run, steps):
    async def main():
        await Client().call(make(steps.coroutine))
        await asyncio.sleep(0)
        return asyncio.current_task().cancelling()

    assert run(main()) == 0


# Streams


@pytest.mark.parametrize("kind", ["async", "generator", "executor"])
def test_a_stream_has_its_head_in_time_and_then_any_time(run, kind):
    async def asynchronous():
        yield b"first"
        await asyncio.sleep(SECONDS * 3)
        yield b"last"

    def plain():
        yield b"first"
        wait(asyncio.sleep(SECONDS * 3))
        yield b"last"

    def respond():
        return Response(app_iter=asynchronous() if kind == "async" else plain())

    async def view(request):
        return respond()

    def in_thread(request):
        return respond()

    app = make(in_thread if kind == "executor" else view)
    client = run(Client().call(app))
    assert client.status == 200
    assert client.parts == [b"first", b"last"]


@pytest.mark.parametrize("kind", ["async", "generator"])
def test_a_stream_without_a_first_part_is_too_late(run, kind):
    closed = []

    async def asynchronous():
        try:
            await asyncio.sleep(60)
            yield b"first"
        finally:
            closed.append(True)

    def plain():
        try:
            wait(asyncio.sleep(60))
            yield b"first"
        finally:
            closed.append(True)

    async def view(request):
        return Response(app_iter=asynchronous() if kind == "async" else plain())

    client = run(Client().call(make(view)))
    assert client.status == 503
    assert client.body == ANSWER
    assert closed == [True]


# A view's own


@pytest.mark.parametrize("setting", [None, 10])
@pytest.mark.parametrize("view", ["coroutine", "thread"])
def test_a_view_may_have_less(run, steps, view, setting):
    app = make(getattr(steps, view), setting, options={"request_timeout": SECONDS})
    assert run(Client().call(app)).status == 503


@pytest.mark.parametrize("option", [0, 10])
@pytest.mark.parametrize("mode", ["executor", "request"])
def test_a_view_may_have_more(run, mode, option):
    def view(request):
        wait(asyncio.sleep(SECONDS * 3))
        return {}

    app = make(view, options={"request_timeout": option}, sync_views=mode)
    assert run(Client().call(app)).status == 200


def test_a_value_that_is_not_allowed_is_refused_by_name(steps):
    with pytest.raises(ConfigurationError) as caught:
        make(steps.coroutine, options={"request_timeout": "soon"})
    assert "coroutine" in str(caught.value)
    assert "request_timeout='soon'; it takes a number of seconds" in str(caught.value)


def test_nothing_is_done_on_a_plain_server(steps):
    def view(request):
        wait(asyncio.sleep(SECONDS * 2))
        return Response("done")

    app = make(view, options={"request_timeout": SECONDS}).app
    started = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
    }
    body = app(environ, lambda status, headers, exc=None: started.append(status))
    assert b"".join(body) == b"done"
    assert started == ["200 OK"]


# On servers


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn", "hypercorn", "granian"])
def test_on_every_server_the_connection_serves_on(kind):
    with start(kind, "timed") as server:
        talk = Talk(server)
        with server.connect() as client:
            for path in ("/blocks", "/sleeps", "/renew"):
                client.sendall(head(path))
                status, body = receive(client)
                assert status == (200 if path == "/renew" else 503)
                assert body == (b"{}" if path == "/renew" else ANSWER)
                if path == "/blocks":
                    assert "finished blocks" not in talk.said
        talk.wait_for("finished blocks")
        assert "view function guards_app.blocks" in talk.said
        assert "Traceback" not in talk.said
        assert server.stop() in (0, -15)


def receive(client):
    """One response with a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(65_536)
    top, _, body = data.partition(b"\r\n\r\n")
    lines = top.lower().split(b"\r\n")
    (length,) = [int(x.split(b":")[1]) for x in lines if x.startswith(b"content-len")]
    while len(body) < length:
        body += client.recv(65_536)
    return int(top.split(b" ")[1]), body

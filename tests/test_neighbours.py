"""Other add-ons beside aioext, included before it and after it."""

import asyncio
import functools
from contextlib import asynccontextmanager

import pytest
import transaction
from asgi import Client
from cornice import Service
from cornice.resource import add_resource
from inprocess import EXECUTOR, LOOP, answer, answers, make_app, where
from pyramid.config import Configurator
from pyramid.interfaces import IResponse
from pyramid.response import Response
from pyramid.threadlocal import get_current_request
from pyramid_retry import RetryableException, mark_error_retryable

from aioext import synchronize, use_executor, wait
from aioext.config import ExecutorMapper, InlineMapper
from aioext.websocket import SyncWebSocket, WebSocket

OTHERS = [
    "pyramid_retry",
    "pyramid_tm",
    "pyramid_services",
    "cornice",
    "pyramid_jinja2",
    "pyramid_mako",
]
REQUESTS = 20


@pytest.fixture(params=["aioext first", "aioext last"])
def with_neighbour(request):
    """``make_app``, with another add-on included after aioext, or before it."""

    def make(other, *steps, **options):
        first = request.param == "aioext first"
        order = ["aioext", other] if first else [other, "aioext"]
        return make_app(*order, *steps, **options)

    return make


@pytest.mark.parametrize("sync_views", ["executor", "inline", "request"])
def test_all_of_them_fit_beside_aioext(sync_views):
    settings = {"aioext.sync_views": sync_views}
    for order in (["aioext", *OTHERS], [*OTHERS, "aioext"]):
        config = Configurator(settings=settings)
        for name in order:
            config.include(name)
        # A discriminator that two of them claim would be a conflict here.
        config.commit()


# What another add-on cannot register as well, but an application can override.
CLAIMED = {
    *(("view option", name) for name in ("is_websocket", "is_eventsource")),
    *((IResponse, face) for face in (WebSocket, SyncWebSocket)),
}


def test_aioext_claims_what_is_listed_and_what_has_its_name():
    config = Configurator()
    before = {action["discriminator"] for action in config.action_state.actions}
    config.include("aioext")
    claimed = {action["discriminator"] for action in config.action_state.actions}
    claimed = {each for each in claimed - before if each is not None}
    named = {each for each in claimed if "aioext_" in str(each[1])}
    assert {kind for kind, _ in named} == {"view deriver", "request extensions"}
    assert claimed - named == CLAIMED


@pytest.mark.parametrize("name", ["websocket", "is_eventsource", "disconnected"])
@pytest.mark.parametrize("is_property", [True, False])
def test_whoever_adds_a_request_method_keeps_it(with_neighbour, name, is_property):
    def other(config):
        config.add_request_method(lambda request: "own", name, property=is_property)

    def view(request):
        found = getattr(request, name)
        return Response(found if is_property else found())

    app = with_neighbour(
        lambda config: config.include(other), lambda config: config.add_view(view)
    )
    assert answer(app).body == b"own"


# pyramid_retry


RETRY = {"retry.attempts": 3}


class TestRetry:
    def make(self, with_neighbour, view, **settings):
        return with_neighbour(
            "pyramid_retry",
            lambda config: config.add_route("number", "/{number}"),
            lambda config: config.add_view(view, route_name="number"),
            settings={**RETRY, **settings},
        )

    @pytest.mark.parametrize("sync_views", ["executor", "inline", "request"])
    @pytest.mark.parametrize("kind", ["coroutine", "function"])
    def test_gives_each_attempt_a_request(self, with_neighbour, sync_views, kind):
        attempts = {}

        async def attempt(request):
            requests = attempts.setdefault(request.path, [])
            assert all(request is not each for each in requests)
            requests.append(request)
            await asyncio.sleep(0)
            assert get_current_request() is request
            if len(requests) < 3:
                raise RetryableException
            return Response(request.path)

        def function(request):
            return wait(attempt(request))

        view = attempt if kind == "coroutine" else function
        app = self.make(with_neighbour, view, **{"aioext.sync_views": sync_views})
        paths = [f"/{number}" for number in range(REQUESTS)]
        clients = answers(app, paths)
        assert [client.body.decode() for client in clients] == paths
        assert [len(attempts[path]) for path in paths] == [3] * REQUESTS

    def test_gives_up_after_the_last_attempt(self, with_neighbour):
        attempts = []

        async def failing(request):
            attempts.append(request)
            await asyncio.sleep(0)
            error = KeyError("fails")
            mark_error_retryable(error)
            raise error

        app = self.make(with_neighbour, failing)
        with pytest.raises(KeyError):
            answer(app, "/0")
        assert len(attempts) == 3

    def test_keeps_the_body_for_each_attempt(self, with_neighbour):
        bodies = []

        async def view(request):
            await asyncio.sleep(0)
            bodies.append(request.body)
            if len(bodies) == 1:
                raise RetryableException
            return Response(request.body)

        app = self.make(with_neighbour, view)
        client = answer(app, "/0", method="POST", body=[b"he", b"llo"])
        assert client.body == b"hello"
        assert bodies == [b"hello", b"hello"]

    def test_streams_with_the_request_of_the_last_attempt(self, with_neighbour):
        attempts = []

        async def view(request):
            attempts.append(request)
            if len(attempts) == 1:
                raise RetryableException

            def body():
                yield str(get_current_request() is request).encode()

            return Response(app_iter=body())

        assert answer(self.make(with_neighbour, view), "/0").body == b"True"

    def test_keeps_its_execution_policy_where_a_lifespan_is_added(self, with_neighbour):
        opened, attempts = [], []

        @asynccontextmanager
        async def lifespan(registry):
            opened.append("opened")
            yield
            opened.append("closed")

        async def view(request):
            attempts.append(request)
            if len(attempts) == 1:
                raise RetryableException
            return Response("done")

        app = with_neighbour(
            "pyramid_retry",
            lambda config: config.add_lifespan(lifespan),
            lambda config: config.add_view(view),
            settings=RETRY,
        )
        assert answer(app).body == b"done"
        assert len(attempts) == 2
        assert opened == ["opened", "closed"]


# pyramid_tm


class Recorder:
    """A data manager: records what becomes of the transaction it has joined."""

    def __init__(self, outcomes, name):
        self.transaction_manager = None
        self.outcomes = outcomes
        self.name = name

    def tpc_finish(self, transaction):
        self.outcomes.setdefault(self.name, []).append("committed")

    def abort(self, transaction):
        self.outcomes.setdefault(self.name, []).append("aborted")

    tpc_abort = abort

    def tpc_begin(self, transaction): ...

    commit = tpc_vote = tpc_begin

    def sortKey(self):
        return self.name


EXPLICIT = {"tm.manager_hook": "pyramid_tm.explicit_manager"}


class TestTransactions:
    @pytest.mark.parametrize("sync_views", ["executor", "inline", "request"])
    def test_end_each_with_its_own_request(self, with_neighbour, sync_views):
        outcomes = {}

        async def work(request):
            number = int(request.matchdict["number"])
            request.tm.get().join(Recorder(outcomes, request.path))
            # Those that began first end last, but for every third.
            for _ in range(number if number % 3 else 3 * REQUESTS - number):
                await asyncio.sleep(0)
            if number % 4 == 0:
                raise KeyError("fails")
            return Response(request.path)

        def function(request):
            return wait(work(request))

        async def error(context, request):
            await asyncio.sleep(0)
            return Response(status=500)

        def add_views(config):
            for kind, view in ("coroutine", work), ("function", function):
                config.add_route(kind, f"/{kind}/{{number}}")
                config.add_view(view, route_name=kind)
            config.add_exception_view(error, context=KeyError)

        settings = {**EXPLICIT, "aioext.sync_views": sync_views}
        app = with_neighbour("pyramid_tm", add_views, settings=settings)
        paths = [
            f"/{kind}/{number}"
            for number in range(REQUESTS)
            for kind in ("coroutine", "function")
        ]
        clients = answers(app, paths)
        for path, client in zip(paths, clients, strict=True):
            fails = int(path.rpartition("/")[2]) % 4 == 0
            assert client.status == (500 if fails else 200)
            assert outcomes[path] == ["aborted" if fails else "committed"]

    def test_retry_together_with_requests(self, with_neighbour):
        outcomes = {}

        async def view(request):
            name = f"attempt {request.environ['retry.attempt']}"
            request.tm.get().join(Recorder(outcomes, name))
            await asyncio.sleep(0)
            if request.environ["retry.attempt"] == 0:
                raise transaction.interfaces.TransientError
            return Response(name)

        app = with_neighbour(
            "pyramid_tm",
            lambda config: config.include("pyramid_retry"),
            lambda config: config.add_view(view),
            settings={**EXPLICIT, **RETRY},
        )
        assert answer(app).body == b"attempt 1"
        assert outcomes == {"attempt 0": ["aborted"], "attempt 1": ["committed"]}


# pyramid_services


def test_services_are_those_of_the_request(with_neighbour):
    singleton = object()

    class OwnService:
        def __init__(self, context, request):
            self.request = request
            wait(asyncio.sleep(0))

    async def coroutine(request):
        await asyncio.sleep(0)
        assert request.find_service(name="service").request is request
        await asyncio.sleep(0)
        return function(request)

    def function(request):
        service = request.find_service(name="service")
        assert service.request is request is get_current_request()
        assert service is request.find_service(name="service")
        assert request.find_service(name="singleton") is singleton
        return Response(request.path)

    def configure(config):
        config.register_service_factory(OwnService, name="service")
        config.register_service(singleton, name="singleton")
        config.add_view(coroutine, name="coroutine")
        config.add_view(function, name="executor", mapper=ExecutorMapper)
        config.add_view(function, name="inline", mapper=InlineMapper)

    app = with_neighbour("pyramid_services", configure)
    paths = ["/coroutine", "/executor", "/inline"] * REQUESTS
    assert [client.body.decode() for client in answers(app, paths)] == paths


# cornice


@pytest.fixture
def services(monkeypatch):
    """Cornice's list of services, as it is without those of the test."""
    monkeypatch.setattr("cornice.service.SERVICES", [])


def refuse(request, **kwargs):
    """A validator: waits, and refuses what is asked to be refused."""
    request.validated["where"] = where()
    if wait(asyncio.sleep(0, "refused" in request.params)):
        request.errors.add("querystring", "refused", "as asked")


def make_service():
    service = Service(name="service", path="/service/{number}")

    @service.get(validators=(refuse,))
    async def get(request):
        await asyncio.sleep(0)
        assert get_current_request() is request
        return {"path": request.path, "where": where(), **request.validated}

    @service.put(validators=(refuse,))
    def put(request):
        return {"path": request.path, "where": where()}

    @service.post()
    @synchronize
    async def post(request):
        await asyncio.sleep(0)
        request.errors.add("body", "late", "found by the view")

    @service.patch()
    async def patch(request):
        await asyncio.sleep(0)
        request.errors.add("body", "late", "found by the view")
        return {"errors": len(request.errors)}

    @service.delete()
    async def delete(request):
        await asyncio.sleep(0)
        raise KeyError("fails")

    return service


class Resource:
    """A cornice resource with coroutines for methods."""

    def __init__(self, request, context=None):
        self.request = request

    async def collection_get(self):
        await asyncio.sleep(0)
        return {"collection": self.request.path}

    async def get(self):
        await asyncio.sleep(0)
        assert get_current_request() is self.request
        return {"item": self.request.matchdict["number"], "where": where()}

    def put(self):
        return {"where": where()}


@pytest.mark.usefixtures("services")
class TestCornice:
    @pytest.fixture
    def app(self, with_neighbour):
        def configure(config):
            config.add_cornice_service(make_service())
            resource = add_resource(
                Resource, collection_path="/items", path="/items/{number}"
            )
            config.add_cornice_resource(resource)

        return with_neighbour("cornice", configure)

    def test_services_may_be_coroutines(self, app):
        paths = [f"/service/{number}" for number in range(REQUESTS)]
        for path, client in zip(paths, answers(app, paths), strict=True):
            # The validators, which may block, ran in the executor.
            expected = f'{{"path": "{path}", "where": "{EXECUTOR}"}}'
            assert client.status == 200
            assert client.body.decode() == expected

    def test_validators_keep_a_coroutine_from_being_called(self, app):
        client = answer(app, "/service/1", query_string=b"refused=1")
        assert client.status == 400
        assert b"as asked" in client.body

    def test_functions_run_in_the_executor(self, app):
        client = answer(app, "/service/1", method="PUT")
        assert (
            client.body.decode() == f'{{"path": "/service/1", "where": "{EXECUTOR}"}}'
        )

    def test_errors_that_a_synchronized_view_adds_are_answered(self, app):
        client = answer(app, "/service/1", method="POST")
        assert client.status == 400
        assert b"found by the view" in client.body

    def test_errors_that_a_coroutine_adds_are_too_late(self, app):
        # Cornice looks for them when the view has returned a coroutine, which
        # is before it has run.
        client = answer(app, "/service/1", method="PATCH")
        assert client.response[::2] == (200, b'{"errors": 1}')

    def test_errors_that_are_no_answers_are_raised_again(self, app):
        # Cornice's exception view raises anew what is being handled.
        with pytest.raises(KeyError, match="fails"):
            answer(app, "/service/1", method="DELETE")

    def test_what_is_not_found_or_not_allowed_is_answered(self, app):
        assert answer(app, "/absent").status == 404
        assert answer(app, "/service/1", method="LOCK").status == 405

    def test_resources_may_have_coroutines(self, app):
        assert answer(app, "/items").body == b'{"collection": "/items"}'
        paths = [f"/items/{number}" for number in range(REQUESTS)]
        for number, client in enumerate(answers(app, paths)):
            expected = f'{{"item": "{number}", "where": "{LOOP}"}}'
            assert client.body.decode() == expected
        client = answer(app, "/items/1", method="PUT")
        assert client.body.decode() == f'{{"where": "{EXECUTOR}"}}'


# pyramid_jinja2


def test_a_jinja2_template_may_wait(with_neighbour, tmp_path):
    template = "{{ load(request) }} {{ request.path }} {{ blocking(request) }}"
    (tmp_path / "page.jinja2").write_text(template)

    @synchronize
    async def load(request):
        await asyncio.sleep(0)
        assert get_current_request() is request
        return request.path

    @synchronize
    @use_executor
    def blocking(request):
        assert get_current_request() is request
        return where()

    async def view(request):
        await asyncio.sleep(0)
        return {"load": load, "blocking": blocking}

    def function(request):
        return {"load": load, "blocking": blocking}

    def configure(config):
        config.add_jinja2_search_path(str(tmp_path))
        add = functools.partial(config.add_view, renderer="page.jinja2")
        for number in range(REQUESTS):
            add(view if number % 2 else function, name=str(number))

    app = with_neighbour("pyramid_jinja2", configure)
    paths = [f"/{number}" for number in range(REQUESTS)]
    for path, client in zip(paths, answers(app, paths), strict=True):
        assert client.body.decode() == f"{path} {path} {EXECUTOR}"


def test_all_of_them_serve_together(with_neighbour, services, tmp_path):
    (tmp_path / "page.jinja2").write_text("{{ tm }}, {{ request.path }}")
    attempts = set()

    async def view(request):
        await asyncio.sleep(0)
        assert request.find_service(name="service") is request
        if request.path not in attempts:
            attempts.add(request.path)
            raise RetryableException
        return {"tm": request.tm.get().status}

    def configure(config):
        for name in OTHERS[1:]:
            config.include(name)
        config.register_service_factory(lambda c, request: request, name="service")
        config.add_jinja2_search_path(str(tmp_path))
        config.add_cornice_service(make_service())
        config.add_route("page", "/page/{number}")
        config.add_view(view, route_name="page", renderer="page.jinja2")

    settings = {**EXPLICIT, **RETRY}
    app = with_neighbour(OTHERS[0], configure, settings=settings)

    async def main():
        paths = [f"/{(n % 2 and 'page') or 'service'}/{n}" for n in range(REQUESTS)]
        return await asyncio.gather(*[Client(path).call(app) for path in paths])

    for number, client in enumerate(asyncio.run(main())):
        assert client.status == 200
        if number % 2:
            assert client.body.decode() == f"Active, /page/{number}"
    assert len(attempts) == REQUESTS / 2

"""cornice, included by aioext.cornice: services, resources, and whatever they call."""

import asyncio

import inprocess
import pytest
from addons import crowded, meet, pause, site_of
from cornice import Service
from cornice.resource import add_resource, view
from inprocess import EXECUTOR, LOOP, make_app, where
from pyramid.exceptions import ConfigurationError
from pyramid.httpexceptions import HTTPConflict
from pyramid.threadlocal import get_current_request

from aioext import synchronize

# Validators: each refuses what the query tells it to refuse.


def refuse(request, name):
    assert request is get_current_request()
    request.validated[name] = request.path
    if request.params.get("refuse") == name:
        request.errors.add("querystring", name, request.path)


async def waiting(request, **kwargs):
    assert where() == LOOP
    await meet(request)
    refuse(request, "waiting")


def blocking(request, **kwargs):
    assert where() == EXECUTOR
    pause(request)
    refuse(request, "blocking")


# A view of each kind, each of which may find an error of its own.


def found(request):
    assert request.validated == {"waiting": request.path, "blocking": request.path}
    refuse(request, "view")
    if request.params.get("refuse") == "raised":
        raise HTTPConflict(request.path)
    return {"path": request.path, "where": where()}


async def coroutine(request):
    await meet(request)
    return found(request)


def executor(request):
    pause(request)
    return found(request)


KINDS = {"coroutine": coroutine, "executor": executor}
PLACES = {"coroutine": LOOP, "executor": EXECUTOR}


async def tag(response, request):
    """A filter."""
    await meet(request)
    response.headers["X-Tag"] = request.path
    return response


def make_service(kind):
    service = Service(
        kind,
        f"/{kind}/service/{{number}}",
        validators=(waiting, blocking),
        filters=(tag,),
        cors_origins=("*",),
    )
    service.add_view("get", KINDS[kind])
    service.add_view("post", KINDS[kind])
    return service


class CoroutineResource:
    """Methods that are coroutines."""

    def __init__(self, request, context=None):
        self.request = request

    @view(validators=(waiting, blocking))
    async def get(self):
        await meet(self.request)
        return found(self.request)

    @view(validators=("check",))
    async def put(self):
        await meet(self.request)
        refuse(self.request, "view")
        return {"path": self.request.path, "checked": self.request.validated["check"]}

    @synchronize
    async def check(self, request, **kwargs):
        await asyncio.sleep(0)
        refuse(request, "check")


class ExecutorResource(CoroutineResource):
    """Methods that are functions."""

    @view(validators=(waiting, blocking))
    def get(self):
        pause(self.request)
        return found(self.request)

    def own(self):
        return {"where": where()}


def configure(config):
    config.include("aioext.cornice")
    for kind in KINDS:
        config.add_cornice_service(make_service(kind))
    for kind, resource in (
        ("coroutine", CoroutineResource),
        ("executor", ExecutorResource),
    ):
        resource = add_resource(
            type(resource.__name__, (resource,), {}),
            name=f"{kind}-resource",
            path=f"/{kind}/resource/{{number}}",
        )
        config.add_cornice_resource(resource)


site = site_of(configure)


def crowd_of(crowd, name):
    """Paths of a crowd; there is nothing inline here."""
    return [
        f"/{'coroutine' if kind == 'inline' else kind}/{name}/{number}"
        for number, kind in crowd
    ]


@pytest.mark.parametrize("name", ["service", "resource"])
@crowded
def test_everybody_gets_what_was_validated_for_it(site, crowd, name):
    paths = crowd_of(crowd, name)
    for path, answer in zip(paths, site.overlap(paths, crowd.order), strict=True):
        assert answer.json() == {"path": path, "where": PLACES[path.split("/")[1]]}
        if name == "service":
            assert answer.headers["X-Tag"] == path


REFUSED = ["waiting", "blocking", "view"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["service", "resource"])
@pytest.mark.parametrize("refused", REFUSED)
def test_whoever_finds_an_error_has_it_answered(site, kind, name, refused):
    path = f"/{kind}/{name}/1"
    answer = site.ask(f"{path}?refuse={refused}", headers={"Origin": "http://other"})
    assert answer.status == 400
    errors = [{"location": "querystring", "name": refused, "description": path}]
    assert answer.json() == {"status": "error", "errors": errors}
    if name == "service":
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_answered_to_who_made_them(site, kind):
    # All of them wait in the view, so that their errors are found while they overlap.
    paths = [f"/{kind}/resource/{number}" for number in range(20)]
    asks = [f"{path}?refuse=view" if n % 2 else path for n, path in enumerate(paths)]
    for number, answer in enumerate(site.overlap(asks, "forwards")):
        if number % 2:
            (error,) = answer.json()["errors"]
            assert error["description"] == paths[number]
        else:
            assert answer.json()["path"] == paths[number]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_view_raises_has_the_headers_for_its_origin(site, kind):
    headers = {"Origin": "http://other"}
    answer = site.ask(f"/{kind}/service/1?refuse=raised", headers=headers)
    assert answer.status == 409
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    answer = site.ask(
        f"/{kind}/service/1",
        method="OPTIONS",
        headers={**headers, "Access-Control-Request-Method": "POST"},
    )
    assert answer.headers["Access-Control-Allow-Methods"]
    assert site.ask(f"/{kind}/service/1", method="PUT").status == 405


@pytest.mark.parametrize("refused", ["check", "view"])
def test_a_method_that_is_named_may_be_synchronized(site, refused):
    path = "/coroutine/resource/1"
    answer = site.ask(path, method="PUT")
    assert answer.json() == {"path": path, "checked": path}
    answer = site.ask(f"{path}?refuse={refused}", method="PUT")
    assert answer.status == 400


class Named:
    def __init__(self, request, context=None): ...

    @view(validators=("check",))
    def get(self): ...

    async def check(self, request, **kwargs): ...


def test_a_method_that_is_named_and_a_coroutine_is_refused():
    resource = add_resource(Named, path="/named")
    with pytest.raises(ConfigurationError, match=r"The method check of .*Named"):
        make_app("aioext.cornice", lambda config: config.add_cornice_resource(resource))


def test_a_view_that_is_named_and_a_coroutine_is_refused():
    service = Service("named", "/named", klass=Named)
    service.add_view("get", "check")
    with pytest.raises(ConfigurationError, match="for a view"):
        make_app("aioext.cornice", lambda config: config.add_cornice_service(service))


def test_a_view_that_is_named_may_be_a_function():
    service = Service("named", "/named", klass=ExecutorResource)
    service.add_view("get", "own")
    app = make_app("aioext.cornice", lambda config: config.add_cornice_service(service))
    assert inprocess.answer(app, "/named").body == b'{"where": "executor"}'


@pytest.mark.parametrize("mode", ["inline", "request", "executor"])
def test_functions_run_where_the_application_says(mode):
    places = {}

    def validate(request, **kwargs):
        places["validator"] = where()

    service = Service("own", "/own", validators=(validate,))

    @service.get()
    async def get(request):
        await asyncio.sleep(0)
        places["view"] = where()

    app = make_app(
        "aioext.cornice",
        lambda config: config.add_cornice_service(service),
        settings={"aioext.sync_views": mode},
    )
    assert inprocess.answer(app, "/own").status == 200
    assert places == {"validator": LOOP if mode == "inline" else EXECUTOR, "view": LOOP}


def test_a_service_is_left_as_it_is():
    service = make_service("coroutine")
    before = [(method, view, dict(args)) for method, view, args in service.definitions]
    validators = [[*args["validators"]] for _, _, args in before]
    for _ in range(2):
        make_app("aioext.cornice", lambda config: config.add_cornice_service(service))
    assert service.definitions == before
    assert [args["validators"] for *_, args in service.definitions] == validators
    assert service.defined_methods == ["GET", "HEAD", "POST"]


@pytest.mark.parametrize("order", [1, -1])
def test_cornice_may_be_included_as_well(order):
    service = make_service("coroutine")
    app = make_app(
        *["cornice", "aioext.cornice"][::order],
        lambda config: config.add_cornice_service(service),
    )
    path = "/coroutine/service/1"
    client = inprocess.answer(app, path, query_string=b"refuse=view")
    assert client.status == 400


def test_cornice_keeps_what_this_relies_on():
    # Neither is documented: what a resource's definition has for a view.
    resource = add_resource(type("Own", (CoroutineResource,), {}), path="/own")
    (service,) = resource._services.values()
    for _, view_of_method, arguments in service.definitions:
        assert not callable(view_of_method)
        assert callable(view_of_method.unbound_view)
        bound = view_of_method.make_bound_view("object")
        assert (bound.func, bound.args) == (view_of_method.unbound_view, ("object",))
        assert isinstance(arguments["validators"], list)

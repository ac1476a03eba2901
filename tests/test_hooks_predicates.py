"""Predicates that are coroutine functions: one that says no keeps out."""

import asyncio
import functools

import pytest
from asgi import Client
from inprocess import answer, answers, make_app
from pyramid.config import Configurator, not_
from pyramid.events import ContextFound, NewRequest
from pyramid.exceptions import ConfigurationConflictError, ConfigurationError
from pyramid.httpexceptions import HTTPForbidden
from pyramid.interfaces import IPredicateList, IRoutesMapper
from pyramid.request import Request
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED, view_execution_permitted
from webtest import TestApp

from aioext import use_executor
from aioext.hooks.predicates import install_predicates

pytestmark = pytest.mark.filterwarnings(
    'ignore:The "custom_predicates" argument:DeprecationWarning'
)


class Allows:
    """A predicate, ``allows=True`` or ``allows=False``, that waits for its answer."""

    def __init__(self, value, info):
        self.value = value

    def text(self):
        return f"allows = {self.value}"

    phash = text

    async def __call__(self, context, request):
        await asyncio.sleep(0)
        return self.value


def function_predicate(value, info):
    """The same, of another shape: a factory that gives a function."""

    async def predicate(context, request):
        await asyncio.sleep(0)
        return value

    predicate.text = predicate.phash = lambda: f"allows = {value}"
    return predicate


class Hidden(Allows):
    """An ordinary function that gives a coroutine."""

    def __call__(self, context, request):
        return super().__call__(context, request)


class Awaitable(Allows):
    """One that gives another sort of awaitable."""

    def __call__(self, context, request):
        return Answer(super().__call__(context, request))


class Answer:
    def __init__(self, coroutine):
        self.coroutine = coroutine

    def __await__(self):
        return self.coroutine.__await__()


class InExecutor(Allows):
    """One whose coroutine function aioext has made."""

    def __init__(self, value, info):
        super().__init__(value, info)
        self.answer = use_executor(lambda: value)

    def __call__(self, context, request):
        return self.answer()


def executor_predicate(value, info):
    """One that is nothing but a coroutine function that aioext has made."""
    predicate = use_executor(lambda context, request: value)
    predicate.text = predicate.phash = lambda: f"allows = {value}"
    return predicate


FACTORIES = [
    Allows,
    function_predicate,
    Hidden,
    Awaitable,
    InExecutor,
    executor_predicate,
    functools.partial(Allows),
]


def view(request):
    return Response("let in")


def error_view(error, request):
    return Response("error view")


def with_predicate(*steps, factory=Allows, **options):
    """An application whose views and routes have the predicate ``allows``."""

    def add(config):
        config.add_view_predicate("allows", factory)
        config.add_route_predicate("allows", factory)

    return make_app(add, *steps, **options)


@pytest.fixture(params=FACTORIES, ids=lambda factory: getattr(factory, "__name__", "p"))
def factory(request):
    return request.param


@pytest.mark.parametrize("mode", ["executor", "inline", "request"])
class TestView:
    def test_its_answer_counts(self, factory, mode):
        def add_views(config):
            for value in True, False:
                config.add_view(view, name=f"{value}", allows=value)
                config.add_view(view, name=f"not {value}", allows=not_(value))
                config.add_view(
                    lambda request, v=value: Response(str(v)), name="many", allows=value
                )
            config.add_view(error_view, name="many")

        settings = {"aioext.sync_views": mode}
        app = with_predicate(add_views, factory=factory, settings=settings)
        paths = ["/True", "/not False", "/False", "/not True", "/many"]
        *clients, many = answers(app, paths)
        assert [client.status for client in clients] == [200, 200, 404, 404]
        assert many.body == b"True"


def test_many_views_that_all_say_no_are_not_found():
    def add_views(config):
        config.add_view(view, allows=False)
        config.add_view(view, allows=not_(True))

    assert answer(with_predicate(add_views)).status == 404


def test_a_value_for_each_of_many_predicates():
    def add(config):
        config.add_view_predicate("also", Allows)
        config.add_view(view, name="no", allows=True, also=False)
        config.add_view(view, name="yes", allows=True, also=not_(False))

    app = with_predicate(add)
    assert [client.status for client in answers(app, ["/no", "/yes"])] == [404, 200]


@pytest.mark.parametrize("value", [True, False])
def test_an_exception_view(value):
    def failing(request):
        raise ZeroDivisionError

    def add_views(config):
        config.add_view(failing)
        config.add_exception_view(error_view, context=ZeroDivisionError, allows=value)
        config.add_exception_view(
            lambda error, request: Response("any"), context=Exception
        )

    body = b"error view" if value else b"any"
    assert answer(with_predicate(add_views)).body == body


@pytest.mark.parametrize("value", [True, False])
def test_notfound_and_forbidden_views(value):
    def forbidden(request):
        raise HTTPForbidden

    def add_views(config):
        config.add_view(forbidden)
        config.add_notfound_view(lambda request: Response("nothing"), allows=value)
        config.add_forbidden_view(lambda request: Response("secret"), allows=value)

    clients = answers(with_predicate(add_views), ["/", "/missing"])
    statuses = [200, 200] if value else [403, 404]
    assert [client.status for client in clients] == statuses


@pytest.mark.parametrize("value", [True, False])
def test_view_execution_permitted_asks_it(value):
    def asking(request):
        allowed = view_execution_permitted(None, request, "guarded")
        return Response(str(bool(allowed)))

    def add_views(config):
        config.add_view(asking)
        config.add_view(
            view, name="guarded", allows=value, permission=NO_PERMISSION_REQUIRED
        )
        config.add_view(view, name="guarded", request_method="PUT")

    app = with_predicate(add_views)
    if value:
        assert answer(app).body == b"True"
    else:
        assert answer(app).status == 404


@pytest.mark.parametrize("value", [True, False])
def test_custom_predicates_are_adapted(value):
    async def custom(context, request):
        await asyncio.sleep(0)
        return value

    def add_views(config):
        config.add_view(view, custom_predicates=(custom,))
        config.add_route("route", "/route", custom_predicates=(custom,))
        config.add_view(view, route_name="route")

    statuses = [200, 200] if value else [404, 404]
    clients = answers(with_predicate(add_views), ["/", "/route"])
    assert [client.status for client in clients] == statuses


@pytest.mark.parametrize("value", [True, False])
def test_a_route_predicate(factory, value):
    def add_routes(config):
        config.add_route("guarded", "/{name}", allows=value)
        config.add_route("other", "/{name}")
        config.add_view(view, route_name="guarded")
        config.add_view(lambda request: Response("other"), route_name="other")

    app = with_predicate(add_routes, factory=factory)
    assert answer(app, "/any").body == (b"let in" if value else b"other")


@pytest.mark.parametrize("value", [True, False])
def test_a_predicate_of_static_views(tmp_path, value):
    (tmp_path / "file.txt").write_text("static")

    def add_view(config):
        config.add_static_view("yes", str(tmp_path), allows=value)
        config.add_static_view("not", str(tmp_path), allows=not_(not value))

    clients = answers(with_predicate(add_view), ["/yes/file.txt", "/not/file.txt"])
    assert [client.status for client in clients] == [200 if value else 404] * 2


def test_a_static_route_asks_none():
    def add_route(config):
        config.add_route("static", "/static", allows=False, static=True)

    app = with_predicate(add_route)
    assert answer(app, "/static").status == 404
    mapper = app.app.registry.getUtility(IRoutesMapper)
    route = mapper.get_route("static")
    assert asyncio.run(route.predicates[0].__wrapped__(None, None)) is False


def test_it_is_asked_while_others_are_served():
    together = asyncio.Barrier(2)

    class Together(Allows):
        async def __call__(self, context, request):
            async with asyncio.timeout(10):
                await together.wait()
            return "let" in request.params

    app = with_predicate(
        lambda config: config.add_view(view, allows=True), factory=Together
    )

    async def overlap():
        clients = [Client(query_string=b"let"), Client(query_string=b"refuse")]
        return await asyncio.gather(*(client.call(app) for client in clients))

    assert [client.status for client in asyncio.run(overlap())] == [200, 404]


def test_an_error_of_it_is_the_requests():
    class Failing(Allows):
        async def __call__(self, context, request):
            raise ZeroDivisionError

    def add_views(config):
        config.add_view(view, allows=True)
        config.add_exception_view(error_view, context=ZeroDivisionError)

    app = with_predicate(add_views, factory=Failing)
    assert answer(app).body == b"error view"


def test_it_works_on_a_plain_wsgi_server():
    def add_views(config):
        config.add_view(view, allows=False)
        config.add_view(view, name="yes", allows=True)

    app = TestApp(with_predicate(add_views).app)
    app.get("/", status=404)
    assert app.get("/yes").text == "let in"


# Subscriber predicates


class AllowsEvent:
    """The predicate ``allows`` of a subscriber."""

    def __init__(self, value, info):
        self.value = value

    def text(self):
        return f"allows = {self.value}"

    phash = text

    async def __call__(self, event):
        await asyncio.sleep(0)
        return self.value


class AllowsEvents(AllowsEvent):
    async def __call__(self, event, *others):
        return self.value


def subscribed(factory, *events):
    """What subscribers with the predicate were told, of those with each value."""
    told = []

    def add(config):
        config.add_subscriber_predicate("allows", factory)
        for value in (True, False):
            config.add_subscriber(
                lambda event, *others, v=value: told.append(v), *events, allows=value
            )
        config.add_view(view)

    return told, make_app(add)


@pytest.mark.parametrize("factory", [AllowsEvent, AllowsEvents])
def test_a_subscriber_predicate(factory):
    told, app = subscribed(factory, [NewRequest])
    assert answer(app).status == 200
    assert told == [True]


@pytest.mark.parametrize("factory", [AllowsEvent, AllowsEvents])
def test_a_subscriber_predicate_of_what_is_notified_with_other_objects(factory):
    # Pyramid looks at its parameters to tell what to call it with.
    told, app = subscribed(factory, [Allows, Request])
    app.app.registry.notify(Allows(1, 2), Request.blank("/"))
    assert told == [True]


def test_an_inverted_subscriber_predicate():
    # Pyramid calls it with two objects, or fails.
    told = []

    class OfContext(AllowsEvent):
        async def __call__(self, event, request):
            return self.value

    def add(config):
        config.add_subscriber_predicate("allows", OfContext)
        for value in (True, False):
            config.add_subscriber(
                lambda event, *others, v=value: told.append(v),
                [Allows, Request],
                allows=not_(value),
            )

    app = make_app(add)
    app.app.registry.notify(Allows(1, 2), Request.blank("/"))
    assert told == [False]


# The configuration


def test_hooks_of_a_configuration_that_is_committed_in_between():
    def commit(config):
        config.commit()

    def second(config):
        config.add_route_predicate("late", Allows)
        config.add_view_predicate("late", Allows)
        config.add_view(view, name="late", late=False)
        config.add_route("late", "/route", late=False)
        config.add_view(view, route_name="late")

    app = with_predicate(
        lambda config: config.add_view(view, allows=False), commit, second
    )
    clients = answers(app, ["/", "/late", "/route"])
    assert [client.status for client in clients] == [404] * 3


def test_what_was_committed_before_the_include_is_adapted():
    told = []

    def before(config):
        config.add_view_predicate("allows", Allows)
        config.add_route_predicate("allows", Allows)
        config.add_subscriber_predicate("allows", AllowsEvent)
        config.add_view(view, allows=False)
        config.add_view(view, name="not", allows=not_(True))
        config.add_view(view, name="many", allows=False)
        config.add_view(view, name="many", allows=not_(True))
        config.add_route("early", "/route", allows=False)
        config.add_view(view, route_name="early")
        config.add_subscriber(told.append, ContextFound, allows=False)
        config.commit()

    app = make_app(before, "aioext")
    clients = answers(app, ["/", "/not", "/many", "/route"])
    assert [client.status for client in clients] == [404] * 4
    assert not told


def test_an_autocommitting_configurator():
    app = with_predicate(
        lambda config: config.add_view(view, allows=False), autocommit=True
    )
    assert answer(app).status == 404


async def coroutine_factory(value, info):
    return Allows(value, info)


class AsyncText(Allows):
    async def text(self):
        return "allows"


class AsyncHash(Allows):
    async def phash(self):
        return "allows"


@pytest.mark.parametrize("factory", [coroutine_factory, AsyncText, AsyncHash])
@pytest.mark.parametrize("kind", ["view", "route", "subscriber"])
def test_what_is_called_at_configuration_is_refused(factory, kind):
    def add(config):
        getattr(config, f"add_{kind}_predicate")("refused", factory)
        if kind == "subscriber":
            config.add_subscriber(view, NewRequest, refused=not_(1))
        elif kind == "route":
            config.add_route("name", "/", refused=1)
        else:
            config.add_view(view, refused=(1,))

    with pytest.raises(ConfigurationError) as caught:
        make_app(add)
    message = str(caught.value)
    assert f"{__name__}.{factory.__name__} cannot be used" in message
    assert "errors.html#predicate-factory" in message


def test_doing_it_twice_is_harmless():
    app = with_predicate(
        "aioext",
        lambda config: config.commit(),
        "aioext",
        lambda config: config.add_view(view, allows=False),
    )
    registry = app.app.registry
    lists = list(registry.getUtilitiesFor(IPredicateList))
    for _ in range(2):
        install_predicates(registry)
    assert list(registry.getUtilitiesFor(IPredicateList)) == lists
    assert answer(app).status == 404


def test_conflicts_are_detected_as_ever():
    def conflicting(config):
        config.add_view(view, allows=True)
        config.add_view(error_view, allows=True)

    with pytest.raises(ConfigurationConflictError):
        with_predicate(conflicting)
    # A different value is another view.
    with_predicate(
        lambda config: config.add_view(view, allows=True),
        lambda config: config.add_view(error_view, allows=False),
    )


def test_introspection_shows_what_was_registered():
    app = with_predicate(lambda config: config.add_view(view, "shown", allows=not_(1)))
    introspector = Configurator(registry=app.app.registry).introspector
    shown = [
        each["introspectable"]
        for each in introspector.get_category("views")
        if each["introspectable"]["name"] == "shown"
    ]
    (predicate,) = shown[0]["predicates"]
    assert predicate.text() == "!allows = 1"
    assert isinstance(predicate.predicate, Allows)


def test_pyramids_own_predicates_cost_nothing():
    app = make_app(
        lambda config: config.add_view(
            view, "shown", request_method="GET", is_websocket=False
        )
    )
    introspector = Configurator(registry=app.app.registry).introspector
    for each in introspector.get_category("views"):
        for predicate in each["introspectable"].get("predicates", ()):
            assert not hasattr(predicate, "hook")


def test_another_add_on_may_register_predicates_by_the_list():
    def add_directly(config):
        config.get_predlist("view").add("direct", Allows)
        config.add_view(view, direct=False)
        assert "direct" in config.get_predlist("view").names()

    assert answer(make_app(add_directly)).status == 404


@pytest.mark.parametrize("add", ["add_view", "add_subscriber"])
def test_what_was_committed_and_cannot_be_found_is_refused(add):
    config = Configurator(introspection=False)
    arguments = (lambda event: None, NewRequest) if add == "add_subscriber" else (str,)
    getattr(config, add)(*arguments)
    config.commit()
    with pytest.raises(ConfigurationError, match="introspection=False"):
        config.include("aioext")


def test_without_introspection_it_is_included_first():
    config = Configurator(introspection=False)
    config.include("aioext")
    config.add_view(str)
    config.make_wsgi_app()

"""Properties and callbacks of requests that are coroutines."""

import asyncio
import json

import pytest
from hook_apps import OnLoop, OnWsgi, add_view, commit, make
from pyramid.interfaces import IRequestExtensions
from pyramid.request import Request, RequestLocalCache
from pyramid.response import Response

from aioext import ScopeError, spawn_greenlet, use_executor, wait
from aioext.hooks import adapt_hooks


@pytest.fixture(params=[OnLoop, OnWsgi])
def ask(request):
    return request.param()


def add_method(function, name=None, **options):
    return lambda config: config.add_request_method(function, name, **options)


def paths_of(count):
    return [f"/name{number}" for number in range(count)]


def user_of(meet):
    async def user(request):
        await meet()
        return request.path_info

    return user


KINDS = [{"property": True}, {"reify": True}]


# Properties -------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("early", [(), (commit,)])
def test_a_property_gives_each_request_its_value(ask, kind, early):
    app = make(
        *early,
        add_method(user_of(ask.meeting(20)), **kind),
        add_view(lambda request: Response(request.user)),
    )
    assert [answer.text for answer in ask(app, *paths_of(20))] == paths_of(20)


@pytest.mark.parametrize("kind", KINDS)
def test_it_gives_its_value_everywhere(ask, kind):
    def tween_factory(handler, registry):
        def tween(request):
            seen.append(request.user)
            return handler(request)

        return tween

    def steps(config):
        config.add_tween("test_hooks_requests.seeing_tween")
        config.add_subscriber(
            lambda event: seen.append(event["request"].user),
            "pyramid.events.BeforeRender",
        )

    async def coroutine(request):
        seen.append(request.user)
        seen.append(await use_executor(lambda: request.user)())
        return request.user

    def function(request):
        seen.append(request.user)
        seen.append(request.user)
        return request.user

    for view in coroutine, function:
        seen = []
        seeing_tween.factory = tween_factory
        app = make(
            add_method(user_of(ask.meeting(1)), **kind),
            steps,
            add_view(view, renderer="string"),
        )
        assert ask(app, "/joe")[0].text == "/joe"
        assert seen == ["/joe"] * 4


def seeing_tween(handler, registry):
    return seeing_tween.factory(handler, registry)


def test_a_reified_one_is_computed_once(ask):
    calls = []

    async def user(request):
        calls.append(request.path_info)
        await asyncio.sleep(0)
        return object()

    def view(request):
        return Response(str(request.user is request.user))

    app = make(add_method(user, reify=True), add_view(view))
    assert [each.text for each in ask(app, "/1", "/2")] == ["True", "True"]
    assert sorted(calls) == ["/1", "/2"]


def test_one_that_is_not_is_computed_each_time(ask):
    calls = []

    async def user(request):
        calls.append(1)

    def view(request):
        return Response(f"{request.user} {request.user}")

    app = make(add_method(user, property=True), add_view(view))
    assert ask(app, "/")[0].text == "None None"
    assert len(calls) == 2


def test_a_property_that_raises_can_be_asked_again(ask):
    outcomes = [LookupError("not yet"), "value"]

    async def user(request):
        await asyncio.sleep(0)
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def view(request):
        with pytest.raises(LookupError):
            _ = request.user
        return Response(request.user)

    app = make(add_method(user, reify=True), add_view(view))
    assert ask(app, "/")[0].text == "value"


class Pool:
    """Is meant to be used, and can be awaited as well."""

    def __await__(self):
        raise AssertionError("it was awaited")


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_that_can_be_awaited_is_given_as_it_is(ask, kind):
    async def coroutine(request):
        return Pool()

    for pool in (lambda request: Pool()), coroutine:
        app = make(
            add_method(pool, "pool", **kind),
            add_view(lambda request: Response(type(request.pool).__name__)),
        )
        assert ask(app, "/")[0].text == "Pool"


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_of_its_own_has_no_bridge(kind):
    outcomes = []

    async def view(request):
        async def read():
            return request.user

        outcomes.extend(await asyncio.gather(read(), return_exceptions=True))
        # What was refused is not kept.
        outcomes.append(await asyncio.create_task(spawn_greenlet(lambda: request.user)))
        return Response(request.user)

    app = make(add_method(user_of(lambda: asyncio.sleep(0)), **kind), add_view(view))
    OnLoop()(app, "/joe")
    refused, value = outcomes
    assert isinstance(refused, ScopeError)
    assert value == "/joe"


class Cell(property):
    """A property of a class of the application's own."""


@pytest.mark.parametrize("cls", [property, Cell])
def test_a_data_descriptor_is_read_set_and_deleted(ask, cls):
    async def read(request):
        await asyncio.sleep(0)
        return request.environ.get("cell", "empty")

    async def write(request, value):
        await asyncio.sleep(0)
        request.environ["cell"] = value

    async def delete(request):
        await asyncio.sleep(0)
        del request.environ["cell"]

    def view(request):
        seen = [request.cell]
        request.cell = "full"
        seen.append(request.cell)
        del request.cell
        return Response(" ".join([*seen, request.cell]))

    descriptor = cls(read, write, delete)
    app = make(add_method(descriptor, "cell", property=True), add_view(view))
    assert ask(app, "/")[0].text == "empty full empty"


def test_a_data_descriptor_that_is_synchronous_works_as_before(ask):
    def view(request):
        request.cell = "full"
        with pytest.raises(AttributeError):
            del request.cell
        return Response(request.cell)

    descriptor = property(
        lambda request: request.environ["cell"],
        lambda request, value: request.environ.update(cell=value),
    )
    app = make(add_method(descriptor, "cell", property=True), add_view(view))
    assert ask(app, "/")[0].text == "full"


def test_a_property_of_a_request_can_be_set_as_before(ask):
    def view(request):
        request.user = "set"
        return Response(request.user)

    app = make(add_method(user_of(None), property=True), add_view(view))
    assert ask(app, "/")[0].text == "set"


def test_a_method_stays_a_coroutine_function(ask):
    async def load(request, key):
        await asyncio.sleep(0)
        return f"{key} of {request.path_info}"

    async def coroutine(request):
        return Response(await request.load("key"))

    def function(request):
        return Response(wait(request.load("key")))

    for view in coroutine, function:
        app = make(add_method(load), add_view(view))
        assert ask(app, "/joe")[0].text == "key of /joe"


@pytest.mark.parametrize("kind", [{"reify": True}, {"reify": False}])
def test_a_property_that_is_set_on_one_request(ask, kind):
    def view(request):
        request.set_property(user_of(ask.meeting(1)), **kind)
        request.set_property(callable=user_of(ask.meeting(1)), name="other", **kind)
        data = property(user_of(ask.meeting(1)))
        request.set_property(data, name="data")
        return Response(f"{request.user} {request.other} {request.data}")

    assert ask(make(add_view(view)), "/joe")[0].text == "/joe /joe /joe"


def test_subrequests_have_the_properties_too(ask):
    class Other(Request): ...

    def view(request):
        if request.path_info == "/sub":
            return Response(f"{type(request).__name__} {request.user}")
        return request.invoke_subrequest(Other.blank("/sub"))

    app = make(
        add_method(user_of(lambda: asyncio.sleep(0)), reify=True), add_view(view)
    )
    assert ask(app, "/")[0].text == "Other /sub"


def test_documentation_of_a_property_is_kept():
    async def user(request):
        """Who it is."""

    app = make(
        add_method(user, "one", property=True), add_method(user, "two", reify=True)
    )
    descriptors = app.registry.getUtility(IRequestExtensions).descriptors
    adapt_hooks(app.registry)
    for name in "one", "two":
        assert descriptors[name].__doc__ == "Who it is."
        assert descriptors[name].__get__(None) is descriptors[name]


def test_everything_is_adapted_once():
    app = make(
        add_method(user_of(None), "one", property=True),
        add_method(user_of(None), "two", reify=True),
        add_method(property(user_of(None)), "three", property=True),
    )
    descriptors = app.registry.getUtility(IRequestExtensions).descriptors
    before = dict(descriptors)
    adapt_hooks(app.registry)
    assert all(descriptors[name] is before[name] for name in before)


# Callbacks --------------------------------------------------------------------


def test_response_callbacks_are_waited_for_in_order(ask):
    meet = ask.meeting(20)

    async def first(request, response):
        await meet()
        response.headers["X-Path"] = request.path_info

    def second(request, response):
        response.headers["X-Path"] += " second"

    def view(request):
        request.add_response_callback(first)
        request.add_response_callback(second)
        return Response()

    for path, answer in zip(
        paths_of(20), ask(make(add_view(view)), *paths_of(20)), strict=True
    ):
        assert answer.headers["x-path"] == f"{path} second"


def test_finished_callbacks_are_waited_for_in_order(ask):
    calls = []
    meet = ask.meeting(3)

    async def first(request):
        await meet()
        calls.append((request.path_info, 1))

    def second(request):
        calls.append((request.path_info, 2))

    def view(request):
        request.add_finished_callback(first)
        request.add_finished_callback(second)
        return Response()

    ask(make(add_view(view)), *paths_of(3))
    for path in paths_of(3):
        assert [number for called, number in calls if called == path] == [1, 2]


def test_a_callback_that_raises_is_heard(ask):
    async def callback(request, response):
        await asyncio.sleep(0)
        raise LookupError("no such row")

    def view(request):
        request.add_response_callback(callback)
        return Response()

    with pytest.raises(LookupError, match="no such row"):
        OnWsgi()(make(add_view(view)), "/")


def test_a_callback_that_raises_still_ends_the_request(ask, caplog):
    ended = []

    async def callback(request):
        ended.append(request.path_info)

    def view(request):
        request.add_finished_callback(callback)
        raise LookupError

    app = make(
        add_view(view),
        lambda config: config.add_exception_view(
            lambda request: Response("told"), context=LookupError
        ),
    )
    assert ask(app, "/x")[0].text == "told"
    assert ended == ["/x"]


def test_a_callback_is_the_one_that_was_added():
    async def callback(request): ...

    request = make().request_factory.blank("/")
    request.add_finished_callback(callback)
    assert list(request.finished_callbacks) == [callback]
    assert callback in request.finished_callbacks


def test_a_method_of_the_applications_request_class_is_called(ask):
    class Own(Request):
        added = ()

        def add_finished_callback(self, callback):
            self.added += (callback,)
            super().add_finished_callback(callback)

    ended = []

    async def callback(request):
        ended.append(len(request.added))

    def view(request):
        request.add_finished_callback(callback)
        return Response()

    ask(
        make(lambda config: config.set_request_factory(Own), add_view(view)),
        "/",
    )
    assert ended == [1]


def test_what_a_request_caches_is_not_waited_for(ask):
    cached = []

    @RequestLocalCache()
    def pool(request):
        cached.append(Pool())
        return cached[-1]

    @RequestLocalCache()
    async def user(request):
        return "joe"

    async def view(request):
        assert pool(request) is pool(request)
        return Response(await user(request))

    assert ask(make(add_view(view)), "/")[0].text == "joe"
    assert len(cached) == 1


def test_bound_methods_are_callbacks_like_others(ask):
    class Log:
        lines = ()

        async def write(self, request):
            await asyncio.sleep(0)
            self.lines += (request.path_info,)

        @classmethod
        def count(cls, request):
            return cls.add("class")

        @classmethod
        async def add(cls, line):
            cls.lines += (line,)

    log = Log()
    queue = asyncio.Queue()

    def view(request):
        request.add_finished_callback(log.write)
        request.add_finished_callback(Log.count)
        # A coroutine function of the standard library's.
        request.add_finished_callback(queue.put)
        return Response()

    ask(make(add_view(view)), "/x")
    assert log.lines == ("/x",)
    assert Log.lines == ("class",)
    assert queue.qsize() == 1


def test_the_answers_of_two_applications_are_not_mixed_up(ask):
    def view(request):
        return Response(json.dumps(request.user))

    apps = [
        make(add_method(user_of(ask.meeting(1)), reify=True), add_view(view)),
        make(add_method(lambda request: "other", "user", reify=True), add_view(view)),
    ]
    assert [ask(app, "/joe")[0].text for app in apps] == ['"/joe"', '"other"']

"""Traversers, URLs of resources and response adapters that are coroutines."""

import asyncio

import pytest
from hook_apps import OnLoop, OnWsgi, make
from pyramid.interfaces import IResourceURL, IResponse, ITraverser
from pyramid.response import Response
from pyramid.traversal import (
    ResourceTreeTraverser,
    ResourceURL,
    find_resource,
    resource_path,
)
from zope.interface import Interface, implementer

from aioext.hooks import adapt_hooks


@pytest.fixture(params=[OnLoop, OnWsgi])
def ask(request):
    return request.param()


def paths_of(count):
    return [f"/name{number}" for number in range(count)]


def root_view(view, **options):
    def add(config):
        config.add_view(view, context=Resource, **options)

    return add


class Resource:
    __parent__ = None

    def __init__(self, name=""):
        self.__name__ = name

    def __getitem__(self, name):
        child = Resource(name)
        child.__parent__ = self
        return child


def set_root(config):
    config.set_root_factory(lambda request: Resource())


# Traversers -------------------------------------------------------------------


def found(context, request):
    return {
        "context": context,
        "view_name": "",
        "subpath": (),
        "traversed": (),
        "virtual_root": context,
        "virtual_root_path": (),
        "root": context,
    }


def traverser(meet):
    class Traverser:
        def __init__(self, root):
            self.root = root

        async def __call__(self, request):
            await meet()
            return found(Resource(request.path_info), request)

    return Traverser


def show(context, request):
    return Response(context.__name__)


@pytest.mark.parametrize("iface", [None, Resource])
def test_a_traverser_finds_each_requests_context(ask, iface):
    app = make(
        set_root,
        lambda config: config.add_traverser(traverser(ask.meeting(20)), iface),
        root_view(show),
    )
    assert [answer.text for answer in ask(app, *paths_of(20))] == paths_of(20)


def test_a_traverser_may_be_made_by_a_coroutine(ask):
    async def factory(root):
        await asyncio.sleep(0)
        return lambda request: found(Resource("made"), request)

    def add(config):
        config.registry.registerAdapter(factory, (Interface,), ITraverser)

    assert ask(make(set_root, add, root_view(show)), "/")[0].text == "made"


def test_a_traverser_that_raises_is_heard(ask):
    class Traverser(ResourceTreeTraverser):
        async def __call__(self, request):
            await asyncio.sleep(0)
            raise LookupError("gone")

    def told(error, request):
        return Response(repr(error), status=500)

    app = make(
        set_root,
        lambda config: config.add_traverser(Traverser),
        lambda config: config.add_exception_view(told, context=LookupError),
    )
    assert ask(app, "/")[0].text == "LookupError('gone')"


def test_find_resource_uses_the_traverser(ask):
    def view(context, request):
        return Response(find_resource(context, "/there").__name__)

    app = make(
        set_root,
        lambda config: config.add_traverser(traverser(ask.meeting(1))),
        root_view(view),
    )
    assert ask(app, "/")[0].text == "/there"


def test_a_traverser_that_is_synchronous_is_called_as_before(ask):
    class Traverser(ResourceTreeTraverser):
        VIEW_SELECTOR = "!!"

        def __call__(self, request):
            assert type(self) is Traverser or isinstance(self, Traverser)
            return super().__call__(request)

    app = make(
        set_root, lambda config: config.add_traverser(Traverser), root_view(show)
    )
    assert ask(app, "/one/two")[0].text == "two"


# URLs -------------------------------------------------------------------------


def url_view(context, request):
    url, path = request.resource_url(context, "x"), request.resource_path(context)
    return Response(f"{url} {path}")


def test_a_resource_url_adapter_may_be_made_by_a_coroutine(ask):
    meet = ask.meeting(3)

    async def adapter(resource, request):
        await meet()
        url = ResourceURL(resource, request)
        url.virtual_path = f"/made/{resource.__name__}"
        return url

    def add(config):
        config.add_resource_url_adapter(adapter, Resource)

    app = make(set_root, add, root_view(url_view))
    for path, answer in zip(paths_of(3), ask(app, *paths_of(3)), strict=True):
        assert answer.text == f"http://localhost/made{path}x /made{path}"


def test_the_attributes_of_a_resource_url_may_be_coroutines(ask):
    class Url(ResourceURL):
        @property
        async def virtual_path(self):
            await asyncio.sleep(0)
            return "/property/"

        @virtual_path.setter
        def virtual_path(self, path): ...

    app = make(
        set_root,
        lambda config: config.add_resource_url_adapter(Url),
        root_view(url_view),
    )
    assert ask(app, "/")[0].text == "http://localhost/property/x /property/"


def test_pyramids_resource_urls_are_as_before(ask):
    app = make(set_root, root_view(url_view))
    assert ask(app, "/a/b")[0].text == "http://localhost/a/b/x /a/b/"


class Located(Resource):
    async def __resource_url__(self, request, info):
        await asyncio.sleep(0)
        return f"{info['app_url']}/located{info['virtual_path']}"


class Punting(Resource):
    async def __resource_url__(self, request, info):
        return None


class Synchronous(Resource):
    def __resource_url__(self, request, info):
        return "synchronous:"


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        (Located, "http://localhost/located/x"),
        (Punting, "http://localhost/x"),
        (Synchronous, "synchronous:x"),
    ],
)
def test_a_resource_may_say_its_url(ask, resource, expected):
    app = make(
        lambda config: config.set_root_factory(lambda request: resource()),
        root_view(lambda root, request: Response(request.resource_url(root, "x"))),
    )
    assert ask(app, "/")[0].text == expected


def test_a_resource_that_says_its_url_is_adapted_as_itself(ask):
    @implementer(IResourceURL)
    class Url(ResourceURL):
        def __init__(self, resource, request):
            assert isinstance(resource, Located)
            assert resource_path(resource) == "/"
            super().__init__(resource, request)

    app = make(
        lambda config: config.set_root_factory(lambda request: Located()),
        lambda config: config.add_resource_url_adapter(Url, Located),
        root_view(lambda root, request: Response(request.resource_url(root))),
    )
    assert ask(app, "/")[0].text == "http://localhost/located/"


# Responses --------------------------------------------------------------------


class Page:
    def __init__(self, text):
        self.text = text


@pytest.mark.parametrize("view", ["function", "coroutine"])
def test_a_response_adapter_makes_each_requests_response(ask, view):
    meet = ask.meeting(20)

    async def adapt(page):
        await meet()
        return Response(page.text)

    def function(context, request):
        return Page(request.path_info)

    async def coroutine(context, request):
        return Page(request.path_info)

    app = make(
        set_root,
        lambda config: config.add_response_adapter(adapt, Page),
        root_view(locals()[view]),
    )
    assert [answer.text for answer in ask(app, *paths_of(20))] == paths_of(20)


def test_is_response_looks_at_what_the_adapter_gives(ask):
    class Own(Response): ...

    async def adapt(page):
        return Own(page.text)

    def view(context, request):
        return Response(f"{request.is_response(Page(''))} {request.is_response(1)}")

    app = make(
        set_root,
        lambda config: config.add_response_adapter(adapt, Page),
        root_view(view),
    )
    assert ask(app, "/")[0].text == "False False"


def test_classes_and_none_adapt_as_before(ask):
    @implementer(IResponse)
    class Own(Response):
        def __init__(self, page):
            super().__init__(page.text)

    class Self:
        def __call__(self, environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"self"]

    def steps(config):
        config.add_response_adapter(Own, Page)
        config.add_response_adapter(None, Self)
        config.add_view(lambda request: Page("page"), name="page")
        config.add_view(lambda request: Self(), name="self")

    page, own = ask(make(steps), "/page", "/self")
    assert (page.text, own.text) == ("page", "self")


def test_every_adapter_is_adapted_once():
    async def adapt(page): ...

    def steps(config):
        config.add_response_adapter(adapt, Page)
        config.add_traverser(traverser(None))
        config.add_resource_url_adapter(ResourceURL)

    registry = make(steps).registry
    before = [each.factory for each in registry.registeredAdapters()]
    adapt_hooks(registry)
    after = [each.factory for each in registry.registeredAdapters()]
    assert all(one is other for one, other in zip(before, after, strict=True))
    (adapted,) = [each for each in after if each == adapt]
    assert adapted.__wrapped__ is adapt

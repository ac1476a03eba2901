"""Traversal of trees whose ``__getitem__`` are coroutine functions.

That it walks as Pyramid's own traverser does, ``tests/pyramid_suite.py`` shows with
Pyramid's tests, in the modes of traversal.
"""

import asyncio

import pytest
from inprocess import answer, answers, make_app
from pyramid.interfaces import ITraverser
from pyramid.response import Response
from pyramid.scripting import prepare
from pyramid.testing import DummyRequest
from pyramid.traversal import (
    ResourceTreeTraverser,
    find_resource,
    resource_path,
    traverse,
    virtual_root,
)
from webtest import TestApp
from zope.interface import Interface, implementer
from zope.interface.verify import verifyClass, verifyObject

from aioext import ScopeError, spawn_greenlet
from aioext.traversal import AsyncioTraverser, AsyncTraverser, install


class Resource:
    """Has no children."""

    def __init__(self, name="", parent=None):
        self.__name__ = name
        self.__parent__ = parent


class Folder(Resource):
    """Has the children that it was given: classes, by their names."""

    def __init__(self, name="", parent=None, **children):
        super().__init__(name, parent)
        self.children = children

    def make(self, name):
        """The child of that name, or a ``KeyError``."""
        return self.children[name](name, self)


class Sync(Folder):
    """Gives its children at once."""

    def __getitem__(self, name):
        return self.make(name)


class Async(Folder):
    """Waits for each of them."""

    async def __getitem__(self, name):
        await asyncio.sleep(0)
        return self.make(name)


def folder(cls, **children):
    return lambda name, parent: cls(name, parent, **children)


def tree():
    """Resources of both kinds, above and below each other."""
    leaf = folder(Async, leaf=Resource)
    return Async(a=folder(Sync, b=leaf), s=folder(Async, t=folder(Sync, u=leaf)))


def describe(request):
    """What traversal found, in a response."""
    found = resource_path(request.context), request.view_name, *request.subpath
    assert type(request.context) in (Async, Sync, Resource)
    assert type(request.root) is Async
    return Response(" ".join(filter(None, found)))


async def describe_later(request):
    await asyncio.sleep(0)
    return describe(request)


def add_views(config):
    config.set_root_factory(lambda request: tree())
    config.add_view(describe)
    config.add_view(describe_later, name="edit")


def get_served(app, path):
    client = answer(app, path)
    return client.status, client.body.decode()


def get_plain(app, path):
    response = TestApp(app.app).get(path, expect_errors=True)
    return response.status_int, response.text


@pytest.fixture(params=[get_served, get_plain], ids=["served", "plain"])
def get(request):
    """Make a request: on a loop, and as a plain WSGI server does."""
    return request.param


@pytest.fixture(params=["executor", "inline", "request"])
def settings(request):
    return {"aioext.sync_views": request.param}


FOUND = {
    "/": "/",
    "/a": "/a",
    "/a/b": "/a/b",
    "/a/b/leaf": "/a/b/leaf",
    "/s/t/u/leaf": "/s/t/u/leaf",
    "/edit": "/ edit",
    "/a/b/edit": "/a/b edit",
    "/a/b/edit/x/y": "/a/b edit x y",
    # A resource without children ends the walk as well.
    "/a/b/leaf/edit": "/a/b/leaf edit",
    "/a/@@edit/b": "/a edit b",
}


def test_trees_of_both_kinds_are_traversed(get, settings):
    app = make_app(add_views, settings=settings)
    for path, found in FOUND.items():
        assert get(app, path) == (200, found)


def test_what_is_not_there_is_not_found(get):
    assert get(make_app(add_views), "/a/b/c")[0] == 404


def test_routes_with_traversal(get):
    def steps(config):
        config.set_root_factory(lambda request: tree())
        config.add_route("whole", "/whole/*traverse")
        config.add_route("part", "/part/{name}", traverse="/a/{name}")
        config.add_route("own", "/own/*traverse", factory=lambda request: Async(z=Sync))
        for route in "whole", "part", "own":
            config.add_view(describe, route_name=route)

    app = make_app(steps)
    assert get(app, "/whole/a/b") == (200, "/a/b")
    assert get(app, "/part/b") == (200, "/a/b")
    assert get(app, "/own/z") == (200, "/z")


@pytest.mark.parametrize("error", [ValueError, AttributeError, LookupError])
def test_what_a_step_raises_leaves_the_traversal(get, error):
    class Broken(Resource):
        async def __getitem__(self, name):
            await asyncio.sleep(0)
            raise error("broken")

    def steps(config):
        config.set_root_factory(lambda request: Broken())
        config.add_view(describe)
        config.add_exception_view(lambda e, r: Response(str(e)), context=error)

    assert get(make_app(steps), "/a") == (200, "broken")


def test_a_view_may_be_found_by_the_context():
    def steps(config):
        config.set_root_factory(lambda request: tree())
        config.add_view(lambda request: Response("leaf"), context=Resource)
        config.add_view(lambda request: Response("folder"), context=Async)

    app = make_app(steps)
    assert [each.body for each in answers(app, ["/a/b", "/a/b/leaf"])] == [
        b"folder",
        b"leaf",
    ]


def test_requests_that_overlap_find_what_is_theirs():
    barrier = asyncio.Barrier(20)

    class Meeting(Resource):
        async def __getitem__(self, name):
            await barrier.wait()
            return Resource(name, self)

    def steps(config):
        config.set_root_factory(lambda request: Meeting())
        config.add_view(lambda request: Response(request.context.__name__))

    names = [f"r{number}" for number in range(20)]
    clients = answers(make_app(steps), [f"/{name}" for name in names])
    assert [each.body.decode() for each in clients] == names


def test_the_virtual_root():
    def steps(config):
        config.set_root_factory(lambda request: tree())

        async def view(request):
            assert type(request.virtual_root) is Sync
            # It is looked for once more, from the root.
            root = virtual_root(request.context, request)
            assert type(root) is Sync
            return Response(f"{resource_path(root)} {request.resource_url(root)}")

        config.add_view(view)

    headers = [(b"host", b"localhost"), (b"x-vhm-root", b"/s/t")]
    client = answer(make_app(steps), "/u", headers=headers)
    assert client.body == b"/s/t http://localhost/"


# Finding a resource -------------------------------------------------------------


def find(request):
    leaf = find_resource(request.root, request.params["path"])
    above = leaf.__parent__
    found = traverse(above, "leaf/x/y")
    assert found["context"].__name__ == "leaf"
    assert (found["view_name"], found["subpath"]) == ("x", ("y",))
    return Response(resource_path(leaf))


async def find_later(request):
    await asyncio.sleep(0)
    return find(request)


@pytest.mark.parametrize("view", [find, find_later])
def test_views_may_look_for_resources(get, settings, view):
    def steps(config):
        config.set_root_factory(lambda request: tree())
        config.add_view(view, name="find")

    app = make_app(steps, settings=settings)
    if get is get_plain:
        assert get(app, "/find?path=/a/b/leaf") == (200, "/a/b/leaf")
    else:
        client = answer(app, "/find", query_string=b"path=/a/b/leaf")
        assert client.body == b"/a/b/leaf"


def leaf_of_current():
    """Found with the traverser of a configured application, in its tree."""
    with prepare(registry=make_app(add_views).app.registry) as env:
        return resource_path(find_resource(env["root"], "/a/b/leaf"))


def test_outside_of_a_request_resources_are_found_as_well(run):
    assert leaf_of_current() == "/a/b/leaf"
    assert run(spawn_greenlet(leaf_of_current)) == "/a/b/leaf"


def test_a_resource_that_is_not_there_is_a_key_error():
    with prepare(registry=make_app(add_views).app.registry) as env:
        with pytest.raises(KeyError, match="none"):
            find_resource(env["root"], "/a/none")


def test_in_a_task_of_its_own_nothing_can_wait(run):
    async def main():
        leaf_of_current()

    with pytest.raises(ScopeError):
        run(main())


# The traverser itself -----------------------------------------------------------


def walk(root, path="/", traverser=AsyncioTraverser):
    request = DummyRequest(path=path)
    request.path_info, request.matchdict = path, None
    return traverser(root)(request)


def test_it_has_both_names_and_does_what_the_interface_says():
    assert AsyncTraverser is AsyncioTraverser
    assert verifyClass(ITraverser, AsyncioTraverser)
    assert verifyObject(ITraverser, AsyncioTraverser(None))


def test_what_is_found_are_the_resources_themselves():
    child, root = object(), {}
    root["a"] = child
    found = walk(root, "/a")
    assert found["context"] is child
    assert found["root"] is found["virtual_root"] is root
    assert found == walk(root, "/a", ResourceTreeTraverser)


def test_a_traverser_may_be_called_more_than_once():
    root = {"a": {}}
    traverser = AsyncioTraverser(root)
    for _ in range(2):
        request = DummyRequest()
        request.path_info, request.matchdict = "/a", None
        assert traverser(request)["context"] is root["a"]
        assert traverser.root is root


def test_a_child_that_can_merely_be_awaited_stays_itself():
    class Pool(Resource):
        def __await__(self):
            raise AssertionError("awaited")
            yield

    pool = Pool()
    assert walk({"pool": pool}, "/pool")["context"] is pool


def test_a_future_is_waited_for(run):
    async def main():
        future = asyncio.get_running_loop().create_future()
        future.set_result("found")
        return await spawn_greenlet(walk, {"a": future}, "/a")

    assert run(main())["context"] == "found"


def test_an_attribute_error_of_the_attribute_ends_the_walk():
    class Childless:
        @property
        def __getitem__(self):
            raise AttributeError("__getitem__")

    root = Childless()
    found = walk(root, "/a")
    assert (found["context"], found["view_name"]) == (root, "a")


def test_children_of_the_instance_count_as_pyramid_has_it():
    class Instance:
        def __init__(self):
            self.__getitem__ = {"a": "child"}.__getitem__

    assert walk(Instance(), "/a")["context"] == "child"


def test_subclasses_override_what_pyramids_may():
    class Selecting(AsyncioTraverser):
        VIEW_SELECTOR = "++"

        def __init__(self, root):
            super().__init__(root)
            self.made_for = root

    found = walk(Async(a=Sync), "/a/++edit/x", Selecting)
    assert (found["view_name"], found["subpath"]) == ("edit", ("x",))


# Which traverser an application has ----------------------------------------------


@implementer(ITraverser)
class Fixed:
    """Finds itself."""

    def __init__(self, root):
        self.root = root

    def __call__(self, request):
        names = ("context", "root", "virtual_root")
        empty = {"view_name": "", "subpath": (), "traversed": ()}
        return empty | dict.fromkeys(names, self) | {"virtual_root_path": ()}


def traverser_of(app, root=None):
    # A stand-in has the class of what it stands for.
    return app.app.registry.getAdapter(root or Resource(), ITraverser).__class__


def add_own(config):
    config.add_traverser(Fixed)


def register_own(config):
    config.registry.registerAdapter(Fixed, (Interface,), ITraverser)


def commit(config):
    config.commit()


def test_the_include_installs_it():
    assert traverser_of(make_app()) is AsyncioTraverser
    assert traverser_of(make_app("aioext", commit, add_views)) is AsyncioTraverser


@pytest.mark.parametrize("own", [add_own, register_own])
@pytest.mark.parametrize(
    "steps",
    [
        lambda own: (own, "aioext"),
        lambda own: ("aioext", own),
        lambda own: (own, commit, "aioext"),
        lambda own: ("aioext", commit, own),
    ],
    ids=["before", "after", "before-commit", "after-commit"],
)
def test_the_applications_own_traverser_wins(own, steps):
    def add_view(config):
        config.add_view(lambda request: Response("fixed"), context=Fixed)

    app = make_app(*steps(own), add_view)
    assert answer(app, "/any").body == b"fixed"


def test_a_traverser_for_some_resources_leaves_the_others():
    def steps(config):
        config.add_traverser(Fixed, Sync)

    app = make_app(steps)
    assert traverser_of(app, Sync()) is Fixed
    assert traverser_of(app, Async()) is AsyncioTraverser


def test_it_may_be_registered_by_hand():
    def by_hand(config):
        config.registry.registerAdapter(AsyncioTraverser, (Interface,), ITraverser)

    for steps in ("aioext", by_hand, add_views), (by_hand, "aioext", add_views):
        assert get_served(make_app(*steps), "/a/b/leaf") == (200, "/a/b/leaf")


def test_installing_it_twice_is_harmless():
    def again(config):
        install(config.registry)
        install(config.registry)

    app = make_app("aioext", again, add_views)
    assert traverser_of(app) is AsyncioTraverser

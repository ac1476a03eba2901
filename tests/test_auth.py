"""Access control lists, security policies and old policies with coroutines in them.

Nothing here rests on the hooks that the include adapts: these objects give values to
whoever calls them.
"""

import asyncio
import gc
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from inprocess import answer, answers, make_app
from pyramid import authorization
from pyramid.authentication import (
    AuthTktAuthenticationPolicy,
    BasicAuthAuthenticationPolicy,
    CallbackAuthenticationPolicy,
)
from pyramid.authorization import (
    ALL_PERMISSIONS,
    ACLAllowed,
    ACLDenied,
    Allow,
    Authenticated,
    Deny,
    Everyone,
)
from pyramid.interfaces import (
    IAuthenticationPolicy,
    IAuthorizationPolicy,
    ISecurityPolicy,
)
from pyramid.response import Response
from pyramid.security import forget, remember
from pyramid.testing import DummyRequest
from webtest import TestApp
from zope.interface.verify import verifyObject

from aioext import ScopeError, spawn_greenlet, synchronize, wait
from aioext.auth import (
    ACLAuthorizationPolicy,
    ACLHelper,
    AsyncSecurityPolicy,
    CoroutineAuthenticationPolicyProxy,
    authn_policy_factory,
    coroutine_callback_authentication_policy_factory,
)

VIEW, EDIT = "view", "edit"
ANN = [(Allow, "ann", VIEW)]
NOBODY = [(Deny, Everyone, ALL_PERMISSIONS)]


class Resource:
    """A resource below another one."""

    def __init__(self, parent=None):
        self.__parent__ = parent


def with_acl(acl):
    """Resources with the same list in each of the ways to have one."""

    class Attribute(Resource):
        __acl__ = acl

    class Method(Resource):
        def __acl__(self):
            return acl

    class Coroutine(Resource):
        async def __acl__(self):
            await asyncio.sleep(0)
            return acl

    class Synchronized(Resource):
        @synchronize
        async def __acl__(self):
            await asyncio.sleep(0)
            return acl

    class Instance(Resource):
        def __init__(self, parent=None):
            super().__init__(parent)

            async def load():
                return acl

            self.__acl__ = load

    class Property(Resource):
        @property
        def __acl__(self):
            async def load():
                await asyncio.sleep(0)
                return acl

            return load()

    return [Attribute, Method, Coroutine, Synchronized, Instance, Property]


KINDS = [cls.__name__ for cls in with_acl([])]


def resource_with(acl, kind, parent=None):
    return with_acl(acl)[KINDS.index(kind)](parent)


@pytest.fixture(params=["outside", "bridge"])
def call(request, run):
    """Call a synchronous function outside of a loop, and in a bridge."""
    if request.param == "outside":
        return lambda fn, *args: fn(*args)
    return lambda fn, *args: run(spawn_greenlet(fn, *args))


# ACLHelper ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_of_each_kind_allows_and_denies(call, kind):
    resource = resource_with(ANN, kind)
    permits = ACLHelper().permits
    assert call(permits, resource, ["ann"], VIEW)
    assert not call(permits, resource, ["bob"], VIEW)
    assert not call(permits, resource, ["ann"], EDIT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("acl", [NOBODY, [(Deny, "ann", VIEW), *ANN]])
def test_a_list_of_each_kind_denies_what_one_above_allows(call, kind, acl):
    resource = resource_with(acl, kind, resource_with(ANN, "Attribute"))
    assert not call(ACLHelper().permits, resource, [Everyone, "ann"], VIEW)


@pytest.mark.parametrize("kind", KINDS)
def test_lists_of_each_kind_may_stand_above_each_other(call, kind):
    permits, allowed = ACLHelper().permits, ACLHelper().principals_allowed_by_permission
    for above in KINDS:
        top = resource_with([(Allow, "ann", EDIT), *ANN], above)
        resource = resource_with([(Deny, "ann", EDIT)], kind, Resource(top))
        assert call(permits, resource, ["ann"], VIEW)
        assert not call(permits, resource, ["ann"], EDIT)
        assert call(allowed, resource, VIEW) == {"ann"}
        assert call(allowed, resource, EDIT) == set()


@pytest.mark.parametrize(
    ("resource", "result"),
    [
        (resource_with(ANN, "Attribute"), ACLAllowed),
        (Resource(resource_with(ANN, "Method")), ACLAllowed),
        (resource_with(NOBODY, "Attribute", resource_with(ANN, "Method")), ACLDenied),
        (Resource(Resource()), ACLDenied),
        (None, ACLDenied),
    ],
)
def test_results_are_those_of_pyramids_helper(resource, result):
    helpers = ACLHelper(), authorization.ACLHelper()
    principals = [Everyone, "ann"]
    ours, pyramids = [each.permits(resource, principals, VIEW) for each in helpers]
    assert type(ours) is type(pyramids) is result
    assert str(ours) == str(pyramids)
    assert ours.context is pyramids.context
    for name in "ace", "acl", "permission", "principals":
        assert getattr(ours, name) == getattr(pyramids, name)
    ours, pyramids = [
        each.principals_allowed_by_permission(resource, VIEW) for each in helpers
    ]
    assert ours == pyramids


@pytest.mark.parametrize("error", [AttributeError, KeyError, ValueError])
@pytest.mark.parametrize("property_", [False, True])
def test_a_list_that_fails_to_load_is_no_list_that_is_not_there(call, error, property_):
    async def load(self=None):
        await asyncio.sleep(0)
        raise error("broken")

    class Broken(Resource):
        __acl__ = property(load) if property_ else load

    # Else the list above would decide, which allows it.
    resource = Broken(resource_with([(Allow, Everyone, VIEW)], "Attribute"))
    with pytest.raises(error, match="broken"):
        call(ACLHelper().permits, resource, ["ann"], VIEW)


def test_pyramids_own_helper_fails_on_a_coroutine():
    # It does not allow anything; the documentation says so.
    resource = resource_with([(Allow, Everyone, VIEW)], "Instance")
    made = []
    load = resource.__acl__
    resource.__acl__ = lambda: made.append(load()) or made[0]
    with pytest.raises(TypeError, match="not iterable"):
        authorization.ACLHelper().permits(resource, ["ann"], VIEW)
    made[0].close()


def test_an_asynchronous_generator_allows_nothing(call):
    class Wrong(Resource):
        async def __acl__(self):
            yield (Allow, Everyone, VIEW)

    with pytest.raises(TypeError):
        call(ACLHelper().permits, Wrong(), ["ann"], VIEW)


def test_principals_may_be_a_coroutine_too(call):
    async def principals():
        return ["ann"]

    resource = resource_with(ANN, "Coroutine")
    assert call(lambda: ACLHelper().permits(resource, principals(), VIEW))
    assert not call(lambda: ACLHelper().permits(resource, principals(), EDIT))


def test_in_a_task_of_its_own_nothing_can_wait(run):
    async def main():
        with pytest.raises(ScopeError):
            ACLHelper().permits(resource_with(ANN, "Coroutine"), ["ann"], VIEW)
        assert ACLHelper().permits(resource_with(ANN, "Method"), ["ann"], VIEW)

    run(main())


def test_the_old_authorization_policy_has_the_helper(call):
    policy = ACLAuthorizationPolicy()
    assert verifyObject(IAuthorizationPolicy, policy)
    resource = resource_with(ANN, "Coroutine")
    assert call(policy.permits, resource, ["ann"], VIEW)
    assert not call(policy.permits, resource, ["bob"], VIEW)
    assert call(policy.principals_allowed_by_permission, resource, VIEW) == {"ann"}


# AsyncSecurityPolicy --------------------------------------------------------------


USERS = {"ann": ["editors"], "bob": []}


class Policy(AsyncSecurityPolicy):
    """Knows users by a header."""

    def __init__(self):
        # As subclasses do, it does not call what it overrides.
        self.loaded = []

    async def load_identity(self, request):
        self.loaded.append("identity")
        await asyncio.sleep(0)
        name = request.headers.get("X-User")
        return name if name in USERS else None

    async def principals(self, request):
        self.loaded.append("principals")
        await asyncio.sleep(0)
        return [f"group:{group}" for group in USERS.get(self.identity(request), ())]

    async def remember(self, request, userid, **options):
        await asyncio.sleep(0)
        return [("X-Remember", userid)]

    async def forget(self, request, **options):
        await asyncio.sleep(0)
        return [("X-Forget", "yes")]


class Document(Resource):
    """Is for editors, and to be seen by those that are known."""

    def __init__(self, request):
        super().__init__()

    async def __acl__(self):
        await asyncio.sleep(0)
        return [(Allow, Authenticated, VIEW), (Allow, "group:editors", EDIT)]


def show(request):
    assert request.is_authenticated is (request.identity is not None)
    may = [name for name in (VIEW, EDIT) if request.has_permission(name)]
    parts = request.identity, request.authenticated_userid, *may
    return Response(" ".join(map(str, parts)))


async def show_later(request):
    await asyncio.sleep(0)
    return show(request)


def configure(policy):
    def steps(config):
        config.set_security_policy(policy)
        config.set_root_factory(Document)
        config.add_view(show)
        config.add_view(show_later, name="later")
        config.add_view(show, name="edit", permission=EDIT)

    return steps


def get_served(app, path, user):
    client = answer(app, path, headers=[(b"host", b"x"), (b"x-user", user.encode())])
    return client.status, client.body.decode()


def get_plain(app, path, user):
    headers = {"X-User": user}
    response = TestApp(app.app).get(path, headers=headers, expect_errors=True)
    return response.status_int, response.text


@pytest.fixture(params=[get_served, get_plain], ids=["served", "plain"])
def get(request):
    """Make a request of a user: on a loop, and as a plain WSGI server does."""
    return request.param


@pytest.fixture(params=["executor", "inline", "request"])
def settings(request):
    return {"aioext.sync_views": request.param}


@pytest.mark.parametrize("path", ["/", "/later"])
def test_requests_know_their_users_and_what_they_may(get, settings, path):
    policy = Policy()
    app = make_app(configure(policy), settings=settings)
    assert get(app, path, "ann") == (200, "ann ann view edit")
    assert get(app, path, "bob") == (200, "bob bob view")
    assert get(app, path, "eve") == (200, "None None")
    # Each once for a request, though they are asked for many times.
    assert policy.loaded == ["identity", "principals"] * 3


def test_views_are_for_those_who_may(get, settings):
    app = make_app(configure(Policy()), settings=settings)
    assert get(app, "/edit", "ann")[0] == 200
    assert get(app, "/edit", "bob")[0] == 403
    assert get(app, "/edit", "eve")[0] == 403


def test_requests_that_overlap_have_their_own_users():
    barrier = asyncio.Barrier(20)

    class Meeting(Policy):
        async def load_identity(self, request):
            await barrier.wait()
            return request.path_info.strip("/")

    def steps(config):
        config.set_security_policy(Meeting())
        config.add_route("any", "/{name}")
        config.add_view(lambda request: Response(request.identity), route_name="any")

    names = [f"user{number}" for number in range(20)]
    clients = answers(make_app(steps), [f"/{name}" for name in names])
    assert [each.body.decode() for each in clients] == names


def test_the_transaction_is_annotated_with_the_user(get, settings):
    def steps(config):
        # By its defaults it asks for the userid, in its tween.
        config.include("pyramid_tm")
        config.add_view(lambda request: Response(request.tm.get().user), name="tm")

    app = make_app(configure(Policy()), steps, settings=settings)
    assert get(app, "/tm", "ann") == (200, "ann")


def test_remember_and_forget_give_headers(get):
    def sign(request):
        headers = remember(request, "ann") + forget(request)
        return Response(" ".join(f"{name}={value}" for name, value in headers))

    async def sign_later(request):
        return sign(request)

    def steps(config):
        config.set_security_policy(Policy())
        config.add_view(sign)
        config.add_view(sign_later, name="later")

    app = make_app(steps)
    for path in "/", "/later":
        assert get(app, path, "ann") == (200, "X-Remember=ann X-Forget=yes")


def test_it_does_what_the_interface_says():
    assert verifyObject(ISecurityPolicy, AsyncSecurityPolicy())
    assert verifyObject(ISecurityPolicy, Policy())


def test_by_default_the_identity_is_the_userid_and_principals_are_few(call):
    class Least(AsyncSecurityPolicy):
        async def load_identity(self, request):
            return request.params.get("user")

    policy, known = Least(), DummyRequest(params={"user": "ann"})
    assert call(policy.authenticated_userid, known) == "ann"
    assert call(policy.effective_principals, known) == [Everyone, Authenticated]
    assert call(policy.effective_principals, DummyRequest()) == [Everyone]
    assert call(policy.authenticated_userid, DummyRequest()) is None


def test_the_userid_of_an_identity_may_be_a_coroutine(call):
    class Users(AsyncSecurityPolicy):
        async def load_identity(self, request):
            return {"id": 7}

        async def userid_of(self, identity):
            await asyncio.sleep(0)
            return identity["id"]

    assert call(Users().authenticated_userid, DummyRequest()) == 7


def test_what_a_policy_does_not_say_is_not_guessed(call):
    class Users(AsyncSecurityPolicy):
        async def load_identity(self, request):
            return object()

    request = DummyRequest()
    with pytest.raises(NotImplementedError, match=r"Users has no userid_of\(\)"):
        call(Users().authenticated_userid, request)
    with pytest.raises(NotImplementedError, match="load_identity"):
        call(AsyncSecurityPolicy().identity, request)
    for method in "remember", "forget":
        with pytest.raises(NotImplementedError, match=method):
            call(lambda name: wait(getattr(Users(), name)(request, userid=1)), method)


def test_two_readers_of_one_request_load_once(run):
    policy, request = Policy(), DummyRequest(headers={"X-User": "ann"})

    async def main():
        readers = [
            spawn_greenlet(policy.permits, request, Document(0), permission)
            for permission in (EDIT, VIEW, EDIT)
        ]
        return await asyncio.gather(*readers)

    assert all(run(main()))
    assert policy.loaded == ["identity", "principals"]


@pytest.fixture
def impatient():
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("impatient")
def test_threads_of_one_request_load_once():
    policy = Policy()
    together = threading.Barrier(8)

    def ask(requests):
        for request in requests:
            together.wait(10)
            assert policy.identity(request) == "ann"

    requests = [DummyRequest(headers={"X-User": "ann"}) for _ in range(50)]
    with ThreadPoolExecutor(together.parties) as threads:
        for each in [threads.submit(ask, requests) for _ in range(together.parties)]:
            each.result()
    assert len(policy.loaded) == len(requests)


class Gated(AsyncSecurityPolicy):
    """Loads when it is let, and what it is given."""

    def __init__(self):
        self.calls = asyncio.Queue()

    async def load_identity(self, request):
        future = asyncio.get_running_loop().create_future()
        self.calls.put_nowait(future)
        return await future


def test_a_reader_that_is_cancelled_takes_nobody_with_it(run):
    policy, request = Gated(), DummyRequest()

    async def main():
        first = asyncio.create_task(spawn_greenlet(policy.identity, request))
        await policy.calls.get()
        second = asyncio.create_task(spawn_greenlet(policy.identity, request))
        await asyncio.sleep(0)
        assert policy.calls.empty()
        first.cancel()
        (await policy.calls.get()).set_result("ann")
        assert await second == "ann"
        with pytest.raises(asyncio.CancelledError):
            await first

    run(main())


def test_what_fails_to_load_is_tried_again(run):
    policy, request = Gated(), DummyRequest()

    async def main():
        first = asyncio.create_task(spawn_greenlet(policy.identity, request))
        call = await policy.calls.get()
        second = asyncio.create_task(spawn_greenlet(policy.identity, request))
        call.set_exception(OSError("no database"))
        with pytest.raises(OSError, match="no database"):
            await first
        (await policy.calls.get()).set_result(None)
        # Nobody is known: that was loaded as well.
        assert await second is None
        assert policy.identity(request) is None

    run(main())


def test_in_a_task_of_its_own_what_was_loaded_is_there(run):
    policy, request = Policy(), DummyRequest(headers={"X-User": "ann"})

    async def main():
        with pytest.raises(ScopeError):
            policy.identity(request)
        await spawn_greenlet(policy.identity, request)
        assert policy.identity(request) == "ann"

    run(main())


def test_resetting_loads_again(call):
    policy, request = Policy(), DummyRequest(headers={"X-User": "ann"})
    assert call(policy.effective_principals, request)[1:] == [
        Authenticated,
        "group:editors",
    ]
    request.headers["X-User"] = "bob"
    assert call(policy.identity, request) == "ann"
    policy.reset(request)
    assert call(policy.identity, request) == "bob"
    assert call(policy.effective_principals, request) == [Everyone, Authenticated]


@pytest.mark.parametrize(
    "ask",
    [
        lambda request: request.identity,
        lambda request: request.authenticated_userid,
        lambda request: request.has_permission(VIEW),
    ],
)
def test_a_policy_that_asks_itself_is_told_so(get, ask):
    class Circle(Policy):
        async def load_identity(self, request):
            # Asked in a task of its own, too, which is waited for.
            return await asyncio.create_task(spawn_greenlet(ask, request))

    def told(error, request):
        return Response(str(error))

    def steps(config):
        config.add_exception_view(told, context=RuntimeError)

    app = make_app(configure(Circle()), steps)
    status, text = get(app, "/", "ann")
    assert status == 200
    assert "load_identity() asked for what it is to load itself" in text
    assert "identity-in-a-circle" in text


@pytest.mark.parametrize("name", ["load_identity", "principals"])
def test_what_loads_has_to_be_a_coroutine(call, name):
    policy = type("Sync", (Policy,), {name: lambda self, request: ["ann"]})()
    with pytest.raises(TypeError, match="has to be `async def`"):
        call(policy.permits, DummyRequest(), Document(0), VIEW)


def test_requests_are_not_kept(call):
    policy, request = Policy(), DummyRequest(headers={"X-User": "ann"})
    call(policy.permits, request, Document(0), VIEW)
    gone = weakref.ref(request)
    del request
    gc.collect()
    assert gone() is None


# Authentication policies of old --------------------------------------------------


async def groups_of(userid, request):
    """A callback: the groups of a user, None for somebody unknown."""
    await asyncio.sleep(0)
    groups = USERS.get(userid)
    return None if groups is None else [f"group:{group}" for group in groups]


class HeaderPolicy(CallbackAuthenticationPolicy):
    """Believes a header."""

    def __init__(self, callback=None):
        self.callback = callback

    def unauthenticated_userid(self, request):
        return request.headers.get("X-User")

    async def remember(self, request, userid, **options):
        return [("X-Remember", userid)]

    async def forget(self, request):
        return [("X-Forget", "yes")]


def test_both_names_are_one_function():
    assert authn_policy_factory is coroutine_callback_authentication_policy_factory


def test_the_proxy_is_a_policy_of_both_kinds():
    proxy = authn_policy_factory(HeaderPolicy, groups_of)
    assert isinstance(proxy, CoroutineAuthenticationPolicyProxy)
    assert verifyObject(IAuthenticationPolicy, proxy)
    assert verifyObject(ISecurityPolicy, proxy)


def test_the_callback_may_be_a_coroutine(call):
    policy = authn_policy_factory(HeaderPolicy, groups_of)
    ann, eve = (DummyRequest(headers={"X-User": name}) for name in ("ann", "eve"))
    assert call(policy.unauthenticated_userid, ann) == "ann"
    assert call(policy.authenticated_userid, ann) == call(policy.identity, ann) == "ann"
    assert call(policy.effective_principals, ann) == [
        Everyone,
        Authenticated,
        "ann",
        "group:editors",
    ]
    # The callback knows nobody of that name.
    assert call(policy.unauthenticated_userid, eve) == "eve"
    assert call(policy.authenticated_userid, eve) is None
    assert call(policy.effective_principals, eve) == [Everyone]
    assert call(policy.remember, ann, "ann") == [("X-Remember", "ann")]
    assert call(policy.forget, ann) == [("X-Forget", "yes")]


def test_the_callback_may_give_what_can_be_awaited(call):
    policy = authn_policy_factory(HeaderPolicy, lambda *args: groups_of(*args))
    ann, eve = (DummyRequest(headers={"X-User": name}) for name in ("ann", "eve"))
    assert call(policy.authenticated_userid, ann) == "ann"
    assert call(policy.authenticated_userid, eve) is None


def test_without_a_callback_and_with_an_ordinary_one(call):
    request = DummyRequest(headers={"X-User": "eve"})
    assert call(authn_policy_factory(HeaderPolicy).authenticated_userid, request)
    denying = authn_policy_factory(HeaderPolicy, lambda userid, request: None)
    assert call(denying.authenticated_userid, request) is None


def test_it_is_a_security_policy(get, settings):
    policy = authn_policy_factory(HeaderPolicy, groups_of)
    app = make_app(configure(policy), settings=settings)
    assert get(app, "/", "ann") == (200, "ann ann view edit")
    assert get(app, "/later", "bob") == (200, "bob bob view")
    assert get(app, "/edit", "ann")[0] == 200
    assert get(app, "/edit", "bob")[0] == 403
    assert get(app, "/edit", "eve")[0] == 403


@pytest.mark.filterwarnings("ignore:Authentication and authorization policies")
def test_it_is_an_authentication_policy_as_well(get):
    def steps(config):
        config.set_authorization_policy(ACLAuthorizationPolicy())
        config.set_authentication_policy(authn_policy_factory(HeaderPolicy, groups_of))
        config.set_root_factory(Document)
        config.add_view(show, name="edit", permission=EDIT)

    app = make_app(steps)
    assert get(app, "/edit", "ann") == (200, "ann ann view edit")
    assert get(app, "/edit", "bob")[0] == 403


def test_arguments_go_to_the_policy():
    policy = authn_policy_factory(
        AuthTktAuthenticationPolicy, groups_of, "secret", hashalg="sha512"
    )
    app = make_app(
        configure(policy), lambda config: config.add_view(sign_in, name="in")
    )
    browser = TestApp(app.app)
    browser.get("/in?user=eve")
    assert browser.get("/").text == "None None"
    browser.get("/in?user=ann")
    assert browser.get("/").text == "ann ann view edit"


def sign_in(request):
    headers = remember(request, request.params["user"])
    response = Response("in")
    response.headerlist.extend(headers)
    return response


@pytest.mark.parametrize("by_name", [False, True])
def test_a_check_of_another_name_may_be_a_coroutine(by_name):
    async def check(username, password, request):
        await asyncio.sleep(0)
        return ["group:editors"] if password == "right" else None

    if by_name:
        policy = authn_policy_factory(BasicAuthAuthenticationPolicy, check=check)
    else:
        policy = authn_policy_factory(BasicAuthAuthenticationPolicy, None, check)
    browser = TestApp(make_app(configure(policy)).app)
    browser.authorization = ("Basic", ("ann", "wrong"))
    browser.get("/edit", status=403)
    browser.authorization = ("Basic", ("ann", "right"))
    browser.get("/edit", status=200)


def test_an_identity_is_no_coroutine(run):
    async def nobody():
        return None

    class Forgetful(AsyncSecurityPolicy):
        async def load_identity(self, request):
            return nobody()

    policy = Forgetful()
    request = DummyRequest()
    principals = run(spawn_greenlet(policy.effective_principals, request))
    assert principals == [Everyone]

"""Policies that are coroutines: who somebody is, what he may, where he comes from.

A coroutine is true. So each decision is shown to deny.
"""

import asyncio
import functools
import warnings

import pytest
from hook_apps import OnLoop, OnWsgi, make
from pyramid.authentication import (
    BasicAuthAuthenticationPolicy,
    RemoteUserAuthenticationPolicy,
)
from pyramid.authorization import ACLAuthorizationPolicy
from pyramid.config import Configurator
from pyramid.csrf import (
    CookieCSRFStoragePolicy,
    LegacySessionCSRFStoragePolicy,
    SessionCSRFStoragePolicy,
    get_csrf_token,
    new_csrf_token,
)
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import (
    ICSRFStoragePolicy,
    IDefaultCSRFOptions,
    ISecurityPolicy,
)
from pyramid.response import Response
from pyramid.security import (
    Allowed,
    Denied,
    LegacySecurityPolicy,
    forget,
    remember,
    view_execution_permitted,
)
from pyramid.session import SignedCookieSessionFactory

from aioext import ScopeError, spawn_greenlet


@pytest.fixture(params=[OnLoop, OnWsgi])
def ask(request):
    return request.param()


class Policy:
    """A security policy for which the path is the user, and ``joe`` may."""

    def __init__(self, meet=None):
        self.meet = meet or (lambda: asyncio.sleep(0))

    async def identity(self, request):
        await self.meet()
        return {"name": request.matchdict["name"]}

    async def authenticated_userid(self, request):
        identity = await self.identity(request)
        return identity["name"]

    async def permits(self, request, context, permission):
        name = await self.authenticated_userid(request)
        return (Allowed if name == "joe" else Denied)("%s: %s", permission, name)

    async def remember(self, request, userid, **options):
        await self.meet()
        return [("X-Remember", f"{userid} {options}")]

    async def forget(self, request, **options):
        await self.meet()
        return [("X-Forget", f"{options}")]


def security(policy):
    return lambda config: config.set_security_policy(policy)


def view_at(pattern, view, name="it", **options):
    """A step of a configuration: a route and its view."""

    def add(config):
        config.add_route(name, pattern)
        config.add_view(view, route_name=name, **options)

    return add


def tell(function):
    """A view that answers with what ``function(request)`` gives."""
    return lambda request: Response(str(function(request)))


# Security policies ------------------------------------------------------------


def test_permits_denies_and_permits(ask):
    app = make(
        security(Policy(ask.meeting(3))),
        view_at("/{name}", tell(lambda request: "in"), permission="edit"),
    )
    joe, jane, again = ask(app, "/joe", "/jane", "/joe")
    assert (joe.status, joe.text) == (200, "in")
    assert jane.status == 403
    assert again.status == 200


@pytest.mark.parametrize("mode", ["executor", "inline", "request"])
def test_it_denies_wherever_views_run(ask, mode):
    app = make(
        security(Policy(ask.meeting(2))),
        view_at("/{name}", tell(lambda it: it.identity["name"]), permission="edit"),
        settings={"aioext.sync_views": mode},
    )
    answers = ask(app, "/jane", "/john")
    assert [each.status for each in answers] == [403, 403]
    assert ask(app, "/joe", "/joe")[0].text == "joe"


def test_permits_that_only_gives_false_denies(ask):
    class Deny(Policy):
        async def permits(self, request, context, permission):
            return False

    app = make(security(Deny()), view_at("/", tell(str), permission="edit"))
    assert ask(app, "/")[0].status == 403


def test_what_is_awaitable_without_being_a_coroutine_decides_as_well(ask):
    class Answer:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return False

    class Deny(Policy):
        def permits(self, request, context, permission):
            return Answer()

    app = make(security(Deny()), view_at("/", tell(str), permission="edit"))
    assert ask(app, "/")[0].status == 403


def test_the_identity_is_each_requests_own(ask):
    def view(request):
        return Response(f"{request.identity['name']} {request.authenticated_userid}")

    names = [f"user{number}" for number in range(20)]
    app = make(security(Policy(ask.meeting(20))), view_at("/{name}", view))
    answers = ask(app, *[f"/{name}" for name in names])
    assert [answer.text for answer in answers] == [f"{name} {name}" for name in names]


def test_a_coroutine_view_gets_values_as_well(ask):
    async def view(request):
        await asyncio.sleep(0)
        return Response(f"{request.identity['name']} {request.is_authenticated}")

    names = [f"user{number}" for number in range(200)]
    app = make(security(Policy(ask.meeting(200))), view_at("/{name}", view))
    answers = ask(app, *[f"/{name}" for name in names])
    assert [answer.text for answer in answers] == [f"{name} True" for name in names]


def test_nobody_is_none(ask):
    class Nobody(Policy):
        async def identity(self, request):
            return None

        async def authenticated_userid(self, request):
            return None

    def view(request):
        return Response(f"{request.identity} {request.is_authenticated}")

    app = make(security(Nobody()), view_at("/", view))
    assert ask(app, "/")[0].text == "None False"


def test_has_permission_gives_the_answer_itself(ask):
    def view(request):
        allowed = request.has_permission("edit", None or request.root)
        return Response(f"{bool(allowed)} {type(allowed).__name__} {allowed.msg}")

    app = make(security(Policy()), view_at("/{name}", view))
    joe, jane = ask(app, "/joe", "/jane")
    assert joe.text == "True Allowed edit: joe"
    assert jane.text == "False Denied edit: jane"


def test_whether_a_view_may_be_executed(ask):
    def view(request):
        permitted = view_execution_permitted(request.root, request, "guarded")
        return Response(str(bool(permitted)))

    def add_guarded(config):
        config.add_view(tell(str), name="guarded", permission="edit")

    app = make(security(Policy()), view_at("/{name}", view), add_guarded)
    joe, jane = ask(app, "/joe", "/jane")
    assert (joe.text, jane.text) == ("True", "False")


def test_remember_and_forget_give_headers(ask):
    def view(request):
        headers = [*remember(request, "joe", max_age=1), *forget(request, all=True)]
        return Response(headerlist=headers)

    (answer,) = ask(make(security(Policy()), view_at("/", view)), "/")
    assert answer.headers["x-remember"] == "joe {'max_age': 1}"
    assert answer.headers["x-forget"] == "{'all': True}"


def test_the_authorization_that_is_logged_is_the_answer(ask, caplog):
    caplog.set_level("DEBUG")
    settings = {"debug_authorization": "true"}
    app = make(
        security(Policy()),
        view_at("/{name}", tell(str), permission="edit"),
        settings=settings,
    )
    assert ask(app, "/jane")[0].status == 403
    assert "edit: jane" in caplog.text


def test_a_policy_that_is_synchronous_is_called_as_before(ask):
    class Own(Policy):
        names = ("joe",)

        def __getitem__(self, name):
            return name in self.names

        def identity(self, request):
            return request.matchdict["name"]

        def authenticated_userid(self, request):
            return self.identity(request)

        def permits(self, request, context, permission):
            # What it is itself is not hidden from it.
            return type(self) is Own and self[self.authenticated_userid(request)]

        def remember(self, request, userid, **options):
            return []

        def forget(self, request, **options):
            return []

    app = make(security(Own()), view_at("/{name}", tell(str), permission="edit"))
    assert [each.status for each in ask(app, "/joe", "/jane")] == [200, 403]


def test_functions_of_a_policy_get_values_from_its_coroutines(ask):
    class Mixed(Policy):
        def authenticated_userid(self, request):
            return self.name_of(request)

        def name_of(self, request):
            return self.identity(request)["name"]

        def permits(self, request, context, permission):
            return self.authenticated_userid(request) == "joe"

    app = make(security(Mixed()), view_at("/{name}", tell(str), permission="edit"))
    assert [each.status for each in ask(app, "/joe", "/jane")] == [200, 403]


def test_an_exception_leaves_the_policy(ask):
    class Broken(Policy):
        async def permits(self, request, context, permission):
            await asyncio.sleep(0)
            raise LookupError("no such database")

    def told(error, request):
        return Response(repr(error), status=500)

    app = make(
        security(Broken()),
        view_at("/", tell(str), permission="edit"),
        lambda config: config.add_exception_view(told, context=LookupError),
    )
    (answer,) = ask(app, "/")
    assert (answer.status, answer.text) == (500, "LookupError('no such database')")


def test_a_task_of_its_own_has_no_bridge():
    outcomes = []

    async def view(request):
        async def read():
            return request.identity

        outcomes.extend(await asyncio.gather(read(), return_exceptions=True))
        outcomes.append(await spawn_greenlet(lambda: request.identity))
        return Response()

    OnLoop()(make(security(Policy()), view_at("/{name}", view)), "/joe")
    refused, value = outcomes
    assert isinstance(refused, ScopeError)
    assert value == {"name": "joe"}


def test_the_policy_that_is_registered_is_taken_for_the_applications_own():
    policy = Policy()
    app = make(security(policy))
    registered = app.registry.getUtility(ISecurityPolicy)
    assert registered == policy
    assert isinstance(registered, Policy)
    assert registered.meet is policy.meet


# When it is registered --------------------------------------------------------


def commit(config):
    config.commit()


@pytest.mark.parametrize(
    "order",
    [
        "policy view",
        "view policy",
        "policy commit view",
        "commit policy commit view",
        "commit policy view commit",
        "commit policy view",
        "policy include view",
        "commit policy commit include view",
    ],
)
def test_it_denies_whenever_it_was_set(ask, order):
    steps = {
        "commit": commit,
        "include": lambda config: config.include("aioext"),
        "policy": security(Policy()),
        "view": view_at("/{name}", tell(str), permission="edit"),
    }
    app = make(*[steps[name] for name in order.split()])
    assert [each.status for each in ask(app, "/joe", "/jane")] == [200, 403]


def test_it_denies_with_autocommit(ask):
    app = make(
        security(Policy()),
        view_at("/{name}", tell(str), permission="edit"),
        autocommit=True,
    )
    assert [each.status for each in ask(app, "/joe", "/jane")] == [200, 403]


def test_it_denies_when_the_include_comes_last(ask):
    config = Configurator(security_policy=Policy())
    view_at("/{name}", tell(str), permission="edit")(config)
    config.include("aioext")
    app = config.make_wsgi_app()
    assert [each.status for each in ask(app, "/joe", "/jane")] == [200, 403]


def test_including_it_twice_adapts_once():
    policy = Policy()
    app = make(security(policy), commit, lambda config: config.include("aioext"))
    assert app.registry.getUtility(ISecurityPolicy).__wrapped__ is policy


def test_what_is_configured_is_still_told_and_conflicts_are_seen():
    config = Configurator()
    config.include("aioext")
    policy = Policy()
    config.set_security_policy(policy)
    config.commit()
    (told,) = config.introspector.get_category("security policy")
    assert told["introspectable"]["policy"] is policy
    config.set_security_policy(policy)
    config.set_security_policy(Policy())
    with pytest.raises(Exception, match="Conflicting configuration"):
        config.commit()


# Policies of Pyramid 1 --------------------------------------------------------


def legacy(authentication, authorization=None):
    def add(config):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            config.set_authorization_policy(authorization or ACLAuthorizationPolicy())
            config.set_authentication_policy(authentication)

    return add


class Remote(RemoteUserAuthenticationPolicy):
    """Knows who it is from a coroutine, which Pyramid's own methods call."""

    async def unauthenticated_userid(self, request):
        await asyncio.sleep(0)
        return request.matchdict["name"]


class Authorization:
    async def permits(self, context, principals, permission):
        await asyncio.sleep(0)
        return "joe" in principals

    def principals_allowed_by_permission(self, context, permission):
        raise NotImplementedError


@pytest.mark.parametrize("authentication", [Remote, Policy])
def test_legacy_policies_deny_and_permit(ask, authentication):
    class Authentication(authentication):
        async def effective_principals(self, request):
            return [request.matchdict["name"]]

    app = make(
        legacy(Authentication(), Authorization()),
        view_at("/{name}", tell(str), permission="edit"),
    )
    assert [each.status for each in ask(app, "/joe", "/jane")] == [200, 403]


def test_methods_that_pyramid_has_written_call_coroutines_of_a_subclass(ask):
    app = make(
        legacy(Remote(), Authorization()),
        view_at("/{name}", tell(lambda request: request.authenticated_userid)),
        view_at("/may/{name}", tell(str), "may", permission="edit"),
    )
    joe, may, may_not = ask(app, "/joe", "/may/joe", "/may/jane")
    assert joe.text == "joe"
    assert (may.status, may_not.status) == (200, 403)


def test_a_subclass_of_the_legacy_security_policy_denies(ask):
    class Own(LegacySecurityPolicy):
        async def permits(self, request, context, permission):
            return request.matchdict["name"] == "joe"

    app = make(security(Own()), view_at("/{name}", tell(str), permission="edit"))
    assert [each.status for each in ask(app, "/joe", "/jane")] == [200, 403]


async def groups(userid, request):
    await asyncio.sleep(0)
    return ["editors"] if userid == "joe" else None


async def check(username, password, request):
    await asyncio.sleep(0)
    return ["editors"] if password == "secret" else None


def test_a_callback_that_finds_nobody_denies(ask):
    policy = RemoteUserAuthenticationPolicy("HTTP_USER", callback=groups)
    app = make(legacy(policy), view_at("/", tell(lambda it: it.authenticated_userid)))
    assert ask(app, "/", headers=[("User", "joe")])[0].text == "joe"
    assert ask(app, "/", headers=[("User", "jane")])[0].text == "None"


def test_a_password_that_is_wrong_denies(ask):
    app = make(
        legacy(BasicAuthAuthenticationPolicy(check)),
        view_at("/", tell(lambda it: it.authenticated_userid)),
    )
    for credentials, expected in ("am9lOnNlY3JldA==", "joe"), ("am9lOndyb25n", "None"):
        headers = [("Authorization", f"Basic {credentials}")]
        assert ask(app, "/", headers=headers)[0].text == expected


# CSRF -------------------------------------------------------------------------

ORIGIN = [("X-CSRF-Token", "right")]


class Tokens:
    """A CSRF policy, all of it coroutines."""

    def __init__(self, meet=None):
        self.meet = meet or (lambda: asyncio.sleep(0))

    async def new_csrf_token(self, request):
        await self.meet()
        return "new"

    async def get_csrf_token(self, request):
        await self.meet()
        return "right"

    async def check_csrf_token(self, request, supplied_token):
        return supplied_token == await self.get_csrf_token(request)


def csrf(policy=None, **options):
    def add(config):
        if policy is not None:
            config.set_csrf_storage_policy(policy)
        config.set_default_csrf_options(**options)

    return add


def test_a_csrf_check_denies_and_permits(ask):
    app = make(csrf(Tokens(ask.meeting(3))), view_at("/", tell(lambda request: "in")))
    right = ask(app, "/", "/", "/", method="POST", headers=ORIGIN)
    assert [each.text for each in right] == ["in"] * 3
    wrong = ask(app, "/", "/", "/", method="POST", headers=[("X-CSRF-Token", "wrong")])
    assert [each.status for each in wrong] == [400] * 3


def test_tokens_are_strings(ask):
    def view(request):
        return Response(f"{get_csrf_token(request)} {new_csrf_token(request)}")

    assert ask(make(csrf(Tokens()), view_at("/", view)), "/")[0].text == "right new"


@pytest.mark.parametrize(("applies", "status"), [(False, 200), (True, 400)])
def test_a_csrf_callback_says_whether_to_check(ask, applies, status):
    async def callback(request):
        await asyncio.sleep(0)
        return applies

    app = make(csrf(Tokens(), callback=callback), view_at("/", tell(str)))
    assert ask(app, "/", method="POST")[0].status == status


def test_a_csrf_callback_may_be_set_after_a_commit(ask):
    async def callback(request):
        return False

    app = make(commit, csrf(Tokens(), callback=callback), view_at("/", tell(str)))
    assert ask(app, "/", method="POST")[0].status == 200
    options = app.registry.getUtility(IDefaultCSRFOptions)
    assert options.callback == callback


def test_without_a_callback_every_request_is_checked(ask):
    app = make(csrf(Tokens()), view_at("/", tell(str)))
    assert ask(app, "/", method="POST")[0].status == 400


@pytest.mark.parametrize("base", [SessionCSRFStoragePolicy, CookieCSRFStoragePolicy])
def test_pyramids_check_calls_a_coroutine_of_a_subclass(ask, base):
    class Own(base):
        async def get_csrf_token(self, request):
            await asyncio.sleep(0)
            return "right"

    app = make(csrf(Own()), view_at("/", tell(str)))
    assert ask(app, "/", method="POST", headers=ORIGIN)[0].status == 200
    assert ask(app, "/", method="POST")[0].status == 400


class Session(dict):
    """A session whose token is somewhere else."""

    async def get_csrf_token(self):
        await asyncio.sleep(0)
        return "right"

    new_csrf_token = get_csrf_token


def test_the_token_of_a_session_may_be_a_coroutine(ask):
    def add(config):
        config.set_session_factory(lambda request: Session())
        policy = config.registry.queryUtility(ICSRFStoragePolicy)
        assert policy is None or isinstance(policy, LegacySessionCSRFStoragePolicy)

    app = make(
        add, csrf(), view_at("/", tell(lambda it: get_csrf_token(it) + str(it.POST)))
    )
    assert ask(app, "/", method="POST", headers=ORIGIN)[0].status == 200
    assert ask(app, "/", method="POST")[0].status == 400
    assert ask(app, "/")[0].text.startswith("right")


def test_pyramids_own_policies_work_as_before(ask):
    def add(config):
        config.set_session_factory(SignedCookieSessionFactory("secret"))

    app = make(add, csrf(), view_at("/", tell(get_csrf_token)))
    (answer,) = ask(app, "/")
    headers = [
        ("X-CSRF-Token", answer.text),
        ("Cookie", answer.headers["set-cookie"].partition(";")[0]),
    ]
    assert ask(app, "/", method="POST", headers=headers)[0].status == 200
    assert ask(app, "/", method="POST", headers=headers[1:])[0].status == 400


def passing_on(function):
    @functools.wraps(function)
    def passed_on(*args):
        return function(*args)

    return passed_on


class Nobody:
    """A policy that knows nobody, and lets in whoever is known."""

    async def identity(self, request):
        return None

    def is_known(self, request):
        return self.identity(request) is not None

    def permits(self, request, context, permission):
        return self.is_known(request)


class DecoratedNobody(Nobody):
    identity = passing_on(Nobody.identity)


class AsyncNobody(Nobody):
    async def permits(self, request, context, permission):
        return self.is_known(request)


@pytest.mark.parametrize("policy", [Nobody, DecoratedNobody, AsyncNobody])
def test_a_function_of_a_policy_gets_values_whoever_calls_it(ask, policy):
    def configure(config):
        config.set_security_policy(policy())
        config.add_route("secret", "/")
        config.add_view(
            lambda request: Response("in"), route_name="secret", permission="x"
        )

    assert ask(make(configure), "/")[0].status == 403


class TestIncludedTooLate:
    """Views that were derived before have the policy and the callback as they are."""

    def configure(self, config):
        config.add_route("secret", "/")
        config.add_view(
            lambda request: Response("in"), route_name="secret", permission="x"
        )

    @pytest.mark.parametrize("autocommit", [True, False])
    def test_a_policy_is_refused(self, autocommit):
        config = Configurator(autocommit=autocommit)
        config.set_security_policy(AsyncNobody())
        self.configure(config)
        config.commit()
        with pytest.raises(ConfigurationError, match=r"AsyncNobody.*before the first"):
            config.include("aioext")

    def test_a_csrf_callback_is_refused(self):
        async def unchecked(request):
            return False

        config = Configurator()
        config.set_default_csrf_options(callback=unchecked)
        self.configure(config)
        config.commit()
        with pytest.raises(ConfigurationError, match="coroutine functions"):
            config.include("aioext")

    def test_what_is_not_committed_is_adapted(self, ask):
        config = Configurator(security_policy=AsyncNobody())
        self.configure(config)
        config.include("aioext")
        assert ask(config.make_wsgi_app(), "/")[0].status == 403

"""Methods of hooks that Pyramid seldom calls: old policies', and a factory's."""

import asyncio
import warnings

import pytest
from hook_apps import OnLoop, OnWsgi, make
from pyramid import security
from pyramid.request import Request
from pyramid.response import Response
from pyramid.scripting import prepare

from aioext import spawn_greenlet

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(params=[OnLoop, OnWsgi])
def ask(request):
    return request.param()


class Authentication:
    """Each of its methods is a coroutine function that tells its name."""

    async def authenticated_userid(self, request):
        return await self.tell("authenticated")

    async def unauthenticated_userid(self, request):
        return await self.tell("unauthenticated")

    async def effective_principals(self, request):
        return [await self.tell("effective")]

    async def remember(self, request, userid, **options):
        return [("remember", await self.tell(userid))]

    async def forget(self, request):
        return [("forget", await self.tell("nothing"))]

    async def tell(self, what):
        await asyncio.sleep(0)
        return what


class Authorization:
    """Permits what is called like a principal."""

    async def permits(self, context, principals, permission):
        await asyncio.sleep(0)
        return permission in principals

    async def principals_allowed_by_permission(self, context, permission):
        await asyncio.sleep(0)
        return {permission}


def use_old_policies(config):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        config.set_authorization_policy(Authorization())
        config.set_authentication_policy(Authentication())


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda request: request.authenticated_userid, "authenticated"),
        (lambda request: request.unauthenticated_userid, "unauthenticated"),
        (lambda request: request.effective_principals, ["effective"]),
        (lambda request: security.remember(request, "ann"), [("remember", "ann")]),
        (security.forget, [("forget", "nothing")]),
        (lambda request: request.has_permission("effective"), True),
        (lambda request: request.has_permission("other"), False),
        (lambda _: security.principals_allowed_by_permission(None, "edit"), {"edit"}),
    ],
)
@pytest.mark.parametrize("coroutine", [False, True])
def test_every_method_of_an_old_policy_gives_a_value(ask, call, expected, coroutine):
    def view(request):
        return Response(repr(call(request)))

    async def later(request):
        await asyncio.sleep(0)
        return view(request)

    app = make(
        use_old_policies,
        lambda config: config.add_view(later if coroutine else view),
    )
    assert ask(app, "/")[0].text == repr(expected)


class RequestFactory:
    """Both of its methods are coroutine functions."""

    async def __call__(self, environ):
        await asyncio.sleep(0)
        return Request(environ)

    async def blank(self, path):
        await asyncio.sleep(0)
        request = Request.blank(path)
        request.headers["Made"] = "by the factory"
        return request


def test_a_request_factory_may_make_blank_requests(run):
    app = make(lambda config: config.set_request_factory(RequestFactory()))

    def made():
        with prepare(registry=app.registry) as env:
            return env["request"].headers["Made"]

    assert made() == "by the factory"
    assert run(spawn_greenlet(made)) == "by the factory"

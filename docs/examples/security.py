"""A security policy that loads users by ``await``."""

from pyramid.authentication import AuthTktCookieHelper
from pyramid.authorization import Allow, Authenticated, Everyone
from pyramid.httpexceptions import HTTPForbidden, HTTPSeeOther
from pyramid.security import forget, remember

from aioext.auth import ACLHelper, AsyncSecurityPolicy


# policy
class SecurityPolicy(AsyncSecurityPolicy):
    def __init__(self, secret):
        self.cookie = AuthTktCookieHelper(secret)

    async def load_identity(self, request):
        claimed = self.cookie.identify(request)
        if claimed is None:
            return None
        return await request.registry["users"].find(claimed["userid"])

    def userid_of(self, identity):
        return identity.name

    async def principals(self, request):
        if request.identity is None:
            return []
        groups = await request.registry["users"].groups_of(request.identity)
        return [f"group:{group}" for group in groups]

    def remember(self, request, userid, **options):
        return self.cookie.remember(request, userid, **options)

    def forget(self, request, **options):
        return self.cookie.forget(request, **options)


# end


# resource
class Document:
    def __init__(self, request):
        self.id = request.matchdict["id"]
        self.documents = request.registry["documents"]

    async def __acl__(self):
        owner = await self.documents.owner_of(self.id)
        return [
            (Allow, Authenticated, "view"),
            (Allow, f"group:{owner}", "edit"),
        ]


# end


# views
async def sign_in(request):
    user = await request.registry["users"].check(
        request.params["name"], request.params["password"]
    )
    if user is None:
        raise HTTPForbidden()
    return HTTPSeeOther("/", headers=remember(request, user.name))


def sign_out(request):
    return HTTPSeeOther("/", headers=forget(request))


async def show(request):
    return {
        "user": request.authenticated_userid,
        "editable": bool(request.has_permission("edit")),
    }


# end


# by hand
class ByHand:
    """Any security policy may be written like this."""

    def __init__(self):
        self.acl = ACLHelper()

    async def identity(self, request):
        return await request.registry["users"].of_token(request.params.get("token"))

    async def authenticated_userid(self, request):
        return request.identity and request.identity.name

    async def permits(self, request, context, permission):
        principals = [Everyone]
        if request.identity is not None:
            principals += [Authenticated, f"user:{request.identity.name}"]
        return self.acl.permits(context, principals, permission)

    async def remember(self, request, userid, **options):
        return []

    async def forget(self, request, **options):
        return []


# end


def includeme(config):
    config.set_security_policy(SecurityPolicy("secret"))
    config.add_route("document", "/documents/{id}", factory=Document)
    config.add_view(show, route_name="document", permission="view", renderer="json")
    config.add_view(sign_in, name="in")
    config.add_view(sign_out, name="out")

"""The example of the page on security."""

import asyncio
from dataclasses import dataclass

import pytest
from inprocess import answer, make_app
from pyramid.response import Response
from test_docs import load
from webtest import TestApp

__all__ = ["load"]


@dataclass
class User:
    name: str
    groups: tuple[str, ...] = ()


class Users:
    """A database of users, whose passwords are their names."""

    def __init__(self):
        self.users = {"ann": User("ann", ("writers",)), "bob": User("bob")}

    async def find(self, name):
        await asyncio.sleep(0)
        return self.users.get(name)

    of_token = find

    async def groups_of(self, user):
        await asyncio.sleep(0)
        return user.groups

    async def check(self, name, password):
        await asyncio.sleep(0)
        return self.users.get(name) if name == password else None


class Documents:
    """A database of documents."""

    async def owner_of(self, document):
        await asyncio.sleep(0)
        return "writers"


@pytest.fixture
def security(load):
    return load("security")


def databases(config):
    config.registry["users"] = Users()
    config.registry["documents"] = Documents()


def test_users_sign_in_and_out(security):
    app = make_app(security.includeme, databases)
    browser = TestApp(app.app, extra_environ={"REMOTE_ADDR": "127.0.0.1"})
    browser.get("/documents/1", status=403)
    browser.get("/in?name=ann&password=wrong", status=403)
    browser.get("/in?name=ann&password=ann", status=303)
    assert browser.get("/documents/1").json == {"user": "ann", "editable": True}
    browser.get("/out", status=303)
    browser.get("/documents/1", status=403)
    browser.get("/in?name=bob&password=bob", status=303)
    assert browser.get("/documents/1").json == {"user": "bob", "editable": False}


def test_a_policy_by_hand(security):
    def steps(config):
        config.set_security_policy(security.ByHand())
        config.add_route("document", "/documents/{id}", factory=security.Document)
        config.add_view(
            lambda request: Response(request.authenticated_userid),
            route_name="document",
            permission="view",
        )

    app = make_app(steps, databases)
    assert answer(app, "/documents/1", query_string=b"token=ann").body == b"ann"
    assert answer(app, "/documents/1", query_string=b"token=eve").status == 403
    assert answer(app, "/documents/1").status == 403

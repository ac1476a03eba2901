"""pyramid_services: services of a request, of a context, of the application."""

from addons import add_views, crowded, crowded_by_few, meet, pause, site_of
from pyramid.threadlocal import get_current_request
from pyramid_services import NewServiceContainer
from zope.interface import Interface, implementer


class IAccount(Interface):
    """Whom a request is for."""


class IGreeter(Interface):
    """Greets whom a request is for."""


class Folder:
    """The context of some of the routes."""

    def __init__(self, request):
        self.name = request.matchdict["name"]


@implementer(IAccount)
class Account:
    """Made once for each request; making it takes a while."""

    made = 0

    def __init__(self, context, request):
        assert request is get_current_request()
        pause(request)
        self.request = request
        self.name = request.matchdict["name"]
        type(self).made += 1


@implementer(IGreeter)
class Greeter:
    """Finds another service while it is made."""

    greeting = "Hello"

    def __init__(self, context, request):
        self.account = request.find_service(IAccount)
        pause(request)

    def greet(self):
        return f"{self.greeting} {self.account.name}"


class FolderGreeter(Greeter):
    """For folders."""

    greeting = "Welcome"


CLOCK = object()


def page(request):
    yield
    greeter = request.find_service(IGreeter)
    account = request.find_service(IAccount)
    assert account.request is request is get_current_request()
    yield
    assert request.find_service(IGreeter) is greeter
    assert request.find_service(IAccount) is account is greeter.account
    assert request.find_service(name="clock") is CLOCK
    tag = request.find_service(name="tag")
    return {"greeting": greeter.greet(), "tag": tag, "made": Account.made}


async def tag_container(event):
    """A service that a subscriber adds for one request."""
    await meet(event.request)
    event.container.register_singleton(event.request.path, name="tag")


def configure(config):
    config.include("pyramid_services")
    config.register_service_factory(Account, IAccount)
    config.register_service_factory(Greeter, IGreeter)
    config.register_service_factory(FolderGreeter, IGreeter, context=Folder)
    config.register_service(CLOCK, name="clock")
    config.add_subscriber(tag_container, NewServiceContainer)
    add_views(config, "/page/{name}", page, renderer="json")
    add_views(config, "/folder/{name}", page, renderer="json", factory=Folder)


site = site_of(configure)


@crowded
def test_services_are_those_of_the_request(site, crowd):
    before = site.ask("/inline/page/first").json()["made"]
    paths = crowd.paths("/page/{}")
    answers = site.overlap(paths, crowd.order)
    for number, answer in enumerate(answers):
        found = answer.json()
        assert found["greeting"] == f"Hello {number}"
        assert found["tag"] == paths[number]
    # One for each request.
    assert max(answer.json()["made"] for answer in answers) == before + crowd.count


@crowded_by_few
def test_services_are_those_of_the_context(site, crowd):
    paths = [
        f"/{kind}/{('page', 'folder')[number % 2]}/{number}" for number, kind in crowd
    ]
    for number, answer in enumerate(site.overlap(paths, crowd.order)):
        greeting = ("Hello", "Welcome")[number % 2]
        assert answer.json()["greeting"] == f"{greeting} {number}"

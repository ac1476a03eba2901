"""The table of hooks: it leaves nothing out, and names tests that exist.

What there is to be told comes from Pyramid: the directives and their parameters from
the configurator, and methods from its interfaces. A later Pyramid with more of them
fails here.
"""

import ast
import csv
import inspect
from functools import cache
from pathlib import Path

import pyramid.interfaces
from pyramid.config import Configurator
from pyramid.interfaces import (
    IAuthenticationPolicy,
    IAuthorizationPolicy,
    ICacheBuster,
    ICSRFStoragePolicy,
    IExecutionPolicy,
    ILocaleNegotiator,
    IPredicateFactory,
    IRenderer,
    IRendererFactory,
    IRequestFactory,
    IResourceURL,
    IResponseFactory,
    IRootFactory,
    IRoutePredicate,
    IRoutePregenerator,
    ISecurityPolicy,
    ISessionFactory,
    ISubscriberPredicate,
    ITraverser,
    IViewDeriver,
    IViewMapper,
    IViewMapperFactory,
    IViewPredicate,
)
from pyramid.request import Request
from zope.interface.interface import InterfaceClass, Method

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "hooks.csv"
COLUMNS = ["Where", "What", "``async def``", "Test"]

# How an answer may begin. All but the last two name a test that shows it.
ANSWERS = ("adapted", "marked", "stays", "refused", "not adapted", "no hook")

# What directives accept, of Pyramid's interfaces that have methods.
ACCEPTED = {
    "add_cache_buster": [ICacheBuster],
    "add_renderer": [IRendererFactory, IRenderer],
    "add_resource_url_adapter": [IResourceURL],
    "add_route": [IRoutePregenerator, IRootFactory],
    "add_route_predicate": [IPredicateFactory, IRoutePredicate],
    "add_subscriber_predicate": [IPredicateFactory, ISubscriberPredicate],
    "add_traverser": [ITraverser],
    "add_view": [IViewMapperFactory, IViewMapper],
    "add_view_deriver": [IViewDeriver],
    "add_view_predicate": [IPredicateFactory, IViewPredicate],
    "set_authentication_policy": [IAuthenticationPolicy],
    "set_authorization_policy": [IAuthorizationPolicy],
    "set_csrf_storage_policy": [ICSRFStoragePolicy],
    "set_execution_policy": [IExecutionPolicy],
    "set_locale_negotiator": [ILocaleNegotiator],
    "set_request_factory": [IRequestFactory],
    "set_response_factory": [IResponseFactory],
    "set_root_factory": [IRootFactory],
    "set_security_policy": [ISecurityPolicy],
    "set_session_factory": [ISessionFactory],
    "set_view_mapper": [IViewMapperFactory, IViewMapper],
}

# The parameters that take them.
OBJECTS = {
    *("adapter", "cachebust", "deriver", "factory", "mapper", "negotiator"),
    *("policy", "pregenerator"),
}

# Interfaces with methods that no directive accepts, and why.
OTHERS = {
    # What Pyramid makes, and an application is given.
    "IActionInfo",
    "IAssetDescriptor",
    "IBeforeRender",
    "IIntrospectable",
    "IIntrospector",
    "IPackageOverrides",
    "IPEP302Loader",
    "IPredicateInfo",
    "IRendererInfo",
    "IRequestHandler",
    "IRoute",
    "IRouter",
    "IRoutesMapper",
    "ISettings",
    "IStaticURLInfo",
    # Views, once they are derived; a view itself has a row.
    "IMultiView",
    "ISecuredView",
    "IView",
    "IViewPermission",
    # Parents of others, and containers.
    "IDict",
    "IMultiDict",
    "IPredicate",
    # What hooks give, and the application goes on to use.
    "IExceptionResponse",
    "IResponse",
    "ISession",
    # Registered beside IRootFactory by set_root_factory.
    "IDefaultRootFactory",
}

# Parameters of directives that are values, and never called.
VALUES = {
    *("accept", "action_wrap", "allow_no_origin", "attr", "check_origin"),
    *("containment", "context", "exception_only", "explicit", "for_", "header"),
    *("http_cache", "iface", "inherit_slash", "kw", "match_param", "name", "over"),
    *("path", "path_info", "pattern", "permission", "permission_name"),
    *("property", "reify", "renderer", "request_method", "request_param"),
    *("request_type", "require_csrf", "resource_iface", "route_name"),
    *("safe_methods", "settings", "specs", "static", "token", "traverse"),
    *("type_or_iface", "under", "use_global_views", "value", "weighs_less_than"),
    *("weighs_more_than", "wrapper", "xhr"),
    # A class of response, if it is no boolean.
    "append_slash",
    # Values for predicates and derivers, which have rows themselves.
    *("predicates", "view_options"),
}

# Directives that do as another one, but for what their own rows say.
LIKE = {
    "add_exception_view": "add_view",
    "add_forbidden_view": "add_view",
    "add_notfound_view": "add_view",
    "set_forbidden_view": "add_view",
    "set_notfound_view": "add_view",
}


@cache
def rows():
    """The table: ``(where, what, answer, test)``, without the marks of reST."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        head, *body = csv.reader(file)
    assert head == COLUMNS
    return [tuple(cell.replace("``", "") for cell in row) for row in body]


@cache
def told():
    """What the table tells, by where it is."""
    found = {}
    for where, what, _, _ in rows():
        for each in where.split(", "):
            found.setdefault(each, set()).update(what.split(", "))
    return found


def directives():
    """The directives of a configurator."""
    return [name for name in dir(Configurator) if name.startswith(("add_", "set_"))]


def methods(interface):
    """What Pyramid calls of an interface, or reads, if it has attributes only."""
    names = [name for name in interface if isinstance(interface[name], Method)]
    return names or list(interface)


def test_every_directive_is_told():
    missing = set(directives()) - told().keys()
    assert not missing, f"{TABLE.name} says nothing of {missing}"


def test_every_parameter_is_told_or_a_value():
    unknown = {
        (directive, parameter)
        for directive in directives()
        for parameter in parameters_of(directive) - VALUES - hooks_of(directive)
    }
    assert not unknown, f"{TABLE.name} says nothing of {unknown}"


def parameters_of(directive):
    """The names of its parameters."""
    signature = inspect.signature(getattr(Configurator, directive))
    return signature.parameters.keys() - {"self"}


def hooks_of(directive):
    """The parameters of which the table tells."""
    told_of = told()[directive] | told().get(LIKE.get(directive), set())
    names = {each.removesuffix("=") for each in told_of}
    return names | OBJECTS if directive in ACCEPTED else names


def test_every_method_of_what_is_accepted_is_told():
    missing = {
        (directive, f"{interface.__name__}.{method}")
        for directive, interfaces in ACCEPTED.items()
        for interface in interfaces
        for method in methods(interface)
        if f"{interface.__name__}.{method}" not in told()[directive]
    }
    assert not missing, f"{TABLE.name} says nothing of {missing}"


def test_every_interface_is_accepted_or_known_not_to_be():
    interfaces = {
        each.__name__
        for each in vars(pyramid.interfaces).values()
        if isinstance(each, InterfaceClass)
        and each.__module__ == pyramid.interfaces.__name__
        and any(isinstance(each[attribute], Method) for attribute in each)
    }
    accepted = {each.__name__ for some in ACCEPTED.values() for each in some}
    assert not OTHERS & accepted
    assert interfaces <= OTHERS | accepted, interfaces - OTHERS - accepted
    assert interfaces >= OTHERS, OTHERS - interfaces


def test_every_callback_of_a_request_is_told():
    callbacks = {name for name in dir(Request) if name.startswith("add_")}
    assert callbacks
    assert callbacks <= told()["request"]


def test_nothing_else_is_told():
    objects = {"application", "configuration", "renderer", "request", "resource"}
    assert told().keys() <= {*directives(), *objects}


def test_every_row_is_complete_and_there_once():
    seen = [row[:2] for row in rows()]
    assert len(seen) == len(set(seen))
    for where, what, answer, test in rows():
        assert answer.startswith(ANSWERS), (where, what)
        assert bool(test) is not answer.startswith("no hook"), (where, what)


@cache
def defined_in(path):
    """The tests of a file, those of classes as ``Class::test``."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            inner = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            found |= {f"{node.name}::{each.name}" for each in inner}
        elif isinstance(node, ast.FunctionDef):
            found.add(node.name)
    return found


def test_every_test_that_is_named_exists():
    named = {test for *_, tests in rows() for test in tests.split(", ") if test}
    assert all(test.rpartition("::")[2].startswith("test_") for test in named)
    missing = {test for test in named if not is_there(*test.split("::", 1))}
    assert not missing, f"{TABLE.name} names tests that are not there: {missing}"


def is_there(path, name):
    """Whether a file has a test of that name."""
    return (ROOT / path).is_file() and name in defined_in(path)

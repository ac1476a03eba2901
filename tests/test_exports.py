"""The public names: they exist, are documented, and are where people look."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import aioext

ROOT = Path(__file__).parent.parent

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(aioext.__path__, "aioext.")
)
# No command line is imported here, and no server.
PUBLIC = {
    name: importlib.import_module(name).__all__
    for name in ["aioext", *MODULES]
    if hasattr(importlib.import_module(name), "__all__")
}
NAMES = [(module, name) for module, names in PUBLIC.items() for name in names]


def test_the_front_has_these_names():
    assert PUBLIC["aioext"] == [
        "AppStarting",
        "AppStopping",
        "ConnectionClosed",
        "Pending",
        "ScopeError",
        "__version__",
        "async_wrapper",
        "connect",
        "includeme",
        "run",
        "spawn_greenlet",
        "synchronize",
        "use_executor",
        "wait",
    ]


def test_every_public_name_exists_once():
    for module, names in PUBLIC.items():
        assert len(names) == len(set(names)), module
        for name in names:
            assert hasattr(sys.modules[module], name), f"{module}.{name}"


def public_members(cls):
    """What a class shows, of its own."""
    for name, member in vars(cls).items():
        if not name.startswith("_") or name == "__call__":
            if isinstance(member, (staticmethod, classmethod)):
                member = member.__func__
            if inspect.isfunction(member) or isinstance(member, property):
                yield name, member


def test_every_public_callable_is_documented():
    missing = []
    for module, name in NAMES:
        thing = getattr(sys.modules[module], name)
        if not callable(thing) and not inspect.isclass(thing):
            continue
        if not inspect.getdoc(thing):
            missing.append(f"{module}.{name}")
        if inspect.isclass(thing) and thing.__module__.startswith("aioext"):
            missing += [
                f"{module}.{name}.{member}"
                for member, function in public_members(thing)
                if not inspect.getdoc(getattr(thing, member))
            ]
    assert not missing


def test_every_module_is_documented():
    silent = ["aioext.gunicorn", "aioext.scripts"]
    modules = [importlib.import_module(name) for name in ["aioext", *MODULES]]
    missing = [module.__name__ for module in modules if not module.__doc__]
    assert set(missing) <= set(silent)


def test_public_functions_say_what_they_take_and_give():
    missing = []
    for module, name in NAMES:
        thing = getattr(sys.modules[module], name)
        if inspect.isfunction(thing):
            signature = inspect.signature(thing, follow_wrapped=False)
            annotations = [each.annotation for each in signature.parameters.values()]
            if inspect.Parameter.empty in [*annotations, signature.return_annotation]:
                missing.append(f"{module}.{name}")
    assert not missing


def documented_names():
    """What the API documentation describes; a signature may be written out."""
    text = (ROOT / "docs" / "api.rst").read_text("utf-8")
    return re.findall(r"^\.\. auto\w+:: ([\w.]+)", text, re.MULTILINE)


def test_names_at_the_front_are_in_the_api_documentation():
    documented = set(documented_names())
    for name in set(PUBLIC["aioext"]) - {"__version__"}:
        own = getattr(aioext, name)
        places = {f"aioext.{name}", f"{own.__module__}.{name}"}
        assert places & documented, name


def test_what_the_api_documentation_names_is_public():
    assert documented_names()
    for target in documented_names():
        module, _, name = target.rpartition(".")
        assert name in PUBLIC[module], target


@pytest.mark.parametrize(
    "path",
    [
        "aioext.config:CoroutineMapper",
        "aioext.config:ExecutorMapper",
        "aioext.config:CoroutineOrExecutorMapper",
        "aioext.helpers:spawn_greenlet",
        "aioext.helpers:synchronize",
        "aioext.helpers:use_executor",
        "aioext.gunicorn.worker:AsyncGunicornWorker",
    ],
)
def test_aiopyramids_users_find_what_they_import(path):
    module, _, name = path.partition(":")
    assert name in importlib.import_module(module).__all__


def test_the_helpers_are_those_of_the_front():
    from aioext import helpers

    for name in helpers.__all__:
        assert getattr(helpers, name) is getattr(aioext, name)


def test_the_front_does_not_import_what_is_optional():
    program = """
import sys
import aioext, aioext.config, aioext.asgi
optional = {"gunicorn", "uvloop", "sqlalchemy", "mako", "cookiecutter", "webtest"}
assert not optional & set(sys.modules), optional & set(sys.modules)
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)


def test_public_names_are_written_in_the_source():
    # A name that is made at run time is unknown to type checkers.
    for module in PUBLIC:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
        named = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        named |= {
            node.name
            for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        }
        named |= {
            target.id
            for node in tree.body
            if isinstance(node, (ast.Assign, ast.AnnAssign))
            for target in getattr(node, "targets", None) or [node.target]
            if isinstance(target, ast.Name)
        }
        assert set(PUBLIC[module]) <= named, module

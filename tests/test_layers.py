"""Who may import whom, and how large a module and a function may grow.

The source is parsed, not imported: an import inside a function counts as much
as one at the top of a module, and so does one for type checkers only.
"""

import ast
import graphlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "aioext"

# Imports go down only. A package stands for everything in it that is not named.
PURE = {
    "aioext._version",
    "aioext.applications",
    "aioext.assets.bundles",
    "aioext.conditional",
    "aioext.environ",
    "aioext.eventsource.event",
    "aioext.exceptions",
    "aioext.interfaces",
    "aioext.lines",
    "aioext.mounts.scope",
    "aioext.mounts.table",
    "aioext.passage",
    "aioext.ranges",
    "aioext.renderers.encoding",
    "aioext.renderers.media",
    "aioext.renderers.negotiation",
    "aioext.views",
    "aioext.websocket.origin",
    "aioext.wsgi_response",
}
INTEGRATION = {
    "aioext",
    "aioext.adopted",
    "aioext.around",
    "aioext.assets",
    "aioext.auth",
    "aioext.awaitables",
    "aioext.background",
    "aioext.body",
    "aioext.boot",
    "aioext.bridge",
    "aioext.config",
    "aioext.cornice",
    "aioext.debugtoolbar",
    "aioext.ending",
    "aioext.events",
    "aioext.eventsource",
    "aioext.executor",
    "aioext.forms",
    "aioext.gateway",
    "aioext.greenlets",
    "aioext.guards",
    "aioext.handover",
    "aioext.helpers",
    "aioext.hooks",
    "aioext.lifespan",
    "aioext.limits",
    "aioext.mounts",
    "aioext.pending",
    "aioext.pool",
    "aioext.pshell",
    "aioext.renderers",
    "aioext.request",
    "aioext.scripts",
    "aioext.settings",
    "aioext.shutdown",
    "aioext.sqlalchemy",
    "aioext.testing",
    "aioext.threaded",
    "aioext.threadlocal",
    "aioext.threads",
    "aioext.watchdog",
    "aioext.transaction",
    "aioext.traversal",
    "aioext.tweens",
    "aioext.uploads",
    "aioext.websocket",
    "aioext.wrappers",
    "aioext.wsgi_input",
}
RUNTIMES = {
    "aioext.asgi",
    "aioext.gunicorn",
    "aioext.uwsgi",
}
LAYERS = [PURE, INTEGRATION, RUNTIMES]

# Imports that go up nevertheless, inside a function, each with its reason.
UPWARD: dict[tuple[str, str], str] = {}

# What a pure module must not know.
IMPURE = {"asyncio", "greenlet", "gunicorn", "pyramid", "uwsgi"}

# Each server is known to its own runtime only.
SERVERS = {
    "gunicorn": "aioext.gunicorn",
    "uvicorn": "aioext.asgi",
    "uwsgi": "aioext.uwsgi",
}

# What is not a public interface of another package, or is not meant for what
# is done with it here, and the one module that may use it.
PRIVATE = {
    "pyramid.config.adapters.eventonly": "aioext.hooks.predicates",
    "pyramid.config.views.combine_decorators": "aioext.hooks.derivers",
    "pyramid.threadlocal.ThreadLocalManager": "aioext.threadlocal",
    "pyramid.threadlocal.manager": "aioext.threadlocal",
    "gunicorn.asgi.protocol": "aioext.gunicorn.listener",
    "gunicorn.asgi.websocket": "aioext.gunicorn.websocket",
    "pyramid_debugtoolbar.panels.logger": "aioext.debugtoolbar",
    "pyramid_debugtoolbar.panels.performance": "aioext.debugtoolbar",
    "sqlalchemy.util": "aioext.sqlalchemy.pool",
}
# The same for attributes, which are looked for by name.
PRIVATE_ATTRIBUTES = {
    "__sqlalchemy_greenlet_provider__": "aioext.greenlets",
    "_asyncio_future_blocking": "aioext.adopted",
    "_close_connection": "aioext.sqlalchemy.pool",
    "_create_connection": "aioext.sqlalchemy.pool",
    "_queue_class": "aioext.sqlalchemy.pool",
    "_sqla_logger_namespace": "aioext.sqlalchemy.pool",
}

# Documented, whatever the underscore says.
PUBLIC = {"os._exit", "sys._current_frames", "sys._getframe"}

MODULE_LINES = 600
FUNCTION_LINES = 60


@dataclass(frozen=True)
class Import:
    """One name that a module imports: ``target`` is what it stands for."""

    module: str
    target: str
    line: int
    in_function: bool

    def __str__(self):
        path = f"{self.module.replace('.', '/')}"
        return f"{path}, line {self.line}, imports {self.target}"


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def sources() -> dict[str, tuple[Path, ast.Module]]:
    return {
        name_of(path): (path, ast.parse(path.read_text("utf-8"), str(path)))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def nodes(tree: ast.AST, in_function: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below ``tree``, and whether it stands in a function."""
    for child in ast.iter_child_nodes(tree):
        yield child, in_function
        is_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
        yield from nodes(child, in_function or is_function)


def origin(module: str, node: ast.ImportFrom) -> str:
    """The absolute name of what ``from ... import`` imports from."""
    if not node.level:
        return node.module or ""
    path, _ = sources()[module]
    package = module.split(".")
    if path.name != "__init__.py":
        package.pop()
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, node.module] if node.module else package)


@cache
def imports() -> list[Import]:
    found = []
    for module, (_, tree) in sources().items():
        for node, in_function in nodes(tree):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = origin(module, node)
                targets = [f"{base}.{alias.name}" for alias in node.names]
            else:
                continue
            found += [Import(module, t, node.lineno, in_function) for t in targets]
    return found


def is_below(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def own_module(target: str) -> str | None:
    """The module of aioext that ``target`` is, or is a name of."""
    while target:
        if target in sources():
            return target
        target = target.rpartition(".")[0]
    return None


def entry_of(module: str) -> str | None:
    """The entry of the table that ``module`` falls under.

    That is its own, or the one of its package; the front is no package here.
    """
    entry = module
    while not any(entry in layer for layer in LAYERS):
        entry = entry.rpartition(".")[0]
        if entry in ("", "aioext"):
            return None
    return entry


def layer_of(module: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if entry_of(module) in layer)


def inner_imports() -> list[tuple[Import, str]]:
    """The imports between modules of aioext, with the module imported."""
    found = ((each, own_module(each.target)) for each in imports())
    return [
        (each, module)
        for each, module in found
        if module and entry_of(module) and entry_of(each.module)
    ]


def test_every_module_has_a_layer():
    unknown = sorted(module for module in sources() if not entry_of(module))
    assert not unknown, (
        f"put {', '.join(unknown)} into PURE, INTEGRATION or RUNTIMES at the head of "
        f"{Path(__file__).name}: which of them says what it may import"
    )


def test_every_layer_lists_what_exists():
    stale = sorted(set().union(*LAYERS) - set(sources()))
    assert not stale, f"remove {', '.join(stale)} from {Path(__file__).name}"


def test_no_module_has_two_layers():
    assert sum(map(len, LAYERS)) == len(set().union(*LAYERS))


def test_imports_go_down_only():
    wrong = [
        each
        for each, module in inner_imports()
        if layer_of(module) > layer_of(each.module)
        and not (each.in_function and (each.module, module) in UPWARD)
    ]
    assert not wrong, "imports go down only: " + "; ".join(map(str, wrong))


def test_every_upward_import_is_needed():
    edges = {(each.module, module) for each, module in inner_imports()}
    assert UPWARD.keys() <= edges


def test_no_runtime_imports_another():
    wrong = [
        each
        for each, module in inner_imports()
        if entry_of(module) in RUNTIMES
        and entry_of(each.module) in RUNTIMES
        and entry_of(module) != entry_of(each.module)
    ]
    assert not wrong, "no runtime imports another: " + "; ".join(map(str, wrong))


def test_nobody_imports_from_the_front():
    # The package's own names are for its users: inside, they lead to cycles.
    wrong = [each for each, module in inner_imports() if module == "aioext"]
    assert not wrong, "import from where it is defined: " + "; ".join(map(str, wrong))


def test_modules_do_not_import_each_other():
    graph = {module: set() for module in sources()}
    for each, module in inner_imports():
        if not each.in_function and not is_below(module, each.module):
            graph[each.module].add(module)
    # Raises CycleError, which names the modules.
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_pure_modules_are_pure():
    wrong = [
        each
        for each in imports()
        if each.module in PURE and each.target.partition(".")[0] in IMPURE
    ]
    assert not wrong, "pure modules know no loop: " + "; ".join(map(str, wrong))


@pytest.mark.parametrize(("server", "runtime"), SERVERS.items())
def test_servers_are_known_to_their_runtime_only(server, runtime):
    wrong = [
        each
        for each in imports()
        if is_below(each.target, server) and not is_below(each.module, runtime)
    ]
    assert not wrong, f"{server} belongs to {runtime}: " + "; ".join(map(str, wrong))


@pytest.mark.parametrize(("interface", "module"), PRIVATE.items())
def test_private_interfaces_are_used_in_one_place(interface, module):
    wrong = [
        each
        for each in imports()
        if is_below(each.target, interface) and each.module != module
    ]
    assert not wrong, f"only {module} may: " + "; ".join(map(str, wrong))


def test_private_attributes_are_used_in_one_place():
    wrong = [
        f"{path.relative_to(ROOT)} mentions {name}, which only {module} may"
        for name, module in PRIVATE_ATTRIBUTES.items()
        for user, (path, tree) in sources().items()
        if user != module and name in names_used(tree)
    ]
    assert not wrong, "; ".join(wrong)


def names_used(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                names.add(name)
            case ast.Constant(value=str(name)):
                names.add(name)
    return names


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def test_no_private_names_of_others_are_imported():
    wrong = [
        each
        for each in imports()
        if not own_module(each.target)
        and each.target not in PUBLIC
        and any(map(is_private, each.target.split(".")))
    ]
    assert not wrong, "private to another package: " + "; ".join(map(str, wrong))


def foreign_names(module: str, tree: ast.AST) -> dict[str, str]:
    """What the names that a module gets from other packages stand for."""
    found = {}
    for node, _ in nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.partition(".")[0]
                found[alias.asname or name] = name
        elif isinstance(node, ast.ImportFrom):
            base = origin(module, node)
            for alias in node.names:
                found[alias.asname or alias.name] = f"{base}.{alias.name}"
    return {name: target for name, target in found.items() if not own_module(target)}


def dotted(node: ast.AST) -> list[str]:
    """``a.b.c`` as a list; empty if the expression is anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [*parts, node.id][::-1] if isinstance(node, ast.Name) else []


def test_no_private_attributes_of_others_are_used():
    wrong = []
    for module, (path, tree) in sources().items():
        foreign = foreign_names(module, tree)
        for node in ast.walk(tree):
            name, *rest = dotted(node) or [""]
            if name not in foreign or not any(map(is_private, rest)):
                continue
            target = ".".join([foreign[name], *rest])
            if target not in PUBLIC:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {target}")
    assert not wrong, "private to another package: " + "; ".join(wrong)


def test_no_module_is_too_long():
    lengths = {
        path.relative_to(ROOT): len(path.read_text("utf-8").splitlines())
        for path, _ in sources().values()
    }
    wrong = {str(p): n for p, n in lengths.items() if n > MODULE_LINES}
    assert not wrong, f"more than {MODULE_LINES} lines, split it: {wrong}"


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function from ``def`` to its end, without its docstring."""
    length = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        length -= docstring.end_lineno - docstring.lineno + 1
    return length


def test_no_function_is_too_long():
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name} ({length_of(node)})"
        for path, tree in sources().values()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and length_of(node) > FUNCTION_LINES
    ]
    assert not wrong, f"more than {FUNCTION_LINES} lines: {'; '.join(wrong)}"

"""``pcreate``: make a project from a scaffold.

Theory of operation
===================

Pyramid 1 shipped this command, Pyramid 2 does not: its own starter is a template
for `cookiecutter`.  The command still has a use, because an add-on that is
installed already carries its starter with it: no network, no second version to
match, and one short line to type.  So aioext keeps the command and the way that
scaffolds are found, and takes over cookiecutter's format for what is inside.

**A scaffold** is an entry point of the group ``pyramid.scaffold``.  It names a
callable without arguments that returns a template directory: one that holds
``cookiecutter.json`` and a directory whose name contains ``{{cookiecutter.``.  The
first line of the callable's docstring describes the scaffold.  The same directory
can be given to the ``cookiecutter`` command.

**cookiecutter renders**, through `generate_context`, `prompt_for_config` (told
not to prompt) and `generate_files`.  Its ``main`` function is not used: that one
reads the user's configuration and writes a replay file into the home directory,
while this command reads the scaffold and writes the project.

**All or nothing.**  The project is rendered into a temporary directory beside its
destination, on the same file system, and renamed into place when it is complete.
A failure leaves neither a part of a project nor the temporary directory.

**Byte code is no part of a scaffold.**  Installers compile every ``.py`` file of a
package, templates included, so a scaffold may have gained ``__pycache__``
directories since it was written; they are removed from the project.

**Names.**  The project is called like the last component of the path; its package
has that name in lower case, with ``-``, ``.`` and space as ``_``.  Both are given to
the scaffold, which ignores what it does not declare: ``project_name`` and
``package_name``, and the latter as ``project_slug`` and ``repo_name`` too, as many
templates call it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import json
import keyword
import os
import re
import shlex
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["GROUP", "PcreateError", "Scaffold", "create", "find_scaffolds", "main"]

GROUP = "pyramid.scaffold"
"""The entry point group in which scaffolds are found."""

_PACKAGE_NAME = re.compile(r"[a-z]([a-z0-9_]*[a-z0-9])?", re.ASCII)

# A package of one of these names would be imported by the project, by what it
# depends on or by the tools that build and test it, in place of the real one.
_IMPORTED_BY_PROJECTS = frozenset(
    [
        "aioext",
        "conftest",
        "greenlet",
        "gunicorn",
        "mako",
        "markupsafe",
        "paste",
        "pip",
        "pkg_resources",
        "plaster",
        "plaster_pastedeploy",
        "pyramid",
        "pyramid_mako",
        "pytest",
        "rcssmin",
        "rjsmin",
        "sass",
        "setup",
        "setuptools",
        "test",
        "tests",
        "translationstring",
        "venusian",
        "webob",
        "websockets",
        "webtest",
        "zope",
    ]
)


class PcreateError(Exception):
    """The project cannot be made; the message is one line for the user."""


@dataclass(frozen=True)
class Scaffold:
    """A scaffold that was found, with what is wrong about it where that is so.

    Attributes:
        name: The name of the entry point.
        description: The first line of the callable's docstring.
        template: The template directory, or `None` if the scaffold is broken.
        problem: Why it is broken, in one line; empty if it is not.
    """

    name: str
    description: str = ""
    template: Path | None = None
    problem: str = ""


def find_scaffolds() -> dict[str, Scaffold]:
    """Load the installed scaffolds, by name; broken ones are marked as such.

    If two distributions offer the same name, the one that comes first on
    ``sys.path`` is taken.
    """
    return {name: _load(found) for name, found in _entry_points().items()}


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    found: dict[str, importlib.metadata.EntryPoint] = {}
    for entry_point in importlib.metadata.entry_points(group=GROUP):
        found.setdefault(entry_point.name, entry_point)
    return dict(sorted(found.items()))


def _load(entry_point: importlib.metadata.EntryPoint) -> Scaffold:
    name = entry_point.name
    try:
        # What the modules of an add-on warn of is no concern of this command's user.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            factory = entry_point.load()
            template = Path(factory()).absolute()
        _check_template(template)
    except (Exception, SystemExit) as error:
        return Scaffold(name, problem=_one_line(error))
    lines = (factory.__doc__ or "").strip().splitlines()
    return Scaffold(name, lines[0].rstrip() if lines else "", template)


def _check_template(template: Path) -> None:
    settings = template / "cookiecutter.json"
    if not settings.is_file():
        raise PcreateError(f"{template} is no template: it has no cookiecutter.json")
    try:
        variables = json.loads(settings.read_text("utf-8"))
    except ValueError as error:
        raise PcreateError(f"{settings} is no JSON: {error}") from error
    if not isinstance(variables, dict):
        raise PcreateError(f"{settings} is no JSON object")
    if not any(path.is_dir() for path in template.glob("*{{*cookiecutter.*")):
        raise PcreateError(
            f"{template} is no template: it has no {{{{cookiecutter.…}}}} directory"
        )


def create(scaffold_name: str, directory: str | os.PathLike[str]) -> Path:
    """Make a project in ``directory``, which must not exist yet.

    Returns:
        The absolute path of the project.

    Raises:
        PcreateError: The project cannot be made.  Nothing was written.
    """
    try:
        target = Path(os.path.abspath(directory))
        _check_target(target)
        package_name = _package_name(target.name)
        scaffold = _choose(scaffold_name)
        _generate(scaffold, target, package_name)
    except OSError as error:
        reason = error.strerror or _one_line(error)
        raise PcreateError(f"cannot create {directory}: {reason}") from error
    return target


def _check_target(target: Path) -> None:
    if os.path.lexists(target):
        raise PcreateError(
            f"{target} exists already: name another directory, or remove it"
        )
    if not target.parent.exists():
        raise PcreateError(
            f"the directory {target.parent} does not exist: create it first"
        )
    if not target.parent.is_dir():
        raise PcreateError(f"{target.parent} is not a directory")


def _package_name(project_name: str) -> str:
    name = re.sub(r"[-. ]", "_", project_name).lower()
    if not _PACKAGE_NAME.fullmatch(name):
        problem = (
            "a package name begins with a letter, goes on with letters, digits "
            "and underscores (ASCII) and does not end with an underscore"
        )
    elif keyword.iskeyword(name):
        problem = "it is a keyword of Python"
    elif name in sys.stdlib_module_names:
        problem = "it would hide a module of Python's standard library"
    elif name in _IMPORTED_BY_PROJECTS:
        problem = "it would hide a package that the project itself needs"
    else:
        return name
    raise PcreateError(f"{name!r} cannot be the name of the package: {problem}")


def _choose(name: str) -> Scaffold:
    known = _entry_points()
    if name not in known:
        names = ", ".join(known) or "none is installed"
        raise PcreateError(f"there is no scaffold {name!r} (known: {names})")
    scaffold = _load(known[name])
    if scaffold.problem:
        raise PcreateError(f"the scaffold {name!r} is broken: {scaffold.problem}")
    return scaffold


def _generate(scaffold: Scaffold, target: Path, package_name: str) -> None:
    temporary = tempfile.TemporaryDirectory(
        prefix=".pcreate-", dir=target.parent, ignore_cleanup_errors=True
    )
    with temporary as work:
        try:
            with _temporary_files_in(work):
                project = _render(scaffold.template, work, target.name, package_name)
        except PcreateError:
            raise
        except (Exception, SystemExit) as error:
            raise PcreateError(
                f"rendering the scaffold {scaffold.name!r} failed: {_one_line(error)}"
            ) from error
        for cache in list(project.rglob("__pycache__")):
            shutil.rmtree(cache)
        project.rename(target)


@contextmanager
def _temporary_files_in(directory: str) -> Iterator[None]:
    # cookiecutter writes a scaffold's hooks to temporary files, which it keeps.
    before, tempfile.tempdir = tempfile.tempdir, directory
    try:
        yield
    finally:
        tempfile.tempdir = before


def _render(template: Path, work: str, project_name: str, package_name: str) -> Path:
    try:
        from cookiecutter.generate import generate_context, generate_files
        from cookiecutter.prompt import prompt_for_config
    except ImportError as error:
        raise PcreateError(
            "cookiecutter is needed to make a project "
            f"({error}): pip install 'aioext[scaffold]'"
        ) from error
    names = {
        "project_name": project_name,
        "package_name": package_name,
        "project_slug": package_name,
        "repo_name": package_name,
    }
    context = generate_context(
        context_file=str(template / "cookiecutter.json"), extra_context=names
    )
    context["cookiecutter"] = prompt_for_config(context, no_input=True)
    return Path(generate_files(str(template), context=context, output_dir=work))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, PcreateError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _list() -> None:
    scaffolds = find_scaffolds()
    if not scaffolds:
        print("No scaffold is installed.")
        return
    width = max(map(len, scaffolds))
    print("Available scaffolds:")
    for scaffold in scaffolds.values():
        text = scaffold.description
        if scaffold.problem:
            text = f"broken: {scaffold.problem}"
        print(f"  {scaffold.name:{width}}  {text}".rstrip())


def _print_next_steps(directory: str, target: Path) -> None:
    directory = os.path.normpath(directory)
    steps = [f"cd {shlex.quote(directory)}"]
    if sys.prefix == sys.base_prefix:
        steps += ["python3 -m venv .venv", ". .venv/bin/activate"]
    if (target / "pyproject.toml").exists() or (target / "setup.py").exists():
        steps.append("pip install -e '.[testing]'")
    if (target / "development.ini").exists():
        steps.append("pserve development.ini")
    print(f"Created {directory}. Next:\n")
    for step in steps:
        print(f"    {step}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pcreate",
        description="Make a project from a scaffold.",
        epilog="Example: pcreate -s aio_starter hello",
    )
    parser.add_argument(
        "-l", "--list", action="store_true", help="list the scaffolds and exit"
    )
    parser.add_argument(
        "-s", "--scaffold", metavar="NAME", help="the scaffold to make a project from"
    )
    parser.add_argument(
        "directory",
        metavar="DIR",
        nargs="?",
        help="the directory to create; its last component is the project's name",
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"pcreate (aioext {importlib.metadata.version('aioext')})",
    )
    return parser


def _run(arguments: Sequence[str] | None) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        _list()
        return
    if options.scaffold is None:
        parser.error("name a scaffold: -s NAME (-l lists them)")
    if options.directory is None:
        parser.error("name the directory to create: -s NAME DIR")
    target = create(options.scaffold, options.directory)
    _print_next_steps(options.directory, target)


def _abandon_output() -> None:
    """Let nothing be written to standard output when the interpreter ends."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, sys.stdout.fileno())
    os.close(descriptor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv``, or the process' arguments.

    Returns:
        The exit status: 0, or 1 if there is an error, which has then been reported
        in one line on standard error.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _run(argv)
        sys.stdout.flush()
    except PcreateError as error:
        print(f"pcreate: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("pcreate: interrupted", file=sys.stderr)
    except OSError as error:
        print(f"pcreate: cannot write the output: {error.strerror}", file=sys.stderr)
        _abandon_output()
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())

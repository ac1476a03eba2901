"""The command ``pcreate`` and how it finds, describes and renders scaffolds."""

import contextlib
import importlib.metadata
import io
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import aioext.scripts.pcreate as pcreate

TEMPLATE = {
    "cookiecutter.json": '{"project_name": "x", "package_name": "x", "_kept": 1}',
    "{{cookiecutter.package_name}}/README": "{{ cookiecutter.project_name }}\n",
    "{{cookiecutter.package_name}}/{{cookiecutter.package_name}}.py": "",
}


COOKIECUTTER = [sys.executable, "-m", "cookiecutter", "--no-input"]


def write_files(directory, files):
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def tree(directory):
    """The files below a directory with their contents."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty current directory."""
    directory = tmp_path / "work"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A directory on ``sys.path``."""
    directory = tmp_path / "site"
    directory.mkdir()
    monkeypatch.syspath_prepend(directory)
    return directory


@pytest.fixture
def install(site, monkeypatch):
    """Install a distribution that offers the scaffold ``name``."""

    def install(name, source, files=None):
        module = f"scaffold_{name}"
        write_files(site / f"{module}.template", TEMPLATE if files is None else files)
        body = textwrap.indent(textwrap.dedent(source), "    ")
        write_files(
            site,
            {
                f"{module}.py": (
                    "from pathlib import Path\n"
                    "TEMPLATE = Path(__file__).with_suffix('.template')\n"
                    f"def make():\n{body}\n"
                ),
                f"{module}-1.0.dist-info/METADATA": (
                    f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n"
                ),
                f"{module}-1.0.dist-info/entry_points.txt": (
                    f"[pyramid.scaffold]\n{name} = {module}:make\n"
                ),
            },
        )
        monkeypatch.delitem(sys.modules, module, raising=False)
        return site / f"{module}.template"

    return install


@pytest.fixture
def run(capsys):
    """Run the command; its status, output and errors."""

    def run(*arguments):
        status = pcreate.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def refused(run):
    """Run the command, which must refuse in one line; the line."""

    def refused(*arguments):
        status, output, errors = run(*arguments)
        assert (status, output) == (1, "")
        assert errors.startswith("pcreate: ")
        assert errors.count("\n") == 1
        return errors

    return refused


def usage_error(run, capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


# The command line


def test_the_console_script_is_this_main():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="pcreate")
    assert script.load() is pcreate.main


def test_help_shows_an_example(run, capsys):
    with pytest.raises(SystemExit) as stop:
        run("-h")
    assert stop.value.code == 0
    assert "pcreate -s aio_starter hello" in capsys.readouterr().out


def test_version_is_that_of_aioext(run, capsys):
    with pytest.raises(SystemExit) as stop:
        run("--version")
    assert stop.value.code == 0
    assert importlib.metadata.version("aioext") in capsys.readouterr().out


def test_without_arguments_it_says_how_to_list_scaffolds(run, capsys):
    assert "-l lists them" in usage_error(run, capsys)


def test_a_scaffold_without_a_directory_is_a_usage_error(run, capsys):
    assert "-s NAME DIR" in usage_error(run, capsys, "-s", "aio_starter")


@pytest.mark.parametrize("variable", ["PYTHONUNBUFFERED", "UNRELATED"])
def test_output_that_cannot_be_written_is_one_line(variable):
    """Whether the output is written at once or when the interpreter ends."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "aioext.scripts.pcreate", "-l"],
            env=environment | {variable: "1", "PYTHONWARNINGS": "ignore"},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("pcreate: cannot write the output: ")
    assert ended.stderr.count("\n") == 1


def test_the_output_may_be_any_text_stream():
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert pcreate.main(["-l"]) == 0
    assert "aio_starter" in output.getvalue()


# Listing


def test_the_list_describes_the_starter(run):
    status, output, errors = run("-l")
    assert (status, errors) == (0, "")
    assert "aio_starter" in output
    assert "A small Pyramid project on asyncio" in output


def test_the_description_is_the_first_line_of_the_docstring(run, install):
    install("mine", '"""What it is.\n\nWhat is more.\n"""\nreturn TEMPLATE')
    _, output, _ = run("--list")
    (line,) = [line for line in output.splitlines() if "mine" in line]
    assert line.split() == ["mine", "What", "it", "is."]


def test_a_scaffold_without_docstring_has_no_description(install):
    template = install("mine", "return str(TEMPLATE)")
    assert pcreate.find_scaffolds()["mine"] == pcreate.Scaffold("mine", "", template)


def test_without_any_scaffold_the_list_says_so(run, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: ())
    assert run("-l") == (0, "No scaffold is installed.\n", "")


def test_the_first_distribution_on_the_path_wins(install, monkeypatch, tmp_path):
    install("mine", '"""First."""\nreturn TEMPLATE')
    later = tmp_path / "later"
    write_files(
        later / "later-1.0.dist-info",
        {
            "METADATA": "Metadata-Version: 2.1\nName: later\nVersion: 1.0\n",
            "entry_points.txt": "[pyramid.scaffold]\nmine = later:make\n",
        },
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(later)])
    assert pcreate.find_scaffolds()["mine"].description == "First."


def test_what_a_scaffolds_module_warns_of_is_not_shown(install, run):
    install("mine", "import warnings\nwarnings.warn('old')\nreturn TEMPLATE")
    status, output, errors = run("-l")
    assert (status, errors) == (0, "")
    assert "broken: UserWarning" not in output


BROKEN = {
    "raises": (
        "raise RuntimeError('first\\nsecond')",
        None,
        "RuntimeError: first second",
    ),
    "exits": ("raise SystemExit", None, "SystemExit"),
    "imports": ("import nowhere_to_be_found", None, "ModuleNotFoundError: "),
    "nothing": ("return None", None, "TypeError: "),
    "missing": ("return TEMPLATE / 'nowhere'", None, "it has no cookiecutter.json"),
    "no_settings": ("return TEMPLATE", {"a": ""}, "it has no cookiecutter.json"),
    "no_json": ("return TEMPLATE", {"cookiecutter.json": "{"}, "is no JSON: "),
    "a_list": ("return TEMPLATE", {"cookiecutter.json": "[]"}, "is no JSON object"),
    "no_project": (
        "return TEMPLATE",
        {"cookiecutter.json": "{}", "{{cookiecutter.x}}": "a file"},
        "it has no {{cookiecutter.…}} directory",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_scaffold_is_listed_with_its_reason(name, install, run):
    source, files, reason = BROKEN[name]
    install(name, source, files)
    status, output, _ = run("-l")
    assert status == 0
    (line,) = [line for line in output.splitlines() if line.split()[0] == name]
    assert reason in line
    assert line.split()[1] == "broken:"


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_scaffold_is_refused_with_its_reason(name, install, refused, work):
    source, files, reason = BROKEN[name]
    install(name, source, files)
    error = refused("-s", name, "hello")
    assert f"the scaffold '{name}' is broken: " in error
    assert reason in error
    assert not list(work.iterdir())


def test_a_scaffold_whose_module_is_gone_is_broken(install, site, refused, work):
    install("mine", "return TEMPLATE")
    (site / "scaffold_mine.py").unlink()
    assert "ModuleNotFoundError" in refused("-s", "mine", "hello")


def test_a_broken_scaffold_does_not_hinder_another(install, run, work):
    install("bad", "raise RuntimeError")
    install("good", "return TEMPLATE")
    assert run("-s", "good", "hello")[0] == 0


# Making a project


def test_the_project_has_the_names_of_its_directory(install, run, work):
    install("mine", "return TEMPLATE")
    assert run("-s", "mine", "My-new.app two")[0] == 0
    assert tree(work) == {
        "My-new.app two/README": b"My-new.app two\n",
        "My-new.app two/my_new_app_two.py": b"",
    }


def test_the_directory_may_be_a_path(install, run, work):
    install("mine", "return TEMPLATE")
    (work / "some" / "where").mkdir(parents=True)
    status, output, _ = run("-s", "mine", "some/where/hello/")
    assert status == 0
    assert "    cd some/where/hello\n" in output
    assert (work / "some/where/hello/README").read_text() == "hello\n"


def test_create_returns_the_project(install, work):
    install("mine", "return TEMPLATE")
    assert pcreate.create("mine", "hello") == work / "hello"


def test_the_project_is_as_readable_as_other_directories(install, run, work):
    install("mine", "return TEMPLATE")
    run("-s", "mine", "hello")
    (work / "other").mkdir()
    assert (work / "hello").stat().st_mode == (work / "other").stat().st_mode


def test_variables_that_depend_on_others_are_rendered(install, run, work):
    settings = {
        "project_name": "x",
        "repo_name": "x",
        "title": "{{ cookiecutter.project_name | upper }}",
        "kind": ["small", "large"],
    }
    install(
        "mine",
        "return TEMPLATE",
        {
            "cookiecutter.json": json.dumps(settings),
            "{{cookiecutter.repo_name}}/{{cookiecutter.kind}}": (
                "{{ cookiecutter.title }} {{ cookiecutter.repo_name }}"
            ),
        },
    )
    assert run("-s", "mine", "He-llo")[0] == 0
    assert tree(work) == {"He-llo/small": b"HE-LLO he_llo"}


def test_byte_code_of_a_compiled_template_is_left_out(install, run, work):
    cache = "{{cookiecutter.package_name}}/a/__pycache__/x.pyc"
    install("mine", "return TEMPLATE", TEMPLATE | {cache: "\0"})
    assert run("-s", "mine", "hello")[0] == 0
    assert not list(work.rglob("*.pyc"))


def test_hooks_run_in_the_project_and_leave_nothing_outside(
    install, run, work, tmp_path, monkeypatch
):
    hook = "import pathlib; pathlib.Path('made').write_text('by the hook')"
    install("mine", "return TEMPLATE", TEMPLATE | {"hooks/post_gen_project.py": hook})
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    assert run("-s", "mine", "hello")[0] == 0
    assert (work / "hello/made").read_text() == "by the hook"
    assert [path.name for path in work.iterdir()] == ["hello"]
    assert not list(temporary.iterdir())


def test_the_next_commands_are_printed(run, work):
    status, output, errors = run("-s", "aio_starter", "two words")
    assert (status, errors) == (0, "")
    commands = [line.strip() for line in output.splitlines() if line[:1] == " "]
    assert commands[0] == "cd 'two words'"
    assert commands[-2:] == ["pip install -e '.[testing]'", "pserve development.ini"]


def test_outside_a_virtual_environment_the_next_commands_make_one(
    run, work, monkeypatch
):
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert "python3 -m venv .venv" in run("-s", "aio_starter", "hello")[1]
    monkeypatch.setattr(sys, "prefix", "/elsewhere")
    assert "venv" not in run("-s", "aio_starter", "again")[1]


def test_the_next_commands_suit_what_was_made(install, run, work):
    install("mine", "return TEMPLATE")
    output = run("-s", "mine", "hello")[1]
    assert "pip install" not in output
    assert "pserve" not in output


def test_a_path_that_cannot_be_printed_is_escaped(install, run, work):
    install("mine", "return TEMPLATE")
    parent = os.fsdecode(b"caf\xe9")
    os.mkdir(parent)
    status, output, _ = run("-s", "mine", f"{parent}/hello")
    assert status == 0
    assert r"caf\udce9/hello" in output


# What is refused


@pytest.mark.parametrize("kind", ["directory", "file", "dangling link"])
def test_what_exists_is_not_touched(kind, refused, work):
    target = work / "hello"
    if kind == "directory":
        target.mkdir()
    elif kind == "file":
        target.write_text("mine")
    else:
        target.symlink_to("nowhere")
    assert "exists already" in refused("-s", "aio_starter", "hello")
    assert list(work.iterdir()) == [target]
    assert not tree(work) or target.read_text() == "mine"


@pytest.mark.parametrize("directory", [".", "..", "/", ""])
def test_a_directory_without_a_name_of_its_own_exists(directory, refused, work):
    assert "exists already" in refused("-s", "aio_starter", directory)


def test_an_unknown_scaffold_names_the_known_ones(install, refused, work):
    install("mine", "return TEMPLATE")
    error = refused("-s", "nope", "hello")
    assert "there is no scaffold 'nope'" in error
    assert "aio_starter" in error
    assert "mine" in error
    assert not list(work.iterdir())


def test_an_unknown_scaffold_where_none_is_installed(refused, work, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: ())
    assert "known: none is installed" in refused("-s", "nope", "hello")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("1hello", "begins with a letter"),
        ("_hello", "begins with a letter"),
        ("hello_", "does not end with an underscore"),
        ("he+llo", "letters, digits and underscores"),
        ("hello\n", "letters, digits and underscores"),
        ("größe", "ASCII"),
        (os.fsdecode(b"\xff"), "ASCII"),
        ("Class", "keyword"),
        ("json", "standard library"),
        ("Email", "standard library"),
        ("pyramid", "the project itself needs"),
        ("aioext", "the project itself needs"),
        ("pyramid-mako", "the project itself needs"),
        ("tests", "the project itself needs"),
        ("test", "the project itself needs"),
    ],
)
def test_an_invalid_package_name_is_refused(name, reason, refused, work):
    error = refused("-s", "aio_starter", name)
    assert "cannot be the name of the package" in error
    assert reason in error
    assert not list(work.iterdir())


def test_a_missing_parent_directory_is_not_made(refused, work):
    assert "does not exist: create it first" in refused(
        "-s", "aio_starter", "some/where/hello"
    )
    assert not list(work.iterdir())


def test_a_parent_that_is_a_file_is_refused(refused, work):
    (work / "file").write_text("")
    assert "is not a directory" in refused("-s", "aio_starter", "file/hello")


def test_a_parent_that_may_not_be_written_is_refused(refused, work, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    assert refused("-s", "aio_starter", "hello") == (
        "pcreate: cannot create hello: Permission denied\n"
    )


def test_a_current_directory_that_is_gone_is_refused(refused, work):
    gone = work / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert "cannot create hello: " in refused("-s", "aio_starter", "hello")


def test_without_cookiecutter_it_says_what_to_install(refused, work, monkeypatch):
    monkeypatch.setitem(sys.modules, "cookiecutter.generate", None)
    assert "pip install 'aioext[scaffold]'" in refused("-s", "aio_starter", "hello")
    assert not list(work.iterdir())


def test_without_cookiecutter_scaffolds_are_listed(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "cookiecutter", None)
    assert "broken" not in run("-l")[1].partition("aio_starter")[2].splitlines()[0]


# Failures in the middle

FAILING = {
    "variable": {"{{cookiecutter.package_name}}/x": "{{ cookiecutter.missing }}"},
    "syntax": {"{{cookiecutter.package_name}}/x": "{% if %}"},
    "default": {"cookiecutter.json": '{"package_name": "", "a": "{{ b.c }}"}'},
    "choice": {"cookiecutter.json": '{"package_name": ["one", "another"]}'},
    "hook": {"hooks/post_gen_project.py": "raise SystemExit(1)"},
    "name": {"{{cookiecutter.package_name}}/{{cookiecutter.missing}}/x": ""},
}


@pytest.mark.parametrize("name", FAILING)
def test_a_failure_in_the_middle_leaves_nothing(name, install, refused, work):
    install(name, "return TEMPLATE", TEMPLATE | FAILING[name])
    error = refused("-s", name, "hello")
    assert f"rendering the scaffold '{name}' failed: " in error
    assert not list(work.iterdir())


def test_an_interrupt_leaves_nothing(refused, work, monkeypatch):
    def interrupt(template, directory, *names):
        write_files(Path(directory), {"hello/half": ""})
        raise KeyboardInterrupt

    monkeypatch.setattr(pcreate, "_render", interrupt)
    assert refused("-s", "aio_starter", "hello") == "pcreate: interrupted\n"
    assert not list(work.iterdir())


def test_a_directory_that_appears_meanwhile_is_not_touched(
    install, refused, work, monkeypatch
):
    install("mine", "return TEMPLATE")
    render = pcreate._render

    def render_while_another_writes(*arguments):
        write_files(work, {"hello/theirs": ""})
        return render(*arguments)

    monkeypatch.setattr(pcreate, "_render", render_while_another_writes)
    assert "cannot create hello: " in refused("-s", "mine", "hello")
    assert tree(work) == {"hello/theirs": b""}


# What is read and written

AUDIT = """
import json, os, sys

home, log = sys.argv[1:3]
events = []
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGING = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.link",
            "os.symlink", "os.truncate", "shutil.move"}

def audit(event, arguments):
    if event == "open":
        path, _, flags = arguments
        writes = bool(flags & WRITING)
    elif event in CHANGING or event in {"os.listdir", "os.scandir"}:
        path, writes = arguments[0], event in CHANGING
    else:
        return
    if isinstance(path, (str, bytes)):
        events.append((os.path.abspath(os.fsdecode(path)), writes))

from aioext.scripts.pcreate import main
sys.addaudithook(audit)
status = main(["-s", "aio_starter", "hello"])
seen = list(events)
with open(log, "w") as file:
    json.dump(seen, file)
sys.exit(status)
"""


@pytest.mark.parametrize("home", ["absent", "hostile", "unset"])
def test_nothing_outside_the_project_is_written_nor_the_home_read(home, work, tmp_path):
    """Seen from inside: every path that is opened, changed or listed."""
    place, log = tmp_path / "home", tmp_path / "log"
    if home == "hostile":
        write_files(place, {".cookiecutterrc": "default_context: {project_name: no}"})
        place.chmod(0o555)
    environment = {k: v for k, v in os.environ.items() if k != "HOME"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "USERPROFILE": str(place)}
    if home != "unset":
        environment["HOME"] = str(place)
    command = [sys.executable, "-c", AUDIT, str(place), str(log)]
    ended = subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    events = json.loads(log.read_text())
    written = {path for path, writes in events if writes}
    assert written
    assert all(Path(path).is_relative_to(work) for path in written), written
    assert not [path for path, _ in events if Path(path).is_relative_to(place)]
    assert [path.name for path in work.iterdir()] == ["hello"]


def test_the_cookiecutter_command_makes_the_same_project(run, work, tmp_path):
    run("-s", "aio_starter", "hello")
    template = pcreate.find_scaffolds()["aio_starter"].template
    subprocess.run(
        [*COOKIECUTTER, template, "project_name=hello"],
        check=True,
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path / "home")},
    )

    def without_byte_code(files):
        return {name: text for name, text in files.items() if ".pyc" not in name}

    assert without_byte_code(tree(tmp_path / "hello")) == tree(work / "hello")


@pytest.mark.parametrize(
    ("project_name", "package_name"),
    [(None, "my_aioext_project"), ('O\'Reilly & "Sons"', "o_reilly_sons")],
)
def test_the_cookiecutter_command_derives_the_package_name(
    project_name, package_name, tmp_path
):
    template = pcreate.find_scaffolds()["aio_starter"].template
    names = [f"project_name={project_name}"] if project_name else []
    subprocess.run(
        [*COOKIECUTTER, template, *names],
        check=True,
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path / "home")},
    )
    assert (tmp_path / package_name / package_name / "__init__.py").is_file()

"""Ready-made builders: commands, SCSS, and files that are joined and made smaller."""

import asyncio
import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError

from aioext import spawn_greenlet
from aioext.assets import command, css, js, scss
from aioext.assets.built import commands, sass_program
from aioext.assets.spec import built_asset as find
from aioext.exceptions import BuildError

pytest.importorskip("sass")
pytest.importorskip("rcssmin")
pytest.importorskip("rjsmin")

PATIENCE = 30


@pytest.fixture
def sources(tmp_path):
    """Write files by their names; gives their paths."""

    def sources(**files):
        paths = []
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
            paths.append(path)
        return paths

    return sources


@pytest.fixture
def target(tmp_path):
    """The path to write to."""
    return tmp_path / "the target"


# Commands.


def test_a_command_gets_the_paths(sources, target):
    paths = sources(a="1", b="2")
    line = 'sh -c \'printf "%s\\n" "$@" > "$0"\' {target} {sources} -f={source}'
    assert command(line)(paths, target) is None
    assert target.read_text().splitlines() == [*map(str, paths), f"-f={paths[0]}"]


def test_words_need_no_quotes(sources, target):
    paths = sources(a="1")
    command(["cp", "{source}", "--", "{target}"])(paths, target)
    assert target.read_text() == "1"


def test_without_a_target_the_output_is_the_file(sources, target):
    command("cat {sources}")(sources(a="1", b="2"), target)
    assert target.read_text() == "12"


def test_a_shell_is_used_where_it_is_asked_for(sources, target):
    (path,) = sources(**{"a $(b)": "1"})
    command("cat {sources} | tr 1 2 > {target}", shell=True)([path], target)
    assert target.read_text() == "2"
    command("cat {source} $OTHER", shell=True, env={"OTHER": ""})([path], target)
    assert target.read_text() == "1"
    # Elsewhere it is not.
    command("echo $HOME ; {source}")([path], target)
    assert target.read_text() == f"$HOME ; {path}\n"


def test_a_directory_and_an_environment(sources, target, tmp_path):
    line = "sh -c 'pwd; echo $A$B'"
    build = command(line, cwd=tmp_path, env={"A": "1", "B": "2"})
    build(sources(a=""), target)
    assert target.read_text() == f"{tmp_path}\n12\n"
    assert build == command(line, cwd=tmp_path, env={"B": "2", "A": "1"})


def test_a_command_that_fails_is_told_with_what_it_has_written(sources, target):
    for line in ("sh -c 'echo out; echo err >&2; exit 3' {target}",):
        with pytest.raises(BuildError) as raised:
            command(line)(sources(a=""), target)
        told = raised.value.args[0]
        assert "ended with the status 3. It has written:\nout\nerr" in told
    with pytest.raises(BuildError, match=r"status 1\. It has written nothing\."):
        command("false")(sources(a=""), target)


def test_only_the_end_of_much_output_is_told(sources, target):
    with pytest.raises(BuildError) as raised:
        command("sh -c 'seq 100000 >&2; exit 1'")(sources(a=""), target)
    told = raised.value.args[0]
    assert told.endswith("\n100000")
    assert len(told) < 2 * commands.TOLD


def test_a_command_that_does_not_exist_is_told_of(sources, target):
    with pytest.raises(BuildError, match=r"such-program .* not be started: No such"):
        command("no-such-program {target}")(sources(a=""), target)


def test_a_command_that_takes_too_long_is_ended_with_all_it_has_started(
    sources, target
):
    # Its output ends when the last one that holds it does.
    build = command("sh -c 'echo begun; sleep 60 & wait' {target}", timeout=1)
    with pytest.raises(BuildError, match=r"longer than 1 seconds.*\nbegun\n"):
        build(sources(a=""), target)
    assert not commands._running


def test_what_has_left_the_session_of_a_command_is_not_waited_for(
    sources, target, monkeypatch
):
    monkeypatch.setattr(commands, "PATIENCE", 0.1)
    pid = target.with_name("pid")
    build = command(f"sh -c 'setsid sleep 60 & echo $! > {pid}' {{target}}", timeout=1)
    with pytest.raises(BuildError, match="longer than 1 seconds"):
        build(sources(a=""), target)
    os.kill(int(pid.read_text()), signal.SIGKILL)


def test_an_interrupt_ends_the_command(monkeypatch):
    def interrupted(process, timeout):
        monkeypatch.undo()
        processes.append(process)
        raise KeyboardInterrupt

    processes = []
    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        commands.run(["sleep", "60"])
    assert processes[0].returncode == -signal.SIGKILL
    assert not commands._running


@pytest.mark.parametrize(
    ("line", "options", "told"),
    [
        ("", {}, "takes a program and its arguments"),
        ("  ", {"shell": True}, "takes a program and its arguments"),
        ([], {}, "takes a program and its arguments"),
        (["a", 1], {}, "takes a program and its arguments"),
        ("a 'b", {}, "cannot be split into words: No closing quotation"),
        ("a -i={sources}", {}, "has to be an argument by itself"),
        ("a", {"cwd": "here"}, "takes an absolute path for cwd, got 'here'"),
        (["a", "{sources}"], {"shell": True}, "takes one string with shell=True"),
    ],
)
def test_a_command_that_cannot_be_is_refused(line, options, told):
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        command(line, **options)


# SCSS.


def test_scss_is_compiled(sources, target):
    paths = sources(a_dot_scss="$c: red; a { b { color: $c } }")
    assert scss()(paths, target) == [str(paths[0])]
    assert target.read_text() == "a b{color:red}\n"
    scss(style="expanded")(paths, target)
    assert target.read_text() == "a b {\n  color: red;\n}\n"


def test_the_indented_syntax_is_known_by_the_name(sources, target):
    scss()(sources(a_dot_sass="a\n  b\n    color: red\n"), target)
    assert target.read_text() == "a b{color:red}\n"


def test_what_is_imported_is_told(sources, target, tmp_path):
    first, *others = sources(
        a_dot_scss='@import "vars", "deep/inner", "shared"; a { b: $v }',
        _vars_dot_scss="$v: 1;",
        deep___inner_dot_scss="i { j: k }",
        include___shared_dot_scss="s { t: u }",
    )
    read = scss(include=str(tmp_path / "include"))([first], target)
    assert sorted(read) == sorted(map(str, [first, *others]))
    assert target.read_text() == "i{j:k}s{t:u}a{b:1}\n"


def test_several_style_sheets_are_joined(sources, target):
    paths = sources(a_dot_scss='a { content: "ä" }', b_dot_scss='b { content: "ö" }')
    assert scss()(paths, target) == list(map(str, paths))
    assert target.read_text("utf-8") == '\ufeffa{content:"ä"}\nb{content:"ö"}\n'
    scss(style="expanded")(paths[:1], target)
    assert target.read_text("utf-8").startswith('@charset "UTF-8";\na')


def test_what_is_wrong_is_told_as_libsass_tells_it(sources, target):
    paths = sources(a_dot_scss="a { b: c")
    with pytest.raises(BuildError) as raised:
        scss()(paths, target)
    told = raised.value.args[0]
    assert "libsass ended with the status 1" in told
    assert 'Invalid CSS after "a { b: c": expected "}"' in told
    assert "on line 1:8 of" in told
    assert "Traceback" not in told


def test_include_may_be_an_asset_specification():
    assert scss(include=["aioext:static"]).include == ("aioext:static",)
    for wrong in ("static", ["scss/lib"]):
        with pytest.raises(ConfigurationError, match="scss\\(\\) takes for include"):
            scss(include=wrong)
    with pytest.raises(ConfigurationError, match=r"for style .* got 'nested'"):
        scss(style="nested")


def test_the_loop_does_not_stand_still(sources, tmp_path, run):
    # Compiled in a thread of this process, it would: for longer than this takes.
    loops = "@for $i from 1 through 3000 { .a-#{$i} { w: $i } }" * 4
    paths = sources(a_dot_scss=loops)
    config = Configurator(settings={"aioext.assets.cache_dir": str(tmp_path / "cache")})
    config.include("aioext")
    config.include("aioext.assets.built")
    config.add_built_asset("/a.css", paths[0], scss())
    config.commit()

    async def ask():
        asset = find(config.registry, "/a.css")
        loop = asyncio.get_running_loop()
        asking = asyncio.create_task(spawn_greenlet(asset.path))
        began = last = loop.time()
        longest = 0
        while not asking.done():
            await asyncio.sleep(0)
            now = loop.time()
            longest, last = max(longest, now - last), now
        return await asking, longest / (last - began)

    path, share = run(ask())
    assert Path(path).stat().st_size > 100_000
    # A machine that is busy holds up a loop for a moment as well.
    assert share < 0.5


def test_an_interpreter_is_found_where_python_is_embedded(monkeypatch, sources, target):
    monkeypatch.setattr(sys, "executable", "/usr/bin/uwsgi")
    scss()(sources(a_dot_scss="a { b: c }"), target)
    assert target.read_text() == "a{b:c}\n"
    monkeypatch.setattr(sys, "prefix", "/nowhere")
    with pytest.raises(BuildError, match="no Python interpreter in /nowhere/bin"):
        scss()(sources(a_dot_scss="a { b: c }"), target)


def test_the_program_is_tested_in_this_process_as_well(sources, target):
    paths = sources(a_dot_scss="a { b: c }", b_dot_scss='a { content: "ä" }')
    task = {"target": str(target), "style": "compressed", "include": []}
    assert sass_program.main({"sources": [str(paths[0])], **task}) == [str(paths[0])]
    assert target.read_bytes() == b"a{b:c}\n"
    task["style"] = "expanded"
    sass_program.main({"sources": [str(paths[1])], **task})
    assert target.read_bytes().startswith(b"@charset")


def test_the_program_imports_nothing_of_aioext():
    program = Path(sass_program.__file__).read_text("utf-8")
    assert not re.search(r"^\s*(from|import) (aioext|\.)", program, re.MULTILINE)


# Joined files.


def test_style_sheets_are_joined_and_made_smaller(sources, target):
    paths = sources(
        a="\ufeffa { color : red ; }\n", b="/* note */ b > c { d: e }\n", c=""
    )
    css()(paths, target)
    assert target.read_text() == "a{color:red}\nb>c{d:e}\n"
    css(minify=False)(paths, target)
    assert target.read_text() == "a { color : red ; }\n/* note */ b > c { d: e }\n"


def test_scripts_are_joined_so_that_none_calls_another(sources, target):
    paths = sources(
        a="var f = function () { }", b="(function () { ran = 1 })()  // end", c="g();"
    )
    for minify in (True, False):
        js(minify=minify)(paths, target)
        text = target.read_text()
        assert re.search(r"\}\n;\n\(function", text)
        assert text.endswith("g();\n")
    js()(paths, target)
    assert target.read_text() == (
        "var f=function(){}\n;\n(function(){ran=1})()\n;\ng();\n"
    )


def test_templates_in_scripts_are_left_as_they_are(sources, target):
    js()(sources(a="let t = `two  spaces // ${ kept }`;"), target)
    assert target.read_text() == "let t=`two  spaces // ${ kept }`;\n"


def test_what_is_no_utf8_is_told_of(target, tmp_path):
    path = tmp_path / "latin"
    path.write_bytes(b"\xe4")
    with pytest.raises(BuildError, match="latin is not UTF-8"):
        css()([path], target)


@pytest.mark.parametrize(
    ("make", "module", "distribution"),
    [(scss, "sass", "libsass"), (css, "rcssmin", "rcssmin"), (js, "rjsmin", "rjsmin")],
)
def test_a_library_that_is_missing_is_named(make, module, distribution, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    told = rf"{distribution} is not installed.*pip install 'aioext\[assets\]'"
    with pytest.raises(ConfigurationError, match=told):
        make()
    if make is not scss:
        make(minify=False)


@pytest.mark.parametrize("make", [scss, css, js])
def test_a_builder_is_the_same_in_every_process(make):
    assert make() == make()
    assert " at 0x" not in repr(make())

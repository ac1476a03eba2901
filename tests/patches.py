"""Applies the patches that the documentation shows."""

import re


def apply(patch, directory):
    """Apply a patch to the files in ``directory``; gives their names.

    A hunk begins with ``@@``, and says nothing about lines: what it replaces has to
    be found exactly once.
    """
    changed = []
    for part in re.split(r"^--- ", patch, flags=re.MULTILINE)[1:]:
        name, _, hunks = part.partition("\n")
        path = directory / name
        text = path.read_text("utf-8")
        for hunk in re.split(r"^@@\n", hunks, flags=re.MULTILINE)[1:]:
            text = _replace(text, hunk, name)
        path.write_text(text, "utf-8")
        changed.append(name)
    return changed


def _replace(text, hunk, name):
    lines = hunk.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] != "+")
    after = "".join(line[1:] for line in lines if line[0] != "-")
    assert text.count(before) == 1, f"{name} has {text.count(before)} times:\n{before}"
    return text.replace(before, after)

"""A program that compiles style sheets, for the builder :func:`aioext.assets.scss`.

It is run by its path, and imports nothing of aioext, to begin at once. Its one argument
is JSON; it writes the paths of what was read to its standard output, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

__all__ = ["main"]

# libsass begins a compressed style sheet that is not ASCII with it.
BYTE_ORDER_MARK = "\ufeff"


def main(task: dict[str, Any]) -> list[str]:
    """Compile the sources, and write them to the target; gives what was read.

    Args:
        task: ``sources``, ``target``, ``style`` and ``include``.

    Raises:
        sass.CompileError: one of them is wrong.
    """
    compiled, read = [], {}
    for source in task["sources"]:
        text, paths = compile_one(source, task)
        compiled.append(text.removeprefix(BYTE_ORDER_MARK))
        read.update(dict.fromkeys(paths))
    text = "".join(compiled)
    mark = "" if text.isascii() or text.startswith("@charset") else BYTE_ORDER_MARK
    with open(task["target"], "w", encoding="utf-8", newline="\n") as target:
        target.write(mark + text)
    return list(read)


def compile_one(source: str, task: dict[str, Any]) -> tuple[str, list[str]]:
    # The map is the one place where libsass says what it has read.
    import sass

    text, source_map = sass.compile(
        filename=source,
        output_style=task["style"],
        include_paths=task["include"],
        source_map_filename=f"{source}.map",
        omit_source_map_url=True,
    )
    directory = os.path.dirname(source)
    names = json.loads(source_map)["sources"]
    return text, [os.path.normpath(os.path.join(directory, name)) for name in names]


if __name__ == "__main__":
    try:
        print(json.dumps(main(json.loads(sys.argv[1]))))  # noqa: T201
    except Exception as error:
        sys.exit(str(error))

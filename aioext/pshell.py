"""A Python shell for ``pshell`` in which everything may wait.

What is typed runs as under :func:`aioext.run`: functions that wait, and sessions of
SQLAlchemy's over an asynchronous engine, work as they do in a view, and ``await`` may
stand at the top level. The awaitables run on the loop in the background.

``pshell`` finds it by an entry point of the group ``pyramid.pshell_runner``, and takes
it unless it is told to use, or finds, another one::

    pshell development.ini
    pshell -p aioext development.ini

Pressing Ctrl-C cancels what is waited for.
"""

from __future__ import annotations

import ast
import code
import inspect
import sys
import types
from typing import Any

from . import bridge

__all__ = ["AwaitingConsole", "run_shell"]

BANNER = """\
Python {version} on {platform}
Type "help" for more information. What is asynchronous can be awaited.

{help}
"""


def run_shell(env: dict[str, Any], help: str) -> None:  # noqa: A002, Pyramid's name
    """Let the user type, until the end of the input.

    Args:
        env: the names that exist in the shell.
        help: what is told about them.
    """
    banner = BANNER.format(version=sys.version, platform=sys.platform, help=help)
    AwaitingConsole(env).interact(banner)


class AwaitingConsole(code.InteractiveConsole):
    """An interactive console whose statements may wait, and ``await``.

    Args:
        names: its variables; new ones are added.
    """

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__(names)
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

    def runcode(self, code: types.CodeType) -> None:
        """Run a statement; an exception is shown, and the console goes on."""
        try:
            bridge.run(self._execute, code)
        except SystemExit:
            raise
        except BaseException:
            self.showtraceback()

    def _execute(self, code: types.CodeType) -> None:
        result = types.FunctionType(code, self.locals)()
        # Not what the statement gives, which is displayed: a statement gives none.
        if inspect.iscoroutine(result):
            bridge.wait(result)

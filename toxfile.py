"""Where tox looks for interpreters besides the path: among those of pyenv.

pyenv puts one of each name on the path, and that only runs if the version is chosen
(``pyenv local``). tox loads this file by its name.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from tox.plugin import impl

OLDEST = (3, 11)
RELEASE = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def interpreters() -> list[str]:
    """Those of pyenv that aioext runs on, the newest first."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = {}
    for python in root.glob("versions/*/bin/python"):
        if release := RELEASE.fullmatch(python.parts[-3]):
            found[tuple(map(int, release.groups()))] = str(python)
    return [found[each] for each in sorted(found, reverse=True) if each >= OLDEST]


@impl
def tox_add_core_config(core_conf: Any, state: Any) -> None:
    """Look there as well; what ``--discover`` names comes first."""
    options = state.conf.options
    options.discover = [*(getattr(options, "discover", None) or ()), *interpreters()]

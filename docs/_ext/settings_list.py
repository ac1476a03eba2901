"""The directive ``settings-list``: every setting of aioext, as it is declared."""

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from aioext.settings import PREFIX, SETTINGS


class SettingsList(SphinxDirective):
    """An entry for each of :data:`aioext.settings.SETTINGS`."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(map(entry, SETTINGS)))


def entry(setting):
    """The reStructuredText of one setting."""
    default = setting.default
    if isinstance(default, bool):
        default = str(default).lower()
    elif isinstance(default, float):
        default = f"{default:g}"
    elif isinstance(default, tuple):
        default = " ".join(default) or "none"
    elif default == "":
        default = "empty"
    return f"""
.. confval:: {PREFIX}{setting.name}
   :default: ``{default}``

   {setting.prose}
"""


def setup(app):
    app.add_directive("settings-list", SettingsList)
    return {"version": "1", "parallel_read_safe": True}

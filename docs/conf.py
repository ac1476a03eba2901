"""How Sphinx builds this documentation."""

import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path[:0] = [str(here.parent), str(here / "_ext")]

from aioext import __version__  # noqa: E402 - found by the line above

project = "aioext"
author = "the aioext authors"
project_copyright = author
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "settings_list",
    "tidy_blocks",
]
exclude_patterns = ["examples"]
needs_sphinx = "8.0"
nitpicky = True
# Objects of other projects are named, not linked: the build needs no network.
nitpick_ignore_regex = [
    ("py:.*", r"(?!aioext\b).*"),
    ("py:.*", r"aioext\.\w+\.[PT]"),  # type variables
]

autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
autodoc_default_options = {"exclude-members": "__init__, __new__"}
# Docstrings say what the types mean.
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
napoleon_use_ivar = True

html_theme = "alabaster"
html_theme_options = {
    "description": "Pyramid on asyncio",
    "fixed_sidebar": True,
    "page_width": "1100px",
    "sidebar_width": "250px",
}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["aioext.css"]

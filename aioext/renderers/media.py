"""The media types of files and of formats, by their extensions."""

from __future__ import annotations

import mimetypes
from typing import Any

__all__ = ["TYPES", "set_type"]

# What Python's table has is not what feeds and scripts are sent as, or depends on its
# version. The table is the one that comes with Python: that of the machine would have
# an application send different types on different machines.
TYPES = {
    **mimetypes.MimeTypes().types_map[True],
    ".atom": "application/atom+xml",
    ".geojson": "application/geo+json",
    ".gpx": "application/gpx+xml",
    ".ics": "text/calendar",
    ".js": "text/javascript",
    ".jsonl": "application/x-ndjson",
    ".jsonld": "application/ld+json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".rss": "application/rss+xml",
    ".vcf": "text/vcard",
    ".webmanifest": "application/manifest+json",
    ".xhtml": "application/xhtml+xml",
    ".xml": "application/xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}


def set_type(response: Any, content_type: str) -> None:
    """Have that be the type of a response, unless somebody has set another one.

    Whatever has no type, a test's response for one, is left alone.
    """
    default = getattr(response, "default_content_type", None)
    if default is not None and response.content_type == default:
        response.content_type = content_type

"""ASGI's scope for a WSGI environ: pure data, no I/O.

The ``path`` of a scope is the whole one, and its ``root_path`` the part of it that
``SCRIPT_NAME`` is, so both are made of the environ, which whoever has mounted the
application has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ..environ import build_environ

__all__ = ["build_scope", "scope_below"]

Environ = Mapping[str, Any]
Scope = dict[str, Any]

# Those that listen for a client's end, instead of having send() fail at it.
SPEC_VERSION = "2.3"
# What a WebSocket's scheme is in an environ.
SCHEMES = {"ws": "http", "wss": "https"}
# Header fields that an environ has under their own name.
_FIELDS = {"CONTENT_TYPE": "content-type", "CONTENT_LENGTH": "content-length"}


def scope_below(environ: Environ, state: Mapping[str, Any] | None) -> Scope:
    """The server's scope, for an application below the one that it was given to.

    Args:
        environ: made of that scope, and shifted; what middleware has changed in it
            since is changed in the scope.
        state: of the application's own lifespan; None: it has none.
    """
    given = environ["asgi.scope"]
    scope = {**given, **_paths(environ), **_changed(environ, given)}
    scope.pop("state", None)
    if state is not None:
        scope["state"] = dict(state)
    return scope


def _changed(environ: Environ, given: Scope) -> Scope:
    is_http = given["type"] == "http"
    schemes = {} if is_http else SCHEMES
    scheme = given.get("scheme", "http" if is_http else "ws")
    original = build_environ(
        {"method": "GET", **given, "scheme": schemes.get(scheme, scheme)}, {}
    )
    before, now = _described(original), _described(environ)
    changed = {key: now[key] for key in now if now[key] != before[key]}
    if not is_http:
        changed.pop("method", None)
    if "scheme" in changed:
        names = {http: ws for ws, http in schemes.items()}
        changed["scheme"] = names.get(now["scheme"], now["scheme"])
    return changed


def build_scope(environ: Environ, state: Mapping[str, Any] | None) -> Scope:
    """A scope of type ``http`` for an environ of any server.

    Args:
        environ: of the request.
        state: as in :func:`scope_below`.
    """
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": SPEC_VERSION},
        "http_version": environ["SERVER_PROTOCOL"].rpartition("/")[2] or "1.1",
        "extensions": {},
        **_described(environ),
        **_paths(environ),
    }
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    scope["raw_path"] = quote(path, safe="/~:@!$&'()*+,;=", encoding="latin-1").encode()
    if state is not None:
        scope["state"] = dict(state)
    return scope


def _described(environ: Environ) -> Scope:
    return {
        "method": environ["REQUEST_METHOD"],
        "scheme": environ["wsgi.url_scheme"],
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "headers": _headers(environ),
        "client": _address(environ, "REMOTE_ADDR", "REMOTE_PORT"),
        "server": _address(environ, "SERVER_NAME", "SERVER_PORT"),
    }


def _paths(environ: Environ) -> Scope:
    root_path = environ.get("SCRIPT_NAME", "")
    return {
        "root_path": _decode(root_path),
        "path": _decode(root_path + environ.get("PATH_INFO", "")),
    }


def _decode(path: str) -> str:
    # A WSGI string carries bytes as latin-1.
    return path.encode("latin-1").decode("utf-8", "replace")


def _headers(environ: Environ) -> list[tuple[bytes, bytes]]:
    headers = []
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            name = key[5:].replace("_", "-").lower()
        elif key in _FIELDS and value:
            name = _FIELDS[key]
        else:
            continue
        headers.append((name.encode("latin-1"), value.encode("latin-1")))
    return headers


def _address(environ: Environ, host: str, port: str) -> tuple[str, int] | None:
    name = environ.get(host)
    number = str(environ.get(port, ""))
    if not name:
        return None
    return name, int(number) if number.isdecimal() else 0

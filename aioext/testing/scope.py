"""ASGI scopes for the requests that WebTest makes: pure data, no I/O.

What a scope has no place for (``REMOTE_USER``, and whatever else stands in
``extra_environ``) travels beside it, and is put back into the environ that the
gateway makes of it: see :class:`Application`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from webob import Request

__all__ = ["Application", "http_scope", "websocket_scope"]

# Where the rest of the environ travels in a scope.
ENVIRON = "aioext.testing.environ"

Headers = list[tuple[bytes, bytes]]

# What the gateway makes of a scope by itself; so is all that begins like these.
_MADE = frozenset(
    (
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "PATH_INFO",
        "QUERY_STRING",
        "REMOTE_ADDR",
        "REMOTE_PORT",
        "REQUEST_METHOD",
        "SCRIPT_NAME",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_PROTOCOL",
    )
)
_MADE_PREFIXES = ("HTTP_", "wsgi.", "webob.")


class Application:
    """A WSGI application that gets what no scope can carry.

    Stands for ``app`` in everything else.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ.update(environ["asgi.scope"].get(ENVIRON, ()))
        return self._app(environ, start_response)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)


def http_scope(environ: Mapping[str, Any]) -> dict[str, Any]:
    """The scope of a request without a body."""
    return {
        "type": "http",
        "method": environ["REQUEST_METHOD"],
        "scheme": environ["wsgi.url_scheme"],
        "headers": _headers(environ),
        **_common(environ),
    }


def websocket_scope(
    environ: Mapping[str, Any], subprotocols: Sequence[str], origin: str | None
) -> dict[str, Any]:
    """The scope of a WebSocket handshake.

    Args:
        environ: of a GET.
        subprotocols: what the client offers, in its order of preference.
        origin: the ``Origin`` header; ``own`` stands for that of the
            application's own pages; None: no such header.
    """
    fields = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    if subprotocols:
        fields["sec-websocket-protocol"] = ", ".join(subprotocols)
    if origin is not None:
        own = Request(dict(environ)).host_url
        fields["origin"] = own if origin == "own" else origin
    given = _headers(environ)
    names = {name for name, _ in given}
    added = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
    return {
        "type": "websocket",
        "scheme": "wss" if environ["wsgi.url_scheme"] == "https" else "ws",
        "headers": given + [each for each in added if each[0] not in names],
        "subprotocols": list(subprotocols),
        "extensions": {"websocket.http.response": {}},
        **_common(environ),
    }


def _common(environ: Mapping[str, Any]) -> dict[str, Any]:
    root_path = environ.get("SCRIPT_NAME", "").encode("latin-1")
    path = root_path + environ.get("PATH_INFO", "").encode("latin-1")
    return {
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "path": path.decode("utf-8", "replace"),
        "raw_path": quote(path).encode(),
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "root_path": root_path.decode("utf-8", "replace"),
        "client": (
            environ.get("REMOTE_ADDR", "127.0.0.1"),
            int(environ.get("REMOTE_PORT", 50_000)),
        ),
        "server": (environ["SERVER_NAME"], int(environ["SERVER_PORT"])),
        ENVIRON: {
            name: value
            for name, value in environ.items()
            if name not in _MADE and not name.startswith(_MADE_PREFIXES)
        },
    }


def _headers(environ: Mapping[str, Any]) -> Headers:
    return [
        (_field_name(name), value.encode("latin-1"))
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]


def _field_name(name: str) -> bytes:
    return name.removeprefix("HTTP_").replace("_", "-").lower().encode("latin-1")

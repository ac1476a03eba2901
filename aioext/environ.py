"""A WSGI environ for an ASGI scope: pure data, no I/O.

Sources: :pep:`3333` for the environ, the HTTP section of the ASGI
specification for the scope, :rfc:`9110` section 5.3 for repeated fields and
:rfc:`9113` section 8.2.3 for Cookie, the one that is not joined by commas.

Left out are header names that contain an underscore, for in an environ they
could not be told from the name with a dash, and a proxy that filters the one may
let the other through; and ``Proxy``, a header that no standard knows: it would
be ``HTTP_PROXY``, which names a proxy to programs that are given the environ as
their environment (CVE-2016-5385 and others, "httpoxy").
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

__all__ = ["build_environ", "may_have_body"]

Scope = Mapping[str, Any]

# What precedes the path if the target is a whole URL (RFC 9112 section 3.2.2);
# gunicorn leaves it there.
_ABSOLUTE = re.compile(b"[A-Za-z][-+.A-Za-z0-9]*://[^/]*")

# Names are learned up to a limit of number and length, for a client chooses them;
# those that browsers and proxies send are known before anybody can use it up.
_MAX_KEYS = 1024
_MAX_NAME = 64
_COMMON = """
    accept accept-encoding accept-language authorization cache-control connection
    cookie dnt expect forwarded from host if-match if-modified-since if-none-match
    if-range if-unmodified-since origin pragma priority range referer sec-ch-ua
    sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site
    sec-fetch-user te traceparent tracestate transfer-encoding upgrade
    upgrade-insecure-requests user-agent via x-csrf-token x-forwarded-for
    x-forwarded-host x-forwarded-port x-forwarded-proto x-real-ip x-request-id
    x-requested-with
"""
_keys: dict[bytes, str] = {
    b"content-type": "CONTENT_TYPE",
    b"content-length": "CONTENT_LENGTH",
    **{
        name.encode(): "HTTP_" + name.upper().replace("-", "_")
        for name in _COMMON.split()
    },
}


def build_environ(scope: Scope, base: dict[str, Any]) -> dict[str, Any]:
    """The environ of ``scope``, without ``wsgi.input``.

    Args:
        scope: of type ``http``.
        base: what every environ of this server begins with.
    """
    environ = base.copy()
    headers = scope["headers"]
    try:
        for name, value in headers:
            environ[_keys[name]] = value.decode("latin-1")
    except KeyError:
        environ.update(_collect(headers))
    else:
        if len(environ) != len(base) + len(headers):
            environ.update(_collect(headers))
    if "HTTP_TRANSFER_ENCODING" in environ:
        # That is how the body is framed (RFC 9112 section 6.3); a length beside
        # it must not be believed.
        environ.pop("CONTENT_LENGTH", None)
    path = scope["path"]
    root_path = scope.get("root_path", "")
    if root_path or path[:1] != "/" or not path.isascii():
        root_path, path = _split_path(scope, root_path, path)
    environ["REQUEST_METHOD"] = scope["method"]
    environ["SCRIPT_NAME"] = root_path
    environ["PATH_INFO"] = path
    environ["QUERY_STRING"] = scope["query_string"].decode("latin-1")
    # daphne leaves it out for WebSockets, as it may.
    environ["SERVER_PROTOCOL"] = "HTTP/" + scope.get("http_version", "1.1")
    environ["wsgi.url_scheme"] = scope.get("scheme", "http")
    environ["asgi.scope"] = scope
    _add_addresses(environ, scope)
    return environ


def _add_addresses(environ: dict[str, Any], scope: Scope) -> None:
    # A unix socket has no port and may have no name: some servers give None for
    # the port or for the pair, gunicorn the first two characters of the path.
    # granian gives ports as strings.
    server = scope.get("server")
    port = str(server[1]) if server else ""
    if port.isdigit():
        environ["SERVER_NAME"] = server[0]
        environ["SERVER_PORT"] = port
    else:
        environ["SERVER_NAME"] = "localhost"
        https = environ["wsgi.url_scheme"] == "https"
        environ["SERVER_PORT"] = "443" if https else "80"
    client = scope.get("client")
    port = str(client[1]) if client else ""
    if port.isdigit():
        environ["REMOTE_ADDR"] = client[0]
        environ["REMOTE_PORT"] = port
    else:
        environ["REMOTE_ADDR"] = ""


def _collect(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    # The general case: new names, repeated ones, and names to leave out.
    # Joined at the end: a client chooses how often it repeats one.
    fields: dict[str, list[str]] = {}
    for name, value in headers:
        if b"_" in name or name.lower() == b"proxy":
            continue
        key = _keys.get(name) or _learn(name)
        text = value.decode("latin-1")
        values = fields.setdefault(key, [])
        if key != "CONTENT_LENGTH" or values != [text]:
            values.append(text)
    return {
        key: ("; " if key == "HTTP_COOKIE" else ",").join(values)
        for key, values in fields.items()
    }


def _learn(name: bytes) -> str:
    key = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
    if key in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
        key = key[5:]
    if len(_keys) < _MAX_KEYS and len(name) <= _MAX_NAME:
        _keys[name] = key
    return key


def may_have_body(scope: Scope, environ: Mapping[str, Any]) -> bool:
    """Whether the request can have a body, by its method and its framing."""
    length = environ.get("CONTENT_LENGTH")
    if length is not None:
        return length != "0"
    if "HTTP_TRANSFER_ENCODING" in environ:
        return True
    # HTTP/2 and HTTP/3 frame a body without either header.
    return scope["http_version"] >= "2" and scope["method"] not in ("GET", "HEAD")


def _split_path(scope: Scope, root_path: str, path: str) -> tuple[str, str]:
    # A WSGI string carries bytes as latin-1. ASGI has decoded the path as
    # UTF-8, which loses bytes that are not; raw_path still has them.
    as_bytes = path.encode("utf-8", "surrogateescape")
    raw_path = scope.get("raw_path")
    if raw_path:
        unquoted = unquote_to_bytes(raw_path)
        if unquoted.decode("utf-8", "replace") == path:
            as_bytes = unquoted
    url = _ABSOLUTE.match(as_bytes)
    if url is not None:
        as_bytes = as_bytes[url.end() :] or b"/"
    script_name = root_path.rstrip("/").encode("utf-8", "surrogateescape")
    rest = as_bytes[len(script_name) :]
    if as_bytes.startswith(script_name) and rest[:1] in (b"/", b""):
        as_bytes = rest
    return script_name.decode("latin-1"), as_bytes.decode("latin-1")


class Errors:
    """``wsgi.errors``: ``sys.stderr``, whatever that is when it is used."""

    def write(self, text: str, /) -> None:
        if sys.stderr is not None:
            sys.stderr.write(text)

    def writelines(self, lines: Iterable[str], /) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if sys.stderr is not None:
            sys.stderr.flush()


def base_environ(multiprocess: bool, file_wrapper: Any) -> dict[str, Any]:
    """What every environ of one server begins with.

    Args:
        multiprocess: whether other processes serve the same application.
        file_wrapper: the value of ``wsgi.file_wrapper``.
    """
    return {
        "wsgi.version": (1, 0),
        "wsgi.errors": Errors(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": multiprocess,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": file_wrapper,
    }

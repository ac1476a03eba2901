"""Which pages may open a WebSocket: the check of the ``Origin`` header.

A browser sends a page's cookies with a WebSocket handshake to any site, and
asks nobody first; what it adds is ``Origin`` (:rfc:`6455` section 10.2). A
server that does not look at it lets every page of the web act as its user
(cross-site WebSocket hijacking). Programs that are no browsers send no
``Origin``, and no cookies of somebody else either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["check_pattern", "is_allowed", "own_origin"]

DEFAULT_PORTS = {"http": "80", "https": "443", "ws": "80", "wss": "443"}
ANY = "*"
_ORIGIN = re.compile(r"([A-Za-z][-+.A-Za-z0-9]*)://([^/\s]+)")


def own_origin(scheme: str, host: str) -> str:
    """The origin of the pages of an application.

    Args:
        scheme: ``http`` or ``https``, of the request.
        host: its ``Host`` header.
    """
    return _normalized(f"{scheme}://{host}")


def is_allowed(
    origin: str, own: str, origins: Iterable[str], trusted: Iterable[str]
) -> bool:
    """Whether a page of ``origin`` may open a WebSocket.

    Args:
        origin: the header.
        own: what :func:`own_origin` gives.
        origins: patterns as :func:`check_pattern` takes them.
        trusted: hosts as in ``pyramid.csrf_trusted_origins``: of pages that came
            by https, or as this request did.
    """
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        # "null" is what sandboxed frames and files say, of any site.
        return False
    normalized = _normalized(origin)
    if normalized == own:
        return True
    if any(_matches(normalized, pattern) for pattern in origins):
        return True
    scheme, _, host = normalized.partition("://")
    if scheme != "https" and scheme != own.partition("://")[0]:
        return False
    return any(_is_host(host, each.lower()) for each in trusted)


def check_pattern(pattern: str) -> None:
    """Raise ``ValueError`` unless it is ``*`` or ``scheme://host[:port]``.

    A host may begin with ``*.``, which stands for any subdomain.
    """
    if pattern == ANY:
        return
    match = _ORIGIN.fullmatch(pattern)
    if match is None or "*" in match[2].removeprefix("*.") or match[2] == "*.":
        raise ValueError(
            "origins like https://example.com, https://*.example.com or "
            f"https://example.com:8443, and not {pattern!r}"
        )


def _normalized(origin: str) -> str:
    scheme, _, host = origin.lower().partition("://")
    name, colon, port = host.rpartition(":")
    if colon and port == DEFAULT_PORTS.get(scheme):
        host = name
    return f"{scheme}://{host}"


def _matches(origin: str, pattern: str) -> bool:
    if pattern == ANY:
        return True
    pattern = _normalized(pattern)
    scheme, star, domain = pattern.partition("://*.")
    if not star:
        return origin == pattern
    return origin.startswith(f"{scheme}://") and origin.endswith(f".{domain}")


def _is_host(host: str, trusted: str) -> bool:
    if trusted.startswith("."):
        return host == trusted[1:] or host.endswith(trusted)
    return host == trusted

"""Which application a request is for, by its host and its path: pure data, no I/O.

A host that is named wins over a domain whose sub-domains are meant, the longer of two
domains over the shorter, and both over mounts for every host. Among those of one host
the longest path wins. A path matches by whole segments, once it is decoded, as
:pep:`3333` has it: what the client has encoded, and how, makes no difference.

What stands under a path cannot be had from another application by another spelling of
that path: ``//path``, ``/./path``, ``/other/../path`` and, which some servers let
through, ``path`` are :data:`HIDDEN`. (Pyramid's traversal, for one, takes them all for
``/path``.)
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["HIDDEN", "Table", "host_of", "normalize_host"]

# What a lookup gives for another spelling of a path that something is mounted at.
HIDDEN: Final = object()

_LABEL = "[a-z0-9_-]+"
_HOST = re.compile(rf"(?:\[([0-9a-f:.]+)\]|({_LABEL}(?:\.{_LABEL})*)\.?)(?::[0-9]*)?")

# A name has 253 characters at most (RFC 1035 section 2.3.4), and there may be a port.
_MAX_HOST = 260


class Table:
    """Applications by host and path.

    Attributes:
        has_hosts: whether any of them is for a host.
    """

    has_hosts = False

    def __init__(self) -> None:
        # By host, or by domain with its dot before it, or None for all: pairs of a
        # path and an application, the longest path first.
        self._hosts: dict[str | None, list[tuple[str, Any]]] = {}

    def __bool__(self) -> bool:
        return bool(self._hosts)

    def __iter__(self) -> Iterator[Any]:
        return (app for entries in self._hosts.values() for _, app in entries)

    def add(self, host: str | None, path: str, app: Any) -> None:
        """Add an application; it takes the place of one that is there.

        Args:
            host: as :func:`normalize_host` gives it, perhaps with a dot before it,
                which stands for all sub-domains; None: any host.
            path: without a slash at its end, as a WSGI string; "" for all.
            app: whatever it is.
        """
        self.has_hosts = self.has_hosts or host is not None
        entries = self._hosts.setdefault(host, [])
        entries[:] = [entry for entry in entries if entry[0] != path]
        entries.append((path, app))
        entries.sort(key=lambda entry: len(entry[0]), reverse=True)

    def find(self, host: str | None, path: str) -> tuple[str, Any] | None:
        """The path and the application that a request is for.

        Args:
            host: as :func:`host_of` gives it.
            path: its ``PATH_INFO``.

        Returns:
            None if there is none; :data:`HIDDEN` in the place of the application if
            there is another one under the same path in its usual spelling.
        """
        found = self._find(host, path)
        if path[:1] != "/" or "//" in path or "/." in path:
            hidden = self._find(host, _usual(path))
            if hidden is not None and hidden != found:
                return hidden[0], HIDDEN
        return found

    def _find(self, host: str | None, path: str) -> tuple[str, Any] | None:
        for key in _candidates(host):
            for mounted, app in self._hosts.get(key, ()):
                if not mounted or f"{path}/".startswith(f"{mounted}/"):
                    return mounted, app
        return None


def _candidates(host: str | None) -> Iterator[str | None]:
    if host is not None:
        yield host
        domain = host
        while "." in domain:
            domain = domain.partition(".")[2]
            yield f".{domain}"
    yield None


def _usual(path: str) -> str:
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment and segment != ".":
            segments.append(segment)
    return "/" + "/".join(segments)


def host_of(environ: Mapping[str, Any]) -> str | None:
    """The host that a request names; None for what is no host."""
    return normalize_host(environ.get("HTTP_HOST") or environ.get("SERVER_NAME", ""))


def normalize_host(text: str) -> str | None:
    """``text`` as hosts are compared: in small letters, without port or last dot.

    An IPv6 address is written as :rfc:`5952` says, in brackets.

    Returns:
        None if that is no host.
    """
    match = _HOST.fullmatch(text.lower()) if len(text) <= _MAX_HOST else None
    if match is None:
        return None
    address, name = match.groups()
    if name is not None:
        return name
    try:
        return f"[{ipaddress.IPv6Address(address)}]"
    except ValueError:
        return None

"""What all readers of a body have in common: lines, made of ``readline()``."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["Lines"]


class Lines:
    """The part of a ``wsgi.input`` that gives several lines (:pep:`3333`).

    Attributes:
        waits: whether reading on the loop waits through the bridge, so that others go
            on meanwhile; what a server has that is not ours blocks.
    """

    waits = False

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line with its end, at most ``size`` bytes of it."""
        raise NotImplementedError

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Lines until the end, or until they have ``hint`` bytes together."""
        lines = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

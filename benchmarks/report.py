"""Results, and how they are printed: a table, each goal beside its result."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Goal", "Report", "Row", "at_least", "at_most", "ratio_of"]


@dataclass(frozen=True)
class Goal:
    """A limit of a ratio.

    Attributes:
        limit: the ratio that is still good.
        lowest: whether the ratio is to be at least that, rather than at most.
    """

    limit: float
    lowest: bool

    def met(self, ratio: float) -> bool:
        """Whether ``ratio`` is on the good side of the limit."""
        return ratio >= self.limit if self.lowest else ratio <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.lowest else '<='} {self.limit:g}"


def at_least(limit: float) -> Goal:
    """The ratio must not be less."""
    return Goal(limit, lowest=True)


def at_most(limit: float) -> Goal:
    """The ratio must not be more."""
    return Goal(limit, lowest=False)


@dataclass
class Row:
    """One line of the table; a column that does not apply is empty.

    Attributes:
        name: what was measured.
        result: in the section's unit.
        detail: what stands beside it, such as the processor's time.
        ratio: to what the section says.
        by_processor: the same ratio, of the processor's time.
        goal: of the ratio.
    """

    name: str
    result: str = ""
    detail: str = ""
    ratio: float | None = None
    goal: Goal | None = None
    by_processor: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the goal is met; empty without one."""
        if self.goal is None:
            return ""
        if self.ratio is None:
            return "not measured"
        return "met" if self.goal.met(self.ratio) else "MISSED"

    def cells(self) -> list[str]:
        """The columns of the table."""
        ratios = [_two_digits(self.ratio), _two_digits(self.by_processor)]
        goal = "" if self.goal is None else str(self.goal)
        return [self.name, self.result, self.detail, *ratios, goal, self.verdict]


def _two_digits(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


class Report:
    """The table, printed section by section."""

    def __init__(self) -> None:
        self._judged: list[tuple[str, Row]] = []

    def section(
        self, title: str, columns: Sequence[str], rows: Sequence[Row], notes: str = ""
    ) -> None:
        """Print one section.

        Args:
            title: its first line.
            columns: the names of the first three.
            rows: the lines.
            notes: printed below.
        """
        self._judged += [(title, row) for row in rows if row.goal is not None]
        by_processor = any(row.by_processor is not None for row in rows)
        header = [*columns, "ratio", "by CPU" if by_processor else "", "goal", ""]
        table = [header, *(row.cells() for row in rows)]
        widths = [
            max(len(cell) for cell in column) for column in zip(*table, strict=True)
        ]
        print(f"\n{title}\n{'=' * len(title)}")
        for line in table:
            first = f"{line[0]:<{widths[0]}}"
            numbers = [f"{line[i]:>{widths[i]}}" for i in range(1, 6) if widths[i]]
            print("  ".join([first, *numbers, line[6]]).rstrip())
        if notes:
            print(f"\n{notes}")

    def summary(self) -> None:
        """Print how many goals were met, and name those that were not."""
        missed = [each for each in self._judged if each[1].verdict != "met"]
        met = len(self._judged) - len(missed)
        print(f"\n{met} of {len(self._judged)} goals met.")
        for title, row in missed:
            ratio = row.detail if row.ratio is None else f"{row.ratio:.3f}"
            print(f"{row.verdict}: {title}: {row.name}: {ratio} (goal {row.goal})")


def ratio_of(results: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios of each round's two results."""
    return statistics.median(a / b for a, b in zip(results, others, strict=True))

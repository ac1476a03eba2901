"""Write the tables of ``docs/support.rst``; ``python tests/support_matrix.py``.

Runs the suite, and fails unless its outcomes are what ``runtimes.py`` declares. What a
runtime has is what all tests of a feature have shown on it; what it lacks has been
shown by a test as well.
"""

import csv
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from runtimes import ALL, FEATURES, REQUESTS  # noqa: E402

DOCS = HERE.parent / "docs"
TABLE = DOCS / "support.csv"
REASONS = DOCS / "support_why.csv"
YES, NO = "yes", "\u2014"


def table():
    """The rows of the first table, as declared: a feature each."""
    columns = [each for each in ALL if each.has(REQUESTS)]
    yield ["", *(each.name for each in columns)]
    for feature in FEATURES:
        if feature != REQUESTS:
            yield [feature, *(YES if r.has(feature) else NO for r in columns)]


def reasons():
    """The rows of the second one: what each cannot do, and why."""
    yield ["On", "Missing", "Why"]
    for runtime in ALL:
        name = f"**{runtime.name}**"
        for feature in FEATURES:
            if runtime.may_lack(feature):
                yield [name, feature, runtime.lacks[feature]]
                name = ""


def write(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


class Outcomes:
    """A plugin of pytest's that keeps what came of each feature on each runtime.

    Attributes:
        passed: pairs of their names of which a test has passed.
        failed: of which one has not.
    """

    def __init__(self):
        self.passed = set()
        self.failed = set()

    def pytest_runtest_logreport(self, report):
        told = dict(report.user_properties)
        if "runtime" not in told:
            return
        pairs = {(each, told["runtime"]) for each in told["features"]}
        if report.outcome != "passed":
            self.failed |= pairs
        elif report.when == "call":
            self.passed |= pairs

    def missing(self):
        """Pairs that no test has shown."""
        return shown_or_not(self.passed - self.failed)


def shown_or_not(shown):
    """The pairs of a feature and a runtime that ought to be shown, and are not."""
    return [
        (feature, runtime.name)
        for runtime in ALL
        for feature in FEATURES
        if ((runtime.has(feature) and feature != REQUESTS) or runtime.may_lack(feature))
        and (feature, runtime.name) not in shown
    ]


def main():
    outcomes = Outcomes()
    options = ["-q", "-k", "not up_to_date", str(HERE / "suite")]
    failed = pytest.main(options, plugins=[outcomes])
    missing = outcomes.missing()
    for feature, runtime in missing:
        sys.stderr.write(f"not shown: {feature}, on {runtime}\n")
    if failed or missing:
        return 1
    write(TABLE, table())
    write(REASONS, reasons())
    return 0


if __name__ == "__main__":
    sys.exit(main())

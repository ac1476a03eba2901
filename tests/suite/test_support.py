"""The tables of the documentation are what the runtimes declare and the suite shows."""

from pathlib import Path

import pytest
from support_matrix import REASONS, TABLE, read, reasons, shown_or_not, table

from suite.conftest import COLLECTED

MODULES = {path.name for path in Path(__file__).parent.glob("test_*.py")}


@pytest.mark.parametrize(("path", "rows"), [(TABLE, table), (REASONS, reasons)])
def test_a_table_is_up_to_date(path, rows):
    assert read(path) == list(rows()), "run: python tests/support_matrix.py"


def test_every_feature_is_shown_on_every_runtime_or_what_is_there_instead(request):
    modules, shown = request.config.stash[COLLECTED]
    # Where only some of the modules run, there is nothing to be said.
    assert modules < MODULES or shown_or_not(shown) == []

"""Errors that ``pyramid_retry`` is to try again: another transaction was in the way.

``zope.sqlalchemy`` knows them by the classes of the drivers that it knows, and by the
time a commit has failed nobody asks it any more. The standard has a code for them, and
every driver for PostgreSQL tells it.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["mark_retryable"]

# The class of SQLSTATE: a serialization failure, a deadlock.
TRANSACTION_ROLLBACK = "40"


def mark_retryable(context: Any) -> None:
    """Mark an error if it says so: a listener to an engine's ``handle_error``."""
    # An application that has not imported it tries nothing again.
    retry: Any = sys.modules.get("pyramid_retry")
    state = getattr(context.original_exception, "sqlstate", None) or ""
    if retry is not None and state.startswith(TRANSACTION_ROLLBACK):
        retry.mark_error_retryable(context.sqlalchemy_exception)

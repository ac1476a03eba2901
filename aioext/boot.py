"""An application that cannot be loaded: how that is told, and how its process ends."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

from pyramid.exceptions import ConfigurationError, ConfigurationExecutionError

__all__ = ["end_process", "is_a_mistake"]


def is_a_mistake(error: ConfigurationError) -> bool:
    """Whether the message of ``error`` is all that there is to tell.

    Pyramid also wraps errors of any other kind, which need their traceback.
    """
    if isinstance(error, ConfigurationExecutionError):
        return issubclass(error.etype, ConfigurationError)
    return True


def end_process(status: int) -> NoReturn:
    """End the process with this exit status, whoever else has a say in it."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)

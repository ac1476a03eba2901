"""What aiopyramid's users wrapped around an application; nothing is needed now."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

__all__ = ["ignore_websocket_closed"]

Application = TypeVar("Application", bound=Any)


def ignore_websocket_closed(app: Application) -> Application:
    """Give ``app`` back: a WebSocket that is closed is no error any more."""
    warnings.warn(
        "ignore_websocket_closed() does nothing any more: leave it out",
        DeprecationWarning,
        stacklevel=2,
    )
    return app

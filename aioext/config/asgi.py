"""The directive ``make_asgi_app``."""

from __future__ import annotations

from typing import Any

from ..gateway import Gateway

__all__ = ["make_asgi_app"]


def make_asgi_app(config: Any) -> Gateway:
    """Commit the configuration, and give the application for an ASGI server.

    ``config.make_asgi_app()`` stands where ``config.make_wsgi_app()`` would.

    Returns:
        the ASGI application; the Pyramid application is its ``app``.
    """
    return Gateway(config.make_wsgi_app())

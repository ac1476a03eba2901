"""A plugin of pytest: tests and fixtures are synchronous, and may wait.

In the ``conftest.py`` beside ``pyproject.toml``::

    pytest_plugins = ["aioext.testing.plugin"]

pytest runs all tests within one :func:`aioext.run`. So a test that uses SQLAlchemy
on an asynchronous driver, directly or through a view that it calls, is written as it
was for a driver that blocks. Tests that are coroutines, of pytest-asyncio or anyio,
have loops of their own and are not concerned.
"""

from __future__ import annotations

from typing import Any

import pytest

from ..bridge import run

__all__ = ["pytest_configure"]


def pytest_configure(config: Any) -> None:
    """Called by pytest when it has read its configuration."""
    config.pluginmanager.register(_InGreenlet(config.pluginmanager))


class _InGreenlet:
    def __init__(self, plugins: Any) -> None:
        self._plugins = plugins

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: Any) -> Any:
        # Whoever runs the tests, pytest or another plugin, does it in there.
        loop = self._plugins.subset_hook_caller("pytest_runtestloop", [self])
        return run(loop, session=session)

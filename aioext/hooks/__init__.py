"""Hooks of Pyramid's that may be coroutines; see :mod:`aioext.hooks.values`."""

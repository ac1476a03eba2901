"""The scaffolds that come with aioext, each found by its entry point.

A scaffold is a directory in cookiecutter's format beside this file, and a function
here that returns it; `aioext.scripts.pcreate` describes what is asked of both.
"""

from pathlib import Path

__all__ = ["aio_starter", "aio_websocket"]

_HERE = Path(__file__).resolve().parent


def aio_starter() -> str:
    """A small Pyramid project on asyncio: coroutine, JSON and synchronous views."""
    return str(_HERE / "aio_starter")


def aio_websocket() -> str:
    """A page with a chat over a WebSocket and the ticks of an event stream."""
    return str(_HERE / "aio_websocket")

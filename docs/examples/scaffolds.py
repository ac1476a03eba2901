"""The scaffolds of mypackage."""

from pathlib import Path


def shop() -> str:
    """A shop with one article."""
    return str(Path(__file__).parent / "shop")

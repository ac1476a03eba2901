"""What ``aioext.sqlalchemy`` registers."""

from zope.interface import Interface

__all__ = ["IEngines"]


class IEngines(Interface):
    """The engines of an application; see :mod:`aioext.sqlalchemy.engines`."""

    def current():
        """The asynchronous engine whose connections belong to the loop used here."""

    def keep(registry):
        """An async context manager: closes what was opened on this loop, at its end."""

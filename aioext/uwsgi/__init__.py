"""uWSGI: its asyncio mode, in which many requests wait at once.

``config.include("aioext")`` switches it on in a process of uWSGI's; nothing has to be
called for that. See :doc:`/uwsgi`.
"""

from .request import call

__all__ = ["call"]

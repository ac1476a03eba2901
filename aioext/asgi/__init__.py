"""The runtime of any ASGI server: uvicorn, hypercorn, granian, daphne.

From Python, ``config.make_asgi_app()`` makes the application; and for a WSGI
application that is there already::

    from aioext.asgi import Gateway
    application = Gateway(wsgi_application)

From an ``.ini`` file, ``aioext.asgi:app`` is what the environment variable
``AIOEXT_INI`` names, and :func:`make_app` takes a path::

    AIOEXT_INI=production.ini uvicorn aioext.asgi:app

Nothing is loaded by the import, for applications import this module as well. A server
that asks the module for its attribute ``app`` gets the application, loaded then. One
that looks into the variables of the module (hypercorn evaluates an expression among
them) gets a stand-in there, which loads it when it is first called, by the server's
lifespan. A module's attribute can differ from its variable because a module may be
given a class; a function ``__getattr__`` would leave no variable.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from ..gateway import Gateway as Gateway
from .loading import LateApp
from .loading import make_app as make_app

__all__ = ["Gateway", "make_app"]


class _Module(types.ModuleType):
    @property
    def app(self) -> Any:
        return app.load()

    def __dir__(self) -> list[str]:
        # To look at everything that a module has is no reason to load.
        return [name for name in super().__dir__() if name != "app"]


app = LateApp()
sys.modules[__name__].__class__ = _Module

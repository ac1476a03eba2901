"""An application for every server: a factory for each interface, and an object.

The environment names the module: ``SUITE_APP=worker_app``. It has a function ``make``
that gives the WSGI application.
"""

import os
import sys
from importlib import import_module
from pathlib import Path

from aioext.asgi import Gateway

sys.path.insert(0, str(Path(__file__).parent.parent / "apps"))


def wsgi(global_config=None, **settings):
    """The WSGI application; also ``paste.app_factory``."""
    return import_module(os.environ["SUITE_APP"]).make()


def asgi():
    """The same for servers that speak ASGI only."""
    return Gateway(wsgi())


def __getattr__(name):
    # For servers that take no factory.
    if name == "asgi_application":
        return asgi()
    if name == "wsgi_application":
        return wsgi()
    raise AttributeError(name)

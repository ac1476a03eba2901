"""An ASGI application from an ``.ini`` file, as pserve makes a WSGI one.

Theory of operation
===================

A server imports its application by a name, so the file has to come by another
way: from the environment. What is loaded is whatever the file describes, an
application, a pipeline or a composite; the lifespans of all Pyramid applications
in it are found by the :class:`~aioext.gateway.Gateway` around it.

A server that imports does not expect to be told anything. uvicorn takes an
``AttributeError`` for a name that does not exist, and a ``TypeError`` of a factory
for the wrong arguments; all show the frames of their own machinery before the
message. So where a server asks (:func:`make_app` without an argument), what is wrong
with the file or the configuration is written to stderr, and the process ends; what
the application raises keeps its traceback and gets a last line that says what was
loaded.
"""

from __future__ import annotations

import configparser
import os
import sys
import traceback
from importlib.metadata import PackageNotFoundError
from typing import Any, NoReturn

import plaster
from pyramid.exceptions import ConfigurationError
from pyramid.paster import get_config_loader

from .. import bridge
from ..applications import speaks_asgi
from ..boot import end_process, is_a_mistake
from ..exceptions import explain
from ..gateway import Gateway

__all__ = ["VARIABLE", "LateApp", "as_asgi", "make_app"]

VARIABLE = "AIOEXT_INI"

# The exit status that says to gunicorn's master, and to uvicorn's users, that a
# worker cannot start, and that another one could not either.
CANNOT_START = 3


def make_app(config_uri: str | None = None, *, multiprocess: bool = False) -> Any:
    """Make an ASGI application of what an ``.ini`` file describes.

    Also sets up logging by the file, as ``pserve`` does.

    Args:
        config_uri: ``path#name``; without ``#name`` it is ``main``. Variables of the
            file are given by ``path?name=value#name``. None: what the environment
            variable ``AIOEXT_INI`` says.
        multiprocess: ``wsgi.multiprocess``: whether other processes serve the
            same application.

    Returns:
        a :class:`~aioext.gateway.Gateway`; or what the file describes, if that is an
        ASGI application already.

    Raises:
        ConfigurationError: the file, or the section, does not exist or cannot be
            read, or the application refuses its configuration.
        Exception: what the application raises.
        SystemExit: in place of a ``ConfigurationError``, with its message on
            stderr, if ``config_uri`` is None: it is a server that asks.
    """
    if config_uri is not None:
        return as_asgi(_load(config_uri), multiprocess)
    config_uri = os.environ.get(VARIABLE, "")
    try:
        if not config_uri:
            raise ConfigurationError(explain(NOT_SET, "asgi-ini"))
        return as_asgi(_load(config_uri), multiprocess)
    except ConfigurationError as error:
        if not is_a_mistake(error):
            raise RuntimeError(FAILED.format(config_uri)) from error
        _refuse(error)
    except Exception as error:
        raise RuntimeError(FAILED.format(config_uri)) from error


class LateApp:
    """The application of the environment, as an ASGI application that loads it.

    A server that calls it has begun to serve. hypercorn drops what is raised then, and
    goes on without a lifespan; so a failure ends the process.
    """

    def __init__(self) -> None:
        self._app: Any = None

    def load(self) -> Any:
        """The application; loaded by the first call, see :func:`make_app`."""
        if self._app is None:
            self._app = make_app()
        return self._app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve ``scope``; what loads the application may wait, on this loop."""
        try:
            app = self._app or await bridge.spawn_greenlet(self.load)
        except SystemExit:
            end_process(CANNOT_START)
        except Exception:
            traceback.print_exc()
            end_process(CANNOT_START)
        await app(scope, receive, send)


def _load(config_uri: str) -> Any:
    loader = _loader_of(config_uri)
    try:
        # It finds what the sections name, and calls nothing yet: what is raised
        # later is the application's.
        loader.get_wsgi_app_settings()
    except (configparser.Error, PackageNotFoundError) as error:
        _mistake(config_uri, error)
    except LookupError as error:
        # PasteDeploy raises this class itself, and none that is derived from it.
        if type(error) is not LookupError:
            raise
        _mistake(config_uri, error)
    try:
        loader.setup_logging()
    except Exception as error:
        _mistake(config_uri, error, ON_LOGGING)
    return loader.get_wsgi_app()


def _loader_of(config_uri: str) -> Any:
    try:
        loader = get_config_loader(config_uri)
    except plaster.PlasterError as error:
        _mistake(config_uri, error)
    path = getattr(loader, "filepath", None)
    if path is not None and not os.path.isfile(path):
        message = NO_FILE.format(config_uri, path)
        raise ConfigurationError(explain(message, "asgi-ini"))
    if path is not None:
        try:
            loader.get_sections()
        except (configparser.Error, UnicodeError, OSError) as error:
            _mistake(config_uri, error)
    return loader


def _mistake(config_uri: str, error: Exception, what: str = "{}") -> NoReturn:
    told = what.format(f"{type(error).__name__}: {error}")
    message = NOT_LOADED.format(config_uri, told)
    raise ConfigurationError(explain(message, "asgi-ini")) from error


def _refuse(error: ConfigurationError) -> NoReturn:
    sys.stderr.write(f"aioext: {error}\n")
    sys.exit(CANNOT_START)


def as_asgi(app: Any, multiprocess: bool = False) -> Any:
    """``app`` in a Gateway, unless it is an ASGI application."""
    return app if speaks_asgi(app) else Gateway(app, multiprocess=multiprocess)


NOT_SET = f"""\
The environment variable {VARIABLE} is not set: no application is known. Set it to \
the path of an .ini file, {VARIABLE}=production.ini, or production.ini#name for \
[app:name]."""

NO_FILE = "{0} names no file: there is none at {1}."

NOT_LOADED = "What {0} describes cannot be loaded. {1}"

ON_LOGGING = "Its sections on logging: {}"

FAILED = "aioext: the application of {} failed while it was loaded, see above"

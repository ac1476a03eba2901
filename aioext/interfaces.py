"""What aioext registers, and where an application may put something else.

Each is a utility of the registry: ``config.registry.registerUtility(other,
IExecutor)`` in an application replaces ours.
"""

from zope.interface import Attribute, Interface

__all__ = [
    "IExecutor",
    "ILifespan",
    "IMounts",
    "IRequestAttributes",
    "ISettings",
    "ISockets",
]


class ISettings(Interface):
    """The settings of aioext, read and checked."""


class IExecutor(Interface):
    """Runs blocking code in threads; see :class:`aioext.executor.Executor`."""

    def run(fn, *args, **kwargs):
        """Coroutine: call ``fn`` in a thread."""

    def call(fn, *args, **kwargs):
        """Call ``fn`` in a thread, and wait for it through the bridge."""

    def aclose():
        """Coroutine: end the threads once their calls have ended."""


class ILifespan(Interface):
    """What is open while an application serves; see :mod:`aioext.lifespan`."""

    is_open = Attribute("Whether it is open in this process.")

    def open():
        """An async context manager: open everything, and close it."""

    def ensure_open():
        """Coroutine: open it until the loop ends, unless it is open."""


class IMounts(Interface):
    """What is mounted in an application; see :class:`aioext.mounts.mount.Mounts`.

    True if there are any.
    """

    sources = Attribute("Where the mount at each host and path comes from.")

    def add(host, path, app):
        """Have a WSGI application answer what is below a path of a host."""

    def holds(lifespan):
        """Whether something that is mounted has that lifespan."""

    def lifespan_of(app, name):
        """The lifespan of an ASGI application, and whether it is new."""

    def find(environ):
        """The WSGI application that answers a request; None if none of them does."""


class IRequestAttributes(Interface):
    """The attributes that requests have of aioext, by their names."""


class ISockets(Interface):
    """The WebSockets of an application; see :mod:`aioext.websocket.config`."""

    options = Attribute("What holds for each, unless its view says otherwise.")
    threads = Attribute("Those that run handlers with ``executor=True``.")
    not_applied = Attribute("Limits that only some servers apply, with their views.")

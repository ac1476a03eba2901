"""What aioext registers, and where an application may put something else.

Each is a utility of the registry: ``config.registry.registerUtility(other,
IExecutor)`` in an application replaces ours.
"""

from zope.interface import Attribute, Interface

__all__ = [
    "IBodyLimits",
    "IBuiltAssets",
    "IExecutor",
    "IFiles",
    "ILifespan",
    "IMounts",
    "IRequestAttributes",
    "ISettings",
    "IShortcuts",
    "ISockets",
    "IVersions",
]


class IBodyLimits(Interface):
    """How large bodies may be; see :class:`aioext.limits.BodyLimits`."""

    default = Attribute("For views that say nothing, in bytes; 0: any number.")
    largest = Attribute("Of the application and all its views.")


class IBuiltAssets(Interface):
    """What an application builds; see :class:`aioext.assets.built.BuiltAssets`."""

    def add(target, sources, builder, depends):
        """Have a file be built."""

    def __iter__():
        """All of them."""

    def stop():
        """End the commands that run to build any of them."""

    def ensure(spec):
        """Have what is built under an asset specification be there, if anything."""

    def find(spec):
        """What is built under an asset specification; None if it is nothing."""


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


class IFiles(Interface):
    """The files of an application; see :class:`aioext.assets.files.Files`."""

    def peek(path):
        """The file, if it is known without a look at it."""

    def entry(path):
        """The file as it is now; waits through the bridge."""

    def digest(path):
        """The hash of a file."""


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


class IShortcuts(Interface):
    """What is answered before the router; see :mod:`aioext.assets.shortcut`."""

    def find(environ):
        """The WSGI application that answers a request; None: the router does."""

    def learn(request, make_finder):
        """Remember what finds the answer to requests like this one."""


class ISockets(Interface):
    """The WebSockets of an application; see :mod:`aioext.websocket.config`."""

    options = Attribute("What holds for each, unless its view says otherwise.")
    threads = Attribute("Those that run handlers with ``executor=True``.")
    not_applied = Attribute("Limits that only some servers apply, with their views.")


class IVersions(Interface):
    """The versions of files; see :class:`aioext.assets.versions.Versions`."""

    def split(root, subpath, environ):
        """The path of a file without its version, and the version that is asked for."""

    def cache_headers(entry, asked, sent=None, is_public=True):
        """The ``Cache-Control`` of a file; None: it has no opinion."""

    def of(spec, by):
        """The version of a file as it is now; None: there is none."""

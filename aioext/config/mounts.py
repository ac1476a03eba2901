"""The directive ``add_mount``, and the setting ``aioext.mounts``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyramid.config import PHASE1_CONFIG
from pyramid.exceptions import ConfigurationError

from ..exceptions import explain
from ..gateway import Gateway
from ..interfaces import IExecutor, ILifespan, IMounts, ISettings
from ..mounts.mount import ASGIMount, PyramidMount, WSGIMount, kind_of
from ..mounts.table import normalize_host
from .policy import LAST, adapt_execution_policy

__all__ = ["add_mount"]

# After the settings, which PHASE1 registers.
AFTER_SETTINGS = PHASE1_CONFIG + 1

ANCHOR = "mounts"

# Where a mount comes from.
SETTING = "setting"
STATEMENT = "statement"


def includeme(config: Any) -> None:
    """Add what mounts need; ``config.include('aioext')`` does so."""
    config.add_directive("add_mount", add_mount)
    config.action(None, _mount_settings, (config,), order=AFTER_SETTINGS)


def _mount_settings(config: Any) -> None:
    # A name that begins with a dot is relative to the application, and not to aioext.
    config = config.with_package(config.root_package)
    for place, app in config.registry.getUtility(ISettings).mounts:
        host, slash, path = place.partition("/")
        try:
            _add(config, f"{slash}{path}" or None, app, host or None, SETTING)
        except ConfigurationError as error:
            message = f"In the setting aioext.mounts, {place} {app}: {error}"
            raise ConfigurationError(message) from error


def add_mount(
    config: Any,
    path: str | None = None,
    app: Any = None,
    *,
    host: str | Iterable[str] | None = None,
    inline: bool = False,
) -> None:
    """Have another application answer what is below a path, or what is for a host.

    Called for its effect as a directive: ``config.add_mount('/blog', blog)``. See
    :doc:`/mounts`.

    Args:
        path: begins with a slash, and is matched by whole segments, decoded. It
            becomes a part of the mounted application's ``SCRIPT_NAME``. A
            ``route_prefix`` of the configurator goes before it. None: every path of
            ``host``.
        app: a WSGI, an ASGI or a Pyramid application, or its dotted Python name,
            ``package.module:attribute``.
        host: a host name, or an iterable of them; one that begins with a dot stands
            for all sub-domains of what follows. Ports make no difference. None: every
            host.
        inline: call a WSGI application where the request is, and not in a thread of
            the executor: it must not block.

    Raises:
        ConfigurationError: there is neither ``path`` nor ``host``, one of them cannot
            be matched, ``app`` is no application, cannot be imported or is this one, or
            ``inline`` is given for an application that never runs in the executor.
        ConfigurationConflictError: when it is committed: there is another mount at
            the same place.
    """
    _add(config, path, app, host, STATEMENT, inline)


def _add(
    config: Any, path: Any, app: Any, host: Any, source: str, inline: bool = False
) -> None:
    path = _read_path(config, path)
    hosts = _read_hosts(host)
    if not path and hosts == [None]:
        raise _error(NOWHERE)
    app = _resolve(config, app)
    kind = kind_of(app)
    name = config.object_description(app)
    if kind is None:
        raise _error(NO_APPLICATION.format(name))
    if getattr(app, "registry", None) is config.registry:
        raise _error(ITSELF.format(_place(hosts[0], path)))
    if inline and kind is not WSGIMount:
        raise _error(NOT_INLINE.format(name, KINDS[kind]))
    for each in hosts:
        _add_one(config, each, path, app, source, inline)


def _add_one(
    config: Any, host: str | None, path: str, app: Any, source: str, inline: bool
) -> None:
    registry = config.registry
    place = _place(host, path)

    def register() -> None:
        mounts = registry.getUtility(IMounts)
        if mounts.sources.setdefault((host, path), source) != source:
            raise _error(TWICE.format(place))
        # A WSGI string carries bytes as latin-1.
        as_bytes = path.encode().decode("latin-1")
        mounts.add(host, as_bytes, _mounted(registry, app, place, inline))
        adapt_execution_policy(registry)

    intr = config.introspectable("mounts", (host, path), place, "mount")
    intr["host"] = host
    intr["path"] = path or "/"
    intr["app"] = app
    intr["kind"] = kind_of(app).kind
    intr["inline"] = inline
    # By Pyramid's rules a statement of the application's would be preferred to one of
    # what it includes, which aioext is, and the setting be ignored without a word.
    discriminator = ("aioext.mount", source, host, path)
    config.action(discriminator, register, introspectables=(intr,), order=LAST)


def _mounted(registry: Any, app: Any, place: str, inline: bool) -> Any:
    kind = kind_of(app)
    lifespan = registry.getUtility(ILifespan)
    if kind is PyramidMount:
        mount = PyramidMount(app)
        if mount.lifespan not in lifespan.mounted:
            lifespan.mounted.append(mount.lifespan)
            lifespan.factories.append(mount.open)
        return mount
    if kind is ASGIMount:
        own, is_new = registry.getUtility(IMounts).lifespan_of(app, place)
        asgi = ASGIMount(app, own)
        if is_new:
            lifespan.factories.append(asgi.open)
        return asgi
    return WSGIMount(app, None if inline else registry.getUtility(IExecutor))


def _read_path(config: Any, path: Any) -> str:
    if path is None:
        return ""
    if not isinstance(path, str) or not path.startswith("/"):
        raise _error(NO_SLASH.format(path))
    prefix = (config.route_prefix or "").strip("/")
    segments = [each for each in (prefix, path.strip("/")) if each]
    whole = "".join(f"/{each}" for each in segments)
    parts = whole.split("/")[1:]
    if set(parts) & {"", ".", ".."} or set(path) & set("?#%"):
        raise _error(NOT_MATCHED.format(path))
    return whole


def _read_hosts(host: Any) -> list[str | None]:
    if host is None:
        return [None]
    if isinstance(host, str):
        return [_read_host(host)]
    given = list(host) if isinstance(host, Iterable) else []
    if not given:
        raise _error(NO_HOST.format(host))
    # Each once; what is equal is no conflict within one statement.
    return list(dict.fromkeys(_read_host(each) for each in given))


def _read_host(host: Any) -> str:
    if not isinstance(host, str):
        raise _error(NO_HOST.format(host))
    is_domain = host.startswith(".")
    name = host[1:] if is_domain else host
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            raise _error(NO_HOST.format(host)) from None
    if ":" in name and not name.startswith("["):
        name = f"[{name}]"
    normal = normalize_host(name)
    if normal is None or name.endswith(":") or _has_port(name, normal):
        raise _error(NO_HOST.format(host))
    return f".{normal}" if is_domain else normal


def _has_port(name: str, normal: str) -> bool:
    after = name.rpartition("]")[2] if normal.startswith("[") else name
    return ":" in after


def _resolve(config: Any, app: Any) -> Any:
    if isinstance(app, str):
        try:
            app = config.maybe_dotted(app)
        except (ImportError, AttributeError, ValueError) as error:
            raise _error(NOT_FOUND.format(app, error)) from error
    # What config.make_asgi_app() gives is its Pyramid application here.
    return app.app if type(app) is Gateway else app


def _place(host: str | None, path: str) -> str:
    return f"{host or ''}{path}" or "/"


def _error(message: str) -> ConfigurationError:
    return ConfigurationError(explain(message, ANCHOR))


KINDS = {
    ASGIMount: "an ASGI application, which runs on the event loop anyway",
    PyramidMount: "a Pyramid application that includes aioext, which says by itself "
    "where its views run",
}

TWICE = """\
Two applications are mounted at {}: one by add_mount(), one by the setting \
aioext.mounts. Remove one of them."""

NOWHERE = """\
add_mount() takes a path other than "/", or a host: without them nothing would be left \
to this application. Write config.add_mount("/path", app), or give host="name"."""

NO_SLASH = """\
add_mount() takes a path that begins with a slash, got {!r}. Write \
config.add_mount("/path", app)."""

NOT_MATCHED = """\
add_mount() was given the path {!r}, which no request has: paths are compared decoded, \
and without their query. Write it as "/one/two", without "//", ".", "..", "?", "#" \
and "%"."""

NO_HOST = """\
add_mount() was given the host {!r}. It takes a name without a port, \
"www.example.com", or ".example.com" for all sub-domains of that, or an address, or \
several of them in a tuple."""

NO_APPLICATION = """\
add_mount() was given {}, which is neither a WSGI nor an ASGI application: it can be \
called neither with (environ, start_response) nor with (scope, receive, send). Give \
the application itself; what a factory returns, if there is one."""

NOT_FOUND = """\
add_mount() was given the application {!r}, which cannot be imported: {}. Write \
"package.module:attribute"."""

ITSELF = """\
add_mount() was given this very application, at {}. To have it answer under that path \
as well, mount it in another one, or use egg:Paste#urlmap."""

NOT_INLINE = """\
add_mount() was given inline=True for {}, {}. It is for WSGI applications that do not \
block; leave it out."""

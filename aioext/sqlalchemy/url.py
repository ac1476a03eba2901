"""The URL of the database, and the options of its engine, checked early."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyramid.exceptions import ConfigurationError
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, async_engine_from_config
from sqlalchemy.pool import AsyncAdaptedQueuePool

from ..exceptions import explain
from .pool import SharedPool

__all__ = ["PREFIX", "make_engine"]

PREFIX = "sqlalchemy."

# The drivers to name instead of a synchronous one, by database.
DRIVERS = {
    "mariadb": ("asyncmy", "aiomysql"),
    "mssql": ("aioodbc",),
    "mysql": ("asyncmy", "aiomysql"),
    "oracle": ("oracledb_async",),
    "postgresql": ("asyncpg", "psycopg"),
    "sqlite": ("aiosqlite",),
}


def make_engine(settings: Mapping[str, Any]) -> AsyncEngine:
    """An engine as the settings ``sqlalchemy.*`` want it; it opens nothing yet.

    Raises:
        ConfigurationError: there is no URL, its driver is synchronous or not
            installed, or there is no such option.
    """
    url = _checked_url(settings)
    options: dict[str, Any] = {}
    chosen = {f"{PREFIX}pool", f"{PREFIX}poolclass"} & settings.keys()
    if not chosen and _pool_class(url) is AsyncAdaptedQueuePool:
        options["poolclass"] = SharedPool
    try:
        return async_engine_from_config(
            {**settings, f"{PREFIX}url": url}, PREFIX, **options
        )
    except ImportError as error:
        raise _refusal(NOT_INSTALLED, url, error) from error
    except (ArgumentError, TypeError, ValueError) as error:
        raise _refusal(BAD_OPTION, url, error) from error


def _checked_url(settings: Mapping[str, Any]) -> URL:
    text = settings.get(f"{PREFIX}url")
    if not text:
        raise ConfigurationError(explain(NO_URL, "sqlalchemy-url"))
    try:
        url = make_url(text)
        dialect = url.get_dialect()
        is_async = dialect.get_async_dialect_cls(url).is_async
    except (ArgumentError, NoSuchModuleError) as error:
        message = NOT_A_URL.format(error=error)
        raise ConfigurationError(explain(message, "sqlalchemy-url")) from None
    if "+" not in url.drivername or not is_async:
        raise _refusal(SYNCHRONOUS, url)
    return url


def _refusal(
    message: str, url: URL, error: Exception | None = None
) -> ConfigurationError:
    backend = url.get_backend_name()
    drivers = DRIVERS.get(backend, ("<an asynchronous driver>",))
    written = url.set(drivername=url.drivername).render_as_string()
    instead = " or ".join(
        url.set(drivername=f"{backend}+{driver}").render_as_string()
        for driver in drivers
    )
    text = message.format(url=written, instead=instead, error=error)
    return ConfigurationError(explain(text, "sqlalchemy-url"))


def _pool_class(url: URL) -> type:
    return url.get_dialect().get_async_dialect_cls(url).get_pool_class(url)


NO_URL = """\
config.include('aioext.sqlalchemy') needs to know the database. Set sqlalchemy.url, \
for example to postgresql+asyncpg://user@host/name or to sqlite+aiosqlite:///path."""

NOT_A_URL = "The setting sqlalchemy.url is no address of a database: {error}"

SYNCHRONOUS = """\
The setting sqlalchemy.url is {url}, which names no driver for asyncio: it would \
block the event loop. Write {instead} instead."""

NOT_INSTALLED = """\
The driver of sqlalchemy.url, {url}, cannot be imported: {error}. Install it, or name \
another: {instead}."""

BAD_OPTION = """\
An engine for {url} cannot be made of the settings sqlalchemy.*: {error}"""

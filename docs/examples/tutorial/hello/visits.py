"""A database, open while the application serves."""

from contextlib import asynccontextmanager

import aiosqlite
from pyramid.view import view_config


@asynccontextmanager
async def database(registry):
    """Open before the first request, closed after the last one."""
    path = registry.settings.get("hello.database", ":memory:")
    async with aiosqlite.connect(path, isolation_level=None) as connection:
        await connection.execute("create table if not exists visit (page text)")
        registry["database"] = connection
        yield


@view_config(route_name="visits", renderer="json")
async def visits(request):
    """Count the visits of a page, this one included."""
    database = request.registry["database"]
    page = (request.matchdict["page"],)
    await database.execute("insert into visit values (?)", page)
    query = "select count(*) from visit where page = ?"
    async with database.execute(query, page) as cursor:
        (count,) = await cursor.fetchone()
    return {"visits": count}


def includeme(config):
    config.add_route("visits", "/visits/{page}")
    config.add_lifespan(database)

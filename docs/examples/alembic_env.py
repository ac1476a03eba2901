"""The ``env.py`` of alembic."""

from alembic import context
from books import Base
from pyramid.paster import get_appsettings
from sqlalchemy.ext.asyncio import async_engine_from_config

import aioext


def run_migrations():
    settings = get_appsettings(context.config.config_file_name)
    engine = async_engine_from_config(settings, "sqlalchemy.").sync_engine
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


aioext.run(run_migrations)

"""The examples of the page on the life cycle; the tests run them."""

import asyncio
import logging
from contextlib import asynccontextmanager

from aioext import AppStarting, AppStopping, wait

log = logging.getLogger(__name__)


async def open_pool(url):
    return Pool()


class Pool:
    closed = False
    refreshed = 0

    async def refresh(self):
        self.refreshed += 1

    async def close(self):
        self.closed = True


# lifespan
@asynccontextmanager
async def pool(registry):
    registry["pool"] = await open_pool(registry.settings["pool.url"])
    yield
    await registry["pool"].close()


def includeme(config):
    config.add_lifespan(pool)


# end


# task
async def refresh(pool):
    while True:
        try:
            await pool.refresh()
        except OSError:
            log.exception("the pool was not refreshed")
        await asyncio.sleep(60)


@asynccontextmanager
async def refreshing(registry):
    task = asyncio.create_task(refresh(registry["pool"]))
    yield
    task.cancel()
    await asyncio.wait([task])


# end


# events
def warm_up(event):
    wait(event.registry["pool"].refresh())


def say_goodbye(event):
    log.info("%s is stopping", event.registry.package_name)


def subscribe(config):
    config.add_subscriber(warm_up, AppStarting)
    config.add_subscriber(say_goodbye, AppStopping)


# end

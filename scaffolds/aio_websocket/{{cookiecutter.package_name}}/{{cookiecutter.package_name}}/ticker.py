"""The ticker: one tick a second, kept for a while for those who come back."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count

from aioext.eventsource import Event, MemoryEventLog

# Seconds from one tick to the next.
INTERVAL = 1
# Ticks that are kept. Who was away for longer is told that some are missing.
KEPT = 300


def includeme(config):
    """Add `request.ticks`, the log of what has ticked, and let it tick."""
    config.registry.ticks = MemoryEventLog(size=KEPT)
    config.add_request_method(
        lambda request: request.registry.ticks, "ticks", property=True
    )
    config.add_lifespan(ticking)


@asynccontextmanager
async def ticking(registry):
    """Tick as long as the application serves."""
    task = asyncio.create_task(tick(registry.ticks))
    yield
    task.cancel()
    await asyncio.wait([task])


async def tick(log):
    """Put ticks into the log, which gives each of them its id."""
    for number in count(1):
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        log.append(Event({"number": number, "time": now}, event="tick"))
        await asyncio.sleep(INTERVAL)

"""Event streams: views that tell a page what happens, as it happens.

The names here are what an application uses; see :doc:`/eventsource`.
"""

from __future__ import annotations

from .config import EventSourceMapper as EventSourceMapper
from .event import Event as Event
from .event import Retry as Retry
from .log import EventLog as EventLog
from .log import IEventStore as IEventStore
from .log import MemoryEventLog as MemoryEventLog
from .response import EventSourceResponse as EventSourceResponse

__all__ = [
    "Event",
    "EventLog",
    "EventSourceMapper",
    "EventSourceResponse",
    "IEventStore",
    "MemoryEventLog",
    "Retry",
]

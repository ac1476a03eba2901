"""Requests that outlive their client, in spite of gunicorn.

gunicorn cancels whatever still serves a client that left
``asgi_disconnect_grace_period`` seconds ago. Here it is the application that says
which requests end with their client (``aioext.cancel_on_disconnect``), for half an
order is worse than one that nobody waits for. gunicorn cannot be told so: the setting
also ends connections that are merely idle. So a request that is to go on runs in a
Task of its own, which gunicorn does not know, and the Task that gunicorn cancels waits
for it.

While gunicorn stops it waits for connections, and that client's has gone. So the worker
adds sheltered requests to what it waits for, and they have ``graceful_timeout`` seconds
like any other; what goes on after that is cancelled with all Tasks of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any

from ..guards import SAFE_METHODS, cancels

__all__ = ["Shelter"]


class Shelter:
    """An ASGI application around the gateway's.

    Args:
        app: the ASGI application.
        rules: ``aioext.cancel_on_disconnect`` of the applications that it serves.
        worker: whose ``sheltered`` is the number of those that are under way.
    """

    def __init__(self, app: Any, rules: Iterable[str], worker: Any) -> None:
        self.app = app
        rules = set(rules)
        self._keeps_safe = any(not cancels(rule, "GET") for rule in rules)
        self._keeps_unsafe = any(not cancels(rule, "POST") for rule in rules)
        self._worker = worker

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        serving = self.app(scope, receive, send)
        if scope["type"] != "http":
            return serving
        is_safe = scope["method"] in SAFE_METHODS
        is_kept = self._keeps_safe if is_safe else self._keeps_unsafe
        return self._keep(serving) if is_kept else serving

    async def _keep(self, serving: Any) -> None:
        task = asyncio.create_task(serving)
        self._worker.sheltered += 1
        try:
            while not task.done():
                try:
                    await asyncio.wait((task,))
                except asyncio.CancelledError:
                    # gunicorn's, for the client; when it ends it cancels the other
                    # Task, too.
                    continue
            task.result()
        finally:
            self._worker.sheltered -= 1
            del task

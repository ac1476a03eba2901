"""The gunicorn worker: gunicorn's own ASGI worker, serving WSGI applications.

gunicorn accepts connections, parses, limits, times out, logs and stops, by its
own settings. This worker puts a :class:`~aioext.gateway.Gateway` around the
application that gunicorn loaded, unless it speaks ASGI itself, and readies the
process for many requests at once: what exists once the application is loaded
is taken out of the garbage collector's sight (``gc.freeze``), and collections
become rarer. With a thousand requests waiting, collecting took about half of
the processor's time otherwise.

gunicorn loads this module by name, so a gunicorn that is missing or too old is
told at its import, in one line, and ends the server.
"""

from __future__ import annotations

import gc
import inspect
import os
import sys
from typing import Any

from ..gateway import Gateway
from ..lifespan import lifespans_of

NEEDED = 27

try:
    import gunicorn

    if gunicorn.version_info[0] < NEEDED:
        raise ImportError
    from gunicorn.arbiter import Arbiter
    from gunicorn.workers.gasgi import ASGIWorker
except ImportError:
    found = getattr(sys.modules.get("gunicorn"), "__version__", "none")
    sys.exit(
        f"aioext: this worker needs gunicorn >= {NEEDED}, found {found}. "
        f"Write: pip install 'aioext[gunicorn]'"
    )

__all__ = ["AsyncGunicornWorker"]

# Allocations between two collections of the youngest generation; 700 is the
# interpreter's own.
GC_THRESHOLD = 25_000


class AsyncGunicornWorker(ASGIWorker):
    """Serves Pyramid, or any WSGI or ASGI application, on asyncio.

    ``worker_class = aioext.gunicorn.worker.AsyncGunicornWorker``; every
    setting of gunicorn's ASGI worker keeps its meaning.
    """

    def load_wsgi(self) -> None:
        """Load the application; called by gunicorn in the worker's process."""
        super().load_wsgi()
        application = self.asgi
        if not speaks_asgi(application):
            if not speaks_wsgi(application):
                self._refuse(application)
            self.asgi = Gateway(
                application,
                multiprocess=self.cfg.workers > 1,
                isolate=self.cfg.protocol == "uwsgi",
            )
        lifespans = lifespans_of(application)
        if self.cfg.reload and any(each.created_pid != os.getpid() for each in lifespans):
            self.log.warning(RELOAD)
        if all(each.settings.gc_freeze for each in lifespans):
            freeze()

    def _refuse(self, application: Any) -> None:
        self.log.error(NO_APPLICATION, application)
        sys.exit(Arbiter.APP_LOAD_ERROR)


def speaks_asgi(application: Any) -> bool:
    """Whether ``application`` is an ASGI application: a coroutine function."""
    return inspect.iscoroutinefunction(application) or inspect.iscoroutinefunction(
        getattr(application, "__call__", None)  # noqa: B004 - not only callable?
    )


def speaks_wsgi(application: Any) -> bool:
    """Whether ``application`` can be called with an environ and a callable."""
    if not callable(application):
        return False
    try:
        inspect.signature(application).bind({}, None)
    except TypeError:
        return False
    except ValueError:
        # A callable that does not tell its signature has the benefit of doubt.
        return True
    return True


def freeze() -> None:
    """Spare the garbage collector what is loaded, and call it less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])


NO_APPLICATION = (
    "aioext: %r is neither a WSGI nor an ASGI application. Name a callable that "
    "takes (environ, start_response), or a coroutine function of (scope, "
    "receive, send); a factory is called with parentheses: 'module:factory()'."
)

RELOAD = (
    "aioext: reload has no effect, for pserve has loaded the application in the "
    "master process. Use 'pserve --reload' or 'gunicorn --paste FILE --reload'."
)

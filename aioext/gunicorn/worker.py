"""The gunicorn worker: gunicorn's own ASGI worker, serving WSGI applications.

gunicorn accepts connections, parses, limits, times out, logs and stops, by its
own settings. This worker puts a :class:`~aioext.gateway.Gateway` around the
application that gunicorn loaded, unless it speaks ASGI itself, and readies the
process for many requests at once: what exists once the application is loaded
is taken out of the garbage collector's sight (``gc.freeze``), and collections
become rarer. With a thousand requests waiting, collecting took about half of
the processor's time otherwise.

One thing is timed differently. Once ``graceful_timeout`` is over, gunicorn's
master kills a worker that still serves, be it only a stream without an end; the
application's resources would never be closed. Shortly before, this worker cuts
such connections, so that there is time to close.

And two are decided elsewhere: whether a request ends with its client, see
:mod:`aioext.gunicorn.shelter`; and when a connection is accepted, see
:mod:`aioext.gunicorn.listener`.

gunicorn's master starts a worker again that has ended, unless its exit status
says that it cannot serve. pserve hides that status: it catches SystemExit, also
in the workers, which are forks of it. So the status is insisted upon.

gunicorn loads this module by name, so one that is too old is told at its
import, in one line, and ends the server.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from pyramid.exceptions import ConfigurationError
from pyramid.registry import Registry

from .. import shutdown
from ..applications import speaks_asgi, speaks_wsgi
from ..boot import end_process, is_a_mistake
from ..gateway import Gateway
from ..greenlets import current_task
from ..lifespan import lifespans_of

NEEDED = 27


def _refuse_version(found: str) -> None:
    message = (
        f"aioext: this worker needs gunicorn >= {NEEDED}, found {found}. "
        f"Write: pip install 'aioext[gunicorn]'"
    )
    if "gunicorn.arbiter" in sys.modules:
        # gunicorn is loading it, and would wrap an ImportError in a traceback.
        sys.exit(message)
    raise ImportError(message, name="gunicorn")


try:
    import gunicorn
except ImportError:
    _refuse_version("none")
if gunicorn.version_info[0] < NEEDED:
    _refuse_version(gunicorn.__version__)

from gunicorn.arbiter import Arbiter  # noqa: E402 - only one that is new enough
from gunicorn.workers.gasgi import ASGIWorker  # noqa: E402

from . import websocket  # noqa: E402
from .listener import Attended, Listener, limit_of, protocol_factory  # noqa: E402
from .shelter import Shelter  # noqa: E402

__all__ = ["AsyncGunicornWorker"]

# Allocations between two collections of the youngest generation; the
# interpreter's own is 700, and 2,000 since Python 3.13.
GC_THRESHOLD = 25_000

# Seconds, and the part of graceful_timeout, that remain for closing; the
# smaller one is taken.
CLOSING = 1.0
CLOSING_PART = 0.1

# To the master these say that no worker can serve: it ends.
_CANNOT_SERVE = (Arbiter.WORKER_BOOT_ERROR, Arbiter.APP_LOAD_ERROR)


class AsyncGunicornWorker(ASGIWorker):
    """Serves Pyramid, or any WSGI or ASGI application, on asyncio.

    ``worker_class = aioext.gunicorn.worker.AsyncGunicornWorker``; every
    setting of gunicorn's ASGI worker keeps its meaning.
    """

    # What gunicorn's main loop runs in, once it has looked around.
    _serving: asyncio.Task[None] | None = None
    _alive = True
    _stopping = False
    _has_websockets = False
    _connections = 0
    _listener: Listener | None = None

    # Requests that may outlive their client's connection; see aioext.gunicorn.shelter.
    sheltered = 0

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Warn about settings without effect; called once, in the master."""
        super().check_config(cfg, log)
        if cfg.reload and lifespans_of(None):
            log.warning(RELOAD)
        if protocol_factory(None) is None:
            log.error(NO_LISTENER, gunicorn.__version__)

    def init_signals(self) -> None:
        """Have signals noticed whenever they come; called by gunicorn at boot.

        A handler that is given to a loop before it runs misses what comes
        before that, on uvloop for good.
        """
        super().init_signals()
        for number, handle in (
            (signal.SIGTERM, self.handle_exit_signal),
            (signal.SIGINT, self.handle_quit_signal),
            (signal.SIGQUIT, self.handle_quit_signal),
        ):
            self.loop.remove_signal_handler(number)
            signal.signal(number, self._on_the_loop(handle))

    def _on_the_loop(self, handle: Callable[[], None]) -> Callable[..., None]:
        def noticed(*args: Any) -> None:
            # The process may end well after its loop, and be told once more.
            if not self.loop.is_closed():
                self.loop.call_soon_threadsafe(handle)

        return noticed

    def notify(self) -> None:
        """Tell the master that this worker lives; called once a second."""
        self._serving = current_task()
        if self._listener is None and self.servers:
            self._listen()
        if self.ppid != os.getppid():
            # The master has died. gunicorn's loop sees it next, and leaves without
            # a word; it is not to be cancelled, for it is what stops the worker.
            self._announce()
        super().notify()

    def _listen(self) -> None:
        factory = protocol_factory(self)
        if factory is None:
            # Its own servers stay; said once, in the master.
            return
        self._listener = Listener(self, factory, limit_of(self.cfg))
        self._listener.take_over(self.servers, self._connections)

    @property
    def nr_conns(self) -> int:
        """What gunicorn waits for when it stops: connections, as long as there are any.

        A request that is sheltered counts although its connection is gone.
        """
        return max(self._connections, self.sheltered)

    @nr_conns.setter
    def nr_conns(self, number: int) -> None:
        # gunicorn adds one, or takes one away.
        self._connections += number - self.nr_conns
        if self._listener is not None:
            self._listener.count(self._connections)

    @property
    def alive(self) -> bool:
        """Whether the worker goes on; gunicorn sets it to False to stop it.

        A signal does so, a reload, or the last of ``max_requests``. It takes effect
        in the loop's next turn.
        """
        return self._alive

    @alive.setter
    def alive(self, alive: bool) -> None:
        loop = getattr(self, "loop", None)
        if alive or loop is None or loop.is_closed():
            self._alive = alive
        else:
            # The reloader does it in a thread of its own.
            loop.call_soon_threadsafe(self._begin_to_stop)

    def _begin_to_stop(self) -> None:
        # gunicorn looks every second whether it is to stop; a cancellation of
        # the Task that does so makes it look now. It must not have looked already,
        # for what would be cancelled then is the end itself.
        self._alive = False
        if self._announce() and self._serving is not None:
            self._serving.cancel()

    def _announce(self) -> bool:
        # Whether nobody has announced it before.
        if self._stopping:
            return False
        self._stopping = True
        if self._listener is not None:
            # Who is told to come back is not to be served here again.
            self._listener.close()
        shutdown.announce(self.loop)
        return True

    def init_process(self) -> None:
        """Run the worker until its end; called by gunicorn after the fork."""
        missing = websocket.install()
        self._has_websockets = missing is None
        if missing is not None:
            self.log.error(NO_WEBSOCKETS, gunicorn.__version__, missing)
        try:
            super().init_process()
        except KeyboardInterrupt:
            # Out of a request. It would go on to the handler in the master's own
            # main loop, of which this fork has a copy: that halts the server.
            sys.exit(1)
        except SystemExit as end:
            if self._serving is not None and end.code in _CANNOT_SERVE:
                # Out of a request: no reason to end the server.
                end.code = 1
            if type(end.code) is int and end.code != 0:
                atexit.register(end_process, end.code)
            raise

    def load_wsgi(self) -> None:
        """Load the application; called by gunicorn in the worker's process."""
        try:
            self.app.wsgi()
        except SyntaxError as error:
            # A module that was not imported is not among those that the
            # reloader looks at. gunicorn's own method sees the error, too.
            if self.reloader is not None and error.filename is not None:
                self.reloader.add_extra_file(error.filename)
        except ConfigurationError as error:
            if not is_a_mistake(error):
                raise
            self._refuse("aioext: the application is not configured: %s", error)
        super().load_wsgi()
        application = self.asgi
        if type(application) is Gateway:
            # config.make_asgi_app() does not know how it will be served.
            application = application.app
        if not speaks_asgi(application):
            if not speaks_wsgi(application):
                self._refuse(NO_APPLICATION, application)
            self.asgi = Gateway(
                application,
                multiprocess=self.cfg.workers > 1,
                isolate=self.cfg.protocol == "uwsgi",
                has_websockets=self._has_websockets,
            )
        lifespans = lifespans_of(application)
        rules = {each.settings.cancel_on_disconnect for each in lifespans}
        if rules - {"always"} and type(self.asgi) is Gateway:
            self.asgi = Shelter(self.asgi, rules, self)
        self.asgi = Attended(self.asgi)
        if not lifespans and _is_pyramid(application):
            self.log.warning(NOT_INCLUDED)
        if all(each.settings.gc_freeze for each in lifespans):
            freeze()

    def _refuse(self, message: str, *args: Any) -> NoReturn:
        self.log.error(message, *args)
        sys.exit(Arbiter.APP_LOAD_ERROR)

    def handle_exit_signal(self) -> None:
        """Stop gracefully, and leave time for closing; see the module."""
        super().handle_exit_signal()
        patience = self.cfg.graceful_timeout
        patience -= min(CLOSING, CLOSING_PART * patience)
        self.loop.call_later(patience, self.handle_quit_signal)


def _is_pyramid(application: Any) -> bool:
    return isinstance(getattr(application, "registry", None), Registry)


def freeze() -> None:
    """Spare the garbage collector what is loaded, and call it less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])


NO_WEBSOCKETS = (
    "aioext: WebSockets are served by gunicorn's own protocol, for in gunicorn %s %s. "
    "It has no pings, no compression, and no limits of aioext's."
)

NO_LISTENER = (
    "aioext: gunicorn %s has no gunicorn.asgi.protocol.ASGIProtocol: it accepts "
    "connections itself, worker_connections has no effect, and a client has any time "
    "for its first request."
)

NO_APPLICATION = (
    "aioext: %r is neither a WSGI nor an ASGI application. Name a callable that "
    "takes (environ, start_response), or a coroutine function of (scope, "
    "receive, send); a factory is called with parentheses: 'module:factory()'."
)

NOT_INCLUDED = (
    'aioext: the application does not include aioext: write config.include("aioext"), '
    "or views that are coroutines fail."
)

RELOAD = (
    "aioext: reload has no effect, for the master process has loaded the "
    "application (as pserve and preload_app do). Use 'pserve --reload' or "
    "'gunicorn --paste FILE --reload'."
)

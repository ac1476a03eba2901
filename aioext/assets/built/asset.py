"""One built file: when it is due, and who builds it.

Theory of operation
===================

Whoever needs the file asks for its :meth:`BuiltAsset.path`. If it is not up to date,
a *build* is begun, or joined if one is under way: there is one at a time for each file,
in a process by a Future that all askers wait for, and among processes by a lock on
disk.

The build has a thread of its own. Not the asker's: if that is cancelled, the others go
on waiting. Not one of the executor's: they may all be taken by those who wait for it.
Few are, though: who asks on a loop waits there, and only then has a thread read the
file (:func:`aioext.assets.spec.ensure_built`).
What it has read is written down with the file (:mod:`.cache`): the sources, what the
builder says that it has read besides, and the module that the builder is defined in.

A source that changes while it is read is noticed next time, for its time was taken
before. Of what the builder names afterwards, no time was taken before: what is as young
as the build is written down as changed.

=====================  ==========================  ====================================
the file is            in production               with ``pyramid.reload_assets``
=====================  ==========================  ====================================
up to date             looked at once              looked at at each use
not                    built                       built
not, and its build     the last good one, from     the last good one; built again when a
has failed             now on; without one, built  source changes or after a second
                       again after a second
=====================  ==========================  ====================================
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import hashlib
import inspect
import logging
import os
import threading
import time
import weakref
from asyncio import wrap_future
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ... import threadlocal
from ...bridge import wait
from ...exceptions import BuildError
from ...executor import current_executor
from . import commands
from . import sources as files
from .cache import Slot, State, states

__all__ = ["BuiltAsset"]

log = logging.getLogger("aioext")

Builder = Callable[[list[Path], Path], Any]

# Seconds before what has failed is tried again, though nothing has changed.
RETRY = 1.0
# Seconds that the end of the process waits for a build.
PATIENCE = 5.0
# Nanoseconds by which the clock of a file system may be behind.
GRANULARITY = 50_000_000


@dataclasses.dataclass(frozen=True)
class _Failure:
    inputs: dict[str, State]
    message: str
    again: float

    def holds(self, inputs: dict[str, State]) -> bool:
        return self.inputs == inputs and time.monotonic() < self.again


class BuiltAsset:
    """A file that is built from others; made by ``config.add_built_asset``.

    Attributes:
        spec: the asset specification of what is built.
        sources: the asset specifications of what it is built from.
        depends: of what it depends on besides.
        place: the absolute path that ``spec`` stands for, where nothing is written.
    """

    def __init__(
        self,
        registry: Any,
        spec: str,
        sources: Sequence[str],
        builder: Builder,
        depends: Sequence[str] = (),
        *,
        directory: Path,
        reload: bool = False,
    ) -> None:
        self.spec = spec
        self.sources = tuple(sources)
        self.depends = tuple(depends)
        self._registry = registry
        self._builder = builder
        self._reload = reload
        self.place = files.locate_original(spec)
        self._slot = Slot(directory / self._key(), os.path.basename(self.place))
        self._failure: _Failure | None = None
        # Where the file is, once nobody needs to look at it any more.
        self._settled: str | None = None
        self._lock = threading.Lock()
        self._building: Future[str] | None = None
        self._thread: threading.Thread | None = None
        _assets.add(self)

    def _key(self) -> str:
        # Two applications that share a cache share nothing in it, unless they would
        # build the same file in the same way.
        parts = (self.place, self.sources, identity(self._builder))
        name = os.path.basename(self.place).partition(".")[0]
        return f"{name[:50]}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"

    def path(self) -> str:
        """The absolute path of the file, built if that is due.

        May be called in all synchronous code; it waits as that may (see
        :func:`aioext.wait`). In production, it costs nothing once it was up to date.

        Raises:
            BuildError: it could not be built, and has never been.
            ScopeError: it has to be built, and synchronous code cannot wait here.

        Cancellation: safe; the build goes on.
        """
        if self._settled is not None:
            return self._settled
        path = current_executor().call(self._look)
        if path is None:
            wait(_built(self._begin()))
            path = self._found()
        return path

    def _found(self) -> str:
        path = str(self._slot.path)
        if not self._reload:
            self._settled = path
        return path

    def is_due(self) -> bool:
        """Whether it is missing or what it is made of has changed. Blocks."""
        return not self._is_fresh(self.inputs())

    def build(self, *, force: bool = False) -> bool:
        """Build it, here and now, if that is due. Blocks.

        Args:
            force: build it though nothing has changed.

        Returns:
            whether it was built.

        Raises:
            BuildError: it could not be built. What was there before is still there.
        """
        try:
            with self._current():
                return self._build(force)
        except Exception as error:
            raise BuildError(FAILED.format(self.spec, reason(error))) from error

    def _current(self) -> threadlocal.pushed:
        # Overrides of assets are looked for in the current registry.
        return threadlocal.pushed({"registry": self._registry, "request": None})

    def _look(self) -> str | None:
        # The path if there is nothing to build.
        inputs = self.inputs()
        if not self._is_fresh(inputs):
            failure = self._failure
            is_good = self._slot.path.is_file()
            if failure is None or not failure.holds(inputs):
                if failure is None or self._reload or not is_good:
                    return None
            if not is_good:
                raise BuildError(failure.message)
        return self._found()

    def inputs(self) -> dict[str, State]:
        """The paths of all that is known to go into it, as they are now. Blocks.

        Each with its time and its size; None if it is missing.
        """
        with self._current():
            return states(dict.fromkeys([*self._own(), *self._slot.inputs()]))

    def _own(self) -> list[str]:
        # The sources, and all else that is known without building.
        found: list[str] = []
        for spec in (*self.sources, *self.depends):
            try:
                found += files.expand(spec)
            except OSError:
                # The builder will not find it either, and says so.
                found.append(spec)
        if (module := source_of(self._builder)) is not None:
            found.append(module)
        return found

    def _is_fresh(self, inputs: dict[str, State]) -> bool:
        return inputs == self._slot.inputs()

    def stop(self) -> None:
        """End the command of a build under way: nobody needs it any more."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            commands.end_of(thread)

    def _begin(self) -> Future[str]:
        with self._lock:
            if self._building is not None:
                return self._building
            building: Future[str] = Future()
            # Nobody's cancellation is to be the others'.
            building.set_running_or_notify_cancel()
            thread = threading.Thread(
                target=self._run, args=(building,), name="aioext-build", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                # The system has no more, or the interpreter ends.
                raise BuildError(FAILED.format(self.spec, reason(error))) from error
            _threads.add(thread)
            self._building, self._thread = building, thread
        return building

    def _run(self, building: Future[str]) -> None:
        # The outcome is what is wrong, and not an error, which all askers would share.
        message = ""
        try:
            self._try()
        except BaseException as error:
            message = reason(error)
        with self._lock:
            self._building = self._thread = None
        building.set_result(message)

    def _try(self) -> None:
        inputs = self.inputs()
        failure = self._failure
        if failure is None or not failure.holds(inputs):
            # Otherwise it was tried since the asker has looked.
            try:
                self.build()
                self._failure = None
                return
            except BaseException as error:
                failure = self._failure = self._failed(inputs, error)
        if not self._slot.path.is_file():
            raise BuildError(failure.message)

    def _failed(self, inputs: dict[str, State], error: BaseException) -> _Failure:
        if not isinstance(error, BuildError):
            # SystemExit, from what was written to be a program.
            error = BuildError(FAILED.format(self.spec, reason(error)))
        is_told = isinstance(error.__cause__, (BuildError, OSError, type(None)))
        log.error("%s", error, exc_info=None if is_told else error.__cause__)
        if self._slot.path.is_file():
            log.error(LAST_GOOD, self.spec)
        return _Failure(inputs, reason(error), time.monotonic() + RETRY)

    def _build(self, force: bool) -> bool:
        with self._slot.locked():
            # Another process may have built it meanwhile.
            before = self.inputs()
            if self._is_fresh(before) and not force:
                return False
            began = time.time_ns() - GRANULARITY
            with self._slot.writing() as target:
                read = self._call(target)
                self._slot.store(target, self._read(before, read, began))
        return True

    def _call(self, target: Path) -> Iterable[Any]:
        sources = [path for spec in self.sources for path in files.expand(spec)]
        # A file that two wildcards match is one source.
        paths = [Path(each) for each in dict.fromkeys(sources)]
        read = self._builder(paths, target)
        if inspect.isawaitable(read):
            read = wait(read)
        if not target.is_file():
            raise BuildError(NOTHING_WRITTEN.format(identity(self._builder), target))
        return () if read is None else read

    def _read(
        self, before: dict[str, State], read: Iterable[Any], began: int
    ) -> dict[str, State]:
        # What was read the last time is not necessarily read any more.
        found = {path: before.get(path) for path in self._own()}
        for path in (os.path.abspath(each) for each in read):
            if path not in found:
                found[path] = before.get(path) or _unless_young(path, began)
        return found

    def _forget_after_fork(self) -> None:
        # The child has no thread that builds, and one may have held the lock.
        self._lock = threading.Lock()
        self._building = self._thread = None


async def _built(building: Future[str]) -> None:
    if message := await wrap_future(building):
        raise BuildError(message)


def _unless_young(path: str, began: int) -> State:
    (state,) = states([path]).values()
    return None if state is None or state[0] >= began else state


def identity(builder: Any) -> str:
    """What tells one builder from another, in every process."""
    if isinstance(builder, functools.partial):
        return f"{identity(builder.func)} {builder.args} {builder.keywords}"
    if dataclasses.is_dataclass(builder):
        return repr(builder)
    named = builder if hasattr(builder, "__qualname__") else type(builder)
    return f"{named.__module__}.{named.__qualname__}"


def source_of(builder: Any) -> str | None:
    """The file that a builder is defined in; None for those of aioext."""
    while isinstance(builder, functools.partial):
        builder = builder.func
    named = builder if hasattr(builder, "__qualname__") else type(builder)
    if named.__module__.partition(".")[0] == "aioext":
        return None
    try:
        return inspect.getsourcefile(named)
    except TypeError:
        # It is built in.
        return None


def reason(error: BaseException) -> str:
    """What is wrong, without the line that leads to the documentation."""
    if isinstance(error, BuildError):
        return error.args[0]
    return f"{type(error).__name__}: {error}"


_assets: weakref.WeakSet[BuiltAsset] = weakref.WeakSet()
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def _forget_after_fork() -> None:
    for asset in list(_assets):
        asset._forget_after_fork()


os.register_at_fork(after_in_child=_forget_after_fork)


def _end_all() -> None:
    commands.end_all()
    deadline = time.monotonic() + PATIENCE
    for thread in list(_threads):
        thread.join(max(0, deadline - time.monotonic()))


atexit.register(_end_all)

FAILED = "{} could not be built. {}"

LAST_GOOD = "aioext: %s is served as it was when it could last be built."

NOTHING_WRITTEN = """\
{} has not written {}. A builder is called with the sources and with the path to write \
to."""

"""Programs that are run to build files: with a time limit, and ended with the process.

The end of the process is told twice: by an application that stops, for a server that
kills itself (uvicorn does) calls nothing at exit; and at exit, for what serves nothing.

A program gets a session of its own, so that it is ended together with whatever it has
started, and so that a Ctrl-C in the terminal is the server's alone.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import IO

from ...exceptions import BuildError

__all__ = ["end_all", "end_of", "run"]

# How much of what a program has written is told.
TOLD = 4000
# Seconds for the output of one that was ended.
PATIENCE = 1.0


def run(
    words: Sequence[str] | str,
    *,
    stdout: IO[bytes] | None = None,
    timeout: float | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    shown: str = "",
) -> bytes:
    """Run a program, or a line of the shell if ``words`` is one string. Blocks.

    Args:
        stdout: where what it writes goes; by default it is returned.
        timeout: seconds after which it is ended; None: any time.
        cwd: its directory.
        env: added to the environment of this process.
        shown: what it is called in messages; by default, ``words``.

    Returns:
        what it has written; to its standard error, if ``stdout`` is given.

    Raises:
        BuildError: it cannot be started, ended with another status than 0, or took
            too long; with what it has written.
    """
    shown = shown or (words if isinstance(words, str) else shlex.join(words))
    process = _start(words, shown, stdout, cwd, env)
    try:
        told = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _end(process)
        raise BuildError(TOO_LONG.format(shown, timeout, _rest(process))) from None
    except BaseException:
        # A Ctrl-C, which does not reach it by itself.
        _end(process)
        _rest(process)
        raise
    finally:
        with _lock:
            del _running[process]
    if process.returncode and process in _ended:
        raise BuildError(PROCESS_ENDS.format(shown))
    if process.returncode:
        raise BuildError(ENDED.format(shown, process.returncode, _tail(told)))
    return told[stdout is not None]


def _start(
    words: Sequence[str] | str,
    shown: str,
    stdout: IO[bytes] | None,
    cwd: str | None,
    env: Mapping[str, str] | None,
) -> subprocess.Popen[bytes]:
    with _lock:
        if _ending or threading.current_thread() in _stopped:
            raise BuildError(PROCESS_ENDS.format(shown))
        try:
            process = subprocess.Popen(
                words,
                shell=isinstance(words, str),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if stdout is None else stdout,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=None if env is None else {**os.environ, **env},
                start_new_session=True,
            )
        except OSError as error:
            reason = error.strerror or str(error)
            raise BuildError(NOT_STARTED.format(shown, reason)) from error
        _running[process] = threading.current_thread()
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    # With whatever it has started.
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    else:  # pragma: no cover
        process.kill()


def _rest(process: subprocess.Popen[bytes]) -> str:
    # What was written by one that was ended. Something that it has started, and that
    # has left its session, may write on.
    try:
        return _tail(process.communicate(timeout=PATIENCE))
    except subprocess.TimeoutExpired:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait()
        return ""


def _tail(told: Iterable[bytes | None]) -> str:
    parts = [each.decode("utf-8", "replace").strip() for each in told if each]
    text = "\n".join(part for part in parts if part)
    return f"It has written:\n{text[-TOLD:]}" if text else "It has written nothing."


# With the threads that wait for them.
_running: dict[subprocess.Popen[bytes], threading.Thread] = {}
_ended: weakref.WeakSet[subprocess.Popen[bytes]] = weakref.WeakSet()
# Threads that are to run no more of them.
_stopped: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_lock = threading.Lock()
_ending = False


def end_all() -> None:
    """End all programs that run, for good: the process ends."""
    global _ending
    with _lock:
        _ending = True
        for process in _running:
            _ended.add(process)
            _end(process)


def end_of(thread: threading.Thread) -> None:
    """End the program that a thread waits for, if any, and have it begin no other."""
    with _lock:
        _stopped.add(thread)
        for process, waiting in _running.items():
            if waiting is thread:
                _ended.add(process)
                _end(process)


def _forget_after_fork() -> None:
    # They are the parent's.
    global _lock
    _lock = threading.Lock()
    _running.clear()


os.register_at_fork(after_in_child=_forget_after_fork)

NOT_STARTED = "The command {} could not be started: {}."

ENDED = "The command {} ended with the status {}. {}"

TOO_LONG = "The command {} was ended, for it took longer than {:g} seconds. {}"

PROCESS_ENDS = "The command {} was not run to its end, for the application stops."

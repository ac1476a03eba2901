"""The background loop: waiting in a process that has no loop of its own."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from aioext import ScopeError, background, spawn_greenlet, threads, wait
from aioext.background import BackgroundLoop, background_loop

# Seconds after which something that should happen will not.
DEADLINE = 10


async def which():
    await asyncio.sleep(0)
    return asyncio.get_running_loop()


# -- one loop for the process ----------------------------------------------------------


def test_code_without_a_loop_waits_for_the_background_loop():
    loop = wait(which())
    assert loop is background_loop().loop
    assert wait(which()) is loop


def test_all_threads_wait_for_the_same_loop():
    found = []
    ready = threading.Barrier(10)

    def function():
        ready.wait(DEADLINE)
        found.append(wait(which()))

    plain = [threading.Thread(target=function) for _ in range(10)]
    for thread in plain:
        thread.start()
    for thread in plain:
        thread.join()
    assert set(found) == {background_loop().loop}


def test_threads_that_wait_first_at_the_same_time_start_one_loop(script):
    output = script(
        """
        import asyncio, threading
        import aioext

        ready = threading.Barrier(20)
        found = set()

        async def which():
            return asyncio.get_running_loop()

        def function():
            ready.wait()
            found.add(aioext.wait(which()))

        threads = [threading.Thread(target=function) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        names = [each.name for each in threading.enumerate()]
        print(len(found), names.count("aioext-loop"))
        """
    )
    assert output.split() == ["1", "1"]


def test_it_is_started_by_the_first_wait_only(script):
    output = script(
        """
        import asyncio, threading
        import aioext, aioext.asgi, aioext.background

        print(threading.active_count())
        aioext.wait(asyncio.sleep(0))
        print(threading.active_count())
        """
    )
    assert output.split() == ["1", "2"]


def test_synchronous_code_below_it_waits_in_its_turn():
    def helper(depth):
        return wait(coroutine(depth - 1)) if depth else wait(which())

    async def coroutine(depth):
        await asyncio.sleep(0)
        return await spawn_greenlet(helper, depth)

    assert helper(10) is background_loop().loop


def test_a_task_that_is_left_behind_goes_on():
    ended = threading.Event()

    async def later():
        await asyncio.sleep(0)
        ended.set()

    async def leave_behind():
        return asyncio.create_task(later())

    task = wait(leave_behind())
    assert ended.wait(DEADLINE)
    wait(task)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_task_cannot_end_it_for_the_others(kind, caplog):
    loop = background_loop().loop

    async def end():
        raise kind

    with pytest.raises(kind):
        wait(end())

    async def leave_behind():
        return asyncio.create_task(end())

    task = wait(leave_behind())
    with pytest.raises(kind):
        wait(task)
    assert wait(which()) is loop
    assert "tried to end the background loop" in caplog.text


def test_stopping_it_from_inside_does_nothing():
    loop = background_loop().loop

    async def stop():
        asyncio.get_running_loop().stop()
        return await which()

    assert wait(stop()) is loop
    assert wait(which()) is loop


# -- the loop that serves --------------------------------------------------------------


def test_a_loop_that_serves_is_found_as_long_as_it_runs(run):
    async def main():
        background.serve_on(asyncio.get_running_loop())
        found = await asyncio.to_thread(background.find_loop)
        return found is asyncio.get_running_loop()

    try:
        assert run(main())
        assert background.find_loop() is background_loop().loop
    finally:
        background.serve_on(None)


# -- stopping --------------------------------------------------------------------------


def test_stopping_cancels_what_still_runs_and_ends_the_thread():
    left = []
    started = threading.Event()

    async def parked():
        started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            left.append("cancelled")

    own = BackgroundLoop()
    asyncio.run_coroutine_threadsafe(parked(), own.loop)
    assert started.wait(DEADLINE)
    own.stop()
    assert left == ["cancelled"]
    assert not own.usable
    assert own.loop.is_closed()
    own.stop()


def test_a_new_one_is_started_when_it_was_stopped():
    first = background_loop()
    first.stop()
    assert wait(which()) is not first.loop
    assert background_loop() is not first


def test_a_process_ends_promptly_with_tasks_pending(script):
    output = script(
        """
        import asyncio, aioext

        async def parked():
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0)
                print("cancelled")

        async def generate():
            try:
                while True:
                    yield 1
            finally:
                print("generator closed")

        tasks = []
        async def leave_behind():
            tasks.append(asyncio.create_task(parked()))
            tasks.append(generate())
            await anext(tasks[-1])

        aioext.wait(leave_behind())
        print("ends")
        """,
        timeout=10,
    )
    assert output.split("\n")[:3] == ["ends", "cancelled", "generator closed"]


def test_a_process_ends_though_a_task_ignores_its_cancellation(script):
    output = script(
        """
        import asyncio, aioext, aioext.background

        async def parked():
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass

        tasks = []
        async def leave_behind():
            tasks.append(asyncio.create_task(parked()))

        aioext.wait(leave_behind())
        import atexit
        background = aioext.background.background_loop()
        atexit.unregister(background.stop)
        atexit.register(background.stop, timeout=0.1)
        print("ends")
        """,
        timeout=10,
    )
    assert output == "ends\n"


def test_a_process_ends_in_order_with_bridges_suspended_on_it(script):
    # Nothing may be printed to stderr: no traceback of a greenlet that is
    # resumed while the interpreter is being taken down.
    output = script(
        """
        import asyncio, logging, weakref
        import aioext

        class Resource:
            def __del__(self):
                logging.getLogger("resource").debug("collected")

        def view(started):
            resource = Resource()
            started.append(weakref.finalize(resource, print, "finalized"))
            try:
                aioext.wait(asyncio.sleep(3600))
            finally:
                aioext.wait(asyncio.sleep(0))
                print("left")

        tasks = []
        async def leave_behind():
            started = []
            for _ in range(3):
                view_runs = aioext.spawn_greenlet(view, started)
                tasks.append(asyncio.create_task(view_runs))
            while len(started) < 3:
                await asyncio.sleep(0)

        aioext.wait(leave_behind())
        print("ends")
        """,
        timeout=10,
    )
    assert output.split("\n")[0] == "ends"
    assert output.count("left") == 3


@pytest.mark.parametrize("close", [True, False])
def test_a_process_ends_in_order_with_bridges_that_nobody_cancelled(close):
    # asyncio says that Tasks were destroyed; there is no traceback beside that.
    program = f"""
        import asyncio, logging, sys, threading
        import aioext

        class Resource:
            def __del__(self):
                logging.getLogger("resource").debug("collected")

        def view(resource):
            try:
                aioext.wait(asyncio.sleep(3600))
            finally:
                logging.getLogger("view").debug("left")

        async def main():
            for _ in range(5):
                tasks.append(asyncio.create_task(
                    aioext.spawn_greenlet(view, Resource())
                ))
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        tasks = []
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        if {close}:
            loop.close()
        print("ends")
        """
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (result.returncode, result.stdout) == (0, "ends\n")
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


def test_a_process_that_exits_with_threads_waiting_ends_in_order(script):
    output = script(
        """
        import asyncio, sys
        import aioext
        from aioext.executor import Executor

        waits = 0

        async def parked():
            global waits
            waits += 1
            await asyncio.sleep(3600)

        def view():
            try:
                aioext.wait(parked())
            finally:
                aioext.wait(asyncio.sleep(0))
                print("left")

        async def main():
            executor = Executor(2)
            calls = [asyncio.create_task(executor.run(view)) for _ in range(4)]
            while waits < 2:
                await asyncio.sleep(0.001)
            sys.exit(0)

        asyncio.run(main())
        """,
        timeout=10,
    )
    assert output.count("left") == 2


# -- fork, signals, gevent -------------------------------------------------------------


def test_a_forked_process_starts_a_loop_of_its_own(script):
    output = script(
        """
        import asyncio, os, sys, warnings
        import aioext, aioext.background

        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads

        async def which():
            return asyncio.get_running_loop()

        loop = aioext.wait(which())
        # As if another thread were just starting a loop.
        with aioext.background._lock:
            child = os.fork()
            if not child:
                own = aioext.wait(which())
                sys.exit(0 if own is not loop and aioext.wait(which()) is own else 1)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), aioext.wait(which()) is loop)
        """
    )
    assert output.split() == ["0", "True"]


def test_a_loop_of_another_process_is_left_alone():
    own = BackgroundLoop()
    own.pid += 1
    assert not own.usable
    own.stop()
    own.pid = os.getpid()
    assert own.usable
    own.stop()
    assert not own.usable


def test_ctrl_c_in_the_waiting_thread_cancels_what_it_waits_for():
    program = """
        import asyncio, os, signal
        import aioext

        def tell(event):
            # In one write, for two threads do so.
            os.write(1, event.encode() + b"\\n")

        # A shell's background jobs ignore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)

        async def parked():
            tell("waits")
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0)
                tell("cancelled")

        try:
            aioext.wait(parked())
        except KeyboardInterrupt:
            tell("interrupted")
        aioext.wait(asyncio.sleep(0))
        """
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore::UserWarning", "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.wait()
    assert sorted(output.split()) == ["cancelled", "interrupted"]
    assert (process.returncode, errors) == (0, "")


def test_an_interrupted_wait_that_had_not_begun_is_closed(monkeypatch):
    # Without that, Python would warn that it was never awaited.
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    blocked = threading.Event()
    background_loop().loop.call_soon_threadsafe(blocked.wait, DEADLINE)
    monkeypatch.setattr(threads.ThreadScope, "_block", interrupt)
    with pytest.raises(KeyboardInterrupt):
        wait(which())
    monkeypatch.undo()
    blocked.set()
    assert wait(which()) is background_loop().loop


def test_under_gevents_patching_a_wait_is_refused_with_the_reason(script):
    output = script(
        """
        from gevent import monkey
        monkey.patch_all()

        import asyncio
        import aioext

        for _ in range(2):
            try:
                aioext.wait(asyncio.sleep(0))
            except aioext.ScopeError as error:
                print(error)
        """
    )
    assert output.count("gevent has patched the threads of this process") == 2
    assert "aioext.gunicorn.worker.AsyncGunicornWorker" in output


def test_gevent_that_has_patched_nothing_is_no_obstacle(script):
    output = script(
        """
        import gevent.monkey, asyncio
        import aioext

        print(aioext.wait(asyncio.sleep(0, "waited")))
        """
    )
    assert output == "waited\n"


def test_a_coroutine_that_gevent_makes_impossible_is_closed(monkeypatch):
    def refuse():
        raise ScopeError(background.PATCHED.format("gevent"))

    monkeypatch.setattr(background, "find_loop", refuse)
    coroutine = which()
    with pytest.raises(ScopeError, match="gevent"):
        wait(coroutine)
    with pytest.raises(RuntimeError, match="cannot reuse"):
        coroutine.send(None)


@pytest.mark.parametrize("where", ["spawn_greenlet", "Executor().run"])
def test_a_wait_in_a_fork_is_not_for_the_loop_of_the_parent(script, where):
    output = script(
        f"""
        import asyncio, os, signal
        from aioext import spawn_greenlet, wait
        from aioext.executor import Executor

        async def give():
            await asyncio.sleep(0.01)
            return 7

        def function():
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)
                os._exit(wait(give()))
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        async def main():
            print(await {where}(function))

        asyncio.run(main())
        """
    )
    assert output == "7\n"


# -- the end of the process ------------------------------------------------------------


def test_threads_that_wait_when_the_process_ends_may_wait_in_their_turn(script):
    output = script(
        """
        import asyncio, os, threading
        import aioext

        waiting = threading.Event()

        async def parked():
            waiting.set()
            await asyncio.sleep(3600)

        def function():
            try:
                aioext.wait(parked())
            except asyncio.CancelledError:
                aioext.wait(asyncio.sleep(0.01))
                os.write(1, b"left\\n")

        threading.Thread(target=function, daemon=True).start()
        waiting.wait()
        """,
        timeout=10,
    )
    assert output == "left\n"


def test_a_thread_that_outlives_the_main_one_goes_on_waiting(script):
    output = script(
        """
        import asyncio, threading
        import aioext

        def function():
            aioext.wait(asyncio.sleep(0.2))
            aioext.wait(asyncio.sleep(0))
            print("done")

        # From Python 3.12 on, no thread can be started once the main one has ended.
        aioext.wait(asyncio.sleep(0))
        threading.Thread(target=function).start()
        """,
        timeout=10,
    )
    assert output == "done\n"


def test_what_others_use_is_ended_last(script):
    output = script(
        """
        import asyncio
        import aioext
        from aioext import background, shutdown

        async def pool():
            background.end_last(asyncio.current_task())
            try:
                await asyncio.Event().wait()
            finally:
                print("pool closed")

        async def user():
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                print("user ended")

        async def stream():
            told = asyncio.Event()
            unregister = shutdown.on_shutdown(told.set)
            await told.wait()
            await asyncio.sleep(0.01)
            print("stream ended")
            unregister()

        tasks = []
        async def leave_behind():
            for function in (pool, user, stream):
                tasks.append(asyncio.create_task(function()))
            await asyncio.sleep(0.01)

        aioext.wait(leave_behind())
        """,
        timeout=10,
    )
    assert output.split("\n")[:3] == ["stream ended", "user ended", "pool closed"]


def test_what_a_server_has_cancelled_on_the_loop_that_it_leaves_goes_on(script):
    output = script(
        """
        import asyncio
        import aioext
        from aioext import background

        async def last_step():
            await asyncio.sleep(0.02)
            print("closed")

        async def request():
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.create_task(last_step())

        async def main():
            background.end_at_exit(asyncio.get_running_loop())
            tasks.append(asyncio.create_task(request()))
            await asyncio.sleep(0)
            tasks[0].cancel()

        tasks = []
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        """,
        timeout=10,
    )
    assert output == "closed\n"


def test_a_task_that_ignores_its_end_does_not_keep_a_loop_that_was_left(script):
    output = script(
        """
        import asyncio
        import aioext
        from aioext import background

        background.PATIENCE = background.STOP_TIMEOUT = 0.1

        async def parked():
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    pass

        async def main():
            background.end_at_exit(asyncio.get_running_loop())
            tasks.append(asyncio.create_task(parked()))
            await asyncio.sleep(0)

        tasks = []
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        # That it is dropped is not what this is about.
        loop.set_exception_handler(lambda loop, context: None)
        print("ends")
        """,
        timeout=10,
    )
    assert output == "ends\n"


def test_a_loop_of_another_thread_is_left_alone(script):
    # Its greenlets could not go on in this one.
    output = script(
        """
        import asyncio, atexit, threading
        import aioext
        from aioext import background

        # Registered first, so that it is called last.
        atexit.register(lambda: print(tasks[0].done()))

        def view():
            aioext.wait(asyncio.Event().wait())

        async def main():
            background.end_at_exit(loop)
            tasks.append(asyncio.create_task(aioext.spawn_greenlet(view)))
            await asyncio.sleep(0.01)

        tasks = []
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)
        thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
        thread.start()
        thread.join()
        """,
        timeout=10,
    )
    assert output == "False\n"


def test_being_told_twice_to_stop_interrupts_nothing():
    ended = []
    started = threading.Event()

    async def parked():
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            ended.append(True)

    own = BackgroundLoop()
    asyncio.run_coroutine_threadsafe(parked(), own.loop)
    assert started.wait(DEADLINE)
    own.stop_soon(0)
    own.stop()
    assert ended == [True]
    assert own.loop.is_closed()


def test_where_no_thread_can_be_started_a_wait_is_refused(monkeypatch):
    # As Python does from 3.12 on, once the interpreter ends.
    def refuse(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    background_loop().stop()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(ScopeError, match="while the process ends"):
        wait(which())
    monkeypatch.undo()
    assert wait(which()) is background_loop().loop


def test_a_wait_in_a_handler_of_the_exit_ends_one_way_or_the_other(script):
    # It was registered before the loop's own, and runs after it.
    output = script(
        """
        import asyncio, atexit
        import aioext

        def late():
            try:
                print(aioext.wait(asyncio.sleep(0, "waited")))
            except aioext.ScopeError as error:
                print("while the process ends" in str(error))

        atexit.register(late)
        aioext.wait(asyncio.sleep(0))
        """,
        timeout=10,
    )
    assert output in ("waited\n", "True\n")


def test_signals_that_nobody_handles_are_left_alone(script):
    output = script(
        """
        import signal
        from aioext.background import stop_at_signals

        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        calls = []
        signal.signal(signal.SIGQUIT, lambda *args: calls.append(args[0]))
        stop_at_signals(30)
        for name in ("SIGTERM", "SIGINT"):
            print(signal.getsignal(getattr(signal, name)).name)
        # There is no loop, and nothing to stop.
        signal.raise_signal(signal.SIGQUIT)
        print(calls == [signal.SIGQUIT])
        """
    )
    assert output.split() == ["SIG_DFL", "SIG_IGN", "True"]


def test_signals_are_for_the_main_thread():
    raised = []

    def function():
        try:
            background.stop_at_signals(30)
        except ValueError as error:
            raised.append(error)

    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
    assert len(raised) == 1

"""Something slow that a test opens, and tests that are coroutine functions."""

import asyncio
import functools

import aioext


class Gate:
    """Something slow: ends when it is opened, and tells how it did."""

    def __init__(self, value="<late>"):
        self.value = value
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self.left = asyncio.Event()
        self.outcome = None

    async def wait(self):
        self.reached.set()
        try:
            await self.opened.wait()
            self.outcome = "passed"
        except asyncio.CancelledError:
            self.outcome = "cancelled"
            raise
        finally:
            self.left.set()
        return self.value

    def __call__(self):
        """For synchronous code."""
        return aioext.wait(self.wait())


def is_ours(task):
    """Whether a Task is that of a template, or of a Pending."""
    return task.get_coro().__qualname__.startswith(("PageStream.", "_run"))


def on_a_loop(test):
    """Run a test that is a coroutine function; it has to leave no Task behind."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        async def within():
            async with asyncio.timeout(20):
                await test(*args, **kwargs)
                if left := list(filter(is_ours, asyncio.all_tasks())):
                    await asyncio.wait(left)

        asyncio.run(within())

    return run

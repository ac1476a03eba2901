"""What bodies have in common that are made in a Task of their own."""

import asyncio

import pytest
from pyramid.request import Request

from aioext.handover import LentContext, Signal, wait_for_end


def test_a_signal_is_given_to_who_waits():
    async def main():
        signal = Signal()
        # Nobody waits: it is lost.
        signal.give()
        waiting = asyncio.create_task(signal.wait())
        await asyncio.sleep(0)
        assert signal.is_awaited
        signal.give()
        signal.give()
        assert signal.is_awaited
        await waiting
        assert not signal.is_awaited

    asyncio.run(main())


def test_a_wait_that_is_cancelled_is_none():
    async def main():
        signal = Signal()
        waiting = asyncio.create_task(signal.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not signal.is_awaited
        signal.give()

    asyncio.run(main())


def test_a_context_is_lent_where_there_is_none():
    request = Request.blank("/")
    request.context = kept = object()
    lent = LentContext(request)
    lent.lend()
    lent.take_back()
    assert request.context is kept
    lent = LentContext(request)
    del request.context
    lent.lend()
    assert request.context is kept
    lent.take_back()
    assert "context" not in vars(request)
    LentContext(None).lend()


@pytest.mark.parametrize("is_told", [True, False])
def test_an_end_is_waited_for_and_told_once(is_told):
    async def fail():
        raise LookupError

    async def main():
        await wait_for_end(asyncio.create_task(fail()), is_told)

    if is_told:
        asyncio.run(main())
    else:
        with pytest.raises(LookupError):
            asyncio.run(main())


def test_a_cancellation_is_passed_on_and_raised_at_the_end():
    ended = []

    async def goes_on():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ended.append(True)

    async def main():
        task = asyncio.create_task(goes_on())
        waiting = asyncio.create_task(wait_for_end(task, is_told=False))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert ended

    asyncio.run(main())

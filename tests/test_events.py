"""The events of an application's life, as its subscribers see them."""

import asyncio

import pytest
from pyramid.config import Configurator
from pyramid.threadlocal import get_current_registry, get_current_request

import aioext
from aioext.events import AppStarting, AppStopping
from aioext.interfaces import ILifespan


def lifespan_of(*subscriptions):
    """The lifespan of an application with these (subscriber, event) pairs."""
    with Configurator() as config:
        config.include("aioext")
        for subscriber, event in subscriptions:
            config.add_subscriber(subscriber, event)
    return config.make_wsgi_app().registry.getUtility(ILifespan)


def open_and_close(run, lifespan):
    async def live():
        async with lifespan.open():
            pass

    run(live())


def test_an_event_has_the_registry_and_the_loop_that_serves(run):
    seen = []
    lifespan = lifespan_of((seen.append, AppStarting), (seen.append, AppStopping))

    async def live():
        async with lifespan.open():
            return asyncio.get_running_loop()

    loop = run(live())
    assert [type(event) for event in seen] == [AppStarting, AppStopping]
    assert {event.loop for event in seen} == {loop}
    for event in seen:
        assert event.registry.getUtility(ILifespan) is lifespan


def test_the_package_exports_the_events():
    assert aioext.AppStarting is AppStarting
    assert aioext.AppStopping is AppStopping


def test_a_subscriber_is_called_on_the_loop_and_may_wait(run):
    seen = []

    def subscriber(event):
        seen.append(aioext.wait(asyncio.sleep(0, asyncio.get_running_loop())))
        assert seen[-1] is event.loop

    lifespan = lifespan_of((subscriber, AppStarting), (subscriber, AppStopping))
    open_and_close(run, lifespan)
    assert len(seen) == 2


def test_a_subscriber_that_waits_holds_the_next_one_back(run):
    order = []

    def slow(event):
        order.append("slow")
        for _ in range(3):
            aioext.wait(asyncio.sleep(0))
        order.append("slow has ended")

    def quick(event):
        order.append("quick")

    open_and_close(run, lifespan_of((slow, AppStarting), (quick, AppStarting)))
    assert order == ["slow", "slow has ended", "quick"]


def test_the_current_registry_is_the_applications_and_there_is_no_request(run):
    seen = []

    def subscriber(event):
        aioext.wait(asyncio.sleep(0))
        assert get_current_registry() is event.registry
        assert get_current_request() is None
        seen.append(event)

    lifespan = lifespan_of((subscriber, AppStarting), (subscriber, AppStopping))
    open_and_close(run, lifespan)
    assert len(seen) == 2


def test_a_failing_start_is_not_followed_by_a_stop(run):
    stopped = []

    def fail(event):
        raise LookupError("no license")

    lifespan = lifespan_of((fail, AppStarting), (stopped.append, AppStopping))
    with pytest.raises(LookupError, match="no license"):
        open_and_close(run, lifespan)
    assert not stopped
    assert not lifespan.is_open

"""Tests of the views alone."""

import asyncio
import threading

from pyramid.testing import DummyRequest

from {{ cookiecutter.package_name }} import views


def test_home_waits_for_both_at_once(monkeypatch):
    async def call_home():
        both = asyncio.Barrier(2)

        async def wait(name, seconds):
            await both.wait()
            return name

        monkeypatch.setattr(views, "wait", wait)
        async with asyncio.timeout(10):
            return await views.home(DummyRequest())

    assert asyncio.run(call_home())["waits"] == ["one", "another"]


def test_wait_tells_what_was_waited_for():
    waited = asyncio.run(views.wait("it", 0.01))
    assert waited["name"] == "it"
    assert waited["seconds"] >= 0.01


def test_status_is_ok():
    assert asyncio.run(views.status(DummyRequest()))["status"] == "ok"


def test_thread_names_the_thread_that_it_runs_in():
    assert threading.current_thread().name in views.thread(DummyRequest()).text

"""Coroutines where Pyramid calls something at configuration time."""

import asyncio

import pytest
from inprocess import answer, make_app
from pyramid.response import Response


async def view(request):
    await asyncio.sleep(0)
    return Response("view")


class Mapper:
    """Makes a coroutine function of every view, as it may."""

    def __init__(self, **options):
        pass

    def __call__(self, view):
        async def mapped(context, request):
            return await view(request)

        return mapped


def test_what_a_view_mapper_makes_may_be_a_coroutine():
    app = make_app(lambda config: config.add_view(view, mapper=Mapper))
    assert answer(app).body == b"view"


# What cannot be refused, for Pyramid calls it past every hook.


async def configure(config):
    await asyncio.sleep(0)


def test_a_directive_that_is_a_coroutine_is_not_adapted():
    def use(config):
        config.add_directive("configure", configure)
        given = config.configure()
        assert asyncio.iscoroutine(given)
        given.close()

    make_app(use)


def test_configuration_that_is_a_coroutine_is_not_adapted():
    async def act():
        await asyncio.sleep(0)

    with pytest.warns(RuntimeWarning, match="'configure' was never awaited"):
        make_app(lambda config: config.include(configure))
    with pytest.warns(RuntimeWarning, match="act' was never awaited"):
        make_app(lambda config: config.action("discriminator", act))

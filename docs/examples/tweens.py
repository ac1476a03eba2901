"""The examples of the page on tweens and wrappers; the tests run them."""

import asyncio

from pyramid.response import Response

from aioext import async_wrapper, synchronize, wait
from aioext.tweens import async_tween


# tween
@async_tween
def limit(handler, registry):
    async def tween(request):
        async with registry["limiter"]:
            return await handler(request)

    return tween


def includeme(config):
    config.registry["limiter"] = asyncio.Semaphore(20)
    config.add_tween(f"{__name__}.limit")


# end


# class
@async_tween
class Timeout:
    def __init__(self, handler, registry):
        self.handler = handler
        self.seconds = float(registry.settings["seconds"])

    async def __call__(self, request):
        try:
            async with asyncio.timeout(self.seconds):
                return await self.handler(request)
        except TimeoutError:
            return Response("too late", status=503)


# end


# ordinary
def log_requests(handler, registry):
    @synchronize
    async def log(line):
        await registry["log"].put(line)

    def tween(request):
        log(f"> {request.path}")
        response = handler(request)
        log(f"< {response.status}")
        return response

    return tween


# end


# decorator
@async_wrapper
def with_quota(view):
    async def wrapper(context, request):
        if not await request.registry["quota"].take(request.client_addr):
            return Response("come back later", status=429)
        return await view(context, request)

    return wrapper


def add_report(config):
    config.add_view(report, name="report", decorator=with_quota)


# end


# deriver
@async_wrapper
def locked(view, info):
    name = info.options.get("lock")
    if name is None:
        return view

    async def wrapper(context, request):
        async with request.registry["locks"][name]:
            return await view(context, request)

    return wrapper


locked.options = ("lock",)


def add_locked(config):
    config.add_view_deriver(locked)
    config.add_view(report, name="locked", lock="report")


# end


def report(request):
    wait(asyncio.sleep(0))
    return Response("report")

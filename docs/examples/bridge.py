"""The examples of the page on the bridge; the tests run them."""

import asyncio

from aioext import spawn_greenlet, use_executor, wait


# wait
async def find_owner(database, document):
    """Ask the database, a coroutine."""
    return await database.fetch_owner(document)


def owner(request):
    """A property of the request."""
    return wait(find_owner(request.registry["database"], request.matchdict["id"]))


def includeme(config):
    config.add_request_method(owner, reify=True)


# end


# spawn
async def render_all(request, names, render):
    """Render several templates at once; each may wait while it is rendered."""
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(spawn_greenlet(render, name, {}, request=request))
            for name in names
        ]
    return [task.result() for task in tasks]


# end


# executor
@use_executor
def read(path):
    with open(path) as file:
        return file.read()


async def show(request):
    return {"text": await read(request.registry.settings["path"])}


# end


# timeout
async def view(request):
    try:
        async with asyncio.timeout(0.5):
            return {"answer": await spawn_greenlet(compute, request)}
    except TimeoutError:
        return {"answer": None}


def compute(request):
    try:
        return wait(request.registry["service"].ask())
    finally:
        wait(request.registry["service"].release())


# end


# lock
def withdraw(account, amount):
    wait(account.lock.acquire())  # account.lock = asyncio.Lock()
    try:
        balance = wait(account.balance())
        wait(account.set_balance(balance - amount))
    finally:
        account.lock.release()


# end

"""The page on transactions: what it shows is run."""

import asyncio

import pytest
from asgi import Client
from inprocess import EXECUTOR, answer, make_app, where
from pyramid.response import Response
from test_docs import load

from aioext import wait

__all__ = ["load"]


@pytest.fixture
def module(load):
    return load("transactions")


class Account:
    """A data manager for one amount, as its request found it and left it."""

    def __init__(self):
        self.charged = 0
        self.threads = []
        self.outcomes = []

    def join(self, manager):
        self.transaction_manager = manager
        manager.get().join(self)

    def charge(self, amount):
        self.charged += amount
        self.threads.append(where())

    def sortKey(self):
        return "account"

    def nothing(self, transaction):
        pass

    tpc_begin = commit = tpc_vote = tpc_abort = nothing

    def tpc_finish(self, transaction):
        self.outcomes.append("committed")

    def abort(self, transaction):
        self.outcomes.append("aborted")


def app_of(module, view, **entries):
    def configure(config):
        config.registry.update(entries)
        config.add_view(view)

    return make_app(module.includeme, configure)


@pytest.mark.parametrize("order", [("fails", "works"), ("works", "fails")])
def test_requests_have_a_transaction_each(module, order):
    accounts = {name: Account() for name in order}
    joined = {name: asyncio.Event() for name in order}
    may_go = {name: asyncio.Event() for name in order}

    async def view(request):
        name = request.params["name"]
        accounts[name].join(request.tm)
        joined[name].set()
        await may_go[name].wait()
        if name == "fails":
            raise ValueError
        return Response()

    app = app_of(module, view)

    async def both():
        tasks = {
            name: Client(query_string=f"name={name}".encode()).start(app)
            for name in order
        }
        for event in joined.values():
            await event.wait()
        for name in order:
            may_go[name].set()
            await asyncio.wait([tasks[name]])
        assert isinstance(tasks["fails"].exception(), ValueError)

    asyncio.run(both())
    outcomes = {name: account.outcomes for name, account in accounts.items()}
    assert outcomes == {"fails": ["aborted"], "works": ["committed"]}


def test_a_hook_is_called_when_the_transaction_is_committed(module):
    names = []
    app = app_of(module, module.rename, names=names)
    client = answer(app, query_string=b"name=Ann")
    assert client.body == b"called Ann from now on"
    assert names == ["Ann"]


def test_what_is_shielded_is_not_interrupted(module):
    class File:
        def __init__(self):
            self.parts = []
            self.began = asyncio.Event()

        def write_part(self, part):
            self.began.set()
            wait(asyncio.sleep(0.001))
            self.parts.append(part)

        def close(self):
            self.parts.append("closed")

    async def upload():
        file = File()

        async def view(request):
            return module.upload(request)

        app = app_of(module, view, file=file)
        client = Client(method="POST", body=[b"one two three"])
        task = client.start(app)
        await file.began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return file.parts

    assert asyncio.run(upload()) == ["one", "two", "three", "closed"]


def test_a_thread_takes_part_in_the_transaction_of_its_request(module):
    account = Account()
    assert answer(app_of(module, module.buy, account=account)).body == b"bought"
    assert (account.charged, account.threads) == (7, [EXECUTOR])
    assert account.outcomes == ["committed"]

"""``WebsocketConnectionView``: a class whose methods are called for each message."""

import asyncio
import functools

import pytest
from pyramid.exceptions import ConfigurationError

from aioext import synchronize, wait
from aioext.exceptions import ConnectionClosed
from aioext.views import kind_of
from aioext.websocket import SyncWebSocket, WebSocket, WebsocketConnectionView
from aioext.websocket.channel import Channel
from aioext.websocket.handler import Handler
from aioext.websocket.options import Options


class Conversation(Channel):
    """A connection whose client says this, and then leaves."""

    def __init__(self, *messages):
        super().__init__(Options())
        self.sent = []
        for message in messages:
            self.put(message)
        self.end(1000)
        self.closed = False

    async def send(self, message):
        await asyncio.sleep(0)
        if message == "too late":
            raise ConnectionClosed(1006)
        self.sent.append(message)

    async def receive(self, at_end=None):
        if not self._messages:
            self.closed = True
        return await super().receive(at_end)


def serve(run, view, *messages):
    """The instance of ``view`` that has served a client that says this."""
    instance = view("context", "request")
    instance.told = []
    channel = Conversation(*messages)
    kind = kind_of(view, None)
    handler = Handler(instance, None, kind)

    async def main():
        await handler(WebSocket(channel))

    try:
        run(main())
    finally:
        instance.sent = channel.sent
        served.append(instance)
    return instance


served = []


class Coroutines(WebsocketConnectionView):
    async def on_open(self):
        self.told.append("open")
        await self.send("hello")

    async def on_message(self, message):
        await asyncio.sleep(0)
        self.told.append(message)
        await self.ws.send(message)

    async def on_close(self):
        await asyncio.sleep(0)
        self.told.append("close")


class Generators(WebsocketConnectionView):
    def on_open(self):
        self.told.append("open")
        yield from self.send("hello")

    def on_message(self, message):
        yield from asyncio.sleep(0)
        self.told.append(message)
        yield from self.ws.send(message)

    def on_close(self):
        yield from asyncio.sleep(0)
        self.told.append("close")


class Functions(WebsocketConnectionView):
    def on_open(self):
        self.told.append("open")
        self.send("hello")

    def on_message(self, message):
        wait(asyncio.sleep(0))
        self.told.append(message)
        self.ws.send(message)

    def on_close(self):
        wait(asyncio.sleep(0))
        self.told.append("close")


class Mixed(WebsocketConnectionView):
    """Coroutines and generators, which are awaited as well."""

    async def on_open(self):
        self.told.append("open")
        await self.send("hello")

    def on_message(self, message):
        self.told.append(message)
        yield from self.send(message)

    on_close = Coroutines.on_close


ALL = [Coroutines, Generators, Functions, Mixed]


@pytest.mark.parametrize("view", ALL)
def test_its_methods_are_called_in_order(run, view):
    instance = serve(run, view, "one", b"two", "")
    assert instance.told == ["open", "one", b"two", "", "close"]
    assert instance.sent == ["hello", "one", b"two", ""]
    assert (instance.context, instance.request) == ("context", "request")


@pytest.mark.parametrize("view", ALL)
def test_it_is_a_coroutine_or_a_function_as_its_methods_are(run, view):
    face = SyncWebSocket if view is Functions else WebSocket
    assert type(serve(run, view).ws) is face


@pytest.mark.parametrize("name", ["on_open", "on_message", "on_close"])
@pytest.mark.parametrize("view", ALL)
def test_each_of_them_may_be_left_out(run, view, name):
    rest = {"on_open", "on_message", "on_close"} - {name}
    partial = type(
        "Partial", (WebsocketConnectionView,), {each: vars(view)[each] for each in rest}
    )
    told = {"on_open": "open", "on_message": "one", "on_close": "close"}
    expected = [text for method, text in told.items() if method != name]
    assert serve(run, partial, "one").told == expected


def test_all_of_them_may_be_left_out(run):
    class Silent(WebsocketConnectionView): ...

    assert serve(run, Silent, "one").sent == []
    assert serve(run, WebsocketConnectionView, "one").sent == []


@pytest.mark.parametrize("where", ["on_open", "on_message"])
@pytest.mark.parametrize("base", [Coroutines, Functions])
@pytest.mark.parametrize("error", [KeyError("mistake"), ConnectionClosed(1006)])
def test_on_close_is_called_however_it_ends(run, base, where, error):
    async def coroutine(self, *args):
        raise error

    def function(self, *args):
        raise error

    failing = coroutine if base is Coroutines else function
    view = type("Failing", (base,), {where: failing})
    with pytest.raises(type(error)):
        serve(run, view, "one")
    assert served[-1].told[-1] == "close"
    assert served[-1].told.count("close") == 1


def test_on_close_is_called_when_sending_finds_out(run):
    class Late(Coroutines):
        async def on_message(self, message):
            await self.send("too late")

    with pytest.raises(ConnectionClosed):
        serve(run, Late, "one", "two")
    assert served[-1].told == ["open", "close"]


@pytest.mark.parametrize("base", [Coroutines, Functions])
def test_on_close_is_called_when_it_is_cancelled(run, base):
    instance = base("context", "request")
    instance.told = []

    class Endless(Conversation):
        async def receive(self, at_end=None):
            await asyncio.Event().wait()

    async def main():
        handler = Handler(instance, None, kind_of(base))
        serving = asyncio.ensure_future(handler(WebSocket(Endless())))
        while not instance.told:  # noqa: ASYNC110 - what it waits for is ours
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    run(main())
    assert instance.told == ["open", "close"]


def test_a_class_may_be_derived_from_another_view(run):
    class Derived(Coroutines):
        async def on_message(self, message):
            await super().on_message(message.upper())

    class DerivedFunction(Functions):
        def on_message(self, message):
            super().on_message(message.upper())

    class Unchanged(Functions): ...

    assert serve(run, Derived, "one").sent == ["hello", "ONE"]
    assert serve(run, DerivedFunction, "one").sent == ["hello", "ONE"]
    assert serve(run, Unchanged, "one").sent == ["hello", "one"]


def test_a_class_may_serve_by_itself(run):
    class Own(WebsocketConnectionView):
        async def __call__(self, ws):
            self.told.append(await ws.recv())

        def on_message(self, message):
            raise AssertionError

        async def on_close(self):
            raise AssertionError

    assert serve(run, Own, "one").told == ["one"]


def test_a_decorator_around_a_coroutine_is_one(run):
    def decorate(method):
        @functools.wraps(method)
        def decorated(self, *args):
            self.told.append("decorated")
            return method(self, *args)

        return decorated

    class Decorated(WebsocketConnectionView):
        on_open = decorate(Coroutines.on_open)
        on_message = Coroutines.on_message

    assert serve(run, Decorated, "one").told == ["decorated", "open", "one"]


def test_what_waits_by_itself_may_be_among_coroutines(run):
    class Synchronized(WebsocketConnectionView):
        on_open = Coroutines.on_open
        on_message = synchronize(Coroutines.on_message)

    instance = serve(run, Synchronized, "one")
    assert instance.told == ["open", "one"]
    assert instance.sent == ["hello", "one"]


@pytest.mark.parametrize("awaited", [Coroutines, Generators])
def test_functions_among_coroutines_are_refused_when_they_are_defined(awaited):
    with pytest.raises(ConfigurationError) as caught:
        type(
            "Mistaken",
            (WebsocketConnectionView,),
            {
                "on_open": awaited.on_open,
                "on_message": Functions.on_message,
                "on_close": Functions.on_close,
            },
        )
    message = str(caught.value)
    assert "Mistaken" in message
    assert "['on_message', 'on_close'] are functions and ['on_open']" in message
    assert message.endswith("errors.html#websocket-handler)")


def test_a_derived_class_is_checked_with_what_it_inherits():
    with pytest.raises(ConfigurationError, match=r"\['on_close'\] are functions"):
        type("Mistaken", (Coroutines,), {"on_close": lambda self: None})


def test_what_a_function_returns_is_left_alone(run):
    class Returning(WebsocketConnectionView):
        def on_message(self, message):
            return message

    serve(run, Returning, "one", "two")

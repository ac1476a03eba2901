"""Stand-ins of hooks: what they give, and how much they are like their hooks."""

import asyncio
import copy
import functools
import inspect
import pickle
import subprocess
import sys
import types
from pathlib import Path

import pytest
from pyramid.csrf import SessionCSRFStoragePolicy
from pyramid.traversal import DefaultRootFactory

from aioext import ScopeError, spawn_greenlet, synchronize, use_executor
from aioext.hooks.values import (
    Settled,
    SettledCallable,
    SettledMethods,
    is_coroutine,
    is_own,
    settle,
    settle_object,
)
from aioext.views import Kind, kind_of

ROOT = Path(__file__).resolve().parent.parent


async def value():
    await asyncio.sleep(0)
    return "value"


@types.coroutine
def generator():
    yield from asyncio.sleep(0).__await__()
    return "value"


async def nobody(*args):
    await asyncio.sleep(0)


def wrapped(function):
    return functools.wraps(function)(hidden_in(function))


def hidden_in(function):
    return lambda *args: function(*args)


class Caller:
    async def __call__(self):
        return await nobody()


class Awaitable:
    def __await__(self):
        return value().__await__()


def plain():
    yield 1


class TestSettle:
    @pytest.mark.parametrize("settling", [settle, settle_object])
    @pytest.mark.parametrize("make", [value, generator])
    def test_it_waits_for_coroutines(self, settling, make, run):
        assert run(spawn_greenlet(lambda: settling(make()))) == "value"
        assert settling(make()) == "value"

    @pytest.mark.parametrize("settling", [settle, settle_object])
    def test_a_forgotten_await_is_made_up_for(self, settling):
        async def forgetful():
            return value()

        assert settling(forgetful()) == "value"

    @pytest.mark.parametrize("settling", [settle, settle_object])
    def test_it_waits_for_futures(self, settling, run):
        async def main():
            task = asyncio.create_task(value())
            return await spawn_greenlet(settling, task)

        assert run(main()) == "value"

    @pytest.mark.parametrize("settling", [settle, settle_object])
    @pytest.mark.parametrize("given", [None, 0, "", (), object(), value, Awaitable])
    def test_it_gives_anything_else_as_it_is(self, settling, given):
        assert settling(given) is given

    def test_a_generator_is_no_coroutine(self):
        given = plain()
        assert settle(given) is settle_object(given) is given
        assert not is_coroutine(given)
        assert not is_coroutine(value)

    def test_an_object_that_can_be_awaited_is_an_object(self):
        given = Awaitable()
        assert settle(given) == "value"
        assert settle_object(given) is given
        assert not is_coroutine(given)

    def test_without_a_bridge_the_coroutine_is_closed(self, run):
        coroutine = value()

        async def main():
            with pytest.raises(ScopeError):
                settle(coroutine)

        run(main())
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


class Hook:
    """A hook with a method of each sort."""

    name = "hook"

    async def coroutine(self):
        await asyncio.sleep(0)
        return self.name

    async def awaiting(self):
        return f"awaiting {await self.coroutine()}"

    def function(self):
        return f"function {self.coroutine()}"

    @classmethod
    def of_class(cls):
        return cls

    @staticmethod
    async def static():
        return "static"

    @property
    async def computed(self):
        return "computed"

    async def pool(self):
        return Awaitable()

    async def __call__(self):
        return await self.coroutine()


NAMES = "coroutine", "awaiting", "function", "of_class", "static", "computed"


class TestMethods:
    def settled(self):
        return SettledMethods(Hook(), NAMES, ["pool"])

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("coroutine", "hook"),
            ("awaiting", "awaiting hook"),
            ("function", "function hook"),
            ("of_class", Hook),
            ("static", "static"),
        ],
    )
    def test_they_give_values(self, name, expected):
        assert getattr(self.settled(), name)() == expected

    def test_an_attribute_may_be_a_coroutine(self):
        assert self.settled().computed == "computed"

    def test_objects_are_given_as_they_are(self):
        assert type(self.settled().pool()) is Awaitable

    def test_others_are_the_hooks_own(self):
        settled = SettledMethods(Hook(), ["coroutine"])
        static = settled.static()
        assert inspect.iscoroutine(static)
        static.close()
        assert settled.name == "hook"

    def test_functions_that_stand_alone_are_methods_of_the_hook(self):
        class Plain:
            def who(self):
                return self

        plain = Plain()
        assert SettledMethods(plain, ["who"]).who() is plain

    @pytest.mark.parametrize(
        "hidden",
        [
            staticmethod(nobody),
            classmethod(nobody),
            wrapped(nobody),
            hidden_in(nobody),
            functools.partialmethod(nobody),
        ],
        ids=["static", "class", "wrapped", "hidden", "partial"],
    )
    def test_a_function_gets_the_value_of_a_coroutine_that_is_hidden(self, hidden):
        class Policy:
            identity = hidden

            def permits(self):
                return self.identity() is not None

        assert SettledMethods(Policy(), ["identity", "permits"]).permits() is False

    def test_and_that_of_one_that_it_only_returns(self):
        class Policy:
            async def load(self):
                return None

            def identity(self):
                return self.load()

            def permits(self):
                return self.identity() is not None

        assert SettledMethods(Policy(), ["identity", "permits"]).permits() is False

    def test_and_that_of_an_object_which_is_called(self):
        class Policy:
            def __init__(self):
                self.identity = Caller()

            def permits(self):
                return self.identity() is not None

        assert SettledMethods(Policy(), ["identity", "permits"]).permits() is False

    def test_and_that_of_a_function_which_a_property_gives(self):
        class Policy:
            identity = property(lambda self: nobody)

            def permits(self):
                return self.identity() is not None

        assert SettledMethods(Policy(), ["identity", "permits"]).permits() is False

    def test_pyramids_own_methods_get_values(self):
        class Policy(SessionCSRFStoragePolicy):
            # Looks synchronous.
            def get_csrf_token(self, request):
                return value()

        settled = SettledMethods(Policy(), ["check_csrf_token", "get_csrf_token"])
        assert settled.check_csrf_token(None, "value") is True
        assert settled.check_csrf_token(None, "wrong") is False

    def test_a_callable_object(self):
        settled = SettledCallable(Hook(), ["__call__"])
        assert settled() == "hook"
        assert SettledCallable(lambda: value(), ["__call__"])() == "value"

    def test_what_it_calls_may_be_replaced(self):
        settled = self.settled()
        settled.name = "other"
        assert settled.coroutine() == settled.__wrapped__.name == "other"


@pytest.mark.parametrize(
    "settled",
    [
        Settled(Hook()),
        SettledMethods(Hook(), NAMES),
        SettledCallable(Hook(), NAMES),
    ],
    ids=lambda settled: type(settled).__name__,
)
class TestAStandIn:
    def test_is_taken_for_its_hook(self, settled):
        hook = settled.__wrapped__
        assert settled == hook
        assert hook == settled
        assert settled == Settled(hook)
        assert settled != Hook()
        assert hash(settled) == hash(hook)
        assert repr(settled) == repr(hook)
        assert isinstance(settled, Hook)
        assert settled.__wrapped__ is hook
        assert settled.name == "hook"

    def test_passes_attributes_on(self, settled):
        settled.attribute = 1
        assert vars(settled.__wrapped__) == {"attribute": 1}
        del settled.attribute
        assert not hasattr(settled, "attribute")
        assert not hasattr(settled.__wrapped__, "attribute")

    def test_is_ours(self, settled):
        assert is_own(settled)


def test_a_function_that_is_settled_is_no_coroutine_function_to_views():
    settled = Settled(value)
    assert settled.__name__ == "value"
    assert kind_of(settled) is Kind.SYNCHRONIZED
    assert is_own(settled)


def pretending():
    """Has the module of another."""


pretending.__module__ = "pyramid.traversal"


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        (DefaultRootFactory, True),
        (DefaultRootFactory(None), True),
        (SessionCSRFStoragePolicy().check_csrf_token, False),
        (synchronize(value), True),
        (use_executor(len), False),
        (pretending, False),
        (value, False),
        (Hook, False),
        (Hook(), False),
        (Hook().coroutine, False),
        (len, False),
        (None, False),
    ],
)
def test_what_is_written_by_pyramid_or_by_us(hook, expected):
    assert is_own(hook) is expected


DROPPED = """
import asyncio

def test_it():
    asyncio.sleep(0)
"""


def test_a_coroutine_that_nobody_awaits_fails_a_test(tmp_path):
    # All tests of hooks rest on it.
    test = tmp_path / "test_dropped.py"
    test.write_text(DROPPED)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]
    options = ["-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, test]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    assert "PytestUnraisableExceptionWarning" in done.stdout
    assert "was never awaited" in done.stdout


class Stateful(dict):
    """Methods that use what Python and the application look for in the class."""

    LEVEL = 3

    async def permits(self):
        return False

    def identity(self):
        return type(self).LEVEL, self["key"], len(self), isinstance(self, Stateful)


def test_a_function_finds_the_class_of_its_hook():
    settled = SettledMethods(Stateful(key="value"), ["permits", "identity"])
    assert settled.identity() == (3, "value", 1, True)


@pytest.mark.parametrize(
    "stand_in", [Settled(settle), SettledMethods(Path("a"), ["name"])], ids=repr
)
def test_a_copy_is_one_of_the_hook(stand_in):
    for copied in (copy.copy(stand_in), copy.deepcopy(stand_in)):
        assert copied == stand_in
    assert pickle.loads(pickle.dumps(stand_in)) == stand_in

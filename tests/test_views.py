"""Which kind of callable a view is, and generators driven as coroutines."""

import asyncio
import functools
import gc
import inspect
import types
import weakref
from unittest.mock import AsyncMock, MagicMock, call

import pytest

from aioext import synchronize
from aioext.views import (
    Kind,
    drive,
    kind_of,
    make_awaitable,
    resolve_partial,
    show_parameters,
)


def function(request):
    return "function"


async def coroutine(request):
    return "coroutine"


def generator(request):
    yield from asyncio.sleep(0)
    return "generator"


async def async_generator(request):
    yield "asynchronous generator"


synchronized = synchronize(coroutine)


def wrapping(wrapped):
    @functools.wraps(wrapped)
    def wrapper(request):
        return wrapped(request)

    return wrapper


def hiding(hidden):
    return lambda request: hidden(request)


def methods_of(called):
    """A class whose methods are ``called``, in every way to write one."""

    class View:
        __call__ = called
        method = called
        static = staticmethod(called)
        of_class = classmethod(called)
        bound = functools.partialmethod(called)

    return View


@pytest.mark.parametrize(
    ("called", "kind"),
    [
        (function, Kind.FUNCTION),
        (coroutine, Kind.COROUTINE),
        (generator, Kind.GENERATOR),
        (async_generator, Kind.ASYNC_GENERATOR),
        (synchronized, Kind.SYNCHRONIZED),
    ],
)
def test_a_callable_is_looked_into(called, kind):
    view_class = methods_of(called)
    view = view_class()
    partial = functools.partial(functools.partial(called, 1), 2)
    assert kind_of(called) is kind
    assert kind_of(partial) is kind
    assert kind_of(view_class) is kind
    assert kind_of(view) is kind
    assert kind_of(view.method) is kind
    assert kind_of(view_class.of_class) is kind
    for attr in "method", "static", "of_class":
        assert kind_of(view_class, attr) is kind
        assert kind_of(view, attr) is kind
    assert kind_of(view, "bound") is kind


@pytest.mark.parametrize(
    ("wrapped", "kind"),
    [
        (function, Kind.FUNCTION),
        (coroutine, Kind.WRAPPED_COROUTINE),
        (generator, Kind.WRAPPED_GENERATOR),
        (async_generator, Kind.FUNCTION),
        (synchronized, Kind.FUNCTION),
    ],
)
def test_what_a_decorator_wraps_is_only_a_hint(wrapped, kind):
    decorated = wrapping(wrapping(wrapped))
    assert kind_of(decorated) is kind
    assert kind_of(functools.partial(decorated)) is kind
    assert kind_of(methods_of(decorated), "method") is kind
    assert kind_of(hiding(wrapped)) is Kind.FUNCTION


def test_a_decorator_that_is_a_class_gives_the_same_hint():
    class Decorated:
        def __init__(self, wrapped):
            functools.update_wrapper(self, wrapped)

        def __call__(self, request): ...

    assert kind_of(Decorated(coroutine)) is Kind.WRAPPED_COROUTINE
    assert kind_of(Decorated(function)) is Kind.FUNCTION


def test_a_coroutine_function_may_wrap_what_it_likes():
    @functools.wraps(function)
    async def wrapper(request): ...

    assert kind_of(wrapper) is Kind.COROUTINE


def test_a_class_method_and_a_static_method_may_be_what_is_called():
    class View:
        @staticmethod
        async def __call__(request): ...

    class ViewOfClass:
        @classmethod
        async def __call__(cls, request): ...

    assert kind_of(View()) is Kind.COROUTINE
    assert kind_of(ViewOfClass()) is Kind.COROUTINE


def test_a_class_without_call_or_attr_is_no_coroutine():
    class View: ...

    assert kind_of(View) is Kind.FUNCTION
    assert kind_of(View, "absent") is Kind.FUNCTION
    assert kind_of(View(), "absent") is Kind.FUNCTION
    assert kind_of(len) is Kind.FUNCTION


def test_mocks_are_told_apart():
    assert kind_of(AsyncMock()) is Kind.COROUTINE
    assert kind_of(AsyncMock(spec=coroutine)) is Kind.COROUTINE
    assert kind_of(MagicMock()) is Kind.FUNCTION


# Python 3.12 made it.
if hasattr(inspect, "markcoroutinefunction"):

    def test_a_function_may_be_marked_as_a_coroutine_function():
        marked = inspect.markcoroutinefunction(lambda request: coroutine(request))
        assert kind_of(marked) is Kind.COROUTINE


def test_an_object_that_wraps_itself_ends_the_search():
    def view(request): ...

    view.__wrapped__ = view
    assert kind_of(view) is Kind.FUNCTION
    assert kind_of(call) is Kind.FUNCTION


def test_an_object_that_answers_everything_is_not_taken_for_synchronized():
    class Everything:
        def __getattr__(self, name):
            return self

        def __call__(self, request): ...

    assert kind_of(Everything()) is Kind.FUNCTION


def takes_request(request):
    return "request", request


def takes_both(context, request):
    return "both", context, request


@pytest.mark.parametrize(
    ("partial", "expected"),
    [
        (functools.partial(takes_request), (("request", 2),)),
        (functools.partial(lambda extra, r: ("e", extra, r), 0), (("e", 0, 2),)),
        (functools.partial(lambda r, extra: ("e", extra, r), extra=0), (("e", 0, 2),)),
        (functools.partial(lambda r, extra=0: ("e", extra, r)), (("e", 0, 2),)),
    ],
)
def test_a_partial_that_lacks_one_argument_takes_the_request(partial, expected):
    resolved = resolve_partial(partial)
    assert list(inspect.signature(resolved, follow_wrapped=False).parameters) == [
        "request"
    ]
    assert (resolved(2),) == expected


def test_a_partial_that_lacks_two_arguments_takes_the_context_too():
    resolved = resolve_partial(functools.partial(takes_both))
    assert resolved(1, 2) == ("both", 1, 2)
    assert resolved.__name__ == "takes_both"
    assert resolved.__module__ == __name__
    resolved = resolve_partial(functools.partial(lambda *args: args))
    assert resolved(1, 2) == (1, 2)


def test_a_function_may_show_the_parameters_of_what_it_wraps():
    @functools.wraps(takes_both)
    def wrapper(*args): ...

    show_parameters(wrapper)
    assert inspect.getfullargspec(wrapper).args == ["context", "request"]


def test_what_does_not_tell_its_parameters_is_left_alone():
    # ``getattr`` is built in, and has no signature.
    @functools.wraps(getattr)
    def wrapper(*args): ...

    show_parameters(wrapper)
    assert inspect.getfullargspec(wrapper).varargs == "args"


def test_what_is_no_partial_is_left_alone():
    assert resolve_partial(takes_both) is takes_both


async def value():
    await asyncio.sleep(0)
    return "value"


def test_a_generator_function_may_delegate_to_coroutines(run):
    def view(request):
        return (yield from value())

    assert not inspect.isawaitable(view(None))
    make_awaitable(view)
    assert run(drive_async(view(None))) == "value"


def test_what_decorators_wrap_may_delegate_as_well(run):
    def inner(request):
        return (yield from value())

    @functools.wraps(inner)
    def middle(request):
        return (yield from inner(request))

    class View:
        method = middle

    make_awaitable(View(), "method")
    assert run(drive_async(View.method(None))) == "value"


def test_a_generator_function_still_makes_generators():
    def numbers(request):
        yield 1
        yield 2

    make_awaitable(numbers)
    assert list(numbers(None)) == [1, 2]
    assert type(numbers(None)) is types.GeneratorType


async def drive_async(generator):
    return await drive(generator)


def test_a_driven_generator_gives_its_value_and_its_error(run):
    @types.coroutine
    def view(fails):
        yield
        yield from value()
        if fails:
            raise KeyError("fails")
        return "done"

    assert run(drive_async(view(False))) == "done"
    with pytest.raises(KeyError):
        run(drive_async(view(True)))


def test_a_driven_generator_sees_the_error_of_what_it_waits_for(run):
    async def fail():
        await asyncio.sleep(0)
        raise KeyError("fails")

    @types.coroutine
    def view():
        try:
            yield from fail()
        except KeyError:
            return (yield from value())

    assert run(drive_async(view())) == "value"


def test_a_driven_generator_is_cancelled_where_it_waits(run):
    seen = []

    @types.coroutine
    def view():
        try:
            yield from asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            yield from value()
            seen.append("cleaned up")
            raise

    async def cancel():
        task = asyncio.create_task(drive_async(view()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert run(cancel())
    assert seen == ["cancelled", "cleaned up"]


def test_a_driven_generator_is_closed_with_its_coroutine():
    seen = []

    @types.coroutine
    def view():
        try:
            yield
        finally:
            seen.append("closed")

    coroutine = drive_async(view())
    coroutine.send(None)
    coroutine.close()
    assert seen == ["closed"]


@pytest.mark.parametrize("yielded", [42, "text", b"chunk"])
def test_a_generator_that_yields_a_value_is_told_so(run, yielded):
    def streaming_view():
        yield yielded

    message = rf"streaming_view, a generator, yielded {yielded!r}.*yield from"
    with pytest.raises(TypeError, match=message) as caught:
        run(drive_async(streaming_view()))
    # Where it happened is seen in the traceback.
    assert caught.traceback[-1].name == "streaming_view"


def test_a_generator_that_yields_a_coroutine_is_told_so_and_nothing_else(run):
    # Were the coroutine not closed, a warning would fail this test.
    def view():
        yield value()

    with pytest.raises(TypeError, match="yield from"):
        run(drive_async(view()))


def test_a_generator_may_catch_what_it_is_told(run):
    def view():
        try:
            yield 42
        except TypeError:
            return "caught"

    assert run(drive_async(view())) == "caught"


def test_an_error_that_passes_through_leaves_no_cycle():
    class Error(Exception): ...

    @types.coroutine
    def view():
        yield

    def fail():
        coroutine = drive_async(view())
        coroutine.send(None)
        try:
            coroutine.throw(Error())
        except Error as error:
            return weakref.ref(error)

    gc.disable()
    try:
        assert fail()() is None
    finally:
        gc.enable()

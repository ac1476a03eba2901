"""View derivers and decorators: what they make of a view gives a value.

Both take a view, and give one. What they give may be a coroutine function, whose
coroutine Pyramid would take for the response. It is refused when the view is
configured, for it calls the view and gets a response where it would ``await``
one: :func:`aioext.async_wrapper` is what it lacks. What only returns an awaitable
cannot be seen before it is called, and is waited for then.

Pyramid's own derivers are left alone, but for those that call a ``decorator=`` and
a view mapper.

Derivers of ours that render (:func:`renders`) stand next to Pyramid's own one that
does. Those that an application puts under that one get what the view has given, whether
they were added before ours or after.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from pyramid import viewderivers
from pyramid.config.views import combine_decorators
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IViewDerivers, IViewMapperFactory
from pyramid.util import object_description

from ..exceptions import explain
from ..greenlets import close
from ..views import Kind, kind_of, mark_synchronized
from .chain import Delegate, stand_in_for
from .values import is_coroutine, settle

__all__ = ["describe", "install_derivers", "mapper_of", "renders", "settled_view"]

View = Callable[[Any, Any], Any]
Deriver = TypeVar("Deriver", bound=Callable[[Any, Any], Any])


def install_derivers(registry: Any) -> None:
    """Have the view derivers of ``registry`` checked; idempotent."""
    stand_in_for(registry, _Derivers, IViewDerivers)


class _Derivers(Delegate):
    def sorted(self) -> list[tuple[str, Callable[[Any, Any], Any]]]:
        derivers = _renderers_first(self.hook.sorted())
        return [(name, _checked(name, each)) for name, each in derivers]


def renders(deriver: Deriver) -> Deriver:
    """Decorator of a view deriver under Pyramid's ``rendered_view``: it renders."""
    RENDERERS.add(deriver)
    return deriver


RENDERERS: set[Callable[[Any, Any], Any]] = set()


def _renderers_first(derivers: list[Any]) -> list[Any]:
    names = [name for name, _ in derivers]
    if "rendered_view" not in names:
        return derivers
    inner = names.index("rendered_view") + 1
    by_rank = sorted(derivers[inner:], key=lambda named: named[1] not in RENDERERS)
    return derivers[:inner] + by_rank


def _checked(name: str, deriver: Callable[[Any, Any], Any]) -> Any:
    if deriver in OWN:
        return OWN[deriver]
    if getattr(deriver, "__globals__", None) is vars(viewderivers):
        return deriver

    def checked_deriver(view: View, info: Any) -> View:
        return _settled(deriver(view, info), view, info, DERIVER.format(name))

    return checked_deriver


def _decorated_view(view: View, info: Any) -> View:
    # Pyramid's own, with a look at what each of many decorators gives.
    for decorator in reversed(_decorators(info.options.get("decorator"))):
        who = DECORATOR.format(object_description(decorator))
        view = _settled(decorator(view), view, info, who)
    return view


def _decorators(decorator: Any) -> tuple[Any, ...]:
    if decorator is None:
        return ()
    if getattr(decorator, "__code__", None) is COMBINED:
        return inspect.getclosurevars(decorator).nonlocals["decorators"]
    return (decorator,)


# Of the function that Pyramid makes of decorator=(one, another).
COMBINED = combine_decorators().__code__


def _mapped_view(view: Any, info: Any) -> View:
    # Pyramid's own, with a look at what a view mapper gives.
    factory = mapper_of(info)
    who = MAPPER.format(object_description(factory))
    mapper = _no_coroutine(factory(**info.options), info, who)
    return _no_coroutine(mapper(view), info, who)


def mapper_of(info: Any) -> Any:
    """The view mapper of a view, as Pyramid's deriver ``mapped_view`` finds it."""
    mapper = info.options.get("mapper")
    if mapper is None:
        mapper = getattr(info.original_view, "__view_mapper__", None)
    if mapper is None:
        mapper = info.registry.queryUtility(IViewMapperFactory)
    return viewderivers.DefaultViewMapper if mapper is None else mapper


OWN = {
    viewderivers.decorated_view: _decorated_view,
    viewderivers.mapped_view: _mapped_view,
}


def _settled(made: Any, view: View, info: Any, who: str) -> View:
    if made is view:
        return view
    kind = kind_of(_no_coroutine(made, info, who))
    if kind in (Kind.COROUTINE, Kind.ASYNC_GENERATOR):
        raise _refused(GIVES_A_COROUTINE, info, who)
    return made if kind is Kind.SYNCHRONIZED else settled_view(made)


def _no_coroutine(made: Any, info: Any, who: str) -> Any:
    if is_coroutine(made):
        close(made)
        raise _refused(IS_A_COROUTINE, info, who)
    return made


def settled_view(view: View) -> View:
    """``view``, waited for where it gives something that can be awaited."""

    @functools.wraps(view)
    def settled_view(context: Any, request: Any) -> Any:
        return settle(view(context, request))

    mark_synchronized(settled_view)
    return settled_view


def describe(view: Any, attr: str | None) -> str:
    """How a view is called in a message."""
    what = object_description(view)
    return f"{attr} of {what}" if attr else what


def _refused(message: str, info: Any, who: str) -> ConfigurationError:
    view = describe(info.original_view, info.options.get("attr"))
    return ConfigurationError(explain(message.format(who, view), "async-wrapper"))


DERIVER = "view deriver {!r}"
DECORATOR = "decorator {}"
MAPPER = "view mapper {}"

GIVES_A_COROUTINE = """\
The {} makes an async def function of the view {}, whose coroutine Pyramid would \
take for a response. Decorate it with @aioext.async_wrapper, and have the function \
that it makes await the view: response = await view(context, request)."""

IS_A_COROUTINE = """\
The {} is a coroutine function itself, and gave a coroutine where it was to make \
something of the view {}. It is called once, when the view is configured: write it as \
def. The function that it returns may be async def, if it is a decorator or a deriver \
that is itself decorated with @aioext.async_wrapper."""

"""Traversal of resources whose ``__getitem__`` may be a coroutine function.

Theory of operation
===================

Pyramid's algorithm is not written once more. It is handed a *node* in place of each
resource: an object with nothing but a ``__getitem__``, which calls the resource's,
waits for what that gives if it is a coroutine, and wraps it into the next node. The
names of the path, virtual roots, view selectors and the end of the walk are
Pyramid's to decide. What it then names as the context, the root and the virtual
root are nodes, and the resources are taken out of them.

``find_resource()``, ``traverse()`` and resource URLs ask the registry for a
traverser as the router does, so all of them can walk such a tree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyramid.interfaces import ITraverser
from pyramid.traversal import ResourceTreeTraverser
from zope.interface import Interface

from .hooks.values import settle_object

__all__ = ["AsyncTraverser", "AsyncioTraverser", "install"]


class AsyncioTraverser(ResourceTreeTraverser):
    """Pyramid's traverser, for resources whose ``__getitem__`` may be ``async def``.

    It is the default traverser of an application that includes aioext, and there is
    no need to name it. Resources of both kinds may stand in one tree, and subclasses
    may override what those of
    :class:`~pyramid.traversal.ResourceTreeTraverser` may.

    A ``KeyError`` of the coroutine says, as ever, that there is no such resource.
    Any other exception leaves the traversal, a cancellation included.

    Raises:
        ScopeError: something is to be waited for, by ``find_resource()`` in a Task
            of its own, say, with no bridge around it.
    """

    def __call__(self, request: Any) -> dict[str, Any]:
        """Walk the path of ``request``; what :class:`ITraverser` says."""
        if not hasattr(self.root, "__getitem__"):
            # As the default root has none: nothing to wait for.
            return ResourceTreeTraverser.__call__(self, request)
        # A traverser may be called more than once, and at the same time: a copy of
        # it walks. copy.copy() would take longer than most walks.
        walker = object.__new__(type(self))
        walker.__dict__.update(self.__dict__, root=_Node(self.root))
        found = ResourceTreeTraverser.__call__(walker, request)
        for name in "context", "root", "virtual_root":
            found[name] = found[name].resource
        return found


AsyncTraverser = AsyncioTraverser


class _Node:
    # What Pyramid walks over: one resource.
    __slots__ = ("resource",)

    def __init__(self, resource: Any) -> None:
        self.resource = resource

    @property
    def __getitem__(self) -> Callable[[str], _Node]:
        # Looked up as Pyramid does it: on the object, whose AttributeError says
        # that it has no children.
        getitem = self.resource.__getitem__
        return lambda name: _Node(settle_object(getitem(name)))


def install(registry: Any) -> None:
    """Make it the default traverser of an application that has set none."""
    if registry.adapters.lookup((Interface,), ITraverser) is None:
        registry.registerAdapter(AsyncioTraverser, (Interface,), ITraverser)

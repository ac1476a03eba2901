"""What Pyramid builds its call chain of: predicates, view derivers, tweens.

Each is kept in a utility that the configurator asks for what it makes:
``IPredicateList``, ``IViewDerivers``, ``ITweens``. In its place stands a
:class:`Delegate`, which is asked instead, asks the original, and adapts what it
gives. So it does not matter when something is registered, nor how often the
configuration is committed, and conflicts and introspection are Pyramid's own.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Delegate", "stand_in_for"]


class Delegate:
    """Stands in a registry for ``hook``, and has its attributes."""

    def __init__(self, hook: Any) -> None:
        self.hook = hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self.hook, name)


def stand_in_for(
    registry: Any, delegate: type[Delegate], interface: Any, name: str = ""
) -> None:
    """Register ``delegate(utility)`` in the place of a utility.

    Does nothing if there is no such utility, and nothing the second time.
    """
    utility = registry.queryUtility(interface, name=name)
    if utility is not None and not isinstance(utility, delegate):
        registry.registerUtility(delegate(utility), interface, name=name)

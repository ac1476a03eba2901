"""The bridge under the name that aiopyramid's users import it by.

New code imports from :mod:`aioext`.
"""

from .bridge import spawn_greenlet as spawn_greenlet
from .bridge import synchronize as synchronize
from .executor import use_executor as use_executor

__all__ = ["spawn_greenlet", "synchronize", "use_executor"]

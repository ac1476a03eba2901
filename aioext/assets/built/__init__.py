"""Files that are built from others; see :doc:`/built`.

The directive is in :mod:`.config`; :mod:`.asset` says when a file is built, and by
whom, :mod:`.cache` where it is kept. Ready-made builders are in :mod:`.builders`.
"""

from .asset import BuiltAsset
from .config import BuiltAssets, add_built_asset, includeme

__all__ = ["BuiltAsset", "BuiltAssets", "add_built_asset", "includeme"]

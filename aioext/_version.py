"""The version, in the one place that states it.

``setup.py`` reads this file without importing the package: its only statement
is the assignment.
"""

__version__ = "0.1.0.dev0"

"""What an application gets, the same tests on everything that runs it.

The runtimes are in ``tests/runtimes.py``, with what each of them cannot do. A test
says which features it shows, see ``conftest.py``; ``python tests/support_matrix.py``
makes the table of the documentation of its outcomes.
"""

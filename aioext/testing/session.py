"""What a test has of a connection, be it a WebSocket or a stream."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any, Self

from webtest import TestResponse

from .serving import Serving, wait

__all__ = ["Session"]


class Session:
    """A connection to the application; a context manager that ends it.

    Attributes:
        response: the head of the response, as WebTest's ``TestResponse``.
        is_over: whether the connection was ended, and its errors were told.
    """

    # Tells pytest that it is no class of tests, whatever it is called.
    __test__ = False
    is_over = False
    _serving: Serving

    def __init__(self, serving: Serving, response: TestResponse) -> None:
        self._serving = serving
        self.response = response

    @property
    def headers(self) -> Any:
        """The headers of the response; their names match in any case."""
        return self.response.headers

    def wait_ended(self, timeout: float | None = None) -> None:
        """Wait until what serves the connection has ended, ``finally`` included.

        Args:
            timeout: seconds; by default the connection's.

        Raises:
            BaseException: what it raised.
            TimeoutError: it still runs.
        """
        wait(self._serving.wait_ended, timeout)
        self._serving.raise_failure()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.is_over = True
        wait(self._serving.end)
        failure = self._serving.failures.take()
        if failure is None:
            return
        if error is None:
            raise failure
        # What the test noticed is likely to be a consequence.
        told = "".join(traceback.format_exception(failure))
        error.add_note(f"{self._serving.name} failed in the application:\n{told}")

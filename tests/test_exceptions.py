"""The errors that aioext raises, and what they say."""

import copy
import pickle

import pytest

from aioext import exceptions
from aioext.exceptions import (
    AioextError,
    BuildError,
    ClientDisconnected,
    ConnectionClosed,
    GatewayError,
    MountError,
    NoTransaction,
    ScopeError,
    explain,
)

TREE = {
    BuildError: RuntimeError,
    ScopeError: RuntimeError,
    ClientDisconnected: ConnectionResetError,
    ConnectionClosed: ConnectionResetError,
    GatewayError: RuntimeError,
    MountError: RuntimeError,
    NoTransaction: RuntimeError,
}


def test_the_tree_is_complete_and_drawn():
    assert set(TREE) == set(AioextError.__subclasses__())
    for error, builtin in TREE.items():
        assert issubclass(error, builtin)
        drawn = f"── {error.__name__} ({builtin.__name__})"
        assert drawn in exceptions.__doc__
    assert {each.__name__ for each in (AioextError, *TREE)} == set(exceptions.__all__)


# What they say is told where they are raised, but for this one.
TOLD = [AioextError, *(error for error in TREE if error is not ConnectionClosed)]


@pytest.mark.parametrize("error", TOLD)
def test_an_error_ends_with_the_address_of_its_section(error):
    lines = str(error("What happened.\nWhat to write.")).splitlines()
    assert lines[:2] == ["What happened.", "What to write."]
    page = "https://aioext.readthedocs.io/en/latest/errors.html"
    assert lines[2:] == [f"(More about this error: {page}#{error.anchor})"]


def test_every_error_has_a_section_of_its_own():
    assert len({error.anchor for error in (AioextError, *TREE)}) == 1 + len(TREE)


def test_the_parts_of_an_error_are_kept():
    assert ScopeError("message").args == ("message",)
    assert explain("message", "anchor").startswith("message\n")
    assert explain("message", "anchor").endswith("#anchor)")


def test_a_client_that_left_is_an_oserror_without_a_number():
    error = ClientDisconnected("gone")
    assert error.errno is None
    assert str(error).startswith("gone\n")


@pytest.mark.parametrize(
    ("reason", "told"),
    [("", "with code 4000."), ("enough", "with code 4000 (enough).")],
)
def test_a_closed_websocket_is_told_with_code_and_reason(reason, told):
    error = ConnectionClosed(4000, reason)
    assert (error.code, error.reason) == (4000, reason)
    assert error.errno is None
    assert str(error).startswith(f"The WebSocket is closed, {told} ")
    assert str(error).endswith("errors.html#connection-closed)")


def test_a_closed_websocket_can_be_told_in_another_process():
    error = ConnectionClosed(4000, "enough")
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (other.code, other.reason) == (4000, "enough")
        assert str(other) == str(error)

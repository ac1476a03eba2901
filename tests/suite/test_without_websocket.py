"""What an application says to a WebSocket where the server has none."""

import pytest
from runtimes import SOCKETS
from ws_client import HANDSHAKE

pytestmark = pytest.mark.without(SOCKETS)


@pytest.mark.parametrize("path", ["/echo", "/function", "/threaded", "/order"])
def test_a_handshake_is_answered_with_what_would_help(running, path):
    answer = running.get(f"/websocket{path}", HANDSHAKE)
    assert answer.status == 501
    assert "aioext" in answer.body, answer


@pytest.mark.parametrize("path", ["/echo", "/threaded"])
def test_a_plain_request_is_told_to_upgrade(running, path):
    answer = running.get(f"/websocket{path}")
    assert answer.status == 426
    assert "WebSocket" in answer.body


def test_a_view_that_can_do_without_goes_on(running):
    answer = running.get("/websocket/page-or-socket")
    assert (answer.status, answer.body.split()[0]) == (200, "page")

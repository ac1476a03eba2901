"""Tests of the WebSocket."""

import pytest
from aioext.testing import WebSocketRefused


def test_everybody_is_told_what_one_says(app):
    with app.websocket("/chat") as one:
        one.send("first")
        assert one.recv() == "first"
        with app.websocket("/chat") as other:
            other.send("second")
            assert other.recv() == one.recv() == "second"
            one.send("third")
            assert other.recv() == one.recv() == "third"


def test_who_has_left_disturbs_nobody(app):
    with app.websocket("/chat") as one:
        with app.websocket("/chat") as other:
            other.send("bye")
            assert one.recv() == "bye"
            other.disconnect()
        one.send("anybody?")
        assert one.recv() == "anybody?"


def test_other_origins_are_refused(app):
    with pytest.raises(WebSocketRefused) as refused:
        app.websocket("/chat", origin="https://elsewhere.example")
    assert refused.value.response.status_int == 403


def test_a_browser_that_is_led_here_is_told_what_it_needs(app):
    assert "WebSocket" in app.get("/chat", status=426)

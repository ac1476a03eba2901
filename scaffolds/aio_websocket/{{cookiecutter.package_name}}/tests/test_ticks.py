"""Tests of the event stream."""

from datetime import datetime

import pytest

from {{ cookiecutter.package_name }} import ticker


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(ticker, "INTERVAL", 0.01)


def test_ticks_are_numbered_and_timed(app):
    with app.eventsource("/ticks") as stream:
        first, second = (stream.next() for _ in range(2))
    assert first.event == second.event == "tick"
    assert second.json["number"] == first.json["number"] + 1
    assert datetime.fromisoformat(first.json["time"])


def test_who_comes_back_is_sent_what_was_missed(app):
    with app.eventsource("/ticks") as stream:
        seen = stream.next()
    with app.eventsource("/ticks", last_event_id=seen.id) as stream:
        assert stream.next().json["number"] == seen.json["number"] + 1


def test_who_was_here_before_a_restart_is_told_so(app):
    with app.eventsource("/ticks", last_event_id="before-1") as stream:
        assert stream.next().event == "reset"
        assert stream.next().event == "tick"

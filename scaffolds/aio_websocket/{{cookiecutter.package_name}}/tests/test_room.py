"""Tests of the room alone."""

from {{ cookiecutter.package_name }}.room import BACKLOG, Room


def test_everybody_hears_what_is_said_meanwhile():
    room = Room()
    with room.enter() as one:
        with room.enter() as other:
            room.say("both")
        room.say("one")
    room.say("nobody")
    assert contents(one) == ["both", "one"]
    assert contents(other) == ["both"]


def test_who_is_slow_misses_the_oldest():
    room = Room()
    with room.enter() as inbox:
        for number in range(BACKLOG + 2):
            room.say(number)
    assert contents(inbox) == list(range(2, BACKLOG + 2))


def contents(inbox):
    return [inbox.get_nowait() for _ in range(inbox.qsize())]

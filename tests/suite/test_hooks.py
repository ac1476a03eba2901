"""Coroutines in Pyramid's hooks, of requests that are in them at the same time."""

import itertools

import pytest
from runtimes import AT_ONCE, CONNECTIONS, EXECUTOR, HOOKS, NO_THREADS
from servers import poll
from ws_client import values

names = (f"meeting{n}" for n in itertools.count())

TRAIL = "tween subscriber root child predicate identity permits renderer back callback"


def trail_of(answer):
    return " ".join(values(answer.headers, "x-trail"))


# Hooks ------------------------------------------------------------------------


@pytest.mark.feature(HOOKS)
def test_every_hook_may_be_a_coroutine(running):
    answer = running.get("/hooks/child?user=member")
    assert (answer.status, answer.body) == (200, "hello member None")
    assert trail_of(answer) == TRAIL


@pytest.mark.feature(HOOKS)
@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/hooks/child?user=guest", 403),
        ("/hooks/child", 403),
        ("/hooks/stranger?user=member", 404),
        ("/hooks/child?user=member&wanted=no", 404),
    ],
)
def test_a_hook_that_says_no_is_obeyed(running, target, status):
    assert running.get(target).status == status


@pytest.mark.feature(HOOKS, CONNECTIONS)
def test_an_error_of_a_coroutine_view_is_a_500_and_logged(running):
    before = running.output.count("Expected: in a view")
    assert running.get("/broken").status == 500
    poll(lambda: running.output.count("Expected: in a view") > before)


# Together ---------------------------------------------------------------------


@pytest.mark.feature(HOOKS, AT_ONCE)
def test_requests_that_are_in_every_hook_at_once_do_not_mix(running):
    query = f"user=member&meeting={next(names)}&count=4"
    answers = running.get_all([f"/hooks/child?{query}&name={n}" for n in range(4)])
    assert [each.body for each in answers] == [f"hello member {n}" for n in range(4)]
    assert {trail_of(each) for each in answers} == {TRAIL}


@pytest.mark.feature(AT_ONCE)
def test_a_request_waits_while_others_are_served(running):
    query = f"meeting={next(names)}&count=10"
    answers = running.get_all([f"/meeting?{query}"] * 10)
    assert [each.status for each in answers] == [200] * 10


@pytest.mark.without(AT_ONCE)
def test_one_request_is_served_after_the_other(running):
    answers = running.get_all(["/overlap"] * 3)
    assert [each.json["seen"] for each in answers] == [1, 1, 1]


@pytest.mark.feature(NO_THREADS)
def test_more_requests_wait_than_there_are_threads(running):
    query = f"meeting={next(names)}&count=200"
    answers = running.get_all([f"/meeting?{query}"] * 200)
    assert {each.status for each in answers} == {200}


@pytest.mark.without(NO_THREADS)
def test_a_request_that_waits_keeps_its_thread(running):
    # They are in the server's own threads, all of them at once.
    query = f"meeting={next(names)}&count=20"
    answers = running.get_all([f"/thread?{query}"] * 20)
    assert len({each.json["thread"] for each in answers}) == 20


# Where views run --------------------------------------------------------------


@pytest.mark.feature(HOOKS)
@pytest.mark.parametrize("path", ["/coroutine", "/inline"])
def test_what_a_view_awaits_runs_on_the_loop_of_the_lifespan(running, path):
    assert running.get(path).json["opened"]


@pytest.mark.feature(EXECUTOR)
def test_a_view_that_is_a_function_runs_in_the_executor(running):
    assert running.get("/function").json["executor"]


@pytest.mark.without(EXECUTOR)
def test_a_view_that_is_a_function_runs_in_the_thread_of_the_server(running):
    place = running.get("/function").json
    assert not place["executor"]
    assert not place["background"]

"""Tests of the whole application: routes, views, templates and static files."""

import threading


def test_home_is_made_on_the_event_loop(app):
    page = app.get("/")
    assert page.content_type == "text/html"
    assert "on the event loop" in page
    assert page.html.find("h1").text == "It works."


def test_home_links_to_what_exists(app):
    page = app.get("/")
    links = page.html.select("a[href], link[href]")
    assert links
    for link in links:
        app.get(link["href"])


def test_status_is_json(app):
    response = app.get("/status.json")
    assert response.content_type == "application/json"
    assert response.json["status"] == "ok"


def test_a_synchronous_view_names_its_thread(app):
    """Here it is this thread: without a server there is no loop to keep free."""
    response = app.get("/thread")
    assert response.content_type == "text/plain"
    assert threading.current_thread().name in response


def test_an_unknown_address_is_not_found(app):
    app.get("/nowhere", status=404)

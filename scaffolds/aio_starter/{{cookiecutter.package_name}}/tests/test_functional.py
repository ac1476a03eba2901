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


def test_status_is_a_page(app):
    page = app.get("/status")
    assert page.content_type == "text/html"
    assert page.html.find("h1").text == "Status: ok"


def test_status_is_json_for_programs(app):
    by_address = app.get("/status.json")
    by_header = app.get("/status", headers={"Accept": "application/json"})
    for response in (by_address, by_header):
        assert response.content_type == "application/json"
        assert response.json["status"] == "ok"
        assert "process" not in response.json


def test_the_style_sheet_is_built_and_kept_by_browsers(app):
    address = app.get("/").html.find("link", rel="stylesheet")["href"]
    assert "?v=" in address
    response = app.get(address)
    assert response.content_type == "text/css"
    assert ".hero h1{" in response
    assert "immutable" in response.headers["Cache-Control"]


def test_a_synchronous_view_names_its_thread(app):
    """Here it is this thread: without a server there is no loop to keep free."""
    response = app.get("/thread")
    assert response.content_type == "text/plain"
    assert threading.current_thread().name in response


def test_an_unknown_address_is_not_found(app):
    app.get("/nowhere", status=404)

"""Tests of the page and of what belongs to it."""


def test_the_page_names_its_two_connections(app):
    page = app.get("/").html
    assert page.find(id="chat")["data-address"] == "/chat"
    assert page.find(id="ticks")["data-address"] == "/ticks"


def test_the_page_links_to_what_exists(app):
    page = app.get("/").html
    links = [tag["href"] for tag in page.select("a[href], link[href]")]
    links += [tag["src"] for tag in page.select("img[src], script[src]")]
    assert any(link.endswith("page.js") for link in links)
    for link in links:
        app.get(link)


def test_an_unknown_address_is_not_found(app):
    app.get("/nowhere", status=404)

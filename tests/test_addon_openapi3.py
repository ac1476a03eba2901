"""pyramid_openapi3: requests and responses are validated, each against its own."""

import json
import logging

from addons import KINDS, Ask, as_kind, crowded, in_every_kind, site_of
from pyramid.threadlocal import get_current_request


def item(kind):
    """The path of one kind of view in the specification."""
    number = {"type": "integer", "minimum": 0}
    text = {"type": "string", "minLength": 1}
    body = {
        "type": "object",
        "required": ["name", "number"],
        "additionalProperties": False,
        "properties": {"name": text, "number": number, "day": {"format": "day"}},
    }
    body["properties"]["day"]["type"] = "string"
    errors = {"type": "array", "items": {"type": "object"}}

    def answer(schema):
        content = {"application/json": {"schema": schema}}
        return {"description": "An answer", "content": content}

    return {
        "post": {
            "parameters": [
                {"name": "number", "in": "path", "required": True, "schema": number},
                {"name": "q", "in": "query", "required": True, "schema": number},
            ],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": body}},
            },
            "responses": {
                "200": answer(body),
                "400": answer(errors),
                "500": answer(errors),
            },
        }
    }


SPECIFICATION = {
    "openapi": "3.1.0",
    "info": {"title": "Items", "version": "1"},
    "paths": {f"/{kind}/item/{{number}}": item(kind) for kind in KINDS},
}
FILES = {"openapi.json": json.dumps(SPECIFICATION)}

DAYS = ("monday", "tuesday")


def is_day(value):
    """A formatter of the application's own."""
    return value in DAYS


def post(request):
    """Answers with what was validated, or wrongly if it is told to."""
    validated = request.openapi_validated
    yield
    assert request is get_current_request()
    assert request.openapi_validated is validated
    number = validated.parameters.path["number"]
    assert number == validated.parameters.query["q"]
    yield
    body = dict(validated.body)
    if body["name"] == "wrong":
        body["number"] = f"wrong {number}"
    return body


def configure(config):
    config.include("pyramid_openapi3")
    config.pyramid_openapi3_add_formatter("day", is_day)
    config.pyramid_openapi3_spec(
        f"{config.registry.settings['files']}/openapi.json", route="/openapi.json"
    )
    for kind in KINDS:
        config.add_route(kind, f"/{kind}/item/{{number}}")
        config.add_view(
            as_kind(kind, post),
            route_name=kind,
            request_method="POST",
            openapi=True,
            renderer="json",
        )
    # It logs every request and response that is not valid.
    logging.getLogger("pyramid_openapi3").setLevel(logging.CRITICAL)


site = site_of(configure, files=FILES)


def asked(kind, number, /, **body):
    """A request whose body has ``body``, and a name and a number unless it is None."""
    body = {"name": f"name {number}", "number": number, **body}
    body = {name: value for name, value in body.items() if value is not None}
    return Ask(
        f"/{kind}/item/{number}?q={number}",
        "POST",
        {"Content-Type": "application/json"},
        json.dumps(body).encode(),
    )


@crowded
def test_each_is_validated_by_itself(site, crowd):
    # The response to every fourth of them is not valid.
    asks = [
        asked(kind, n, name="right" if n % 4 else "wrong", day=DAYS[n % 2])
        for n, kind in crowd
    ]
    for number, answer in enumerate(site.overlap(asks, crowd.order)):
        if number % 4:
            expected = {"name": "right", "number": number, "day": DAYS[number % 2]}
            assert (answer.status, answer.json()) == (200, expected)
        else:
            assert answer.status == 500
            (error,) = answer.json()
            assert f"'wrong {number}' is not of type 'integer'" in error["message"]


@in_every_kind
def test_requests_that_are_not_valid_are_refused(site, kind):
    refused = [
        (asked(kind, 1, number=-1), "-1 is less than the minimum of 0"),
        (asked(kind, 1, name=None), "'name' is a required property"),
        (asked(kind, 1, day="someday"), "'someday' is not a 'day'"),
        (asked(kind, 1, more=1), "Additional properties are not allowed"),
    ]
    for ask, message in refused:
        answer = site.ask(ask)
        assert answer.status == 400
        assert message in answer.json()[0]["message"]
    assert site.ask(f"/{kind}/item/1?q=1", method="POST").status == 400
    assert site.ask("/openapi.json").json() == SPECIFICATION

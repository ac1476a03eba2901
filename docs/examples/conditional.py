"""The examples of the page on conditional answers; the tests run them."""

from pyramid.response import Response


# option
async def page(request):
    return {"title": "A page", "items": [1, 2, 3]}


def includeme(config):
    config.include("aioext.renderers")
    config.add_route("page", "/page")
    config.add_view(page, route_name="page", renderer="json", etag=True)
    # end
    config.add_route("article", "/articles/{id}")
    config.add_view(article, route_name="article", renderer="json", etag=True)
    config.add_route("track", "/track")
    config.add_view(track, route_name="track", etag=True)


ARTICLES = {"1": {"version": 7, "text": "Once upon a time"}}


# own
def article(request):
    found = ARTICLES[request.matchdict["id"]]
    request.response.etag = f"{request.matchdict['id']}-{found['version']}"
    return found


# end


# length
SONG = [b"la " * 1000] * 10


def track(request):
    response = Response(content_type="audio/x-hum")
    response.app_iter = iter(SONG)
    response.content_length = sum(map(len, SONG))
    response.headers["ETag"] = '"la-1"'
    return response


# end

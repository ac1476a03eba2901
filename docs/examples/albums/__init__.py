from dataclasses import dataclass

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPNotFound
from pyramid.view import exception_view_config, view_config


@dataclass
class Album:
    title: str
    tracks: list[str]
    margin: int

    # model
    def __json__(self, request):
        return {
            "title": self.title,
            "href": request.route_path("album", id=self.title, extension="json"),
        }

    # end


ALBUMS = {"blue": Album("blue", ["One", "Two"], margin=40)}


# view
@view_config(
    route_name="album",
    formats={"html": "templates/album.mako", "json": ("title", "tracks")},
)
async def album(request):
    found = ALBUMS.get(request.matchdict["id"])
    if found is None:
        raise HTTPNotFound("no such album")
    return {"title": found.title, "tracks": found.tracks, "margin": found.margin}


# end


# callable
def titles(value):
    return [album.title for album in value["albums"]]


@view_config(
    route_name="albums",
    formats={
        "html": "templates/albums.mako",
        "json": lambda value: value["albums"],
        "jsonl": titles,
        "csv": "albums_csv",
    },
)
def albums(request):
    return {"albums": list(ALBUMS.values())}


# end


# error
@exception_view_config(
    context=HTTPNotFound,
    formats={"html": "templates/error.mako", "json": ("detail",)},
)
def not_found(error, request):
    request.response.status = error.status
    return {"detail": error.detail, "path": request.path}


# end


# csv
def albums_csv(info):
    def render(value, system):
        return "".join(f"{album.title}\r\n" for album in value["albums"])

    return render


# end


# main
def main(global_config=None, **settings):
    with Configurator(settings=settings) as config:
        config.include("aioext.renderers")
        config.include("pyramid_mako")
        config.add_renderer("albums_csv", albums_csv)
        config.add_format_route("albums", "/albums", (None, "json", "jsonl", "csv"))
        config.add_format_route("album", "/albums/{id}")
        config.scan()
    return config.make_wsgi_app()


# end

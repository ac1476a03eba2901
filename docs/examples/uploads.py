"""A page that takes pictures."""

from pathlib import Path

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPBadRequest, HTTPRequestEntityTooLarge
from pyramid.response import Response

from aioext import wait
from aioext.uploads import save

# form
PAGE = """\
<form method="post" enctype="multipart/form-data">
  <input name="title"> <input name="picture" type="file"> <button>Send</button>
</form>
"""


def ask(request):
    return Response(PAGE)


async def take(request):
    form = await request.form()
    into = request.registry.settings["pictures"]
    path = await save(form["picture"], into, mkdir=True)
    return {"title": form["title"], "name": path.name}


# end


# several
async def take_all(request):
    form = await request.form()
    into = Path(request.registry.settings["pictures"])
    return [(await save(each, into)).name for each in form.getall("pictures")]


# end


# function
def take_in_function(request):
    field = request.POST["picture"]
    path = wait(save(field, request.registry.settings["pictures"], mkdir=True))
    return {"name": path.name}


# end


# portrait
async def take_portrait(request):
    form = await request.form()
    field = form["picture"]
    if field.file.read(8) != b"\x89PNG\r\n\x1a\n":
        raise HTTPBadRequest("A portrait is a PNG file.")
    into = request.registry.settings["pictures"]
    name = f"portrait-{int(request.matchdict['id'])}.png"
    await save(field, into, name, mkdir=True, dup="o")
    return {"name": name}


# end


# errors
def refuse(error, request):
    request.response.status_code = error.status_code
    return {"refused": error.detail}


# end


def main(global_config=None, **settings):
    with Configurator(settings=settings) as config:
        config.include("aioext")
        # views
        config.add_route("pictures", "/pictures")
        config.add_view(ask, route_name="pictures", request_method="GET")
        config.add_view(
            take,
            route_name="pictures",
            request_method="POST",
            max_body="20MiB",
            renderer="json",
        )
        # end
        config.add_route("all", "/all")
        config.add_view(take_all, route_name="all", renderer="json")
        config.add_route("function", "/function")
        config.add_view(take_in_function, route_name="function", renderer="json")
        config.add_route("portrait", "/portrait/{id}")
        config.add_view(take_portrait, route_name="portrait", renderer="json")
        # answers
        for context in (HTTPBadRequest, HTTPRequestEntityTooLarge):
            config.add_exception_view(refuse, context=context, renderer="json")
        # end
        return config.make_wsgi_app()

from pyramid.config import Configurator


def page(request):
    return {
        "script": request.static_path("shop:static/app.js"),
        "logo": request.static_version("/static/logo.svg#small"),
    }


def main(global_config=None, **settings):
    with Configurator(settings=settings) as config:
        config.include("aioext.assets")
        config.add_static_view("static", "shop:static", cache_max_age=3600)
        config.add_route("page", "/")
        config.add_view(page, route_name="page", renderer="json")
        return config.make_wsgi_app()


# manifest


def bundle(config):
    config.include("aioext.assets")
    config.add_static_view("static", "shop:static")
    config.add_asset_manifest("shop:static/dist")


# busters


def hashes(config):
    from aioext.assets import HashCacheBuster

    config.include("aioext.assets")
    config.add_static_view("static", "shop:static")
    config.add_cache_buster("shop:static/fonts", HashCacheBuster(place="path"))


# end

"""The addresses that the application answers, and the files that it builds."""

from aioext.assets import scss


def includeme(config):
    config.add_static_view("static", "static", cache_max_age=3600)
    config.add_built_asset("static/style.css", ["scss/style.scss"], build=scss())
    config.add_route("home", "/")
    config.add_format_route("status", "/status")
    config.add_route("thread", "/thread")

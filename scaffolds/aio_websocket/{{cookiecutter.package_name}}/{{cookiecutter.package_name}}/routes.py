"""The addresses that the application answers."""


def includeme(config):
    # A browser asks again after a minute, so that what was changed is soon seen.
    config.add_static_view("static", "static", cache_max_age=60)
    config.add_route("home", "/")
    config.add_route("chat", "/chat")
    config.add_route("ticks", "/ticks")

"""A Pyramid application on asyncio, with a WebSocket and an event stream."""

from pyramid.config import Configurator


def main(global_config=None, **settings):
    """Make the WSGI application from the settings of an ini file."""
    with Configurator(settings=settings) as config:
        config.include("aioext")
        config.include("aioext.renderers")
        config.include("pyramid_mako")
        config.include(".room")
        config.include(".ticker")
        config.include(".routes")
        config.scan()
        return config.make_wsgi_app()

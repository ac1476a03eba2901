"""A Pyramid application on asyncio."""

from pyramid.config import Configurator


def main(global_config=None, **settings):
    """Make the WSGI application from the settings of an ini file."""
    with Configurator(settings=settings) as config:
        config.include("aioext")
        config.include("aioext.assets")
        config.include("aioext.renderers")
        config.include("pyramid_mako")
        config.include(".routes")
        config.scan()
        return config.make_wsgi_app()

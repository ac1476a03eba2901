from pyramid.config import Configurator

from aioext.assets import js, scss


def main(global_config=None, **settings):
    with Configurator(settings=settings) as config:
        config.include("aioext.assets")
        config.add_static_view("static", "shop:static")
        config.add_built_asset(
            "shop:static/shop.css", sources=["shop:scss/shop.scss"], build=scss()
        )
        config.add_built_asset(
            "shop:static/shop.js",
            sources=["shop:js/first.js", "shop:js/*.js"],
            build=js(),
        )
        config.include(others)
        return config.make_wsgi_app()


# builders


def join_messages(sources, target):
    lines = [line for path in sources for line in path.read_text().splitlines()]
    target.write_text("\n".join(sorted(set(lines))))


def others(config):
    config.add_built_asset(
        "shop:static/messages.txt",
        sources=["shop:messages/*.txt"],
        build=join_messages,
    )
    config.add_built_asset(
        "shop:static/page.js",
        sources=["shop:ts/page.ts"],
        depends=["shop:ts/**/*.ts"],
        build="esbuild --bundle --minify {source} --outfile={target}",
    )
    # One for each file: static/a.txt.gz of data/a.txt.
    config.add_built_asset(
        "shop:static/*.txt.gz",
        sources=["shop:data/*.txt"],
        build=["gzip", "-9", "-c", "{source}"],
    )


# end

from pyramid.config import Configurator
from pyramid.response import Response

from aioext.assets import FileResponse


async def terms(request):
    return Response(await request.asset("shop:data/terms.txt").text())


async def catalogue(request):
    return FileResponse("shop:data/catalogue.pdf", request, cache_max_age=3600)


# invoice


async def invoice(request):
    number = int(request.matchdict["number"])
    response = FileResponse(f"/var/lib/shop/invoices/{number}.pdf", request)
    response.cache_control.private = True
    response.content_disposition = f'attachment; filename="invoice-{number}.pdf"'
    return response


# configuration


def main(global_config=None, **settings):
    with Configurator(settings=settings) as config:
        config.include("aioext.assets")
        config.add_route("terms", "/terms")
        config.add_view(terms, route_name="terms")
        config.add_route("catalogue", "/catalogue.pdf")
        config.add_view(catalogue, route_name="catalogue")
        config.add_route("invoice", r"/invoices/{number:\d+}")
        config.add_view(invoice, route_name="invoice")
        config.add_static_view("static", "shop:static", content_encodings=["gzip"])
        return config.make_wsgi_app()


# end

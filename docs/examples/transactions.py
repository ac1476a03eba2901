"""The examples of the page on the bridge that are about transactions."""

# explicit
import pyramid_tm


def includeme(config):
    config.add_settings({"tm.manager_hook": pyramid_tm.explicit_manager})
    config.include("pyramid_tm")
    config.add_tween(
        f"{__name__}.abort_when_cancelled", under="pyramid_tm.tm_tween_factory"
    )


# end


# cancelled
def abort_when_cancelled(handler, registry):
    def tween(request):
        try:
            return handler(request)
        except Exception:
            raise  # pyramid_tm aborts
        except BaseException:
            if request.environ.get("tm.active"):
                request.tm.abort()
            raise

    return tween


# end

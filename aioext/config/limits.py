"""The view option ``max_body``: how large a body one view takes."""

from __future__ import annotations

from typing import Any

from pyramid.config import PHASE1_CONFIG
from pyramid.exceptions import ConfigurationError
from pyramid.viewderivers import INGRESS

from ..exceptions import explain
from ..interfaces import IBodyLimits, ISettings
from ..limits import BodyLimits, limit_body
from ..settings import SETTINGS
from .mappers import describe

__all__ = ["limited_view"]

OPTION = "max_body"
_SETTING = next(each for each in SETTINGS if each.name == OPTION)


def includeme(config: Any) -> None:
    """Add the option; ``config.include('aioext')`` does so."""
    registry = config.registry
    if registry.queryUtility(IBodyLimits) is None:
        registry.registerUtility(BodyLimits(), IBodyLimits)
    # Once the settings are read, which happens in that phase.
    config.action(None, _set_default, (registry,), order=PHASE1_CONFIG + 1)
    # Around all others: the CSRF check, for one, reads forms.
    config.add_view_deriver(
        limited_view, "aioext_limited_view", under=INGRESS, over="secured_view"
    )


def _set_default(registry: Any) -> None:
    maximum = registry.getUtility(ISettings).max_body
    registry.getUtility(IBodyLimits).set_default(maximum)


def limited_view(view: Any, info: Any) -> Any:
    """View deriver: have the body end where this view wants it to.

    Raises:
        ConfigurationError: the option ``max_body`` has a value that is not allowed,
            or is on an exception view.
    """
    maximum = _read_option(info)
    limits = info.registry.getUtility(IBodyLimits)
    if maximum is None:
        return _by_default(view, info, limits)
    limits.add(maximum)
    if not maximum:
        return view

    def view_with_limit(context: Any, request: Any) -> Any:
        _limit(request, maximum)
        return view(context, request)

    return view_with_limit


limited_view.options = (OPTION,)  # type: ignore[attr-defined]


def _by_default(view: Any, info: Any, limits: BodyLimits) -> Any:
    is_known = info.registry.queryUtility(ISettings) is not None
    # A view that answers an error is to do that, whatever the one before it took.
    if info.exception_only or (is_known and not limits.default):
        return view

    def view_with_default(context: Any, request: Any) -> Any:
        if limits.default and limits.default != limits.largest:
            _limit(request, limits.default)
        return view(context, request)

    return view_with_default


def _limit(request: Any, maximum: int) -> None:
    # What a test has for a request may have no body to read.
    if "wsgi.input" in request.environ:
        limit_body(request.environ, maximum)


def _read_option(info: Any) -> int | None:
    value = info.options.get(OPTION)
    if value is None:
        return None
    what = describe(info.original_view, info.options.get("attr"))
    if info.exception_only:
        raise ConfigurationError(explain(TOO_LATE.format(what), "view-max-body"))
    try:
        return _SETTING.cast(value)
    except ValueError as error:
        message = f"The view {what} has {OPTION}={value!r}; it takes {error}."
        raise ConfigurationError(explain(message, "view-max-body")) from None


TOO_LATE = """\
The exception view {} has max_body: when it is called, the limit of the view that \
failed has held. Give that one the option."""

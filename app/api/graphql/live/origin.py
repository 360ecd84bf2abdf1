"""Which pages may open a WebSocket here: browsers let any page try."""

import logging
from collections.abc import Collection, Mapping

from strawberry.http.websocket_origin import is_same_origin, normalize_origin

log = logging.getLogger(__name__)


def origin_allowed(
    origin: str | None, headers: Mapping[str, str], allowed: Collection[str]
) -> bool:
    """Without an origin it is no browser, and holds no one's cookies. Header names in lower case;
    `allowed` is normalized."""
    if origin is None or headers.get("sec-fetch-site") == "same-origin":
        return True
    if is_same_origin(origin, headers.get("host")) or "*" in allowed:
        return True
    if normalize_origin(origin) in allowed:
        return True
    log.warning(
        "refused a WebSocket from a page of %r; LUTHIER_ALLOWED_ORIGINS does not list it",
        origin[:200],
    )
    return False

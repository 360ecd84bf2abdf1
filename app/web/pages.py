"""What every page is served with: where it lies, and what it may load."""

import re
from pathlib import Path
from typing import Final

from starlette.requests import Request

STATIC: Final = Path(__file__).parent / "static"
_HOST = re.compile(r"[A-Za-z0-9.\-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")


def root_of(request: Request) -> str:
    """The path before the service's own paths, without a slash at its end."""
    # Inside a Mount, `root_path` has grown by the mount's own path; this one has not.
    root: str = request.scope.get("app_root_path", request.scope.get("root_path", ""))
    return root.rstrip("/")


def page_headers(request: Request, rules: dict[str, str]) -> dict[str, str]:
    """`rules` are the page's own directives of the content security policy."""
    return {
        "Content-Security-Policy": _content_security_policy(request, rules),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }


def _content_security_policy(request: Request, rules: dict[str, str]) -> str:
    """Older browsers do not count `ws:` as 'self', so the socket's own origin is named; a bare
    `ws: wss:` would let an injected script send the key to any host."""
    host = request.headers.get("host", "")
    socket = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    policy = {
        "default-src": "'self'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "font-src": "'self'",
        "worker-src": "'self'",
        "connect-src": f"'self'{socket}",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    } | rules
    return "; ".join(f"{name} {value}" for name, value in policy.items())

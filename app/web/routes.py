"""The browser's side of the service: static files, the dashboard, the self-hosted GraphiQL page."""

import json
import re
from functools import cache
from html import escape
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.web.dashboard import dashboard
from app.web.pages import STATIC, page_headers, root_of

# The build puts a hash of the content into a name, so such a file never changes.
_HASHED = re.compile(r"-[0-9A-Z]{8}\.[a-z0-9]+$")
_FOREVER: Final = "public, max-age=31536000, immutable"
_ASK_FIRST: Final = "no-cache"  # kept by the browser, but compared (ETag) before each use


class _Assets(StaticFiles):
    """Adds caching by name. Starlette answers a matching `If-None-Match` with 304 itself."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        found = response.status_code < 400
        response.headers["Cache-Control"] = (
            (_FOREVER if _HASHED.search(path) else _ASK_FIRST) if found else "no-store"
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def routes() -> list[BaseRoute]:
    return [
        Route("/", dashboard, name="dashboard"),
        Mount("/static", app=_Assets(directory=STATIC), name="static"),
    ]


@cache
def _manifest() -> dict[str, str]:
    text = (STATIC / "graphiql" / "manifest.json").read_text(encoding="utf-8")
    names: dict[str, str] = json.loads(text)
    return names


_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>GraphiQL · Luthier</title>
<link rel="icon" href="{assets}/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{assets}/{style}">
<script type="module" src="{assets}/{script}"></script>
</head>
<body>
<div id="luthier" data-home="{home}" data-assets="{assets}" data-workers="{workers}">
<p class="lt-wait">Loading GraphiQL …</p>
</div>
<noscript>GraphiQL needs JavaScript. The API itself does not: POST to this address.</noscript>
</body>
</html>
"""


def graphiql_response(request: Request) -> Response:
    """The page for a browser that opens the GraphQL endpoint; operations go to the same path.

    It holds nothing of the account: the key is put in, or comes in the fragment, in the browser.
    """
    root = root_of(request)
    manifest = _manifest()
    workers = {
        name.removeprefix("worker-"): file
        for name, file in manifest.items()
        if name.startswith("worker-")
    }
    page = _PAGE.format(
        assets=escape(f"{root}/static/graphiql"),
        style=escape(manifest["style"]),
        script=escape(manifest["graphiql"]),
        home=escape(f"{root}/"),
        workers=escape(json.dumps(workers)),
    )
    # The editor positions its lines by inline styles.
    rules = {"style-src": "'self' 'unsafe-inline'", "img-src": "'self' data:"}
    return HTMLResponse(page, headers=page_headers(request, rules) | {"Vary": "Accept"})

"""The dashboard: one page of static modules that talks to the API as any other client does."""

from functools import cache
from html import escape
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from app.web.pages import STATIC, page_headers, root_of

# No element of the page is ever made from text, so the browser may refuse to.
_RULES: Final = {"require-trusted-types-for": "'script'", "trusted-types": "'none'"}

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Luthier</title>
<link rel="icon" href="{assets}/graphiql/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{assets}/dashboard/dashboard.css">
<link rel="stylesheet" href="{assets}/dashboard/places.css">
{preloads}
<script type="module" src="{assets}/dashboard/main.js"></script>
</head>
<body>
<div id="luthier" data-root="{root}">
<p class="lt-wait">Loading the dashboard …</p>
</div>
<noscript>The dashboard needs JavaScript. The API itself does not: see /graphql.</noscript>
</body>
</html>
"""


@cache
def _modules() -> tuple[str, ...]:
    return tuple(sorted(file.name for file in (STATIC / "dashboard").glob("*.js")))


async def dashboard(request: Request) -> Response:
    """It holds nothing of the account: the key is put in, or comes in the fragment, in the
    browser."""
    root = root_of(request)
    assets = escape(f"{root}/static")
    # Named ahead, so that the browser fetches all modules at once instead of one import at a time.
    preloads = "\n".join(
        f'<link rel="modulepreload" href="{assets}/dashboard/{name}">' for name in _modules()
    )
    page = _PAGE.format(assets=assets, preloads=preloads, root=escape(root))
    return HTMLResponse(page, headers=page_headers(request, _RULES))

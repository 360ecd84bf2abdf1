"""What the web routes answer, without a browser."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from app.web.pages import STATIC
from app.web.routes import graphiql_response, routes


async def page(request: Request) -> Response:
    return graphiql_response(request)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=[*routes(), Route("/graphql", page)])
    nested = Starlette(routes=[Mount("/team", routes=[*routes(), Route("/graphql", page)])])
    transport = {
        "all://plain": httpx.ASGITransport(app),
        "all://mounted": httpx.ASGITransport(nested),
        "all://proxied": httpx.ASGITransport(app, root_path='/a"><script>&'),
    }
    async with httpx.AsyncClient(mounts=transport, base_url="http://plain") as session:
        yield session


def policy(response: httpx.Response) -> dict[str, str]:
    parts = [part.split(" ", 1) for part in response.headers["content-security-policy"].split("; ")]
    return {part[0]: part[1] for part in parts}


async def test_the_page_forbids_what_it_does_not_need(client: httpx.AsyncClient) -> None:
    response = await client.get("/graphql")
    rules = policy(response)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert rules["default-src"] == "'self'"
    assert rules["script-src"] == "'self'"
    assert rules["connect-src"] == "'self' ws://plain wss://plain"
    assert rules["frame-ancestors"] == "'none'"
    assert rules["base-uri"] == rules["form-action"] == rules["object-src"] == "'none'"
    assert "unsafe-eval" not in str(rules)
    assert "*" not in str(rules)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["vary"] == "Accept"
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("host", ["evil.example; script-src *", "a b", "x,y", "", "*", "[::1]*"])
async def test_a_strange_host_header_cannot_widen_the_policy(
    client: httpx.AsyncClient, host: str
) -> None:
    response = await client.get("/graphql", headers={"Host": host})
    assert policy(response)["connect-src"] == "'self'"
    assert policy(response)["script-src"] == "'self'"
    if host:
        assert host not in response.text


@pytest.mark.parametrize("host", ["localhost:8000", "[::1]:8000", "api.acme-corp.dev"])
async def test_an_ordinary_host_header_names_the_socket(
    client: httpx.AsyncClient, host: str
) -> None:
    response = await client.get("/graphql", headers={"Host": host})
    assert policy(response)["connect-src"] == f"'self' ws://{host} wss://{host}"


async def test_the_page_names_no_other_host_and_runs_no_inline_script(
    client: httpx.AsyncClient,
) -> None:
    text = (await client.get("/graphql")).text
    assert "//" not in text
    assert re.findall(r"<script[^>]*>([^<]*)</script>", text) == [""]
    assert "style=" not in text


async def test_what_the_page_names_is_there_and_kept_forever(client: httpx.AsyncClient) -> None:
    text = (await client.get("/graphql")).text
    names = re.findall(r'"(/static/graphiql/[^"]+\.(?:js|css))"', text)
    names += [f"/static/graphiql/{name}" for name in re.findall(r"worker-\w+-\w+\.js", text)]
    assert len(names) == 5
    for name in names:
        response = await client.get(name)
        assert response.status_code == 200, name
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["x-content-type-options"] == "nosniff"


async def test_a_file_that_may_change_is_compared_first(client: httpx.AsyncClient) -> None:
    first = await client.get("/static/graphiql/examples.json")
    assert first.headers["content-type"] == "application/json"
    assert first.headers["cache-control"] == "no-cache"
    again = await client.get(
        "/static/graphiql/examples.json", headers={"If-None-Match": first.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    ["/static/../routes.py", "/static/%2e%2e/routes.py", "/static/nothing.js", "/static/graphiql/"],
)
async def test_nothing_else_is_served(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 404
    assert "immutable" not in response.headers.get("cache-control", "")


async def test_under_a_path_prefix_everything_moves_along(client: httpx.AsyncClient) -> None:
    text = (await client.get("http://proxied/graphql")).text
    assert 'data-home="/a&quot;&gt;&lt;script&gt;&amp;/"' in text
    assert '/a"' not in text


async def test_a_query_in_the_address_does_not_reach_the_page(client: httpx.AsyncClient) -> None:
    text = (await client.get("/graphql?query=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")).text
    assert "alert" not in text


def test_the_bundle_is_small_and_asks_nobody() -> None:
    folder = STATIC / "graphiql"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5_500_000
    for file in folder.glob("*.js"):
        text = file.read_text(encoding="utf-8")
        assert "sourceMappingURL" not in text, file
        assert not re.search(r"(import|from|fetch|Worker)\s*\(?\s*[\"'`]https?:", text), file
    for file in folder.glob("*.css"):
        assert not re.search(r"url\([\"']?https?:", file.read_text(encoding="utf-8")), file
    assert "graphiql | 5.4.0 | MIT" in (folder / "LICENSES.md").read_text(encoding="utf-8")

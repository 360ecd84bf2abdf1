"""Lists longer than one page."""

from typing import Any

from app.client import Client

_LARGEST = 200


async def collect(
    client: Client, document: str, field: str, limit: int, filter: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The first `limit` rows of the connection `field`."""
    rows: list[dict[str, Any]] = []
    after = None
    while len(rows) < limit:
        variables: dict[str, Any] = {"first": min(_LARGEST, limit - len(rows)), "after": after}
        if filter is not None:
            variables["filter"] = filter
        page = (await client.execute(document, variables))[field]
        rows += page["nodes"]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]
    return rows

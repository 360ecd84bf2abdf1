"""The cases that a finished model knows least."""

from typing import Any

from app.cli import documents, show
from app.client import ApiError, Client

_LARGEST = 200


async def read(client: Client, wanted: dict[str, Any], limit: int) -> dict[str, Any]:
    """Up to `limit` cases as `nodes`, and how many were measured."""
    nodes: list[dict[str, Any]] = []
    after = None
    while True:
        size = min(_LARGEST, limit - len(nodes))
        variables = {**wanted, "first": size, "after": after}
        job = (await client.execute(documents.JOB_EXAMPLES, variables))["job"]
        if job is None:
            raise ApiError(f"There is no job {wanted['id']}.", "JOB_NOT_FOUND")
        page = job["examples"]
        nodes += page["nodes"]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"] or len(nodes) >= limit:
            known = {name: page[name] for name in ("measured", "cases", "sampled")}
            return {"status": job["status"], **known, "nodes": nodes}


def print_examples(found: dict[str, Any]) -> None:
    console = show.console()
    if not found["measured"]:
        console.print(f"No case was measured; the job is {found['status'].lower()}.")
        return
    made = show.table("DATA", ">LINE", ">LOSS", ">TOKENS", "=FLAGS", "~CASE")
    for one in found["nodes"]:
        show.add_row(
            made, one["split"].lower(), one["line"], show.loss(one["loss"]), one["tokens"],
            ", ".join(_words(one, flag) for flag in one["flags"]), _case(one),
        )  # fmt: skip
    console.print(made)
    if found["sampled"]:
        console.print(f"A sample: {found['measured']} of {found['cases']} cases.", style="dim")


def _words(one: dict[str, Any], flag: str) -> str:
    """A flag with the line it points at."""
    match flag:
        case "DUPLICATE":
            return f"duplicate of {one['duplicateOf']}"
        case "IN_BOTH":
            other = "validation" if one["split"] == "TRAINING" else "training"
            return f"in {other} too ({one['sameInOther']})"
        case "CONTRADICTS":
            return f"contradicts {one['contradicts']}"
        case other:
            return other.lower().replace("_", " ")


def _case(one: dict[str, Any]) -> str:
    if one["answer"] is None:
        return "-"
    return f"{one['question']} → {one['answer']}"

"""Making a model callable, and waiting until it really answers."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from app.cli import documents
from app.client import ApiError, Client

ENDED = ("READY", "FAILED", "STOPPED")


async def resolve(client: Client, wanted: str) -> dict[str, Any]:
    """A model by its id, its name, or the id of the job that made it."""
    if wanted.startswith("model_"):
        model = (await client.execute(documents.MODEL, {"id": wanted}))["model"]
        if model is not None:
            return dict(model)
    filter = {"jobId" if wanted.startswith("ftjob_") else "search": wanted}
    found = (await client.execute(documents.MODELS, {"filter": filter, "first": 200}))["models"]
    for model in found["nodes"]:
        if wanted.startswith("ftjob_") or model["name"] == wanted:
            return dict(model)
    raise ApiError(f"There is no model {wanted}. See `luthier models list`.", "MODEL_NOT_FOUND")


async def deploy(
    client: Client,
    model_id: str,
    *,
    hardware: str | None = None,
    wait: bool = True,
    timeout: float | None = None,
    on_status: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """The deployment; when waited for, it is READY. Raises ApiError when it fails."""
    before = await client.ledger_position()  # asked first: no change can slip in between
    input = {"modelId": model_id, **({"hardware": hardware} if hardware else {})}
    deployment: dict[str, Any] = (await client.mutate(documents.DEPLOY_MODEL, input))["deployment"]
    if not wait or deployment["status"] == "READY":
        return deployment
    on_status(deployment["status"])
    try:
        async with asyncio.timeout(timeout):
            return await _settled(client, deployment, before, on_status)
    except TimeoutError as late:
        raise ApiError(
            f"{deployment['id']} is not ready after {timeout:g} s; it may still come up. "
            "See `luthier models list`.",
            "TIMEOUT",
        ) from late


async def _settled(
    client: Client, deployment: dict[str, Any], after: str, on_status: Callable[[str], None]
) -> dict[str, Any]:
    watch = client.watch_deployments(deployment["model"]["id"], after)
    async with aclosing(watch) as changes:
        async for change in changes:
            if change["deploymentId"] != deployment["id"]:
                continue
            on_status(change["statusThen"])
            if change["statusThen"] in ENDED:
                return _ready(change)
    raise ApiError("The server ended the stream of deployments.", "STREAM_ENDED")


def _ready(change: dict[str, Any]) -> dict[str, Any]:
    now: dict[str, Any] = change["deployment"] or {}
    if change["statusThen"] == "READY":
        return now
    why = (now.get("error") or {}).get("message", "it was taken down")
    raise ApiError(f"The deployment ended {change['statusThen'].lower()}: {why}", "NOT_DEPLOYED")


def live_deployment(model: dict[str, Any]) -> dict[str, Any] | None:
    """The newest deployment that is not over."""
    live = (one for one in model["deployments"] if one["status"] not in ("FAILED", "STOPPED"))
    return next(live, None)

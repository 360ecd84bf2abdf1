"""Creating is idempotent: the same key gives the same object, with other input a refusal."""

import hashlib
from typing import Any

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts.tables import IdempotencyRow
from app.core import clock
from app.core.actor import Actor
from app.core.database import json_text
from app.core.errors import IdempotencyMismatch, Invalid

_LONGEST = 255
_INSERT = text(
    "INSERT INTO idempotency (org_id, project_id, key, verb, input_hash, object_id, created_at)"
    " VALUES (:org, :project, :key, :verb, :hash, :object, :now) ON CONFLICT DO NOTHING"
    " RETURNING key"
)


async def remember(
    session: AsyncSession,
    actor: Actor,
    key: str | None,
    verb: str,
    asked: dict[str, Any],
    object_id: str,
) -> str | None:
    """Reserve the key for the object about to be created, or return the object it already made.

    A concurrent call with the same key waits here until the first one commits or rolls back.
    """
    if key is None:
        return None
    if not 1 <= len(key) <= _LONGEST:
        raise Invalid(
            f"An idempotency key has 1 to {_LONGEST} characters.", path=("idempotencyKey",)
        )
    digest = hashlib.sha256(json_text({"verb": verb, "input": asked}).encode()).hexdigest()
    rows = await (await session.connection()).execute(
        _INSERT,
        {
            "org": actor.org_id,
            "project": actor.project_id,
            "key": key,
            "verb": verb,
            "hash": digest,
            "object": object_id,
            "now": clock.now(),
        },
    )
    if rows.first():
        return None
    seen = await session.get_one(IdempotencyRow, (actor.org_id, actor.project_id, key))
    if seen.input_hash != digest:
        raise IdempotencyMismatch(
            "This idempotency key was used before with other input. Use a new key, or send the "
            "same input to get the same answer.",
            path=("idempotencyKey",),
        )
    return seen.object_id

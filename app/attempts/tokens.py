"""What the graders of an attempt call models with: a token that dies with the attempt.

Nothing of it is stored. It names the attempt and is signed, and whether the attempt still lives is
asked of the queue at each call: no clock of its own has to run out.
"""

import hmac

from app.attempts import queue
from app.attempts.queue import Claim
from app.attempts.tables import Attempt
from app.core.actor import Actor, Role, Scope
from app.core.database import Database
from app.core.errors import Unauthenticated

PREFIX = "lg_"


def mint(key: bytes, claim: Claim, project_id: str) -> str:
    """`key` is the master key, `project_id` whose models may be called."""
    said = f"{claim.org_id}.{project_id}.{claim.id}.{claim.epoch}"
    return f"{PREFIX}{said}.{_signature(key, said)}"


async def authenticate(database: Database, key: bytes, token: str, request_id: str) -> Actor:
    """The attempt as one who may call its project's models, and do nothing else.

    Raises Unauthenticated once the attempt is over, or in other hands, or its worker silent.
    """
    said, _, signature = token.removeprefix(PREFIX).rpartition(".")
    if not hmac.compare_digest(signature.encode(), _signature(key, said).encode()):
        raise Unauthenticated("This is not a token of ours.")
    org_id, project_id, id, epoch = said.split(".")
    async with database.transaction(org_id) as session:
        attempt = await session.get(Attempt, (org_id, id))
        if (
            attempt is None
            or attempt.finished_at is not None
            or attempt.epoch != int(epoch)
            or not await queue.held(session, attempt)
        ):
            raise Unauthenticated("The attempt that this token was made for is over.")
    return Actor(
        org_id=org_id,
        project_id=project_id,
        member_id=attempt.subject_id,
        key_id=id,
        role=Role.MEMBER,
        scopes=frozenset({Scope.INFERENCE}),
        request_id=request_id,
    )


def _signature(key: bytes, said: str) -> str:
    return hmac.digest(key, f"grading {said}".encode(), "sha256").hex()

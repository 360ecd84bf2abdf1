"""One attempt of a grader run: ask the graders' process, and record what it says."""

import logging

from app.attempts.queue import Claim
from app.core.errors import Unavailable
from app.events.log import Fenced
from app.graderruns import service as grader_runs
from app.graderruns.tables import GraderRun
from app.graders import spec
from app.graders.client import Graders
from app.graders.protocol import GradeCase
from app.graders.result import GraderResult
from app.worker.lease import Lease
from app.worker.record import Workshop

log = logging.getLogger(__name__)


class GradingRun:
    """It takes seconds and says its own end: nothing is to be watched, and a worker that leaves
    waits for it."""

    def __init__(self, workshop: Workshop, graders: Graders, claim: Claim) -> None:
        self._shop, self._graders, self._claim = workshop, graders, claim
        self._lease = Lease(workshop.database, claim, workshop.settings.lease_seconds)

    def look(self) -> None:
        """Nothing can be asked of it."""

    def drain(self) -> None:
        """It ends soon."""

    async def run(self) -> None:
        try:
            run = await self._lease.insist(self._begin)
            if run is not None:
                result = await self._grade(run)
                await self._lease.insist(lambda: self._finish(result))
        except Fenced:
            log.warning("%s: fenced, leaving it to its new owner", self._claim.subject_id)
        finally:
            await self._lease.release()

    async def _begin(self) -> GraderRun | None:
        async with self._shop.database.transaction(self._claim.org_id) as session:
            return await grader_runs.begin(session, self._claim)

    async def _grade(self, run: GraderRun) -> GraderResult | None:
        case, endpoint = GradeCase.model_validate(run.given), None
        if spec.models(spec.read(run.grader)):
            endpoint = self._shop.model_endpoint(self._claim, run.project_id)
        try:
            [result] = await self._graders.grade(
                run.grader, [case], tenant=run.org_id, seconds=run.seconds, endpoint=endpoint
            )
        except Unavailable as trouble:
            log.error("%s: %s", run.id, trouble.message)
            return None
        return result

    async def _finish(self, result: GraderResult | None) -> None:
        said = result.model_dump() if result else None
        async with self._shop.database.transaction(self._claim.org_id) as session:
            await grader_runs.finish(session, self._claim, said)

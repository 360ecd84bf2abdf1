"""Jobs written straight into the table, when many are needed."""

from datetime import UTC, datetime
from typing import Any

from app.core import ids
from app.core.database import Database
from app.jobs.states import JobStatus
from app.jobs.tables import Job
from tests.support import Api, Tenant, chat_lines

EPOCH = datetime(2026, 3, 1, tzinfo=UTC)


class Rows:
    """Makes jobs of one tenant on one dataset version."""

    def __init__(self, database: Database, tenant: Tenant, version_id: str) -> None:
        self.database, self.tenant, self.version_id = database, tenant, version_id

    @staticmethod
    async def of(api: Api, database: Database, tenant: Tenant) -> "Rows":
        return Rows(database, tenant, await api.dataset_version(chat_lines(2)))

    async def add(self, *wanted: dict[str, Any]) -> list[Job]:
        """One job per set of fields. They begin as pending, as the database demands."""
        made = [self._job(**fields) for fields in wanted]
        async with self.database.transaction(self.tenant.actor.org_id) as session:
            statuses = [job.status for job in made]
            for job in made:
                job.status = JobStatus.PENDING.value
            session.add_all(made)
            await session.flush()
            for job, status in zip(made, statuses, strict=True):
                job.status = status
                session.add(job)
        return made

    def _job(self, **fields: Any) -> Job:
        actor = self.tenant.actor
        values: dict[str, Any] = {
            "org_id": actor.org_id,
            "id": ids.new(ids.JOB),
            "project_id": actor.project_id,
            "owner_id": actor.member_id,
            "name": "a job",
            "status": "pending",
            "provider": "local",
            "base_model": "smollm2-135m-instruct",
            "method": "supervised",
            "training_version_id": self.version_id,
            "seed": 1,
            "created_at": EPOCH,
            "updated_at": fields.get("created_at", EPOCH),
        }
        return Job(**(values | fields))

"""What can be asked of jobs."""

from typing import Annotated

import strawberry

from app.api.graphql.context import Info
from app.api.graphql.errors import UserError, refusing
from app.api.graphql.job_inputs import CostEstimate, SubmitJobInput
from app.api.graphql.job_types import JobStatus
from app.api.graphql.jobs import Job
from app.api.graphql.pagination import arg
from app.jobs import checkpoints, control, rerun, submission
from app.jobs.states import JobStatus as Status


@strawberry.type(description="What came of submitJob.")
class SubmitJobPayload:
    job: Job | None = strawberry.field(description="The job; null on a dry run.", default=None)
    estimate: CostEstimate | None = strawberry.field(description="What it will take.", default=None)
    warnings: list[str] = strawberry.field(
        description="What is worth a look.", default_factory=list
    )
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.type(description="What came of an action on a job.")
class JobPayload:
    job: Job | None = strawberry.field(description="The job after it.", default=None)
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.type(description="What came of cancelJob.")
class CancelJobPayload(JobPayload):
    pass


@strawberry.type(description="What came of pauseJob.")
class PauseJobPayload(JobPayload):
    pass


@strawberry.type(description="What came of resumeJob.")
class ResumeJobPayload(JobPayload):
    pass


@strawberry.type(description="What came of restartJob.")
class RestartJobPayload(JobPayload):
    pass


@strawberry.type(description="What came of rerunJob.")
class RerunJobPayload(JobPayload):
    pass


@strawberry.type(description="What came of correctJob.")
class CorrectJobPayload(JobPayload):
    pass


@strawberry.type(description="What came of deleteJob.")
class DeleteJobPayload:
    deleted_id: strawberry.ID | None = strawberry.field(description="What is gone.", default=None)
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.input(description="Which job to end.")
class CancelJobInput:
    id: strawberry.ID = strawberry.field(description="The job's id.")
    keep_checkpoints: bool = strawberry.field(
        description="Whether its checkpoints stay, to be used or restarted from.", default=True
    )


@strawberry.input(description="Which job to set aside.")
class PauseJobInput:
    id: strawberry.ID = strawberry.field(description="The job's id.")


@strawberry.input(description="Which job to go on with.")
class ResumeJobInput:
    id: strawberry.ID = strawberry.field(description="The job's id.")


@strawberry.input(description="Which job to start again.")
class RestartJobInput:
    id: strawberry.ID = strawberry.field(description="The job's id.")
    from_scratch: bool = strawberry.field(
        description="Forget its checkpoints and begin at step 0.", default=False
    )
    idempotency_key: str | None = strawberry.field(
        description="The same key again changes nothing more.", default=None
    )


@strawberry.input(description="Which finished job to run again.")
class RerunJobInput:
    id: strawberry.ID = strawberry.field(description="The job's id.")
    name: str | None = strawberry.field(description="The new job's name.", default=None)
    idempotency_key: str | None = strawberry.field(
        description="The same key again gives the same new job.", default=None
    )


@strawberry.input(description="A finished job's record, put right.")
class CorrectJobInput:
    id: strawberry.ID = strawberry.field(description="The job's id.")
    status: JobStatus = strawberry.field(description="The outcome it should have.")
    reason: str = strawberry.field(description="Why; kept in the audit log.")


@strawberry.input(description="Which job to delete.")
class DeleteJobInput:
    id: strawberry.ID = strawberry.field(description="The job's id.")


@strawberry.type
class JobMutations:
    @strawberry.mutation(description="Submit a fine-tuning job.")
    async def submit_job(
        self, info: Info, input: Annotated[SubmitJobInput, arg("The job.")]
    ) -> SubmitJobPayload:
        with refusing() as refused:
            services, who = info.context.services, info.context.actor
            data = await input.examined(info)
            overlapping = await input.overlapping(info, data)
            noticed = await input.noticed(info, data)
            async with info.context.transaction() as session:
                trial = await session.begin_nested()
                checked = await submission.check(
                    session,
                    who,
                    services.base_models,
                    services.settings.hourly_cost,
                    await input.submission(session, info, data),
                    overlapping,
                    noticed,
                )
                job = None if input.dry_run else await submission.submit(session, who, checked)
                await (trial.rollback() if input.dry_run else trial.commit())
                shown = await Job.within(session, job) if job else None
            return SubmitJobPayload(
                job=shown,
                estimate=CostEstimate.of(checked.estimate),
                warnings=checked.warnings,
            )
        return SubmitJobPayload(user_errors=refused.user_errors)

    @strawberry.mutation(description="End a job that is not over.")
    async def cancel_job(
        self, info: Info, input: Annotated[CancelJobInput, arg("Which job.")]
    ) -> CancelJobPayload:
        with refusing() as refused:
            async with info.context.transaction() as session:
                job = await control.cancel(
                    session,
                    info.context.actor,
                    input.id,
                    keep_checkpoints=input.keep_checkpoints,
                )
                gone = await checkpoints.discard(session, job)
                shown = await Job.within(session, job)
            await checkpoints.remove(info.context.services.settings.data_dir, gone)
            return CancelJobPayload(job=shown)
        return CancelJobPayload(user_errors=refused.user_errors)

    @strawberry.mutation(description="Set a job aside; a running one saves a checkpoint first.")
    async def pause_job(
        self, info: Info, input: Annotated[PauseJobInput, arg("Which job.")]
    ) -> PauseJobPayload:
        with refusing() as refused:
            async with info.context.transaction() as session:
                job = await control.pause(session, info.context.actor, input.id)
                shown = await Job.within(session, job)
            return PauseJobPayload(job=shown)
        return PauseJobPayload(user_errors=refused.user_errors)

    @strawberry.mutation(description="Go on with a paused job, from its checkpoint.")
    async def resume_job(
        self, info: Info, input: Annotated[ResumeJobInput, arg("Which job.")]
    ) -> ResumeJobPayload:
        with refusing() as refused:
            async with info.context.transaction() as session:
                job = await control.resume(session, info.context.actor, input.id)
                shown = await Job.within(session, job)
            return ResumeJobPayload(job=shown)
        return ResumeJobPayload(user_errors=refused.user_errors)

    @strawberry.mutation(description="Start a failed or cancelled job again.")
    async def restart_job(
        self, info: Info, input: Annotated[RestartJobInput, arg("Which job, and from where.")]
    ) -> RestartJobPayload:
        with refusing() as refused:
            async with info.context.transaction() as session:
                job = await control.restart(
                    session,
                    info.context.actor,
                    input.id,
                    from_scratch=input.from_scratch,
                    idempotency_key=input.idempotency_key,
                )
                shown = await Job.within(session, job)
            return RestartJobPayload(job=shown)
        return RestartJobPayload(user_errors=refused.user_errors)

    @strawberry.mutation(
        description="Submit a finished job again, to the digit: same data, numbers and seed."
    )
    async def rerun_job(
        self, info: Info, input: Annotated[RerunJobInput, arg("Which job.")]
    ) -> RerunJobPayload:
        with refusing() as refused:
            services, who = info.context.services, info.context.actor
            async with info.context.transaction() as session:
                asked = await rerun.submission_of(
                    session, who, input.id, input.name, input.idempotency_key
                )
                checked = await submission.check(
                    session, who, services.base_models, services.settings.hourly_cost, asked
                )
                job = await submission.submit(session, who, checked)
                shown = await Job.within(session, job)
            return RerunJobPayload(job=shown)
        return RerunJobPayload(user_errors=refused.user_errors)

    @strawberry.mutation(description="Put right what a finished job's record says.")
    async def correct_job(
        self, info: Info, input: Annotated[CorrectJobInput, arg("The correction.")]
    ) -> CorrectJobPayload:
        with refusing() as refused:
            async with info.context.transaction() as session:
                job = await control.correct(
                    session,
                    info.context.actor,
                    input.id,
                    Status(str(input.status.value)),
                    input.reason,
                )
            return CorrectJobPayload(job=Job.of(job))
        return CorrectJobPayload(user_errors=refused.user_errors)

    @strawberry.mutation(description="Delete a finished job. Its audit trail stays.")
    async def delete_job(
        self, info: Info, input: Annotated[DeleteJobInput, arg("Which job.")]
    ) -> DeleteJobPayload:
        with refusing() as refused:
            async with info.context.transaction() as session:
                job = await control.delete(session, info.context.actor, input.id)
            return DeleteJobPayload(deleted_id=strawberry.ID(job.id))
        return DeleteJobPayload(user_errors=refused.user_errors)

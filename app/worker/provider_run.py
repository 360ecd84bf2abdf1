"""One step of a job at a provider: upload, create, look, pass a wish on; then given back.

Trouble with the provider never ends a job: it is remembered, and the step is taken again later.
"""

import asyncio
import logging
import math
import random
import zlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from app.core import clock
from app.core.errors import AppError
from app.events.log import Fenced
from app.files import service as files
from app.files.store import sha256_of
from app.jobs import observation, remote
from app.jobs.remote import Errand, Memory
from app.jobs.states import TERMINAL, JobStatus, RequestedAction
from app.jobs.tables import Job
from app.providers.base import Adapter, Data, Item, Order, Result, Sighting, Status
from app.providers.errors import (
    ProviderBusy,
    ProviderDenied,
    ProviderMissing,
    ProviderRefused,
    ProviderUnreachable,
    Unsupported,
)
from app.providers.openai import points_of
from app.providers.registry import capabilities
from app.worker.provider_accounts import Account
from app.worker.provider_step import LONGEST_PAUSE, ProviderStep

log = logging.getLogger(__name__)

_LOOK_AGAIN = (3.0, 10.0, 30.0)  # for a create whose answer was lost, before it is sent again
_MISSING_FOR = timedelta(hours=24)
_RESULT_TRIES = 5
_LARGEST = 64 << 20  # bytes of a result file


class ProviderRun(ProviderStep):
    async def run(self) -> None:
        try:
            errand = await self.write(lambda session: remote.begin(session, self.claim))
            if errand is not None:
                await self.give_back(await self._step(errand))
        except Fenced:
            log.warning("%s: fenced, leaving it to its new owner", self.claim.subject_id)
        finally:
            await self.lease.release()

    async def _step(self, errand: Errand) -> float:
        """Do what comes next; the seconds until the step after it."""
        try:
            if errand.credential is None:
                raise ProviderDenied("The project has no credential for this provider any more.")
            account = self.accounts.open(errand.credential)
            if errand.job.provider_job_id is None:
                return await self._bring(errand, account.adapter)
            return await self._follow(errand, account)
        except AppError as trouble:  # whatever the provider says: it is no fault of the job's
            return await self._troubled(errand, trouble)

    # Until it is there

    async def _bring(self, errand: Errand, adapter: Adapter) -> float:
        job, memory = errand.job, errand.memory
        leaving = errand.wish in (RequestedAction.CANCEL, RequestedAction.PAUSE)
        if memory.create is None:
            if leaving:
                return await self._stopped(errand, memory)
            try:
                memory = await self._uploaded(errand, adapter)
            except ProviderRefused as refused:
                return await self._failed(errand, memory, refused)
            # From here on there may be a job, whatever becomes of us.
            memory = replace(memory, create=clock.now().isoformat(), looks=0)
            await self.write(
                lambda session: remote.remember(session, self.claim, memory, JobStatus.VALIDATING)
            )
        elif not (adapter.capabilities.repeatable_create and not leaving):
            if (found := await adapter.find(memory.marker(job))) is not None:
                return await self._created(errand, memory, found, adapter)
            if memory.looks < len(_LOOK_AGAIN):
                pause = _LOOK_AGAIN[memory.looks] * self.base / 10
                memory = replace(memory, looks=memory.looks + 1)
                await self.write(lambda session: remote.remember(session, self.claim, memory))
                return pause
            if leaving:
                return await self._stopped(errand, memory)
            memory = replace(memory, create=clock.now().isoformat(), looks=0)
            await self.write(lambda session: remote.remember(session, self.claim, memory))
        try:
            sighting = await adapter.create(_order(errand, memory))
        except ProviderRefused as refused:
            return await self._failed(errand, memory, refused)
        except ProviderUnreachable as lost:
            if lost.sent:
                # The first time it is looked for at once.
                return await self._troubled(errand, lost, memory, None if memory.troubles else 0.0)
            return await self._troubled(errand, lost, replace(memory, create=None))
        except ProviderMissing as missing:  # the model, or a file
            gone = ProviderRefused(missing.message, reason="not_found", param="model")
            return await self._failed(errand, memory, gone)
        return await self._created(errand, memory, sighting, adapter)

    async def _uploaded(self, errand: Errand, adapter: Adapter) -> Memory:
        """The files are at the provider, and that is written down, one by one."""
        memory, job = errand.memory, errand.job
        if errand.training is None:
            raise ProviderRefused("The job has no training data here.", param="training_file")
        for role, version in (("training", errand.training), ("validation", errand.validation)):
            if version is None or getattr(memory, role) is not None:
                continue
            path = self.shop.store.path(job.org_id, version.sha256)
            if await asyncio.to_thread(sha256_of, path) != version.sha256:
                raise ProviderRefused(
                    f"The bytes of {version.id} are not those it was made of.",
                    reason="data_changed",
                    param=f"{role}_file",
                )
            data = Data(
                path,
                job.method,  # type: ignore[arg-type]
                version.sha256,
                version.case_count,
                role,  # type: ignore[arg-type]
                base_model=job.base_model,
            )
            memory = replace(memory, **{role: await adapter.upload(data)})  # type: ignore[arg-type]
            known = memory
            await self.write(
                lambda session, known=known: remote.remember(  # type: ignore[misc]
                    session, self.claim, known, JobStatus.VALIDATING
                )
            )
        return memory

    async def _created(
        self, errand: Errand, memory: Memory, sighting: Sighting, adapter: Adapter
    ) -> float:
        await self.write(lambda session: remote.created(session, self.claim, memory, sighting))
        return 0.0 if errand.wish else await self._taken_in(errand, memory, sighting, adapter)

    # While it is there

    async def _follow(self, errand: Errand, account: Account) -> float:
        job, memory, adapter = errand.job, errand.memory, account.adapter
        id = job.provider_job_id or ""
        if errand.wish and memory.told != errand.wish:
            try:
                await _pass_on(adapter, id, errand.wish)
            except (Unsupported, ProviderRefused) as refused:
                why = f"{errand.wish.capitalize()} was refused: {refused.message}"
                memory = replace(memory, told=None)
                await self.write(lambda session: remote.withdraw(session, self.claim, memory, why))
                return self.base
            except ProviderMissing:
                return await self._missing(errand)
            memory = replace(memory, told=errand.wish.value)
            await self.write(lambda session: remote.remember(session, self.claim, memory))
        elif not errand.wish and memory.told:
            memory = replace(memory, told=None)
        try:
            sighting = await account.look(id, job.provider_status)
        except ProviderMissing:
            return await self._missing(errand)
        return await self._taken_in(errand, memory, sighting, adapter)

    async def _taken_in(
        self, errand: Errand, memory: Memory, sighting: Sighting, adapter: Adapter
    ) -> float:
        """Into the ledger with what the provider shows, and what it has told since."""
        items: Sequence[Item] = ()
        results: list[Result] = []
        if sighting.status not in (None, Status.PENDING):
            try:
                items = await adapter.news(sighting, memory.newest)
                if sighting.status is Status.SUCCEEDED:
                    results = await adapter.results(sighting)
                    items = [*items, *await self._missing_points(errand, items, results)]
            except (ProviderUnreachable, ProviderMissing, ProviderRefused):
                # An outcome waits for its last news, but not for ever.
                if sighting.status is Status.SUCCEEDED and memory.troubles < _RESULT_TRIES:
                    raise
        stored = [
            (await self.shop.store.put(errand.job.org_id, files.one_chunk(r.content), _LARGEST),
             r.filename)
            for r in results
        ]  # fmt: skip
        job = await self.write(
            lambda session: observation.observe(
                session, self.claim, memory, sighting, items, errand.source, stored
            )
        )
        return self._interval(job, sighting)

    async def _missing_points(
        self, errand: Errand, items: Sequence[Item], results: Sequence[Result]
    ) -> list[Item]:
        """The steps that only the result files tell of."""
        if not results:
            return []

        async def read(session: AsyncSession) -> set[int]:
            return await observation.known_steps(session, errand.job.id)

        known = await self.write(read)
        known |= {item.step or 0 for item in items if item.kind == "metrics"}
        points: dict[int, Item] = {}
        for result in results:
            for item in points_of(result.content):
                if item.step is not None and item.step not in known:
                    points.setdefault(item.step, item)
        return [points[step] for step in sorted(points)]

    async def _missing(self, errand: Errand) -> float:
        """The provider says that there is no such job: it may be another account's key, so that is
        believed only after a day."""
        job, memory, now = errand.job, errand.memory, clock.now()
        if errand.wish is RequestedAction.CANCEL:
            return await self._stopped(errand, memory)
        since = datetime.fromisoformat(memory.missing) if memory.missing else now
        memory = replace(memory, missing=since.isoformat())
        name = self._name(errand)
        if now - since > _MISSING_FOR:
            error = {
                "code": "vanished",
                "message": f"{name} has had no job {job.provider_job_id} for a day.",
                "param": None,
            }
            await self.write(lambda session: remote.fail(session, self.claim, memory, error))
            return 0.0
        words = f"{name} says that it has no job {job.provider_job_id}."
        if memory.trouble != words:
            memory = replace(memory, trouble=words)
            await self.write(lambda session: remote.say(session, self.claim, memory, "warn", words))
        else:
            await self.write(lambda session: remote.remember(session, self.claim, memory))
        return min(LONGEST_PAUSE, self.base * 30)

    # What becomes of it

    async def _troubled(
        self,
        errand: Errand,
        trouble: AppError,
        memory: Memory | None = None,
        pause: float | None = None,
    ) -> float:
        """Say it once, remember it, and come again: later each time."""
        if memory is None:
            memory = await self.write(lambda session: remote.memory_of(session, self.claim))
        first = memory.trouble != trouble.message
        known = replace(memory, trouble=trouble.message, troubles=memory.troubles + 1)
        log.warning("%s: %s", self.claim.subject_id, trouble.message)
        if first:
            words = f"{trouble.message} The job is not touched by that; it is tried again."
            await self.write(lambda session: remote.say(session, self.claim, known, "warn", words))
        else:
            await self.write(lambda session: remote.remember(session, self.claim, known))
        if pause is not None:
            return pause
        if isinstance(trouble, ProviderBusy) and trouble.seconds is not None:
            return trouble.seconds
        if isinstance(trouble, ProviderDenied):
            return LONGEST_PAUSE  # a new credential makes it due at once
        longer = self.base * 2.0 ** min(memory.troubles, 10)
        return min(LONGEST_PAUSE, longer) * (0.8 + 0.4 * random.random())  # noqa: S311 - jitter

    async def _failed(self, errand: Errand, memory: Memory, refused: ProviderRefused) -> float:
        error = {"code": refused.reason, "message": refused.message, "param": refused.param}
        await self.write(lambda session: remote.fail(session, self.claim, memory, error))
        return 0.0

    async def _stopped(self, errand: Errand, memory: Memory) -> float:
        wanted = errand.wish is RequestedAction.PAUSE
        status = JobStatus.PAUSED if wanted else JobStatus.CANCELLED
        await self.write(
            lambda session: remote.stop(session, self.claim, replace(memory, create=None), status)
        )
        return 0.0

    def _interval(self, job: Job, sighting: Sighting) -> float:
        """Soon while it is new, seldom when it has run for long; those of one account together."""
        base, now = self.base, clock.now()
        since = Memory.of(job).since
        age = (now - datetime.fromisoformat(since)).total_seconds() if since else 0.0
        if job.status in TERMINAL:
            return 0.0
        if job.status == JobStatus.PAUSED:
            every = base * 30
        elif sighting.ending or job.requested_action:
            every = base / 2
        elif job.status == JobStatus.RUNNING and age > base * 360:
            every = base * 6
        elif age > base * 30:
            every = base * 3
        else:
            every = base
        # On a grid of the account's own: whoever is due at the same time shares one listing.
        place = zlib.crc32(f"{job.project_id} {job.provider}".encode()) % 1000 / 1000 * every
        seconds = now.timestamp() - place
        return max(every / 2, math.ceil(seconds / every + 0.5) * every - seconds)

    @staticmethod
    def _name(errand: Errand) -> str:
        return capabilities(errand.job.provider).name


async def _pass_on(adapter: Adapter, id: str, wish: RequestedAction) -> None:
    match wish:
        case RequestedAction.CANCEL:
            await adapter.cancel(id)
        case RequestedAction.PAUSE:
            await adapter.pause(id)
        case RequestedAction.RESUME:
            await adapter.resume(id)


def _order(errand: Errand, memory: Memory) -> Order:
    job = errand.job
    asked = {
        name: value
        for name, value in job.hyperparameters.items()
        if name in capabilities(job.provider).hyperparameters[job.method]
        and value not in ("auto", None, "default")
    }
    return Order(
        marker=memory.marker(job),
        base_model=memory.extra.get("base_model") or job.base_model,
        method=job.method,  # type: ignore[arg-type]
        training=memory.training or "",
        validation=memory.validation,
        hyperparameters=asked,
        grader=job.grader,
        suffix=job.suffix,
        seed=job.seed,
        case_count=errand.training.case_count if errand.training else 0,
        validation_count=errand.validation.case_count if errand.validation else 0,
    )

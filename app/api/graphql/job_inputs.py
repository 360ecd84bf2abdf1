"""What submitJob takes, and how it becomes a submission."""

from typing import Any

import strawberry
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api.graphql.catalog import Provider
from app.api.graphql.checkpoints import CheckpointRetentionInput
from app.api.graphql.context import Info
from app.api.graphql.datasets import examine
from app.api.graphql.evaluations import EvaluationInput
from app.api.graphql.job_queries import MetadataPair
from app.api.graphql.method_inputs import MethodInput
from app.api.graphql.scalars import BigInt
from app.core import ids
from app.core.errors import Invalid
from app.datasets import service as datasets
from app.datasets.formats import Format
from app.datasets.service import Examined, Source
from app.jobs import evaluation
from app.jobs.estimates import Estimate
from app.jobs.methods import FORMATS
from app.jobs.submission import Submission


@strawberry.type(description="What a job will take.")
class CostEstimate:
    tokens: BigInt = strawberry.field(description="Tokens trained on, all epochs together.")
    epochs: int = strawberry.field(description="Passes over the data.")
    steps: int = strawberry.field(description="Optimizer steps.")
    seconds_low: float = strawberry.field(
        description="The time it takes if all goes well: as the fastest tenth of measured jobs."
    )
    seconds_high: float = strawberry.field(
        description="The time it takes on a busy machine: as the slowest tenth."
    )
    cost: float | None = strawberry.field(
        description="What that costs; null where no price is known."
    )
    currency: str = strawberry.field(description="In which currency.")
    basis: str = strawberry.field(
        description="How it was found: measured on which jobs and hardware, or by a rule of thumb."
    )

    @staticmethod
    def of(estimate: Estimate) -> "CostEstimate":
        return CostEstimate(**vars(estimate))


@strawberry.input(description="A project at Weights & Biases that the job's metrics go to.")
class WandbInput:
    project: str = strawberry.field(description="The project there, at most 128 characters.")
    entity: str | None = strawberry.field(
        description="The team or user there; the key's own when left out.", default=None
    )
    name: str | None = strawberry.field(
        description="The run's name there; the job's id when left out.", default=None
    )
    tags: list[str] = strawberry.field(
        description="At most 50, each to 64 characters; `luthier`, the job's id and its base model "
        "are added.",
        default_factory=list,
    )


@strawberry.input(description="Where else the job is shown: exactly one service.", one_of=True)
class IntegrationInput:
    wandb: strawberry.Maybe[WandbInput] = strawberry.field(description="Weights & Biases.")

    def plain(self) -> dict[str, Any]:
        return {"wandb": dict(vars(self.wandb.value)) if self.wandb else None}


@strawberry.input(description="A job. Give trainingData or trainingFile.")
class SubmitJobInput:
    base_model: str = strawberry.field(
        description="A name that baseModels lists; or, to go on from an earlier job, the id of its "
        "model or of a checkpoint."
    )
    provider: Provider | None = strawberry.field(
        description="Where to tune it. When left out: our own workers if they have the base model, "
        "else the one provider that offers it and that the project has a credential for.",
        default=None,
    )
    training_data: strawberry.ID | None = strawberry.field(
        description="A dataset version's id.", default=None
    )
    training_file: strawberry.ID | None = strawberry.field(
        description="An uploaded file's id; it becomes a dataset version.", default=None
    )
    validation_data: strawberry.ID | None = strawberry.field(
        description="A dataset version's id.", default=None
    )
    validation_file: strawberry.ID | None = strawberry.field(
        description="An uploaded file's id.", default=None
    )
    method: MethodInput | None = strawberry.field(
        description="Supervised, all automatic, when left out.", default=None
    )
    evaluation: EvaluationInput | None = strawberry.field(
        description="Judge every checkpoint by graders, and let the best one become the model.",
        default=None,
    )
    name: str | None = strawberry.field(description="For people, at most 200.", default=None)
    description: str | None = strawberry.field(description="For people.", default=None)
    suffix: str | None = strawberry.field(
        description="Part of the resulting model's name, at most 64.", default=None
    )
    seed: BigInt | None = strawberry.field(
        description="Of every random choice; chosen for you when left out.", default=None
    )
    metadata: list[MetadataPair] | None = strawberry.field(
        description="At most 16 pairs; keys to 64, values to 512 characters.", default=None
    )
    hardware: str | None = strawberry.field(
        description="A worker label; any worker when left out.", default=None
    )
    checkpoint_retention: CheckpointRetentionInput | None = strawberry.field(
        description="Which checkpoints are kept; the server's setting when left out.", default=None
    )
    integrations: list[IntegrationInput] | None = strawberry.field(
        description="Where else it is shown, at most 5. Trouble there never touches the job.",
        default=None,
    )
    idempotency_key: str | None = strawberry.field(
        description="The same key again gives the same job.", default=None
    )
    dry_run: bool = strawberry.field(
        description="Check and estimate everything, create nothing.", default=False
    )

    async def examined(self, info: Info) -> dict[str, str | Examined | None]:
        """The training, validation and held-out data: a version's id, or a file found good. Long
        work."""
        found: dict[str, str | Examined | None] = {}
        for what, version, file in (
            ("training", self.training_data, self.training_file),
            ("validation", self.validation_data, self.validation_file),
        ):
            if version is not None and file is not None:
                raise Invalid(f"Give {what}Data or {what}File, not both.", path=(f"{what}File",))
            found[what] = version
            if file is not None:
                found[what] = await examine(info, Source(file_id=file), FORMATS[self._method])
        held_out = str(self.evaluation.data) if self.evaluation else None
        found["evaluation"] = held_out
        if held_out is not None and ids.prefix_of(held_out) == ids.FILE:
            source = Source(file_id=held_out)
            found["evaluation"] = await examine(info, source, Format.REINFORCEMENT)
        if found["training"] is None:
            raise Invalid("Give trainingData or trainingFile.", path=("trainingData",))
        return found

    @staticmethod
    async def overlapping(info: Info, data: dict[str, str | Examined | None]) -> list[int]:
        """Lines of the validation data that are in the training data too. Long work."""
        training, validation = data["training"], data["validation"]
        if training is None or validation is None:
            return []
        services = info.context.services
        return await datasets.overlap(
            services.database, services.store, info.context.actor, training, validation
        )

    async def noticed(self, info: Info, data: dict[str, str | Examined | None]) -> list[str]:
        """What is worth a warning about the held-out cases. Long work."""
        training, held_out = data["training"], data["evaluation"]
        if self.evaluation is None or training is None or held_out is None:
            return []
        services, asked = info.context.services, self.evaluation.plain()
        return await evaluation.look(
            services.database, services.store, info.context.actor, asked, training, held_out
        )

    async def submission(
        self, session: AsyncSession, info: Info, data: dict[str, str | Examined | None]
    ) -> Submission:
        """Turn files into dataset versions, and the rest into plain values."""
        versions: dict[str, str | None] = {}
        for what, source in data.items():
            if isinstance(source, Examined):
                version = await datasets.ensure_version(session, info.context.actor, source)
                versions[what] = version.id
            else:
                versions[what] = source
        return Submission(
            base_model=self.base_model,
            provider=str(self.provider.value) if self.provider else None,
            training_version_id=versions["training"] or "",
            validation_version_id=versions["validation"],
            method=self._method,
            hyperparameters=self.method.hyperparameters() if self.method else {},
            grader=self.method.grader() if self.method else None,
            evaluation=self.evaluation.plain() if self.evaluation else None,
            evaluation_version_id=versions["evaluation"],
            name=self.name,
            description=self.description,
            suffix=self.suffix,
            seed=self.seed,
            metadata=self._metadata(),
            hardware=self.hardware,
            retention=vars(self.checkpoint_retention) if self.checkpoint_retention else None,
            integrations=[one.plain() for one in self.integrations or []],
            idempotency_key=self.idempotency_key,
        )

    def _metadata(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for pair in self.metadata or []:
            if pair.key in found:
                raise Invalid(
                    f"The metadata key {pair.key[:20]!r} is given twice.",
                    path=("metadata", pair.key[:64]),
                )
            found[pair.key] = pair.value
        return found

    @property
    def _method(self) -> str:
        return self.method.name if self.method else "supervised"

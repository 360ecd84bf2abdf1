"""What submitJob takes, and how it becomes a submission."""

from enum import Enum
from typing import Any

import strawberry
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api.graphql.context import Info
from app.api.graphql.datasets import examine
from app.api.graphql.job_queries import MetadataPair
from app.api.graphql.scalars import AutoFloat, AutoInt, BigInt
from app.core.errors import Invalid
from app.datasets import service as datasets
from app.datasets.service import Examined, Source
from app.jobs.estimates import Estimate
from app.jobs.submission import Submission


@strawberry.type(description="What a job will take.")
class CostEstimate:
    tokens: BigInt = strawberry.field(description="Tokens trained on, all epochs together.")
    epochs: int = strawberry.field(description="Passes over the data.")
    steps: int = strawberry.field(description="Optimizer steps.")
    seconds_low: float = strawberry.field(description="The time it takes if all goes well.")
    seconds_high: float = strawberry.field(description="The time it takes on a busy machine.")
    cost: float = strawberry.field(description="What that costs.")
    currency: str = strawberry.field(description="In which currency.")
    basis: str = strawberry.field(description="How it was found.")

    @staticmethod
    def of(estimate: Estimate) -> "CostEstimate":
        return CostEstimate(**vars(estimate))


@strawberry.enum(description="What is trained.")
class Adapter(Enum):
    LORA = strawberry.enum_value("lora", description="A small low-rank adapter beside the weights.")
    FULL = strawberry.enum_value("full", description="All the weights.")


@strawberry.input(
    description='Each is automatic when left out or "auto"; the job says what it became.'
)
class SupervisedHyperparametersInput:
    n_epochs: AutoInt | None = strawberry.field(
        description="Passes over the data, 1 to 50.", default=None
    )
    batch_size: AutoInt | None = strawberry.field(
        description="Cases per step, 1 to 256.", default=None
    )
    learning_rate: AutoFloat | None = strawberry.field(
        description="Above 0, at most 1; or give learningRateMultiplier.", default=None
    )
    learning_rate_multiplier: AutoFloat | None = strawberry.field(
        description="Times the automatic learning rate, above 0, at most 100.", default=None
    )
    warmup_steps: AutoInt | None = strawberry.field(
        description="Steps over which the learning rate rises.", default=None
    )
    adapter: Adapter | None = strawberry.field(
        description="A small adapter, or all weights.", default=None
    )
    lora_rank: AutoInt | None = strawberry.field(
        description="Size of the adapter, 1 to 256.", default=None
    )
    max_length: AutoInt | None = strawberry.field(
        description="Tokens of a case, 16 to 32768; longer ones are cut.", default=None
    )
    checkpoint_interval: AutoInt | None = strawberry.field(
        description="Steps between checkpoints.", default=None
    )
    eval_interval: AutoInt | None = strawberry.field(
        description="Steps between looks at the validation data.", default=None
    )

    def plain(self) -> dict[str, Any]:
        given = {name: value for name, value in vars(self).items() if value is not None}
        return {n: v.value if isinstance(v, Enum) else v for n, v in given.items()}


@strawberry.input(description="Supervised fine-tuning: learn the assistant's answers.")
class SupervisedInput:
    hyperparameters: SupervisedHyperparametersInput | None = strawberry.field(
        description="All automatic when left out.", default=None
    )


@strawberry.input(description="How to tune: exactly one method.", one_of=True)
class MethodInput:
    supervised: strawberry.Maybe[SupervisedInput] = strawberry.field(
        description="Learn the assistant's answers."
    )


@strawberry.input(description="A job. Give trainingData or trainingFile.")
class SubmitJobInput:
    base_model: str = strawberry.field(description="A name that baseModels lists.")
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
    idempotency_key: str | None = strawberry.field(
        description="The same key again gives the same job.", default=None
    )
    dry_run: bool = strawberry.field(
        description="Check and estimate everything, create nothing.", default=False
    )

    async def examined(self, info: Info) -> dict[str, str | Examined | None]:
        """The training and the validation data: a version's id, or a file found good. Long work."""
        found: dict[str, str | Examined | None] = {}
        for what, version, file in (
            ("training", self.training_data, self.training_file),
            ("validation", self.validation_data, self.validation_file),
        ):
            if version is not None and file is not None:
                raise Invalid(f"Give {what}Data or {what}File, not both.", path=(f"{what}File",))
            found[what] = version
            if file is not None:
                found[what] = await examine(info, Source(file_id=file))
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

    async def submission(
        self, session: AsyncSession, info: Info, data: dict[str, str | Examined | None]
    ) -> Submission:
        """Turn files into dataset versions, and the rest into plain values."""
        ids: dict[str, str | None] = {}
        for what, source in data.items():
            if isinstance(source, Examined):
                version = await datasets.ensure_version(session, info.context.actor, source)
                ids[what] = version.id
            else:
                ids[what] = source
        return Submission(
            base_model=self.base_model,
            training_version_id=ids["training"] or "",
            validation_version_id=ids["validation"],
            hyperparameters=self._hyperparameters(),
            name=self.name,
            description=self.description,
            suffix=self.suffix,
            seed=self.seed,
            metadata=self._metadata(),
            hardware=self.hardware,
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

    def _hyperparameters(self) -> dict[str, Any]:
        chosen = self.method.supervised if self.method else None
        given = chosen.value.hyperparameters if chosen else None
        return given.plain() if given else {}

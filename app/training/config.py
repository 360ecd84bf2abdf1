"""The file that `python -m app.training` is started with: importable without torch, because the
worker writes it."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from app.graders.protocol import ModelEndpoint
from app.training.evaluation import Evaluation
from app.training.hyperparameters import (
    Auto,
    Count,
    DpoHyperparameters,
    Hyperparameters,
    Method,
    ReinforcementHyperparameters,
    SupervisedHyperparameters,
)

MODEL_ENDPOINT = "LUTHIER_MODEL_ENDPOINT"

Dtype = Literal["float32", "bfloat16"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class EvaluationConfig(Evaluation):
    """`tenant` is whose graders these are: no two share a sandbox."""

    file: Path
    sha256: Sha256
    tenant: str
    seconds: float = Field(default=600.0, gt=0, description="What one checkpoint may take.")
    resumed_is_unscored: bool = Field(
        default=False, description="The checkpoint resumed from was left before it had its score."
    )


class TrainingConfig(BaseModel):
    """What every method needs to be told; each has a class of its own below."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job_id: str
    attempt: int = Field(ge=1)
    run_dir: Path = Field(description="Of this attempt: checkpoint-<step>/ and model/ go here.")
    base_model: str = Field(description="A local folder, or with allow_hub a hub name.")
    base_model_name: str = Field(description="What results call it; never a path of this machine.")
    allow_hub: bool = False
    start_from: Path | None = Field(
        default=None, description="A sealed model or checkpoint of this base model to go on from."
    )
    start_manifest_sha256: Sha256 | None = None
    training_file: Path
    training_sha256: Sha256
    validation_file: Path | None = None
    validation_sha256: Sha256 | None = None
    method: Method
    hyperparameters: Hyperparameters
    evaluation: EvaluationConfig | None = None
    model_endpoint: ModelEndpoint | None = Field(
        default=None,
        exclude=True,
        description="Where graders ask models. Holds a secret, so it is never in the file: it "
        "comes in the variable MODEL_ENDPOINT.",
    )
    seed: int = Field(default=42, ge=0, lt=2**32)
    dtype: Auto | Dtype = Field(default="auto", description="Of the frozen weights under LoRA.")
    resume_from: Path | None = None
    resume_manifest_sha256: Sha256 | None = None
    threads: Count | None = Field(default=None, description="None: all cores but one.")
    processes: Count = Field(default=1, description="That share the work, on one machine.")
    memory_limit: Count | None = Field(default=None, description="Bytes. None: what is free.")

    @model_validator(mode="after")
    def _pairs_are_complete(self) -> Self:
        for what, hash in (
            ("validation_file", "validation_sha256"),
            ("resume_from", "resume_manifest_sha256"),
            ("start_from", "start_manifest_sha256"),
        ):
            if (getattr(self, what) is None) != (getattr(self, hash) is None):
                raise ValueError(f"{what} and {hash} are given together")
        return self


class SupervisedConfig(TrainingConfig):
    method: Literal["supervised"]
    hyperparameters: SupervisedHyperparameters = SupervisedHyperparameters()


class DpoConfig(TrainingConfig):
    method: Literal["dpo"]
    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class ReinforcementConfig(TrainingConfig):
    """`tenant` is whose graders these are: no two share a sandbox."""

    method: Literal["reinforcement"]
    hyperparameters: ReinforcementHyperparameters = ReinforcementHyperparameters()
    grader: dict[str, Any]
    tenant: str


_Any = SupervisedConfig | DpoConfig | ReinforcementConfig
CONFIG: TypeAdapter[_Any] = TypeAdapter(Annotated[_Any, Field(discriminator="method")])

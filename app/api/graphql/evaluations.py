"""How a job's checkpoints are judged, as it is asked for and as the API shows it."""

from typing import Any

import strawberry

from app.api.graphql import grader_inputs
from app.api.graphql.context import Info
from app.api.graphql.datasets import DatasetVersion
from app.api.graphql.grader_inputs import GraderInput
from app.api.graphql.scalars import JSON, AutoInt
from app.jobs import tables as rows


@strawberry.input(description="A grader of a job's checkpoints.")
class NamedGraderInput:
    name: str = strawberry.field(description="Its own, at most 64 characters.")
    grader: GraderInput = strawberry.field(description="What judges an answer.")
    weight: float = strawberry.field(
        description="How much it counts in the score beside the others, above 0, at most 1000.",
        default=1.0,
    )


@strawberry.input(
    description="Judge every checkpoint: answers to held-out cases, graded. The best one becomes "
    "the job's model."
)
class EvaluationInput:
    graders: list[NamedGraderInput] = strawberry.field(
        description="1 to 10. The score is the mean of their means, by weight."
    )
    data: strawberry.ID = strawberry.field(
        description="The held-out cases: the id of a dataset version of the REINFORCEMENT format, "
        "or of an uploaded file, which becomes one."
    )
    samples: int = strawberry.field(
        description="Answers to each case, 1 to 16; more than 1 needs a temperature.", default=1
    )
    max_completion_tokens: AutoInt | None = strawberry.field(
        description="Tokens of an answer, 1 to 8192; automatically 128 on processors, 512 on "
        "accelerators.",
        default=None,
    )
    temperature: float = strawberry.field(
        description="0 to 2; at 0 the likeliest token is always taken.", default=0.0
    )
    max_cases: int = strawberry.field(
        description="At most so many cases, 1 to 1000, spread over the data.", default=50
    )

    def plain(self) -> dict[str, Any]:
        """As `app.training.evaluation` has it. Raises Invalid for a grader."""
        return {
            "graders": [
                {
                    "name": one.name,
                    "grader": grader_inputs.plain(
                        one.grader, "evaluation", "graders", str(n), "grader"
                    ),
                    "weight": one.weight,
                }
                for n, one in enumerate(self.graders)
            ],
            "samples": self.samples,
            "max_completion_tokens": self.max_completion_tokens or "auto",
            "temperature": self.temperature,
            "max_cases": self.max_cases,
        }


@strawberry.type(description="A grader of a job's checkpoints.")
class NamedGrader:
    name: str = strawberry.field(description="Its own.")
    grader: JSON = strawberry.field(description="In OpenAI's format.")
    weight: float = strawberry.field(description="How much it counts beside the others.")


@strawberry.type(description="How a job's checkpoints are judged.")
class JobEvaluation:
    graders: list[NamedGrader] = strawberry.field(description="What judges the answers.")
    samples: int = strawberry.field(description="Answers to each case.")
    max_completion_tokens: AutoInt = strawberry.field(description="Tokens of an answer.")
    temperature: float = strawberry.field(description="0: the likeliest token is always taken.")
    max_cases: int = strawberry.field(description="At most so many cases.")
    version_id: strawberry.Private[str]

    @staticmethod
    def of(row: rows.Job) -> "JobEvaluation | None":
        if row.evaluation is None or row.evaluation_version_id is None:
            return None
        found = dict(row.evaluation)
        graders = [NamedGrader(**grader) for grader in found.pop("graders")]
        return JobEvaluation(graders=graders, version_id=row.evaluation_version_id, **found)

    @strawberry.field(description="The pinned held-out cases.")
    async def data(self, info: Info) -> DatasetVersion:
        found = await info.context.versions.load(self.version_id)
        assert found is not None  # noqa: S101 - a foreign key holds it
        return DatasetVersion.of(found)

"""runGrader: one sample, judged by a worker while the request waits."""

import asyncio
from contextlib import aclosing, suppress
from typing import Annotated, Any, Self

import strawberry
from pydantic import ValidationError

from app.api.graphql import grader_inputs
from app.api.graphql.context import Info
from app.api.graphql.errors import UserError, refusing
from app.api.graphql.grader_inputs import GraderInput
from app.api.graphql.pagination import arg
from app.api.graphql.scalars import JSON
from app.core.database import json_text
from app.core.errors import Invalid, Unavailable
from app.graderruns import service as grader_runs
from app.graderruns.tables import RunStatus
from app.graders import result, spec
from app.graders.protocol import GradeCase
from app.models import service as models

# Of the time that a request may take: for the grading, and for everything until the answer.
_GRADING, _WAITING = 0.5, 0.9


@strawberry.input(description="A model's answer, part by part.")
class GraderSamplePartsInput:
    output_text: str = strawberry.field(description="The text: sample.output_text.")
    output_json: JSON | None = strawberry.field(
        description="The text as JSON: sample.output_json.", default=None
    )
    output_tools: list[JSON] | None = strawberry.field(
        description="Calls of tools, an object each: sample.output_tools.", default=None
    )
    choices: list[JSON] | None = strawberry.field(
        description="Choices, an object each: sample.choices.", default=None
    )


@strawberry.input(description="A model's answer: exactly one form.", one_of=True)
class GraderSampleInput:
    text: strawberry.Maybe[str] = strawberry.field(
        description="The text; parsed as well where it is JSON."
    )
    parts: strawberry.Maybe[GraderSamplePartsInput] = strawberry.field(description="Its parts.")


@strawberry.input(description="What to grade, and how.")
class RunGraderInput:
    grader: GraderInput = strawberry.field(description="The grader.")
    sample: GraderSampleInput = strawberry.field(description="What a model answered.")
    item: JSON | None = strawberry.field(
        description="What templates know as item: an object; empty when left out.", default=None
    )


@strawberry.type(description="A grader's number.")
class GraderScore:
    name: str = strawberry.field(description="The grader's name.")
    value: float = strawberry.field(description="The number.")


@strawberry.type(description="What a model that judged has cost.")
class GraderTokens:
    model: str = strawberry.field(description="The model.")
    tokens: int = strawberry.field(description="Tokens read and written.")


@strawberry.type(description="Which kinds of trouble there were.")
class GraderRunErrors:
    formula_parse_error: bool = strawberry.field(description="The formula cannot be read.")
    sample_parse_error: bool = strawberry.field(description="The sample is not the JSON asked for.")
    truncated_observation_error: bool = strawberry.field(description="A text was too long.")
    unresponsive_reward_error: bool = strawberry.field(description="It took too long.")
    invalid_variable_error: bool = strawberry.field(
        description="A template asks for what the item or the sample lacks."
    )
    other_error: bool = strawberry.field(description="None of the others; see details.")
    python_grader_server_error: bool = strawberry.field(
        description="The code's box ended, or there is none."
    )
    python_grader_server_error_type: str | None = strawberry.field(
        description="How the box ended, such as timeout."
    )
    python_grader_runtime_error: bool = strawberry.field(description="The code raised an error.")
    python_grader_runtime_error_details: str | None = strawberry.field(
        description="What the code raised, and where."
    )
    model_grader_server_error: bool = strawberry.field(description="The model cannot be reached.")
    model_grader_refusal_error: bool = strawberry.field(description="The model would not judge.")
    model_grader_parse_error: bool = strawberry.field(
        description="The model's judgement cannot be read."
    )
    model_grader_server_error_details: str | None = strawberry.field(
        description="What the model's server said."
    )
    details: str | None = strawberry.field(description="The first trouble, in one sentence.")


@strawberry.type(description="What grading one sample gave.")
class GraderRunResult:
    reward: float = strawberry.field(description="The reward; 0 when something failed.")
    failed: bool = strawberry.field(description="Whether there is any trouble in errors.")
    passed: bool | None = strawberry.field(
        description="Whether the pass threshold was reached; null without one."
    )
    sub_rewards: list[GraderScore] = strawberry.field(description="Of each part of a multi.")
    scores: list[GraderScore] = strawberry.field(description="Each grader's own number.")
    errors: GraderRunErrors = strawberry.field(description="What went wrong.")
    token_usage: list[GraderTokens] = strawberry.field(description="By model.")
    execution_seconds: float = strawberry.field(description="What grading took.")
    notes: list[str] = strawberry.field(description="What the reader of the score should know.")

    @classmethod
    def of(cls, found: result.GraderResult) -> Self:
        said = found.metadata
        return cls(
            reward=found.reward,
            failed=found.failed,
            passed=said.passed,
            sub_rewards=_scores(found.sub_rewards),
            scores=_scores(said.scores),
            errors=GraderRunErrors(**said.errors.model_dump()),
            token_usage=[
                GraderTokens(model=model, tokens=tokens)
                for model, tokens in found.model_grader_token_usage_per_model.items()
            ],
            execution_seconds=said.execution_time,
            notes=said.notes,
        )


@strawberry.type(description="What came of runGrader.")
class RunGraderPayload:
    result: GraderRunResult | None = strawberry.field(
        description="What the grader says.", default=None
    )
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.type
class GraderRunMutations:
    @strawberry.mutation(
        description="Grade one sample, on a worker, and wait for it; nothing is kept. UNAVAILABLE "
        "when no worker did it in time."
    )
    async def run_grader(
        self, info: Info, input: Annotated[RunGraderInput, arg("What to grade, and how.")]
    ) -> RunGraderPayload:
        grader_runs.require(info.context.actor)
        with refusing() as refused:
            grader = grader_inputs.read(input.grader, ("grader",))
            found = await _graded(info, grader, _case(input))
            return RunGraderPayload(result=GraderRunResult.of(found))
        return RunGraderPayload(user_errors=refused.user_errors)


async def _graded(info: Info, grader: spec.Grader, case: dict[str, Any]) -> result.GraderResult:
    """Raises Unavailable, and what `models.require_callable` does."""
    context, services = info.context, info.context.services
    seconds = services.settings.graphql_seconds
    async with context.transaction() as session:
        await models.require_callable(session, context.actor, spec.models(grader), ("grader",))
        plain = grader.model_dump(exclude_none=True)
        id = await grader_runs.submit(session, context.actor, plain, case, _GRADING * seconds)
    with suppress(TimeoutError):
        async with asyncio.timeout(_WAITING * seconds):
            async with aclosing(services.streams.follow(context.actor.org_id, id, 1)) as news:
                await anext(news)
    async with context.transaction() as session:
        run = await grader_runs.collect(session, context.actor, id)
    if run.status == RunStatus.QUEUED:
        raise Unavailable(
            f"No worker has graded this within {_WAITING * seconds:g} s. "
            "Try again; if it stays so, see whether a worker runs."
        )
    if run.result is None:
        raise Unavailable("The worker's graders do not answer. Try again in a moment.")
    return result.GraderResult.model_validate(run.result)


def _case(input: RunGraderInput) -> dict[str, Any]:
    item: Any = {} if input.item is None else input.item
    if not isinstance(item, dict):
        raise Invalid("The item must be an object.", path=("item",))
    _check_json(item, "item")
    if input.sample.text is not None:
        return GradeCase(item=item, sample=input.sample.text.value).model_dump()
    assert input.sample.parts is not None  # noqa: S101 - exactly one of them
    given = {k: v for k, v in vars(input.sample.parts.value).items() if v is not None}
    _check_json(given, "sample", "parts")
    try:
        sample = result.Sample.model_validate(given)
    except ValidationError as wrong:
        first, *rest = map(str, wrong.errors()[0]["loc"])
        name = grader_inputs.camel(first)
        raise Invalid("It must be an object.", path=("sample", "parts", name, *rest)) from wrong
    return GradeCase(item=item, sample=sample).model_dump()


def _check_json(value: object, *path: str) -> None:
    """GraphQL's own literals can be nested deeper, and hold larger numbers, than can be kept."""
    try:
        json_text(value)
    except TypeError as wrong:
        raise Invalid(f"This cannot be kept as JSON: {wrong}.", path=path) from wrong


def _scores(found: dict[str, float]) -> list[GraderScore]:
    return [GraderScore(name=name, value=value) for name, value in found.items()]

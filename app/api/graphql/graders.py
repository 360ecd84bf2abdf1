"""Graders: checking one before a job is built on it."""

from typing import Annotated

import strawberry

from app.api.graphql import grader_inputs
from app.api.graphql.context import Info
from app.api.graphql.errors import UserError, refusing
from app.api.graphql.grader_inputs import GraderInput
from app.api.graphql.pagination import arg
from app.api.graphql.scalars import JSON
from app.core.actor import Scope
from app.graders import spec


@strawberry.input(description="Which grader to check.")
class ValidateGraderInput:
    grader: GraderInput = strawberry.field(description="The grader.")


@strawberry.type(description="What came of validateGrader.")
class ValidateGraderPayload:
    grader: JSON | None = strawberry.field(
        description="The grader in OpenAI's wire format, with its defaults.", default=None
    )
    references: list[str] | None = strawberry.field(
        description="What its templates ask of an item and a sample, such as item.answer.",
        default=None,
    )
    models: list[str] | None = strawberry.field(
        description="The models that it calls.", default=None
    )
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.type
class GraderMutations:
    @strawberry.mutation(
        description="Check a grader; nothing is stored or run. Code in Python is not run either."
    )
    async def validate_grader(
        self, info: Info, input: Annotated[ValidateGraderInput, arg("Which grader.")]
    ) -> ValidateGraderPayload:
        info.context.actor.require(Scope.READ)
        with refusing() as refused:
            grader = grader_inputs.read(input.grader, ("grader",))
            return ValidateGraderPayload(
                grader=JSON(grader.model_dump(exclude_none=True)),
                references=sorted(map(str, spec.references(grader))),
                models=sorted(spec.models(grader)),
            )
        return ValidateGraderPayload(user_errors=refused.user_errors)

"""Expected refusals as `userErrors`, everything else masked: one place translates them all."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import strawberry
from graphql import GraphQLError
from sqlalchemy.exc import SQLAlchemyError
from strawberry.exceptions import MissingQueryError
from strawberry.schema.exceptions import CannotGetOperationTypeError

from app.core import errors
from app.core.database import outage, refuses_text
from app.core.errors import AppError
from app.datasets.errors import DatasetInvalid
from app.jobs.states import TransitionRefused

log = logging.getLogger(__name__)


@strawberry.enum(description="What kind of refusal it is. New values may be added: keep a default.")
class ErrorCode(Enum):
    INVALID_INPUT = strawberry.enum_value(
        "INVALID_INPUT", description="A field of the input is wrong; `path` names it."
    )
    NOT_FOUND = strawberry.enum_value("NOT_FOUND", description="There is no such thing here.")
    CONFLICT = strawberry.enum_value("CONFLICT", description="Its state forbids this.")
    INVALID_TRANSITION = strawberry.enum_value(
        "INVALID_TRANSITION", description="The job or deployment cannot go to that status."
    )
    IDEMPOTENCY_MISMATCH = strawberry.enum_value(
        "IDEMPOTENCY_MISMATCH", description="The idempotency key was used with other input."
    )
    LIMIT_EXCEEDED = strawberry.enum_value(
        "LIMIT_EXCEEDED", description="A limit was reached; `limit` is the number in force."
    )
    JOB_NOT_FOUND = strawberry.enum_value("JOB_NOT_FOUND", description="No such job.")
    CHECKPOINT_NOT_FOUND = strawberry.enum_value(
        "CHECKPOINT_NOT_FOUND", description="No such checkpoint."
    )
    JOB_STILL_LIVE = strawberry.enum_value(
        "JOB_STILL_LIVE", description="The job must be over first."
    )
    HYPERPARAMETER_INVALID = strawberry.enum_value(
        "HYPERPARAMETER_INVALID", description="A hyperparameter is out of its range."
    )
    METADATA_TOO_LARGE = strawberry.enum_value(
        "METADATA_TOO_LARGE", description="Too many metadata pairs, or too long ones."
    )
    BASE_MODEL_UNKNOWN = strawberry.enum_value(
        "BASE_MODEL_UNKNOWN", description="No such base model; the message lists what there is."
    )
    HARDWARE_UNKNOWN = strawberry.enum_value(
        "HARDWARE_UNKNOWN", description="No live worker carries that label."
    )
    DATASET_INVALID = strawberry.enum_value(
        "DATASET_INVALID", description="The data has errors, listed by line."
    )
    DATASET_NOT_FOUND = strawberry.enum_value("DATASET_NOT_FOUND", description="No such dataset.")
    DATASET_VERSION_NOT_FOUND = strawberry.enum_value(
        "DATASET_VERSION_NOT_FOUND", description="No such dataset version."
    )
    DATASET_IN_USE = strawberry.enum_value(
        "DATASET_IN_USE", description="A job is pinned to the dataset."
    )
    PATH_NOT_ALLOWED = strawberry.enum_value(
        "PATH_NOT_ALLOWED", description="The path lies outside the folders the settings allow."
    )
    FILE_NOT_FOUND = strawberry.enum_value("FILE_NOT_FOUND", description="No such file.")
    FILE_EMPTY = strawberry.enum_value("FILE_EMPTY", description="The file holds no bytes.")
    FILE_TOO_LARGE = strawberry.enum_value(
        "FILE_TOO_LARGE", description="The file is above the size limit."
    )
    FILE_IN_USE = strawberry.enum_value(
        "FILE_IN_USE", description="A dataset version is pinned to the file."
    )
    CHECKPOINT_IN_USE = strawberry.enum_value(
        "CHECKPOINT_IN_USE", description="Its job still runs, or a model or project uses it."
    )
    PERMISSION_NOT_FOUND = strawberry.enum_value(
        "PERMISSION_NOT_FOUND", description="No such permission."
    )
    MODEL_NOT_FOUND = strawberry.enum_value("MODEL_NOT_FOUND", description="No such model.")
    MODEL_NOT_DEPLOYED = strawberry.enum_value(
        "MODEL_NOT_DEPLOYED", description="The model has no deployment that could answer."
    )
    MODEL_IN_USE = strawberry.enum_value("MODEL_IN_USE", description="The model is deployed.")
    DEPLOYMENT_NOT_FOUND = strawberry.enum_value(
        "DEPLOYMENT_NOT_FOUND", description="No such deployment."
    )
    API_KEY_NOT_FOUND = strawberry.enum_value("API_KEY_NOT_FOUND", description="No such API key.")
    MEMBER_NOT_FOUND = strawberry.enum_value("MEMBER_NOT_FOUND", description="No such member.")
    PROJECT_NOT_FOUND = strawberry.enum_value("PROJECT_NOT_FOUND", description="No such project.")
    CREDENTIAL_NOT_FOUND = strawberry.enum_value(
        "CREDENTIAL_NOT_FOUND", description="The project has no credential for that provider."
    )
    UNSUPPORTED = strawberry.enum_value(
        "UNSUPPORTED", description="The provider cannot do that; providers says what it can."
    )
    URL_NOT_ALLOWED = strawberry.enum_value(
        "URL_NOT_ALLOWED", description="A credential must not be sent to that URL."
    )
    PROVIDER_REFUSED = strawberry.enum_value(
        "PROVIDER_REFUSED", description="The provider understood, and will not."
    )
    PROVIDER_DENIED = strawberry.enum_value(
        "PROVIDER_DENIED", description="The provider does not accept the credential."
    )
    PROVIDER_MISSING = strawberry.enum_value(
        "PROVIDER_MISSING", description="The provider has no such thing."
    )
    PROVIDER_EXISTS = strawberry.enum_value(
        "PROVIDER_EXISTS", description="The provider has one by that name already."
    )
    LAST_OWNER = strawberry.enum_value(
        "LAST_OWNER", description="An organization keeps at least one owner."
    )
    SCOPE_TOO_WIDE = strawberry.enum_value(
        "SCOPE_TOO_WIDE", description="More rights than the acting key has itself."
    )


@strawberry.interface(description="An expected refusal. New types may be added.")
class UserError:
    message: str = strawberry.field(
        description="One sentence that says what is wrong and what to do."
    )
    code: ErrorCode = strawberry.field(description="The kind of refusal, for programs.")
    path: list[str] | None = strawberry.field(
        description="The input field it is about, from the input's root.", default=None
    )


@strawberry.type(description="The input is wrong.")
class InvalidInputError(UserError):
    pass


@strawberry.type(description="There is no such thing in this organization.")
class NotFoundError(UserError):
    pass


@strawberry.type(description="The state of the thing forbids this.")
class ConflictError(UserError):
    pass


@strawberry.type(description="The thing cannot go from the one status to the other.")
class InvalidTransitionError(UserError):
    before: str | None = strawberry.field(description="The status it has.", default=None)
    after: str | None = strawberry.field(description="The status asked for.", default=None)


@strawberry.type(description="A limit was reached.")
class LimitExceededError(UserError):
    limit: int = strawberry.field(description="The number in force.", default=0)


@strawberry.type(description="One thing to mend in a data file.")
class DatasetProblem:
    line: int = strawberry.field(description="The line, counted from 1.")
    field: str = strawberry.field(description="The field in it, such as messages[1].role.")
    reason: str = strawberry.field(description="What is wrong, and what it must be.")


@strawberry.type(description="The data has errors.")
class DatasetInvalidError(UserError):
    problem_count: int = strawberry.field(description="How many there are in all.", default=0)
    problems: list[DatasetProblem] = strawberry.field(
        description="The first of them.", default_factory=list
    )


ERROR_TYPES = [
    InvalidInputError,
    NotFoundError,
    ConflictError,
    InvalidTransitionError,
    LimitExceededError,
    DatasetInvalidError,
]


def user_error(refusal: AppError) -> UserError:
    """The typed form of a refusal. Unauthenticated, Forbidden and Unavailable have none: they are
    top-level errors."""
    common: dict[str, Any] = {
        "message": refusal.message,
        "code": ErrorCode(refusal.code),
        "path": list(refusal.path) or None,
    }
    match refusal:
        case DatasetInvalid():
            problems = [DatasetProblem(**vars(problem)) for problem in refusal.detail["problems"]]
            return DatasetInvalidError(
                **common, problems=problems, problem_count=refusal.detail["problem_count"]
            )
        case TransitionRefused():
            return InvalidTransitionError(
                **common,
                before=str(refusal.detail["before"]),
                after=str(refusal.detail["after"]),
            )
        case errors.Limited():
            return LimitExceededError(**common, limit=min(refusal.limit, 2**31 - 1))
        case errors.NotFound():
            return NotFoundError(**common)
        case errors.Conflict():
            return ConflictError(**common)
        case _:
            return InvalidInputError(**common)


@dataclass
class Refused:
    user_errors: list[UserError] = field(default_factory=list)


@contextmanager
def refusing() -> Iterator[Refused]:
    """Turn a refusal inside the block into `userErrors`; let system failures through."""
    refused = Refused()
    try:
        yield refused
    except (errors.Unauthenticated, errors.Forbidden, errors.Unavailable):
        raise
    except AppError as refusal:
        refused.user_errors.append(user_error(refusal))


def present(error: GraphQLError, request_id: str) -> GraphQLError:
    """The error as the client may see it: with a code and the request id, and masked if it is a
    bug of ours."""
    original = error.original_error
    extensions = {"requestId": request_id, **(error.extensions or {})}
    if original is None:
        extensions.setdefault("code", _code_of_words(error.message))
    elif isinstance(original, AppError):
        extensions["code"] = original.code
    elif isinstance(original, GraphQLError):  # a scalar refused a value
        extensions.setdefault("code", "INVALID_INPUT")
    elif isinstance(original, CannotGetOperationTypeError):
        extensions["code"] = "BAD_REQUEST"
        return _like(error, original.as_http_error_reason(), extensions)
    elif isinstance(original, MissingQueryError):
        extensions["code"] = "BAD_REQUEST"
    elif refuses_text(original):
        extensions["code"] = "INVALID_INPUT"
        return _like(error, "Text must not hold the character U+0000.", extensions)
    elif outage(original) or isinstance(original, SQLAlchemyError):
        log.error("database trouble in request %s: %s", request_id, original)
        extensions["code"] = "UNAVAILABLE"
        return _like(error, "The database does not answer. Try again in a moment.", extensions)
    else:
        log.error("bug in request %s", request_id, exc_info=original)
        extensions["code"] = "INTERNAL"
        message = f"Something went wrong on our side. Quote request {request_id} to the operator."
        return _like(error, message, extensions)
    return _like(error, error.message, extensions)


def _code_of_words(message: str) -> str:
    if not message.startswith("Syntax Error"):
        return "GRAPHQL_VALIDATION_FAILED"
    return "QUERY_TOO_LARGE" if "Parsing aborted" in message else "GRAPHQL_PARSE_FAILED"


def _like(error: GraphQLError, message: str, extensions: dict[str, Any]) -> GraphQLError:
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=extensions,
    )

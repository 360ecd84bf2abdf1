"""What a finished job's model makes of each case of its data."""

from enum import Enum
from typing import Any

import strawberry

from app.api.graphql.context import Info
from app.api.graphql.pagination import Connection, connect
from app.api.graphql.scalars import JSON
from app.core.paging import PageRequest
from app.jobs import examples, measured
from app.jobs.tables import Job

_SHOWN = 200


@strawberry.enum(description="Which of a job's data.")
class DataSplit(Enum):
    TRAINING = strawberry.enum_value("training", description="What it learnt from.")
    VALIDATION = strawberry.enum_value("validation", description="What was held out.")


@strawberry.enum(description="What is remarkable about a case.")
class ExampleFlag(Enum):
    DUPLICATE = strawberry.enum_value(
        "duplicate", description="The same case is on an earlier line of the file."
    )
    IN_BOTH = strawberry.enum_value(
        "in_both",
        description="The same case is in the training and in the validation data, so that its "
        "validation loss says nothing.",
    )
    CONTRADICTS = strawberry.enum_value(
        "contradicts", description="Another line of the file answers the same question otherwise."
    )
    TRUNCATED = strawberry.enum_value("truncated", description="It was cut at maxLength.")
    LEFT_OUT = strawberry.enum_value(
        "left_out", description="Nothing of it is learnt: it is cut off, or has weight 0."
    )


@strawberry.enum(description="The order of a job's cases.")
class ExampleOrder(Enum):
    LOSS_DESC = strawberry.enum_value("loss desc", description="The least known first.")
    LOSS_ASC = strawberry.enum_value("loss asc", description="The best known first.")
    LINE_ASC = strawberry.enum_value("line asc", description="As they lie in the file.")


@strawberry.type(description="One case of a job's data, as the finished model knows it.")
class Example:
    split: DataSplit = strawberry.field(description="Which data it belongs to.")
    line: int = strawberry.field(description="Its line in the file, from 1.")
    loss: float | None = strawberry.field(
        description="Under the final weights: the mean of its target tokens, in DPO the loss of "
        "its pair; null when nothing of it is learnt, or it is no number."
    )
    tokens: int = strawberry.field(description="Target tokens: those that the loss counts.")
    flags: list[ExampleFlag] = strawberry.field(description="What is remarkable about it.")
    duplicate_of: int | None = strawberry.field(
        description="The first line of the same file with the same case."
    )
    same_in_other: int | None = strawberry.field(
        description="The line of the other file (validation or training) with the same case."
    )
    contradicts: int | None = strawberry.field(
        description="The first line of the same file that answers the same question otherwise."
    )
    case: JSON | None = strawberry.field(
        description="The line itself; null when it has more than 64 KiB, or its file is gone."
    )

    said: strawberry.Private[tuple[str, str] | None]

    @staticmethod
    def of(found: examples.Example) -> "Example":
        one = found.measured
        case: Any = found.case
        return Example(
            split=DataSplit(one.split.value),
            line=one.line,
            loss=one.loss,
            tokens=one.tokens,
            flags=[ExampleFlag(flag.value) for flag in one.flags],
            duplicate_of=one.duplicate_of,
            same_in_other=one.same_in_other,
            contradicts=one.contradicts,
            case=case,
            said=examples.dialogue(found.case) if found.case else None,
        )

    @strawberry.field(description="What was asked last, shortened to 200 characters.")
    def question(self) -> str | None:
        return _short(self.said[0]) if self.said else None

    @strawberry.field(
        description="The answer to be learnt, in DPO the preferred one, shortened to 200 "
        "characters."
    )
    def answer(self) -> str | None:
        return _short(self.said[1]) if self.said else None


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


@strawberry.type(description="One page of a job's cases.")
class ExampleConnection(Connection[Example]):
    @strawberry.field(description="How many cases were measured, whatever the filter.")
    def measured(self) -> int:
        return int(self._page.measured)

    @strawberry.field(description="How many cases the job was given.")
    def cases(self) -> int:
        return int(self._page.cases)

    @strawberry.field(
        description="Whether only a random sample was measured: of 2000 cases a file, or of what "
        "fits 3 % of the training time."
    )
    def sampled(self) -> bool:
        return 0 < self._page.measured < self._page.cases

    @property
    def _page(self) -> examples.ExamplePage:
        assert isinstance(self.page, examples.ExamplePage)  # noqa: S101 - made from nothing else
        return self.page


async def example_page(
    info: Info,
    job: Job,
    request: PageRequest,
    split: DataSplit | None,
    flag: ExampleFlag | None,
    order: ExampleOrder,
) -> ExampleConnection:
    async with info.context.transaction() as session:
        page = await examples.page(
            session,
            info.context.services.store,
            info.context.actor,
            job,
            request,
            split=measured.Split(str(split.value)) if split else None,
            flag=measured.Flag(str(flag.value)) if flag else None,
            order=measured.ExampleOrder(str(order.value)),
        )
    found: ExampleConnection = connect(page, Example.of, ExampleConnection)
    return found

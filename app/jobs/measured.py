"""One case of a job's data as the finished model finds it, and the words for it."""

from dataclasses import dataclass
from enum import StrEnum


class Split(StrEnum):
    TRAINING = "training"
    VALIDATION = "validation"


class Flag(StrEnum):
    DUPLICATE = "duplicate"
    IN_BOTH = "in_both"
    CONTRADICTS = "contradicts"
    TRUNCATED = "truncated"
    LEFT_OUT = "left_out"


class ExampleOrder(StrEnum):
    LOSS_DESC = "loss desc"
    LOSS_ASC = "loss asc"
    LINE_ASC = "line asc"


@dataclass(frozen=True)
class Measured:
    """One line of the data, as the result file has it. Lines count from 1; `offset` is in bytes."""

    split: Split
    line: int
    loss: float | None
    tokens: int
    flags: list[Flag]
    duplicate_of: int | None
    same_in_other: int | None
    contradicts: int | None
    offset: int

"""What can be wrong with a grader, or with the process that runs it."""

from dataclasses import dataclass

from app.core.errors import Invalid, Unavailable


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a grader: where, from the grader's root, and what to do."""

    path: tuple[str, ...]
    message: str


class GraderInvalid(Invalid):
    """The grader cannot be used; `problems` has every fault that was found, the first is told."""

    def __init__(self, problems: list[Problem]) -> None:
        first = problems[0]
        where = ".".join(first.path)
        super().__init__(f"{where}: {first.message}" if where else first.message, path=first.path)
        self.problems = problems


class GradersUnavailable(Unavailable):
    """The graders' process does not answer; asking again may help."""

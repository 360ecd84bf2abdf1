"""The validation report: what a dataset holds, what must be mended, what is worth a look."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from app.datasets.formats import CHECKS, Format, detect, fingerprint
from app.datasets.problem import Problem

MOST_PROBLEMS = 50
FEW_CASES = 50
LONGEST_LINE = 4 * 1024 * 1024

CountTokens = Callable[[list[str]], int]


@dataclass
class Report:
    """`token_count` counts message contents by `tokenizer`; `duplicates` are lines seen before."""

    format: Format = Format.CHAT
    case_count: int = 0
    token_count: int = 0
    tokenizer: str = ""
    longest_case_tokens: int = 0
    duplicate_count: int = 0
    duplicate_lines: list[int] = field(default_factory=list)
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines of a file, one at a time; of one above the limit one byte more than that."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 3):
            number += 1
            yield number, line.rstrip(b"\r\n")[: LONGEST_LINE + 1]
            while not line.endswith(b"\n") and (line := file.readline(LONGEST_LINE)):
                pass


def examine(
    path: Path, count_tokens: CountTokens, tokenizer: str, format: Format | None = None
) -> Report:
    """Check every line of a file. Reads it once, holding one case in memory.

    Without a format, the first line that is JSON decides which it is.
    """
    report = Report(tokenizer=tokenizer)
    seen: set[bytes] = set()
    signatures: dict[str, int] = {}
    for number, line in lines(path):
        if not line.strip():
            _problem(report, Problem(number, "", "The line is empty. Remove it."))
            continue
        if len(line) > LONGEST_LINE:
            limit = LONGEST_LINE // 1_048_576
            _problem(report, Problem(number, "", f"The line is longer than {limit} MiB."))
            continue
        try:
            case = orjson.loads(line)
        except orjson.JSONDecodeError as wrong:
            column = wrong.pos + 1
            _problem(
                report, Problem(number, "", f"Not valid JSON at column {column}: {wrong.msg}.")
            )
            continue
        format = report.format = format or detect(case)
        checks = CHECKS[format]
        if problems := checks.check_case(number, case):
            for problem in problems:
                _problem(report, problem)
            continue
        try:
            mark = fingerprint(case)
        except orjson.JSONEncodeError:  # it writes fewer levels than it reads
            _problem(report, Problem(number, "", "Nested too deeply."))
            continue
        report.case_count += 1
        tokens = count_tokens(checks.texts(case))
        report.token_count += tokens
        report.longest_case_tokens = max(report.longest_case_tokens, tokens)
        kind = checks.signature(case)
        signatures[kind] = signatures.get(kind, 0) + 1
        if mark in seen:
            report.duplicate_count += 1
            if len(report.duplicate_lines) < MOST_PROBLEMS:
                report.duplicate_lines.append(number)
        seen.add(mark)
    if not report.case_count and not report.problems:
        _problem(report, Problem(1, "", "The file holds no cases."))
    report.warnings = _warnings(report, signatures)
    return report


def overlap(training: Path, validation: Path) -> list[int]:
    """Lines of the validation file whose case is also in the training file."""
    known = {fingerprint(orjson.loads(line)) for _, line in lines(training)}
    return [
        number for number, line in lines(validation) if fingerprint(orjson.loads(line)) in known
    ]


def _problem(report: Report, problem: Problem) -> None:
    report.problem_count += 1
    if len(report.problems) < MOST_PROBLEMS:
        report.problems.append(problem)


def _warnings(report: Report, signatures: dict[str, int]) -> list[str]:
    warnings = []
    if report.case_count and report.case_count < FEW_CASES:
        warnings.append(
            f"Only {report.case_count} cases: at least {FEW_CASES} good, varied examples are "
            "advised."
        )
    if len(signatures) > 1:
        shares = ", ".join(
            f"{count} {name}" for name, count in sorted(signatures.items(), key=lambda s: -s[1])
        )
        warnings.append(
            f"The cases are not of one form ({shares}). Use the same form for all of them, and "
            "the same one when you call the model."
        )
    if report.duplicate_count:
        warnings.append(
            f"{report.duplicate_count} cases appear more than once; the first repeats are on "
            f"lines {', '.join(map(str, report.duplicate_lines[:5]))}."
        )
    return warnings

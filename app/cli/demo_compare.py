"""The same tickets, put to two models."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli import show
from app.client import Client

AT_ONCE = 4
MAX_TOKENS = 40
EXAMPLES = 4
_LONGEST_SHOWN = 60  # characters of an answer in the table


@dataclass(frozen=True)
class Case:
    """What is asked, and the answer that is right."""

    messages: list[dict[str, Any]]
    right: str

    @property
    def question(self) -> str:
        return str(self.messages[-1]["content"])


def read_cases(path: Path) -> list[Case]:
    cases = []
    for line in path.read_text().splitlines():
        *asked, answer = json.loads(line)["messages"]
        cases.append(Case(asked, answer["content"].strip()))
    return cases


async def ask_all(client: Client, model: str, cases: Sequence[Case]) -> list[str]:
    """Each case's answer, always the likeliest words."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def ask(case: Case) -> str:
        async with limit:
            answer = await client.chat(model, case.messages, temperature=0, max_tokens=MAX_TOKENS)
            return answer.strip()

    return await asyncio.gather(*(ask(case) for case in cases))


def right(cases: Sequence[Case], answers: Sequence[str]) -> int:
    return sum(case.right == answer for case, answer in zip(cases, answers, strict=True))


def show_examples(
    console: Console, cases: Sequence[Case], base: Sequence[str], tuned: Sequence[str]
) -> None:
    """A few of them: first those where only the tuned model is right."""
    order = sorted(
        range(len(cases)), key=lambda n: (base[n] == cases[n].right, tuned[n] != cases[n].right)
    )
    for n in sorted(order[:EXAMPLES]):
        case = cases[n]
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold", max_width=64)
        grid.add_row("     ticket", Text(show.clean(case.question, True)))
        grid.add_row("     base", _answer(base[n], case.right))
        grid.add_row("     tuned", _answer(tuned[n], case.right))
        console.print(grid)
        console.print()


def _answer(given: str, right: str) -> Text:
    shown = show.clean(given, True)
    shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]} …"
    return Text(f"✓ {shown}", "green") if given == right else Text(f"✗ {shown}", "red")

"""From preference lines to pairs of token sequences, of which only the answers count."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.training.data import Case, Origin, Row, Unsupported, cut, encode_targets, read_rows
from app.training.errors import FailureCode


@dataclass(frozen=True, slots=True)
class Pair:
    """The same conversation with the answer that was preferred, and with the one that was not."""

    chosen: Case
    rejected: Case

    @property
    def longest(self) -> int:
        return max(len(self.chosen.input_ids), len(self.rejected.input_ids))

    @property
    def tokens(self) -> int:
        return len(self.chosen.input_ids) + len(self.rejected.input_ids)


@dataclass(frozen=True, slots=True)
class Pairs:
    """`left_out` are lines whose pair was left out because one answer was cut off as a whole;
    `origins` has one for each of `pairs`."""

    pairs: list[Pair]
    origins: list[Origin]
    left_out: list[int]
    truncated: int


def read_pairs(path: Path, tokenizer: Any, max_length: int, code: FailureCode) -> Pairs:
    """Tokenise a whole file; `code` is what a line that cannot be used fails with."""
    pairs: list[Pair] = []
    origins: list[Origin] = []
    left_out: list[int] = []
    truncated = 0
    for line, pair in read_rows(path, tokenizer, code, encode_pair):
        is_cut = pair.longest > max_length
        truncated += is_cut
        short = Pair(cut(pair.chosen, max_length), cut(pair.rejected, max_length))
        if short.chosen.teaches and short.rejected.teaches:
            pairs.append(short)
            origins.append(Origin(line, short.chosen.targets + short.rejected.targets, is_cut))
        else:
            left_out.append(line)
    return Pairs(pairs, origins, left_out, truncated)


def encode_pair(row: Row, tokenizer: Any) -> Pair:
    """Both conversations of one line, in OpenAI's format: `input`, and two lists of messages."""
    asked = row["input"]
    return Pair(
        *(
            _conversation(asked["messages"], row[name], asked.get("tools"), tokenizer)
            for name in ("preferred_output", "non_preferred_output")
        )
    )


def _conversation(
    before: list[dict[str, Any]], answer: list[dict[str, Any]], tools: Any, tokenizer: Any
) -> Case:
    raw = [*before, *answer]
    targets = [
        i for i, message in enumerate(raw) if i >= len(before) and message["role"] == "assistant"
    ]
    cases = encode_targets(raw, tools, targets, tokenizer)
    if len(cases) != 1:
        raise Unsupported("its answers cannot be told apart from the rest of the conversation")
    return cases[0]

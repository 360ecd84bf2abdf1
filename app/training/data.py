"""From conversations to tokens, of which only the assistant's are learnt.

The model's own chat template renders each conversation. Which characters belong to an assistant
message is found by rendering prefixes of the conversation, which needs no special markers in the
template; the property this relies on is checked for every message and never assumed.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from app.training.errors import FailureCode, TrainingFailed

Messages = list[dict[str, Any]]
Row = dict[str, Any]
Span = tuple[int, int]
T = TypeVar("T")

IGNORED = -100  # the label that the loss leaves out
_KEPT_KEYS = ("role", "name", "tool_calls", "tool_call_id")


@dataclass(frozen=True, slots=True)
class Case:
    """One tokenised conversation; the mask is 1 where the loss counts."""

    input_ids: list[int]
    assistant_masks: list[int]

    @property
    def teaches(self) -> bool:
        return self.targets > 0

    @property
    def targets(self) -> int:
        """How many tokens the loss counts."""
        # The first token has no context to be predicted from.
        return sum(self.assistant_masks[1:])

    @property
    def labels(self) -> list[int]:
        pairs = zip(self.input_ids, self.assistant_masks, strict=True)
        return [token if mask else IGNORED for token, mask in pairs]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a case was read, and how many of its tokens the loss counts."""

    line: int
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Cases:
    """`origins` has one for each of `cases`; `left_out` are lines that no case was made of."""

    cases: list[Case]
    origins: list[Origin]
    left_out: list[int]
    truncated: int
    without_target: int
    """Cases left out because nothing in them is to be learnt (weights, or truncation)."""

    @property
    def tokens(self) -> int:
        return sum(len(case.input_ids) for case in self.cases)

    @property
    def longest(self) -> int:
        return max(len(case.input_ids) for case in self.cases)


class Unsupported(Exception):
    """A conversation that this template renders in no way that we can follow."""


def read_cases(path: Path, tokenizer: Any, max_length: int, code: FailureCode) -> Cases:
    """Tokenise a whole file; `code` is what a line that cannot be used fails with."""
    cases: list[Case] = []
    origins: list[Origin] = []
    left_out: list[int] = []
    truncated = without_target = 0
    for line, encoded in read_rows(path, tokenizer, code, encode):
        known = len(cases)
        for case in encoded:
            short, is_cut = cut(case, max_length), len(case.input_ids) > max_length
            truncated += is_cut
            if short.teaches:
                cases.append(short)
                origins.append(Origin(line, short.targets, is_cut))
            else:
                without_target += 1
        without_target += not encoded
        if len(cases) == known:
            left_out.append(line)
    return Cases(cases, origins, left_out, truncated, without_target)


def cut(case: Case, max_length: int) -> Case:
    return Case(case.input_ids[:max_length], case.assistant_masks[:max_length])


def read_rows(
    path: Path, tokenizer: Any, code: FailureCode, encode: Callable[[Row, Any], T]
) -> Iterator[tuple[int, T]]:
    """What `encode` makes of each line, with the line's number, from 1. A line that it cannot use
    fails with `code`."""
    if not tokenizer.chat_template:
        raise TrainingFailed(
            "base_model_unavailable", "The base model has no chat template.", "base_model"
        )
    if not tokenizer.is_fast:
        raise TrainingFailed(
            "base_model_unavailable", "The base model has no fast tokenizer.", "base_model"
        )
    for number, row in _rows(path, code):
        try:
            made = encode(row, tokenizer)
        except (Unsupported, ValueError, TypeError, KeyError, AttributeError) as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else error
            raise TrainingFailed(code, f"Line {number} cannot be used: {why}.") from error
        except Exception as error:
            # The template is a program of the model's author, with exceptions of its own choosing.
            raise TrainingFailed(
                code, f"Line {number}: the base model's chat template refuses it ({error})."
            ) from error
        yield number, made


def encode(row: Row, tokenizer: Any) -> list[Case]:
    """The cases of one line: one, unless the template shows history otherwise than it was said.

    Some templates render an assistant message differently once another one follows (they drop
    its reasoning, say). Then each message to be learnt becomes a case of its own, ending with it:
    just what the model will see when it is asked.
    """
    targets = [i for i, message in enumerate(row["messages"]) if _is_learnt(message)]
    return encode_targets(row["messages"], row.get("tools"), targets, tokenizer)


def encode_targets(raw: Messages, tools: Any, targets: list[int], tokenizer: Any) -> list[Case]:
    """The same, learning the messages at these places."""
    if not targets:
        return []
    messages, tools = [plain_message(message) for message in raw], tools or None
    try:
        text = render(tokenizer, messages, tools)
        spans = [_span(tokenizer, messages[: i + 1], tools, text) for i in targets]
        return [_tokenize(tokenizer, text, spans)]
    except Unsupported:
        cases = []
        for i in targets:
            text = render(tokenizer, messages[: i + 1], tools)
            span = _span(tokenizer, messages[: i + 1], tools, text)
            cases.append(_tokenize(tokenizer, text, [span]))
        return cases


def _span(tokenizer: Any, upto: Messages, tools: Any, text: str) -> Span:
    """Where in `text` the last message of `upto`, the assistant's, was said."""
    said = render(tokenizer, upto, tools)
    before = render(tokenizer, upto[:-1], tools) if upto[:-1] else ""
    asked = render(tokenizer, upto[:-1], tools, ask=True) if upto[:-1] else ""
    # A generation prompt may open something that history does not show, such as a reasoning
    # block; what both have in common is the header of the message, and is given, not learnt.
    start = _common_start(asked, said)
    if not (text.startswith(said) and said.startswith(before) and start >= len(before)):
        raise Unsupported("the chat template does not render it as a continuation of its start")
    return start, len(said)


def _common_start(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _tokenize(tokenizer: Any, text: str, spans: list[Span]) -> Case:
    # The template has written the special tokens already.
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    masks = []
    learnt = [False] * len(spans)
    for start, end in encoded["offset_mapping"]:
        inside = [i for i, span in enumerate(spans) if span[0] <= start < span[1] and end > start]
        masks.append(1 if inside else 0)
        for i in inside:
            learnt[i] = True
    if not all(learnt):
        raise Unsupported("the tokenizer does not tell which text its tokens stand for")
    return Case(list(encoded["input_ids"]), masks)


def render(
    tokenizer: Any, messages: Messages, tools: Any, ask: bool = False, **variables: Any
) -> str:
    """The conversation as text; with `ask`, up to where the assistant begins to speak."""
    return str(
        tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=ask, **variables
        )
    )


def _is_learnt(message: dict[str, Any]) -> bool:
    weight = message.get("weight")
    return message["role"] == "assistant" and (weight is None or weight > 0)


def plain_message(raw: dict[str, Any]) -> dict[str, Any]:
    """One message as templates expect it: plain text, and tool arguments as an object."""
    message = {key: raw[key] for key in _KEPT_KEYS if raw.get(key) is not None}
    if message["role"] == "developer":
        message["role"] = "system"
    content = raw.get("content") or ""
    if isinstance(content, list):
        if any(part.get("type", "text") != "text" for part in content):
            raise Unsupported("a message holds something other than text")
        content = "".join(part["text"] for part in content)
    message["content"] = content
    if "tool_calls" in message:
        message["tool_calls"] = [_tool_call(call) for call in message["tool_calls"]]
    return message


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    """The API's arguments are a JSON string; as one, a template would quote it a second time."""
    function = dict(call["function"])
    if isinstance(function.get("arguments"), str):
        try:
            function["arguments"] = json.loads(function["arguments"])
        except ValueError:
            return call
    return {**call, "function": function}


def _rows(path: Path, code: FailureCode) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise TrainingFailed(code, f"Line {number} is not JSON.") from error
            if not isinstance(row, dict):
                raise TrainingFailed(code, f"Line {number} is no JSON object.")
            yield number, row

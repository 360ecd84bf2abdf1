"""Which tokens are learnt: with the tiny model's tokenizer under several chat templates."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.training.data import encode, read_cases
from app.training.errors import TrainingFailed
from tests.training.training_helpers import write_rows

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]

DIALOGUE = [
    {"role": "system", "content": "You sort."},
    {"role": "user", "content": "one?"},
    {"role": "assistant", "content": "first answer", "weight": 0},
    {"role": "user", "content": "two?"},
    {"role": "assistant", "content": "second answer", "weight": 1},
    {"role": "user", "content": "three?"},
    {"role": "assistant", "content": "third answer"},
]
# SmolLM2 says who it is when nobody else did.
DEFAULT_SYSTEM = (
    "{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nI am small<|im_end|>\n"
    "{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Qwen3 shows the reasoning block of the last answer only.
FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think></think>{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BACKWARDS = "{% for m in messages|reverse %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def templated(tokenizer: Any) -> Any:
    """Gives the tokenizer another template for one test."""
    before = tokenizer.chat_template

    def use(template: str) -> Any:
        tokenizer.chat_template = template
        return tokenizer

    yield use
    tokenizer.chat_template = before


def learnt(tokenizer: Any, row: dict[str, Any]) -> list[str]:
    """The learnt text of each case, with a bar between its pieces."""
    texts = []
    for case in encode(row, tokenizer):
        pieces: list[list[int]] = [[]]
        for token, mask in zip(case.input_ids, case.assistant_masks, strict=True):
            if mask:
                pieces[-1].append(token)
            elif pieces[-1]:
                pieces.append([])
        texts.append("|".join(tokenizer.decode(piece) for piece in pieces if piece))
    return texts


def test_only_answers_with_weight_are_learnt(tokenizer: Any) -> None:
    assert learnt(tokenizer, {"messages": DIALOGUE}) == [
        "second answer<|im_end|>\n|third answer<|im_end|>\n"
    ]


def test_labels_hide_the_rest(tokenizer: Any) -> None:
    (case,) = encode({"messages": DIALOGUE[:2] + DIALOGUE[-1:]}, tokenizer)
    shown = [label for label in case.labels if label != -100]
    assert tokenizer.decode(shown) == "third answer<|im_end|>\n"
    assert len(case.labels) == len(case.input_ids)


def test_a_template_with_a_default_system_prompt(templated: Any) -> None:
    tokenizer = templated(DEFAULT_SYSTEM)
    assert learnt(tokenizer, {"messages": DIALOGUE[-2:]}) == ["third answer<|im_end|>\n"]


def test_a_template_that_forgets_makes_one_case_of_each_answer(templated: Any) -> None:
    tokenizer = templated(FORGETFUL)
    assert learnt(tokenizer, {"messages": DIALOGUE}) == [
        "<think></think>second answer<|im_end|>\n",
        "<think></think>third answer<|im_end|>\n",
    ]


def test_other_scripts_and_emoji_are_learnt_whole(tokenizer: Any) -> None:
    answer = "日本語 🎻 naïve"
    row = {
        "messages": [{"role": "user", "content": "🎻?"}, {"role": "assistant", "content": answer}]
    }
    assert learnt(tokenizer, row) == [answer + "<|im_end|>\n"]


def test_content_parts_and_tools_reach_the_template(templated: Any) -> None:
    tokenizer = templated(
        "{% for t in tools %}[{{ t.function.name }}]{% endfor %}"
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function.arguments.city }}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    call = {"type": "function", "function": {"name": "w", "arguments": '{"city": "Cremona"}'}}
    row = {
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "be brief"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ],
        "tools": [{"type": "function", "function": {"name": "w", "parameters": {}}}],
    }
    assert learnt(tokenizer, row) == ["Cremona"]
    (case,) = encode(row, tokenizer)
    assert tokenizer.decode(case.input_ids).startswith("[w]<system>be brief<assistant>")


@pytest.mark.parametrize(
    ("template", "why"),
    [(BACKWARDS, "continuation"), ("{{ raise_exception('no system role') }}", "no system role")],
)
def test_a_template_that_cannot_be_followed_is_refused(
    templated: Any, tmp_path: Path, template: str, why: str
) -> None:
    file = tmp_path / "rows.jsonl"
    write_rows(file, [{"messages": DIALOGUE}])
    with pytest.raises(TrainingFailed, match=why) as refusal:
        read_cases(file, templated(template), 512, "invalid_training_file")
    assert refusal.value.code == "invalid_training_file"
    assert "Line 1" in refusal.value.message


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"messages": [{}]}', '{"messages": [1]}'])
def test_a_line_that_is_no_conversation_is_refused(
    tokenizer: Any, tmp_path: Path, line: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"messages": DIALOGUE}) + "\n\n" + line + "\n")
    with pytest.raises(TrainingFailed, match="Line 3"):
        read_cases(file, tokenizer, 512, "invalid_training_file")


def test_cutting_counts_and_drops_what_lost_its_answer(tokenizer: Any, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"messages": DIALOGUE[-2:]}, {"messages": DIALOGUE}]
    write_rows(file, rows)
    whole = read_cases(file, tokenizer, 512, "invalid_training_file")
    assert (len(whole.cases), whole.truncated, whole.without_target) == (2, 0, 0)
    assert whole.tokens == sum(len(case.input_ids) for case in whole.cases)
    cut = read_cases(file, tokenizer, 30, "invalid_training_file")
    assert (len(cut.cases), cut.truncated, cut.without_target) == (1, 1, 1)

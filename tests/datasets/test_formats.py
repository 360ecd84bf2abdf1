"""The preference and the reinforcement format: each rule by line, field and reason."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.datasets.formats import Format
from app.datasets.report import Report, examine
from tests.support import Api, chat_lines, pair_lines

USER = {"role": "user", "content": "q"}
GOOD = {"role": "assistant", "content": "good"}
BAD = {"role": "assistant", "content": "bad"}
TOOL = {"role": "tool", "content": "42", "tool_call_id": "1"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLS = {"role": "assistant", "tool_calls": [CALL]}


def pair(**changes: Any) -> dict[str, Any]:
    case = {
        "input": {"messages": [USER]},
        "preferred_output": [GOOD],
        "non_preferred_output": [BAD],
        **changes,
    }
    return {name: value for name, value in case.items() if value is not None}


def item(*messages: Any, **own: Any) -> dict[str, Any]:
    return {"messages": list(messages) or [USER], **own}


def words(texts: list[str]) -> int:
    return sum(len(text.split()) for text in texts)


def examined(folder: Path, *cases: Any, format: Format | None = None) -> Report:
    path = folder / "cases.jsonl"
    path.write_text("\n".join(json.dumps(case) for case in cases))
    return examine(path, words, "words", format)


@pytest.mark.parametrize(
    ("case", "field", "reason"),
    [
        ([], "", "Must be a JSON object"),
        (pair(extra=1), "extra", "Unknown field"),
        (pair(input=None), "input", "Must be an object with messages, not null."),
        (pair(input=[USER]), "input", "not a list"),
        (pair(input={"messages": []}), "input.messages", "at least one message"),
        (pair(input={"messages": [USER], "model": "m"}), "input.model", "Unknown field"),
        (pair(input={"messages": [{"role": "u"}]}), "input.messages[0].role", "Must be one of"),
        (pair(input={"messages": [USER, GOOD]}), "input.messages[1].role", "before the assistant"),
        (pair(preferred_output=None), "preferred_output", "at least one message"),
        (pair(preferred_output="good"), "preferred_output", "at least one message"),
        (pair(preferred_output=[USER]), "preferred_output[0].role", "of the assistant"),
        (pair(preferred_output=[CALLS, TOOL]), "preferred_output[1].role", "The last must be"),
        (pair(non_preferred_output=[]), "non_preferred_output", "at least one message"),
        (
            pair(non_preferred_output=[{"role": "assistant", "content": " "}]),
            "non_preferred_output[0].content",
            "answer is empty",
        ),
        (pair(non_preferred_output=[GOOD]), "non_preferred_output", "nothing to prefer"),
    ],
)
def test_each_rule_of_pairs_names_line_field_and_reason(
    tmp_path: Path, case: Any, field: str, reason: str
) -> None:
    report = examined(tmp_path, pair(), case, pair(), format=Format.PREFERENCE)
    assert [(p.line, p.field) for p in report.problems] == [(2, field)]
    assert reason in report.problems[0].reason


@pytest.mark.parametrize(
    ("case", "field", "reason"),
    [
        (7, "", "Must be a JSON object, not a number."),
        ({"answer": 4}, "messages", "at least one message"),
        (item(USER, GOOD, answer=4), "messages[1].role", "The last must be the user's"),
        (item({"role": "user"}, answer=4), "messages[0].content", "Must be text"),
    ],
)
def test_each_rule_of_questions_names_line_field_and_reason(
    tmp_path: Path, case: Any, field: str, reason: str
) -> None:
    report = examined(tmp_path, item(answer=1), case, format=Format.REINFORCEMENT)
    assert [(p.line, p.field) for p in report.problems] == [(2, field)]
    assert reason in report.problems[0].reason


def test_the_first_line_tells_the_format(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    asked = {"messages": [USER, CALLS, TOOL], "tools": tools, "parallel_tool_calls": False}
    for case, format in [
        (pair(input=asked, preferred_output=[CALLS, TOOL, GOOD]), Format.PREFERENCE),
        (item(answer="4"), Format.REINFORCEMENT),
        (item(USER, GOOD), Format.CHAT),
    ]:
        report = examined(tmp_path, case)
        assert (report.format, report.problems, report.case_count) == (format, [], 1)
    assert examined(tmp_path, item(USER)).problems[0].reason == "The last must be the assistant's."
    assert examined(tmp_path, item(USER), format=Format.REINFORCEMENT).problems == []


def test_a_pair_counts_the_tokens_of_both_conversations(tmp_path: Path) -> None:
    long = {"role": "user", "content": "one two three"}
    report = examined(tmp_path, pair(input={"messages": [long]}))
    assert report.token_count == 3 + 1 + 3 + 1


def test_questions_with_other_fields_are_warned_about(tmp_path: Path) -> None:
    report = examined(tmp_path, item(answer=1), item(answer=2), item(solution=3))
    assert any("2 with answer, 1 with solution" in warning for warning in report.warnings)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "content", "input", "preferred_output"]),
            inner | st.sampled_from(["user", "assistant", "tool"]),
            max_size=3,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(JSON, st.sampled_from(Format))
def test_no_line_of_json_crashes_the_report(
    tmp_path_factory: pytest.TempPathFactory, case: Any, format: Format
) -> None:
    report = examined(tmp_path_factory.getbasetemp(), case, format=format)
    assert report.case_count + bool(report.problems) == 1


async def test_a_dataset_says_its_format_and_is_held_to_the_one_asked_for(api: Api) -> None:
    mutation = """mutation ($i: CreateDatasetInput!) { createDataset(input: $i) {
      version { format caseCount report { format } }
      userErrors { code ... on DatasetInvalidError { problems { line field reason } } } } }"""

    async def create(**fields: Any) -> dict[str, Any]:
        made = await api.execute(mutation, i={"name": "d", **fields})
        return dict(made["createDataset"])

    made = await create(source={"jsonl": pair_lines(3)})
    expected = {"format": "PREFERENCE", "caseCount": 3, "report": {"format": "PREFERENCE"}}
    assert made == {"version": expected, "userErrors": []}
    made = await create(source={"jsonl": chat_lines(3)}, format="PREFERENCE")
    [error] = made["userErrors"]
    assert error["problems"][0] == {
        "line": 1,
        "field": "messages",
        "reason": "Unknown field. A pair has input, preferred_output and non_preferred_output.",
    }

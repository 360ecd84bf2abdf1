"""The validation report: every rule of the chat format, by line, field and reason."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.datasets.problem import Problem
from app.datasets.report import LONGEST_LINE, MOST_PROBLEMS, Report, examine, overlap
from tests.support import chat_line, chat_lines


def words(texts: list[str]) -> int:
    return sum(len(text.split()) for text in texts)


def examined(folder: Path, content: str | bytes) -> Report:
    path = folder / "cases.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return examine(path, words, "words")


def asks(**answer: Any) -> dict[str, Any]:
    """A case whose last message is this one of the assistant."""
    return {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", **answer}]}


def says(role: Any, content: Any = "text", **more: Any) -> dict[str, Any]:
    """A case that begins with this message."""
    first = {"role": role, "content": content, **more}
    return {"messages": [first, {"role": "assistant", "content": "a"}]}


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("case", "field", "reason"),
    [
        ([], "", "Must be a JSON object, not a list."),
        ("text", "", "Must be a JSON object, not text."),
        (7, "", "Must be a JSON object, not a number."),
        (None, "", "Must be a JSON object, not null."),
        (True, "", "Must be a JSON object, not a truth value."),
        ({}, "messages", "at least one message"),
        ({"messages": []}, "messages", "at least one message"),
        ({"messages": {}}, "messages", "at least one message"),
        (asks(content="a") | {"prompt": "p"}, "prompt", "Unknown field"),
        ({"messages": ["hello"]}, "messages[0]", "Must be an object, not text."),
        (says("robot"), "messages[0].role", "Must be one of system, developer, user"),
        (says(None), "messages[0].role", "Must be one of"),
        (says(["user"]), "messages[0].role", "Must be one of"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "Must be one of"),
        (says("user", 5), "messages[0].content", "Must be text, not a number."),
        (says("user", None), "messages[0].content", "Must be text."),
        (says("user", {"text": "x"}), "messages[0].content", "not an object"),
        (says("user", [{"type": "image_url"}]), "messages[0].content", "not a list"),
        (says("user", tool_calls=[CALL]), "messages[0].tool_calls", "calls by the assistant"),
        (asks(content="a", tool_calls=[]), "messages[1].tool_calls", "list of calls"),
        (asks(content="a", tool_calls={}), "messages[1].tool_calls", "list of calls"),
        (asks(content=""), "messages[1].content", "answer is empty"),
        (asks(content=" \n"), "messages[1].content", "answer is empty"),
        (asks(content=[]), "messages[1].content", "answer is empty"),
        (asks(content="a", weight=2), "messages[1].weight", "Must be 0 or 1"),
        (asks(content="a", weight="1"), "messages[1].weight", "Must be 0 or 1"),
        (says("user", weight=1), "messages[0].weight", "on an assistant message"),
        (asks(content="a", weight=0), "messages", "nothing to learn"),
        ({"messages": [{"role": "user", "content": "q"}]}, "messages[0].role", "assistant's"),
    ],
)
def test_each_rule_names_line_field_and_reason(
    tmp_path: Path, case: Any, field: str, reason: str
) -> None:
    lines = [*chat_lines(6).splitlines(), json.dumps(case), chat_line("after", "fine")]
    report = examined(tmp_path, "\n".join(lines))
    assert [(p.line, p.field) for p in report.problems] == [(7, field)]
    assert reason in report.problems[0].reason
    assert report.case_count == 7


@pytest.mark.parametrize(
    "case",
    [
        asks(content="a", weight=1),
        asks(content=None, tool_calls=[CALL]),
        asks(content=[{"type": "text", "text": "a"}]),
        says("system"),
        says("developer"),
        says("tool", "42", tool_call_id="1"),
        asks(content="a") | {"tools": [{"type": "function"}], "parallel_tool_calls": False},
        {
            "messages": [
                {"role": "assistant", "content": "not learnt", "weight": 0},
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "learnt", "weight": 1},
            ]
        },
    ],
)
def test_what_the_format_allows_is_accepted(tmp_path: Path, case: dict[str, Any]) -> None:
    report = examined(tmp_path, json.dumps(case))
    assert report.problems == []
    assert report.case_count == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"messages": [}', "Not valid JSON at column 15"),
        (b"", "The line is empty"),
        (b"  \t", "The line is empty"),
        (b'{"messages": "\xff\xfe"}', "Not valid JSON"),
        (b'{"messages": NaN}', "Not valid JSON"),
        (b"[" * 100_000, "Not valid JSON"),
        (b'{"messages": ' + b"[" * 1000 + b"]" * 1000 + b"}", "Must be an object, not a list"),
    ],
    ids=["syntax", "empty", "blank", "not UTF-8", "NaN", "open brackets", "nested"],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: bytes, reason: str) -> None:
    good = chat_lines(6).encode()
    report = examined(tmp_path, good + b"\n" + line + b"\n" + chat_line("last", "one").encode())
    assert [problem.line for problem in report.problems] == [7]
    assert reason in report.problems[0].reason
    assert report.case_count == 7


@pytest.mark.parametrize("depth", [200, 300, 900, 2000])
def test_deep_nesting_where_anything_goes_is_a_problem_of_its_line_never_a_crash(
    tmp_path: Path, depth: int
) -> None:
    case = json.dumps(asks(content="a"))[:-1] + ', "tools": ' + "[" * depth + "]" * depth + "}"
    report = examined(tmp_path, chat_line("q", "a") + "\n" + case)
    assert report.case_count + report.problem_count == 2
    assert all(problem.line == 2 for problem in report.problems)
    assert bool(report.problems) == (depth > 200)


def test_a_huge_line_is_one_problem_and_later_lines_keep_their_numbers(tmp_path: Path) -> None:
    huge = chat_line("q", "a" * (2 * LONGEST_LINE + 10))
    report = examined(tmp_path, "\n".join([chat_line("q", "a"), huge, "{", chat_line("r", "b")]))
    assert [problem.line for problem in report.problems] == [2, 3]
    assert "4 MiB" in report.problems[0].reason
    assert report.case_count == 2


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_a_line_about_as_long_as_allowed_is_counted_once(
    tmp_path: Path, end: str, spare: int
) -> None:
    empty = len(chat_line("q", ""))
    longest = chat_line("q", "a" * (LONGEST_LINE - empty + spare))
    report = examined(tmp_path, end.join([longest, chat_line("r", "b"), ""]))
    assert [problem.line for problem in report.problems] == [1] * (spare > 0)
    assert report.case_count == (1 if spare > 0 else 2)


def test_windows_line_ends_and_a_last_line_without_one_are_fine(tmp_path: Path) -> None:
    report = examined(tmp_path, chat_lines(3).replace("\n", "\r\n"))
    assert (report.case_count, report.problem_count) == (3, 0)


def test_a_byte_order_mark_is_named_as_what_it_is(tmp_path: Path) -> None:
    report = examined(tmp_path, b"\xef\xbb\xbf" + chat_lines(2).encode())
    assert [problem.line for problem in report.problems] == [1]
    assert "byte order mark" in report.problems[0].reason


def test_an_empty_file_has_a_problem(tmp_path: Path) -> None:
    assert examined(tmp_path, "").problems == [Problem(1, "", "The file holds no cases.")]


def test_every_problem_is_counted_and_the_first_are_listed(tmp_path: Path) -> None:
    report = examined(tmp_path, "{\n" * (MOST_PROBLEMS + 30))
    assert report.problem_count == MOST_PROBLEMS + 30
    assert len(report.problems) == MOST_PROBLEMS


def test_an_endless_field_name_is_cut(tmp_path: Path) -> None:
    report = examined(tmp_path, json.dumps({"x" * 100_000: 1}))
    assert len(report.problems[0].field) < 200


def test_duplicates_are_found_whatever_the_spacing_and_order(tmp_path: Path) -> None:
    one = '{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}'
    same = '{ "messages": [{"content": "q", "role": "user"}, {"content":"a", "role":"assistant"}]}'
    report = examined(tmp_path, "\n".join([one, chat_line("other", "a"), same, one]))
    assert (report.duplicate_count, report.duplicate_lines) == (2, [3, 4])
    assert any("2 cases appear more than once" in w and "3, 4" in w for w in report.warnings)


def test_mixed_forms_are_warned_about_with_their_shares(tmp_path: Path) -> None:
    system = json.dumps(says("system"))
    report = examined(tmp_path, "\n".join([chat_lines(3), system]))
    assert any("3 without a system message, 1 with a system" in w for w in report.warnings)
    assert not any("form" in w for w in examined(tmp_path, chat_lines(3)).warnings)


@pytest.mark.parametrize(("count", "warned"), [(49, True), (50, False)])
def test_few_cases_are_warned_about(tmp_path: Path, count: int, warned: bool) -> None:
    report = examined(tmp_path, chat_lines(count))
    assert any(f"Only {count} cases" in warning for warning in report.warnings) == warned


def test_tokens_are_counted_over_all_the_model_reads(tmp_path: Path) -> None:
    report = examined(
        tmp_path,
        "\n".join(
            [
                chat_line("one two", "three"),
                json.dumps(asks(content=[{"type": "text", "text": "a b"}])),
                json.dumps(asks(content=None, tool_calls=[CALL]) | {"tools": [{"k": 1}]}),
            ]
        ),
    )
    assert report.tokenizer == "words"
    assert report.token_count == 3 + 3 + 3
    assert report.longest_case_tokens == 3
    assert report.as_json()["token_count"] == 9


def test_overlap_names_the_lines_of_the_validation_file(tmp_path: Path) -> None:
    training, validation = tmp_path / "t", tmp_path / "v"
    training.write_text(chat_lines(5))
    validation.write_text(
        "\n".join([chat_line("new", "x"), *chat_lines(2).splitlines(), chat_line("newer", "y")])
    )
    assert overlap(training, validation) == [2, 3]
    assert overlap(training, training) == [1, 2, 3, 4, 5]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "content", "weight", "tools", "tool_calls"]),
            inner | st.sampled_from(["user", "assistant", "system"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_no_line_of_json_crashes_the_report(
    tmp_path_factory: pytest.TempPathFactory, case: Any
) -> None:
    folder = tmp_path_factory.getbasetemp()
    report = examined(folder, chat_line("q", "a") + "\n" + json.dumps({"messages": case}))
    assert report.case_count + len({problem.line for problem in report.problems}) == 2

"""OpenAI's messages in Gemini's form, and back."""

import json
from typing import Any

import pytest

from app.providers.cases import CannotConvert
from app.providers.completions import streamed
from app.providers.vertex.chat import answer, question
from app.providers.vertex.gemini import training_line


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def model(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"strict": {"type": "string", "additionalProperties": False}},
            "additionalProperties": False,
        },
    },
}


def test_a_conversation_with_tools() -> None:
    messages = [
        {"role": "system", "content": "Be brief"},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind"}]},
        user("One"),
        user("Two"),
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "Nothing"},
        model("Done"),
    ]
    assert training_line({"messages": messages, "tools": [TOOL]}, "supervised") == {
        "systemInstruction": {"parts": [{"text": "Be brief"}, {"text": "Be kind"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "One"}, {"text": "Two"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {"at": 1}}}]},
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "look", "response": {"output": "Nothing"}}}
                ],
            },
            {"role": "model", "parts": [{"text": "Done"}]},
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "look",
                        "description": "Looks.",
                        "parameters": {
                            "type": "object",
                            "properties": {"strict": {"type": "string"}},
                        },
                    }
                ]
            }
        ],
    }


def test_a_preference() -> None:
    case = {
        "input": {"messages": [{"role": "system", "content": "S"}, user("Q")]},
        "preferred_output": [model("Yes")],
        "non_preferred_output": [model("No")],
    }
    assert training_line(case, "dpo") == {
        "system_instruction": {"parts": [{"text": "S"}]},
        "contents": [{"role": "user", "parts": [{"text": "Q"}]}],
        "completions": [
            {"score": 1, "completion": {"role": "model", "parts": [{"text": "Yes"}]}},
            {"score": 0, "completion": {"role": "model", "parts": [{"text": "No"}]}},
        ],
    }


def test_a_question_with_references() -> None:
    case = {"messages": [user("Q")], "word": "case", "wanted": 20, "parts": ["a"]}
    references = training_line(case, "reinforcement")["references"]
    assert json.loads(references.pop("luthier_item")) == {"wanted": 20, "parts": ["a"]}
    assert references == {"word": "case", "wanted": "20", "parts": '["a"]'}


@pytest.mark.parametrize(
    ("case", "method", "why"),
    [
        ({"messages": [model("A")]}, "supervised", "the first turn"),
        ({"messages": [{"role": "system", "content": "S"}]}, "supervised", "the first turn"),
        (
            {"messages": [user("Q"), {"role": "system", "content": "S"}, model("A")]},
            "supervised",
            "a system message",
        ),
        ({"messages": [user("Q"), {**model("A"), "weight": 0}]}, "supervised", "weight 0"),
        (
            {"messages": [user("Q"), {"role": "tool", "content": "x"}, model("A")]},
            "supervised",
            "belongs to no call",
        ),
        (
            {"messages": [user("Q"), {"role": "assistant", "tool_calls": [{"id": 1}]}]},
            "supervised",
            "names no function",
        ),
        (
            {
                "messages": [
                    user("Q"),
                    {
                        "role": "assistant",
                        "tool_calls": [{"function": {"name": "f", "arguments": "["}}],
                    },
                ]
            },
            "supervised",
            "no JSON object",
        ),
        ({"messages": [user("Q")]}, "supervised", "not the model's"),
        ({"messages": [user("Q"), model("A")]}, "reinforcement", "not the user's"),
        (
            {"messages": [user("Q"), model("A")], "tools": [{"type": "web"}]},
            "supervised",
            "not functions",
        ),
        (
            {
                "input": {"messages": [user("Q")]},
                "preferred_output": [model("A"), model("B")],
                "non_preferred_output": [model("C")],
            },
            "dpo",
            "more than one message",
        ),
        (
            {
                "input": {"messages": [user("Q")], "tools": [TOOL]},
                "preferred_output": [model("A")],
                "non_preferred_output": [model("C")],
            },
            "dpo",
            "tools",
        ),
    ],
)
def test_what_has_no_form(case: dict[str, Any], method: str, why: str) -> None:
    with pytest.raises(CannotConvert, match=why):
        training_line(case, method)


def test_a_question_asked() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    asked = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, image]}],
        "temperature": 0,
        "top_p": 0.5,
        "max_completion_tokens": 9,
        "stop": ["x"],
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
        "tools": [TOOL],
        "tool_choice": "required",
        "logprobs": True,
    }
    body = question(asked)
    assert body["contents"][0]["parts"][1] == {
        "inlineData": {"mimeType": "image/png", "data": "AAAA"}
    }
    assert body["generationConfig"] == {
        "temperature": 0,
        "topP": 0.5,
        "maxOutputTokens": 9,
        "stopSequences": ["x"],
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object"},
    }
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    far = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    with pytest.raises(CannotConvert):
        question({"messages": [{"role": "user", "content": [far]}]})


def test_answers() -> None:
    told = {
        "candidates": [
            {
                "content": {"parts": [{"text": "Hm", "thought": True}, {"text": "Yes"}]},
                "finishReason": "MAX_TOKENS",
            },
            {"finishReason": "SAFETY", "index": 1},
        ],
        "usageMetadata": {
            "promptTokenCount": 3,
            "candidatesTokenCount": 2,
            "thoughtsTokenCount": 4,
            "totalTokenCount": 9,
        },
    }
    whole = answer(told, "m")
    shown = [(row["message"]["content"], row["finish_reason"]) for row in whole["choices"]]
    assert shown == [("Yes", "length"), ("", "content_filter")]
    usage = {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}
    assert whole["usage"] == usage
    assert streamed(whole, usage=False).count(b"data: ") == 5
    blocked = answer({"promptFeedback": {"blockReason": "SAFETY"}}, "m")
    assert blocked["choices"][0]["finish_reason"] == "content_filter"

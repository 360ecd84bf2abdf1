"""Between OpenAI's messages and Gemini's contents: training lines, questions and answers.

Wire format: google-genai 3.4.0's types, and Google's pages on tuning data. A tool's result is a
turn of the user's; turns of one role in a row become one.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from app.providers.cases import CannotConvert

OWN_FIELDS = frozenset({"messages", "tools", "parallel_tool_calls", "functions"})
ITEM = "luthier_item"
"""The reference that holds, as JSON, those fields of a question that are not text."""
_INLINE = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", re.S)
_NOT_GEMINIS = frozenset({"$schema", "additionalProperties", "strict"})


def training_line(case: Mapping[str, Any], method: str) -> dict[str, Any]:
    """One line of a tuning file. Raises CannotConvert."""
    if method == "dpo":
        return _preference(case)
    system, contents = conversation(case["messages"])
    line: dict[str, Any] = {}
    if system:
        line["systemInstruction"] = {"parts": system}
    line["contents"] = contents
    if method == "reinforcement":
        if contents[-1]["role"] != "user":
            raise CannotConvert("the last turn is not the user's")
        line["references"] = _references(case)
    else:
        if any(message.get("weight") == 0 for message in case["messages"]):
            raise CannotConvert("weight 0 cannot be said: Gemini learns every answer")
        if contents[-1]["role"] != "model":
            raise CannotConvert("the last turn is not the model's")
    if tools := declared(case.get("tools"), case.get("functions")):
        line["tools"] = tools
    return line


def _preference(case: Mapping[str, Any]) -> dict[str, Any]:
    asked = case["input"]
    if asked.get("tools"):
        raise CannotConvert("a preference cannot have tools")
    system, contents = conversation(asked["messages"])
    if contents[-1]["role"] != "user":
        raise CannotConvert("the last turn is not the user's")
    completions = []
    for score, name in ((1, "preferred_output"), (0, "non_preferred_output")):
        if len(case[name]) != 1:
            raise CannotConvert(f"{name} is more than one message")
        completion = {"role": "model", "parts": _parts(case[name][0], {})}
        completions.append({"score": score, "completion": completion})
    head = {"system_instruction": {"parts": system}} if system else {}
    return {**head, "contents": contents, "completions": completions}


def _references(case: Mapping[str, Any]) -> dict[str, str]:
    """References are text; what is not goes in as JSON, as graders' templates show it."""
    item = {name: value for name, value in case.items() if name not in OWN_FIELDS}
    found = {
        name: value if isinstance(value, str) else orjson.dumps(value).decode()
        for name, value in item.items()
    }
    others = {name: value for name, value in item.items() if not isinstance(value, str)}
    return found | ({ITEM: orjson.dumps(others).decode()} if others else {})


def conversation(messages: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The system instruction's parts, and the contents. Raises CannotConvert."""
    system: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    called: dict[str, str] = {}
    for message in messages if isinstance(messages, list) else []:
        if not isinstance(message, dict):
            raise CannotConvert("a message is no object")
        if message.get("role") in ("system", "developer"):
            if contents:
                raise CannotConvert("a system message comes after the first turn")
            system += _parts(message, called)
            continue
        role = "model" if message.get("role") == "assistant" else "user"
        parts = _parts(message, called)
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        else:
            contents.append({"role": role, "parts": parts})
    if not contents or contents[0]["role"] != "user":
        raise CannotConvert("the first turn is not the user's")
    return system, contents


def _parts(message: Mapping[str, Any], called: dict[str, str]) -> list[dict[str, Any]]:
    """`called` are the names of the functions called so far, by the ids of the calls."""
    content = message.get("content")
    if message.get("role") in ("tool", "function"):
        return [_result(message, called)]
    if isinstance(content, list):
        parts = [_part(part) for part in content]
    else:
        calls_only = message.get("tool_calls") and not content
        parts = [] if calls_only else [{"text": content if isinstance(content, str) else ""}]
    for call in message.get("tool_calls") or []:
        made = _call(call)
        if isinstance(call.get("id"), str):
            called[call["id"]] = made["name"]
        parts.append({"functionCall": made})
    return parts


def _part(part: Any) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        return {"text": str(part.get("text", ""))}
    if kind == "image_url" and isinstance(part.get("image_url"), dict):
        inline = _INLINE.fullmatch(str(part["image_url"].get("url")))
        if inline:
            return {"inlineData": {"mimeType": inline[1], "data": inline[2]}}
        raise CannotConvert("an image is not a data: URL in base64")
    raise CannotConvert(f"there is no form for content of the type {kind!r}")


def _call(call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise CannotConvert("a tool call names no function")
    given = function.get("arguments") or "{}"
    try:
        arguments = orjson.loads(given) if isinstance(given, str) else given
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise CannotConvert(f"the arguments for {function['name']} are no JSON object")
    return {"name": function["name"], "args": arguments}


def _result(message: Mapping[str, Any], called: Mapping[str, str]) -> dict[str, Any]:
    name = called.get(str(message.get("tool_call_id"))) or message.get("name")
    if not name:
        raise CannotConvert("a tool's result belongs to no call before it")
    words = message.get("content")
    if isinstance(words, list):
        words = "".join(_part(part).get("text", "") for part in words)
    try:
        told = orjson.loads(words or "")
    except orjson.JSONDecodeError:
        told = None
    response = told if isinstance(told, dict) else {"output": words or ""}
    return {"functionResponse": {"name": str(name), "response": response}}


def declared(tools: Any, functions: Any = None) -> list[dict[str, Any]]:
    """Tools as Gemini declares them; [] for none."""
    rows = []
    for tool in tools or []:
        if not isinstance(tool, dict) or tool.get("type", "function") != "function":
            raise CannotConvert("there is no form for tools that are not functions")
        rows.append(tool.get("function"))
    found = []
    for row in [*rows, *(functions or [])]:
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            raise CannotConvert("a tool names no function")
        one = {name: row[name] for name in ("name", "description") if row.get(name)}
        if row.get("parameters"):
            one["parameters"] = _schema(row["parameters"])
        found.append(one)
    return [{"functionDeclarations": found}] if found else []


def _schema(schema: Any, names: bool = False) -> Any:
    """Without what only JSON Schema knows: Google refuses fields that it does not know. `names`:
    the keys are names of properties."""
    if isinstance(schema, list):
        return [_schema(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _schema(value, names=key == "properties" and not names)
        for key, value in schema.items()
        if names or key not in _NOT_GEMINIS
    }

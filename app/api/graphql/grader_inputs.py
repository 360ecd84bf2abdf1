"""Graders as they are typed in a mutation, and as OpenAI's wire format has them."""

from enum import Enum
from typing import Any

import strawberry

from app.core.errors import Invalid
from app.graders import spec
from app.graders.errors import GraderInvalid


@strawberry.enum(description="How two strings are compared.")
class StringOperation(Enum):
    EQ = strawberry.enum_value("eq", description="The same.")
    NE = strawberry.enum_value("ne", description="Not the same.")
    LIKE = strawberry.enum_value("like", description="The input contains the reference.")
    ILIKE = strawberry.enum_value("ilike", description="It contains it, whatever the case.")


@strawberry.enum(description="How the likeness of two texts is measured, from 0 to 1.")
class SimilarityMetric(Enum):
    FUZZY_MATCH = strawberry.enum_value("fuzzy_match", description="Edits between the characters.")
    BLEU = strawberry.enum_value("bleu", description="Runs of words found in the reference.")
    GLEU = strawberry.enum_value("gleu", description="The lower of BLEU's precision and recall.")
    METEOR = strawberry.enum_value("meteor", description="Words, stems and synonyms, in order.")
    COSINE = strawberry.enum_value("cosine", description="Meanings, by an embedding model.")
    ROUGE_1 = strawberry.enum_value("rouge_1", description="Single words in common.")
    ROUGE_2 = strawberry.enum_value("rouge_2", description="Pairs of words in common.")
    ROUGE_3 = strawberry.enum_value("rouge_3", description="Runs of three words in common.")
    ROUGE_4 = strawberry.enum_value("rouge_4", description="Runs of four words in common.")
    ROUGE_5 = strawberry.enum_value("rouge_5", description="Runs of five words in common.")
    ROUGE_L = strawberry.enum_value("rouge_l", description="The longest common subsequence.")


@strawberry.enum(description="Who speaks in a message to a grader's model.")
class GraderMessageRole(Enum):
    USER = strawberry.enum_value("user", description="The person.")
    ASSISTANT = strawberry.enum_value("assistant", description="The model, earlier.")
    SYSTEM = strawberry.enum_value("system", description="Instructions.")
    DEVELOPER = strawberry.enum_value("developer", description="Instructions, newer word.")


@strawberry.input(description="1 when the comparison holds, else 0.")
class StringCheckGraderInput:
    name: str = strawberry.field(description="Its name, also in formulas.")
    input: str = strawberry.field(description="A template, as `{{ sample.output_text }}`.")
    reference: str = strawberry.field(description="A template, as `{{ item.answer }}`.")
    operation: StringOperation = strawberry.field(description="How they are compared.")


@strawberry.input(description="How alike two texts are, from 0 to 1.")
class TextSimilarityGraderInput:
    name: str = strawberry.field(description="Its name, also in formulas.")
    input: str = strawberry.field(description="A template, as `{{ sample.output_text }}`.")
    reference: str = strawberry.field(description="A template, as `{{ item.answer }}`.")
    evaluation_metric: SimilarityMetric = strawberry.field(description="How that is measured.")
    pass_threshold: float | None = strawberry.field(
        description="From here on the sample passes; the reward stays the metric.", default=None
    )


@strawberry.input(description="What a function in Python returns; it runs in a sandbox.")
class PythonGraderInput:
    name: str = strawberry.field(description="Its name, also in formulas.")
    source: str = strawberry.field(
        description="Defines `def grade(sample, item)`, which returns a number."
    )


@strawberry.input(description="A picture in a message.")
class GraderImageInput:
    url: str = strawberry.field(description="A template: its address, or a data URL.")
    detail: str | None = strawberry.field(description="low, high or auto.", default=None)


@strawberry.input(description="Sound in a message.")
class GraderAudioInput:
    data: str = strawberry.field(description="A template: the sound in base64.")
    format: str = strawberry.field(description="wav or mp3.")


@strawberry.input(description="A part of a message: exactly one kind.", one_of=True)
class GraderPartInput:
    text: strawberry.Maybe[str] = strawberry.field(description="A template.")
    image: strawberry.Maybe[GraderImageInput] = strawberry.field(description="A picture.")
    audio: strawberry.Maybe[GraderAudioInput] = strawberry.field(description="Sound.")


@strawberry.input(description="A message to a grader's model.")
class GraderMessageInput:
    role: GraderMessageRole = strawberry.field(description="Who speaks.")
    content: list[GraderPartInput] = strawberry.field(description="What is said, part by part.")


@strawberry.input(description="How the model samples; its own defaults when left out.")
class GraderSamplingInput:
    seed: int | None = strawberry.field(description="Of its random choices.", default=None)
    temperature: float | None = strawberry.field(description="0 to 2.", default=None)
    top_p: float | None = strawberry.field(description="Above 0, at most 1.", default=None)
    max_completions_tokens: int | None = strawberry.field(
        description="Tokens of its answer, at most.", default=None
    )
    reasoning_effort: str | None = strawberry.field(
        description="For models that reason: minimal, low, medium or high.", default=None
    )


@strawberry.input(description="The number that a model gives, clamped to the range.")
class ScoreModelGraderInput:
    name: str = strawberry.field(description="Its name, also in formulas.")
    model: str = strawberry.field(description="The model that judges.")
    input: list[GraderMessageInput] = strawberry.field(description="What it is asked.")
    range: list[float] | None = strawberry.field(
        description="The lowest and the highest score; 0 and 1 when left out.", default=None
    )
    pass_threshold: float | None = strawberry.field(
        description="From here on the sample passes; the reward stays the score.", default=None
    )
    sampling_params: GraderSamplingInput | None = strawberry.field(
        description="How the model samples.", default=None
    )


@strawberry.input(description="1 when a model chooses a passing label, else 0.")
class LabelModelGraderInput:
    name: str = strawberry.field(description="Its name, also in formulas.")
    model: str = strawberry.field(description="The model that judges.")
    input: list[GraderMessageInput] = strawberry.field(description="What it is asked.")
    labels: list[str] = strawberry.field(description="What it may choose from.")
    passing_labels: list[str] = strawberry.field(description="Those of them that pass.")
    sampling_params: GraderSamplingInput | None = strawberry.field(
        description="How the model samples.", default=None
    )


@strawberry.input(description="A grader: exactly one kind.", one_of=True)
class SingleGraderInput:
    string_check: strawberry.Maybe[StringCheckGraderInput] = strawberry.field(
        description="Compares two strings."
    )
    text_similarity: strawberry.Maybe[TextSimilarityGraderInput] = strawberry.field(
        description="Measures how alike two texts are."
    )
    python: strawberry.Maybe[PythonGraderInput] = strawberry.field(
        description="Runs a function of yours."
    )
    score_model: strawberry.Maybe[ScoreModelGraderInput] = strawberry.field(
        description="Asks a model for a number."
    )
    label_model: strawberry.Maybe[LabelModelGraderInput] = strawberry.field(
        description="Asks a model for a label."
    )


@strawberry.input(description="A formula over the rewards of other graders.")
class MultiGraderInput:
    name: str = strawberry.field(description="Its name.")
    graders: list[SingleGraderInput] = strawberry.field(
        description="At most 20, each with a name of its own."
    )
    calculate_output: str = strawberry.field(
        description="Arithmetic over their names: + - * / ^, min max abs floor ceil exp sqrt log."
    )


@strawberry.input(description="A grader: exactly one kind.", one_of=True)
class GraderInput(SingleGraderInput):
    multi: strawberry.Maybe[MultiGraderInput] = strawberry.field(
        description="Combines several graders."
    )


def read(given: GraderInput, at: tuple[str, ...]) -> spec.Grader:
    """The grader of the field `at`. Raises Invalid, with the path of the first fault."""
    data = _wire(given)
    if data["type"] == "multi":
        names = [part["name"] for part in data["graders"]]
        for number, name in enumerate(names):
            if name in names[:number]:
                path = (*at, "multi", "graders", str(number))
                raise Invalid(f"Two graders are named {name!r}.", path=path)
        read_from = data | {"graders": dict(zip(names, data["graders"], strict=True))}
    else:
        read_from = data
    try:
        return spec.read(read_from)
    except GraderInvalid as invalid:
        fault = invalid.problems[0]
        raise Invalid(fault.message, path=(*at, *_typed(fault.path, data))) from invalid


def plain(given: GraderInput, *at: str) -> dict[str, Any]:
    """The same as jobs keep it: in OpenAI's format, with its defaults."""
    return read(given, at).model_dump(exclude_none=True)


def _wire(given: SingleGraderInput) -> dict[str, Any]:
    kind, chosen = _chosen(given)
    wire = _plain(vars(chosen)) | {"type": kind}
    if kind == "multi":
        wire["graders"] = [_wire(part) for part in chosen.graders]
    elif "input" in wire and not isinstance(wire["input"], str):
        wire["input"] = [
            {"role": message.role.value, "content": [_part(part) for part in message.content]}
            for message in chosen.input
        ]
    return wire


def _part(part: GraderPartInput) -> dict[str, Any]:
    kind, chosen = _chosen(part)
    if kind == "text":
        return {"type": "input_text", "text": chosen}
    if kind == "audio":
        return {"type": "input_audio", "input_audio": _plain(vars(chosen))}
    image = _plain(vars(chosen))
    return {"type": "input_image", "image_url": image.pop("url")} | image


def _chosen(one_of: object) -> tuple[str, Any]:
    return next((name, some.value) for name, some in vars(one_of).items() if some is not None)


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    plain = {}
    for name, value in given.items():
        if isinstance(value, GraderSamplingInput):
            plain[name] = _plain(vars(value))
        elif value is not None:
            plain[name] = value.value if isinstance(value, Enum) else value
    return plain


_PARTS = {"image_url": ("image", "url"), "detail": ("image", "detail"), "input_audio": ("audio",)}


def _typed(path: tuple[str, ...], data: dict[str, Any]) -> tuple[str, ...]:
    """A path in the wire format as the path in the typed input."""
    kind = camel(data["type"])
    if data["type"] == "multi" and path[:1] == ("graders",) and len(path) > 1:
        number = next(n for n, part in enumerate(data["graders"]) if part["name"] == path[1])
        return (kind, "graders", str(number), *_typed(path[2:], data["graders"][number]))
    steps: list[str] = [kind]
    for step in path:
        steps += _PARTS.get(step, (camel(step),))
    return tuple(steps)


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)

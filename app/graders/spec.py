"""The six kinds of grader as OpenAI writes them on the wire, and what makes one acceptable."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from app.graders import formula, templates
from app.graders.errors import GraderInvalid, Problem
from app.graders.templates import Reference

SOURCE_LIMIT = 256_000  # bytes of a Python grader
TEMPLATE_LIMIT = 100_000  # characters of one template
MESSAGES_LIMIT = 50
SUB_GRADERS_LIMIT = 20

_DEF = re.compile(r"^def[ \t]+grade[ \t]*\(\s*(?:#.*\s*)*\w+[^,()]*,", re.M)


def _readable(template: str) -> str:
    templates.parse(template)
    return template


Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Template = Annotated[str, StringConstraints(max_length=TEMPLATE_LIMIT), AfterValidator(_readable)]
Unit = Annotated[float, Field(allow_inf_nan=False)]


class _Shape(BaseModel):
    """Strict, and closed: a misspelt field is an error, not a setting that does nothing."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StringCheck(_Shape):
    """1 or 0. `like` is "contains", `ilike` the same whatever the case."""

    type: Literal["string_check"] = "string_check"
    name: Name
    input: Template
    reference: Template
    operation: Literal["eq", "ne", "like", "ilike"]


Metric = Literal[
    "fuzzy_match", "bleu", "gleu", "meteor", "cosine",
    "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l",
]  # fmt: skip


class TextSimilarity(_Shape):
    """0 to 1."""

    type: Literal["text_similarity"] = "text_similarity"
    name: Name
    input: Template
    reference: Template
    evaluation_metric: Metric
    pass_threshold: Unit | None = None


class Python(_Shape):
    """What `def grade(sample, item)` of `source` returns. `image_tag` is kept, and changes nothing:
    the libraries are those of the machine that grades."""

    type: Literal["python"] = "python"
    name: Name
    source: str
    image_tag: str | None = None

    @field_validator("source")
    @classmethod
    def _has_grade(cls, source: str) -> str:
        # Read no further here: Python's own parser can be brought down by what it is given.
        if len(source.encode("utf-8", "surrogatepass")) >= SOURCE_LIMIT:
            raise ValueError(f"The source must be shorter than {SOURCE_LIMIT:,} bytes.")
        if not _DEF.search(source):
            raise ValueError("The source must define `def grade(sample, item)`.")
        return source


class TextPart(_Shape):
    type: Literal["input_text", "output_text"]
    text: Template


class ImagePart(_Shape):
    type: Literal["input_image"]
    image_url: Template
    detail: Literal["low", "high", "auto"] | None = None


class Audio(_Shape):
    data: Template
    format: Literal["wav", "mp3"]


class AudioPart(_Shape):
    type: Literal["input_audio"]
    input_audio: Audio


Part = Annotated[TextPart | ImagePart | AudioPart, Field(discriminator="type")]


def _content_kind(value: Any) -> str:
    if isinstance(value, list):
        return "parts"
    return "text" if isinstance(value, str) else "part"


def _part_kind(value: Any) -> str:
    return "text" if isinstance(value, str) else "part"


_Piece = Annotated[
    Annotated[Template, Tag("text")] | Annotated[Part, Tag("part")], Discriminator(_part_kind)
]
Content = Annotated[
    Annotated[Template, Tag("text")]
    | Annotated[Part, Tag("part")]
    | Annotated[list[_Piece], Field(min_length=1), Tag("parts")],
    Discriminator(_content_kind),
]


class Message(_Shape):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content


Messages = Annotated[list[Message], Field(min_length=1, max_length=MESSAGES_LIMIT)]


class SamplingParams(_Shape):
    """`max_completions_tokens` is spelt as OpenAI spells it here."""

    seed: int | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_completions_tokens: Annotated[int, Field(ge=1)] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None


class ScoreModel(_Shape):
    """The number that a model gives, clamped to `range`."""

    type: Literal["score_model"] = "score_model"
    name: Name
    model: Name
    input: Messages
    range: Annotated[list[Unit], Field(min_length=2, max_length=2)] = [0.0, 1.0]
    pass_threshold: Unit | None = None
    sampling_params: SamplingParams = SamplingParams()

    @field_validator("range")
    @classmethod
    def _range_rises(cls, range: list[float]) -> list[float]:
        if range[0] >= range[1]:
            raise ValueError("The first number of the range must be below the second.")
        return range


class LabelModel(_Shape):
    """1 when the label that a model chooses is one of `passing_labels`, else 0."""

    type: Literal["label_model"] = "label_model"
    name: Name
    model: Name
    input: Messages
    labels: Annotated[list[Name], Field(min_length=1, max_length=100)]
    passing_labels: Annotated[list[Name], Field(min_length=1)]
    sampling_params: SamplingParams = SamplingParams()

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: list[str]) -> list[str]:
        if len(set(labels)) < len(labels):
            raise ValueError("Each label may be named once.")
        return labels

    @field_validator("passing_labels")
    @classmethod
    def _passing_labels_exist(cls, passing: list[str], info: ValidationInfo) -> list[str]:
        if unknown := set(passing) - set(info.data.get("labels", passing)):
            raise ValueError(f"{min(unknown)!r} is not among the labels.")
        return passing


Single = Annotated[
    StringCheck | TextSimilarity | Python | ScoreModel | LabelModel, Field(discriminator="type")
]


def _by_name(graders: Any) -> Any:
    """OpenAI's schema shows a bare grader where its service takes a map: both are understood."""
    if isinstance(graders, dict) and isinstance(graders.get("type"), str):
        return {str(graders.get("name", "grader")): graders}
    return graders


class Multi(_Shape):
    """A formula over the rewards of other graders, which go by their keys in `graders`."""

    type: Literal["multi"] = "multi"
    name: Name
    graders: Annotated[
        dict[Name, Single],
        Field(min_length=1, max_length=SUB_GRADERS_LIMIT),
        BeforeValidator(_by_name),
    ]
    calculate_output: str

    @field_validator("calculate_output")
    @classmethod
    def _formula_fits(cls, text: str, info: ValidationInfo) -> str:
        names = formula.parse(text).names
        known = info.data.get("graders")
        if known is not None and (unknown := names - known.keys()):
            raise ValueError(
                f"There is no grader named {min(unknown)}; there are {', '.join(known)}."
            )
        return text


Grader = Annotated[
    StringCheck | TextSimilarity | Python | ScoreModel | LabelModel | Multi,
    Field(discriminator="type"),
]
_ADAPTER: TypeAdapter[Grader] = TypeAdapter(Grader)


def read(data: Any) -> Grader:
    """A grader from its JSON data. Raises GraderInvalid with every fault and its path."""
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as error:
        raise GraderInvalid([_problem(fault, data) for fault in error.errors()]) from error


def models(grader: Grader) -> set[str]:
    """The models that it calls."""
    parts = grader.graders.values() if isinstance(grader, Multi) else [grader]
    return {part.model for part in parts if isinstance(part, ScoreModel | LabelModel)}


def references(grader: Grader) -> set[Reference]:
    """What its templates ask of an item and a sample."""
    return set(_references(grader))


def _references(shape: object) -> Iterator[Reference]:
    match shape:
        case str():
            yield from templates.references(shape)
        case Python():
            pass  # braces in source code are no templates
        case Multi():
            for part in shape.graders.values():
                yield from _references(part)
        case StringCheck() | TextSimilarity():
            yield from _references(shape.input)
            yield from _references(shape.reference)
        case ScoreModel() | LabelModel():
            for message in shape.input:
                yield from _references(message.content)
        case list():
            for part in shape:
                yield from _references(part)
        case TextPart():
            yield from _references(shape.text)
        case ImagePart():
            yield from _references(shape.image_url)
        case AudioPart():
            yield from _references(shape.input_audio.data)


def _problem(fault: ErrorDetails, data: Any) -> Problem:
    """The path as the customer wrote it: pydantic's own names of union members are left out."""
    path: list[str] = []
    for step in fault["loc"]:
        if step == "graders" and isinstance(data, dict):
            data = {"graders": _by_name(data.get("graders"))}
        inside = isinstance(data, list) if isinstance(step, int) else isinstance(data, dict)
        if inside and (isinstance(step, int) or step in data):
            data = data[step]
        elif fault["type"] != "missing" or step != fault["loc"][-1]:
            continue
        path.append(str(step))
    message = fault["msg"].removeprefix("Value error, ").rstrip(".")
    return Problem(tuple(path), f"{message}.")

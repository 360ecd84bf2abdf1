"""`{{ item.x.y[0] }}` and `{{ sample.output_text }}` inside strings: paths, and nothing else.

No expression, filter or loop is ever evaluated: a reference is looked up, part by part, in the
data of the two namespaces.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

SAMPLE_FIELDS = ("output_text", "output_json", "output_tools", "choices", "output_audio")

_NOTHING: dict[str | int, Any] = {}
_BRACES = re.compile(r"\{\{(.*?)\}\}", re.S)
_REFERENCE = re.compile(r"\s*(item|sample)((?:\.[^\s.|'\"(){}\[\]]+|\[\d+\])*)\s*")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")


class TemplateInvalid(ValueError):
    """It cannot be read; the message names the reference."""


class ReferenceMissing(LookupError):
    """The data of this sample has no such value."""

    def __init__(self, reference: str, *, output_json: bool) -> None:
        super().__init__(f"There is no value for {{{{ {reference} }}}}.")
        self.output_json = output_json  # it asks for the sample's JSON, and there is none


@dataclass(frozen=True)
class Reference:
    namespace: str
    steps: tuple[str | int, ...]

    def __str__(self) -> str:
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.steps)
        return self.namespace + "".join(steps)

    def find(self, namespaces: Mapping[str, Any]) -> Any:
        """Raises ReferenceMissing."""
        value = namespaces[self.namespace]
        for step in self.steps:
            fits = isinstance(value, list) if isinstance(step, int) else isinstance(value, dict)
            try:
                value = value[step] if fits else _NOTHING[step]
            except LookupError:
                wanted = self.namespace == "sample" and self.steps[0] == "output_json"
                raise ReferenceMissing(
                    str(self), output_json=wanted and "output_json" not in namespaces["sample"]
                ) from None
        return value


@lru_cache(maxsize=1_000)
def parse(template: str) -> tuple[str | Reference, ...]:
    """The literal pieces and the references, in order. Raises TemplateInvalid."""
    return tuple(_pieces(template))


def _pieces(template: str) -> Iterator[str | Reference]:
    end = 0
    for match in _BRACES.finditer(template):
        if match.start() > end:
            yield template[end : match.start()]
        yield _reference(match[1])
        end = match.end()
    if "{{" in template[end:]:
        raise TemplateInvalid("A `{{` is never closed by `}}`.")
    if end < len(template):
        yield template[end:]


def _reference(text: str) -> Reference:
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise TemplateInvalid(
            f"`{{{{{text[:100]}}}}}` is no reference: write item.name or sample.name,"
            " with .name and [0] to go deeper."
        )
    steps = tuple(int(index) if index else name for name, index in _STEP.findall(match[2]))
    if match[1] == "sample" and steps and steps[0] not in SAMPLE_FIELDS:
        raise TemplateInvalid(f"A sample has no `{steps[0]}`; it has {', '.join(SAMPLE_FIELDS)}.")
    return Reference(match[1], steps)


def references(template: str) -> list[Reference]:
    return [piece for piece in parse(template) if isinstance(piece, Reference)]


def render(template: str, namespaces: Mapping[str, Any]) -> str:
    """Strings go in as they are, all else as JSON. Raises ReferenceMissing."""
    return "".join(
        piece if isinstance(piece, str) else _text(piece.find(namespaces))
        for piece in parse(template)
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

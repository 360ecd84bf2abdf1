"""References in templates: what they may be, and what they find."""

from typing import Any

import pytest

from app.graders import templates
from app.graders.result import Sample
from app.graders.templates import ReferenceMissing, TemplateInvalid


def names(text: str = "", **item: Any) -> dict[str, Any]:
    return {"item": item, "sample": Sample.of_text(text).namespace()}


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("plain", "plain"),
        ("{{ item.name }}", "Ada"),
        ("{{item.name}}, {{ item.name }}!", "Ada, Ada!"),
        ("{{ item.deep.list[1].x }}", "7"),
        ("{{ item.deep.list[0] }}", "true"),
        ("{{ item.deep }}", '{"list": [true, {"x": 7}]}'),
        ("{{ item.nothing }}", "null"),
        ("{{ item.größe }} {{ item.two-words }}", "1.5 ok"),
        ("{{ sample.output_text }}", '{"a": ["ä"]}'),
        ("{{ sample.output_json.a[0] }}", "ä"),
        ("{{ sample.output_tools }}", "[]"),
        ("{{ sample.choices[0].message.role }}", "assistant"),
        ('{"a": {"b": 1}} {x}', '{"a": {"b": 1}} {x}'),
    ],
)
def test_what_is_found(template: str, rendered: str) -> None:
    given = names(
        '{"a": ["ä"]}',
        name="Ada",
        deep={"list": [True, {"x": 7}]},
        nothing=None,
        größe=1.5,
        **{"two-words": "ok"},
    )
    assert templates.render(template, given) == rendered


def test_what_is_put_in_is_not_read_again() -> None:
    given = names("the sample", given="{{ sample.output_text }}")
    assert templates.render("{{ item.given }}", given) == "{{ sample.output_text }}"


@pytest.mark.parametrize(
    "template",
    [
        "{{ item.x",
        "{{ }}",
        "{{ other.x }}",
        "{{ item.x + 1 }}",
        "{{ item.x | upper }}",
        "{{ item.x() }}",
        "{{ item['x'] }}",
        "{{ item.x[-1] }}",
        "{{ item.x[a] }}",
        "{{ item..x }}",
        "{{ items.x }}",
        "{{ sample.text }}",
        "{{ self.__class__ }}",
        "{% for x in item %}{{ x }}{% endfor %}",
    ],
)
def test_nothing_but_references(template: str) -> None:
    with pytest.raises(TemplateInvalid):
        templates.parse(template)


@pytest.mark.parametrize(
    ("reference", "output_json"),
    [
        ("item.missing", False),
        ("item.name.first", False),
        ("item.name[0]", False),
        ("item.list[9]", False),
        ("item.list.x", False),
        ("item.__class__", False),
        ("sample.output_json.a", True),
        ("sample.output_audio", False),
        ("sample.output_tools[0].function.name", False),
    ],
)
def test_what_is_not_there_is_named(reference: str, output_json: bool) -> None:
    with pytest.raises(ReferenceMissing) as missing:
        templates.render("{{ " + reference + " }}", names("no JSON", name="Ada", list=[1]))
    assert reference in str(missing.value)
    assert missing.value.output_json is output_json


@pytest.mark.parametrize("text", ["NaN", "[1, 2", "", "plain", "[" * 100_000])
def test_a_sample_without_json_has_no_output_json(text: str) -> None:
    assert "output_json" not in Sample.of_text(text).namespace()


@pytest.mark.parametrize(("text", "value"), [("null", None), ("3", 3), ('{"a": 1}', {"a": 1})])
def test_a_sample_that_is_json_has_it(text: str, value: Any) -> None:
    assert Sample.of_text(text).namespace()["output_json"] == value

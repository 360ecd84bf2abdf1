"""The fast path for leaves gives what the normal path gives, for every value and selection."""

import asyncio
import copy
import math
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import pytest
import strawberry
from hypothesis import given
from hypothesis import strategies as st
from strawberry.schema import Schema
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from app.api.graphql.executor import LeafExecutor
from app.api.graphql.scalars import CONFIG, JSON, BigInt


@strawberry.enum
class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@strawberry.type
class Leaf:
    text: str
    maybe_text: str | None
    id: strawberry.ID
    number: int
    maybe_number: int | None
    real: float
    maybe_real: float | None
    yes: bool
    colour: Colour
    maybe_colour: Colour | None
    at: datetime
    maybe_at: datetime | None
    big: BigInt
    data: JSON
    maybe_data: JSON | None
    words: list[str]
    inner: "Leaf | None"
    inners: "list[Leaf | None] | None"

    @strawberry.field
    def computed(self, times: int = 2) -> str:
        return str(self.text) * times

    @strawberry.field
    async def awaited(self) -> str | None:
        await asyncio.sleep(0)
        return self.maybe_text


@strawberry.type
class Query:
    @strawberry.field
    def leaf(self, info: strawberry.Info) -> Leaf | None:
        found: Leaf = info.context
        return found

    @strawberry.field
    async def leaves(self, info: strawberry.Info) -> list[Leaf | None]:
        return [info.context, info.context]


FAST = Schema(query=Query, config=CONFIG, execution_context_class=LeafExecutor)
# A type can be built into one schema only: the other is a copy that executes as Strawberry does.
NORMAL = copy.copy(FAST)
NORMAL.execution_context_class = StrawberryGraphQLCoreExecutionContext
SCALARS = [
    *("text", "maybeText", "id", "number", "maybeNumber", "real", "maybeReal", "yes", "colour"),
    *("maybeColour", "at", "maybeAt", "big", "data", "maybeData"),
]
FIELDS = [*SCALARS, "words", "computed", "computed(times: 3)", "awaited", "__typename"]
MOMENT = datetime(2026, 5, 4, 3, 2, 1, 987_654, UTC)
ORDINARY: dict[str, Any] = {
    "text": "a", "maybe_text": None, "id": "x", "number": 1, "maybe_number": None, "real": 0.5,
    "maybe_real": None, "yes": True, "colour": Colour.RED, "maybe_colour": None, "at": MOMENT,
    "maybe_at": None, "big": 2**40, "data": {"a": [1]}, "maybe_data": None, "words": ["b"],
    "inner": None, "inners": None,
}  # fmt: skip
ODD = [
    None, "", "text", "red", 0, 1, -(2**31), 2**31 - 1, 2**31, 2**70, 0.0, 1.0, 1.5, -0.0, math.nan,
    math.inf, True, False, b"bytes", [], ["a"], {}, {"b": None}, Colour.BLUE, MOMENT, "2026-05-04",
    ValueError("as a value"), object,
]  # fmt: skip


async def both(query: str, leaf: Leaf) -> None:
    answers = []
    for schema in (FAST, NORMAL):
        result = await schema.execute(query, context_value=leaf)
        errors = [(error.message, error.path) for error in result.errors or ()]
        answers.append((result.data, repr(result.data), sorted(errors, key=str)))
    assert answers[0][1:] == answers[1][1:]


def test_the_two_schemas_differ_in_this_alone() -> None:
    assert FAST.execution_context_class is LeafExecutor
    assert not issubclass(NORMAL.execution_context_class, LeafExecutor)


@given(
    st.lists(st.sampled_from(FIELDS), min_size=1, max_size=12),
    st.dictionaries(st.sampled_from(sorted(ORDINARY.keys() - {"inner", "inners"})),
                    st.sampled_from(ODD), max_size=3),
    st.booleans(),
)  # fmt: skip
async def test_both_paths_answer_alike(
    fields: list[str], values: dict[str, Any], listed: bool
) -> None:
    leaf = Leaf(**(ORDINARY | values))
    selected = " ".join(f"f{n}: {field}" for n, field in enumerate(fields))
    root = "leaves" if listed else "leaf"
    await both(f"{{ {root} {{ {selected} }} }}", leaf)


@pytest.mark.parametrize("value", ODD, ids=repr)
@pytest.mark.parametrize("name", sorted(ORDINARY.keys() - {"inner", "inners"}))
async def test_each_field_with_each_odd_value(name: str, value: Any) -> None:
    leaf = Leaf(**(ORDINARY | {name: value}))
    await both("{ leaf { " + " ".join(SCALARS) + " } }", leaf)


@given(
    st.lists(st.sampled_from(FIELDS), min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(sorted(ORDINARY.keys() - {"inner", "inners"})),
                    st.sampled_from(ODD), max_size=1),
)  # fmt: skip
async def test_what_holds_leaves_alone_is_read_with_them(
    fields: list[str], values: dict[str, Any]
) -> None:
    inner = Leaf(**(ORDINARY | values))
    leaf = Leaf(**(ORDINARY | {"inner": inner, "inners": [inner, None, inner]}))
    within = " ".join(fields).replace("computed(times: 3)", "c: computed(times: 3)")
    await both(
        f"{{ leaf {{ text inner {{ {within} inner {{ id }} }} inners {{ {within} }} }} }}", leaf
    )


async def test_fragments_and_merged_fields() -> None:
    leaf = Leaf(**(ORDINARY | {"inner": Leaf(**ORDINARY)}))
    await both(
        "query ($no: Boolean = false) { leaf { text ...F text @skip(if: true) inner { id ...F }"
        " number @include(if: $no) } } fragment F on Leaf { id text inner { text number } yes }",
        leaf,
    )


async def test_the_fast_path_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or all of this would prove nothing."""

    def never(*_: Any) -> Any:
        raise AssertionError("a leaf went the normal way")

    executed = LeafExecutor.execute_field

    def only_roots(self: Any, parent: Any, *rest: Any) -> Any:
        return executed(self, parent, *rest) if parent.name == "Query" else never()

    monkeypatch.setattr(LeafExecutor, "execute_field", only_roots)
    result = await FAST.execute(
        "{ leaf { " + " ".join(SCALARS) + " } }", context_value=Leaf(**ORDINARY)
    )
    assert result.errors is None
    assert result.data is not None
    assert result.data["leaf"]["at"] == "2026-05-04T03:02:01.987Z"
    assert list(result.data["leaf"]) == SCALARS

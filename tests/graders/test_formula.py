"""The arithmetic of `calculate_output`."""

import math

import pytest

from app.graders import formula
from app.graders.formula import FormulaFailed, FormulaInvalid


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2^3^2", 512),  # right to left
        ("-2^2", -4),  # the sign is below the power
        ("(-2)^2", 4),
        ("2^-1", 0.5),
        ("0.5*a + b^2", 9.5),  # with Python's own `^` it would be (0.5*a + b)^2
        ("1 - 2 - 3", -4),
        ("16 / 4 / 2", 2),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("2 * -3", -6),
        ("--a", 1),
        ("+a", 1),
        ("min(a, b, -1)", -1),
        ("max(a, b, 2.5)", 3),
        ("abs(-a) + floor(2.7) + ceil(2.1)", 6),
        ("exp(0) + sqrt(16) + log(1)", 5),
        ("1.5e2 + .5", 150.5),
        ("min(a + 1, b) * 10", 20),
    ],
)
def test_values(text: str, value: float) -> None:
    assert formula.parse(text)({"a": 1.0, "b": 3.0}) == pytest.approx(value)


def test_it_names_what_it_needs() -> None:
    assert formula.parse("max(quality, 0.5) * length^2").names == {"quality", "length"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "ends where a number"),
        ("a +", "ends where a number"),
        ("a b", "`b` at character 3"),
        ("a ** b", "`*` at character 4"),
        ("(a", "`)` is missing"),
        ("a)", "`)` at character 2"),
        ("3x", "`x` at character 2"),
        ("min", "missing its parentheses"),
        ("exp(1, 2)", "takes one argument"),
        ("eval(a)", "no function eval"),
        ("__import__('os')", "no function __import__"),
        ("a.real", "`.` at character 2"),
        ("'x' * 9", "`'` at character 1"),
        ("a if b else c", "`if` at character 3"),
        ("[1][0]", "`[` at character 1"),
        ("a, b", "`,` at character 2"),
        ("1e999", "too large"),
        ("(" * 100 + "1" + ")" * 100, "nested deeper"),
        ("-" * 100 + "1", "nested deeper"),
        ("1" + "^1" * 100, "nested deeper"),
        ("1" + "+1" * 2_000, "longer than"),
    ],
)
def test_what_cannot_be_read_says_where(text: str, says: str) -> None:
    with pytest.raises(
        FormulaInvalid,
        match=says.replace("(", r"\(")
        .replace(")", r"\)")
        .replace("*", r"\*")
        .replace("[", r"\[")
        .replace(".", r"\."),
    ):
        formula.parse(text)


def test_a_long_sum_is_no_deep_one() -> None:
    assert formula.parse("1" + "+1" * 900)({}) == 901


@pytest.mark.parametrize(
    "text",
    ["1/a", "log(a)", "log(-1)", "sqrt(-1)", "(-8)^0.5", "9^9^9", "exp(1000)", "1e308*10", "a^-1"],
)
def test_what_has_no_finite_value_is_an_error(text: str) -> None:
    with pytest.raises(FormulaFailed):
        formula.parse(text)({"a": 0.0})


def test_values_stay_finite_floats() -> None:
    value = formula.parse("floor(a)")({"a": 2.9})
    assert isinstance(value, float)
    assert math.isfinite(value)

"""The arithmetic of `calculate_output`: numbers, names, `+ - * / ^`, a few functions, no more.

sum     = product (("+" | "-") product)*
product = signed (("*" | "/") signed)*
signed  = ("+" | "-") signed | power
power   = atom ("^" signed)?                  right to left, and above the sign: -2^2 is -4
atom    = number | name | name "(" sum ("," sum)* ")" | "(" sum ")"
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

LONGEST = 2_000  # characters
DEEPEST = 50  # nested parentheses, calls, signs and exponents

_TOKEN = re.compile(r"\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|(\w+)|(\S))")
_FUNCTIONS: dict[str, tuple[int, int | None, Callable[..., float]]] = {
    "min": (1, None, lambda *values: min(values)),
    "max": (1, None, lambda *values: max(values)),
    "abs": (1, 1, abs),
    "floor": (1, 1, math.floor),
    "ceil": (1, 1, math.ceil),
    "exp": (1, 1, math.exp),
    "sqrt": (1, 1, math.sqrt),
    "log": (1, 1, math.log),
}
FUNCTIONS = frozenset(_FUNCTIONS)

_Node = Callable[[Mapping[str, float]], float]
_Operator = Callable[[float, float], float]


class FormulaInvalid(ValueError):
    """It cannot be read; the message says where."""


class FormulaFailed(ArithmeticError):
    """It has no finite value for these numbers."""


@dataclass(frozen=True)
class Formula:
    names: frozenset[str]
    _value: _Node

    def __call__(self, values: Mapping[str, float]) -> float:
        """Raises FormulaFailed where there is no finite result, as in 1/0 or log(0)."""
        try:
            result = self._value(values)
        except (ArithmeticError, ValueError) as trouble:
            raise FormulaFailed(f"The formula has no value here: {trouble}.") from trouble
        if not math.isfinite(result):
            raise FormulaFailed(f"The formula's value is not a finite number: {result}.")
        return float(result)


def parse(text: str) -> Formula:
    """Raises FormulaInvalid."""
    if len(text) > LONGEST:
        raise FormulaInvalid(f"The formula is longer than {LONGEST} characters.")
    reader = _Reader(text)
    value = reader.sum()
    reader.end()
    return Formula(frozenset(reader.names), value)


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = [
            (match.start(match.lastindex), match.lastindex, match[match.lastindex])
            for match in _TOKEN.finditer(text)
            if match.lastindex is not None
        ]
        self._at = 0
        self._depth = 0
        self.names: set[str] = set()

    def sum(self) -> _Node:
        return self._chain(self._product, {"+": operator.add, "-": operator.sub})

    def end(self) -> None:
        if self._at < len(self._tokens):
            position, _, text = self._tokens[self._at]
            raise FormulaInvalid(f"`{text}` at character {position + 1} was not expected.")

    def _product(self) -> _Node:
        return self._chain(self._signed, {"*": operator.mul, "/": operator.truediv})

    def _chain(self, part: Callable[[], _Node], operators: Mapping[str, _Operator]) -> _Node:
        """Parts of one rank, from left to right; a loop, so that a long sum is not a deep one."""
        first, rest = part(), []
        while (sign := self._take(*operators)) is not None:
            rest.append((operators[sign], part()))

        def value(values: Mapping[str, float]) -> float:
            result = first(values)
            for combine, right in rest:
                result = combine(result, right(values))
            return result

        return value if rest else first

    def _signed(self) -> _Node:
        self._depth += 1
        if self._depth > DEEPEST:
            raise FormulaInvalid(f"The formula is nested deeper than {DEEPEST}.")
        sign = self._take("+", "-")
        if sign is None:
            node = self._power()
        else:
            inner = self._signed()
            node = inner if sign == "+" else _negate(inner)
        self._depth -= 1
        return node

    def _power(self) -> _Node:
        base = self._atom()
        if self._take("^") is None:
            return base
        return _raise(base, self._signed())

    def _atom(self) -> _Node:
        if self._at == len(self._tokens):
            raise FormulaInvalid("The formula ends where a number or a name should be.")
        position, kind, text = self._tokens[self._at]
        self._at += 1
        if kind == 1:
            number = float(text)
            if not math.isfinite(number):
                raise FormulaInvalid(f"The number {text} is too large.")
            return lambda values: number
        if kind == 2:
            return self._named(text, position)
        if text != "(":
            raise FormulaInvalid(f"`{text}` at character {position + 1} was not expected.")
        inner = self.sum()
        self._expect(")")
        return inner

    def _named(self, name: str, position: int) -> _Node:
        if name[0].isdigit():
            raise FormulaInvalid(f"`{name}` at character {position + 1} is no number.")
        if self._take("(") is None:
            if name in FUNCTIONS:
                raise FormulaInvalid(f"The function {name} is missing its parentheses.")
            self.names.add(name)
            return lambda values: values[name]
        if name not in FUNCTIONS:
            known = ", ".join(sorted(FUNCTIONS))
            raise FormulaInvalid(f"There is no function {name}; there are {known}.")
        arguments = [self.sum()]
        while self._take(",") is not None:
            arguments.append(self.sum())
        self._expect(")")
        fewest, most, function = _FUNCTIONS[name]
        if len(arguments) < fewest or (most is not None and len(arguments) > most):
            raise FormulaInvalid(f"The function {name} takes one argument.")
        return lambda values: function(*(argument(values) for argument in arguments))

    def _take(self, *symbols: str) -> str | None:
        if self._at < len(self._tokens):
            _, kind, text = self._tokens[self._at]
            if kind == 3 and text in symbols:
                self._at += 1
                return text
        return None

    def _expect(self, symbol: str) -> None:
        if self._take(symbol) is None:
            raise FormulaInvalid(f"A `{symbol}` is missing.")


def _negate(inner: _Node) -> _Node:
    return lambda values: -inner(values)


def _raise(base: _Node, exponent: _Node) -> _Node:
    # math.pow stays with floats: it overflows at once where integers would grow without end.
    return lambda values: math.pow(base(values), exponent(values))

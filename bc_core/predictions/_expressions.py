"""What is right as an expression of columns, such as `abs(pred - target) <= 2`: arithmetic, and nothing that runs."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import text_objects

_LONGEST, _LARGEST = 1000, 10**300
Values = NDArray[Any]


def _of_texts(change: Callable[[str], Any]) -> Callable[[Values], Values]:
    return lambda texts: text_objects([change(text) for text in texts.tolist()])


_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
# Function, how many arguments at least and at most, and whether they are texts.
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int, bool]] = {
    "abs": (np.abs, 1, 1, False),
    "round": (np.round, 1, 1, False),
    "floor": (np.floor, 1, 1, False),
    "ceil": (np.ceil, 1, 1, False),
    "sqrt": (np.sqrt, 1, 1, False),
    "log": (np.log, 1, 1, False),
    "exp": (np.exp, 1, 1, False),
    "min": (lambda *values: np.minimum.reduce(np.broadcast_arrays(*values)), 2, 9, False),
    "max": (lambda *values: np.maximum.reduce(np.broadcast_arrays(*values)), 2, 9, False),
    "lower": (_of_texts(str.lower), 1, 1, True),
    "strip": (_of_texts(str.strip), 1, 1, True),
}


class Expression:
    """Says of each row whether an answer is right.

    Args:
        text: Comparisons of numbers (`+ - * / // % **`, `abs`, `min`, `max`, `round`, `floor`, `ceil`, `sqrt`, `log`,
            `exp`) and texts (`lower`, `strip`, `==`, `!=`), joined by `and`, `or` and `not`; names are columns.

    Attributes:
        names: The columns that it reads.

    Raises:
        ValueError: It holds anything else; such text is never run.

    Example:
        >>> import numpy as np
        >>> from bc_core.predictions._expressions import Expression
        >>> near = Expression("abs(pred - target) <= 2")
        >>> near.names
        ('pred', 'target')
        >>> near({"pred": np.array([1.0, 9.0]), "target": np.array([2.5, 5.0])}).tolist()
        [True, False]
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > _LONGEST:
            raise ValueError(f"the rule of what is right has {len(text)} characters, and may have {_LONGEST}")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise ValueError(f'{text!r} is no rule of what is right, such as "abs(pred - target) <= 2"') from None
        for node in ast.walk(self._tree):
            self._check(node)
        called = {node.func for node in ast.walk(self._tree) if isinstance(node, ast.Call)}
        found = (node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name) and node not in called)
        self.names = tuple(dict.fromkeys(found))
        if not self.names:
            raise ValueError(f"{text!r} reads no column, so that it says the same of every instance")

    def _check(self, node: ast.AST) -> None:
        kinds = (ast.BoolOp, ast.boolop, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.BinOp, ast.Compare, ast.Name)
        known = isinstance(node, (*kinds, ast.Load, *_ARITHMETIC, *_COMPARISONS))
        if isinstance(node, ast.Constant):
            known = isinstance(node.value, str) or (type(node.value) in (int, float) and _in_range(node.value))
        elif isinstance(node, ast.Call):
            known = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and not node.keywords
            if known:
                _, least, most, _ = _FUNCTIONS[node.func.id]  # type: ignore[attr-defined]
                known = least <= len(node.args) <= most
        if not known:
            shown = ast.unparse(node) if isinstance(node, ast.expr) else type(node).__name__
            raise ValueError(
                f"{self.text!r}: {shown!r} cannot be used in a rule of what is right, which has columns, numbers, "
                f"texts, comparisons, and, or, not, arithmetic and {', '.join(_FUNCTIONS)}; for more give "
                "module:function"
            )

    def __call__(self, columns: Mapping[str, Values]) -> NDArray[np.bool_]:
        """Whether each row is right.

        Args:
            columns: Of each name shape (N,), float64 or dtype object holding `str`.

        Raises:
            ValueError: Texts are taken for numbers, or something comes to no number.
        """
        size = len(next(iter(columns.values())))
        try:
            # Of 1 / 0 comes infinity, which compares as if it were a number.
            with np.errstate(all="ignore", divide="raise"):
                found = self._value(self._tree, columns)
        except FloatingPointError:
            raise ValueError(
                f"{self.text!r} comes to no number in some rows: it divides by zero, or has the logarithm of 0; write "
                "max(abs(target), 0.001), say, for what may be 0"
            ) from None
        if getattr(found, "dtype", None) != np.bool_:
            raise ValueError(f'{self.text!r} comes to no yes or no; compare it, as in "abs(pred - target) <= 2"')
        return np.broadcast_to(found, (size,))

    def _value(self, node: ast.AST, columns: Mapping[str, Values]) -> Any:
        if isinstance(node, ast.Name):
            return columns[node.id]
        if isinstance(node, ast.Constant):
            assert isinstance(node.value, (int, float, str))  # as was seen to
            return node.value if isinstance(node.value, str) else np.float64(node.value)
        if isinstance(node, ast.BoolOp):
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return join.reduce(np.broadcast_arrays(*(self._truth(each, columns) for each in node.values)))
        if isinstance(node, ast.UnaryOp):
            if isinstance(node.op, ast.Not):
                return np.logical_not(self._truth(node.operand, columns))
            value = self._number(node.operand, columns)
            return -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.BinOp):
            left, right = self._number(node.left, columns), self._number(node.right, columns)
            return _ARITHMETIC[type(node.op)](left, right)
        if isinstance(node, ast.Call):
            function, _, _, texts = _FUNCTIONS[node.func.id]  # type: ignore[attr-defined]
            return function(*((self._text if texts else self._number)(each, columns) for each in node.args))
        assert isinstance(node, ast.Compare)
        operands = [node.left, *node.comparators]
        values = [self._value(each, columns) for each in operands]
        parts = [
            self._compared(op, values[place], values[place + 1], operands[place], operands[place + 1])
            for place, op in enumerate(node.ops)
        ]
        return np.logical_and.reduce(np.broadcast_arrays(*parts))

    def _compared(self, op: ast.cmpop, left: Any, right: Any, *nodes: ast.expr) -> NDArray[np.bool_]:
        texts = [_is_text(left), _is_text(right)]
        if all(texts) and isinstance(op, (ast.Eq, ast.NotEq)):
            return np.asarray(_COMPARISONS[type(op)](left, right), np.bool_)
        for value, text, node in zip((left, right), texts, nodes, strict=True):
            if text:
                raise ValueError(
                    f"{self.text!r}: {ast.unparse(node)} is text such as {_first(value)!r}, and is compared as a number"
                )
            self._refuse_no_number(value, node)
        return np.asarray(_COMPARISONS[type(op)](left, right), np.bool_)

    def _refuse_no_number(self, value: Any, node: ast.expr) -> None:
        if (wrong := np.isnan(value)).any():
            where = f" in row {int(np.argmax(wrong))} of the instances" if np.ndim(value) else ""
            raise ValueError(f"{self.text!r}: {ast.unparse(node)} comes to no number{where}")

    def _truth(self, node: ast.expr, columns: Mapping[str, Values]) -> Any:
        value = self._value(node, columns)
        if getattr(value, "dtype", None) != np.bool_:
            raise ValueError(f"{self.text!r}: {ast.unparse(node)} is no yes or no; compare it with something")
        return value

    def _number(self, node: ast.expr, columns: Mapping[str, Values]) -> Any:
        value = self._value(node, columns)
        if _is_text(value):
            raise ValueError(f"{self.text!r}: {ast.unparse(node)} is text such as {_first(value)!r}, and no number")
        return value.astype(np.float64) if value.dtype == np.bool_ else value

    def _text(self, node: ast.expr, columns: Mapping[str, Values]) -> Any:
        value = self._value(node, columns)
        if not _is_text(value):
            raise ValueError(f"{self.text!r}: {ast.unparse(node)} is a number, and no text")
        return text_objects([value]) if isinstance(value, str) else value


def _in_range(value: Any) -> bool:
    return bool(-_LARGEST < value < _LARGEST)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or value.dtype.kind == "O"


def _first(value: Any) -> str:
    """Of texts the first that is no number, where there is one."""
    if isinstance(value, str):
        return value
    for text in value.tolist():
        try:
            float(text)
        except ValueError:  # noqa: PERF203 - ends at the first
            return str(text)
    return str(value[0])

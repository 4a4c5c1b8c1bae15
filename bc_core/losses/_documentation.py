"""What docstrings say of losses, made from the tables: the named losses, and the list of dissonances."""

from __future__ import annotations

import re
import textwrap
from typing import Any, NamedTuple, TypeVar

from bc_core.losses._bases import BASES
from bc_core.losses._dissonances import DISSONANCES, Dissonance

_Documented = TypeVar("_Documented", bound=Any)


class NamedLoss(NamedTuple):
    """What a loss of this name is made of."""

    base: str
    dissonance: str


NAMED_LOSSES = {
    f"{row.prefix}{base.suffix}": NamedLoss(name, row.name)
    for row in DISSONANCES.values()
    if row.prefix
    for name, base in BASES.items()
}
"""The original library's eight."""


def _formula(row: Dissonance, base: str) -> str:
    return row.formula.replace("{target}", BASES[base].target).replace("{h1}", BASES[base].h1)


def doc_of_named_loss(name: str, models: str, example: str) -> str:
    """Docstring of a named loss.

    Args:
        name: one of `NAMED_LOSSES`.
        models: what models return, on this side and for this base.
        example: lines of a doctest, with ``{name}`` for the class.
    """
    base, dissonance = NAMED_LOSSES[name]
    row = DISSONANCES[dissonance]
    title = f"{row.title[0].upper()}{row.title[1:]} on the {BASES[base].title}"
    lines = example.format(name=name).splitlines()
    return "\n".join(
        [
            f"{title}: :math:`d_i = {_formula(row, base)}` where h1 is right.\n",
            *(f"    {line}" for line in models.splitlines()),
            "\n    Example:",
            *(f"        {line}" for line in lines),
            "    ",
        ]
    )


def with_dissonances(documented: _Documented) -> _Documented:
    """Put the list of dissonances before a docstring's example; a decorator."""
    if not documented.__doc__:
        return documented  # python -OO
    before, indent, after = re.split(r"^( *)Example:\n", documented.__doc__, maxsplit=1, flags=re.MULTILINE)
    lines = [f"{indent}    {line}\n" for row in DISSONANCES.values() for line in _lines_of(row)]
    documented.__doc__ = f"{before}{indent}Dissonances:\n{''.join(lines)}\n{indent}Example:\n{after}"
    return documented


def _lines_of(row: Dissonance) -> list[str]:
    formula = row.formula.replace("{target}", "b_i").replace("{h1}", r"b_i \text{ with } p_1 \text{ for a target}")
    lines = [
        f'``"{row.name}"``: {row.summary}.',
        f"    :math:`d_i = {formula}`, weight :math:`{_weight(row)}`. {row.source}.",
        *(f"    {line}" for line in textwrap.wrap(row.notes, 108)),
    ]
    for name, option in row.options.items():
        lines.append(f"    Option ``{name}``: {option.must_be}. Defaults to {option.default!r}.")
    return lines


def _weight(row: Dissonance) -> str:
    more = {0.0: "", 1.0: row.indicator}.get(float(row.beta), f"{row.beta:g} {row.indicator}")
    return " + ".join(filter(None, (f"{row.alpha:g}" if row.alpha else "", more))) or "0"

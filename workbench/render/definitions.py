"""How a table of definitions looks, as text and as HTML."""

from __future__ import annotations

from workbench.findings.definitions import Definition, DefinitionsData
from workbench.render._format import NONE, number, percent, plural
from workbench.render.frame import framed, part, table

_COLUMNS = ("definition", "value", "formula", "used by")


def definitions_text(found: DefinitionsData) -> str:
    """One line per definition, aligned."""
    rows = [_COLUMNS, *map(_row, found.rows)]
    sizes = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = [f"Definitions over {_note(found)}"]
    for name, value, formula, source in rows:
        lines.append(f"{name:<{sizes[0]}}  {value:>{sizes[1]}}  {formula:<{sizes[2]}}  {source}".rstrip())
    return "\n".join(lines)


def definitions_html(found: DefinitionsData) -> str:
    """The same as one HTML fragment: no script, both themes readable."""
    return framed(part("definitions", _note(found), table(_COLUMNS, map(_row, found.rows), left=(0, 2, 3))))


def _note(found: DefinitionsData) -> str:
    return plural(found.num_requests, "request") + (f"; SLO: {found.slo}" if found.slo else "")


def _row(one: Definition) -> tuple[str, str, str, str]:
    if one.value is None:
        value = NONE
    else:
        value = percent(one.value) if one.unit == "share" else f"{number(one.value, 4)} {one.unit}"
    return one.name, value, one.formula, one.source

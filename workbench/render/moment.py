"""How a moment looks: a table of the requests and a map of the blocks, as text and as HTML."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.events import Decision, Reason, Verdict
from workbench.findings.moment import BlockMoment, MomentData, RequestMoment
from workbench.render import _svg as svg
from workbench.render._format import NONE, escape, percent, plain, plural, shorten
from workbench.render.board import in_words
from workbench.render.frame import framed, part, table
from workbench.render.palette import CACHE, LINE, LOOKS, PREEMPTED, PREFILL

_MAX_ROWS, _MAX_BLOCKS, _PER_LINE = 40, 2048, 64
_COLUMNS = ("request", "status", "prompt", "output", "computed", "blocks", "this step", "text so far")
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SIDE, _PITCH = 12.0, 15.0


def moment_text(moment: MomentData, width: int = 120) -> str:
    """The board of one step: a line of counts, a line per request, and one character per block."""
    rows = [_COLUMNS, *([plain(cell) for cell in _row(one)] for one in moment.requests[:_MAX_ROWS])]
    sizes = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = [_head(moment)]
    if moment.requests:
        lines += ["  ".join(cell.ljust(size) for cell, size in zip(row, sizes, strict=True)).rstrip()[:width] for row in rows]
    if len(moment.requests) > _MAX_ROWS:
        lines.append(f"… and {plural(len(moment.requests) - _MAX_ROWS, 'more request')}")
    lines += [*_map_lines(moment), *(plain(f"Unknown: {sentence}.") for sentence in moment.unknown)]
    return "\n".join(lines)


def moment_html(moment: MomentData) -> str:
    """The same as one HTML fragment: no script, everything from outside escaped, both themes readable."""
    rows = [_row(one) for one in moment.requests[:_MAX_ROWS]]
    more = f"… and {plural(len(moment.requests) - _MAX_ROWS, 'more request')}" if len(moment.requests) > _MAX_ROWS else ""
    notes = [more, *(f"Unknown: {sentence}." for sentence in moment.unknown)]
    below = "".join(f'<div class="wb-nums">{escape(note)}</div>' for note in notes if note)
    requests = table(_COLUMNS, rows, left=(0, 1, 5, 6, 7)) if rows else '<div class="wb-nums">No request is in the engine.</div>'
    head = f'<div class="wb-head"><b>step {moment.step}</b> <span class="wb-pill">{escape(_counts(moment))}</span></div>'
    return framed(head, part("requests", "queues after planning, tokens after the commit", requests + below), _picture(moment))


def _head(moment: MomentData) -> str:
    return f"Step {moment.step}: {_counts(moment)} · {_pool(moment)}"


def _counts(moment: MomentData) -> str:
    queues = (("running", moment.running), ("waiting", moment.waiting), ("held", moment.held), ("pending", moment.pending))
    return ", ".join(f"{len(queue)} {name}" for name, queue in queues if queue or name in ("running", "waiting"))


def _pool(moment: MomentData) -> str:
    kv = moment.kv
    counts = f"{plural(kv.total, 'block')} × {plural(moment.block_size, 'token')}: {kv.in_use} in use, {kv.cached} cached, {kv.free} free"
    if moment.wasted_slots is None:
        return counts
    return f"{counts}; {plural(moment.wasted_slots, 'slot')} of those in use empty ({percent(moment.fragmentation)})"


def _row(one: RequestMoment) -> tuple[str, ...]:
    computed = NONE if one.num_computed_tokens is None or one.num_tokens is None else f"{one.num_computed_tokens}/{one.num_tokens}"
    status = f"{one.status.value}, {one.finish_reason}" if one.finish_reason else one.status.value
    text = ("" if one.text_complete else "…") + one.text
    tail = text if len(text) <= 40 else "…" + text[-39:]
    return (
        one.request_id,
        status,
        _count(one.num_prompt_tokens),
        _count(one.num_output_tokens),
        computed,
        "unknown" if one.block_ids is None else _ranges(one.block_ids) or NONE,
        _decision(one.decision),
        shorten(tail, 40),
    )


def _count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def _ranges(block_ids: Sequence[int]) -> str:
    """A table in order, neighbours joined: ``1–4 9 7``."""
    runs: list[list[int]] = []
    for block_id in block_ids:
        if runs and block_id == runs[-1][1] + 1:
            runs[-1][1] = block_id
        else:
            runs.append([block_id, block_id])
    words = [str(first) if first == last else f"{first}–{last}" for first, last in runs]
    return " ".join([*words[:6], f"… {plural(len(block_ids), 'block')}"] if len(words) > 7 else words)


def _decision(decision: Decision | None) -> str:
    if decision is None:
        return NONE
    if decision.reason is Reason.NOT_ARRIVED:
        return "arrives by the clock" if decision.needed is None else f"arrives in step {decision.needed}"
    if decision.verdict is Verdict.SCHEDULED:
        return plural(decision.num_tokens, "token")
    if decision.verdict is Verdict.PARTIAL:
        return f"{decision.num_tokens} of {plural(decision.needed or 0, 'token')}: {decision.reason.value}"
    return in_words(decision)


# -- the map of the blocks ---------------------------------------------------------------------------------------------


def _owner_letters(moment: MomentData) -> dict[str, str]:
    holders = [one.request_id for one in moment.requests if one.block_ids is None or one.block_ids]
    return {name: _LETTERS[i] if i < len(_LETTERS) else "#" for i, name in enumerate(holders)}


def _map_lines(moment: MomentData) -> list[str]:
    letters = _owner_letters(moment)
    shown = moment.blocks[:_MAX_BLOCKS]
    indent = len(str(shown[-1].block_id)) if shown else 1
    lines = []
    for start in range(0, len(shown), _PER_LINE):
        line = shown[start : start + _PER_LINE]
        lines.append(f"{line[0].block_id:>{indent}} " + "".join(_letter(block, letters) for block in line))
    if len(moment.blocks) > len(shown):
        lines.append(f"… and {plural(len(moment.blocks) - len(shown), 'more block')}")
    owners = [f"{letter} {plain(name)}" for name, letter in letters.items()]
    signs = {_letter(block, letters) for block in shown}
    rest = [words for sign, words in (("+", "+ shared"), ("=", "= cached"), (".", ". free"), ("?", "? unknown")) if sign in signs]
    return [*lines, " · ".join([*owners[:16], *(["…"] if len(owners) > 16 else []), *rest])] if lines else []


def _letter(block: BlockMoment, letters: dict[str, str]) -> str:
    if block.status == "in use":
        return "+" if block.refs > 1 else letters.get(block.owners[0], "?")
    return {"cached": "=", "free": "."}.get(block.status, "?")


def _picture(moment: MomentData) -> str:
    shown = moment.blocks[:_MAX_BLOCKS]
    per_line = int((svg.RIGHT - 8) / _PITCH)
    ids = svg.prefix("moment", moment.step, len(shown))
    used, cached = LOOKS[PREFILL].colour, LOOKS[CACHE].colour
    body = svg.element("defs", svg.hatch(f"{ids}-cached", cached, 5, "M-1 1L1 -1M0 5L5 0M4 6L6 4"))
    groups: dict[tuple[str, str], list[int]] = {}
    for place, block in enumerate(shown):
        groups.setdefault((block.status, " and ".join(block.owners)), []).append(place)
    fills = {"in use": used, "cached": f"url(#{ids}-cached) {cached}", "free": LINE, "unknown": "none"}
    for (status, owners), places in groups.items():
        d = "".join(_square(place, per_line) for place in places)
        title = f"{owners or status}: {_ranges([shown[place].block_id for place in places])}"
        opacity = "0.18" if status == "free" else "0.6" if " and " in owners else ""
        edge = {"unknown": LINE, "cached": cached}.get(status, used if " and " in owners else "")
        body += svg.path(d, title, fill=fills[status], fill_opacity=opacity, stroke=edge, data_status=status, data_count=len(places))
    new = "".join(_square(place, per_line) for place, block in enumerate(shown) if set(block.touched) & {"allocated", "hit", "shared"})
    body += svg.path(new, "taken in this step", fill="none", stroke=LOOKS[PREEMPTED].colour, stroke_width=2)
    legend, height = _legend(moment, ids, 10 + -(-len(shown) // per_line) * _PITCH + 6, bool(new))
    title = f"Blocks at step {moment.step}: {moment.kv.in_use} in use, {moment.kv.cached} cached, {moment.kv.free} free"
    picture = svg.document(body + legend, height, title, "One square per block, by id, row by row.")
    note = _pool(moment) + (f"; the first {_MAX_BLOCKS:,} are drawn" if len(moment.blocks) > len(shown) else "")
    return part("KV blocks", note, f'<div class="wb-scroll">{picture}</div>')


def _square(place: int, per_line: int) -> str:
    x, y = 8 + place % per_line * _PITCH, 6 + place // per_line * _PITCH
    side = svg.num(_SIDE)
    return f"M{svg.num(x)} {svg.num(y)}h{side}v{side}h-{side}z"


def _legend(moment: MomentData, ids: str, y: float, new: bool) -> tuple[str, float]:
    used, cached = LOOKS[PREFILL].colour, LOOKS[CACHE].colour
    looks = {"in use": (used, "", ""), "cached": (f"url(#{ids}-cached) {cached}", "", cached), "free": (LINE, "0.18", "")}
    looks["unknown"] = ("none", "", LINE)
    seen = {block.status for block in moment.blocks}
    entries: list[tuple[str, str]] = [(_box(*look), name) for name, look in looks.items() if name in seen]
    if any(block.refs > 1 for block in moment.blocks):
        entries.append((_box(used, "0.6", used), "shared by several requests"))
    if new:
        entries.append((_box("none", "", LOOKS[PREEMPTED].colour), "taken in this step"))
    return svg.legend(entries, y)


def _box(fill: str, opacity: str, stroke: str) -> str:
    return svg.element("rect", "", width="10", height="10", y="0.5", fill=fill, fill_opacity=opacity, stroke=stroke)

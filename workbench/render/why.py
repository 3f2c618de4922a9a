"""Explanations, steps, lives and prefix stories as text and HTML: the sentence first, then what stands behind it.

Request names, stop strings and token texts come from outside: everything is escaped for pages and made harmless for terminals.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from workbench.events import Verdict
from workbench.findings.why import ExplanationData, LifeData, PrefixStoryData, Segment, StepExplanationData
from workbench.render._format import escape, ms, plain
from workbench.render.palette import LOOKS
from workbench.render.prose import change_sentence, life_story, no_single_knob, note

WIDTH = 100
_MARKS = {Verdict.SCHEDULED: "●", Verdict.PARTIAL: "◐", Verdict.DEFERRED: "○", Verdict.PREEMPTED: "↩", Verdict.REJECTED: "✕"}
_MARK_COLOURS = {Verdict.SCHEDULED: "#009e73", Verdict.PARTIAL: "#0072b2", Verdict.PREEMPTED: "#d55e00", Verdict.REJECTED: "#d55e00"}
_SEGMENT_COLOURS = {kind: LOOKS[kind].colour for kind in ("prefill", "decode", "idle", "preempted", "held")}

_STYLE = """
.wb-why{--wb-dim:var(--jp-content-font-color2,#767d87);--wb-line:var(--jp-border-color2,rgba(128,136,148,.32));max-width:1040px;
font:13px/1.5 var(--jp-ui-font-family,system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif);font-variant-numeric:tabular-nums}
.wb-why .wb-said{font-weight:600}.wb-why .wb-more{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:0 12px;margin:4px 0 0}
.wb-why .wb-more span:nth-child(odd){color:var(--wb-dim)}.wb-why .wb-dim{color:var(--wb-dim)}
.wb-why.wb-why table{border-collapse:collapse;margin:6px 0 2px;font-size:12.5px;border:0}.wb-why.wb-why tr{background:none}
.wb-why.wb-why th,.wb-why.wb-why td{padding:2px 10px 2px 0;text-align:left;vertical-align:top;border:0;
border-bottom:1px solid var(--wb-line)}
.wb-why.wb-why th{color:var(--wb-dim);font-weight:600}.wb-why.wb-why .wb-num{text-align:right}.wb-why .wb-name{white-space:nowrap}
"""


# -- one decision ------------------------------------------------------------------------------------------------------


def explanation_text(one: ExplanationData) -> str:
    """The sentence, and a labelled line for everything else."""
    lines = [*textwrap.wrap(plain(one.sentence), WIDTH)]
    for label, words in _behind(one):
        lines += textwrap.wrap(plain(words), WIDTH, initial_indent=f"  {label:<10}  ", subsequent_indent=" " * 14)
    return "\n".join(lines)


def explanation_html(one: ExplanationData) -> str:
    """The same for a page."""
    return _page(f'<div class="wb-said">{escape(one.sentence)}</div>{_more(one)}')


def _behind(one: ExplanationData) -> Iterator[tuple[str, str]]:
    """``(label, sentence)`` of what stands behind a decision."""
    for place, link in enumerate(one.chain):
        yield "" if place else "because", link
    if one.afterwards is not None:
        yield "afterwards", one.afterwards
    if one.prefix is not None:
        yield "prefix", one.prefix
    for place, change in enumerate(one.counterfactuals):
        yield "" if place else "what if", change_sentence(change)
    if one.tried and not one.counterfactuals:
        yield "what if", no_single_knob(one.decision)


def _more(one: ExplanationData) -> str:
    rows = "\n".join(f"<span>{escape(label)}</span> <span>{escape(words)}</span>" for label, words in _behind(one))
    return f'<div class="wb-more">\n{rows}\n</div>' if rows else ""


# -- a step ------------------------------------------------------------------------------------------------------------


def step_text(step: StepExplanationData) -> str:
    """The summary, what came before the step, and a line for each request."""
    lines = [*textwrap.wrap(plain(step.summary), WIDTH), *(f"  {plain(command)}" for command in step.commands)]
    names = [plain(one.request_id) for one in step.explanations]
    width = min(max(map(len, names), default=0), 16)
    for name, one in zip(names, step.explanations, strict=True):
        lead = f"{_MARKS[one.decision.verdict]} {name:<{width}}  "
        lines += textwrap.wrap(plain(one.sentence), WIDTH, initial_indent=lead, subsequent_indent=" " * (width + 4))
    return "\n".join(lines)


def step_html(step: StepExplanationData) -> str:
    """The same as a table; what stands behind a decision folds out."""
    commands = "".join(f'<div class="wb-dim">{escape(command)}</div>\n' for command in step.commands)
    rows = "\n".join(_step_row(one) for one in step.explanations)
    head = "<thead><tr><th></th><th>request</th><th>what happened, and why</th></tr></thead>"
    table = f"<table>{head}\n<tbody>{rows}</tbody></table>" if rows else ""
    return _page(f'<div class="wb-said">{escape(step.summary)}</div>\n{commands}{table}')


def _step_row(one: ExplanationData) -> str:
    verdict = one.decision.verdict
    more = _more(one)
    said = f"<details><summary>{escape(one.sentence)}</summary>{more}</details>" if more else escape(one.sentence)
    mark = f'<span style="color:{_MARK_COLOURS.get(verdict, "inherit")}" title="{escape(verdict.value)}">{_MARKS[verdict]}</span>'
    return f'<tr><td>{mark}</td><td class="wb-name">{escape(one.request_id)}</td><td>{said}</td></tr>'


# -- a life ------------------------------------------------------------------------------------------------------------

_LIFE = ("what", "steps", "count", "time", "")


def life_text(life: LifeData) -> str:
    """The paragraph, and a table of the segments."""
    rows = [_LIFE, *map(_life_row, life.segments)]
    sizes = [max(len(row[i]) for row in rows) for i in range(4)]
    table = [f"  {row[0]:<{sizes[0]}}  {row[1]:<{sizes[1]}}  {row[2]:>{sizes[2]}}  {row[3]:>{sizes[3]}}  {row[4]}".rstrip() for row in rows]
    return "\n".join([*textwrap.wrap(plain(life_story(life)), WIDTH), *table])


def life_html(life: LifeData) -> str:
    """The same for a page."""
    head = "".join(f"<th{_numeric(i)}>{escape(name)}</th>" for i, name in enumerate(_LIFE))
    body = "\n".join(_life_line(segment) for segment in life.segments)
    return _page(f"<div>{escape(life_story(life))}</div>\n<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>")


def _life_line(segment: Segment) -> str:
    name, *cells = _life_row(segment)
    dot = f'<span style="color:{_SEGMENT_COLOURS.get(segment.kind, "inherit")}">■</span> '
    rest = "".join(f"<td{_numeric(i)}>{escape(cell)}</td>" for i, cell in enumerate(cells, start=1))
    return f'<tr><td class="wb-name">{dot}{escape(name)}</td>{rest}</tr>'


def _numeric(column: int) -> str:
    return ' class="wb-num"' if column in (2, 3) else ""


def _life_row(segment: Segment) -> tuple[str, ...]:
    last = segment.end - 1
    steps = f"{segment.start}" if last <= segment.start else f"{segment.start} to {last}"
    if not segment.num_steps:
        return segment.kind, "", "", "", plain(note(segment))
    return segment.kind, steps, f"{segment.num_steps:,}", ms(segment.ms), plain(note(segment))


# -- a look-up ---------------------------------------------------------------------------------------------------------


def prefix_text(story: PrefixStoryData) -> str:
    """The sentence, with the step."""
    return "\n".join(textwrap.wrap(plain(f"Step {story.step}: {story.sentence}"), WIDTH))


def prefix_html(story: PrefixStoryData) -> str:
    """The same for a page, with the blocks that could be reused as squares: found ones filled."""
    shown = min(story.possible, 64)
    found = min(story.hits, shown)
    more = "…" if story.possible > shown else ""
    squares = f'<span style="color:{LOOKS["cache"].colour}">{"■" * found}</span>{"□" * (shown - found)}{more}'
    return _page(f'<div class="wb-said">Step {story.step}: {escape(story.sentence)}</div>\n<div class="wb-dim">{squares}</div>')


def _page(content: str) -> str:
    return f'<div class="wb-why mathjax_ignore tex2jax_ignore"><style>{_STYLE}</style>\n{content}\n</div>'

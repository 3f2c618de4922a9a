"""The static result of a run as HTML: outputs, numbers, timeline, KV strip; no script and no outside reference.

It survives saving, HTML export and sanitizers that drop ``<style>`` or ``<svg>``: what remains is plain, readable HTML.
"""

from __future__ import annotations

from typing import Any

from workbench.render import facts
from workbench.render._format import escape, plural
from workbench.render.svg import kv_svg, timeline_svg

MAX_OUTPUTS = 32
_SHOWN, _LONGEST = 1_500, 20_000  # characters of a text in sight, and in the page at all
_LINES = 24

# A doubled class outweighs what notebooks say about every <pre>, <table> and <code> in an output.
STYLE = """
.wb-run{--wb-dim:var(--jp-content-font-color2,#767d87);--wb-line:var(--jp-border-color2,rgba(128,136,148,.32));--wb-soft:rgba(128,136,148,.1);
--wb-sel:var(--jp-brand-color1,#0b6bcb);max-width:1120px;border:1px solid var(--wb-line);border-radius:10px;overflow:hidden;margin:2px 0;
font:13px/1.5 var(--jp-ui-font-family,system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif);font-variant-numeric:tabular-nums}
.wb-run .wb-head{display:flex;flex-wrap:wrap;gap:6px 14px;align-items:center;padding:9px 14px;border-bottom:1px solid var(--wb-line)}
.wb-run .wb-pill{padding:1px 10px;border-radius:99px;background:var(--wb-soft);border:1px solid var(--wb-line);color:var(--wb-dim)}
.wb-run .wb-finished{background:none}.wb-run .wb-stopped{color:#fff;background:#8a5f00;border-color:#8a5f00}
.wb-run .wb-running{color:#fff;background:#0b57d0;border-color:#0b57d0}
.wb-run .wb-failed{color:#fff;background:#b34700;border-color:#b34700}
.wb-run .wb-figures{display:flex;flex-wrap:wrap;gap:4px 18px;margin-left:auto}
.wb-run .wb-figure{display:flex;flex-direction:column;line-height:1.25;text-align:right;white-space:nowrap}
.wb-run .wb-figure b{font-weight:600}.wb-run .wb-figure small{color:var(--wb-dim);font-size:10.5px}
.wb-run .wb-part{padding:10px 14px;border-bottom:1px solid var(--wb-line)}.wb-run .wb-part:last-child{border-bottom:0}
.wb-run .wb-name{display:flex;gap:10px;justify-content:space-between;color:var(--wb-dim);font-size:11px;margin-bottom:6px}
.wb-run .wb-name b{letter-spacing:.05em;text-transform:uppercase;font-weight:600;white-space:nowrap}.wb-run .wb-name span{text-align:right}
.wb-run .wb-out{display:grid;grid-template-columns:minmax(34px,max-content) minmax(0,1fr);gap:0 12px;padding:5px 0}
.wb-run .wb-out+.wb-out{border-top:1px solid var(--wb-soft)}.wb-run .wb-id{font-weight:600;overflow-wrap:anywhere;max-width:12em}
.wb-run.wb-run pre{margin:0;padding:0;border:0;background:none;color:inherit;font:inherit;white-space:pre-wrap;word-break:normal;
overflow-wrap:anywhere}
.wb-run.wb-run pre.wb-prompt,.wb-run .wb-nums,.wb-run .wb-foot{color:var(--wb-dim)}.wb-run .wb-nums{font-size:11px;margin-top:1px}
.wb-run .wb-text{max-width:88ch}.wb-run summary{cursor:pointer;color:var(--wb-dim);font-size:11.5px}
.wb-run .wb-scroll{overflow-x:auto}
.wb-run .wb-scroll>svg{display:block;min-width:600px;max-width:1040px;height:auto}
.wb-run.wb-run table{border-collapse:collapse;margin:8px 0 2px;font-size:12px;border:0}.wb-run.wb-run tr{background:none}
.wb-run.wb-run th,.wb-run.wb-run td{padding:2px 10px;text-align:right;border:0;border-bottom:1px solid var(--wb-line);white-space:nowrap}
.wb-run.wb-run th{color:var(--wb-dim);font-weight:600}
.wb-run.wb-run th:first-child,.wb-run.wb-run td:first-child{text-align:left;padding-left:0}
.wb-run .wb-trouble{color:#d55e00;white-space:pre-wrap}.wb-run.wb-run code{font-size:11.5px;background:none;color:inherit;padding:0}
.wb-run .wb-foot{font-size:11.5px;padding:7px 14px}
"""
_FOOTER = (
    '<div class="wb-foot">Every step: <code>{0}.steps</code> · all figures: <code>{0}.summary()</code> · '
    'keep it: <code>{0}.save("{0}.wbt")</code></div>'
)


def render_html(run: Any) -> str:
    """The result of a run as one HTML fragment, everything from outside escaped; both themes are readable.

    ``run`` needs ``trace``, ``metrics``, ``outputs`` and ``status``.  Class names start with ``wb-``, and MathJax is told to
    leave it alone, because a dollar sign in an output is a dollar sign.
    """
    result = facts.result_of(run)
    return page(result, pictures(result.trace))


def page(result: facts.Result, shown: str) -> str:
    """:func:`render_html` around what shows the steps: pictures, or a player of them."""
    return framed(_header(result), _outputs(result), shown, _drafts(result), _numbers(result.metrics), _FOOTER.format(escape(result.name)))


def document_body(result: facts.Result, shown: str) -> str:
    """The same for a page that nobody reads in a notebook: the steps come first."""
    return framed(_header(result), shown, _outputs(result), _drafts(result), _numbers(result.metrics))


def framed(*parts: str) -> str:
    """Parts in one box: no script, no outside reference, readable in both themes."""
    return f'<div class="wb-run mathjax_ignore tex2jax_ignore"><style>{STYLE}</style>\n' + "\n".join(filter(None, parts)) + "\n</div>"


def pictures(trace: Any, timeline: str | None = None, kv: str | None = None) -> str:
    """Timeline and KV strip, drawn here unless they are given, each under its name: parts of a box."""
    config, records = trace.config, trace.records
    budget = f"tokens of each step against its budget · a row per request · milliseconds per step · {plural(len(records), 'step')}"
    pool = f"{plural(records[-1].kv.total, 'block')} × {plural(config.block_size, 'token')}" if records else ""
    return _picture("steps", budget, timeline or timeline_svg(trace)) + _picture("KV cache", pool, kv or kv_svg(trace))


def _header(result: facts.Result) -> str:
    figures = "".join(
        f'<span class="wb-figure"><b>{escape(value)}</b> <small>{escape(name)}</small></span>\n'
        for value, name in facts.headline(result.metrics)
    )
    status = escape(result.status)
    return (
        f'<div class="wb-head"><b>{escape(result.name)}</b> <span class="wb-pill">{escape(facts.model_line(result.trace))}</span> '
        f'<span class="wb-pill wb-{status.split()[0] if status else ""}">{status} · {escape(facts.extent(result.metrics))}</span>\n'
        f'<span class="wb-figures">{figures}</span></div>'
    )


def _outputs(result: facts.Result) -> str:
    families = list(facts.families(result))
    blocks = [_family(*family) for family in families[:MAX_OUTPUTS]]
    if len(families) > MAX_OUTPUTS:
        blocks.append(f'<div class="wb-nums">… and {plural(len(families) - MAX_OUTPUTS, "more output")} in <code>run.outputs</code></div>')
    trouble = facts.trouble(result)
    if trouble:
        blocks.append(f'<div class="wb-trouble">{escape(trouble)}</div>')
    inside = "\n".join(blocks) or '<div class="wb-nums">No request was made.</div>'
    return f'<div class="wb-part">{inside}</div>'


def _family(name: str, members: list[Any]) -> str:
    """A prompt and its completions."""
    prompt = _text(facts.prompt_of(members[0]), "wb-prompt", "prompt")
    if len(members) == 1:
        return _entry(name, prompt + _completion(members[0]))
    answers = "".join(_entry(f"{completion.index + 1} of {len(members)}", _completion(completion)) for completion in members)
    return _entry(name, prompt + answers)


def _entry(name: str, content: str) -> str:
    return f'<div class="wb-out"><div class="wb-id">{escape(name)}</div><div>{content}</div></div>\n'


def _completion(completion: Any) -> str:
    return _text(facts.text_of(completion), "wb-text", "output") + f'<div class="wb-nums">{escape(facts.request_line(completion))}</div>'


def _text(text: str, cls: str, kind: str) -> str:
    """Text with its white space kept; what goes beyond a screenful is folded, what goes beyond a book is left in the run."""
    head = _beginning(text)
    shown = _pre(head, cls)
    rest = text[len(head) : _LONGEST]
    if not rest:
        return shown
    left_out = len(text) - len(head) - len(rest)
    note = f"\n… {left_out:,} more characters are in the run, not in this page" if left_out else ""
    summary = f"… {len(text) - len(head):,} more characters of this {kind}"
    return f"{shown}<details><summary>{summary}</summary>{_pre(rest + note, cls)}</details>"


def _beginning(text: str) -> str:
    if len(text) <= _SHOWN and text.count("\n") < _LINES:
        return text
    head = "".join(text.splitlines(keepends=True)[: _LINES // 2])[: _SHOWN * 2 // 3]
    return head if head.endswith("\n") else head[: head.rfind(" ") + 1] or head


def _pre(text: str, cls: str) -> str:
    # A parser drops one newline right after <pre>; the one written here is that one.
    return f'<pre class="{cls}" dir="auto" style="white-space:pre-wrap">\n{escape(text)}</pre>' if text else ""


def _picture(name: str, note: str, svg: str) -> str:
    title = f'<div class="wb-name"><b>{escape(name)}</b> <span>{escape(note)}</span></div>'
    return f'<div class="wb-part">{title}\n<div class="wb-scroll">{svg}</div></div>\n'


def _drafts(result: facts.Result) -> str:
    lines = "".join(f'<div class="wb-nums">{escape(line)}</div>' for line in facts.speculation(result))
    return f'<div class="wb-part">{lines}</div>' if lines else ""


def _numbers(metrics: Any) -> str:
    rows = facts.table(metrics)
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in facts.COLUMNS)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[:100])
    more = f'<div class="wb-nums">… and {len(rows) - 100:,} more in <code>run.metrics.requests</code></div>' if len(rows) > 100 else ""
    return (
        '<div class="wb-part"><details><summary>numbers of each request (tokens; milliseconds)</summary>'
        f'<div class="wb-scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>{more}</details></div>'
    )

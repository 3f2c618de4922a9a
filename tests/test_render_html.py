from __future__ import annotations

from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from render_fixtures import ONERROR, SCRIPT, make_run, make_trace, scripted_run, speculative_run

from workbench.render import mimebundle
from workbench.render.html import render_html
from workbench.trace import Trace

VOID = {"br", "hr", "img", "meta", "link", "input"}


class Page(HTMLParser):
    """Tags, attributes and text of a fragment; complains about tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def said(self, *tags: str) -> str:
        return " ".join(text for tag in tags or self.texts for text in self.texts.get(tag, ()))


def assert_harmless(html: str) -> None:
    page = Page(html)
    assert not {"script", "img", "iframe", "object", "link", "a", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "srcdoc")]


@pytest.mark.parametrize("hostile", [SCRIPT, ONERROR, "</pre></div></style><script>x()</script>", "<!--", "a\x00b\x1b[31m", "&lt;b&gt;"])
def test_prompts_outputs_names_and_errors_are_text_and_nothing_else(hostile):
    trace = make_trace(2, name=hostile)
    run = make_run(trace, status="failed", texts={"r0": hostile}, prompts={"r0": hostile})
    run.error = ValueError(hostile)
    run.outputs[1].stop_reason = hostile
    run.outputs[0].request_id = hostile
    html = render_html(run)
    assert_harmless(html)
    if "\x00" not in hostile:
        assert hostile in Page(html).said("pre")


def test_prompt_output_and_numbers_of_each_request_are_there():
    run = make_run(make_trace(3), texts={"r1": "Two, three\n  and five."}, prompts={"r1": "Name three primes."})
    said = Page(render_html(run)).said("pre")
    assert "Name three primes." in said
    assert "Two, three\n  and five." in said
    assert f"{run.metrics.requests[1].num_output_tokens} tokens" in Page(render_html(run)).said("div")


def test_leading_newlines_of_an_output_survive():
    html = render_html(make_run(make_trace(1), texts={"r0": "\n\nlate"}))
    assert '<pre class="wb-text" dir="auto" style="white-space:pre-wrap">\n\n\nlate</pre>' in html


def test_the_header_names_model_status_and_figures():
    said = Page(render_html(make_run(make_trace(3)))).said("b", "span", "small")
    for words in ("smollm2 · bfloat16 · cpu", "finished", "TTFT p50", "ITL p50 / p99", "tok/s", "prefix hits", "preemptions"):
        assert words in said


def test_acceptance_is_shown_only_when_there_was_speculation():
    assert "tokens per verify" not in render_html(make_run(make_trace(3)))
    assert "tokens per verify" in render_html(make_run(make_trace(3, drafts_from=5)))


def test_a_line_tells_of_speculation_and_another_of_a_proposer_that_failed():
    html = render_html(speculative_run(problem=f"ValueError: {SCRIPT}"))
    assert_harmless(html)
    assert "Speculation (eagle, auto, at most 6 drafts): 75 % of the drafts accepted, 4 tokens per verification; 2 times as fast" in html
    assert "Proposing drafts failed after 1 step, first after step 0: ValueError: &lt;script&gt;" in html
    assert "Speculation" not in render_html(make_run(make_trace(3)))


def test_a_very_long_output_is_folded_and_the_longest_are_left_in_the_run():
    run = make_run(make_trace(1), texts={"r0": "word " * 10_000})
    html = render_html(run)
    assert "<details><summary>… " in html
    assert "30,000 more characters are in the run" in html
    assert len(html) < 60_000


def test_many_outputs_are_counted_not_shown():
    html = render_html(make_run(make_trace(40, 3, max_seqs=16, blocks=400)))
    assert "… and 8 more outputs" in html


def test_completions_of_one_prompt_are_grouped_under_it():
    run = scripted_run([[1, 2, 3], [4, 5, 6]], n=3, max_tokens=4)
    said = Page(render_html(run)).said("div")
    assert said.count("2 of 3") == 2
    assert Page(render_html(run)).said("pre").count("[3 token ids] 1 2 3") == 1


def test_token_ids_stand_in_where_there_is_no_text():
    run = scripted_run([[7, 8, 9]], max_tokens=3)
    said = Page(render_html(run)).said("pre")
    assert "[3 token ids] 7 8 9" in said
    assert "[3 token ids] 0 1 2" in said


def test_a_run_without_a_single_step_is_a_result_too():
    trace = make_trace(2)
    run = make_run(Trace(trace.config, trace.model, trace.requests.values()), status="stopped")
    said = Page(render_html(run)).said()
    assert "no steps" in said
    assert "unfinished" in said


def test_a_run_without_requests_is_a_result_too():
    trace = make_trace(1)
    assert "No request was made." in render_html(make_run(Trace(trace.config, trace.model)))


def test_a_stopped_run_says_what_is_unfinished():
    trace = make_trace(4)
    run = make_run(trace[:6], status="stopped")
    assert "Stopped before the end: 4 requests unfinished." in render_html(run)


def test_a_failed_run_says_why():
    run = make_run(make_trace(2)[:3], status="failed")
    run.error = MemoryError("no room for 9 blocks")
    assert "MemoryError: no room for 9 blocks" in render_html(run)


def test_a_failure_in_a_step_names_the_step():
    run = make_run(make_trace(2)[:3], status="failed")
    run.error, run.failed_step = MemoryError("no room for 9 blocks"), 3
    assert "Step 3 failed with MemoryError: no room for 9 blocks" in render_html(run)


def test_a_run_can_be_looked_at_while_it_is_running():
    assert "running" in render_html(make_run(make_trace(3)[:4], status="running"))


def test_three_hundred_steps_of_eight_requests_stay_below_sixty_kilobytes():
    trace = make_trace(8, 110, max_seqs=4, blocks=48, budget=48)
    assert 250 <= len(trace) <= 400
    assert len(render_html(make_run(trace)).encode()) < 60_000


def test_ten_thousand_steps_stay_below_a_hundred_kilobytes():
    run = make_run(make_trace(8, 3_400, max_seqs=3, blocks=900))
    assert len(run.trace) > 8_000
    for output in run.outputs:
        output.text = "short"
    assert len(render_html(run).encode()) < 100_000


def test_without_style_and_pictures_the_outputs_and_numbers_still_read():
    run = make_run(make_trace(2), prompts={"r0": "Why?"})
    said = Page(render_html(run)).said("pre", "td", "div", "small", "b", "span")
    assert "Why?" in said
    assert "unfinished" not in said


def test_math_typesetting_is_told_to_leave_outputs_alone():
    assert render_html(make_run(make_trace(1))).startswith('<div class="wb-run mathjax_ignore tex2jax_ignore">')


def test_only_class_names_of_our_own_are_used():
    page = Page(render_html(make_run(make_trace(3))))
    classes = {name for key, value in page.attributes if key == "class" for name in value.split()}
    assert all(name.startswith("wb-") or name in ("mathjax_ignore", "tex2jax_ignore") for name in classes)


def test_no_heading_of_a_result_enters_the_notebooks_contents():
    assert not {"h1", "h2", "h3", "h4", "h5", "h6"} & set(Page(render_html(make_run(make_trace(3)))).tags)


def test_the_bundle_has_text_html_and_svg():
    bundle = mimebundle(make_run(make_trace(3)))
    assert list(bundle) == ["text/plain", "text/html", "image/svg+xml"]
    assert bundle["image/svg+xml"].startswith("<svg ")


def test_a_run_is_asked_for_its_figures_once():
    asked = []
    run = make_run(make_trace(2))

    class Once(SimpleNamespace):
        trace, outputs, status, error = run.trace, run.outputs, "finished", None

        @property
        def metrics(self):
            asked.append(1)
            return run.metrics

    mimebundle(Once())
    assert len(asked) == 1


def test_a_run_is_called_by_its_variable():
    run = make_run(make_trace(2))
    run.name = "later"
    html, text = render_html(run), mimebundle(run)["text/plain"]
    assert "<b>later</b>" in html
    assert "later.steps" in html
    assert "later.steps" in text
    run.name = "run 3, forked at step 1"
    assert "<code>run.steps</code>" in render_html(run)


def test_a_real_run_displays_itself():
    run = scripted_run([[1, 2, 3]], max_tokens=3)
    run.with_player = False
    assert run._repr_mimebundle_()["text/html"] == render_html(run)

from __future__ import annotations

import io
import re

import pytest
from render_fixtures import make_run, make_trace, scripted_run, speculative_run
from rich.console import Console

from workbench.render._format import escape, ms, number, percent, plain, plural, seconds, shorten
from workbench.render.text import render_text, rich_result
from workbench.trace import Trace


def printed(run, width=110) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(rich_result(run))
    return console.file.getvalue()


@pytest.mark.parametrize("render", [render_text, printed])
def test_prompt_output_and_numbers_are_there(render):
    text = render(make_run(make_trace(3), texts={"r1": "2, 3 and 5."}, prompts={"r1": "Name three primes."}))
    for words in ("Name three primes.", "2, 3 and 5.", "TTFT", "finished", "tok/s", "P prefill"):
        assert words in text


@pytest.mark.parametrize("render", [render_text, printed])
def test_control_characters_of_an_output_are_shown_and_not_obeyed(render):
    text = render(make_run(make_trace(1), texts={"r0": "\x1b[31mred\x07\x9b2J\u202egnp"}, prompts={"r0": "a\x1b]0;t\x07"}))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "␛[31mred" in text


def test_rich_markup_in_an_output_stays_text():
    assert "[bold red]x[/] [/nothing]" in printed(make_run(make_trace(1), texts={"r0": "[bold red]x[/] [/nothing]"}))


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_asked(width):
    run = make_run(make_trace(6), texts={"r0": "long " * 100})
    body = [line for line in render_text(run, width).splitlines()[3:] if "one column per" not in line and not line.startswith("Times")]
    outputs = [line for line in body if not line.lstrip().startswith("(")]
    assert max(map(len, outputs)) <= width


def test_the_timeline_has_one_letter_per_step_and_request():
    run = scripted_run([[1] * 20, [2] * 30], max_num_seqs=1, max_tokens=4)
    assert re.search(r"^r0 +Pddd$", render_text(run), re.M)
    assert re.search(r"^r1 +\.\.\.\.Pddd$", render_text(run), re.M)


def test_a_long_output_is_cut_and_says_so():
    assert "more lines" in render_text(make_run(make_trace(1), texts={"r0": "line\n" * 50}))


@pytest.mark.parametrize("render", [render_text, printed])
def test_a_line_tells_of_speculation_and_what_it_gave(render):
    """6 of 8 drafts; 8 tokens take 160 ms in plain steps and took 80.  A draft takes an eighth of a plain step: 4 / (4 / 8 + 1)."""
    text = " ".join(render(speculative_run(), width=200).split())
    assert (
        "Speculation (eagle, auto, at most 6 drafts): 75 % of the drafts accepted, 4 tokens per verification; "
        "2 times as fast as plain steps, 2.67 predicted." in text
    )
    assert "Proposing" not in text
    assert "Speculation" not in render(make_run(make_trace(3)))


@pytest.mark.parametrize("render", [render_text, printed])
def test_without_a_plain_step_no_speed_up_is_told(render):
    text = " ".join(render(speculative_run(plain=False), width=200).split())
    assert (
        "Speculation (eagle, auto, at most 6 drafts): 75 % of the drafts accepted, 4 tokens per verification; "
        "speed-up – (no step without drafts in this run: compare with a run without speculation)." in text
    )


@pytest.mark.parametrize("render", [render_text, printed])
def test_a_proposer_that_failed_is_told_harmlessly(render):
    text = render(speculative_run(problem="ValueError: draft \x1b[31m9"), width=200)
    assert "Proposing drafts failed after 1 step, first after step 0: ValueError: draft ␛[31m9." in text


def test_of_what_a_proposer_said_at_length_the_beginning_is_told():
    text = render_text(speculative_run(problem="ValueError: " + "no idea " * 500), width=200)
    (line,) = re.findall(r"Proposing drafts failed.*?…\.", " ".join(text.split()))
    assert len(line) < 300


def test_the_line_on_speculation_is_folded_where_the_terminal_is_narrow():
    assert max(map(len, render_text(speculative_run(), width=60).splitlines()[2:5])) <= 60


def test_speculation_that_proposed_nothing_says_so():
    trace = speculative_run().trace
    text = render_text(make_run(Trace(trace.config, trace.model, trace.requests.values(), list(trace)[:3])))
    assert "Speculation (eagle, auto, at most 6 drafts): no draft was verified." in text


def test_a_run_without_steps_is_readable():
    trace = make_trace(2)
    text = render_text(make_run(Trace(trace.config, trace.model, trace.requests.values()), status="stopped"))
    assert "no steps" in text
    assert "Stopped before the end: 2 requests unfinished." in text


def test_numbers_keep_about_three_digits_and_never_an_exponent():
    assert [number(value) for value in (0, 0.04567, 4.567, 456.7, 45678, 1e7)] == ["0", "0.046", "4.57", "457", "45,678", "10,000,000"]


def test_missing_numbers_are_a_dash():
    assert [ms(None), number(float("nan")), percent(None), seconds(float("inf"))] == ["–"] * 4


def test_units_follow_the_size():
    assert [ms(3.456), ms(212.3), ms(1_234), seconds(0.5), seconds(12.34)] == ["3.46 ms", "212 ms", "1.23 s", "500 ms", "12.3 s"]


def test_shares_are_whole_per_cent_from_ten_up():
    assert [percent(share) for share in (0, 0.005, 0.055, 0.41, 1)] == ["0 %", "0.5 %", "5.5 %", "41 %", "100 %"]


def test_plurals():
    assert [plural(1, "step"), plural(2, "step"), plural(1200, "pass")] == ["1 step", "2 steps", "1,200 passes"]


def test_escaping_covers_markup_quotes_and_what_xml_cannot_hold():
    assert escape("<a href='x'>&\"\x00\ud800") == "&lt;a href=&#x27;x&#x27;&gt;&amp;&quot;\ufffd\ufffd"


def test_plain_text_keeps_newlines_and_words():
    assert plain("a\r\nb\tc\x00") == "a\nb\tc␀"


def test_shortening_marks_its_cut():
    assert shorten("one two  three", 9) == "one two …"
